//! Modifications and checksums of a rule: their text, and the [`Edit`] that the data path carries out.

use std::fmt;
use std::str::FromStr;

use cangw_common::edit::{
    CHECKED, CRC8, DLC, Edit, PROFILE_1U8, PROFILE_16U8, PROFILE_SFFID_XOR, Span, XOR,
};
use cangw_common::frame::{FrameType, field};
use serde::{Deserialize, Serialize};

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
    const fn compose(self, keep: &mut u8, flip: &mut u8, value: u8) {
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

/// Set in the flags of every FD frame.
const CANFD_FDF: u8 = 4;

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

const fn data_len(kind: FrameType) -> usize {
    match kind {
        FrameType::Fd => 64,
        FrameType::Classic | FrameType::Xl => 8,
    }
}

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

/// What a rule changes in the frames that it forwards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "Text")]
pub struct Changes {
    /// Type of the frames.
    kind: Kind,
    /// The modifications, one for each operation at most, in the order of operations. Never empty in a rule.
    modifications: Vec<Modification>,
    /// `-u`: a number for the modifications, by which they are replaced. 0 for none.
    pub uid: u32,
    /// `-c`
    pub crc8: Option<Crc8Checksum>,
    /// `-p`; without `-c` it means nothing, as in can-gw.
    pub profile: Option<Profile>,
    /// `-x`
    pub xor: Option<XorChecksum>,
}

/// [`FrameType`] with a default, for types that can be edited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Classic,
    Fd,
}

impl Changes {
    /// Changes of frames of a type, classic or FD. A later modification takes the place of an earlier one with the same operation.
    ///
    /// # Errors
    /// [`ParseError::ChecksumAlone`] without a modification, [`ParseError::Index`] for an index outside the data,
    /// [`ParseError::XlModification`].
    pub fn new(
        kind: FrameType,
        modifications: impl IntoIterator<Item = Modification>,
        uid: u32,
        crc8: Option<Crc8Checksum>,
        profile: Option<Profile>,
        xor: Option<XorChecksum>,
    ) -> Result<Self, ParseError> {
        let kind = match kind {
            FrameType::Classic => Kind::Classic,
            FrameType::Fd => Kind::Fd,
            FrameType::Xl => return Err(ParseError::XlModification),
        };
        let mut sorted: Vec<Modification> = Vec::new();
        for modification in modifications {
            sorted.retain(|m| m.operation != modification.operation);
            sorted.push(modification);
        }
        sorted.sort_by_key(|m| m.operation);
        let changes = Self {
            kind,
            modifications: sorted,
            uid,
            profile: profile.filter(|_| crc8.is_some()),
            crc8,
            xor,
        };
        if changes.modifications.is_empty() {
            return Err(ParseError::ChecksumAlone);
        }
        let spans = [crc8.map(|c| c.span), xor.map(|x| x.0)];
        let len = data_len(changes.kind()) as i8;
        for span in spans.into_iter().flatten() {
            if let Some(&index) = [span.from, span.to, span.result]
                .iter()
                .find(|&&i| i < -len || i >= len)
            {
                return Err(ParseError::Index { index, len });
            }
        }
        Ok(changes)
    }

    /// Type of the frames.
    #[must_use]
    pub const fn kind(&self) -> FrameType {
        match self.kind {
            Kind::Classic => FrameType::Classic,
            Kind::Fd => FrameType::Fd,
        }
    }

    /// The modifications, in the order in which they are done.
    #[must_use]
    pub fn modifications(&self) -> &[Modification] {
        &self.modifications
    }

    /// Whether the length of edited frames fits their type.
    #[must_use]
    pub fn fits(&self) -> Fits {
        let edit = self.composed();
        let (keep, flip) = (edit.keep.0[field::LEN], edit.flip.0[field::LEN]);
        let (lengths, most) = match self.kind {
            Kind::Classic => (0..=15, 15),
            Kind::Fd => (0..=64, 64),
        };
        let total = lengths.clone().count();
        match lengths.filter(|len| (len & keep) ^ flip <= most).count() {
            0 => Fits::Never,
            n if n == total => Fits::Always,
            _ => Fits::Sometimes,
        }
    }

    /// Keep, flip and [`DLC`].
    fn composed(&self) -> Edit {
        let mut edit = Edit::NONE;
        for m in &self.modifications {
            let mut put = |at: usize, bytes: &[u8]| {
                for (i, &value) in bytes.iter().enumerate() {
                    let (keep, flip) = (&mut edit.keep.0[at + i], &mut edit.flip.0[at + i]);
                    m.operation.compose(keep, flip, value);
                }
            };
            if m.elements & ID != 0 {
                put(field::ID, &m.id.to_ne_bytes());
            }
            if m.elements & LEN != 0 {
                put(field::LEN, &[m.len]);
            }
            if m.elements & FLAGS != 0 && self.kind == Kind::Fd {
                put(field::FLAGS, &[m.flags]);
            }
            if m.elements & DATA != 0 {
                put(field::DATA, &m.data[..data_len(self.kind())]);
            }
            if m.elements & LEN != 0 && self.kind == Kind::Classic {
                edit.flags |= DLC;
            }
        }
        if self.kind == Kind::Fd {
            // can_send() does this to each FD frame that can-gw sends.
            Operation::Or.compose(
                &mut edit.keep.0[field::FLAGS],
                &mut edit.flip.0[field::FLAGS],
                CANFD_FDF,
            );
        }
        edit
    }

    /// What the data path does, for the rule with this slot.
    #[must_use]
    pub fn edit(&self, rule: u32) -> Edit {
        let mut edit = self.composed();
        edit.rule = rule;
        if self.fits() == Fits::Sometimes {
            edit.flags |= CHECKED;
        }
        if let Some(crc8) = &self.crc8 {
            edit.flags |= CRC8;
            edit.crc8 = crc8.span;
            edit.final_xor = crc8.final_xor;
            edit.table = crc8.table;
            match self.profile {
                None => {}
                Some(Profile::Byte(byte)) => {
                    edit.profile = PROFILE_1U8;
                    edit.profile_data[0] = byte;
                }
                Some(Profile::Table(table)) => {
                    edit.profile = PROFILE_16U8;
                    edit.profile_data = table;
                }
                Some(Profile::Identifier) => edit.profile = PROFILE_SFFID_XOR,
            }
        }
        if let Some(xor) = &self.xor {
            edit.flags |= XOR;
            edit.xor = xor.0;
        }
        edit
    }

    /// Whether `-D` with `other` means a rule with these: the same uid, or, when neither has one, the same changes (`cgw_remove_job`).
    #[must_use]
    pub fn same(a: Option<&Self>, b: Option<&Self>) -> bool {
        let uid = |c: Option<&Self>| c.map_or(0, |c| c.uid);
        if uid(a) != 0 || uid(b) != 0 {
            uid(a) == uid(b)
        } else {
            a == b
        }
    }
}

/// As options, each followed by a space, in the order of `cangw -L`.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let option = match self.kind {
            Kind::Classic => 'm',
            Kind::Fd => 'M',
        };
        for m in &self.modifications {
            write!(f, "-{option} {} ", m.text(self.kind()))?;
        }
        if self.uid != 0 {
            write!(f, "-u {:X} ", self.uid)?;
        }
        if let Some(crc8) = &self.crc8 {
            write!(f, "-c {crc8} ")?;
        }
        if let Some(profile) = &self.profile {
            write!(f, "-p {profile} ")?;
        }
        if let Some(xor) = &self.xor {
            write!(f, "-x {xor} ")?;
        }
        Ok(())
    }
}

/// Whether the length of edited frames fits their type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fits {
    /// Whatever length a frame has.
    Always,
    /// Depending on the frame's length.
    Sometimes,
    /// No frame: the rule forwards nothing.
    Never,
}

/// [`Changes`] as programs read and write them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    fd: bool,
    modify: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crc8: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crc8_profile: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    xor: Option<String>,
}

impl From<Changes> for Text {
    fn from(c: Changes) -> Self {
        Self {
            fd: c.kind == Kind::Fd,
            modify: c.modifications.iter().map(|m| m.text(c.kind())).collect(),
            uid: (c.uid != 0).then(|| format!("{:X}", c.uid)),
            crc8: c.crc8.map(|v| v.to_string()),
            crc8_profile: c.profile.map(|v| v.to_string()),
            xor: c.xor.map(|v| v.to_string()),
        }
    }
}

impl TryFrom<Text> for Changes {
    type Error = ParseError;

    fn try_from(t: Text) -> Result<Self, ParseError> {
        fn parse<T: FromStr<Err = ParseError>>(
            text: Option<&String>,
        ) -> Result<Option<T>, ParseError> {
            text.map(|text| text.parse()).transpose()
        }
        let kind = if t.fd {
            FrameType::Fd
        } else {
            FrameType::Classic
        };
        let modifications = t.modify.iter().map(|text| Modification::parse(kind, text));
        Self::new(
            kind,
            modifications.collect::<Result<Vec<_>, _>>()?,
            t.uid.as_deref().map_or(Ok(0), parse_uid)?,
            parse(t.crc8.as_ref())?,
            parse(t.crc8_profile.as_ref())?,
            parse(t.xor.as_ref())?,
        )
    }
}

/// Parses `-u`: up to 8 hexadecimal digits.
///
/// # Errors
/// [`ParseError::Uid`]
pub fn parse_uid(text: &str) -> Result<u32, ParseError> {
    hex(text).ok_or_else(|| ParseError::Uid(text.to_owned()))
}

fn hex_byte(text: &str) -> Option<u8> {
    hex(text).and_then(|value| u8::try_from(value).ok())
}

/// Fills `bytes` from exactly as many pairs of digits.
fn hex_bytes(text: &str, bytes: &mut [u8]) -> Option<()> {
    let text = text.as_bytes();
    if text.len() != 2 * bytes.len() || !text.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(())
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests;
