//! All calls that the compiler cannot check: sockets of the family CAN, namespaces, signals.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn check(answer: libc::c_int) -> io::Result<libc::c_int> {
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(answer)
    }
}

/// Puts the calling thread into a network namespace.
pub fn enter_namespace(namespace: &File) -> io::Result<()> {
    // SAFETY: takes numbers only; the descriptor is open as long as `namespace` is borrowed.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// Makes a command run in a network namespace. Unlike `ip netns exec`, this leaves /sys as it is.
pub fn run_in_namespace(command: &mut Command, namespace: File) {
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing; it owns the descriptor.
    unsafe {
        command.pre_exec(move || enter_namespace(&namespace));
    }
}

/// Makes the kernel end a command after some seconds.
pub fn limit_time(command: &mut Command, seconds: u32) {
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing. The alarm survives exec.
    unsafe {
        command.pre_exec(move || {
            libc::alarm(seconds);
            Ok(())
        });
    }
}

/// Binds the calling thread to one processor.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    // SAFETY: a set of zeroes is the empty set, and CPU_SET stays within it because it ignores larger numbers.
    let set = unsafe {
        let mut set: libc::cpu_set_t = zeroed();
        libc::CPU_SET(cpu, &mut set);
        set
    };
    // SAFETY: the pointer and the size are those of `set`.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) })
        .map(drop)
}

/// Number of a network interface in the calling thread's namespace.
pub fn interface_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name)?;
    // SAFETY: the string ends with a zero byte.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

const BUFFER: u32 = 64 << 20;

/// A raw CAN socket with a large buffer, bound to an interface of the calling thread's namespace.
pub fn can_socket(index: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only, and a descriptor that is not negative is new and owned by nobody else.
    let socket = unsafe {
        let socket = check(libc::socket(
            libc::PF_CAN,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::CAN_RAW,
        ))?;
        OwnedFd::from_raw_fd(socket)
    };
    // Once it is bound, frames come.
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER)?;
    // SAFETY: the structure consists of integers, for which zeroes are valid.
    let mut address: libc::sockaddr_can = unsafe { zeroed() };
    address.can_family = libc::AF_CAN as libc::sa_family_t;
    address.can_ifindex = index as libc::c_int;
    // SAFETY: the pointer and the size are those of `address`.
    check(unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_can>() as libc::socklen_t,
        )
    })?;
    Ok(socket)
}

/// Sets an option of a socket to a number.
pub fn set_option(socket: &OwnedFd, level: i32, name: i32, value: u32) -> io::Result<()> {
    // SAFETY: the pointer and the size are those of `value`.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// Takes all filters off a raw CAN socket, so that it receives nothing.
pub fn receive_nothing(socket: &OwnedFd) -> io::Result<()> {
    receive_only(socket, &[])
}

/// Lets a raw CAN socket receive frames of these identifiers and masks only.
pub fn receive_only(socket: &OwnedFd, filters: &[(u32, u32)]) -> io::Result<()> {
    let filters: Vec<libc::can_filter> = filters
        .iter()
        .map(|&(can_id, can_mask)| libc::can_filter { can_id, can_mask })
        .collect();
    // SAFETY: the pointer and the length are those of `filters`.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_CAN_RAW,
            libc::CAN_RAW_FILTER,
            filters.as_ptr().cast(),
            size_of_val(filters.as_slice()) as libc::socklen_t,
        )
    })?;
    set_option(socket, libc::SOL_CAN_RAW, libc::CAN_RAW_ERR_FILTER, 0)
}

/// Sends one message.
pub fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of `bytes`.
    let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
    match usize::try_from(sent) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// What came with a message.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Bytes.
    pub length: usize,
    /// How many the socket has lost so far, if it says so.
    pub lost: Option<u32>,
    /// When it was received, since 1970, if the socket asks for that (`SO_TIMESTAMPNS`).
    pub stamp: Option<Duration>,
}

/// Receives one message without waiting.
pub fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = [0u64; 8];
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: the structure consists of integers and pointers, for which zeroes are valid.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: all pointers in `message` are to live variables of the lengths given beside them.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let mut received = Received {
        length,
        lost: None,
        stamp: None,
    };
    // SAFETY: the kernel filled `control`, which is aligned for its headers, and set the length that these macros
    // stay within; the payload of SO_RXQ_OVFL is a u32, that of SO_TIMESTAMPNS a timespec.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            let payload = libc::CMSG_DATA(header);
            match ((*header).cmsg_level, (*header).cmsg_type) {
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                    received.lost = Some(payload.cast::<u32>().read_unaligned());
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    let time = payload.cast::<libc::timespec>().read_unaligned();
                    received.stamp = Some(Duration::new(time.tv_sec as u64, time.tv_nsec as u32));
                }
                _ => {}
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok(received)
}

/// Receives one frame without waiting: its length, and the number of the interface on which it came.
pub fn receive_from(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<(usize, u32)> {
    // SAFETY: the structure consists of integers, for which zeroes are valid.
    let mut address: libc::sockaddr_can = unsafe { zeroed() };
    let mut size = size_of::<libc::sockaddr_can>() as libc::socklen_t;
    // SAFETY: the pointers and lengths are those of `buffer` and `address`, and the kernel writes no more.
    let length = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_DONTWAIT,
            (&raw mut address).cast(),
            &raw mut size,
        )
    };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    Ok((length, address.can_ifindex as u32))
}

/// A socket for messages to the kernel's tables of routes, which is where rules of can-gw are.
pub fn route_socket() -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only, and a descriptor that is not negative is new and owned by nobody else.
    unsafe {
        let socket = check(libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::NETLINK_ROUTE,
        ))?;
        Ok(OwnedFd::from_raw_fd(socket))
    }
}

/// Does work as another user with one group, on a thread of its own: the system calls, unlike libc's functions, change the calling thread only.
///
/// # Panics
/// Without root, and when the work does.
pub fn as_user<T: Send>(user: u32, group: u32, work: impl FnOnce() -> T + Send) -> T {
    let become_user = || {
        let groups = [group];
        // SAFETY: the list has as many groups as is said, and lives until the call returns; the others take numbers only.
        let answers = unsafe {
            [
                libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()),
                libc::syscall(libc::SYS_setresgid, user, user, user),
                libc::syscall(libc::SYS_setresuid, user, user, user),
            ]
        };
        assert_eq!(answers, [0; 3], "{}", io::Error::last_os_error());
        work()
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(become_user);
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Sends a signal to a child of this process.
pub fn signal(pid: u32, signal: i32) -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::kill(pid as libc::pid_t, signal) }).map(drop)
}

/// Processor time that the calling thread has had.
pub fn thread_time() -> io::Result<Duration> {
    processor_time(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Processor time that this process has had.
pub fn process_time() -> io::Result<Duration> {
    processor_time(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn processor_time(clock: libc::clockid_t) -> io::Result<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a timespec that lives for the call.
    check(unsafe { libc::clock_gettime(clock, &raw mut time) })?;
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// Ticks in which the kernel tells processor times.
///
/// # Panics
/// Never on Linux.
#[must_use]
pub fn ticks_per_second() -> u32 {
    // SAFETY: takes a number only.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    ticks.try_into().expect("a small number")
}

/// A file in memory without a name, closed in programs that are started later.
pub fn memory_file() -> io::Result<File> {
    // SAFETY: the name ends with a zero byte, and a descriptor that is not negative is new and owned by nobody else.
    unsafe {
        let file = check(libc::memfd_create(c"cangw".as_ptr(), libc::MFD_CLOEXEC))?;
        Ok(OwnedFd::from_raw_fd(file).into())
    }
}

/// What to wait for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    Read,
    Write,
}

/// Waits until a socket can be read or written; false when the time is up.
pub fn wait(socket: &OwnedFd, ready: Ready, time: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: match ready {
            Ready::Read => libc::POLLIN,
            Ready::Write => libc::POLLOUT,
        },
        revents: 0,
    };
    let time = i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the pointer is to one structure, as the count says.
    match check(unsafe { libc::poll(&raw mut poll, 1, time) }) {
        Ok(count) => Ok(count > 0),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(error),
    }
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn remember_interrupt(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// From now on Ctrl-C and SIGTERM do not end the process but are remembered.
pub fn catch_interrupts() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which a signal handler may do.
        unsafe {
            libc::signal(
                signal,
                remember_interrupt as *const () as libc::sighandler_t,
            );
        }
    }
}

/// Whether Ctrl-C or SIGTERM came.
#[must_use]
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Whether this process is root.
#[must_use]
pub fn is_root() -> bool {
    // SAFETY: has no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Lets this process run only while no other wants to (`SCHED_IDLE`).
///
/// # Errors
/// What the kernel says.
pub fn give_way() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: `parameters` lives during the call, which only reads it.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) })?;
    Ok(())
}
