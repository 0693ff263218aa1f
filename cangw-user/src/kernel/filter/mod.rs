//! tc at an interface: the qdisc, the program's filter, the fw filters that carry out lists, and the one that echoes.
//!
//! A list is a sequence of runs, each an fw filter with the handle of the list. Between the priorities of two runs stands the program that
//! gives a frame its next form:
//!
//! ```text
//! 51712 cangw_tc    51713 first runs    51714 cangw_step    51715 second runs    51716 cangw_step ...
//! ```
//!
//! In front of `cangw_tc`, at the same priority, there can be filters with the actions of one list, which take its frames there: [`Front`].

mod action;
mod installed;
mod qdisc;
pub mod reentry;

use cangw_common::abi::{front, mark};
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcHeader, TcMessage, TcOption};

pub use self::action::{Action, End, Plan, SHARED};
use self::action::{Control, Raw};
pub use self::installed::{Installed, Lists, Place, count, echoes, has_others, installed};
use self::installed::{filters, priority};
pub use self::qdisc::Qdisc;
use super::attr::{self, Attributes};
use super::netlink::Netlink;
use crate::error::{Error, Result};

/// Priority of the program; the lists follow. High numbers, so that other users' filters come first.
const PRIORITY: u16 = 0xCA00;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)`
const INGRESS: u32 = 0xFFFF_FFF2;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)`
const EGRESS: u32 = 0xFFFF_FFF3;
/// `ETH_P_ALL` in network order.
const ALL_PROTOCOLS: u32 = 0x0300;
/// Handle of a filter that runs `cangw_tc` or `cangw_step`.
const PROGRAM_HANDLE: u32 = 1;
const PROGRAM_NAME: &str = "cangw";
const STEP_NAME: &str = "cangw_step";

// linux/pkt_cls.h, tc_act/*.h
const TCA_FW_ACT: u16 = 4;
const TCA_FW_MASK: u16 = 5;
const TCA_BPF_ACT: u16 = 1;
const TCA_BPF_CLASSID: u16 = 3;
const TCA_BPF_ID: u16 = 11;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;

/// A filter in front of the program's own that takes frames of one list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// Frames of which nothing is left for local sockets.
    Take,
    /// Frames that local sockets get as well.
    Copy,
}

impl Front {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Copy, Self::Take];

    /// Its handle; the program's own filter has 1.
    const fn handle(self) -> u32 {
        match self {
            Self::Copy => 2,
            Self::Take => 3,
        }
    }

    /// Its class, for a list.
    const fn class(self, handle: u32) -> u32 {
        let handle = handle & mark::HANDLE;
        match self {
            Self::Copy => handle | front::COPY,
            Self::Take => handle,
        }
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

/// Attaches the program in front, with the actions of a list: the same ones, so that their counters are, too. The kernel asks the filter that
/// was attached last first (`cls_bpf_change()`).
///
/// # Errors
/// When the kernel cannot.
pub fn attach_front(
    netlink: &Netlink,
    ifindex: u32,
    place: Front,
    program: i32,
    list: &Installed,
) -> Result<()> {
    let options = Attributes::default()
        .with_u32(TCA_BPF_FD, program as u32)
        .with_text(TCA_BPF_NAME, "cangw_front")
        .with_u32(TCA_BPF_CLASSID, place.class(list.handle))
        .with_nested(TCA_BPF_ACT, list.bound());
    let header = header(ifindex, INGRESS, place.handle(), PRIORITY);
    let request = RouteNetlinkMessage::NewTrafficFilter(message(header, "bpf", Some(options)));
    netlink
        .change(
            "attach the program with a list of actions",
            request,
            NLM_F_CREATE | NLM_F_EXCL,
        )
        .map_err(|e| explain(e, "cls_bpf"))
}

/// Detaches a program in front.
///
/// # Errors
/// When the kernel cannot, except that it is gone.
pub fn detach_front(netlink: &Netlink, ifindex: u32, front: Front) -> Result<()> {
    detach_at(netlink, ifindex, PRIORITY, front.handle())
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
    let header = header(ifindex, INGRESS, PROGRAM_HANDLE, priority);
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
    detach_at(netlink, ifindex, PRIORITY, PROGRAM_HANDLE)
}

/// Detaches the program behind all but the first `stages` runs.
///
/// # Errors
/// When the kernel cannot, except that it is gone.
pub fn detach_steps(netlink: &Netlink, ifindex: u32, stages: u16) -> Result<()> {
    for priority in step_priorities(netlink, ifindex)? {
        if priority > run_priority(stages) {
            detach_at(netlink, ifindex, priority, PROGRAM_HANDLE)?;
        }
    }
    Ok(())
}

fn detach_at(netlink: &Netlink, ifindex: u32, priority: u16, handle: u32) -> Result<()> {
    let header = header(ifindex, INGRESS, handle, priority);
    let request = RouteNetlinkMessage::DelTrafficFilter(message(header, "bpf", None));
    gone_is_fine(netlink.change("detach the program", request, 0))
}

/// Where `cangw_step` is attached.
fn step_priorities(netlink: &Netlink, ifindex: u32) -> Result<Vec<u16>> {
    Ok(filters(netlink, ifindex, INGRESS)?
        .iter()
        .filter(|m| {
            m.attributes
                .iter()
                .any(|a| matches!(a, TcAttribute::Kind(kind) if kind == "bpf"))
        })
        .map(priority)
        .filter(|p| *p > PRIORITY && (*p - PRIORITY).is_multiple_of(2))
        .collect())
}

/// Actions in their order, each new (0) or one that exists (its number).
fn actions<'a>(actions: impl Iterator<Item = (&'a Raw, u32)>) -> Attributes {
    (1..)
        .zip(actions)
        .fold(Attributes::default(), |list, (place, (action, number))| {
            list.with_nested(place, action.attributes(number))
        })
}

/// Installs a list under a handle.
///
/// # Errors
/// When the kernel cannot.
pub fn add_list(netlink: &Netlink, ifindex: u32, handle: u32, plan: &Plan) -> Result<()> {
    for (run, actions) in plan.raw().iter().enumerate() {
        let options = Attributes::default()
            .with_u32(TCA_FW_MASK, mark::FW_MASK)
            .with_nested(TCA_FW_ACT, self::actions(actions.iter().map(|a| (a, 0))));
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
        .with_nested(1, echo.raw().attributes(0))
        .with_nested(2, untag.attributes(0));
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
    let Place::Run(run) = filter.place else {
        return Ok(());
    };
    let header = header(ifindex, INGRESS, filter.handle, run_priority(run));
    let request = RouteNetlinkMessage::DelTrafficFilter(message(header, "fw", None));
    gone_is_fine(netlink.change("remove a list of actions", request, 0))
}
