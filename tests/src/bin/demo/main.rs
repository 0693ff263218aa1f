//! Shows the gateway at work: ECUs in network namespaces, joined by rules, and what became of each frame.

mod network;
mod table;
mod traffic;

use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use cangw_tests::sys;
use cangw_tests::tool::{Cangw, json};

use network::Network;
use traffic::Traffic;

/// As a user would type them; the order is that of the table.
const RULES: [&str; 9] = [
    "-s engine -d dash -f 100:700",
    "-s brakes -d dash -f 1A4:C00007FF",
    "-s brakes -d dash -f 1B0:C00007FF",
    "-s dash -d brakes -f 294:7FF",
    "-s diag -d engine -f 7DF:7FF",
    "-s engine -d diag -f 7E8:7FF",
    "-s engine -d trailer -f 17C:7FF",
    "-s brakes -d app -e -f 1D0:7FF",
    "-s app -d diag",
];

/// A recording of a real car, where there is one.
const RECORDING: &str = "../shared/data/vehicle.log";
/// Frames of the dashboard that are shown.
const SHOWN: usize = 8;

fn main() -> ExitCode {
    if !sys::is_root() {
        eprintln!(
            "cangw-demo: network namespaces need root; `cargo xtask demo` runs this in a guest"
        );
        return ExitCode::FAILURE;
    }
    sys::catch_interrupts();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cangw-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    println!(
        "    bus A                         gateway              bus B
    engine  can0 ===== engine |     cangw     | dash ===== can0  dashboard
    brakes  can0 ===== brakes |  9 rules, in  | diag ===== can0  diagnostics
                              |  the kernel   | trailer (not plugged in)
                              |  app (vcan: a program on the gateway itself)

Each ECU is a network namespace, each ===== a pair of virtual CAN interfaces (vxcan).
"
    );
    let mut network = Network::new();
    for rule in RULES {
        stop_if_interrupted()?;
        println!("$ cangw -A {rule}");
        Cangw::Ours.must(&network.gateway, &format!("-A {rule}"));
    }
    let traffic = Traffic::read(Path::new(RECORDING))?;
    println!(
        "\nSending {} frames in {:.1} s: {}.\n",
        traffic.frames.len(),
        traffic.duration().as_secs_f32(),
        traffic.origin
    );
    replay(&mut network, &traffic)?;
    network.wait_for(
        Cangw::Ours
            .list(&network.gateway)
            .iter()
            .map(|rule| rule.handled)
            .sum(),
    );
    let rules = Cangw::Ours.list(&network.gateway);
    let stats = json(&network.gateway, "stats --json");
    let sound = table::print(&network, &rules, &stats);
    println!("\n$ cangw -F");
    Cangw::Ours.must(&network.gateway, "-F");
    if !sound {
        bail!("what arrived is not what the counters say");
    }
    println!("What arrived is what the counters say.");
    Ok(())
}

/// An error after Ctrl-C, on whose way out everything is removed.
fn stop_if_interrupted() -> Result<()> {
    if sys::interrupted() {
        bail!("interrupted");
    }
    Ok(())
}

/// Sends all frames at their times, and shows some that arrive and, once a second, the counters.
fn replay(network: &mut Network, traffic: &Traffic) -> Result<()> {
    let start = Instant::now();
    let mut shown = 0;
    let mut second = 1;
    for (time, ecu, frame) in &traffic.frames {
        loop {
            stop_if_interrupted()?;
            for frame in network.receive() {
                // The first few, and not all at the same moment.
                if shown < SHOWN && start.elapsed() > Duration::from_millis(100 * shown as u64) {
                    println!(
                        "{:8.3} s  dashboard received {frame}",
                        start.elapsed().as_secs_f32()
                    );
                    shown += 1;
                }
            }
            if start.elapsed() >= Duration::from_secs(second) {
                progress(network, start.elapsed());
                // On a slow machine asking may take longer than a second.
                second = start.elapsed().as_secs() + 1;
            }
            let Some(left) = time.checked_sub(start.elapsed()) else {
                break;
            };
            thread::sleep(left.min(Duration::from_millis(20)));
        }
        network.send(ecu, frame);
    }
    progress(network, start.elapsed());
    Ok(())
}

/// A line with the sums of all counters.
fn progress(network: &Network, time: Duration) {
    let rules = Cangw::Ours.list(&network.gateway);
    let sum =
        |counter: fn(&cangw_tests::tool::Listed) -> u64| rules.iter().map(counter).sum::<u64>();
    println!(
        "{:8.3} s  sent {:5}   forwarded {:5}   dropped {:4}   deleted {:4}",
        time.as_secs_f32(),
        network.sent(),
        sum(|r| r.handled),
        sum(|r| r.dropped),
        sum(|r| r.deleted)
    );
}
