//! What a rule says: `struct can_filter` with can-gw's meaning (`can_rcv_list_find`, `can_rcv_filter` in net/can/af_can.c).

use crate::classify::{self, XlFields};
use crate::frame::{EFF_FLAG, EFF_MASK, ERR_FLAG, FrameType, RTR_FLAG, SFF_MASK};

/// `CAN_INV_FILTER`: in the identifier of a filter, inverts it.
pub const INV_FILTER: u32 = 0x2000_0000;

/// A filter as the user wrote it: `id:mask` or, with [`INV_FILTER`] in `id`, `id~mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Filter {
    /// Identifier with its flags.
    pub id: u32,
    /// Bits of the identifier that are compared.
    pub mask: u32,
}

/// A filter in the form in which frames are compared with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Predicate {
    /// `(frame id & mask) == id`, on frames that are not error frames.
    Equal {
        /// Identifier, already masked.
        id: u32,
        /// Bits that are compared.
        mask: u32,
    },
    /// `(frame id & mask) != id`, on frames that are not error frames.
    Differs {
        /// Identifier, already masked.
        id: u32,
        /// Bits that are compared.
        mask: u32,
    },
    /// `(frame id & mask) != 0`, on error frames only.
    Error {
        /// Error classes, without [`ERR_FLAG`].
        mask: u32,
    },
}

impl Filter {
    /// Whether it says nothing (`0:0`): then can-gw takes every frame and lists no filter.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.id == 0 && self.mask == 0
    }

    /// The comparison that the kernel makes of it.
    ///
    /// An error mask is looked at first and discards the inversion; a mask with [`EFF_FLAG`] on a
    /// standard identifier is cut to the standard identifier's bits.
    #[must_use]
    pub const fn predicate(&self) -> Predicate {
        if self.mask & ERR_FLAG != 0 {
            return Predicate::Error {
                mask: self.mask & EFF_MASK,
            };
        }
        let mut mask = self.mask;
        if mask & EFF_FLAG != 0 && self.id & EFF_FLAG == 0 {
            mask &= SFF_MASK | EFF_FLAG | RTR_FLAG;
        }
        let id = self.id & mask;
        if self.id & INV_FILTER != 0 {
            Predicate::Differs { id, mask }
        } else {
            Predicate::Equal { id, mask }
        }
    }
}

impl Predicate {
    /// Whether a frame with this `can_id` (flags included) matches: `can_rcv_filter`.
    #[must_use]
    pub const fn matches(&self, can_id: u32) -> bool {
        let is_error = can_id & ERR_FLAG != 0;
        match *self {
            Self::Error { mask } => is_error && can_id & mask != 0,
            Self::Equal { id, mask } => !is_error && can_id & mask == id,
            Self::Differs { id, mask } => !is_error && can_id & mask != id,
        }
    }
}

/// What a rule asks of the header of CAN XL frames, beside the priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct XlFilter {
    /// Virtual CAN network identifier.
    pub vcid: Option<u8>,
    /// SDU type.
    pub sdt: Option<u8>,
    /// Acceptance field: value and mask.
    pub af: Option<(u32, u32)>,
}

impl XlFilter {
    /// Whether it asks nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.vcid.is_none() && self.sdt.is_none() && self.af.is_none()
    }

    /// Whether a frame with this priority word and these fields is for the rule.
    #[must_use]
    pub fn matches(&self, word: u32, fields: XlFields) -> bool {
        self.vcid.is_none_or(|vcid| vcid == classify::vcid(word))
            && self.sdt.is_none_or(|sdt| sdt == fields.sdt)
            && self
                .af
                .is_none_or(|(value, mask)| fields.af & mask == value & mask)
    }
}

/// The part of a rule that the data path knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Match {
    /// Frames of this type only (`-X`, `--xl`).
    pub kind: FrameType,
    /// Which identifiers.
    pub predicate: Predicate,
}

impl Match {
    /// Whether a frame is for this rule.
    #[must_use]
    pub const fn matches(&self, kind: FrameType, can_id: u32) -> bool {
        self.kind as u8 == kind as u8 && self.predicate.matches(can_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(id: u32, mask: u32, can_id: u32) -> bool {
        Filter { id, mask }.predicate().matches(can_id)
    }

    /// Each line was observed with the real can-gw.
    #[test]
    fn filters_mean_what_they_mean_to_the_kernel() {
        assert!(hit(0x123, 0x7FF, 0x123));
        assert!(
            hit(0x123, 0x7FF, EFF_FLAG | 0x800 | 0x123),
            "low bits of an extended id"
        );
        assert!(hit(0x123, 0x7FF, RTR_FLAG | 0x123));
        assert!(!hit(0x123, 0xC000_07FF, RTR_FLAG | 0x123));
        assert!(!hit(0x123, 0xC000_07FF, EFF_FLAG | 0x123));
        assert!(
            hit(0x123, 0x9FFF_FFFF, 0x123),
            "mask is cut to the standard bits"
        );
        assert!(!hit(INV_FILTER | 0x123, 0x7FF, 0x123));
        assert!(hit(INV_FILTER | 0x123, 0x7FF, 0x124));
        assert!(!hit(INV_FILTER, 0, 0x124), "0~0 never matches");
        assert!(hit(0, 0, EFF_FLAG | 0x1234_5678));
        assert!(!hit(0, 0, ERR_FLAG | 4), "error frames need an error mask");
        assert!(hit(0, ERR_FLAG | 4, ERR_FLAG | 0x44));
        assert!(!hit(0, ERR_FLAG | 4, ERR_FLAG | 0x40));
        assert!(!hit(0, ERR_FLAG | 4, 4));
        assert!(
            hit(INV_FILTER, ERR_FLAG | 4, ERR_FLAG | 4),
            "inversion is discarded"
        );
    }
}
