//! Names that follow from identifiers of networks and endpoints.

use super::fabric::Bus;
use super::networks::refused;
use super::options::NetworkOptions;
use crate::error::Result;

/// Characters of an identifier that go into names.
const SHORT: usize = 12;

/// The bus of a network.
pub(super) fn bus(id: &str, options: &NetworkOptions) -> Bus {
    match &options.bus {
        Some(bus) => Bus::OfTopology(bus.clone()),
        None => Bus::Own(short(id).to_owned(), options.ports.mtu()),
    }
}

/// An identifier as engines show it.
#[must_use]
pub fn short(id: &str) -> &str {
    id.get(..SHORT).unwrap_or(id)
}

/// Name of an endpoint's port.
pub(super) fn port(id: &str) -> String {
    format!("p{}", short(id))
}

/// Name of the port of the host's interface.
pub(super) fn host_port(network: &str) -> String {
    format!("h{}", short(network))
}

/// Name of an endpoint's interface on the host.
pub(super) fn source(id: &str) -> String {
    format!("cg{}", short(id))
}

/// Sees to it that a text is an identifier, from which names can be made.
///
/// # Errors
/// When it is none.
pub(super) fn require_id(what: &str, id: &str) -> Result<()> {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    if (SHORT..=64).contains(&id.len()) && id.chars().all(is_hex) {
        return Ok(());
    }
    Err(refused(format!(
        "{id:?} is no identifier of a {what}, which has {SHORT} to 64 hexadecimal digits"
    )))
}
