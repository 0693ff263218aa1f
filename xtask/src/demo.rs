//! `cargo xtask demo`.
use anyhow::Result;
/// Demo.
#[derive(clap::Args)]
pub struct Options {}
pub fn run(_: &Options) -> Result<u8> {
    anyhow::bail!("not yet")
}
