//! Editing a frame: can-gw's modifications and checksums (`can_can_gw_rcv` in net/can/gw.c).
//!
//! AND, OR, XOR and SET with constants, one after the other, do one of four things to each bit: keep, flip, clear or
//! set it. So any sequence of them is `(frame & keep) ^ flip`, at the same cost for one operation and for four.

use crate::frame::{CLASSIC_LEN, FrameType, field};
use crate::opaque;

/// Bytes of the longest frame that can be edited, a CAN FD frame.
pub const BYTES: usize = crate::frame::FD_LEN as usize;

/// A classic or CAN FD frame as the kernel has it (`struct can_frame`, `struct canfd_frame`), aligned for access by words.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameBytes(pub [u8; BYTES]);

impl FrameBytes {
    /// All bytes zero.
    pub const ZERO: Self = Self([0; BYTES]);

    /// A word of the frame, by its number below 9.
    #[inline(always)]
    fn word(&self, index: usize) -> u64 {
        assert_index(index);
        // SAFETY: the eight bytes lie within the structure, which is aligned to eight. Put together from bytes, the compiler for eBPF
        // would load each of them.
        unsafe { self.0.as_ptr().cast::<u64>().add(index).read() }
    }

    /// Writes a word of the frame, by its number below 9.
    #[inline(always)]
    pub fn set_word(&mut self, index: usize, word: u64) {
        assert_index(index);
        // SAFETY: as in `word`.
        unsafe { self.0.as_mut_ptr().cast::<u64>().add(index).write(word) }
    }

    /// A byte of the data, by an index below 64.
    #[inline(always)]
    fn data(&self, index: u64) -> u8 {
        self.0[field::DATA + (opaque(index) & 63) as usize]
    }

    #[inline(always)]
    fn set_data(&mut self, index: u32, value: u8) {
        self.0[field::DATA + (opaque(u64::from(index)) & 63) as usize] = value;
    }
}

/// Words are numbered by constants, so that nothing of this is left when it is compiled.
#[inline(always)]
const fn assert_index(index: usize) {
    assert!(index < BYTES / 8);
}

/// [`Edit::flags`]: the data length code of a classic frame is edited, as a raw value of 0 to 15.
pub const DLC: u32 = 1;
/// [`Edit::flags`]: a CRC8 is written.
pub const CRC8: u32 = 2;
/// [`Edit::flags`]: an XOR checksum is written, after the CRC8.
pub const XOR: u32 = 4;
/// [`Edit::flags`]: whether the length fits depends on the frame. Otherwise it always does.
pub const CHECKED: u32 = 8;
/// [`Edit::flags`]: the rule has a [guard](crate::abi::Guard), which is asked first.
pub const GUARDED: u32 = 0x10;
/// [`Edit::flags`]: the same copy once more, when the guard said so.
pub const DUPLICATE: u32 = 0x20;
/// [`Edit::flags`]: the frame stays as it is. CAN XL frames have no other edits.
pub const IDENTITY: u32 = 0x40;

/// [`Edit::profile`]: one more byte, `CGW_CRC8PRF_1U8`.
pub const PROFILE_1U8: u8 = 1;
/// [`Edit::profile`]: one more byte of a table, by `data[1] & 0xF`, `CGW_CRC8PRF_16U8`.
pub const PROFILE_16U8: u8 = 2;
/// [`Edit::profile`]: `id ^ id >> 8`, `CGW_CRC8PRF_SFFID_XOR`.
pub const PROFILE_SFFID_XOR: u8 = 3;

/// Which bytes of the data a checksum covers, and where it goes: -64 to 63, negative from the end of the data.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte.
    pub from: i8,
    /// Last byte; before the first, the bytes are taken backwards.
    pub to: i8,
    /// The byte that is written.
    pub result: i8,
    /// Value to start with.
    pub init: u8,
}

/// What a rule does to frames, in the form in which it is done.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Edit {
    /// Bits that stay as they are, or are flipped.
    pub keep: FrameBytes,
    /// Bits that are flipped; those that are not kept are set.
    pub flip: FrameBytes,
    /// [`DLC`], [`CRC8`], [`XOR`], [`CHECKED`], [`GUARDED`], [`DUPLICATE`], [`IDENTITY`].
    pub flags: u32,
    /// Slot of the rule, the key of its counters.
    pub rule: u32,
    /// The CRC8.
    pub crc8: Span,
    /// The XOR checksum.
    pub xor: Span,
    /// Extra step of the CRC8; other values: none.
    pub profile: u8,
    /// Flipped in the CRC8 at the end.
    pub final_xor: u8,
    /// 0.
    pub reserved: [u8; 6],
    /// Data of the profile.
    pub profile_data: [u8; 16],
    /// Table of the CRC8.
    pub table: [u8; 256],
}

impl Edit {
    /// Changes nothing.
    pub const NONE: Self = Self {
        keep: FrameBytes([0xFF; BYTES]),
        flip: FrameBytes::ZERO,
        flags: 0,
        rule: 0,
        crc8: Span {
            from: 0,
            to: 0,
            result: 0,
            init: 0,
        },
        xor: Span {
            from: 0,
            to: 0,
            result: 0,
            init: 0,
        },
        profile: 0,
        final_xor: 0,
        reserved: [0; 6],
        profile_data: [0; 16],
        table: [0; 256],
    };

    /// Writes the edited frame to `to`. False when its length would not fit its type; `to` is then of no use.
    #[must_use]
    #[inline(always)]
    pub fn apply(&self, kind: FrameType, from: &FrameBytes, to: &mut FrameBytes) -> bool {
        let fd = match kind {
            FrameType::Classic => false,
            FrameType::Fd => true,
            FrameType::Xl => return false,
        };
        self.apply_words(0, CLASSIC_LEN as usize / 8, from, to);
        if fd {
            self.apply_words(CLASSIC_LEN as usize / 8, BYTES / 8, from, to);
        }
        let fits = if fd {
            to.0[field::LEN] <= 64
        } else {
            self.flags & DLC == 0 || self.set_dlc(from, to)
        };
        if fits && self.flags & CRC8 != 0 {
            self.write_crc8(to);
        }
        if fits && self.flags & XOR != 0 {
            self.write_xor(to);
        }
        fits
    }

    #[inline(always)]
    fn apply_words(&self, first: usize, end: usize, from: &FrameBytes, to: &mut FrameBytes) {
        let mut i = first;
        while i < end {
            to.set_word(i, (from.word(i) & self.keep.word(i)) ^ self.flip.word(i));
            i += 1;
        }
    }

    /// `mod_retrieve_ccdlc`, the operations, and `mod_store_ccdlc`.
    #[inline(always)]
    fn set_dlc(&self, from: &FrameBytes, to: &mut FrameBytes) -> bool {
        let (len, raw) = (from.0[field::LEN], from.0[field::LEN8_DLC]);
        let dlc = if len == 8 && raw > 8 && raw <= 15 {
            raw
        } else {
            len
        };
        let dlc = (dlc & self.keep.0[field::LEN]) ^ self.flip.0[field::LEN];
        to.0[field::LEN] = if dlc > 8 { 8 } else { dlc };
        to.0[field::LEN8_DLC] = if dlc > 8 { dlc } else { 0 };
        dlc <= 15
    }

    #[inline(always)]
    fn write_crc8(&self, frame: &mut FrameBytes) {
        let Some((from, to, result)) = self.crc8.resolve(frame.0[field::LEN]) else {
            return;
        };
        let step = |crc: u8, byte: u8| self.table[usize::from(crc ^ byte)];
        let mut crc = fold(frame, from, to, self.crc8.init, step);
        match self.profile {
            PROFILE_1U8 => crc = step(crc, self.profile_data[0]),
            PROFILE_16U8 => {
                let index = opaque(u64::from(frame.0[field::DATA + 1])) & 15;
                crc = step(crc, self.profile_data[index as usize]);
            }
            PROFILE_SFFID_XOR => {
                let b = &frame.0;
                let id = u32::from_ne_bytes([b[0], b[1], b[2], b[3]]);
                crc = step(crc, (id ^ (id >> 8)) as u8);
            }
            _ => {}
        }
        frame.set_data(result, crc ^ self.final_xor);
    }

    #[inline(always)]
    fn write_xor(&self, frame: &mut FrameBytes) {
        if let Some((from, to, result)) = self.xor.resolve(frame.0[field::LEN]) {
            let sum = fold(frame, from, to, self.xor.init, |sum, byte| sum ^ byte);
            frame.set_data(result, sum);
        }
    }
}

impl Span {
    /// Indices in data of `len` bytes; `None` when one lies before the data, and nothing is to be written (`calc_idx`).
    #[inline(always)]
    fn resolve(self, len: u8) -> Option<(u32, u32, u32)> {
        let resolve = |index: i8| {
            let index = i32::from(index);
            if index < 0 {
                i32::from(len) + index
            } else {
                index
            }
        };
        let (from, to, result) = (resolve(self.from), resolve(self.to), resolve(self.result));
        (from >= 0 && to >= 0 && result >= 0).then_some((from as u32, to as u32, result as u32))
    }
}

/// Takes the bytes from `from` to `to`, forwards or backwards. With 64-bit variables throughout, because eBPF extends others at each step.
#[inline(always)]
fn fold(frame: &FrameBytes, from: u32, to: u32, init: u8, step: impl Fn(u8, u8) -> u8) -> u8 {
    let direction = if from <= to { 1 } else { u64::MAX };
    let mut value = init;
    let mut index = u64::from(from);
    let end = u64::from(to).wrapping_add(direction);
    let mut count = 0u64;
    while count < 64 {
        value = step(value, frame.data(index));
        index = index.wrapping_add(direction);
        if index == end {
            break;
        }
        count += 1;
    }
    value
}

const _: () = {
    assert!(size_of::<Edit>() == 440);
    assert!(BYTES.is_multiple_of(8));
};
