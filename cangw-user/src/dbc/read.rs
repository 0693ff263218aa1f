//! From the text of a DBC file, as the crate can-dbc takes it apart, to its messages.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use can_dbc::{
    MessageId, MultiplexIndicator, NumericValue, SignalExtendedValueType, ValDescription,
    ValueDescription,
};

use super::signal::Switch;
use super::{ByteOrder, Dbc, DbcError, Encoding, Flaw, MAX_FILE, Message, Multiplexing, Signal};

/// The name under which editors keep signals of no message.
const NO_MESSAGE: &str = "VECTOR__INDEPENDENT_SIG_MSG";

/// A signal is known by the identifier of its message and its name.
type Key<'a> = (MessageId, &'a str);

impl Dbc {
    /// Reads a DBC file of up to [`MAX_FILE`] bytes, in UTF-8 or else in Windows-1252.
    ///
    /// # Errors
    /// [`DbcError::Read`], [`DbcError::TooLong`], and what [`Dbc::parse`] says in [`DbcError::File`].
    pub fn read(path: &Path) -> Result<Self, DbcError> {
        let read = |source| DbcError::Read {
            path: path.to_owned(),
            source,
        };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(read)?;
        let mut start = file.take(MAX_FILE + 1);
        start.read_to_end(&mut bytes).map_err(read)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(DbcError::TooLong {
                path: path.to_owned(),
            });
        }
        Self::parse(&decoded(&bytes)).map_err(|error| DbcError::File {
            path: path.to_owned(),
            error: Box::new(error),
        })
    }

    /// Reads the text of a DBC file.
    ///
    /// # Errors
    /// [`DbcError::Syntax`]
    pub fn parse(text: &str) -> Result<Self, DbcError> {
        let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
        // The last line of some files has no end, which the grammar wants.
        let text = format!("{text}\n");
        let file = can_dbc::Dbc::try_from(text.as_str()).map_err(|error| syntax(&error))?;
        let about = About::of(&file);
        let mut dbc = Self::default();
        let written = written_ids(&text);
        for message in &file.messages {
            if message.name == NO_MESSAGE {
                continue;
            }
            let ids = written.get(message.name.as_str());
            match flaw(message, ids.map(Vec::as_slice).unwrap_or_default()) {
                Some(flaw) => dbc.flawed.push((message.name.clone(), flaw)),
                None => dbc.messages.push(about.message(message)),
            }
        }
        Ok(dbc)
    }
}

/// The text of a file. Windows-1252 has a character for each byte.
pub(super) fn decoded(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => can_dbc::decode_cp1252(bytes).unwrap_or_else(|| String::from_utf8_lossy(bytes)),
    }
}

/// The problem on one line: the parser's own message draws a picture below " --> LINE:COLUMN".
fn syntax(error: &can_dbc::DbcError) -> DbcError {
    let problem = match error {
        can_dbc::DbcError::Pest(error) => {
            let text = error.to_string();
            let place = text.lines().next().unwrap_or_default();
            let (line, column) = place
                .trim_start_matches([' ', '-', '>'])
                .split_once(':')
                .unwrap_or(("?", "?"));
            let content = error.line().trim().chars().take(80);
            let content: String = content.filter(|c| !c.is_control()).collect();
            format!("line {line} is not DBC from column {column} on: '{content}'")
        }
        other => format!("the text is not DBC: {other}"),
    };
    DbcError::Syntax { problem }
}

/// The identifiers of messages as they are written, by name: can-dbc cuts too large ones.
fn written_ids(text: &str) -> HashMap<&str, Vec<u64>> {
    let mut ids: HashMap<_, Vec<_>> = HashMap::new();
    for line in text.lines() {
        let mut words = line.split([' ', '\t', ':']).filter(|word| !word.is_empty());
        if let (Some("BO_"), Some(id), Some(name)) = (words.next(), words.next(), words.next())
            && let Ok(id) = id.parse()
        {
            ids.entry(name).or_default().push(id);
        }
    }
    ids
}

fn flaw(message: &can_dbc::Message, written: &[u64]) -> Option<Flaw> {
    let id = u64::from(message.id.raw());
    if let MessageId::Standard(0x800..) = message.id {
        return Some(Flaw::Identifier(*written.first().unwrap_or(&id)));
    }
    match written.first() {
        Some(&first) if !written.contains(&id) => Some(Flaw::Identifier(first)),
        _ if message.size > u64::from(u16::MAX) => Some(Flaw::Length(message.size)),
        _ => None,
    }
}

/// What a file says of signals elsewhere.
struct About<'a> {
    texts: HashMap<Key<'a>, &'a [ValDescription]>,
    types: HashMap<Key<'a>, SignalExtendedValueType>,
    switches: HashMap<Key<'a>, Switch>,
}

impl<'a> About<'a> {
    fn of(file: &'a can_dbc::Dbc) -> Self {
        let mut about = Self {
            texts: HashMap::new(),
            types: HashMap::new(),
            switches: HashMap::new(),
        };
        for described in &file.value_descriptions {
            if let ValueDescription::Signal {
                message_id,
                name,
                value_descriptions,
            } = described
            {
                let key = (*message_id, name.as_str());
                about.texts.insert(key, value_descriptions);
            }
        }
        for typed in &file.signal_extended_value_type_list {
            let key = (typed.message_id, typed.signal_name.as_str());
            about.types.insert(key, typed.signal_extended_value_type);
        }
        for extended in &file.extended_multiplex {
            let switch = Switch {
                multiplexor: extended.multiplexor_signal_name.clone(),
                values: extended
                    .mappings
                    .iter()
                    .map(|m| m.min_value..=m.max_value)
                    .collect(),
            };
            let key = (extended.message_id, extended.signal_name.as_str());
            about.switches.insert(key, switch);
        }
        about
    }

    fn message(&self, message: &can_dbc::Message) -> Message {
        let len = short(message.size);
        let signals = message.signals.iter();
        Message {
            name: message.name.clone(),
            can_id: message.id.raw(),
            len,
            signals: signals.map(|s| self.signal(message, len, s)).collect(),
        }
    }

    fn signal(&self, message: &can_dbc::Message, len: u16, signal: &can_dbc::Signal) -> Signal {
        let key = (message.id, signal.name.as_str());
        let texts = self.texts.get(&key).copied().unwrap_or_default();
        Signal {
            name: signal.name.clone(),
            start: short(signal.start_bit),
            bits: short(signal.size),
            byte_order: match signal.byte_order {
                can_dbc::ByteOrder::LittleEndian => ByteOrder::Intel,
                can_dbc::ByteOrder::BigEndian => ByteOrder::Motorola,
            },
            encoding: match (self.types.get(&key), signal.value_type) {
                (Some(SignalExtendedValueType::IEEEfloat32Bit), _) => Encoding::Float32,
                (Some(SignalExtendedValueType::IEEEdouble64bit), _) => Encoding::Float64,
                (_, can_dbc::ValueType::Signed) => Encoding::Signed,
                (_, can_dbc::ValueType::Unsigned) => Encoding::Unsigned,
            },
            factor: signal.factor,
            offset: signal.offset,
            min: number(signal.min),
            max: number(signal.max),
            unit: signal.unit.clone(),
            texts: texts
                .iter()
                .map(|t| (t.id, t.description.clone()))
                .collect(),
            multiplexing: match signal.multiplexer_indicator {
                MultiplexIndicator::Plain => Multiplexing::Plain,
                MultiplexIndicator::Multiplexor => Multiplexing::Multiplexor,
                MultiplexIndicator::MultiplexedSignal(value)
                | MultiplexIndicator::MultiplexorAndMultiplexedSignal(value) => {
                    Multiplexing::Multiplexed(value)
                }
            },
            switch: self.switches.get(&key).cloned(),
            message: message.name.clone(),
            len,
        }
    }
}

/// What is too large for a place in a frame stays too large.
fn short(number: u64) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

fn number(value: NumericValue) -> f64 {
    match value {
        NumericValue::Uint(value) => value as f64,
        NumericValue::Int(value) => value as f64,
        NumericValue::Double(value) => value,
    }
}
