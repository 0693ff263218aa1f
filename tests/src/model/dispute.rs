//! Where our gateway does something else than can-gw on purpose: docs/differences-from-can-gw.md.

use crate::diff::rule::Rule;
use crate::frame::{EFF, ERR};

/// Hops of echoes that can be edited on their way.
const MOST_HOPS: u32 = 3;

/// How a frame has come to an interface, by the echoes on its way.
#[derive(Clone, Copy, Default)]
pub(super) struct Way {
    /// Those that were made where an edit was still to come.
    looked_up: u32,
    /// Those that were made since then, where none was.
    planned: u32,
}

impl Way {
    /// With one more echo, made by a rule of this interface.
    pub(super) fn echoed<'a>(self, rules: impl Iterator<Item = &'a Rule>, on: &str) -> Self {
        if edits_ahead(rules, on) {
            Self {
                looked_up: self.looked_up + 1,
                planned: 0,
            }
        } else {
            Self {
                planned: self.planned + 1,
                ..self
            }
        }
    }

    /// Whether it makes a difference when the frame is forwarded now. Chains with edits end early. And behind them, where
    /// an interface has no edits ahead, all hops to come are made at once; frames of other content can be between them with can-gw.
    pub(super) const fn is_disputed(self) -> bool {
        self.looked_up >= MOST_HOPS || self.looked_up > 0 && self.planned > 0
    }
}

/// Whether echoes of an interface's rules can come to a rule that edits what it echoes.
fn edits_ahead<'a>(rules: impl Iterator<Item = &'a Rule>, on: &str) -> bool {
    let echoing: Vec<&Rule> = rules.filter(|rule| rule.echo).collect();
    let mut places = vec![on];
    let mut next = 0;
    while let Some(&place) = places.get(next) {
        next += 1;
        for rule in echoing.iter().filter(|rule| rule.source == place) {
            if !rule.modifications.is_empty() {
                return true;
            }
            if !places.contains(&rule.target) {
                places.push(rule.target);
            }
        }
    }
    false
}

/// A standard frame with more than 11 bits, which no bus carries.
pub(super) const fn is_impossible(id: u32) -> bool {
    id & (EFF | ERR) == 0 && id & 0x1FFF_F800 != 0
}
