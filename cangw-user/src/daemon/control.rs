//! The control socket: where it is, and who may be connected at a time.

use std::collections::HashMap;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context as _, Result, bail};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tracing::warn;

use super::access::Access;
use super::events::Events;
use super::orders::Order;
use super::session::{self, Session};
use super::shared::Shared;

/// Clients at once, and of one user.
const CLIENTS: usize = 128;
const CLIENTS_OF_USER: usize = 64;

/// Requests that are worked on at a time. They wait for each other in the kernel, and are not to keep the daemon's own passes waiting.
const AT_ONCE: usize = 4;

/// What clients can reach.
pub(super) struct Control {
    pub shared: Arc<Shared>,
    pub events: Events,
    pub orders: mpsc::Sender<Order>,
    /// Requests that are worked on.
    pub work: Semaphore,
    /// Clients that are connected, by user.
    clients: Mutex<HashMap<u32, usize>>,
}

/// A client's place among those that are connected.
struct Place<'a> {
    control: &'a Control,
    user: u32,
}

impl Control {
    pub fn new(shared: Arc<Shared>, orders: mpsc::Sender<Order>) -> Self {
        Self {
            shared,
            events: Events::new(),
            orders,
            work: Semaphore::new(AT_ONCE),
            clients: Mutex::default(),
        }
    }

    /// A place for a client; or why there is none.
    fn place(&self, user: u32) -> Result<Place<'_>, String> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = clients.values().sum();
        let own = clients.entry(user).or_default();
        if *own >= CLIENTS_OF_USER {
            return Err(format!(
                "{CLIENTS_OF_USER} clients of this user are connected; no more at once"
            ));
        }
        // There is always room for root.
        if all >= CLIENTS && user != 0 {
            return Err(format!("{CLIENTS} clients are connected; no more at once"));
        }
        *own += 1;
        Ok(Place {
            control: self,
            user,
        })
    }

    async fn serve_one(&self, stream: UnixStream) -> io::Result<()> {
        let user = stream.peer_cred()?.uid();
        let access = Access::of(&stream)?;
        // Those who may not do anything take no place from others.
        if let Err(reason) = access.allows("cangwd", false) {
            return session::refuse(&stream, reason).await;
        }
        match self.place(user) {
            Ok(_place) => Session::new(stream, access, self).run().await,
            Err(reason) => session::refuse(&stream, reason).await,
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let clients = self.control.clients.lock();
        let mut clients = clients.unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = clients.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                clients.remove(&self.user);
            }
        }
    }
}

/// Sockets that the daemon serves, and the names of those from systemd (`FileDescriptorName=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Socket {
    /// For cangw and other clients: everybody may connect, and is told what he may not do.
    Control,
    /// For dockerd.
    Docker,
}

impl Socket {
    /// What those who may not connect to it are not given.
    const fn umask(self) -> u32 {
        match self {
            Self::Control => 0o111,
            Self::Docker => 0o177,
        }
    }
}

/// The sockets from systemd.
pub(super) fn given() -> Result<HashMap<Socket, UnixListener>> {
    let fds = sd_notify::listen_fds_with_names().context("cannot take sockets from systemd")?;
    let listener = |(fd, name): (i32, String)| {
        // SAFETY: the service manager passed it to this process, which does not use it otherwise (`sd_listen_fds`).
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let socket = if name == "docker" {
            Socket::Docker
        } else {
            Socket::Control
        };
        Ok((socket, listen(StdListener::from(fd))?))
    };
    fds.map(listener).collect()
}

/// Makes a socket.
pub(super) fn make(path: &Path, socket: Socket) -> Result<UnixListener> {
    listen(bind(path, socket)?)
}

fn listen(listener: StdListener) -> Result<UnixListener> {
    listener.set_nonblocking(true)?;
    Ok(UnixListener::from_std(listener)?)
}

fn bind(path: &Path, socket: Socket) -> Result<StdListener> {
    let named = || format!("cannot make the socket {}", path.display());
    match fs::symlink_metadata(path) {
        // Of a daemon that was killed; one that lives would answer.
        Ok(file) if file.file_type().is_socket() => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                bail!("{}: another cangwd serves it", named());
            }
            fs::remove_file(path).with_context(named)?;
        }
        Ok(_) => bail!("{}: there is another file", named()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(named),
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(named)?;
    }
    let before = crate::kernel::syscall::set_umask(socket.umask());
    let listener = StdListener::bind(path);
    let _ = crate::kernel::syscall::set_umask(before);
    listener.with_context(named)
}

/// Serves clients until the daemon ends.
pub(super) async fn serve(listener: UnixListener, control: Arc<Control>) {
    let events = Arc::clone(&control);
    tokio::spawn(async move { events.events.run(&events.shared).await });
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let control = Arc::clone(&control);
                tokio::spawn(async move {
                    // A client that is gone needs no answer.
                    let _ = control.serve_one(stream).await;
                });
            }
            Err(e) => {
                // Such as too many open files: others may end meanwhile.
                warn!("cannot accept a client: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
