//! Without a kernel: our tables and edits against the model, carried out as the programs do.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use cangw::compile::{self, Compiled, Input, Interface, Outcome, States};
use cangw::modify::Fits;
use cangw_common::abi::{VIRTUAL, form};
use cangw_common::classify::{NO_RULE, classify};
use cangw_common::edit::{CHECKED, FrameBytes};
use cangw_common::frame::FrameType;
use cangw_tests::diff::case::{Case, INNER, OUTER, Step};
use cangw_tests::diff::contestant::Observation;
use cangw_tests::diff::generate::{self, Limits};
use cangw_tests::diff::shrink::shrink;
use cangw_tests::frame::{ERR, Frame};
use cangw_tests::model::{Model, filter, modify, other_end};
use fastrand::Rng;

use crate::ours::ours;

/// `CANFD_FDF`, which the kernel sets in every FD frame that it sends.
const FDF: u8 = 4;
/// Compiling takes most of the time, so cases have many frames.
const FRAMES: (usize, usize) = (50, 300);

/// Compares filters and edits one by one, and whole cases until they have had so many frames. False when something differs.
pub fn run(frames: u64, seed: u64, limits: Limits) -> bool {
    println!("cangw-diff: {frames} frames from seed {seed}");
    let mut rng = Rng::with_seed(seed);
    for _ in 0..frames {
        if let Err(difference) = filters(&mut rng).and_then(|()| edits(&mut rng)) {
            println!("cangw-diff: our data path and the model differ\n{difference}");
            return false;
        }
    }
    let limits = Limits {
        frames: FRAMES,
        ..limits
    };
    cases(frames, seed, &limits)
}

/// Does one look-up both ways.
fn filters(rng: &mut Rng) -> Result<(), String> {
    let (rule, id) = generate::lookup(rng);
    let model = !filter::matching(std::iter::once(&rule), rule.source, id).is_empty();
    let Ok(ours) = ours(&rule) else {
        return Ok(());
    };
    if ours.predicates().iter().any(|p| p.matches(id)) == model {
        return Ok(());
    }
    Err(format!(
        "{} {id:08X}: the model says {model}",
        rule.options()
    ))
}

/// Does one edit both ways.
fn edits(rng: &mut Rng) -> Result<(), String> {
    let (rule, frame) = generate::edit(rng);
    let Ok(ours) = ours(&rule) else {
        return Ok(());
    };
    let changes = ours.changes.ok_or("a rule without its modifications")?;
    let edit = changes.edit(0);
    let (mut from, mut to) = (FrameBytes::ZERO, FrameBytes::ZERO);
    let length = frame.bytes().len();
    from.0[..length].copy_from_slice(frame.bytes());
    let fits = edit.apply(changes.kind(), &from, &mut to);
    let mut expected = frame.bytes().to_vec();
    let expected_fits = modify::modify(&rule.kept(), &mut expected);
    if length == 72 {
        expected[5] |= FDF;
        to.0[5] |= FDF;
    }
    let known = match changes.fits() {
        Fits::Always => expected_fits,
        Fits::Never => !expected_fits,
        Fits::Sometimes => edit.flags & CHECKED != 0,
    };
    if known && fits == expected_fits && (!fits || to.0[..length] == expected) {
        return Ok(());
    }
    let text = |fits, bytes: &[u8]| {
        let frame = Frame::from_bytes(bytes);
        format!("fits {fits} {frame}{}", frame.rest())
    };
    Err(format!(
        "{} on {frame}{}\n- {}\n+ {}",
        rule.options(),
        frame.rest(),
        text(expected_fits, &expected),
        text(fits, &to.0[..length])
    ))
}

fn cases(frames: u64, first: u64, limits: &Limits) -> bool {
    let start = Instant::now();
    let (mut sent, mut count, mut refused) = (0, 0, 0);
    while sent < frames {
        let case = generate::case(first + count, limits);
        let model = Model::run(&case, true);
        match Host::run(&case) {
            Err(_) => refused += 1,
            Ok(seen) => {
                if let Some(difference) = model.difference(&seen) {
                    println!(
                        "the model (-) and our data path (+) differ in the case of seed {}\n{difference}",
                        first + count
                    );
                    let smallest = shrink(&case, differs);
                    println!("{smallest}");
                    return false;
                }
            }
        }
        sent += case.frames() as u64;
        count += 1;
    }
    println!(
        "cangw-diff: {frames} filters, {frames} edits and {count} cases with {sent} frames without a difference in {:.0} s, {refused} cases refused, seed {first}",
        start.elapsed().as_secs_f64()
    );
    true
}

fn differs(case: &Case) -> bool {
    let model = Model::run(case, true);
    Host::run(case).is_ok_and(|seen| seen != model)
}

/// A received frame.
struct Packet {
    on: &'static str,
    bytes: Vec<u8>,
    /// What the mark of an echo says: the state in which it is to be looked up, or 0.
    echo: Option<u16>,
}

/// The tables of all interfaces.
struct Host {
    rules: Model,
    tables: BTreeMap<&'static str, Tables>,
    queue: VecDeque<Packet>,
    counters: HashMap<u32, [u64; 3]>,
    seen: BTreeMap<&'static str, Vec<Frame>>,
}

struct Tables {
    inputs: Vec<Input>,
    compiled: Compiled,
}

impl Host {
    fn run(case: &Case) -> Result<Observation, compile::Error> {
        let mut host = Self {
            // Which rules there are is for it to say.
            rules: Model::new(case.max_hops, true),
            tables: BTreeMap::new(),
            queue: VecDeque::new(),
            counters: HashMap::new(),
            seen: BTreeMap::new(),
        };
        let mut codes = Vec::new();
        let mut changed = true;
        for step in &case.steps {
            if let Step::Send(on, frame) = step {
                if changed {
                    host.compile(case.max_hops)?;
                    changed = false;
                }
                host.send(on, frame);
            } else {
                codes.extend(host.rules.step(step));
                changed = true;
            }
        }
        let none = [0; 3];
        let rules = host.rules.rules();
        let line = |(number, rule): (u32, &cangw_tests::diff::rule::Rule)| {
            rule.listed(*host.counters.get(&number).unwrap_or(&none))
        };
        Ok(Observation {
            codes,
            list: rules.map(line).collect(),
            seen: host.seen,
        })
    }

    fn compile(&mut self, max_hops: u8) -> Result<(), compile::Error> {
        let inputs: Vec<Input> = self
            .rules
            .rules()
            .map(|(slot, rule)| input(slot, rule))
            .collect();
        let states = States::new(&inputs, max_hops)?;
        self.tables.clear();
        for name in INNER {
            let interface = Interface {
                ifindex: index(name),
                max_hops,
                flags: VIRTUAL,
            };
            if inputs.iter().all(|input| input.source != interface.ifindex) {
                continue;
            }
            let inputs = compile::relevant(interface.ifindex, &inputs, &states);
            let compiled = compile::compile(interface, &inputs, &states)?;
            self.tables.insert(name, Tables { inputs, compiled });
        }
        Ok(())
    }

    fn send(&mut self, on: &'static str, frame: &Frame) {
        self.transmit(on, frame.bytes(), (!OUTER.contains(&on)).then_some(None));
        while let Some(packet) = self.queue.pop_front() {
            self.receive(&packet);
        }
    }

    /// To the other end of a pair and, with `echo`, to the interface itself.
    fn transmit(&mut self, on: &'static str, bytes: &[u8], echo: Option<Option<u16>>) {
        let mut bytes = bytes.to_vec();
        if bytes.len() == 72 {
            bytes[5] |= FDF;
        }
        let mut queue = |on, echo| {
            let bytes = bytes.clone();
            self.queue.push_back(Packet { on, bytes, echo });
        };
        if let Some(peer) = other_end(on) {
            queue(peer, None);
        }
        if let Some(echo) = echo {
            queue(on, echo);
        }
    }

    fn receive(&mut self, packet: &Packet) {
        let frame = Frame::from_bytes(&packet.bytes);
        let id = frame.id();
        if id & ERR == 0 || id & 0x1FFF_FFFF != 0 {
            self.seen.entry(packet.on).or_default().push(frame.clone());
        }
        let state = match packet.echo {
            None => 0,
            // It has made its journey.
            Some(0) => return,
            Some(state) => state,
        };
        let Some(Tables { inputs, compiled }) = self.tables.get(packet.on) else {
            return;
        };
        let kind = if frame.is_fd() {
            FrameType::Fd
        } else {
            FrameType::Classic
        };
        let list = match classify(&compiled.tables, compiled, kind, id, || None) {
            Ok(NO_RULE) | Err(_) => return,
            Ok(list) => list + state,
        };
        let Some(list) = compiled.lists.iter().find(|known| known.id == list) else {
            return;
        };
        let mut original = FrameBytes::ZERO;
        original.0[..packet.bytes.len()].copy_from_slice(&packet.bytes);
        let mut sent = Vec::new();
        for step in &list.steps {
            let rule = &inputs[step.rule as usize];
            let [handled, _, deleted] = self.counters.entry(rule.slot).or_default();
            match step.outcome {
                Outcome::HopLimit | Outcome::TooLong => *deleted += u64::from(step.times),
                Outcome::Origin => {}
                Outcome::Misfit => unreachable!("every interface here carries FD frames"),
                Outcome::Waiting => unreachable!("all interfaces are there"),
                Outcome::Dropped | Outcome::Passed | Outcome::Watched => {
                    unreachable!("can-gw has no such rules")
                }
                Outcome::Sent => {
                    let mut bytes = original;
                    let number = usize::from(step.form & form::EDIT);
                    if number != 0 && !compiled.edits[number - 1].apply(kind, &original, &mut bytes)
                    {
                        assert!(step.checked, "not known before: {}", rule.slot);
                        *deleted += 1;
                        continue;
                    }
                    *handled += 1;
                    let target = INNER[rule.target as usize - 1];
                    sent.push((target, bytes, step.echo.then_some(Some(step.state))));
                }
            }
        }
        for (target, bytes, echo) in sent {
            self.transmit(target, &bytes.0[..packet.bytes.len()], echo);
        }
    }
}

/// The number of an interface.
fn index(name: &str) -> u32 {
    let position = INNER.iter().position(|known| *known == name);
    position.map_or(0, |position| position as u32 + 1)
}

fn input(slot: u32, rule: &cangw_tests::diff::rule::Rule) -> Input {
    let ours = ours(rule).expect("the model took it");
    let mut input = Input::empty(slot, ours.kind, index(rule.source), index(rule.target));
    input.predicates = ours.predicates();
    input.echo = rule.echo;
    input.iif_tx_ok = rule.iif_tx_ok;
    input.limit = rule.limit;
    input.keep_stamp = rule.timestamp;
    input.edit = ours
        .changes
        .as_ref()
        .map(|changes| Arc::new(changes.edit(slot)));
    input.too_long = ours
        .changes
        .is_some_and(|changes| changes.fits() == Fits::Never);
    input
}
