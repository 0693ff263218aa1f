//! What can-gw does not have: several identifiers, priorities, drops, CAN XL headers.

use std::sync::Arc;

use cangw_common::abi::DENY;
use cangw_common::edit::{CHECKED, DUPLICATE, Edit, GUARDED, IDENTITY};

use super::*;
use crate::ids::{IdRange, Ids};

fn named(slot: u32, kind: FrameType, ranges: Vec<IdRange>) -> Input {
    let ids = Ids {
        ranges,
        ..Ids::default()
    };
    Input {
        predicates: ids.predicates(),
        ..Input::empty(slot, kind, INTERFACE.ifindex, 100 + slot % 7)
    }
}

fn ranges() -> impl Strategy<Value = Vec<IdRange>> {
    let range = (any::<bool>(), ids(), 0u32..300).prop_map(|(extended, first, length)| {
        let all = if extended { EFF_MASK } else { SFF_MASK };
        let first = first & all;
        IdRange {
            extended,
            first,
            last: (first + length).min(all),
        }
    });
    prop::collection::vec(range, 1..4)
}

fn xl_filters() -> impl Strategy<Value = XlFilter> {
    let near = || prop::option::of(0u8..3);
    let af = prop::option::of((
        0u32..4,
        prop_oneof![Just(u32::MAX), Just(1), Just(0xFFFF_0002), Just(0)],
    ));
    (near(), near(), af).prop_map(|(vcid, sdt, af)| XlFilter { vcid, sdt, af })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ranges_priorities_and_drops_are_those_of_a_scan(
        rules in prop::collection::vec((kinds(), ranges(), -1i16..2, any::<bool>()), 1..12),
        frames in prop::collection::vec((kinds(), ids(), any::<bool>(), any::<bool>()), 1..40),
    ) {
        let rules: Vec<Input> = rules
            .into_iter()
            .enumerate()
            .map(|(slot, (kind, ranges, priority, drops))| Input {
                priority,
                stay: drops.then_some(Stay::Drop),
                ..named(slot as u32, kind, ranges)
            })
            .collect();
        let compiled = compile(INTERFACE, &rules, &States::default()).unwrap();
        for (kind, id, extended, remote) in frames {
            let flags = if extended { EFF_FLAG } else { 0 } | if remote { RTR_FLAG } else { 0 };
            let id = if kind == FrameType::Xl {
                id & SFF_MASK
            } else {
                flags | id & if extended { EFF_MASK } else { SFF_MASK }
            };
            let mut expected = model(&rules, kind, id);
            // What comes after the first that drops is not seen.
            let drop = expected.iter().position(|&r| rules[r as usize].stay.is_some());
            if let Some(drop) = drop {
                expected.truncate(drop + 1);
            }
            prop_assert_eq!(compiled.matches(kind, id), expected);
            let list = compiled.list(kind, id, None);
            prop_assert_eq!(list.is_some_and(|l| l.fate.drops), drop.is_some());
        }
    }

    #[test]
    fn headers_of_can_xl_frames_are_those_of_a_scan(
        rules in prop::collection::vec((0u32..4, xl_filters()), 1..12),
        frames in prop::collection::vec((0u32..4, 0u8..3, 0u8..3, prop_oneof![0u32..4, any::<u32>()]), 1..40),
    ) {
        let rules: Vec<Input> = rules
            .into_iter()
            .enumerate()
            .map(|(slot, (priority, xl))| {
                let filter = Filter { id: priority, mask: if priority == 3 { 0 } else { SFF_MASK } };
                Input { xl, ..input(slot as u32, FrameType::Xl, filter) }
            })
            .collect();
        let compiled = compile(INTERFACE, &rules, &States::default()).unwrap();
        prop_assert_eq!(compiled.xl.is_some(), rules.iter().any(|r| !r.xl.is_empty()));
        for (priority, vcid, sdt, af) in frames {
            let word = priority | u32::from(vcid) << 16;
            let fields = Some(XlFields { sdt, af });
            let mut expected: Vec<u32> = (0..rules.len() as u32)
                .filter(|&i| rules[i as usize].matches(FrameType::Xl, word, fields))
                .collect();
            expected.sort_by_key(|&i| rules[i as usize].rank());
            let found: Vec<u32> = compiled
                .list(FrameType::Xl, word, fields)
                .map(|list| list.steps.iter().map(|s| s.rule).collect())
                .unwrap_or_default();
            prop_assert_eq!(found, expected);
        }
    }
}

#[test]
fn the_policy_deny_drops_what_only_a_watch_matches() {
    let all = |slot, stay| Input {
        stay: Some(stay),
        watch: true,
        ..input(slot, FrameType::Classic, Filter { id: 0, mask: 0 })
    };
    let fate = |flags, rules: &[Input]| {
        let interface = Interface { flags, ..INTERFACE };
        let compiled = compile(interface, rules, &States::default()).unwrap();
        compiled.list(FrameType::Classic, 0x123, None).unwrap().fate
    };
    let watch = all(0, Stay::Watch);
    let pass = all(1, Stay::Pass);
    let denied = fate(DENY, std::slice::from_ref(&watch));
    assert_eq!(
        denied,
        Fate {
            drops: true,
            denied: true,
            watched: true
        }
    );
    assert!(!fate(0, std::slice::from_ref(&watch)).drops);
    assert!(!fate(DENY, &[watch, pass]).drops);
    // What no rule matches is the program's to deny.
    let other = input(
        2,
        FrameType::Classic,
        Filter {
            id: 0x777,
            mask: 0x7FF,
        },
    );
    let interface = Interface {
        flags: DENY,
        ..INTERFACE
    };
    let compiled = compile(interface, &[other], &States::default()).unwrap();
    assert_eq!(classify(FrameType::Classic, 0x123, &compiled), 0);
}

#[test]
fn a_second_copy_follows_the_first_and_is_a_run_of_its_own() {
    let edit = Edit {
        flags: IDENTITY | GUARDED | CHECKED,
        ..Edit::NONE
    };
    let rules = [Input {
        duplicates: true,
        edit: Some(Arc::new(edit)),
        ..input(0, FrameType::Classic, Filter { id: 0, mask: 0 })
    }];
    let compiled = compile(INTERFACE, &rules, &States::default()).unwrap();
    let list = compiled.list(FrameType::Classic, 1, None).unwrap();
    assert!(list.forms);
    let steps: Vec<_> = list
        .steps
        .iter()
        .map(|s| (s.form, s.run, s.duplicate))
        .collect();
    assert_eq!(steps, [(1, true, false), (2, true, true)]);
    assert_eq!(compiled.edits[1].flags, IDENTITY | DUPLICATE | CHECKED);
}
