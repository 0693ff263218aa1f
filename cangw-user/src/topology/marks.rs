//! What tells a topology's network namespaces from those of others.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::host::{NAMED, pins};
use crate::error::{Error, Result};
use crate::folder::entries;
use crate::kernel::netns::NetNs;
use crate::kernel::pins::{self, Pins};

/// The mark of a topology's namespace, among its pins: whoever is interrupted leaves something that is known for ours, and a namespace of somebody
/// else that has the name is not taken for one. It tells the folder of names, too, because containers can have their own beside the same bpffs.
///
/// # Errors
/// When there is no such folder.
pub fn made() -> Result<String> {
    let failed = |e| Error::io(format!("look at {NAMED}"), e);
    let folder = fs::metadata(NAMED).map_err(failed)?;
    Ok(format!("made={}-{}", folder.dev(), folder.ino()))
}

/// Marks the namespace in which this is called.
pub(crate) fn mark() -> Result<()> {
    pins()?.mark(&made()?)
}

/// Undoes [`mark`], when the namespace has no name any more.
pub(crate) fn unmark() -> Result<()> {
    pins()?.unmark(&made()?)
}

/// Whether a namespace was made for a topology.
pub(crate) fn has_mark(namespace: &Path) -> Result<bool> {
    if !NetNs::is_there(namespace) {
        return Ok(false);
    }
    let mark = made()?;
    NetNs::open(namespace)?.enter(|| {
        let pins = Pins::open(false)?;
        Ok(pins.is_some_and(|pins| pins.path(&mark).exists()))
    })
}

/// The folders of pins with a mark, and the numbers of their namespaces.
pub(super) fn marked() -> Result<Vec<(u64, PathBuf)>> {
    if !Path::new(NAMED).exists() {
        return Ok(Vec::new());
    }
    let mark = made()?;
    let mut folders = pins::folders()?;
    folders.retain(|(_, folder)| folder.join(&mark).exists());
    Ok(folders)
}

/// Removes what topologies' namespaces left among the pins that somebody else removed.
pub(crate) fn forget_dead() -> Result<()> {
    let made = marked()?;
    if made.is_empty() {
        return Ok(());
    }
    let mut living = HashSet::new();
    for path in entries(Path::new(NAMED))? {
        if NetNs::is_there(&path) {
            living.insert(NetNs::open(&path)?.enter(pins::namespace_cookie)?);
        }
    }
    made.iter()
        .filter(|(number, _)| !living.contains(number))
        .try_for_each(|(_, folder)| pins::remove_folder(folder))
}
