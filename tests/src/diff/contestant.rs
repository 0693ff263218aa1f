//! What is seen of a case from outside, by whoever runs it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::frame::Frame;

/// The exit status of can-utils' cangw when the kernel says EINVAL.
pub const EINVAL: i32 = 256 - libc::EINVAL;

/// What is seen of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The exit status of each change of the rules.
    pub codes: Vec<i32>,
    /// The frames that programs saw on each interface, in order.
    pub seen: BTreeMap<&'static str, Vec<Frame>>,
    /// `cangw -L` at the end.
    pub list: String,
}

impl Observation {
    /// In what another one differs, as text; `None` when it does not.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self == other {
            return None;
        }
        let mut text = String::new();
        let mut say = |arguments: std::fmt::Arguments<'_>| {
            let _ = text.write_fmt(arguments);
        };
        if self.codes != other.codes {
            say(format_args!("exit status\n- {:?}\n", self.codes));
            say(format_args!("+ {:?}\n", other.codes));
        }
        let none = Vec::new();
        for interface in super::case::INNER.iter().chain(&super::case::OUTER) {
            let ours = self.seen.get(interface).unwrap_or(&none);
            let theirs = other.seen.get(interface).unwrap_or(&none);
            if ours == theirs {
                continue;
            }
            let same = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
            say(format_args!(
                "{interface}: {} frames, {} frames, the first {same} are the same, then\n",
                ours.len(),
                theirs.len()
            ));
            for (sign, frames) in [('-', ours), ('+', theirs)] {
                for frame in frames.iter().skip(same).take(3) {
                    say(format_args!("{sign} {frame}{}\n", frame.rest()));
                }
            }
        }
        for (sign, a, b) in [('-', self, other), ('+', other, self)] {
            let known: Vec<&str> = b.list.lines().collect();
            for line in a.list.lines().filter(|line| !known.contains(line)) {
                say(format_args!("{sign} {line}\n"));
            }
        }
        if text.is_empty() {
            text.push_str("the lists have the same lines in another order\n");
        }
        Some(text)
    }
}
