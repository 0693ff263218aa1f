//! System calls that neither std nor aya offers.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr::null;

/// `SO_NETNS_COOKIE`, Linux 5.14.
const SO_NETNS_COOKIE: i32 = 71;
/// `BPF_MAP_CREATE`
const BPF_MAP_CREATE: libc::c_long = 0;
/// `BPF_MAP_TYPE_ARRAY_OF_MAPS`
const ARRAY_OF_MAPS: u32 = 12;

/// The system call bpf.
///
/// # Safety
/// `attr` is laid out as the command asks, and what it points to is as long as it says and lives until this returns.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<i32> {
    // SAFETY: the structure is as long as the length that is passed; the kernel takes what is behind as 0.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer as i32)
}

/// The part of `union bpf_attr` that creates a map (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

/// Creates an array of maps like `inner`.
///
/// # Errors
/// The kernel's answer.
pub fn create_array_of_maps(
    name: &str,
    entries: u32,
    inner: BorrowedFd<'_>,
) -> io::Result<OwnedFd> {
    let mut attr = MapCreate {
        map_type: ARRAY_OF_MAPS,
        key_size: 4,
        value_size: 4,
        max_entries: entries,
        inner_map_fd: inner.as_raw_fd() as u32,
        ..MapCreate::default()
    };
    // The last byte stays 0.
    for (to, from) in attr.map_name[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: integers only.
    let fd = unsafe { bpf(BPF_MAP_CREATE, &mut attr)? };
    // SAFETY: the kernel gave this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a descriptor stand for what another one does, and closes what it stood for.
///
/// # Errors
/// The kernel's answer.
pub fn replace(old: BorrowedFd<'_>, new: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both are open; `old` stays so, and whoever owns it goes on to close it once.
    match unsafe { libc::dup3(new.as_raw_fd(), old.as_raw_fd(), libc::O_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// `BPF_MAP_DELETE_ELEM`
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;

/// The part of `union bpf_attr` for one entry of a map.
#[repr(C)]
struct Entry {
    map_fd: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl Entry {
    /// That of an index; the value is an address, or 0.
    fn new(map: BorrowedFd<'_>, index: &u32, value: u64) -> Self {
        Self {
            map_fd: map.as_raw_fd() as u32,
            _padding: 0,
            key: (&raw const *index) as u64,
            value,
            flags: 0,
        }
    }
}

/// Removes the map at an index of an array of maps, if there is one.
///
/// # Errors
/// The kernel's answer.
pub fn delete_index(map: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    let mut attr = Entry::new(map, &index, 0);
    // SAFETY: the key lives until the call returns.
    match unsafe { bpf(BPF_MAP_DELETE_ELEM, &mut attr) } {
        Err(e) if e.raw_os_error() != Some(libc::ENOENT) => Err(e),
        _ => Ok(()),
    }
}

/// `BPF_MAP_LOOKUP_ELEM`
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
/// `BPF_MAP_UPDATE_ELEM`
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;

/// Puts a map into an array of maps, and waits until no program uses the one that was there before.
///
/// # Errors
/// The kernel's answer.
pub fn set_map(outer: BorrowedFd<'_>, index: u32, inner: BorrowedFd<'_>) -> io::Result<()> {
    let inner = inner.as_raw_fd() as u32;
    let mut attr = Entry::new(outer, &index, (&raw const inner) as u64);
    // SAFETY: key and value live until the call returns; both are 4 bytes in an array of maps.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attr) }.map(drop)
}

/// The number of the map at an index of an array of maps, if there is one.
pub fn map_at(outer: BorrowedFd<'_>, index: u32) -> Option<u32> {
    let mut number = 0u32;
    let mut attr = Entry::new(outer, &index, (&raw mut number) as u64);
    // SAFETY: key and value live until the call returns; both are 4 bytes in an array of maps.
    unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) }.ok()?;
    Some(number)
}

/// `BPF_MAP_UPDATE_BATCH`, Linux 5.6.
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;

/// Writes entries of a map whose keys and values have 4 bytes.
///
/// # Errors
/// The kernel's answer.
///
/// # Panics
/// Unless there is a value for each key.
pub fn update_batch(map: BorrowedFd<'_>, keys: &[u32], values: &[u32]) -> io::Result<()> {
    assert_eq!(keys.len(), values.len());
    let mut batch = Batch {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: keys.len() as u32,
        map_fd: map.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the buffers hold `count` keys and values, which the kernel only reads, and live until it returns.
    unsafe { bpf(BPF_MAP_UPDATE_BATCH, &mut batch) }.map(drop)
}

/// `BPF_MAP_LOOKUP_BATCH`, Linux 5.6; of per-CPU arrays 5.13.
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// The part of `union bpf_attr` for batches.
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Reads the first `entries` values of a per-CPU array in one call: for each entry, one value for each of `cpus` CPUs.
///
/// # Errors
/// The kernel's answer.
pub fn lookup_batch<T: aya::Pod + Default>(
    map: BorrowedFd<'_>,
    entries: usize,
    cpus: usize,
) -> io::Result<Vec<T>> {
    const {
        assert!(
            size_of::<T>().is_multiple_of(8),
            "the kernel rounds per-CPU values up to 8 bytes"
        )
    };
    let mut keys = vec![0u32; entries];
    let mut values = vec![T::default(); entries * cpus];
    let mut next = 0u32;
    let mut batch = Batch {
        in_batch: 0,
        out_batch: (&raw mut next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: entries as u32,
        map_fd: map.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the buffers hold `entries` keys and values, of which the kernel writes no more, and live until it returns. T is
    // plain data, for which every bit pattern is a value.
    match unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut batch) } {
        // ENOENT says that there are no further entries.
        Err(e) if e.raw_os_error() != Some(libc::ENOENT) => return Err(e),
        _ => {}
    }
    values.truncate(batch.count as usize * cpus);
    Ok(values)
}

/// Opens a CAN socket and closes it, for which the kernel loads its modules `can` and `can-raw`.
///
/// # Errors
/// The kernel's answer.
pub fn can_socket() -> io::Result<()> {
    // SAFETY: creates a descriptor.
    let fd = unsafe {
        libc::socket(
            libc::PF_CAN,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::CAN_RAW,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel gave this descriptor to us alone.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

/// The number of the current network namespace, unique until the machine restarts.
///
/// # Errors
/// On kernels before 5.14.
pub fn namespace_cookie() -> io::Result<u64> {
    let mut cookie = 0u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: creates a descriptor.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel gave this descriptor to us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the buffer has the length that is passed.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(cookie)
}

/// The supplementary groups of the process at the other end of a Unix socket, as they were when it connected.
///
/// # Errors
/// The kernel's answer.
pub fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<libc::gid_t>> {
    let mut groups = vec![0; 64];
    loop {
        let mut len = size_of_val(&groups[..]) as libc::socklen_t;
        // SAFETY: the buffer has the length that is passed.
        let answer = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        let needed = len as usize / size_of::<libc::gid_t>();
        if answer == 0 {
            groups.truncate(needed);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // The kernel says how many there are (`sock_getsockopt`).
        if error.raw_os_error() != Some(libc::ERANGE) || needed <= groups.len() {
            return Err(error);
        }
        groups.resize(needed, 0);
    }
}

/// Type of the file system at a path (`statfs`); `None` when there is none.
pub fn file_system(path: &Path) -> Option<i64> {
    let path = path_text(path).ok()?;
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the path is terminated, and the kernel fills the structure when it returns 0.
    unsafe {
        (libc::statfs(path.as_ptr(), stat.as_mut_ptr()) == 0).then(|| stat.assume_init().f_type)
    }
}

/// Waits until every frame that the kernel was working on when this was called is through with the filters of its hook. Where the kernel
/// does not offer that (`nohz_full`), long enough for it.
pub fn wait_for_frames() {
    /// `MEMBARRIER_CMD_GLOBAL`: `synchronize_rcu()`
    const GLOBAL: libc::c_int = 1;
    // SAFETY: the command takes no memory.
    let answer = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if answer != 0 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn answer(answer: i32) -> io::Result<()> {
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Gives the calling thread a network namespace of its own.
///
/// # Errors
/// The kernel's answer.
pub fn leave_namespace() -> io::Result<()> {
    // SAFETY: takes a number only.
    answer(unsafe { libc::unshare(libc::CLONE_NEWNET) })
}

/// Puts the calling thread into a network namespace.
///
/// # Errors
/// The kernel's answer.
pub fn enter_namespace(namespace: &File) -> io::Result<()> {
    // SAFETY: takes numbers only; the descriptor is open as long as `namespace` is borrowed.
    answer(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })
}

fn path_text(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Shows a file at another place, too.
///
/// # Errors
/// The kernel's answer.
pub fn bind_mount(from: &Path, to: &Path) -> io::Result<()> {
    mount(from, to, libc::MS_BIND)
}

fn mount(from: &Path, to: &Path, flags: libc::c_ulong) -> io::Result<()> {
    let (from, to) = (path_text(from)?, path_text(to)?);
    // SAFETY: both texts are terminated and live until the call returns; the other pointers may be null.
    answer(unsafe { libc::mount(from.as_ptr(), to.as_ptr(), null(), flags, null()) })
}

/// Sets the permissions that new files of this process do not get; those from before.
#[must_use]
pub fn set_umask(mask: u32) -> u32 {
    // SAFETY: takes a number only, and cannot fail.
    unsafe { libc::umask(mask) }
}

/// Undoes [`bind_mount`].
///
/// # Errors
/// The kernel's answer.
pub fn unmount(path: &Path) -> io::Result<()> {
    let path = path_text(path)?;
    // SAFETY: the text is terminated and lives until the call returns.
    answer(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) })
}

/// Lets what is mounted in a folder later, and what is unmounted, be seen in other mount namespaces, as `ip netns` does.
///
/// # Errors
/// The kernel's answer.
pub fn share_mounts(folder: &Path) -> io::Result<()> {
    let share = || mount(Path::new(""), folder, libc::MS_SHARED | libc::MS_REC);
    // Only a mount can be shared.
    share().or_else(|_| {
        mount(folder, folder, libc::MS_BIND | libc::MS_REC)?;
        share()
    })
}
