//! `-m` and `-M`: one operation on some elements of a frame.

use cangw_common::frame::FrameType;

use super::digits::{hex_bytes, to_hex};
use crate::rule::{ParseError, hex};

/// What a modification does with the bits of a frame and its own (`CGW_MOD_AND` to `CGW_MOD_SET`), in the order in which they are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `AND`
    And,
    /// `OR`
    Or,
    /// `XOR`
    Xor,
    /// `SET`
    Set,
}

impl Operation {
    /// All operations, in order.
    pub const ALL: [Self; 4] = [Self::And, Self::Or, Self::Xor, Self::Set];

    /// Its name in a definition.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::And => "AND",
            Self::Or => "OR",
            Self::Xor => "XOR",
            Self::Set => "SET",
        }
    }

    /// Composes `(byte & keep) ^ flip` with the operation.
    pub(super) const fn compose(self, keep: &mut u8, flip: &mut u8, value: u8) {
        match self {
            Self::And => {
                *keep &= value;
                *flip &= value;
            }
            Self::Or => {
                *keep &= !value;
                *flip |= value;
            }
            Self::Xor => *flip ^= value,
            Self::Set => {
                *keep = 0;
                *flip = value;
            }
        }
    }
}

/// [`Modification::elements`]: the identifier with its flags (`CGW_MOD_ID`).
pub const ID: u8 = 1;
/// [`Modification::elements`]: the length, or data length code (`CGW_MOD_DLC`, `CGW_MOD_LEN`).
pub const LEN: u8 = 2;
/// [`Modification::elements`]: all data bytes (`CGW_MOD_DATA`).
pub const DATA: u8 = 4;
/// [`Modification::elements`]: the flags of a CAN FD frame (`CGW_MOD_FLAGS`).
pub const FLAGS: u8 = 8;

/// One operation on some elements of a frame (`struct cgw_frame_mod`, `struct cgw_fdframe_mod`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Modification {
    /// What is done.
    pub operation: Operation,
    /// [`ID`], [`LEN`], [`DATA`], [`FLAGS`]: to which elements.
    pub elements: u8,
    /// Operand for the identifier.
    pub id: u32,
    /// Operand for the length: raw data length code of a classic frame, bytes of an FD frame.
    pub len: u8,
    /// Operand for the flags of an FD frame; 0 for classic frames.
    pub flags: u8,
    /// Operand for the data; classic frames use the first 8 bytes.
    pub data: [u8; 64],
}

impl Modification {
    /// Parses `-m` (classic) or `-M` (FD): `OPERATION:ELEMENTS:ID.[FLAGS.]LEN.DATA`, with hexadecimal numbers.
    ///
    /// # Errors
    /// [`ParseError::Modification`], with the number that can-utils' cangw gives for the part that is wrong.
    pub fn parse(kind: FrameType, text: &str) -> Result<Self, ParseError> {
        let bad = |problem| ParseError::Modification {
            problem,
            text: text.to_owned(),
            fd: kind == FrameType::Fd,
        };
        let (name, rest) = text.split_once(':').ok_or(bad(1))?;
        let operation = Operation::ALL
            .into_iter()
            .find(|o| o.name() == name)
            .ok_or(bad(if name.is_empty() || name.len() > 3 {
                1
            } else {
                2
            }))?;
        let (letters, values) = rest.split_once(':').ok_or(bad(3))?;
        let longest = if kind == FrameType::Fd { 4 } else { 3 };
        if letters.is_empty() || letters.len() > longest {
            return Err(bad(3));
        }
        let mut elements = 0;
        for letter in letters.bytes() {
            elements |= match letter {
                b'I' => ID,
                b'L' => LEN,
                b'D' => DATA,
                b'F' if kind == FrameType::Fd => FLAGS,
                _ => return Err(bad(4)),
            };
        }
        let parts: Vec<&str> = values.split('.').collect();
        let (id, flags, len, data) = match (kind, parts.as_slice()) {
            (FrameType::Fd, [id, flags, len, data]) => (*id, *flags, *len, *data),
            (FrameType::Classic, [id, len, data]) => (*id, "0", *len, *data),
            _ => return Err(bad(5)),
        };
        let byte = |text| hex(text).and_then(|v| u8::try_from(v).ok()).ok_or(bad(5));
        let mut modification = Self {
            operation,
            elements,
            id: hex(id).ok_or(bad(5))?,
            len: byte(len)?,
            flags: byte(flags)?,
            data: [0; 64],
        };
        if data.len() != 2 * data_len(kind) {
            return Err(bad(6));
        }
        hex_bytes(data, &mut modification.data[..data_len(kind)]).ok_or(bad(7))?;
        Ok(modification)
    }

    /// The definition as `cangw -L` prints it.
    #[must_use]
    pub fn text(&self, kind: FrameType) -> String {
        let mut text = format!("{}:", self.operation.name());
        for (element, letter) in [(ID, 'I'), (FLAGS, 'F'), (LEN, 'L'), (DATA, 'D')] {
            if self.elements & element != 0 {
                text.push(letter);
            }
        }
        text += &format!(":{:03X}.", self.id);
        if kind == FrameType::Fd {
            text += &format!("{:X}.", self.flags);
        }
        text + &format!("{:X}.{}", self.len, to_hex(&self.data[..data_len(kind)]))
    }
}

/// Data bytes of a modification.
pub(super) const fn data_len(kind: FrameType) -> usize {
    match kind {
        FrameType::Fd => 64,
        FrameType::Classic | FrameType::Xl => 8,
    }
}
