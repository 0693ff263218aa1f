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
    for what in [
        &["--workspace", "--all-targets"][..],
        // Without Zenoh.
        &["--package", "cangw", "--no-default-features"],
    ] {
        let mut clippy = cargo();
        clippy.arg("clippy").args(what);
        execute(clippy.args(["--", "--deny", "warnings"]))?;
    }
    Ok(())
}
