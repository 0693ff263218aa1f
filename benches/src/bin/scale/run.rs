//! All processes of a case: their networks, their beginning, and what comes of them.

use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use cangw::kernel::clock::monotonic;
use cangw_tests::namespace::Namespace;
use cangw_tests::sys;
use serde::Serialize;
use serde_json::json;

use crate::Design;
use crate::node::{Kind, Node, Outcome};

/// Seconds that processes may need beside those of the measurement.
const LONGEST: u32 = 300;
/// From the sign to begin until all do, in nanoseconds.
const HEADSTART: u64 = 1_000_000_000;
/// UDP port of the tunnel to the first gateway.
const PORT: usize = 20_000;

/// What is measured.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    pub gateways: usize,
    pub design: Design,
    pub load: f64,
    pub flush: String,
    pub seconds: u64,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Measured {
    #[serde(flatten)]
    case: Case,
    processes: usize,
    /// Frames of all buses.
    sent: u64,
    /// Frames that were to come to buses: each to all others.
    expected: u64,
    delivered: u64,
    disordered: u64,
    /// Microseconds: what half, 99 %, 99.9 % of frames need at most.
    delay_us: [u64; 3],
    /// Processor time of all gateways for each frame that was delivered.
    processor_us_per_frame: f64,
    /// How many processors they keep busy.
    processors: f64,
    /// The same of the router alone.
    router_processors: f64,
}

impl Measured {
    pub const HEAD: &str = "| gateways | design | processes | frames/s of each | delivered/s | lost | delay 50 % | 99 % | 99.9 % | processor time a delivery | processors |\n|---|---|---|---|---|---|---|---|---|---|---|";
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case {
            gateways,
            design,
            seconds,
            ..
        } = &self.case;
        let design = format!("{design:?}").to_lowercase();
        let each = self.sent / *seconds / *gateways as u64;
        let lost = 100.0 * (1.0 - self.delivered as f64 / self.expected as f64);
        let [half, most, nearly_all] = self.delay_us.map(|us| us as f64 / 1000.0);
        write!(
            f,
            "| {gateways} | {design} | {} | {each} | {} | {lost:.2} % | {half:.2} ms | {most:.2} ms | {nearly_all:.2} ms | {:.1} µs | {:.2} |",
            self.processes,
            self.delivered / seconds,
            self.processor_us_per_frame,
            self.processors,
        )?;
        if self.router_processors > 0.0 {
            write!(f, " of these the router {:.2} |", self.router_processors)?;
        }
        Ok(())
    }
}

/// A process. It ends with this, if it has not before.
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn start(namespace: &Namespace, node: &Node) -> Result<Self> {
        let mut command: Command = namespace.command(std::env::current_exe()?);
        command
            .arg("--node")
            .arg(serde_json::to_string(node)?)
            .env("ZENOH_RUNTIME", cangw::federation::RUNTIME.1)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        sys::limit_time(&mut command, LONGEST + node.seconds as u32);
        let mut child = command.spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        Ok(Self {
            input: input.context("standard input is a pipe")?,
            output: BufReader::new(output.context("standard output is a pipe")?),
            child,
        })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 || sys::interrupted() {
            bail!("a process has ended: {}", self.child.wait()?);
        }
        Ok(line)
    }
}

/// The address of a gateway; the router's is behind all others.
fn address(number: usize) -> String {
    format!("10.77.0.{}", number + 1)
}

/// The networks of gateways, each with an address on one bridge.
fn networks(count: usize) -> Vec<Namespace> {
    let mut all = vec![Namespace::new("wire")];
    all[0].ip("link add br0 type bridge\nlink set br0 up");
    for number in 0..count {
        let gateway = Namespace::new("scale");
        all[0].ip(&format!(
            "link add p{number} type veth peer name eth0 netns {}\nlink set p{number} master br0 up",
            gateway.name()
        ));
        gateway.ip(&format!(
            "addr add {}/24 dev eth0\nlink set eth0 up",
            address(number)
        ));
        all.push(gateway);
    }
    // The bridge last: with it, those of the gateways stay until they go.
    all.rotate_left(1);
    all
}

/// What runs in which of the networks.
fn plan(case: &Case) -> Vec<(usize, Kind, bool)> {
    let count = case.gateways;
    let place = |number| format!("tcp://{}", address(number));
    let table = |number: usize, mode: &str, listen: bool, connect: Vec<String>| {
        let listen = if listen {
            vec![place(number)]
        } else {
            Vec::new()
        };
        let table = json!({
            "host": format!("host-{number}"), "mode": mode, "listen": listen, "connect": connect,
            "max_age": "60s", "flush": case.flush,
            // A router that shares the bus would hear everything, too.
            "bus": {if mode == "router" { "none" } else { "body" }: {}},
        });
        table.to_string()
    };
    let federation = |number, mode, listen, connect, others| {
        (
            number,
            Kind::Federation(table(number, mode, listen, connect), others),
            number == count,
        )
    };
    match case.design {
        Design::Peers => (0..count)
            .map(|number| {
                let connect = (0..number).map(place).collect();
                federation(number, "peer", true, connect, count - 1)
            })
            .collect(),
        Design::Router => (0..=count)
            .map(|number| {
                if number == count {
                    federation(number, "router", true, Vec::new(), count)
                } else {
                    federation(number, "client", false, vec![place(count)], count)
                }
            })
            .collect(),
        Design::Pairs => {
            let pairs = (0..count).flat_map(|a| (0..count).map(move |b| (a, b)));
            let tunnel = |(own, other): (usize, usize)| {
                let table = json!({
                    "bus": "body",
                    "listen": format!("udp://0.0.0.0:{}", PORT + other),
                    "connect": format!("udp://{}:{}", address(other), PORT + own),
                    "flush": case.flush, "max_age": "60s",
                });
                (own, Kind::Tunnel(table.to_string()), false)
            };
            pairs.filter(|(a, b)| a != b).map(tunnel).collect()
        }
    }
}

/// Runs a case.
pub fn measure(case: &Case) -> Result<Measured> {
    let plan = plan(case);
    let networks = networks(case.gateways + usize::from(case.design == Design::Router));
    let mut processes = Vec::new();
    for (number, kind, is_silent) in plan {
        let node = Node {
            number: number as u8,
            kind,
            is_silent,
            load: case.load,
            seconds: case.seconds,
        };
        processes.push((Process::start(&networks[number], &node)?, node));
    }
    for (process, _) in &mut processes {
        process.line()?;
    }
    let begin = monotonic()? + HEADSTART;
    for (process, _) in &mut processes {
        writeln!(process.input, "{begin}")?;
    }
    let mut all = Outcome::default();
    let mut router_us = 0;
    for (process, node) in &mut processes {
        let outcome: Outcome = serde_json::from_str(&process.line()?)?;
        all.sent += outcome.sent;
        all.received += outcome.received;
        all.disordered += outcome.disordered;
        all.processor_us += outcome.processor_us;
        all.delays.merge(&outcome.delays);
        if node.is_silent {
            router_us += outcome.processor_us;
        }
    }
    let others = case.gateways as u64 - 1;
    let (sent, expected) = match case.design {
        // Each process makes the traffic of its gateway again.
        Design::Pairs => (all.sent / others, all.sent),
        Design::Peers | Design::Router => (all.sent, all.sent * others),
    };
    let seconds = case.seconds as f64;
    Ok(Measured {
        case: case.clone(),
        processes: processes.len(),
        sent,
        expected,
        delivered: all.received,
        disordered: all.disordered,
        delay_us: [0.5, 0.99, 0.999].map(|part| all.delays.quantile(part)),
        processor_us_per_frame: all.processor_us as f64 / all.received as f64,
        processors: all.processor_us as f64 / 1e6 / seconds,
        router_processors: router_us as f64 / 1e6 / seconds,
    })
}
