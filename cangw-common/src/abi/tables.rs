//! What the data path looks up for an interface.

use super::{CROSS_CHUNK, HALF_KEYS, MAX_CELLS, STANDARD_KEYS};
use crate::frame::FrameType;

/// Number of [`SpaceIndex`] values.
pub const SPACES: u32 = 4;

/// Identifier spaces that have tables of halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SpaceIndex {
    /// Extended identifiers of classic frames.
    ClassicExtended = 0,
    /// Error classes of classic frames.
    ClassicError = 1,
    /// Extended identifiers of FD frames.
    FdExtended = 2,
    /// Error classes of FD frames.
    FdError = 3,
}

impl SpaceIndex {
    /// The space of frames of this type; `None` for CAN XL, which has neither.
    #[must_use]
    #[inline(always)]
    pub const fn of(kind: FrameType, error: bool) -> Option<Self> {
        Some(match (kind, error) {
            (FrameType::Classic, false) => Self::ClassicExtended,
            (FrameType::Classic, true) => Self::ClassicError,
            (FrameType::Fd, false) => Self::FdExtended,
            (FrameType::Fd, true) => Self::FdError,
            (FrameType::Xl, _) => return None,
        })
    }
}

/// [`Space::kind`]: all identifiers have the list [`Space::list`].
pub const SPACE_UNIFORM: u16 = 0;
/// [`Space::kind`]: look up the classes of both halves, then the cross table.
pub const SPACE_HALVES: u16 = 1;

/// How the identifiers of one space are looked up.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// [`SPACE_UNIFORM`] or [`SPACE_HALVES`].
    pub kind: u16,
    /// The list of all identifiers, when uniform.
    pub list: u16,
    /// Which of the interface's [`Halves`] are its own, below [`SPACES`].
    pub halves: u16,
    /// Classes of the low half, the row length of the cross table.
    pub low_classes: u16,
    /// First cell in the interface's cross table.
    pub cross: u32,
}

/// [`Head::flags`]: forwarded frames are not delivered to local sockets of the source.
pub const EXCLUSIVE: u32 = 1;
/// [`Head::flags`]: vcan or vxcan, whose frames never have a prefix.
pub const VIRTUAL: u32 = 2;
/// [`Head::flags`]: the map of exact identifiers is in use.
pub const HAS_EXACT: u32 = 4;
/// [`Head::flags`]: frames that no rule names are dropped.
pub const DENY: u32 = 8;
/// [`Head::flags`]: CAN XL frames are looked up by all fields of their header, in [`XlTables`].
pub const HAS_XL_FIELDS: u32 = 0x10;

/// [`Head::flags`]: every list has one target, to which XDP redirects. Else XDP leaves frames to tc.
pub const XDP_REDIRECT: u32 = 0x20;
/// With [`XDP_REDIRECT`]: tc stands behind and serves, and counts, what XDP does not send.
pub const TC_BEHIND: u32 = 0x40;

/// What holds for the whole interface.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Head {
    /// Interface that the tables belong to; 0 in a slot that is free.
    pub ifindex: u32,
    /// [`EXCLUSIVE`], [`VIRTUAL`], [`HAS_EXACT`].
    pub flags: u32,
    /// Slot of this generation in the maps of exact identifiers, halves and cross cells.
    pub aux: u32,
    /// In how many states frames can come here as echoes that are still to meet the rules: each list is followed by
    /// as many variants of itself.
    pub states: u32,
    /// How extended identifiers and error classes are looked up, by [`SpaceIndex`].
    pub spaces: [Space; SPACES as usize],
    /// Slot of the interface, where its other words and counters are.
    pub slot: u32,
    /// 0. The cells behind begin at a multiple of their size.
    pub reserved: [u32; 3],
}

/// [`Cell::flags`] of a list's first cell: some rule of the list echoes.
pub const LIST_ECHO: u16 = 1;
/// [`Cell::flags`]: not sent, the frame has reached the hop limit.
pub const HOP_LIMIT: u16 = 2;
/// [`Cell::flags`]: not sent, the frame came from the target.
pub const ORIGIN: u16 = 4;
/// [`Cell::flags`]: not sent, the target's MTU is too small for this type of frame.
pub const MISFIT: u16 = 8;
/// [`Cell::flags`]: not sent, no frame has a length that fits after the rule's modifications.
pub const TOO_LONG: u16 = 0x10;
/// [`Cell::flags`]: not sent, the rule drops the frame.
pub const DROP: u16 = 0x800;
/// [`Cell::flags`]: not sent, the rule only lets the frame pass to local sockets.
pub const PASS: u16 = 0x1000;
/// [`Cell::flags`]: not sent, the target is not there. Of the reasons only this one has two bits.
pub const WAITING: u16 = MISFIT | TOO_LONG;
/// [`Cell::flags`]: why a cell's rule does not send.
pub const UNSENT: u16 = HOP_LIMIT | ORIGIN | MISFIT | TOO_LONG | DROP | PASS;
/// [`Cell::flags`]: the rule is counted when the frame is edited, because only then it is known whether it fits.
pub const CHECKED: u16 = 0x20;
/// [`Cell::flags`]: a run of copies of the same form begins here.
pub const RUN: u16 = 0x40;
/// [`Cell::flags`]: a run of echoes of the same form begins here, in the list of echoes alone.
pub const ECHO_RUN: u16 = 0x80;
/// [`Cell::flags`]: the copy keeps the receive time stamp (`-t`).
pub const KEEP_STAMP: u16 = 0x100;
/// [`Cell::flags`] of a list's first cell: its copies have different forms.
pub const LIST_FORMS: u16 = 0x200;
/// [`Cell::flags`] of a list's first cell, without [`LIST_FORMS`]: all copies lose the receive time stamp.
pub const LIST_STAMP: u16 = 0x400;
/// [`Cell::flags`] of a list's first cell: frames are recorded in the map of watched identifiers.
pub const LIST_WATCH: u16 = 0x2000;
/// [`Cell::flags`] of a list's first cell: the frame does not go on to local sockets.
pub const LIST_DROP: u16 = 0x4000;
/// [`Cell::flags`] of a list's first cell, beside [`LIST_DROP`]: because no rule names it.
pub const LIST_DENIED: u16 = 0x8000;

/// What one rule does with a frame. A list is its first cell (whose number is the list's) and `len` - 1 cells from `next` on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Handle of the fw filters that carry out the list (first cell only).
    pub handle: u16,
    /// Cells of the list (first cell only); 0 when nothing is done.
    pub len: u16,
    /// Slot of the rule, the key of its counters.
    pub rule: u16,
    /// Of a rule that sends: its edit, from 1 in the interface's map of edits, or 0 for none. Of one that does not: how
    /// often it counts, which is more than 1 where several echoes of a frame meet the same end.
    pub extra: u16,
    /// Target interface.
    pub ifindex: u32,
    /// See the constants above.
    pub flags: u16,
    /// Second cell of the list (first cell only).
    pub next: u16,
}

impl Cell {
    /// The [form](form) of the copy that a rule sends.
    #[must_use]
    #[inline(always)]
    pub const fn form(&self) -> u16 {
        self.extra
            | if self.flags & KEEP_STAMP != 0 {
                form::KEEP
            } else {
                0
            }
    }
}

/// What a copy of a frame looks like: the number of an edit, or 0, and [`form::KEEP`].
pub mod form {
    /// The copy keeps the receive time stamp.
    pub const KEEP: u16 = 0x8000;
    /// The number of the edit, below this.
    pub const EDIT: u16 = 0x7FFF;
    /// The frame as it came, and no more copies.
    pub const END: u16 = 0xFFFF;
    /// In the queue: this run is not sent.
    pub const SKIP: u16 = 0x7FFF;
}

/// Everything the data path looks up for an interface, replaced as a whole.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tables {
    /// What holds for the whole interface.
    pub head: Head,
    /// List of each standard identifier, by [`FrameType`]: see [`crate::classify::standard_key`].
    pub standard: [[u16; STANDARD_KEYS]; 3],
    /// The lists.
    pub cells: [Cell; MAX_CELLS],
}

/// Classes of the halves of the identifiers of one space.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Halves {
    /// Class of bits 15 to 29 (RTR is bit 29).
    pub high: [u16; HALF_KEYS],
    /// Class of bits 0 to 14.
    pub low: [u16; HALF_KEYS],
}

/// Priorities of CAN XL frames.
pub const XL_PRIORITIES: usize = 2048;
/// Values of half an acceptance field.
pub const XL_HALF: usize = 65_536;

/// Two classes give a third: cell `row * columns + column` of the cross table, from cell `first` on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cross {
    /// First cell in the interface's cross table.
    pub first: u32,
    /// Classes of the second value.
    pub columns: u32,
}

/// Classes of the fields of CAN XL headers, and how they are combined until a list is left.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct XlTables {
    /// Class of VCID, then of SDT.
    pub kinds: Cross,
    /// Classes of the high and the low half of the acceptance field.
    pub acceptance: Cross,
    /// Results of `kinds`, then of `acceptance`.
    pub content: Cross,
    /// Class of the priority, then result of `content`: the list.
    pub list: Cross,
    /// Class of each priority.
    pub priority: [u16; XL_PRIORITIES],
    /// Class of each virtual CAN network identifier.
    pub vcid: [u16; 256],
    /// Class of each SDU type.
    pub sdt: [u16; 256],
    /// Class of the high half of the acceptance field.
    pub high: [u16; XL_HALF],
    /// Class of its low half.
    pub low: [u16; XL_HALF],
}

/// Cells of a cross table: row (high class) times [`Space::low_classes`] plus low class.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CrossChunk(pub [u16; CROSS_CHUNK]);

/// In the key of an exact identifier: the frame is a CAN FD frame. (The bit marks error frames, which are never exact.)
pub const EXACT_FD: u32 = crate::frame::ERR_FLAG;
