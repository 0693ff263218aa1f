//! CAN networks for containers: Docker's network driver and Podman's plugin. docs/containers.md says how they are used and what becomes of a network.
//!
//! [`networks`] has what there is to do, `keep` what is done when something vanished, [`store`] what is remembered on disk, [`fabric`] the kernel's side; [`docker`] and [`netavark`] speak the
//! protocols.

pub mod docker;
pub mod dockerd;
pub mod doctor;
pub mod fabric;
mod keep;
pub mod names;
pub mod netavark;
pub mod networks;
pub mod options;
pub mod report;
pub mod server;
pub mod store;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

/// Where networks are remembered: what the service manager calls a service's state (systemd.exec(5)), or the same place without one.
#[must_use]
pub fn folder() -> PathBuf {
    let given = std::env::var_os("STATE_DIRECTORY").filter(|folder| !folder.is_empty());
    given.map_or_else(|| "/var/lib/cangw".into(), PathBuf::from)
}
