//! What there is of networks, for people and for programs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::fabric::{Fabric, PortState};
use super::names::{bus, host_port, port};
use super::networks::Networks;
use super::options::{Given, NetworkOptions};
use super::store::Engine;
use crate::error::Result;

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkReport {
    /// Its identifier.
    pub id: String,
    /// Who asked for it.
    pub engine: Engine,
    /// Its options.
    pub options: Given,
    /// Its ports, the host's first.
    pub ports: Vec<PortReport>,
}

/// An interface on a network. Frames and data bytes are counted from its side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortReport {
    /// Identifier of the endpoint; `None` for the host's interface.
    pub endpoint: Option<String>,
    /// Name of the container, if the engine told it.
    pub container: Option<String>,
    /// Name of the interface, as far as it is known.
    pub interface: Option<String>,
    /// Its own options.
    pub options: Given,
    /// Whether it is there.
    pub up: bool,
    /// Frames that it sent, also those that were kept back.
    pub sent: u64,
    /// Their data bytes.
    pub sent_bytes: u64,
    /// Frames that it was given.
    pub received: u64,
    /// Their data bytes.
    pub received_bytes: u64,
    /// Frames that it sent with identifiers that `allow` does not name.
    pub denied: u64,
    /// Frames that it sent over `rate`.
    pub over_rate: u64,
    /// Frames for it with identifiers that `filter` does not name.
    pub filtered: u64,
    /// Frames for it that are larger than it takes, such as CAN FD frames for one without `fd`.
    pub too_large: u64,
}

impl PortReport {
    fn of(state: Option<&PortState>) -> Self {
        let Some(PortState {
            traffic, limits, ..
        }) = state
        else {
            return Self::default();
        };
        let kept = limits.as_ref();
        Self {
            up: true,
            sent: traffic.received,
            sent_bytes: traffic.received_bytes,
            received: traffic.sent,
            received_bytes: traffic.sent_bytes,
            denied: kept.map_or(0, |port| port.denied),
            over_rate: kept.map_or(0, |port| port.over_rate),
            filtered: kept.map_or(0, |port| port.filtered),
            too_large: kept.map_or(0, |port| port.too_large),
            ..Self::default()
        }
    }

    /// What it is called: by its container, if that is known, or its endpoint, and its interface.
    #[must_use]
    pub fn name(&self) -> String {
        let interface = self.interface.as_deref().unwrap_or("?");
        match (&self.container, &self.endpoint) {
            (Some(container), _) => format!("{container}:{interface}"),
            (None, Some(endpoint)) => format!("{}:{interface}", super::names::short(endpoint)),
            (None, None) => interface.to_owned(),
        }
    }

    /// Frames that its limits kept back, in both directions.
    #[must_use]
    pub const fn kept_back(&self) -> [(&'static str, u64); 4] {
        [
            ("denied", self.denied),
            ("over_rate", self.over_rate),
            ("filtered", self.filtered),
            ("too_large", self.too_large),
        ]
    }
}

impl<F: Fabric> Networks<F> {
    /// The networks that are remembered, with what came through their ports.
    ///
    /// # Errors
    /// When what is remembered cannot be read, or the kernel refuses to tell.
    pub fn report(&self) -> Result<Vec<NetworkReport>> {
        let Some(store) = self.look()? else {
            return Ok(Vec::new());
        };
        let content = store.content.clone();
        drop(store);
        let mut reports = Vec::new();
        for (id, network) in content.networks {
            let options = NetworkOptions::parse(&network.options)?;
            let states = self.fabric.ports(&bus(&id, &options))?.into_iter();
            let states: BTreeMap<String, PortState> =
                states.map(|state| (state.name.clone(), state)).collect();
            let host = options.host_if.map(|interface| PortReport {
                interface: Some(interface),
                ..PortReport::of(states.get(&host_port(&id)))
            });
            let endpoints = content.endpoints.iter();
            let own = endpoints.filter(|(_, endpoint)| endpoint.network == id);
            let own = own.map(|(id, endpoint)| PortReport {
                endpoint: Some(id.clone()),
                container: endpoint.container.clone(),
                interface: endpoint.interface.clone(),
                options: endpoint.options.clone(),
                ..PortReport::of(states.get(&port(id)))
            });
            reports.push(NetworkReport {
                ports: host.into_iter().chain(own).collect(),
                id,
                engine: network.engine,
                options: network.options,
            });
        }
        Ok(reports)
    }
}
