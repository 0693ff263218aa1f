//! Extended identifiers and error classes: rules for single ones by a map, all others by classes of both halves.

use std::collections::{BTreeMap, HashMap};

use cangw_common::abi::{CROSS_CHUNK, SPACE_HALVES, Space};
use cangw_common::classify::exact_key;
use cangw_common::frame::{EFF_FLAG, EFF_MASK, FrameType, RTR_FLAG};
use cangw_common::rule::Predicate;
use foldhash::quality::FixedState;

use super::lists::Lists;
use super::{Compiled, Error, Input, halves};

/// A rule's predicate on the 30 bits of RTR and extended identifier, or on the 29 bits of error classes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Wide {
    pub id: u32,
    pub mask: u32,
    pub inverted: bool,
}

/// RTR and extended identifier in 30 bits.
fn squeeze(can_id: u32) -> u32 {
    (can_id & EFF_MASK) | ((can_id & RTR_FLAG) >> 1)
}

/// Rules by what an identifier is under their mask.
type ByValue = HashMap<u32, Vec<usize>, FixedState>;

/// Rules by what they compare, so that not every one is asked for every identifier.
struct ByMask<'a> {
    /// Of masks that many rules have: the rules by what is left of the identifier.
    many: Vec<(u32, ByValue)>,
    few: Vec<&'a (Wide, usize)>,
}

impl<'a> ByMask<'a> {
    /// So many comparisons take as long as a look-up. Tests have few rules, which are to go both ways.
    const MANY: usize = if cfg!(test) { 2 } else { 8 };

    fn new(wide: &'a [(Wide, usize)]) -> Self {
        let mut groups: BTreeMap<u32, Vec<&(Wide, usize)>> = BTreeMap::new();
        let mut few = Vec::new();
        for rule in wide {
            if rule.0.inverted {
                few.push(rule);
            } else {
                groups.entry(rule.0.mask).or_default().push(rule);
            }
        }
        let mut many = Vec::new();
        for (mask, rules) in groups {
            if rules.len() < Self::MANY {
                few.extend(rules);
                continue;
            }
            let mut by_value = ByValue::default();
            for (wide, i) in rules {
                by_value.entry(wide.id & mask).or_default().push(*i);
            }
            many.push((mask, by_value));
        }
        Self { many, few }
    }

    /// Adds the rules that match an identifier of 30 bits.
    fn matching(&self, id: u32, rules: &mut Vec<usize>) {
        for (mask, by_value) in &self.many {
            rules.extend(by_value.get(&(id & mask)).into_iter().flatten());
        }
        let matches = |wide: &Wide| ((id ^ wide.id) & wide.mask == 0) != wide.inverted;
        let few = self.few.iter().filter(|(wide, _)| matches(wide));
        rules.extend(few.map(|(_, i)| i));
    }
}

/// What an extended frame's identifier is compared with; `None` when it can never match.
fn extended(predicate: Predicate) -> Option<Wide> {
    let (id, mask, inverted) = match predicate {
        Predicate::Equal { id, mask } => (id, mask, false),
        Predicate::Differs { id, mask } => (id, mask, true),
        Predicate::Error { .. } => return None,
    };
    if mask & EFF_FLAG != 0 && id & EFF_FLAG == 0 {
        // Equal never matches an extended frame; its inversion always does.
        return inverted.then_some(Wide {
            id: 0,
            mask: 0,
            inverted: false,
        });
    }
    let wide = Wide {
        id: squeeze(id),
        mask: squeeze(mask),
        inverted,
    };
    (wide.mask != 0 || !inverted).then_some(wide)
}

/// Builds the look-up of one identifier space.
pub(super) fn space(
    kind: FrameType,
    error: bool,
    rules: &[Input],
    of_kind: &[usize],
    lists: &mut Lists<'_>,
    out: &mut Compiled,
) -> Result<Space, Error> {
    let mut wide: Vec<(Wide, usize)> = Vec::new();
    let mut exact: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    let all = of_kind.iter().flat_map(|&i| {
        rules[i]
            .predicates
            .iter()
            .map(move |predicate| (i, *predicate))
    });
    for (i, predicate) in all {
        if error {
            if let Predicate::Error { mask } = predicate
                && mask != 0
            {
                let id = 0;
                wide.push((
                    Wide {
                        id,
                        mask,
                        inverted: false,
                    },
                    i,
                ));
            }
            continue;
        }
        let Some(w) = extended(predicate) else {
            continue;
        };
        if !w.inverted && w.mask & EFF_MASK == EFF_MASK {
            for rtr in [0, RTR_FLAG] {
                let can_id = EFF_FLAG | rtr | (w.id & EFF_MASK);
                if predicate.matches(can_id) {
                    exact.entry(exact_key(kind, can_id)).or_default().push(i);
                }
            }
        } else {
            wide.push((w, i));
        }
    }
    let by_mask = ByMask::new(&wide);
    for (key, mut named) in exact {
        by_mask.matching(squeeze(key), &mut named);
        named.sort_unstable();
        named.dedup();
        out.exact.insert(key, u32::from(lists.intern(&named)?));
    }
    if wide.iter().all(|(w, _)| w.mask == 0) {
        let mut all: Vec<usize> = wide.iter().map(|(_, i)| *i).collect();
        all.dedup();
        return Ok(Space {
            list: lists.intern(&all)?,
            ..Space::default()
        });
    }
    let mut table = halves::build(error, &wide, lists)?;
    let cross = out.cross.len() * CROSS_CHUNK;
    out.cross.append(&mut table.cross);
    out.halves.push(table.halves);
    Ok(Space {
        kind: SPACE_HALVES,
        list: 0,
        halves: (out.halves.len() - 1) as u16,
        low_classes: table.low_classes,
        cross: cross as u32,
    })
}
