//! The cases, one after the other, until two contestants differ.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cangw_tests::diff::case::Case;
use cangw_tests::diff::contestant::Observation;
use cangw_tests::diff::generate;
use cangw_tests::diff::shrink::shrink;
use cangw_tests::frame::Frame;
use cangw_tests::keeper::Keeper;
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
    /// Both on processors of their own, which they share with others of other contests.
    fn start(options: &Options, number: usize) -> Self {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let can_gw = Worker::start(Cangw::CanUtils, number % processors);
        let ours =
            (!options.without_ours).then(|| Worker::start(Cangw::Ours, (number + 1) % processors));
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
    let _expedited = Expedited::begin();
    let _keeper = (!options.without_ours).then(Keeper::begin);
    let mut contests: Vec<_> = (0..options.contests)
        .map(|number| Contest::start(options, number))
        .collect();
    let before = std::fs::read_to_string("/sys/module/can_gw/parameters/max_hops");
    let same = all(&mut contests, options, &cases, seed);
    if let Some(hops) = before.ok().and_then(|text| text.trim().parse().ok()) {
        contests[0].can_gw.set_max_hops(hops);
    }
    same
}

fn all(contests: &mut [Contest], options: &Options, cases: &[(u64, Case)], first: u64) -> bool {
    let progress = Mutex::new(Progress::default());
    for of_hops in cases.chunk_by(|(_, a), (_, b)| a.max_hops == b.max_hops) {
        let hops = of_hops[0].1.max_hops;
        // It is the module's, for all namespaces.
        contests[0].can_gw.set_max_hops(hops);
        for contest in &mut *contests {
            if let Some(ours) = &contest.ours {
                ours.set_max_hops(hops);
            }
        }
        let next = &Mutex::new(of_hops.iter());
        let (differs, progress) = (&AtomicBool::new(false), &progress);
        thread::scope(|scope| {
            for contest in &mut *contests {
                scope.spawn(move || {
                    while let Some((seed, case)) = take(next, differs) {
                        let way = way(seed - first, options.commands_every);
                        let seen = contest.run(case, way);
                        let who = [Who::Model, Who::Ours]
                            .into_iter()
                            .find(|who| seen.difference(*who).is_some());
                        if let Some(who) = who {
                            if !differs.swap(true, Ordering::Relaxed) {
                                report(contest, *seed, case, way, who);
                            }
                            return;
                        }
                        lock(progress).add(case);
                    }
                });
            }
        });
        if differs.load(Ordering::Relaxed) {
            return false;
        }
    }
    lock(&progress).sum_up(first);
    true
}

/// The next case, unless one has differed.
fn take<'a>(
    cases: &Mutex<impl Iterator<Item = &'a (u64, Case)>>,
    differs: &AtomicBool,
) -> Option<&'a (u64, Case)> {
    if differs.load(Ordering::Relaxed) {
        return None;
    }
    lock(cases).next()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What has been run without a difference.
struct Progress {
    start: Instant,
    told: Instant,
    cases: usize,
    frames: usize,
    rules: usize,
}

impl Default for Progress {
    fn default() -> Self {
        let start = Instant::now();
        Self {
            start,
            told: start,
            cases: 0,
            frames: 0,
            rules: 0,
        }
    }
}

impl Progress {
    fn add(&mut self, case: &Case) {
        self.cases += 1;
        self.frames += case.frames();
        self.rules += case.rules();
        if self.told.elapsed() > PROGRESS {
            self.told = Instant::now();
            println!("{} cases, {:.1} a second", self.cases, self.rate());
        }
    }

    fn rate(&self) -> f64 {
        self.cases as f64 / self.start.elapsed().as_secs_f64()
    }

    fn sum_up(&self, first: u64) {
        let Self {
            cases,
            frames,
            rules,
            ..
        } = self;
        let (seconds, rate) = (self.start.elapsed().as_secs(), self.rate());
        println!(
            "cangw-diff: {cases} cases, {frames} frames, {rules} rules without a difference in {seconds} s, {rate:.1} cases a second, seed {first}"
        );
    }
}

/// Lets the kernel wait for its readers at once instead of after some ticks, as long as this lives: each change of tables waits.
struct Expedited(String);

const RCU_EXPEDITED: &str = "/sys/kernel/rcu_expedited";

impl Expedited {
    fn begin() -> Option<Self> {
        let before = std::fs::read_to_string(RCU_EXPEDITED).ok()?;
        std::fs::write(RCU_EXPEDITED, "1").ok()?;
        Some(Self(before))
    }
}

impl Drop for Expedited {
    fn drop(&mut self) {
        // A number of bytes at most: it was read from there.
        let _ = std::fs::write(RCU_EXPEDITED, &self.0);
    }
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
