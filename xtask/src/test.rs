//! `cargo xtask test`: everything that is checked, and one line that sums it up.

mod end_to_end;
mod report;

use std::ffi::OsString;
use std::io;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use self::report::{Count, Report};
use crate::kernel::{self, Kernel, Line};
use crate::workspace::{cargo, execute, forward};
use crate::{bench, build, diff, dist, docker, fuzz, image, lint, setup};

/// Guests that run at the same time.
const GUESTS: usize = 2;
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
    /// Run all end-to-end tests on all kernels. Otherwise those that the differential test covers in other ways (the scripts of drop_in::cases,
    /// drop_in::hops and drop_in::errors), and those of the package, the API and daemons that are killed, run on 6.12 only
    #[arg(long)]
    all: bool,
    /// Seconds after which a guest is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 5400)]
    timeout: u64,
}

/// Name of the differential test, for --filter.
const DIFF: &str = "differential";
/// Tests that compare scripts with can-gw, as the differential test compares random ones on each kernel, and those of the daemon's API, of `cangw top`, of the
/// Debian package, of federations and of daemons that are killed, for which the kernel makes no difference.
const ON_ONE: [&str; 10] = [
    "api::",
    "docker::containers_are",
    "docker::kills",
    "docker::ports::a_full_bus",
    "drop_in::cases",
    "drop_in::hops",
    "drop_in::errors",
    "federation::",
    "package::",
    "top::",
];
/// The kernel on which instructions are counted; on an idle machine that takes about as long as the tests of one.
const BENCH: Line = Line::V6_12;
/// Its frames on the host.
const HOST_FRAMES: &str = "100000";
/// Its cases on each kernel. Always the same, so that a run says something about the change and not about luck; `cargo xtask diff` takes others.
const GUEST_CASES: &str = "300";

impl Options {
    /// Tests that are left out on a kernel.
    fn skipped(&self, line: Line) -> &'static [&'static str] {
        let named = self.all || self.filter.is_some() || !self.kernel.is_empty();
        if named || line == Line::V6_12 {
            &[]
        } else {
            &ON_ONE
        }
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

/// What is done in a guest.
enum Work {
    /// The end-to-end tests and the differential test.
    EndToEnd(Kernel),
    /// Counting the instructions that a frame costs.
    Bench,
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
    if options.only != Some(Part::Guest) {
        // Formatting and style do not keep the tests from running.
        let _ = report.step("lint", || lint::run().map(|()| Count::default()));
        report.step("compile host tests", || {
            execute(cargo().args(["test", "--quiet", "--no-run"]))?;
            Ok(Count::default())
        })?;
        let _ = report.step("host tests", || host(options.filter.as_deref()));
        if options.filter.is_none() {
            let _ = report.step("fuzz", fuzz);
        }
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
            programs = end_to_end::programs()?;
            Ok(Count::default())
        })?;
        if options.wants_bench() {
            report.step("build the benchmarks", || {
                bench::programs().map(|()| Count::default())
            })?;
        }
        let mut kernels = Vec::new();
        report.step("kernels", || {
            setup::guest()?;
            docker::ensure()?;
            let all = Line::ALL.to_vec();
            let lines = if options.kernel.is_empty() {
                &all
            } else {
                &options.kernel
            };
            for &line in lines {
                let name = format!("kernel {}", line.name());
                kernels.push((name, Work::EndToEnd(kernel::ensure(line)?)));
            }
            Ok(Count::default())
        })?;
        if options.wants_bench() {
            kernels.push((format!("benchmark {}", BENCH.name()), Work::Bench));
        }
        // The tests of a guest stay on one processor, mostly.
        report.at_once(&kernels, GUESTS, |work| match work {
            Work::EndToEnd(kernel) => end_to_end::run(kernel, &programs, options),
            Work::Bench => Ok(Count::of_one("instructions", bench::check(BENCH)? == 0)),
        });
    }
    Ok(())
}

fn host(filter: Option<&str>) -> Result<Count> {
    let mut command = cargo();
    command.args(["test", "--no-fail-fast"]).args(filter);
    counted(&mut command, filter.is_none())
}

/// A little of what `cargo xtask fuzz` does.
fn fuzz() -> Result<Count> {
    let mut command = fuzz::command();
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
