//! What a CAN interface is doing: its state on the bus and its counters.

use netlink_packet_route::link::{
    InfoCan, InfoData, LinkAttribute, LinkInfo, LinkMessage, Stats64,
};
use serde::{Deserialize, Serialize};

use super::can::CanConfig;
use super::link;
use super::netlink::Netlink;
use crate::error::Result;

/// How a controller takes part in its bus (`enum can_state`, ISO 11898-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BusState {
    /// It sends and receives, and signals errors.
    ErrorActive,
    /// As before, but there were 96 errors or more.
    ErrorWarning,
    /// 128 errors or more: it signals them no more.
    ErrorPassive,
    /// 256 errors or more in sending: it takes no part, until it is restarted.
    BusOff,
    /// It does not run.
    Stopped,
    /// It sleeps.
    Sleeping,
}

impl BusState {
    /// All, in the order of the kernel's numbers.
    pub const ALL: [Self; 6] = [
        Self::ErrorActive,
        Self::ErrorWarning,
        Self::ErrorPassive,
        Self::BusOff,
        Self::Stopped,
        Self::Sleeping,
    ];

    /// Its name, as in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ErrorActive => "error-active",
            Self::ErrorWarning => "error-warning",
            Self::ErrorPassive => "error-passive",
            Self::BusOff => "bus-off",
            Self::Stopped => "stopped",
            Self::Sleeping => "sleeping",
        }
    }
}

/// A CAN interface and its counters since it was made, in frames and bytes of data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanStatus {
    /// Its name.
    pub name: String,
    /// Whether it is administratively up.
    pub up: bool,
    /// Of a controller: its state on the bus.
    pub state: Option<BusState>,
    /// Of a controller: bits a second.
    pub bitrate: Option<u32>,
    /// Of a controller: bits a second in the data phase of CAN FD frames.
    pub dbitrate: Option<u32>,
    /// Of a controller: its receive and transmit error counters, if the driver tells.
    pub error_counters: Option<(u16, u16)>,
    /// Frames received.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames received that the kernel dropped.
    pub rx_dropped: u64,
    /// Errors on reception.
    pub rx_errors: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames that were to be sent and that the kernel or the driver dropped.
    pub tx_dropped: u64,
    /// Errors on transmission.
    pub tx_errors: u64,
}

impl CanStatus {
    fn of(message: &LinkMessage) -> Self {
        let config = CanConfig::of(message);
        let mut status = Self {
            up: config.up,
            bitrate: config.bitrate,
            dbitrate: config.dbitrate,
            ..Self::default()
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => status.name.clone_from(name),
                LinkAttribute::Stats64(stats) => status.count(stats),
                LinkAttribute::LinkInfo(infos) => {
                    let items = infos.iter().filter_map(|info| match info {
                        LinkInfo::Data(InfoData::Can(items)) => Some(items),
                        _ => None,
                    });
                    items.flatten().for_each(|item| status.add(item));
                }
                _ => {}
            }
        }
        status
    }

    fn count(&mut self, stats: &Stats64) {
        self.rx_frames = stats.rx_packets;
        self.rx_bytes = stats.rx_bytes;
        self.rx_dropped = stats.rx_dropped;
        self.rx_errors = stats.rx_errors;
        self.tx_frames = stats.tx_packets;
        self.tx_bytes = stats.tx_bytes;
        self.tx_dropped = stats.tx_dropped;
        self.tx_errors = stats.tx_errors;
    }

    fn add(&mut self, item: &InfoCan) {
        match item {
            InfoCan::State(number) => {
                self.state = BusState::ALL.get(*number as usize).copied();
            }
            InfoCan::BerrCounter(errors) => {
                self.error_counters = Some((errors.rxerr, errors.txerr));
            }
            _ => {}
        }
    }
}

/// The CAN interfaces of the current network namespace.
///
/// # Errors
/// When the kernel refuses to list them.
pub fn list(netlink: &Netlink) -> Result<Vec<CanStatus>> {
    let links = link::messages(netlink)?;
    let links = links.iter().filter(|message| link::is_can(message));
    Ok(links.map(CanStatus::of).collect())
}
