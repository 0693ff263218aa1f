//! Hosts on the same network (ARP, IPv6 neighbour discovery): packets to one that does not answer wait in the kernel, and leave when it is back.

use std::net::IpAddr;

use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::Netlink;
use crate::error::Result;

/// A host that was asked for its address and has not answered yet: `NUD_INCOMPLETE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// Its address.
    pub address: IpAddr,
    ifindex: u32,
}

/// The hosts that have not answered yet.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn unresolved(netlink: &Netlink) -> Result<Vec<Unresolved>> {
    let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    let answers = netlink.dump("list the neighbours", request)?;
    let found = answers.into_iter().filter_map(|answer| {
        let RouteNetlinkMessage::NewNeighbour(message) = answer else {
            return None;
        };
        if message.header.state != NeighbourState::Incomplete {
            return None;
        }
        let address = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => {
                    Some(IpAddr::from(*a))
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => {
                    Some(IpAddr::from(*a))
                }
                _ => None,
            })?;
        let ifindex = message.header.ifindex;
        Some(Unresolved { address, ifindex })
    });
    Ok(found.collect())
}

/// Forgets a host that does not answer, and with it the packets that wait for it (`neigh_invalidate`). The next packet asks for it again.
///
/// # Errors
/// When the kernel refuses.
pub fn forget(netlink: &Netlink, host: &Unresolved) -> Result<()> {
    let mut message = NeighbourMessage::default();
    let (family, address) = match host.address {
        IpAddr::V4(a) => (AddressFamily::Inet, NeighbourAddress::Inet(a)),
        IpAddr::V6(a) => (AddressFamily::Inet6, NeighbourAddress::Inet6(a)),
    };
    message.header.family = family;
    message.header.ifindex = host.ifindex;
    message.attributes = vec![NeighbourAttribute::Destination(address)];
    let request = RouteNetlinkMessage::DelNeighbour(message);
    netlink.change(
        &format!("forget the neighbour {}", host.address),
        request,
        0,
    )
}

/// The host to which packets for an address go first: a router, or the address itself.
///
/// # Errors
/// When no route leads there.
pub fn next_hop(netlink: &Netlink, to: IpAddr) -> Result<IpAddr> {
    let mut message = RouteMessage::default();
    (
        message.header.address_family,
        message.header.destination_prefix_length,
    ) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.attributes = vec![RouteAttribute::Destination(to.into())];
    let request = RouteNetlinkMessage::GetRoute(message);
    let answers = netlink.get(&format!("find the way to {to}"), request)?;
    let gateway = answers.iter().find_map(|answer| {
        let RouteNetlinkMessage::NewRoute(route) = answer else {
            return None;
        };
        route
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::Gateway(RouteAddress::Inet(a)) => Some(IpAddr::from(*a)),
                RouteAttribute::Gateway(RouteAddress::Inet6(a)) => Some(IpAddr::from(*a)),
                _ => None,
            })
    });
    Ok(gateway.unwrap_or(to))
}
