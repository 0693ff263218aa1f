//! tc at an interface: the clsact qdisc, the program's filter, the fw filters that carry out lists, and the one that echoes.
//!
//! A list is a sequence of runs, each an fw filter with the handle of the list. Between the priorities of two runs stands the program that
//! gives a frame its next form:
//!
//! ```text
//! 51712 cangw_tc    51713 first runs    51714 cangw_step    51715 second runs    51716 cangw_step ...
//! ```

use std::collections::{HashMap, HashSet};

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Nla as _};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcHeader, TcMessage, TcOption};

use cangw_common::abi::mark;

use super::attr::{self, Attributes};
use super::netlink::Netlink;
use crate::error::{Error, Result};

/// Priority of the program; the lists follow. High numbers, so that other users' filters come first.
const PRIORITY: u16 = 0xCA00;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)`
const INGRESS: u32 = 0xFFFF_FFF2;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)`
const EGRESS: u32 = 0xFFFF_FFF3;
/// `TC_H_CLSACT`
const CLSACT: u32 = 0xFFFF_FFF1;
/// `ETH_P_ALL` in network order.
const ALL_PROTOCOLS: u32 = 0x0300;
const PROGRAM_NAME: &str = "cangw";
const STEP_NAME: &str = "cangw_step";

// linux/pkt_cls.h, tc_act/*.h
const TCA_FW_ACT: u16 = 4;
const TCA_FW_MASK: u16 = 5;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_ACT_STATS: u16 = 4;
const TCA_ACT_COOKIE: u16 = 6;
const TCA_STATS_QUEUE: u16 = 3;
/// `TCA_MIRRED_PARMS` and `TCA_SKBEDIT_PARMS`
const PARMS: u16 = 2;
const TCA_SKBEDIT_MARK: u16 = 5;
const TCA_SKBEDIT_MASK: u16 = 8;
const EGRESS_REDIRECT: u32 = 1;
const EGRESS_MIRROR: u32 = 2;
const INGRESS_REDIRECT: u32 = 3;
const INGRESS_MIRROR: u32 = 4;
/// Offset of `overlimits` in `struct gnet_stats_queue`.
const OVERLIMITS: usize = 16;

/// What follows an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
enum Control {
    /// `TC_ACT_UNSPEC`: the filter of the next priority.
    NextFilter = -1,
    /// `TC_ACT_OK`: local sockets.
    Deliver = 0,
    /// `TC_ACT_PIPE`: the next action.
    NextAction = 3,
    /// `TC_ACT_STOLEN`: nothing, the frame is gone.
    Gone = 4,
}

/// One step of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send to an interface, for the rule with this slot.
    Send {
        /// Target.
        ifindex: u32,
        /// Slot of the rule, or [`SHARED`].
        rule: u32,
    },
    /// Deliver to local sockets of an interface.
    Echo {
        /// Target.
        ifindex: u32,
        /// Slot of the rule, or [`SHARED`].
        rule: u32,
    },
    /// Mark the frame as an echo of ours, in this state.
    Tag(u16),
    /// Take the mark of an echo off.
    Untag,
}

/// In place of a rule's slot: the list serves several rules.
pub const SHARED: u32 = u32::MAX;

/// What a list does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    /// The steps, run by run; at most 32 in each.
    pub runs: Vec<Vec<Action>>,
    /// What becomes of the frame afterwards.
    pub end: End,
}

/// What becomes of a frame at the end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// It is delivered on its source.
    Deliver,
    /// It is not. `redirect`: the last copy is the frame itself, which loses its receive time stamp (`skb_set_redirected`).
    Gone {
        /// Whether the last action takes the frame.
        redirect: bool,
    },
    /// The program sees it once more.
    Next,
}

impl Plan {
    /// How many times the program stands between runs, or behind them.
    #[must_use]
    pub fn stages(&self) -> u16 {
        let behind = usize::from(self.end == End::Next);
        (self.runs.len() + behind).saturating_sub(1) as u16
    }

    /// Whether it does nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

/// An action as tc has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Raw {
    kind: &'static str,
    control: i32,
    /// `eaction` and `ifindex` of mirred, mark and mask of skbedit.
    first: u32,
    second: u32,
    rule: u32,
}

/// A filter of ours, as the kernel has it.
#[derive(Clone, Debug)]
pub struct Installed {
    /// Number of the run, from 0.
    run: u16,
    /// Handle of the list.
    pub handle: u32,
    actions: Vec<Raw>,
    /// Frames that a send action could not deliver, by rule.
    pub refused: Vec<(u32, u32)>,
}

impl Plan {
    /// The actions of each run.
    fn raw(&self) -> Vec<Vec<Raw>> {
        let mut runs: Vec<Vec<Raw>> = Vec::with_capacity(self.runs.len());
        for actions in &self.runs {
            let mut run: Vec<Raw> = actions.iter().map(|a| a.raw()).collect();
            if let Some(last) = run.last_mut() {
                last.control = Control::NextFilter as i32;
            }
            runs.push(run);
        }
        if let Some(last) = runs.last_mut().and_then(|run| run.last_mut()) {
            match self.end {
                End::Deliver => last.control = Control::Deliver as i32,
                End::Next => {}
                End::Gone { redirect } => {
                    last.control = Control::Gone as i32;
                    if redirect {
                        last.first = match last.first {
                            EGRESS_MIRROR => EGRESS_REDIRECT,
                            INGRESS_MIRROR => INGRESS_REDIRECT,
                            other => other,
                        };
                    }
                }
            }
        }
        runs
    }
}

impl Action {
    fn raw(self) -> Raw {
        let control = Control::NextAction as i32;
        let (kind, first, second, rule) = match self {
            Self::Send { ifindex, rule } => ("mirred", EGRESS_MIRROR, ifindex, rule),
            Self::Echo { ifindex, rule } => ("mirred", INGRESS_MIRROR, ifindex, rule),
            Self::Tag(state) => {
                let state = u32::from(state) << mark::STATE_SHIFT;
                // The whole mark: with a handle left in it, the echo would be taken for a frame of that list where it
                // appears, as long as the program is not attached there.
                ("skbedit", mark::ECHO | state, u32::MAX, 0)
            }
            Self::Untag => ("skbedit", 0, u32::MAX, 0),
        };
        Raw {
            kind,
            control,
            first,
            second,
            rule,
        }
    }
}

impl Raw {
    fn attributes(&self) -> Attributes {
        // struct tc_gen: index, capab, action, refcnt, bindcnt; then eaction and ifindex of mirred.
        let mut parms = vec![0u8; 20];
        parms[8..12].copy_from_slice(&self.control.to_ne_bytes());
        let options = if self.kind == "mirred" {
            parms.extend_from_slice(&self.first.to_ne_bytes());
            parms.extend_from_slice(&self.second.to_ne_bytes());
            Attributes::default().with(PARMS, &parms)
        } else {
            Attributes::default()
                .with(PARMS, &parms)
                .with_u32(TCA_SKBEDIT_MARK, self.first)
                .with_u32(TCA_SKBEDIT_MASK, self.second)
        };
        Attributes::default()
            .with_text(TCA_ACT_KIND, self.kind)
            .with_nested(TCA_ACT_OPTIONS, options)
            .with_u32(TCA_ACT_COOKIE, self.rule)
    }

    fn parse(action: &[u8]) -> Option<Self> {
        let kind = match attr::find(action, TCA_ACT_KIND)? {
            b"mirred\0" => "mirred",
            b"skbedit\0" => "skbedit",
            _ => return None,
        };
        let options = attr::find(action, TCA_ACT_OPTIONS)?;
        let parms = attr::find(options, PARMS)?;
        let (first, second) = if kind == "mirred" {
            (attr::u32_at(parms, 20)?, attr::u32_at(parms, 24)?)
        } else {
            let number = |kind| attr::u32_at(attr::find(options, kind)?, 0);
            // The kernel leaves out a mask of all ones.
            (
                number(TCA_SKBEDIT_MARK)?,
                number(TCA_SKBEDIT_MASK).unwrap_or(u32::MAX),
            )
        };
        Some(Self {
            kind,
            control: attr::u32_at(parms, 8)? as i32,
            first,
            second,
            rule: attr::u32_at(attr::find(action, TCA_ACT_COOKIE)?, 0)?,
        })
    }
}

fn header(ifindex: u32, parent: u32, handle: u32, priority: u16) -> TcHeader {
    TcHeader {
        index: ifindex as i32,
        parent: TcHandle::from(parent),
        handle: TcHandle::from(handle),
        info: u32::from(priority) << 16 | ALL_PROTOCOLS,
        ..TcHeader::default()
    }
}

fn message(header: TcHeader, kind: &str, options: Option<Attributes>) -> TcMessage {
    let mut attributes = vec![TcAttribute::Kind(kind.to_owned())];
    if let Some(options) = options {
        // The list of options is the value of one attribute, which TcOption::Other writes as it is.
        let inner = attr::each(&options.into_bytes())
            .map(|(kind, value)| TcOption::Other(DefaultNla::new(kind, value.to_vec())))
            .collect();
        attributes.push(TcAttribute::Options(inner));
    }
    TcMessage::from_parts(header, attributes)
}

/// Names the module that is missing, where the kernel's answer means that.
fn explain(error: Error, module: &str) -> Error {
    match error {
        Error::Netlink { source, .. }
            if matches!(
                source.raw_os_error(),
                Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EINVAL)
            ) =>
        {
            Error::Unsupported {
                what: format!("{module} ({source})"),
                remedy: format!("load it with `modprobe {module}`, or use a kernel that has it"),
            }
        }
        other => other,
    }
}

/// Adds the clsact qdisc; false when the interface already had one (or an ingress qdisc, which serves as well).
///
/// # Errors
/// When the kernel cannot.
pub fn add_clsact(netlink: &Netlink, ifindex: u32) -> Result<bool> {
    let mut header = header(ifindex, CLSACT, 0xFFFF_0000, 0);
    header.info = 0;
    let request = RouteNetlinkMessage::NewQueueDiscipline(message(header, "clsact", None));
    match netlink.change("add the clsact qdisc", request, NLM_F_CREATE | NLM_F_EXCL) {
        Ok(()) => Ok(true),
        Err(Error::Netlink { source, .. }) if source.raw_os_error() == Some(libc::EEXIST) => {
            Ok(false)
        }
        Err(e) => Err(explain(e, "sch_ingress")),
    }
}

/// Removes the clsact qdisc with all its filters.
///
/// # Errors
/// When the kernel cannot, except that it is gone.
pub fn delete_clsact(netlink: &Netlink, ifindex: u32) -> Result<()> {
    let mut header = header(ifindex, CLSACT, 0xFFFF_0000, 0);
    header.info = 0;
    let request = RouteNetlinkMessage::DelQueueDiscipline(message(header, "clsact", None));
    gone_is_fine(netlink.change("remove the clsact qdisc", request, 0))
}

fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(Error::Netlink { source, .. })
            if matches!(
                source.raw_os_error(),
                Some(libc::ENOENT | libc::ENODEV | libc::EINVAL)
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Priority of a run of lists.
const fn run_priority(run: u16) -> u16 {
    PRIORITY + 1 + 2 * run
}

/// Attaches the program, or replaces the one that is attached without a gap.
///
/// # Errors
/// When the kernel cannot.
pub fn attach(netlink: &Netlink, ifindex: u32, program: i32) -> Result<()> {
    attach_at(netlink, ifindex, PRIORITY, PROGRAM_NAME, program)
}

/// Attaches the program behind the first `stages` runs, or replaces it there.
///
/// # Errors
/// When the kernel cannot.
pub fn attach_steps(netlink: &Netlink, ifindex: u32, stages: u16, program: i32) -> Result<()> {
    (0..stages).try_for_each(|stage| {
        let priority = run_priority(stage) + 1;
        attach_at(netlink, ifindex, priority, STEP_NAME, program)
    })
}

fn attach_at(
    netlink: &Netlink,
    ifindex: u32,
    priority: u16,
    name: &str,
    program: i32,
) -> Result<()> {
    let options = Attributes::default()
        .with_u32(TCA_BPF_FD, program as u32)
        .with_text(TCA_BPF_NAME, name)
        .with_u32(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT);
    let header = header(ifindex, INGRESS, 1, priority);
    let request = RouteNetlinkMessage::NewTrafficFilter(message(header, "bpf", Some(options)));
    netlink
        .change("attach the program", request, NLM_F_CREATE | NLM_F_REPLACE)
        .map_err(|e| explain(e, "cls_bpf"))
}

/// Detaches the program.
///
/// # Errors
/// When the kernel cannot, except that it is gone.
pub fn detach(netlink: &Netlink, ifindex: u32) -> Result<()> {
    detach_at(netlink, ifindex, PRIORITY)
}

/// Detaches the program behind all but the first `stages` runs.
///
/// # Errors
/// When the kernel cannot, except that it is gone.
pub fn detach_steps(netlink: &Netlink, ifindex: u32, stages: u16) -> Result<()> {
    for priority in step_priorities(netlink, ifindex)? {
        if priority > run_priority(stages) {
            detach_at(netlink, ifindex, priority)?;
        }
    }
    Ok(())
}

fn detach_at(netlink: &Netlink, ifindex: u32, priority: u16) -> Result<()> {
    let header = header(ifindex, INGRESS, 1, priority);
    let request = RouteNetlinkMessage::DelTrafficFilter(message(header, "bpf", None));
    gone_is_fine(netlink.change("detach the program", request, 0))
}

/// Where `cangw_step` is attached.
fn step_priorities(netlink: &Netlink, ifindex: u32) -> Result<Vec<u16>> {
    Ok(filters(netlink, ifindex)?
        .iter()
        .filter_map(|filter| match filter {
            RouteNetlinkMessage::NewTrafficFilter(m) => Some(m),
            _ => None,
        })
        .filter(|m| {
            u32::from(m.header.handle) != 0
                && m.attributes
                    .iter()
                    .any(|a| matches!(a, TcAttribute::Kind(kind) if kind == "bpf"))
        })
        .map(|m| (m.header.info >> 16) as u16)
        .filter(|p| *p > PRIORITY && (*p - PRIORITY).is_multiple_of(2))
        .collect())
}

/// Installs a list under a handle.
///
/// # Errors
/// When the kernel cannot.
pub fn add_list(netlink: &Netlink, ifindex: u32, handle: u32, plan: &Plan) -> Result<()> {
    for (run, actions) in plan.raw().iter().enumerate() {
        let mut list = Attributes::default();
        for (i, action) in actions.iter().enumerate() {
            list = list.with_nested(i as u16 + 1, action.attributes());
        }
        let options = Attributes::default()
            .with_u32(TCA_FW_MASK, mark::FW_MASK)
            .with_nested(TCA_FW_ACT, list);
        let header = header(ifindex, INGRESS, handle, run_priority(run as u16));
        let request = RouteNetlinkMessage::NewTrafficFilter(message(header, "fw", Some(options)));
        netlink
            .change(
                "install a list of actions",
                request,
                NLM_F_CREATE | NLM_F_EXCL,
            )
            .map_err(|e| explain(e, "cls_fw, act_mirred or act_skbedit"))?;
    }
    Ok(())
}

/// Makes an interface echo the frames that are marked for it: a copy goes through the backlog to its own ingress, where can-gw
/// puts it, and the frame leaves without its mark.
///
/// # Errors
/// When the kernel cannot.
pub fn add_echo(netlink: &Netlink, ifindex: u32) -> Result<()> {
    let echo = Action::Echo {
        ifindex,
        rule: SHARED,
    };
    let untag = Raw {
        control: Control::Deliver as i32,
        ..Action::Untag.raw()
    };
    let actions = Attributes::default()
        .with_nested(1, echo.raw().attributes())
        .with_nested(2, untag.attributes());
    let options = Attributes::default()
        .with_u32(TCA_FW_MASK, mark::ECHO)
        .with_nested(TCA_FW_ACT, actions);
    let header = header(ifindex, EGRESS, mark::ECHO, PRIORITY);
    let request = RouteNetlinkMessage::NewTrafficFilter(message(header, "fw", Some(options)));
    match netlink.change("install the echo", request, NLM_F_CREATE | NLM_F_EXCL) {
        Err(Error::Netlink { source, .. }) if source.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other.map_err(|e| explain(e, "cls_fw, act_mirred or act_skbedit")),
    }
}

/// Undoes [`add_echo`].
///
/// # Errors
/// When the kernel cannot, except that it is gone.
pub fn delete_echo(netlink: &Netlink, ifindex: u32) -> Result<()> {
    let header = header(ifindex, EGRESS, mark::ECHO, PRIORITY);
    let request = RouteNetlinkMessage::DelTrafficFilter(message(header, "fw", None));
    gone_is_fine(netlink.change("remove the echo", request, 0))
}

/// Removes a filter of a list.
///
/// # Errors
/// When the kernel cannot, except that it is gone.
pub fn delete_list(netlink: &Netlink, ifindex: u32, filter: &Installed) -> Result<()> {
    let header = header(ifindex, INGRESS, filter.handle, run_priority(filter.run));
    let request = RouteNetlinkMessage::DelTrafficFilter(message(header, "fw", None));
    gone_is_fine(netlink.change("remove a list of actions", request, 0))
}

/// The filters of ours at an interface.
///
/// # Errors
/// When the kernel refuses to list them.
pub fn installed(netlink: &Netlink, ifindex: u32) -> Result<Vec<Installed>> {
    Ok(filters(netlink, ifindex)?
        .iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewTrafficFilter(m) => parse(m),
            _ => None,
        })
        .collect())
}

/// All filters at the ingress hook of an interface.
fn filters(netlink: &Netlink, ifindex: u32) -> Result<Vec<RouteNetlinkMessage>> {
    let mut header = header(ifindex, INGRESS, 0, 0);
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
        other => other,
    }
}

fn parse(message: &TcMessage) -> Option<Installed> {
    let priority = (message.header.info >> 16) as u16;
    let run = priority.checked_sub(PRIORITY + 1)? / 2;
    let handle = u32::from(message.header.handle);
    if handle == 0
        || !message
            .attributes
            .iter()
            .any(|a| matches!(a, TcAttribute::Kind(kind) if kind == "fw"))
    {
        return None;
    }
    let mut filter = Installed {
        run,
        handle,
        actions: Vec::new(),
        refused: Vec::new(),
    };
    for attribute in &message.attributes {
        let TcAttribute::Options(options) = attribute else {
            continue;
        };
        for option in options {
            let TcOption::Other(nla) = option else {
                continue;
            };
            let mut value = vec![0; nla.value_len()];
            nla.emit_value(&mut value);
            let Some(actions) = attr::find(&value, TCA_FW_ACT) else {
                continue;
            };
            for (_, action) in attr::each(actions) {
                let raw = Raw::parse(action)?;
                if raw.kind == "mirred" && matches!(raw.first, EGRESS_REDIRECT | EGRESS_MIRROR) {
                    let refused = attr::find(action, TCA_ACT_STATS)
                        .and_then(|stats| attr::find(stats, TCA_STATS_QUEUE))
                        .and_then(|queue| attr::u32_at(queue, OVERLIMITS))
                        .unwrap_or(0);
                    filter.refused.push((raw.rule, refused));
                }
                filter.actions.push(raw);
            }
        }
    }
    Some(filter)
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
        installed.sort_by_key(|filter| filter.run);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn send(ifindex: u32) -> Action {
        Action::Send {
            ifindex,
            rule: ifindex + 100,
        }
    }

    #[test]
    fn an_action_survives_the_way_to_the_kernel_and_back() {
        for action in [
            send(3),
            Action::Echo {
                ifindex: 4,
                rule: SHARED,
            },
            Action::Tag(0),
            Action::Tag(8191),
            Action::Untag,
        ] {
            let raw = action.raw();
            assert_eq!(Raw::parse(&raw.attributes().into_bytes()), Some(raw));
        }
        assert_eq!(Raw::parse(&[]), None);
    }

    #[test]
    fn runs_lead_to_each_other_and_the_last_to_its_end() {
        let plan = |end| Plan {
            runs: vec![vec![send(1), send(2)], vec![send(3)]],
            end,
        };
        let ends = |end| {
            let runs = plan(end).raw();
            let control = |run: usize, at: usize| (runs[run][at].control, runs[run][at].first);
            (control(0, 0), control(0, 1), control(1, 0))
        };
        let more = (Control::NextAction as i32, EGRESS_MIRROR);
        let next = (Control::NextFilter as i32, EGRESS_MIRROR);
        let gone = Control::Gone as i32;
        assert_eq!(
            ends(End::Deliver),
            (more, next, (Control::Deliver as i32, EGRESS_MIRROR))
        );
        assert_eq!(ends(End::Next), (more, next, next));
        assert_eq!(
            ends(End::Gone { redirect: true }),
            (more, next, (gone, EGRESS_REDIRECT))
        );
        assert_eq!(
            ends(End::Gone { redirect: false }),
            (more, next, (gone, EGRESS_MIRROR))
        );
        assert_eq!(plan(End::Deliver).stages(), 1);
        assert_eq!(plan(End::Next).stages(), 2);
    }
}
