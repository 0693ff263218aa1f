//! One client: its requests, one after the other, and the answers.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::spawn_blocking;

use super::access::Access;
use super::control::Control;
use super::orders::{What, order};
use super::patience::Patience;
use crate::api::client::namespace_number;
use crate::api::methods::{self, Down, Status, Top, Up};
use crate::api::service::{
    self, Empty, Health, HealthReport, OpenSocket, Peers, Reload, Subscribe, TunnelAdd, TunnelList,
    TunnelRemove, Version, VersionReport,
};
use crate::api::{self, Answer, Call, LONGEST, Method as _, Request, refused, value};
use crate::capture::Capture;
use crate::error::{Error, Result};
use crate::topology::EcuHandle;

/// Bytes of a request of a client that may only look, at most.
const LONGEST_LOOK: usize = 64 << 10;
/// A client that does not take its answer in this time is left.
const SLOW: Duration = Duration::from_secs(5);
/// Requests that a client may send in a second, and at once.
const RATE: u32 = 200;

/// A client that is connected.
pub(super) struct Session<'a> {
    stream: BufReader<UnixStream>,
    access: Access,
    control: &'a Control,
    patience: Patience,
    /// What the client subscribed to with its last request.
    events: Option<broadcast::Receiver<Arc<str>>>,
}

/// What came of a request, with a descriptor for the client.
type Reply = (Value, Option<OwnedFd>);

impl<'a> Session<'a> {
    pub fn new(stream: UnixStream, access: Access, control: &'a Control) -> Self {
        Self {
            stream: BufReader::new(stream),
            access,
            control,
            patience: Patience::new(RATE, Duration::from_secs(1) / RATE, Instant::now()),
            events: None,
        }
    }

    /// Serves the client until it is gone, or is to be left.
    ///
    /// # Errors
    /// When it cannot be talked to.
    pub async fn run(mut self) -> io::Result<()> {
        let longest = if self.access == Access::Change {
            LONGEST
        } else {
            LONGEST_LOOK
        };
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut self.stream)
                .take(longest as u64)
                .read_until(b'\n', &mut line)
                .await?;
            if read == 0 {
                return Ok(());
            }
            let whole = line.ends_with(b"\n");
            if !whole && read == longest {
                let reason = format!("a request has at most {longest} bytes");
                return refuse(self.stream.get_ref(), reason).await;
            }
            let result = if self.patience.spend(Instant::now()) {
                self.reply(&line).await
            } else {
                Err(refused(format!(
                    "a client sends at most {RATE} requests in a second; wait"
                )))
            };
            let (result, descriptor) = match result {
                Ok((value, descriptor)) => (Ok(value), descriptor),
                Err(e) => (Err(e), None),
            };
            send(self.stream.get_ref(), &Answer::from(result), descriptor).await?;
            if let Some(events) = self.events.take() {
                return follow(self.stream.get_ref(), events).await;
            }
            if !whole {
                return Ok(());
            }
        }
    }

    /// Does what may take a while without keeping others waiting.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        // It is never closed.
        let _turn = self.control.work.acquire().await;
        spawn_blocking(work)
            .await
            .map_err(|_| refused("this request made cangwd fail; its log says where"))?
    }

    async fn reply(&mut self, line: &[u8]) -> Result<Reply> {
        let request = Request::parse(line)?;
        let mut all = service::ALL.iter().chain(methods::ALL);
        let Some((id, changes)) = all.find(|(id, _)| *id == request.id) else {
            let all = service::ALL.iter().chain(methods::ALL);
            let mut names: Vec<&str> = all.map(|(id, _)| *id).collect();
            names.sort_unstable();
            return Err(refused(format!(
                "no method {}; there are {}",
                request.id,
                names.join(", ")
            )));
        };
        self.access.allows(id, *changes).map_err(refused)?;
        match *id {
            Version::ID => {
                let Version {} = request.call()?;
                let report = VersionReport {
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    api: api::VERSION,
                    namespace: namespace_number()?,
                };
                alone(&report)
            }
            Health::ID => {
                let Health {} = request.call()?;
                alone(&HealthReport::from(self.control.shared.outcome()))
            }
            Reload::ID => {
                let Reload {} = request.call()?;
                alone(&order(&self.control.orders, What::Reload).await?)
            }
            Up::ID => alone(&order(&self.control.orders, What::Up(request.call()?)).await?),
            Down::ID => alone(&order(&self.control.orders, What::Down(request.call()?)).await?),
            TunnelAdd::ID => {
                let add: TunnelAdd = request.call()?;
                let user = self.stream.get_ref().peer_cred();
                if add.tunnel.has_files() && !user.is_ok_and(|user| user.uid() == 0) {
                    return Err(refused("files of certificates are read for root only"));
                }
                let what = What::AddTunnel(Box::new(add));
                alone(&order(&self.control.orders, what).await?)
            }
            TunnelRemove::ID => {
                let what = What::RemoveTunnel(request.call()?);
                alone(&order(&self.control.orders, what).await?)
            }
            TunnelList::ID => {
                let TunnelList {} = request.call()?;
                let shared = Arc::clone(&self.control.shared);
                alone(&self.work(move || Ok(shared.tunnels.reports())).await?)
            }
            Peers::ID => {
                let Peers {} = request.call()?;
                let shared = Arc::clone(&self.control.shared);
                alone(&self.work(move || Ok(shared.federations.reports())).await?)
            }
            Status::ID => {
                let (status, shared) =
                    (request.call::<Status>()?, Arc::clone(&self.control.shared));
                let look = move || Ok(shared.beside(status.perform()?));
                alone(&self.work(look).await?)
            }
            Top::ID => {
                let (top, shared) = (request.call::<Top>()?, Arc::clone(&self.control.shared));
                alone(&self.work(move || shared.top(top)).await?)
            }
            OpenSocket::ID => {
                let OpenSocket { ecu, interface, fd } = request.call()?;
                let socket = self.work(move || open_socket(&ecu, &interface, fd)).await?;
                Ok((value(&Empty {})?, Some(socket)))
            }
            Capture::ID => {
                let mut capture: Capture = request.call()?;
                let buses = self.control.shared.outcome().buses;
                let on = |name: String| buses.get(&name).cloned().unwrap_or_else(|| vec![name]);
                capture.interfaces = capture.interfaces.into_iter().flat_map(on).collect();
                let socket = self.work(move || capture.begin()).await?;
                Ok((value(&Empty {})?, Some(socket)))
            }
            Subscribe::ID => {
                let Subscribe {} = request.call()?;
                self.events = Some(self.control.events.subscribe());
                alone(&Empty {})
            }
            _ => {
                let reply = self
                    .work(move || methods::perform(request).transpose())
                    .await?;
                Ok((reply.unwrap_or_default(), None))
            }
        }
    }
}

/// Sends events until the client is gone, or does not take them.
async fn follow(stream: &UnixStream, mut events: broadcast::Receiver<Arc<str>>) -> io::Result<()> {
    loop {
        // The client has nothing to say any more but that it is gone.
        let line = tokio::select! {
            line = events.recv() => line,
            gone = stream.readable() => return gone,
        };
        match line {
            Ok(line) => {
                tokio::time::timeout(SLOW, send_line(stream, line.as_bytes(), None)).await??;
            }
            Err(RecvError::Lagged(events)) => {
                let reason = format!("{events} events were not read in time; subscribe again");
                return refuse(stream, reason).await;
            }
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

fn alone<T: serde::Serialize>(reply: &T) -> Result<Reply> {
    Ok((value(reply)?, None))
}

fn open_socket(ecu: &str, interface: &str, fd: bool) -> Result<OwnedFd> {
    let ecu = EcuHandle::open(ecu)?;
    let descriptor = if fd {
        ecu.fd_socket(interface)?.as_fd().try_clone_to_owned()
    } else {
        ecu.socket(interface)?.as_fd().try_clone_to_owned()
    };
    descriptor.map_err(|e| Error::io(format!("open {interface}"), e))
}

/// Sends an answer, with a descriptor beside its first byte.
async fn send(stream: &UnixStream, answer: &Answer, descriptor: Option<OwnedFd>) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    tokio::time::timeout(SLOW, send_line(stream, &line, descriptor)).await?
}

async fn send_line(
    stream: &UnixStream,
    mut line: &[u8],
    mut descriptor: Option<OwnedFd>,
) -> io::Result<()> {
    while !line.is_empty() {
        let sent = stream
            .async_io(Interest::WRITABLE, || {
                let raw = descriptor.as_ref().map(|fd| [fd.as_raw_fd()]);
                let rights = raw.as_ref().map(|fds| ControlMessage::ScmRights(fds));
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                let slices = [IoSlice::new(line)];
                sendmsg::<()>(stream.as_raw_fd(), &slices, rights.as_slice(), flags, None)
                    .map_err(io::Error::from)
            })
            .await?;
        // It goes with the first bytes.
        descriptor = None;
        line = &line[sent..];
    }
    Ok(())
}

/// Tells a client why it is not served.
///
/// # Errors
/// When it does not take that.
pub(super) async fn refuse(stream: &UnixStream, reason: String) -> io::Result<()> {
    send(stream, &Answer::from(Err(refused(reason))), None).await
}
