//! Who listens on an interface: a word for each, changed by atomic operations only.

/// A listener more, in the word of an interface (`can_rx_register`); a listener less is the same subtracted. Every change also counts
/// as an [`EVENT`].
pub const LISTENER: u64 = 1 << 32;
/// In the low half of the word: something changed, so that who has counted listeners meanwhile counts again.
pub const EVENT: u64 = 1;
/// The word while nobody has counted the listeners that were there before: as if there were very many.
pub const UNCOUNTED: u64 = 1 << 63;
/// With [`UNCOUNTED`]: can.ko was loaded anew, so that the probes on the one before are gone.
pub const PROBES_LOST: u64 = 1 << 62;

/// Whether frames have to go on to local sockets.
#[must_use]
#[inline(always)]
pub const fn is_heard(word: u64) -> bool {
    word >= LISTENER
}

/// The number of listeners; `None` when it is not known.
#[must_use]
pub const fn listeners(word: u64) -> Option<u32> {
    if word >= PROBES_LOST {
        None
    } else {
        Some((word >> 32) as u32)
    }
}

/// The word with another number of listeners.
#[must_use]
pub const fn counted(word: u64, listeners: u32) -> u64 {
    (word & (LISTENER - 1)) | (listeners as u64) << 32
}
