//! Fan-out at XDP: frames go to several targets at once only while all of these are up.
//!
//! The kernel stops at the first target that is down, and the others would miss the frame. So a probe counts interfaces that are about to go
//! down, and the program compares that number with the one for which all targets were seen to be up.

use std::mem::offset_of;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cangw_common::abi::{DISARMED, FanOut, fan_source};
use memmap2::{MmapOptions, MmapRaw};

use super::maps::open_data;
use super::pins::Pins;
use crate::error::{Error, Result};
use crate::state::Live;

/// An interface that was about to go down before the number was read has lost `IFF_UP` after this time, mostly much earlier
/// (`__dev_close_many`).
const QUIET: Duration = Duration::from_millis(10);

/// [`FanOut`], in the memory that the programs use.
pub struct Switch(MmapRaw);

impl Switch {
    /// Opens them.
    ///
    /// # Errors
    /// When they are not pinned, or memory is short.
    pub fn open(pins: &Pins) -> Result<Self> {
        let map = open_data(pins, "FAN_OUT")?;
        MmapOptions::new()
            .len(size_of::<FanOut>())
            .map_raw(map.fd().as_fd().as_raw_fd())
            .map(Self)
            .map_err(|e| Error::io("use the map FAN_OUT", e))
    }

    /// The word `offset` bytes into it.
    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset + size_of::<u64>() <= self.0.len());
        // SAFETY: the mapping has the word, as checked above, and lives as long as the reference; all who share it change it atomically.
        unsafe { AtomicU64::from_ptr(self.0.as_mut_ptr().add(offset).cast()) }
    }

    fn closings(&self) -> &AtomicU64 {
        self.word(offset_of!(FanOut, closings))
    }

    fn armed(&self) -> &AtomicU64 {
        self.word(offset_of!(FanOut, armed))
    }

    /// Names the interface in a slot and its targets; with `None` nothing is fanned out of it.
    pub fn set_source(&self, slot: u32, source: Option<&Live>) {
        let word = source.map_or(0, |live| fan_source(live.ifindex, live.aux()));
        self.word(offset_of!(FanOut, sources) + slot as usize * size_of::<u64>())
            .store(word, Ordering::SeqCst);
    }

    /// Leaves all frames to tc.
    pub fn disarm(&self) {
        self.armed().store(DISARMED, Ordering::SeqCst);
    }

    /// Whether frames go out at XDP.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.armed().load(Ordering::SeqCst) == self.closings().load(Ordering::SeqCst)
    }

    /// Lets frames go out at XDP if all targets are up.
    ///
    /// # Errors
    /// What `all_up` says.
    pub fn arm(&self, all_up: impl FnOnce() -> Result<bool>) -> Result<()> {
        let closings = self.closings().load(Ordering::SeqCst);
        std::thread::sleep(QUIET);
        if all_up()? {
            self.armed().store(closings, Ordering::SeqCst);
        }
        Ok(())
    }
}
