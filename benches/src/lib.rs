//! The results of `cangw-bench`, in the file that the project keeps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a case costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Tells the case from all others of a kernel.
    pub name: String,
    /// The table that it belongs to.
    pub group: String,
    /// Who carried the frames.
    pub gateway: String,
    /// What the rules ask of identifiers.
    pub kind: String,
    /// How many rules there are for each target.
    pub rules: u32,
    /// Interfaces to which each frame goes.
    pub targets: u32,
    /// Frames that were sent.
    pub sent: u32,
    /// Frames that arrived, at all targets together: at their interfaces when instructions were counted, at sockets otherwise.
    pub delivered: u32,
    /// What it costs.
    #[serde(flatten)]
    pub view: View,
}

/// How a case was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", untagged)]
pub enum View {
    /// Executed instructions for each frame that was sent, the sender's among them.
    Counted {
        /// In a guest that counts instructions; elsewhere these are nanoseconds.
        instructions: f64,
    },
    /// By the clock of the machine.
    Clock {
        /// From `send()` to reception of single frames, microseconds.
        median_us: f64,
        /// What 99 % of them need, microseconds.
        p99_us: f64,
        /// As many as go.
        frames_per_s: f64,
    },
}

impl Measured {
    /// Instructions for each frame; `None` when they were not counted.
    #[must_use]
    pub const fn instructions(&self) -> Option<f64> {
        match self.view {
            View::Counted { instructions } => Some(instructions),
            View::Clock { .. } => None,
        }
    }
}

/// What was measured on one kernel, in one boot for each view.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfKernel {
    /// As `uname -r` has it.
    pub release: String,
    /// How to measure it again.
    pub command: String,
    /// Instructions.
    pub counted: Vec<Measured>,
    /// Times, of a machine that is described nowhere: for comparison of the rows only.
    pub clock: Vec<Measured>,
}

impl OfKernel {
    /// What the sender alone costs: the one of the measurement's group, or of the first one.
    fn base(&self, group: &str) -> Option<f64> {
        let senders = self.counted.iter().filter(|m| m.gateway == NO_GATEWAY);
        let own = senders.clone().find(|m| m.group == group);
        own.or(senders.clone().next())?.instructions()
    }

    /// Instructions for each frame beyond those of the sender.
    #[must_use]
    pub fn added(&self, measured: &Measured) -> Option<f64> {
        Some(measured.instructions()? - self.base(&measured.group)?)
    }
}

/// The name of the case in which nothing is forwarded.
pub const NO_GATEWAY: &str = "no gateway";
/// The name of can-gw.
pub const CAN_GW: &str = "can-gw";

/// Whether a gateway is one of ours, whose cost a check compares; the kernel's are not ours to make faster or slower.
#[must_use]
pub fn is_ours(gateway: &str) -> bool {
    gateway.starts_with("cangw")
}

/// The file: kernels by their line.
pub type Results = BTreeMap<String, OfKernel>;
