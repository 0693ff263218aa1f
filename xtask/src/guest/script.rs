//! The scripts that run in a guest: fixed texts beneath assignments of what differs between runs.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Machine;
use crate::kernel::Kernel;
use crate::{docker, workspace};

const FOLDERS_OF_PROGRAMS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The script of the initramfs.
pub fn init(shares: &[PathBuf], start: &Path) -> Vec<u8> {
    let mut script = b"#!/bin/busybox sh\nPATH=/bin\n".to_vec();
    let shares: Vec<_> = shares.iter().map(|share| share.as_os_str()).collect();
    assign(&mut script, "shares", &shares.join(OsStr::new("\n")));
    assign(&mut script, "start", start.as_os_str());
    script.extend(include_bytes!("init.sh"));
    script
}

/// The script that goes on once the host's files are the root.
pub fn start(folder: &Path, kernel: &Kernel, machine: &Machine, command: &[OsString]) -> Vec<u8> {
    let mut script = Vec::new();
    assign(&mut script, "run", folder.as_os_str());
    assign(&mut script, "modules", kernel.folder.as_os_str());
    assign(
        &mut script,
        "max_hops",
        machine.max_hops.to_string().as_ref(),
    );
    script.extend(b"command() {\n    cd ");
    script.extend(quote(workspace::root().as_os_str()));
    script.extend(b" && exec env -i MODPROBE_OPTIONS=\"$MODPROBE_OPTIONS\"");
    for word in environment().iter().chain(command) {
        script.push(b' ');
        script.extend(quote(word));
    }
    script.extend(b"\n}\n");
    script.extend(include_bytes!("start.sh"));
    script
}

/// The program through which the guest's kernel loads modules.
pub fn modprobe(program: &Path, kernel: &Kernel) -> Vec<u8> {
    [
        b"#!/bin/sh\nexec ",
        quote(program.as_os_str()).as_slice(),
        b" --dirname=",
        &quote(kernel.folder.as_os_str()),
        b" \"$@\"\n",
    ]
    .concat()
}

/// The command's environment, as assignments: a clean one and what tests and programs may be told from outside.
fn environment() -> Vec<OsString> {
    let mut path = workspace::target().join("release").into_os_string();
    path.push(":");
    path.push(FOLDERS_OF_PROGRAMS);
    let docker = docker::folder().into_os_string();
    let fixed = [
        ("HOME".into(), "/root".into()),
        ("PATH".into(), path),
        ("CANGW_TEST_DOCKER".into(), docker),
    ];
    let passed = env::vars_os().filter(|(name, _)| {
        let name = name.as_bytes();
        matches!(name, b"CI" | b"TERM" | b"RUST_BACKTRACE" | b"RUST_LOG")
            || name.starts_with(b"CANGW_")
            || name.starts_with(b"PROPTEST_")
    });
    fixed
        .into_iter()
        .chain(passed)
        .map(|(mut name, value): (OsString, OsString)| {
            name.push("=");
            name.push(value);
            name
        })
        .collect()
}

fn assign(script: &mut Vec<u8>, name: &str, value: &OsStr) {
    script.extend(name.bytes());
    script.push(b'=');
    script.extend(quote(value));
    script.push(b'\n');
}

/// A word as the shell reads it back unchanged.
fn quote(word: &OsStr) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend(br"'\''"),
            other => quoted.push(*other),
        }
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_shell_reads_quoted_words_back() {
        let words = [
            "",
            "a b",
            "it's",
            "$HOME `x` \\ \"",
            "two\nlines",
            "*",
            "-n",
        ];
        let script = [
            b"printf '%s|' ".to_vec(),
            words.map(|word| quote(word.as_ref())).join(&b' '),
        ]
        .concat();
        let output = Command::new("sh")
            .arg("-c")
            .arg(OsStr::from_bytes(&script))
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            words.join("|") + "|"
        );
    }
}
