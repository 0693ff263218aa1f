//! What tc does for a list of rules, and which engine an interface gets.

use cangw_common::abi::{DENY, EXCLUSIVE, SPACE_UNIFORM, SpaceIndex};
use cangw_common::frame::FrameType;

use crate::compile::{Compiled, Fate, Input, List, Outcome, Step};
use crate::kernel::bpf;
use crate::kernel::filter::{Action, End, Plan, SHARED};
use crate::kernel::link::Link;
use crate::kernel::listeners;
use crate::rule::Engine;

/// Distinct lists of an interface up to which each has filters of its own. The fw classifier has 256 buckets, and most lists have two
/// filters, so that more would make a look-up slower; beyond, rules with the same targets share a filter, and with it the count of refused frames.
pub(super) const OWN_FILTERS: usize = 512;

/// The actions of a list. Unless their forms differ, copies that are to be echoed leave last, with a mark for the filter
/// at their target.
pub(super) fn of_list(rules: &[Input], list: &List, exclusive: bool, shared: bool) -> Plan {
    let send = |step: &Step| {
        let rule = &rules[step.rule as usize];
        Action::Send {
            ifindex: rule.target,
            rule: if shared { SHARED } else { rule.slot },
        }
    };
    let mut steps: Vec<&Step> = list.sent().collect();
    if !list.forms {
        steps.sort_by_key(|step| step.echo);
    }
    plan(&steps, list.forms, exclusive, |step| step.run, send)
}

/// The echoes of a list alone, for frames that the program sends itself: their copies cannot be echoed where they leave,
/// because the kernel would cut the place of the prefix from them (`tcf_mirred_to_dev`).
pub(super) fn echoes_of_list(rules: &[Input], list: &List, exclusive: bool) -> Plan {
    let echo = |step: &Step| Action::Echo {
        ifindex: rules[step.rule as usize].target,
        rule: SHARED,
    };
    let steps: Vec<&Step> = list.sent().filter(|step| step.echo).collect();
    plan(&steps, list.forms, exclusive, |step| step.echo_run, echo)
}

/// The same list for a frame that is changed back afterwards.
pub(super) fn restoring(plan: &Plan) -> Plan {
    Plan {
        runs: plan.runs.clone(),
        end: End::Next,
    }
}

fn plan(
    steps: &[&Step],
    forms: bool,
    exclusive: bool,
    begins: impl Fn(&Step) -> bool,
    action: impl Fn(&Step) -> Action,
) -> Plan {
    let mut runs: Vec<Vec<Action>> = Vec::new();
    // What the mark says; the program takes it off between runs whose forms differ.
    let mut tag = None;
    for step in steps {
        let wanted = step.echo.then_some(step.state);
        if runs.is_empty() || forms && begins(step) {
            runs.push(Vec::new());
            tag = None;
        }
        if let Some(run) = runs.last_mut() {
            if wanted != tag {
                run.push(wanted.map_or(Action::Untag, Action::Tag));
                tag = wanted;
            }
            run.push(action(step));
        }
    }
    let end = match steps.last() {
        Some(last) if exclusive && !last.checked => End::Gone {
            redirect: !last.keeps_stamp(),
        },
        _ if forms => End::Next,
        _ => End::Deliver,
    };
    if tag.is_some()
        && end == End::Deliver
        && let Some(run) = runs.last_mut()
    {
        run.push(Action::Untag);
    }
    Plan { runs, end }
}

/// Why XDP cannot serve an interface; `None` when it can.
pub(super) fn xdp_obstacle(
    flags: u32,
    echo_target: bool,
    (link, links): (&Link, &[Link]),
    rules: &[Input],
    compiled: &Compiled,
) -> Option<String> {
    if flags & EXCLUSIVE == 0 {
        return Some(
            "XDP takes a frame away from local sockets, and the interface is not exclusive".into(),
        );
    }
    if flags & DENY != 0 {
        return Some("the interface's policy is deny, which only tc can".into());
    }
    if compiled.xl.is_some() {
        return Some("a rule asks for fields of CAN XL headers, which only tc can".into());
    }
    if compiled
        .lists
        .iter()
        .any(|list| list.fate != Fate::default())
    {
        return Some("a rule drops or watches frames, which only tc can".into());
    }
    if !link.is_virtual() && !bpf::drivers_leave_no_prefix() {
        return Some("on this kernel, a driver's private bytes stand before its frames, and XDP would send them along; Linux 7.x keeps them elsewhere".into());
    }
    let steps = || compiled.lists.iter().flat_map(|list| &list.steps);
    if steps().any(|step| step.echo) {
        return Some("a rule echoes (-e), which only tc can".into());
    }
    if echo_target {
        return Some(
            "another rule echoes to it (-e), and XDP cannot tell an echo from a new frame".into(),
        );
    }
    if steps().any(Step::edits) {
        return Some(
            "a rule modifies frames (-m, -M) or has a rate limit or faults, which only tc can"
                .into(),
        );
    }
    if steps().any(|step| matches!(step.outcome, Outcome::Passed)) {
        return Some("a rule only lets frames pass, which only tc can".into());
    }
    if steps().any(|step| step.outcome != Outcome::Sent) {
        return Some("a rule leads to an interface that cannot take its frames".into());
    }
    if compiled.lists.iter().any(|list| list.steps.len() > 1) {
        let Some(list) = fan_out(compiled) else {
            return Some("several rules match the same frame, and not the same ones for all classic frames; only tc can tell them apart".into());
        };
        let target = |step: &Step| rules[step.rule as usize].target;
        let is_virtual = |index| links.iter().any(|l| l.index == index && l.is_virtual());
        if !list.steps.iter().map(target).all(is_virtual) {
            return Some("several rules match the same frame, and one leads to an interface with a queue, which XDP passes over".into());
        }
    }
    None
}

/// The list to whose targets XDP gives all classic frames at once, if there is one: see [`xdp_obstacle`].
pub(super) fn fan_out(compiled: &Compiled) -> Option<&List> {
    let tables = &compiled.tables;
    let standard = &tables.standard[FrameType::Classic as usize];
    let extended = tables.head.spaces[SpaceIndex::ClassicExtended as usize];
    let mut long = compiled.lists.iter().filter(|list| list.steps.len() > 1);
    long.next().filter(|list| {
        long.next().is_none()
            && standard.iter().all(|id| *id == list.id)
            && extended.kind == SPACE_UNIFORM
            && extended.list == list.id
    })
}

/// Targets from which on XDP costs less than tc if it gives frames to all of them at once: it copies each frame's buffer once, and then
/// saves a little for each target (docs/performance.md).
const FAN_OUT_PAYS: usize = 4;

/// Whether XDP serves an interface that it can serve for less than tc: no rule is for frames other than classic ones.
fn pays(rules: &[Input], compiled: &Compiled) -> bool {
    fan_out(compiled).is_some_and(|list| list.steps.len() >= FAN_OUT_PAYS)
        && rules.iter().all(|rule| rule.kind == FrameType::Classic)
        && listeners::Known::find().is_ok()
}

/// The engine for an interface: what was asked for, or the cheaper one (docs/kernels.md).
pub(super) fn engine(
    asked: Engine,
    obstacle: Option<&str>,
    rules: &[Input],
    compiled: &Compiled,
) -> Result<Engine, String> {
    match (asked, obstacle) {
        (Engine::Xdp, Some(reason)) => Err(reason.to_owned()),
        (Engine::Xdp, None) => Ok(Engine::Xdp),
        (Engine::Auto, None) if pays(rules, compiled) => Ok(Engine::Xdp),
        (Engine::Auto | Engine::Tc, _) => Ok(Engine::Tc),
    }
}
