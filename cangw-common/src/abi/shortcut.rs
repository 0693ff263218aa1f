//! Filters in front of the program, which have the actions of an interface's only list.

use crate::frame::SFF_MASK;

/// The class of such a filter (`skb->tc_classid`): the handle of its list, and what it does.
pub mod front {
    /// With the handle: it serves frames that local sockets get as well, not those of which nothing is left for them.
    pub const COPY: u32 = 0x8000;
}

/// Places for a [`Shortcut`]. An interface has the one with its index modulo this, unless another one has it.
pub const SHORTCUTS: u32 = 1024;

/// [`Shortcut::flags`]: the list is for all data frames and remote requests that a bus can carry.
pub const SHORTCUT_ALL: u32 = 1;
/// [`Shortcut::flags`]: no rule is for the other standard identifiers, and the interface lets them pass.
pub const SHORTCUT_ONLY: u32 = 2;
/// [`Shortcut::flags`]: the interface is exclusive.
pub const SHORTCUT_EXCLUSIVE: u32 = 4;

/// All that a filter in front has to know of classic frames, if its list is one rule that sends them as they are.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortcut {
    /// The interface; 0 where this says nothing.
    pub ifindex: u32,
    /// Its slot.
    pub slot: u32,
    /// Handle of the list.
    pub handle: u16,
    /// Slot of the rule.
    pub rule: u16,
    /// See the constants above.
    pub flags: u32,
    /// The standard identifiers of data frames that the list is for, a bit for each.
    pub ids: [u32; (SFF_MASK as usize + 1) / 32],
}

impl Shortcut {
    /// One that says nothing.
    pub const NONE: Self = Self {
        ifindex: 0,
        slot: 0,
        handle: 0,
        rule: 0,
        flags: 0,
        ids: [0; (SFF_MASK as usize + 1) / 32],
    };

    /// Whether the list is for data frames with this standard identifier.
    #[must_use]
    #[inline(always)]
    pub const fn has(&self, id: u32) -> bool {
        let word = self.ids[(id & SFF_MASK) as usize / 32];
        word & 1 << (id % 32) != 0
    }
}
