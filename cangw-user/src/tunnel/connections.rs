//! TCP, SCTP and WebSocket: connections that are dialed or accepted, each with a peer.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::Socket;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::backoff::Backoff;
use super::board::PeerState;
use super::codec::Frame;
use super::config::Role;
use super::endpoint::Endpoint;
use super::link::{CHUNK, KernelLink, Link, Unconfirmed};
use super::pump::{Pump, close};
use super::web::{self, Service};
use super::{Context, resolve, socket};
use crate::kernel::sockets::{self, READ};

/// A peer says in this time what it speaks, and a connection is made in it.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection on which nothing can be sent is still read.
const LINGER: Duration = Duration::from_millis(500);
/// How often it is looked whether what was written is confirmed, at most and at least.
const WATCH: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(250)];

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
    let service = context.tunnel.service()?;
    context.board.lock().error = None;
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.async_io(READ, Socket::accept) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (socket, from) = match accepted {
            Ok((socket, from)) => {
                context.board.lock().error = None;
                (socket, from.as_socket())
            }
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
        let Some(number) = board.place(from, false, most) else {
            board.turned_away += 1;
            continue;
        };
        board.enter(number, from);
        drop(board);
        let (context, service) = (context.clone(), service.clone());
        connections.spawn_local(async move {
            let error = accepted_one(&context, socket, number, from, service.as_ref()).await;
            ended(&context, number, from, &error);
        });
    }
}

async fn accepted_one(
    context: &Context,
    socket: Socket,
    number: u32,
    from: SocketAddr,
    service: Option<&Service>,
) -> io::Error {
    let begin = async {
        let transport = context.tunnel.transport;
        socket::prepare(transport, &socket, context.tunnel.max_age())?;
        let mut early = Vec::new();
        // Before it has said what it speaks, it gets no port.
        let link = match service {
            Some(service) => Link::Web(Box::new(service.accept(socket).await?)),
            None => {
                let link = KernelLink::new(transport, sockets::watched(socket)?);
                link.greet(&mut early).await?;
                Link::Kernel(link)
            }
        };
        Ok((link, early))
    };
    let (link, early) = match within_patience(begin).await {
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
        error = carry(context, &pump, &link, early) => error,
    };
    drop(pump);
    close(&context.ports, &context.board, number).await;
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
                Ok((link, early)) => carry(context, &pump, &link, early).await,
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

async fn connect(context: &Context, to: &Endpoint) -> io::Result<(Link, Vec<Frame>)> {
    let mut result = Err(io::ErrorKind::NotFound.into());
    for address in resolve(to).await.map_err(io::Error::other)? {
        result = within_patience(reach(to, address)).await;
        if result.is_ok() {
            break;
        }
    }
    let (socket, address) = result?;
    socket::prepare(to.transport, socket.get_ref(), context.tunnel.max_age())?;
    context.board.change(0, |peer| {
        peer.address = Some(address);
        peer.name = format!("{to} ({})", address.ip());
        if to.address().is_some() {
            peer.name = to.to_string();
        }
    });
    let mut early = Vec::new();
    let begin = async {
        if to.transport.is_web() {
            let link = web::connect(to, &context.tunnel.files, socket.into_inner()).await?;
            return Ok(Link::Web(Box::new(link)));
        }
        let link = KernelLink::new(to.transport, socket);
        link.greet(&mut early).await?;
        Ok(Link::Kernel(link))
    };
    let link = within_patience(begin).await?;
    Ok((link, early))
}

/// Connects with one of a peer's addresses.
async fn reach(to: &Endpoint, address: SocketAddr) -> io::Result<(AsyncFd<Socket>, SocketAddr)> {
    let socket = sockets::watched(socket::dialer(to.transport, address)?)?;
    let _ = socket.writable().await?;
    socket.get_ref().take_error()?.map_or(Ok(()), Err)?;
    // Only a socket that is connected has a peer.
    socket.get_ref().peer_addr()?;
    Ok((socket, address))
}

async fn within_patience<T>(what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer in 5 seconds");
    timeout(PATIENCE, what).await.map_err(late)?
}

/// Carries frames both ways until that is not possible any more. `early` came with the greeting.
async fn carry(context: &Context, pump: &Pump, link: &Link, early: Vec<Frame>) -> io::Error {
    context.board.heard(pump.number, |_| {});
    let account = Account {
        context,
        number: pump.number,
        link,
        open: RefCell::default(),
        writing: Cell::new(0),
    };
    tokio::select! {
        error = receive_all(context, pump, link, early) => error,
        error = async {
            let error = send_all(pump, &account).await;
            // What the other end said before it went may still be here.
            tokio::time::sleep(LINGER).await;
            error
        } => error,
        error = watch(link, &account.open, context.tunnel.max_age()) => error,
        error = link.ask(context.tunnel.stale / 3) => error,
    }
}

/// What was taken from a peer's queue and is not known to have arrived. It is counted when the connection ends, for whichever reason.
struct Account<'a> {
    context: &'a Context,
    number: u32,
    link: &'a Link,
    open: RefCell<Unconfirmed>,
    /// Frames that are being written.
    writing: Cell<u64>,
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        let mut open = self.open.borrow_mut();
        open.settle(self.link);
        self.context.board.count(self.number, |counters| {
            counters.unconfirmed += open.frames();
            counters.unsent += self.writing.get();
        });
    }
}

/// Ends when something has not been confirmed for longer than frames may be old: it would arrive too late, and what follows, too.
async fn watch(link: &Link, open: &RefCell<Unconfirmed>, max_age: Duration) -> io::Error {
    let [least, most] = WATCH;
    let mut tick = tokio::time::interval((max_age / 4).clamp(least, most));
    loop {
        tick.tick().await;
        let mut open = open.borrow_mut();
        open.settle(link);
        if open.oldest().is_some_and(|since| since.elapsed() > max_age) {
            return io::Error::new(
                io::ErrorKind::TimedOut,
                "the other end has confirmed nothing for longer than frames may be old",
            );
        }
    }
}

async fn receive_all(
    context: &Context,
    pump: &Pump,
    link: &Link,
    mut frames: Vec<Frame>,
) -> io::Error {
    let mut bytes = vec![0; CHUNK];
    loop {
        if let Err(e) = pump.deliver(&frames).await {
            return e;
        }
        frames.clear();
        // One that asks is answered.
        let received = link.receive(&mut bytes, &mut frames);
        let received = match timeout(link.patience(context), received).await {
            Ok(Ok(received)) => received,
            Ok(Err(e)) => return e,
            Err(_) => return io::Error::new(io::ErrorKind::TimedOut, "it does not answer"),
        };
        context.board.heard(pump.number, |counters| {
            let is_datagram = !link.is_stream() && (received.is_err() || !frames.is_empty());
            counters.received_datagrams += u64::from(is_datagram);
            counters.malformed += u64::from(received.is_err());
        });
        if let Err(e) = received
            && link.is_stream()
        {
            // Those before it are whole.
            let _ = pump.deliver(&frames).await;
            return io::Error::new(io::ErrorKind::InvalidData, e);
        }
    }
}

async fn send_all(pump: &Pump, account: &Account<'_>) -> io::Error {
    let Account {
        context,
        link,
        open,
        writing,
        ..
    } = account;
    loop {
        pump.due().await;
        let (message, frames) = link.pack(&mut pump.outgoing.borrow_mut());
        writing.set(frames);
        let (waited, written) = link.write(&message).await;
        if let Err(e) = written {
            return e;
        }
        writing.set(0);
        open.borrow_mut().note(link, frames);
        context.board.count(pump.number, |counters| {
            counters.back_pressure += u64::from(waited);
            counters.sent += frames;
            counters.sent_datagrams += u64::from(!link.is_stream());
        });
    }
}
