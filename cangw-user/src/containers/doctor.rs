//! What was left behind: endpoints of containers that are gone, networks that Docker forgot, buses and ports that nobody asked for, rules of network
//! namespaces that are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::fabric::{Bus, Fabric};
use super::names::{bus, host_port, port, short};
use super::networks::Networks;
use super::options::NetworkOptions;
use super::store::{Endpoint, Engine};
use crate::error::Result;

/// The networks that Docker has, and the endpoints of each.
pub type Known = BTreeMap<String, BTreeSet<String>>;

/// Something that was left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Orphan {
    /// A network that Docker does not have.
    Network(String),
    /// An endpoint whose container is gone.
    Endpoint {
        /// Its identifier.
        id: String,
        /// That of its network.
        network: String,
    },
    /// A bus that no network has.
    Bus(String),
    /// A port that no endpoint has.
    Port {
        /// The bus.
        bus: String,
        /// Its name there.
        port: String,
    },
    /// What a network namespace that is gone has left in the BPF file system.
    Pins(PathBuf),
}

impl fmt::Display for Orphan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(id) => write!(f, "network {}, which Docker does not have", short(id)),
            Self::Endpoint { id, network } => write!(
                f,
                "endpoint {} of network {}, whose container is gone",
                short(id),
                short(network)
            ),
            Self::Bus(bus) => write!(f, "bus {bus}, which no network has"),
            Self::Port { bus, port } => {
                write!(f, "port {port} of bus {bus}, which no endpoint has")
            }
            Self::Pins(path) => {
                write!(f, "{}, of a network namespace that is gone", path.display())
            }
        }
    }
}

impl<F: Fabric> Networks<F> {
    /// What was left behind of networks. `docker`: what Docker has; `None` when that is not known, and then nothing of Docker's is taken for left behind.
    ///
    /// # Errors
    /// When what is remembered cannot be read, or the kernel refuses to tell.
    pub fn orphans(&self, docker: Option<&Known>) -> Result<Vec<Orphan>> {
        let content = self.look()?.map(|store| store.content.clone());
        let (networks, endpoints) = content.map_or_else(Default::default, |content| {
            (content.networks, content.endpoints)
        });
        let mut orphans = Vec::new();
        for (id, network) in &networks {
            let is_unknown = docker.is_some_and(|docker| !docker.contains_key(id));
            if network.engine == Engine::Docker && is_unknown {
                orphans.push(Orphan::Network(id.clone()));
            }
        }
        for (id, endpoint) in &endpoints {
            if self.is_gone(
                id,
                endpoint,
                networks.get(&endpoint.network).map(|n| n.engine),
                docker,
            ) {
                orphans.push(Orphan::Endpoint {
                    id: id.clone(),
                    network: endpoint.network.clone(),
                });
            }
        }
        // On each bus, the ports that somebody asked for.
        let mut wanted: BTreeMap<String, (Bus, BTreeSet<String>)> = BTreeMap::new();
        for (id, network) in &networks {
            let options = NetworkOptions::parse(&network.options)?;
            if options.bus.is_some() {
                continue;
            }
            let own = endpoints.iter().filter(|(_, e)| e.network == *id);
            let ports = own.map(|(id, _)| port(id)).chain([host_port(id)]);
            let bus = bus(id, &options);
            wanted.insert(short(id).to_owned(), (bus, ports.collect()));
        }
        for name in self.fabric.own()? {
            let Some((bus, ports)) = wanted.get(&name) else {
                orphans.push(Orphan::Bus(name));
                continue;
            };
            let states = self.fabric.ports(bus)?.into_iter();
            let others = states.filter(|state| !ports.contains(&state.name));
            orphans.extend(others.map(|state| Orphan::Port {
                bus: name.clone(),
                port: state.name,
            }));
        }
        Ok(orphans)
    }

    fn is_gone(
        &self,
        id: &str,
        endpoint: &Endpoint,
        engine: Option<Engine>,
        docker: Option<&Known>,
    ) -> bool {
        let lives = endpoint
            .sandbox
            .as_ref()
            .is_some_and(|sandbox| self.fabric.has_sandbox(sandbox));
        match engine {
            None => true,
            Some(Engine::Podman) => !lives,
            Some(Engine::Docker) => docker.is_some_and(|docker| {
                let own = docker.get(&endpoint.network);
                !lives && !own.is_some_and(|own| own.contains(id))
            }),
        }
    }

    /// Removes something that was left behind.
    ///
    /// # Errors
    /// What the kernel or the disk refuses.
    pub fn remove(&self, orphan: &Orphan) -> Result<()> {
        match orphan {
            Orphan::Network(id) => self.delete_network(id),
            Orphan::Endpoint { id, network } => {
                self.delete_endpoint(id)?;
                // Podman does not tell when a network goes.
                self.delete_unused_of_podman(network)
            }
            Orphan::Bus(bus) => self.fabric.remove_bus(&Bus::Own(bus.clone(), 0)),
            Orphan::Port { bus, port } => self.fabric.remove_port(&Bus::Own(bus.clone(), 0), port),
            Orphan::Pins(path) => crate::kernel::pins::remove_folder(path),
        }
    }
}
