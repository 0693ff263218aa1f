//! Sockets of tunnels.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use super::endpoint::Transport;
use crate::kernel::sockets;

/// Bytes that wait in a UDP socket: bursts of many clients come faster than they are read.
const BUFFER: usize = 4 << 20;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;
/// Silence of a connection after which the kernel asks whether the other end is there, and how often it asks again.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Bytes of a stream that the kernel takes before they can be sent. More wait in the tunnel, where they can become too old.
const UNSENT: u32 = 16 << 10;
/// `SCTP_DEFAULT_PRINFO` (linux/sctp.h)
const DEFAULT_PRINFO: i32 = 114;
/// Milliseconds between attempts to send something again, at first, at most and at least. The kernel's 60 seconds at most would make an outage longer.
const SCTP_RTO: [u32; 3] = [500, 1000, 200];
/// How often something is sent again before the connection ends: a few seconds with these times.
const SCTP_ATTEMPTS: u16 = 4;
/// Milliseconds between questions whether the other end is there.
const SCTP_HEARTBEAT: u32 = 1000;
/// `SPP_HB_ENABLE` (linux/sctp.h)
const SPP_HB_ENABLE: u32 = 1;
/// Where `tcpi_bytes_acked` is in `struct tcp_info` (linux/tcp.h).
const BYTES_ACKED: std::ops::Range<usize> = 120..128;

fn open(transport: Transport, family: &SocketAddr) -> io::Result<Socket> {
    let (kind, protocol) = match transport {
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
        Transport::Tcp | Transport::Ws | Transport::Wss => (Type::STREAM, Protocol::TCP),
        Transport::Sctp => (Type::STREAM, Protocol::SCTP),
    };
    let socket = Socket::new(Domain::for_address(*family), kind, Some(protocol));
    let socket = socket.map_err(|e| match e.raw_os_error() {
        Some(libc::EPROTONOSUPPORT) => io::Error::new(
            e.kind(),
            format!(
                "this kernel has no {}; `modprobe {}` loads it",
                transport.name(),
                transport.name()
            ),
        ),
        _ => e,
    })?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A UDP socket at an address.
pub(super) fn datagrams(at: SocketAddr) -> io::Result<Socket> {
    let socket = open(Transport::Udp, &at)?;
    // As much as there may be, where more is not permitted.
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
    setsockopt(&socket, sockopt::RxqOvfl, &1)?;
    socket.bind(&at.into())?;
    Ok(socket)
}

/// A socket that others connect to.
pub(super) fn listener(transport: Transport, at: SocketAddr) -> io::Result<Socket> {
    let socket = open(transport, &at)?;
    // What is left of connections of the last run does not keep this one from its address.
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// A socket that begins to connect.
pub(super) fn dialer(transport: Transport, to: SocketAddr) -> io::Result<Socket> {
    let socket = open(transport, &to)?;
    match socket.connect(&SockAddr::from(to)) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => Err(e),
        _ => Ok(socket),
    }
}

/// What is told to a connection: frames go at once, and what is not confirmed in time ends it, so that nothing old is sent when the network comes back.
pub(super) fn prepare(transport: Transport, socket: &Socket, max_age: Duration) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    match transport {
        Transport::Udp => {}
        Transport::Tcp | Transport::Ws | Transport::Wss => {
            socket.set_tcp_nodelay(true)?;
            socket.set_tcp_user_timeout(Some(max_age))?;
            let level = libc::IPPROTO_TCP;
            sockets::set_option(socket.as_fd(), (level, libc::TCP_NOTSENT_LOWAT), [UNSENT])?;
            let keepalive = TcpKeepalive::new()
                .with_time(KEEPALIVE)
                .with_interval(KEEPALIVE);
            socket.set_tcp_keepalive(&keepalive)?;
        }
        Transport::Sctp => prepare_sctp(socket, max_age)?,
    }
    Ok(())
}

fn set_sctp<const N: usize>(socket: &Socket, name: i32, value: [u32; N]) -> io::Result<()> {
    sockets::set_option(socket.as_fd(), (libc::IPPROTO_SCTP, name), value)
}

fn prepare_sctp(socket: &Socket, max_age: Duration) -> io::Result<()> {
    set_sctp(socket, libc::SCTP_NODELAY, [1])?;
    // struct sctp_rtoinfo: association, initial, max, min.
    let [initial, most, least] = SCTP_RTO;
    set_sctp(socket, libc::SCTP_RTOINFO, [0, initial, most, least])?;
    // struct sctp_default_prinfo: association, milliseconds, policy: messages that are older are not sent again (RFC 7496).
    let age = u32::try_from(max_age.as_millis()).unwrap_or(u32::MAX);
    let policy = libc::SCTP_PR_SCTP_TTL as u32;
    set_sctp(socket, DEFAULT_PRINFO, [0, age, policy])?;
    // struct sctp_assocparams: association, attempts (two bytes), and what stays as it is.
    let [low, high] = SCTP_ATTEMPTS.to_ne_bytes();
    let attempts = u32::from_ne_bytes([low, high, 0, 0]);
    set_sctp(socket, libc::SCTP_ASSOCINFO, [0, attempts, 0, 0, 0])?;
    // struct sctp_paddrparams, packed: association, address, heartbeat, attempts, MTU, delay, flags, ...
    let mut bytes = [0; 156];
    bytes[132..136].copy_from_slice(&SCTP_HEARTBEAT.to_ne_bytes());
    bytes[136..138].copy_from_slice(&SCTP_ATTEMPTS.to_ne_bytes());
    bytes[146..150].copy_from_slice(&SPP_HB_ENABLE.to_ne_bytes());
    let mut words = [0; 39];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    set_sctp(socket, libc::SCTP_PEER_ADDR_PARAMS, words)
}

/// What the other end of a connection has confirmed.
pub(super) enum Confirmed {
    /// Of a stream of bytes.
    Bytes {
        /// Bytes that were written and are not confirmed.
        waiting: u64,
        /// Bytes that are.
        confirmed: u64,
    },
    /// All messages but the last so many.
    AllBut(usize),
}

/// That of a TCP connection, also when it has ended; `None` of other sockets.
pub(super) fn confirmed(socket: &Socket) -> Option<Confirmed> {
    let info = sockets::option::<256>(socket.as_fd(), (libc::IPPROTO_TCP, libc::TCP_INFO));
    let bytes = info.ok()?[BYTES_ACKED].try_into().ok()?;
    Some(Confirmed::Bytes {
        waiting: sockets::unsent(socket.as_fd()).unwrap_or_default(),
        confirmed: u64::from_ne_bytes(bytes),
    })
}

/// That of an SCTP connection; `None` when the kernel does not tell, because it has ended.
pub(super) fn unconfirmed(socket: &Socket) -> Option<Confirmed> {
    let status = sockets::option::<256>(socket.as_fd(), (libc::IPPROTO_SCTP, libc::SCTP_STATUS));
    // struct sctp_status: association, state, window, and then this.
    let bytes = status.ok()?[12..14].try_into().ok()?;
    Some(Confirmed::AllBut(usize::from(u16::from_ne_bytes(bytes))))
}
