//! Network interfaces.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};

use super::netlink::Netlink;
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
            is_can: message.header.link_layer_type == LinkLayerType::Can,
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            kind: String::new(),
            peer: None,
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
        if elsewhere || link.kind != "vxcan" {
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
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let answers = netlink.dump("list the interfaces", request)?;
    Ok(answers
        .iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some(Link::new(message)),
            _ => None,
        })
        .collect())
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
        .map_err(|e| Error::Unsupported {
            what: format!("{kind} ({e})"),
            remedy: format!("load it with `modprobe {kind}`, or use a kernel that has it"),
        })
}
