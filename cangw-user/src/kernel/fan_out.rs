//! Fan-out at XDP: frames go to several targets at once only while all of these are up.
//!
//! The kernel stops at the first target that is down, and the others would miss the frame. So a probe counts interfaces that are about to go
//! down, and the program compares that number with the one for which all targets were seen to be up.

use std::sync::atomic::Ordering;
use std::time::Duration;

use cangw_common::abi::{DISARMED, fan_source};

use super::pins::Pins;
use super::words::Words;
use crate::error::Result;
use crate::state::Live;

/// An interface that was about to go down before the number was read has lost `IFF_UP` after this time, mostly much earlier
/// (`__dev_close_many`).
const QUIET: Duration = Duration::from_millis(10);

/// Whether frames go to several targets at once, and which.
pub struct Switch(Words);

impl Switch {
    /// Opens it.
    ///
    /// # Errors
    /// When the words are not pinned, or memory is short.
    pub fn open(pins: &Pins) -> Result<Self> {
        Words::open(pins).map(Self)
    }

    /// Names the interface in a slot and its targets; with `None` nothing is fanned out of it.
    pub fn set_source(&self, slot: u32, source: Option<&Live>) {
        let word = source.map_or(0, |live| fan_source(live.ifindex, live.aux()));
        self.0.source(slot).store(word, Ordering::SeqCst);
    }

    /// Leaves all frames to tc.
    pub fn disarm(&self) {
        self.0.armed().store(DISARMED, Ordering::SeqCst);
    }

    /// Whether frames go out at XDP.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.0.armed().load(Ordering::SeqCst) == self.0.closings().load(Ordering::SeqCst)
    }

    /// Lets frames go out at XDP if all targets are up.
    ///
    /// # Errors
    /// What `all_up` says.
    pub fn arm(&self, all_up: impl FnOnce() -> Result<bool>) -> Result<()> {
        let closings = self.0.closings().load(Ordering::SeqCst);
        std::thread::sleep(QUIET);
        if all_up()? {
            self.0.armed().store(closings, Ordering::SeqCst);
        }
        Ok(())
    }
}
