//! Interfaces and processes come and go; rules stay.

use std::process::Command;
use std::thread;

use cangw_tests::frame::Frame;
use cangw_tests::lab::{Lab, Link};
use cangw_tests::namespace::Namespace;
use cangw_tests::socket::CanSocket;
use cangw_tests::tool::{Answer, Cangw, json};
use serde_json::Value;

const NOBODY: &str = "65534";

fn waiting(namespace: &Namespace) -> Vec<Value> {
    let rules = json(namespace, "rule list --json");
    let rules = rules.as_array().expect("a list of rules");
    rules
        .iter()
        .map(|rule| rule["waiting_for"].clone())
        .collect()
}

/// A frame that nobody else sends.
fn probe(number: u32) -> Frame {
    Frame::classic(0x123, &number.to_le_bytes())
}

/// Sends a frame and waits for it elsewhere; sockets are new each time, because they do not survive their interface.
fn arrives(namespace: &Namespace, from: &str, to: &[&str], frame: &Frame) {
    let receivers: Vec<_> = to.iter().map(|to| CanSocket::open(namespace, to)).collect();
    CanSocket::open(namespace, from).send(frame);
    for receiver in receivers {
        assert_eq!(receiver.receive(), *frame);
    }
}

#[test]
fn a_rule_waits_for_its_target_and_works_again() {
    let lab = Lab::new(
        "life",
        &[Link::Vxcan("x0"), Link::Vxcan("x1"), Link::Vxcan("x2")],
    );
    let namespace = &lab.namespace;
    Cangw::Ours.must(namespace, "-A -s x0 -d x1");
    Cangw::Ours.must(namespace, "-A -s x0 -d x2");
    arrives(namespace, "x0p", &["x1p", "x2p"], &probe(1));

    namespace.ip("link del x1");
    assert_eq!(waiting(namespace), [Value::Null, "x1".into()]);
    // can-gw's rule would be gone; nothing else may suffer.
    arrives(namespace, "x0p", &["x2p"], &probe(2));
    let listed = Cangw::Ours.run(namespace, "-L");
    assert_eq!(listed.code, 0);
    assert!(
        listed.stderr.contains("waits for interface x1"),
        "{listed:?}"
    );

    namespace.ip("link add x1 type vxcan peer name x1p\nlink set x1 up\nlink set x1p up");
    Cangw::Ours.must(namespace, "sync");
    assert_eq!(waiting(namespace), [Value::Null, Value::Null]);
    arrives(namespace, "x0p", &["x1p", "x2p"], &probe(3));
    let rules = Cangw::Ours.list(namespace);
    assert_eq!(rules[0].handled, 3);
    assert_eq!(rules[1].handled + rules[1].dropped, 3, "{:?}", rules[1]);
}

#[test]
fn a_rule_waits_for_its_source_and_works_again() {
    let lab = Lab::new(
        "life",
        &[Link::Vxcan("x0"), Link::Vxcan("x1"), Link::Vxcan("x2")],
    );
    let namespace = &lab.namespace;
    Cangw::Ours.must(namespace, "-A -s x0 -d x1 -f 123:7FF");
    Cangw::Ours.must(namespace, "-A -s x2 -d x1");
    namespace.ip("link del x0");
    assert_eq!(waiting(namespace), [Value::Null, "x0".into()]);
    arrives(namespace, "x2p", &["x1p"], &probe(1));
    // Changes are possible meanwhile.
    Cangw::Ours.must(namespace, "-A -s x1 -d x2 -f 124:7FF");
    Cangw::Ours.must(namespace, "-D -s x1 -d x2 -f 124:7FF");
    assert_eq!(waiting(namespace), [Value::Null, "x0".into()]);

    namespace.ip("link add x0 type vxcan peer name x0p\nlink set x0 up\nlink set x0p up");
    Cangw::Ours.must(namespace, "sync");
    assert_eq!(waiting(namespace), [Value::Null, Value::Null]);
    arrives(namespace, "x0p", &["x1p"], &probe(2));
}

#[test]
fn a_waiting_rule_can_be_deleted() {
    let lab = Lab::new("life", &[Link::Vxcan("x0"), Link::Vxcan("x1")]);
    Cangw::Ours.must(&lab.namespace, "-A -s x0 -d x1");
    Cangw::Ours.must(&lab.namespace, "-A -s x0 -d x1 -f 123:7FF");
    lab.namespace.ip("link del x1");
    Cangw::Ours.must(&lab.namespace, "-D -s x0 -d x1");
    assert_eq!(Cangw::Ours.list(&lab.namespace).len(), 1);
    Cangw::Ours.must(&lab.namespace, "-F");
    assert_eq!(Cangw::Ours.list(&lab.namespace), []);
}

/// Where frames arrive that rules forward, there is a qdisc already, of the kind that cannot echo.
#[test]
fn an_echo_comes_to_an_interface_that_has_rules() {
    let mut lab = Lab::new("life", &[Link::Vxcan("x0"), Link::Vxcan("x1")]);
    let (there, back) = (Frame::classic(0x1, &[]), Frame::classic(0x2, &[]));
    Cangw::Ours.must(&lab.namespace, "-A -s x0 -d x1 -f 1:F");
    lab.send("x0p", &there);
    assert_eq!(lab.take_on("x1p"), std::slice::from_ref(&there));

    let answer = Cangw::Ours.run(&lab.namespace, "-A -s x1 -d x0 -e -f 2:F");
    assert_eq!(
        (answer.code, answer.stderr.as_str()),
        (0, ""),
        "no frame arrived meanwhile"
    );
    lab.send("x0p", &there);
    assert_eq!(lab.take_on("x1p"), std::slice::from_ref(&there));
    lab.send("x1p", &back);
    let seen = lab.take();
    assert_eq!(seen["x0p"], std::slice::from_ref(&back));
    assert_eq!(seen["x0"], std::slice::from_ref(&back), "the echo");
    let rules = Cangw::Ours.list(&lab.namespace);
    assert_eq!(rules.iter().map(|r| r.handled).collect::<Vec<_>>(), [1, 2]);

    // Somebody else's qdisc of that kind stays as it is.
    let namespace = &lab.namespace;
    let tc = |arguments: &str| namespace.output("tc", &arguments.split(' ').collect::<Vec<_>>());
    Cangw::Ours.must(namespace, "-F");
    tc("qdisc add dev x1 ingress");
    let answer = Cangw::Ours.run(namespace, "-A -s x0 -d x1 -e");
    assert_ne!(answer.code, 0);
    assert!(
        answer.stderr.contains("x1 has an ingress qdisc"),
        "{answer:?}"
    );
    assert_eq!(Cangw::Ours.list(namespace), []);
    assert!(tc("qdisc show dev x1").contains("ingress"));
    Cangw::Ours.must(namespace, "-A -s x1 -d x0 -e");
    lab.send("x1p", &Frame::classic(0x3, &[]));
    assert_eq!(lab.take_on("x0p"), [Frame::classic(0x3, &[])]);
}

#[test]
fn a_rule_follows_a_new_name() {
    let lab = Lab::new("life", &[Link::Vxcan("x0"), Link::Vxcan("x1")]);
    let namespace = &lab.namespace;
    Cangw::Ours.must(namespace, "-A -s x0 -d x1");
    namespace.ip("link set x0 down\nlink set x0 name body\nlink set body up");
    namespace.ip("link set x1 down\nlink set x1 name motor\nlink set motor up");
    arrives(namespace, "x0p", &["x1p"], &probe(1));
    assert_eq!(Cangw::Ours.list(namespace)[0].rule, "-s body -d motor");
    Cangw::Ours.must(namespace, "sync");
    arrives(namespace, "x0p", &["x1p"], &probe(2));
    let rules = Cangw::Ours.list(namespace);
    assert_eq!(
        (rules[0].rule.as_str(), rules[0].handled),
        ("-s body -d motor", 2)
    );
    Cangw::Ours.must(namespace, "-D -s body -d motor");
}

#[test]
fn a_rule_is_deleted_by_the_names_of_now() {
    let lab = Lab::new("life", &[Link::Vxcan("x0"), Link::Vxcan("x1")]);
    let namespace = &lab.namespace;
    Cangw::Ours.must(namespace, "-A -s x0 -d x1 -f 123:7FF");
    Cangw::Ours.must(namespace, "-A -s x1 -d x0");
    namespace.ip("link set x0 down\nlink set x0 name body\nlink set body up");
    // Nothing happened between the change of name and this.
    Cangw::Ours.must(namespace, "-D -s body -d x1 -f 123:7FF");
    assert_eq!(Cangw::Ours.list(namespace)[0].rule, "-s x1 -d body");
    let old = Cangw::Ours.run(namespace, "-D -s x1 -d x0");
    assert_eq!(old.code, 1, "{old:?}");
    assert!(old.stderr.contains("x0"), "{old:?}");
    Cangw::Ours.must(namespace, "-D -s x1 -d body");
    assert_eq!(Cangw::Ours.list(namespace), []);
}

#[test]
fn twenty_calls_at_once() {
    const CALLS: u32 = 20;
    let lab = Lab::new("life", &[Link::Vxcan("x0"), Link::Vxcan("x1")]);
    let namespace = &lab.namespace;
    thread::scope(|scope| {
        for id in 0..CALLS {
            scope.spawn(move || {
                Cangw::Ours.must(namespace, &format!("-A -s x0 -d x1 -f {id:X}:7FF"))
            });
        }
    });
    let mut filters: Vec<String> = Cangw::Ours
        .list(namespace)
        .into_iter()
        .map(|r| r.rule)
        .collect();
    filters.sort();
    let expected: Vec<_> = (0..CALLS)
        .map(|id| format!("-s x0 -d x1 -f {id:03X}:7FF"))
        .collect();
    assert_eq!(filters, expected);
    for id in 0..CALLS {
        arrives(namespace, "x0p", &["x1p"], &Frame::classic(id, &[]));
    }
}

#[test]
fn bad_input_changes_nothing() {
    let lab = Lab::new("life", &[Link::Vxcan("x0"), Link::Vxcan("x1")]);
    let namespace = &lab.namespace;
    Cangw::Ours.must(namespace, "-A -s x0 -d x1 -f 123:7FF");
    Cangw::Ours.must(namespace, "-A -s x0 -d x1 -X -t");
    arrives(namespace, "x0p", &["x1p"], &probe(1));
    let before = json(namespace, "stats --json");
    for arguments in [
        "-A -s x0 -d nosuch",
        "-A -s x0 -d lo",
        "-A -s x0 -d x0",
        "-A -s x0 -d x1 -l 5",
        "-A -s x0 -d x1 -f nonsense",
        "-A -s x0 -d x1 --nonsense",
        "-A -s x0 -d x1 -m SET:I:1.1.1",
        "-D -s x0 -d x1 -f 124:7FF",
        "rule add -s x0 -d x1 --engine xdp",
        "rule load /nosuch",
        "settings max-hops 7",
        "interface set nosuch exclusive on",
        "interface set lo exclusive on",
        "interface set x0 engine xdp",
    ] {
        let answer = Cangw::Ours.run(namespace, arguments);
        assert_ne!(answer.code, 0, "cangw {arguments}");
        assert_ne!(answer.stderr, "", "cangw {arguments}");
        assert_eq!(
            json(namespace, "stats --json"),
            before,
            "after cangw {arguments}"
        );
    }
    arrives(namespace, "x0p", &["x1p"], &probe(2));
    assert_eq!(Cangw::Ours.list(namespace)[1].handled, 2);
}

/// `ip netns exec` mounts a /sys of its own, without bpffs.
#[test]
fn ip_netns_exec_finds_the_rules() {
    let lab = Lab::new("life", &[Link::Vxcan("x0"), Link::Vxcan("x1")]);
    let exec = |arguments: &str| -> Answer {
        Command::new("ip")
            .args(["netns", "exec", lab.namespace.name()])
            .arg(Cangw::Ours.path())
            .args(arguments.split(' '))
            .output()
            .expect("`ip` runs")
            .into()
    };
    let added = exec("-A -s x0 -d x1 -f 123:7FF");
    assert_eq!(added.code, 0, "{added:?}");
    let listed = exec("-L");
    assert!(
        listed.stdout.contains("-s x0 -d x1 -f 123:7FF"),
        "{listed:?}"
    );
    // With and without it, the rules are the same.
    assert_eq!(Cangw::Ours.list(&lab.namespace).len(), 1);
    arrives(&lab.namespace, "x0p", &["x1p"], &probe(1));
    assert_eq!(exec("-F").code, 0);
    assert_eq!(Cangw::Ours.list(&lab.namespace), []);
}

#[test]
fn namespaces_have_their_own_rules() {
    let one = Lab::new("life", &[Link::Vxcan("x0"), Link::Vxcan("x1")]);
    let two = Lab::new("life", &[Link::Vxcan("x0"), Link::Vxcan("x1")]);
    Cangw::Ours.must(&one.namespace, "-A -s x0 -d x1");
    assert_eq!(Cangw::Ours.list(&two.namespace), []);
    Cangw::Ours.must(&two.namespace, "-A -s x1 -d x0");
    Cangw::Ours.must(&two.namespace, "-F");
    arrives(&one.namespace, "x0p", &["x1p"], &probe(1));
    assert_eq!(Cangw::Ours.list(&one.namespace)[0].handled, 1);
}

#[test]
fn without_privilege_the_message_names_what_is_missing() {
    let lab = Lab::new("life", &[Link::Vxcan("x0"), Link::Vxcan("x1")]);
    for arguments in ["-A -s x0 -d x1", "-D -s x0 -d x1", "-F"] {
        let answer: Answer = lab
            .namespace
            .command("setpriv")
            .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
            .arg(Cangw::Ours.path())
            .args(arguments.split(' '))
            .output()
            .expect("setpriv runs")
            .into();
        assert_eq!(answer.code, 255, "cangw {arguments}: {answer:?}");
        assert!(
            answer.stderr.contains("CAP_NET_ADMIN"),
            "cangw {arguments}: {answer:?}"
        );
    }
}
