//! CAN XL frames, which can-gw does not forward. Kernels have them from 6.2 on.

use cangw_tests::frame::{BRS, Frame};
use cangw_tests::lab::{Lab, Link};
use cangw_tests::tool::Cangw;

const MTU: u32 = 2060;
const INTERFACES: [&str; 6] = ["x0", "x0p", "x1", "x1p", "v0", "v1"];

/// Whether the kernel has CAN XL.
fn supported() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel release");
    !release.starts_with("6.1.")
}

fn lab() -> Lab {
    Lab::new(
        "xl",
        &[
            Link::Vxcan("x0"),
            Link::Vxcan("x1"),
            Link::Vcan("v0"),
            Link::Vcan("v1"),
        ],
    )
}

fn xl(priority: u32, length: usize) -> Frame {
    let data: Vec<u8> = (0..length).map(|n| (n * 7) as u8).collect();
    Frame::xl(priority, 3, 0xCAFE_0000 | priority, &data)
}

#[test]
fn xl_frames_are_forwarded() {
    let mut lab = lab();
    if !supported() {
        // The kernel knows no such MTU, and so no such rule can be.
        let refused = Cangw::Ours.run(&lab.namespace, "-A -s x0 -d x1 --xl");
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.stderr.contains("2060"), "{refused:?}");
        return;
    }
    for name in INTERFACES {
        lab.namespace.ip(&format!(
            "link set {name} down\nlink set {name} mtu {MTU}\nlink set {name} up"
        ));
    }
    for rule in [
        "-s x0 -d x1 --xl",
        "-s x0 -d v0 --xl -e -f 123:7FF",
        "-s v0 -d v1 --xl -e",
        "-s x0 -d x1 -f 123:7FF",
    ] {
        Cangw::Ours.must(&lab.namespace, &format!("-A {rule}"));
    }
    let frames: Vec<Frame> = [(0x123, 1), (0x124, 2048), (0x123, 64), (0, 4), (0x7FF, 60)]
        .map(|(priority, length)| xl(priority, length))
        .into();
    let classic = Frame::classic(0x123, &[1, 2, 3]);
    let fd = Frame::fd(0x123, BRS, &[9; 48]);
    for frame in frames.iter().chain([&classic, &fd]) {
        lab.send("x0p", frame);
    }
    lab.send("v0", &frames[1]);
    let seen = lab.take();
    assert_eq!(
        seen["x1p"],
        [frames.clone(), vec![classic.clone()]].concat()
    );
    assert_eq!(seen["x0"].len(), 7, "local sockets of the source");
    let echoed = [&frames[0], &frames[2], &frames[1]].map(Frame::clone);
    assert_eq!(seen["v0"], echoed);
    assert_eq!(seen["v1"], frames[1..2], "one hop is the limit");
    let counts: Vec<_> = Cangw::Ours
        .list(&lab.namespace)
        .iter()
        .map(|rule| (rule.handled, rule.deleted))
        .collect();
    assert_eq!(counts, [(1, 0), (1, 2), (2, 0), (5, 0)]);
}

#[test]
fn a_target_for_shorter_frames_is_refused() {
    let lab = lab();
    let refused = Cangw::Ours.run(&lab.namespace, "-A -s x0 -d x1 --xl");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("MTU 72") && refused.stderr.contains("2060"),
        "{refused:?}"
    );
    assert_eq!(Cangw::Ours.list(&lab.namespace), []);
}
