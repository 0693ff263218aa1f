//! `cargo xtask demo`: the gateway at work.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::guest::{self, Machine};
use crate::kernel::Line;
use crate::workspace::{cargo, execute, is_root, step, target};
use crate::{build, tool};

/// Show the gateway at work.
///
/// Runs on this machine when that is possible, that is as root and with CAN in the kernel, and else in a guest.
#[derive(clap::Args)]
pub struct Options {
    /// Run in a guest, with this line of kernels
    #[arg(long)]
    kernel: Option<Line>,
    /// Arguments for the demo
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<OsString>,
}

/// The line of kernels when none is asked for.
const LINE: Line = Line::V6_12;

pub fn run(options: &Options) -> Result<u8> {
    build::run()?;
    step("building the demo");
    execute(cargo().args([
        "build",
        "--release",
        "--package",
        "cangw-tests",
        "--bin",
        "cangw-demo",
    ]))?;
    let programs = target().join("release");
    let demo = programs.join("cangw-demo");

    if options.kernel.is_none() && is_root() && has_can() {
        step("running the demo on this machine");
        let mut path = programs.into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let status = Command::new(&demo)
            .args(&options.arguments)
            .env("PATH", path)
            .status()
            .context("cannot run the demo")?;
        // A demo that a signal ended has no status.
        return Ok(status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(1));
    }
    let line = options.kernel.unwrap_or(LINE);
    step(format_args!(
        "running the demo in a guest with kernel {}",
        line.name()
    ));
    let command: Vec<_> = [demo.into_os_string()]
        .into_iter()
        .chain(options.arguments.iter().cloned())
        .collect();
    Ok(guest::run(line, &Machine::default(), &command)?.status)
}

/// Whether the running kernel has CAN, loading it where it is a module.
fn has_can() -> bool {
    let load = |program| Command::new(program).args(["--quiet", "vcan"]).status();
    Path::new("/proc/net/can").exists()
        || tool::find("modprobe")
            .is_some_and(|modprobe| load(modprobe).is_ok_and(|status| status.success()))
}
