//! From a rule of can-gw to one of ours.

use std::collections::HashMap;

use cangw_common::frame::FrameType;

use super::codec::{ECHO, FD, IIF_TX_OK, Job, RawProfile, TIMESTAMP};
use crate::kernel::link::Link;
use crate::modify::{Changes, DATA, FLAGS, ID, LEN, Modification, Profile};
use crate::rule::{ParseError, Rule};

/// Names of interfaces by index.
pub struct Names(HashMap<u32, String>);

impl From<&[Link]> for Names {
    fn from(links: &[Link]) -> Self {
        Self(links.iter().map(|l| (l.index, l.name.clone())).collect())
    }
}

impl Names {
    /// The name, or, for an interface that is gone, one that says so.
    #[must_use]
    pub fn get(&self, index: u32) -> String {
        let name = self.0.get(&index).cloned();
        name.unwrap_or_else(|| format!("if{index}"))
    }
}

/// What a rule of can-gw has that ours do not have. can-utils' cangw makes no such rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An interface vanished after the rules were read.
    #[error("interface {0} does not exist any more")]
    Interface(u32),
    /// Unknown flags.
    #[error("flags {0:#X} are unknown")]
    Flags(u16),
    /// Unknown elements of a frame, or an FD frame's on a classic rule.
    #[error("{operation} modifies elements {elements:#X}, which frames of its type do not have")]
    Elements {
        /// The operation's name.
        operation: &'static str,
        /// The elements.
        elements: u8,
    },
    /// Checksums that make no sense.
    #[error("{0}")]
    Changes(ParseError),
}

impl Job {
    /// The rule as one of ours.
    ///
    /// # Errors
    /// What it has that ours do not have.
    pub fn to_rule(&self, names: &Names) -> Result<Rule, Refusal> {
        let unknown = self.flags & !(ECHO | TIMESTAMP | IIF_TX_OK | FD);
        if unknown != 0 {
            return Err(Refusal::Flags(unknown));
        }
        let name = |index| {
            names
                .0
                .get(&index)
                .cloned()
                .ok_or(Refusal::Interface(index))
        };
        Ok(Rule {
            echo: self.flags & ECHO != 0,
            timestamp: self.flags & TIMESTAMP != 0,
            iif_tx_ok: self.flags & IIF_TX_OK != 0,
            limit: self.limit,
            filter: Some(self.filter).filter(|f| !f.is_empty()),
            changes: self.changes()?,
            ..Rule::new(name(self.source)?, name(self.target)?, self.frames())
        })
    }

    fn changes(&self) -> Result<Option<Changes>, Refusal> {
        let kind = self.frames();
        let mut modifications = Vec::with_capacity(self.modifications.len());
        for m in &self.modifications {
            let known = match kind {
                FrameType::Fd => ID | LEN | DATA | FLAGS,
                FrameType::Classic | FrameType::Xl => ID | LEN | DATA,
            };
            if m.elements & !known != 0 {
                return Err(Refusal::Elements {
                    operation: m.operation.name(),
                    elements: m.elements,
                });
            }
            // can-gw looks at no other elements, and a definition without one cannot be written.
            if m.elements != 0 {
                modifications.push(Modification {
                    // Of a classic frame, this byte is padding.
                    flags: if kind == FrameType::Fd { m.flags } else { 0 },
                    ..*m
                });
            }
        }
        let (crc8, profile) = self
            .crc8
            .as_ref()
            .map_or((None, None), |(crc8, raw)| (Some(*crc8), profile(raw)));
        if modifications.is_empty() && crc8.is_none() && self.xor.is_none() {
            // A uid alone is lost, as in can-gw.
            return Ok(None);
        }
        Changes::new(kind, modifications, self.uid, crc8, profile, self.xor)
            .map(Some)
            .map_err(Refusal::Changes)
    }
}

/// The extra step of the CRC8; can-gw takes a number that it does not know for none.
fn profile(raw: &RawProfile) -> Option<Profile> {
    match raw.number {
        1 => Some(Profile::Byte(raw.data[0])),
        2 => raw.data.first_chunk().map(|table| Profile::Table(*table)),
        3 => Some(Profile::Identifier),
        _ => None,
    }
}
