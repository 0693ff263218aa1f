//! The end-to-end tests and the differential test, in guests.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::report::Count;
use super::{DIFF, EVERYWHERE, GUEST_CASES, Options};
use crate::guest::{self, Machine};
use crate::kernel::Kernel;
use crate::workspace::{capture, cargo, step, target};

/// How often a guest is booted for the tests of a kernel. The emulated processor stops now and then in code that the kernel changes
/// while another processor executes it: that says nothing about cangw. A crash that cangw causes comes again.
const BOOTS: usize = 2;

/// Where names begin of the tests that need two processors, because they change under load what carries frames. The others have one: two guests of one processor
/// each get twice as much done as two of two, whose processors wait for each other, and no processor stops in code that another one changes.
const RACES: [&str; 8] = [
    "daemon::a_route_loses",
    "fan_out::a_target",
    "flood::",
    "import::no_frame",
    "lifecycle::twenty",
    "listeners::a_listener",
    "top::",
    "topologies::a_route_loses",
];

/// An executable, with the names of its tests.
type Program = (PathBuf, Vec<String>);

/// Builds the executables, as cargo reports them, and asks them for the tests whose names contain the filter.
pub fn programs(options: &Options) -> Result<Vec<Program>> {
    let filter = options.filter.as_deref();
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
    let mut programs: Vec<Program> = Vec::new();
    for line in messages.lines() {
        let message: Value =
            serde_json::from_str(line).context("cargo printed something else than JSON")?;
        if message["reason"] == "compiler-artifact" && message["profile"]["test"] == true {
            let path = message["executable"].as_str().map(PathBuf::from);
            let path = path.context("cargo reported a test without its executable")?;
            let names = names(&path, filter)?;
            programs.push((path, names));
        }
    }
    if programs.is_empty() {
        bail!("the package cangw-tests has no tests");
    }
    if filter.is_none() {
        let is_none = |start: &&&str| !all(&programs).any(|name| name.starts_with(**start));
        if let Some(start) = EVERYWHERE.iter().chain(&RACES).find(is_none) {
            bail!(
                "no end-to-end test begins with {start}, which xtask/src/test lists: it was renamed or removed, and the list is to follow"
            );
        }
    } else if all(&programs).next().is_none() && !options.wants_diff() {
        bail!(
            "no end-to-end test has {:?} in its name; `--only host` leaves them out",
            filter.unwrap_or_default()
        );
    }
    Ok(programs)
}

fn all(programs: &[Program]) -> impl Iterator<Item = &String> {
    programs.iter().flat_map(|(_, names)| names)
}

/// What runs in one guest.
pub struct Tests {
    kernel: Kernel,
    /// Whether they need two processors.
    race: bool,
    programs: Vec<Program>,
    diff: bool,
}

impl Tests {
    /// Those that the options want on a kernel: the ones that need two processors, or the others and the differential test.
    pub fn of(programs: &[Program], options: &Options, kernel: &Kernel, race: bool) -> Self {
        let wanted = |(program, names): &Program| {
            let mut names = names.clone();
            names.retain(|name| options.wants(name, kernel.line) && races(name) == race);
            (program.clone(), names)
        };
        Self {
            kernel: kernel.clone(),
            race,
            programs: programs.iter().map(wanted).collect(),
            diff: options.wants_diff() && !race,
        }
    }

    /// Whether they need two processors.
    pub fn race(&self) -> bool {
        self.race
    }

    pub fn is_empty(&self) -> bool {
        !self.diff && all(&self.programs).next().is_none()
    }

    /// Runs them, one after the other: they share the guest's CAN controllers, and the modules of its kernel. After a crash of the guest, another
    /// one goes on with the test at which it happened.
    pub fn run(&self, seconds: u64) -> Result<Count> {
        let mut left = self.programs.clone();
        let machine = Machine {
            can_hw: true,
            processors: if self.race { 2 } else { 1 },
            // dockerd and its containers take most of it.
            memory: 1536,
            timeout: seconds,
            ..Machine::default()
        };
        let label = format!("{:<5}", self.kernel.line.name());
        let mut count = Count::default();
        let mut boot = 1;
        loop {
            let command = command(&left, self.diff);
            match guest::boot(&self.kernel, &machine, &label, &command)? {
                Ok(outcome) => {
                    count = count.and(Count::of(&outcome.stdout));
                    return Ok(count.or_failed(outcome.status == 0, true));
                }
                Err(death) if boot == BOOTS => bail!("{}, for the second time", death.message),
                Err(death) => {
                    let (before, done) = Count::of_cut_off(&death.stdout);
                    count = count.and(before);
                    for (_, names) in &mut left {
                        names.retain(|name| !done.contains(name));
                    }
                    let first = all(&left).next();
                    step(format_args!(
                        "{}\nThe emulated machine crashed in the test {}. It is booted once more, and goes on there",
                        death.message,
                        first.map_or(DIFF, String::as_str),
                    ));
                    boot += 1;
                }
            }
        }
    }
}

/// Whether a test lets several threads work on the same at the same time.
fn races(test: &str) -> bool {
    RACES.iter().any(|start| test.starts_with(start))
}

/// The tests of an executable, those that the filter leaves.
fn names(program: &Path, filter: Option<&str>) -> Result<Vec<String>> {
    let mut command = Command::new(program);
    command.args(["--list", "--format=terse"]);
    command.args(filter);
    let list = capture(&mut command)?;
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
}

/// What runs in the guest. What it says about the differential test is in the words of Rust's test harness.
fn command(programs: &[Program], diff: bool) -> Vec<OsString> {
    const RUN: &str = r#"diff=$1; name=$2; cases=$3; shift 3
status=0
while [ $# -gt 0 ]; do
    "$1" --test-threads=1 --exact $2 || status=1
    shift 2
done
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
    let mut command: Vec<OsString> = ["sh", "-c", RUN, "run"].map(OsString::from).to_vec();
    command.push(if diff {
        target().join("release/cangw-diff").into_os_string()
    } else {
        OsString::new()
    });
    command.extend([DIFF, GUEST_CASES].map(OsString::from));
    for (program, names) in programs.iter().filter(|(_, names)| !names.is_empty()) {
        command.extend([
            program.clone().into_os_string(),
            OsString::from(names.join(" ")),
        ]);
    }
    command
}
