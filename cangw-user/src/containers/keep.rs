//! Keeping what is remembered true: after a restart, and when something vanishes.

use std::collections::BTreeSet;

use super::fabric::{Fabric, Far};
use super::names::{bus, port, short, source};
use super::networks::{Networks, refused};
use super::options::NetworkOptions;
use super::store::{Network, Store};
use crate::error::Result;

impl<F: Fabric> Networks<F> {
    /// Makes all buses and ports that are remembered and not there, in containers that live. Whether the names of all interfaces are known now: an engine gives an
    /// interface its name some time after the container has it, and tells nobody.
    ///
    /// # Errors
    /// When what is remembered cannot be read or written; what failed, by network, after the others were made.
    pub fn keep(&self) -> Result<bool> {
        let Some(mut store) = self.look()? else {
            return Ok(true);
        };
        let mut all_known = true;
        let mut failed = Vec::new();
        for (id, network) in store.content.networks.clone() {
            match self.keep_network(&mut store, &id, &network) {
                Ok(known) => all_known &= known,
                Err(e) => failed.push(format!("network {}: {e}", short(&id))),
            }
        }
        store.save()?;
        if failed.is_empty() {
            return Ok(all_known);
        }
        Err(refused(failed.join("; ")))
    }

    fn keep_network(&self, store: &mut Store, id: &str, network: &Network) -> Result<bool> {
        let mut all_known = true;
        self.make_network(id, network)?;
        let bus = bus(id, &NetworkOptions::parse(&network.options)?);
        let there: BTreeSet<String> = self
            .fabric
            .ports(&bus)?
            .into_iter()
            .map(|port| port.name)
            .collect();
        let own = store
            .content
            .endpoints
            .iter_mut()
            .filter(|(_, endpoint)| endpoint.network == id);
        for (id, endpoint) in own {
            let Some(sandbox) = endpoint.sandbox.clone() else {
                continue;
            };
            if !self.fabric.has_sandbox(&sandbox) {
                continue;
            }
            if !there.contains(&port(id)) {
                // Its bus was away, or somebody removed the interface.
                if let Some(interface) = endpoint.interface.clone() {
                    self.make_endpoint(id, endpoint, network, Far::In(sandbox), interface)?;
                }
            } else if endpoint.interface.is_none() {
                let name = self.fabric.interface(&bus, &port(id), &sandbox)?;
                endpoint.interface = name.filter(|name| *name != source(id));
                all_known &= endpoint.interface.is_some();
            }
        }
        Ok(all_known)
    }
}
