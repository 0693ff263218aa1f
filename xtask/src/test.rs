//! `cargo xtask test`: everything that is checked, and one line that sums it up.

mod end_to_end;
mod report;

use std::ffi::OsString;
use std::io;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use self::end_to_end::Tests;
use self::report::{Count, Report};
use crate::kernel::{self, Line};
use crate::workspace::{cargo, forward};
use crate::{bench, build, diff, dist, docker, fuzz, image, lint, setup};

/// Guests of one processor, and the like, that run at the same time.
const AT_ONCE: usize = 2;
/// Seconds for all targets of the fuzzer together.
const FUZZ_SECONDS: u32 = 65;

/// Run every check: lints, host tests, a little fuzzing, and the end-to-end tests on the test kernels.
///
/// All steps run also when one fails, except after code that does not compile. The last line is `cangw: N passed, M failed`.
#[derive(clap::Args)]
pub struct Options {
    /// Run the end-to-end tests on this line of kernels only; may be given several times
    #[arg(long, value_name = "LINE")]
    kernel: Vec<Line>,
    /// Run only the tests whose names contain this
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Run only the part on the host (lints, unit and property tests, fuzzing), or only the end-to-end tests in guests
    #[arg(long)]
    only: Option<Part>,
    /// Run all end-to-end tests on all kernels. Otherwise 6.1 and 7.2 have those of what kernels do differently, and one of each other kind
    #[arg(long)]
    all: bool,
    /// Seconds after which a guest is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 5400)]
    timeout: u64,
}

/// Name of the differential test, for --filter.
const DIFF: &str = "differential";
/// The kernel on which all end-to-end tests run.
const MAIN: Line = Line::V6_12;
/// Where names begin of the tests that also run on the other kernels: of what kernels do differently, and one of each other kind. What is missing here asks
/// the same of every kernel as these do; and drop_in::cases, ::hops and ::modify, as the differential test does on all of them.
const EVERYWHERE: [&str; 32] = [
    "buses::a_bus",
    "buses::an_ecu",
    "buses::what",
    "capture::",
    "clean::",
    "daemon::it_makes",
    "docker::ports::a_container",
    "drop_in::compat::a_mesh",
    "drop_in::errors::a_rule_back",
    "drop_in::hardware::",
    "edits::",
    "engines::",
    "fan_out::",
    "faults::damage",
    "firewall::deny_lets",
    "flood::",
    "import::rules_move",
    "lifecycle::",
    "limits::a_flood",
    "listeners::",
    "log::",
    "many::ten",
    "signals::a_checksum",
    "timestamps::",
    "topologies::a_bus",
    "topologies::ecus_share",
    "topologies::routes_lead",
    "tunnels::sctp",
    "tunnels::udp",
    "verdicts::",
    "watch::",
    "xl::",
];
/// The kernel on which instructions are counted.
const BENCH: Line = MAIN;
/// Its frames on the host.
const HOST_FRAMES: &str = "100000";
/// Its cases on each kernel. Always the same, so that a run says something about the change and not about luck; `cargo xtask diff` takes others.
const GUEST_CASES: &str = "300";

impl Options {
    /// Whether a test runs on a kernel.
    fn wants(&self, test: &str, line: Line) -> bool {
        let named = self.all || self.filter.is_some() || !self.kernel.is_empty();
        named || line == MAIN || EVERYWHERE.iter().any(|start| test.starts_with(start))
    }

    fn wants_bench(&self) -> bool {
        let line = self.kernel.is_empty() || self.kernel.contains(&BENCH);
        self.filter.is_none() && line
    }

    fn wants_diff(&self) -> bool {
        let filter = self.filter.as_deref().unwrap_or_default();
        DIFF.contains(filter)
    }
}

/// What is done beside something else.
enum Work {
    /// End-to-end tests, in a guest.
    EndToEnd(Tests),
    /// Counting the instructions that a frame costs, in a guest.
    Bench,
    /// A little fuzzing.
    Fuzz,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Host,
    Guest,
}

pub fn run(options: &Options) -> Result<u8> {
    let mut report = Report::default();
    // The report is due also when a compile error ends the run early.
    if let Err(error) = steps(options, &mut report) {
        // Why was said when the step failed.
        eprintln!("xtask: {error}");
    }
    Ok(report.finish())
}

/// Runs the steps; an error is one after which going on makes no sense, and is in the report already.
fn steps(options: &Options, report: &mut Report) -> Result<()> {
    let mut works = Vec::new();
    if options.only != Some(Part::Guest) {
        // Formatting and style do not keep the tests from running.
        let _ = report.step("lint", || lint::run().map(|()| Count::default()));
        report.step("compile host tests", || {
            build::tests().map(|()| Count::default())
        })?;
        let _ = report.step("host tests", || host(options.filter.as_deref()));
        if options.wants_diff() {
            let _ = report.step("differential test", || {
                let arguments = ["--cases", HOST_FRAMES, "--seed", "1"].map(OsString::from);
                Ok(Count::of_one(DIFF, diff::on_host(&arguments)? == 0))
            });
        }
    }
    if options.only != Some(Part::Host) {
        report.step("build", || build::run().map(|()| Count::default()))?;
        report.step("package", || dist::package().map(|_| Count::default()))?;
        report.step("image", || image::run().map(|_| Count::default()))?;
        let mut programs = Vec::new();
        report.step("compile end-to-end tests", || {
            programs = end_to_end::programs(options)?;
            Ok(Count::default())
        })?;
        if options.wants_bench() {
            report.step("build the benchmarks", || {
                bench::programs().map(|()| Count::default())
            })?;
        }
        let mut guests = Vec::new();
        report.step("kernels", || {
            setup::guest()?;
            docker::ensure()?;
            let mut lines = options.kernel.clone();
            if lines.is_empty() {
                // What takes longest begins first.
                lines.push(MAIN);
                lines.extend(Line::ALL.into_iter().filter(|&line| line != MAIN));
            }
            for line in lines {
                let name = format!("kernel {}", line.name());
                let kernel = kernel::ensure(line)?;
                for race in [false, true] {
                    let tests = Tests::of(&programs, options, &kernel, race);
                    if !tests.is_empty() {
                        guests.push((name.clone(), tests));
                    }
                }
            }
            Ok(Count::default())
        })?;
        let (racing, others): (Vec<_>, Vec<_>) =
            guests.into_iter().partition(|(_, tests)| tests.race());
        for (name, tests) in racing {
            let name = format!("{name}, 2 processors");
            let _ = report.step(name, || tests.run(options.timeout));
        }
        works.extend(
            others
                .into_iter()
                .map(|(name, tests)| (name, Work::EndToEnd(tests))),
        );
        if options.wants_bench() {
            works.push((format!("benchmark {}", BENCH.name()), Work::Bench));
        }
    }
    if options.only != Some(Part::Guest) && options.filter.is_none() {
        works.push(("fuzz".to_owned(), Work::Fuzz));
    }
    report.at_once(&works, AT_ONCE, |work| match work {
        Work::EndToEnd(tests) => tests.run(options.timeout),
        Work::Bench => Ok(Count::of_one("instructions", bench::check(BENCH)? == 0)),
        Work::Fuzz => fuzz(),
    });
    Ok(())
}

fn host(filter: Option<&str>) -> Result<Count> {
    let mut command = cargo();
    command.args(["test", "--no-fail-fast"]).args(filter);
    counted(&mut command, filter.is_none())
}

/// A little of what `cargo xtask fuzz` does.
fn fuzz() -> Result<Count> {
    let mut command = fuzz::program();
    command.args(["--total", &FUZZ_SECONDS.to_string()]);
    counted(&mut command, true)
}

/// Runs a command whose output has the form of Rust's test harness.
fn counted(command: &mut Command, want_some: bool) -> Result<Count> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let output = child
        .stdout
        .take()
        .map(|pipe| forward(pipe, io::stdout()))
        .unwrap_or_default();
    let count = Count::of(&output);
    Ok(count.or_failed(child.wait()?.success(), want_some))
}
