//! The cases, one after the other, until two contestants differ.

use std::time::{Duration, Instant};

use cangw_tests::diff::case::Case;
use cangw_tests::diff::contestant::Observation;
use cangw_tests::diff::generate;
use cangw_tests::diff::shrink::shrink;
use cangw_tests::frame::Frame;
use cangw_tests::model::Model;
use cangw_tests::tool::Cangw;

use crate::Options;
use crate::contestants::{Way, Worker};

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(5);

/// The contestants.
struct Contest {
    can_gw: Worker,
    ours: Option<Worker>,
    marks_fd: bool,
}

/// What the contestants see of a case.
struct Seen {
    can_gw: Observation,
    model: Observation,
    ours: Option<Observation>,
}

/// Who differs from can-gw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Model,
    Ours,
}

impl Seen {
    fn difference(&self, who: Who) -> Option<String> {
        let other = match who {
            Who::Model => Some(&self.model),
            Who::Ours => self.ours.as_ref(),
        };
        other.and_then(|other| self.can_gw.difference(other))
    }
}

impl Contest {
    fn start(options: &Options) -> Self {
        let can_gw = Worker::start(Cangw::CanUtils, 0);
        let ours = (!options.without_ours).then(|| Worker::start(Cangw::Ours, 1));
        let mut contest = Self {
            can_gw,
            ours,
            marks_fd: true,
        };
        contest.marks_fd = contest.kernel_marks_fd();
        contest
    }

    /// Whether the kernel marks FD frames that a program sends without the mark.
    fn kernel_marks_fd(&self) -> bool {
        let mut bytes = [0; 72];
        bytes[..4].copy_from_slice(&0x123u32.to_ne_bytes());
        let case = Case {
            max_hops: 1,
            steps: vec![cangw_tests::diff::case::Step::Send(
                "vcan0",
                Frame::from_bytes(&bytes),
            )],
        };
        self.can_gw.begin(&case, Way::Direct);
        self.can_gw.end().seen["vcan0"][0].bytes()[5] != 0
    }

    fn set_max_hops(&self, hops: u8) {
        self.can_gw.set_max_hops(hops);
        if let Some(ours) = &self.ours {
            ours.set_max_hops(hops);
        }
    }

    fn run(&self, case: &Case, way: Way) -> Seen {
        self.can_gw.begin(case, way);
        if let Some(ours) = &self.ours {
            ours.begin(case, way);
        }
        Seen {
            model: Model::run(case, self.marks_fd),
            can_gw: self.can_gw.end(),
            ours: self.ours.as_ref().map(Worker::end),
        }
    }
}

/// Runs the cases; false when one differs.
pub fn run(options: &Options, seed: u64) -> bool {
    let limits = options.limits();
    let mut cases: Vec<(u64, Case)> = (seed..seed.saturating_add(options.cases))
        .map(|seed| (seed, generate::case(seed, &limits)))
        .collect();
    // can-gw is loaded again for another max_hops.
    cases.sort_by_key(|(_, case)| case.max_hops);
    println!("cangw-diff: {} cases from seed {seed}", cases.len());
    let contest = Contest::start(options);
    let before = std::fs::read_to_string("/sys/module/can_gw/parameters/max_hops");
    let same = all(&contest, options, &cases, seed);
    if let Some(hops) = before.ok().and_then(|text| text.trim().parse().ok()) {
        contest.can_gw.set_max_hops(hops);
    }
    same
}

fn all(contest: &Contest, options: &Options, cases: &[(u64, Case)], first: u64) -> bool {
    let start = Instant::now();
    let mut told = start;
    let mut hops = None;
    let (mut frames, mut rules) = (0, 0);
    for (done, (seed, case)) in cases.iter().enumerate() {
        if hops != Some(case.max_hops) {
            contest.set_max_hops(case.max_hops);
            hops = Some(case.max_hops);
        }
        let way = way(seed - first, options.commands_every);
        let seen = contest.run(case, way);
        for who in [Who::Model, Who::Ours] {
            if seen.difference(who).is_some() {
                report(contest, *seed, case, way, who);
                return false;
            }
        }
        frames += case.frames();
        rules += case.rules();
        if told.elapsed() > PROGRESS {
            told = Instant::now();
            let rate = (done + 1) as f64 / start.elapsed().as_secs_f64();
            println!("{} cases, {rate:.1} a second", done + 1);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "cangw-diff: {} cases, {frames} frames, {rules} rules without a difference in {seconds:.0} s, {:.1} cases a second, seed {first}",
        cases.len(),
        cases.len() as f64 / seconds
    );
    true
}

fn way(number: u64, commands_every: u64) -> Way {
    match number.checked_rem(commands_every) {
        Some(0) if (number / commands_every).is_multiple_of(2) => Way::Commands,
        Some(0) => Way::Load,
        _ => Way::Direct,
    }
}

/// Shows a difference, and the smallest case that has it.
fn report(contest: &Contest, seed: u64, case: &Case, way: Way, who: Who) {
    let name = match who {
        Who::Model => "the model",
        Who::Ours => "our gateway",
    };
    println!("\ncangw-diff: can-gw (-) and {name} (+) differ in the case of seed {seed} ({way:?})");
    println!("{case}");
    let seen = contest.run(case, way);
    let Some(first) = seen.difference(who) else {
        println!("the same case again shows no difference");
        return;
    };
    println!("{first}\nlooking for the smallest case that differs …");
    let mut tried = 0;
    let smallest = shrink(case, |candidate| {
        tried += 1;
        contest.run(candidate, way).difference(who).is_some()
    });
    println!("after {tried} cases this is left:\n\n{smallest}");
    let seen = contest.run(&smallest, way);
    println!("{}", seen.difference(who).unwrap_or_default());
}
