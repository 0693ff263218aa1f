//! The distinct lists of rules, and the cells that hold them.

use std::collections::HashMap;

use cangw_common::abi::{Cell, ECHO, IIF_TX_OK, LIST_ECHO, MAX_CELLS, MAX_LIST, MISFIT, PEER};
use cangw_common::classify::{ListId, NO_RULE};

use super::{Error, Input};

/// A list of rules that some frame matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// Its number: that of its first cell.
    pub id: ListId,
    /// Its rules, in the order in which they are carried out.
    pub rules: Vec<u32>,
}

/// Gives each distinct list a number.
pub(super) struct Lists<'a> {
    rules: &'a [Input],
    cells: Vec<Cell>,
    known: HashMap<Vec<u32>, ListId>,
    lists: Vec<List>,
}

impl<'a> Lists<'a> {
    pub(super) fn new(rules: &'a [Input]) -> Self {
        Self {
            rules,
            // Cell 0 means "no rule".
            cells: vec![Cell::default()],
            known: HashMap::new(),
            lists: Vec::new(),
        }
    }

    /// The number of the list of these rules, which are sorted in order of execution.
    pub(super) fn intern(&mut self, rules: &[usize]) -> Result<ListId, Error> {
        if rules.is_empty() {
            return Ok(NO_RULE);
        }
        let key: Vec<u32> = rules.iter().map(|&i| i as u32).collect();
        if let Some(&id) = self.known.get(&key) {
            return Ok(id);
        }
        if rules.len() > MAX_LIST as usize {
            return Err(Error::ListTooLong {
                rules: rules.to_vec(),
            });
        }
        if self.cells.len() + rules.len() > MAX_CELLS {
            return Err(Error::TooManyLists {
                rules: rules.to_vec(),
            });
        }
        let first = self.cells.len();
        let id = first as ListId;
        let echo = rules
            .iter()
            .any(|&i| self.rules[i].flags & ECHO != 0 && sends(&self.rules[i]));
        for (position, &i) in rules.iter().enumerate() {
            let rule = &self.rules[i];
            let head = position == 0;
            self.cells.push(Cell {
                handle: 0,
                len: if head { rules.len() as u16 } else { 0 },
                rule: rule.slot,
                ifindex: rule.target,
                flags: rule.flags | if head && echo { LIST_ECHO } else { 0 },
                next: if head { (first + 1) as u16 } else { 0 },
            });
        }
        self.known.insert(key.clone(), id);
        self.lists.push(List { id, rules: key });
        Ok(id)
    }

    /// For each list, and each target that a frame of it may have come from: the list without the rules that would
    /// send the frame back.
    pub(super) fn without_origins(&mut self) -> Result<Vec<(ListId, u32, ListId)>, Error> {
        let mut out = Vec::new();
        for list in self.lists.clone() {
            let back = |i: u32, origin: u32| {
                let rule = &self.rules[i as usize];
                rule.target == origin && rule.flags & (IIF_TX_OK | PEER) == 0
            };
            let mut origins: Vec<u32> = list
                .rules
                .iter()
                .map(|&i| self.rules[i as usize].target)
                .collect();
            origins.sort_unstable();
            origins.dedup();
            for origin in origins {
                let rest: Vec<usize> = list
                    .rules
                    .iter()
                    .filter(|&&i| !back(i, origin))
                    .map(|&i| i as usize)
                    .collect();
                if rest.len() < list.rules.len() {
                    out.push((list.id, origin, rest));
                }
            }
        }
        out.into_iter()
            .map(|(list, origin, rest)| Ok((list, origin, self.intern(&rest)?)))
            .collect()
    }

    pub(super) fn finish(self) -> (Vec<Cell>, Vec<List>) {
        (self.cells, self.lists)
    }
}

/// Whether a rule sends at all.
fn sends(rule: &Input) -> bool {
    rule.flags & (PEER | MISFIT) == 0
}
