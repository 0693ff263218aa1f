//! A signal: the bits of the data that it occupies, and the values that they stand for.

use std::ops::RangeInclusive;

use super::{DbcError, Flaw, MAX_DATA};

/// The order of a signal's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ByteOrder {
    /// `@1`: little endian. The start bit is the least significant one, the others follow upwards.
    Intel,
    /// `@0`: big endian. The start bit is the most significant one; the others follow down to bit 0 of its byte, then from bit 7 of
    /// the next.
    Motorola,
}

/// What the bits of a signal are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `+`: a whole number from 0.
    Unsigned,
    /// `-`: a whole number in two's complement.
    Signed,
    /// `SIG_VALTYPE_` 1: IEEE 754 with 32 bits.
    Float32,
    /// `SIG_VALTYPE_` 2: IEEE 754 with 64 bits.
    Float64,
}

/// Whether a signal is in every frame of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Multiplexing {
    /// It is.
    Plain,
    /// `M`: it is, and its raw value says which others are.
    Multiplexor,
    /// `m5`: only if the multiplexor has this raw value. Where `SG_MUL_VAL_` says more, that counts.
    Multiplexed(u64),
}

/// What `SG_MUL_VAL_` says of a multiplexed signal.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Switch {
    /// Name of its multiplexor.
    pub(super) multiplexor: String,
    /// The raw values with which it is in a frame.
    pub(super) values: Vec<RangeInclusive<u64>>,
}

/// A signal (`SG_`). Its physical value is its raw value times the factor, plus the offset.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// Its name.
    pub name: String,
    /// Start bit: byte * 8 + bit, where bit 0 is the lowest of a byte.
    pub start: u16,
    /// Number of bits, 1 to 64.
    pub bits: u16,
    /// What the start bit is, and where the others follow.
    pub byte_order: ByteOrder,
    /// What the bits are.
    pub encoding: Encoding,
    /// Physical value of a step of the raw value.
    pub factor: f64,
    /// Physical value of the raw value 0.
    pub offset: f64,
    /// The lowest physical value in use, in the unit. Not enforced.
    pub min: f64,
    /// The highest physical value in use, in the unit. Not enforced.
    pub max: f64,
    /// Unit of physical values, often empty.
    pub unit: String,
    /// Names of raw values (`VAL_`).
    pub texts: Vec<(i64, String)>,
    /// Whether it is in every frame.
    pub multiplexing: Multiplexing,
    pub(super) switch: Option<Switch>,
    /// Name of its message.
    pub(super) message: String,
    /// Data bytes of its message.
    pub(super) len: u16,
}

impl Signal {
    /// Why the signal cannot be used; `None` if it can.
    #[must_use]
    pub fn flaw(&self) -> Option<Flaw> {
        let (start, bits) = (self.start, self.bits);
        if !(1..=64).contains(&bits) {
            return Some(Flaw::Bits(bits));
        }
        let float = match self.encoding {
            Encoding::Unsigned | Encoding::Signed => bits,
            Encoding::Float32 => 32,
            Encoding::Float64 => 64,
        };
        if float != bits {
            return Some(Flaw::Float { bits, float });
        }
        let len = self.len.min(MAX_DATA as u16);
        if self.first() + usize::from(bits) > usize::from(len) * 8 {
            return Some(Flaw::Place { start, bits, len });
        }
        let (factor, offset) = (self.factor, self.offset);
        if factor == 0.0 || !factor.is_finite() || !offset.is_finite() {
            return Some(Flaw::Scale { factor, offset });
        }
        None
    }

    /// Message and signal, as in an assignment.
    pub(super) fn full_name(&self) -> String {
        format!("{}.{}", self.message, self.name)
    }

    pub(super) fn check(&self) -> Result<(), DbcError> {
        match self.flaw() {
            None => Ok(()),
            Some(flaw) => Err(DbcError::Flawed {
                name: self.full_name(),
                flaw,
            }),
        }
    }

    /// The start bit, counted in the direction in which the other bits follow.
    fn first(&self) -> usize {
        let start = usize::from(self.start);
        match self.byte_order {
            ByteOrder::Intel => start,
            // Each byte's highest bit comes first.
            ByteOrder::Motorola => start ^ 7,
        }
    }

    /// Byte and mask of each bit, from the least significant one; nothing if it has a flaw.
    fn places(&self) -> impl Iterator<Item = (usize, u8)> + use<> {
        let bits = match self.flaw() {
            None => usize::from(self.bits),
            Some(_) => 0,
        };
        let (first, byte_order) = (self.first(), self.byte_order);
        (0..bits).map(move |i| match byte_order {
            ByteOrder::Intel => ((first + i) / 8, 1 << ((first + i) % 8)),
            ByteOrder::Motorola => {
                let place = first + bits - 1 - i;
                (place / 8, 0x80 >> (place % 8))
            }
        })
    }

    /// The bits that the signal occupies; none if it has a flaw.
    #[must_use]
    pub fn mask(&self) -> [u8; MAX_DATA] {
        self.put(u64::MAX)
    }

    /// The bits of a raw value at their places.
    pub(super) fn put(&self, raw: u64) -> [u8; MAX_DATA] {
        let mut data = [0; MAX_DATA];
        for (i, (byte, mask)) in self.places().enumerate() {
            if raw >> i & 1 != 0 {
                data[byte] |= mask;
            }
        }
        data
    }

    /// The bits as a number without sign; `None` if the data are too short or the signal has a flaw.
    fn get(&self, data: &[u8]) -> Option<u64> {
        if self.flaw().is_some() {
            return None;
        }
        let mut raw = 0;
        for (i, (byte, mask)) in self.places().enumerate() {
            raw |= u64::from(data.get(byte)? & mask != 0) << i;
        }
        Some(raw)
    }

    /// The raw value: the whole number that the bits are, or the bits of a floating point number.
    ///
    /// `None` if the data are too short or the signal has a [`flaw`](Self::flaw). The multiplexor is not asked.
    #[must_use]
    pub fn raw(&self, data: &[u8]) -> Option<i128> {
        let raw = self.get(data)?;
        Some(match self.encoding {
            Encoding::Signed => {
                let unused = 64 - u32::from(self.bits);
                i128::from((raw << unused) as i64 >> unused)
            }
            Encoding::Unsigned | Encoding::Float32 | Encoding::Float64 => i128::from(raw),
        })
    }

    /// The physical value, in the unit; `None` as for [`raw`](Self::raw). Beyond 53 bits it is rounded.
    #[must_use]
    pub fn decode(&self, data: &[u8]) -> Option<f64> {
        let number = match self.encoding {
            Encoding::Unsigned | Encoding::Signed => self.raw(data)? as f64,
            Encoding::Float32 => f64::from(f32::from_bits(self.get(data)? as u32)),
            Encoding::Float64 => f64::from_bits(self.get(data)?),
        };
        Some(self.physical(number))
    }

    pub(super) fn physical(&self, raw: f64) -> f64 {
        raw * self.factor + self.offset
    }

    /// The name of a physical value, as [`decode`](Self::decode) gives it. Floating point numbers have none.
    #[must_use]
    pub fn text(&self, value: f64) -> Option<&str> {
        if self.is_float() || self.flaw().is_some() {
            return None;
        }
        let raw = ((value - self.offset) / self.factor).round();
        let named = self.texts.iter().find(|(id, _)| *id as f64 == raw);
        named.map(|(_, text)| text.as_str())
    }

    /// The bits of a physical value at their places, rounded to the nearest raw value. [`min`](Self::min) and [`max`](Self::max)
    /// do not matter.
    ///
    /// # Errors
    /// [`DbcError::Flawed`]; [`DbcError::Value`] if the bits cannot hold it.
    pub fn encode(&self, value: f64) -> Result<[u8; MAX_DATA], DbcError> {
        self.check()?;
        let scaled = (value - self.offset) / self.factor;
        let lost = value.is_finite() && !scaled.is_finite();
        let raw = match self.encoding {
            Encoding::Unsigned | Encoding::Signed if scaled.is_finite() => {
                return self.encode_raw(scaled.round() as i128, value);
            }
            Encoding::Float32 if !lost && (scaled as f32).is_finite() == scaled.is_finite() => {
                u64::from((scaled as f32).to_bits())
            }
            Encoding::Float64 if !lost => scaled.to_bits(),
            _ => return Err(self.out_of_range(value)),
        };
        Ok(self.put(raw))
    }

    /// As [`encode`](Self::encode), of a whole raw value; `value` is the one that was given.
    pub(super) fn encode_raw(&self, raw: i128, value: f64) -> Result<[u8; MAX_DATA], DbcError> {
        self.check()?;
        if !self.raw_range().contains(&raw) {
            return Err(self.out_of_range(value));
        }
        Ok(self.put(raw as u64))
    }

    /// The raw values of whole numbers.
    fn raw_range(&self) -> RangeInclusive<i128> {
        let count = 1_i128 << self.bits.min(64);
        match self.encoding {
            Encoding::Signed => -count / 2..=count / 2 - 1,
            Encoding::Unsigned | Encoding::Float32 | Encoding::Float64 => 0..=count - 1,
        }
    }

    fn out_of_range(&self, value: f64) -> DbcError {
        let range = self.raw_range();
        let (first, last) = match self.encoding {
            Encoding::Unsigned | Encoding::Signed => (*range.start() as f64, *range.end() as f64),
            Encoding::Float32 => (f64::from(f32::MIN), f64::from(f32::MAX)),
            Encoding::Float64 => (f64::MIN, f64::MAX),
        };
        let (first, last) = (self.physical(first), self.physical(last));
        DbcError::Value {
            signal: self.full_name(),
            value,
            bits: self.bits,
            low: first.min(last),
            high: first.max(last),
            unit: self.unit.clone(),
        }
    }

    pub(super) const fn is_float(&self) -> bool {
        matches!(self.encoding, Encoding::Float32 | Encoding::Float64)
    }

    pub(super) const fn is_multiplexed(&self) -> bool {
        matches!(self.multiplexing, Multiplexing::Multiplexed(_))
    }

    /// Whether it is in frames whose multiplexor has this raw value.
    pub(super) fn is_selected_by(&self, value: Option<i128>) -> bool {
        let Some(value) = value.and_then(|value| u64::try_from(value).ok()) else {
            return false;
        };
        match (&self.switch, self.multiplexing) {
            (Some(switch), _) => switch.values.iter().any(|range| range.contains(&value)),
            (None, Multiplexing::Multiplexed(wanted)) => value == wanted,
            (None, Multiplexing::Plain | Multiplexing::Multiplexor) => true,
        }
    }
}
