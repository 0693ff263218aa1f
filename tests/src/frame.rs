//! Frames as they pass a socket: the bytes of `struct can_frame`, `canfd_frame` and `canxl_frame`.

use std::fmt;

/// Extended identifier.
pub const EFF: u32 = 0x8000_0000;
/// Remote request.
pub const RTR: u32 = 0x4000_0000;
/// Error frame.
pub const ERR: u32 = 0x2000_0000;
/// Bit rate switch.
pub const BRS: u8 = 1;
/// Error state indicator.
pub const ESI: u8 = 2;
/// Newer kernels set this on every FD frame that they send.
const FDF: u8 = 4;
/// Marks a CAN XL frame, where the others have their length.
const XLF: u8 = 0x80;

const CLASSIC: usize = 16;
const FD: usize = 72;
const XL_HEAD: usize = 12;

/// A frame. Its order is that of its bytes, only good for sorting.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frame(Vec<u8>);

impl Frame {
    /// A classic frame with the data bytes given, at most 8.
    #[must_use]
    pub fn classic(id: u32, data: &[u8]) -> Self {
        Self::build(id, CLASSIC, data, 0, 0)
    }

    /// A remote request for `len` bytes.
    #[must_use]
    pub fn remote(id: u32, len: u8) -> Self {
        let mut frame = Self::classic(id | RTR, &[]);
        frame.0[4] = len;
        frame
    }

    /// A classic frame with 8 bytes whose DLC on the bus is 9 to 15.
    #[must_use]
    pub fn raw_dlc(id: u32, dlc: u8, data: [u8; 8]) -> Self {
        Self::build(id, CLASSIC, &data, 0, dlc)
    }

    /// An FD frame with the data bytes given, at most 64, and the flags [`BRS`] and [`ESI`].
    #[must_use]
    pub fn fd(id: u32, flags: u8, data: &[u8]) -> Self {
        Self::build(id, FD, data, flags | FDF, 0)
    }

    /// An XL frame with 1 to 2048 data bytes.
    #[must_use]
    pub fn xl(priority: u32, sdt: u8, af: u32, data: &[u8]) -> Self {
        let mut bytes = vec![0; XL_HEAD];
        bytes[..4].copy_from_slice(&priority.to_ne_bytes());
        bytes[4] = XLF;
        bytes[5] = sdt;
        bytes[6..8].copy_from_slice(&(data.len() as u16).to_ne_bytes());
        bytes[8..].copy_from_slice(&af.to_ne_bytes());
        bytes.extend(data);
        Self(bytes)
    }

    fn build(id: u32, size: usize, data: &[u8], flags: u8, len8_dlc: u8) -> Self {
        let mut bytes = vec![0; size];
        bytes[..4].copy_from_slice(&id.to_ne_bytes());
        bytes[4] = data.len() as u8;
        bytes[5] = flags;
        bytes[7] = len8_dlc;
        bytes[8..8 + data.len()].copy_from_slice(data);
        Self(bytes)
    }

    /// An XL frame on a virtual CAN network.
    #[must_use]
    pub fn on_vcid(mut self, vcid: u8) -> Self {
        let word = self.id() | u32::from(vcid) << 16;
        self.0[..4].copy_from_slice(&word.to_ne_bytes());
        self
    }

    /// A frame as a socket gave it.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The bytes for a socket.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Identifier with its flags; of an XL frame its priority.
    #[must_use]
    pub fn id(&self) -> u32 {
        u32::from_ne_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }

    /// Bytes that [`fmt::Display`] leaves out, as text; empty when there are none.
    #[must_use]
    pub fn rest(&self) -> String {
        let bare = self.bare();
        if bare == *self {
            return String::new();
        }
        let left_out = self.0.iter().zip(&bare.0).map(|(byte, known)| byte ^ known);
        let text: String = left_out.map(|byte| format!("{byte:02X}")).collect();
        format!(" and in other bytes {text}")
    }

    /// The frame with nothing in the bytes that its type and length do not use.
    #[must_use]
    pub fn bare(&self) -> Self {
        if self.is_xl() {
            return self.clone();
        }
        let (fd, length) = (self.is_fd(), usize::from(self.0[4]));
        let remote = self.id() & RTR != 0;
        let used = |i: usize| match i {
            0..=4 => true,
            5 => fd,
            7 => !fd && length == 8 && !remote,
            8.. => i - 8 < length && !remote,
            _ => false,
        };
        let bytes = self.0.iter().enumerate();
        Self(
            bytes
                .map(|(i, &byte)| if used(i) { byte } else { 0 })
                .collect(),
        )
    }

    /// Whether it is a CAN XL frame.
    #[must_use]
    pub fn is_xl(&self) -> bool {
        self.0[4] & XLF != 0
    }

    /// Whether it is a CAN FD frame.
    #[must_use]
    pub fn is_fd(&self) -> bool {
        !self.is_xl() && self.0.len() == FD
    }

    /// The data bytes.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        if self.is_xl() {
            &self.0[XL_HEAD..]
        } else {
            &self.0[8..8 + usize::from(self.0[4])]
        }
    }
}

/// As candump's log format has it, with what that lacks.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.id();
        if self.is_xl() {
            write!(f, "xl {id:X} sdt {:X} ", self.0[5])?;
        } else if id & (EFF | ERR) != 0 {
            write!(f, "{:08X}#", id & !(EFF | RTR))?;
        } else {
            write!(f, "{:03X}#", id & !RTR)?;
        }
        if self.is_fd() {
            write!(f, "#{:X}", self.0[5])?;
        }
        if !self.is_xl() && id & RTR != 0 {
            return write!(f, "R{}", self.0[4]);
        }
        for byte in self.data() {
            write!(f, "{byte:02X}")?;
        }
        if !self.is_xl() && !self.is_fd() && self.0[7] != 0 {
            write!(f, "_{:X}", self.0[7])?;
        }
        Ok(())
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
