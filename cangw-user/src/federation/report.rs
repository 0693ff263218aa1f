//! What others are told of a federation.

use std::collections::BTreeMap;

use cangw_common::abi::HubPort;
use serde::{Deserialize, Serialize};

use crate::counters::counters;

counters! {
    /// What became of frames of a bus on their way to other hosts.
    Sent
    /// Frames that were sent.
    sent,
    /// Messages that had them.
    messages,
    /// Frames that were not sent, because the engine did not work.
    unsent,
    /// Frames of the bus that came faster than they were read.
    overrun,
    /// Frames of the bus that no controller would send.
    unfit,
    /// Frames of other hosts that found no port: the bus was not up.
    no_port,
    /// Frames of other hosts with an identifier that `allow` does not name.
    denied,
    /// Frames of other hosts over `rate`.
    over_rate,
    /// Frames of the bus with an identifier that `filter` does not name.
    filtered,
    /// Frames of the bus that are too large for its port.
    too_large,
}

counters! {
    /// What became of frames of another host on their way to a bus.
    Received
    /// Frames that the bus took.
    received,
    /// Frames that the host sent and that did not come. On a network that is too slow, they are thrown away where that shows.
    lost,
    /// Frames that came once more, or after later ones. They are thrown away.
    repeated,
    /// Frames that were older than `max_age` when it was their turn. They are thrown away.
    too_old,
    /// Frames that came faster than the bus took them.
    no_room,
    /// Frames that the bus refused.
    refused,
    /// Messages that are none.
    malformed,
    /// Messages of somebody else with that host's name.
    foreign,
    /// How often the host began anew.
    restarts,
}

impl Sent {
    /// Adds what the bus kept back at a port.
    pub(super) fn add_kept_back(&mut self, port: &HubPort) {
        self.denied += port.denied;
        self.over_rate += port.over_rate;
        self.filtered += port.filtered;
        self.too_large += port.too_large;
    }
}

/// How a host is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostState {
    /// It has not said what it is yet.
    #[default]
    Init,
    /// It is there.
    Connected,
    /// It has left, or cannot be reached.
    Lost,
}

impl HostState {
    /// As in `cangw peers`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Connected => "connected",
            Self::Lost => "lost",
        }
    }
}

/// Another host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReport {
    /// Its name.
    pub host: String,
    /// How it is.
    pub state: HostState,
    /// Since when that is so, in milliseconds.
    pub for_ms: u64,
    /// What it said of itself.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub announcement: Option<About>,
    /// How long a message takes to it, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_us: Option<u64>,
    /// What came from it, by bus.
    pub received: BTreeMap<String, Received>,
}

/// What a host says of itself, but for its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// What the machine calls itself.
    pub machine: String,
    /// Its run, in hexadecimal digits.
    pub session: String,
    /// Since when it runs: milliseconds of UNIX time.
    pub since: u64,
    /// The buses that it shares.
    pub buses: Vec<String>,
}

/// A bus that is shared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusReport {
    /// What became of its frames.
    pub sent: Sent,
    /// Hosts that shared it and are lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost_hosts: Vec<String>,
    /// Why it is not shared now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A federation as this host sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FederationReport {
    /// The topology whose buses it shares.
    pub topology: String,
    /// Its realm.
    pub realm: String,
    /// This host's name.
    pub host: String,
    /// This host's run; empty when it does not take part now.
    pub session: String,
    /// What it shares.
    pub buses: BTreeMap<String, BusReport>,
    /// Other hosts.
    pub hosts: Vec<HostReport>,
    /// Messages of hosts for which there was no place, or which have no name.
    pub strangers: u64,
    /// Why it does not take part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
