//! How many gateways can share a bus: processes in network namespaces on one bridge, each with a vehicle's traffic.
//!
//! Buses are pairs of sockets here instead of vxcan, so that it runs on machines without CAN. What is measured is the way between gateways.

mod delays;
mod node;
mod run;

use anyhow::{Result, bail};
use cangw_tests::sys;
use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};

/// How gateways hear each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Design {
    /// A federation, each connected to each
    Peers,
    /// A federation, all connected to one router
    Router,
    /// Tunnels, a process for each pair at either end, as cannelloni does it
    Pairs,
}

/// Measure federations and tunnels of many gateways.
#[derive(Parser)]
struct Options {
    /// How many gateways
    #[arg(long, value_delimiter = ',', default_values_t = [3, 10, 30])]
    gateways: Vec<usize>,
    /// How they hear each other
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Design::Peers, Design::Router, Design::Pairs])]
    design: Vec<Design>,
    /// How much of the recording's traffic each sends
    #[arg(long, value_delimiter = ',', default_values_t = [1.0])]
    load: Vec<f64>,
    /// How long frames wait for others to share a message or a datagram
    #[arg(long, default_value = "100ms")]
    flush: String,
    /// For so many seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// As JSON, an object a line
    #[arg(long)]
    json: bool,
    /// One of the processes: what it does, as JSON
    #[arg(long, hide = true)]
    node: Option<String>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(node) = &options.node {
        return node::run(&serde_json::from_str(node)?);
    }
    if !sys::is_root() {
        bail!("network namespaces need root");
    }
    sys::catch_interrupts();
    if !options.json {
        println!("{}", run::Measured::HEAD);
    }
    for &gateways in &options.gateways {
        for &load in &options.load {
            for &design in &options.design {
                let case = run::Case {
                    gateways,
                    design,
                    load,
                    flush: options.flush.clone(),
                    seconds: options.seconds,
                };
                let measured = run::measure(&case)?;
                if options.json {
                    println!("{}", serde_json::to_string(&measured)?);
                } else {
                    println!("{measured}");
                }
            }
        }
    }
    Ok(())
}
