//! Rate limits and faults of rules: settings, state and counters.

/// [`Guard::flags`]: the limit holds for each identifier.
pub const PER_ID: u32 = 1;

/// A share of a rule's frames that something is done to: see [`crate::guard::choose`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// How many of 2^32.
    pub share: u64,
    /// Makes the choice repeatable.
    pub seed: u64,
    /// State of the choice.
    pub state: u64,
    /// Frames chosen.
    pub count: u64,
}

/// Rate limit and faults of a rule: settings, state and counters, shared by all CPUs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// [`PER_ID`].
    pub flags: u32,
    /// 0.
    pub reserved: u32,
    /// Nanoseconds between two frames at the limit; 0 for no limit.
    pub interval: u64,
    /// Nanoseconds that a frame may come earlier: the burst minus one, times the interval.
    pub tolerance: u64,
    /// State of the limit: see [`crate::guard::within_rate`]. With [`PER_ID`], for the identifiers that have no state of their own.
    pub full_at: u64,
    /// Frames over the limit.
    pub over_rate: u64,
    /// Frames with identifiers that found no room for a state of their own.
    pub shared: u64,
    /// Frames that are not sent.
    pub drop: Fault,
    /// Frames that are sent twice.
    pub duplicate: Fault,
    /// Frames in whose data a bit is flipped.
    pub corrupt: Fault,
}

/// Identifiers that can have a rate limit of their own, in one network namespace.
pub const MAX_BUCKETS: u32 = 65_536;

/// Key of the state of an identifier's rate limit.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BucketKey {
    /// Slot of the rule.
    pub rule: u32,
    /// Identifier with its flags; of a CAN XL frame the priority.
    pub id: u32,
}
