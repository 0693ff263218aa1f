//! The compiler and the linker of the eBPF programs, found by looking at what is installed.
//!
//! rustc ships no `core` for `bpfel-unknown-none`, so it is built from its sources (`-Z build-std=core`): a toolchain
//! qualifies by having them, and a stable one is told with `RUSTC_BOOTSTRAP` that the unstable flag is meant.
//!
//! The build script of `cangw` and `cargo xtask setup` share this file, so that they agree.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// What mends each of the errors of this file.
const REMEDY: &str = "run `cargo xtask setup`, which installs it";

/// A Rust toolchain with the sources of `core`.
#[derive(Debug)]
pub struct Compiler {
    pub cargo: PathBuf,
    pub rustc: PathBuf,
    /// A stable toolchain needs `RUSTC_BOOTSTRAP=1` for `-Z build-std`.
    pub bootstrap: bool,
}

/// Finds a compiler: a rustup nightly first, then the toolchain in use and its siblings, then the distribution's.
///
/// One whose LLVM is newer than the one of `linker` does not qualify: the linker could not read its output.
pub fn find_compiler(linker: &Path) -> Result<Compiler, String> {
    let newest_llvm = linked_llvm(linker).unwrap_or(u32::MAX);
    let siblings = rustup_toolchains();
    let (nightlies, others): (Vec<_>, Vec<_>) = siblings.into_iter().partition(|root| {
        root.file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"nightly"))
    });
    let in_use = sysroot_in_use();
    nightlies
        .into_iter()
        .chain(in_use)
        .chain(others)
        .chain([PathBuf::from("/usr")])
        .find_map(|sysroot| qualify(&sysroot, newest_llvm))
        .ok_or_else(|| {
            format!(
                "no Rust toolchain of {} or newer with the sources of `core` (rust-src) is installed, so the eBPF programs \
                 cannot be compiled: {REMEDY}",
                env!("CARGO_PKG_RUST_VERSION")
            )
        })
}

/// Finds `bpf-linker` in `PATH` and where `cargo install` puts it.
pub fn find_linker() -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    env::split_paths(&path)
        .chain(cargo_home.map(|home| home.join("bin")))
        .chain(env::home_dir().map(|home| home.join(".cargo/bin")))
        .map(|folder| folder.join("bpf-linker"))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            format!("bpf-linker is not installed, so the eBPF programs cannot be linked: {REMEDY}")
        })
}

fn rustup_toolchains() -> Vec<PathBuf> {
    let home = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".rustup")));
    let Some(entries) = home.and_then(|home| home.join("toolchains").read_dir().ok()) else {
        return Vec::new();
    };
    let mut roots: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    roots.sort();
    roots
}

fn sysroot_in_use() -> Option<PathBuf> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(PathBuf::from(
        String::from_utf8(output.stdout).ok()?.trim_end(),
    ))
}

fn qualify(sysroot: &Path, newest_llvm: u32) -> Option<Compiler> {
    let (cargo, rustc) = (sysroot.join("bin/cargo"), sysroot.join("bin/rustc"));
    let has_sources = sysroot.join("lib/rustlib/src/rust/library/core").is_dir();
    if !has_sources || !cargo.is_file() || !rustc.is_file() {
        return None;
    }
    let output = Command::new(&rustc).arg("-vV").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let release = field("release: ")?;
    let new_enough = minor(release)? >= minor(env!("CARGO_PKG_RUST_VERSION"))?;
    let readable = leading_number(field("LLVM version: ")?.as_bytes())? <= newest_llvm;
    (new_enough && readable).then(|| Compiler {
        cargo,
        rustc,
        bootstrap: !release.ends_with("-nightly"),
    })
}

/// The 95 of "1.95.0".
fn minor(version: &str) -> Option<u32> {
    version.split('.').nth(1)?.parse().ok()
}

/// The major version of the LLVM library that a program is linked with, by the library's name in it; none if it has its own.
fn linked_llvm(program: &Path) -> Option<u32> {
    let bytes = fs::read(program).ok()?;
    [b"libLLVM.so.".as_slice(), b"libLLVM-"]
        .iter()
        .find_map(|name| {
            let at = bytes
                .windows(name.len())
                .position(|window| window == *name)?;
            leading_number(&bytes[at + name.len()..])
        })
}

fn leading_number(text: &[u8]) -> Option<u32> {
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    str::from_utf8(&text[..length]).ok()?.parse().ok()
}
