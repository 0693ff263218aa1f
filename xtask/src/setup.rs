//! `cargo xtask setup`: what the other verbs need, installed when it is missing.

use anyhow::{Context, Result, anyhow, bail};

use crate::kernel::{self, Line};
use crate::workspace::{cargo, execute, step};
use crate::{apt, docker, tool, toolchain};

/// Install what building and testing need.
///
/// Each verb does its own part of this by itself; this one does all of it at once. On Debian and Ubuntu the packages come
/// through apt-get (with sudo unless root); elsewhere it says what to install. Test kernels are kept in target/kernels,
/// and Docker, for the tests, in target/docker.
#[derive(clap::Args)]
pub struct Options {
    /// Fetch the newest test kernels, also when older ones of their lines are there
    #[arg(long)]
    refresh_kernels: bool,
}

/// The linker, and the LLVM to build it with: not older than the one of the compilers it is to work for.
const LINKER_VERSION: &str = "0.13.0";
const LLVM: &str = "22";

pub fn run(options: &Options) -> Result<()> {
    compiler()?;
    guest()?;
    for line in Line::ALL {
        if options.refresh_kernels {
            kernel::fetch(line)?
        } else {
            kernel::ensure(line)?
        };
    }
    docker::ensure()?;
    step("everything is there");
    Ok(())
}

/// Sees to the linker and the compiler of the eBPF programs.
pub fn compiler() -> Result<()> {
    if toolchain::find_linker().is_err() {
        install_linker()?;
    }
    let linker = toolchain::find_linker().map_err(|error| anyhow!(error))?;
    if toolchain::find_compiler(&linker).is_err() {
        apt::install(&["rustc-web", "cargo-web", "rust-web-src"])
            .context("where there are no such packages, `rustup toolchain install nightly --component rust-src` will do as well")?;
        toolchain::find_compiler(&linker).map_err(|error| anyhow!(error))?;
    }
    Ok(())
}

fn install_linker() -> Result<()> {
    let llvm = format!("llvm-{LLVM}-dev");
    let polly = format!("libpolly-{LLVM}-dev");
    // Linking against LLVM takes a C++ runtime, which only the compiler's package has.
    apt::install(&apt::missing(&[&llvm, &polly, "libzstd-dev", "g++"]))?;
    step(format_args!("building bpf-linker {LINKER_VERSION}"));
    execute(
        cargo()
            .args([
                "install",
                "bpf-linker",
                "--quiet",
                "--locked",
                "--version",
                LINKER_VERSION,
                "--no-default-features",
            ])
            .arg(format!("--features=llvm-{LLVM}"))
            .env("LLVM_PREFIX", format!("/usr/lib/llvm-{LLVM}")),
    )
}

/// Sees to the programs that starting a guest takes.
pub fn guest() -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!(
            "guests run on x86_64 hosts only so far, and this is {}",
            std::env::consts::ARCH
        );
    }
    tool::ensure(tool::GUEST)
}
