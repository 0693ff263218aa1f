//! `cargo xtask`: the chores of the project, from an empty machine to a tested gateway.

mod apt;
mod bench;
mod build;
mod demo;
mod diff;
mod dist;
mod docker;
mod fuzz;
mod guest;
mod image;
mod initramfs;
mod kernel;
mod lint;
mod setup;
mod test;
mod tool;
#[path = "../../cangw-user/build/toolchain.rs"]
#[expect(dead_code, reason = "what is found is for the build script to use")]
mod toolchain;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

/// The chores of the CAN gateway. Each verb first sets up what it needs.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Verb {
    Setup(setup::Options),
    Build(build::Options),
    Test(test::Options),
    Demo(demo::Options),
    Diff(diff::Options),
    Vm(vm::Options),
    Lint(lint::Options),
    Bench(bench::Options),
    Fuzz(fuzz::Options),
    Dist(dist::Options),
    Image(image::Options),
}

fn main() -> ExitCode {
    let outcome = match Verb::parse() {
        Verb::Setup(options) => setup::run(&options).map(|()| 0),
        Verb::Build(_) => build::run().map(|()| 0),
        Verb::Test(options) => test::run(&options),
        Verb::Demo(options) => demo::run(&options),
        Verb::Diff(options) => diff::run(&options),
        Verb::Vm(options) => vm::run(&options),
        Verb::Lint(_) => lint::run().map(|()| 0),
        Verb::Bench(options) => bench::run(&options),
        Verb::Dist(_) => dist::run().map(|()| 0),
        Verb::Image(_) => image::run().map(|_| 0),
        Verb::Fuzz(options) => fuzz::run(&options).map(|()| 0),
    };
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
