//! What the programs of virtual buses share with userspace.

use crate::frame::{EFF_FLAG, EFF_MASK, ERR_FLAG, SFF_MASK, XL_FLAG, field};

/// Programs of the buses of one network namespace.
pub const MAX_HUBS: usize = 4096;
/// Ports of the buses of one network namespace that have limits.
pub const MAX_LIMITED: usize = 16_384;
/// Longest name of a bus, in bytes.
pub const BUS_NAME: usize = 16;
/// Ranges of extended identifiers that a set can have.
pub const ID_RANGES: usize = 32;

/// What there is of a program that gives frames to the ports of a bus.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubProgram {
    /// Name of the bus, filled up with zeros.
    pub bus: [u8; BUS_NAME],
    /// Of which build of cangw it is.
    pub build: u64,
    /// Frames that some ports missed.
    pub lost: u64,
}

/// Identifiers.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdSet {
    /// A bit for each standard identifier, which is also the priority of a CAN XL frame.
    pub standard: [u64; 32],
    /// First and last identifier of each range of extended ones.
    pub extended: [[u32; 2]; ID_RANGES],
    /// How many ranges there are.
    pub ranges: u32,
    /// 0.
    pub reserved: u32,
}

impl IdSet {
    /// Nothing.
    pub const NONE: Self = Self {
        standard: [0; 32],
        extended: [[0; 2]; ID_RANGES],
        ranges: 0,
        reserved: 0,
    };

    /// Whether a frame that begins so has one of the identifiers, data or remote frame. Error frames have none.
    #[must_use]
    #[inline(always)]
    pub fn has(&self, head: [u8; field::HEAD]) -> bool {
        let id = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]);
        let is_xl = head[field::LEN] & XL_FLAG != 0;
        if is_xl || id & (EFF_FLAG | ERR_FLAG) == 0 {
            let id = id & SFF_MASK;
            return self.standard[(id / 64) as usize] & (1 << (id % 64)) != 0;
        }
        if id & ERR_FLAG != 0 {
            return false;
        }
        let id = id & EFF_MASK;
        let mut place = 0;
        while place < ID_RANGES && place < self.ranges as usize {
            let [first, last] = self.extended[place];
            if first <= id && id <= last {
                return true;
            }
            place += 1;
        }
        false
    }
}

/// [`HubPort::flags`]: the port sends only the identifiers of [`HubPort::send`].
pub const SENDS_SOME: u32 = 1;
/// [`HubPort::flags`]: the port gets only the identifiers of [`HubPort::receive`].
pub const RECEIVES_SOME: u32 = 2;

/// Limits of a port, and the frames that they kept back.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubPort {
    /// [`SENDS_SOME`] and [`RECEIVES_SOME`].
    pub flags: u32,
    /// Largest frame that it takes, in bytes; 0 for any that the bus carries.
    pub mtu: u32,
    /// Nanoseconds between two frames that it sends at the limit; 0 for no limit.
    pub interval: u64,
    /// Nanoseconds that a frame may come earlier.
    pub tolerance: u64,
    /// State of the limit: see [`crate::guard::within_rate`].
    pub full_at: u64,
    /// Frames from it with an identifier that it may not send.
    pub denied: u64,
    /// Frames from it over the rate limit.
    pub over_rate: u64,
    /// Frames for it with an identifier that it does not get.
    pub filtered: u64,
    /// Frames for it that are larger than it takes.
    pub too_large: u64,
    /// What it sends.
    pub send: IdSet,
    /// What it gets.
    pub receive: IdSet,
}

impl HubPort {
    /// All frames pass.
    pub const NONE: Self = Self {
        flags: 0,
        mtu: 0,
        interval: 0,
        tolerance: 0,
        full_at: 0,
        denied: 0,
        over_rate: 0,
        filtered: 0,
        too_large: 0,
        send: IdSet::NONE,
        receive: IdSet::NONE,
    };

    /// Whether there are frames that it may not send.
    #[must_use]
    pub const fn is_limited(&self) -> bool {
        self.flags & SENDS_SOME != 0 || self.interval != 0
    }

    /// Whether there are frames that it does not get.
    #[must_use]
    pub const fn has_outlet(&self) -> bool {
        self.flags & RECEIVES_SOME != 0 || self.mtu != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::RTR_FLAG;

    fn head(id: u32, len: u8) -> [u8; 8] {
        let id = id.to_ne_bytes();
        [id[0], id[1], id[2], id[3], len, 0, 0, 0]
    }

    #[test]
    fn a_set_has_its_identifiers_and_no_others() {
        let mut set = IdSet::NONE;
        assert!((0..=SFF_MASK).all(|id| !set.has(head(id, 8))));
        set.standard[0x123 / 64] |= 1 << (0x123 % 64);
        set.extended[0] = [0x123, 0x200];
        set.extended[1] = [EFF_MASK, EFF_MASK];
        set.ranges = 2;
        for id in 0..=SFF_MASK {
            assert_eq!(set.has(head(id, 8)), id == 0x123, "{id:X}");
            assert_eq!(set.has(head(id | RTR_FLAG, 8)), id == 0x123, "{id:X}");
            let among = (0x123..=0x200).contains(&id);
            assert_eq!(set.has(head(id | EFF_FLAG, 8)), among, "{id:X}");
            assert!(!set.has(head(id | ERR_FLAG, 8)), "{id:X}");
            assert!(!set.has(head(id | ERR_FLAG | EFF_FLAG, 8)), "{id:X}");
            // A virtual CAN network identifier (VCID) stands above the priority.
            let xl = head(id | 0x80_0000, XL_FLAG);
            assert_eq!(set.has(xl), id == 0x123, "{id:X}");
            assert_eq!(set.has(head(id | EFF_FLAG, XL_FLAG)), id == 0x123);
        }
        assert!(set.has(head(EFF_MASK | EFF_FLAG, 8)));
        assert!(!set.has(head((EFF_MASK - 1) | EFF_FLAG, 8)));
    }
}
