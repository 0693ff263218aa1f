//! Shorter ways: what is to be known of most frames, and filters in front of the program, which have the actions of an interface's only list.

use crate::frame::SFF_MASK;

/// The class of such a filter (`skb->tc_classid`): the handle of its list, and what it does.
pub mod front {
    /// With the handle: it serves frames that local sockets get as well, not those of which nothing is left for them.
    pub const COPY: u32 = 0x8000;
}

/// Places for a [`Shortcut`]. An interface has the one with its index modulo this, unless another one has it.
pub const SHORTCUTS: u32 = 128;

/// [`Shortcut::flags`]: no rule is for the standard identifiers whose cells are 0, and the interface lets them pass.
pub const SHORTCUT_ONLY: u32 = 1;
/// [`Shortcut::flags`]: the interface is exclusive.
pub const SHORTCUT_EXCLUSIVE: u32 = 2;

/// Cells of a [`Shortcut`], one for each standard identifier.
pub const SHORTCUT_IDS: usize = SFF_MASK as usize + 1;

/// All that is to be known of an interface's classic frames whose list is one rule that sends them as they are. A cell has the rule's slot in its lower half and the
/// handle of the list in its upper; it is 0 where only the tables know.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortcut {
    /// The interface; 0 where this says nothing.
    pub ifindex: u32,
    /// Its slot.
    pub slot: u32,
    /// See the constants above.
    pub flags: u32,
    /// The cell of all data frames and remote requests that a bus can carry, if they have the same.
    pub all: u32,
    /// The cells of data frames by their standard identifiers.
    pub cells: [u32; SHORTCUT_IDS],
}

impl Shortcut {
    /// One that says nothing.
    pub const NONE: Self = Self {
        ifindex: 0,
        slot: 0,
        flags: 0,
        all: 0,
        cells: [0; SHORTCUT_IDS],
    };

    /// A cell.
    #[must_use]
    pub const fn cell(rule: u16, handle: u16) -> u32 {
        (handle as u32) << 16 | rule as u32
    }

    /// The slot of a cell's rule.
    #[must_use]
    #[inline(always)]
    pub const fn rule(cell: u32) -> u16 {
        cell as u16
    }

    /// The handle of a cell's list.
    #[must_use]
    #[inline(always)]
    pub const fn handle(cell: u32) -> u32 {
        cell >> 16
    }
}
