//! What an interface gets in the kernel: lists, tables and an engine, switched in one step.

use std::collections::{HashMap, HashSet};

use cangw_common::abi::{self, INTERFACES, PROBES, TC_BEHIND, XDP_REDIRECT, mark};

use super::fan_out::keep_fanned_out;
use super::fronts::{self, Fronts};
use super::{Gateway, Release, plan};
use crate::compile::{Compiled, Input, List};
use crate::error::{Error, Result};
use crate::kernel::bpf::{self, Needs, TcProgram};
use crate::kernel::fan_out;
use crate::kernel::filter::{self, Front, Plan, Qdisc};
use crate::kernel::link::Link;
use crate::kernel::maps::Maps;
use crate::kernel::syscall;
use crate::kernel::words::Words;
use crate::rule::Engine;
use crate::state::{Live, State};

/// An interface whose tables are to be replaced.
pub(super) struct Job {
    pub name: String,
    pub link: Link,
    pub exclusive: bool,
    pub asked: Engine,
    pub rules: Vec<Input>,
    pub compiled: Compiled,
    pub engine: Engine,
    pub xdp_obstacle: Option<String>,
    pub fingerprint: u64,
}

impl Job {
    /// The programs that it will need, as far as can be told before its lists are installed.
    pub fn needs(&self) -> Needs {
        let steps = |list: &List| list.forms || list.loses_stamp() && !self.exclusive;
        Needs {
            xdp: self.engine == Engine::Xdp,
            step: self.compiled.lists.iter().any(steps),
            driver: self.has_prefix(),
            ..Needs::default()
        }
    }

    /// Whether the driver leaves room in front of its frames.
    fn has_prefix(&self) -> bool {
        !self.link.is_virtual() && !bpf::drivers_leave_no_prefix()
    }
}

/// The filters that an interface needs.
#[derive(Default)]
struct Wanted {
    /// Their handles.
    handles: HashSet<u32>,
    /// How many filters they are.
    filters: u32,
    /// How often the program stands between or behind them.
    stages: u16,
    /// What stands in front of the program, with the handle of the list whose actions it has.
    fronts: Vec<(Front, u32)>,
}

impl Gateway {
    /// Replaces the tables of an interface and attaches its engine. What is to stand in front of it is the caller's to attach.
    pub(super) fn install(
        &self,
        maps: &mut Maps,
        state: &mut State,
        mut job: Job,
        release: Release<'_>,
    ) -> Result<Fronts> {
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
            Words::open(&self.pins)?.forget(Some(slot));
        }
        let generation = old.as_ref().map_or(0, |live| live.generation ^ 1);
        let mut live = Live {
            ifindex: job.link.index,
            slot,
            generation,
            engine: job.engine,
            fingerprint: job.fingerprint,
            fan_out: Vec::new(),
            filters: 0,
            copies_first: old.as_ref().and_then(|live| live.copies_first),
        };
        job.compiled.tables.head.aux = live.aux();
        let switched = self.switch_over(maps, state, &mut job, &mut live, old.as_ref(), release);
        if switched.is_err() && old.is_none() {
            // There was nothing before, so nothing stays; what fails here is less than the error itself.
            let _ = self.take_off(maps, state, &live);
        }
        let fronts = switched?;
        state.interfaces.entry(job.name).or_default().live = Some(live);
        Ok(fronts)
    }

    /// Installs the lists, switches the tables, and attaches the engine.
    fn switch_over(
        &self,
        maps: &mut Maps,
        state: &mut State,
        job: &mut Job,
        live: &mut Live,
        old: Option<&Live>,
        release: Release<'_>,
    ) -> Result<Fronts> {
        let ifindex = job.link.index;
        if job.has_prefix() {
            bpf::load_driver(&self.pins, state.settings.log)?;
        }
        let mut wanted = Wanted::default();
        let fan_out = plan::fan_out(&job.compiled).filter(|_| job.engine == Engine::Xdp);
        if let Some(list) = fan_out {
            let rules = || list.steps.iter().map(|step| &job.rules[step.rule as usize]);
            let targets: Vec<u32> = rules().map(|rule| rule.target).collect();
            live.fan_out = rules().map(|rule| rule.slot).collect();
            maps.set_fan_out(live.aux(), &targets)?;
        }
        let fans_out = |live: &Live| !live.fan_out.is_empty();
        let switch = if fans_out(live) || old.is_some_and(fans_out) {
            let switch = fan_out::Switch::open(&self.pins)?;
            // Until all targets are seen to be up, tc sends all frames.
            switch.disarm();
            Some(switch)
        } else {
            None
        };
        // XDP has tc behind it, too: generic XDP leaves frames alone that act_mirred redirected to where they come from.
        let needs_tc = match self.install_lists(state, job) {
            Ok(installed) => {
                wanted = installed;
                true
            }
            // A kernel without tc's parts can still forward by XDP, if the rules allow.
            Err(Error::Unsupported { .. })
                if job.asked != Engine::Tc
                    && job.xdp_obstacle.is_none()
                    && plan::fan_out(&job.compiled).is_none() =>
            {
                live.engine = Engine::Xdp;
                false
            }
            Err(e) => return Err(e),
        };
        let head = &mut job.compiled.tables.head;
        if live.engine == Engine::Xdp && !fans_out(live) {
            head.flags |= XDP_REDIRECT;
            if needs_tc {
                head.flags |= TC_BEHIND;
            }
        }
        let fronts: &[_] = if needs_tc { &wanted.fronts } else { &[] };
        // What goes by a shortcut is not logged.
        let knows = needs_tc && !state.settings.log;
        let shortcut = knows
            .then(|| fronts::shortcut(&job.compiled, live.slot))
            .flatten();
        let fronts = Fronts::prepare(&self.netlink, &self.pins, ifindex, fronts, shortcut)?;
        release(ifindex)?;
        let attach = || -> Result<()> {
            if needs_tc {
                filter::attach(&self.netlink, ifindex, TcProgram::open(&self.pins)?.fd()?)?;
            }
            if live.engine == Engine::Xdp {
                bpf::attach_xdp(&self.pins, state.settings.log, ifindex)?;
            }
            Ok(())
        };
        if let Some(old) = old {
            // What the tables do not name leaves frames alone, so that both engines can be there when the tables are switched.
            attach()?;
            maps.switch(live.slot, &mut job.compiled)?;
            keep_fanned_out(maps, state, old)?;
        } else {
            maps.switch(live.slot, &mut job.compiled)?;
            attach()?;
        }
        if let Some(switch) = switch {
            switch.set_source(live.slot, Some(&*live).filter(|live| fans_out(live)));
        }
        if live.engine != Engine::Xdp {
            bpf::detach_xdp(&self.pins, ifindex)?;
        }
        if !needs_tc {
            filter::detach(&self.netlink, ifindex)?;
            syscall::wait_for_frames();
            wanted = Wanted::default();
        }
        // With the program's own.
        live.filters = u32::from(needs_tc) + u32::from(wanted.stages) + wanted.filters;
        self.remove_lists(state, ifindex, |handle| wanted.handles.contains(&handle))?;
        filter::detach_steps(&self.netlink, ifindex, wanted.stages)?;
        Ok(fronts)
    }

    /// Takes everything off an interface that is there.
    pub(super) fn take_off(&self, maps: &mut Maps, state: &mut State, live: &Live) -> Result<()> {
        self.take_filters_off(state, live.ifindex)?;
        self.forget(maps, state, live)
    }

    /// Takes all filters for frames that arrive off an interface.
    pub(super) fn take_filters_off(&self, state: &mut State, ifindex: u32) -> Result<()> {
        Fronts::remove(&self.netlink, &self.pins, ifindex)?;
        filter::detach(&self.netlink, ifindex)?;
        self.remove_lists(state, ifindex, |_| false)?;
        filter::detach_steps(&self.netlink, ifindex, 0)
    }

    /// Frees what belonged to an interface and does not vanish with it, and keeps what was counted there.
    pub(super) fn forget(&self, maps: &mut Maps, state: &mut State, live: &Live) -> Result<()> {
        if !live.fan_out.is_empty() {
            fan_out::Switch::open(&self.pins)?.set_source(live.slot, None);
        }
        Words::open(&self.pins)?.forget_shortcut(live.ifindex);
        bpf::detach_xdp(&self.pins, live.ifindex)?;
        maps.clear(live.slot)?;
        keep_fanned_out(maps, state, live)
    }

    /// Installs the lists that are missing and writes their handles into the tables.
    fn install_lists(&self, state: &mut State, job: &mut Job) -> Result<Wanted> {
        let ifindex = job.link.index;
        if Qdisc::Ingress.add(&self.netlink, ifindex)? {
            state.qdiscs.insert(ifindex);
        }
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
                        wanted.filters += plan.filters();
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
        if let (1, Some((twins, &handle))) = (known.len(), known.iter().next()) {
            wanted.fronts = fronts::of_only_list(job.exclusive, handle, twins);
        }
        if job.has_prefix() {
            // Its frames are sent by the program.
            wanted.fronts.clear();
        }
        if wanted.stages != 0 || job.compiled.lists.iter().any(|list| list.forms) {
            bpf::load_step(&self.pins, state.settings.log)?;
            let step = TcProgram::open_step(&self.pins)?;
            filter::attach_steps(&self.netlink, ifindex, wanted.stages, step.fd()?)?;
        }
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
