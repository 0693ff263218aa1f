//! What a list of rules does, as actions of tc.

use cangw_common::abi::mark;

use crate::kernel::attr::{self, Attributes};

// linux/pkt_cls.h, tc_act/*.h
pub(super) const TCA_ACT_KIND: u16 = 1;
pub(super) const TCA_ACT_OPTIONS: u16 = 2;
pub(super) const TCA_ACT_STATS: u16 = 4;
const TCA_ACT_COOKIE: u16 = 6;
/// `TCA_MIRRED_PARMS` and `TCA_SKBEDIT_PARMS`
pub(super) const PARMS: u16 = 2;
const TCA_SKBEDIT_MARK: u16 = 5;
const TCA_SKBEDIT_MASK: u16 = 8;
pub(super) const EGRESS_REDIRECT: u32 = 1;
pub(super) const EGRESS_MIRROR: u32 = 2;
const INGRESS_REDIRECT: u32 = 3;
pub(super) const INGRESS_MIRROR: u32 = 4;

/// What follows an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub(super) enum Control {
    /// `TC_ACT_UNSPEC`: the filter of the next priority.
    NextFilter = -1,
    /// `TC_ACT_OK`: local sockets.
    Deliver = 0,
    /// `TC_ACT_PIPE`: the next action.
    NextAction = 3,
    /// `TC_ACT_STOLEN`: nothing, the frame is gone.
    Gone = 4,
}

/// One step of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send to an interface, for the rule with this slot.
    Send {
        /// Target.
        ifindex: u32,
        /// Slot of the rule, or [`SHARED`].
        rule: u32,
    },
    /// Deliver to local sockets of an interface.
    Echo {
        /// Target.
        ifindex: u32,
        /// Slot of the rule, or [`SHARED`].
        rule: u32,
    },
    /// Mark the frame as an echo of ours, in this state.
    Tag(u16),
    /// Take the mark of an echo off.
    Untag,
}

/// In place of a rule's slot: the list serves several rules.
pub const SHARED: u32 = u32::MAX;

/// What a list does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    /// The steps, run by run; at most 32 in each.
    pub runs: Vec<Vec<Action>>,
    /// What becomes of the frame afterwards.
    pub end: End,
}

/// What becomes of a frame at the end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// It is delivered on its source.
    Deliver,
    /// It is not. `redirect`: the last copy is the frame itself, which loses its receive time stamp (`skb_set_redirected`).
    Gone {
        /// Whether the last action takes the frame.
        redirect: bool,
    },
    /// The program sees it once more.
    Next,
}

impl Plan {
    /// How many times the program stands between runs, or behind them.
    #[must_use]
    pub fn stages(&self) -> u16 {
        let behind = usize::from(self.end == End::Next);
        (self.runs.len() + behind).saturating_sub(1) as u16
    }

    /// How many filters it is.
    #[must_use]
    pub fn filters(&self) -> u32 {
        self.runs.len() as u32
    }

    /// Whether it does nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

/// An action as tc has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Raw {
    pub kind: &'static str,
    pub control: i32,
    /// `eaction` and `ifindex` of mirred, mark and mask of skbedit.
    pub first: u32,
    pub second: u32,
    pub rule: u32,
}

impl Plan {
    /// The actions of each run.
    pub(super) fn raw(&self) -> Vec<Vec<Raw>> {
        let mut runs: Vec<Vec<Raw>> = Vec::with_capacity(self.runs.len());
        for actions in &self.runs {
            let mut run: Vec<Raw> = actions.iter().map(|a| a.raw()).collect();
            if let Some(last) = run.last_mut() {
                last.control = Control::NextFilter as i32;
            }
            runs.push(run);
        }
        if let Some(last) = runs.last_mut().and_then(|run| run.last_mut()) {
            match self.end {
                End::Deliver => last.control = Control::Deliver as i32,
                End::Next => {}
                End::Gone { redirect } => {
                    last.control = Control::Gone as i32;
                    if redirect {
                        last.first = match last.first {
                            EGRESS_MIRROR => EGRESS_REDIRECT,
                            INGRESS_MIRROR => INGRESS_REDIRECT,
                            other => other,
                        };
                    }
                }
            }
        }
        runs
    }
}

impl Action {
    pub(super) fn raw(self) -> Raw {
        let control = Control::NextAction as i32;
        let (kind, first, second, rule) = match self {
            Self::Send { ifindex, rule } => ("mirred", EGRESS_MIRROR, ifindex, rule),
            Self::Echo { ifindex, rule } => ("mirred", INGRESS_MIRROR, ifindex, rule),
            Self::Tag(state) => {
                let state = u32::from(state) << mark::STATE_SHIFT;
                // The whole mark: with a handle left in it, the echo would be taken for a frame of that list where it
                // appears, as long as the program is not attached there.
                ("skbedit", mark::ECHO | state, u32::MAX, 0)
            }
            Self::Untag => ("skbedit", 0, u32::MAX, 0),
        };
        Raw {
            kind,
            control,
            first,
            second,
            rule,
        }
    }
}

impl Raw {
    /// With a number other than 0: the action that has it, which several filters share, with its counters.
    pub(super) fn attributes(&self, number: u32) -> Attributes {
        // struct tc_gen: index, capab, action, refcnt, bindcnt; then eaction and ifindex of mirred.
        let mut parms = vec![0u8; 20];
        parms[..4].copy_from_slice(&number.to_ne_bytes());
        parms[8..12].copy_from_slice(&self.control.to_ne_bytes());
        let options = if self.kind == "mirred" {
            parms.extend_from_slice(&self.first.to_ne_bytes());
            parms.extend_from_slice(&self.second.to_ne_bytes());
            Attributes::default().with(PARMS, &parms)
        } else {
            Attributes::default()
                .with(PARMS, &parms)
                .with_u32(TCA_SKBEDIT_MARK, self.first)
                .with_u32(TCA_SKBEDIT_MASK, self.second)
        };
        Attributes::default()
            .with_text(TCA_ACT_KIND, self.kind)
            .with_nested(TCA_ACT_OPTIONS, options)
            .with_u32(TCA_ACT_COOKIE, self.rule)
    }

    /// An action as the kernel reports it, and its number.
    pub(super) fn parse(action: &[u8]) -> Option<(Self, u32)> {
        let kind = match attr::find(action, TCA_ACT_KIND)? {
            b"mirred\0" => "mirred",
            b"skbedit\0" => "skbedit",
            _ => return None,
        };
        let options = attr::find(action, TCA_ACT_OPTIONS)?;
        let parms = attr::find(options, PARMS)?;
        let (first, second) = if kind == "mirred" {
            (attr::u32_at(parms, 20)?, attr::u32_at(parms, 24)?)
        } else {
            let number = |kind| attr::u32_at(attr::find(options, kind)?, 0);
            // The kernel leaves out a mask of all ones.
            (
                number(TCA_SKBEDIT_MARK)?,
                number(TCA_SKBEDIT_MASK).unwrap_or(u32::MAX),
            )
        };
        let raw = Self {
            kind,
            control: attr::u32_at(parms, 8)? as i32,
            first,
            second,
            rule: attr::u32_at(attr::find(action, TCA_ACT_COOKIE)?, 0)?,
        };
        Some((raw, attr::u32_at(parms, 0)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(ifindex: u32) -> Action {
        Action::Send {
            ifindex,
            rule: ifindex + 100,
        }
    }

    #[test]
    fn an_action_survives_the_way_to_the_kernel_and_back() {
        for action in [
            send(3),
            Action::Echo {
                ifindex: 4,
                rule: SHARED,
            },
            Action::Tag(0),
            Action::Tag(8191),
            Action::Untag,
        ] {
            let raw = action.raw();
            let bytes = raw.attributes(7).into_bytes();
            assert_eq!(Raw::parse(&bytes), Some((raw, 7)));
        }
        assert_eq!(Raw::parse(&[]), None);
    }

    #[test]
    fn runs_lead_to_each_other_and_the_last_to_its_end() {
        let plan = |end| Plan {
            runs: vec![vec![send(1), send(2)], vec![send(3)]],
            end,
        };
        let ends = |end| {
            let runs = plan(end).raw();
            let control = |run: usize, at: usize| (runs[run][at].control, runs[run][at].first);
            (control(0, 0), control(0, 1), control(1, 0))
        };
        let more = (Control::NextAction as i32, EGRESS_MIRROR);
        let next = (Control::NextFilter as i32, EGRESS_MIRROR);
        let gone = Control::Gone as i32;
        assert_eq!(
            ends(End::Deliver),
            (more, next, (Control::Deliver as i32, EGRESS_MIRROR))
        );
        assert_eq!(ends(End::Next), (more, next, next));
        assert_eq!(
            ends(End::Gone { redirect: true }),
            (more, next, (gone, EGRESS_REDIRECT))
        );
        assert_eq!(
            ends(End::Gone { redirect: false }),
            (more, next, (gone, EGRESS_MIRROR))
        );
        assert_eq!(plan(End::Deliver).stages(), 1);
        assert_eq!(plan(End::Next).stages(), 2);
    }
}
