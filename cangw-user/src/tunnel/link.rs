//! A connection that frames come and go on, whatever is below.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::ready;
use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Context;
use super::codec::{Frame, GREETING, Malformed, Stream, decode_datagram};
use super::endpoint::Transport;
use super::outgoing::Outgoing;
use super::socket::{self, Confirmed};
use super::web::WebLink;
use crate::kernel::sockets::READ;

/// Bytes that are read at once, and the longest message.
pub(super) const CHUNK: usize = 65_535;
/// Longer than any connection lives.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);
/// Bytes of a stream that are put together to be written.
const WRITTEN: usize = 16 << 10;

/// A connection.
pub(super) enum Link {
    /// A stream (TCP), or messages of the kernel (SCTP).
    Kernel(KernelLink),
    /// Messages over TCP.
    Web(Box<WebLink>),
}

/// A socket.
pub(super) struct KernelLink {
    transport: Transport,
    socket: AsyncFd<Socket>,
    stream: RefCell<Stream>,
}

impl KernelLink {
    pub fn new(transport: Transport, socket: AsyncFd<Socket>) -> Self {
        Self {
            transport,
            socket,
            stream: RefCell::default(),
        }
    }

    /// Both ends of a stream say what they speak. The frames that came with that are appended.
    pub async fn greet(&self, frames: &mut Vec<Frame>) -> io::Result<()> {
        if self.transport != Transport::Tcp {
            return Ok(());
        }
        self.write(GREETING).await.1?;
        let mut bytes = vec![0; CHUNK];
        while !self.stream.borrow().is_greeted() {
            let received = self.receive(&mut bytes, frames).await?;
            received.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        }
        Ok(())
    }

    async fn receive(
        &self,
        bytes: &mut [u8],
        frames: &mut Vec<Frame>,
    ) -> io::Result<Result<(), Malformed>> {
        let mut read = |socket: &Socket| io::Read::read(&mut &*socket, bytes);
        let read = self.socket.async_io(READ, &mut read).await?;
        if read == 0 {
            let what = "the other end closed the connection";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        Ok(if self.transport == Transport::Tcp {
            self.stream.borrow_mut().take(&bytes[..read], frames)
        } else {
            decode_datagram(&bytes[..read], frames).map(drop)
        })
    }

    async fn write(&self, mut bytes: &[u8]) -> (bool, io::Result<()>) {
        let mut waited = false;
        while !bytes.is_empty() {
            let send = |socket: &Socket| {
                let sent = socket.send_with_flags(bytes, libc::MSG_NOSIGNAL);
                let is_full = |e: &io::Error| e.kind() == io::ErrorKind::WouldBlock;
                waited |= sent.as_ref().is_err_and(is_full);
                sent
            };
            match self.socket.async_io(Interest::WRITABLE, send).await {
                Ok(sent) => bytes = &bytes[sent..],
                Err(e) => return (waited, Err(e)),
            }
        }
        (waited, Ok(()))
    }
}

impl Link {
    /// Whether frames come one behind the other, and not in messages.
    pub fn is_stream(&self) -> bool {
        matches!(self, Self::Kernel(link) if link.transport == Transport::Tcp)
    }

    /// Waits for what comes next, and appends its frames; what is malformed ends a stream only. `bytes` is room for it.
    pub async fn receive(
        &self,
        bytes: &mut [u8],
        frames: &mut Vec<Frame>,
    ) -> io::Result<Result<(), Malformed>> {
        match self {
            Self::Kernel(link) => link.receive(bytes, frames).await,
            Self::Web(link) => link.receive(frames).await,
        }
    }

    /// Writes something whole. Tells whether it had to wait for room.
    pub async fn write(&self, message: &[u8]) -> (bool, io::Result<()>) {
        match self {
            Self::Kernel(link) => link.write(message).await,
            Self::Web(link) => {
                let mut write = pin!(link.write(message));
                tokio::select! {
                    biased;
                    written = &mut write => (false, written),
                    () = ready(()) => (true, write.await),
                }
            }
        }
    }

    /// What is to be written next of the frames that wait, and how many frames that are. The others can become too old meanwhile.
    pub fn pack(&self, outgoing: &mut Outgoing) -> (Vec<u8>, u64) {
        let mut packed = (Vec::new(), 0);
        if self.is_stream() {
            packed.1 = outgoing.stream(&mut packed.0, WRITTEN);
        } else {
            outgoing.datagrams(Instant::now(), 1, |message, frames| {
                packed = (message, u64::from(frames));
            });
        }
        packed
    }

    /// Ends when the other end is not there any more, as far as this link has its own way to ask.
    pub async fn ask(&self, every: Duration) -> io::Error {
        match self {
            Self::Kernel(_) => std::future::pending().await,
            Self::Web(link) => link.ask(every).await,
        }
    }

    /// How long the other end may say nothing at all: one that is asked answers.
    pub fn patience(&self, context: &Context) -> Duration {
        match self {
            Self::Kernel(_) => FOREVER,
            Self::Web(_) => context.tunnel.stale,
        }
    }

    /// What the other end has confirmed; `None` when the kernel does not tell.
    fn confirmed(&self) -> Option<Confirmed> {
        match self {
            Self::Kernel(link) if link.transport == Transport::Sctp => {
                socket::unconfirmed(link.socket.get_ref())
            }
            Self::Kernel(link) => socket::confirmed(link.socket.get_ref()),
            Self::Web(link) => socket::confirmed(&link.socket),
        }
    }
}

/// Something that was written.
struct Open {
    /// Bytes of the connection until its end; without meaning where messages are counted.
    end: u64,
    frames: u64,
    since: Instant,
}

/// What was written and is not known to be confirmed.
#[derive(Default)]
pub(super) struct Unconfirmed(VecDeque<Open>);

impl Unconfirmed {
    /// Something was written.
    pub fn note(&mut self, link: &Link, frames: u64) {
        let end = match link.confirmed() {
            Some(Confirmed::Bytes { waiting, confirmed }) => confirmed + waiting,
            _ => 0,
        };
        let since = Instant::now();
        self.0.push_back(Open { end, frames, since });
    }

    /// Forgets what the other end has confirmed.
    pub fn settle(&mut self, link: &Link) {
        match link.confirmed() {
            Some(Confirmed::Bytes { confirmed, .. }) => {
                while self.0.front().is_some_and(|open| open.end <= confirmed) {
                    self.0.pop_front();
                }
            }
            Some(Confirmed::AllBut(messages)) => {
                while self.0.len() > messages {
                    self.0.pop_front();
                }
            }
            None => {}
        }
    }

    /// Since when the oldest has been waiting.
    pub fn oldest(&self) -> Option<Instant> {
        self.0.front().map(|open| open.since)
    }

    /// How many frames that are.
    pub fn frames(&self) -> u64 {
        self.0.iter().map(|open| open.frames).sum()
    }
}
