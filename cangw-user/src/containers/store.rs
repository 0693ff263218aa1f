//! What is remembered of networks, in a file that is written as a whole.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::options::Given;
use crate::error::{Error, Result};
use crate::folder::{make_private, replace};

const FILE: &str = "networks.json";
/// Raised when the file changes its form.
const VERSION: u32 = 1;

/// Who asked for a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
}

impl Engine {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Who asked for it.
    pub engine: Engine,
    /// Its options.
    #[serde(default)]
    pub options: Given,
}

/// An interface of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its network.
    pub network: String,
    /// Its options.
    #[serde(default)]
    pub options: Given,
    /// Name of the container, when that was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// File of the container's network namespace, once it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<PathBuf>,
    /// Name of the interface in the container, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    version: u32,
    /// The networks, by their identifiers.
    pub networks: BTreeMap<String, Network>,
    /// The endpoints, by their identifiers.
    pub endpoints: BTreeMap<String, Endpoint>,
}

/// The file, locked against other processes.
pub struct Store {
    folder: PathBuf,
    /// What is remembered, and, with [`Self::save`], will be.
    pub content: Content,
    saved: Content,
    _lock: File,
}

impl Store {
    /// Reads the file, in a folder that is made when it is not there. Waits until nobody else has it.
    ///
    /// # Errors
    /// When the folder or the file cannot be used, or the file is not this one's.
    pub fn open(folder: &Path) -> Result<Self> {
        let failed = |e| Error::io(format!("open {}", folder.display()), e);
        // Whoever could read it could keep the lock.
        make_private(folder).map_err(failed)?;
        let lock = File::open(folder).map_err(failed)?;
        lock.lock().map_err(failed)?;
        Self::read(folder, lock)
    }

    /// As [`Self::open`]; `None` when nothing was ever remembered there.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn look(folder: &Path) -> Result<Option<Self>> {
        if folder.join(FILE).exists() {
            Self::open(folder).map(Some)
        } else {
            Ok(None)
        }
    }

    fn read(folder: &Path, lock: File) -> Result<Self> {
        let path = folder.join(FILE);
        let wrong = |what: String| Error::Container {
            message: format!(
                "{}: {what}; move the file away, remove the CAN networks with `docker network rm` or `podman network rm`, and make them again",
                path.display()
            ),
        };
        let content = match fs::read(&path) {
            Ok(bytes) => {
                let content: Content =
                    serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
                if content.version != VERSION {
                    return Err(wrong(format!("it is of version {}", content.version)));
                }
                content
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Content {
                version: VERSION,
                networks: BTreeMap::new(),
                endpoints: BTreeMap::new(),
            },
            Err(e) => return Err(Error::io(format!("read {}", path.display()), e)),
        };
        Ok(Self {
            folder: folder.to_owned(),
            saved: content.clone(),
            content,
            _lock: lock,
        })
    }

    /// Writes what has changed. After an error, or a crash, the file is as it was before.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn save(&mut self) -> Result<()> {
        if self.content == self.saved {
            return Ok(());
        }
        let path = self.folder.join(FILE);
        let failed = |e| Error::io(format!("write {}", path.display()), e);
        let mut bytes = serde_json::to_vec_pretty(&self.content).map_err(|e| failed(e.into()))?;
        bytes.push(b'\n');
        replace(&self.folder, FILE, &bytes).map_err(failed)?;
        self.saved = self.content.clone();
        Ok(())
    }
}
