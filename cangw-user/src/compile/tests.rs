//! The classifier against a plain model: can-gw's own scan of all rules.

use cangw_common::frame::ERR_FLAG;
use cangw_common::rule::{Filter, INV_FILTER};
use proptest::prelude::*;

use super::*;

mod options;

fn input(slot: u32, kind: FrameType, filter: Filter) -> Input {
    let predicate = filter.predicate();
    Input::new(
        slot,
        Match { kind, predicate },
        INTERFACE.ifindex,
        100 + slot % 7,
    )
}

const INTERFACE: Interface = Interface {
    ifindex: 5,
    max_hops: 1,
    flags: 0,
};

impl Compiled {
    /// The rules that match a frame, in the order in which they are carried out.
    fn matches(&self, kind: FrameType, can_id: u32) -> Vec<u32> {
        self.steps(kind, can_id).iter().map(|s| s.rule).collect()
    }
}

/// The rules that match, by asking each: class by class, newest first.
fn model(rules: &[Input], kind: FrameType, can_id: u32) -> Vec<u32> {
    if kind != FrameType::Xl
        && can_id & (EFF_FLAG | ERR_FLAG) == 0
        && can_id & EFF_MASK & !SFF_MASK != 0
    {
        return Vec::new();
    }
    let can_id = if kind == FrameType::Xl {
        can_id & SFF_MASK
    } else {
        can_id
    };
    let mut hits: Vec<usize> = (0..rules.len())
        .filter(|&i| rules[i].matches(kind, can_id, None))
        .collect();
    hits.sort_by_key(|&i| rules[i].rank());
    hits.into_iter().map(|i| i as u32).collect()
}

fn kinds() -> impl Strategy<Value = FrameType> {
    prop_oneof![4 => Just(FrameType::Classic), 2 => Just(FrameType::Fd), 1 => Just(FrameType::Xl)]
}

/// Identifiers near each other, so that rules and frames meet.
fn ids() -> impl Strategy<Value = u32> {
    let low = prop_oneof![
        0u32..8,
        0x120u32..0x128,
        Just(0x7FFu32),
        any::<u32>().prop_map(|v| v & SFF_MASK)
    ];
    let wide = prop_oneof![
        low.clone(),
        (0u32..4, low.clone()).prop_map(|(h, l)| h << 15 | l << 4),
        any::<u32>().prop_map(|v| v & EFF_MASK)
    ];
    (wide, low, 0u32..8).prop_map(|(wide, low, flags)| match flags {
        0..3 => EFF_FLAG | wide,
        3 => EFF_FLAG | RTR_FLAG | wide,
        4 => RTR_FLAG | low,
        5 => ERR_FLAG | wide,
        _ => low,
    })
}

fn filters() -> impl Strategy<Value = Filter> {
    let masks = prop_oneof![
        Just(0u32),
        Just(0x7FF),
        Just(0x7F0),
        Just(0x700),
        Just(0xC000_07FF),
        Just(0xC000_0700),
        Just(EFF_MASK),
        Just(EFF_FLAG | EFF_MASK),
        Just(0xDFFF_FFFF),
        Just(0x83FF_FF00),
        Just(EFF_FLAG),
        Just(RTR_FLAG),
        Just(ERR_FLAG | 0xF),
        Just(ERR_FLAG | EFF_MASK),
        any::<u32>(),
    ];
    (ids(), masks, any::<bool>(), 0u32..6).prop_map(|(id, mask, eff, invert)| {
        let id = if eff { id } else { id & !EFF_FLAG };
        // Without the error flag, which in a filter's identifier means inversion.
        let id = id & !ERR_FLAG | if invert == 0 { INV_FILTER } else { 0 };
        Filter { id, mask }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tables_agree_with_a_scan_of_all_rules(
        rules in prop::collection::vec((kinds(), filters()), 0..24),
        frames in prop::collection::vec((kinds(), ids()), 60),
    ) {
        let rules: Vec<Input> = rules.iter().enumerate().map(|(i, (k, f))| input(i as u32, *k, *f)).collect();
        let compiled = compile(INTERFACE, &rules, &States::default()).unwrap();
        for (kind, can_id) in frames {
            prop_assert_eq!(
                compiled.matches(kind, can_id), model(&rules, kind, can_id),
                "{:?} {:#x} with {:?}", kind, can_id, &rules
            );
        }
    }
}

#[test]
fn every_standard_identifier_of_a_large_set() {
    let rules: Vec<Input> = (0..10_000)
        .map(|i| {
            let filter = Filter {
                id: i % 0x800,
                mask: if i < 4096 { 0xC000_07FF } else { 0x7FF },
            };
            input(
                i,
                if i % 3 == 0 {
                    FrameType::Fd
                } else {
                    FrameType::Classic
                },
                filter,
            )
        })
        .collect();
    let compiled = compile(INTERFACE, &rules, &States::default()).unwrap();
    for can_id in (0..0x800).flat_map(|id| [id, RTR_FLAG | id]) {
        assert_eq!(
            compiled.matches(FrameType::Classic, can_id),
            model(&rules, FrameType::Classic, can_id)
        );
    }
}

#[test]
fn ten_thousand_parameter_groups_fit() {
    // J1939: a mask on the parameter group number, which spans both halves of the identifier.
    let rules: Vec<Input> = (0..10_000)
        .map(|i| {
            input(
                i,
                FrameType::Classic,
                Filter {
                    id: EFF_FLAG | i << 8,
                    mask: 0x83FF_FF00,
                },
            )
        })
        .collect();
    let compiled = compile(INTERFACE, &rules, &States::default()).unwrap();
    assert_eq!(
        compiled.matches(
            FrameType::Classic,
            EFF_FLAG | 0x1800_0000 | 1234 << 8 | 0x21
        ),
        [1234]
    );
    assert!(
        compiled
            .matches(FrameType::Classic, EFF_FLAG | 0x3FF_FF00)
            .is_empty()
    );
}

#[test]
fn what_does_not_fit_is_named() {
    let many: Vec<Input> = (0..=MAX_LIST)
        .map(|i| {
            input(
                i,
                FrameType::Classic,
                Filter {
                    id: 0x123,
                    mask: 0x7FF,
                },
            )
        })
        .collect();
    let Err(error) = compile(INTERFACE, &many, &States::default()) else {
        panic!("a list of {} rules was accepted", many.len())
    };
    assert_eq!(error.rules().len(), MAX_LIST as usize + 1);
    // Exact in both halves, yet not exact as a whole (bit 14 is free): each rule has classes of its own.
    let masks: Vec<Input> = (0..4000u32)
        .map(|i| {
            input(
                i,
                FrameType::Classic,
                Filter {
                    id: EFF_FLAG | i << 15 | i,
                    mask: 0x9FFF_BFFF,
                },
            )
        })
        .collect();
    match compile(INTERFACE, &masks, &States::default()) {
        Err(Error::TooManyMasks { rules, cells }) => {
            assert_eq!(cells, 4001 * 4001);
            assert!((2000..2100).contains(&rules[0]), "{rules:?}");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a cross table of 16 million cells was accepted"),
    }
}

/// Steps of a frame with identifier 1, as rule, outcome, echo and times.
fn journey(max_hops: u8, rules: &[Input]) -> Vec<(u32, Outcome, bool, u16)> {
    let compiled = compile(
        Interface {
            max_hops,
            ..INTERFACE
        },
        rules,
        &States::default(),
    )
    .unwrap();
    let steps = compiled.steps(FrameType::Classic, 1);
    steps
        .iter()
        .map(|s| (s.rule, s.outcome, s.echo, s.times))
        .collect()
}

fn hop(slot: u32, source: u32, target: u32) -> Input {
    let all = input(slot, FrameType::Classic, Filter { id: 0, mask: 0 });
    Input {
        source,
        target,
        echo: true,
        ..all
    }
}

#[test]
fn an_echo_meets_the_rules_of_its_interface_up_to_the_hop_limit() {
    use Outcome::{HopLimit, Origin, Sent};
    let chain = [hop(0, 5, 6), hop(1, 6, 7), hop(2, 7, 8)];
    assert_eq!(
        journey(1, &chain),
        [(0, Sent, true, 1), (1, HopLimit, false, 1)]
    );
    assert_eq!(
        journey(2, &chain),
        [
            (0, Sent, true, 1),
            (1, Sent, true, 1),
            (2, HopLimit, false, 1)
        ]
    );
    assert_eq!(
        journey(3, &chain),
        [(0, Sent, true, 1), (1, Sent, true, 1), (2, Sent, true, 1)]
    );
    // -l 1 leaves the echo no hop, whatever the maximum.
    let mut limited = chain.clone();
    limited[0].limit = 1;
    assert_eq!(
        journey(6, &limited),
        [(0, Sent, true, 1), (1, HopLimit, false, 1)]
    );
    limited[0].limit = 2;
    assert_eq!(journey(6, &limited).last(), Some(&(2, HopLimit, false, 1)));
    // The way back: the hop limit is looked at first, then the origin.
    let both = [hop(0, 5, 6), hop(1, 6, 5)];
    assert_eq!(
        journey(1, &both),
        [(0, Sent, true, 1), (1, HopLimit, false, 1)]
    );
    assert_eq!(
        journey(2, &both),
        [(0, Sent, true, 1), (1, Origin, false, 1)]
    );
    let back = [
        hop(0, 5, 6),
        Input {
            iif_tx_ok: true,
            ..hop(1, 6, 5)
        },
    ];
    assert_eq!(
        journey(2, &back),
        [
            (0, Sent, true, 1),
            (1, Sent, true, 1),
            (0, HopLimit, false, 1)
        ]
    );
}

#[test]
fn echoes_that_meet_the_same_end_count_together() {
    use Outcome::{HopLimit, Sent};
    let twice = [hop(0, 5, 6), hop(1, 5, 6), hop(2, 6, 7)];
    assert_eq!(
        journey(1, &twice),
        [
            (0, Sent, true, 1),
            (1, Sent, true, 1),
            (2, HopLimit, false, 2)
        ]
    );
}

#[test]
fn an_exclusive_interface_keeps_an_echo_that_it_forwards() {
    use Outcome::{HopLimit, Sent};
    let mut chain = [hop(0, 5, 6), hop(1, 6, 7)];
    chain[0].target_exclusive = true;
    assert_eq!(
        journey(2, &chain),
        [(0, Sent, false, 1), (1, Sent, true, 1)]
    );
    assert_eq!(
        journey(1, &chain),
        [(0, Sent, true, 1), (1, HopLimit, false, 1)]
    );
}

#[test]
fn what_cannot_be_sent_is_told_apart() {
    let rules = [
        Input {
            to_peer: true,
            ..hop(0, 5, 6)
        },
        Input {
            misfit: true,
            ..hop(1, 5, 7)
        },
    ];
    assert_eq!(
        journey(1, &rules),
        [
            (0, Outcome::Origin, false, 1),
            (1, Outcome::Misfit, false, 1)
        ]
    );
}

/// An edit of the identifier.
fn edit() -> Option<Arc<Edit>> {
    let mut edit = Edit::NONE;
    edit.flip.0[0] = 1;
    Some(Arc::new(edit))
}

#[test]
fn edited_echoes_are_looked_up_again_in_the_state_they_have_reached() {
    let mut rules = [hop(0, 5, 6), hop(1, 6, 7), hop(2, 7, 5)];
    rules[0].edit = edit();
    let states = States::new(&rules, 3).unwrap();
    let at = |origin, hops| State {
        origin,
        hops,
        depth: hops,
    };
    assert!(states.looked_up_again(5) && states.looked_up_again(6));
    // From 5 by rule 0; from 7, which is where echoes of rule 1 begin or come to.
    assert_eq!(states.of(6), [at(5, 1), at(7, 2)]);
    assert_eq!(states.number(6, at(7, 2), 3), 2);
    assert_eq!(states.number(8, at(5, 1), 3), 0, "no rules there");
    let interface = Interface {
        ifindex: 6,
        max_hops: 3,
        flags: 0,
    };
    let own = relevant(6, &rules, &states);
    assert_eq!(own.len(), 1, "only its own rules");
    let compiled = compile(interface, &own, &states).unwrap();
    let base = classify(FrameType::Classic, 1, &compiled);
    assert_eq!(compiled.tables.head.states, 2);
    let outcome = |state| {
        let list = compiled.lists.iter().find(|l| l.id == base + state);
        let list = list.expect("every state has a list");
        (list.steps[0].outcome, list.steps[0].state)
    };
    // Fresh frames of 6 arrive at 7 with one hop; an echo from 5 with two; one that came over 7 must not go back.
    let number = |origin, hops| states.number(7, at(origin, hops), 3);
    assert_eq!(outcome(0), (Outcome::Sent, number(6, 1)));
    assert_eq!(outcome(1), (Outcome::Sent, number(5, 2)));
    assert_eq!(outcome(2), (Outcome::Origin, 0));
}

#[test]
fn with_one_hop_all_echoes_are_in_one_state() {
    let mut rules = [hop(0, 5, 6), hop(1, 6, 5), hop(2, 7, 6)];
    for rule in &mut rules {
        rule.edit = edit();
    }
    let states = States::new(&rules, 1).unwrap();
    assert_eq!(states.of(6).len(), 1);
    assert_eq!(states.of(5).len(), 1);
    rules.iter_mut().for_each(|rule| rule.echo = false);
    assert_eq!(States::new(&rules, 1).unwrap(), States::default());
}

fn classify(kind: FrameType, id: u32, compiled: &Compiled) -> ListId {
    cangw_common::classify::classify(&compiled.tables, compiled, kind, id, || None).unwrap()
}

#[test]
fn copies_of_one_form_are_a_run() {
    let rules: Vec<Input> = (0..6)
        .map(|slot| Input {
            echo: false,
            edit: if slot == 2 { edit() } else { None },
            keep_stamp: slot == 4,
            ..hop(slot, 5, 6 + slot)
        })
        .collect();
    let compiled = compile(INTERFACE, &rules, &States::default()).unwrap();
    let list = &compiled.lists[0];
    assert!(list.forms);
    let runs: Vec<bool> = list.steps.iter().map(|step| step.run).collect();
    assert_eq!(runs, [true, false, true, true, true, true]);
    let forms: Vec<u16> = list.steps.iter().map(|step| step.form).collect();
    assert_eq!(forms, [0, 0, 1, 0, 0x8000, 0]);
    assert_eq!(compiled.edits.len(), 1);
}

#[test]
fn echoes_that_the_kernel_would_drop_are_deleted() {
    let mut rules = [hop(0, 5, 5)];
    rules[0].iif_tx_ok = true;
    rules[0].edit = edit();
    let states = States::new(&rules, 6).unwrap();
    let depths: Vec<(u8, u8)> = states.of(5).iter().map(|s| (s.hops, s.depth)).collect();
    assert_eq!(depths, [(1, 1), (2, 2), (6, 3)]);
}
