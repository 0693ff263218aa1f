//! `cargo xtask lint`: formatting and clippy.

use anyhow::Result;

use crate::setup;
use crate::workspace::{cargo, execute, step};

/// Check the formatting, and run clippy with warnings as errors.
#[derive(clap::Args)]
pub struct Options {}

pub fn run() -> Result<()> {
    // The library's build script compiles the eBPF programs, for clippy too.
    setup::compiler()?;
    step("checking the formatting");
    execute(cargo().args(["fmt", "--all", "--check"]))?;
    step("running clippy");
    execute(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ]))
}
