//! Nothing stays behind.

use std::path::Path;

use cangw_tests::lab::{Lab, Link};
use cangw_tests::namespace::Namespace;
use cangw_tests::tool::Cangw;

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
