//! What is counted, for each rule and each interface.

/// Counters of a rule, for one CPU, in frames.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleCounters {
    /// Frames given to the target; those that it then refused are counted in `refused` too.
    pub sent: u64,
    /// Of `sent`: the target did not take them (down, gone, queue full).
    pub refused: u64,
    /// Not forwarded, hop limit reached: can-gw's `deleted`.
    pub hop_limit: u64,
    /// Not forwarded, the target's MTU is too small for the frame.
    pub mtu: u64,
    /// Not forwarded, the frame came from the target (no `-i`). can-gw does not count these.
    pub origin: u64,
    /// Not forwarded, the modified length does not fit the type of frame: part of can-gw's `deleted`.
    pub too_long: u64,
    /// Ended here by a rule that drops.
    pub by_rule: u64,
    /// Not forwarded, the target is not there.
    pub waiting: u64,
    /// Data bytes of the frames of `sent`, as they came.
    pub bytes: u64,
}

/// What XDP gave to all targets of an interface at once, for one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FanCounters {
    /// Frames.
    pub frames: u64,
    /// Their data bytes.
    pub bytes: u64,
}

/// What became of frames that no rule counts, counted for each interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    /// No rule matched.
    Unmatched = 0,
    /// Not a CAN frame that the kernel's receive path would accept, or a standard frame with more than 11 identifier bits.
    Malformed = 1,
    /// The interface has the program, but no tables, or a rule's limits are missing.
    NoTables = 2,
    /// At XDP, a driver's private bytes stand before the frame and would leave with it (kernels before 7.x).
    Prefix = 3,
    /// Memory or room for frames in flight was short; the frame went no further, not to local sockets either.
    NoMemory = 4,
    /// No rule names it, and the interface's policy is to deny; the frame went no further, not to local sockets either.
    Denied = 5,
    /// The map of watched identifiers is full, so that the frame is not recorded there; it was forwarded all the same.
    Unwatched = 6,
    /// At XDP, some targets did not get the frame that all were given at once: memory was short, or one went down in that instant.
    /// Which ones got it is not known, so it counts as handled for all.
    FanOut = 7,
}

impl Reason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Unmatched,
        Self::Malformed,
        Self::NoTables,
        Self::Prefix,
        Self::NoMemory,
        Self::Denied,
        Self::Unwatched,
        Self::FanOut,
    ];

    /// Stable name, for people and for programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unmatched => "unmatched",
            Self::Malformed => "malformed",
            Self::NoTables => "no_tables",
            Self::Prefix => "prefix",
            Self::NoMemory => "no_memory",
            Self::Denied => "denied",
            Self::Unwatched => "unwatched",
            Self::FanOut => "fan_out",
        }
    }
}

/// Counters of an interface, for one CPU, by [`Reason`], in frames.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceCounters(pub [u64; Reason::ALL.len()]);
