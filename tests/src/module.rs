//! Modules of the kernel, by `modprobe`.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// How long a module may be in use by what was closed already, such as sockets of other tests.
const PATIENCE: Duration = Duration::from_secs(60);

fn modprobe(arguments: &[&str]) -> bool {
    let status = Command::new("modprobe").args(arguments).status();
    status.is_ok_and(|s| s.success())
}

/// Loads a module, with `name=value` for each of its parameters.
///
/// # Panics
/// When the kernel refuses it.
pub fn load(name: &str, parameters: &[&str]) {
    let arguments = [&[name], parameters].concat();
    assert!(modprobe(&arguments), "cannot load {name} {parameters:?}");
}

/// Unloads a module as soon as nobody uses it.
///
/// # Panics
/// When it stays in use.
pub fn unload(name: &str) {
    let begun = Instant::now();
    while !modprobe(&["-r", name]) {
        assert!(begun.elapsed() < PATIENCE, "{name} stays in use");
        thread::sleep(Duration::from_millis(200));
    }
}
