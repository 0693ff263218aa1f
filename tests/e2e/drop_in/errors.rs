//! What is refused, and how.

use cangw_tests::frame::Frame;
use cangw_tests::lab::{Lab, Link};
use cangw_tests::tool::Cangw;

use super::script::{VIRTUAL, compare};

#[test]
fn refused_rules_have_the_same_status_and_output() {
    compare(
        "cangw -A -s nosuch -d x1
        cangw -A -s x0 -d nosuch
        cangw -D -s nosuch -d x1
        cangw -A -s lo -d x1
        cangw -A -s x0 -d lo
        cangw -A -s x0 -d x1 -l 2
        cangw -A -s x0 -d x1 -l 0
        cangw -A -s x0 -d x1 -l 7
        cangw -A -s x0 -d x1 -f 123
        cangw -A -s x0 -d x1 -f xyz:7FF
        cangw -A -s x0 -d x1 -f 123:
        cangw -A -s x0 -d x1 -f :7FF
        cangw -D -s x0 -d x1
        cangw -D -s lo -d x1
        cangw -A -s x0
        cangw -A -d x0
        cangw -A
        total 0 0 0",
        &VIRTUAL,
    );
}

/// can-gw of Linux 6.1 takes such a rule, which can never forward anything.
#[test]
fn a_rule_back_to_its_source_needs_i() {
    let lab = Lab::new("dropin", &VIRTUAL);
    let refused = Cangw::Ours.run(&lab.namespace, "-A -s x0 -d x0");
    assert_eq!(refused.code, 234, "{refused:?}");
    assert_eq!(Cangw::Ours.list(&lab.namespace), []);
}

#[test]
fn the_first_verb_wins() {
    compare(
        "cangw -A -F -s x0 -d x1
        cangw -A -s x0 -d x2 -D
        total 0 0 0
        cangw -D -A -s x0 -d x2
        total 0 0 0
        cangw -F -A -s x0 -d x2
        total 0 0 0",
        &VIRTUAL,
    );
}

#[test]
fn a_list_is_a_success() {
    let lab = Lab::new("dropin", &VIRTUAL);
    Cangw::Ours.must(&lab.namespace, "-A -s x0 -d x1");
    // can-utils exits with the number of bytes that it sent to the kernel.
    assert_ne!(Cangw::CanUtils.run(&lab.namespace, "-L").code, 0);
    assert_eq!(Cangw::Ours.run(&lab.namespace, "-L").code, 0);
}

#[test]
fn a_target_that_cannot_carry_the_frames_is_refused() {
    let lab = Lab::new("dropin", &[Link::Vxcan("x0"), Link::Vxcan("x1")]);
    lab.namespace
        .ip("link set x1 down\nlink set x1 mtu 16\nlink set x1 up");
    // can-gw takes it and drops every frame.
    assert_eq!(
        Cangw::CanUtils
            .run(&lab.namespace, "-A -s x0 -d x1 -X")
            .code,
        0
    );
    Cangw::CanUtils.must(&lab.namespace, "-F");
    let refused = Cangw::Ours.run(&lab.namespace, "-A -s x0 -d x1 -X");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("MTU 16"), "{refused:?}");
    assert_eq!(Cangw::Ours.list(&lab.namespace), []);
}

/// A pair whose far end is down has no carrier. can-gw hands it the frame, which is lost there, and counts it as handled.
#[test]
fn a_frame_to_a_pair_without_carrier_is_counted_as_dropped() {
    let mut lab = Lab::new("dropin", &VIRTUAL);
    lab.namespace.ip("link set x1p down");
    Cangw::Ours.must(&lab.namespace, "-A -s x0 -d x1");
    Cangw::Ours.must(&lab.namespace, "-A -s x0 -d x2");
    let frame = Frame::classic(0x123, &[1]);
    lab.send("x0p", &frame);
    let rules = Cangw::Ours.list(&lab.namespace);
    assert_eq!((rules[0].handled, rules[0].dropped), (1, 0));
    assert_eq!((rules[1].handled, rules[1].dropped), (0, 1));
    assert_eq!(lab.take_on("x2p"), [frame]);
}
