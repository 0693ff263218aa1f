//! Frames in the notation of can-utils (`cansend`, `candump -L`), and as the bytes that pass a raw CAN socket.
//!
//! | text                                   | frame                                                                |
//! |----------------------------------------|----------------------------------------------------------------------|
//! | `123#DEADBEEF`                         | classic, standard identifier (3 digits), up to 8 data bytes          |
//! | `12345678#11.22.33`                    | extended identifier (8 digits); a dot may stand before each byte     |
//! | `20000004#0011000000000000`            | error frame: 8 digits with `CAN_ERR_FLAG`                            |
//! | `123#R`, `123#R5`                      | remote request, with the length if it is not 0                       |
//! | `123#1122334455667788_B`, `123#R8_B`   | 8 bytes, whose data length code on the bus is 9 to F                 |
//! | `123##3112233`                         | CAN FD: one digit of flags, then up to 64 data bytes                 |
//! | `45123#81:00:12345678#112233`          | CAN XL: VCID and priority, flags, SDT, AF, 1 to 2048 data bytes      |
//!
//! All numbers are hexadecimal, in either case. A frame is exactly what its text says: in CAN FD frames, neither the flag FDF (4)
//! is added, as kernels do when they send, nor the length rounded up to one that a bus has, as cansend does.

mod reader;
#[cfg(test)]
mod tests;

use std::fmt;

use cangw_common::frame::{
    CLASSIC_LEN, EFF_FLAG, ERR_FLAG, FD_LEN, FrameType, Head, RTR_FLAG, XL_HEAD, field, layout,
};

use crate::rule::kind_name;

pub use reader::{FrameTextError, Problem};

/// The lowest of the 8 bits of the VCID in the priority of a CAN XL frame (`CANXL_VCID_OFFSET`).
const VCID_SHIFT: u32 = 16;
/// Where the fields of `struct canxl_frame` lie that others do not have.
const SDT: usize = 5;
const AF: usize = 8;

/// A frame of any type: the bytes of `struct can_frame` (16), `canfd_frame` (72) or `canxl_frame` (12 and the data), in native order.
///
/// [`str::parse`] reads the notation above, [`fmt::Display`] writes it; what was read is the same when it is written and read again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    kind: FrameType,
    bytes: Vec<u8>,
}

/// Bytes that no socket takes for a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{len} bytes are no CAN frame of type {}: expected 16 bytes with a length of at most 8 for classic CAN, 72 with at most 64 for FD, \
     and 12 bytes followed by the 1 to 2048 that their length says, with flag 80, for XL", kind_name(*.kind)
)]
pub struct NoFrame {
    /// What it should have been.
    pub kind: FrameType,
    /// Bytes given.
    pub len: usize,
}

impl Frame {
    /// A frame as a socket gives it.
    ///
    /// # Errors
    /// [`NoFrame`] where the kernel's receive path refuses the bytes, too.
    pub fn from_bytes(kind: FrameType, bytes: &[u8]) -> Result<Self, NoFrame> {
        let no_frame = NoFrame {
            kind,
            len: bytes.len(),
        };
        let total = u32::try_from(bytes.len()).ok();
        let place = total.and_then(|total| layout(kind, total));
        match (place, bytes.first_chunk()) {
            (Some(place), Some(&head))
                if place.prefix == 0 && Head::from_bytes(head).is_valid(place) =>
            {
                Ok(Self {
                    kind,
                    bytes: bytes.to_vec(),
                })
            }
            _ => Err(no_frame),
        }
    }

    /// Classic and FD frames; `data` fits them.
    fn build(kind: FrameType, id: u32, len: u8, flags: u8, len8_dlc: u8, data: &[u8]) -> Self {
        let size = match kind {
            FrameType::Classic => CLASSIC_LEN,
            FrameType::Fd | FrameType::Xl => FD_LEN,
        };
        let mut bytes = Vec::with_capacity(size as usize);
        bytes.extend(id.to_ne_bytes());
        bytes.extend([len, flags, 0, len8_dlc]);
        bytes.extend(data);
        bytes.resize(size as usize, 0);
        Self { kind, bytes }
    }

    /// CAN XL frames; `data` has 1 to 2048 bytes.
    fn build_xl(vcid: u32, priority: u32, flags: u8, sdt: u8, af: u32, data: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(XL_HEAD as usize + data.len());
        bytes.extend((vcid << VCID_SHIFT | priority).to_ne_bytes());
        bytes.extend([flags, sdt]);
        bytes.extend((data.len() as u16).to_ne_bytes());
        bytes.extend(af.to_ne_bytes());
        bytes.extend(data);
        Self {
            kind: FrameType::Xl,
            bytes,
        }
    }

    /// Its type.
    #[must_use]
    pub const fn kind(&self) -> FrameType {
        self.kind
    }

    /// The bytes for a socket.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn word(&self, at: usize) -> u32 {
        let b = &self.bytes;
        u32::from_ne_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
    }

    /// The identifier with `CAN_EFF_FLAG`, `CAN_RTR_FLAG` and `CAN_ERR_FLAG`; of CAN XL frames the word with priority and VCID.
    #[must_use]
    pub fn can_id(&self) -> u32 {
        self.word(field::ID)
    }

    /// Whether it is a remote request. Only classic frames are.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        self.kind == FrameType::Classic && self.can_id() & RTR_FLAG != 0
    }

    /// What its length field says, in bytes: 0 to 8, 64 or 2048. Remote requests have a length, but no [`Frame::data`].
    #[expect(
        clippy::len_without_is_empty,
        reason = "the length field of a frame, which is no collection"
    )]
    #[must_use]
    pub fn len(&self) -> u16 {
        match self.kind {
            FrameType::Classic | FrameType::Fd => u16::from(self.bytes[field::LEN]),
            FrameType::Xl => {
                u16::from_ne_bytes([self.bytes[field::XL_LEN], self.bytes[field::XL_LEN + 1]])
            }
        }
    }

    /// The data bytes; none in a remote request.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        match self.kind {
            _ if self.is_remote() => &[],
            FrameType::Classic | FrameType::Fd => {
                &self.bytes[field::DATA..field::DATA + usize::from(self.len())]
            }
            FrameType::Xl => &self.bytes[XL_HEAD as usize..],
        }
    }

    /// The flags of CAN FD frames (BRS 1, ESI 2, FDF 4) and CAN XL frames (SEC 1, RRS 2, XLF 80 hexadecimal); 0 for classic frames.
    #[must_use]
    pub fn flags(&self) -> u8 {
        match self.kind {
            FrameType::Classic => 0,
            FrameType::Fd => self.bytes[field::FLAGS],
            FrameType::Xl => self.bytes[field::LEN],
        }
    }

    /// The data length code on the bus of a classic frame of 8 bytes, 9 to 15; `None` where it is the length.
    #[must_use]
    pub fn raw_dlc(&self) -> Option<u8> {
        let dlc = self.bytes[field::LEN8_DLC];
        let counts = self.kind == FrameType::Classic && self.len() == 8;
        (counts && (9..=15).contains(&dlc)).then_some(dlc)
    }

    fn of_xl<T>(&self, value: impl FnOnce(&Self) -> T) -> Option<T> {
        (self.kind == FrameType::Xl).then(|| value(self))
    }

    /// The SDU type of a CAN XL frame.
    #[must_use]
    pub fn sdt(&self) -> Option<u8> {
        self.of_xl(|frame| frame.bytes[SDT])
    }

    /// The acceptance field of a CAN XL frame.
    #[must_use]
    pub fn af(&self) -> Option<u32> {
        self.of_xl(|frame| frame.word(AF))
    }

    /// The virtual CAN network of a CAN XL frame.
    #[must_use]
    pub fn vcid(&self) -> Option<u8> {
        self.of_xl(|frame| (frame.can_id() >> VCID_SHIFT) as u8)
    }
}

/// What [`Frame::from_bytes`] took can have bits that the notation does not know: identifier bits between those of its format and
/// its flags stay visible as digits too many; the high half of CAN FD flags and bytes that the frame does not use are left out.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.can_id();
        match self.kind {
            FrameType::Xl => {
                let (high, low) = (id >> VCID_SHIFT, id & 0xFFFF);
                write!(f, "{high:02X}{low:03X}#{:02X}:", self.flags())?;
                write!(f, "{:02X}:{:08X}#", self.bytes[SDT], self.word(AF))?;
            }
            FrameType::Classic | FrameType::Fd => {
                let hidden = EFF_FLAG | if self.is_remote() { RTR_FLAG } else { 0 };
                let width = if id & (EFF_FLAG | ERR_FLAG) == 0 {
                    3
                } else {
                    8
                };
                write!(f, "{:0width$X}#", id & !hidden)?;
            }
        }
        if self.kind == FrameType::Fd {
            write!(f, "#{:X}", self.flags() & 0xF)?;
        }
        if self.is_remote() {
            f.write_str("R")?;
            if self.len() != 0 {
                write!(f, "{}", self.len())?;
            }
        }
        for byte in self.data() {
            write!(f, "{byte:02X}")?;
        }
        match self.raw_dlc() {
            Some(dlc) => write!(f, "_{dlc:X}"),
            None => Ok(()),
        }
    }
}
