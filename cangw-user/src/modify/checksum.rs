//! `-x`, `-c` and `-p`: checksums.

use std::fmt;
use std::str::FromStr;

use cangw_common::edit::{PROFILE_1U8, PROFILE_16U8, PROFILE_SFFID_XOR, Span};

use super::digits::{hex_byte, hex_bytes, to_hex};
use crate::rule::ParseError;

/// `-x FROM:TO:RESULT:INIT` (`struct cgw_csum_xor`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct XorChecksum(pub Span);

/// `-c FROM:TO:RESULT:INIT:XOR:TABLE` (`struct cgw_csum_crc8`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Crc8Checksum {
    /// What it covers.
    pub span: Span,
    /// Flipped at the end.
    pub final_xor: u8,
    /// The table.
    pub table: [u8; 256],
}

/// `-p PROFILE:[DATA]`: an extra step of the CRC8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// `1:BYTE`: one more byte.
    Byte(u8),
    /// `2:TABLE`: one more byte of 16, by the low four bits of the second data byte.
    Table([u8; 16]),
    /// `3:`: the exclusive or of the two low bytes of the identifier.
    Identifier,
}

/// A whole number that C reads into a signed char, without its wrap-around.
fn index(text: &str) -> Option<i8> {
    // i8 would also take a plus sign, as C does.
    text.parse().ok()
}

impl FromStr for XorChecksum {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = || ParseError::Xor(text.to_owned());
        match text.split(':').collect::<Vec<_>>().as_slice() {
            [from, to, result, init] => Ok(Self(Span {
                from: index(from).ok_or_else(bad)?,
                to: index(to).ok_or_else(bad)?,
                result: index(result).ok_or_else(bad)?,
                init: hex_byte(init).ok_or_else(bad)?,
            })),
            _ => Err(bad()),
        }
    }
}

impl FromStr for Crc8Checksum {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = || ParseError::Crc8(text.to_owned());
        match text.split(':').collect::<Vec<_>>().as_slice() {
            [from, to, result, init, final_xor, table] => {
                let mut crc8 = Self {
                    span: Span {
                        from: index(from).ok_or_else(bad)?,
                        to: index(to).ok_or_else(bad)?,
                        result: index(result).ok_or_else(bad)?,
                        init: hex_byte(init).ok_or_else(bad)?,
                    },
                    final_xor: hex_byte(final_xor).ok_or_else(bad)?,
                    table: [0; 256],
                };
                hex_bytes(table, &mut crc8.table).ok_or_else(bad)?;
                Ok(crc8)
            }
            _ => Err(bad()),
        }
    }
}

impl FromStr for Profile {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = || ParseError::Profile(text.to_owned());
        let (number, data) = text.split_once(':').unwrap_or((text, ""));
        match number {
            "1" => Ok(Self::Byte(hex_byte(data).ok_or_else(bad)?)),
            "2" => {
                let mut table = [0; 16];
                hex_bytes(data, &mut table).ok_or_else(bad)?;
                Ok(Self::Table(table))
            }
            "3" if data.is_empty() => Ok(Self::Identifier),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for XorChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.0;
        write!(f, "{}:{}:{}:{:02X}", s.from, s.to, s.result, s.init)
    }
}

impl fmt::Display for Crc8Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.span;
        write!(f, "{}:{}:{}:{:02X}", s.from, s.to, s.result, s.init)?;
        write!(f, ":{:02X}:{}", self.final_xor, to_hex(&self.table))
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Byte(byte) => write!(f, "{PROFILE_1U8}:{byte:02X}"),
            Self::Table(table) => write!(f, "{PROFILE_16U8}:{}", to_hex(table)),
            Self::Identifier => write!(f, "{PROFILE_SFFID_XOR}:"),
        }
    }
}
