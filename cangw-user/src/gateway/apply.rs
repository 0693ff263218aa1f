//! Makes a state true in the kernel: everything is built beside what is in force, then switched in one step.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use cangw_common::abi::Tables;

use super::fan_out::fans_out;
use super::fronts::Fronts;
use super::inputs::{self, fingerprint, is_guarded, name_rules};
use super::install::Job;
use super::{Gateway, Release, plan};
use crate::compile;
use crate::error::{Error, Result};
use crate::kernel::bpf::{self, Needs};
use crate::kernel::filter::{self, Qdisc};
use crate::kernel::link::{self, Link};
use crate::kernel::listeners;
use crate::kernel::maps::Maps;
use crate::kernel::rule_counts;
use crate::kernel::words::Words;
use crate::options::{Action, Policy};
use crate::rule::Engine;
use crate::state::{Interface, Live, State};

impl Gateway {
    /// Applies a state. With `all`, also where nothing seems to have changed.
    pub(super) fn apply(
        &self,
        state: &mut State,
        links: &[Link],
        new_slots: &[u32],
        all: bool,
        release: Release<'_>,
    ) -> Result<()> {
        let (qdiscs, echoes) = (state.qdiscs.clone(), state.echoes.clone());
        let applied = self.try_apply(state, links, new_slots, all, release);
        if applied.is_err() {
            // What the old state does not know of, it cannot remove.
            for &ifindex in state.echoes.difference(&echoes) {
                let _ = filter::delete_echo(&self.netlink, ifindex);
            }
            for &ifindex in state.qdiscs.difference(&qdiscs) {
                let _ = Qdisc::remove(&self.netlink, ifindex);
            }
        }
        applied
    }

    fn try_apply(
        &self,
        state: &mut State,
        links: &[Link],
        new_slots: &[u32],
        all: bool,
        release: Release<'_>,
    ) -> Result<()> {
        resolve(state, links);
        let slots = state.rules.iter().map(|e| e.slot + 1).max().unwrap_or(0);
        let loaded = bpf::is_loaded(&self.pins);
        let grows = loaded && !rule_counts::has_room(&self.pins, slots)?;
        // New programs are to be attached everywhere.
        let all = all || grows;
        let jobs = self.jobs(state, links, all)?;
        if grows || state.needs_programs() && !loaded {
            let room = Needs {
                slots,
                ..Needs::default()
            };
            let needs = jobs.iter().map(Job::needs).fold(room, Needs::and);
            bpf::load(&self.pins, state.settings.log, needs)?;
            state.programs = bpf::build();
        }
        if bpf::is_loaded(&self.pins) {
            let mut maps = Maps::open(&self.pins)?;
            for &slot in new_slots {
                maps.reset_rule(slot)?;
            }
            for entry in state.rules.iter().filter(|e| is_guarded(e)) {
                maps.add_guard(entry.slot, entry.rule.options.limits.guard())?;
            }
            self.forget_gone(&mut maps, state, links)?;
            let echoes = echo_targets(state);
            let mut replaced = Vec::new();
            for &ifindex in &echoes {
                if all || !state.echoes.contains(&ifindex) {
                    replaced.extend(self.echo(state, links, ifindex)?);
                }
            }
            let mut fronts = HashMap::new();
            for job in jobs {
                let ifindex = job.link.index;
                fronts.insert(ifindex, self.install(&mut maps, state, job, release)?);
            }
            for (ifindex, received) in replaced {
                let frames = link::received(&self.netlink, ifindex)?.saturating_sub(received);
                let mut interfaces = state.interfaces.values_mut();
                let is_it =
                    |i: &&mut Interface| i.live.as_ref().is_some_and(|l| l.ifindex == ifindex);
                if let Some(interface) = interfaces.find(is_it) {
                    interface.unserved += frames;
                }
            }
            self.remove_unused(&mut maps, state, &echoes)?;
            self.count_listeners(state);
            self.attach_fronts(state, fronts)?;
            self.arm_fan_out(state);
            let guarded = state.rules.iter().filter(|e| is_guarded(e));
            maps.retain_guards(&guarded.map(|e| e.slot).collect())?;
            let watched = state.rules.iter().filter(|e| e.rule.options.watch);
            maps.retain_watched(&watched.map(|e| e.source).collect())?;
        }
        state
            .interfaces
            .retain(|_, i| i.live.is_some() || !i.is_default());
        Ok(())
    }

    /// Counts who listens on the interfaces for which it matters. Where that fails, frames are copied, as if somebody did; why, says
    /// `cangw probe`.
    fn count_listeners(&self, state: &State) {
        let interfaces: Vec<(u32, &str)> = state
            .interfaces
            .iter()
            .filter(|(_, interface)| !interface.exclusive)
            .filter_map(|(name, interface)| Some((interface.live.as_ref()?.slot, name.as_str())))
            .collect();
        if !interfaces.is_empty() || fans_out(state) {
            let _ = listeners::sync(&self.pins, &interfaces);
        }
    }

    /// Attaches what stands in front of the program, in the order that suits those who listen.
    fn attach_fronts(&self, state: &mut State, mut fronts: HashMap<u32, Fronts>) -> Result<()> {
        let words = Words::open(&self.pins)?;
        for interface in state.interfaces.values_mut() {
            if let Some(live) = &mut interface.live {
                let heard = !interface.exclusive && words.listeners(live.slot) != Some(0);
                let fronts = fronts.remove(&live.ifindex).unwrap_or(Fronts::Stay);
                let first = &mut live.copies_first;
                fronts.attach(&self.netlink, &self.pins, live.ifindex, heard, first)?;
            }
        }
        Ok(())
    }

    /// Compiles what has changed. Nothing in the kernel is touched, so that an error leaves everything as it was.
    fn jobs(&self, state: &State, links: &[Link], all: bool) -> Result<Vec<Job>> {
        let mut sources: Vec<u32> = state.rules.iter().map(|e| e.source).collect();
        sources.sort_unstable();
        sources.dedup();
        let echo_targets = echo_targets(state);
        let all_rules = inputs::inputs(state, links);
        let max_hops = state.settings.max_hops;
        let states = inputs::states(&all_rules, max_hops)?;
        let mut jobs = Vec::new();
        for link in links {
            let known = state.interfaces.get(&link.name);
            let denies = link.is_can && known.is_some_and(|i| i.policy == Policy::Deny);
            if !denies && !sources.contains(&link.index) {
                continue;
            }
            let exclusive = known.is_some_and(|i| i.exclusive);
            let asked = known.map_or(Engine::Auto, |i| i.engine);
            let mut rules = compile::relevant(link.index, &all_rules, &states);
            if asked == Engine::Xdp {
                // It cannot count these, and is not to end because an interface vanished.
                rules.retain(|rule| !rule.waiting);
            }
            let echo_target = echo_targets.contains(&link.index);
            let interface = inputs::interface(state, link);
            let fingerprint = fingerprint(&interface, echo_target, asked, &rules, &states);
            if let Some(live) = known.and_then(|i| i.live.as_ref())
                && live.ifindex == link.index
                && live.fingerprint == fingerprint
                && !all
            {
                continue;
            }
            let compiled = compile::compile(interface, &rules, &states)
                .map_err(|e| name_rules(state, link, &rules, e))?;
            let flags = interface.flags;
            let xdp_obstacle =
                plan::xdp_obstacle(flags, echo_target, (link, links), &rules, &compiled);
            let obstacle = xdp_obstacle.as_deref();
            let engine = plan::engine(asked, obstacle, &rules, &compiled).map_err(|reason| {
                Error::Engine {
                    engine: asked,
                    interface: link.name.clone(),
                    reason,
                }
            })?;
            jobs.push(Job {
                name: link.name.clone(),
                link: link.clone(),
                exclusive,
                asked,
                rules,
                compiled,
                engine,
                xdp_obstacle,
                fingerprint,
            });
        }
        Ok(jobs)
    }

    /// Forgets interfaces that vanished, with all that was attached to them.
    fn forget_gone(&self, maps: &mut Maps, state: &mut State, links: &[Link]) -> Result<()> {
        let here: HashSet<u32> = links.iter().map(|l| l.index).collect();
        state.qdiscs.retain(|ifindex| here.contains(ifindex));
        state.echoes.retain(|ifindex| here.contains(ifindex));
        let vanished = |live: &mut Live| !here.contains(&live.ifindex);
        let interfaces = state.interfaces.values_mut();
        let gone: Vec<Live> = interfaces
            .filter_map(|interface| interface.live.take_if(vanished))
            .collect();
        gone.iter()
            .try_for_each(|live| self.forget(maps, state, live))
    }

    /// Lets an interface echo what is marked for it. If the qdisc had to be replaced for that, the interface has no filters any more; then the
    /// answer is its index, with the number of frames that it had received before.
    fn echo(&self, state: &mut State, links: &[Link], ifindex: u32) -> Result<Option<(u32, u64)>> {
        let mut replaced = None;
        let mut added = Qdisc::Clsact.add(&self.netlink, ifindex)?;
        if !added && Qdisc::of(&self.netlink, ifindex)? == Some(Qdisc::Ingress) {
            if !state.qdiscs.contains(&ifindex) || filter::has_others(&self.netlink, ifindex)? {
                let link = links.iter().find(|l| l.index == ifindex);
                return Err(Error::IngressQdisc {
                    interface: link.map_or_else(|| ifindex.to_string(), |l| l.name.clone()),
                });
            }
            // The kernel has one place for both. Until the interface's job is done, its frames reach nobody but local sockets.
            replaced = Some((ifindex, link::received(&self.netlink, ifindex)?));
            self.take_filters_off(state, ifindex)?;
            Qdisc::remove(&self.netlink, ifindex)?;
            added = Qdisc::Clsact.add(&self.netlink, ifindex)?;
        }
        if added {
            state.qdiscs.insert(ifindex);
        }
        filter::add_echo(&self.netlink, ifindex)?;
        state.echoes.insert(ifindex);
        Ok(replaced)
    }

    /// Takes engines, echoes and qdiscs off interfaces that need them no more.
    fn remove_unused(
        &self,
        maps: &mut Maps,
        state: &mut State,
        echoes: &BTreeSet<u32>,
    ) -> Result<()> {
        let names: Vec<String> = state.interfaces.keys().cloned().collect();
        for name in names {
            let Some(live) = state.interfaces.get(&name).and_then(|i| i.live.clone()) else {
                continue;
            };
            let denies = state
                .interfaces
                .get(&name)
                .is_some_and(|i| i.policy == Policy::Deny);
            if denies || state.rules.iter().any(|e| e.source == live.ifindex) {
                continue;
            }
            self.take_off(maps, state, &live)?;
            if let Some(interface) = state.interfaces.get_mut(&name) {
                interface.live = None;
            }
        }
        for ifindex in state.echoes.clone() {
            if !echoes.contains(&ifindex) {
                filter::delete_echo(&self.netlink, ifindex)?;
                state.echoes.remove(&ifindex);
            }
        }
        for ifindex in state.qdiscs.clone() {
            let mut live = state.interfaces.values().filter_map(|i| i.live.as_ref());
            let classifies = live.any(|live| live.ifindex == ifindex);
            if !classifies && !echoes.contains(&ifindex) {
                Qdisc::remove(&self.netlink, ifindex)?;
                state.qdiscs.remove(&ifindex);
            }
        }
        Ok(())
    }
}

/// The interfaces to which a rule in force echoes.
fn echo_targets(state: &State) -> BTreeSet<u32> {
    state
        .rules
        .iter()
        .filter(|e| e.rule.echo && e.source != 0 && e.target != 0)
        .map(|e| e.target)
        .collect()
}

/// Finds the interfaces of all rules: by index, so that a rule follows its interface through a change of name; else by name, so that it
/// finds an interface that was deleted and created again.
pub(super) fn resolve(state: &mut State, links: &[Link]) {
    let mut renamed = Vec::new();
    let find = |index: u32, name: &str| {
        links
            .iter()
            .find(|l| l.index == index)
            .or_else(|| links.iter().find(|l| l.name == name))
            .filter(|l| l.is_can)
    };
    for entry in &mut state.rules {
        let source = find(entry.source, &entry.rule.source);
        entry.source = source.map_or(0, |l| l.index);
        if let Some(link) = source
            && link.name != entry.rule.source
        {
            renamed.push((entry.rule.source.clone(), link.name.clone()));
            Arc::make_mut(&mut entry.rule).source.clone_from(&link.name);
        }
        if let Some(name) = entry.rule.target() {
            let target = find(entry.target, name);
            entry.target = target.map_or(0, |l| l.index);
            if let Some(link) = target
                && link.name != name
            {
                Arc::make_mut(&mut entry.rule).action = Action::Forward {
                    target: link.name.clone(),
                };
            }
        }
    }
    for (old, new) in renamed {
        if let Some(interface) = state.interfaces.remove(&old) {
            state.interfaces.insert(new, interface);
        }
    }
}

const _: () = assert!(size_of::<Tables>() < 1 << 20);
