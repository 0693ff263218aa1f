//! The programs on this machine's kernel.
//!
//! Needs root (CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN) and fails without. The tc program cannot be run this way: the kernel
//! gives test packets the protocol of an Ethernet header. It is loaded here and tested end to end on the test kernels.

mod loaded;

use cangw::compile::Input;
use cangw::kernel::fan_out::Switch;
use cangw::rule::Engine;
use cangw::state::Live;
use cangw_common::abi::{self, Reason};
use cangw_common::frame::{EFF_FLAG, EFF_MASK, ERR_FLAG, FrameType, RTR_FLAG};
use cangw_common::rule::{Filter, INV_FILTER, Match};
use loaded::{LOOPBACK, Loaded, bytes, load};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};

const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

impl Loaded {
    fn verdict(&self, frame: &[u8]) -> u32 {
        self.run(frame, 1).return_value
    }

    fn sent(&self, rules: usize) -> Vec<u64> {
        let counters = self
            .maps
            .rules(rules as u32)
            .expect("the counters can be read");
        counters.iter().map(|c| c.sent).collect()
    }

    fn reason(&self, reason: Reason) -> u64 {
        self.maps
            .reasons(abi::slot(LOOPBACK, 0))
            .expect("the counters can be read")
            .0[reason as usize]
    }
}

fn rule(slot: u32, kind: FrameType, id: u32, mask: u32) -> Input {
    let predicate = Filter { id, mask }.predicate();
    let matching = Match { kind, predicate };
    Input {
        iif_tx_ok: true,
        ..Input::new(slot, matching, LOOPBACK, LOOPBACK)
    }
}

fn kinds() -> impl Strategy<Value = FrameType> {
    prop_oneof![3 => Just(FrameType::Classic), 2 => Just(FrameType::Fd), 1 => Just(FrameType::Xl)]
}

fn ids() -> impl Strategy<Value = u32> {
    (
        prop_oneof![
            0u32..4,
            0x120u32..0x124,
            any::<u32>().prop_map(|v| v & EFF_MASK)
        ],
        0u32..8,
    )
        .prop_map(|(id, flags)| match flags {
            0..3 => EFF_FLAG | id,
            3 => EFF_FLAG | RTR_FLAG | id,
            4 => RTR_FLAG | id & 0x7FF,
            5 => ERR_FLAG | id,
            _ => id & 0x7FF,
        })
}

fn filters() -> impl Strategy<Value = (u32, u32)> {
    let masks = prop_oneof![
        Just(0u32),
        Just(0x7FF),
        Just(0xC000_07FF),
        Just(0x700),
        Just(0xDFFF_FFFF),
        Just(EFF_MASK),
        Just(0x83FF_FF00),
        Just(ERR_FLAG | 0xFF),
        any::<u32>(),
    ];
    (ids(), masks, 0u32..6).prop_map(|(id, mask, invert)| {
        (
            id & !ERR_FLAG | if invert == 0 { INV_FILTER } else { 0 },
            mask,
        )
    })
}

/// The program redirects exactly the frames that the tables give a rule, and counts for the first rule of the list; the tables themselves are
/// compared with a scan of all rules by the tests of `cangw::compile`.
#[test]
fn the_program_looks_up_what_the_tables_say() {
    let (mut loaded, _) = load();
    let mut runner = TestRunner::new(Config {
        cases: 150,
        failure_persistence: None,
        ..Config::default()
    });
    let cases = (
        prop::collection::vec((kinds(), filters()), 1..12),
        prop::collection::vec((kinds(), ids()), 40),
    );
    let mut inputs = Vec::new();
    for _ in 0..150 {
        let tree = cases.new_tree(&mut runner).expect("a case");
        inputs.push(tree.current());
    }
    let mut hits = 0;
    for (rules, frames) in inputs {
        let rules: Vec<Input> = rules
            .iter()
            .enumerate()
            .map(|(i, (kind, (id, mask)))| rule(i as u32, *kind, *id, *mask))
            .collect();
        let compiled = loaded.install(&rules);
        for (kind, id) in frames {
            let before = loaded.sent(rules.len());
            let verdict = loaded.verdict(&bytes(kind, id));
            let mut expected = before.clone();
            match compiled.steps(kind, id).first().map(|step| step.rule) {
                Some(first) => {
                    hits += 1;
                    expected[first as usize] += 1;
                    assert_eq!(verdict, XDP_REDIRECT, "{kind:?} {id:#x} with {rules:?}");
                }
                None => assert_eq!(verdict, XDP_PASS, "{kind:?} {id:#x} with {rules:?}"),
            }
            assert_eq!(
                loaded.sent(rules.len()),
                expected,
                "{kind:?} {id:#x} with {rules:?}"
            );
        }
    }
    assert!(hits > 500, "only {hits} frames met a rule");
}

#[test]
fn what_is_not_a_frame_is_counted_and_passed_on() {
    let (mut loaded, _) = load();
    loaded.install(&[
        rule(0, FrameType::Classic, 0, 0),
        rule(1, FrameType::Fd, 0, 0),
    ]);
    let mut too_long = bytes(FrameType::Classic, 0x123);
    too_long[4] = 9;
    let mut fd_too_long = bytes(FrameType::Fd, 0x123);
    fd_too_long[4] = 65;
    let mut xl_wrong = bytes(FrameType::Xl, 0x123);
    xl_wrong[6] = 4;
    let malformed = [
        too_long,
        fd_too_long,
        xl_wrong,
        vec![0; 14],
        vec![0; 17],
        vec![0; 24],
        vec![0; 73],
        vec![0x80; 40],
        bytes(FrameType::Classic, 0x1234), // 13 bits without the extended flag
    ];
    for (i, frame) in malformed.iter().enumerate() {
        assert_eq!(loaded.verdict(frame), XDP_PASS, "{frame:02X?}");
        assert_eq!(
            loaded.reason(Reason::Malformed),
            i as u64 + 1,
            "{frame:02X?}"
        );
    }
    assert_eq!(loaded.verdict(&bytes(FrameType::Xl, 0x123)), XDP_PASS);
    assert_eq!(loaded.reason(Reason::Unmatched), 1);
    assert_eq!(loaded.sent(2), [0, 0]);
    assert_eq!(loaded.verdict(&bytes(FrameType::Fd, 0x123)), XDP_REDIRECT);
}

#[test]
fn classic_frames_are_fanned_out_while_all_targets_are_up() {
    let (mut loaded, pins) = load();
    let live = Live {
        filters: 0,
        ifindex: LOOPBACK,
        slot: abi::slot(LOOPBACK, 0),
        generation: 0,
        engine: Engine::Xdp,
        fingerprint: 0,
        fan_out: vec![0, 1],
        copies_first: None,
    };
    let targets = [LOOPBACK, LOOPBACK];
    let set = loaded.maps.set_fan_out(live.aux(), &targets);
    set.expect("the targets are there");
    let switch = Switch::open(&pins).expect("the map is pinned");
    switch.disarm();
    switch.set_source(live.slot, Some(&live));
    let frame = bytes(FrameType::Classic, 0x123);
    assert_eq!(loaded.verdict(&frame), XDP_PASS, "disarmed");
    switch.arm(|| Ok(true)).expect("nothing fails");
    for id in [0x123, RTR_FLAG | 0x7FF, EFF_FLAG | EFF_MASK] {
        let frame = bytes(FrameType::Classic, id);
        assert_eq!(loaded.verdict(&frame), XDP_REDIRECT, "{id:#x}");
    }
    let mut too_long = frame.clone();
    too_long[4] = 9;
    let others = [
        too_long,
        bytes(FrameType::Classic, ERR_FLAG | 1),
        bytes(FrameType::Classic, 0x1234), // 13 bits without the extended flag
        bytes(FrameType::Fd, 0x123),
        bytes(FrameType::Xl, 0x123),
    ];
    for frame in others {
        assert_eq!(loaded.verdict(&frame), XDP_PASS, "{frame:02X?}");
    }
    let counted = loaded.maps.fan_count(live.aux());
    let counted = counted.expect("the counter can be read");
    // One of the three is a remote request.
    let data = u64::from(bytes(FrameType::Classic, 0x123)[4]);
    assert_eq!((counted.frames, counted.bytes), (3, 2 * data));
    // tc counts what it is left.
    assert_eq!(loaded.reason(Reason::NoTables), 0);
    switch.set_source(live.slot, None);
    assert_eq!(loaded.verdict(&frame), XDP_PASS);
    assert_eq!(loaded.reason(Reason::NoTables), 1);
}

#[test]
fn no_tables_no_verdict() {
    let (loaded, _) = load();
    assert_eq!(loaded.verdict(&bytes(FrameType::Classic, 0x123)), XDP_PASS);
    assert_eq!(loaded.reason(Reason::NoTables), 1);
}
