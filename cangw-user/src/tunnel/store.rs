//! The tunnels that `cangw tunnel add` made, remembered on disk.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::config::TunnelTable;
use crate::error::{Error, Result};
use crate::folder::{make_private, replace};

/// Name of the file.
const FILE: &str = "tunnels.json";
/// Version of its content.
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    tunnels: BTreeMap<String, TunnelTable>,
}

/// The file, which only the daemon reads and writes.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// By name; the bus of each is `TOPOLOGY.BUS`.
    pub tunnels: BTreeMap<String, TunnelTable>,
}

impl Store {
    /// Reads what a folder has.
    ///
    /// # Errors
    /// When it cannot be read; then it stays as it is.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let wrong = |e: serde_json::Error| Error::File {
            file: path.display().to_string(),
            line: e.line(),
            error: Box::new(Error::Key {
                key: None,
                message: format!("{e}; move the file away, and add the tunnels again"),
            }),
        };
        let tunnels = match fs::read(&path) {
            Ok(bytes) => {
                let content: Content = serde_json::from_slice(&bytes).map_err(wrong)?;
                if content.version != VERSION {
                    let message = format!("it is of version {}", content.version);
                    return Err(wrong(serde::de::Error::custom(message)));
                }
                content.tunnels
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(Error::io(format!("read {}", path.display()), e)),
        };
        Ok(Self {
            folder: folder.to_owned(),
            tunnels,
        })
    }

    /// Puts other tunnels in the place of those.
    ///
    /// # Errors
    /// When the disk does not take it; then everything is as it was.
    pub fn set(&mut self, tunnels: BTreeMap<String, TunnelTable>) -> Result<()> {
        let failed = |e| Error::io(format!("write {}", self.folder.join(FILE).display()), e);
        let content = Content {
            version: VERSION,
            tunnels,
        };
        let mut bytes = serde_json::to_vec_pretty(&content).map_err(|e| failed(e.into()))?;
        bytes.push(b'\n');
        make_private(&self.folder).map_err(failed)?;
        replace(&self.folder, FILE, &bytes).map_err(failed)?;
        self.tunnels = content.tunnels;
        Ok(())
    }
}
