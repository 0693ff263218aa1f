//! The smallest case that still shows a difference.

use super::case::{Case, Step};
use super::generate::is_fair;
use super::rule::{DATA, FLAGS, ID, LEN, Rule};
use crate::frame::Frame;

/// Makes a case smaller as long as `differs` says that it still shows what it shows.
pub fn shrink(case: &Case, mut differs: impl FnMut(&Case) -> bool) -> Case {
    let mut best = case.clone();
    let mut try_one = |candidate: Case, best: &mut Case| {
        let better = candidate != *best && is_fair(&candidate) && differs(&candidate);
        if better {
            *best = candidate;
        }
        better
    };
    loop {
        let before = best.clone();
        let mut length = best.steps.len() / 2;
        while length > 0 {
            let mut at = 0;
            while at < best.steps.len() {
                let mut candidate = best.clone();
                candidate
                    .steps
                    .drain(at..(at + length).min(best.steps.len()));
                if !try_one(candidate, &mut best) {
                    at += length;
                }
            }
            length /= 2;
        }
        for at in 0..best.steps.len() {
            for simpler in simpler(&best.steps[at].clone()) {
                let mut candidate = best.clone();
                candidate.steps[at] = simpler(&best.steps[at]);
                try_one(candidate, &mut best);
            }
        }
        if best == before {
            return best;
        }
    }
}

/// A way to make a step simpler.
type Simplify = Box<dyn Fn(&Step) -> Step>;

/// All ways in which a step could be simpler. Each is applied to what the ones before it left.
fn simpler(step: &Step) -> Vec<Simplify> {
    match step {
        Step::Send(..) => [bare, with_zeroes, short]
            .map(|change| Box::new(move |step: &Step| with_frame(step, change)) as Simplify)
            .into(),
        Step::Add(rule) | Step::Delete(rule) => {
            let mut ways: Vec<Simplify> = Vec::new();
            let mut way = |change: fn(&mut Rule)| {
                ways.push(Box::new(move |step| with_rule(step, change)));
            };
            way(|rule| rule.crc8 = None);
            way(|rule| rule.profile = None);
            way(|rule| rule.xor = None);
            way(|rule| rule.uid = 0);
            way(|rule| rule.limit = 0);
            way(|rule| rule.timestamp = false);
            way(|rule| rule.echo = false);
            way(|rule| rule.iif_tx_ok = rule.source == rule.target);
            way(|rule| rule.filter = None);
            way(|rule| rule.modifications.clear());
            for number in (0..rule.modifications.len()).rev() {
                ways.push(Box::new(move |step| {
                    with_rule(step, |rule| {
                        if number < rule.modifications.len() {
                            rule.modifications.remove(number);
                        }
                    })
                }));
            }
            for number in 0..rule.modifications.len() {
                for element in [ID, LEN, DATA, FLAGS] {
                    ways.push(Box::new(move |step| without(step, number, element)));
                }
            }
            ways
        }
    }
}

fn with_rule(step: &Step, change: impl Fn(&mut Rule)) -> Step {
    let mut step = step.clone();
    if let Step::Add(rule) | Step::Delete(rule) = &mut step {
        change(rule);
        if rule.modifications.is_empty() {
            // cangw refuses a checksum without a modification.
            (rule.crc8, rule.xor) = (None, None);
        }
    }
    step
}

/// Takes an element out of a modification, and its operand.
fn without(step: &Step, number: usize, element: u8) -> Step {
    with_rule(step, |rule| {
        let Some(m) = rule.modifications.get_mut(number) else {
            return;
        };
        if m.elements & !element != 0 {
            m.elements &= !element;
        }
        if m.elements & element == 0 {
            match element {
                ID => m.id = 0,
                LEN => m.len = 0,
                FLAGS => m.flags = 0,
                _ => m.data = [0; 64],
            }
        }
    })
}

fn with_frame(step: &Step, change: fn(&Frame) -> Frame) -> Step {
    match step {
        Step::Send(on, frame) => Step::Send(on, change(frame)),
        other => other.clone(),
    }
}

fn bare(frame: &Frame) -> Frame {
    frame.bare()
}

fn with_zeroes(frame: &Frame) -> Frame {
    let mut bytes = frame.bytes().to_vec();
    bytes[8..].fill(0);
    Frame::from_bytes(&bytes)
}

fn short(frame: &Frame) -> Frame {
    let mut bytes = frame.bytes().to_vec();
    bytes[4] = 0;
    Frame::from_bytes(&bytes)
}
