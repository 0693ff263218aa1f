//! Which events belong to one frame. What happens to a frame happens on one CPU, before the next one comes there; only an echo comes while the frame is
//! still on its way, and then to another interface.

use std::collections::HashMap;

use cangw_common::abi::{self, Reason, TapCell, Withheld};

use super::line::{Direction, Fate, Line, RuleLine, Verdict};
use super::names::Names;
use super::record::{Record, Seen, What};
use crate::frame_text::Frame;

/// How long after it came a frame's copies leave, at most, in nanoseconds, when no other frame comes.
pub(super) const OPEN: u64 = 20_000_000;

/// A frame that came, and what happened until now.
struct Open {
    time: u64,
    ifindex: u32,
    frame: Seen,
    status: u32,
    flags: u32,
    rules: Vec<OfRule>,
    /// Copies that left.
    copies: Vec<(u64, u32, Seen, Option<u16>)>,
    /// Something about it was lost.
    has_gaps: bool,
}

/// What a rule does with it.
struct OfRule {
    cell: TapCell,
    /// `None` until it is known.
    fate: Option<Fate>,
    /// When its copy left.
    left: Option<u64>,
}

impl OfRule {
    fn has_sent(&mut self, time: u64) {
        self.fate = Some(Fate::Sent);
        self.left = Some(time);
    }
}

/// What a CPU is at.
#[derive(Default)]
struct Cpu {
    open: Vec<Open>,
    missed: u64,
}

impl Cpu {
    /// So many records were lost until now: what is open may have lost some.
    fn misses(&mut self, missed: u64) {
        if missed > self.missed {
            self.missed = missed;
            for open in &mut self.open {
                open.has_gaps = true;
            }
        }
    }
}

/// All that is open.
#[derive(Default)]
pub(super) struct Stories {
    cpus: HashMap<u32, Cpu>,
}

/// A frame with its copies: of one that only left, the copy alone.
pub(super) struct Story {
    /// In the order of time.
    pub lines: Vec<(Option<Frame>, Line)>,
}

impl Stories {
    /// Adds a record; what is complete now comes out.
    pub fn add(&mut self, record: Record, names: &mut Names) -> Vec<Story> {
        let mut told = Vec::new();
        let cpu = self.cpus.entry(record.cpu).or_default();
        cpu.misses(record.missed);
        match record.what {
            What::Received {
                ifindex,
                frame,
                status,
                flags,
                cells,
            } => {
                let ends = |open: &mut Open| flags & abi::TAP_ECHO == 0 || open.ifindex == ifindex;
                told.extend(cpu.open.extract_if(.., ends).map(|open| open.tell(names)));
                cpu.open.push(Open {
                    time: record.time,
                    ifindex,
                    frame,
                    status,
                    flags,
                    rules: rules(cells),
                    copies: Vec::new(),
                    has_gaps: false,
                });
            }
            What::Left {
                ifindex,
                from,
                frame,
            } => {
                let open = cpu
                    .open
                    .iter_mut()
                    .rev()
                    .find(|o| from != 0 && o.ifindex == from);
                match open.map(|open| (open.sent(ifindex, record.time), open)) {
                    Some((Some(rule), open)) => {
                        open.copies.push((record.time, ifindex, frame, rule));
                    }
                    _ => told.push(alone(record.time, ifindex, from, frame, names)),
                }
            }
            What::Redirected { ifindex, from } => {
                if let Some(open) = cpu.open.iter_mut().rev().find(|o| o.ifindex == from) {
                    open.redirected(ifindex, record.time);
                }
            }
            What::Withheld { rule, why } => {
                let mut rules = cpu.open.iter_mut().rev().flat_map(|open| &mut open.rules);
                let found = rules.find(|r| u32::from(r.cell.rule) == rule && r.fate.is_none());
                if let Some(found) = found {
                    found.fate = Some(because(why));
                }
            }
        }
        told.extend(
            cpu.open
                .extract_if(.., |open| open.is_complete())
                .map(|open| open.tell(names)),
        );
        told
    }

    /// What is complete at this time, because its copies would have left.
    /// `missed` has the records of each CPU that were lost until then.
    pub fn ripe(
        &mut self,
        now: u64,
        missed: impl Iterator<Item = (u32, u64)>,
        names: &mut Names,
    ) -> Vec<Story> {
        let mut told = Vec::new();
        for (number, missed) in missed {
            let Some(cpu) = self.cpus.get_mut(&number) else {
                continue;
            };
            cpu.misses(missed);
            let ripe = |open: &mut Open| open.time.saturating_add(OPEN) <= now;
            told.extend(cpu.open.extract_if(.., ripe).map(|open| open.tell(names)));
        }
        told
    }

    /// Whether a frame waits for its copies.
    pub fn is_open(&self) -> bool {
        self.cpus.values().any(|cpu| !cpu.open.is_empty())
    }
}

/// The rules of a frame, with what is known of them from the beginning. A rule's second cell is its fault `--duplicate`.
fn rules(cells: Vec<TapCell>) -> Vec<OfRule> {
    let fate = |cell: &TapCell| {
        Some(match cell.flags & abi::UNSENT {
            0 => return None,
            abi::HOP_LIMIT => Fate::HopLimit,
            abi::ORIGIN => Fate::Origin,
            abi::MISFIT => Fate::Mtu,
            abi::TOO_LONG => Fate::TooLong,
            abi::DROP => Fate::Drop,
            abi::WAITING => Fate::Waiting,
            _ => Fate::Pass,
        })
    };
    let of_rule = |cell: TapCell| OfRule {
        fate: fate(&cell),
        cell,
        left: None,
    };
    cells.into_iter().map(of_rule).collect()
}

const fn because(why: Withheld) -> Fate {
    match why {
        Withheld::OverRate => Fate::OverRate,
        Withheld::Fault => Fate::Fault,
        Withheld::TooLong => Fate::TooLong,
        Withheld::Mtu => Fate::Mtu,
        Withheld::Refused => Fate::NotTaken,
    }
}

/// A frame that left, of which it was not seen that it came.
fn alone(time: u64, ifindex: u32, from: u32, frame: Seen, names: &mut Names) -> Story {
    let verdict = if from == 0 {
        Verdict::Local
    } else {
        Verdict::Foreign
    };
    let line = Line {
        time: names.wall(time),
        interface: names.interface(ifindex),
        direction: Direction::Out,
        frame: frame.to_string(),
        verdict,
        from: (from != 0).then(|| names.interface(from)),
        rules: Vec::new(),
    };
    Story {
        lines: vec![(frame.whole(), line)],
    }
}

impl Open {
    /// A copy left by an interface: the slot of the rule that sent it, `None` in it when that cannot be told. `None` when no rule sends there.
    fn sent(&mut self, ifindex: u32, time: u64) -> Option<Option<u16>> {
        // What is known not to send has its fate from the beginning.
        let mut rules = self.rules.iter_mut();
        let next = rules.find(|r| r.cell.ifindex == ifindex && r.fate.is_none());
        if let Some(rule) = next {
            rule.has_sent(time);
            return Some(Some(rule.cell.rule));
        }
        self.has_gaps.then_some(None)
    }

    /// XDP gave the frame to an interface, or to all (0).
    fn redirected(&mut self, ifindex: u32, time: u64) {
        for rule in &mut self.rules {
            let target = rule.cell.ifindex;
            if rule.fate.is_none() && (ifindex == 0 || target == ifindex) {
                rule.has_sent(time);
                self.copies
                    .push((time, target, self.frame.clone(), Some(rule.cell.rule)));
            }
        }
    }

    /// Whether it is known of each rule what it did.
    fn is_complete(&self) -> bool {
        self.rules.iter().all(|rule| rule.fate.is_some())
    }

    fn verdict(&self, rules: &[RuleLine]) -> Verdict {
        let any = |wanted: Fate| rules.iter().any(|rule| rule.fate == wanted);
        match self.status {
            abi::ECHOED => Verdict::Echo,
            abi::NO_RULES => Verdict::NoRules,
            abi::LISTED if self.flags & u32::from(abi::LIST_DENIED) != 0 => Verdict::Denied,
            abi::LISTED if self.flags & u32::from(abi::LIST_DROP) != 0 => Verdict::Dropped,
            abi::LISTED if any(Fate::Sent) => Verdict::Forwarded,
            abi::LISTED if any(Fate::Unknown) => Verdict::Unknown,
            abi::LISTED if any(Fate::Pass) => Verdict::Passed,
            abi::LISTED if rules.is_empty() => Verdict::Unmatched,
            abi::LISTED => Verdict::NotForwarded,
            status => match Reason::ALL.get(status as usize - 1) {
                Some(Reason::Unmatched) => Verdict::Unmatched,
                Some(Reason::Denied) => Verdict::Denied,
                Some(Reason::Malformed) => Verdict::Malformed,
                _ => Verdict::NoTables,
            },
        }
    }

    fn tell(self, names: &mut Names) -> Story {
        let mut rules = Vec::new();
        let mut named: Vec<u16> = Vec::new();
        for OfRule { cell, fate, left } in &self.rules {
            let again = named.contains(&cell.rule);
            let fate = match fate {
                Some(fate) => *fate,
                // The rule's fault chose no second copy.
                None if again => continue,
                None if self.has_gaps => Fate::Unknown,
                None => Fate::NotTaken,
            };
            // Several echoes of a frame can meet the same end.
            if again && fate != Fate::Sent {
                continue;
            }
            named.push(cell.rule);
            rules.push(RuleLine {
                rule: names.rule(cell.rule),
                target: (cell.ifindex != 0).then(|| names.interface(cell.ifindex)),
                fate,
                time: left.map(|time| names.wall(time)),
            });
        }
        let from = names.interface(self.ifindex);
        let mut lines = vec![(
            self.frame.clone().whole(),
            Line {
                time: names.wall(self.time),
                interface: from.clone(),
                direction: Direction::In,
                frame: self.frame.to_string(),
                verdict: self.verdict(&rules),
                from: None,
                rules,
            },
        )];
        for (time, ifindex, frame, rule) in self.copies {
            let time = names.wall(time);
            let target = names.interface(ifindex);
            let rules = rule.map(|rule| RuleLine {
                rule: names.rule(rule),
                target: Some(target.clone()),
                fate: Fate::Sent,
                time: Some(time),
            });
            let line = Line {
                time,
                interface: target,
                direction: Direction::Out,
                frame: frame.to_string(),
                verdict: Verdict::Sent,
                from: Some(from.clone()),
                rules: rules.into_iter().collect(),
            };
            lines.push((frame.whole(), line));
        }
        Story { lines }
    }
}

impl Seen {
    fn whole(self) -> Option<Frame> {
        match self {
            Self::Whole(frame) => Some(frame),
            Self::Malformed(_) => None,
        }
    }
}
