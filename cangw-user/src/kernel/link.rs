//! Network interfaces.

use std::os::fd::AsRawFd as _;

use cangw_common::frame::FrameType;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVxcan, LinkAttribute,
    LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};

use super::netlink::Netlink;
use super::netns::NetNs;
use crate::error::{Error, Result};

/// An interface of the current network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is a CAN interface (`ARPHRD_CAN`).
    pub is_can: bool,
    /// Largest frame, in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Its kind, such as `vcan`, `vxcan` or `can`; empty when it has none.
    pub kind: String,
    /// The other end of a vxcan pair, when that is in this namespace, too.
    pub peer: Option<u32>,
    /// Index of the other end of a vxcan pair, in whichever namespace that is.
    pub other_end: Option<u32>,
}

impl Link {
    /// Whether frames never have a driver's prefix.
    #[must_use]
    pub fn is_virtual(&self) -> bool {
        matches!(self.kind.as_str(), "vcan" | "vxcan")
    }

    fn new(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            is_can: is_can(message),
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            kind: String::new(),
            peer: None,
            other_end: None,
        };
        let mut elsewhere = false;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Link(index) => link.peer = Some(*index),
                LinkAttribute::LinkNetNsId(_) => elsewhere = true,
                LinkAttribute::LinkInfo(info) => {
                    for item in info {
                        if let LinkInfo::Kind(kind) = item {
                            link.kind = kind_name(kind);
                        }
                    }
                }
                _ => {}
            }
        }
        if link.kind != "vxcan" {
            link.peer = None;
        }
        link.other_end = link.peer;
        if elsewhere {
            link.peer = None;
        }
        link
    }
}

fn kind_name(kind: &InfoKind) -> String {
    kind.to_string()
}

/// All interfaces of the current network namespace.
///
/// # Errors
/// When the kernel refuses to list them.
pub fn list(netlink: &Netlink) -> Result<Vec<Link>> {
    Ok(messages(netlink)?.iter().map(Link::new).collect())
}

/// What the kernel says of all interfaces of the current network namespace.
pub(super) fn messages(netlink: &Netlink) -> Result<Vec<LinkMessage>> {
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let answers = netlink.dump("list the interfaces", request)?;
    let links = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(message) => Some(message),
        _ => None,
    });
    Ok(links.collect())
}

/// Whether an interface is a CAN interface (`ARPHRD_CAN`).
pub(super) fn is_can(message: &LinkMessage) -> bool {
    message.header.link_layer_type == LinkLayerType::Can
}

/// Frames and data bytes that came from an interface and that were given to it since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames received.
    pub received: u64,
    /// Their data bytes.
    pub received_bytes: u64,
    /// Frames sent.
    pub sent: u64,
    /// Their data bytes.
    pub sent_bytes: u64,
}

fn traffic_in(message: &LinkMessage) -> Option<Traffic> {
    let mut attributes = message.attributes.iter();
    attributes.find_map(|attribute| match attribute {
        LinkAttribute::Stats64(counters) => Some(Traffic {
            received: counters.rx_packets,
            received_bytes: counters.rx_bytes,
            sent: counters.tx_packets,
            sent_bytes: counters.tx_bytes,
        }),
        _ => None,
    })
}

/// Index, name and traffic of all interfaces of the current network namespace.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn traffic(netlink: &Netlink) -> Result<Vec<(u32, String, Traffic)>> {
    let messages = messages(netlink)?;
    let one = |message: &LinkMessage| {
        let link = Link::new(message);
        Some((link.index, link.name, traffic_in(message)?))
    };
    Ok(messages.iter().filter_map(one).collect())
}

/// Frames that an interface has received since it was made.
///
/// # Errors
/// When the kernel refuses to tell, or the interface is gone.
pub fn received(netlink: &Netlink, ifindex: u32) -> Result<u64> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    let request = RouteNetlinkMessage::GetLink(message);
    let answers = netlink.get("count the frames of an interface", request)?;
    let traffic = answers.iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(message) => traffic_in(message),
        _ => None,
    });
    Ok(traffic.unwrap_or_default().received)
}

/// Creates a vxcan pair and brings its ends up: one here, and one in another namespace, with the sizes of the largest frames that they take. Gives
/// back the index of the first.
///
/// # Errors
/// When a name is taken, or the kernel has no vxcan.
pub fn create_pair(
    netlink: &Netlink,
    (name, mtu): (&str, u32),
    other: (&str, u32, &NetNs),
) -> Result<u32> {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(other.0.to_owned()),
        LinkAttribute::Mtu(other.1),
        LinkAttribute::NetNsFd(other.2.file().as_raw_fd()),
    ];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vxcan),
            LinkInfo::Data(InfoData::Vxcan(InfoVxcan::Peer(peer))),
        ]),
    ];
    let what = format!("create the interfaces {name} and {}", other.0);
    let request = RouteNetlinkMessage::NewLink(message);
    netlink
        .change(&what, request, NLM_F_CREATE | NLM_F_EXCL)
        .map_err(|e| unless_kind("vxcan", e))
        .map_err(|e| explain_pair(e, mtu.max(other.1), other.0))?;
    let ifindex = index(netlink, name)?;
    // An end cannot be up before the other is there (`vxcan_open`).
    let up = || {
        other.2.enter(|| {
            let there = Netlink::open()?;
            set_up(&there, index(&there, other.0)?)
        })?;
        set_up(netlink, ifindex)
    };
    if let Err(e) = up() {
        let _ = delete(netlink, ifindex);
        return Err(e);
    }
    Ok(ifindex)
}

/// Why a pair of interfaces cannot be, where the kernel gives a number only.
fn explain_pair(error: Error, mtu: u32, name: &str) -> Error {
    let Error::Netlink { source, .. } = &error else {
        return error;
    };
    match source.raw_os_error() {
        Some(libc::EEXIST) => Error::InterfaceExists { name: name.into() },
        Some(libc::EINVAL) if mtu > FrameType::Fd.mtu() => Error::Unsupported {
            what: "virtual interfaces for CAN XL frames".into(),
            remedy: "use Linux 6.1 or newer".into(),
        },
        _ => error,
    }
}

/// Creates an ifb with a queue for so many frames, and brings it up. Gives back its index.
///
/// # Errors
/// When the name is taken, or the kernel has no ifb.
pub fn create_ifb(netlink: &Netlink, name: &str, waiting: u32) -> Result<u32> {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Mtu(FrameType::Xl.mtu()),
        LinkAttribute::TxQueueLen(waiting),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]),
    ];
    let request = RouteNetlinkMessage::NewLink(message);
    netlink
        .change(
            &format!("create the interface {name}"),
            request,
            NLM_F_CREATE | NLM_F_EXCL,
        )
        .map_err(|e| unless_kind("ifb", e))?;
    let ifindex = index(netlink, name)?;
    silence(netlink, ifindex);
    set_up(netlink, ifindex).map(|()| ifindex)
}

/// Keeps IPv6 from sending packets of its own on an interface: the processor that does would take frames of others with it, which then can be overtaken.
fn silence(netlink: &Netlink, ifindex: u32) {
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message.attributes = vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
        vec![mode],
    )])];
    let request = RouteNetlinkMessage::SetLink(message);
    // Fails where there is no IPv6, which sends nothing either.
    let _ = netlink.change("give an interface no address", request, 0);
}

/// The index of the interface of a name.
///
/// # Errors
/// When there is none.
pub fn index(netlink: &Netlink, name: &str) -> Result<u32> {
    let found = list(netlink)?.into_iter().find(|link| link.name == name);
    found
        .map(|link| link.index)
        .ok_or_else(|| Error::NoInterface {
            name: name.to_owned(),
        })
}

/// Brings an interface up.
///
/// # Errors
/// When the kernel refuses.
pub fn set_up(netlink: &Netlink, ifindex: u32) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    let request = RouteNetlinkMessage::SetLink(message);
    netlink.change("bring an interface up", request, 0)
}

/// Deletes an interface, with the other end of a pair.
///
/// # Errors
/// When the kernel refuses, except that it is gone.
pub fn delete(netlink: &Netlink, ifindex: u32) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    let request = RouteNetlinkMessage::DelLink(message);
    match netlink.change("delete an interface", request, 0) {
        Err(Error::Netlink { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        other => other,
    }
}

/// Creates an interface of a kind, to see whether the kernel can; for a namespace that is thrown away.
///
/// # Errors
/// [`Error::Unsupported`] with the module that is missing.
pub fn try_create(netlink: &Netlink, kind: &str) -> Result<()> {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(
        InfoKind::Other(kind.to_owned()),
    )])];
    netlink
        .change(
            "create an interface",
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
        .map_err(|e| no_kind(kind, &e))
}

/// The error, or that the kernel has no interfaces of a kind.
fn unless_kind(kind: &str, error: Error) -> Error {
    match error {
        Error::Netlink { source, .. } if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            no_kind(kind, &source)
        }
        e => e,
    }
}

/// The kernel has no interfaces of a kind.
fn no_kind(kind: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Unsupported {
        what: format!("{kind} ({error})"),
        remedy: format!("load it with `modprobe {kind}`, or use a kernel that has it"),
    }
}
