//! Nothing stays behind.

use std::path::Path;

use cangw_tests::lab::{Lab, Link};
use cangw_tests::namespace::Namespace;
use cangw_tests::tool::Cangw;

use crate::topologies::{TWO_BUSES, call};

const PINS: &str = "/sys/fs/bpf/cangw";

pub fn programs(namespace: &Namespace) -> Vec<String> {
    namespace
        .output("bpftool", &["prog", "list"])
        .lines()
        .filter(|line| line.contains(" name cangw"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn flush_leaves_nothing_behind() {
    let lab = Lab::new(
        "clean",
        &[Link::Vxcan("x0"), Link::Vxcan("x1"), Link::Vcan("v0")],
    );
    let qdiscs = |lab: &Lab| lab.namespace.output("tc", &["qdisc", "show"]);
    let before = qdiscs(&lab);
    assert!(!Path::new(PINS).exists(), "left behind by another test");
    assert_eq!(
        programs(&lab.namespace),
        [""; 0],
        "left behind by another test"
    );

    Cangw::Ours.must(&lab.namespace, "-A -s x0 -d x1");
    Cangw::Ours.must(&lab.namespace, "-A -s v0 -d x1 -e -f 123:7FF");
    let during = qdiscs(&lab);
    assert!(during.contains("ingress"), "sources: {during}");
    assert!(during.contains("clsact"), "the echo's target: {during}");
    assert!(Path::new(PINS).exists(), "the rules are kept in bpffs");
    assert_ne!(programs(&lab.namespace), [""; 0], "the rules use programs");

    Cangw::Ours.must(&lab.namespace, "-F");
    assert_eq!(qdiscs(&lab), before);
    for interface in ["x0", "x1", "v0"] {
        let filters = lab
            .namespace
            .output("tc", &["filter", "show", "dev", interface, "ingress"]);
        assert_eq!(filters, "", "filters of {interface}");
    }
    assert!(!Path::new(PINS).exists(), "pins");
    // Programs end a moment after their last user.
    let mut left = programs(&lab.namespace);
    for _ in 0..100 {
        if left.is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        left = programs(&lab.namespace);
    }
    assert_eq!(left, [""; 0], "programs");
}

/// Topologies, rules and settings of all namespaces, and what one left that is gone.
#[test]
fn reset_leaves_nothing_behind() {
    let here = Lab::new("reset", &[Link::Vxcan("x0"), Link::Vxcan("x1")]);
    let gateway = &here.namespace;
    Cangw::Ours.must(gateway, "-A -s x0 -d x1");
    let answer = call(gateway, "up", TWO_BUSES);
    assert_eq!(answer.code, 0, "{answer:?}");
    // Without ECUs.
    let answer = call(
        gateway,
        "up",
        "version = 1\nname = \"bare\"\n[bus.lonely]\n",
    );
    assert_eq!(answer.code, 0, "{answer:?}");
    let elsewhere = Lab::new("reset", &[Link::Vxcan("x0"), Link::Vxcan("x1")]);
    Cangw::Ours.must(&elsewhere.namespace, "-A -s x0 -d x1");
    Cangw::Ours.must(&elsewhere.namespace, "settings max-hops 3");
    let dead = format!("reset-{}", std::process::id());
    let _ = gateway.output("ip", &["netns", "add", &dead]);
    {
        let dead = Namespace::of_others(&dead);
        dead.ip("link add x0 type vcan\nlink add x1 type vcan\nlink set x0 up");
        Cangw::Ours.must(&dead, "-A -s x0 -d x1");
    }
    let _ = gateway.output("ip", &["netns", "del", &dead]);
    let said = Cangw::Ours.run(gateway, "reset");
    assert_eq!(said.code, 0, "{said:?}");
    for part in ["car: - bus body", "- rules of ", "- /sys/fs/bpf/cangw/"] {
        assert!(said.stderr.contains(part), "{part}: {said:?}");
    }
    assert!(!Path::new(PINS).exists(), "pins");
    for name in ["car", "bare"] {
        assert!(!Path::new("/run/netns").join(name).exists(), "{name}");
    }
    for namespace in [gateway, &elsewhere.namespace] {
        assert_eq!(Cangw::Ours.list(namespace), []);
        let qdiscs = namespace.output("tc", &["qdisc", "show"]);
        assert!(!qdiscs.contains("ingress"), "{qdiscs}");
    }
    assert_eq!(Cangw::Ours.run(gateway, "reset").stderr, "");
}
