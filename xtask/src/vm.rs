//! `cargo xtask vm`: a command on a test kernel.

use std::ffi::OsString;

use anyhow::Result;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::guest::{self, Machine};
use crate::kernel::Line;
use crate::workspace::step;

/// Run a command as root on a test kernel, in an emulated machine.
///
/// The guest sees the host's files read-only, the project's folder read-write and as the working directory, and has
/// target/release first in its PATH. The modules for CAN and traffic control are loaded. The command's output comes as it is
/// written, and its exit status is the one of this. The console's log is left in target/vm.
#[derive(clap::Args)]
pub struct Options {
    /// The line of kernels, or all of them one after the other
    #[arg(long, default_value = "6.12", value_parser = lines())]
    kernel: Lines,
    #[command(flatten)]
    machine: Machine,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Lines of kernels, by the name of one or `all`.
#[derive(Clone)]
pub struct Lines(pub Vec<Line>);

/// Reads [`Lines`] from the command line.
pub fn lines() -> impl TypedValueParser<Value = Lines> {
    let names = Line::ALL.map(Line::name).into_iter().chain(["all"]);
    PossibleValuesParser::new(names).map(|name| {
        let wanted = |line: &Line| name == "all" || name == line.name();
        Lines(Line::ALL.into_iter().filter(wanted).collect())
    })
}

pub fn run(options: &Options) -> Result<u8> {
    run_on(&options.kernel, &options.machine, &options.command)
}

/// Runs a command on each kernel; the exit status of the last that failed.
pub fn run_on(Lines(lines): &Lines, machine: &Machine, command: &[OsString]) -> Result<u8> {
    let mut status = 0;
    for line in lines {
        if lines.len() > 1 {
            step(format_args!("kernel {}", line.name()));
        }
        // With several kernels, one that does not start is no reason to leave out the others.
        let this = match guest::run(*line, machine, command) {
            Ok(outcome) => outcome.status,
            Err(error) if lines.len() > 1 => {
                step(format_args!("{error:#}"));
                1
            }
            Err(error) => return Err(error),
        };
        if this != 0 {
            if lines.len() > 1 {
                step(format_args!("kernel {}: exit status {this}", line.name()));
            }
            status = this;
        }
    }
    Ok(status)
}
