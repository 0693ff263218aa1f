//! Assignments to signals: which bits of which frames get which values.

use super::{Dbc, DbcError, MAX_DATA, Multiplexing, Signal};

/// Texts for the values of a signal that an error lists.
const LISTED: usize = 16;

/// The bits that assignments give to the frames of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Name of the message.
    pub message: String,
    /// Its identifier, with `CAN_EFF_FLAG` if it has 29 bits.
    pub can_id: u32,
    /// Its data length, in bytes.
    pub len: u16,
    /// The bits that are set, to 0 or 1.
    pub mask: [u8; MAX_DATA],
    /// Their values; 0 outside the mask.
    pub bits: [u8; MAX_DATA],
}

impl Dbc {
    /// Reads `MESSAGE.SIGNAL=VALUE`. The value is physical, a decimal number in the signal's unit, or a name that `VAL_` gives to one;
    /// what is a number is taken for a number.
    ///
    /// # Errors
    /// [`DbcError::Assignment`]; what [`Dbc::message`], [`Message::signal`](super::Message::signal) and [`Signal::encode`] say;
    /// [`DbcError::Text`], [`DbcError::SeveralValues`], [`DbcError::Multiplexed`].
    pub fn parse_set(&self, text: &str) -> Result<Set, DbcError> {
        let bad = || DbcError::Assignment(text.to_owned());
        let (target, value) = text.split_once('=').ok_or_else(bad)?;
        let (message, signal) = target.split_once('.').ok_or_else(bad)?;
        let (message, signal, value) = (message.trim(), signal.trim(), value.trim());
        if [message, signal, value].contains(&"") {
            return Err(bad());
        }
        let message = self.message(message)?;
        let signal = message.signal(signal)?;
        signal.check()?;
        if let Multiplexing::Multiplexed(wanted) = signal.multiplexing {
            let multiplexor = message.multiplexor(signal);
            let name = multiplexor.map_or("a multiplexor", |m| m.name.as_str());
            return Err(DbcError::Multiplexed {
                signal: signal.full_name(),
                multiplexor: format!("{name}={wanted}"),
            });
        }
        Ok(Set {
            message: message.name.clone(),
            can_id: message.can_id,
            len: message.len,
            mask: signal.mask(),
            bits: signal.encode_text(value)?,
        })
    }
}

impl Signal {
    /// The bits of a value as it is written, at their places.
    fn encode_text(&self, text: &str) -> Result<[u8; MAX_DATA], DbcError> {
        // An f64 would round the highest numbers of 64 bits.
        let unscaled = !self.is_float() && self.factor == 1.0 && self.offset == 0.0;
        if let (true, Ok(raw)) = (unscaled, text.parse()) {
            return self.encode_raw(raw, raw as f64);
        }
        match text.parse::<f64>() {
            // Whole numbers are not infinite, but may be named so.
            Ok(value) if value.is_finite() || self.is_float() => self.encode(value),
            _ => self.encode_name(text),
        }
    }

    fn encode_name(&self, text: &str) -> Result<[u8; MAX_DATA], DbcError> {
        let named = self.texts.iter().filter(|(_, name)| name == text);
        let mut raws: Vec<i64> = named.map(|(raw, _)| *raw).collect();
        raws.sort_unstable();
        raws.dedup();
        match raws.as_slice() {
            _ if self.is_float() => {}
            [raw] => return self.encode_raw(i128::from(*raw), self.physical(*raw as f64)),
            [] => {}
            several => {
                return Err(DbcError::SeveralValues {
                    signal: self.full_name(),
                    text: text.to_owned(),
                    values: several
                        .iter()
                        .map(|raw| self.physical(*raw as f64))
                        .collect(),
                });
            }
        }
        let known = self.texts.iter().take(LISTED);
        Err(DbcError::Text {
            signal: self.full_name(),
            text: text.to_owned(),
            known: known.map(|(_, name)| format!("'{name}'")).collect(),
        })
    }
}

impl Set {
    /// Adds what another set sets. After an error, nothing has changed.
    ///
    /// # Errors
    /// [`DbcError::OtherMessage`]; [`DbcError::Overlap`] if both set a bit to different values.
    pub fn merge(&mut self, other: &Self) -> Result<(), DbcError> {
        if (&self.message, self.can_id) != (&other.message, other.can_id) {
            let names = (self.message.clone(), other.message.clone());
            return Err(DbcError::OtherMessage(names.0, names.1));
        }
        let differs = |i: &usize| {
            let both = self.mask[*i] & other.mask[*i];
            both & (self.bits[*i] ^ other.bits[*i]) != 0
        };
        if let Some(byte) = (0..MAX_DATA).find(differs) {
            return Err(DbcError::Overlap {
                message: self.message.clone(),
                byte,
            });
        }
        for i in 0..MAX_DATA {
            self.mask[i] |= other.mask[i];
            self.bits[i] |= other.bits[i];
        }
        Ok(())
    }
}
