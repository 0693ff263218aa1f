//! `cargo xtask build`: the programs as they are shipped.

use anyhow::Result;

use crate::setup;
use crate::workspace::{cargo, execute, step, target};

/// Build the command line and the daemon for release, into target/release.
#[derive(clap::Args)]
pub struct Options {}

pub fn run() -> Result<()> {
    setup::compiler()?;
    step("building cangw, cangwd and cangw-netavark");
    execute(cargo().args(["build", "--release", "--package", "cangw", "--bins"]))?;
    for program in ["cangw", "cangwd", "cangw-netavark"] {
        step(target().join("release").join(program).display());
    }
    Ok(())
}

/// Builds the tests of the whole workspace and the fuzzer, with checks of overflows, which a release does not have. One package by itself would need
/// all that it depends on once more, with other features.
pub fn tests() -> Result<()> {
    execute(cargo().args(["test", "--quiet", "--workspace", "--no-run"]))
}
