//! Layout of map keys and values: one definition for the programs and for userspace.
//!
//! All values are plain integers without padding; sizes are asserted below, because a
//! program that is already loaded keeps reading what a newer userspace writes.

mod counters;
mod fan_out;
mod flight;
mod guard;
mod hub;
mod listeners;
mod shortcut;
mod tables;
mod tap;
mod watch;
mod words;

pub use counters::*;
pub use fan_out::*;
pub use flight::*;
pub use guard::*;
pub use hub::*;
pub use listeners::*;
pub use shortcut::*;
pub use tables::*;
pub use tap::*;
pub use watch::*;
pub use words::*;

/// Raised when a value's layout changes; part of the pinned state, so that versions never mix.
pub const VERSION: u32 = 12;

/// Interfaces with rules in one network namespace.
pub const INTERFACES: u32 = 4096;
/// Slots that are tried for an interface whose first slot is taken.
pub const PROBES: u32 = 4;
/// XDP programs that can be at work in one network namespace at a time: those of two builds, during an upgrade, and of some that failed.
pub const MAX_XDP_PROGRAMS: usize = 16;
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

const _: () = {
    assert!(size_of::<Space>() == 12);
    assert!(size_of::<Head>() == 80);
    assert!(size_of::<Cell>() == 16);
    assert!(size_of::<Tables>() == 80 + 3 * 2 * STANDARD_KEYS + 16 * MAX_CELLS);
    assert!(size_of::<Halves>() == 4 * HALF_KEYS);
    assert!(size_of::<CrossChunk>() == 64);
    assert!(MAX_RULES <= 1 << 16);
    assert!(size_of::<RuleCounters>() == 72 && size_of::<FanCounters>() == 16);
    assert!(size_of::<InterfaceCounters>() == 64);
    assert!(size_of::<Flight>() == 2 * 72 + 8 + 4 * 18 + 2 * QUEUE);
    assert!(size_of::<HubProgram>() == 32);
    assert!(size_of::<IdSet>() == 8 * 32 + 8 * ID_RANGES + 8);
    assert!(size_of::<HubPort>() == 8 * 8 + 2 * size_of::<IdSet>());
    assert!(size_of::<Guard>() == 8 + 8 * 5 + 3 * 32);
    assert!(size_of::<BucketKey>() == 8 && size_of::<WatchKey>() == 12);
    assert!(size_of::<Watched>() == 8 * 6 + 8 + WATCHED_DATA + 8);
    assert!(size_of::<Shortcut>() == 4 * 4 + 4 * SHORTCUT_IDS);
    assert!(
        size_of::<Words>()
            == 8 * (INTERFACES as usize + 2)
                + size_of::<FanOut>()
                + SHORTCUTS as usize * size_of::<Shortcut>()
    );
    assert!(size_of::<XlTables>() == 4 * 8 + 2 * (XL_PRIORITIES + 256 + 256 + 2 * XL_HALF));
    assert!(size_of::<TapRecord>() == 2 * 8 + 10 * 4 && size_of::<TapCell>() == 8);
    assert!(QUEUE > MAX_LIST as usize);
    // Lists are numbered with 16 bits.
    assert!(MAX_CELLS <= 1 << 16);
};

#[cfg(feature = "user")]
mod pod {
    use crate::edit::Edit;

    use super::{
        BucketKey, CrossChunk, FanCounters, Guard, Halves, HubPort, HubProgram, InterfaceCounters,
        RuleCounters, Shortcut, Tables, TapRecord, WatchKey, Watched, XlTables,
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
    unsafe impl aya::Pod for FanCounters {}
    // SAFETY: as above.
    unsafe impl aya::Pod for InterfaceCounters {}
    // SAFETY: as above.
    unsafe impl aya::Pod for XlTables {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Guard {}
    // SAFETY: as above.
    unsafe impl aya::Pod for HubProgram {}
    // SAFETY: as above.
    unsafe impl aya::Pod for HubPort {}
    // SAFETY: as above.
    unsafe impl aya::Pod for BucketKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for WatchKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Watched {}
    // SAFETY: as above.
    unsafe impl aya::Pod for TapRecord {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Shortcut {}
}
