//! Copies that differ, where can-gw has no part in it: exclusive interfaces, many targets, time stamps.

use cangw_tests::frame::{BRS, Frame};
use cangw_tests::lab::{Lab, Link};
use cangw_tests::sys;
use cangw_tests::tool::{Cangw, Listed, load};

const LINKS: [Link; 4] = [
    Link::Vxcan("x0"),
    Link::Vxcan("x1"),
    Link::Vxcan("x2"),
    Link::Vcan("v0"),
];

fn add(lab: &Lab, rules: &[&str], more: &str) {
    for rule in rules {
        Cangw::Ours.must(&lab.namespace, &format!("rule add -s x0 {rule} {more}"));
    }
}

fn counts(lab: &Lab) -> Vec<(u64, u64, u64)> {
    let count = |rule: &Listed| (rule.handled, rule.dropped, rule.deleted);
    Cangw::Ours.list(&lab.namespace).iter().map(count).collect()
}

#[test]
fn exclusive_copies_that_differ() {
    let mut lab = Lab::new("edits", &LINKS);
    add(
        &lab,
        &[
            "-d x1 -m SET:I:101.0.0000000000000000",
            "-d x2",
            "-d v0 -e -m SET:D:0.0.0102030000000000",
            "-d x1 -t",
            "-d x2 -m SET:L:0.10.0000000000000000",
        ],
        "--exclusive",
    );
    lab.send("x0p", &Frame::classic(0x123, &[9, 8, 7]));
    let seen = lab.take();
    assert_eq!(seen.get("x0"), None, "local sockets of the source");
    // The newest rule first.
    assert_eq!(
        seen["x1p"],
        [
            Frame::classic(0x123, &[9, 8, 7]),
            Frame::classic(0x101, &[9, 8, 7])
        ]
    );
    assert_eq!(seen["x2p"], [Frame::classic(0x123, &[9, 8, 7])]);
    assert_eq!(seen["v0"], [Frame::classic(0x123, &[1, 2, 3])]);
    assert_eq!(
        counts(&lab),
        [(0, 0, 1), (1, 0, 0), (1, 0, 0), (1, 0, 0), (1, 0, 0)]
    );
}

/// A frame that no rule could forward is left to local sockets, also by an exclusive interface.
#[test]
fn exclusive_frames_that_do_not_fit() {
    let mut lab = Lab::new("edits", &LINKS);
    let longer = format!("-d x1 -X -M OR:L:0.0.40.{}", "00".repeat(64));
    add(&lab, &[&longer], "--exclusive");
    let (short, long) = (Frame::fd(0x123, BRS, &[]), Frame::fd(0x123, BRS, &[5; 8]));
    lab.send("x0p", &short);
    lab.send("x0p", &long);
    let seen = lab.take();
    assert_eq!(seen["x0"], std::slice::from_ref(&long));
    assert_eq!(seen["x1p"], [Frame::fd(0x123, BRS, &[0; 64])]);
    assert_eq!(counts(&lab), [(1, 0, 1)]);
    // With a rule that forwards both, neither is.
    add(&lab, &["-d x2 -X"], "");
    lab.send("x0p", &long);
    let seen = lab.take();
    assert_eq!(seen.get("x0"), None);
    assert_eq!(seen["x2p"], [long]);
    assert_eq!(counts(&lab), [(1, 0, 0), (1, 0, 2)]);
}

/// Each of 100 rules edits differently: 100 runs, one behind the other. Between them, rules that do not edit.
#[test]
fn a_hundred_copies_that_differ() {
    const RULES: u32 = 100;
    let mut lab = Lab::new("edits", &LINKS);
    let pairs =
        (0..RULES).map(|i| format!("-s x0 -d x1 -m SET:I:{i:X}.0.0000000000000000\n-s x0 -d x1\n"));
    load(&lab.namespace, &pairs.collect::<String>());
    let frame = Frame::classic(0x7FF, &[1, 2, 3, 4]);
    for _ in 0..3 {
        lab.send("x0p", &frame);
    }
    let seen = lab.take();
    let edited = |i| Frame::classic(i, frame.data());
    let once: Vec<Frame> = (0..RULES)
        .rev()
        .flat_map(|i| [frame.clone(), edited(i)])
        .collect();
    assert_eq!(seen["x1p"], [once.clone(), once.clone(), once].concat());
    assert_eq!(seen["x0"], vec![frame; 3]);
    assert!(counts(&lab).iter().all(|count| *count == (3, 0, 0)));
}

/// When some socket of the machine asks for time stamps, copies lose theirs and the frame itself keeps it: the lists
/// are carried out in another way then, with few targets and with many.
#[test]
fn all_frames_arrive_when_frames_have_time_stamps() {
    let mut lab = Lab::new("edits", &LINKS);
    let stamped = lab
        .namespace
        .enter(|| sys::can_socket(sys::interface_index("x0")?))
        .expect("a socket on x0");
    sys::set_option(&stamped, libc::SOL_SOCKET, libc::SO_TIMESTAMP, 1).expect("time stamps");
    let frame = Frame::classic(0x123, &[1, 2]);
    let mut rules = 0;
    for more in [1, 1, 13, 1, 24] {
        let mut text = String::new();
        for _ in 0..more {
            let other = ["-d x1", "-d x2 -t", "-d v0 -e"][rules % 3];
            let rule = if more == 13 { "-d x1" } else { other };
            text += &format!("-s x0 {rule}\n");
            rules += 1;
        }
        load(&lab.namespace, &text);
        lab.send("x0p", &frame);
        let seen = lab.take();
        let copies = ["x1p", "x2p", "v0"].map(|name| seen.get(name).map_or(0, Vec::len));
        assert_eq!(copies.iter().sum::<usize>(), rules, "{copies:?}");
        assert_eq!(seen["x0"], std::slice::from_ref(&frame));
    }
    let handled: u64 = counts(&lab).iter().map(|count| count.0).sum();
    assert_eq!(handled, 1 + 2 + 15 + 16 + 40);
}
