//! What a capture shows of a frame.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

/// What a capture tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
pub enum Told {
    /// A frame came or left.
    Frame(Line),
    /// So many events found no room in the ring buffer since the capture began.
    Lost {
        /// The number.
        events: u64,
    },
}

/// A frame that came to an interface, or left by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When, in nanoseconds after the start of 1970.
    pub time: u64,
    /// The interface.
    pub interface: String,
    /// Whether it came or left.
    pub direction: Direction,
    /// The frame as in candump's logs; of one that is malformed, its bytes.
    pub frame: String,
    /// What became of it, or why it left.
    pub verdict: Verdict,
    /// Of a frame that left and was not sent by a local socket: the interface on which it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The rules that matched it, in the order of their copies; of a frame that left, the one that sent it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleLine>,
}

/// Which way a frame goes, as seen from the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// It came to the interface.
    In,
    /// It left by the interface.
    Out,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// At least one copy of it left.
    Forwarded,
    /// Rules matched it, but no copy left.
    NotForwarded,
    /// A rule drops it; local sockets do not get it either.
    Dropped,
    /// No rule names it, and the policy of the interface is to deny.
    Denied,
    /// A rule lets it pass to local sockets.
    Passed,
    /// No rule matches it.
    Unmatched,
    /// It is no frame that the kernel takes.
    Malformed,
    /// The interface has no rules.
    NoRules,
    /// The rules were changed while it was on its way, or are missing.
    NoTables,
    /// The gateway's own echo (`-e`), which met the rules of this interface when it was sent.
    Echo,
    /// The gateway sent it.
    Sent,
    /// A local socket sent it.
    Local,
    /// Something other than this gateway's rules forwarded it.
    Foreign,
    /// What tells what became of it was lost.
    Unknown,
}

/// What a rule did with a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleLine {
    /// The rule as options.
    pub rule: String,
    /// The target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What it did.
    pub fate: Fate,
    /// When, in nanoseconds after the start of 1970, if that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<u64>,
}

/// What became of a rule's copy of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It was given to the target.
    Sent,
    /// The rule drops the frame.
    Drop,
    /// The rule lets the frame pass to local sockets.
    Pass,
    /// The hop limit is reached.
    HopLimit,
    /// The frame came from the target.
    Origin,
    /// The modified length does not fit the type of frame.
    TooLong,
    /// The target's MTU is too small.
    Mtu,
    /// The target is not there.
    Waiting,
    /// Over the rule's rate limit.
    OverRate,
    /// The rule's fault `--drop`.
    Fault,
    /// The target did not take it: down, gone, or something in front of it.
    NotTaken,
    /// What would tell was lost.
    Unknown,
}

impl Fate {
    /// Why a copy was not sent.
    const fn reason(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Drop => "the rule drops it",
            Self::Pass => "the rule lets it pass",
            Self::HopLimit => "the hop limit is reached",
            Self::Origin => "it came from there",
            Self::TooLong => "its modified length does not fit",
            Self::Mtu => "the MTU is too small",
            Self::Waiting => "the target is not there",
            Self::OverRate => "over the rate limit",
            Self::Fault => "by the fault --drop",
            Self::NotTaken => "the target did not take it",
            Self::Unknown => "what became of it was lost",
        }
    }
}

impl Verdict {
    /// What a person reads.
    const fn text(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::NotForwarded => "not forwarded",
            Self::Dropped => "dropped",
            Self::Denied => "denied: no rule names it",
            Self::Passed => "passed",
            Self::Unmatched => "no rule matches",
            Self::Malformed => "malformed",
            Self::NoRules => "no rules here",
            Self::NoTables => "the rules were changed meanwhile",
            Self::Echo => "echo of the gateway",
            Self::Sent => "sent",
            Self::Local => "sent by a local socket",
            Self::Foreign => "forwarded by something else",
            Self::Unknown => "unknown: what tells was lost",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl RuleLine {
    /// As a part of a sentence.
    #[must_use]
    pub fn explain(&self) -> String {
        let target = self.target.as_deref().unwrap_or_default();
        match self.fate {
            Fate::Sent => format!("to {target} by \"{}\"", self.rule),
            Fate::Drop | Fate::Pass => format!("by \"{}\"", self.rule),
            fate => format!("not to {target} by \"{}\": {}", self.rule, fate.reason()),
        }
    }
}

impl Line {
    /// What became of the frame, as a sentence.
    #[must_use]
    pub fn explain(&self) -> String {
        let mut text = self.verdict.text().to_owned();
        if self.direction == Direction::Out {
            if let Some(from) = &self.from {
                let _ = write!(text, " from {from}");
            }
            if let Some(rule) = self.rules.first() {
                let _ = write!(text, " by \"{}\"", rule.rule);
            }
            return text;
        }
        for (index, rule) in self.rules.iter().enumerate() {
            text += match (index, rule.fate) {
                (0, Fate::Drop | Fate::Pass) => " ",
                (0, _) => ": ",
                _ => "; ",
            };
            text += &rule.explain();
        }
        text
    }
}

/// As in candump's logs, with the direction as `candump -x` has it, and what became of the frame behind it.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::In => 'R',
            Direction::Out => 'T',
        };
        write!(
            f,
            "({}.{:06}) {} {} {direction} {}",
            self.time / 1_000_000_000,
            self.time / 1000 % 1_000_000,
            self.interface,
            self.frame,
            self.explain(),
        )
    }
}
