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
