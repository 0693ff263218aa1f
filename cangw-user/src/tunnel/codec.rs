//! cannelloni's format: frames one behind the other, big-endian, with a head in datagrams and a greeting in streams.
//!
//! A frame on the way is `can_id` (with the flags of `linux/can.h`), `len` (with bit 7 for CAN FD), `flags` of CAN FD frames only, and `len` bytes of data, of which
//! remote frames have none. Here, a frame is as a raw CAN socket takes and gives it, so that nothing is in between.

use cangw_common::frame::field;
use cangw_common::frame::{CLASSIC_LEN, EFF_FLAG, EFF_MASK, ERR_FLAG, FD_LEN, RTR_FLAG, SFF_MASK};

/// First byte of a datagram: the format's version.
pub const VERSION: u8 = 2;
/// Second byte: it has frames.
pub const DATA: u8 = 0;
/// Bytes before the frames of a datagram: version, code, sequence number, and how many frames (two bytes).
pub const HEAD: usize = 5;
/// What both ends of a stream say first.
pub const GREETING: &[u8; 12] = b"CANNELLONIv1";
/// Bytes of the longest frame on the way.
pub const LONGEST: usize = 6 + 64;

/// Set in `len` of CAN FD frames.
const FD: u8 = 0x80;
const CLASSIC: usize = CLASSIC_LEN as usize;
const FULL: usize = FD_LEN as usize;
const CLASSIC_DATA: usize = 8;
const FD_DATA: usize = 64;

/// A classic or CAN FD frame as raw CAN sockets have it (`struct can_frame`, `struct canfd_frame`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    bytes: [u8; FULL],
    is_fd: bool,
}

/// Why bytes are no frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Bytes are missing.
    #[error("it ends within a frame")]
    Short,
    /// There are bytes behind the last frame.
    #[error("it goes on behind its last frame")]
    Long,
    /// The version is not [`VERSION`].
    #[error("its version is {0}, not {VERSION}")]
    Version(u8),
    /// The code is not [`DATA`].
    #[error("its code is {0}, not {DATA}")]
    Code(u8),
    /// A classic frame has at most 8 bytes of data, one of CAN FD 64.
    #[error("a frame has {0} bytes of data")]
    Length(u8),
    /// An error frame, or a remote frame of CAN FD, or an identifier of 11 bits above 7FF.
    #[error("a frame has the identifier {0:08X}")]
    Id(u32),
    /// A WebSocket message that is text.
    #[error("it is text")]
    Text,
    /// A stream begins in another way.
    #[error("it does not begin with CANNELLONIv1")]
    Greeting,
}

impl Frame {
    /// A frame that a raw CAN socket gave; `None` when it is none that the protocol has: one of CAN XL, a driver's error frame, or one that no controller would send.
    #[must_use]
    pub fn from_socket(bytes: &[u8]) -> Option<Self> {
        let is_fd = match bytes.len() {
            CLASSIC => false,
            FULL => true,
            _ => return None,
        };
        let mut frame = Self {
            bytes: [0; FULL],
            is_fd,
        };
        frame.bytes[..bytes.len()].copy_from_slice(bytes);
        let fits = usize::from(frame.bytes[field::LEN]) <= frame.room();
        (fits && is_id(frame.id(), is_fd)).then_some(frame)
    }

    /// As a raw CAN socket takes it.
    #[must_use]
    pub fn socket_bytes(&self) -> &[u8] {
        if self.is_fd {
            &self.bytes
        } else {
            &self.bytes[..CLASSIC]
        }
    }

    /// The identifier with the flags of `linux/can.h`.
    #[must_use]
    pub fn id(&self) -> u32 {
        let [a, b, c, d, ..] = self.bytes;
        u32::from_ne_bytes([a, b, c, d])
    }

    /// The identifier alone.
    #[must_use]
    pub fn plain_id(&self) -> u32 {
        let is_extended = self.id() & EFF_FLAG != 0;
        self.id() & if is_extended { EFF_MASK } else { SFF_MASK }
    }

    /// Whether it is a CAN FD frame.
    #[must_use]
    pub fn is_fd(&self) -> bool {
        self.is_fd
    }

    fn room(&self) -> usize {
        if self.is_fd { FD_DATA } else { CLASSIC_DATA }
    }

    /// Bytes of data on the way.
    fn data(&self) -> &[u8] {
        let length = if self.id() & RTR_FLAG == 0 {
            usize::from(self.bytes[field::LEN])
        } else {
            0
        };
        &self.bytes[field::DATA..field::DATA + length]
    }

    /// Bytes on the way.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        field::FLAGS + usize::from(self.is_fd) + self.data().len()
    }

    /// Appends it as it is on the way.
    pub fn encode(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.id().to_be_bytes());
        if self.is_fd {
            to.extend_from_slice(&[self.bytes[field::LEN] | FD, self.bytes[field::FLAGS]]);
        } else {
            to.push(self.bytes[field::LEN]);
        }
        to.extend_from_slice(self.data());
    }

    /// Reads a frame at the beginning of bytes, and how many bytes it has; `None` when some are missing still.
    ///
    /// # Errors
    /// Why it is none.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, Malformed> {
        let Some(&[a, b, c, d, length]) = bytes.first_chunk() else {
            return Ok(None);
        };
        let id = u32::from_be_bytes([a, b, c, d]);
        let mut frame = Self {
            bytes: [0; FULL],
            is_fd: length & FD != 0,
        };
        let length = length & !FD;
        if usize::from(length) > frame.room() {
            return Err(Malformed::Length(length));
        }
        let is_remote = id & RTR_FLAG != 0;
        if !is_id(id, frame.is_fd) {
            return Err(Malformed::Id(id));
        }
        let mut at = field::FLAGS;
        if frame.is_fd {
            let Some(flags) = bytes.get(at) else {
                return Ok(None);
            };
            frame.bytes[field::FLAGS] = *flags;
            at += 1;
        }
        let carried = if is_remote { 0 } else { usize::from(length) };
        let Some(data) = bytes.get(at..at + carried) else {
            return Ok(None);
        };
        frame.bytes[..4].copy_from_slice(&id.to_ne_bytes());
        frame.bytes[field::LEN] = length;
        frame.bytes[field::DATA..field::DATA + carried].copy_from_slice(data);
        Ok(Some((frame, at + carried)))
    }
}

/// Whether a frame can have an identifier with these flags: no error frame, no remote frame of CAN FD, and not more than 11 bits in a standard one.
fn is_id(id: u32, is_fd: bool) -> bool {
    let has_room = id & EFF_FLAG != 0 || id & EFF_MASK <= SFF_MASK;
    id & ERR_FLAG == 0 && !(is_fd && id & RTR_FLAG != 0) && has_room
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.is_fd { "##" } else { "#" };
        write!(f, "{:08X}{kind}{:02X?}", self.id(), self.data())
    }
}

/// Begins a datagram. [`finish`] makes it whole.
pub fn begin(datagram: &mut Vec<u8>) {
    datagram.clear();
    datagram.extend_from_slice(&[VERSION, DATA, 0, 0, 0]);
}

/// Writes the sequence number and how many frames there are into a datagram.
pub fn finish(datagram: &mut [u8], sequence: u8, frames: u16) {
    let [high, low] = frames.to_be_bytes();
    datagram[2..HEAD].copy_from_slice(&[sequence, high, low]);
}

/// Reads a datagram, appends its frames, and gives back its sequence number.
///
/// # Errors
/// Why it is none; then it has appended nothing.
pub fn decode_datagram(bytes: &[u8], frames: &mut Vec<Frame>) -> Result<u8, Malformed> {
    let before = frames.len();
    let result = decode_all(bytes, frames);
    if result.is_err() {
        frames.truncate(before);
    }
    result
}

fn decode_all(bytes: &[u8], frames: &mut Vec<Frame>) -> Result<u8, Malformed> {
    let (&[version, code, sequence, high, low], mut rest) =
        bytes.split_first_chunk().ok_or(Malformed::Short)?;
    if version != VERSION {
        return Err(Malformed::Version(version));
    }
    if code != DATA {
        return Err(Malformed::Code(code));
    }
    for _ in 0..u16::from_be_bytes([high, low]) {
        let (frame, length) = Frame::decode(rest)?.ok_or(Malformed::Short)?;
        frames.push(frame);
        rest = &rest[length..];
    }
    if rest.is_empty() {
        Ok(sequence)
    } else {
        Err(Malformed::Long)
    }
}

/// What has come of a stream and is no whole frame yet.
#[derive(Debug, Default)]
pub struct Stream {
    rest: Vec<u8>,
    is_greeted: bool,
}

impl Stream {
    /// Whether the other end has said what it speaks.
    #[must_use]
    pub fn is_greeted(&self) -> bool {
        self.is_greeted
    }

    /// Bytes that wait for the rest of their frame.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.rest.len()
    }

    /// Takes the next bytes, however they are cut, and appends the frames that are whole.
    ///
    /// # Errors
    /// Why the stream is none. It cannot go on then, because nobody knows where its next frame begins.
    pub fn take(&mut self, bytes: &[u8], frames: &mut Vec<Frame>) -> Result<(), Malformed> {
        self.rest.extend_from_slice(bytes);
        let mut at = 0;
        if !self.is_greeted {
            let has = self.rest.len().min(GREETING.len());
            if self.rest[..has] != GREETING[..has] {
                return Err(Malformed::Greeting);
            }
            if has < GREETING.len() {
                return Ok(());
            }
            self.is_greeted = true;
            at = has;
        }
        while let Some((frame, length)) = Frame::decode(&self.rest[at..])? {
            frames.push(frame);
            at += length;
        }
        // Less than a frame is left.
        self.rest.drain(..at);
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
