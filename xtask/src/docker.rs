//! Docker for the end-to-end tests: Debian's packages, unpacked under target/docker and never installed.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::apt;
use crate::workspace::{execute, step, target};

/// The suites, and what is taken from each: dockerd and its client, and what they need beside what every Debian has.
const PACKAGES: [(&str, &[&str]); 2] = [
    (
        "bookworm",
        &[
            "docker.io",
            "containerd",
            "runc",
            "tini",
            "libdevmapper1.02.1",
        ],
    ),
    // The older suite has none that is one program.
    ("trixie", &["docker-compose"]),
];

/// Where it is, or will be.
pub fn folder() -> PathBuf {
    target().join("docker")
}

/// Sees to it that it is there.
pub fn ensure() -> Result<()> {
    let folder = folder();
    fs::create_dir_all(&folder)?;
    // Another xtask may be fetching it.
    let lock = File::create(folder.join("lock"))?;
    lock.lock()?;
    if folder.join("complete").exists() {
        return Ok(());
    }
    step("fetching Docker for the tests");
    fetch().context("cannot fetch Docker, which tests of container networks need")
}

fn fetch() -> Result<()> {
    let folder = folder();
    for (suite, names) in PACKAGES {
        let apt = apt::Scratch::new(&folder.join("apt"), &[suite])?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        for package in apt.download(&names)? {
            execute(
                Command::new("dpkg")
                    .arg("--extract")
                    .arg(package)
                    .arg(&folder),
            )?;
        }
        fs::remove_dir_all(folder.join("apt"))?;
    }
    File::create(folder.join("complete"))?;
    Ok(())
}
