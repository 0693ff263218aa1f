//! The programs that the verbs call, and the Debian packages that have them.

use std::env;
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::apt;

/// An executable and the Debian package it comes in.
pub type Tool = (&'static str, &'static str);

/// What running a guest takes: on the host to start it, and in the guest, which sees the host's files.
pub const GUEST: &[Tool] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("modprobe", "kmod"),
    ("depmod", "kmod"),
    ("xz", "xz-utils"),
    ("setpriv", "util-linux"),
    ("nsenter", "util-linux"),
    ("systemctl", "systemd"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("bpftool", "bpftool"),
    ("candump", "can-utils"),
    ("cangw", "can-utils"),
    ("tshark", "tshark"),
];

/// The folders of administration tools, which the PATH of an ordinary user leaves out.
const ADMINISTRATION: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The path of an executable.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(ADMINISTRATION.map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The path of an executable that [`ensure`] has seen to.
pub fn path(name: &str) -> Result<PathBuf> {
    match find(name) {
        Some(path) => Ok(path),
        None => bail!("{name} is not installed: run `cargo xtask setup`"),
    }
}

/// Installs the packages of those tools that are not there.
pub fn ensure(tools: &[Tool]) -> Result<()> {
    let mut packages: Vec<_> = tools
        .iter()
        .filter(|(name, _)| find(name).is_none())
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    apt::install(&packages)
}
