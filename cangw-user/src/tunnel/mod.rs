//! Tunnels: buses over a network, in cannelloni's protocol. docs/network.md follows a frame.
//!
//! A tunnel is a thread with an event loop of its own. Each of its peers is a port of the bus.

pub mod backoff;
pub mod board;
pub mod codec;
pub mod config;
mod connections;
mod datagrams;
pub mod endpoint;
mod link;
pub mod outgoing;
pub mod port;
mod pump;
pub mod sequence;
mod socket;
pub mod store;
pub mod tls;
mod web;
#[doc(hidden)]
pub mod wires;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::LocalSet;
use tracing::{info, warn};

use self::backoff::Backoff;
use self::board::{Board, PeerState, TunnelReport};
use self::config::Tunnel;
use self::endpoint::{Endpoint, Transport};
use self::port::{Ports, on_ports};
use crate::error::{Error, Result};
use crate::worker::Worker;

/// How long a tunnel that ends waits for what it has begun.
const ENDING: Duration = Duration::from_secs(5);

/// What all parts of a tunnel need.
#[derive(Clone)]
struct Context {
    tunnel: Arc<Tunnel>,
    ports: Arc<dyn Ports>,
    board: Arc<Board>,
}

/// A tunnel that runs. It ends when this goes.
pub struct Running {
    name: String,
    tunnel: Arc<Tunnel>,
    board: Arc<Board>,
    ports: Arc<dyn Ports>,
    worker: Worker,
}

impl Running {
    /// Starts a tunnel. What goes wrong later is in its report, and tried again.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(name: &str, tunnel: Tunnel, ports: Arc<dyn Ports>) -> Result<Self> {
        let tunnel = Arc::new(tunnel);
        let board = Arc::new(Board::default());
        let context = Context {
            tunnel: Arc::clone(&tunnel),
            ports: Arc::clone(&ports),
            board: Arc::clone(&board),
        };
        let failed = |e| Error::io(format!("start the tunnel {name}"), e);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let own = name.to_owned();
        let work = move |stopped| {
            let local = LocalSet::new();
            runtime.block_on(local.run_until(async {
                tokio::select! {
                    _ = stopped => {}
                    () = keep_running(&own, &context) => {}
                }
            }));
            // With its tasks, the sockets on the ports go; a port that is being made is to be there before all are taken away. Nobody waits for a name server.
            drop(local);
            runtime.shutdown_timeout(ENDING);
            if let Err(e) = context.ports.sweep() {
                warn!("tunnel {own}: {e}");
            }
        };
        Ok(Self {
            name: name.to_owned(),
            tunnel,
            board,
            ports,
            worker: Worker::start(&format!("tunnel {name}"), work).map_err(failed)?,
        })
    }

    /// Whether it has ended, which it does not unless something in it fails.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.worker.has_ended()
    }

    /// Whether it does what it is told there.
    #[must_use]
    pub fn is(&self, tunnel: &Tunnel) -> bool {
        *self.tunnel == *tunnel
    }

    /// Its state, on a bus of a topology.
    #[must_use]
    pub fn report(&self, topology: &str) -> TunnelReport {
        // A bus that is gone keeps nothing back.
        let kept = self.ports.kept_back().unwrap_or_default();
        let board = self.board.lock();
        let mut peers = board.reports();
        for peer in &mut peers {
            if let Some(port) = kept.get(&peer.number) {
                peer.counters.add_kept_back(port);
            }
        }
        TunnelReport {
            topology: topology.to_owned(),
            name: self.name.clone(),
            bus: self.tunnel.bus.clone(),
            endpoint: self.tunnel.endpoint(),
            peers,
            strangers: board.strangers,
            turned_away: board.turned_away,
            overrun: board.overrun,
            error: board.error.clone(),
        }
    }
}

/// Runs a tunnel, and again whenever something was wrong with it.
async fn keep_running(name: &str, context: &Context) {
    let mut backoff = Backoff::default();
    loop {
        let begin = Instant::now();
        let swept = on_ports(&context.ports, |ports| ports.sweep()).await;
        let result = match swept {
            Ok(()) if context.tunnel.transport == Transport::Udp => datagrams::run(context).await,
            Ok(()) => connections::run(context).await,
            Err(e) => Err(e),
        };
        if let Err(e) = result {
            let message = e.to_string();
            let mut board = context.board.lock();
            if board.error.as_ref() != Some(&message) {
                warn!("tunnel {name}: {message}");
            }
            board.error = Some(message);
            for peer in board.peers.values_mut() {
                if peer.state == PeerState::Connected {
                    peer.state = PeerState::Stale;
                }
            }
        }
        tokio::time::sleep(backoff.next(begin.elapsed())).await;
        info!("tunnel {name}: begins anew");
    }
}

/// The addresses of a peer, of which there is one at least.
async fn resolve(endpoint: &Endpoint) -> Result<Vec<SocketAddr>> {
    if let Some(address) = endpoint.address() {
        return Ok(vec![address]);
    }
    let failed = |e| Error::io(format!("find the address of {}", endpoint.host), e);
    let found = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)).await;
    let found: Vec<SocketAddr> = found.map_err(failed)?.collect();
    if found.is_empty() {
        return Err(failed(io::Error::new(
            io::ErrorKind::NotFound,
            "it has none",
        )));
    }
    Ok(found)
}

#[cfg(test)]
pub(crate) mod tests;
