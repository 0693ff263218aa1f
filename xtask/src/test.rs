//! `cargo xtask test`: everything that is checked, and one line that sums it up.

mod report;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use self::report::{Count, Report};
use crate::guest::{self, Machine};
use crate::kernel::{self, Kernel, Line};
use crate::workspace::{capture, cargo, execute, forward, target};
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
/// Debian package and of daemons that are killed, for which the kernel makes no difference.
const ON_ONE: [&str; 9] = [
    "api::",
    "docker::containers_are",
    "docker::kills",
    "docker::ports::a_full_bus",
    "drop_in::cases",
    "drop_in::hops",
    "drop_in::errors",
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
            programs = end_to_end_programs()?;
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
            Work::EndToEnd(kernel) => end_to_end(kernel, &programs, options),
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

/// The executables of the end-to-end tests, as cargo reports them.
fn end_to_end_programs() -> Result<Vec<PathBuf>> {
    let messages = capture(
        cargo()
            .args([
                "test",
                "--package",
                "cangw-tests",
                "--release",
                "--no-run",
                "--message-format=json-render-diagnostics",
            ])
            .stderr(Stdio::inherit()),
    )?;
    let mut programs = Vec::new();
    for line in messages.lines() {
        let message: Value =
            serde_json::from_str(line).context("cargo printed something else than JSON")?;
        if message["reason"] == "compiler-artifact" && message["profile"]["test"] == true {
            programs.extend(message["executable"].as_str().map(PathBuf::from));
        }
    }
    if programs.is_empty() {
        bail!("the package cangw-tests has no tests");
    }
    Ok(programs)
}

/// Runs all executables in one guest, and the differential test. One after the other, and so are their tests: they share the
/// guest's CAN controllers, and the modules of its kernel.
fn end_to_end(kernel: &Kernel, programs: &[PathBuf], options: &Options) -> Result<Count> {
    // What it says about the differential test is in the words of Rust's test harness.
    const RUN_ALL: &str = r#"filter=$1; diff=$2; name=$3; cases=$4; skip=$5; shift 5
status=0
for program; do "$program" --test-threads=1 ${filter:+"$filter"} $skip || status=1; done
if [ -n "$diff" ]; then
    echo "running 1 test"
    if "$diff" --cases "$cases" --seed 1; then
        echo "test $name ... ok"
        echo "test result: ok. 1 passed; 0 failed"
    else
        echo "test $name ... FAILED"
        echo "test result: FAILED. 0 passed; 1 failed"
        status=1
    fi
fi
exit $status"#;
    let filter = options.filter.clone().unwrap_or_default();
    let diff = if options.wants_diff() {
        target().join("release/cangw-diff").into_os_string()
    } else {
        OsString::new()
    };
    let mut command: Vec<OsString> = ["sh", "-c", RUN_ALL, "run-all", &filter]
        .map(OsString::from)
        .to_vec();
    let skipped = options.skipped(kernel.line).iter();
    let skip: String = skipped.map(|name| format!("--skip {name} ")).collect();
    command.extend([diff, DIFF.into(), GUEST_CASES.into(), skip.into()]);
    command.extend(
        programs
            .iter()
            .map(|program| program.clone().into_os_string()),
    );
    let machine = Machine {
        can_hw: true,
        // dockerd and its containers take most of it.
        memory: 1536,
        timeout: options.timeout,
        ..Machine::default()
    };
    let label = format!("{:<5}", kernel.line.name());
    let outcome = guest::boot(kernel, &machine, &label, &command)?;
    let count = Count::of(&outcome.stdout);
    Ok(count.or_failed(outcome.status == 0, true))
}
