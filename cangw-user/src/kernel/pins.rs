//! Where the rules live between calls: a folder in bpffs for each network namespace, which is also the lock.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// `BPF_FS_MAGIC`
const BPFFS: i64 = 0xcafe_4a11;
/// `SO_NETNS_COOKIE`, Linux 5.14.
const SO_NETNS_COOKIE: i32 = 71;

/// The folder of the current network namespace, locked against other calls.
pub struct Pins {
    folder: PathBuf,
    _lock: File,
}

/// The number of the current network namespace, unique until the machine restarts.
///
/// # Errors
/// On kernels before 5.14.
pub fn namespace_cookie() -> Result<u64> {
    let failed = |e| Error::io("read the network namespace's cookie", e);
    let mut cookie = 0u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: plain system calls; the buffer has the length that is passed, and the descriptor is owned right away.
    let answer = unsafe {
        let fd = libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        let socket = OwnedFd::from_raw_fd(fd);
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if answer != 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    Ok(cookie)
}

fn is_bpffs(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the path is terminated and the kernel fills the structure when it returns 0.
    unsafe {
        libc::statfs(path.as_ptr(), stat.as_mut_ptr()) == 0 && stat.assume_init().f_type == BPFFS
    }
}

/// The mounted bpffs. `ip netns exec` hides it behind a new /sys; then it is reached through the first process.
fn bpffs() -> Result<&'static Path> {
    ["/sys/fs/bpf", "/proc/1/root/sys/fs/bpf"]
        .into_iter()
        .map(Path::new)
        .find(|path| is_bpffs(path))
        .ok_or(Error::NoBpffs)
}

/// Whether the rules have a place.
///
/// # Errors
/// [`Error::NoBpffs`]
pub fn mounted() -> Result<()> {
    bpffs().map(drop)
}

impl Pins {
    /// Opens the folder and waits for the lock. With `create` false, `None` when there is no folder.
    ///
    /// # Errors
    /// When bpffs is missing or may not be used.
    pub fn open(create: bool) -> Result<Option<Self>> {
        let all = bpffs()?.join("cangw");
        let folder = all.join(namespace_cookie()?.to_string());
        loop {
            if create {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&folder)
                    .map_err(|e| denied(e, &folder))?;
            }
            let lock = match File::open(&folder) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    if create {
                        continue;
                    }
                    return Ok(None);
                }
                other => other.map_err(|e| denied(e, &folder))?,
            };
            lock.lock()
                .map_err(|e| Error::io(format!("lock {}", folder.display()), e))?;
            // The call that held the lock may have removed the folder.
            if folder.exists() {
                return Ok(Some(Self {
                    folder,
                    _lock: lock,
                }));
            }
            if !create {
                return Ok(None);
            }
        }
    }

    /// Path of a pin.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes pins for which `keep` is false, and the folder when it is empty.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn remove(&self, keep: impl Fn(&str) -> bool) -> Result<()> {
        let failed = |e| Error::io(format!("remove the pins in {}", self.folder.display()), e);
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !entry.file_name().to_str().is_some_and(&keep) {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        match fs::remove_dir(&self.folder) {
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(()),
            other => other.map_err(failed)?,
        }
        // The folder of all namespaces goes with the last of them; others may be using it.
        if let Some(all) = self.folder.parent() {
            let _ = fs::remove_dir(all);
        }
        Ok(())
    }
}

fn denied(error: io::Error, folder: &Path) -> Error {
    if error.kind() == io::ErrorKind::PermissionDenied {
        Error::Privilege {
            what: "the gateway's rules",
            capability: "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and access to /sys/fs/bpf",
        }
    } else {
        Error::io(format!("open {}", folder.display()), error)
    }
}
