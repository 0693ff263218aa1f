//! Frames that XDP gives to all targets of an exclusive interface at once.

use std::fs;

use cangw_tests::frame::{BRS, EFF, Frame};
use cangw_tests::lab::{Lab, Link};
use cangw_tests::socket::CanSocket;
use cangw_tests::tool::{Cangw, json};

const LINKS: [Link; 5] = [
    Link::Vxcan("x0"),
    Link::Vxcan("x1"),
    Link::Vxcan("x2"),
    Link::Vxcan("x3"),
    Link::Vxcan("x4"),
];
const TARGETS: [&str; 4] = ["x1", "x2", "x3", "x4"];

/// A hub: what enters at `x0` leaves at all others. The rule for `x1` is the oldest, so that it is the last in order.
fn hub() -> Lab {
    let lab = Lab::new("fan", &LINKS);
    Cangw::Ours.must(&lab.namespace, "interface set x0 exclusive on");
    Cangw::Ours.must(&lab.namespace, "interface set x0 engine xdp");
    for target in TARGETS {
        Cangw::Ours.must(&lab.namespace, &format!("-A -s x0 -d {target}"));
    }
    lab
}

fn frames() -> Vec<Frame> {
    vec![
        Frame::classic(0x123, &[1, 2, 3, 4, 5, 6, 7, 8]),
        Frame::classic(EFF | 0x1234_5678, &[]),
        Frame::remote(0x7FF, 8),
    ]
}

/// Sends all frames, each of which must arrive at these targets and nowhere else.
fn all_arrive(lab: &mut Lab, targets: &[&str]) {
    for frame in &frames() {
        lab.send("x0p", frame);
    }
    let seen = lab.take();
    for name in TARGETS {
        let expected = if targets.contains(&name) {
            frames()
        } else {
            Vec::new()
        };
        let found = seen.get(&format!("{name}p")).cloned().unwrap_or_default();
        assert_eq!(found, expected, "at {name}");
    }
    assert_eq!(seen.get("x0"), None, "local sockets of the source");
}

/// `handled` and `dropped` of the rule for each target, in order.
fn counts(lab: &Lab) -> Vec<(u64, u64)> {
    let mut rules = Cangw::Ours.list(&lab.namespace);
    rules.reverse();
    rules
        .iter()
        .map(|rule| (rule.handled, rule.dropped))
        .collect()
}

/// Instructions would tell more, but whether XDP served the frames shows in tc's filters, which then have seen none.
fn seen_by_tc(lab: &Lab) -> u64 {
    let text = lab
        .namespace
        .output("tc", &["-s", "filter", "show", "dev", "x0", "ingress"]);
    let packets = |line: &str| line.split_whitespace().nth(3)?.parse::<u64>().ok();
    let sent = text
        .lines()
        .filter(|line| line.trim_start().starts_with("Sent "));
    sent.filter_map(packets).sum()
}

#[test]
fn all_targets_get_every_frame() {
    let mut lab = hub();
    all_arrive(&mut lab, &TARGETS);
    assert_eq!(counts(&lab), [(3, 0); 4]);
    assert_eq!(seen_by_tc(&lab), 0);

    // What was counted outlives the tables by which it was counted.
    Cangw::Ours.must(&lab.namespace, "-D -s x0 -d x2");
    assert_eq!(counts(&lab), [(3, 0); 3]);
    all_arrive(&mut lab, &["x1", "x3", "x4"]);
    assert_eq!(counts(&lab), [(6, 0); 3]);
    for engine in ["tc", "xdp"] {
        Cangw::Ours.must(&lab.namespace, &format!("interface set x0 engine {engine}"));
        assert_eq!(counts(&lab), [(6, 0); 3], "after engine {engine}");
    }
    assert_eq!(seen_by_tc(&lab), 0);

    // And the interface itself.
    lab.namespace.ip("link del x0");
    Cangw::Ours.must(&lab.namespace, "sync");
    assert_eq!(counts(&lab), [(6, 0); 3], "without x0");
}

#[test]
fn it_is_chosen_where_it_costs_less() {
    let lab = Lab::new("fan", &LINKS);
    Cangw::Ours.must(&lab.namespace, "interface set x0 exclusive on");
    let engine = || json(&lab.namespace, "interface list --json")[0]["engine"].clone();
    for target in TARGETS {
        Cangw::Ours.must(&lab.namespace, &format!("-A -s x0 -d {target}"));
        let expected = if target == "x4" { "xdp" } else { "tc" };
        assert_eq!(engine(), expected, "with {target}");
    }
    // Not where frames would often be left to tc.
    Cangw::Ours.must(&lab.namespace, "-A -X -s x0 -d x1");
    assert_eq!(engine(), "tc");
}

#[test]
fn other_frames_are_left_to_tc() {
    let mut lab = hub();
    let fd = Frame::fd(0x123, BRS, &[0xA5; 64]);
    lab.send("x0p", &fd);
    assert_eq!(
        lab.take()["x0"],
        std::slice::from_ref(&fd),
        "no rule takes it"
    );
    Cangw::Ours.must(&lab.namespace, "-A -X -s x0 -d x1");
    lab.send("x0p", &fd);
    let seen = lab.take();
    assert_eq!(seen["x1p"], [fd]);
    assert_eq!(seen.get("x0"), None);
    let interfaces = json(&lab.namespace, "interface list --json");
    assert_eq!(interfaces[0]["reasons"]["unmatched"], 1, "{interfaces:#}");
    all_arrive(&mut lab, &TARGETS);
}

#[test]
fn a_target_that_goes_down_takes_nothing_from_the_others() {
    let mut lab = hub();
    all_arrive(&mut lab, &TARGETS);
    // Of all targets it is served before x1.
    lab.namespace.ip("link set x2 down");
    all_arrive(&mut lab, &["x1", "x3", "x4"]);
    assert_eq!(counts(&lab), [(6, 0), (3, 3), (6, 0), (6, 0)]);
    assert!(seen_by_tc(&lab) > 0);
    lab.namespace.ip("link set x2 up");
    all_arrive(&mut lab, &TARGETS);
    Cangw::Ours.must(&lab.namespace, "sync");
    let before = seen_by_tc(&lab);
    all_arrive(&mut lab, &TARGETS);
    assert_eq!(seen_by_tc(&lab), before, "back at XDP");
    assert_eq!(counts(&lab), [(12, 0), (9, 3), (12, 0), (12, 0)]);

    // One that is gone. Its watcher cannot be read any more.
    let receiver = CanSocket::open(&lab.namespace, "x1p");
    lab.namespace.ip("link del x3");
    for frame in &frames() {
        lab.post("x0p", frame);
        assert_eq!(receiver.receive(), *frame);
    }
}

/// Without the probe, nobody knows of a target that goes down, and the kernel's broadcast ends there.
#[test]
fn frames_that_miss_targets_are_counted() {
    let mut lab = hub();
    all_arrive(&mut lab, &TARGETS);
    {
        let _off = NoProbes::begin();
        lab.namespace.ip("link set x2 down");
    }
    // The newest rule's target is served first.
    all_arrive(&mut lab, &["x3", "x4"]);
    let interfaces = json(&lab.namespace, "interface list --json");
    assert_eq!(interfaces[0]["reasons"]["fan_out"], 3, "{interfaces:#}");
    assert_eq!(seen_by_tc(&lab), 0);
}

/// The kernel's probes are off as long as it lives.
struct NoProbes;

const SWITCH: &str = "/sys/kernel/debug/kprobes/enabled";

impl NoProbes {
    fn begin() -> Self {
        fs::write(SWITCH, "0").expect("probes can be switched off");
        Self
    }
}

impl Drop for NoProbes {
    fn drop(&mut self) {
        let _ = fs::write(SWITCH, "1");
    }
}
