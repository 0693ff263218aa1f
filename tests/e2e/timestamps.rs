//! `-t`: whether a copy has the time at which the frame was received.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use cangw_tests::frame::{BRS, Frame};
use cangw_tests::lab::{Lab, Link};
use cangw_tests::sys;
use cangw_tests::tool::Cangw;

const LINKS: [Link; 5] = [
    Link::Vxcan("x0"),
    Link::Vxcan("x1"),
    Link::Vxcan("x2"),
    Link::Vcan("v0"),
    Link::Vcan("v1"),
];

/// Interfaces with a socket that asks for time stamps, the source first.
const WATCHED: [&str; 5] = ["x0", "x1p", "x2p", "v0", "v1"];

fn watch(lab: &Lab, interface: &str) -> OwnedFd {
    let open = || sys::can_socket(sys::interface_index(interface)?);
    let socket = lab.namespace.enter(open).expect("a socket");
    for (level, option) in [
        (libc::SOL_CAN_RAW, libc::CAN_RAW_FD_FRAMES),
        (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS),
    ] {
        sys::set_option(&socket, level, option, 1).expect("time stamps");
    }
    socket
}

/// Whether each copy of a frame has the time stamp of the frame itself, by interface. A new one is always later.
fn kept(tool: Cangw, rules: &[&str], frame: &Frame) -> BTreeMap<&'static str, Vec<bool>> {
    let lab = Lab::new("stamps", &LINKS);
    let sockets = WATCHED.map(|interface| watch(&lab, interface));
    for rule in rules {
        tool.must(&lab.namespace, &format!("-A -s x0 {rule}"));
    }
    lab.send("x0p", frame);
    let stamps = |socket: &OwnedFd| -> Vec<Duration> {
        let receive = || sys::receive(socket, &mut [0; 72]).ok();
        std::iter::from_fn(receive)
            .map(|received| received.stamp.expect("a time stamp"))
            .collect()
    };
    let mut found = WATCHED.iter().zip(sockets.iter().map(stamps));
    let (_, source) = found.next().expect("the source is watched");
    let [original] = source[..] else {
        panic!("{} frames on the source", source.len());
    };
    let compare = |stamp: Duration| {
        assert!(stamp >= original, "{stamp:?} is before {original:?}");
        stamp == original
    };
    found
        .map(|(name, stamps)| (*name, stamps.into_iter().map(compare).collect()))
        .collect()
}

#[track_caller]
fn same(rules: &[&str], frame: &Frame, expected: [(&'static str, &[bool]); 4]) {
    let expected = expected.map(|(name, kept)| (name, kept.to_vec()));
    let can_gw = kept(Cangw::CanUtils, rules, frame);
    assert_eq!(can_gw, BTreeMap::from(expected), "can-gw");
    assert_eq!(kept(Cangw::Ours, rules, frame), can_gw, "ours");
}

#[test]
fn copies_have_the_time_stamps_that_they_have_with_can_gw() {
    same(
        &["-d x1", "-d x2 -t", "-d v0 -e", "-d v1 -e -t"],
        &Frame::classic(0x123, &[1]),
        [
            ("x1p", &[false]),
            ("x2p", &[true]),
            ("v0", &[false]),
            ("v1", &[true]),
        ],
    );
}

/// Alone, so that all copies of the frame are alike.
#[test]
fn all_copies_keep_it_or_none_does() {
    let frame = Frame::classic(0x123, &[1]);
    same(
        &["-d x1", "-d v0 -e"],
        &frame,
        [
            ("x1p", &[false]),
            ("x2p", &[]),
            ("v0", &[false]),
            ("v1", &[]),
        ],
    );
    same(
        &["-d x1 -t", "-d v0 -e -t"],
        &frame,
        [("x1p", &[true]), ("x2p", &[]), ("v0", &[true]), ("v1", &[])],
    );
}

#[test]
fn modified_copies_too() {
    let data = "00".repeat(64);
    let modify = |rule: &str| format!("{rule} -X -M SET:F:0.3.0.{data}");
    let rules = [
        modify("-d x1"),
        modify("-d x1 -t"),
        "-d x2 -X -t".to_owned(),
        modify("-d v0 -e"),
        modify("-d v1 -e -t"),
    ];
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    same(
        &rules,
        &Frame::fd(0x123, BRS, &[5; 20]),
        [
            // The newest rule first.
            ("x1p", &[true, false]),
            ("x2p", &[true]),
            ("v0", &[false]),
            ("v1", &[true]),
        ],
    );
}
