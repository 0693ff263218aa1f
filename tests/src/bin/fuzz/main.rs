//! Feeds everything that reads foreign text or bytes with inputs that are almost right.
//!
//! It runs with the compiler that builds the rest: inputs are mutated at random from examples, and those with an outcome that
//! was not seen before are kept and mutated further. What a target promises is checked for each input; the first
//! failure is cut down and left in a file.

mod driver;
mod mutate;
mod targets;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use driver::Outcome;
use targets::Target;

/// Fuzz the parsers and codecs of the CAN gateway.
#[derive(Parser)]
struct Options {
    /// Only this target; may be given several times
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Seconds for all targets together, instead
    #[arg(long, conflicts_with = "seconds")]
    total: Option<f64>,
    /// Where the random numbers begin; another one gives other inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only run this input, which an earlier run left
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The folder for inputs that failed
    #[arg(long, default_value = "target/fuzz")]
    folder: PathBuf,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let all = targets::all();
    let known = |name: &&String| all.iter().any(|target| target.name == **name);
    if let Some(unknown) = options.target.iter().find(|name| !known(name)) {
        let names: Vec<_> = all.iter().map(|target| target.name).collect();
        eprintln!("there is no target {unknown}, but: {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    let wanted = |target: &&Target| {
        options.target.is_empty() || options.target.iter().any(|name| name == target.name)
    };
    let chosen: Vec<&Target> = all.iter().filter(wanted).collect();
    let time = match options.total {
        Some(total) => total / chosen.len() as f64,
        None => options.seconds,
    };
    driver::prepare();
    let start = Instant::now();
    let mut failed = 0;
    // As Rust's test harness has it, for programs that count.
    println!("running {} tests", chosen.len());
    for target in &chosen {
        let outcome = match &options.input {
            Some(file) => driver::replay(target, file),
            None => driver::run(
                target,
                Duration::from_secs_f64(time),
                options.seed,
                &options.folder,
            ),
        };
        match outcome {
            Outcome::Passed {
                inputs,
                bytes,
                outcomes,
            } => {
                println!("{inputs} inputs, {bytes} bytes, with {outcomes} outcomes");
                println!("test fuzz::{} ... ok", target.name);
            }
            Outcome::Failed(message) => {
                println!("{message}");
                println!("test fuzz::{} ... FAILED", target.name);
                failed += 1;
            }
        }
    }
    let (word, passed) = (
        if failed == 0 { "ok" } else { "FAILED" },
        chosen.len() - failed,
    );
    println!(
        "test result: {word}. {passed} passed; {failed} failed; finished in {:.1}s",
        start.elapsed().as_secs_f64()
    );
    ExitCode::from(u8::from(failed != 0))
}
