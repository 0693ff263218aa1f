//! TCP and SCTP: connections that are dialed or accepted, each with a peer.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::backoff::Backoff;
use super::board::PeerState;
use super::codec::{Frame, GREETING, Malformed, Stream, decode_datagram};
use super::config::Role;
use super::endpoint::{Endpoint, Transport};
use super::outgoing::Outgoing;
use super::pump::{Pump, close};
use super::{Context, resolve, socket};
use crate::kernel::sockets::{self, READ};

/// A peer says in this time what it speaks, and a connection is made in it.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether what was written is confirmed, at most and at least.
const WATCH: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(250)];
/// Bytes that are read at once, and the longest message.
const CHUNK: usize = 65_535;
/// Bytes of a stream that are put together to be written.
const WRITTEN: usize = 16 << 10;

/// Runs a tunnel until something is wrong with it.
pub(super) async fn run(context: &Context) -> crate::Result<()> {
    match &context.tunnel.role {
        Role::Server { listen, most, .. } => serve(context, *listen, *most).await,
        Role::Client { connect, .. } => dial(context, connect).await,
    }
}

async fn serve(context: &Context, at: SocketAddr, most: usize) -> crate::Result<()> {
    let transport = context.tunnel.transport;
    let failed = |e| crate::Error::io(format!("listen at {}://{at}", transport.name()), e);
    let listener = socket::listener(transport, at)
        .and_then(sockets::watched)
        .map_err(failed)?;
    context.board.lock().error = None;
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.async_io(READ, Socket::accept) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (socket, from) = match accepted {
            Ok((socket, from)) => (socket, from.as_socket()),
            // One that was given up meanwhile, or no descriptor was free.
            Err(e) => {
                context.board.lock().error = Some(format!("accept: {e}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(from) = from.filter(|from| context.tunnel.allows(from.ip())) else {
            context.board.lock().strangers += 1;
            continue;
        };
        let mut board = context.board.lock();
        let Some(number) = board.place(from.ip(), most) else {
            board.turned_away += 1;
            continue;
        };
        board.enter(number, from);
        drop(board);
        let context = context.clone();
        connections.spawn_local(async move {
            let error = accepted_one(&context, socket, number, from).await;
            ended(&context, number, from, &error);
        });
    }
}

async fn accepted_one(
    context: &Context,
    socket: Socket,
    number: u32,
    from: SocketAddr,
) -> io::Error {
    let begin = async {
        socket::prepare(context.tunnel.transport, &socket, context.max_age())?;
        let mut link = Link::new(context.tunnel.transport, sockets::watched(socket)?);
        // Before it has said what it speaks, it gets no port.
        link.greet().await?;
        Ok(link)
    };
    let mut link = match begin.await {
        Ok(link) => link,
        Err(e) => return e,
    };
    let packing = context.tunnel.packing(from.ip().to_canonical());
    let pump = Pump::open(number, &context.ports, &context.board, packing).await;
    let pump = match pump {
        Ok(pump) => pump,
        Err(e) => return io::Error::other(e),
    };
    let error = tokio::select! {
        error = pump.drain() => error,
        error = link.carry(context, &pump) => error,
    };
    drop(pump);
    close(&context.ports, number).await;
    error
}

/// Takes note of the end of a connection.
fn ended(context: &Context, number: u32, from: SocketAddr, error: &io::Error) {
    context.board.change(number, |peer| {
        // Its place may be another's already.
        if peer.address == Some(from) {
            peer.state = PeerState::Stale;
            peer.error = Some(error.to_string());
        }
    });
}

async fn dial(context: &Context, to: &Endpoint) -> crate::Result<()> {
    let number = 0;
    let board = &context.board;
    board.lock().peers.entry(number).or_default().name = to.to_string();
    let address = to
        .address()
        .map_or(Ipv4Addr::UNSPECIFIED.into(), |address| address.ip());
    let packing = context.tunnel.packing(address);
    let pump = Pump::open(number, &context.ports, board, packing).await?;
    board.lock().error = None;
    let connecting = async {
        let mut backoff = Backoff::default();
        loop {
            let begin = Instant::now();
            let error = match connect(context, to).await {
                Ok(mut link) => link.carry(context, &pump).await,
                Err(e) => e,
            };
            board.change(number, |peer| {
                if peer.state == PeerState::Connected {
                    peer.state = PeerState::Stale;
                }
                peer.error = Some(error.to_string());
            });
            tokio::time::sleep(backoff.next(begin.elapsed())).await;
        }
    };
    // What the bus says while nobody is there waits, and becomes too old.
    let expiring = async {
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        loop {
            tick.tick().await;
            pump.expire();
        }
    };
    let error = tokio::select! {
        error = pump.drain() => error,
        () = connecting => io::ErrorKind::Other.into(),
        () = expiring => io::ErrorKind::Other.into(),
    };
    Err(crate::Error::io("use its port", error))
}

async fn connect(context: &Context, to: &Endpoint) -> io::Result<Link> {
    let address = resolve(to).await.map_err(io::Error::other)?;
    let socket = sockets::watched(socket::dialer(to.transport, address)?)?;
    let connected = async {
        let _ = socket.writable().await?;
        socket.get_ref().take_error()?.map_or(Ok(()), Err)?;
        // Only a socket that is connected has a peer.
        socket.get_ref().peer_addr().map(|_| ())
    };
    within_patience(connected).await?;
    socket::prepare(to.transport, socket.get_ref(), context.max_age())?;
    context.board.change(0, |peer| {
        peer.address = Some(address);
        peer.name = format!("{to} ({})", address.ip());
        if to.address().is_some() {
            peer.name = to.to_string();
        }
    });
    let mut link = Link::new(to.transport, socket);
    link.greet().await?;
    Ok(link)
}

async fn within_patience<T>(what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer in 5 seconds");
    timeout(PATIENCE, what).await.map_err(late)?
}

/// A connection.
struct Link {
    transport: Transport,
    socket: AsyncFd<Socket>,
    stream: RefCell<Stream>,
    /// Frames that came with the greeting.
    early: Vec<Frame>,
    written: RefCell<Written>,
}

#[derive(Default)]
struct Written {
    /// Bytes of a stream that were confirmed before its first frame.
    before: u64,
    /// Bytes of frames.
    bytes: u64,
    /// What is not known to be confirmed.
    open: VecDeque<Open>,
}

/// Something that was written.
struct Open {
    /// Bytes until its end.
    end: u64,
    frames: u64,
    since: Instant,
}

impl Link {
    fn new(transport: Transport, socket: AsyncFd<Socket>) -> Self {
        Self {
            transport,
            socket,
            stream: RefCell::default(),
            early: Vec::new(),
            written: RefCell::default(),
        }
    }

    /// Both ends of a stream say what they speak.
    async fn greet(&mut self) -> io::Result<()> {
        if self.transport != Transport::Tcp {
            return Ok(());
        }
        self.write(GREETING).await.1?;
        let mut bytes = vec![0; CHUNK];
        let greeting = async {
            let mut early = Vec::new();
            while !self.stream.borrow().is_greeted() {
                let read = self.read(&mut bytes).await?;
                self.decode(&bytes[..read], &mut early)?;
            }
            Ok(early)
        };
        self.early = within_patience(greeting).await?;
        // What the other end said before it read this end's greeting confirms nothing; the kernel counts the first bytes in its own way.
        self.written.get_mut().before = GREETING.len() as u64;
        Ok(())
    }

    async fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut read = |socket: &Socket| io::Read::read(&mut &*socket, bytes);
        match self.socket.async_io(READ, &mut read).await? {
            0 => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the other end closed the connection",
            )),
            read => Ok(read),
        }
    }

    /// Writes all bytes. Tells whether they had to wait for room.
    async fn write(&self, mut bytes: &[u8]) -> (bool, io::Result<()>) {
        let mut waited = false;
        while !bytes.is_empty() {
            let send = |socket: &Socket| {
                let sent = socket.send_with_flags(bytes, libc::MSG_NOSIGNAL);
                waited |= sent
                    .as_ref()
                    .is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock);
                sent
            };
            match self.socket.async_io(Interest::WRITABLE, send).await {
                Ok(sent) => bytes = &bytes[sent..],
                Err(e) => return (waited, Err(e)),
            }
        }
        (waited, Ok(()))
    }

    fn decode(&self, bytes: &[u8], frames: &mut Vec<Frame>) -> io::Result<()> {
        let result = match self.transport {
            Transport::Tcp => self.stream.borrow_mut().take(bytes, frames),
            Transport::Udp | Transport::Sctp => decode_datagram(bytes, frames).map(drop),
        };
        result.map_err(|e: Malformed| io::Error::new(io::ErrorKind::InvalidData, e))
    }

    /// Carries frames both ways until that is not possible any more.
    async fn carry(&mut self, context: &Context, pump: &Pump) -> io::Error {
        let early = std::mem::take(&mut self.early);
        context.board.heard(pump.number, |_| {});
        let this = &*self;
        let error = tokio::select! {
            error = this.receive_all(context, pump, early) => error,
            error = this.send_all(context, pump) => error,
            error = this.watch(context.max_age()) => error,
        };
        this.settle();
        let unconfirmed = this
            .written
            .borrow()
            .open
            .iter()
            .map(|open| open.frames)
            .sum::<u64>();
        context.board.count(pump.number, |counters| {
            // They were sent, as far as that is known.
            counters.unconfirmed += unconfirmed;
        });
        error
    }

    /// Ends when something has not been confirmed for longer than frames may be old: it would arrive too late, and what follows, too.
    async fn watch(&self, max_age: Duration) -> io::Error {
        let mut tick = tokio::time::interval((max_age / 4).clamp(WATCH[0], WATCH[1]));
        loop {
            tick.tick().await;
            self.settle();
            let written = self.written.borrow();
            if written
                .open
                .front()
                .is_some_and(|open| open.since.elapsed() > max_age)
            {
                return io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the other end has confirmed nothing for longer than frames may be old",
                );
            }
        }
    }

    /// Forgets what the other end has confirmed.
    fn settle(&self) {
        let mut written = self.written.borrow_mut();
        let socket = self.socket.get_ref();
        if self.transport == Transport::Tcp {
            let confirmed = socket::confirmed(socket).unwrap_or_default();
            let confirmed = confirmed.saturating_sub(written.before);
            while written
                .open
                .front()
                .is_some_and(|open| open.end <= confirmed)
            {
                written.open.pop_front();
            }
        } else if let Some(messages) = socket::unconfirmed(socket) {
            while written.open.len() > messages {
                written.open.pop_front();
            }
        }
    }

    async fn receive_all(
        &self,
        context: &Context,
        pump: &Pump,
        mut frames: Vec<Frame>,
    ) -> io::Error {
        let mut bytes = vec![0; CHUNK];
        loop {
            if let Err(e) = pump.deliver(&frames).await {
                return e;
            }
            frames.clear();
            let read = match self.read(&mut bytes).await {
                Ok(read) => read,
                Err(e) => return e,
            };
            let decoded = self.decode(&bytes[..read], &mut frames);
            let is_message = self.transport != Transport::Tcp;
            context.board.heard(pump.number, |counters| {
                counters.received_datagrams += u64::from(is_message);
                counters.malformed += u64::from(decoded.is_err());
            });
            match decoded {
                Err(e) if !is_message => {
                    // Those before it are whole.
                    let _ = pump.deliver(&frames).await;
                    return e;
                }
                _ => {}
            }
        }
    }

    async fn send_all(&self, context: &Context, pump: &Pump) -> io::Error {
        let mut messages: Vec<(Vec<u8>, u64)> = Vec::new();
        loop {
            pump.due().await;
            self.pack(&mut pump.outgoing.borrow_mut(), &mut messages);
            let mut failed = None;
            for (message, frames) in messages.drain(..) {
                let (waited, written) = match failed {
                    None => self.write(&message).await,
                    Some(_) => (false, Err(io::ErrorKind::NotConnected.into())),
                };
                context.board.count(pump.number, |counters| {
                    counters.back_pressure += u64::from(waited);
                    if written.is_ok() {
                        counters.sent += frames;
                        counters.sent_datagrams += u64::from(self.transport != Transport::Tcp);
                    } else {
                        counters.unsent += frames;
                    }
                });
                if written.is_ok() {
                    self.note(message.len() as u64, frames);
                }
                failed = failed.or(written.err());
            }
            if let Some(e) = failed {
                return e;
            }
        }
    }

    /// Remembers what was written until it is confirmed.
    fn note(&self, bytes: u64, frames: u64) {
        let mut written = self.written.borrow_mut();
        written.bytes += bytes;
        let (end, since) = (written.bytes, Instant::now());
        written.open.push_back(Open { end, frames, since });
    }

    /// What is to be written of the frames that wait, with how many frames each has.
    fn pack(&self, outgoing: &mut Outgoing, messages: &mut Vec<(Vec<u8>, u64)>) {
        if self.transport == Transport::Tcp {
            let mut chunk = Vec::new();
            let frames = outgoing.stream(&mut chunk, WRITTEN);
            messages.push((chunk, frames));
        } else {
            outgoing.datagrams(Instant::now(), |message, frames| {
                messages.push((message, u64::from(frames)))
            });
        }
    }
}
