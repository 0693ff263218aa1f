//! The rules of the kernel's can-gw become rules of the gateway.
//!
//! can-gw's rules for an interface are deleted immediately before ours for it come into force, so that no frame is
//! forwarded by both.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::gateway::Gateway;
use crate::kernel::gw::{CanGw, Job, Names};
use crate::kernel::link;
use crate::kernel::netlink::Netlink;
use crate::rule::Rule;
use crate::state::Settings;

/// The rules of can-gw in this network namespace.
pub struct Import {
    can_gw: CanGw,
    names: Names,
    /// Each rule as can-gw has it and as it will be here; oldest first, the order in which they are added.
    pub rules: Vec<(Job, Rule)>,
}

/// What was imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Whether the gateway's setting was raised to can-gw's.
    pub raised_max_hops: bool,
    /// Rules that can-gw has now; other programs added them meanwhile.
    pub left: usize,
}

impl Import {
    /// Reads can-gw's rules; `None` when can-gw is not loaded.
    ///
    /// # Errors
    /// When they cannot be read, or one has something that rules here do not have.
    pub fn look() -> Result<Option<Self>> {
        let Some(mut can_gw) = CanGw::open()? else {
            return Ok(None);
        };
        let mut jobs = can_gw.rules()?;
        jobs.reverse();
        let names = Names::from(link::list(&Netlink::open()?)?.as_slice());
        let rules = jobs
            .into_iter()
            .map(|job| match job.to_rule(&names) {
                Ok(rule) => Ok((job, rule)),
                Err(refusal) => Err(Error::NotImportable {
                    rule: format!("-s {} -d {}", names.get(job.source), names.get(job.target)),
                    refusal,
                }),
            })
            .collect::<Result<_>>()?;
        Ok(Some(Self {
            can_gw,
            names,
            rules,
        }))
    }

    /// Hops after which can-gw deletes a frame.
    #[must_use]
    pub const fn max_hops(&self) -> u8 {
        self.can_gw.max_hops
    }

    /// Whether the gateway is to have can-gw's `max_hops`: when that is larger, and no rule depends on it yet.
    #[must_use]
    pub const fn raises_max_hops(&self, settings: Settings, has_rules: bool) -> bool {
        self.can_gw.max_hops > settings.max_hops && !has_rules
    }

    /// Adds the rules to the gateway and deletes them from can-gw: all or, on an error, none.
    ///
    /// # Errors
    /// As [`Gateway::take_over`]; [`Error::NotImported`] when can-gw had lost rules before that, and got them back.
    pub fn run(mut self, gateway: &mut Gateway) -> Result<Imported> {
        let reported = gateway.report()?.rules;
        let existing: Vec<Rule> = reported.into_iter().map(|r| r.rule).collect();
        let settings = gateway.settings();
        let raise = self.raises_max_hops(settings, !existing.is_empty());
        if raise {
            gateway.set(Settings {
                max_hops: self.can_gw.max_hops,
                ..settings
            })?;
        }
        let (jobs, rules): (Vec<Job>, Vec<Rule>) =
            std::mem::take(&mut self.rules).into_iter().unzip();
        let mut deleted = Vec::new();
        let taken = {
            let mut groups = Groups::of(existing.iter().chain(&rules));
            let of_rule: Vec<usize> = rules
                .iter()
                .map(|r| groups.of_interface(&r.source))
                .collect();
            let mut waiting: Vec<Option<&Job>> = jobs.iter().map(Some).collect();
            gateway.take_over(&rules, &mut |ifindex| {
                let group = groups.of_interface(&self.names.get(ifindex));
                // The newest first: of several that are the same, can-gw deletes that one.
                for place in (0..rules.len()).rev() {
                    if of_rule[place] == group
                        && let Some(job) = waiting[place].take()
                        // One that is gone already needs no deleting.
                        && self.can_gw.delete(job)?
                    {
                        deleted.push(place);
                    }
                }
                Ok(())
            })
        };
        if let Err(error) = taken {
            if raise {
                // The error that is reported is the one that came first.
                let _ = gateway.set(settings);
            }
            deleted.sort_unstable();
            return Err(self.put_back(deleted.into_iter().map(|place| &jobs[place]), error));
        }
        Ok(Imported {
            raised_max_hops: raise,
            left: self.can_gw.rules()?.len(),
        })
    }

    /// Gives can-gw rules back that were deleted, oldest first. Returns what is to be reported.
    fn put_back<'a>(&mut self, jobs: impl Iterator<Item = &'a Job>, error: Error) -> Error {
        let (mut restored, mut lost) = (0, Vec::new());
        for job in jobs {
            match self.can_gw.add(job) {
                Ok(()) => restored += 1,
                Err(e) => {
                    let rule = job.to_rule(&self.names);
                    let rule = rule.map_or_else(|r| r.to_string(), |r| r.to_string());
                    lost.push(format!("cangw -A {rule} ({e})"));
                }
            }
        }
        match (restored, lost.as_slice()) {
            (0, []) => error,
            _ => Error::NotImported {
                error: Box::new(error),
                restored,
                lost,
            },
        }
    }
}

/// Interfaces between which rules with an echo lead. A frame that is forwarded there meets further rules with the hops that
/// it has made, which can-gw and this gateway do not know of each other: one of them has to do it all.
struct Groups {
    /// A number for each interface; the same for the interfaces of a group.
    numbers: HashMap<String, usize>,
}

impl Groups {
    fn of<'a>(rules: impl Iterator<Item = &'a Rule>) -> Self {
        let mut groups = Self {
            numbers: HashMap::new(),
        };
        for rule in rules {
            let source = groups.of_interface(&rule.source);
            let Some(target) = rule.target() else {
                continue;
            };
            let target = groups.of_interface(target);
            if rule.echo && source != target {
                for number in groups.numbers.values_mut().filter(|n| **n == target) {
                    *number = source;
                }
            }
        }
        groups
    }

    /// The group of an interface; a new one when no rule has named it.
    fn of_interface(&mut self, name: &str) -> usize {
        let new = self.numbers.len();
        *self.numbers.entry(name.to_owned()).or_insert(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cangw_common::frame::FrameType;

    fn rule(source: &str, target: &str, echo: bool) -> Rule {
        Rule {
            echo,
            ..Rule::new(source, target, FrameType::Classic)
        }
    }

    #[test]
    fn echoes_make_groups() {
        let rules = [
            rule("a", "b", true),
            rule("c", "d", false),
            rule("e", "b", true),
            rule("d", "f", true),
            rule("g", "g", true),
        ];
        let mut groups = Groups::of(rules.iter());
        let mut same = |a, b| groups.of_interface(a) == groups.of_interface(b);
        assert!(same("a", "b") && same("a", "e") && same("d", "f"));
        assert!(!same("a", "c") && !same("c", "d") && !same("a", "d"));
        assert!(!same("g", "a") && !same("elsewhere", "a"));
    }
}
