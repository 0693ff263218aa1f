//! What captures see of frames on their way through the gateway.

use crate::frame::{XL_HEAD, XL_MAX_DATA};

/// Captures at a time in one network namespace.
pub const TAPS: u32 = 8;
/// Bytes of a ring buffer, at least: a page; always a power of two.
pub const MIN_RING: u32 = 4096;

/// [`TapRecord::what`]: a frame came to an interface (`net:netif_receive_skb`).
pub const RECEIVED: u32 = 0;
/// [`TapRecord::what`]: a frame was given to an interface to be sent (`net:net_dev_queue`).
pub const LEFT: u32 = 1;
/// [`TapRecord::what`]: XDP redirected the frame that came last (`xdp:xdp_redirect`).
pub const REDIRECTED: u32 = 2;
/// [`TapRecord::what`]: a rule that matched the frame that came last did not send its copy.
pub const WITHHELD: u32 = 3;

/// [`TapRecord::status`] of a frame that came: there is a list for it. Other numbers below [`ECHOED`] are those of
/// [`Reason`](super::Reason) and 1.
pub const LISTED: u32 = 0;
/// [`TapRecord::status`]: an echo that has met the rules of this interface already.
pub const ECHOED: u32 = 0x100;
/// [`TapRecord::status`]: the interface has no rules.
pub const NO_RULES: u32 = 0x101;

/// [`TapRecord::flags`] beside those of the list's first cell: the frame is an echo of the gateway.
pub const TAP_ECHO: u32 = 0x1_0000;

/// Why a rule did not send a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Withheld {
    /// Over its rate limit.
    OverRate = 0,
    /// By its fault `--drop`.
    Fault = 1,
    /// The modified length does not fit the type of frame.
    TooLong = 2,
    /// The target's MTU is too small.
    Mtu = 3,
    /// The kernel had no memory for a copy, or the target did not take it.
    Refused = 4,
}

impl Withheld {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::OverRate,
        Self::Fault,
        Self::TooLong,
        Self::Mtu,
        Self::Refused,
    ];
}

/// What happened to a frame. Behind it stand `cells` [`TapCell`]s, then the `len` bytes of the frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapRecord {
    /// When, in nanoseconds of the monotonic clock.
    pub time: u64,
    /// Records of this capture and this CPU that found no room until then.
    pub missed: u64,
    /// [`RECEIVED`], [`LEFT`], [`REDIRECTED`] or [`WITHHELD`].
    pub what: u32,
    /// CPU on which it happened.
    pub cpu: u32,
    /// Interface on which the frame came, or by which it left: 0 for all of a [`REDIRECTED`] frame's targets.
    pub ifindex: u32,
    /// Of a frame that leaves: the interface on which it came, 0 for one of a local socket.
    pub from: u32,
    /// `FrameType` as a number.
    pub kind: u32,
    /// Bytes of the frame here.
    pub len: u32,
    /// Of a frame that came: what the look-up said. Of a copy that was withheld: [`Withheld`] as a number.
    pub status: u32,
    /// Of a frame that came: flags of its list, and [`TAP_ECHO`].
    pub flags: u32,
    /// Of a frame that came: rules that matched.
    pub cells: u32,
    /// Of a copy that was withheld: slot of the rule.
    pub rule: u32,
}

/// What a rule is to do with a frame that came.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapCell {
    /// Slot of the rule.
    pub rule: u16,
    /// As [`Cell::flags`](super::Cell::flags).
    pub flags: u16,
    /// Target interface.
    pub ifindex: u32,
}

/// Bytes of the longest frame.
pub const TAP_FRAME: usize = (XL_HEAD + XL_MAX_DATA) as usize;
/// Room behind a [`TapRecord`], rounded so that the verifier sees that nothing is written beyond it.
pub const TAP_BODY: usize = super::MAX_LIST as usize * size_of::<TapCell>() + 4096;

/// Where a record is put together.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TapRoom {
    /// The record.
    pub record: TapRecord,
    /// What stands behind it.
    pub body: [u8; TAP_BODY],
}
