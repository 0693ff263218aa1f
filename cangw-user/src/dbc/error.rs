//! What can be wrong with a DBC file, and with what is said in its terms.

use std::path::PathBuf;

use super::MAX_FILE;

/// Why a message or signal of a DBC file cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Flaw {
    /// Identifier of a message.
    #[error(
        "its identifier {0} is neither a standard one (0 to 2047) nor an extended one (2147483648 and 0 to 536870911 more)"
    )]
    Identifier(u64),
    /// Length of a message.
    #[error("its length of {0} bytes is more than 65535")]
    Length(u64),
    /// Number of bits of a signal.
    #[error("it has {0} bits, but can have 1 to 64")]
    Bits(u16),
    /// Number of bits of a signal of floating point numbers.
    #[error("it has {bits} bits, but SIG_VALTYPE_ says that it is a number of {float}")]
    Float {
        /// Bits of the signal.
        bits: u16,
        /// Bits of the number.
        float: u16,
    },
    /// Place of a signal.
    #[error("its place {start}|{bits} is not within the first {len} data bytes")]
    Place {
        /// Start bit in the numbering of the file.
        start: u16,
        /// Number of bits.
        bits: u16,
        /// Data bytes of the message in which signals can lie.
        len: u16,
    },
    /// Factor or offset of a signal.
    #[error(
        "its factor {factor} or offset {offset} gives no value: the factor is not 0, and both are finite"
    )]
    Scale {
        /// The factor.
        factor: f64,
        /// The offset.
        offset: f64,
    },
}

/// What can go wrong with DBC files, and with what is said in their terms.
#[derive(Debug, thiserror::Error)]
pub enum DbcError {
    /// The file cannot be read.
    #[error("cannot read DBC file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is too long.
    #[error("DBC file {} has more than {} MiB: delete the messages that are not needed", path.display(), MAX_FILE >> 20)]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// An error in a file.
    #[error("DBC file {}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error.
        error: Box<DbcError>,
    },
    /// The text is not in the DBC format.
    #[error("{problem}: correct it or delete it")]
    Syntax {
        /// What and where.
        problem: String,
    },
    /// No message has this name.
    #[error("no message is named '{name}' in the DBC file{}", hint(.similar))]
    NoMessage {
        /// The name given.
        name: String,
        /// Up to three that are similar.
        similar: Vec<String>,
    },
    /// Several messages have this name.
    #[error("{count} messages are named '{name}' in the DBC file: rename all but one")]
    SameName {
        /// The name.
        name: String,
        /// How many.
        count: usize,
    },
    /// No signal of the message has this name.
    #[error("message {message} has no signal '{name}' in the DBC file{}", hint(.similar))]
    NoSignal {
        /// The message.
        message: String,
        /// The name given.
        name: String,
        /// Up to three that are similar.
        similar: Vec<String>,
    },
    /// The file says something impossible of the message or signal.
    #[error("{name} cannot be used as the DBC file has it: {flaw}. Correct the file")]
    Flawed {
        /// The message, or message and signal.
        name: String,
        /// What is wrong.
        flaw: Flaw,
    },
    /// The bits of a signal cannot hold the value.
    #[error("{signal} cannot be {value}: its {bits} bits hold values from {low} to {high}{unit}", unit = spaced(.unit))]
    Value {
        /// Message and signal.
        signal: String,
        /// The value given.
        value: f64,
        /// Bits of the signal.
        bits: u16,
        /// The lowest possible value.
        low: f64,
        /// The highest possible value.
        high: f64,
        /// Unit of the values.
        unit: String,
    },
    /// Text that is no value of the signal.
    #[error("{signal} cannot be '{text}': expected a number{}", texts(.known))]
    Text {
        /// Message and signal.
        signal: String,
        /// The text given.
        text: String,
        /// Texts that stand for its values.
        known: Vec<String>,
    },
    /// Text that stands for several values of the signal.
    #[error("'{text}' stands for several values of {signal}: give one of the numbers {}", numbers(.values))]
    SeveralValues {
        /// Message and signal.
        signal: String,
        /// The text given.
        text: String,
        /// The values.
        values: Vec<f64>,
    },
    /// Not an assignment.
    #[error(
        "Bad assignment '{0}': expected <message>.<signal>=<value>, such as ENGINE_DATA.ENGINE_RPM=0"
    )]
    Assignment(String),
    /// The signal is not in every frame of its message.
    #[error(
        "{signal} cannot be set: it is in frames with {multiplexor} only, and its bits belong to other signals in others. \
         Set bytes with -m instead"
    )]
    Multiplexed {
        /// Message and signal.
        signal: String,
        /// Name of the multiplexor and its value.
        multiplexor: String,
    },
    /// Assignments to different messages.
    #[error("{0} and {1} are different messages: signals of one message only can be set together")]
    OtherMessage(String, String),
    /// Assignments of different values to the same bits.
    #[error(
        "byte {byte} of {message} is to get different bits from two signals: leave one of them out"
    )]
    Overlap {
        /// The message.
        message: String,
        /// The first byte with such bits, from 0.
        byte: usize,
    },
}

fn hint(similar: &[String]) -> String {
    match similar {
        [] => ", nor similarly".to_owned(),
        names => format!("; similar: {}", names.join(", ")),
    }
}

fn texts(known: &[String]) -> String {
    match known {
        [] => "; the DBC file names no values".to_owned(),
        names => format!(", or one of {}", names.join(", ")),
    }
}

fn numbers(values: &[f64]) -> String {
    let numbers: Vec<_> = values.iter().map(f64::to_string).collect();
    numbers.join(", ")
}

fn spaced(unit: &str) -> String {
    if unit.is_empty() {
        String::new()
    } else {
        format!(" {unit}")
    }
}
