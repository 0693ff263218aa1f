//! A raw CAN socket on one interface, which receives everything that can be received.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::frame::Frame;
use crate::namespace::Namespace;
use crate::sys::{self, Ready};

/// How long a frame may take that surely comes. Guests are slow, and nothing waits this long unless it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Instead of the name of an interface: all of them.
pub const ANY: &str = "any";

/// Not in libc yet.
const CAN_RAW_XL_FRAMES: i32 = 7;
const CAN_RAW_XL_VCID_OPTS: i32 = 8;
/// `struct can_raw_vcid_options` with `CAN_RAW_XL_VCID_TX_PASS` and `CAN_RAW_XL_VCID_RX_FILTER`: every VCID comes and goes as it is.
const ANY_VCID: [u8; 4] = [2 | 4, 0, 0, 0];
const ALL_ERRORS: u32 = 0x1FFF_FFFF;
const LONGEST: usize = 2060;

/// A raw socket on one interface: classic, FD, XL where the kernel has it, and error frames.
pub struct CanSocket {
    fd: OwnedFd,
    name: String,
    lost: AtomicU32,
}

/// One that somebody else opened.
impl From<OwnedFd> for CanSocket {
    fn from(fd: OwnedFd) -> Self {
        Self {
            fd,
            name: "a socket of somebody else".into(),
            lost: AtomicU32::new(0),
        }
    }
}

impl CanSocket {
    /// Opens a socket on an interface of a namespace, or on all of them: [`ANY`].
    ///
    /// # Panics
    /// When the interface or the kernel does not have what is needed.
    #[must_use]
    pub fn open(namespace: &Namespace, interface: &str) -> Self {
        let fd = namespace
            .enter(|| {
                let all = interface == ANY;
                sys::can_socket(if all {
                    0
                } else {
                    sys::interface_index(interface)?
                })
            })
            .unwrap_or_else(|e| panic!("no raw CAN socket on {interface}: {e}"));
        for (level, name, value) in [
            (libc::SOL_CAN_RAW, libc::CAN_RAW_FD_FRAMES, 1),
            (libc::SOL_CAN_RAW, libc::CAN_RAW_ERR_FILTER, ALL_ERRORS),
            (libc::SOL_CAN_RAW, CAN_RAW_XL_FRAMES, 1),
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1),
        ] {
            sys::set_option(&fd, level, name, value)
                .unwrap_or_else(|e| panic!("option {name} of a socket on {interface}: {e}"));
        }
        // Kernels before 6.9 do not look at it.
        let _ = sys::set_option(
            &fd,
            libc::SOL_CAN_RAW,
            CAN_RAW_XL_VCID_OPTS,
            u32::from_ne_bytes(ANY_VCID),
        );
        Self {
            fd,
            name: interface.to_owned(),
            lost: AtomicU32::new(0),
        }
    }

    /// Sends a frame, and waits as long as queues are full.
    ///
    /// # Panics
    /// When the kernel refuses it.
    pub fn send(&self, frame: &Frame) {
        let start = Instant::now();
        let mut told = false;
        loop {
            match self.try_send(frame) {
                Ok(()) => return,
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) && start.elapsed() < PATIENCE => {
                    // POLLOUT says nothing about the device's queue.
                    std::thread::sleep(Duration::from_micros(200));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && start.elapsed() < PATIENCE => {
                    let _ = sys::wait(&self.fd, Ready::Write, PATIENCE);
                }
                // Said once after the interface was down, whether or not it is up again.
                Err(e) if e.raw_os_error() == Some(libc::ENETDOWN) && !told => told = true,
                Err(e) => panic!("sending {frame} on {}: {e}", self.name),
            }
        }
    }

    /// Sends a frame, or says why not.
    ///
    /// # Errors
    /// The kernel's.
    pub fn try_send(&self, frame: &Frame) -> io::Result<()> {
        sys::send(&self.fd, frame.bytes())
    }

    /// Makes it a socket that only sends.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn deaf(self) -> Self {
        sys::receive_nothing(&self.fd).expect("a socket can do without frames");
        self
    }

    /// Makes it a socket that listens to one identifier only.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn listening_to(self, id: u32) -> Self {
        let exactly = libc::CAN_SFF_MASK | libc::CAN_EFF_FLAG | libc::CAN_RTR_FLAG;
        sys::receive_only(&self.fd, &[(id, exactly)]).expect("a socket can have a filter");
        self
    }

    /// The same socket, whose frames no other socket of its interface gets: nobody else holds them on their way.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn without_loopback(self) -> Self {
        sys::set_option(&self.fd, libc::SOL_CAN_RAW, libc::CAN_RAW_LOOPBACK, 0)
            .expect("a socket can do without loopback");
        self
    }

    /// A frame that has already arrived.
    ///
    /// # Panics
    /// When the kernel reports an error or that it lost a frame.
    #[must_use]
    pub fn try_receive(&self) -> Option<Frame> {
        let mut buffer = [0; LONGEST];
        match sys::receive(&self.fd, &mut buffer) {
            Ok(received) => {
                if let Some(lost) = received.lost {
                    self.lost.store(lost, Ordering::Relaxed);
                }
                Some(Frame::from_bytes(&buffer[..received.length]))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
            // What a socket says once after its interface went down is no frame; the next call has them.
            Err(e) if e.raw_os_error() == Some(libc::ENETDOWN) => self.try_receive(),
            Err(e) => panic!("receiving on {}: {e}", self.name),
        }
    }

    /// The next frame; `None` when none comes in this time.
    ///
    /// # Panics
    /// As [`Self::try_receive`].
    #[must_use]
    pub fn receive_within(&self, time: Duration) -> Option<Frame> {
        let end = Instant::now() + time;
        loop {
            if let Some(frame) = self.try_receive() {
                return Some(frame);
            }
            let left = end.checked_duration_since(Instant::now())?;
            sys::wait(&self.fd, Ready::Read, left.max(Duration::from_millis(1)))
                .expect("a socket can be polled");
        }
    }

    /// The next frame, which surely comes.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn receive(&self) -> Frame {
        self.receive_within(PATIENCE)
            .unwrap_or_else(|| panic!("no frame came to {} in {PATIENCE:?}", self.name))
    }

    /// Everything that has already arrived.
    #[must_use]
    pub fn drain(&self) -> Vec<Frame> {
        std::iter::from_fn(|| self.try_receive()).collect()
    }

    /// Frames that did not fit into the socket's buffer, as of the last frame received.
    #[must_use]
    pub fn lost(&self) -> u32 {
        self.lost.load(Ordering::Relaxed)
    }
}
