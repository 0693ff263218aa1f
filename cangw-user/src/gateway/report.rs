//! Rules and counters, for people and for programs.

use cangw_common::abi::{FanCounters, Guard, Reason};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::Gateway;
use crate::error::Result;
use crate::kernel::bpf;
use crate::kernel::filter::{self, SHARED};
use crate::kernel::link;
use crate::kernel::maps::Maps;
use crate::kernel::words::Words;
use crate::options::{Action, Policy};
use crate::rule::{Engine, Rule};

/// A rule with its counters, in frames.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RuleReport {
    /// The rule.
    #[serde(flatten)]
    pub rule: Rule,
    /// The topology whose route it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub topology: String,
    /// The interface that the rule waits for; `None` when it is in force.
    pub waiting_for: Option<String>,
    /// Frames that the target took.
    pub handled: u64,
    /// Data bytes of the frames that were given to the target, as they came; also of those that it then refused.
    #[serde(default)]
    pub bytes: u64,
    /// Frames that were not sent or not taken: all `dropped_…` together.
    pub dropped: u64,
    /// Frames that went no further by rule: `deleted_hop_limit` and `deleted_too_long` together.
    pub deleted: u64,
    /// Of `deleted`: the hop limit was reached.
    pub deleted_hop_limit: u64,
    /// Of `deleted`: the modified length does not fit the type of frame.
    pub deleted_too_long: u64,
    /// Of `dropped`: target down, gone, or its queue full.
    pub dropped_refused: u64,
    /// Of `dropped`: the target's MTU is too small.
    pub dropped_mtu: u64,
    /// Of `dropped`: the target was not there.
    pub dropped_waiting: u64,
    /// Frames that came from the target itself (no `-i`); can-gw does not count these.
    pub skipped_origin: u64,
    /// Of `dropped`: the rule drops frames.
    pub dropped_by_rule: u64,
    /// Of `dropped`: over the rate limit.
    pub dropped_over_rate: u64,
    /// Of `dropped`: by the fault `--drop`.
    pub dropped_by_fault: u64,
    /// Of `handled`: second copies, by the fault `--duplicate`.
    pub duplicated: u64,
    /// Of `handled`: with a bit flipped, by the fault `--corrupt`.
    pub corrupted: u64,
    /// Frames whose identifiers share one rate limit, because no more of them can have their own.
    pub rate_shared: u64,
}

/// An interface with its counters, in frames.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InterfaceReport {
    /// Its name.
    pub name: String,
    /// The engine in use; `None` while the interface has no rules in force.
    pub engine: Option<Engine>,
    /// The engine that was asked for.
    pub engine_asked: Engine,
    /// Whether local sockets miss what is forwarded.
    pub exclusive: bool,
    /// How many local receivers listen on it; with 0, frames are not copied for them. `None` when that does not matter or is not known.
    pub listeners: Option<u32>,
    /// What becomes of frames that no rule names.
    pub policy: Policy,
    /// Filters of tc that carry out its rules.
    pub filters: u32,
    /// Frames that no rule looked at, by reason.
    pub reasons: BTreeMap<Cow<'static, str>, u64>,
    /// Frames that targets refused and that cannot be told apart by rule, because more than 512 lists share filters.
    pub refused_shared: u64,
}

/// Everything that is to be known.
#[derive(Clone, Debug, Serialize, Deserialize, Default)]
pub struct Report {
    /// The rules, newest first.
    pub rules: Vec<RuleReport>,
    /// The interfaces that have rules or settings.
    pub interfaces: Vec<InterfaceReport>,
}

impl Gateway {
    /// Rules, interfaces and their counters.
    ///
    /// # Errors
    /// When a map or the kernel's filters cannot be read.
    pub fn report(&self) -> Result<Report> {
        let links = link::list(&self.netlink)?;
        let (maps, words) = if bpf::is_loaded(&self.pins) {
            (
                Some(Maps::open(&self.pins)?),
                Some(Words::open(&self.pins)?),
            )
        } else {
            (None, None)
        };
        let mut refused: HashMap<u32, u64> = HashMap::new();
        let mut fanned_out: HashMap<u32, FanCounters> = HashMap::new();
        let mut interfaces = Vec::new();
        for (name, interface) in &self.state.interfaces {
            let live = interface
                .live
                .as_ref()
                .filter(|live| links.iter().any(|l| l.index == live.ifindex));
            let mut reasons = BTreeMap::new();
            reasons.insert("unserved".into(), interface.unserved);
            let mut refused_shared = 0;
            if let (Some(live), Some(maps)) = (live, &maps) {
                let counters = maps.reasons(live.slot)?;
                for reason in Reason::ALL {
                    reasons.insert(reason.name().into(), counters.0[reason as usize]);
                }
                if !live.fan_out.is_empty() {
                    let counted = maps.fan_count(live.aux())?;
                    fanned_out.extend(live.fan_out.iter().map(|slot| (*slot, counted)));
                }
                for list in filter::installed(&self.netlink, live.ifindex)? {
                    for (rule, n) in list.refused {
                        if rule == SHARED {
                            refused_shared += u64::from(n);
                        } else {
                            *refused.entry(rule).or_default() += u64::from(n);
                        }
                    }
                }
            }
            interfaces.push(InterfaceReport {
                name: name.clone(),
                engine: live.map(|l| l.engine),
                engine_asked: interface.engine,
                exclusive: interface.exclusive,
                listeners: match (live, &words) {
                    (Some(live), Some(words)) if !interface.exclusive => words.listeners(live.slot),
                    _ => None,
                },
                policy: interface.policy,
                filters: live.map_or(0, |live| live.filters),
                reasons,
                refused_shared,
            });
        }
        let slots = self.state.rules.iter().map(|e| e.slot + 1).max();
        let all_counters = match &maps {
            Some(maps) => maps.rules(slots.unwrap_or(0))?,
            None => Vec::new(),
        };
        let mut rules = Vec::with_capacity(self.state.rules.len());
        let here: HashMap<u32, &str> = links.iter().map(|l| (l.index, l.name.as_str())).collect();
        for entry in &self.state.rules {
            let counters = all_counters
                .get(entry.slot as usize)
                .copied()
                .unwrap_or_default();
            let mut rule = (*entry.rule).clone();
            let mut waiting_for = None;
            let mut follow = |index: u32, name: &mut String| match here.get(&index) {
                Some(now) => (*now).clone_into(name),
                None => waiting_for = Some(name.clone()),
            };
            if let Action::Forward { target } = &mut rule.action {
                follow(entry.target, target);
            }
            follow(entry.source, &mut rule.source);
            let guard = match &maps {
                Some(maps) if rule.options.limits.is_guarded() => maps.guard(entry.slot)?,
                _ => Guard::default(),
            };
            let dropped_refused =
                counters.refused + entry.refused + refused.get(&entry.slot).copied().unwrap_or(0);
            let fanned_out = fanned_out.get(&entry.slot).copied().unwrap_or_default();
            rules.push(RuleReport {
                rule,
                topology: entry.topology.clone(),
                waiting_for,
                handled: entry.fanned_out
                    + fanned_out.frames
                    + counters.sent.saturating_sub(dropped_refused),
                bytes: entry.fanned_out_bytes + fanned_out.bytes + counters.bytes,
                dropped: dropped_refused
                    + counters.mtu
                    + counters.waiting
                    + counters.by_rule
                    + guard.over_rate
                    + guard.drop.count,
                deleted: counters.hop_limit + counters.too_long,
                deleted_hop_limit: counters.hop_limit,
                deleted_too_long: counters.too_long,
                dropped_refused,
                dropped_mtu: counters.mtu,
                dropped_waiting: counters.waiting,
                skipped_origin: counters.origin,
                dropped_by_rule: counters.by_rule,
                dropped_over_rate: guard.over_rate,
                dropped_by_fault: guard.drop.count,
                duplicated: guard.duplicate.count,
                corrupted: guard.corrupt.count,
                rate_shared: guard.shared,
            });
        }
        Ok(Report { rules, interfaces })
    }
}
