//! Random cases.
//!
//! A case avoids what is different on purpose (docs/differences-from-can-gw.md): sources and targets are never the two ends of one
//! pair, a rule back to its source has `-i`, and a frame that would come to something else that is listed there is left out.

mod frame;
mod rule;

use std::ops::RangeInclusive;

use fastrand::Rng;

use super::case::{Case, INNER, OUTER, Step};
use super::rule::Rule;
use crate::frame::{EFF, Frame};
use crate::model::Model;

/// Our gateway takes 256 rules and echoes for one frame.
const MOST_STEPS: u32 = 200;

/// Changes of the rules amid the frames of a case, on average.
const CHANGES: usize = 2;

/// What cases may have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rules with modifications.
    pub modifications: bool,
    /// `max_hops`.
    pub max_hops: (u8, u8),
    /// Frames of a case.
    pub frames: (usize, usize),
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            modifications: true,
            max_hops: (1, 6),
            frames: (20, 60),
        }
    }
}

/// What the rules and the frames of a case have in common, so that they meet.
struct Pool {
    interfaces: Vec<&'static str>,
    ids: Vec<u32>,
    max_hops: u8,
    modifications: bool,
}

/// A rule with modifications, and a frame of its type.
#[must_use]
pub fn edit(rng: &mut Rng) -> (Rule, Frame) {
    let pool = Pool::new(rng, 1, true);
    let frame = frame::frame(rng, &pool);
    let mut rule = Rule::new(INNER[0], INNER[1]);
    rule.fd = frame.is_fd();
    rule::modify(rng, &pool, &mut rule);
    (rule, frame)
}

/// A filter and an identifier, with its flags, as a frame can have it on a bus.
#[must_use]
pub fn lookup(rng: &mut Rng) -> (Rule, u32) {
    let pool = Pool::new(rng, 1, false);
    let rule = rule::rule(rng, &pool);
    (rule, frame::identifier(rng, &pool))
}

/// The case of a seed.
#[must_use]
pub fn case(seed: u64, limits: &Limits) -> Case {
    let mut rng = Rng::with_seed(seed);
    let rng = &mut rng;
    let (least, most) = limits.max_hops;
    let max_hops = if rng.u8(..10) < 6 { 1 } else { rng.u8(2..=6) };
    let pool = Pool::new(rng, max_hops.clamp(least, most), limits.modifications);
    let count = match rng.u8(..20) {
        0 => rng.usize(9..=30),
        _ => rng.usize(1..=8),
    };
    let mut rules: Vec<Rule> = (0..count).map(|_| rule::rule(rng, &pool)).collect();
    let mut steps: Vec<Step> = rules.iter().cloned().map(Step::Add).collect();
    let (fewest, most) = limits.frames;
    let frames = rng.usize(fewest..=most);
    for _ in 0..frames {
        let on = sender(rng, &pool);
        steps.push(Step::Send(on, frame::frame(rng, &pool)));
        if rng.usize(..frames) < CHANGES {
            steps.push(change(rng, &pool, &mut rules));
        }
    }
    let mut case = Case {
        max_hops: pool.max_hops,
        steps,
    };
    let edits_echoes = |rule: &Rule| rule.echo && !rule.modifications.is_empty();
    let rules = |step: &Step| matches!(step, Step::Add(rule) if edits_echoes(rule));
    if case.steps.iter().any(rules) {
        // Longer chains of edited echoes end here: docs/limitations.md.
        case.max_hops = case.max_hops.min(3);
    }
    limit_steps(rng, &mut case);
    leave_out_disputed(&mut case);
    case
}

impl Pool {
    fn new(rng: &mut Rng, max_hops: u8, modifications: bool) -> Self {
        let mut interfaces = INNER.to_vec();
        rng.shuffle(&mut interfaces);
        interfaces.truncate(rng.usize(2..=4));
        let mut ids = vec![0x123, EFF | 0x123];
        for _ in 0..rng.usize(1..=3) {
            ids.push(one_of(rng, &[0, 0x7FF, 0x124, 0x456, 0x122, 0x700]));
            let extended = [0, 0x1FFF_FFFF, 0x18FE_F100, 0x1234_5678, 0x124, 0x800];
            ids.push(EFF | one_of(rng, &extended));
        }
        ids.push(rng.u32(..0x800));
        ids.push(EFF | rng.u32(..0x2000_0000));
        Self {
            interfaces,
            ids,
            max_hops,
            modifications,
        }
    }

    fn id(&self, rng: &mut Rng) -> u32 {
        match rng.u8(..16) {
            0 => rng.u32(..0x800),
            1 => EFF | rng.u32(..0x2000_0000),
            _ => one_of(rng, &self.ids),
        }
    }

    fn interface(&self, rng: &mut Rng) -> &'static str {
        one_of(rng, &self.interfaces)
    }
}

fn one_of<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())]
}

/// Whether something happens that happens so often of 100 times.
fn chance(rng: &mut Rng, percent: u8) -> bool {
    rng.u8(..100) < percent
}

fn random_data(rng: &mut Rng, bytes: &mut [u8]) {
    match rng.u8(..6) {
        0 => bytes.fill(0xFF),
        1 => {
            for (i, byte) in bytes.iter_mut().enumerate() {
                *byte = i as u8;
            }
        }
        _ => rng.fill(bytes),
    }
}

/// The interface of a program that sends: mostly the far end of a pair.
fn sender(rng: &mut Rng, pool: &Pool) -> &'static str {
    let interface = pool.interface(rng);
    let pair = INNER[4..].iter().position(|inner| *inner == interface);
    match pair {
        Some(number) if chance(rng, 80) => OUTER[number],
        _ => interface,
    }
}

/// A change of the rules amid the frames.
fn change(rng: &mut Rng, pool: &Pool, rules: &mut Vec<Rule>) -> Step {
    let known = one_of_rules(rng, rules);
    match rng.u8(..10) {
        0..4 => Step::Delete(known),
        4 => Step::Delete(rule::rule(rng, pool)),
        5..8 if pool.modifications && known.kept().uid != 0 => {
            // The same uid: new modifications in the place of the old ones.
            let mut update = known;
            rule::modify(rng, pool, &mut update);
            Step::Add(update)
        }
        _ => {
            rules.push(rule::rule(rng, pool));
            Step::Add(rules[rules.len() - 1].clone())
        }
    }
}

fn one_of_rules(rng: &mut Rng, rules: &[Rule]) -> Rule {
    // One that has a uid, if there is one, half of the time.
    let with_uid: Vec<&Rule> = rules.iter().filter(|rule| rule.uid != 0).collect();
    if !with_uid.is_empty() && rng.bool() {
        with_uid[rng.usize(..with_uid.len())].clone()
    } else {
        rules[rng.usize(..rules.len())].clone()
    }
}

/// How many rules and echoes of rules one frame can meet at most.
fn most_steps(rules: &[&Rule], max_hops: u8) -> u32 {
    // By the interface: what a frame meets that has so many hops to go.
    let mut to_come = [0u32; INNER.len()];
    for hops in 0..=max_hops {
        let mut now = [0u32; INNER.len()];
        for rule in rules {
            let number = |name| INNER.iter().position(|inner| *inner == name);
            if let (Some(source), Some(target)) = (number(rule.source), number(rule.target)) {
                let echoes = if rule.echo && hops > 0 {
                    to_come[target]
                } else {
                    0
                };
                now[source] = now[source].saturating_add(1).saturating_add(echoes);
            }
        }
        to_come = now;
    }
    to_come.into_iter().max().unwrap_or(0)
}

/// Takes `-e` off rules until every frame has few enough steps.
fn limit_steps(rng: &mut Rng, case: &mut Case) {
    loop {
        let rules: Vec<&Rule> = case.steps.iter().filter_map(Step::added).collect();
        if most_steps(&rules, case.max_hops) <= MOST_STEPS {
            return;
        }
        let mut echoing: Vec<&mut Rule> = case
            .steps
            .iter_mut()
            .filter_map(Step::added_mut)
            .filter(|rule| rule.echo)
            .collect();
        let number = rng.usize(..echoing.len());
        echoing[number].echo = false;
    }
}

/// Takes out frames with which something happens that is different on purpose.
fn leave_out_disputed(case: &mut Case) {
    let mut model = Model::new(case.max_hops, true);
    case.steps.retain(|step| {
        model.step(step);
        !model.take_disputed()
    });
}

/// Whether a case is within what both gateways are to do alike.
#[must_use]
pub fn is_fair(case: &Case) -> bool {
    let mut model = Model::new(case.max_hops, true);
    let disputed = case.steps.iter().any(|step| {
        model.step(step);
        model.take_disputed()
    });
    let rules: Vec<&Rule> = case.steps.iter().filter_map(Step::added).collect();
    !disputed && most_steps(&rules, case.max_hops) <= MOST_STEPS
}

/// A number, most often within a range.
fn mostly(rng: &mut Rng, range: RangeInclusive<u8>, percent: u8) -> u8 {
    if chance(rng, percent) {
        rng.u8(range)
    } else {
        rng.u8(..)
    }
}
