//! Rules that drop, the policy `deny`, and the order of rules.

use std::collections::BTreeSet;

use cangw_tests::frame::{EFF, Frame};
use cangw_tests::lab::{Lab, Link};
use cangw_tests::namespace::Namespace;
use cangw_tests::recording;
use cangw_tests::tool::{Cangw, json};

const LINKS: [Link; 4] = [
    Link::Vxcan("x0"),
    Link::Vxcan("x1"),
    Link::Vcan("v0"),
    Link::Vcan("v1"),
];
const OTHERS: usize = 100_000;
const BATCH: usize = 5_000;

fn must(lab: &Lab, commands: &[&str]) {
    for command in commands {
        Cangw::Ours.must(&lab.namespace, command);
    }
}

/// A counter of an interface.
fn reason(namespace: &Namespace, interface: &str, name: &str) -> u64 {
    let stats = json(namespace, "stats --json");
    let interfaces = stats["interfaces"].as_array().expect("interfaces");
    let found = interfaces.iter().find(|i| i["name"] == interface);
    found.expect("the interface")["reasons"][name]
        .as_u64()
        .expect("a number")
}

/// Counters of the rules, oldest first.
fn counter(namespace: &Namespace, name: &str) -> Vec<u64> {
    let stats = json(namespace, "stats --json");
    let rules = stats["rules"].as_array().expect("rules");
    let count = |rule: &serde_json::Value| rule[name].as_u64().expect("a number");
    rules.iter().rev().map(count).collect()
}

/// A frame that the firewall does not name: another identifier, or one of its identifiers in another form.
fn other(rng: &mut fastrand::Rng, allowed: &BTreeSet<u32>) -> Frame {
    let known = || allowed.iter().next().copied().unwrap_or_default();
    let data = [rng.u8(..), rng.u8(..)];
    match rng.u8(..10) {
        0..4 => loop {
            let id = rng.u32(..0x800);
            if !allowed.contains(&id) {
                return Frame::classic(id, &data);
            }
        },
        4..7 => Frame::classic(EFF | rng.u32(..0x2000_0000), &data),
        7 => Frame::classic(EFF | known(), &data),
        8 => Frame::remote(known(), 2),
        _ => Frame::fd(known(), 0, &data),
    }
}

#[test]
fn deny_lets_only_a_vehicles_identifiers_pass() {
    let mut lab = Lab::new("deny", &LINKS);
    let frames = recording::frames();
    let ids: BTreeSet<u32> = recording::ids(&frames).into_keys().collect();
    must(
        &lab,
        &[
            "interface set x0 policy deny",
            &format!("rule add -s x0 -d x1 --id {}", recording::list(&ids)),
        ],
    );
    for batch in frames.chunks(BATCH) {
        batch.iter().for_each(|frame| lab.post("x0p", frame));
        let seen = lab.take();
        assert_eq!(seen["x1p"], batch, "every frame passes, in order");
        assert_eq!(seen["x0"], batch, "local sockets get them, too");
    }
    assert_eq!(reason(&lab.namespace, "x0", "denied"), 0);
    let mut rng = fastrand::Rng::with_seed(4);
    for _ in 0..OTHERS / BATCH {
        for _ in 0..BATCH {
            lab.post("x0p", &other(&mut rng, &ids));
        }
        let seen = lab.take();
        assert_eq!(seen.get("x1p"), None);
        assert_eq!(seen.get("x0"), None, "local sockets of the interface");
    }
    assert_eq!(reason(&lab.namespace, "x0", "denied"), OTHERS as u64);
    assert_eq!(counter(&lab.namespace, "handled"), [frames.len() as u64]);
    // And without the policy they are what they are with can-gw.
    must(&lab, &["interface set x0 policy allow"]);
    lab.send("x0p", &other(&mut rng, &ids));
    assert_eq!(lab.take_on("x0").len(), 1);
}

#[test]
fn deny_without_a_rule_denies_everything() {
    let mut lab = Lab::new("deny-all", &LINKS);
    must(&lab, &["interface set x0 policy deny"]);
    lab.send("x0p", &Frame::classic(0x123, &[1]));
    lab.send("x1p", &Frame::classic(0x123, &[1]));
    let seen = lab.take();
    assert_eq!(seen.get("x0"), None);
    assert_eq!(seen["x1"].len(), 1, "another interface");
    // What a program of this host sends leaves, and also appears here, as with can-gw: there it is denied.
    lab.send("x0", &Frame::classic(0x321, &[1]));
    let seen = lab.take();
    assert_eq!((seen["x0p"].len(), seen.get("x0")), (1, None));
    // A rule that comes and goes leaves the policy.
    must(
        &lab,
        &[
            "rule add -s x0 --pass --id 123",
            "rule delete -s x0 --pass --id 123",
        ],
    );
    lab.send("x0p", &Frame::classic(0x123, &[1]));
    assert_eq!(lab.take().get("x0"), None);
    assert_eq!(reason(&lab.namespace, "x0", "denied"), 3);
    must(&lab, &["-F"]);
    lab.send("x0p", &Frame::classic(0x123, &[1]));
    assert_eq!(lab.take_on("x0").len(), 1);
}

#[test]
fn pass_names_frames_for_local_sockets_and_watch_does_not() {
    let mut lab = Lab::new("pass", &LINKS);
    must(
        &lab,
        &[
            "interface set x0 policy deny",
            "rule add -s x0 --pass --id 100-1FF",
            "rule add -s x0 --watch",
        ],
    );
    lab.send("x0p", &Frame::classic(0x123, &[1]));
    lab.send("x0p", &Frame::classic(0x223, &[1]));
    let seen = lab.take();
    assert_eq!(seen["x0"], [Frame::classic(0x123, &[1])]);
    assert_eq!(counter(&lab.namespace, "handled"), [1, 2]);
    assert_eq!(reason(&lab.namespace, "x0", "denied"), 1);
}

#[test]
fn a_drop_wins_unless_its_priority_is_lower() {
    for exclusive in ["", "--exclusive"] {
        let mut lab = Lab::new("drop", &LINKS);
        must(
            &lab,
            &[
                &format!("rule add -s x0 -d x1 {exclusive}"),
                "rule add -s x0 -d v0 -e -m SET:D:0.0.0900000000000000 --id 123 --priority 7",
                "rule add -s x0 --drop --id 100-1FF",
            ],
        );
        for id in [0x0FF, 0x100, 0x123, 0x1FF, 0x200] {
            lab.send("x0p", &Frame::classic(id, &[1]));
        }
        let frame = |id| Frame::classic(id, &[1]);
        let seen = lab.take();
        assert_eq!(seen["x1p"], [frame(0x0FF), frame(0x200)]);
        assert_eq!(
            seen["v0"],
            [Frame::classic(0x123, &[9])],
            "of higher priority"
        );
        let local = seen.get("x0").cloned().unwrap_or_default();
        if exclusive.is_empty() {
            assert_eq!(
                local,
                [frame(0x0FF), frame(0x200)],
                "dropped for local sockets, too"
            );
        } else {
            assert_eq!(local, []);
        }
        assert_eq!(counter(&lab.namespace, "handled"), [2, 1, 0]);
        assert_eq!(counter(&lab.namespace, "dropped_by_rule"), [0, 0, 3]);
        // The list can be used in a script.
        let listed = Cangw::Ours.list(&lab.namespace);
        assert_eq!(listed[0].rule, "-s x0 --drop --id 100-1FF");
        assert_eq!(listed[0].dropped, 3);
        must(&lab, &["rule delete -s x0 --drop --id 100-1FF"]);
        lab.send("x0p", &frame(0x100));
        assert_eq!(lab.take_on("x1p"), [frame(0x100)]);
    }
}

/// The rule that echoes decided about its target's local sockets; what the echo would do further is stopped.
#[test]
fn an_echo_is_delivered_but_goes_no_further() {
    let mut lab = Lab::new("drop-echo", &LINKS);
    must(
        &lab,
        &[
            "settings max-hops 3",
            "interface set v0 policy deny",
            "rule add -s x0 -d v0 -e",
            "rule add -s v0 -d v1 -e --id 000-7FF",
            "rule add -s v0 --drop --id 300",
        ],
    );
    lab.allow_hops(2);
    lab.send("x0p", &Frame::classic(0x123, &[1]));
    lab.send("x0p", &Frame::classic(0x300, &[1]));
    let seen = lab.take();
    assert_eq!(
        seen["v0"],
        [Frame::classic(0x123, &[1]), Frame::classic(0x300, &[1])]
    );
    assert_eq!(seen["v1"], [Frame::classic(0x123, &[1])]);
    assert_eq!(counter(&lab.namespace, "dropped_by_rule"), [0, 0, 1]);
}

#[test]
fn remote_and_extended_frames_are_not_meant_by_a_standard_identifier() {
    let mut lab = Lab::new("forms", &LINKS);
    must(
        &lab,
        &["rule add -s x0 -d x1 --id 123,18FEF100-18FEF1FF --pgn EF00 --sa 05"],
    );
    let passing = [
        Frame::classic(0x123, &[1]),
        Frame::classic(EFF | 0x18FE_F1AB, &[2]),
        Frame::classic(EFF | 0x0CEF_FF05, &[3]),
    ];
    let stopped = [
        Frame::remote(0x123, 1),
        Frame::classic(EFF | 0x123, &[1]),
        Frame::classic(EFF | 0x18FE_F2AB, &[2]),
        Frame::classic(EFF | 0x0CEF_FF06, &[3]),
        Frame::remote(EFF | 0x18FE_F1AB, 1),
        Frame::fd(0x123, 0, &[1]),
    ];
    passing
        .iter()
        .chain(&stopped)
        .for_each(|f| lab.send("x0p", f));
    assert_eq!(lab.take_on("x1p"), passing);
}
