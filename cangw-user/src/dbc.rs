//! DBC files: the messages of a bus and the signals in them, with their places, scales and names.
//!
//! A file is taken as it is. What is wrong in one message or signal ([`Flaw`]) is an error when that one is used, not before.

mod error;
mod names;
mod read;
mod set;
mod signal;
#[cfg(test)]
mod tests;

pub use error::{DbcError, Flaw};
pub use names::NameError;
pub use set::Set;
pub use signal::{ByteOrder, Encoding, Multiplexing, Signal};

/// The longest DBC file that is read, in bytes.
pub const MAX_FILE: u64 = 16 << 20;

/// Data bytes that signals can lie in: those of the longest CAN FD frame.
pub const MAX_DATA: usize = 64;

/// The messages of a DBC file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dbc {
    messages: Vec<Message>,
    /// Messages that cannot be used.
    flawed: Vec<(String, Flaw)>,
}

/// A message (`BO_`).
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Its name.
    pub name: String,
    /// Its identifier, with `CAN_EFF_FLAG` if it has 29 bits.
    pub can_id: u32,
    /// Data length in bytes. More than 64 are sent in several frames.
    pub len: u16,
    /// Its signals, in the order of the file.
    pub signals: Vec<Signal>,
}

impl Dbc {
    /// All messages that can be used, in the order of the file.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The message with this name, in exactly this case.
    ///
    /// # Errors
    /// [`DbcError::NoMessage`], [`DbcError::SameName`], [`DbcError::Flawed`].
    pub fn message(&self, name: &str) -> Result<&Message, DbcError> {
        let found: Vec<_> = self.messages.iter().filter(|m| m.name == name).collect();
        let mut flawed = self.flawed.iter().filter(|(other, _)| other == name);
        match (found.as_slice(), flawed.next()) {
            ([message], None) => Ok(message),
            ([], Some((_, flaw))) => Err(DbcError::Flawed {
                name: name.to_owned(),
                flaw: flaw.clone(),
            }),
            ([], None) => Err(DbcError::NoMessage {
                name: name.to_owned(),
                similar: similar(name, self.messages.iter().map(|m| m.name.as_str())),
            }),
            (several, other) => Err(DbcError::SameName {
                name: name.to_owned(),
                count: several.len() + other.iter().count() + flawed.count(),
            }),
        }
    }

    /// The first message with this identifier, with `CAN_EFF_FLAG` if it has 29 bits. Other flags belong to no message.
    #[must_use]
    pub fn by_id(&self, can_id: u32) -> Option<&Message> {
        self.messages.iter().find(|m| m.can_id == can_id)
    }
}

impl Message {
    /// The first signal with this name, in exactly this case.
    ///
    /// # Errors
    /// [`DbcError::NoSignal`]
    pub fn signal(&self, name: &str) -> Result<&Signal, DbcError> {
        let found = self.signals.iter().find(|s| s.name == name);
        found.ok_or_else(|| DbcError::NoSignal {
            message: self.name.clone(),
            name: name.to_owned(),
            similar: similar(name, self.signals.iter().map(|s| s.name.as_str())),
        })
    }

    /// The signals in data of a frame with their physical values.
    ///
    /// Left out are signals that the data are too short for, that have a flaw, or whose multiplexor has another value.
    #[must_use]
    pub fn decode(&self, data: &[u8]) -> Vec<(&Signal, f64)> {
        let present = self.signals.iter().filter(|s| self.present(s, data));
        present
            .filter_map(|signal| Some((signal, signal.decode(data)?)))
            .collect()
    }

    /// Whether a signal is in these data: its multiplexor is, and so on, and has its value.
    fn present(&self, signal: &Signal, data: &[u8]) -> bool {
        let mut signal = signal;
        // More steps than there are signals go in a circle.
        for _ in 0..=self.signals.len() {
            if !signal.is_multiplexed() {
                return true;
            }
            match self.multiplexor(signal) {
                Some(multiplexor) if signal.is_selected_by(multiplexor.raw(data)) => {
                    signal = multiplexor;
                }
                _ => return false,
            }
        }
        false
    }

    /// The signal that decides whether a multiplexed signal is in a frame.
    fn multiplexor(&self, signal: &Signal) -> Option<&Signal> {
        let mut candidates = self.signals.iter().filter(|other| match &signal.switch {
            Some(switch) => other.name == switch.multiplexor,
            None => other.multiplexing == Multiplexing::Multiplexor,
        });
        candidates.next().filter(|_| candidates.next().is_none())
    }
}

/// Longer names have no similar ones, so that the search is short.
const MAX_SIMILAR: usize = 128;

/// Up to three names that could have been meant, the best first.
fn similar<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let wanted = name.to_ascii_uppercase();
    let mut found: Vec<(usize, &str)> = names
        .filter(|other| wanted.len().max(other.len()) <= MAX_SIMILAR)
        .filter_map(|other| {
            let upper = other.to_ascii_uppercase();
            let distance = distance(wanted.as_bytes(), upper.as_bytes());
            let part = wanted.len() >= 3 && upper.contains(&wanted);
            (part || distance <= wanted.len() / 3).then_some((distance, other))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
        .into_iter()
        .take(3)
        .map(|(_, name)| name.to_owned())
        .collect()
}

/// Bytes to insert, delete or replace (Levenshtein's distance).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
