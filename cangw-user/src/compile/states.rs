//! How far echoes have come that are looked up again where they appear.
//!
//! An edited echo can match other rules than the frame did, so its journey is not known when the rules are compiled. But where it can be
//! is: with an interface from which it came first, and a number of hops, which is all that the rules ask. Each such pair
//! is a state of the interface on which the echo appears, and the echo's mark carries its number.

use std::collections::{HashMap, HashSet, VecDeque};

use cangw_common::abi::MAX_STATES;

use super::lists::Outcome;
use super::{Error, Input};
use crate::options::Stay;

/// Where a frame came from first, and the hops that it has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// Interface on which the frame entered the gateway.
    pub origin: u32,
    /// Hops.
    pub hops: u8,
    /// How often it was looked up again.
    pub depth: u8,
}

/// How often an echo can be looked up again and still be forwarded. The kernel counts with two bits how often a frame was given to an ingress
/// hook by act_mirred (`skb->tc_depth`), and then drops it; the rules delete it before.
const MAX_DEPTH: u8 = 3;

impl State {
    /// With all hops made, the origin no longer matters.
    fn normal(self, max_hops: u8) -> Self {
        if self.hops >= max_hops || self.depth >= MAX_DEPTH {
            Self {
                origin: 0,
                hops: max_hops,
                depth: MAX_DEPTH,
            }
        } else {
            self
        }
    }
}

impl State {
    /// Of a frame that has just entered.
    #[must_use]
    pub const fn fresh(origin: u32) -> Self {
        Self {
            origin,
            hops: 0,
            depth: 0,
        }
    }

    /// After a rule sent it, if its echo is looked up again.
    pub(super) fn after(self, rule: &Input, max_hops: u8) -> Self {
        Self {
            origin: self.origin,
            hops: hops_after(rule, self.hops, max_hops),
            depth: self.depth + 1,
        }
    }
}

/// The states of all interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct States {
    of: HashMap<u32, Vec<State>>,
    again: HashSet<u32>,
}

/// What becomes of a frame at a rule: the checks of `can_can_gw_rcv`.
pub(super) fn outcome(rule: &Input, state: State, max_hops: u8) -> Outcome {
    if let Some(stay) = rule.stay {
        match stay {
            Stay::Drop => Outcome::Dropped,
            Stay::Pass => Outcome::Passed,
            Stay::Watch => Outcome::Watched,
        }
    } else if rule.waiting {
        Outcome::Waiting
    } else if state.hops >= max_hops {
        Outcome::HopLimit
    } else if !rule.iif_tx_ok && (rule.target == state.origin || rule.to_peer) {
        Outcome::Origin
    } else if rule.too_long {
        Outcome::TooLong
    } else if rule.misfit {
        Outcome::Misfit
    } else {
        Outcome::Sent
    }
}

/// Hops that a frame has made after a rule sent it. A rule's own limit acts on the first hop only.
fn hops_after(rule: &Input, hops: u8, max_hops: u8) -> u8 {
    if hops == 0 && rule.limit != 0 {
        (max_hops + 1).saturating_sub(rule.limit)
    } else {
        hops + 1
    }
}

/// The interfaces that frames of `source` reach by echoes, itself first.
pub(super) fn reached(source: u32, edges: &HashMap<u32, Vec<u32>>) -> Vec<u32> {
    let mut reached = vec![source];
    let mut next = 0;
    while let Some(place) = reached.get(next) {
        next += 1;
        for &target in edges.get(place).into_iter().flatten() {
            if !reached.contains(&target) {
                reached.push(target);
            }
        }
    }
    reached
}

/// From each interface to those that its rules echo to.
pub(super) fn echo_edges(rules: &[Input]) -> HashMap<u32, Vec<u32>> {
    let mut edges: HashMap<u32, Vec<u32>> = HashMap::new();
    for rule in rules.iter().filter(|rule| rule.echo) {
        let targets = edges.entry(rule.source).or_default();
        if !targets.contains(&rule.target) {
            targets.push(rule.target);
        }
    }
    edges
}

impl States {
    /// The states that frames can be in under all rules of a network namespace.
    ///
    /// # Errors
    /// [`Error::TooManyStates`]
    pub fn new(rules: &[Input], max_hops: u8) -> Result<Self, Error> {
        let edges = echo_edges(rules);
        let editing: HashSet<u32> = rules
            .iter()
            .filter(|rule| rule.echo && rule.edit.is_some())
            .map(|rule| rule.source)
            .collect();
        let sources: HashSet<u32> = rules.iter().map(|rule| rule.source).collect();
        let mut states = Self::default();
        if editing.is_empty() {
            return Ok(states);
        }
        states.again = sources
            .iter()
            .copied()
            .filter(|&s| reached(s, &edges).iter().any(|p| editing.contains(p)))
            .collect();
        let mut order: Vec<u32> = states.again.iter().copied().collect();
        order.sort_unstable();
        let mut open: VecDeque<(u32, State)> = order
            .into_iter()
            .map(|origin| (origin, State::fresh(origin)))
            .collect();
        while let Some((place, state)) = open.pop_front() {
            if !states.again.contains(&place) {
                continue;
            }
            for rule in rules.iter().filter(|r| r.source == place && r.echo) {
                if outcome(rule, state, max_hops) != Outcome::Sent
                    || !sources.contains(&rule.target)
                {
                    continue;
                }
                let made = state.after(rule, max_hops).normal(max_hops);
                let known = states.of.entry(rule.target).or_default();
                if !known.contains(&made) {
                    known.push(made);
                    if known.len() > MAX_STATES as usize {
                        return Err(Error::TooManyStates {
                            ifindex: rule.target,
                        });
                    }
                    open.push_back((rule.target, made));
                }
            }
        }
        Ok(states)
    }

    /// Whether echoes of the rules of an interface are looked up again where they appear.
    #[must_use]
    pub fn looked_up_again(&self, ifindex: u32) -> bool {
        self.again.contains(&ifindex)
    }

    /// The states of an interface; the first has number 1.
    #[must_use]
    pub fn of(&self, ifindex: u32) -> &[State] {
        self.of.get(&ifindex).map_or(&[], Vec::as_slice)
    }

    /// The number of a state of an interface; 0 when the interface has no rules.
    #[must_use]
    pub fn number(&self, ifindex: u32, state: State, max_hops: u8) -> u16 {
        let state = state.normal(max_hops);
        let known = self.of(ifindex);
        known
            .iter()
            .position(|s| *s == state)
            .map_or(0, |at| at as u16 + 1)
    }
}
