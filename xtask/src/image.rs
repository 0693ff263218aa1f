//! `cargo xtask image`: what containers of the example in examples/containers are made of.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::tool;
use crate::workspace::{cargo, execute, step, target};

/// Make an image for containers: busybox and the ECUs of the example, linked statically.
///
/// It is target/image/cangw-car.tar, for `docker import` and `podman import`; it needs no registry.
#[derive(clap::Args)]
pub struct Options {}

const TOOLS: &[tool::Tool] = &[("busybox", "busybox-static"), ("tar", "tar")];
/// The one triple for which what runs here and what is made here differ only in how it is linked.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// Commands of busybox that are at hand in a container.
const COMMANDS: [&str; 8] = ["sh", "sleep", "cat", "ls", "ip", "nc", "ps", "kill"];

/// Makes it; its path.
pub fn run() -> Result<PathBuf> {
    tool::ensure(TOOLS)?;
    step("building car without libraries");
    execute(
        cargo()
            .args(["build", "--release", "--target", TRIPLE])
            .args(["--package", "cangw-car", "--bin", "car"])
            .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
            // Nobody debugs in a container that has nothing but these.
            .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
            .env("CARGO_PROFILE_RELEASE_STRIP", "true"),
    )?;
    let home = target().join("image");
    let _ = fs::remove_dir_all(&home);
    let files = home.join("files");
    let programs = files.join("bin");
    // Where containers find what is mounted for them.
    for folder in [&programs, &files.join("run"), &files.join("tmp")] {
        fs::create_dir_all(folder)?;
    }
    let built = target().join(TRIPLE).join("release");
    for (from, name) in [
        (tool::path("busybox")?, "busybox"),
        (built.join("car"), "car"),
    ] {
        install(&from, &programs.join(name))?;
    }
    for name in COMMANDS {
        symlink("busybox", programs.join(name))?;
    }
    let tar = home.join("cangw-car.tar");
    execute(
        Command::new("tar")
            .args(["--owner=0", "--group=0", "--sort=name", "-C"])
            .arg(&files)
            .arg("-cf")
            .arg(&tar)
            .arg("."),
    )?;
    step(tar.display());
    Ok(tar)
}

fn install(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
