//! What hosts of a federation send each other: frames, and a head that says whose they are, which, and since when.
//!
//! All numbers are big-endian. Classic and CAN FD frames are as in [`codec`](crate::tunnel::codec); those of CAN XL have a length that neither can have.

use std::fmt;
use std::str::FromStr;

use cangw_common::frame::{FrameType, XL_FLAG, XL_HEAD, XL_MAX_DATA, field};

use crate::as_text::as_text;
use crate::tunnel::codec::{Frame, Malformed};

/// First byte of a head: the format's version.
pub const VERSION: u8 = 1;
/// Bytes of a head.
pub const HEAD: usize = 1 + 16 + 8 + 8;
/// Frames of a message, at most.
pub const MOST: usize = 4096;
/// In place of a length: a CAN XL frame.
const XL: u8 = 0xFF;
/// Bytes of a CAN XL frame before its data: `prio`, [`XL`], `flags`, `sdt`, `len`, `af`.
const XL_WIRE: usize = 13;

/// A run of a host's daemon, which no other has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub [u8; 16]);

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Session {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no session: 32 hexadecimal digits");
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| wrong())?;
        Ok(Self(number.to_be_bytes()))
    }
}

as_text!(Session);

/// Whose frames a message has, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Who took them off a bus.
    pub origin: Session,
    /// Number of the first frame; each has the next one.
    pub number: u64,
    /// When they were taken off the bus, in nanoseconds of the origin's clock.
    pub time: u64,
}

impl Head {
    /// As it is sent.
    #[must_use]
    pub fn encode(&self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[0] = VERSION;
        bytes[1..17].copy_from_slice(&self.origin.0);
        bytes[17..25].copy_from_slice(&self.number.to_be_bytes());
        bytes[25..].copy_from_slice(&self.time.to_be_bytes());
        bytes
    }

    /// Reads one; `None` when it is none of this version.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEAD] = bytes.try_into().ok()?;
        let (&version, rest) = bytes.split_first()?;
        let (origin, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (time, _) = rest.split_first_chunk()?;
        (version == VERSION).then_some(Self {
            origin: Session(*origin),
            number: u64::from_be_bytes(*number),
            time: u64::from_be_bytes(*time),
        })
    }
}

/// Frames as raw CAN sockets have them, one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Frames {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Each frame's bytes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        let begin = |place: usize| place.checked_sub(1).map_or(0, |before| self.ends[before]);
        let ends = self.ends.iter().enumerate();
        ends.map(move |(place, end)| &self.bytes[begin(place)..*end])
    }

    fn push(&mut self, parts: &[&[u8]]) {
        parts
            .iter()
            .for_each(|part| self.bytes.extend_from_slice(part));
        self.ends.push(self.bytes.len());
    }

    /// Reads the frames of a message.
    ///
    /// # Errors
    /// Why it is none.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let mut frames = Self::default();
        while !bytes.is_empty() {
            if frames.len() == MOST {
                return Err(Malformed::Long);
            }
            let length = if bytes.get(field::LEN) == Some(&XL) {
                frames.take_xl(bytes)?
            } else {
                let (frame, length) = Frame::decode(bytes)?.ok_or(Malformed::Short)?;
                frames.push(&[frame.socket_bytes()]);
                length
            };
            bytes = &bytes[length..];
        }
        Ok(frames)
    }

    /// Reads a CAN XL frame; how many bytes it has.
    fn take_xl(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let (head, rest) = bytes
            .split_first_chunk::<XL_WIRE>()
            .ok_or(Malformed::Short)?;
        let [p0, p1, p2, p3, _, flags, sdt, l0, l1, a0, a1, a2, a3] = *head;
        let length = u16::from_be_bytes([l0, l1]);
        if length == 0 || u32::from(length) > XL_MAX_DATA {
            return Err(Malformed::Length(l1));
        }
        let data = rest.get(..usize::from(length)).ok_or(Malformed::Short)?;
        self.push(&[
            &u32::from_be_bytes([p0, p1, p2, p3]).to_ne_bytes(),
            &[flags | XL_FLAG, sdt],
            &length.to_ne_bytes(),
            &u32::from_be_bytes([a0, a1, a2, a3]).to_ne_bytes(),
            data,
        ]);
        Ok(XL_WIRE + data.len())
    }
}

/// Appends a frame that a raw CAN socket gave, as it is sent. Its identifier with the flags of `linux/can.h`, of CAN XL the priority, which has 11 bits; `None`
/// when it is none that a controller would send.
pub fn encode(frame: &[u8], to: &mut Vec<u8>) -> Option<u32> {
    if let Some(classic_or_fd) = Frame::from_socket(frame) {
        classic_or_fd.encode(to);
        return Some(classic_or_fd.id());
    }
    let (head, data) = frame.split_first_chunk::<{ XL_HEAD as usize }>()?;
    let [p0, p1, p2, p3, flags, sdt, l0, l1, a0, a1, a2, a3] = *head;
    let length = u16::from_ne_bytes([l0, l1]);
    let is_xl = flags & XL_FLAG != 0 && length != 0 && data.len() == usize::from(length);
    if !is_xl || frame.len() > FrameType::Xl.mtu() as usize {
        return None;
    }
    let priority = u32::from_ne_bytes([p0, p1, p2, p3]);
    to.extend_from_slice(&priority.to_be_bytes());
    to.extend_from_slice(&[XL, flags, sdt]);
    to.extend_from_slice(&length.to_be_bytes());
    to.extend_from_slice(&u32::from_ne_bytes([a0, a1, a2, a3]).to_be_bytes());
    to.extend_from_slice(data);
    Some(priority & cangw_common::frame::SFF_MASK)
}

/// Which numbers of frames have come from an origin. A frame is taken once, and never after a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    next: u64,
}

/// What the number of a message says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// So many frames before it are missing.
    pub lost: u64,
    /// So many of its first frames have come before, or later ones have.
    pub repeated: usize,
}

impl Numbers {
    /// Begins with the first frame that is known of.
    #[must_use]
    pub fn begin(number: u64) -> Self {
        Self { next: number }
    }

    /// Frames have come, the first with this number.
    pub fn arrived(&mut self, number: u64, count: usize) -> Arrival {
        let lost = number.saturating_sub(self.next);
        let repeated = self.next.saturating_sub(number).min(count as u64);
        self.next = self.next.max(number.saturating_add(count as u64));
        Arrival {
            lost,
            repeated: repeated as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn xl(priority: u32, data: &[u8]) -> Vec<u8> {
        let mut frame = priority.to_ne_bytes().to_vec();
        frame.extend_from_slice(&[XL_FLAG, 3]);
        frame.extend_from_slice(&(data.len() as u16).to_ne_bytes());
        frame.extend_from_slice(&0xDEAD_BEEF_u32.to_ne_bytes());
        frame.extend_from_slice(data);
        frame
    }

    #[test]
    fn frames_of_all_kinds_come_out_as_they_went_in() {
        let mut classic = [0; 16];
        classic[..4].copy_from_slice(&0x123_u32.to_ne_bytes());
        classic[4] = 2;
        classic[8..10].copy_from_slice(&[0xCA, 0xFE]);
        let mut fd = [0; 72];
        fd[..4].copy_from_slice(&0x98DA_F110_u32.to_ne_bytes());
        fd[4] = 64;
        fd[5] = 5;
        fd[8..].fill(7);
        let longest = xl(0x0010_0456, &[9; 2048]);
        let mut message = Vec::new();
        assert_eq!(encode(&classic, &mut message), Some(0x123));
        assert_eq!(message, [0, 0, 1, 0x23, 2, 0xCA, 0xFE]);
        assert_eq!(encode(&fd, &mut message), Some(0x98DA_F110));
        assert_eq!(encode(&longest, &mut message), Some(0x456));
        let frames = Frames::decode(&message).expect("frames");
        let all: Vec<&[u8]> = frames.iter().collect();
        assert_eq!(all, [&classic[..], &fd, &longest]);
        for cut in [1, 6, 7 + 69, message.len() - 1] {
            assert!(Frames::decode(&message[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn what_no_controller_sends_is_not_sent_on() {
        let mut message = Vec::new();
        for frame in [
            &xl(1, &[])[..],
            &xl(1, &[0; 2049]),
            &xl(1, &[0; 9])[..20],
            &[0; 15],
            &[],
        ] {
            assert_eq!(encode(frame, &mut message), None);
        }
        assert!(message.is_empty());
        assert!(Frames::decode(&[0, 0, 0, 1, XL, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(Frames::decode(&[0, 0, 0, 1, XL, 0, 0, 9, 0, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn heads() {
        let head = Head {
            origin: Session([7; 16]),
            number: 0x0102_0304_0506_0708,
            time: 42,
        };
        let bytes = head.encode();
        assert_eq!(bytes[17..25], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(Head::decode(&bytes), Some(head));
        assert_eq!(Head::decode(&bytes[1..]), None);
        assert_eq!(Head::decode(&[2; HEAD]), None);
    }

    proptest! {
        /// Whatever comes in whichever order: a frame is taken once, in order, and what is not taken is counted.
        #[test]
        fn frames_are_taken_once(messages in prop::collection::vec((0_u64..200, 1_usize..20), 1..50)) {
            let mut numbers = Numbers::begin(0);
            let (mut taken, mut lost) = (Vec::new(), 0);
            for (number, count) in messages {
                let arrival = numbers.arrived(number, count);
                lost += arrival.lost;
                taken.extend(number + arrival.repeated as u64..number + count as u64);
            }
            prop_assert!(taken.is_sorted_by(|a, b| a < b));
            let last = taken.last().map_or(0, |last| last + 1);
            prop_assert_eq!(taken.len() as u64 + lost, last);
        }

        #[test]
        fn bytes_of_any_kind_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(frames) = Frames::decode(&bytes) {
                let mut again = Vec::new();
                for frame in frames.iter() {
                    prop_assert!(encode(frame, &mut again).is_some());
                }
                prop_assert_eq!(Frames::decode(&again), Ok(frames));
            }
        }
    }
}
