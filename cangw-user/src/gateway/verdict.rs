//! What would become of a frame, said by the same tables and look-ups as in the kernel.

use cangw_common::classify::{IdClass, XlFields, id_class};
use cangw_common::edit::{BYTES, FrameBytes, IDENTITY};
use cangw_common::frame::FrameType;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

use super::{Gateway, apply, find_can, inputs};
use crate::compile::{self, Compiled, Input, Outcome, States, Step};
use crate::error::Result;
use crate::frame_text::Frame;
use crate::kernel::link::{self, Link};
use crate::options::Policy;
use crate::rule::Rule;

/// What would become of a frame.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// Interface on which it would come.
    pub interface: String,
    /// The frame.
    pub frame: String,
    /// What each rule that matches it would do, in this order.
    pub rules: Vec<RuleVerdict>,
    /// Whether local sockets of the interface would get it.
    pub delivered: bool,
    /// Why no rule does anything, as in the interface's counters: `unmatched`, `denied` or `malformed`.
    pub reason: Option<Cow<'static, str>>,
}

/// What a rule would do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RuleVerdict {
    /// The rule, as options.
    pub rule: String,
    /// What it would do.
    pub does: Does,
    /// Interface to which it would send.
    pub target: Option<String>,
    /// The frame that it would send, before faults.
    pub frame: Option<String>,
    /// What this depends on, or leads to.
    pub notes: Vec<String>,
}

/// What a rule would do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Does {
    /// Send it.
    Send,
    /// Drop it, with all that rules of lower priority would do.
    Drop,
    /// Let it pass to local sockets.
    Pass,
    /// Record it.
    Watch,
    /// Nothing: the hop limit is reached.
    HopLimit,
    /// Nothing: it came from the target.
    Origin,
    /// Nothing: the modified length does not fit.
    TooLong,
    /// Nothing: the target's MTU is too small.
    Mtu,
    /// Nothing: the target is not there.
    Waiting,
}

impl Gateway {
    /// Says what would become of a frame that comes to an interface. Interfaces that are down, full queues and lost bus access
    /// are not looked at.
    ///
    /// # Errors
    /// When there is no such CAN interface, or its rules cannot be compiled.
    pub fn verdict(&self, interface: &str, frame: &Frame) -> Result<Verdict> {
        let links = link::list(&self.netlink)?;
        let link = find_can(&links, interface)?;
        let mut state = self.state.clone();
        apply::resolve(&mut state, &links);
        let all = inputs::inputs(&state, &links);
        let states = inputs::states(&all, state.settings.max_hops)?;
        let rules = compile::relevant(link.index, &all, &states);
        let about = inputs::interface(&state, link);
        let compiled = compile::compile(about, &rules, &states)
            .map_err(|e| inputs::name_rules(&state, link, &rules, e))?;
        let rule = |slot: u32| {
            let entry = state.rules.iter().find(|e| e.slot == slot);
            entry.map(|e| &*e.rule)
        };
        let known = state.interfaces.get(&link.name);
        let view = View {
            links: &links,
            states: &states,
            rules: &rules,
            rule: &rule,
            exclusive: known.is_some_and(|i| i.exclusive),
            denies: known.is_some_and(|i| i.policy == Policy::Deny),
        };
        Ok(view.verdict(interface, &compiled, frame))
    }
}

struct View<'a> {
    links: &'a [Link],
    states: &'a States,
    rules: &'a [Input],
    rule: &'a dyn Fn(u32) -> Option<&'a Rule>,
    exclusive: bool,
    denies: bool,
}

impl View<'_> {
    fn verdict(&self, interface: &str, compiled: &Compiled, frame: &Frame) -> Verdict {
        let mut verdict = Verdict {
            interface: interface.to_owned(),
            frame: frame.to_string(),
            rules: Vec::new(),
            delivered: !self.denies,
            reason: None,
        };
        let fields = frame.sdt().zip(frame.af());
        let fields = fields.map(|(sdt, af)| XlFields { sdt, af });
        if id_class(frame.kind(), frame.can_id()) == IdClass::Invalid {
            verdict.reason = Some("malformed".into());
            return verdict;
        }
        let Some(list) = compiled.list(frame.kind(), frame.can_id(), fields) else {
            verdict.reason = Some(if self.denies { "denied" } else { "unmatched" }.into());
            return verdict;
        };
        // The second copies are a matter of their rule.
        let steps = list.steps.iter().filter(|step| !step.duplicate);
        verdict.rules = steps.map(|step| self.of_rule(step, frame)).collect();
        let taken = verdict.rules.iter().any(|r| r.does == Does::Send);
        verdict.delivered = !(list.fate.drops || self.exclusive && taken);
        verdict.reason = list.fate.denied.then(|| "denied".into());
        verdict
    }

    fn of_rule(&self, step: &Step, frame: &Frame) -> RuleVerdict {
        let input = &self.rules[step.rule as usize];
        let rule = (self.rule)(input.slot);
        let mut does = match step.outcome {
            Outcome::Sent => Does::Send,
            Outcome::HopLimit => Does::HopLimit,
            Outcome::Origin => Does::Origin,
            Outcome::TooLong => Does::TooLong,
            Outcome::Misfit => Does::Mtu,
            Outcome::Waiting => Does::Waiting,
            Outcome::Dropped => Does::Drop,
            Outcome::Passed => Does::Pass,
            Outcome::Watched => Does::Watch,
        };
        let mut leaves = None;
        if does == Does::Send {
            leaves = leaving(input, frame);
            if leaves.is_none() {
                does = Does::TooLong;
            }
        }
        let name = |index: u32| {
            let link = self.links.iter().find(|l| l.index == index);
            link.map(|l| l.name.clone())
        };
        let mut notes = Vec::new();
        if does == Does::Send {
            if let Some(rule) = rule {
                let limits = &rule.options.limits;
                if let Some(rate) = limits.rate {
                    let each = if limits.per_id {
                        " for each identifier"
                    } else {
                        ""
                    };
                    notes.push(format!("at most {rate}{each}"));
                }
                for (share, what) in [
                    (limits.drop, "are not sent"),
                    (limits.duplicate, "are sent twice"),
                    (limits.corrupt, "have a bit flipped"),
                ] {
                    if let Some(share) = share {
                        notes.push(format!("{share} of the copies {what}"));
                    }
                }
            }
            if step.echo {
                notes.push("local sockets of the target get it, too (-e)".into());
            }
            if step.state != 0 && !self.states.of(input.target).is_empty() {
                notes.push("the echo then meets the rules of the target".into());
            }
        }
        if step.times > 1 {
            notes.push(format!("counts {} times", step.times));
        }
        RuleVerdict {
            rule: rule.map(Rule::to_string).unwrap_or_default(),
            does,
            target: name(input.target),
            frame: leaves.map(|frame| frame.to_string()),
            notes,
        }
    }
}

/// The frame as a rule sends it; `None` when its length would not fit.
fn leaving(rule: &Input, frame: &Frame) -> Option<Frame> {
    let edit = rule.edit.as_ref().filter(|edit| edit.flags & IDENTITY == 0);
    let Some(edit) = edit else {
        return Some(frame.clone());
    };
    if frame.kind() == FrameType::Xl {
        return None;
    }
    let mut from = FrameBytes::ZERO;
    let mut to = FrameBytes::ZERO;
    let len = frame.bytes().len().min(BYTES);
    from.0[..len].copy_from_slice(&frame.bytes()[..len]);
    if !edit.apply(frame.kind(), &from, &mut to) {
        return None;
    }
    Frame::from_bytes(frame.kind(), &to.0[..len]).ok()
}
