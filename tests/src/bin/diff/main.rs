//! The differential test: random cases through the real can-gw, a model of it, and our gateway.

mod contestants;
mod host;
mod ours;
mod run;

use std::process::ExitCode;

use cangw_tests::diff::generate::Limits;
use cangw_tests::sys;
use clap::Parser;

/// Gives random rules and frames to the real can-gw, to a model of it and to our gateway, and compares what is seen.
///
/// Needs root and can-gw: `cargo xtask diff` runs it in a guest.
#[derive(Parser)]
struct Options {
    /// How many cases; with --host, how many frames, filters and edits
    #[arg(long, default_value_t = 100)]
    cases: u64,
    /// Seed of the first case; the next have the numbers after it. A random one when it is not given
    #[arg(long)]
    seed: Option<u64>,
    /// Only with this max_hops
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=6))]
    only_hops: Option<u8>,
    /// Rules without modifications only
    #[arg(long)]
    no_modifications: bool,
    /// Every so many cases, by processes of cangw alone
    #[arg(long, default_value_t = 30)]
    commands_every: u64,
    /// How many cases at once, each in namespaces of its own
    #[arg(long, default_value_t = 2, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=8))]
    contests: usize,
    /// Only the real can-gw and the model
    #[arg(long)]
    without_ours: bool,
    /// Without a kernel: the model against our tables and edits
    #[arg(long)]
    host: bool,
}

impl Options {
    fn limits(&self) -> Limits {
        let mut limits = Limits {
            modifications: !self.no_modifications,
            ..Limits::default()
        };
        if let Some(hops) = self.only_hops {
            limits.max_hops = (hops, hops);
        }
        limits
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..) >> 16);
    if options.host {
        return exit(host::run(options.cases, seed, options.limits()));
    }
    if !sys::is_root() {
        eprintln!(
            "cangw-diff: network namespaces need root; `cargo xtask diff` runs this in a guest"
        );
        return ExitCode::FAILURE;
    }
    exit(run::run(&options, seed))
}

fn exit(same: bool) -> ExitCode {
    if same {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
