//! The kernel's side of container networks: buses and their ports.

use std::path::{Path, PathBuf};

use cangw_common::abi::HubPort;

use crate::error::{Error, Result};
use crate::kernel::filter::reentry;
use crate::kernel::hub::Hub;
use crate::kernel::link::{self, Traffic};
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::NetNs;
use crate::kernel::pins::Pins;
use crate::topology::host::{Host, NAMED, buses_path, connect, disconnect, pins, with_bus};
use crate::topology::marks::{forget_dead, has_mark, mark, unmark};

/// Name of the namespace that has the buses of container networks. It is none that a topology or an ECU can have.
pub const HIDDEN: &str = "cangw+networks";

/// A bus.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bus {
    /// One of a network's own, with its name and the size of its largest frame.
    Own(String, u32),
    /// One of a topology, `TOPOLOGY.BUS`.
    OfTopology(String),
}

/// Where the far end of a port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Far {
    /// On the host.
    Host,
    /// In the network namespace of this file.
    In(PathBuf),
}

/// A port of a bus and its far end, an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name on the bus.
    pub name: String,
    /// Size of the largest frame that the interface takes.
    pub mtu: u32,
    /// Name of the interface.
    pub interface: String,
    /// Where it is.
    pub far: Far,
}

/// What came through a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortState {
    /// Its name on the bus.
    pub name: String,
    /// Frames and bytes that came from the interface, and that were given to it.
    pub traffic: Traffic,
    /// What was kept back; `None` when it has no limits.
    pub limits: Option<HubPort>,
}

/// Buses and ports. Whatever is there already, or gone already, is fine.
pub trait Fabric: Send + Sync {
    /// Makes a bus of a network's own.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn make_bus(&self, bus: &Bus) -> Result<()>;

    /// Removes a bus of a network's own, with its ports.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn remove_bus(&self, bus: &Bus) -> Result<()>;

    /// The name of a topology's bus with the topology's, by which it is known also when others have one of that name.
    ///
    /// # Errors
    /// When none is up, or several are.
    fn full_name(&self, bus: &str) -> Result<String>;

    /// Size of the largest frame that a bus carries.
    ///
    /// # Errors
    /// When it is not up.
    fn mtu(&self, bus: &Bus) -> Result<u32>;

    /// Makes a port with its interface.
    ///
    /// # Errors
    /// When the bus is not up or has no room, a name is taken, or the kernel refuses.
    fn make_port(&self, bus: &Bus, port: &Port, limits: Option<&HubPort>) -> Result<()>;

    /// Removes a port with its interface, wherever that is now.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn remove_port(&self, bus: &Bus, name: &str) -> Result<()>;

    /// The ports of a bus; none when it is not up.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    fn ports(&self, bus: &Bus) -> Result<Vec<PortState>>;

    /// The names of the buses that networks have of their own.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    fn own(&self) -> Result<Vec<String>>;

    /// The name of a port's interface in a network namespace; `None` when it is not there.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    fn interface(&self, bus: &Bus, name: &str, sandbox: &Path) -> Result<Option<String>>;

    /// Whether there is a network namespace.
    fn has_sandbox(&self, sandbox: &Path) -> bool;
}

/// The kernel's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel;

fn hidden() -> PathBuf {
    Path::new(NAMED).join(HIDDEN)
}

/// The namespace of a bus and its name there; `None` when it is not up.
fn place(bus: &Bus) -> Result<Option<(PathBuf, String)>> {
    match bus {
        Bus::Own(name, _) => Ok(has_mark(&hidden())?.then(|| (hidden(), name.clone()))),
        Bus::OfTopology(name) => {
            let mut found = with_bus(name)?;
            Ok(found
                .pop()
                .map(|(topology, bus)| (buses_path(&topology), bus)))
        }
    }
}

/// Does work beside the ports of a bus.
fn within<T: Send>(
    bus: &Bus,
    work: impl FnOnce(&Hub<'_>, &Netlink) -> Result<T> + Send,
) -> Result<Option<T>> {
    let Some((namespace, name)) = place(bus)? else {
        return Ok(None);
    };
    NetNs::open(&namespace)?.enter(|| {
        let Some(pins) = Pins::open(false)? else {
            return Ok(None);
        };
        let hub = Hub::new(&pins, &name);
        if !hub.is_there() {
            return Ok(None);
        }
        work(&hub, &Netlink::open()?).map(Some)
    })
}

fn not_up(bus: &Bus) -> Error {
    let message = match bus {
        Bus::Own(name, _) => format!(
            "the bus of network {name} is not there; `systemctl restart cangwd` makes it again"
        ),
        Bus::OfTopology(name) => format!(
            "no topology that is up has a virtual bus {name}; `cangw up FILE` brings one up, `cangw status` shows those that are, and a bus with a device needs `containers = true`"
        ),
    };
    Error::Container { message }
}

impl Fabric for Kernel {
    fn make_bus(&self, bus: &Bus) -> Result<()> {
        let Bus::Own(name, _) = bus else {
            return Ok(());
        };
        let _host = Host::open()?;
        let path = hidden();
        if !has_mark(&path)? {
            if NetNs::is_there(&path) {
                let name = HIDDEN.to_owned();
                return Err(Error::ForeignNamespace { name });
            }
            forget_dead()?;
            NetNs::create(&path, mark)?;
        }
        NetNs::open(&path)?.enter(|| {
            let pins = pins()?;
            let hub = Hub::new(&pins, name);
            if !hub.is_there() {
                return hub.create(0);
            }
            if !hub.is_current()? {
                hub.renew()?;
            }
            reentry::set(&Netlink::open()?, &hub.ports()?)
        })
    }

    fn remove_bus(&self, bus: &Bus) -> Result<()> {
        let _host = Host::open()?;
        within(bus, |hub, netlink| {
            for port in hub.ports()? {
                disconnect(hub, netlink, port)?;
            }
            hub.delete()
        })?;
        let path = hidden();
        if !has_mark(&path)? || !self.own()?.is_empty() {
            return Ok(());
        }
        // Before the file is gone: the namespace ends with the last that has it open.
        let namespace = NetNs::open(&path)?;
        NetNs::remove(&path)?;
        namespace.enter(unmark)
    }

    fn full_name(&self, bus: &str) -> Result<String> {
        let mut found = with_bus(bus)?;
        if found.len() > 1 {
            let all: Vec<String> = found.iter().map(|(t, bus)| format!("{t}.{bus}")).collect();
            return Err(Error::Container {
                message: format!(
                    "{bus} does not name one bus; there are {}",
                    all.join(" and ")
                ),
            });
        }
        let found = found
            .pop()
            .ok_or_else(|| not_up(&Bus::OfTopology(bus.to_owned())));
        found.map(|(topology, bus)| format!("{topology}.{bus}"))
    }

    fn mtu(&self, bus: &Bus) -> Result<u32> {
        if let Bus::Own(_, mtu) = bus {
            return Ok(*mtu);
        }
        let mtu = within(bus, |hub, netlink| {
            let ports = hub.ports()?;
            let links = link::list(netlink)?;
            let of_ports = links.iter().filter(|link| ports.contains(&link.index));
            Ok(of_ports.map(|link| link.mtu).max())
        })?;
        mtu.flatten().ok_or_else(|| not_up(bus))
    }

    fn make_port(&self, bus: &Bus, port: &Port, limits: Option<&HubPort>) -> Result<()> {
        let _host = Host::open()?;
        let mtu = self.mtu(bus)?;
        let far = match &port.far {
            Far::Host => NetNs::current()?,
            Far::In(path) => NetNs::open(path)?,
        };
        let made = within(bus, |hub, netlink| {
            if !hub.is_current()? {
                hub.renew()?;
            }
            let links = link::list(netlink)?;
            if let Some(link) = links.iter().find(|link| link.name == port.name) {
                if hub.ports()?.contains(&link.index) {
                    return reentry::set(netlink, &[link.index]);
                }
                // Of somebody who was interrupted.
                disconnect(hub, netlink, link.index)?;
            }
            let other = (port.interface.as_str(), port.mtu, &far);
            connect(hub, (&port.name, mtu), other, limits)
        })?;
        made.ok_or_else(|| not_up(bus))
    }

    fn remove_port(&self, bus: &Bus, name: &str) -> Result<()> {
        let _host = Host::open()?;
        within(bus, |hub, netlink| {
            let links = link::list(netlink)?;
            let Some(link) = links.iter().find(|link| link.name == name) else {
                return hub.forget_vanished();
            };
            disconnect(hub, netlink, link.index)
        })
        .map(|_| ())
    }

    fn ports(&self, bus: &Bus) -> Result<Vec<PortState>> {
        let states = within(bus, |hub, netlink| {
            let ports = hub.ports()?;
            let traffic = link::traffic(netlink)?.into_iter();
            traffic
                .filter(|(index, ..)| ports.contains(index))
                .map(|(index, name, traffic)| {
                    let limits = hub.limits(index)?;
                    Ok(PortState {
                        name,
                        traffic,
                        limits,
                    })
                })
                .collect::<Result<Vec<_>>>()
        })?;
        Ok(states.unwrap_or_default())
    }

    fn own(&self) -> Result<Vec<String>> {
        if !has_mark(&hidden())? {
            return Ok(Vec::new());
        }
        NetNs::open(&hidden())?.enter(|| match Pins::open(false)? {
            Some(pins) => Hub::names(&pins),
            None => Ok(Vec::new()),
        })
    }

    fn interface(&self, bus: &Bus, name: &str, sandbox: &Path) -> Result<Option<String>> {
        let ends = within(bus, |_, netlink| {
            let links = link::list(netlink)?;
            let port = links.iter().find(|link| link.name == name);
            Ok(port.map(|link| (link.index, link.other_end)))
        })?;
        let Some((port, Some(far))) = ends.flatten() else {
            return Ok(None);
        };
        let links = NetNs::open(sandbox)?.enter(|| link::list(&Netlink::open()?))?;
        let mut links = links.into_iter();
        let is_it = |link: &link::Link| link.index == far && link.other_end == Some(port);
        Ok(links.find(is_it).map(|link| link.name))
    }

    fn has_sandbox(&self, sandbox: &Path) -> bool {
        NetNs::is_there(sandbox)
    }
}
