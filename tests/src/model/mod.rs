//! can-gw as a model: what the kernel's module does with rules and frames, in plain Rust.
//!
//! It is written from the behaviour of `net/can/gw.c` and `net/can/af_can.c` alone and shares nothing with the gateway that
//! it judges. That it is right is shown by running the same cases through the real can-gw.

mod dispute;
pub mod filter;
pub mod modify;

use std::collections::{BTreeMap, VecDeque};

use crate::diff::case::{Case, OUTER, Step};
use crate::diff::contestant::{EINVAL, Observation};
use crate::diff::rule::Rule;
use crate::frame::{ERR, Frame};
use dispute::Way;

/// `CANFD_FDF`
const FDF: u8 = 4;

/// can-gw with its rules, the interfaces, and the processor's queue of received frames.
pub struct Model {
    max_hops: u32,
    /// Whether this kernel marks every FD frame that is sent as one.
    marks_fd: bool,
    /// Newest first.
    jobs: Vec<Job>,
    /// How many there have been.
    made: u32,
    queue: VecDeque<Packet>,
    seen: BTreeMap<&'static str, Vec<Frame>>,
    disputed: bool,
}

/// A rule in force.
struct Job {
    number: u32,
    rule: Rule,
    /// handled, dropped, deleted
    counters: [u64; 3],
}

/// A frame that has been received.
#[derive(Clone)]
struct Packet {
    on: &'static str,
    bytes: Vec<u8>,
    /// The interface on which a program sent it.
    sender: &'static str,
    /// The interface of the gateway on which it came first.
    entry: &'static str,
    hops: u32,
    way: Way,
}

impl Model {
    /// A gateway without rules.
    #[must_use]
    pub fn new(max_hops: u8, marks_fd: bool) -> Self {
        Self {
            max_hops: max_hops.into(),
            marks_fd,
            jobs: Vec::new(),
            made: 0,
            queue: VecDeque::new(),
            seen: BTreeMap::new(),
            disputed: false,
        }
    }

    /// What is seen of a case.
    #[must_use]
    pub fn run(case: &Case, marks_fd: bool) -> Observation {
        let mut model = Self::new(case.max_hops, marks_fd);
        let mut codes = Vec::new();
        for step in &case.steps {
            codes.extend(model.step(step));
        }
        Observation {
            codes,
            list: model.list(),
            seen: model.seen,
        }
    }

    /// Does a step of a case; the exit status of `cangw`.
    pub fn step(&mut self, step: &Step) -> Option<i32> {
        match step {
            Step::Add(rule) => Some(self.add(rule)),
            Step::Delete(rule) => Some(self.delete(rule)),
            Step::Send(on, frame) => {
                self.send(on, frame);
                None
            }
        }
    }

    /// `cgw_create_job`; the exit status of `cangw -A`.
    pub fn add(&mut self, rule: &Rule) -> i32 {
        let rule = rule.kept();
        if !self.acceptable(&rule) {
            return EINVAL;
        }
        let mut jobs = self.jobs.iter_mut();
        if rule.uid != 0
            && let Some(job) = jobs.find(|job| job.rule.uid == rule.uid)
        {
            if !same_way(&job.rule, &rule) {
                return EINVAL;
            }
            job.rule.modifications = rule.modifications;
            job.rule.crc8 = rule.crc8;
            job.rule.profile = rule.profile;
            job.rule.xor = rule.xor;
            return 0;
        }
        if rule.source == rule.target && !rule.iif_tx_ok {
            return EINVAL;
        }
        self.jobs.insert(
            0,
            Job {
                number: self.made,
                rule,
                counters: [0; 3],
            },
        );
        self.made += 1;
        0
    }

    /// `cgw_remove_job`; the exit status of `cangw -D`.
    pub fn delete(&mut self, rule: &Rule) -> i32 {
        let rule = rule.kept();
        if !self.acceptable(&rule) {
            return EINVAL;
        }
        let flags = |r: &Rule| (r.fd, r.echo, r.timestamp, r.iif_tx_ok, r.limit);
        let same_changes = |have: &Rule| {
            if have.uid != 0 || rule.uid != 0 {
                have.uid == rule.uid
            } else {
                (&have.modifications, &have.crc8, &have.profile, &have.xor)
                    == (&rule.modifications, &rule.crc8, &rule.profile, &rule.xor)
            }
        };
        let found = self.jobs.iter().position(|job| {
            flags(&job.rule) == flags(&rule)
                && same_changes(&job.rule)
                && same_way(&job.rule, &rule)
        });
        found.map_or(EINVAL, |at| {
            self.jobs.remove(at);
            0
        })
    }

    /// `cgw_parse_attr`
    fn acceptable(&self, rule: &Rule) -> bool {
        let length = if rule.fd { 64 } else { 8 };
        let inside = |index: i8| index >= -length && index < length;
        let mut spans = rule.crc8.iter().map(|crc8| &crc8.span).chain(&rule.xor);
        u32::from(rule.limit) <= self.max_hops
            && spans.all(|s| inside(s.from) && inside(s.to) && inside(s.result))
    }

    /// `cangw -L`
    #[must_use]
    pub fn list(&self) -> String {
        let lines = self.jobs.iter().map(|job| job.rule.listed(job.counters));
        lines.collect()
    }

    /// The rules in force, newest first, each with a number that no other rule had.
    pub fn rules(&self) -> impl Iterator<Item = (u32, &Rule)> {
        self.jobs.iter().map(|job| (job.number, &job.rule))
    }

    /// A program sends a frame; everything that follows from it happens.
    pub fn send(&mut self, on: &'static str, frame: &Frame) {
        let packet = Packet {
            on,
            bytes: frame.bytes().to_vec(),
            sender: on,
            entry: other_end(on).filter(|_| OUTER.contains(&on)).unwrap_or(on),
            hops: 0,
            way: Way::default(),
        };
        // Programs on the outer ends do without the copy for their neighbours.
        self.can_send(packet, !OUTER.contains(&on));
        while let Some(packet) = self.queue.pop_front() {
            self.can_receive(&packet);
        }
    }

    /// Whether since the last call something happened of which the gateway that is judged makes something else on purpose.
    pub fn take_disputed(&mut self) -> bool {
        std::mem::take(&mut self.disputed)
    }

    /// `can_send`: to the other end of a pair, and to the programs on this interface, which is where echoes come from.
    fn can_send(&mut self, mut packet: Packet, echo: bool) {
        if packet.bytes.len() == 72 && self.marks_fd {
            packet.bytes[5] |= FDF;
        }
        if let Some(peer) = other_end(packet.on) {
            self.queue.push_back(Packet {
                on: peer,
                hops: 0,
                ..packet.clone()
            });
        }
        if echo {
            self.queue.push_back(packet);
        }
    }

    fn can_receive(&mut self, packet: &Packet) {
        let frame = Frame::from_bytes(&packet.bytes);
        let id = frame.id();
        // A socket for all errors gets those that have a class.
        if id & ERR == 0 || id & 0x1FFF_FFFF != 0 {
            self.seen.entry(packet.on).or_default().push(frame);
        }
        if OUTER.contains(&packet.on) {
            return;
        }
        let rules = self.jobs.iter().map(|job| &job.rule);
        let order = filter::matching(rules, packet.on, id);
        self.disputed |= !order.is_empty() && dispute::is_impossible(id);
        for job in order {
            self.can_can_gw_rcv(job, packet);
        }
    }

    fn can_can_gw_rcv(&mut self, job: usize, packet: &Packet) {
        let rules = self.jobs.iter().map(|job| &job.rule);
        let way = packet.way.echoed(rules, packet.on);
        let Job { rule, counters, .. } = &mut self.jobs[job];
        let [handled, _dropped, deleted] = counters;
        if rule.fd != (packet.bytes.len() == 72) {
            return;
        }
        if packet.hops >= self.max_hops {
            *deleted += 1;
            return;
        }
        self.disputed |= packet.way.is_disputed();
        // can-gw knows the sender's interface by a number that means something in the sender's namespace only.
        if !rule.iif_tx_ok && (rule.target == packet.sender) != (rule.target == packet.entry) {
            self.disputed = true;
        }
        if !rule.iif_tx_ok && rule.target == packet.sender {
            return;
        }
        let mut copy = packet.clone();
        copy.on = rule.target;
        copy.hops += 1;
        copy.way = way;
        if rule.limit != 0 && copy.hops == 1 {
            copy.hops = self.max_hops - u32::from(rule.limit) + 1;
        }
        if !rule.modifications.is_empty() && !modify::modify(rule, &mut copy.bytes) {
            *deleted += 1;
            return;
        }
        *handled += 1;
        let echo = rule.echo;
        self.can_send(copy, echo);
    }
}

/// Whether interfaces and filters are the same: `struct can_can_gw`.
fn same_way(a: &Rule, b: &Rule) -> bool {
    (a.source, a.target, a.filter) == (b.source, b.target, b.filter)
}

/// The other end of a vxcan pair.
#[must_use]
pub fn other_end(interface: &str) -> Option<&'static str> {
    let pairs = [("p0", "q0"), ("p1", "q1"), ("p2", "q2"), ("p3", "q3")];
    pairs.into_iter().find_map(|(inner, outer)| {
        if interface == inner {
            Some(outer)
        } else {
            (interface == outer).then_some(inner)
        }
    })
}
