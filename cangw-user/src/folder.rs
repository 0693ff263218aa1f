//! What is in a folder.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::error::{Error, Result};

/// The paths of all that a folder has; none when there is no such folder.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io(format!("read {}", folder.display()), e);
    match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries
            .map_err(failed)?
            .map(|entry| Ok(entry.map_err(failed)?.path()))
            .collect(),
    }
}
