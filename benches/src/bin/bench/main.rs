//! What a frame costs on its way through a gateway: from `send()` on one vxcan pair to the far end of another.
//!
//! `cargo xtask bench` runs this in guests that count instructions, where a nanosecond is an executed instruction, and
//! the numbers repeat to about 0.1 %. Everywhere else they are times of the machine.

mod cases;
mod measure;
mod scene;

use std::collections::HashMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use cangw_benches::{Measured, View, is_ours};
use cangw_tests::backlog::Backlog;
use cangw_tests::sys;
use clap::Parser;

use cases::{Case, Gateway};

/// Measures what a frame costs with and without gateways. Writes a JSON object a line, and a table to standard error.
#[derive(Parser)]
struct Options {
    /// Only what a check for regressions needs: some cases of ours, and the sender alone
    #[arg(long)]
    quick: bool,
    /// Latency and throughput by the clock instead of instructions
    #[arg(long)]
    clock: bool,
    /// Only measurements whose names contain this, beside the sender alone
    #[arg(long)]
    filter: Option<String>,
    /// Only this one of all cases, in this process
    #[arg(long, hide = true)]
    case: Option<usize>,
}

impl Options {
    fn wants(&self, case: &Case) -> bool {
        if self.clock && !(case.group == cases::PATH && case.forwards()) {
            return false;
        }
        let named = |filter: &String| case.gateway == Gateway::None || case.name().contains(filter);
        let checked = case.gateway == Gateway::None || is_ours(case.gateway.name()) && case.quick;
        (checked || !self.quick) && self.filter.as_ref().is_none_or(named)
    }
}

fn main() {
    let options = Options::parse();
    if !sys::is_root() {
        eprintln!(
            "cangw-bench: network namespaces need root; `cargo xtask bench` runs this in a guest"
        );
        std::process::exit(1);
    }
    if let Some(number) = options.case {
        println!("{}", alone(&cases::all()[number], &options));
        return;
    }
    // A batch for many targets must fit.
    let _backlog = Backlog::raise();
    let mut base = HashMap::new();
    let cases = cases::all();
    for (number, _) in (0..).zip(&cases).filter(|(_, case)| options.wants(case)) {
        let line = in_a_process(number, &options).expect("a case can be measured");
        let measured: Measured = serde_json::from_str(&line).expect("what `alone` wrote");
        show(&measured, &mut base);
        std::io::stdout()
            .write_all(line.as_bytes())
            .expect("standard output can be written");
    }
}

/// Measures a case in a process of its own: what a process has done before can make frames dearer by two percent.
fn in_a_process(number: usize, options: &Options) -> std::io::Result<String> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--case", &number.to_string()]);
    if options.clock {
        command.arg("--clock");
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        // It has said why.
        std::process::exit(1);
    }
    String::from_utf8(output.stdout).map_err(std::io::Error::other)
}

/// Measures a case; a line of JSON.
fn alone(case: &Case, options: &Options) -> String {
    let measured = if options.clock {
        measure::time(case)
    } else {
        // What the kernel puts off for a thread of its own is done before the next frame, and counted, too.
        sys::give_way().expect("a process can lower its own priority");
        measure::count(case)
    };
    serde_json::to_string(&measured).expect("numbers and texts are JSON")
}

fn show(measured: &Measured, base: &mut HashMap<String, f64>) {
    let name = &measured.name;
    match measured.view {
        View::Counted { instructions: each } => {
            if measured.gateway == cangw_benches::NO_GATEWAY {
                base.insert(measured.group.clone(), each);
            }
            let alone = base.get(&measured.group).or_else(|| base.get(cases::PATH));
            let added = alone.map_or(0.0, |alone| each - alone);
            eprintln!("{name:45} {each:8.0} {added:8.0}");
        }
        View::Clock {
            median_us,
            p99_us,
            frames_per_s,
        } => eprintln!(
            "{name:45} {median_us:8.1} us {p99_us:8.1} us (99 %) {frames_per_s:10.0} frames a second"
        ),
    }
}
