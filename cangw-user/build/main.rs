//! Compiles the eBPF programs and leaves the objects where the library embeds them from: `OUT_DIR/*.o`.

mod toolchain;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

const TARGET: &str = "bpfel-unknown-none";

/// What cargo, clippy and rustup set for this build of the host's crates and what must not reach the one of the eBPF programs:
/// it runs another compiler for another target.
const INHERITED: [&str; 15] = [
    "RUSTC",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_BOOTSTRAP",
    "RUSTDOC",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
    "CARGO",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "CARGO_UNSTABLE_BUILD_STD",
    "CLIPPY_ARGS",
    // cargo adds the host toolchain's libraries here, which are not those of the compiler that runs below.
    "LD_LIBRARY_PATH",
];

fn main() -> ExitCode {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let root = here.parent().expect("cangw-user is in the workspace");
    for source in [
        "cangw-ebpf/src",
        "cangw-ebpf/Cargo.toml",
        "cangw-common/src",
        "cangw-common/Cargo.toml",
        "Cargo.toml",
        "Cargo.lock",
        "cangw-user/build",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    match compile(root, Path::new(&variable("OUT_DIR"))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn compile(root: &Path, out: &Path) -> Result<(), String> {
    let linker = toolchain::find_linker()?;
    let compiler = toolchain::find_compiler(&linker)?;
    // aya-ebpf picks the register layout of the machine the programs will run on.
    let arch = format!(
        "--cfg=bpf_target_arch=\"{}\"",
        variable("CARGO_CFG_TARGET_ARCH")
    );
    // The verifier and the loader want BTF, which bpf-linker makes out of full debug information.
    let rustflags = [
        &arch,
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        "-Ctarget-cpu=v3",
    ]
    .join("\u{1f}");

    let target_dir = out.join("ebpf");
    let mut command = Command::new(&compiler.cargo);
    for name in INHERITED {
        command.env_remove(name);
    }
    if compiler.bootstrap {
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    command
        .args([
            "build",
            "--release",
            "--locked",
            "--package",
            "cangw-ebpf",
            "--bins",
        ])
        .args(["--target", TARGET, "-Z", "build-std=core", "--target-dir"])
        .arg(&target_dir)
        .current_dir(root)
        .env("RUSTC", &compiler.rustc)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &linker)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags)
        // The host's release profile is made for other needs.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort");
    let status = command
        .status()
        .map_err(|error| format!("cannot run {}: {error}", compiler.cargo.display()))?;
    if !status.success() {
        return Err("the eBPF programs did not compile; the compiler's messages are above".into());
    }
    for name in ["cangw-ebpf", "cangw-hub"] {
        let object = target_dir.join(TARGET).join("release").join(name);
        fs::copy(&object, out.join(name).with_extension("o"))
            .map_err(|error| format!("cannot copy {}: {error}", object.display()))?;
    }
    Ok(())
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name} for build scripts"))
}
