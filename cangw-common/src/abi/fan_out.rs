//! Fan-out at XDP: the classic frames of an interface are given to all targets at once, as long as none of these goes down.

use super::INTERFACES;

/// What XDP fans out, and whether it may, for a network namespace: changed by atomic operations only.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FanOut {
    /// How often a CAN interface was about to go down (`NETDEV_GOING_DOWN`).
    pub closings: u64,
    /// What [`Self::closings`] was when all targets were up; [`DISARMED`] when they were not.
    pub armed: u64,
    /// The interfaces by their slots: see [`fan_source`]; 0 where nothing is fanned out.
    pub sources: [u64; INTERFACES as usize],
}

/// [`FanOut::armed`]: frames are left to tc.
pub const DISARMED: u64 = u64::MAX;

/// The interface whose frames are fanned out, with the number of the tables that have its targets.
#[must_use]
#[inline(always)]
pub const fn fan_source(ifindex: u32, aux: u32) -> u64 {
    (ifindex as u64) << 32 | aux as u64
}

/// The number of the tables, if the word is of that interface.
#[must_use]
#[inline(always)]
pub const fn fan_aux(source: u64, ifindex: u32) -> Option<u32> {
    if source >> 32 == ifindex as u64 {
        Some(source as u32)
    } else {
        None
    }
}
