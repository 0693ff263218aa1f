//! `cargo xtask bench`: the benchmarks.

use std::ffi::OsString;

use anyhow::Result;

use crate::setup;
use crate::workspace::{cargo, execute, step};

/// Run the benchmarks.
#[derive(clap::Args)]
pub struct Options {
    /// Arguments for cargo bench, such as `--bench classify -- --quick`
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGUMENT"
    )]
    arguments: Vec<OsString>,
}

pub fn run(options: &Options) -> Result<()> {
    setup::compiler()?;
    step("running the benchmarks");
    execute(
        cargo()
            .args(["bench", "--package", "cangw-benches"])
            .args(&options.arguments),
    )
}
