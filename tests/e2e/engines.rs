//! Interfaces whose forwarded frames are kept from local sockets, through tc and through XDP.

use std::time::{Duration, Instant};

use cangw_tests::frame::{BRS, EFF, Frame};
use cangw_tests::kernel;
use cangw_tests::lab::{Lab, Link};
use cangw_tests::namespace::Namespace;
use cangw_tests::socket::CanSocket;
use cangw_tests::tool::{Cangw, json};

/// After this time, what has not happened never will.
const PATIENCE: Duration = Duration::from_secs(20);
const LINKS: [Link; 4] = [
    Link::Vxcan("x0"),
    Link::Vxcan("x1"),
    Link::Vxcan("x2"),
    Link::Vcan("v0"),
];

fn frames() -> Vec<Frame> {
    vec![
        Frame::classic(0x123, &[1, 2, 3, 4, 5, 6, 7, 8]),
        Frame::classic(EFF | 0x1234_5678, &[]),
        // The emulated controllers lose step at longer remote frames.
        Frame::remote(0x123, 0),
        Frame::classic(0x7FF, &[0xFF; 8]),
    ]
}

fn fd_frames() -> Vec<Frame> {
    vec![
        Frame::fd(0x123, 0, &[]),
        Frame::fd(EFF | 0x1234_5678, BRS, &[0xA5; 64]),
    ]
}

/// Data bytes are counted whichever way a frame goes: as many as it came with, those of remote requests not.
#[test]
fn bytes_are_counted_on_every_way() {
    for (rules, kind) in [
        (&["-s x0 -d x1"][..], "classic"),
        (&["-s x0 -d x1 --exclusive --engine tc"], "classic"),
        (&["-s x0 -d x1 --exclusive --engine xdp"], "classic"),
        (&["-s x0 -d x1 -m SET:L:000.3.0000000000000000"], "classic"),
        (&["-s x0 -d x1 --rate 10000/s"], "classic"),
        (&["-s x0 -d x1", "-s x0 -d x2"], "classic"),
        (
            &["-s x0 -d x1 -m SET:L:000.3.0000000000000000", "-s x0 -d x2"],
            "classic",
        ),
        (
            &[
                "-s x0 -d x1 --exclusive --engine xdp",
                "-s x0 -d x2 --exclusive --engine xdp",
            ],
            "classic",
        ),
        (&["-s x0 --pass"], "classic"),
        (&["-s x0 -d x1 -X"], "fd"),
        (&["-s x0 -d x1 -X --rate 10000/s"], "fd"),
        (&["-s x0 -d x1 --xl"], "xl"),
        (&["-s x0 -d x1 --xl --rate 10000/s"], "xl"),
    ] {
        let namespace = Namespace::new("bytes");
        let mtu = if kind == "xl" { 2060 } else { 72 };
        for name in ["x0", "x1", "x2"] {
            namespace.ip(&format!("link add {name} type vxcan peer name {name}p"));
            for name in [name, &format!("{name}p")] {
                namespace.ip(&format!("link set {name} mtu {mtu} up"));
            }
        }
        let frames = match kind {
            "classic" => [
                Frame::classic(0x123, &[1, 2, 3, 4, 5]),
                Frame::remote(0x124, 8),
            ],
            "fd" => [Frame::fd(0x123, 0, &[1; 4]), Frame::fd(0x124, BRS, &[1])],
            _ => [
                Frame::xl(0x123, 0, 0, &[1; 4]),
                Frame::xl(0x124, 0, 0, &[1]),
            ],
        };
        for rule in rules {
            Cangw::Ours.must(&namespace, &format!("rule add {rule}"));
        }
        let sender = CanSocket::open(&namespace, "x0p").deaf();
        for frame in &frames {
            sender.send(frame);
        }
        let begin = Instant::now();
        loop {
            let report = json(&namespace, "rule list --json");
            let mut report = report.as_array().expect("rules").iter();
            if report.all(|rule| rule["handled"] == 2 && rule["bytes"] == 5) {
                break;
            }
            assert!(begin.elapsed() < PATIENCE, "{rules:?}: {report:?}");
        }
        // Tables that go take nothing with them.
        Cangw::Ours.must(&namespace, "interface set x0 engine tc");
        let report = json(&namespace, "rule list --json");
        let bytes = |rule: &serde_json::Value| rule["bytes"].as_u64();
        let all: Option<u64> = report.as_array().expect("rules").iter().map(bytes).sum();
        assert_eq!(all, Some(5 * rules.len() as u64), "{rules:?}");
        Cangw::Ours.must(&namespace, "-F");
    }
}

fn engine_of(lab: &Lab, interface: &str) -> String {
    let interfaces = json(&lab.namespace, "interface list --json");
    let found = interfaces
        .as_array()
        .and_then(|all| all.iter().find(|i| i["name"] == interface))
        .unwrap_or_else(|| panic!("{interface} is listed: {interfaces:#}"));
    found["engine"].as_str().unwrap_or("none").to_owned()
}

/// Forwards classic and FD frames from `x0`; what no rule takes goes to its local sockets.
fn forwards_exclusively(engine: &str) {
    let mut lab = Lab::new("engines", &LINKS);
    for rule in ["-X -f 123:0", "-f 123~7FF", "-f 123:7FF"] {
        let target = if rule.contains('~') { "x2" } else { "x1" };
        Cangw::Ours.must(
            &lab.namespace,
            &format!("rule add -s x0 -d {target} {rule} --exclusive --engine {engine}"),
        );
    }
    assert_eq!(engine_of(&lab, "x0"), engine);
    for frame in frames().iter().chain(&fd_frames()) {
        lab.send("x0p", frame);
    }
    let mut seen = lab.take();
    assert_eq!(seen.remove("x0"), None, "local sockets of the source");
    let on = |id: &dyn Fn(u32) -> bool| -> Vec<Frame> {
        frames().into_iter().filter(|f| id(f.id())).collect()
    };
    let by_id = |id| id & 0x7FF == 0x123;
    assert_eq!(seen["x1p"], [on(&by_id), fd_frames()].concat());
    assert_eq!(seen["x2p"], on(&|id| !by_id(id)));
    let counts: Vec<_> = Cangw::Ours
        .list(&lab.namespace)
        .iter()
        .map(|rule| (rule.handled, rule.dropped, rule.deleted))
        .collect();
    assert_eq!(counts, [(2, 0, 0), (2, 0, 0), (2, 0, 0)]);

    // Without a rule that takes them, frames go on as if there were no gateway.
    Cangw::Ours.must(&lab.namespace, "-D -s x0 -d x1 -f 123:7FF");
    lab.send("x0p", &frames()[0]);
    assert_eq!(lab.take_on("x0"), frames()[..1]);

    // A target that is down does not take frames.
    lab.namespace.ip("link set x2 down");
    lab.send("x0p", &frames()[1]);
    let rule = &Cangw::Ours.list(&lab.namespace)[0];
    assert_eq!((rule.handled, rule.dropped), (2, 1), "{rule:?}");
}

#[test]
fn tc_exclusive() {
    forwards_exclusively("tc");
}

#[test]
fn xdp_exclusive() {
    forwards_exclusively("xdp");
}

/// The kernel keeps frames that act_mirred redirected away from generic XDP, also at the other end of a pair.
#[test]
fn xdp_serves_what_another_gateway_redirects() {
    let mut lab = Lab::new("engines", &LINKS);
    Cangw::Ours.must(&lab.namespace, "rule add -s x0 -d x1 --exclusive");
    Cangw::Ours.must(
        &lab.namespace,
        "rule add -s x1p -d x2 -f 123:7FF --exclusive --engine xdp",
    );
    let (to_forward, other) = (Frame::classic(0x123, &[1]), Frame::classic(0x124, &[2]));
    for frame in [&to_forward, &other] {
        lab.send("x0p", frame);
    }
    let seen = lab.take();
    assert_eq!(seen["x2p"], std::slice::from_ref(&to_forward));
    assert_eq!(
        seen["x1p"],
        std::slice::from_ref(&other),
        "no rule takes it"
    );
    // From elsewhere they come to XDP.
    for frame in [&to_forward, &other] {
        lab.send("x1", frame);
    }
    assert_eq!(lab.take()["x2p"], [to_forward]);
    let handled: Vec<_> = Cangw::Ours.list(&lab.namespace);
    assert_eq!(
        handled.iter().map(|r| r.handled).collect::<Vec<_>>(),
        [2, 2]
    );
    let interfaces = json(&lab.namespace, "interface list --json");
    assert_eq!(interfaces[1]["name"], "x1p");
    assert_eq!(
        interfaces[1]["reasons"]["unmatched"], 2,
        "each once: {interfaces:#}"
    );
}

/// Two gateways whose interfaces have the same indices: a redirect of one that fails is no business of the other.
#[test]
fn xdp_counts_its_own_errors_only() {
    let labs: Vec<Lab> = (0..2).map(|_| Lab::new("engines", &LINKS)).collect();
    let rule = "rule add -s x0 -d x1 --exclusive --engine xdp";
    labs.iter()
        .for_each(|lab| drop(Cangw::Ours.must(&lab.namespace, rule)));
    let frame = Frame::classic(0x123, &[1]);
    let senders = labs
        .iter()
        .map(|lab| CanSocket::open(&lab.namespace, "x0p"))
        .collect::<Vec<_>>();
    let receiver = CanSocket::open(&labs[0].namespace, "x1p");
    labs[1].namespace.ip("link set x1 down");
    for _ in 0..20 {
        senders[0].send(&frame);
        assert_eq!(receiver.receive(), frame);
        senders[1].send(&frame);
    }
    let counts = |lab: &Lab| {
        let rule = &Cangw::Ours.list(&lab.namespace)[0];
        (rule.handled, rule.dropped)
    };
    assert_eq!(
        labs.iter().map(counts).collect::<Vec<_>>(),
        [(20, 0), (0, 20)]
    );
}

#[test]
fn exclusive_with_several_targets_and_echo() {
    let mut lab = Lab::new("engines", &LINKS);
    for rule in ["-d x1", "-d x2 -f 123:7FF", "-d v0 -e"] {
        Cangw::Ours.must(
            &lab.namespace,
            &format!("rule add -s x0 {rule} --exclusive"),
        );
    }
    assert_eq!(engine_of(&lab, "x0"), "tc");
    for frame in &frames() {
        lab.send("x0p", frame);
    }
    let seen = lab.take();
    assert_eq!(seen.get("x0"), None);
    assert_eq!(seen["x1p"], frames());
    assert_eq!(seen["v0"], frames());
    assert_eq!(seen["x2p"].len(), 2);
}

#[test]
fn engines_can_be_changed() {
    let mut lab = Lab::new("engines", &LINKS);
    Cangw::Ours.must(&lab.namespace, "-A -s x0 -d x1");
    let mut sent = 0;
    for (change, engine, local) in [
        ("exclusive off", "tc", true),
        ("exclusive on", "tc", false),
        ("engine xdp", "xdp", false),
        ("engine tc", "tc", false),
        ("engine xdp", "xdp", false),
        ("engine auto", "tc", false),
        ("exclusive off", "tc", true),
    ] {
        Cangw::Ours.must(&lab.namespace, &format!("interface set x0 {change}"));
        assert_eq!(engine_of(&lab, "x0"), engine, "after {change}");
        lab.send("x0p", &frames()[0]);
        sent += 1;
        let seen = lab.take();
        assert_eq!(seen["x1p"], frames()[..1], "after {change}");
        assert_eq!(seen.contains_key("x0"), local, "after {change}");
        let handled = Cangw::Ours.list(&lab.namespace)[0].handled;
        assert_eq!(handled, sent, "after {change}");
    }
}

#[test]
fn xdp_is_refused_where_it_cannot_serve() {
    let lab = Lab::new("engines", &LINKS);
    for (before, add, reason) in [
        ("", "-s x0 -d x1 --engine xdp", "not exclusive"),
        ("", "-s x0 -d v0 -e --engine xdp --exclusive", "echoes"),
        (
            "rule add -s x0 -d x1; rule add -s x0 -d x2",
            "-s x0 -d v0 -f 123:7FF --engine xdp --exclusive",
            "not the same ones",
        ),
        (
            "rule add -s x1 -d x0 -e",
            "-s x0 -d x2 --engine xdp --exclusive",
            "another rule echoes",
        ),
    ] {
        for command in before.split("; ").filter(|command| !command.is_empty()) {
            Cangw::Ours.must(&lab.namespace, command);
        }
        let rules = Cangw::Ours.list(&lab.namespace);
        let answer = Cangw::Ours.run(&lab.namespace, &format!("rule add {add}"));
        assert_eq!(answer.code, 1, "{add}: {answer:?}");
        assert!(answer.stderr.contains(reason), "{add}: {answer:?}");
        assert_eq!(Cangw::Ours.list(&lab.namespace), rules, "{add}");
        Cangw::Ours.must(&lab.namespace, "-F");
    }
    // And a rule that comes later.
    Cangw::Ours.must(
        &lab.namespace,
        "rule add -s x0 -d x1 --exclusive --engine xdp",
    );
    let answer = Cangw::Ours.run(&lab.namespace, "-A -s x0 -d v0 -e");
    assert_eq!(answer.code, 1, "{answer:?}");
    assert_eq!(Cangw::Ours.list(&lab.namespace).len(), 1);
}

/// Before Linux 7, a driver's private bytes stand before its frames, and XDP would send them along.
fn xdp_takes_drivers() -> bool {
    kernel::version() >= (7, 0)
}

#[test]
fn xdp_from_a_controller() {
    let mut lab = Lab::new(
        "engines",
        &[
            Link::Hardware("can0"),
            Link::Hardware("can1"),
            Link::Hardware("can2"),
            Link::Hardware("can3"),
            Link::Vxcan("x0"),
        ],
    );
    for (target, far) in [("x0", "x0p"), ("can2", "can3")] {
        let rule = format!("rule add -s can0 -d {target} --exclusive --engine xdp");
        if !xdp_takes_drivers() {
            let answer = Cangw::Ours.run(&lab.namespace, &rule);
            assert_eq!(answer.code, 1, "{answer:?}");
            assert!(answer.stderr.contains("private bytes"), "{answer:?}");
            assert_eq!(Cangw::Ours.list(&lab.namespace), []);
            continue;
        }
        Cangw::Ours.must(&lab.namespace, &rule);
        assert_eq!(engine_of(&lab, "can0"), "xdp");
        for frame in &frames() {
            lab.relay("can1", far, frame);
        }
        let seen = lab.take();
        assert_eq!(seen[far], frames(), "to {target}");
        assert_eq!(seen.get("can0"), None, "local sockets of the source");
        let rule = &Cangw::Ours.list(&lab.namespace)[0];
        assert_eq!((rule.handled, rule.dropped), (frames().len() as u64, 0));
        Cangw::Ours.must(&lab.namespace, "-F");
    }
}

/// A rule that lets frames pass counts each echo that meets it, with its data.
#[test]
fn what_passes_is_counted_for_each_echo() {
    let lab = Lab::new("engines", &LINKS);
    for rule in [
        "-s x0 -d v0 -e",
        "-s x0 -d v0 -e -f 123:7FF",
        "-s v0 --pass",
    ] {
        Cangw::Ours.must(&lab.namespace, &format!("rule add {rule}"));
    }
    Cangw::Ours.must(&lab.namespace, "settings max-hops 2");
    lab.send("x0p", &Frame::classic(0x123, &[1, 2, 3]));
    let report = json(&lab.namespace, "rule list --json");
    let passes = &report[0];
    assert_eq!(passes["source"], "v0", "{report:#}");
    assert_eq!(
        (&passes["handled"], &passes["bytes"]),
        (&2.into(), &6.into()),
        "{report:#}"
    );
}
