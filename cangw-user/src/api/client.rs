//! A client of `cangwd`.

use std::env;
use std::fs;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, send};
use serde_json::json;

use super::service::{Empty, Event, OpenSocket, Subscribe, Version, VersionReport};
use super::{Answer, Call, Method, SOCKET, VERSION, refused};
use crate::capability;
use crate::capture::Capture;
use crate::error::{Error, Result};

/// Names another socket than [`SOCKET`].
const VARIABLE: &str = "CANGW_SOCKET";
/// Descriptors that come with an answer, at most.
const DESCRIPTORS: usize = 1;

/// A connection with `cangwd`.
pub struct Client {
    stream: UnixStream,
    /// What came behind the last answer.
    rest: Vec<u8>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nobody serves there.
    pub fn connect(path: &Path) -> Result<Self> {
        let failed = |e| Error::io(format!("connect with cangwd at {}", path.display()), e);
        Ok(Self {
            stream: UnixStream::connect(path).map_err(failed)?,
            rest: Vec::new(),
        })
    }

    /// Lets `cangwd` do something.
    ///
    /// # Errors
    /// What it says; when it does not answer.
    pub fn call<C: Call>(&mut self, call: C) -> Result<C::Reply> {
        self.exchange(&call).map(|(reply, _)| reply)
    }

    /// Opens a CAN_RAW socket on an interface of an ECU. It stays in the ECU, and may be given to other processes.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn open_socket(&mut self, ecu: &str, interface: &str, fd: bool) -> Result<OwnedFd> {
        let call = OpenSocket {
            ecu: ecu.to_owned(),
            interface: interface.to_owned(),
            fd,
        };
        self.descriptor(&call)
    }

    /// What comes with the answer.
    fn descriptor<C: Call>(&mut self, call: &C) -> Result<OwnedFd> {
        let (_, descriptors) = self.exchange(call)?;
        let socket = descriptors.into_iter().next();
        socket.ok_or_else(|| refused("cangwd sent no descriptor"))
    }

    /// Begins a capture: the socket from which it is read until it is shut down for writing.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn capture(&mut self, capture: &Capture) -> Result<OwnedFd> {
        self.descriptor(capture)
    }

    /// Waits for events, one after the other, until the daemon is gone.
    ///
    /// # Errors
    /// As [`Self::call`]; later, when events were not taken fast enough.
    pub fn events(mut self) -> Result<impl Iterator<Item = Result<Event>>> {
        let Empty {} = self.call(Subscribe {})?;
        let failed = |e| Error::io("read an event of cangwd", e);
        Ok(std::iter::from_fn(move || {
            let line = match self.line() {
                Ok((line, _)) => line,
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return None,
                Err(e) => return Some(Err(failed(e))),
            };
            // A refusal is an answer.
            if let Ok(Answer {
                error: Some(error), ..
            }) = serde_json::from_slice(&line)
            {
                return Some(Err(refused(error)));
            }
            Some(serde_json::from_slice(&line).map_err(|e| failed(e.into())))
        }))
    }

    fn exchange<C: Call>(&mut self, call: &C) -> Result<(C::Reply, Vec<OwnedFd>)> {
        let failed = |e| Error::io("talk to cangwd", e);
        let mut request =
            json!({"id": C::ID, "data": super::value(call)?, "api": VERSION}).to_string();
        request.push('\n');
        let written = self.write(request.as_bytes());
        // Whoever is refused is told so before the connection ends, which may be before the request is written.
        let (line, descriptors) = self
            .line()
            .map_err(|read| failed(written.err().unwrap_or(read)))?;
        let answer: Answer = serde_json::from_slice(&line).map_err(|e| failed(e.into()))?;
        if !answer.success {
            let errno = answer.data["errno"].as_i64();
            return Err(Error::Remote {
                message: answer.error.unwrap_or_default(),
                errno: errno.and_then(|errno| errno.try_into().ok()),
            });
        }
        let reply = serde_json::from_value(answer.data).map_err(|e| failed(e.into()))?;
        Ok((reply, descriptors))
    }

    /// Writes everything. A connection that has ended is an error here, and not a signal.
    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match send(self.stream.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// An answer, with the descriptors that came with it.
    fn line(&mut self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let mut descriptors = Vec::new();
        let mut seen = 0;
        loop {
            if let Some(end) = self.rest[seen..].iter().position(|byte| *byte == b'\n') {
                let rest = self.rest.split_off(seen + end + 1);
                return Ok((std::mem::replace(&mut self.rest, rest), descriptors));
            }
            seen = self.rest.len();
            let mut buffer = [0; 64 * 1024];
            let mut space = nix::cmsg_space!([RawFd; DESCRIPTORS]);
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let message = recvmsg::<()>(
                self.stream.as_raw_fd(),
                &mut slices,
                Some(&mut space),
                MsgFlags::MSG_CMSG_CLOEXEC,
            )?;
            for control in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(received) = control {
                    // SAFETY: the kernel made these descriptors for this process just now, and nobody else knows them.
                    let owned = received
                        .into_iter()
                        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
                    descriptors.extend(owned);
                }
            }
            let read = message.bytes;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.rest.extend_from_slice(&buffer[..read]);
        }
    }
}

/// How this process gets at the gateway of its network namespace.
pub enum Door {
    /// `cangwd` keeps it.
    Daemon(Client),
    /// By itself.
    Direct,
}

impl Door {
    /// Goes through `cangwd`, if it keeps this namespace's gateway and is of the same version.
    ///
    /// # Errors
    /// When the daemon refuses, and this process could do nothing by itself.
    pub fn open() -> Result<Self> {
        let path = env::var_os(VARIABLE).unwrap_or_else(|| SOCKET.into());
        let Ok(mut client) = Client::connect(Path::new(&path)) else {
            return Ok(Self::Direct);
        };
        match client.call(Version {}) {
            Ok(VersionReport { api, namespace, .. })
                if api == VERSION && namespace_number().is_ok_and(|here| here == namespace) =>
            {
                Ok(Self::Daemon(client))
            }
            // Its words say more than what this process cannot do.
            Err(e @ Error::Remote { .. }) if capability::require("").is_err() => Err(e),
            _ => Ok(Self::Direct),
        }
    }

    /// The daemon, for what only it does, such as `tunnels are run`.
    ///
    /// # Errors
    /// As [`Self::open`]; when the daemon does not answer.
    pub fn daemon(what: &str) -> Result<Client> {
        match Self::open()? {
            Self::Daemon(client) => Ok(client),
            Self::Direct => Err(refused(format!(
                "{what} by cangwd, which does not answer; `systemctl start cangwd` starts it"
            ))),
        }
    }

    /// Begins a capture, there or here: see [`Client::capture`].
    ///
    /// # Errors
    /// What the gateway says.
    pub fn capture(&mut self, capture: Capture) -> Result<OwnedFd> {
        match self {
            Self::Daemon(client) => client.capture(&capture),
            Self::Direct => capture.begin(),
        }
    }

    /// Does something, there or here.
    ///
    /// # Errors
    /// What the gateway says.
    pub fn call<M: Method>(&mut self, method: M) -> Result<M::Reply> {
        match self {
            Self::Daemon(client) => client.call(method),
            Self::Direct => method.perform(),
        }
    }
}

/// The number of the file of this process's network namespace.
///
/// # Errors
/// When /proc is not mounted.
pub fn namespace_number() -> Result<u64> {
    let failed = |e| Error::io("look at the network namespace", e);
    let file = fs::metadata("/proc/thread-self/ns/net").map_err(failed)?;
    Ok(file.ino())
}
