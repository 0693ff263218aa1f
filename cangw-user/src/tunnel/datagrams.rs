//! UDP: one socket, and as many peers as there are.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::rc::Rc;
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::{AbortHandle, JoinSet, spawn_blocking};
use tracing::debug;

use super::board::PeerState;
use super::codec::{Frame, decode_datagram};
use super::config::Role;
use super::pump::{Pump, close};
use super::sequence::{Arrival, Sequence};
use super::{Context, resolve, socket};
use crate::kernel::neighbours::{self, Unresolved};
use crate::kernel::netlink::Netlink;
use crate::kernel::sockets::{self, BATCH, Inbox, READ};

/// Bytes of the largest datagram.
const LARGEST: usize = 65_535;
/// How often it is looked for peers that fell silent, at most and at least.
const TICKS: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];
/// A client that has been silent for so many times the time after which it is stale is forgotten.
const FORGET: u32 = 30;
/// After an address had no place, datagrams from it are counted only, for this long.
const PAUSE: Duration = Duration::from_secs(1);
/// As many addresses at once.
const PAUSED: usize = 1024;

/// A peer.
struct Peer {
    pump: Rc<Pump>,
    sequence: Sequence,
    sender: AbortHandle,
    /// Frames that were sent to it until its host was last not known to be silent.
    sent: u64,
}

struct Datagrams<'a> {
    context: &'a Context,
    socket: Rc<AsyncFd<Socket>>,
    peers: HashMap<SocketAddr, Peer>,
    /// The tasks that send to the peers, and give back whose they were when they end.
    senders: JoinSet<(SocketAddr, Rc<Pump>, io::Error)>,
    /// Until when those who had no place are not looked at.
    paused: HashMap<SocketAddr, Instant>,
    hasher: RandomState,
    /// The hosts that did not answer at the last look.
    unresolved: Vec<Unresolved>,
}

/// Runs a tunnel until something is wrong with it.
pub(super) async fn run(context: &Context) -> crate::Result<()> {
    let failed = |what: &str, e| crate::Error::io(what.to_owned(), e);
    let (at, peer) = match &context.tunnel.role {
        Role::Server { listen, .. } => (*listen, None),
        Role::Client { connect, from } => {
            let found = resolve(connect).await?;
            // One of the kind that this end sends from, if there is one.
            let fits =
                |peer: &&SocketAddr| from.is_none_or(|from| from.is_ipv4() == peer.is_ipv4());
            let peer = *found.iter().find(fits).unwrap_or(&found[0]);
            let any = if peer.is_ipv4() {
                SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
            } else {
                SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
            };
            let from = from.unwrap_or(any);
            if from.is_ipv4() != peer.is_ipv4() {
                return Err(failed(
                    &format!("send from {from} to {peer}"),
                    io::Error::new(
                        io::ErrorKind::InvalidInput,
                        "one is an IPv4 address, the other IPv6; let `listen` be of the peer's kind",
                    ),
                ));
            }
            (from, Some(peer))
        }
    };
    let socket = socket::datagrams(at).and_then(sockets::watched);
    let socket = socket.map_err(|e| failed(&format!("listen at udp://{at}"), e))?;
    let mut datagrams = Datagrams {
        context,
        socket: Rc::new(socket),
        peers: HashMap::new(),
        senders: JoinSet::new(),
        paused: HashMap::new(),
        hasher: RandomState::default(),
        unresolved: Vec::new(),
    };
    if let Some(peer) = peer {
        context.board.lock().enter(0, peer);
        datagrams.connect(peer, 0).await?;
        context.board.change(0, |peer| peer.heard = None);
    }
    context.board.lock().error = None;
    let result = datagrams.serve().await;
    // Its ports are taken away by whoever runs it.
    datagrams.senders.shutdown().await;
    result.map_err(|e| failed(&format!("receive at udp://{at}"), e))
}

impl Datagrams<'_> {
    async fn serve(&mut self) -> io::Result<()> {
        let mut inbox = Inbox::new(LARGEST);
        let [least, most] = TICKS;
        let age = self.context.tunnel.max_age();
        let mut tick = tokio::time::interval((age / 2).clamp(least, most));
        let mut missed = 0;
        let socket = Rc::clone(&self.socket);
        loop {
            tokio::select! {
                received = socket.async_io(READ, |s| inbox.receive(s.as_fd())) => {
                    received?;
                    let overflow = inbox.overflow().unwrap_or(missed);
                    self.context.board.lock().overrun += u64::from(overflow.wrapping_sub(missed));
                    missed = overflow;
                    self.take(&inbox).await?;
                }
                Some(ended) = self.senders.join_next() => {
                    // One that was aborted has been taken care of.
                    let Ok((address, pump, error)) = ended else { continue };
                    // Its address may have another port by now.
                    if self.peers.get(&address).is_some_and(|peer| Rc::ptr_eq(&peer.pump, &pump)) {
                        self.ended(address, &error).await?;
                    }
                }
                _ = tick.tick() => {
                    self.age().await;
                    self.forget_waiting().await;
                }
            }
        }
    }

    /// Datagrams that have come.
    async fn take(&mut self, inbox: &Inbox) -> io::Result<()> {
        let mut frames: Vec<Frame> = Vec::new();
        for (bytes, from) in inbox.messages() {
            let Some(from) = from else { continue };
            frames.clear();
            if !self.peers.contains_key(&from) && !self.may_come(from) {
                continue;
            }
            let number = bytes.map(|bytes| decode_datagram(bytes, &mut frames));
            let (Some(Ok(number)), Some(bytes)) = (number, bytes) else {
                self.malformed(from);
                continue;
            };
            if !self.peers.contains_key(&from) && !self.admit(from).await {
                continue;
            }
            let Some(peer) = self.peers.get_mut(&from) else {
                continue;
            };
            let hash = self.hasher.hash_one(bytes);
            let arrival = peer.sequence.arrived(number, hash, Instant::now());
            self.context.board.heard(peer.pump.number, |counters| {
                counters.received_datagrams += 1;
                match arrival {
                    Arrival::Next => {}
                    Arrival::Ahead(missing) => counters.lost += u64::from(missing),
                    Arrival::Late => {
                        counters.lost = counters.lost.saturating_sub(1);
                        counters.late += 1;
                    }
                    Arrival::Again => counters.duplicates += 1,
                    Arrival::Anew => counters.restarts += 1,
                }
            });
            if arrival == Arrival::Again {
                continue;
            }
            if let Err(e) = peer.pump.deliver(&frames).await {
                self.ended(from, &e).await?;
            }
        }
        Ok(())
    }

    /// Whether somebody who is no peer yet can become one.
    fn may_come(&mut self, from: SocketAddr) -> bool {
        if !self.context.tunnel.allows(from.ip()) {
            self.context.board.lock().strangers += 1;
            return false;
        }
        let is_paused = self
            .paused
            .get(&from)
            .is_some_and(|until| *until > Instant::now());
        if is_paused {
            self.context.board.lock().turned_away += 1;
        }
        !is_paused
    }

    fn malformed(&self, from: SocketAddr) {
        let board = &self.context.board;
        match self.peers.get(&from) {
            Some(peer) => board.count(peer.pump.number, |counters| counters.malformed += 1),
            None => board.lock().strangers += 1,
        }
    }

    /// Makes somebody a peer, if there is a place.
    async fn admit(&mut self, from: SocketAddr) -> bool {
        let Role::Server { most, .. } = self.context.tunnel.role else {
            return false;
        };
        let place = self.context.board.lock().place(from, true, most);
        let result = match place {
            Some(number) => {
                let holder = self
                    .peers
                    .iter()
                    .find(|(_, peer)| peer.pump.number == number);
                if let Some(holder) = holder.map(|(address, _)| *address) {
                    self.forget(holder).await;
                }
                self.context.board.lock().enter(number, from);
                self.connect(from, number)
                    .await
                    .map_err(|e| Some((number, e)))
            }
            None => Err(None),
        };
        let mut board = self.context.board.lock();
        match result {
            Ok(()) => {
                board.error = None;
                return true;
            }
            Err(None) => {}
            Err(Some((number, e))) => {
                board.error = Some(e.to_string());
                board.peers.remove(&number);
            }
        }
        board.turned_away += 1;
        drop(board);
        // Addresses can be forged.
        if self.paused.len() < PAUSED {
            self.paused.insert(from, Instant::now() + PAUSE);
        }
        false
    }

    /// Makes a port for a peer, and sends to it what comes out of it.
    async fn connect(&mut self, to: SocketAddr, number: u32) -> crate::Result<()> {
        let Context {
            tunnel,
            ports,
            board,
            ..
        } = self.context;
        let packing = tunnel.packing(to.ip().to_canonical());
        let pump = Rc::new(Pump::open(number, ports, board, packing).await?);
        let sender = {
            let (socket, pump, context) = (
                Rc::clone(&self.socket),
                Rc::clone(&pump),
                self.context.clone(),
            );
            self.senders.spawn_local(async move {
                let error = tokio::select! {
                    error = pump.drain() => error,
                    error = send_all(&socket, to, &pump, &context) => error,
                };
                (to, pump, error)
            })
        };
        let sequence = Sequence::new(tunnel.stale);
        let sent = board
            .lock()
            .peers
            .get(&number)
            .map_or(0, |peer| peer.counters.sent);
        self.peers.insert(
            to,
            Peer {
                pump,
                sequence,
                sender,
                sent,
            },
        );
        Ok(())
    }

    /// A peer's port cannot be used any more: somebody took it away. A client gets another one with its next datagram; without a client, the tunnel begins anew.
    async fn ended(&mut self, address: SocketAddr, error: &io::Error) -> io::Result<()> {
        let Some(peer) = self.peers.get(&address) else {
            return Ok(());
        };
        let message = format!("its port: {error}");
        self.context.board.change(peer.pump.number, |peer| {
            peer.state = PeerState::Stale;
            peer.error = Some(message);
        });
        self.forget(address).await;
        match self.context.tunnel.role {
            Role::Server { .. } => Ok(()),
            Role::Client { .. } => Err(io::Error::other(format!("its port: {error}"))),
        }
    }

    /// Takes a peer off the bus.
    async fn forget(&mut self, address: SocketAddr) {
        if let Some(peer) = self.peers.remove(&address) {
            peer.sender.abort();
            close(&self.context.ports, &self.context.board, peer.pump.number).await;
        }
    }

    /// Packets for a host that does not answer wait in the kernel for some seconds, and leave when it is back. What has waited for half of the age that frames may have
    /// is taken away from there; by then nothing that is older has.
    async fn forget_waiting(&mut self) {
        let Context { tunnel, board, .. } = self.context;
        let is_silent = |peer: &Peer| {
            let board = board.lock();
            let heard = board
                .peers
                .get(&peer.pump.number)
                .and_then(|peer| peer.heard);
            heard.is_none_or(|heard| heard.elapsed() > tunnel.max_age() / 2)
        };
        let silent = self.peers.iter().filter(|(_, peer)| is_silent(peer));
        let silent: Vec<IpAddr> = silent
            .map(|(address, _)| address.ip().to_canonical())
            .collect();
        let before = std::mem::take(&mut self.unresolved);
        if silent.is_empty() {
            for peer in self.peers.values_mut() {
                board.change(peer.pump.number, |report| peer.sent = report.counters.sent);
            }
            return;
        }
        let looked = spawn_blocking(move || {
            let netlink = Netlink::open()?;
            let found = neighbours::unresolved(&netlink)?;
            let mut hosts: Vec<(IpAddr, Unresolved)> = Vec::new();
            for peer in silent {
                let hop = neighbours::next_hop(&netlink, peer).ok();
                let host = found.iter().find(|host| Some(host.address) == hop);
                hosts.extend(host.map(|host| (peer, host.clone())));
            }
            let (waited, new): (Vec<_>, Vec<_>) = hosts
                .into_iter()
                .partition(|(_, host)| before.contains(host));
            for (_, host) in &waited {
                // It may be another's, too, and gone with that.
                let _ = neighbours::forget(&netlink, host);
            }
            Ok::<_, crate::Error>((new, waited))
        });
        let (new, waited) = match looked.await.map_err(|e| e.to_string()) {
            Ok(Ok(found)) => found,
            Ok(Err(e)) => return debug!("{e}"),
            Err(e) => return debug!("{e}"),
        };
        for (address, peer) in &mut self.peers {
            let address = address.ip().to_canonical();
            let is_its =
                |hosts: &[(IpAddr, Unresolved)]| hosts.iter().any(|(of, _)| *of == address);
            if is_its(&new) {
                continue;
            }
            let before = peer.sent;
            board.change(peer.pump.number, |report| {
                peer.sent = report.counters.sent;
                if is_its(&waited) {
                    report.counters.unanswered += peer.sent.saturating_sub(before);
                    report.error = Some("the next host on the way to it does not answer".into());
                }
            });
        }
        self.unresolved = new.into_iter().map(|(_, host)| host).collect();
    }

    async fn age(&mut self) {
        let Context { tunnel, board, .. } = self.context;
        board.age(tunnel.stale);
        let now = Instant::now();
        self.paused.retain(|_, until| *until > now);
        if let Role::Client { .. } = tunnel.role {
            return;
        }
        let limit = tunnel.stale * FORGET;
        let silent = |number| {
            let board = board.lock();
            let peer = board.peers.get(&number);
            peer.and_then(|peer| peer.heard)
                .is_some_and(|heard| heard.elapsed() > limit)
        };
        let gone = self
            .peers
            .iter()
            .filter(|(_, peer)| silent(peer.pump.number));
        let gone: Vec<(SocketAddr, u32)> = gone.map(|(a, peer)| (*a, peer.pump.number)).collect();
        for (address, number) in gone {
            self.forget(address).await;
            board.lock().peers.remove(&number);
        }
    }
}

/// Sends what comes out of a peer's port, as long as there is a socket.
async fn send_all(
    socket: &AsyncFd<Socket>,
    to: SocketAddr,
    pump: &Pump,
    context: &Context,
) -> io::Error {
    let heartbeat = context.tunnel.heartbeat;
    let mut last = Instant::now();
    loop {
        let quiet = async {
            match heartbeat {
                Some(every) => tokio::time::sleep_until((last + every).into()).await,
                None => std::future::pending().await,
            }
        };
        let mut datagrams: Vec<(Vec<u8>, u16)> = Vec::new();
        tokio::select! {
            () = pump.due() => {
                let mut outgoing = pump.outgoing.borrow_mut();
                outgoing.datagrams(Instant::now(), BATCH, |datagram, frames| datagrams.push((datagram, frames)));
            }
            () = quiet => datagrams.push((pump.outgoing.borrow_mut().heartbeat(), 0)),
        }
        last = Instant::now();
        if let Err(e) = send(socket, to, &datagrams, pump.number, context).await {
            return e;
        }
    }
}

/// Sends datagrams. What the network refuses is counted.
async fn send(
    socket: &AsyncFd<Socket>,
    to: SocketAddr,
    datagrams: &[(Vec<u8>, u16)],
    number: u32,
    context: &Context,
) -> io::Result<()> {
    let board = &context.board;
    let mut rest = datagrams;
    while !rest.is_empty() {
        let batch = || rest.iter().take(BATCH).map(|(bytes, _)| &bytes[..]);
        let sent = match sockets::send(socket.as_fd(), batch(), Some(to)) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                board.count(number, |counters| counters.back_pressure += 1);
                let send = |socket: &Socket| sockets::send(socket.as_fd(), batch(), Some(to));
                socket.async_io(Interest::WRITABLE, send).await
            }
            other => other,
        };
        match sent {
            Ok(sent) => {
                let frames = rest[..sent].iter().map(|(_, frames)| u64::from(*frames));
                let frames: u64 = frames.sum();
                board.count(number, |counters| {
                    counters.sent += frames;
                    counters.sent_datagrams += sent as u64;
                });
                rest = &rest[sent..];
            }
            Err(e) => {
                let frames = u64::from(rest[0].1);
                board.change(number, |peer| {
                    peer.counters.unsent += frames;
                    peer.error = Some(format!("send to {to}: {e}"));
                });
                rest = &rest[1..];
            }
        }
    }
    Ok(())
}
