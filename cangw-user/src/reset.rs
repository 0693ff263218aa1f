//! Taking everything of cangw off a host.

use std::collections::HashSet;
use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::folder::entries;
use crate::gateway::Gateway;
use crate::kernel::netns::NetNs;
use crate::kernel::{pins, syscall};
use crate::state::Settings;
use crate::topology::host::{Host, NAMED, topologies};

/// `NSFS_MAGIC`
const NSFS: i64 = 0x6e73_6673;

/// Takes down all topologies, deletes the rules and settings of all network namespaces, and removes what namespaces that are gone left behind. Tells
/// each step before it is taken.
///
/// # Errors
/// When privileges are missing, or the kernel refuses a step; those before it were taken.
pub fn reset(told: &mut dyn FnMut(&dyn fmt::Display)) -> Result<()> {
    {
        let host = Host::open()?;
        for name in topologies(std::iter::empty())? {
            host.down(&name, &mut |step| told(&format_args!("{name}: {step}")))?;
        }
    }
    for (path, namespace) in namespaces() {
        // A namespace can end meanwhile.
        let flushed = namespace.enter(|| {
            let Some(mut gateway) = Gateway::look()? else {
                return Ok(false);
            };
            gateway.flush()?;
            gateway.set(Settings::default())?;
            Ok(true)
        });
        if flushed? {
            told(&format_args!("- rules of {}", path.display()));
        }
    }
    pins::remove_orphans(&mut |folder| told(&format_args!("- {}", folder.display())))
}

/// All network namespaces that have a name or a process, each once.
fn namespaces() -> Vec<(PathBuf, NetNs)> {
    let of = |folder: &str| entries(Path::new(folder)).unwrap_or_default().into_iter();
    let of_processes = of("/proc").map(|path| path.join("ns/net"));
    let mut known = HashSet::new();
    let mut found = Vec::new();
    for path in of(NAMED).chain(of_processes) {
        // A name whose mount is gone is no namespace.
        if syscall::file_system(&path) == Some(NSFS)
            && let Ok(namespace) = NetNs::open(&path)
            && let Ok(file) = namespace.file().metadata()
            && known.insert((file.dev(), file.ino()))
        {
            found.push((path, namespace));
        }
    }
    found
}
