//! What is known of the identifiers on a watched interface.

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
