//! What `cangw-bench` wrote: kept, compared, and shown.

mod check;
mod page;
mod plot;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use cangw_benches::{Measured, OfKernel, Results};
use clap::{Args, Parser};

/// Keeps, compares and shows what `cangw-bench` wrote. `cargo xtask bench` calls it.
#[derive(Parser)]
enum Verb {
    /// Put the measurements of one kernel into the results, and write the page and its plots
    Add {
        #[command(flatten)]
        files: Files,
        /// The page, in which what stands between two marks is replaced
        #[arg(long)]
        page: PathBuf,
        /// The folder of the plots, beside the page
        #[arg(long)]
        plots: PathBuf,
        /// The kernel's release
        #[arg(long)]
        release: String,
        /// How to measure it again
        #[arg(long)]
        command: String,
        /// Measurements by the clock, a JSON object a line
        #[arg(long)]
        clock: PathBuf,
    },
    /// Compare measurements with the results; the exit status is 1 when one is worse
    Check {
        #[command(flatten)]
        files: Files,
    },
}

#[derive(Args)]
struct Files {
    /// The file of results
    #[arg(long)]
    results: PathBuf,
    /// The line of kernels
    #[arg(long)]
    kernel: String,
    /// Counted measurements, a JSON object a line
    #[arg(long)]
    counted: PathBuf,
}

fn main() -> Result<ExitCode> {
    match Verb::parse() {
        Verb::Add {
            files,
            page,
            plots,
            release,
            command,
            clock,
        } => {
            let mut results = results(&files.results)?;
            let measured = OfKernel {
                release,
                command,
                counted: measurements(&files.counted)?,
                clock: measurements(&clock)?,
            };
            results.insert(files.kernel, measured);
            write(
                &files.results,
                &(serde_json::to_string_pretty(&results)? + "\n"),
            )?;
            plot::all(&results, &plots)?;
            let folder = plots.file_name().unwrap_or_default().to_string_lossy();
            write(
                &page,
                &page::update(&read(&page)?, &page::numbers(&results, &folder))?,
            )?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Check { files } => {
            let results = results(&files.results)?;
            let known = results
                .get(&files.kernel)
                .with_context(|| format!("there are no results for kernel {}", files.kernel))?;
            let now = OfKernel {
                counted: measurements(&files.counted)?,
                ..known.clone()
            };
            Ok(check::compare(known, &now))
        }
    }
}

fn results(path: &Path) -> Result<Results> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text)
            .with_context(|| format!("{} is not a file of results", path.display())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Results::new()),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn measurements(path: &Path) -> Result<Vec<Measured>> {
    read(path)?
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} has other lines than measurements", path.display()))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
