//! What several CPUs and userspace change while frames pass, word by word and by atomic operations only.

use super::{FanOut, INTERFACES, SHORTCUTS, Shortcut};

/// All of it, for a network namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// Who listens on all interfaces.
    pub listeners_on_all: u64,
    /// Who listens on one, by its slot.
    pub listeners: [u64; INTERFACES as usize],
    /// Address of `can_can_gw_rcv`, by which can-gw's own subscriptions are told apart; 0 until it is known.
    pub can_gw: u64,
    /// What XDP gives to several targets at once.
    pub fan_out: FanOut,
    /// What is known of most frames.
    pub shortcuts: [Shortcut; SHORTCUTS as usize],
}

impl Words {
    /// As they are in the beginning: zeroes.
    pub const NONE: Self = Self {
        listeners_on_all: 0,
        listeners: [0; INTERFACES as usize],
        can_gw: 0,
        fan_out: FanOut {
            closings: 0,
            armed: 0,
            sources: [0; INTERFACES as usize],
        },
        shortcuts: [Shortcut::NONE; SHORTCUTS as usize],
    };
}
