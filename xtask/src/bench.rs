//! `cargo xtask bench`: what a frame costs, in guests that count instructions.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::guest::{self, Machine};
use crate::kernel::{self, Line};
use crate::vm::{self, Lines};
use crate::workspace::{cargo, execute, root, step, target};
use crate::{build, setup};

/// Seconds for all measurements of one kernel at most.
const LONGEST: u64 = 3600;
/// Where the results are kept, in the workspace.
const RESULTS: &str = "docs/performance.json";
const PAGE: &str = "docs/performance.md";
const PLOTS: &str = "docs/performance";

/// Measure what a frame costs: no gateway, can-gw, ours in every engine, many rules, many targets.
///
/// Counts instructions in a guest, then takes the time in another, and writes docs/performance.json, docs/performance.md and its
/// plots. `cargo bench` has the benchmarks that need no guest.
#[derive(clap::Args)]
pub struct Options {
    /// The line of kernels, or all of them one after the other
    #[arg(long, default_value = "6.12", value_parser = vm::lines())]
    kernel: Lines,
    /// Only compare with docs/performance.json; fails when a frame costs over 3 % more instructions
    #[arg(long)]
    check: bool,
    /// Only measurements whose names contain this; shown, and not written
    #[arg(long, conflicts_with = "check", value_name = "NAME")]
    filter: Option<String>,
}

pub fn run(options: &Options) -> Result<u8> {
    build::run()?;
    setup::guest()?;
    programs()?;
    let mut status = 0;
    for &line in &options.kernel.0 {
        step(format_args!("kernel {}", line.name()));
        status = status.max(of_kernel(line, options)?);
    }
    Ok(status)
}

fn of_kernel(line: Line, options: &Options) -> Result<u8> {
    if options.check {
        return check(line);
    }
    if let Some(filter) = &options.filter {
        measure(line, "filtered", &["--filter", filter])?;
        return Ok(0);
    }
    let counted = measure(line, "counted", &[])?;
    let clock = measure(line, "clock", &["--clock"])?;
    let release = kernel::ensure(line)?.release;
    execute(
        report("add", line, &counted)
            .arg("--page")
            .arg(root().join(PAGE))
            .arg("--plots")
            .arg(root().join(PLOTS))
            .args(["--release", &release])
            .args([
                "--command",
                &format!("cargo xtask bench --kernel {}", line.name()),
            ])
            .arg("--clock")
            .arg(clock),
    )?;
    step(format_args!("{PAGE} is up to date"));
    Ok(0)
}

/// Compares with the results that are kept: not all of them, so that it takes a few minutes.
pub fn check(line: Line) -> Result<u8> {
    let counted = measure(line, "check", &["--quick"])?;
    let status = report("check", line, &counted)
        .status()
        .context("cannot run cangw-report")?;
    Ok(u8::from(!status.success()))
}

/// Builds what is run here.
pub fn programs() -> Result<()> {
    step("building the benchmarks");
    execute(cargo().args(["build", "--release", "--package", "cangw-benches", "--bins"]))
}

/// Runs the measurements in a guest; the file with what it wrote.
fn measure(line: Line, what: &str, arguments: &[&str]) -> Result<PathBuf> {
    let machine = Machine {
        icount: what != "clock",
        memory: 2048,
        timeout: LONGEST,
        ..Machine::default()
    };
    let mut command: Vec<OsString> = vec![program("cangw-bench").into_os_string()];
    command.extend(arguments.iter().map(OsString::from));
    let outcome = guest::run(line, &machine, &command)?;
    if outcome.status != 0 {
        bail!("cangw-bench failed on kernel {}", line.name());
    }
    let folder = target().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(format!("{}-{what}.jsonl", line.name()));
    fs::write(&path, &outcome.stdout)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn report(verb: &str, line: Line, counted: &Path) -> Command {
    let mut command = Command::new(program("cangw-report"));
    command
        .arg(verb)
        .arg("--results")
        .arg(root().join(RESULTS))
        .args(["--kernel", line.name()])
        .arg("--counted")
        .arg(counted);
    command
}

fn program(name: &str) -> PathBuf {
    target().join("release").join(name)
}
