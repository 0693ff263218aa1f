//! Makes a state true in the kernel: everything is built beside what is in force, then switched in one step.

use std::collections::{BTreeSet, HashMap, HashSet};

use cangw_common::abi::{self, INTERFACES, PROBES, Tables, mark};

use super::inputs::{self, fingerprint, is_guarded, name_rules};
use super::{Gateway, Release, plan};
use crate::compile::{self, Compiled, Input};
use crate::error::{Error, Result};
use crate::kernel::bpf::{self, TcProgram};
use crate::kernel::filter::{self, Plan};
use crate::kernel::link::Link;
use crate::kernel::listeners::{self, Words};
use crate::kernel::maps::Maps;
use crate::options::{Action, Policy};
use crate::rule::Engine;
use crate::state::{Live, State};

/// An interface whose tables are to be replaced.
struct Job {
    name: String,
    link: Link,
    exclusive: bool,
    asked: Engine,
    rules: Vec<Input>,
    compiled: Compiled,
    engine: Engine,
    xdp_obstacle: Option<String>,
    fingerprint: u64,
}

/// The filters that an interface needs.
#[derive(Default)]
struct Wanted {
    /// Their handles.
    handles: HashSet<u32>,
    /// How often the program stands between or behind them.
    stages: u16,
}

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
                let _ = filter::delete_clsact(&self.netlink, ifindex);
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
        let jobs = self.jobs(state, links, all)?;
        if state.needs_programs() && !bpf::is_loaded(&self.pins) {
            bpf::load(&self.pins, state.settings.log)?;
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
            for &ifindex in echoes.difference(&state.echoes.clone()) {
                self.add_clsact(state, ifindex)?;
                filter::add_echo(&self.netlink, ifindex)?;
                state.echoes.insert(ifindex);
            }
            for job in jobs {
                self.install(&mut maps, state, job, release)?;
            }
            self.remove_unused(&mut maps, state, &echoes)?;
            self.count_listeners(state);
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
        if !interfaces.is_empty() {
            let _ = listeners::sync(&self.pins, &interfaces);
        }
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
            let rules = compile::relevant(link.index, &all_rules, &states);
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
            let xdp_obstacle = plan::xdp_obstacle(interface.flags, echo_target, link, &compiled);
            let engine =
                plan::engine(asked, xdp_obstacle.as_deref()).map_err(|reason| Error::Engine {
                    engine: asked,
                    interface: link.name.clone(),
                    reason,
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

    /// Replaces the tables of an interface and attaches its engine.
    fn install(
        &self,
        maps: &mut Maps,
        state: &mut State,
        mut job: Job,
        release: Release<'_>,
    ) -> Result<()> {
        let old = state
            .interfaces
            .get(&job.name)
            .and_then(|i| i.live.clone())
            .filter(|live| live.ifindex == job.link.index);
        let slot = match &old {
            Some(live) => live.slot,
            None => free_slot(state, job.link.index)?,
        };
        if old.is_none() {
            maps.reset_reasons(slot)?;
            Words::open(&self.pins)?.forget(slot);
        }
        let generation = old.as_ref().map_or(0, |live| live.generation ^ 1);
        job.compiled.tables.head.aux = slot * 2 + generation;
        let mut live = Live {
            ifindex: job.link.index,
            slot,
            generation,
            engine: job.engine,
            fingerprint: job.fingerprint,
        };
        if let Err(error) = self.switch_over(maps, state, &mut job, &mut live, release) {
            if old.is_none() {
                // There was nothing before, so nothing stays; what fails here is less than the error itself.
                let _ = self.take_off(maps, state, &live);
            }
            return Err(error);
        }
        state.interfaces.entry(job.name).or_default().live = Some(live);
        Ok(())
    }

    /// Installs the lists, switches the tables, and attaches the engine.
    fn switch_over(
        &self,
        maps: &mut Maps,
        state: &mut State,
        job: &mut Job,
        live: &mut Live,
        release: Release<'_>,
    ) -> Result<()> {
        let ifindex = job.link.index;
        if !job.link.is_virtual() && !bpf::drivers_leave_no_prefix() {
            bpf::load_driver(&self.pins, state.settings.log)?;
        }
        let mut wanted = Wanted::default();
        if job.engine == Engine::Tc {
            match self.install_lists(state, job) {
                Ok(installed) => wanted = installed,
                // A kernel without tc's parts can still forward by XDP, if the rules allow.
                Err(Error::Unsupported { .. })
                    if job.asked == Engine::Auto && job.xdp_obstacle.is_none() =>
                {
                    live.engine = Engine::Xdp;
                }
                Err(e) => return Err(e),
            }
        }
        release(ifindex)?;
        maps.switch(live.slot, &job.compiled)?;
        if live.engine == Engine::Tc {
            filter::attach(&self.netlink, ifindex, TcProgram::open(&self.pins)?.fd()?)?;
            bpf::detach_xdp(&self.pins, ifindex)?;
        } else {
            bpf::attach_xdp(&self.pins, ifindex)?;
            filter::detach(&self.netlink, ifindex)?;
        }
        self.remove_lists(state, ifindex, |handle| wanted.handles.contains(&handle))?;
        filter::detach_steps(&self.netlink, ifindex, wanted.stages)
    }

    /// Takes everything off an interface that is there.
    fn take_off(&self, maps: &mut Maps, state: &mut State, live: &Live) -> Result<()> {
        filter::detach(&self.netlink, live.ifindex)?;
        self.remove_lists(state, live.ifindex, |_| false)?;
        filter::detach_steps(&self.netlink, live.ifindex, 0)?;
        self.forget(maps, live)
    }

    /// Frees what belonged to an interface and does not vanish with it.
    fn forget(&self, maps: &mut Maps, live: &Live) -> Result<()> {
        bpf::detach_xdp(&self.pins, live.ifindex)?;
        maps.clear(live.slot)
    }

    /// Installs the lists that are missing and writes their handles into the tables.
    fn install_lists(&self, state: &mut State, job: &mut Job) -> Result<Wanted> {
        let ifindex = job.link.index;
        self.add_clsact(state, ifindex)?;
        let installed = filter::Lists::new(filter::installed(&self.netlink, ifindex)?);
        let mut used = installed.handles();
        let mut known: HashMap<Vec<(u32, Plan)>, u32> = HashMap::new();
        let mut wanted = Wanted::default();
        let shared = job.compiled.lists.len() > plan::OWN_FILTERS;
        for list in &job.compiled.lists {
            let gone = job.exclusive || list.fate.drops;
            let plan = plan::of_list(&job.rules, list, gone, shared);
            if plan.is_empty() {
                continue;
            }
            let mut twins = vec![(0, plan)];
            if !gone {
                twins.push((mark::TAKEN, plan::of_list(&job.rules, list, true, shared)));
            }
            if list.loses_stamp() && !gone {
                twins.push((mark::RESTORE, plan::restoring(&twins[0].1)));
            }
            if !job.link.is_virtual() {
                // A driver's frame is sent by the program, which leaves only the echoes to tc.
                let echoes = plan::echoes_of_list(&job.rules, list, gone);
                if !echoes.is_empty() {
                    twins.push((mark::ECHO_ONLY, echoes));
                }
            }
            let handle = match known.get(&twins) {
                Some(&handle) => handle,
                None => {
                    let found = installed.find(&twins);
                    // Lists that differ in their twins only need handles of their own.
                    let found = found.filter(|handle| !wanted.handles.contains(handle));
                    let handle = match found {
                        Some(handle) => handle,
                        None => free_handle(&mut used)?,
                    };
                    for (bits, plan) in &twins {
                        wanted.handles.insert(handle | bits);
                        wanted.stages = wanted.stages.max(plan.stages());
                        if !installed.has(handle | bits) {
                            filter::add_list(&self.netlink, ifindex, handle | bits, plan)?;
                        }
                    }
                    known.insert(twins, handle);
                    handle
                }
            };
            job.compiled.tables.cells[usize::from(list.id)].handle = handle as u16;
        }
        let step = TcProgram::open_step(&self.pins)?;
        filter::attach_steps(&self.netlink, ifindex, wanted.stages, step.fd()?)?;
        Ok(wanted)
    }

    /// Removes lists, keeping what their targets refused.
    fn remove_lists(
        &self,
        state: &mut State,
        ifindex: u32,
        keep: impl Fn(u32) -> bool,
    ) -> Result<()> {
        for list in filter::installed(&self.netlink, ifindex)? {
            if keep(list.handle) {
                continue;
            }
            for (rule, refused) in &list.refused {
                if let Some(entry) = state.rules.iter_mut().find(|e| e.slot == *rule) {
                    entry.refused += u64::from(*refused);
                }
            }
            filter::delete_list(&self.netlink, ifindex, &list)?;
        }
        Ok(())
    }

    /// Adds the clsact qdisc, and remembers if it is ours.
    fn add_clsact(&self, state: &mut State, ifindex: u32) -> Result<()> {
        if filter::add_clsact(&self.netlink, ifindex)? {
            state.qdiscs.insert(ifindex);
        }
        Ok(())
    }

    /// Forgets interfaces that vanished, with all that was attached to them.
    fn forget_gone(&self, maps: &mut Maps, state: &mut State, links: &[Link]) -> Result<()> {
        let here: HashSet<u32> = links.iter().map(|l| l.index).collect();
        state.qdiscs.retain(|ifindex| here.contains(ifindex));
        state.echoes.retain(|ifindex| here.contains(ifindex));
        for interface in state.interfaces.values_mut() {
            if let Some(live) = &interface.live
                && !here.contains(&live.ifindex)
            {
                self.forget(maps, live)?;
                interface.live = None;
            }
        }
        Ok(())
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
                filter::delete_clsact(&self.netlink, ifindex)?;
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
            entry.rule.source.clone_from(&link.name);
        }
        if let Action::Forward { target: name } = &mut entry.rule.action {
            let target = find(entry.target, name);
            entry.target = target.map_or(0, |l| l.index);
            if let Some(link) = target {
                name.clone_from(&link.name);
            }
        }
    }
    for (old, new) in renamed {
        if let Some(interface) = state.interfaces.remove(&old) {
            state.interfaces.insert(new, interface);
        }
    }
}

/// A slot for the tables of an interface, where the program will look for it.
fn free_slot(state: &State, ifindex: u32) -> Result<u32> {
    (0..PROBES)
        .map(|probe| abi::slot(ifindex, probe))
        .find(|slot| {
            !state
                .interfaces
                .values()
                .any(|i| i.live.as_ref().is_some_and(|live| live.slot == *slot))
        })
        .ok_or_else(|| Error::Unsupported {
            what: format!("room for the tables of interface {ifindex}"),
            remedy: format!("of {INTERFACES} slots, the {PROBES} for this index are taken; remove the rules of an interface that is not needed"),
        })
}

fn free_handle(used: &mut HashSet<u32>) -> Result<u32> {
    let handle = (1..=0xFFFF)
        .find(|h| !used.contains(h))
        .ok_or_else(|| Error::Unsupported {
            what: "free handle for a list of rules".into(),
            remedy: "65,535 lists are in use on this interface; remove rules".into(),
        })?;
    used.insert(handle);
    Ok(handle)
}

const _: () = assert!(size_of::<Tables>() < 1 << 20);
