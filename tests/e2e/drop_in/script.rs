//! Scripts: their lines, and what is seen when they run.

use std::fmt::Write as _;

use cangw_tests::lab::{Lab, Link};
use cangw_tests::module;
use cangw_tests::namespace::Namespace;
use cangw_tests::tool::{Cangw, Listed};

use super::frames;

/// The interfaces of a script that needs no hardware.
pub const VIRTUAL: [Link; 6] = [
    Link::Vcan("v0"),
    Link::Vcan("v1"),
    Link::Vcan("v2"),
    Link::Vxcan("x0"),
    Link::Vxcan("x1"),
    Link::Vxcan("x2"),
];

/// What is seen from outside while a script runs.
pub struct Observation {
    /// Everything, as text.
    pub text: String,
    /// handled, dropped, deleted: sums over the rules at each `total`, as the script has it.
    totals: Vec<[u64; 3]>,
}

/// Runs a script with both tools; what it shows must be the same, and as the script says.
///
/// Lines of a script:
///
///     cangw ARGUMENTS        runs the tool; exit status and standard output are compared
///     send IF SET            sends a set of frames from a local socket; what arrives on every interface is compared
///     relay IF IF SET        the same, waiting for each frame on the second interface
///     relay IF IF+IF SET     and for what it becomes on a third, where frames could else overtake each other, whoever sends them
///     ip ARGUMENTS           changes an interface
///     hops N                 sets max_hops of can-gw, or max-hops of ours
///     total H P D            compares lists and counters; the sums over all rules are handled, dropped and deleted
#[track_caller]
pub fn compare(script: &str, links: &[Link]) {
    let expected = observe(Cangw::CanUtils, script, links);
    let found = observe(Cangw::Ours, script, links);
    if expected.text != found.text {
        panic!(
            "differs from can-gw (-) in ours (+):\n{}",
            difference(&expected.text, &found.text)
        );
    }
    let wanted: Vec<_> = script.lines().filter_map(total).collect();
    assert_eq!(
        found.totals,
        wanted,
        "both are the same, but not as the script says:\n{}",
        found
            .text
            .lines()
            .filter(|line| !line.contains("frames seen on"))
            .collect::<Vec<_>>()
            .join("\n")
    );
    assert!(!wanted.is_empty(), "the script must say what it expects");
}

fn total(line: &str) -> Option<[u64; 3]> {
    let numbers = line.trim().strip_prefix("total ")?;
    let numbers: Vec<u64> = numbers
        .split_whitespace()
        .map(|n| n.parse().unwrap())
        .collect();
    numbers.try_into().ok()
}

fn observe(tool: Cangw, script: &str, links: &[Link]) -> Observation {
    let mut lab = Lab::new("dropin", links);
    let mut seen = Observation {
        text: String::new(),
        totals: Vec::new(),
    };
    let mut reload = None;
    for line in script.lines().map(str::trim).filter(|l| !l.is_empty()) {
        writeln!(seen.text, "{line}").unwrap();
        let (word, rest) = line.split_once(' ').expect("a line has two words");
        match word {
            "cangw" => {
                let answer = tool.run(&lab.namespace, rest);
                writeln!(
                    seen.text,
                    "  exit status {}\n  output {:?}",
                    answer.code, answer.stdout
                )
                .unwrap();
                // Why something failed is to be read, but in which words is left to each.
                assert!(
                    answer.code == 0 || !(answer.stderr.is_empty() && answer.stdout.is_empty())
                );
            }
            "ip" => lab.namespace.ip(rest),
            "hops" => {
                let hops = rest.parse().expect("a number of hops");
                reload
                    .get_or_insert_with(MaxHops::remember)
                    .set(tool, &lab.namespace, hops);
                lab.allow_hops(hops.into());
            }
            "total" => list(tool, &lab, &mut seen),
            "send" => {
                let (interface, set) = rest.split_once(' ').expect("an interface and a set");
                for frame in frames::set(set) {
                    lab.send(interface, &frame);
                }
            }
            "relay" => {
                let words: Vec<_> = rest.split(' ').collect();
                let [from, to, set] = words[..] else {
                    panic!("two interfaces and a set: {line}");
                };
                let mut ends = to.split('+');
                let to = ends.next().unwrap_or(to);
                for frame in frames::set(set) {
                    lab.relay(from, to, &frame);
                    for beside in ends.clone() {
                        lab.wait(beside);
                    }
                }
            }
            other => panic!("a script has no line {other}"),
        }
        for (interface, frames) in lab.take() {
            writeln!(
                seen.text,
                "  {} frames seen on {interface}: {frames:?}",
                frames.len()
            )
            .unwrap();
        }
    }
    // What is left must not disturb the other tool, nor outlive the test.
    tool.must(&lab.namespace, "-F");
    assert_eq!(tool.list(&lab.namespace), [], "after cangw -F");
    seen
}

/// The module's parameter, as it was before.
pub struct MaxHops(u8);

impl MaxHops {
    pub fn remember() -> Self {
        let text = std::fs::read_to_string("/sys/module/can_gw/parameters/max_hops")
            .expect("can-gw is loaded");
        Self(text.trim().parse().expect("max_hops is a number"))
    }

    pub fn set(&self, tool: Cangw, namespace: &Namespace, hops: u8) {
        match tool {
            Cangw::Ours => drop(tool.must(namespace, &format!("settings max-hops {hops}"))),
            Cangw::CanUtils => load(hops),
        }
    }
}

impl Drop for MaxHops {
    fn drop(&mut self) {
        load(self.0);
    }
}

/// Loads can-gw anew; its parameter cannot be changed otherwise.
fn load(max_hops: u8) {
    module::unload("can-gw");
    module::load("can-gw", &[&format!("max_hops={max_hops}")]);
}

/// `cangw -L`, without the exit status: can-utils returns the number of bytes it sent.
fn list(tool: Cangw, lab: &Lab, seen: &mut Observation) {
    let text = tool.run(&lab.namespace, "-L").stdout;
    let mut sums = [0; 3];
    for line in text.lines() {
        let Listed {
            handled,
            dropped,
            deleted,
            ..
        } = Listed::parse(line);
        for (sum, n) in sums.iter_mut().zip([handled, dropped, deleted]) {
            *sum += n;
        }
        writeln!(seen.text, "  {line}").unwrap();
    }
    seen.totals.push(sums);
}

/// The lines that differ, each after the command that it belongs to.
fn difference(expected: &str, found: &str) -> String {
    let mut text = String::new();
    let mut command = "";
    let (mut old, mut new) = (expected.lines().peekable(), found.lines().peekable());
    let detail = |line: &&str| line.starts_with("  ");
    while let (Some(a), Some(_)) = (old.next(), new.next()) {
        command = if a.is_empty() { command } else { a };
        let next = |lines: &mut std::iter::Peekable<std::str::Lines<'_>>| {
            std::iter::from_fn(|| lines.next_if(detail).map(str::to_owned)).collect::<Vec<_>>()
        };
        let (a, b) = (next(&mut old), next(&mut new));
        if a != b {
            writeln!(text, "after {command}").unwrap();
            for line in a.iter().filter(|line| !b.contains(line)) {
                writeln!(text, "-{line}").unwrap();
            }
            for line in b.iter().filter(|line| !a.contains(line)) {
                writeln!(text, "+{line}").unwrap();
            }
            if a.len() == b.len() && a.iter().all(|line| b.contains(line)) {
                writeln!(text, "  the same lines in another order").unwrap();
            }
        }
    }
    text
}
