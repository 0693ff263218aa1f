//! Where the rules live between calls: a folder in bpffs for each network namespace, which is also the lock.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::syscall;
use crate::error::{Error, Result};
use crate::folder::entries;

/// `BPF_FS_MAGIC`
const BPFFS: i64 = 0xcafe_4a11;

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
    syscall::namespace_cookie().map_err(|e| Error::io("read the network namespace's cookie", e))
}

/// The mounted bpffs. `ip netns exec` hides it behind a new /sys; then it is reached through the first process.
fn bpffs() -> Result<&'static Path> {
    ["/sys/fs/bpf", "/proc/1/root/sys/fs/bpf"]
        .into_iter()
        .map(Path::new)
        .find(|path| syscall::file_system(path) == Some(BPFFS))
        .ok_or(Error::NoBpffs)
}

/// Whether the rules have a place.
///
/// # Errors
/// [`Error::NoBpffs`]
pub fn mounted() -> Result<()> {
    bpffs().map(drop)
}

/// Folders of network namespaces, each with the namespace's number. Those of namespaces that are gone stay until somebody removes them.
///
/// # Errors
/// When bpffs is missing.
pub fn folders() -> Result<Vec<(u64, PathBuf)>> {
    let number = |path: &Path| path.file_name()?.to_str()?.parse().ok();
    let folders = entries(&bpffs()?.join("cangw"))?.into_iter();
    Ok(folders
        .filter_map(|path| Some((number(&path)?, path)))
        .collect())
}

/// Removes a folder of a namespace that is gone.
///
/// # Errors
/// When something cannot be removed.
pub fn remove_folder(folder: &Path) -> Result<()> {
    let failed = |e| Error::io(format!("remove {}", folder.display()), e);
    fs::remove_dir_all(folder).map_err(failed)?;
    if let Some(all) = folder.parent() {
        let _ = fs::remove_dir(all);
    }
    Ok(())
}

/// What the names of captures among the pins begin with: folders, each locked by the process that captures.
const CAPTURE: &str = "capture-";

/// Whether something among the pins belongs to the buses of a topology, whose namespace can have a gateway, too.
fn is_of_buses(name: &str) -> bool {
    name.contains(['+', '='])
}

impl Pins {
    /// Opens the folder and waits for the lock. With `create` false, `None` when there is no folder.
    ///
    /// # Errors
    /// When bpffs is missing or may not be used.
    pub fn open(create: bool) -> Result<Option<Self>> {
        Self::open_in(bpffs()?, create)
    }

    /// As [`Self::open`], in another BPF file system.
    ///
    /// # Errors
    /// When it may not be used.
    pub fn open_in(bpffs: &Path, create: bool) -> Result<Option<Self>> {
        let folder = bpffs.join("cangw").join(namespace_cookie()?.to_string());
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
            // The call that held the lock may have removed the folder, and another one created it again.
            if same_file(&lock, &folder) {
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

    /// The names of all pins.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn names(&self) -> Result<Vec<String>> {
        let names = entries(&self.folder)?.into_iter();
        let name = |path: PathBuf| path.file_name()?.to_str().map(str::to_owned);
        Ok(names.filter_map(name).collect())
    }

    /// Takes a place for a capture; it is free again when the file is closed. `None` when a living process has it.
    ///
    /// # Errors
    /// When the folder cannot be made or locked.
    pub fn take_capture(&self, place: u32) -> Result<Option<File>> {
        let name = format!("{CAPTURE}{place}");
        self.mark(&name)?;
        let failed = |e| Error::io("take a place for a capture", e);
        let folder = File::open(self.path(&name)).map_err(failed)?;
        match folder.try_lock() {
            Ok(()) => Ok(Some(folder)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(failed(e)),
        }
    }

    /// Gives a place for a capture back.
    ///
    /// # Errors
    /// When the folder cannot be removed.
    pub fn leave_capture(&self, place: u32) -> Result<()> {
        self.unmark(&format!("{CAPTURE}{place}"))
    }

    /// Whether there is a capture at a place, or one that was killed.
    #[must_use]
    pub fn has_capture(&self, place: u32) -> bool {
        self.path(&format!("{CAPTURE}{place}")).exists()
    }

    /// Leaves a mark beside the pins, which keeps the folder as they do.
    ///
    /// # Errors
    /// When it cannot be left, except that it is there.
    pub fn mark(&self, name: &str) -> Result<()> {
        match fs::create_dir(self.path(name)) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                Err(Error::io("leave a mark beside the pins", e))
            }
            _ => Ok(()),
        }
    }

    /// Undoes [`Self::mark`].
    ///
    /// # Errors
    /// When it cannot be removed, except that it is gone.
    pub fn unmark(&self, name: &str) -> Result<()> {
        match fs::remove_dir(self.path(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove a mark beside the pins", e))
            }
            _ => Ok(()),
        }
    }

    /// Removes pins of the gateway for which `keep` is false.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn remove(&self, keep: impl Fn(&str) -> bool) -> Result<()> {
        self.remove_all(|name| is_of_buses(name) || keep(name))
    }

    /// Removes pins of the gateway and of buses for which `keep` is false.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn remove_all(&self, keep: impl Fn(&str) -> bool) -> Result<()> {
        let failed = |e| Error::io(format!("remove the pins in {}", self.folder.display()), e);
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let is_wanted = |name: &str| name.starts_with(CAPTURE) || keep(name);
            if !entry.file_name().to_str().is_some_and(is_wanted) {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// An empty folder goes, and with the last namespace's the one of all; both fail where there is something left.
impl Drop for Pins {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
        if let Some(all) = self.folder.parent() {
            let _ = fs::remove_dir(all);
        }
    }
}

fn same_file(open: &File, path: &Path) -> bool {
    match (open.metadata(), fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
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
