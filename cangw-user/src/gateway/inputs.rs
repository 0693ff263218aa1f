//! What the compiler is told: the rules in force, and what holds for an interface.

use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::sync::Arc;

use cangw_common::abi::{DENY, EXCLUSIVE, VIRTUAL};
use cangw_common::edit::{CHECKED, Edit, GUARDED, IDENTITY};
use foldhash::quality::FixedState;

use crate::compile::{self, Input, States};
use crate::error::{Error, Result};
use crate::kernel::link::Link;
use crate::modify::Fits;
use crate::options::{Action, Policy};
use crate::rule::Engine;
use crate::state::{Entry, State};

/// What the compiler is to know of an interface.
pub(super) fn interface(state: &State, link: &Link) -> compile::Interface {
    let known = state.interfaces.get(&link.name);
    let mut flags = 0;
    for (is_so, flag) in [
        (known.is_some_and(|i| i.exclusive), EXCLUSIVE),
        (link.is_virtual(), VIRTUAL),
        (known.is_some_and(|i| i.policy == Policy::Deny), DENY),
    ] {
        if is_so {
            flags |= flag;
        }
    }
    compile::Interface {
        ifindex: link.index,
        max_hops: state.settings.max_hops,
        flags,
    }
}

/// The states in which echoes can be under all rules.
pub(super) fn states(rules: &[Input], max_hops: u8) -> Result<States> {
    States::new(rules, max_hops).map_err(|error| Error::Compile {
        interface: "this network namespace".into(),
        rules: "rules with -e and -m or -M".into(),
        error,
    })
}

/// Whether the data path asks a guard about a rule's frames.
pub(super) fn is_guarded(entry: &Entry) -> bool {
    entry.rule.options.limits.is_guarded()
}

/// The rules whose source is there, newest first.
pub(super) fn inputs(state: &State, links: &[Link]) -> Vec<Input> {
    let link = |index: u32| links.iter().find(|l| l.index == index);
    let rules = state.rules.iter().filter_map(|e| {
        let source = link(e.source)?;
        match &e.rule.action {
            Action::Forward { .. } => Some(match link(e.target) {
                Some(target) => forwarding(state, e, source, target),
                None => Input {
                    waiting: true,
                    ..input(e, 0)
                },
            }),
            Action::Stay { action } => Some(Input {
                stay: Some(*action),
                ..input(e, 0)
            }),
        }
    });
    rules.collect()
}

/// What does not depend on the target.
fn input(entry: &Entry, target: u32) -> Input {
    let rule = &entry.rule;
    let predicates = rule.predicates();
    Input {
        predicates,
        xl: rule.options.xl,
        priority: rule.options.priority,
        watch: rule.options.watch,
        ..Input::empty(entry.slot, rule.kind, entry.source, target)
    }
}

fn forwarding(state: &State, entry: &Entry, source: &Link, target: &Link) -> Input {
    let rule = &entry.rule;
    let limits = &rule.options.limits;
    Input {
        echo: rule.echo,
        iif_tx_ok: rule.iif_tx_ok,
        limit: rule.limit,
        to_peer: source.peer == Some(target.index),
        misfit: target.mtu < rule.kind.mtu(),
        target_exclusive: state
            .interfaces
            .get(&target.name)
            .is_some_and(|i| i.exclusive),
        keep_stamp: rule.timestamp,
        edit: edit(entry).map(Arc::new),
        too_long: rule
            .changes
            .as_ref()
            .is_some_and(|changes| changes.fits() == Fits::Never),
        duplicates: limits.duplicate.is_some(),
        ..input(entry, target.index)
    }
}

/// What a rule does to frames. A rule with a guard has one also when it changes nothing, because that leads to the guard.
fn edit(entry: &Entry) -> Option<Edit> {
    let changes = entry.rule.changes.as_ref();
    let mut edit = changes.map(|changes| changes.edit(entry.slot));
    if is_guarded(entry) {
        let edit = edit.get_or_insert(Edit {
            flags: IDENTITY,
            rule: entry.slot,
            ..Edit::NONE
        });
        edit.flags |= GUARDED | CHECKED;
    }
    edit
}

/// A number that changes with what an interface's tables are compiled from.
pub(super) fn fingerprint(
    interface: &compile::Interface,
    echo_target: bool,
    asked: Engine,
    rules: &[Input],
    states: &States,
) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    (interface, echo_target, asked, rules).hash(&mut hasher);
    states.of(interface.ifindex).hash(&mut hasher);
    if states.looked_up_again(interface.ifindex) {
        // The marks of echoes carry the numbers that states have at the targets.
        for rule in rules.iter().filter(|rule| rule.echo) {
            states.of(rule.target).hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// Says which rules cannot be compiled.
pub(super) fn name_rules(
    state: &State,
    link: &Link,
    inputs: &[Input],
    error: compile::Error,
) -> Error {
    const SHOWN: usize = 5;
    let named = error.rules();
    let mut rules: Vec<String> = named
        .iter()
        .take(SHOWN)
        .filter_map(|&i| state.rules.iter().find(|e| e.slot == inputs[i].slot))
        .map(|e| format!("'{}'", e.rule))
        .collect();
    if named.len() > SHOWN {
        rules.push(format!("and {} more", named.len() - SHOWN));
    }
    Error::Compile {
        interface: link.name.clone(),
        rules: rules.join(", "),
        error,
    }
}
