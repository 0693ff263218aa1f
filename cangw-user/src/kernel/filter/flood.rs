//! A filter that gives every frame to a number of interfaces, and to nobody else.
//!
//! The filter leads to a chain with the actions. A change builds another chain first and then leads there, in one step for each frame.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcMessage};

use super::action::{Action, Control, PARMS, SHARED, TCA_ACT_KIND, TCA_ACT_OPTIONS};
use super::installed::{filters, priority};
use super::{INGRESS, PRIORITY, Qdisc, explain, gone_is_fine, header, message};
use crate::error::Result;
use crate::kernel::attr::Attributes;
use crate::kernel::netlink::Netlink;

// linux/pkt_cls.h
const TCA_MATCHALL_ACT: u16 = 2;
/// `TC_ACT_GOTO_CHAIN`
const GOTO_CHAIN: u32 = 0x2000_0000;
/// Actions of a filter: at most `TCA_ACT_MAX_PRIO`.
const ACTIONS: usize = 32;
/// The two chains of which one is in use; the filters that lead there have the priorities after [`PRIORITY`].
const CHAINS: [u32; 2] = [1, 2];

fn filter(ifindex: u32, chain: u32, priority: u16, actions: Option<Attributes>) -> TcMessage {
    let options = actions.map(|a| Attributes::default().with_nested(TCA_MATCHALL_ACT, a));
    let handle = u32::from(options.is_some());
    let mut filter = message(
        header(ifindex, INGRESS, handle, priority),
        "matchall",
        options,
    );
    filter.attributes.push(TcAttribute::Chain(chain));
    filter
}

fn add(netlink: &Netlink, filter: TcMessage) -> Result<()> {
    let request = RouteNetlinkMessage::NewTrafficFilter(filter);
    netlink
        .change("install a filter", request, NLM_F_CREATE | NLM_F_EXCL)
        .map_err(|e| explain(e, "cls_matchall, act_mirred or act_gact"))
}

fn delete(netlink: &Netlink, filter: TcMessage) -> Result<()> {
    let request = RouteNetlinkMessage::DelTrafficFilter(filter);
    gone_is_fine(netlink.change("remove a filter", request, 0))
}

/// Removes a chain with all its filters.
fn flush(netlink: &Netlink, ifindex: u32, chain: u32) -> Result<()> {
    let mut header = header(ifindex, INGRESS, 0, 0);
    // Neither a protocol nor a kind (`tc_del_tfilter`).
    header.info = 0;
    delete(
        netlink,
        TcMessage::from_parts(header, vec![TcAttribute::Chain(chain)]),
    )
}

/// The action that goes on with a chain.
fn go_to(chain: u32) -> Attributes {
    // struct tc_gact: index, capab, action, refcnt, bindcnt.
    let mut parms = [0; 20];
    parms[8..12].copy_from_slice(&(GOTO_CHAIN | chain).to_ne_bytes());
    Attributes::default()
        .with_text(TCA_ACT_KIND, "gact")
        .with_nested(TCA_ACT_OPTIONS, Attributes::default().with(PARMS, &parms))
}

/// The chain of a filter.
fn chain(filter: &TcMessage) -> u32 {
    let chain = filter.attributes.iter().find_map(|a| match a {
        TcAttribute::Chain(chain) => Some(*chain),
        _ => None,
    });
    chain.unwrap_or(0)
}

/// Which of [`CHAINS`] is in use.
fn in_use(filters: &[TcMessage]) -> Option<usize> {
    (0..CHAINS.len()).find(|place| {
        let mut filters = filters.iter();
        filters.any(|m| chain(m) == 0 && priority(m) == PRIORITY + *place as u16)
    })
}

/// Whether an interface has all filters by which it gives its frames to so many others.
///
/// # Errors
/// When the kernel refuses to list them.
pub fn is_set(netlink: &Netlink, ifindex: u32, targets: usize) -> Result<bool> {
    let filters = filters(netlink, ifindex, INGRESS)?;
    let actions = in_use(&filters).map_or(0, |place| {
        let used = filters.iter().filter(|m| chain(m) == CHAINS[place]);
        used.count()
    });
    Ok(actions == targets.div_ceil(ACTIONS))
}

/// Gives all frames that arrive on an interface to these others, in the place of those before.
///
/// # Errors
/// When the kernel cannot.
pub fn set(netlink: &Netlink, ifindex: u32, targets: &[u32]) -> Result<()> {
    Qdisc::Ingress.add(netlink, ifindex)?;
    let there = filters(netlink, ifindex, INGRESS)?;
    let old = in_use(&there).unwrap_or(1);
    let new = 1 - old;
    // What an interrupted call left.
    flush(netlink, ifindex, CHAINS[new])?;
    let last = targets.len().saturating_sub(1) / ACTIONS;
    for (number, targets) in targets.chunks(ACTIONS).enumerate() {
        let mut actions = Attributes::default();
        for (place, target) in targets.iter().enumerate() {
            let mut send = Action::Send {
                ifindex: *target,
                rule: SHARED,
            }
            .raw();
            if place + 1 == targets.len() {
                send.control = if number == last {
                    Control::Gone as i32
                } else {
                    Control::NextFilter as i32
                };
            }
            actions = actions.with_nested(place as u16 + 1, send.attributes(0));
        }
        let place = PRIORITY + number as u16;
        add(netlink, filter(ifindex, CHAINS[new], place, Some(actions)))?;
    }
    if !targets.is_empty() {
        let actions = Attributes::default().with_nested(1, go_to(CHAINS[new]));
        add(
            netlink,
            filter(ifindex, 0, PRIORITY + new as u16, Some(actions)),
        )?;
    }
    delete(netlink, filter(ifindex, 0, PRIORITY + old as u16, None))?;
    flush(netlink, ifindex, CHAINS[old])
}
