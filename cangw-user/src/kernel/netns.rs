//! Network namespaces: made, found and entered, without other programs.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;

use super::syscall;
use crate::error::{Error, Result};

/// `NSFS_MAGIC`
const NSFS: i64 = 0x6e73_6673;

/// A network namespace.
pub struct NetNs(File);

impl NetNs {
    /// The one of the calling thread.
    ///
    /// # Errors
    /// When /proc is not mounted.
    pub fn current() -> Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The one that has a file.
    ///
    /// # Errors
    /// When there is no such file, or it is no namespace's (found out by [`Self::enter`]).
    pub fn open(path: &Path) -> Result<Self> {
        File::open(path)
            .map(Self)
            .map_err(|e| Error::io(format!("open the network namespace {}", path.display()), e))
    }

    /// Whether a file is a namespace's. One whose mount is gone, or was never made, is not.
    #[must_use]
    pub fn is_there(path: &Path) -> bool {
        syscall::file_system(path) == Some(NSFS)
    }

    /// Makes a namespace, does work in it, and gives it a file, in a folder that is made when it is not there.
    ///
    /// # Errors
    /// When the file exists, or the kernel refuses, and what the work says.
    pub fn create(path: &Path, work: impl FnOnce() -> Result<()> + Send) -> Result<Self> {
        let failed = |e| Error::io(format!("make the network namespace {}", path.display()), e);
        if let Some(folder) = path.parent() {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o755);
            builder.create(folder).map_err(failed)?;
            syscall::share_mounts(folder).map_err(failed)?;
        }
        if !Self::is_there(path) {
            // Left by somebody who was interrupted. Fails when there is none.
            let _ = fs::remove_file(path);
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o444);
        options.open(path).map_err(failed)?;
        // A thread of its own, whose namespace nobody will miss.
        let made = thread::scope(|scope| {
            let make = || {
                syscall::leave_namespace().map_err(failed)?;
                work()?;
                syscall::bind_mount(Path::new("/proc/thread-self/ns/net"), path).map_err(failed)
            };
            join(scope.spawn(make))
        });
        if let Err(e) = made {
            let _ = fs::remove_file(path);
            return Err(e);
        }
        Self::open(path)
    }

    /// Takes the file of a namespace away. The namespace ends with its last process and socket, and its interfaces with it.
    ///
    /// # Errors
    /// When the kernel refuses, except that it is gone.
    pub fn remove(path: &Path) -> Result<()> {
        let failed = |e| {
            Error::io(
                format!("remove the network namespace {}", path.display()),
                e,
            )
        };
        if !path.exists() {
            return Ok(());
        }
        // Not a mount when making it was interrupted.
        let _ = syscall::unmount(path);
        fs::remove_file(path).map_err(failed)
    }

    /// Does work on a thread in the namespace. Sockets that it opens stay there.
    ///
    /// # Errors
    /// When the kernel refuses to enter, and what the work says.
    ///
    /// # Panics
    /// When the work does.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = || {
                self.enter_for_good()?;
                work()
            };
            join(scope.spawn(inside))
        })
    }

    /// Puts the calling thread into the namespace; for a process that becomes another program.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter_for_good(&self) -> Result<()> {
        syscall::enter_namespace(&self.0).map_err(|e| Error::io("enter a network namespace", e))
    }

    /// The open file, for netlink and for `setns`.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.0
    }
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
