//! Brings frames that tc redirected back before generic XDP, which leaves those alone (`netif_receive_generic_xdp`).
//!
//! At the ingress of a port stands a filter that gives such frames to an ifb, and an ifb gives each back to the interface where it was, as one that was
//! not redirected (`ifb_ri_tasklet`). All other frames were taken by XDP before they come to the filter. One ifb serves all ports of a namespace.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::TcMessage;

use super::action::{Action, Control, EGRESS_REDIRECT, Raw, SHARED};
use super::installed::{filters, priority};
use super::{INGRESS, PRIORITY, Qdisc, explain, header, message};
use crate::error::Result;
use crate::kernel::attr::Attributes;
use crate::kernel::link;
use crate::kernel::netlink::Netlink;

/// Name of the ifb.
const DEVICE: &str = "reentry";
/// Frames that wait there at most, before it counts what it drops: ten times what waits at a CPU's backlog (`net.core.netdev_max_backlog`).
const WAITING: u32 = 10_000;
// linux/pkt_cls.h
const TCA_MATCHALL_ACT: u16 = 2;

/// Index of the ifb; 0 when there is none.
fn device(netlink: &Netlink) -> Result<u32> {
    let mut links = link::list(netlink)?.into_iter();
    let found = links.find(|link| link.name == DEVICE && link.kind == "ifb");
    Ok(found.map_or(0, |link| link.index))
}

/// Lets frames that were redirected to ports pass their XDP programs.
///
/// # Errors
/// When the kernel cannot.
pub fn set(netlink: &Netlink, ports: &[u32]) -> Result<()> {
    let lacking = lacking(netlink, ports)?;
    if lacking.is_empty() {
        return Ok(());
    }
    let mut device = device(netlink)?;
    if device == 0 {
        device = link::create_ifb(netlink, DEVICE, WAITING)?;
        // One that drops nothing while there is room.
        super::qdisc::set_fifo(netlink, device)?;
    }
    lacking
        .into_iter()
        .try_for_each(|port| lead(netlink, port, device))
}

/// Leads what is left of a port's frames to the ifb.
fn lead(netlink: &Netlink, port: u32, device: u32) -> Result<()> {
    // With the filters that somebody else may have put in the place, or another build.
    Qdisc::remove(netlink, port)?;
    Qdisc::Ingress.add(netlink, port)?;
    let give = Action::Send {
        ifindex: device,
        rule: SHARED,
    };
    let give = Raw {
        control: Control::Gone as i32,
        first: EGRESS_REDIRECT,
        ..give.raw()
    };
    let actions = Attributes::default().with_nested(1, give.attributes(0));
    let options = Attributes::default().with_nested(TCA_MATCHALL_ACT, actions);
    // The filter's handle tells where it leads.
    let header = header(port, INGRESS, device, PRIORITY);
    let filter = message(header, "matchall", Some(options));
    let request = RouteNetlinkMessage::NewTrafficFilter(filter);
    netlink
        .change("install a filter", request, NLM_F_CREATE | NLM_F_EXCL)
        .map_err(|e| explain(e, "cls_matchall or act_mirred"))
}

/// Those of the ports for which [`set`] has something to do.
///
/// # Errors
/// When the kernel refuses to list the filters.
pub fn lacking(netlink: &Netlink, ports: &[u32]) -> Result<Vec<u32>> {
    let device = device(netlink)?;
    let leads_there =
        |m: &TcMessage| priority(m) == PRIORITY && u32::from(m.header.handle) == device;
    let mut lacking = Vec::new();
    for &port in ports {
        if device == 0 || !filters(netlink, port, INGRESS)?.iter().any(leads_there) {
            lacking.push(port);
        }
    }
    Ok(lacking)
}
