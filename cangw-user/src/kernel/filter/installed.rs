//! The lists that an interface has.

use std::collections::{HashMap, HashSet};

use cangw_common::abi::{front, mark};
use netlink_packet_core::Nla as _;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcMessage, TcOption};

use super::action::{EGRESS_MIRROR, EGRESS_REDIRECT, Plan, Raw, TCA_ACT_STATS};
use super::{
    EGRESS, Front, INGRESS, PRIORITY, TCA_BPF_ACT, TCA_BPF_CLASSID, TCA_BPF_ID, TCA_FW_ACT, header,
};
use crate::error::{Error, Result};
use crate::kernel::attr::{self, Attributes};
use crate::kernel::netlink::Netlink;

const TCA_STATS_QUEUE: u16 = 3;
/// Offset of `overlimits` in `struct gnet_stats_queue`.
const OVERLIMITS: usize = 16;

/// Where a filter with actions stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Behind the program, an fw filter: number of the run, from 0.
    Run(u16),
    /// In front of the program; the number that the kernel gave to the program there.
    Front(Front, u32),
}

/// A filter of ours that has actions, as the kernel has it.
#[derive(Clone, Debug)]
pub struct Installed {
    /// Where it stands.
    pub place: Place,
    /// Handle of the list.
    pub handle: u32,
    actions: Vec<Raw>,
    /// The kernel's numbers of the actions, among those of their kind.
    numbers: Vec<u32>,
    /// Frames that a send action could not deliver, by rule.
    pub refused: Vec<(u32, u32)>,
}

/// The filters of ours at an interface.
///
/// # Errors
/// When the kernel refuses to list them.
pub fn installed(netlink: &Netlink, ifindex: u32) -> Result<Vec<Installed>> {
    Ok(filters(netlink, ifindex, INGRESS)?
        .iter()
        .filter_map(parse)
        .collect())
}

/// How many filters of ours an interface has for frames that arrive, without those in front of the program.
///
/// # Errors
/// When the kernel refuses to list them.
pub fn count(netlink: &Netlink, ifindex: u32) -> Result<u32> {
    let is_front = |m: &TcMessage| {
        let handle = u32::from(m.header.handle);
        priority(m) == PRIORITY && Front::ALL.iter().any(|front| front.handle() == handle)
    };
    let all = filters(netlink, ifindex, INGRESS)?;
    let ours = all
        .iter()
        .filter(|m| priority(m) >= PRIORITY && !is_front(m));
    Ok(ours.count() as u32)
}

/// Whether an interface echoes what is marked for it.
///
/// # Errors
/// When the kernel refuses to list its filters.
pub fn echoes(netlink: &Netlink, ifindex: u32) -> Result<bool> {
    let all = filters(netlink, ifindex, EGRESS)?;
    Ok(all
        .iter()
        .any(|m| priority(m) == PRIORITY && u32::from(m.header.handle) == mark::ECHO))
}

/// Whether an interface has filters of others, in either direction.
///
/// # Errors
/// When the kernel refuses to list them.
pub fn has_others(netlink: &Netlink, ifindex: u32) -> Result<bool> {
    for hook in [INGRESS, EGRESS] {
        let all = filters(netlink, ifindex, hook)?;
        if all.iter().any(|m| priority(m) < PRIORITY) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The priority of a filter.
pub(super) fn priority(filter: &TcMessage) -> u16 {
    (filter.header.info >> 16) as u16
}

/// All filters at a hook of an interface, of all chains.
pub(super) fn filters(netlink: &Netlink, ifindex: u32, hook: u32) -> Result<Vec<TcMessage>> {
    let mut header = header(ifindex, hook, 0, 0);
    header.info = 0;
    let request = RouteNetlinkMessage::GetTrafficFilter(TcMessage::from_parts(header, Vec::new()));
    match netlink.dump("list the filters", request) {
        // No qdisc, no filters.
        Err(Error::Netlink { source, .. })
            if matches!(
                source.raw_os_error(),
                Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)
            ) =>
        {
            Ok(Vec::new())
        }
        other => Ok(other?
            .into_iter()
            .filter_map(|answer| match answer {
                // One without a handle is the place of filters of a priority.
                RouteNetlinkMessage::NewTrafficFilter(m) if u32::from(m.header.handle) != 0 => {
                    Some(m)
                }
                _ => None,
            })
            .collect()),
    }
}

impl Installed {
    /// Whether this is what [`super::attach_front`] makes of a list.
    #[must_use]
    pub fn is_front_of(&self, list: &Self) -> bool {
        matches!(self.place, Place::Front(..))
            && self.handle == list.handle & mark::HANDLE
            && self.actions == list.actions
            && self.numbers == list.numbers
    }

    /// Its actions, by their numbers.
    pub(super) fn bound(&self) -> Attributes {
        super::actions(self.actions.iter().zip(self.numbers.iter().copied()))
    }
}

fn parse(message: &TcMessage) -> Option<Installed> {
    let priority = priority(message);
    let handle = u32::from(message.header.handle);
    let is = |kind: &str| {
        let mut attributes = message.attributes.iter();
        attributes.any(|a| matches!(a, TcAttribute::Kind(k) if k == kind))
    };
    let (place, kind) = if priority == PRIORITY && is("bpf") {
        let front = Front::ALL.into_iter().find(|f| f.handle() == handle)?;
        (Place::Front(front, 0), TCA_BPF_ACT)
    } else if priority > PRIORITY && is("fw") {
        (Place::Run((priority - PRIORITY - 1) / 2), TCA_FW_ACT)
    } else {
        return None;
    };
    let mut filter = Installed {
        place,
        handle,
        actions: Vec::new(),
        numbers: Vec::new(),
        refused: Vec::new(),
    };
    let options = options(message);
    if let Place::Front(_, program) = &mut filter.place {
        let number = |kind| attr::u32_at(attr::find(&options, kind)?, 0);
        *program = number(TCA_BPF_ID)?;
        filter.handle = number(TCA_BPF_CLASSID)? & !front::COPY;
    }
    for (_, action) in attr::each(attr::find(&options, kind).unwrap_or_default()) {
        let (raw, number) = Raw::parse(action)?;
        let sends = matches!(raw.first, EGRESS_REDIRECT | EGRESS_MIRROR);
        // The actions in front are the list's own.
        if raw.kind == "mirred" && sends && matches!(place, Place::Run(_)) {
            let refused = attr::find(action, TCA_ACT_STATS)
                .and_then(|stats| attr::find(stats, TCA_STATS_QUEUE))
                .and_then(|queue| attr::u32_at(queue, OVERLIMITS))
                .unwrap_or(0);
            filter.refused.push((raw.rule, refused));
        }
        filter.actions.push(raw);
        filter.numbers.push(number);
    }
    Some(filter)
}

/// The options of a filter, as the kernel has them. netlink-packet-route gives those of kinds that it knows (bpf) one by one, and all of another kind
/// (fw) as the value of one.
fn options(message: &TcMessage) -> Vec<u8> {
    let mut all = Attributes::default();
    let options = message.attributes.iter().filter_map(|a| match a {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    for option in options.flatten() {
        let mut value = vec![0; option.value_len()];
        option.emit_value(&mut value);
        if matches!(option, TcOption::Other(_)) {
            return value;
        }
        all = all.with(option.kind(), &value);
    }
    all.into_bytes()
}

/// The lists that an interface has, to find those that can stay.
#[derive(Debug, Default)]
pub struct Lists {
    by_handle: HashMap<u32, Vec<Vec<Raw>>>,
    by_content: HashMap<Vec<Vec<Raw>>, Vec<u32>>,
}

impl Lists {
    /// Puts the runs of each list together.
    #[must_use]
    pub fn new(mut installed: Vec<Installed>) -> Self {
        let run = |filter: &Installed| match filter.place {
            Place::Run(run) => Some(run),
            Place::Front(..) => None,
        };
        installed.retain(|filter| run(filter).is_some());
        installed.sort_by_key(run);
        let mut lists = Self::default();
        for filter in installed {
            let runs = lists.by_handle.entry(filter.handle).or_default();
            runs.push(filter.actions);
        }
        for (handle, runs) in &lists.by_handle {
            let handles = lists.by_content.entry(runs.clone()).or_default();
            handles.push(*handle);
        }
        lists
    }

    /// The handles in use, without the bits that tell twins apart.
    #[must_use]
    pub fn handles(&self) -> HashSet<u32> {
        let handles = self.by_handle.keys();
        handles.map(|handle| handle & mark::HANDLE).collect()
    }

    /// A handle of which the first twin is installed, and no twin with other actions. Twins are given by their bits.
    #[must_use]
    pub fn find(&self, twins: &[(u32, Plan)]) -> Option<u32> {
        let (_, first) = twins.first()?;
        let fits = |handle: u32| {
            twins.iter().all(|(bits, plan)| {
                let have = self.by_handle.get(&(handle | bits));
                have.is_none_or(|have| *have == plan.raw())
            })
        };
        let mut handles = self.by_content.get(&first.raw())?.iter().copied();
        handles.find(|&handle| handle & !mark::HANDLE == 0 && fits(handle))
    }

    /// Whether anything is installed under a handle.
    #[must_use]
    pub fn has(&self, handle: u32) -> bool {
        self.by_handle.contains_key(&handle)
    }
}
