//! `cargo xtask diff`: random rules and frames, through can-gw and through ours.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::guest::Machine;
use crate::vm::{self, Lines};
use crate::workspace::{cargo, execute, step, target};
use crate::{build, setup};

/// Seconds that a guest needs for itself, and for a case at most.
const BOOT: u64 = 300;
const CASE: u64 = 3;

/// Compare the gateway with the real can-gw, and with a model of it, in random cases.
///
/// Stops at the first difference, and prints the smallest case that has it as lines for a shell.
#[derive(clap::Args)]
pub struct Options {
    /// The line of kernels, or all of them one after the other
    #[arg(long, default_value = "6.12", value_parser = vm::lines())]
    kernel: Lines,
    /// How many cases; with --host, how many frames
    #[arg(long, default_value_t = 1000)]
    cases: u64,
    /// Seed of the first case; a random one when it is not given
    #[arg(long)]
    seed: Option<u64>,
    /// On this machine, without a kernel: the model against the tables and edits of the gateway
    #[arg(long)]
    host: bool,
    /// More arguments for the test, such as `--only-hops 3`; `--help` shows them
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<OsString>,
}

pub fn run(options: &Options) -> Result<u8> {
    let mut arguments: Vec<OsString> = vec!["--cases".into(), options.cases.to_string().into()];
    if let Some(seed) = options.seed {
        arguments.extend(["--seed".into(), seed.to_string().into()]);
    }
    arguments.extend(options.arguments.iter().cloned());
    if options.host {
        return on_host(&arguments);
    }
    build::run()?;
    let machine = Machine {
        timeout: BOOT + options.cases * CASE,
        ..Machine::default()
    };
    let mut command = vec![program()?.into_os_string()];
    command.extend(arguments);
    vm::run_on(&options.kernel, &machine, &command)
}

/// Runs the part that needs no kernel.
pub fn on_host(arguments: &[OsString]) -> Result<u8> {
    let status = Command::new(program()?)
        .arg("--host")
        .args(arguments)
        .status()
        .context("cannot run the differential test")?;
    Ok(u8::from(!status.success()))
}

/// Builds the test.
fn program() -> Result<PathBuf> {
    setup::compiler()?;
    step("building the differential test");
    execute(cargo().args([
        "build",
        "--release",
        "--package",
        "cangw-tests",
        "--bin",
        "cangw-diff",
    ]))?;
    Ok(target().join("release").join("cangw-diff"))
}
