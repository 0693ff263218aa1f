//! `cargo xtask test`.
use anyhow::Result;
/// Test.
#[derive(clap::Args)]
pub struct Options {}
pub fn run(_: &Options) -> Result<u8> {
    anyhow::bail!("not yet")
}
