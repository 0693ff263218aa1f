//! Where things are, and how commands are run and announced.

use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail};

/// The folder of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the workspace")
}

/// cargo's target folder, where everything that can be made again is kept.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |folder| root().join(folder))
}

/// Says on standard error what is being done: standard output belongs to what runs.
pub fn step(what: impl std::fmt::Display) {
    eprintln!("xtask: {what}");
}

/// cargo, at the workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // `cargo run` sets these for xtask; in a nested cargo they would make every build script that watches them run again.
    for (name, _) in env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"CARGO_PKG_")
            || name == "CARGO_MANIFEST_DIR"
            || name == "CARGO_MANIFEST_PATH"
        {
            command.env_remove(name);
        }
    }
    command.current_dir(root());
    command
}

/// Runs a command whose output the user sees, and fails when it does.
pub fn execute(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", describe(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", describe(command));
    }
    Ok(())
}

/// Runs a command and returns its standard output as text.
pub fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", describe(command)))?;
    if !output.status.success() {
        bail!(
            "{} failed ({}): {}",
            describe(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("{} printed something else than UTF-8", describe(command)))
}

/// Copies what comes through a pipe as it comes, and returns it all.
pub fn forward(mut from: impl Read, mut to: impl Write) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 65536];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        // When nobody reads our output any more, the command still runs to its end.
        let _ = to.write_all(&buffer[..length]).and_then(|()| to.flush());
        all.extend(&buffer[..length]);
    }
    all
}

/// Writes whole lines, each beginning with a label; without one, everything as it comes.
pub struct Labelled<'a, W: Write> {
    label: &'a str,
    to: W,
    line: Vec<u8>,
}

impl<'a, W: Write> Labelled<'a, W> {
    pub fn new(label: &'a str, to: W) -> Self {
        Self {
            label,
            to,
            line: Vec::new(),
        }
    }
}

impl<W: Write> Write for Labelled<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.label.is_empty() {
            return self.to.write(bytes);
        }
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.is_empty() {
                self.line.extend(self.label.as_bytes());
            }
            self.line.extend(part);
            if part.ends_with(b"\n") {
                self.to.write_all(&self.line)?;
                self.line.clear();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl<W: Write> Drop for Labelled<'_, W> {
    fn drop(&mut self) {
        // Whoever wrote did not end its last line.
        let _ = self.to.write_all(&self.line);
    }
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn describe(command: &Command) -> String {
    // Without its folder, so that the user can run it again as it is shown.
    let program = Path::new(command.get_program());
    let mut words = vec![
        program
            .file_name()
            .unwrap_or(program.as_os_str())
            .to_string_lossy(),
    ];
    words.extend(command.get_args().map(|word| word.to_string_lossy()));
    let mut text = words.join(" ");
    if let Some((at, _)) = text.char_indices().nth(120) {
        text.truncate(at);
        text.push('…');
    }
    format!("`{text}`")
}
