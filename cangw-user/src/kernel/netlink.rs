//! Requests to rtnetlink, one after the other.

use futures::StreamExt as _;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use tokio::io::unix::AsyncFd;

use crate::error::{Error, Result};

/// A connection to rtnetlink in the current network namespace.
pub struct Netlink {
    runtime: tokio::runtime::Runtime,
    handle: rtnetlink::Handle,
}

impl Netlink {
    /// Connects.
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub fn open() -> Result<Self> {
        let io = |e| Error::io("open a netlink socket", e);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(io)?;
        let _inside = runtime.enter();
        let (connection, handle, _) = rtnetlink::new_connection().map_err(io)?;
        runtime.spawn(connection);
        drop(_inside);
        Ok(Self { runtime, handle })
    }

    /// Sends a request and waits for its acknowledgement.
    ///
    /// # Errors
    /// The kernel's answer, with `what` before it.
    pub fn change(&self, what: &str, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.exchange(what, message, NLM_F_REQUEST | NLM_F_ACK | flags)
            .map(drop)
    }

    /// Sends a request for a dump and collects the answers.
    ///
    /// # Errors
    /// The kernel's answer, with `what` before it.
    pub fn dump(
        &self,
        what: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        self.exchange(what, message, NLM_F_REQUEST | NLM_F_DUMP)
    }

    /// Asks for one thing.
    ///
    /// # Errors
    /// The kernel's answer, with `what` before it.
    pub fn get(
        &self,
        what: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        self.exchange(what, message, NLM_F_REQUEST | NLM_F_ACK)
    }

    fn exchange(
        &self,
        what: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        let mut handle = self.handle.clone();
        let failed = |source| Error::Netlink {
            what: what.to_owned(),
            source,
        };
        self.runtime.block_on(async move {
            let mut answers = handle
                .request(request)
                .map_err(|e| failed(std::io::Error::other(e.to_string())))?;
            let mut out = Vec::new();
            while let Some(answer) = answers.next().await {
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => out.push(message),
                    NetlinkPayload::Error(e) if e.code.is_some() => return Err(failed(e.to_io())),
                    _ => {}
                }
            }
            Ok(out)
        })
    }
}

/// `RTNLGRP_LINK` (linux/rtnetlink.h): interfaces.
const LINKS: u32 = 1;
/// `RTNLGRP_TC`: qdiscs and filters.
const FILTERS: u32 = 4;

/// A socket that hears of changed interfaces, qdiscs and filters in the current network namespace.
///
/// # Errors
/// When it cannot be opened.
pub fn subscribe() -> Result<Socket> {
    let subscribe = || {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        socket.add_membership(LINKS)?;
        socket.add_membership(FILTERS)?;
        Ok(socket)
    };
    subscribe().map_err(|e| Error::io("watch the interfaces", e))
}

/// Lets the runtime that this is called from wait for messages.
///
/// # Errors
/// When it has no place for the socket.
pub fn register(socket: Socket) -> Result<AsyncFd<Socket>> {
    // SAFETY: the socket owns its descriptor, and nobody takes or closes it while it is there.
    unsafe { AsyncFd::register(socket) }
        .map_err(|e| Error::io("watch the interfaces", e.into_parts().1))
}
