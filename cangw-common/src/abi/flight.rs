//! Frames between the program and the end of their lists, and the marks that lead there.

use crate::edit::FrameBytes;
use crate::frame::FrameType;

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
    /// Data bytes of the frame as it came.
    pub bytes: u32,
    /// 0.
    pub reserved: u32,
    /// The forms of the runs to come.
    pub queue: [u16; QUEUE],
}

/// [`Flight::local`]: they do.
pub const LOCAL: u32 = 0;
/// [`Flight::local`]: they do when no rule took it.
pub const LOCAL_IF_UNSENT: u32 = 1;
/// [`Flight::local`]: they do not.
pub const NEVER_LOCAL: u32 = 2;

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
    /// With the handle: the frame is taken from local sockets, because none listens.
    pub const TAKEN: u32 = 0x0004_0000;
    /// What the fw filters compare.
    pub const FW_MASK: u32 = HANDLE | ECHO_ONLY | RESTORE | TAKEN;
    /// With [`ECHO`]: the state in which the frame arrives, a number of the interface on which it appears. 0 when the
    /// rules that it meets there have been carried out already.
    pub const STATE: u32 = 0x7FF8_0000;
    /// Where [`STATE`] begins.
    pub const STATE_SHIFT: u32 = 19;
    /// The frame is an echo of ours.
    pub const ECHO: u32 = 0x8000_0000;
}

/// States that an interface can have.
pub const MAX_STATES: u32 = mark::STATE >> mark::STATE_SHIFT;
