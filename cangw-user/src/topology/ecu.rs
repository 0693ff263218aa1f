//! An ECU that is up, for programs.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use socketcan::{CanFdSocket, CanSocket, Socket};

use super::host::{ecu_path, ecus};
use crate::error::{Error, Result};
use crate::kernel::netns::NetNs;

/// The network namespace of an ECU. One process can have many of them open, and be many ECUs.
pub struct EcuHandle {
    name: String,
    namespace: NetNs,
}

impl EcuHandle {
    /// Opens an ECU by its name, or by `TOPOLOGY.ECU` when several topologies have one of that name.
    ///
    /// # Errors
    /// When there is none, or more than one; when the process may not.
    pub fn open(name: &str) -> Result<Self> {
        let is_it = |(topology, ecu): &(String, String)| match name.split_once('.') {
            Some((t, e)) => topology == t && ecu == e,
            None => ecu == name,
        };
        let all = ecus()?;
        let found: Vec<&(String, String)> = all.iter().filter(|ecu| is_it(ecu)).collect();
        let [(topology, ecu)] = found[..] else {
            let candidates = if found.is_empty() {
                all.iter().collect()
            } else {
                found
            };
            let candidates = candidates.iter().map(|(t, e)| format!("{t}.{e}"));
            return Err(Error::NoEcu {
                name: name.to_owned(),
                candidates: candidates.collect::<Vec<_>>().join(", "),
            });
        };
        Ok(Self {
            name: name.to_owned(),
            namespace: NetNs::open(&ecu_path(topology, ecu))?,
        })
    }

    /// Opens a socket for classic frames on an interface of the ECU. It stays in the ECU, whatever the calling thread does.
    ///
    /// # Errors
    /// When the ECU has no such CAN interface.
    pub fn socket(&self, interface: &str) -> Result<CanSocket> {
        self.open_socket(interface)
    }

    /// As [`Self::socket`], for classic and FD frames.
    ///
    /// # Errors
    /// When the ECU has no such CAN interface.
    pub fn fd_socket(&self, interface: &str) -> Result<CanFdSocket> {
        self.open_socket(interface)
    }

    fn open_socket<S: Socket + Send>(&self, interface: &str) -> Result<S> {
        self.namespace.enter(|| {
            S::open(interface)
                .map_err(|e| Error::io(format!("open {interface} of ECU {}", self.name), e))
        })
    }

    /// Becomes a program in the ECU; returns only when that is not possible.
    #[must_use]
    pub fn exec(&self, mut command: Command) -> Error {
        match self.namespace.enter_for_good() {
            Ok(()) => {
                let what = format!("run {}", command.get_program().display());
                Error::io(what, command.exec())
            }
            Err(e) => e,
        }
    }
}
