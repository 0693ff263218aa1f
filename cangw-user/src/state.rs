//! What outlives a call: rules, interfaces and settings of a network namespace, as JSON in a pinned map.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::kernel::maps;
use crate::kernel::pins::Pins;
use crate::options::Policy;
use crate::rule::{Engine, Rule};
use cangw_common::abi;

/// The state of a network namespace.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct State {
    /// [`abi::VERSION`] of the program that wrote it.
    pub version: u32,
    /// A call was interrupted between writing this and changing the kernel: everything is to be applied again.
    pub dirty: bool,
    /// Settings that are not the rules'.
    pub settings: Settings,
    /// Interfaces with rules or settings, by name.
    pub interfaces: BTreeMap<String, Interface>,
    /// Indices of the interfaces whose clsact qdisc is ours.
    pub qdiscs: BTreeSet<u32>,
    /// Indices of the interfaces that echo what is marked for it.
    pub echoes: BTreeSet<u32>,
    /// The rules, newest first.
    pub rules: Vec<Entry>,
}

/// Settings of the whole gateway.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Settings {
    /// Hops after which a frame is deleted, 1 to 6.
    pub max_hops: u8,
    /// Whether the programs log.
    pub log: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_hops: 1,
            log: false,
        }
    }
}

/// What is known of an interface.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Interface {
    /// Forwarded frames are not delivered to local sockets.
    pub exclusive: bool,
    /// The engine that was asked for.
    pub engine: Engine,
    /// What becomes of frames that no rule names.
    #[serde(default)]
    pub policy: Policy,
    /// What is in the kernel; `None` when nothing is.
    pub live: Option<Live>,
}

impl Interface {
    /// Whether the user set anything.
    #[must_use]
    pub fn is_default(&self) -> bool {
        !self.exclusive && self.engine == Engine::Auto && self.policy == Policy::Allow
    }
}

/// What an interface has in the kernel.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Live {
    /// Its index when that was installed.
    pub ifindex: u32,
    /// Slot of its tables.
    pub slot: u32,
    /// Which of the two generations of auxiliary tables is in use.
    pub generation: u32,
    /// The engine in use.
    pub engine: Engine,
    /// What the tables were compiled from, to see whether they still hold.
    pub fingerprint: u64,
}

/// A rule in the list.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Entry {
    /// The rule.
    pub rule: Rule,
    /// Key of its counters.
    pub slot: u32,
    /// Index of the source interface, 0 while it is missing.
    pub source: u32,
    /// Index of the target interface, 0 while it is missing and for a rule that has none.
    pub target: u32,
    /// Frames that targets refused in lists that are gone.
    pub refused: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            version: abi::VERSION,
            dirty: false,
            settings: Settings::default(),
            interfaces: BTreeMap::new(),
            qdiscs: BTreeSet::new(),
            echoes: BTreeSet::new(),
            rules: Vec::new(),
        }
    }
}

/// For the version check, which must work on states of other versions.
#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

impl State {
    /// Reads the state; the default when there is none.
    ///
    /// # Errors
    /// When it cannot be read, or another version wrote it.
    pub fn read(pins: &Pins) -> Result<Self> {
        let Some(bytes) = maps::read_state(pins)? else {
            return Ok(Self::default());
        };
        let version = |found| Error::Version {
            found,
            expected: abi::VERSION,
            path: pins.folder().display().to_string(),
        };
        let found: VersionOnly = serde_json::from_slice(&bytes).map_err(|_| version(0))?;
        if found.version != abi::VERSION {
            return Err(version(found.version));
        }
        serde_json::from_slice(&bytes).map_err(|_| version(found.version))
    }

    /// Writes the state.
    ///
    /// # Errors
    /// When memory is short.
    pub fn write(&self, pins: &Pins) -> Result<()> {
        let bytes = serde_json::to_vec(self).map_err(|e| Error::io("write the state", e.into()))?;
        maps::write_state(pins, &bytes)
    }

    /// Whether nothing needs to be kept.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.rules.is_empty()
            && self.settings == Settings::default()
            && self.interfaces.values().all(Interface::is_default)
    }

    /// Whether something is to be in the kernel.
    #[must_use]
    pub fn needs_programs(&self) -> bool {
        !self.rules.is_empty() || self.interfaces.values().any(|i| i.policy == Policy::Deny)
    }

    /// A free slot for a rule's counters.
    pub fn free_rule_slots(&self) -> impl Iterator<Item = u32> {
        let mut used = vec![false; abi::MAX_RULES as usize];
        for entry in &self.rules {
            if let Some(slot) = used.get_mut(entry.slot as usize) {
                *slot = true;
            }
        }
        (0..abi::MAX_RULES).filter(move |slot| !used[*slot as usize])
    }
}
