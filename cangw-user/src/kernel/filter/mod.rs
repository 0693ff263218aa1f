//! tc at an interface: the clsact qdisc, the program's filter, the fw filters that carry out lists, and the one that echoes.
//!
//! A list is a sequence of runs, each an fw filter with the handle of the list. Between the priorities of two runs stands the program that
//! gives a frame its next form:
//!
//! ```text
//! 51712 cangw_tc    51713 first runs    51714 cangw_step    51715 second runs    51716 cangw_step ...
//! ```

mod action;
mod installed;

use cangw_common::abi::mark;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcHeader, TcMessage, TcOption};

pub use self::action::{Action, End, Plan, SHARED};
use self::action::{Control, Raw};
use self::installed::filters;
pub use self::installed::{Installed, Lists, installed};
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
