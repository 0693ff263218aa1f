//! Ports of no bus: their other ends are this process's. For tests and simulations on machines without CAN.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cangw_common::abi::HubPort;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use socket2::Socket;

use super::codec::Frame;
use super::port::Ports;
use crate::error::{Error, Result};

/// Bytes of frames that wait at an end.
const BUFFER: usize = 4 << 20;
/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(20);

/// The other ends of all ports, which take and give frames as raw CAN sockets do.
#[derive(Default)]
pub struct Wires {
    ends: Mutex<BTreeMap<u32, Socket>>,
}

impl Wires {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Socket>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The other end of a port; `None` when it is not open.
    #[must_use]
    pub fn find(&self, number: u32) -> Option<Socket> {
        self.lock().get(&number)?.try_clone().ok()
    }

    /// The other end of a port that is about to be opened.
    ///
    /// # Panics
    /// When it is not, after 20 seconds.
    #[must_use]
    pub fn end(&self, number: u32) -> Socket {
        let begin = Instant::now();
        loop {
            if let Some(end) = self.find(number) {
                return end;
            }
            assert!(begin.elapsed() < LONG, "port {number} is not there");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Lets a bus send a frame to a port.
    ///
    /// # Panics
    /// When the port does not take it.
    pub fn send(&self, number: u32, frame: &Frame) {
        let sent = self.end(number).send(frame.socket_bytes());
        sent.expect("a frame is taken");
    }

    /// What a port gives the bus next.
    ///
    /// # Panics
    /// When that is nothing, for 20 seconds, or no frame.
    #[must_use]
    pub fn receive(&self, number: u32) -> Frame {
        let mut bytes = [0; 72];
        let read = io::Read::read(&mut self.end(number), &mut bytes).expect("a frame");
        Frame::from_socket(&bytes[..read]).expect("a frame")
    }
}

impl Ports for Wires {
    fn open(&self, number: u32) -> Result<OwnedFd> {
        let failed = |e: io::Error| Error::io("make a pair of sockets", e);
        let (kind, flags) = (SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
        let pair = socketpair(AddressFamily::Unix, kind, None, flags);
        let (port, end) = pair.map_err(|e| failed(e.into()))?;
        let (port, end) = (Socket::from(port), Socket::from(end));
        port.set_nonblocking(true).map_err(failed)?;
        end.set_read_timeout(Some(LONG)).map_err(failed)?;
        for socket in [&port, &end] {
            let set = setsockopt(&socket.as_fd(), sockopt::SndBuf, &BUFFER);
            set.map_err(|e| failed(e.into()))?;
        }
        self.lock().insert(number, end);
        Ok(port.into())
    }

    fn close(&self, number: u32) -> Result<()> {
        self.lock().remove(&number);
        Ok(())
    }

    fn kept_back(&self) -> Result<BTreeMap<u32, HubPort>> {
        Ok(BTreeMap::new())
    }

    fn sweep(&self) -> Result<()> {
        self.lock().clear();
        Ok(())
    }
}
