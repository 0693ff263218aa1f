//! A case: what is done to a gateway, one step after the other.

use std::fmt;

use super::rule::Rule;
use crate::frame::Frame;

/// Interfaces of the gateway's namespace: the first four are vcan, the others the inner ends of vxcan pairs.
pub const INNER: [&str; 8] = ["vcan0", "vcan1", "vcan2", "vcan3", "p0", "p1", "p2", "p3"];

/// The other ends of these pairs, in a namespace without rules.
pub const OUTER: [&str; 4] = ["q0", "q1", "q2", "q3"];

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `cangw -A`
    Add(Rule),
    /// `cangw -D`
    Delete(Rule),
    /// A program sends a frame on an interface.
    Send(&'static str, Frame),
}

impl Step {
    /// The rule that it adds.
    #[must_use]
    pub fn added(&self) -> Option<&Rule> {
        match self {
            Self::Add(rule) => Some(rule),
            Self::Delete(_) | Self::Send(..) => None,
        }
    }

    /// As [`Self::added`].
    pub fn added_mut(&mut self) -> Option<&mut Rule> {
        match self {
            Self::Add(rule) => Some(rule),
            Self::Delete(_) | Self::Send(..) => None,
        }
    }
}

/// What is done to a gateway that has no rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// `max_hops` of can-gw.
    pub max_hops: u8,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

impl Case {
    /// How many rules it adds.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.steps.iter().filter_map(Step::added).count()
    }

    /// How many frames it sends.
    #[must_use]
    pub fn frames(&self) -> usize {
        let sent = |step: &&Step| matches!(step, Step::Send(..));
        self.steps.iter().filter(sent).count()
    }
}

/// As lines for a shell, with cangw, can-utils' cansend.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# can-gw: modprobe can-gw max_hops={}", self.max_hops)?;
        writeln!(f, "# ours: cangw settings max-hops {}", self.max_hops)?;
        for step in &self.steps {
            match step {
                Step::Add(rule) => writeln!(f, "cangw -A {}", rule.options())?,
                Step::Delete(rule) => writeln!(f, "cangw -D {}", rule.options())?,
                Step::Send(on, frame) => {
                    write!(f, "cansend {on} {frame}")?;
                    let rest = frame.rest();
                    writeln!(f, "{}{rest}", if rest.is_empty() { "" } else { "  #" })?;
                }
            }
        }
        writeln!(f, "cangw -L")
    }
}
