//! What others are told of tunnels: states and counters of their peers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cangw_common::abi::HubPort;
use serde::{Deserialize, Serialize};

use crate::counters::counters;

/// How a peer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// Nothing has come from it yet.
    #[default]
    Init,
    /// It is there.
    Connected,
    /// Nothing has come for a while, or the connection has ended.
    Stale,
}

impl PeerState {
    /// As in `cangw status`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Connected => "connected",
            Self::Stale => "stale",
        }
    }
}

counters! {
    /// What became of frames and datagrams.
    Counters
    /// Frames that were sent to it.
    sent,
    /// Datagrams that were sent to it.
    sent_datagrams,
    /// Frames that came from it.
    received,
    /// Datagrams that came from it.
    received_datagrams,
    /// Datagrams that are missing. One that comes late is not missing any more.
    lost,
    /// Datagrams that came after later ones.
    late,
    /// Datagrams that came once more, and were thrown away.
    duplicates,
    /// How often it began anew.
    restarts,
    /// Datagrams or streams that are none.
    malformed,
    /// Frames that were not sent, because they were older than `max_age`.
    too_old,
    /// Frames that were not sent, because too many waited.
    no_room,
    /// Frames that the network refused.
    unsent,
    /// Frames in datagrams that were taken away because their host did not answer; some may have left before it fell silent.
    unanswered,
    /// Frames that a connection took and that were not confirmed when it ended; the first of them may have arrived.
    unconfirmed,
    /// How often the network's queue was full.
    back_pressure,
    /// Frames of the bus that came faster than they were read.
    overrun,
    /// Frames that the bus refused.
    refused,
    /// Frames of the bus that the protocol does not have, such as standard ones with more than 11 bits of identifier.
    unfit,
    /// Received frames with an identifier that `allow` does not name.
    denied,
    /// Received frames over `rate`.
    over_rate,
    /// Frames of the bus with an identifier that `filter` does not name.
    filtered,
    /// Frames of the bus that are too large for the protocol (CAN XL).
    too_large,
}

impl Counters {
    /// Adds what the bus kept back at a port.
    pub(super) fn add_kept_back(&mut self, port: &HubPort) {
        self.denied += port.denied;
        self.over_rate += port.over_rate;
        self.filtered += port.filtered;
        self.too_large += port.too_large;
    }
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerReport {
    /// Its number, which is also that of its port.
    pub number: u32,
    /// Its address; of a client that has not found it yet, what it was told.
    pub address: String,
    /// How it is.
    pub state: PeerState,
    /// Milliseconds since something came from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silent_ms: Option<u64>,
    /// What it counts.
    pub counters: Counters,
    /// What went wrong last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A tunnel that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelReport {
    /// Its topology; empty when `cangw tunnel add` made it.
    #[serde(default)]
    pub topology: String,
    /// Its name.
    pub name: String,
    /// Its bus, with the topology's name.
    pub bus: String,
    /// Where it listens, or what it connects to.
    pub endpoint: String,
    /// Its peers.
    pub peers: Vec<PeerReport>,
    /// Datagrams and connections of those that may not come.
    pub strangers: u64,
    /// Those of clients for which there was no place.
    pub turned_away: u64,
    /// Datagrams that came faster than they were read.
    pub overrun: u64,
    /// Why it does not work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A peer, as its tunnel knows it.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub address: Option<SocketAddr>,
    pub name: String,
    pub state: PeerState,
    pub heard: Option<Instant>,
    pub counters: Counters,
    pub error: Option<String>,
}

/// What is known of a tunnel, for those who ask and for the tunnel itself.
#[derive(Debug)]
pub(super) struct Board {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub peers: BTreeMap<u32, Peer>,
    pub strangers: u64,
    pub turned_away: u64,
    pub overrun: u64,
    pub error: Option<String>,
}

impl Default for Board {
    fn default() -> Self {
        let inner = Inner {
            error: Some("it is about to begin".into()),
            ..Inner::default()
        };
        Self {
            inner: Mutex::new(inner),
        }
    }
}

impl Board {
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a peer, if it is there.
    pub fn change(&self, number: u32, change: impl FnOnce(&mut Peer)) {
        if let Some(peer) = self.lock().peers.get_mut(&number) {
            change(peer);
        }
    }

    /// Something came from a peer.
    pub fn heard(&self, number: u32, count: impl FnOnce(&mut Counters)) {
        self.change(number, |peer| {
            peer.heard = Some(Instant::now());
            peer.state = PeerState::Connected;
            peer.error = None;
            count(&mut peer.counters);
        });
    }

    /// Counts something of a peer.
    pub fn count(&self, number: u32, count: impl FnOnce(&mut Counters)) {
        self.change(number, |peer| count(&mut peer.counters));
    }

    /// Those from which nothing has come for so long are stale from now on.
    pub fn age(&self, silence: Duration) {
        for peer in self.lock().peers.values_mut() {
            if peer.heard.is_some_and(|heard| heard.elapsed() > silence) {
                peer.state = PeerState::Stale;
            }
        }
    }
}

impl Inner {
    /// A place for a client, of which there are so many: that of one with its address that is stale (and, `by_port`, with its port: others may be on that host), a free one, or that of the one
    /// that has been stale for longest.
    pub fn place(&self, address: SocketAddr, by_port: bool, most: usize) -> Option<u32> {
        let stale = || {
            self.peers
                .iter()
                .filter(|(_, peer)| peer.state == PeerState::Stale)
        };
        let is_same = |peer: &Peer| {
            peer.address
                .is_some_and(|other| other.ip() == address.ip() && (!by_port || other == address))
        };
        let same = stale().find(|(_, peer)| is_same(peer));
        let free = (0..most as u32).find(|number| !self.peers.contains_key(number));
        let oldest = || stale().min_by_key(|(_, peer)| peer.heard);
        same.map(|(number, _)| *number)
            .or(free)
            .or_else(|| oldest().map(|(number, _)| *number))
    }

    /// Puts a client into its place. What the same address counted before goes on.
    pub fn enter(&mut self, number: u32, address: SocketAddr) {
        let before = self.peers.remove(&number);
        let before = before.filter(|peer| peer.address.is_some_and(|a| a.ip() == address.ip()));
        let peer = Peer {
            address: Some(address),
            name: SocketAddr::new(address.ip().to_canonical(), address.port()).to_string(),
            heard: Some(Instant::now()),
            counters: before.map(|peer| peer.counters).unwrap_or_default(),
            ..Peer::default()
        };
        self.peers.insert(number, peer);
    }

    pub fn reports(&self) -> Vec<PeerReport> {
        let report = |(number, peer): (&u32, &Peer)| PeerReport {
            number: *number,
            address: peer.name.clone(),
            state: peer.state,
            silent_ms: peer.heard.map(|heard| heard.elapsed().as_millis() as u64),
            counters: peer.counters.clone(),
            error: peer.error.clone(),
        };
        self.peers.iter().map(report).collect()
    }
}
