//! Sockets: many messages in one system call (`recvmmsg`, `sendmmsg`), and options that no crate has.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr;

use socket2::{SockAddr, SockAddrStorage, Socket};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What a reader waits for: something that can be read, or an error, which need not come with anything to read (such as that the interface is gone).
pub const READ: Interest = Interest::READABLE.add(Interest::ERROR);
/// Messages of one call, at most.
pub const BATCH: usize = 64;

/// Room for one number of `SO_RXQ_OVFL`, aligned as `struct cmsghdr` is.
type Control = [u64; 4];

/// Messages that were received.
pub struct Inbox {
    room: usize,
    bytes: Box<[u8]>,
    messages: Vec<(usize, bool, Option<SocketAddr>)>,
    overflow: Option<u32>,
}

impl Inbox {
    /// Room for [`BATCH`] messages of so many bytes each.
    #[must_use]
    pub fn new(room: usize) -> Self {
        Self {
            room,
            bytes: vec![0; room * BATCH].into_boxed_slice(),
            messages: Vec::with_capacity(BATCH),
            overflow: None,
        }
    }

    /// Takes what has come, without waiting. How many messages that are.
    ///
    /// # Errors
    /// The kernel's; [`io::ErrorKind::WouldBlock`] when nothing has come.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.messages.clear();
        let mut addresses: [SockAddrStorage; BATCH] =
            std::array::from_fn(|_| SockAddrStorage::zeroed());
        let mut controls: [Control; BATCH] = [[0; 4]; BATCH];
        // SAFETY: zeroes are valid in these structures of integers and pointers.
        let (mut vectors, mut heads) = unsafe {
            (
                mem::zeroed::<[libc::iovec; BATCH]>(),
                mem::zeroed::<[libc::mmsghdr; BATCH]>(),
            )
        };
        for (place, head) in heads.iter_mut().enumerate() {
            let bytes = &mut self.bytes[place * self.room..][..self.room];
            vectors[place] = libc::iovec {
                iov_base: bytes.as_mut_ptr().cast(),
                iov_len: bytes.len(),
            };
            let head = &mut head.msg_hdr;
            head.msg_name = (&raw mut addresses[place]).cast();
            head.msg_namelen = addresses[place].size_of();
            head.msg_iov = &raw mut vectors[place];
            head.msg_iovlen = 1;
            head.msg_control = (&raw mut controls[place]).cast();
            head.msg_controllen = size_of::<Control>();
        }
        // SAFETY: each head points to its own address, vector and control bytes, which live as long as this call, and each vector to its own part of the buffer.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                heads.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for (head, address) in heads.iter().zip(addresses).take(count) {
            let (length, head) = (head.msg_len as usize, &head.msg_hdr);
            // SAFETY: the kernel wrote an address of this length, or, of a socket that has none, no byte.
            let address = unsafe { SockAddr::new(address, head.msg_namelen) }.as_socket();
            let is_cut = head.msg_flags & libc::MSG_TRUNC != 0;
            self.messages.push((length.min(self.room), is_cut, address));
            if let Some(overflow) = overflow(head) {
                self.overflow = Some(overflow);
            }
        }
        Ok(count)
    }

    /// The messages that were received last: their bytes, `None` of those that were longer than the room; and from where they are.
    pub fn messages(&self) -> impl Iterator<Item = (Option<&[u8]>, Option<SocketAddr>)> {
        let messages = self.messages.iter().enumerate();
        messages.map(|(place, (length, is_cut, address))| {
            let bytes = &self.bytes[place * self.room..][..*length];
            ((!is_cut).then_some(bytes), *address)
        })
    }

    /// How many messages the socket had no room for since it was made, modulo 2^32, as it said last (`SO_RXQ_OVFL`).
    #[must_use]
    pub fn overflow(&self) -> Option<u32> {
        self.overflow
    }
}

/// The number of `SO_RXQ_OVFL` beside a message.
fn overflow(head: &libc::msghdr) -> Option<u32> {
    // SAFETY: the kernel filled the control bytes of the head in, which has their length; the macros stay within it.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(head);
        while let Some(found) = control.as_ref() {
            if (found.cmsg_level, found.cmsg_type) == (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) {
                return Some(libc::CMSG_DATA(control).cast::<u32>().read_unaligned());
            }
            control = libc::CMSG_NXTHDR(head, control);
        }
    }
    None
}

/// Sends messages, the first [`BATCH`] at most, without waiting, to an address or to where the socket is connected or bound. How many were sent.
///
/// # Errors
/// The kernel's of the first message; that of another one comes when it is the first.
pub fn send<'a>(
    socket: BorrowedFd<'_>,
    messages: impl Iterator<Item = &'a [u8]>,
    to: Option<SocketAddr>,
) -> io::Result<usize> {
    let to = to.map(SockAddr::from);
    // SAFETY: zeroes are valid in these structures of integers and pointers.
    let (mut vectors, mut heads) = unsafe {
        (
            mem::zeroed::<[libc::iovec; BATCH]>(),
            mem::zeroed::<[libc::mmsghdr; BATCH]>(),
        )
    };
    let mut count = 0;
    for (place, bytes) in messages.take(BATCH).enumerate() {
        vectors[place] = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let head = &mut heads[place].msg_hdr;
        if let Some(to) = &to {
            head.msg_name = to.as_ptr().cast_mut().cast();
            head.msg_namelen = to.len();
        }
        head.msg_iov = &raw mut vectors[place];
        head.msg_iovlen = 1;
        count = place + 1;
    }
    if count == 0 {
        return Ok(0);
    }
    // SAFETY: the heads point to the address and to vectors that live as long as this call, and these to bytes that are borrowed as long; the kernel only reads them.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            heads.as_mut_ptr(),
            count as u32,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Sets an option to a structure of integers.
///
/// # Errors
/// The kernel's.
pub fn set_option<const N: usize>(
    socket: BorrowedFd<'_>,
    (level, name): (i32, i32),
    value: [u32; N],
) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes as the array has.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Reads an option that is bytes, as many as the kernel has and there is room for.
///
/// # Errors
/// The kernel's.
pub fn option<const N: usize>(
    socket: BorrowedFd<'_>,
    (level, name): (i32, i32),
) -> io::Result<[u8; N]> {
    let mut value = [0; N];
    let mut length = N as libc::socklen_t;
    // SAFETY: the kernel writes at most as many bytes as the array has, which it is told.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(value)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Bytes of a stream that were written and that the other end has not confirmed (`SIOCOUTQ`).
///
/// # Errors
/// The kernel's.
pub fn unsent(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes an integer there.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 {
        Ok(u64::try_from(bytes).unwrap_or_default())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Lets those sockets of this process that would keep a thread for so many seconds when they are closed (`SO_LINGER`) be closed at once. For libraries that
/// do not say which sockets are theirs.
///
/// # Errors
/// When the descriptors of this process cannot be listed.
pub fn end_lingering(seconds: i32) -> io::Result<()> {
    const SIZE: libc::socklen_t = size_of::<libc::linger>() as libc::socklen_t;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let mut linger = libc::linger {
            l_onoff: 0,
            l_linger: 0,
        };
        let mut size = SIZE;
        // SAFETY: the kernel writes at most as many bytes as the structure has, and refuses a number that is no socket, or not any more.
        let result = unsafe {
            let to = (&raw mut linger).cast();
            libc::getsockopt(number, libc::SOL_SOCKET, libc::SO_LINGER, to, &raw mut size)
        };
        if result != 0 || linger.l_onoff == 0 || linger.l_linger != seconds {
            continue;
        }
        linger.l_onoff = 0;
        // SAFETY: the kernel reads as many bytes as the structure has. If the number is another socket's by now, that one is closed as sockets are.
        let _ = unsafe {
            let from = (&raw const linger).cast();
            libc::setsockopt(number, libc::SOL_SOCKET, libc::SO_LINGER, from, SIZE)
        };
    }
    Ok(())
}

/// Lets the event loop of this thread say when a socket can be read or written.
///
/// # Errors
/// The kernel's.
///
/// # Panics
/// Outside of an event loop.
pub fn watched(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the socket owns its descriptor, which is valid as long as it is, and nobody puts another one in its place.
    Ok(unsafe { AsyncFd::register(socket) }?)
}
