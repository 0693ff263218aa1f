//! The control socket: one JSON object on a line asks, one on a line answers.

use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::warn;

use super::Health;

/// A request to read the topologies again, with the place for the answer.
pub(super) type Reload = oneshot::Sender<Result<(), String>>;

/// Bytes of a request, at most.
const LONGEST: u64 = 64 * 1024;
/// Clients at once.
const CLIENTS: usize = 64;
/// A client that does not take its answer in this time is left.
const SLOW: Duration = Duration::from_secs(5);

/// What requests can reach.
pub(super) struct Control {
    health: Arc<Health>,
    reloads: mpsc::Sender<Reload>,
    clients: Semaphore,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    id: String,
    #[serde(default)]
    data: serde_json::Map<String, Value>,
}

impl Control {
    pub fn new(health: Arc<Health>, reloads: mpsc::Sender<Reload>) -> Self {
        Self {
            health,
            reloads,
            clients: Semaphore::new(CLIENTS),
        }
    }

    async fn answer(&self, line: &[u8]) -> Value {
        match self.done(line).await {
            Ok(data) => json!({"success": true, "data": data}),
            Err(error) => json!({"success": false, "error": error}),
        }
    }

    async fn done(&self, line: &[u8]) -> Result<Value, String> {
        let request: Request =
            serde_json::from_slice(line).map_err(|e| format!("not a request: {e}"))?;
        if let Some(name) = request.data.keys().next() {
            return Err(format!("{} takes no {name}", request.id));
        }
        match request.id.as_str() {
            "version" => Ok(json!({"version": env!("CARGO_PKG_VERSION")})),
            "status" => {
                let outcome = self.health.outcome();
                Ok(json!({
                    "topologies": outcome.topologies,
                    "rules": outcome.rules,
                    "waiting": outcome.waiting,
                    "errors": outcome.errors,
                }))
            }
            "reload" => {
                let (answer, result) = oneshot::channel();
                let gone = || "cangwd is about to end".to_owned();
                self.reloads.send(answer).await.map_err(|_| gone())?;
                result.await.map_err(|_| gone())??;
                Ok(json!({}))
            }
            other => Err(format!(
                "no method {other}; there are version, status and reload"
            )),
        }
    }
}

/// The socket from systemd, or one that is made here, for root only; `None` when neither is wanted.
pub(super) fn listener(path: Option<&Path>) -> Result<Option<UnixListener>> {
    let mut given = sd_notify::listen_fds().context("cannot take the socket from systemd")?;
    let listener = match (given.next(), path) {
        (Some(fd), _) => {
            // SAFETY: the service manager passed it to this process, which does not use it otherwise (`sd_listen_fds`).
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            StdListener::from(fd)
        }
        (None, Some(path)) => bind(path)?,
        (None, None) => return Ok(None),
    };
    listener.set_nonblocking(true)?;
    Ok(Some(UnixListener::from_std(listener)?))
}

fn bind(path: &Path) -> Result<StdListener> {
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
    // Nobody else can connect before the mode is set: a socket listens from the start.
    let before = crate::kernel::syscall::set_umask(0o177);
    let listener = StdListener::bind(path);
    let _ = crate::kernel::syscall::set_umask(before);
    listener.with_context(named)
}

/// Serves clients until the daemon ends.
pub(super) async fn serve(listener: UnixListener, control: Arc<Control>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let control = Arc::clone(&control);
                tokio::spawn(async move {
                    // One too many is told by the end of its connection.
                    if let Ok(_place) = control.clients.try_acquire() {
                        let _ = talk(stream, &control).await;
                    }
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

async fn talk(stream: UnixStream, control: &Control) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader)
            .take(LONGEST)
            .read_until(b'\n', &mut line)
            .await?;
        if read == 0 {
            return Ok(());
        }
        let whole = line.ends_with(b"\n");
        let answer = if whole || (read as u64) < LONGEST {
            control.answer(&line).await
        } else {
            json!({"success": false, "error": format!("a request has at most {LONGEST} bytes")})
        };
        let mut answer = answer.to_string();
        answer.push('\n');
        tokio::time::timeout(SLOW, writer.write_all(answer.as_bytes())).await??;
        if !whole {
            return Ok(());
        }
    }
}
