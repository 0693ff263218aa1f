//! The qdisc that gives an interface its hooks for filters.
//!
//! `ingress` has a hook for frames that arrive, `clsact` one for frames that leave as well. While any interface of the machine has a `clsact`,
//! each frame that is sent anywhere pays for the second hook (`egress_needed_key` in net/core/dev.c, 36 instructions), so only
//! interfaces that echo get it.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};

use super::{explain, gone_is_fine, has_others, header};
use crate::error::{Error, Result};
use crate::kernel::netlink::Netlink;

/// `TC_H_INGRESS`, which is `TC_H_CLSACT`.
const PARENT: u32 = 0xFFFF_FFF1;
/// The only handle that either has.
const HANDLE: u32 = 0xFFFF_0000;
/// `TC_H_ROOT`
const ROOT: u32 = 0xFFFF_FFFF;

/// A qdisc with hooks for filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qdisc {
    /// A hook for frames that arrive.
    Ingress,
    /// Hooks for frames that arrive and for frames that leave.
    Clsact,
}

impl Qdisc {
    /// The qdisc of an interface, if it has one.
    ///
    /// # Errors
    /// When the kernel refuses to list the qdiscs.
    pub fn of(netlink: &Netlink, ifindex: u32) -> Result<Option<Self>> {
        let request =
            RouteNetlinkMessage::GetQueueDiscipline(TcMessage::with_index(ifindex as i32));
        let answers = netlink.dump("list the qdiscs", request)?;
        Ok(answers.iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewQueueDiscipline(m)
                if m.header.index == ifindex as i32
                    && m.header.parent == TcHandle::from(PARENT) =>
            {
                m.attributes.iter().find_map(|attribute| match attribute {
                    TcAttribute::Kind(kind) if kind == Self::Ingress.kind() => Some(Self::Ingress),
                    TcAttribute::Kind(kind) if kind == Self::Clsact.kind() => Some(Self::Clsact),
                    _ => None,
                })
            }
            _ => None,
        }))
    }

    const fn kind(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Clsact => "clsact",
        }
    }

    fn message(self, ifindex: u32) -> TcMessage {
        let mut header = header(ifindex, PARENT, HANDLE, 0);
        header.info = 0;
        super::message(header, self.kind(), None)
    }

    /// Adds it; false when the interface already has one of either kind.
    ///
    /// # Errors
    /// When the kernel cannot.
    pub fn add(self, netlink: &Netlink, ifindex: u32) -> Result<bool> {
        let what = format!("add the {} qdisc", self.kind());
        let request = RouteNetlinkMessage::NewQueueDiscipline(self.message(ifindex));
        match netlink.change(&what, request, NLM_F_CREATE | NLM_F_EXCL) {
            Ok(()) => Ok(true),
            Err(Error::Netlink { source, .. }) if source.raw_os_error() == Some(libc::EEXIST) => {
                Ok(false)
            }
            Err(e) => Err(explain(e, "sch_ingress")),
        }
    }

    /// Removes the one that the interface has, with all filters of ours. With filters of others, it stays.
    ///
    /// # Errors
    /// When the kernel cannot, except that it is gone.
    pub fn remove(netlink: &Netlink, ifindex: u32) -> Result<()> {
        let Some(qdisc) = Self::of(netlink, ifindex)? else {
            return Ok(());
        };
        if has_others(netlink, ifindex)? {
            return Ok(());
        }
        let what = format!("remove the {} qdisc", qdisc.kind());
        let request = RouteNetlinkMessage::DelQueueDiscipline(qdisc.message(ifindex));
        gone_is_fine(netlink.change(&what, request, 0))
    }
}

/// Gives an interface a queue that keeps the order of frames, and drops only when it is as long as the interface wants it.
///
/// # Errors
/// When the kernel cannot.
pub(super) fn set_fifo(netlink: &Netlink, ifindex: u32) -> Result<()> {
    let mut header = header(ifindex, ROOT, 0, 0);
    header.info = 0;
    let request = RouteNetlinkMessage::NewQueueDiscipline(super::message(header, "pfifo", None));
    netlink.change("set a queue", request, NLM_F_CREATE | NLM_F_REPLACE)
}
