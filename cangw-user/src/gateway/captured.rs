//! The gateway's side of a capture.

use super::Gateway;
use crate::error::Result;
use crate::kernel::tap::{self, Tap};
use crate::kernel::{bpf, maps};

impl Gateway {
    /// Begins a capture with a ring buffer of so many bytes, a power of two. Where there are no rules, the tables are there without any as long as it
    /// lasts.
    ///
    /// # Errors
    /// When the kernel refuses, or as many are running as can.
    pub(crate) fn begin_capture(&mut self, bytes: u32) -> Result<Tap> {
        tap::sweep(&self.pins)?;
        if !bpf::is_loaded(&self.pins) {
            bpf::load(&self.pins, self.state.settings.log, bpf::Needs::default())?;
            self.state.programs = bpf::build();
        }
        let begun = Tap::begin(&self.pins, bytes);
        // Also after an error, which may have left something.
        self.settle()?;
        begun
    }

    /// Forgets a capture.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub(crate) fn end_capture(&mut self, place: u32) -> Result<()> {
        tap::forget(&self.pins, place)?;
        self.settle()
    }

    /// Writes the state, or removes what nothing needs.
    pub(super) fn settle(&mut self) -> Result<()> {
        let captured = tap::sweep(&self.pins)?;
        if !captured {
            self.state.retired.clear();
        }
        if captured || self.state.needs_programs() {
            return self.state.write(&self.pins);
        }
        let keep = !self.state.is_default();
        if keep {
            self.state.write(&self.pins)?;
        }
        self.pins.remove(|pin| keep && pin == maps::STATE)
    }

    /// The rules by the slots of their counters, as options.
    pub(crate) fn rule_names(&self) -> impl Iterator<Item = (u16, String)> {
        let rules = self.state.rules.iter();
        rules.map(|entry| (entry.slot as u16, entry.rule.to_string()))
    }
}
