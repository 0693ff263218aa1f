//! Topologies in this host's kernel: looking at them, and changing them.
//!
//! Nothing is kept beside the kernel: a topology `car` is a network namespace `car` that has the buses, one `car.engine` for the ECU `engine`, and
//! the routes in the gateway of the namespace that it was called from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use cangw_common::abi::HubPort;
use serde::{Deserialize, Serialize};

use super::marks::{forget_dead, has_mark, mark, marked, unmark};
use super::plan::{BusShape, Handling, Port, Shape, Step, plan};
use super::{Topology, is_name};
use crate::error::{Error, Result};
use crate::federation::report::FederationReport;
use crate::folder::entries;
use crate::gateway::{Absent, Gateway, InterfaceChange, RuleReport};
use crate::kernel::can::{self, CanConfig};
use crate::kernel::filter::reentry;
use crate::kernel::hub::Hub;
use crate::kernel::link::{self, Link};
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::NetNs;
use crate::kernel::pins::Pins;
use crate::state::State;
use crate::tunnel::board::TunnelReport;

/// Names of the buses' ends of the gateway's ports begin so.
const GATEWAY: &str = "gateway";
/// Where `ip netns` looks for namespaces.
pub(crate) const NAMED: &str = "/run/netns";
/// Who changes topologies holds it.
const LOCK: &str = "/run/cangw.lock";

/// The host, locked against others that change topologies.
pub struct Host {
    here: NetNs,
    _lock: File,
}

/// Devices that are not as they were told to be, such as those that report another bit rate: what was wanted, and what they were then. They are not
/// told again, because a device is down meanwhile.
pub type Stubborn = BTreeMap<String, (CanConfig, CanConfig)>;

/// Is given each step before it is taken, and what else a user should know.
pub type Told<'a> = dyn FnMut(&dyn fmt::Display) + 'a;

/// A port of a bus.
struct BusPort {
    ifindex: u32,
    mtu: u32,
    /// Index of the other end, in the namespace where that is.
    other_end: Option<u32>,
}

pub(crate) fn buses_path(topology: &str) -> PathBuf {
    Path::new(NAMED).join(topology)
}

/// The file of an ECU's namespace.
#[must_use]
pub fn ecu_path(topology: &str, ecu: &str) -> PathBuf {
    Path::new(NAMED).join(format!("{topology}.{ecu}"))
}

/// A topology that is up, for people and for programs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TopologyReport {
    /// Its name.
    pub name: String,
    /// The virtual buses.
    pub buses: BTreeMap<String, BusReport>,
    /// The interfaces of each ECU, with their buses.
    pub ecus: BTreeMap<String, BTreeMap<String, String>>,
    /// Its routes, oldest first.
    pub routes: Vec<RuleReport>,
    /// The tunnels on its buses, which `cangwd` knows of.
    #[serde(default)]
    pub tunnels: Vec<TunnelReport>,
    /// What shares its buses with other hosts, which `cangwd` knows of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub federation: Option<FederationReport>,
}

/// A virtual bus that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusReport {
    /// Frames that some ports missed.
    pub lost: u64,
}

/// The ECUs that this host has: their topologies and names.
///
/// # Errors
/// When the folder of namespaces cannot be read.
pub fn ecus() -> Result<Vec<(String, String)>> {
    let mut ecus = Vec::new();
    for path in entries(Path::new(NAMED))? {
        let name = path.file_name().unwrap_or_default();
        if let Some((topology, ecu)) = name.to_str().and_then(|name| name.split_once('.'))
            && is_name(topology)
            && is_name(ecu)
        {
            ecus.push((topology.to_owned(), ecu.to_owned()));
        }
    }
    ecus.sort();
    Ok(ecus)
}

/// The topologies that have a virtual bus of this name, `BUS` or `TOPOLOGY.BUS`, with the bus's name.
///
/// # Errors
/// As [`Host::shape`].
pub(crate) fn with_bus(name: &str) -> Result<Vec<(String, String)>> {
    let (topology, bus) = match name.split_once('.') {
        Some((topology, bus)) => (Some(topology), bus),
        None => (None, name),
    };
    let mut found = Vec::new();
    for name in topologies(std::iter::empty())? {
        if topology.is_none_or(|topology| topology == name) && buses_of(&name)?.contains_key(bus) {
            found.push((name, bus.to_owned()));
        }
    }
    Ok(found)
}

/// The names of the topologies that are up. `routed` are those of which the gateway has routes.
///
/// # Errors
/// When the folder of namespaces cannot be read.
pub fn topologies<'a>(routed: impl Iterator<Item = &'a str>) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    // Without a mark anywhere, no namespace has to be entered to look for its own.
    let named = if marked()?.is_empty() {
        Vec::new()
    } else {
        entries(Path::new(NAMED))?
    };
    for path in named {
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(name) = name.filter(|name| is_name(name))
            && has_mark(&path)?
        {
            names.insert(name.to_owned());
        }
    }
    names.extend(routed.filter(|name| !name.is_empty()).map(str::to_owned));
    Ok(names)
}

impl Host {
    /// Waits until nobody else changes topologies.
    ///
    /// # Errors
    /// When privileges are missing, or the folder of namespaces cannot be used.
    pub fn open() -> Result<Self> {
        crate::capability::require("changing topologies")?;
        let failed = |e| Error::io(format!("lock {LOCK}"), e);
        // Not a file or folder that others can open, and so lock.
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        options.custom_flags(libc::O_NOFOLLOW);
        let lock = options.open(LOCK).map_err(failed)?;
        lock.lock().map_err(failed)?;
        Ok(Self {
            here: NetNs::current()?,
            _lock: lock,
        })
    }

    /// What there is of a topology.
    ///
    /// # Errors
    /// When the kernel refuses to tell; when another program has a namespace of that name.
    pub fn shape(&self, topology: &str) -> Result<Shape> {
        let (routes, handling) = Gateway::look()?
            .map(|gateway| gateway.routes(topology))
            .unwrap_or_default();
        let mut shape = Shape {
            routes,
            handling,
            devices: can::list(&Netlink::open()?)?.into_iter().collect(),
            ..Shape::default()
        };
        let links = link::list(&Netlink::open()?)?;
        let mut buses = BTreeMap::new();
        let path = buses_path(topology);
        if NetNs::is_there(&path) {
            shape.is_made = true;
            buses = buses_of(topology)?;
            if !has_mark(&path)? {
                return Err(Error::ForeignNamespace {
                    name: topology.to_owned(),
                });
            }
        }
        for (bus, ports) in &buses {
            let is_port = |link: &&Link| link.name == *bus && is_end_of(link, ports);
            let bus_shape = BusShape {
                mtu: ports.first().map_or(0, |port| port.mtu),
                has_gateway: links.iter().any(|link| is_port(&link)),
                is_whole: NetNs::open(&path)?.enter(|| is_whole(bus))?,
            };
            shape.buses.insert(bus.clone(), bus_shape);
        }
        for (_, ecu) in ecus()?.into_iter().filter(|(t, _)| t == topology) {
            let path = ecu_path(topology, &ecu);
            if !has_mark(&path)? {
                continue;
            }
            let links = NetNs::open(&path)?.enter(|| link::list(&Netlink::open()?))?;
            let on_bus = |link: &Link| {
                let bus = buses.iter().find(|(_, ports)| is_end_of(link, ports));
                bus.map(|(bus, _)| (link.name.clone(), bus.clone()))
            };
            shape
                .ecus
                .insert(ecu, links.iter().filter_map(on_bus).collect());
        }
        Ok(shape)
    }

    /// The virtual buses of a topology that is up, and how many frames some of their ports missed: one was down or about to vanish, or memory was short.
    ///
    /// # Errors
    /// As [`Self::shape`].
    pub fn lost(&self, topology: &str) -> Result<BTreeMap<String, u64>> {
        let path = buses_path(topology);
        if !NetNs::is_there(&path) {
            return Ok(BTreeMap::new());
        }
        NetNs::open(&path)?.enter(|| {
            let Some(pins) = Pins::open(false)? else {
                return Ok(BTreeMap::new());
            };
            let names = Hub::names(&pins)?.into_iter();
            names
                .map(|bus| Ok((bus.clone(), Hub::new(&pins, &bus).lost()?)))
                .collect()
        })
    }

    /// The topologies that are up. `rules` are those of the gateway, newest first.
    ///
    /// # Errors
    /// As [`Self::shape`].
    pub fn report(&self, mut rules: Vec<RuleReport>) -> Result<Vec<TopologyReport>> {
        rules.reverse();
        let mut reports = Vec::new();
        for name in topologies(rules.iter().map(|route| route.topology.as_str()))? {
            let shape = self.shape(&name)?;
            let lost = self.lost(&name)?.into_iter();
            let own = rules.iter().filter(|route| route.topology == name);
            reports.push(TopologyReport {
                buses: lost.map(|(bus, lost)| (bus, BusReport { lost })).collect(),
                ecus: shape.ecus,
                routes: own.cloned().collect(),
                tunnels: Vec::new(),
                federation: None,
                name,
            });
        }
        Ok(reports)
    }

    /// The steps that make a topology so.
    ///
    /// # Errors
    /// As [`Self::shape`].
    pub fn diff(&self, topology: &str, wanted: &Shape) -> Result<Vec<Step>> {
        Ok(plan(wanted, &self.shape(topology)?))
    }

    /// Makes a topology as its file says, and tells each step before it is taken. After an error everything is as before; what could not be
    /// undone is in the error.
    ///
    /// # Errors
    /// The step that failed, and why.
    pub fn up(&self, topology: &Topology, told: &mut Told<'_>) -> Result<()> {
        self.make(&topology.name, &topology.shape(), Absent::Refused, told)
    }

    /// Makes of a topology what can be: real devices that are not there are left out, and their routes wait.
    ///
    /// # Errors
    /// As [`Self::up`].
    pub fn keep(
        &self,
        topology: &Topology,
        stubborn: &mut Stubborn,
        told: &mut Told<'_>,
    ) -> Result<()> {
        let mut wanted = topology.shape();
        let devices = || can::list(&Netlink::open()?).map(BTreeMap::from_iter);
        let before = devices()?;
        wanted.devices.retain(|name, config| {
            let now = before.get(name);
            now.is_some_and(|now| stubborn.get(name) != Some(&(*config, *now)))
        });
        self.make(&topology.name, &wanted, Absent::Waited, told)?;
        let after = devices()?;
        for (name, config) in wanted.devices {
            if let Some(now) = after.get(&name)
                // One that is down was taken down meanwhile.
                && now.up
                && !now.has(&config)
            {
                told(&format_args!(
                    "device {name} has taken what it is told otherwise"
                ));
                stubborn.insert(name, (config, *now));
            }
        }
        Ok(())
    }

    /// Takes a topology down.
    ///
    /// # Errors
    /// The step that failed, and why.
    pub fn down(&self, topology: &str, told: &mut Told<'_>) -> Result<()> {
        self.make(topology, &Shape::default(), Absent::Refused, told)
    }

    fn make(
        &self,
        topology: &str,
        wanted: &Shape,
        absent: Absent,
        told: &mut Told<'_>,
    ) -> Result<()> {
        let mut before = self.shape(topology)?;
        // An undo is not to touch what no step touches.
        before
            .devices
            .retain(|name, _| wanted.devices.contains_key(name));
        let mut take = |step: &Step, wanted: &Shape| {
            told(step);
            self.take(topology, step, (wanted, absent), told)
        };
        let steps = plan(wanted, &before);
        if !steps.is_empty() {
            forget_dead()?;
        }
        for step in steps {
            let Err(error) = take(&step, wanted) else {
                continue;
            };
            let mut left = Vec::new();
            match self.shape(topology).map(|now| plan(&before, &now)) {
                Ok(back) => {
                    for step in back {
                        if let Err(e) = take(&step, &before) {
                            left.push(format!("{step}: {e}"));
                        }
                    }
                }
                Err(e) => left.push(e.to_string()),
            }
            return Err(Error::Step {
                step: step.to_string(),
                error: Box::new(error),
                left,
            });
        }
        Ok(())
    }

    fn take(
        &self,
        topology: &str,
        step: &Step,
        wanted: (&Shape, Absent),
        told: &mut Told<'_>,
    ) -> Result<()> {
        let buses = || NetNs::open(&buses_path(topology));
        match step {
            Step::AddTopology => NetNs::create(&buses_path(topology), mark).map(drop),
            Step::AddBus(bus, ports) => buses()?.enter(|| Hub::new(&pins()?, bus).create(*ports)),
            Step::AddGateway(bus, mtu) => {
                buses()?.enter(|| add_port((bus, GATEWAY), *mtu, (bus, &self.here)))
            }
            Step::MendBus(bus) => buses()?.enter(|| {
                let (pins, netlink) = (pins()?, Netlink::open()?);
                let hub = Hub::new(&pins, bus);
                if !hub.is_current()? {
                    hub.renew()?;
                }
                reentry::set(&netlink, &hub.ports()?)
            }),
            Step::SetDevice(name, config) => {
                let netlink = Netlink::open()?;
                let links = link::list(&netlink)?;
                let found = links.iter().find(|link| link.name == *name);
                let missing = || Error::NoInterface { name: name.clone() };
                can::set(&netlink, found.ok_or_else(missing)?.index, config)
            }
            Step::AddEcu(ecu) => {
                let path = ecu_path(topology, ecu);
                if NetNs::is_there(&path) {
                    let name = format!("{topology}.{ecu}");
                    return Err(Error::ForeignNamespace { name });
                }
                NetNs::create(&path, mark).map(drop)
            }
            Step::AddPort(Port { ecu, interface }, bus, mtu) => {
                let ecu = NetNs::open(&ecu_path(topology, ecu))?;
                buses()?.enter(|| add_port((bus, "port"), *mtu, (interface, &ecu)))
            }
            Step::SetRoutes { .. } => set_routes(topology, wanted, told),
            Step::RemovePort(Port { ecu, interface }) => {
                let mut links = NetNs::open(&ecu_path(topology, ecu))?
                    .enter(|| link::list(&Netlink::open()?))?;
                links.retain(|link| link.name == *interface);
                buses()?.enter(|| remove_ports(|_, port| has_end(&links, port)))
            }
            Step::RemoveEcu(ecu) => {
                let path = ecu_path(topology, ecu);
                let namespace = NetNs::open(&path)?;
                // Somebody may have removed that of the buses.
                if NetNs::is_there(&buses_path(topology)) {
                    let links = namespace.enter(|| link::list(&Netlink::open()?))?;
                    buses()?.enter(|| remove_ports(|_, port| has_end(&links, port)))?;
                }
                NetNs::remove(&path)?;
                namespace.enter(unmark)
            }
            Step::RemoveBus(bus) => buses()?.enter(|| {
                remove_ports(|name, _| name == bus)?;
                Hub::new(&pins()?, bus).delete()
            }),
            Step::RemoveTopology => {
                let buses = buses()?;
                NetNs::remove(&buses_path(topology))?;
                buses.enter(unmark)
            }
        }
    }
}

/// The pins of the namespace of the buses, in which this is called.
pub(crate) fn pins() -> Result<Pins> {
    Pins::open(true)?.ok_or(Error::NoBpffs)
}

fn is_end_of(link: &Link, ports: &[BusPort]) -> bool {
    let mut ports = ports.iter();
    ports.any(|port| port.other_end == Some(link.index) && link.other_end == Some(port.ifindex))
}

/// Whether the other end of a port is one of these, which are all of one namespace.
fn has_end(links: &[Link], port: &BusPort) -> bool {
    links
        .iter()
        .any(|link| is_end_of(link, std::slice::from_ref(port)))
}

/// The buses of a topology, with their ports.
fn buses_of(topology: &str) -> Result<BTreeMap<String, Vec<BusPort>>> {
    if !NetNs::is_there(&buses_path(topology)) {
        return Ok(BTreeMap::new());
    }
    NetNs::open(&buses_path(topology))?.enter(|| {
        let Some(pins) = Pins::open(false)? else {
            return Ok(BTreeMap::new());
        };
        ports_by_bus(&pins, &Netlink::open()?)
    })
}

fn ports_by_bus(pins: &Pins, netlink: &Netlink) -> Result<BTreeMap<String, Vec<BusPort>>> {
    let links = link::list(netlink)?;
    let mut buses = BTreeMap::new();
    for bus in Hub::names(pins)? {
        let ports = Hub::new(pins, &bus).ports()?;
        let ports = links.iter().filter(|link| ports.contains(&link.index));
        let ports = ports.map(|link| BusPort {
            ifindex: link.index,
            mtu: link.mtu,
            other_end: link.other_end,
        });
        buses.insert(bus, ports.collect());
    }
    Ok(buses)
}

/// Makes a port of a bus, with a name that begins so, whose other end is an interface in another namespace.
fn add_port((bus, prefix): (&str, &str), mtu: u32, other: (&str, &NetNs)) -> Result<()> {
    let (pins, netlink) = (pins()?, Netlink::open()?);
    let links = link::list(&netlink)?;
    let name = (0..)
        .map(|number| format!("{prefix}{number}"))
        .find(|name| !links.iter().any(|link| link.name == *name))
        .unwrap_or_default();
    let other = (other.0, mtu, other.1);
    connect(&Hub::new(&pins, bus), (&name, mtu), other, None)
}

/// Makes a port of a bus of this name and for frames of this size, whose other end is an interface in another namespace.
pub(crate) fn connect(
    hub: &Hub<'_>,
    port: (&str, u32),
    other: (&str, u32, &NetNs),
    limits: Option<&HubPort>,
) -> Result<()> {
    let netlink = Netlink::open()?;
    let ifindex = link::create_pair(&netlink, port, other)?;
    // Not the other way round: without the bus's program, the filter would lead frames in a circle.
    let added = hub
        .add(ifindex, limits)
        .and_then(|()| reentry::set(&netlink, &[ifindex]));
    if added.is_err() {
        let _ = disconnect(hub, &netlink, ifindex);
    }
    added
}

/// Undoes [`connect`]. The interface goes with the bus's program and the filter, which would lead frames in a circle without it.
pub(crate) fn disconnect(hub: &Hub<'_>, netlink: &Netlink, port: u32) -> Result<()> {
    hub.leave(port)?;
    link::delete(netlink, port)?;
    hub.forget(port)
}

/// Whether a bus has the programs of this build, and its ports the filters.
fn is_whole(bus: &str) -> Result<bool> {
    let (pins, netlink) = (pins()?, Netlink::open()?);
    let hub = Hub::new(&pins, bus);
    Ok(hub.is_current()? && reentry::lacking(&netlink, &hub.ports()?)?.is_empty())
}

/// Removes ports, given by their bus, with their other ends.
fn remove_ports(which: impl Fn(&str, &BusPort) -> bool) -> Result<()> {
    let (pins, netlink) = (pins()?, Netlink::open()?);
    for (bus, ports) in ports_by_bus(&pins, &netlink)? {
        let hub = Hub::new(&pins, &bus);
        for port in ports.iter().filter(|port| which(&bus, port)) {
            disconnect(&hub, &netlink, port.ifindex)?;
        }
    }
    Ok(())
}

/// Makes the routes so, and how the frames of the topology's interfaces are handled.
fn set_routes(
    topology: &str,
    (wanted, absent): (&Shape, Absent),
    told: &mut Told<'_>,
) -> Result<()> {
    let mut gateway = Gateway::open()?;
    let (_, before) = gateway.routes(topology);
    let change = |state: &mut State| {
        for name in before.keys().chain(wanted.handling.keys()) {
            let handling = wanted.handling.get(name).copied().unwrap_or_default();
            let Handling { exclusive, policy } = handling;
            let change = InterfaceChange {
                exclusive: Some(exclusive),
                policy: Some(policy),
                engine: None,
            };
            change.apply(state, name);
            let is_default = handling == Handling::default();
            if let Some(interface) = state.interfaces.get_mut(name) {
                interface.topology = if is_default { "" } else { topology }.to_owned();
            }
        }
    };
    gateway.route(topology, &wanted.routes, absent, change)?;
    gateway.notes().iter().for_each(|note| told(note));
    Ok(())
}
