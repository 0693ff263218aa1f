//! What tc does for a list of rules, and which engine an interface gets.

use cangw_common::abi::{ECHO, MISFIT, PEER};

use crate::compile::{Compiled, Input};
use crate::kernel::bpf;
use crate::kernel::filter::{Action, Plan, SHARED};
use crate::kernel::link::Link;
use crate::rule::Engine;

/// Distinct lists of an interface up to which each has filters of its own. The fw classifier has 256 buckets, so that
/// more would make a look-up slower; beyond, rules with the same targets share a filter, and with it the count of refused frames.
pub(super) const OWN_FILTERS: usize = 1024;

/// The actions of a list.
pub(super) fn of_list(rules: &[(Input, u8)], exclusive: bool, shared: bool) -> Plan {
    let slot = |input: &Input| if shared { SHARED } else { input.slot };
    let sending: Vec<&(Input, u8)> = rules
        .iter()
        .filter(|(input, _)| input.flags & (PEER | MISFIT) == 0)
        .collect();
    let mut actions: Vec<Action> = sending
        .iter()
        .map(|(input, _)| Action::Send {
            ifindex: input.target,
            rule: slot(input),
        })
        .collect();
    actions.extend(echoes(&sending, exclusive, slot));
    Plan { actions, exclusive }
}

/// The echoes of a list alone.
pub(super) fn echoes_of_list(rules: &[(Input, u8)], exclusive: bool, shared: bool) -> Plan {
    let mut plan = of_list(rules, exclusive, shared);
    plan.actions.retain(|a| !matches!(a, Action::Send { .. }));
    plan
}

fn echoes(sending: &[&(Input, u8)], exclusive: bool, slot: impl Fn(&Input) -> u32) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut tagged = None;
    for (input, limit) in sending.iter().filter(|(i, _)| i.flags & ECHO != 0) {
        if tagged != Some(*limit) {
            tagged = Some(*limit);
            actions.push(Action::Tag { limit: *limit });
        }
        actions.push(Action::Echo {
            ifindex: input.target,
            rule: slot(input),
        });
    }
    if tagged.is_some() && !exclusive {
        actions.push(Action::Untag);
    }
    actions
}

/// Why XDP cannot serve an interface; `None` when it can.
pub(super) fn xdp_obstacle(
    exclusive: bool,
    echo_target: bool,
    link: &Link,
    rules: &[(Input, u8)],
    compiled: &Compiled,
) -> Option<String> {
    if !exclusive {
        return Some(
            "XDP takes a frame away from local sockets, and the interface is not exclusive".into(),
        );
    }
    if !link.is_virtual() && !bpf::drivers_leave_no_prefix() {
        return Some("on this kernel, a driver's private bytes stand before its frames, and XDP would send them along; Linux 7.x keeps them elsewhere".into());
    }
    if rules.iter().any(|(r, _)| r.flags & ECHO != 0) {
        return Some("a rule echoes (-e), which only tc can".into());
    }
    if echo_target {
        return Some(
            "another rule echoes to it (-e), and XDP cannot tell an echo from a new frame".into(),
        );
    }
    if rules.iter().any(|(r, _)| r.flags & (PEER | MISFIT) != 0) {
        return Some("a rule leads to an interface that cannot take its frames".into());
    }
    if compiled.lists.iter().any(|l| l.rules.len() > 1) {
        return Some("several rules match the same frame, and after the first target that is down XDP would not serve the others".into());
    }
    None
}

/// The engine for an interface: what was asked for, or tc, which is the cheaper one on every kernel measured (docs/kernels.md).
pub(super) fn engine(asked: Engine, obstacle: Option<&str>) -> Result<Engine, String> {
    match (asked, obstacle) {
        (Engine::Xdp, Some(reason)) => Err(reason.to_owned()),
        (Engine::Xdp, None) => Ok(Engine::Xdp),
        (Engine::Auto | Engine::Tc, _) => Ok(Engine::Tc),
    }
}
