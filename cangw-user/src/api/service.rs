//! The methods that are about the daemon itself, or answer with more than JSON.

use serde::{Deserialize, Serialize};

use super::Call;
use crate::capture::Capture;
use crate::federation::report::FederationReport;
use crate::kernel::can_status::BusState;
use crate::tunnel::board::TunnelReport;
use crate::tunnel::config::TunnelTable;

/// Who serves.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {}

/// The daemon that serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionReport {
    /// Its version.
    pub version: String,
    /// [`super::VERSION`]
    pub api: u32,
    /// The network namespace whose gateway it keeps: the number of its file, as `readlink /proc/self/ns/net` shows.
    pub namespace: u64,
}

impl Call for Version {
    const ID: &'static str = "version";
    const CHANGES: bool = false;
    type Reply = VersionReport;
}

/// How the daemon is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {}

/// What came of the last look at everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReport {
    /// The topologies that are kept.
    pub topologies: Vec<String>,
    /// Rules of the gateway, routes of topologies among them.
    pub rules: usize,
    /// Of these: they wait for an interface.
    pub waiting: usize,
    /// What could not be done.
    pub errors: Vec<String>,
}

impl Call for Health {
    const ID: &'static str = "health";
    const CHANGES: bool = false;
    type Reply = HealthReport;
}

/// Reads the topologies' files again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reload {}

impl Call for Reload {
    const ID: &'static str = "reload";
    const CHANGES: bool = true;
    type Reply = super::methods::Done;
}

/// Opens a CAN_RAW socket on an interface of an ECU; its descriptor comes with the answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenSocket {
    /// The ECU, or `TOPOLOGY.ECU`.
    pub ecu: String,
    /// Its interface.
    pub interface: String,
    /// Whether it takes CAN FD frames, too.
    #[serde(default)]
    pub fd: bool,
}

impl Call for OpenSocket {
    const ID: &'static str = "open_socket";
    const CHANGES: bool = true;
    type Reply = Empty;
}

/// Lets events follow, one on a line, until the client is gone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {}

impl Call for Subscribe {
    const ID: &'static str = "subscribe";
    const CHANGES: bool = false;
    type Reply = Empty;
}

/// Begins a capture; the descriptor of a stream socket comes with the answer, from which frames are read in the format until it is shut down for writing.
impl Call for Capture {
    const ID: &'static str = "capture";
    const CHANGES: bool = false;
    type Reply = Empty;
}

/// Makes a tunnel, which is kept from then on, also when the daemon starts again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelAdd {
    /// Its name, which no other has that was added.
    pub name: String,
    /// The tunnel as in a topology's file; the bus is `BUS` or `TOPOLOGY.BUS`.
    pub tunnel: TunnelTable,
}

impl Call for TunnelAdd {
    const ID: &'static str = "tunnel_add";
    const CHANGES: bool = true;
    type Reply = super::methods::Done;
}

/// Ends a tunnel that was added.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelRemove {
    /// Its name.
    pub name: String,
}

impl Call for TunnelRemove {
    const ID: &'static str = "tunnel_remove";
    const CHANGES: bool = true;
    type Reply = super::methods::Done;
}

/// The tunnels that run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelList {}

impl Call for TunnelList {
    const ID: &'static str = "tunnel_list";
    const CHANGES: bool = false;
    type Reply = Vec<TunnelReport>;
}

/// What shares buses with other hosts, and these.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peers {}

impl Call for Peers {
    const ID: &'static str = "peers";
    const CHANGES: bool = false;
    type Reply = Vec<FederationReport>;
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
pub enum Event {
    /// An interface came, went, or has changed.
    Interface {
        /// Its name.
        name: String,
        /// Whether it is there.
        present: bool,
        /// Whether it is up.
        up: bool,
        /// Its state on the bus.
        state: Option<BusState>,
    },
    /// A controller takes no part in its bus any more.
    BusOff {
        /// Its name.
        name: String,
    },
    /// A rule came, went, waits, or is in force again.
    Rule {
        /// The rule as options.
        rule: String,
        /// Whether it is there.
        present: bool,
        /// The interface that it waits for.
        waiting_for: Option<String>,
    },
    /// Frames of a rule were dropped that it would have sent: more than it may send, or than its target took.
    Overload {
        /// The rule as options.
        rule: String,
        /// How many since the last event of the kind; at most one comes in a second.
        frames: u64,
    },
    /// A pass of the daemon failed or succeeded again.
    Health {
        /// What could not be done.
        errors: Vec<String>,
    },
}

/// Nothing but that it was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// The methods and whether they change something.
pub const ALL: &[(&str, bool)] = &[
    (Version::ID, Version::CHANGES),
    (Health::ID, Health::CHANGES),
    (Reload::ID, Reload::CHANGES),
    (OpenSocket::ID, OpenSocket::CHANGES),
    (Subscribe::ID, Subscribe::CHANGES),
    (Capture::ID, Capture::CHANGES),
    (TunnelAdd::ID, TunnelAdd::CHANGES),
    (TunnelRemove::ID, TunnelRemove::CHANGES),
    (TunnelList::ID, TunnelList::CHANGES),
    (Peers::ID, Peers::CHANGES),
];
