//! What outlives a call: rules, interfaces and settings of a network namespace, in a pinned map. Every call reads and writes all of it,
//! so it is in a compact form.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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
    /// Which programs are loaded: [`crate::kernel::bpf::build`].
    pub programs: u64,
    /// Settings that are not the rules'.
    pub settings: Settings,
    /// Interfaces with rules or settings, by name.
    pub interfaces: BTreeMap<String, Interface>,
    /// Indices of the interfaces whose qdisc for filters is ours.
    pub qdiscs: BTreeSet<u32>,
    /// Indices of the interfaces that echo what is marked for it.
    pub echoes: BTreeSet<u32>,
    /// The rules, newest first.
    pub rules: Vec<Entry>,
    /// Slots of rules that went while a capture runs, which still tells of them.
    pub retired: BTreeSet<u32>,
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
    /// The topology that set it so; empty for none.
    pub topology: String,
    /// Frames that may have arrived while the interface's qdisc was replaced, so that no rule was asked.
    pub unserved: u64,
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
    /// Slots of the rules whose targets XDP serves at once.
    pub fan_out: Vec<u32>,
    /// How many filters it has, without those in front of the program.
    pub filters: u32,
    /// Of the two filters in front of the program, if there are two: whether the one that copies is asked first.
    pub copies_first: Option<bool>,
}

impl Live {
    /// Index of its auxiliary tables.
    #[must_use]
    pub fn aux(&self) -> u32 {
        self.slot * 2 + self.generation
    }
}

/// A rule in the list.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Entry {
    /// The rule. Every change begins with a copy of the state, in which most rules stay as they are.
    #[serde(with = "stored")]
    pub rule: Arc<Rule>,
    /// Key of its counters.
    pub slot: u32,
    /// Index of the source interface, 0 while it is missing.
    pub source: u32,
    /// Index of the target interface, 0 while it is missing and for a rule that has none.
    pub target: u32,
    /// Frames that targets refused in lists that are gone.
    pub refused: u64,
    /// Frames that XDP gave to all targets at once, by tables that are gone.
    pub fanned_out: u64,
    /// Their data bytes.
    pub fanned_out_bytes: u64,
    /// The topology whose route it is; empty for a rule that was added by itself.
    pub topology: String,
}

impl Entry {
    /// A rule that is new, with the indices of its source and target.
    #[must_use]
    pub fn new(rule: &Rule, slot: u32, (source, target): (u32, u32)) -> Self {
        Self {
            rule: Arc::new(rule.clone()),
            slot,
            source,
            target,
            refused: 0,
            fanned_out: 0,
            fanned_out_bytes: 0,
            topology: String::new(),
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            version: abi::VERSION,
            dirty: false,
            programs: 0,
            settings: Settings::default(),
            interfaces: BTreeMap::new(),
            qdiscs: BTreeSet::new(),
            echoes: BTreeSet::new(),
            rules: Vec::new(),
            retired: BTreeSet::new(),
        }
    }
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
        // It comes first in states of all versions.
        let (found, _) = postcard::take_from_bytes(&bytes).map_err(|_| version(0))?;
        if found != abi::VERSION {
            return Err(version(found));
        }
        postcard::from_bytes(&bytes).map_err(|_| version(found))
    }

    /// Writes the state.
    ///
    /// # Errors
    /// When memory is short.
    pub fn write(&self, pins: &Pins) -> Result<()> {
        let bytes = postcard::to_allocvec(self)
            .map_err(|e| Error::io("write the state", std::io::Error::other(e)))?;
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

    /// The free slots for rules' counters; at the end those that are retired.
    pub fn free_rule_slots(&self) -> impl Iterator<Item = u32> {
        let mut used = self.used_rule_slots();
        for &slot in &self.retired {
            used[slot as usize] = true;
        }
        let retired = self.retired.iter().copied().collect::<Vec<_>>();
        let fresh = (0..abi::MAX_RULES).filter(move |slot| !used[*slot as usize]);
        fresh.chain(retired)
    }

    /// Retires the slots of the rules that went since `before`.
    pub fn retire(&mut self, before: &Self) {
        let used = self.used_rule_slots();
        let old = before.rules.iter().map(|entry| entry.slot);
        let old = old.chain(before.retired.iter().copied());
        self.retired = old.filter(|slot| !used[*slot as usize]).collect();
    }

    fn used_rule_slots(&self) -> Vec<bool> {
        let mut used = vec![false; abi::MAX_RULES as usize];
        for entry in &self.rules {
            used[entry.slot as usize] = true;
        }
        used
    }
}

/// How a rule is kept.
mod stored {
    use std::borrow::Cow;
    use std::sync::Arc;

    use cangw_common::frame::FrameType;
    use cangw_common::rule::Filter;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

    use crate::rule::Rule;

    #[derive(Serialize, Deserialize)]
    enum Stored<'a> {
        /// One that can-gw could have, without modifications.
        Plain {
            source: Cow<'a, str>,
            target: Cow<'a, str>,
            kind: u8,
            echo: bool,
            timestamp: bool,
            iif_tx_ok: bool,
            limit: u8,
            filter: Option<(u32, u32)>,
        },
        /// Any other, as JSON.
        Other(Cow<'a, str>),
    }

    pub fn serialize<S: Serializer>(rule: &Arc<Rule>, serializer: S) -> Result<S::Ok, S::Error> {
        let stored = match rule.target() {
            Some(target) if rule.is_classic() && rule.changes.is_none() => Stored::Plain {
                source: (&rule.source).into(),
                target: target.into(),
                kind: rule.kind as u8,
                echo: rule.echo,
                timestamp: rule.timestamp,
                iif_tx_ok: rule.iif_tx_ok,
                limit: rule.limit,
                filter: rule.filter.map(|filter| (filter.id, filter.mask)),
            },
            _ => Stored::Other(
                serde_json::to_string(&**rule)
                    .map_err(ser::Error::custom)?
                    .into(),
            ),
        };
        stored.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Rule>, D::Error> {
        let rule = match Stored::deserialize(deserializer)? {
            Stored::Plain {
                source,
                target,
                kind,
                echo,
                timestamp,
                iif_tx_ok,
                limit,
                filter,
            } => {
                let kind = FrameType::ALL.get(usize::from(kind)).copied();
                let kind = kind.ok_or_else(|| de::Error::custom("unknown frame type"))?;
                Rule {
                    echo,
                    timestamp,
                    iif_tx_ok,
                    limit,
                    filter: filter.map(|(id, mask)| Filter { id, mask }),
                    ..Rule::new(source, target, kind)
                }
            }
            Stored::Other(json) => serde_json::from_str(&json).map_err(de::Error::custom)?,
        };
        Ok(Arc::new(rule))
    }
}

#[cfg(test)]
mod tests {
    use cangw_common::frame::FrameType;
    use cangw_common::rule::Filter;

    use super::*;
    use crate::options::Stay;

    #[test]
    fn rules_are_kept_as_they_are() {
        let plain = Rule {
            iif_tx_ok: true,
            limit: 3,
            filter: Some(Filter {
                id: 0x123,
                mask: 0xC000_07FF,
            }),
            ..Rule::new("can0", "can1", FrameType::Fd)
        };
        let mut other = Rule {
            echo: true,
            timestamp: true,
            ..plain.clone()
        };
        other.options.priority = -7;
        let mut drops = Rule::new("can0", "", FrameType::Xl);
        drops.action = crate::options::Action::Stay { action: Stay::Drop };
        let entry = |rule| Entry {
            rule: Arc::new(rule),
            slot: 9,
            source: 4,
            target: 5,
            refused: u64::MAX,
            fanned_out: 1,
            fanned_out_bytes: 2,
            topology: "car".into(),
        };
        let state = State {
            rules: [plain, other, drops].map(entry).into(),
            ..State::default()
        };
        let bytes = postcard::to_allocvec(&state).unwrap();
        assert_eq!(postcard::from_bytes::<State>(&bytes).unwrap(), state);
    }
}
