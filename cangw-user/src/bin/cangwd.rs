//! The daemon of the CAN gateway. It does not serve anything yet: rules need no daemon, they live in the kernel.

use clap::Parser as _;

/// The daemon of the CAN gateway.
///
/// This version has nothing to do for it: the rules of `cangw` live in the kernel and need no process.
#[derive(clap::Parser)]
#[command(name = "cangwd", version)]
struct Args {}

fn main() -> anyhow::Result<()> {
    Args::parse();
    anyhow::bail!(
        "cangwd has no work yet: the rules of `cangw` live in the kernel and need no daemon"
    )
}
