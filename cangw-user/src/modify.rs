//! Modifications and checksums of a rule: their text, and the [`Edit`] that the data path carries out.

mod checksum;
mod digits;
mod modification;
mod text;

use std::fmt;

use cangw_common::edit::{
    CHECKED, CRC8, DLC, Edit, PROFILE_1U8, PROFILE_16U8, PROFILE_SFFID_XOR, XOR,
};
use cangw_common::frame::{FrameType, field};
use serde::{Deserialize, Serialize};

pub use self::checksum::{Crc8Checksum, Profile, XorChecksum};
use self::modification::data_len;
pub use self::modification::{DATA, FLAGS, ID, LEN, Modification, Operation};
use self::text::Text;
use crate::rule::{ParseError, hex};

/// Set in the flags of every FD frame.
const CANFD_FDF: u8 = 4;

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

/// Parses `-u`: up to 8 hexadecimal digits.
///
/// # Errors
/// [`ParseError::Uid`]
pub fn parse_uid(text: &str) -> Result<u32, ParseError> {
    hex(text).ok_or_else(|| ParseError::Uid(text.to_owned()))
}

#[cfg(test)]
mod tests;
