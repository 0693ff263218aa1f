//! What is done with a frame: the distinct lists, and the cells that hold them.
//!
//! can-gw lets an echo (`-e`) meet the rules of the interface that it appears on, until it has made `max_hops` hops. All of that
//! is known beforehand, because echoes of unmodified frames match what the frame matches: a list holds the whole journey, and the
//! program on an echo's interface leaves it alone. So the kernel's limit on nested mirroring (3 to 4, by version) is never met.

use std::collections::{HashMap, VecDeque};

use cangw_common::abi::{Cell, HOP_LIMIT, LIST_ECHO, MAX_CELLS, MAX_LIST, MISFIT, ORIGIN};
use cangw_common::classify::{ListId, NO_RULE};

use super::{Error, Input, Interface};

/// What a rule does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It sends the frame.
    Sent,
    /// The frame has reached the hop limit.
    HopLimit,
    /// The frame came from the target.
    Origin,
    /// The target's MTU is too small.
    Misfit,
}

/// A rule's part in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// Index of the rule.
    pub rule: u32,
    /// What it does.
    pub outcome: Outcome,
    /// Whether the frame is delivered to local sockets of the target.
    pub echo: bool,
    /// How often it counts.
    pub times: u16,
}

/// What is done with the frames that match the same rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// Its number: that of its first cell.
    pub id: ListId,
    /// Its steps, in the order in which can-gw would do them.
    pub steps: Vec<Step>,
}

/// Gives each distinct list a number.
pub(super) struct Lists<'a> {
    interface: Interface,
    rules: &'a [Input],
    cells: Vec<Cell>,
    /// By the rules that match.
    matched: HashMap<Vec<usize>, ListId>,
    /// By what is done.
    known: HashMap<Vec<Step>, ListId>,
    lists: Vec<List>,
}

impl<'a> Lists<'a> {
    pub(super) fn new(interface: Interface, rules: &'a [Input]) -> Self {
        Self {
            interface,
            rules,
            // Cell 0 means "no rule".
            cells: vec![Cell::default()],
            matched: HashMap::new(),
            known: HashMap::new(),
            lists: Vec::new(),
        }
    }

    /// The number of the list for a frame that matches these rules, which are sorted in order of execution.
    pub(super) fn intern(&mut self, matching: &[usize]) -> Result<ListId, Error> {
        if let Some(&id) = self.matched.get(matching) {
            return Ok(id);
        }
        let steps = self.journey(matching)?;
        let id = match self.known.get(&steps) {
            Some(&id) => id,
            None => self.insert(steps, matching)?,
        };
        self.matched.insert(matching.to_vec(), id);
        Ok(id)
    }

    fn insert(&mut self, steps: Vec<Step>, matching: &[usize]) -> Result<ListId, Error> {
        if steps.is_empty() {
            return Ok(NO_RULE);
        }
        if self.cells.len() + steps.len() > MAX_CELLS {
            return Err(Error::TooManyLists {
                rules: matching.to_vec(),
            });
        }
        let first = self.cells.len();
        let id = first as ListId;
        let echo = steps.iter().any(|s| s.echo);
        for (position, step) in steps.iter().enumerate() {
            let rule = &self.rules[step.rule as usize];
            let head = position == 0;
            let unsent = match step.outcome {
                Outcome::Sent => 0,
                Outcome::HopLimit => HOP_LIMIT,
                Outcome::Origin => ORIGIN,
                Outcome::Misfit => MISFIT,
            };
            self.cells.push(Cell {
                handle: 0,
                len: if head { steps.len() as u16 } else { 0 },
                rule: rule.slot as u16,
                times: step.times,
                ifindex: rule.target,
                flags: unsent | if head && echo { LIST_ECHO } else { 0 },
                next: if head { (first + 1) as u16 } else { 0 },
            });
        }
        self.known.insert(steps.clone(), id);
        self.lists.push(List { id, steps });
        Ok(id)
    }

    /// The journey of a frame: `can_can_gw_rcv` for each rule that it meets, echoes in the order in which the kernel queues them.
    fn journey(&self, matching: &[usize]) -> Result<Vec<Step>, Error> {
        let origin = self.interface.ifindex;
        let mut steps: Vec<Step> = Vec::new();
        // Where those are that do not send: echoes that meet the same end count in one step.
        let mut ended: HashMap<(u32, Outcome), usize> = HashMap::new();
        let mut places = VecDeque::from([(origin, 0)]);
        while let Some((place, hops)) = places.pop_front() {
            for &i in matching.iter().filter(|&&i| self.rules[i].source == place) {
                let rule = &self.rules[i];
                let outcome = self.outcome(rule, hops);
                let echo = outcome == Outcome::Sent && rule.echo;
                let mut step = Step {
                    rule: i as u32,
                    outcome,
                    echo,
                    times: 1,
                };
                if echo {
                    let made = self.hops_after(rule, hops);
                    step.echo = !(rule.target_exclusive
                        && matching.iter().any(|&next| {
                            let next = &self.rules[next];
                            next.source == rule.target && self.outcome(next, made) == Outcome::Sent
                        }));
                    places.push_back((rule.target, made));
                }
                if outcome != Outcome::Sent {
                    if let Some(&at) = ended.get(&(step.rule, outcome)) {
                        steps[at].times = steps[at].times.saturating_add(1);
                        continue;
                    }
                    ended.insert((step.rule, outcome), steps.len());
                }
                steps.push(step);
                if steps.len() > MAX_LIST as usize {
                    return Err(Error::ListTooLong {
                        rules: matching.to_vec(),
                    });
                }
            }
        }
        Ok(steps)
    }

    fn outcome(&self, rule: &Input, hops: u8) -> Outcome {
        if hops >= self.interface.max_hops {
            Outcome::HopLimit
        } else if !rule.iif_tx_ok && (rule.target == self.interface.ifindex || rule.to_peer) {
            Outcome::Origin
        } else if rule.misfit {
            Outcome::Misfit
        } else {
            Outcome::Sent
        }
    }

    /// Hops that a frame has made after a rule sent it. A rule's own limit acts on the first hop only.
    fn hops_after(&self, rule: &Input, hops: u8) -> u8 {
        if hops == 0 && rule.limit != 0 {
            (self.interface.max_hops + 1).saturating_sub(rule.limit)
        } else {
            hops + 1
        }
    }

    pub(super) fn finish(self) -> (Vec<Cell>, Vec<List>) {
        (self.cells, self.lists)
    }
}
