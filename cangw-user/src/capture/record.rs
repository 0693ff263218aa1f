//! What the programs tell, as it comes out of the ring buffer.

use cangw_common::abi::{self, TapCell, TapRecord, Withheld};
use cangw_common::frame::FrameType;

use crate::frame_text::Frame;

/// A record, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// When, in nanoseconds of the monotonic clock.
    pub time: u64,
    /// Where.
    pub cpu: u32,
    /// Records of this CPU that were lost until then.
    pub missed: u64,
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A frame came to an interface.
    Received {
        ifindex: u32,
        frame: Seen,
        status: u32,
        flags: u32,
        cells: Vec<TapCell>,
    },
    /// A frame was given to an interface.
    Left {
        ifindex: u32,
        from: u32,
        frame: Seen,
    },
    /// XDP gave the last frame of an interface to another, or to all (0).
    Redirected { ifindex: u32, from: u32 },
    /// A rule did not send its copy of the last frame.
    Withheld { rule: u32, why: Withheld },
}

/// A frame as it was: one that the kernel would not take is kept, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Whole(Frame),
    Malformed(Vec<u8>),
}

impl Record {
    /// Takes bytes apart; `None` when they are no record.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (record, rest) = bytes.split_at_checked(size_of::<TapRecord>())?;
        let u64_at = |at: usize| Some(u64::from_ne_bytes(*record.get(at..)?.first_chunk()?));
        let u32_at = |at: usize| Some(u32::from_ne_bytes(*record.get(at..)?.first_chunk()?));
        macro_rules! field {
            ($read:ident, $name:ident) => {
                $read(std::mem::offset_of!(TapRecord, $name))?
            };
        }
        let ifindex = field!(u32_at, ifindex);
        let from = field!(u32_at, from);
        let status = field!(u32_at, status);
        let cells = field!(u32_at, cells) as usize;
        let (cells, rest) = rest.split_at_checked(cells.checked_mul(size_of::<TapCell>())?)?;
        let kind = field!(u32_at, kind);
        let kind = FrameType::ALL.into_iter().find(|k| *k as u32 == kind)?;
        let frame = || {
            let bytes = rest.get(..field!(u32_at, len) as usize)?;
            Some(match Frame::from_bytes(kind, bytes) {
                Ok(frame) => Seen::Whole(frame),
                Err(_) => Seen::Malformed(bytes.to_vec()),
            })
        };
        let what = match field!(u32_at, what) {
            abi::RECEIVED => What::Received {
                ifindex,
                frame: frame()?,
                status,
                flags: field!(u32_at, flags),
                cells: cells
                    .chunks_exact(size_of::<TapCell>())
                    .filter_map(cell)
                    .collect(),
            },
            abi::LEFT => What::Left {
                ifindex,
                from,
                frame: frame()?,
            },
            abi::REDIRECTED => What::Redirected { ifindex, from },
            abi::WITHHELD => What::Withheld {
                rule: field!(u32_at, rule),
                why: *Withheld::ALL.get(status as usize)?,
            },
            _ => return None,
        };
        Some(Self {
            time: field!(u64_at, time),
            cpu: field!(u32_at, cpu),
            missed: field!(u64_at, missed),
            what,
        })
    }
}

fn cell(bytes: &[u8]) -> Option<TapCell> {
    let &[a, b, c, d, e, f, g, h] = bytes else {
        return None;
    };
    Some(TapCell {
        rule: u16::from_ne_bytes([a, b]),
        flags: u16::from_ne_bytes([c, d]),
        ifindex: u32::from_ne_bytes([e, f, g, h]),
    })
}
