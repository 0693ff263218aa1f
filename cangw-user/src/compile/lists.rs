//! What is done with a frame: the distinct lists, and the cells that hold them.
//!
//! can-gw lets an echo (`-e`) meet the rules of the interface that it appears on, until it has made `max_hops` hops. As long as no
//! rule on the way edits what it echoes, all of that is known beforehand, because echoes match what the frame matches: a list holds the
//! whole journey, and the program on an echo's interface leaves it alone. Otherwise the echo is looked up again where it
//! appears, in a [state](super::states) that says how far it has come.

use std::collections::VecDeque;
use std::sync::Arc;

use cangw_common::abi::{
    CHECKED, Cell, DENY, DROP, ECHO_RUN, HOP_LIMIT, KEEP_STAMP, LIST_DENIED, LIST_DROP, LIST_ECHO,
    LIST_FORMS, LIST_STAMP, LIST_WATCH, MAX_CELLS, MAX_LIST, MISFIT, ORIGIN, PASS, RUN, TOO_LONG,
    WAITING, form,
};
use cangw_common::classify::{ListId, NO_RULE};
use cangw_common::edit::{self, Edit};
use foldhash::HashMap;

use super::states::{State, States, outcome};
use super::{Error, Input, Interface};

/// Copies in one run. With the actions that mark echoes they fit one tc filter.
const MAX_RUN: usize = 15;

/// What a rule does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It sends the frame.
    Sent,
    /// The frame has reached the hop limit.
    HopLimit,
    /// The frame came from the target.
    Origin,
    /// The modified length never fits.
    TooLong,
    /// The target's MTU is too small.
    Misfit,
    /// The target is not there.
    Waiting,
    /// It drops the frame.
    Dropped,
    /// It names the frame and does nothing else.
    Passed,
    /// It only records the frame.
    Watched,
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
    /// The state in which its echo meets the rules of the target; 0 when that is part of the list.
    pub state: u16,
    /// How often it counts.
    pub times: u16,
    /// What the copy looks like: see [`cangw_common::abi::form`].
    pub form: u16,
    /// Whether only the program can tell if it is sent: the edited length may not fit, or the rule has a guard.
    pub checked: bool,
    /// Whether it is the second copy of a rule that sends some twice.
    pub duplicate: bool,
    /// Whether a run of copies of one form begins here.
    pub run: bool,
    /// The same in the list of echoes alone.
    pub echo_run: bool,
}

impl Step {
    /// Whether the rule edits the frame.
    #[must_use]
    pub const fn edits(&self) -> bool {
        self.form & form::EDIT != 0
    }

    /// Whether the copy keeps the receive time stamp.
    #[must_use]
    pub const fn keeps_stamp(&self) -> bool {
        self.form & form::KEEP != 0
    }
}

/// What is done with the frames that match the same rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// Its number: that of its first cell.
    pub id: ListId,
    /// Its steps, in the order in which can-gw would do them.
    pub steps: Vec<Step>,
    /// Whether the program stands between its copies, because they have different forms or are too many for one run.
    pub forms: bool,
    /// What else becomes of the frame.
    pub fate: Fate,
}

/// What becomes of a frame beside its copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fate {
    /// Local sockets of the source do not get it.
    pub drops: bool,
    /// That is so because no rule names it.
    pub denied: bool,
    /// It is recorded.
    pub watched: bool,
}

impl List {
    /// Whether all copies lose the receive time stamp and nothing else.
    #[must_use]
    pub fn loses_stamp(&self) -> bool {
        !self.forms && self.sent().any(|step| !step.keeps_stamp())
    }

    /// The steps that send.
    pub fn sent(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|s| s.outcome == Outcome::Sent)
    }
}

/// What is done with a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Journey {
    steps: Vec<Step>,
    fate: Fate,
}

impl Journey {
    fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// Gives each distinct list a number.
pub(super) struct Lists<'a> {
    interface: Interface,
    states: &'a States,
    /// Whether echoes are looked up again where they appear.
    again: bool,
    rules: &'a [Input],
    /// The number of each rule's edit, 0 for none.
    edit_numbers: Vec<u16>,
    edits: Vec<Arc<Edit>>,
    cells: Vec<Cell>,
    /// By the rules that match.
    matched: HashMap<Vec<usize>, ListId>,
    /// By what is done, in every state.
    known: HashMap<Vec<Journey>, ListId>,
    lists: Vec<List>,
}

impl<'a> Lists<'a> {
    pub(super) fn new(interface: Interface, rules: &'a [Input], states: &'a States) -> Self {
        let mut edits = Vec::new();
        let edit_numbers = rules.iter().map(|rule| {
            rule.edit.as_ref().map_or(0, |edit| {
                edits.push(Arc::clone(edit));
                let number = edits.len() as u16;
                if rule.duplicates {
                    // The number after it is that of the second copy.
                    let mut again = **edit;
                    again.flags = again.flags & !edit::GUARDED | edit::DUPLICATE;
                    edits.push(Arc::new(again));
                }
                number
            })
        });
        Self {
            interface,
            states,
            again: states.looked_up_again(interface.ifindex),
            rules,
            edit_numbers: edit_numbers.collect(),
            edits,
            // Cell 0 means "no rule".
            cells: vec![Cell::default()],
            matched: HashMap::default(),
            known: HashMap::default(),
            lists: Vec::new(),
        }
    }

    /// The number of the list for a frame that matches these rules, which are sorted in order of execution.
    pub(super) fn intern(&mut self, matching: &[usize]) -> Result<ListId, Error> {
        if let Some(&id) = self.matched.get(matching) {
            return Ok(id);
        }
        let fresh = State::fresh(self.interface.ifindex);
        let mut variants = vec![self.journey(matching, fresh)?];
        for &state in self.states.of(self.interface.ifindex) {
            variants.push(self.journey(matching, state)?);
        }
        let id = match self.known.get(&variants) {
            Some(&id) => id,
            None => self.insert(variants, matching)?,
        };
        self.matched.insert(matching.to_vec(), id);
        Ok(id)
    }

    fn insert(&mut self, variants: Vec<Journey>, matching: &[usize]) -> Result<ListId, Error> {
        if variants.iter().all(Journey::is_empty) {
            return Ok(NO_RULE);
        }
        let needed: usize = variants.iter().map(|v| v.steps.len().max(1)).sum();
        if self.cells.len() + needed > MAX_CELLS {
            return Err(Error::TooManyLists {
                rules: matching.to_vec(),
            });
        }
        let first = self.cells.len();
        let firsts = first + variants.len();
        self.cells.resize(firsts, Cell::default());
        for (i, Journey { steps, fate }) in variants.iter().enumerate() {
            let list = List {
                id: (first + i) as ListId,
                forms: needs_forms(steps),
                steps: steps.clone(),
                fate: *fate,
            };
            self.write(&list);
            if !list.steps.is_empty() {
                self.lists.push(list);
            }
        }
        self.known.insert(variants, first as ListId);
        Ok(first as ListId)
    }

    /// Writes the cells of a list; the first has its place already.
    fn write(&mut self, list: &List) {
        let next = self.cells.len() as u16;
        for (position, step) in list.steps.iter().enumerate() {
            let rule = &self.rules[step.rule as usize];
            let unsent = match step.outcome {
                Outcome::Sent => 0,
                Outcome::HopLimit => HOP_LIMIT,
                Outcome::Origin => ORIGIN,
                Outcome::TooLong => TOO_LONG,
                Outcome::Misfit => MISFIT,
                Outcome::Waiting => WAITING,
                Outcome::Dropped => DROP,
                Outcome::Passed | Outcome::Watched => PASS,
            };
            let mut cell = Cell {
                rule: rule.slot as u16,
                extra: if unsent == 0 {
                    step.form & form::EDIT
                } else {
                    step.times
                },
                ifindex: rule.target,
                flags: unsent,
                ..Cell::default()
            };
            for (is_so, flag) in [
                (step.checked, CHECKED),
                (list.forms && step.run, RUN),
                (list.forms && step.echo_run, ECHO_RUN),
                (step.keeps_stamp(), KEEP_STAMP),
            ] {
                if is_so {
                    cell.flags |= flag;
                }
            }
            if position == 0 {
                cell.len = list.steps.len() as u16;
                cell.next = next;
                for (is_so, flag) in [
                    (list.steps.iter().any(|s| s.echo), LIST_ECHO),
                    (list.forms, LIST_FORMS),
                    (list.loses_stamp(), LIST_STAMP),
                    (list.fate.watched, LIST_WATCH),
                    (list.fate.drops, LIST_DROP),
                    (list.fate.denied, LIST_DENIED),
                ] {
                    if is_so {
                        cell.flags |= flag;
                    }
                }
                self.cells[usize::from(list.id)] = cell;
            } else {
                self.cells.push(cell);
            }
        }
    }

    /// The journey of a frame: `can_can_gw_rcv` for each rule that it meets, echoes in the order in which the kernel queues them.
    fn journey(&self, matching: &[usize], start: State) -> Result<Journey, Error> {
        let max_hops = self.interface.max_hops;
        let outcome = |rule: &Input, state: State| outcome(rule, state, max_hops);
        let mut steps: Vec<Step> = Vec::new();
        // Where those are that do not send: echoes that meet the same end count in one step.
        let mut ended: HashMap<(u32, Outcome), usize> = HashMap::default();
        let mut places = VecDeque::from([(self.interface.ifindex, start)]);
        while let Some((place, state)) = places.pop_front() {
            for &i in matching.iter().filter(|&&i| self.rules[i].source == place) {
                let rule = &self.rules[i];
                let mut step = self.step(i, outcome(rule, state));
                let duplicates = rule.duplicates && step.outcome == Outcome::Sent;
                if step.echo {
                    let made = state.after(rule, max_hops);
                    if self.again {
                        step.state = self.states.number(rule.target, made, max_hops);
                    } else {
                        step.echo = !(rule.target_exclusive
                            && matching.iter().any(|&next| {
                                let next = &self.rules[next];
                                next.source == rule.target && outcome(next, made) == Outcome::Sent
                            }));
                        places.push_back((rule.target, made));
                    }
                }
                if step.outcome != Outcome::Sent {
                    if let Some(&at) = ended.get(&(step.rule, step.outcome)) {
                        steps[at].times = steps[at].times.saturating_add(1);
                        continue;
                    }
                    ended.insert((step.rule, step.outcome), steps.len());
                }
                steps.push(step);
                if duplicates {
                    steps.push(Step {
                        form: step.form + 1,
                        duplicate: true,
                        ..step
                    });
                }
                if steps.len() > MAX_LIST as usize {
                    return Err(Error::ListTooLong {
                        rules: matching.to_vec(),
                    });
                }
                if step.outcome == Outcome::Dropped {
                    break;
                }
            }
        }
        let fate = self.fate(&steps, start);
        mark_runs(&mut steps, |_| true, |step| &mut step.run);
        mark_runs(&mut steps, |step| step.echo, |step| &mut step.echo_run);
        Ok(Journey { steps, fate })
    }

    /// What becomes of a frame that meets these rules. An echo is delivered to local sockets, because the rule that sent it said so.
    fn fate(&self, steps: &[Step], start: State) -> Fate {
        if steps.is_empty() {
            // The program knows the policy itself.
            return Fate::default();
        }
        let own = || {
            steps
                .iter()
                .filter(|s| self.rules[s.rule as usize].source == self.interface.ifindex)
        };
        let enters = start == State::fresh(self.interface.ifindex);
        let denies = enters && self.interface.flags & DENY != 0;
        let denied = denies && own().all(|s| s.outcome == Outcome::Watched);
        Fate {
            drops: denied || enters && own().any(|s| s.outcome == Outcome::Dropped),
            denied,
            watched: own().any(|s| self.rules[s.rule as usize].watch),
        }
    }

    fn step(&self, rule: usize, outcome: Outcome) -> Step {
        let input = &self.rules[rule];
        let sent = outcome == Outcome::Sent;
        Step {
            rule: rule as u32,
            outcome,
            echo: sent && input.echo,
            state: 0,
            times: 1,
            form: if sent {
                self.edit_numbers[rule] | if input.keep_stamp { form::KEEP } else { 0 }
            } else {
                0
            },
            duplicate: false,
            checked: sent
                && input
                    .edit
                    .as_ref()
                    .is_some_and(|edit| edit.flags & edit::CHECKED != 0),
            run: false,
            echo_run: false,
        }
    }

    pub(super) fn finish(self) -> (Vec<Cell>, Vec<List>, Vec<Arc<Edit>>) {
        (self.cells, self.lists, self.edits)
    }
}

/// Whether the program stands between the copies of a list: they have different forms, or one that is not the frame's, or are too
/// many for one run.
fn needs_forms(steps: &[Step]) -> bool {
    let sent = || steps.iter().filter(|s| s.outcome == Outcome::Sent);
    let first = sent().next().map(|step| step.form);
    sent().any(|step| step.edits() || Some(step.form) != first) || sent().count() > MAX_RUN
}

/// Marks where runs of copies of the same form begin.
fn mark_runs(
    steps: &mut [Step],
    counts: impl Fn(&Step) -> bool,
    mark: impl Fn(&mut Step) -> &mut bool,
) {
    let mut last: Option<(u16, bool)> = None;
    let mut length = 0;
    for step in steps {
        if step.outcome != Outcome::Sent || !counts(step) {
            continue;
        }
        let this = (step.form, step.checked);
        // A copy that may not fit is a run of its own, which is skipped as a whole.
        let begins = step.checked || last != Some(this) || length == MAX_RUN;
        length = if begins { 1 } else { length + 1 };
        last = Some(this);
        *mark(step) = begins;
    }
}
