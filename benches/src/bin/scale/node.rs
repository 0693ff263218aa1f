//! One process: a gateway of a federation, or the end of a tunnel, with a bus whose traffic it makes.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cangw::federation::config::FederationTable;
use cangw::federation::report::HostState;
use cangw::federation::{self, PortsOf};
use cangw::kernel::clock::monotonic;
use cangw::tunnel;
use cangw::tunnel::config::TunnelTable;
use cangw::tunnel::wires::Wires;
use cangw_tests::{recording, sys};
use serde::{Deserialize, Serialize};
use socket2::Socket;

use crate::delays::Delays;

/// Silence after which nothing more is expected.
const SILENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether all others are there.
const TICK: Duration = Duration::from_millis(50);

/// What the process does.
#[derive(Debug, Serialize, Deserialize)]
pub struct Node {
    /// Its place among the gateways.
    pub number: u8,
    /// What it runs.
    pub kind: Kind,
    /// Whether its bus has traffic.
    pub is_silent: bool,
    /// How much of the recording's.
    pub load: f64,
    /// For how long.
    pub seconds: u64,
}

/// What a process runs.
#[derive(Debug, Serialize, Deserialize)]
pub enum Kind {
    /// A federation, as its table, and how many other hosts it is to hear.
    Federation(String, usize),
    /// A tunnel, as its table.
    Tunnel(String),
}

/// What it measured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Frames of its bus.
    pub sent: u64,
    /// Frames that came to its bus.
    pub received: u64,
    /// Those that came before or after where they belong.
    pub disordered: u64,
    /// What they needed.
    pub delays: Delays,
    /// Processor time of the gateway, without that for the traffic, in microseconds.
    pub processor_us: u64,
}

enum Gateway {
    Federation(federation::Running, usize),
    Tunnel(#[expect(dead_code, reason = "it runs as long as this lives")] tunnel::Running),
}

impl Gateway {
    fn start(kind: &Kind, wires: &Arc<Wires>) -> Result<Self> {
        let wrong = |(key, message)| anyhow::anyhow!("{key}: {message}");
        Ok(match kind {
            Kind::Federation(table, others) => {
                let table: FederationTable = serde_json::from_str(table)?;
                let federation = table.check("scale").map_err(wrong)?;
                let bus = Arc::clone(wires) as Arc<dyn tunnel::port::Ports>;
                let buses = federation.buses.keys();
                let ports: PortsOf = buses.map(|name| (name.clone(), Arc::clone(&bus))).collect();
                Self::Federation(
                    federation::Running::start("scale", federation, ports)?,
                    *others,
                )
            }
            Kind::Tunnel(table) => {
                let table: TunnelTable = serde_json::from_str(table)?;
                let tunnel = table.check().map_err(wrong)?;
                let bus = Arc::clone(wires) as Arc<dyn tunnel::port::Ports>;
                Self::Tunnel(tunnel::Running::start("scale", tunnel, bus)?)
            }
        })
    }

    /// Whether all others are there.
    fn is_ready(&self) -> bool {
        match self {
            Self::Federation(running, others) => {
                let hosts = running.report().hosts;
                let connected = hosts.iter().filter(|h| h.state == HostState::Connected);
                connected.count() == *others
            }
            Self::Tunnel(_) => true,
        }
    }
}

/// Says when it is ready, waits for the time at which it is to begin, and says what it measured.
pub fn run(node: &Node) -> Result<()> {
    let wires = Arc::new(Wires::default());
    let gateway = Gateway::start(&node.kind, &wires)?;
    let end = wires.end(0);
    while !gateway.is_ready() {
        thread::sleep(TICK);
    }
    println!("ready");
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let begin: u64 = line.trim().parse().context("the time to begin at")?;
    let before = sys::process_time()?;
    let (mut outcome, spent) = if node.is_silent {
        thread::sleep(Duration::from_secs(node.seconds) + SILENCE);
        (Outcome::default(), Duration::ZERO)
    } else {
        be_a_bus(node, end, begin)?
    };
    let all = sys::process_time()?.saturating_sub(before);
    outcome.processor_us = all.saturating_sub(spent).as_micros() as u64;
    serde_json::to_writer(io::stdout(), &outcome)?;
    println!();
    io::stdout().flush()?;
    // Others are still at it.
    io::stdin().read_line(&mut line)?;
    Ok(())
}

/// Sends a bus's traffic, and takes what comes to it. What that was, and the time of the threads that did it.
fn be_a_bus(node: &Node, end: Socket, begin: u64) -> Result<(Outcome, Duration)> {
    let mut bus = end.try_clone()?;
    let hear = thread::spawn(move || hear(&mut bus));
    let (sent, spent) = make_traffic(node, &mut &end, begin)?;
    let Ok(heard) = hear.join() else {
        bail!("a thread failed");
    };
    let (mut outcome, heard) = heard?;
    outcome.sent = sent;
    Ok((outcome, heard + spent))
}

/// Lets the bus send the recording, again and again. How many frames, and the thread's time.
fn make_traffic(node: &Node, end: &mut impl io::Write, begin: u64) -> Result<(u64, Duration)> {
    let frames = recording::timed();
    let length = frames.last().map_or(Duration::ZERO, |(time, _)| *time) + Duration::from_millis(1);
    let length = length.as_nanos() as f64 / node.load;
    // Gateways do not send in step.
    let begin = begin as f64 + length * f64::from(node.number) / 64.0;
    let until = begin + node.seconds as f64 * 1e9;
    let mut sent = 0_u64;
    'all: for round in 0.. {
        for (since, frame) in &frames {
            let at = begin + f64::from(round) * length + since.as_nanos() as f64 / node.load;
            if at >= until {
                break 'all;
            }
            let wait = at as u64;
            let wait = wait.saturating_sub(monotonic()?);
            if wait > 0 {
                thread::sleep(Duration::from_nanos(wait));
            }
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&frame.id().to_ne_bytes());
            bytes[4] = 8;
            // Number, origin, time: what tells at the other end.
            let number = (sent as u32) << 8 | u32::from(node.number);
            bytes[8..12].copy_from_slice(&number.to_be_bytes());
            bytes[12..].copy_from_slice(&((monotonic()? / 1000) as u32).to_be_bytes());
            end.write_all(&bytes)?;
            sent += 1;
        }
    }
    Ok((sent, sys::thread_time()?))
}

/// Takes what comes to the bus until nothing more does, and the thread's time.
fn hear(end: &mut Socket) -> Result<(Outcome, Duration)> {
    // Others may begin a moment later.
    end.set_read_timeout(Some(2 * SILENCE))?;
    let mut outcome = Outcome::default();
    let mut last = BTreeMap::new();
    let mut bytes = [0; 72];
    loop {
        match end.read(&mut bytes) {
            Ok(16) => {}
            Ok(length) => bail!("a frame of {length} bytes"),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) => return Err(e.into()),
        }
        let [n0, n1, n2, origin, t0, t1, t2, t3] = bytes[8..16] else {
            continue;
        };
        let number = u32::from_be_bytes([0, n0, n1, n2]);
        let sent = u32::from_be_bytes([t0, t1, t2, t3]);
        let delay = ((monotonic()? / 1000) as u32).wrapping_sub(sent);
        outcome.received += 1;
        outcome.delays.add(delay.into());
        if last
            .insert(origin, number)
            .is_some_and(|last| last >= number)
        {
            outcome.disordered += 1;
        }
        if outcome.received == 1 {
            end.set_read_timeout(Some(SILENCE))?;
        }
    }
    Ok((outcome, sys::thread_time()?))
}
