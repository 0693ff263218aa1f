//! Real CAN devices: their bit rates and the like (linux/can/netlink.h).

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    CanBitTiming, CanCtrlMode, CanCtrlModeFlags, InfoCan, InfoData, InfoKind, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};

use super::link;
use super::netlink::Netlink;
use crate::error::Result;

/// How a CAN interface is set up. `None`: unknown, or, when it is to be set, as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CanConfig {
    /// Whether it is administratively up.
    pub up: bool,
    /// Bits a second.
    pub bitrate: Option<u32>,
    /// Bits a second in the data phase of CAN FD frames.
    pub dbitrate: Option<u32>,
    /// Whether the controller carries CAN FD frames.
    pub fd: Option<bool>,
    /// Milliseconds after which it restarts when it went bus-off; 0 for never.
    pub restart_ms: Option<u32>,
    /// Frames that wait to be sent.
    pub txqueuelen: Option<u32>,
}

impl CanConfig {
    /// Whether an interface that is set up so has all that is wanted.
    #[must_use]
    pub fn has(&self, wanted: &Self) -> bool {
        fn is<T: PartialEq>(actual: Option<T>, wanted: Option<T>) -> bool {
            wanted.is_none() || actual == wanted
        }
        // The kernel tells the rate that the controller's clock allows, which can be a little off.
        let is_rate = |actual: Option<u32>, wanted: Option<u32>| match (actual, wanted) {
            (Some(actual), Some(wanted)) => actual.abs_diff(wanted) <= wanted / 200,
            (_, wanted) => wanted.is_none(),
        };
        self.up == wanted.up
            && is_rate(self.bitrate, wanted.bitrate)
            && is_rate(self.dbitrate, wanted.dbitrate)
            && is(self.fd, wanted.fd)
            && is(self.restart_ms, wanted.restart_ms)
            && is(self.txqueuelen, wanted.txqueuelen)
    }

    pub(super) fn of(message: &LinkMessage) -> Self {
        let mut config = Self {
            up: message.header.flags.contains(LinkFlags::Up),
            ..Self::default()
        };
        let infos = message.attributes.iter().filter_map(|attribute| {
            if let LinkAttribute::TxQueueLen(len) = attribute {
                config.txqueuelen = Some(*len);
            }
            match attribute {
                LinkAttribute::LinkInfo(infos) => Some(infos),
                _ => None,
            }
        });
        for info in infos.flatten() {
            let LinkInfo::Data(InfoData::Can(items)) = info else {
                continue;
            };
            for item in items {
                match item {
                    InfoCan::BitTiming(timing) => config.bitrate = Some(timing.bitrate),
                    InfoCan::DataBitTiming(timing) => config.dbitrate = Some(timing.bitrate),
                    InfoCan::CtrlMode(mode) => {
                        config.fd = Some(mode.flags.contains(CanCtrlModeFlags::Fd));
                    }
                    InfoCan::RestartMs(time) => config.restart_ms = Some(*time),
                    _ => {}
                }
            }
        }
        config
    }

    /// What the controller is told, if anything is.
    fn info(&self) -> Vec<InfoCan> {
        let mut info = Vec::new();
        if let Some(fd) = self.fd {
            let mask = CanCtrlModeFlags::Fd;
            let flags = if fd { mask } else { CanCtrlModeFlags::empty() };
            let mode = CanCtrlMode { mask, flags };
            info.push(InfoCan::CtrlMode(mode));
        }
        let timing = |rate: Option<u32>| rate.filter(|rate| *rate != 0).map(CanBitTiming::new);
        info.extend(timing(self.bitrate).map(InfoCan::BitTiming));
        info.extend(timing(self.dbitrate).map(InfoCan::DataBitTiming));
        info.extend(self.restart_ms.map(InfoCan::RestartMs));
        info
    }
}

/// The CAN interfaces of the current network namespace, with their names.
///
/// # Errors
/// When the kernel refuses to list them.
pub fn list(netlink: &Netlink) -> Result<Vec<(String, CanConfig)>> {
    let links = link::messages(netlink)?;
    let links = links.iter().filter(|message| link::is_can(message));
    let named = links.filter_map(|message| {
        let name = message.attributes.iter().find_map(|a| match a {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
        Some((name?, CanConfig::of(message)))
    });
    Ok(named.collect())
}

/// Sets an interface up as wanted. The controller takes a change only while it is down.
///
/// # Errors
/// When the device cannot do that, such as a bit rate.
pub fn set(netlink: &Netlink, ifindex: u32, wanted: &CanConfig) -> Result<()> {
    let request = |flags: LinkFlags, attributes| {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        message.header.flags = flags;
        message.header.change_mask = LinkFlags::Up;
        message.attributes = attributes;
        // RTM_SETLINK has no ear for what is inside IFLA_LINKINFO (`rtnl_newlink`).
        RouteNetlinkMessage::NewLink(message)
    };
    let down = LinkFlags::empty();
    let info = wanted.info();
    if !info.is_empty() {
        let info = vec![LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Can),
            LinkInfo::Data(InfoData::Can(info)),
        ])];
        netlink.change("take a CAN device down", request(down, Vec::new()), 0)?;
        netlink.change("set a CAN device up", request(down, info), 0)?;
    }
    let len = wanted.txqueuelen.map(LinkAttribute::TxQueueLen);
    let up = if wanted.up { LinkFlags::Up } else { down };
    netlink.change(
        "bring a CAN device up",
        request(up, len.into_iter().collect()),
        0,
    )
}
