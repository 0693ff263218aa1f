//! Networks and endpoints: what there is to do, in an order in which an interruption leaves nothing that is not known.
//!
//! What is wanted is written to disk first, then made; what goes is unmade first, then forgotten. So whoever is interrupted leaves something that
//! the same call, made again, finishes, and that [`Networks::keep`] and the removal of the network know.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tracing::warn;

use super::doctor::Known;
use super::fabric::{Bus, Fabric, Far, Port};
use super::names::{bus, host_port, port, require_id, short, source};
use super::options::{Given, NetworkOptions, PortOptions};
use super::store::{Endpoint, Engine, Network, Store};
use crate::error::{Error, Result};

/// What interfaces in containers begin with, unless told otherwise.
const PREFIX: &str = "can";

/// The networks of a host.
pub struct Networks<F> {
    folder: PathBuf,
    /// Those that were made through this.
    made: Mutex<BTreeSet<String>>,
    pub(super) fabric: F,
}

/// What a container engine is to do with an endpoint's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Its name on the host, from where it is to be moved.
    pub source: String,
    /// What its name in the container begins with.
    pub prefix: String,
}

impl<F: Fabric> Networks<F> {
    /// Those that are remembered in a folder.
    pub fn new(folder: &Path, fabric: F) -> Self {
        Self {
            folder: folder.to_owned(),
            made: Mutex::default(),
            fabric,
        }
    }

    pub(super) fn open(&self) -> Result<Store> {
        Store::open(&self.folder)
    }

    /// As [`Self::open`], `None` when there never were networks.
    pub(super) fn look(&self) -> Result<Option<Store>> {
        Store::look(&self.folder)
    }

    /// Makes a network.
    ///
    /// # Errors
    /// What is wrong with its options; what the kernel refuses. Then there is none.
    pub fn create_network(&self, id: &str, engine: Engine, options: &Given) -> Result<()> {
        require_id("network", id)?;
        let mut options = options.clone();
        if let Some(bus) = NetworkOptions::parse(&options)?.bus {
            // Another topology with a bus of that name may come up later.
            options.insert("bus".into(), self.fabric.full_name(&bus)?);
        }
        let network = Network { engine, options };
        let mut store = self.open()?;
        if let Some(found) = store.content.networks.get(id)
            && *found != network
        {
            return Err(refused(format!(
                "there is a network {} with other options; remove it first",
                short(id)
            )));
        }
        let twin = |other: &&String| *other != id && short(other) == short(id);
        if let Some(twin) = store.content.networks.keys().find(twin) {
            return Err(refused(format!(
                "the identifiers of networks {id} and {twin} begin alike; make it again, which gives it another one"
            )));
        }
        let is_new = store
            .content
            .networks
            .insert(id.to_owned(), network.clone())
            .is_none();
        store.save()?;
        let made = self.make_network(id, &network);
        if made.is_err() && is_new {
            let _ = self.forget_network(&mut store, id);
        }
        if made.is_ok() {
            let mut all = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            all.insert(id.to_owned());
        }
        made
    }

    /// Removes Docker's networks that have an interface on the host and that Docker does not have: it forgets one whose driver ended while it made it. Whether there was one.
    ///
    /// # Errors
    /// What the kernel or the disk refuses.
    pub fn forget_given_up(
        &self,
        interface: &str,
        docker: impl FnOnce() -> Option<Known>,
    ) -> Result<bool> {
        let Some(store) = self.look()? else {
            return Ok(false);
        };
        // Docker lists a network some time after it was made.
        let made = self
            .made
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let has_it = |(id, network): &(&String, &Network)| {
            network.engine == Engine::Docker
                && network
                    .options
                    .get("host_if")
                    .is_some_and(|name| name == interface)
                && !made.contains(*id)
        };
        let holders = store.content.networks.iter().filter(has_it);
        let holders: Vec<String> = holders.map(|(id, _)| id.clone()).collect();
        drop(store);
        if holders.is_empty() {
            return Ok(false);
        }
        let Some(known) = docker() else {
            return Ok(false);
        };
        let mut forgotten = false;
        for id in holders.iter().filter(|id| !known.contains_key(*id)) {
            warn!(
                "network {}, which Docker does not have, gives {interface} back",
                short(id)
            );
            self.delete_network(id)?;
            forgotten = true;
        }
        Ok(forgotten)
    }

    /// Makes a network's bus and the host's interface.
    pub(super) fn make_network(&self, id: &str, network: &Network) -> Result<()> {
        let options = NetworkOptions::parse(&network.options)?;
        let bus = bus(id, &options);
        self.fabric.make_bus(&bus)?;
        let mtu = self.fabric.mtu(&bus)?;
        require_fits(&options.ports, mtu, &bus)?;
        let Some(interface) = options.host_if else {
            return Ok(());
        };
        let port = Port {
            name: host_port(id),
            mtu,
            interface,
            far: Far::Host,
        };
        self.fabric.make_port(&bus, &port, None)
    }

    fn unmake_network(&self, id: &str, network: &Network) -> Result<()> {
        let options = NetworkOptions::parse(&network.options)?;
        let bus = bus(id, &options);
        self.fabric.remove_port(&bus, &host_port(id))?;
        match bus {
            Bus::Own(..) => self.fabric.remove_bus(&bus),
            Bus::OfTopology(_) => Ok(()),
        }
    }

    /// Removes a network with all endpoints that it still has.
    ///
    /// # Errors
    /// What the kernel refuses; then it stays.
    pub fn delete_network(&self, id: &str) -> Result<()> {
        let Some(mut store) = self.look()? else {
            return Ok(());
        };
        let left: Vec<String> = endpoints_of(&store, id).collect();
        for endpoint in left {
            self.unmake_endpoint(&mut store, &endpoint)?;
        }
        self.forget_network(&mut store, id)
    }

    /// Removes a network if it has no endpoints.
    ///
    /// # Errors
    /// As [`Self::delete_network`].
    pub fn delete_unused(&self, id: &str) -> Result<()> {
        match self.look()? {
            Some(mut store) if endpoints_of(&store, id).next().is_none() => {
                self.forget_network(&mut store, id)
            }
            _ => Ok(()),
        }
    }

    /// As [`Self::delete_unused`], if it is Podman's.
    pub(super) fn delete_unused_of_podman(&self, id: &str) -> Result<()> {
        let store = self.look()?;
        let network = store
            .as_ref()
            .and_then(|store| store.content.networks.get(id));
        let is_podmans = network.is_some_and(|network| network.engine == Engine::Podman);
        drop(store);
        if is_podmans {
            self.delete_unused(id)?;
        }
        Ok(())
    }

    fn forget_network(&self, store: &mut Store, id: &str) -> Result<()> {
        let Some(network) = store.content.networks.get(id).cloned() else {
            return Ok(());
        };
        self.unmake_network(id, &network)?;
        store.content.networks.remove(id);
        store.save()
    }

    /// Makes an interface for a container, on the host.
    ///
    /// # Errors
    /// What is wrong with its options; when there is no such network, its bus has no room, or the kernel refuses. Then there is none.
    pub fn create_endpoint(&self, id: &str, network: &str, options: &Given) -> Result<()> {
        let endpoint = Endpoint {
            network: network.to_owned(),
            options: options.clone(),
            container: None,
            sandbox: None,
            interface: None,
        };
        self.add_endpoint(id, endpoint, Far::Host, source(id))
    }

    /// Makes an interface in a container.
    ///
    /// # Errors
    /// As [`Self::create_endpoint`], and when the container has an interface of that name or is not there.
    pub fn attach(&self, id: &str, endpoint: Endpoint) -> Result<()> {
        let (Some(sandbox), Some(interface)) = (&endpoint.sandbox, &endpoint.interface) else {
            return Err(refused("an interface needs a container and a name".into()));
        };
        if !self.fabric.has_sandbox(sandbox) {
            return Err(refused(format!(
                "{} is no network namespace: the container is gone",
                sandbox.display()
            )));
        }
        let (far, interface) = (Far::In(sandbox.clone()), interface.clone());
        self.add_endpoint(id, endpoint, far, interface)
    }

    fn add_endpoint(
        &self,
        id: &str,
        endpoint: Endpoint,
        far: Far,
        interface: String,
    ) -> Result<()> {
        require_id("endpoint", id)?;
        let mut store = self.open()?;
        let network = find(&store, &endpoint.network)?;
        PortOptions::parse(&endpoint.options, &of_ports(&network.options))?;
        let before = store.content.endpoints.get(id).cloned();
        if let Some(before) = &before
            && (before.network != endpoint.network || before.options != endpoint.options)
        {
            return Err(refused(format!(
                "there is an endpoint {} with other options; remove it first",
                short(id)
            )));
        }
        let twin = |other: &&String| *other != id && short(other) == short(id);
        if let Some(twin) = store.content.endpoints.keys().find(twin) {
            return Err(refused(format!(
                "the identifiers of endpoints {id} and {twin} begin alike; connect the container again, which gives it another one"
            )));
        }
        store
            .content
            .endpoints
            .insert(id.to_owned(), endpoint.clone());
        store.save()?;
        let made = self.make_endpoint(id, &endpoint, &network, far, interface);
        if made.is_err() && before.is_none() {
            // What cannot be unmade stays remembered, and goes with the network.
            let _ = self.unmake_endpoint(&mut store, id);
        }
        made
    }

    pub(super) fn make_endpoint(
        &self,
        id: &str,
        endpoint: &Endpoint,
        network: &Network,
        far: Far,
        interface: String,
    ) -> Result<()> {
        let bus = bus(&endpoint.network, &NetworkOptions::parse(&network.options)?);
        let options = PortOptions::parse(&endpoint.options, &of_ports(&network.options))?;
        let mtu = self.fabric.mtu(&bus)?;
        require_fits(&options, mtu, &bus)?;
        let port = Port {
            name: port(id),
            mtu: options.mtu(),
            interface,
            far,
        };
        self.fabric
            .make_port(&bus, &port, options.limits(mtu).as_ref())
    }

    fn unmake_endpoint(&self, store: &mut Store, id: &str) -> Result<()> {
        let Some(endpoint) = store.content.endpoints.get(id).cloned() else {
            return Ok(());
        };
        if let Some(network) = store.content.networks.get(&endpoint.network) {
            let options = NetworkOptions::parse(&network.options)?;
            let bus = bus(&endpoint.network, &options);
            self.fabric.remove_port(&bus, &port(id))?;
        }
        store.content.endpoints.remove(id);
        store.save()
    }

    /// A container takes an endpoint's interface.
    ///
    /// # Errors
    /// When there is no such endpoint.
    pub fn join(&self, id: &str, network: &str, sandbox: &Path) -> Result<Joined> {
        let mut store = self.open()?;
        let found = find(&store, network)?;
        let endpoint = store.content.endpoints.get_mut(id);
        let Some(endpoint) = endpoint.filter(|endpoint| endpoint.network == network) else {
            return Err(refused(format!(
                "there is no endpoint {} on network {}; connect the container again",
                short(id),
                short(network)
            )));
        };
        endpoint.sandbox = Some(sandbox.to_owned());
        endpoint.interface = None;
        let options = PortOptions::parse(&endpoint.options, &of_ports(&found.options))?;
        store.save()?;
        Ok(Joined {
            source: source(id),
            prefix: options.prefix.unwrap_or_else(|| PREFIX.to_owned()),
        })
    }

    /// A container gives an endpoint's interface back.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn leave(&self, id: &str) -> Result<()> {
        let Some(mut store) = self.look()? else {
            return Ok(());
        };
        if let Some(endpoint) = store.content.endpoints.get_mut(id) {
            endpoint.sandbox = None;
            endpoint.interface = None;
        }
        store.save()
    }

    /// Removes an endpoint with its interface, wherever that is.
    ///
    /// # Errors
    /// What the kernel refuses; then it stays.
    pub fn delete_endpoint(&self, id: &str) -> Result<()> {
        match self.look()? {
            Some(mut store) => self.unmake_endpoint(&mut store, id),
            None => Ok(()),
        }
    }

    /// Whether there is an endpoint.
    ///
    /// # Errors
    /// When what is remembered cannot be read.
    pub fn has_endpoint(&self, id: &str, network: &str) -> Result<bool> {
        let Some(store) = self.look()? else {
            return Ok(false);
        };
        let endpoint = store.content.endpoints.get(id);
        Ok(endpoint.is_some_and(|endpoint| endpoint.network == network))
    }

    /// Whether Docker has made networks.
    ///
    /// # Errors
    /// When what is remembered cannot be read.
    pub fn has_docker(&self) -> Result<bool> {
        let store = self.look()?;
        let networks = store
            .iter()
            .flat_map(|store| store.content.networks.values());
        Ok(networks
            .into_iter()
            .any(|network| network.engine == Engine::Docker))
    }
}

/// Those of a network's options that are its ports'.
pub(super) fn of_ports(options: &Given) -> Given {
    let mut options = options.clone();
    options.retain(|key, _| key != "bus" && key != "host_if");
    options
}

fn endpoints_of(store: &Store, network: &str) -> impl Iterator<Item = String> {
    let endpoints = store.content.endpoints.iter();
    let own = endpoints.filter(move |(_, endpoint)| endpoint.network == network);
    own.map(|(id, _)| id.clone())
}

fn find(store: &Store, network: &str) -> Result<Network> {
    store.content.networks.get(network).cloned().ok_or_else(|| {
        refused(format!(
            "cangw knows no network {}; remove it with `docker network rm`, and make it again",
            short(network)
        ))
    })
}

fn require_fits(options: &PortOptions, mtu: u32, bus: &Bus) -> Result<()> {
    if options.mtu() <= mtu {
        return Ok(());
    }
    Err(refused(match bus {
        Bus::Own(..) => {
            "the network does not carry such frames; make it with `-o fd=true` or `-o xl=true`"
                .into()
        }
        Bus::OfTopology(name) => format!(
            "bus {name} does not carry such frames; say `fd = true` or `xl = true` of it in the topology's file"
        ),
    }))
}

pub(super) fn refused(message: String) -> Error {
    Error::Container { message }
}
