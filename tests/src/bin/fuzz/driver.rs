//! Runs a target for some time.

use std::collections::HashSet;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::mutate::mutate;
use crate::targets::Target;

/// Inputs that are mutated further, at most.
const CORPUS: usize = 1000;
/// The longest input, in bytes.
const LONGEST: usize = 4096;
/// An input that takes longer is one that hangs. Inputs take less than a millisecond.
const PATIENCE: Duration = Duration::from_secs(10);
/// Attempts to make a failing input shorter.
const CUTS: usize = 3000;

/// What became of a target.
pub enum Outcome {
    /// Everything was as it should be.
    Passed {
        /// Inputs that were run.
        inputs: u64,
        /// Bytes that they had together.
        bytes: u64,
        /// Outcomes that differ.
        outcomes: usize,
    },
    /// With a message.
    Failed(String),
}

/// The input that runs now, and since when.
static NOW: Mutex<Option<(Instant, &'static str, Vec<u8>)>> = Mutex::new(None);
/// What the last panic said.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// Keeps panics quiet, and watches for inputs that hang.
pub fn prepare() {
    panic::set_hook(Box::new(|info| *lock(&PANIC) = info.to_string()));
    thread::spawn(|| {
        loop {
            thread::sleep(Duration::from_secs(1));
            if let Some((since, target, input)) = &*lock(&NOW)
                && since.elapsed() > PATIENCE
            {
                println!("{target} hangs with {}", shown(input));
                println!("test fuzz::{target} ... FAILED");
                println!("test result: FAILED. 0 passed; 1 failed; the others did not run");
                process::exit(1);
            }
        }
    });
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Runs an input; the outcome's number, or what it broke.
fn run_one(target: &Target, input: &[u8]) -> Result<u64, String> {
    *lock(&NOW) = Some((Instant::now(), target.name, input.to_vec()));
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    *lock(&NOW) = None;
    outcome.map_err(|_| lock(&PANIC).clone())
}

pub fn run(target: &Target, time: Duration, seed: u64, folder: &Path) -> Outcome {
    let mut random = Rng::with_seed(seed);
    let mut corpus: Vec<Vec<u8>> = (target.seeds)();
    let mut seen = HashSet::new();
    let (mut inputs, mut bytes) = (0, 0);
    for input in corpus.clone() {
        inputs += 1;
        bytes += input.len() as u64;
        match run_one(target, &input) {
            Ok(outcome) => drop(seen.insert(outcome)),
            Err(message) => return failed(target, &input, &message, folder),
        }
    }
    let end = Instant::now() + time;
    while Instant::now() < end {
        let mut input = random.choice(&corpus).cloned().unwrap_or_default();
        let other = random.choice(&corpus).cloned().unwrap_or_default();
        mutate(&mut input, &other, target.words, &mut random);
        input.truncate(LONGEST);
        inputs += 1;
        bytes += input.len() as u64;
        match run_one(target, &input) {
            Ok(outcome) => {
                if seen.insert(outcome) && corpus.len() < CORPUS {
                    corpus.push(input);
                }
            }
            Err(message) => return failed(target, &input, &message, folder),
        }
    }
    Outcome::Passed {
        inputs,
        bytes,
        outcomes: seen.len(),
    }
}

/// Runs the input of a file.
pub fn replay(target: &Target, file: &Path) -> Outcome {
    let input = match fs::read(file) {
        Ok(input) => input,
        Err(e) => return Outcome::Failed(format!("{}: {e}", file.display())),
    };
    match run_one(target, &input) {
        Ok(_) => Outcome::Passed {
            inputs: 1,
            bytes: input.len() as u64,
            outcomes: 1,
        },
        Err(message) => Outcome::Failed(format!("{message}\nwith {}", shown(&input))),
    }
}

fn failed(target: &Target, input: &[u8], message: &str, folder: &Path) -> Outcome {
    let (input, message) = cut(target, input, message);
    let file = folder.join(target.name);
    let left = match fs::create_dir_all(folder).and_then(|()| fs::write(&file, &input)) {
        Ok(()) => format!(
            "again: cargo xtask fuzz --target {} --input {}",
            target.name,
            file.display()
        ),
        Err(e) => format!("{}: {e}", file.display()),
    };
    Outcome::Failed(format!("{message}\nwith {}\n{left}", shown(&input)))
}

/// Makes a failing input shorter, as long as it fails.
fn cut(target: &Target, input: &[u8], message: &str) -> (Vec<u8>, String) {
    let (mut input, mut message) = (input.to_vec(), message.to_owned());
    let (mut size, mut at) = (input.len().div_ceil(2), 0);
    for _ in 0..CUTS {
        if size == 0 {
            break;
        }
        if at >= input.len() {
            (size, at) = (size / 2, 0);
            continue;
        }
        let mut shorter = input.clone();
        shorter.drain(at..(at + size).min(input.len()));
        match run_one(target, &shorter) {
            Ok(_) => at += size,
            Err(why) => (input, message) = (shorter, why),
        }
    }
    (input, message)
}

fn shown(input: &[u8]) -> String {
    format!("{} bytes: \"{}\"", input.len(), input.escape_ascii())
}
