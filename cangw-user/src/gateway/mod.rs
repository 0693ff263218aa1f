//! The gateway of a network namespace: rules are added, deleted, listed. Nothing of it lives in this process.

mod apply;
mod captured;
mod fan_out;
mod fronts;
mod inputs;
mod install;
mod plan;
mod report;
mod verdict;
mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cangw_common::abi::MAX_RULES;
use cangw_common::frame::FrameType;
use cangw_common::rule::Filter;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::kernel::bpf;
use crate::kernel::filter::{self, Qdisc};
use crate::kernel::link::{self, Link};
use crate::kernel::netlink::Netlink;
use crate::kernel::pins::Pins;
use crate::kernel::tap;
use crate::modify::Changes;
use crate::options::Policy;
use crate::rule::{Engine, Rule};
use crate::state::{Entry, Settings, State};
use crate::topology::plan::Handling;

pub use report::{InterfaceReport, Report, RuleReport};
pub use verdict::{Does, RuleVerdict, Verdict};
pub use watched::WatchedId;
pub(crate) use watched::not_watched;

/// Called with the index of an interface before its rules come into force.
pub type Release<'a> = &'a mut dyn FnMut(u32) -> Result<()>;

/// The gateway, opened for one call and locked against others meanwhile.
pub struct Gateway {
    pins: Pins,
    netlink: Netlink,
    state: State,
    notes: Vec<String>,
}

impl Gateway {
    /// Opens the gateway to change it.
    ///
    /// # Errors
    /// When a capability, bpffs or netlink is missing.
    pub fn open() -> Result<Self> {
        crate::capability::require("changing rules")?;
        let pins = Pins::open(true)?.ok_or(Error::NoBpffs)?;
        let state = State::read(&pins)?;
        Ok(Self {
            pins,
            netlink: Netlink::open()?,
            state,
            notes: Vec::new(),
        })
    }

    /// Opens the gateway that is there; `None` when this namespace has no rules and no settings.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn look() -> Result<Option<Self>> {
        crate::capability::require("reading rules and counters")?;
        let Some(pins) = Pins::open(false)? else {
            return Ok(None);
        };
        let state = State::read(&pins)?;
        Ok(Some(Self {
            pins,
            netlink: Netlink::open()?,
            state,
            notes: Vec::new(),
        }))
    }

    /// What a user should know of the changes since the last call, though they succeeded.
    pub fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Adds rules, the last given being the newest: all of them or, on an error, none.
    ///
    /// # Errors
    /// The first rule that cannot be, and why.
    pub fn add(&mut self, rules: &[Rule]) -> Result<()> {
        self.add_with(rules, |_| {}, &mut |_| Ok(()))
    }

    /// Adds rules that something else carries out until now. `release` is called with the index of each source interface
    /// immediately before the rules of that interface come into force, and ends what was there.
    ///
    /// # Errors
    /// As [`Self::add`], and what `release` returns.
    pub fn take_over(&mut self, rules: &[Rule], release: Release<'_>) -> Result<()> {
        self.add_with(rules, |_| {}, release)
    }

    /// Adds rules and changes the state in the same step.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_with(
        &mut self,
        rules: &[Rule],
        change: impl FnOnce(&mut State),
        release: Release<'_>,
    ) -> Result<()> {
        let links = link::list(&self.netlink)?;
        let mut state = self.state.clone();
        let mut entries = Vec::with_capacity(rules.len());
        {
            let mut slots = state.free_rule_slots().collect::<Vec<_>>().into_iter();
            for rule in rules {
                let (source, target) = self.check(&links, rule)?;
                if let Some(entry) = with_uid(&mut entries, &mut state.rules, rule) {
                    replace_changes(entry, rule, source, target)?;
                    continue;
                }
                let slot = slots.next().ok_or(Error::TooManyRules { max: MAX_RULES })?;
                entries.push(Entry::new(rule, slot, (source, target)));
            }
        }
        let new_slots: Vec<u32> = entries.iter().map(|e| e.slot).collect();
        entries.reverse();
        entries.append(&mut state.rules);
        state.rules = entries;
        change(&mut state);
        self.commit_with(state, &links, &new_slots, release)
    }

    /// Makes these, oldest first, the routes of a topology, and changes the state in the same step. Routes that are there already stay, with
    /// their counters; other rules are not touched.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn route(
        &mut self,
        topology: &str,
        rules: &[Rule],
        absent: Absent,
        change: impl FnOnce(&mut State),
    ) -> Result<()> {
        let links = link::list(&self.netlink)?;
        let mut state = self.state.clone();
        // Slots of routes that go are not used again in this step: frames that are on their way still count there.
        let mut slots = state.free_rule_slots().collect::<Vec<_>>().into_iter();
        let (old, others) = state
            .rules
            .into_iter()
            .partition::<Vec<_>, _>(|entry| entry.topology == topology);
        let mut old: Vec<Option<Entry>> = old.into_iter().map(Some).collect();
        // Most are where they were, behind the one found last.
        let mut next = 0;
        let mut new_slots = Vec::new();
        state.rules = Vec::with_capacity(rules.len() + others.len());
        for rule in rules.iter().rev() {
            let is_it = |at: &usize| old[*at].as_ref().is_some_and(|e| *e.rule == *rule);
            if let Some(at) = (next..old.len()).chain(0..next).find(is_it) {
                state.rules.extend(old[at].take());
                next = at + 1;
                continue;
            }
            let ends = match self.check(&links, rule) {
                Err(Error::NoInterface { .. }) if absent == Absent::Waited => (0, 0),
                ends => ends?,
            };
            let slot = slots.next().ok_or(Error::TooManyRules { max: MAX_RULES })?;
            new_slots.push(slot);
            let mut entry = Entry::new(rule, slot, ends);
            topology.clone_into(&mut entry.topology);
            state.rules.push(entry);
        }
        state.rules.extend(others);
        change(&mut state);
        self.commit_with(state, &links, &new_slots, &mut |_| Ok(()))
    }

    /// The routes of a topology, oldest first, and the interfaces that it wanted to be handled in another way than by default.
    #[must_use]
    pub fn routes(&self, topology: &str) -> (Vec<Rule>, BTreeMap<String, Handling>) {
        let rules = self.state.rules.iter().rev();
        let rules = rules.filter(|entry| entry.topology == topology);
        let interfaces = self.state.interfaces.iter();
        let interfaces = interfaces.filter(|(_, interface)| interface.topology == topology);
        let handling = interfaces.map(|(name, interface)| {
            let handling = Handling {
                exclusive: interface.exclusive,
                policy: interface.policy,
            };
            (name.clone(), handling)
        });
        let rules = rules.map(|entry| (*entry.rule).clone());
        (rules.collect(), handling.collect())
    }

    /// Deletes the newest rule that is like `rule`, as can-gw does.
    ///
    /// # Errors
    /// When there is none; also when it names an interface that does not exist.
    pub fn delete(&mut self, rule: &Rule) -> Result<()> {
        let links = link::list(&self.netlink)?;
        let mut state = self.state.clone();
        let at = position(&mut state, &links, rule)?;
        state.rules.remove(at);
        self.commit(state, &links)
    }

    /// Puts `new`, whose counters begin at 0, in the place of the newest rule that is like `old`, in one step.
    ///
    /// # Errors
    /// As [`Self::delete`] and [`Self::add`]; then everything is as before.
    pub fn replace(&mut self, old: &Rule, new: &Rule) -> Result<()> {
        let links = link::list(&self.netlink)?;
        let mut state = self.state.clone();
        let at = position(&mut state, &links, old)?;
        let ends = self.check(&links, new)?;
        let slot = state.free_rule_slots().next();
        let slot = slot.ok_or(Error::TooManyRules { max: MAX_RULES })?;
        let topology = std::mem::take(&mut state.rules[at].topology);
        state.rules[at] = Entry {
            topology,
            ..Entry::new(new, slot, ends)
        };
        self.commit_with(state, &links, &[slot], &mut |_| Ok(()))
    }

    /// Deletes all rules with everything that they needed in the kernel, and the settings of interfaces. Settings of the
    /// gateway stay, as can-gw's module parameter does.
    ///
    /// # Errors
    /// When the kernel refuses to remove something.
    pub fn flush(&mut self) -> Result<()> {
        let links = link::list(&self.netlink)?;
        let mut state = self.state.clone();
        state.rules.clear();
        for interface in state.interfaces.values_mut() {
            *interface = crate::state::Interface {
                live: interface.live.take(),
                ..Default::default()
            };
        }
        self.commit(state, &links)
    }

    /// Applies the rules again, so that those whose interfaces came back are in force.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sync(&mut self) -> Result<()> {
        let links = link::list(&self.netlink)?;
        self.commit(self.state.clone(), &links)
    }

    /// Makes everything in the kernel as it is to be: programs of another build of cangw are replaced by this one's, each in one step; interfaces
    /// that came back get their rules, and those that somebody took filters from get them again. Whether programs were replaced.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn keep(&mut self) -> Result<bool> {
        let links = link::list(&self.netlink)?;
        let mut state = self.state.clone();
        let loaded = bpf::is_loaded(&self.pins);
        let replaces = loaded && state.programs != bpf::build();
        if replaces {
            bpf::load(&self.pins, state.settings.log, bpf::Needs::default())?;
            state.programs = bpf::build();
        }
        let bare = self.bare(&links)?;
        // What is attached where is to be looked at anew.
        self.state.dirty |= replaces || !bare.is_empty();
        for ifindex in bare {
            if Qdisc::of(&self.netlink, ifindex)?.is_none() {
                state.qdiscs.remove(&ifindex);
            }
        }
        self.commit(state, &links)?;
        Ok(replaces)
    }

    /// Interfaces of which somebody took filters.
    fn bare(&self, links: &[Link]) -> Result<BTreeSet<u32>> {
        let mut bare = BTreeSet::new();
        let is_there = |ifindex: u32| links.iter().any(|link| link.index == ifindex);
        for live in self.state.interfaces.values().flat_map(|i| &i.live) {
            if is_there(live.ifindex) && filter::count(&self.netlink, live.ifindex)? < live.filters
            {
                bare.insert(live.ifindex);
            }
        }
        for &ifindex in &self.state.echoes {
            if is_there(ifindex) && !filter::echoes(&self.netlink, ifindex)? {
                bare.insert(ifindex);
            }
        }
        Ok(bare)
    }

    /// How many rules there are, and how many of them wait for an interface.
    #[must_use]
    pub fn rule_counts(&self) -> (usize, usize) {
        let waits = |e: &&Entry| e.source == 0 || e.target == 0 && e.rule.target().is_some();
        (
            self.state.rules.len(),
            self.state.rules.iter().filter(waits).count(),
        )
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.state.settings
    }

    /// The number of the program that logs; `None` when logging is off or nothing is loaded.
    ///
    /// # Errors
    /// When the program cannot be opened.
    pub fn logging_program(&self) -> Result<Option<u32>> {
        if !self.state.settings.log || !bpf::is_loaded(&self.pins) {
            return Ok(None);
        }
        bpf::TcProgram::open(&self.pins)?.id().map(Some)
    }

    /// Changes the settings.
    ///
    /// # Errors
    /// When the kernel refuses the consequences.
    pub fn set(&mut self, settings: Settings) -> Result<()> {
        if settings == self.state.settings {
            return Ok(());
        }
        let links = link::list(&self.netlink)?;
        let mut state = self.state.clone();
        if settings.log != state.settings.log && bpf::is_loaded(&self.pins) {
            bpf::load(&self.pins, settings.log, bpf::Needs::default())?;
            // The new program is to be attached everywhere.
            self.state.dirty = true;
        }
        state.settings = settings;
        self.commit(state, &links)
    }

    /// Changes how the frames of an interface are handled.
    ///
    /// # Errors
    /// When there is no such CAN interface, or it cannot be so.
    pub fn set_interface(&mut self, name: &str, change: InterfaceChange) -> Result<()> {
        let links = link::list(&self.netlink)?;
        find_can(&links, name)?;
        let mut state = self.state.clone();
        change.apply(&mut state, name);
        self.commit(state, &links)
    }

    /// Checks a rule against the interfaces; the indices of source and target.
    fn check(&self, links: &[Link], rule: &Rule) -> Result<(u32, u32)> {
        rule.check()?;
        let max = self.state.settings.max_hops;
        if rule.limit > max {
            return Err(Error::HopLimit {
                limit: rule.limit,
                max,
            });
        }
        let source = find_can(links, &rule.source)?;
        let Some(target) = rule.target() else {
            return Ok((source.index, 0));
        };
        let target = find_can(links, target)?;
        if source.index == target.index && !rule.iif_tx_ok {
            return Err(Error::SameInterface {
                name: rule.source.clone(),
            });
        }
        let need = rule.kind.mtu();
        if target.mtu < need {
            return Err(Error::Mtu {
                name: target.name.clone(),
                mtu: target.mtu,
                need,
                kind: match rule.kind {
                    FrameType::Classic => "",
                    FrameType::Fd => "FD",
                    FrameType::Xl => "XL",
                },
            });
        }
        Ok((source.index, target.index))
    }

    /// Makes a new state true: in the kernel first, and if that fails the old one again.
    fn commit(&mut self, state: State, links: &[Link]) -> Result<()> {
        self.commit_with(state, links, &[], &mut |_| Ok(()))
    }

    fn commit_with(
        &mut self,
        mut state: State,
        links: &[Link],
        new_slots: &[u32],
        release: Release<'_>,
    ) -> Result<()> {
        let interrupted = self.state.dirty;
        state.dirty = true;
        // Whoever finds this state after a crash applies it again.
        let written = if state.is_default() && !bpf::is_loaded(&self.pins) {
            Ok(())
        } else {
            state.write(&self.pins)
        };
        let applied =
            written.and_then(|()| self.apply(&mut state, links, new_slots, interrupted, release));
        if let Err(error) = applied {
            self.roll_back(links);
            return Err(error);
        }
        state.dirty = false;
        for (name, interface) in &state.interfaces {
            let before = self.state.interfaces.get(name).map_or(0, |i| i.unserved);
            if interface.unserved > before {
                self.notes.push(format!(
                    "{name} needed another qdisc for -e; up to {} frames that arrived meanwhile were not forwarded",
                    interface.unserved - before
                ));
            }
        }
        state.retire(&self.state);
        self.state = state;
        self.settle()
    }

    /// After a failure: what was in force before is in force again. What fails here is reported by the next call.
    fn roll_back(&mut self, links: &[Link]) {
        let mut old = self.state.clone();
        if old.is_default() {
            old.dirty = true;
            let _ = self.apply(&mut old, links, &[], true, &mut |_| Ok(()));
            if !tap::sweep(&self.pins).unwrap_or(true) {
                let _ = self.pins.remove(|_| false);
            }
            return;
        }
        old.dirty = self
            .apply(&mut old.clone(), links, &[], true, &mut |_| Ok(()))
            .is_err();
        let _ = old.write(&self.pins);
    }
}

/// What is to be done about routes whose interfaces are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// Refuse them.
    Refused,
    /// Let them wait.
    Waited,
}

/// What is to change in how an interface's frames are handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InterfaceChange {
    /// Whether forwarded frames are kept from its local sockets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclusive: Option<bool>,
    /// The engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// What becomes of frames that no rule names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
}

impl InterfaceChange {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Changes what was given.
    pub fn apply(self, state: &mut State, name: &str) {
        if self.is_empty() {
            return;
        }
        let interface = state.interfaces.entry(name.to_owned()).or_default();
        interface.exclusive = self.exclusive.unwrap_or(interface.exclusive);
        interface.engine = self.engine.unwrap_or(interface.engine);
        interface.policy = self.policy.unwrap_or(interface.policy);
    }
}

/// Where the newest rule is that is like `rule`.
fn position(state: &mut State, links: &[Link], rule: &Rule) -> Result<usize> {
    // Interfaces may have new names since.
    apply::resolve(state, links);
    let found = state.rules.iter().position(|e| same_rule(&e.rule, rule));
    found.ok_or_else(|| {
        // A rule can outlive its interfaces, so their names are looked at only now.
        let missing = std::iter::once(rule.source.as_str())
            .chain(rule.target())
            .find(|name| !links.iter().any(|l| l.name == **name));
        match missing {
            Some(name) => Error::NoInterface { name: name.into() },
            None => Error::NoRule {
                rule: rule.to_string(),
            },
        }
    })
}

fn find_can<'a>(links: &'a [Link], name: &str) -> Result<&'a Link> {
    let link = links
        .iter()
        .find(|l| l.name == name)
        .ok_or_else(|| Error::NoInterface {
            name: name.to_owned(),
        })?;
    if !link.is_can {
        return Err(Error::NotCan {
            name: name.to_owned(),
        });
    }
    Ok(link)
}

/// The newest rule whose modifications have the uid of this rule's.
fn with_uid<'a>(new: &'a mut [Entry], old: &'a mut [Entry], rule: &Rule) -> Option<&'a mut Entry> {
    let uid = rule.changes.as_ref().map_or(0, |c| c.uid);
    if uid == 0 {
        return None;
    }
    let mut newest_first = new.iter_mut().rev().chain(old);
    newest_first.find(|entry| entry.rule.changes.as_ref().is_some_and(|c| c.uid == uid))
}

/// Replaces a rule's modifications, and nothing else (`cgw_create_job`).
fn replace_changes(entry: &mut Entry, rule: &Rule, source: u32, target: u32) -> Result<()> {
    let have = &entry.rule;
    let same = (entry.source, entry.target, have.kind) == (source, target, rule.kind)
        && raw_filter(have) == raw_filter(rule);
    if !same {
        return Err(Error::Uid {
            uid: rule.changes.as_ref().map_or(0, |c| c.uid),
            rule: have.to_string(),
        });
    }
    Arc::make_mut(&mut entry.rule)
        .changes
        .clone_from(&rule.changes);
    Ok(())
}

/// The filter as it was given. No filter is the same as `0:0`.
fn raw_filter(rule: &Rule) -> Option<Filter> {
    rule.filter.filter(|f| !f.is_empty())
}

/// Whether `-D` with these options means this rule (`cgw_remove_job`): flags, hop limit, interfaces, the filter as it was
/// given, and the uid or the modifications. No filter is the same as `0:0`.
fn same_rule(a: &Rule, b: &Rule) -> bool {
    (
        &a.source,
        &a.action,
        a.kind,
        a.echo,
        a.timestamp,
        a.iif_tx_ok,
        a.limit,
        raw_filter(a),
        &a.options,
    ) == (
        &b.source,
        &b.action,
        b.kind,
        b.echo,
        b.timestamp,
        b.iif_tx_ok,
        b.limit,
        raw_filter(b),
        &b.options,
    ) && Changes::same(a.changes.as_ref(), b.changes.as_ref())
}
