//! `cargo xtask fuzz`: everything that reads foreign text or bytes, with inputs that are almost right.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::workspace::{execute, target};
use crate::{build, setup};

/// Fuzz the parsers and codecs: options, rule files, netlink messages, frames.
///
/// It needs no other compiler than the build. An input that breaks a promise is cut down and left in target/fuzz.
#[derive(clap::Args)]
pub struct Options {
    /// Only this target; may be given several times
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Where the random numbers begin; another one gives other inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only run this input, which an earlier run left
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

pub fn run(options: &Options) -> Result<()> {
    setup::compiler()?;
    build::tests()?;
    let mut command = program();
    for target in &options.target {
        command.args(["--target", target]);
    }
    if let Some(input) = &options.input {
        command.arg("--input").arg(input);
    }
    command.args(["--seconds", &options.seconds.to_string()]);
    command.args(["--seed", &options.seed.to_string()]);
    execute(&mut command)
}

/// The fuzzer, once the tests are built.
pub fn program() -> Command {
    let mut command = Command::new(target().join("debug/cangw-fuzz"));
    command.arg("--folder").arg(target().join("fuzz"));
    command
}
