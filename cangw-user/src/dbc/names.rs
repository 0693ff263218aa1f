//! What a rule says by the names of a DBC file.

use cangw_common::frame::FrameType;

use super::{Dbc, DbcError};
use crate::ids::{IdRange, Ids};
use crate::modify::{DATA, Modification, Operation};
use crate::rule::ParseError;

/// Why names are no rule.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// What is wrong with a name, or the file.
    #[error(transparent)]
    Dbc(#[from] DbcError),
    /// What does not go with the rest of the rule.
    #[error(transparent)]
    Rule(#[from] ParseError),
}

impl Dbc {
    /// Looks messages and assignments (`MESSAGE.SIGNAL=VALUE`) up: the messages' identifiers are added to `ids`, and the answer writes the signals.
    ///
    /// # Errors
    /// Names that are not there, values that do not fit, and identifiers that do not go with an assignment.
    pub fn resolve<'a>(
        &self,
        kind: FrameType,
        messages: impl IntoIterator<Item = &'a str>,
        assignments: impl IntoIterator<Item = &'a str>,
        ids: &mut Ids,
    ) -> Result<Vec<Modification>, NameError> {
        for name in messages {
            ids.ranges
                .push(IdRange::single(self.message(name.trim())?.can_id));
        }
        let mut sets = assignments.into_iter().map(|text| self.parse_set(text));
        let Some(first) = sets.next() else {
            return Ok(Vec::new());
        };
        let mut set = first?;
        for next in sets {
            set.merge(&next?)?;
        }
        if kind == FrameType::Classic && set.len > 8 {
            return Err(ParseError::Misplaced {
                option: "--set",
                reason: "names a message of more than 8 bytes, which needs a rule for FD frames (-X)",
            }
            .into());
        }
        let own = IdRange::single(set.can_id);
        if ids.is_empty() {
            ids.ranges.push(own);
        } else if ids.ranges != [own] || !ids.pgns.is_empty() {
            return Err(ParseError::Misplaced {
                option: "--set",
                reason: "writes into one message, so that the rule can have no other identifiers",
            }
            .into());
        }
        let write = |operation, data| Modification {
            operation,
            elements: DATA,
            id: 0,
            len: 0,
            flags: 0,
            data,
        };
        // Classic frames have only the first 8 operands.
        let used = if kind == FrameType::Classic { 8 } else { 64 };
        let keep = std::array::from_fn(|i| if i < used { !set.mask[i] } else { 0 });
        let mut modifications = vec![write(Operation::And, keep)];
        if set.bits != [0; 64] {
            modifications.push(write(Operation::Or, set.bits));
        }
        Ok(modifications)
    }
}
