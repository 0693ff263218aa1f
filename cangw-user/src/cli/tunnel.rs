//! `cangw tunnel`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::output;
use crate::api::client::Door;
use crate::api::refused;
use crate::api::service::{TunnelAdd, TunnelList, TunnelRemove};
use crate::error::{Error, Result};
use crate::ids::IdRange;
use crate::limits::Rate;
use crate::tunnel::board::TunnelReport;
use crate::tunnel::config::{Span, TunnelTable};
use crate::tunnel::endpoint::Endpoint;

#[derive(Subcommand, Debug)]
pub enum TunnelCommand {
    /// Make a tunnel; cangwd keeps it, also when it starts again
    ///
    /// It listens for many clients (--listen and --client), or goes to one peer (--connect). Those of a topology are in its file.
    Add {
        /// Its name
        name: String,
        #[command(flatten)]
        tunnel: Box<TunnelArgs>,
    },
    /// End a tunnel that was added
    Remove {
        /// Its name
        name: String,
    },
    /// List the tunnels with their peers
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// What a tunnel is told.
#[derive(Args, Debug)]
pub struct TunnelArgs {
    /// A bus of a topology that is up, or TOPOLOGY.BUS
    #[arg(long, value_name = "BUS")]
    pub bus: String,
    /// Where clients come to, such as udp://0.0.0.0:20000; with --connect, where datagrams are sent from
    #[arg(long, value_name = "ENDPOINT", required_unless_present = "connect")]
    pub listen: Option<Endpoint>,
    /// The peer to go to: udp, tcp or sctp://HOST:PORT, ws or wss://HOST/PATH
    #[arg(long, value_name = "ENDPOINT")]
    pub connect: Option<Endpoint>,
    /// Address or network of clients that may come
    #[arg(long, value_name = "NETWORK")]
    pub client: Vec<String>,
    /// How many may be there at once [default: 16]
    #[arg(long, value_name = "NUMBER")]
    pub max_clients: Option<u16>,
    /// How long a frame waits for others to share a datagram [default: 100ms]
    #[arg(long, value_name = "TIME")]
    pub flush: Option<Span>,
    /// The same for an identifier, where it is shorter
    #[arg(long, value_name = "ID=TIME", value_parser = flush_id)]
    pub flush_id: Vec<(String, Span)>,
    /// Order the frames of a datagram by identifier
    #[arg(long)]
    pub sort: bool,
    /// Bytes of a packet, at most [default: 1500]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u16>,
    /// Do not send frames that are older [default: 1s]
    #[arg(long, value_name = "TIME")]
    pub max_age: Option<Span>,
    /// Silence after which a peer is stale [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub stale: Option<Span>,
    /// How often a datagram without frames says that this end is there
    #[arg(long, value_name = "TIME")]
    pub heartbeat: Option<Span>,
    /// wss: file of this end's certificate (PEM); a server needs it
    #[arg(long, value_name = "FILE", requires = "key")]
    pub certificate: Option<PathBuf>,
    /// wss: file of the certificate's key
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,
    /// wss: file of the authorities that vouch for the other end; with it, a server asks clients for certificates
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// ws, wss: a page of browsers that may come, such as https://bench.example
    #[arg(long, value_name = "ORIGIN")]
    pub origin: Vec<String>,
    /// Identifiers that may come from the network, as in 123,200-2FF,18FEF100 [default: all]
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub allow: Vec<IdRange>,
    /// Identifiers that go to the network [default: all]
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub filter: Vec<IdRange>,
    /// At most so many frames come from each peer, such as 100/s
    #[arg(long, value_name = "RATE")]
    pub rate: Option<Rate>,
}

fn flush_id(text: &str) -> std::result::Result<(String, Span), String> {
    let (id, span) = text
        .split_once('=')
        .ok_or("expected an identifier and a time, such as 1F0=1ms")?;
    Ok((id.to_owned(), span.parse()?))
}

pub(super) fn run(command: TunnelCommand) -> Result<()> {
    let mut client = Door::daemon("tunnels are run")?;
    match command {
        TunnelCommand::Add { name, tunnel } => {
            let mut tunnel = table(*tunnel);
            // The daemon has another folder.
            if tunnel.has_relative_files() {
                let here = std::env::current_dir();
                let here = here.map_err(|e| Error::io("find the current folder", e))?;
                tunnel.place_files(Some(&here)).map_err(refused)?;
            }
            let done = client.call(TunnelAdd { name, tunnel })?;
            done.notes.iter().for_each(|note| eprintln!("{note}"));
            Ok(())
        }
        TunnelCommand::Remove { name } => client.call(TunnelRemove { name }).map(drop),
        TunnelCommand::List { json } => {
            let all = client.call(TunnelList {})?;
            if json {
                return output::json(&all);
            }
            output::print(|out| all.iter().try_for_each(|tunnel| write(out, "", tunnel)))
        }
    }
}

fn table(args: TunnelArgs) -> TunnelTable {
    TunnelTable {
        bus: args.bus,
        listen: args.listen,
        connect: args.connect,
        clients: args.client,
        max_clients: args.max_clients,
        flush: args.flush,
        flush_ids: args.flush_id.into_iter().collect(),
        sort: args.sort,
        mtu: args.mtu,
        max_age: args.max_age,
        stale: args.stale,
        heartbeat: args.heartbeat,
        certificate: args.certificate,
        key: args.key,
        ca: args.ca,
        origins: args.origin,
        allow: args.allow,
        filter: args.filter,
        rate: args.rate,
    }
}

/// A tunnel with its peers, for people. What is 0 is not told, except frames.
pub(super) fn write(
    out: &mut dyn std::io::Write,
    indent: &str,
    tunnel: &TunnelReport,
) -> std::io::Result<()> {
    let TunnelReport {
        topology,
        name,
        bus,
        endpoint,
        ..
    } = tunnel;
    write!(
        out,
        "{indent}tunnel {name}: {endpoint}, bus {topology}.{bus}"
    )?;
    let counters = [
        ("strangers", tunnel.strangers),
        ("turned_away", tunnel.turned_away),
        ("overrun", tunnel.overrun),
    ];
    output::counters(out, ",", &counters, &[])?;
    output::end(out, tunnel.error.as_deref())?;
    for peer in &tunnel.peers {
        let state = peer.state.name();
        write!(out, "{indent}  {}: {state}", peer.address)?;
        output::counters(out, ",", &peer.counters.all(), &["sent", "received"])?;
        output::end(out, peer.error.as_deref())?;
    }
    Ok(())
}
