//! Layout of map keys and values: one definition for the programs and for userspace.
//!
//! All values are plain integers without padding; sizes are asserted below, because a
//! program that is already loaded keeps reading what a newer userspace writes.

use crate::edit::FrameBytes;
use crate::frame::FrameType;

/// Raised when a value's layout changes; part of the pinned state, so that versions never mix.
pub const VERSION: u32 = 4;

/// Interfaces with rules in one network namespace.
pub const INTERFACES: u32 = 4096;
/// Slots that are tried for an interface whose first slot is taken.
pub const PROBES: u32 = 4;
/// Rules in one network namespace.
pub const MAX_RULES: u32 = 32_768;
/// Cells of an interface's tables: one for what each rule does in each distinct list. Cell 0 is "no rule".
pub const MAX_CELLS: usize = 32_768;
/// Rules that may match one frame.
pub const MAX_LIST: u32 = 256;
/// Keys of the direct table: 11 identifier bits and RTR.
pub const STANDARD_KEYS: usize = 4096;
/// Values of half an extended identifier: 15 of the 30 bits of RTR and identifier.
pub const HALF_KEYS: usize = 32_768;
/// Cells of the cross table that share one map value (the kernel rounds values to 8 bytes).
pub const CROSS_CHUNK: usize = 32;

/// The slot of an interface index, on the given try (0 to [`PROBES`] - 1).
#[must_use]
#[inline(always)]
pub const fn slot(ifindex: u32, probe: u32) -> u32 {
    ifindex.wrapping_add(probe) % INTERFACES
}

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
    /// Index of its [`Halves`] in the interface's map of halves.
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
    pub spaces: [Space; 4],
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

/// Forms that a frame in flight can wait for: those of a list, and the end.
pub const QUEUE: usize = 512;
/// Frames that one CPU can have in flight between the program and the end of its list. They nest when an echo is
/// delivered directly, and on PREEMPT_RT, where the softirq can be preempted.
pub const FLIGHTS: u32 = 16;

/// A frame between the program and the end of its list.
///
/// The numbers are 32 bits wide because that is what the programs compute with.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Flight {
    /// The frame as it came.
    pub original: FrameBytes,
    /// The frame as it is edited.
    pub work: FrameBytes,
    /// The receive time stamp, in nanoseconds, 0 for none.
    pub stamp: u64,
    /// Whose flight this is; it goes with the frame in `skb->cb`.
    pub ticket: u32,
    /// Mark of its list.
    pub mark: u32,
    /// Slot of the interface, and of its counters.
    pub slot: u32,
    /// Slot of the edits' generation.
    pub aux: u32,
    /// Bytes before the frame.
    pub prefix: u32,
    /// [`FrameType`] as a number.
    pub kind: u32,
    /// Forms in the queue.
    pub queued: u32,
    /// Forms taken from it.
    pub taken: u32,
    /// The form that the frame has now.
    pub form: u32,
    /// [`LOCAL`], [`LOCAL_IF_UNSENT`] or [`NEVER_LOCAL`]: whether local sockets of the source get the frame in the end.
    pub local: u32,
    /// Runs that were sent.
    pub sent: u32,
    /// Identifier of the frame as it came, with its flags.
    pub id: u32,
    /// 1 when the copy that the last guarded rule sent is to be sent once more.
    pub again: u32,
    /// A random number, not 0, when a bit of the next copy is to be flipped.
    pub damage: u32,
    /// The byte of the buffer that was corrupted for the last copy, 0 for none, as no data begin there.
    pub damaged: u32,
    /// What it was.
    pub undamaged: u32,
    /// The forms of the runs to come.
    pub queue: [u16; QUEUE],
}

/// [`Flight::local`]: they do.
pub const LOCAL: u32 = 0;
/// [`Flight::local`]: they do when no rule took it.
pub const LOCAL_IF_UNSENT: u32 = 1;
/// [`Flight::local`]: they do not.
pub const NEVER_LOCAL: u32 = 2;

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
}

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

/// Identifiers that can be watched in one network namespace.
pub const MAX_WATCHED: u32 = 16_384;

/// Key of what is known of an identifier on a watched interface.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct WatchKey {
    /// Interface on which the frame entered.
    pub ifindex: u32,
    /// Identifier with its flags; of a CAN XL frame the priority.
    pub id: u32,
    /// [`FrameType`] as a number.
    pub kind: u32,
}

/// Data bytes of a frame that are kept of a watched identifier.
pub const WATCHED_DATA: usize = 64;

/// What is known of an identifier on a watched interface. Times are in nanoseconds of the monotonic clock.
///
/// `newest` and `begun` say whether the data are whole: a writer sets `begun`, then the data, then `newest`, and a reader
/// copies from the front to the back.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Number of the frame whose data these are, once all of them are there.
    pub newest: u64,
    /// Frames.
    pub count: u64,
    /// When the first came.
    pub first: u64,
    /// When the last came.
    pub last: u64,
    /// Shortest time between two frames; all ones before the second.
    pub shortest: u64,
    /// Longest time between two frames.
    pub longest: u64,
    /// Header of the last frame: the bytes after the identifier, and of a CAN XL frame the acceptance field after them.
    pub head: [u8; 8],
    /// The first data bytes of the last frame.
    pub data: [u8; WATCHED_DATA],
    /// Number of the frame whose data these are, before any of them is there.
    pub begun: u64,
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
}

impl Reason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Unmatched,
        Self::Malformed,
        Self::NoTables,
        Self::Prefix,
        Self::NoMemory,
        Self::Denied,
        Self::Unwatched,
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
        }
    }
}

/// Counters of an interface, for one CPU, by [`Reason`], in frames.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceCounters(pub [u64; Reason::ALL.len()]);

impl Flight {
    /// Prepares the flight of a frame without a prefix.
    #[inline(always)]
    pub fn begin(&mut self, slot: u32, aux: u32, stamp: u64, kind: u32) {
        self.stamp = stamp;
        self.slot = slot;
        self.aux = aux;
        self.kind = kind;
        self.mark = 0;
        self.prefix = 0;
        self.queued = 0;
        self.taken = 0;
        self.form = 0;
        self.local = LOCAL;
        self.sent = 0;
        self.again = 0;
        self.damage = 0;
        self.damaged = 0;
    }

    /// Type of the frame; CAN XL frames, which are not edited, count as FD.
    #[must_use]
    #[inline(always)]
    pub const fn kind(&self) -> FrameType {
        if self.kind == FrameType::Classic as u32 {
            FrameType::Classic
        } else {
            FrameType::Fd
        }
    }
}

/// Bits of `skb->mark` between the program and the tc filters behind it.
pub mod mark {
    /// Handle of the fw filters: the list that is carried out.
    pub const HANDLE: u32 = 0x0000_FFFF;
    /// With the handle: only the echoes, because the program already sent the frames.
    pub const ECHO_ONLY: u32 = 0x0001_0000;
    /// With the handle: the frame is changed back afterwards.
    pub const RESTORE: u32 = 0x0002_0000;
    /// What the fw filters compare.
    pub const FW_MASK: u32 = HANDLE | ECHO_ONLY | RESTORE;
    /// With [`ECHO`]: the state in which the frame arrives, a number of the interface on which it appears. 0 when the
    /// rules that it meets there have been carried out already.
    pub const STATE: u32 = 0x7FFC_0000;
    /// Where [`STATE`] begins.
    pub const STATE_SHIFT: u32 = 18;
    /// The frame is an echo of ours.
    pub const ECHO: u32 = 0x8000_0000;
}

/// States that an interface can have.
pub const MAX_STATES: u32 = mark::STATE >> mark::STATE_SHIFT;

const _: () = {
    assert!(size_of::<Space>() == 12);
    assert!(size_of::<Head>() == 64);
    assert!(size_of::<Cell>() == 16);
    assert!(size_of::<Tables>() == 64 + 3 * 2 * STANDARD_KEYS + 16 * MAX_CELLS);
    assert!(size_of::<Halves>() == 4 * HALF_KEYS);
    assert!(size_of::<CrossChunk>() == 64);
    assert!(MAX_RULES <= 1 << 16);
    assert!(size_of::<RuleCounters>() == 56);
    assert!(size_of::<InterfaceCounters>() == 56);
    assert!(size_of::<Flight>() == 2 * 72 + 8 + 4 * 16 + 2 * QUEUE);
    assert!(size_of::<Guard>() == 8 + 8 * 5 + 3 * 32);
    assert!(size_of::<BucketKey>() == 8 && size_of::<WatchKey>() == 12);
    assert!(size_of::<Watched>() == 8 * 6 + 8 + WATCHED_DATA + 8);
    assert!(size_of::<XlTables>() == 4 * 8 + 2 * (XL_PRIORITIES + 256 + 256 + 2 * XL_HALF));
    assert!(QUEUE > MAX_LIST as usize);
    // Lists are numbered with 16 bits.
    assert!(MAX_CELLS <= 1 << 16);
};

#[cfg(feature = "user")]
mod pod {
    use crate::edit::Edit;

    use super::{
        BucketKey, CrossChunk, Guard, Halves, InterfaceCounters, RuleCounters, Tables, WatchKey,
        Watched, XlTables,
    };

    // SAFETY: all are repr(C) structs of integers without padding (their sizes, asserted above, are the sums of
    // their fields), so every bit pattern is a value and every byte is initialised.
    unsafe impl aya::Pod for Tables {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Halves {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Edit {}
    // SAFETY: as above.
    unsafe impl aya::Pod for CrossChunk {}
    // SAFETY: as above.
    unsafe impl aya::Pod for RuleCounters {}
    // SAFETY: as above.
    unsafe impl aya::Pod for InterfaceCounters {}
    // SAFETY: as above.
    unsafe impl aya::Pod for XlTables {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Guard {}
    // SAFETY: as above.
    unsafe impl aya::Pod for BucketKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for WatchKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Watched {}
}
