//! What has to be done so that the kernel has what a topology's file says.

use std::collections::BTreeMap;
use std::fmt;

use crate::kernel::can::CanConfig;
use crate::options::Policy;
use crate::rule::Rule;

/// What a topology is in the kernel: as it should be, or as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// The virtual buses, by name.
    pub buses: BTreeMap<String, BusShape>,
    /// Whether there is a namespace of the buses.
    pub is_made: bool,
    /// Real devices, by the names of their interfaces. Those that nothing is wanted of are as they are.
    pub devices: BTreeMap<String, CanConfig>,
    /// The ECUs, by name: the bus of each interface.
    pub ecus: BTreeMap<String, BTreeMap<String, String>>,
    /// The routes, as rules between interfaces of the gateway, oldest first.
    pub routes: Vec<Rule>,
    /// The interfaces of the gateway whose frames are handled in another way than by default.
    pub handling: BTreeMap<String, Handling>,
}

/// A virtual bus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BusShape {
    /// Largest frame that its ports take, in bytes; 0 while it has none.
    pub mtu: u32,
    /// Whether the gateway has its port.
    pub has_gateway: bool,
    /// Whether its programs are of this build of cangw, and nobody took filters from it.
    pub is_whole: bool,
}

/// How the frames of an interface of the gateway are handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handling {
    /// Programs on the gateway miss what routes forward.
    pub exclusive: bool,
    /// What becomes of frames that no route names.
    pub policy: Policy,
}

/// An interface of an ECU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The ECU.
    pub ecu: String,
    /// The interface.
    pub interface: String,
}

/// A step from what there is to what should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The namespace of the buses.
    AddTopology,
    /// A virtual bus without ports, and how many it will have.
    AddBus(String, u32),
    /// The gateway's port of a bus, with the size of its largest frame.
    AddGateway(String, u32),
    /// Programs of another build of cangw, or filters that somebody took.
    MendBus(String),
    /// How a real device is set up.
    SetDevice(String, CanConfig),
    /// The namespace of an ECU.
    AddEcu(String),
    /// An ECU's port, its bus, and the size of its largest frame.
    AddPort(Port, String, u32),
    /// The routes and how frames are handled, all at once.
    SetRoutes {
        /// How many routes come.
        added: usize,
        /// How many routes go.
        removed: usize,
    },
    /// An ECU's port.
    RemovePort(Port),
    /// An ECU with its ports.
    RemoveEcu(String),
    /// A bus with its ports.
    RemoveBus(String),
    /// The namespace of the buses.
    RemoveTopology,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of ECU {}", self.interface, self.ecu)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddTopology => write!(f, "+ namespace of the buses"),
            Self::AddBus(bus, _) => write!(f, "+ bus {bus}"),
            Self::AddGateway(bus, _) => write!(f, "+ interface {bus} on the gateway"),
            Self::MendBus(bus) => write!(f, "~ programs and filters of bus {bus}"),
            Self::SetDevice(name, _) => write!(f, "~ device {name}"),
            Self::AddEcu(ecu) => write!(f, "+ ECU {ecu}"),
            Self::AddPort(port, bus, _) => write!(f, "+ {port} on bus {bus}"),
            Self::SetRoutes {
                added: 0,
                removed: 0,
            } => write!(f, "~ routes into force"),
            Self::SetRoutes { added, removed } => {
                write!(f, "~ routes: {added} added, {removed} removed")
            }
            Self::RemovePort(port) => write!(f, "- {port}"),
            Self::RemoveEcu(ecu) => write!(f, "- ECU {ecu}"),
            Self::RemoveBus(bus) => write!(f, "- bus {bus}"),
            Self::RemoveTopology => write!(f, "- namespace of the buses"),
        }
    }
}

/// The steps, in their order: what is new comes first, then the routes change, then goes what is not needed any more, so that routes that stay
/// have their interfaces all the time.
#[must_use]
pub fn plan(wanted: &Shape, actual: &Shape) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = Vec::new();
    if wanted.is_made && !actual.is_made {
        steps.push(Step::AddTopology);
    }
    let ports = |bus: &str| {
        let interfaces = wanted.ecus.values().flat_map(BTreeMap::values);
        interfaces.filter(|b| *b == bus).count() as u32 + 1
    };
    // Whether a bus keeps its ports. All are made for the same size of frames.
    let stays = |bus: &str| match (wanted.buses.get(bus), actual.buses.get(bus)) {
        (Some(wanted), Some(actual)) => actual.mtu == wanted.mtu || actual.mtu == 0,
        _ => false,
    };
    let mut gateway_changes = false;
    for (bus, shape) in &wanted.buses {
        let found = actual.buses.get(bus);
        if found.is_some() && !stays(bus) {
            steps.push(Step::RemoveBus(bus.clone()));
        }
        if !stays(bus) {
            steps.push(Step::AddBus(bus.clone(), ports(bus)));
        }
        if stays(bus) && found.is_some_and(|found| !found.is_whole) {
            steps.push(Step::MendBus(bus.clone()));
        }
        if !(stays(bus) && found.is_some_and(|found| found.has_gateway)) {
            gateway_changes = true;
            steps.push(Step::AddGateway(bus.clone(), shape.mtu));
        }
    }
    for (name, config) in &wanted.devices {
        let found = actual.devices.get(name);
        if !found.is_some_and(|found| found.has(config)) {
            steps.push(Step::SetDevice(name.clone(), *config));
        }
    }
    for (ecu, interfaces) in &wanted.ecus {
        let found = actual.ecus.get(ecu);
        if found.is_none() {
            steps.push(Step::AddEcu(ecu.clone()));
        }
        let port = |interface: &String| Port {
            ecu: ecu.clone(),
            interface: interface.clone(),
        };
        let before = |interface| found.and_then(|found| found.get(interface));
        for (interface, bus) in interfaces {
            let is = before(interface).filter(|is| stays(is));
            if is == Some(bus) {
                continue;
            }
            if is.is_some() {
                steps.push(Step::RemovePort(port(interface)));
            }
            let mtu = wanted.buses.get(bus).map_or(0, |bus| bus.mtu);
            steps.push(Step::AddPort(port(interface), bus.clone(), mtu));
        }
        let gone = found.into_iter().flat_map(BTreeMap::keys);
        let gone = gone.filter(|interface| !interfaces.contains_key(*interface));
        rest.extend(gone.map(|interface| Step::RemovePort(port(interface))));
    }
    let routes = gateway_changes && !wanted.routes.is_empty();
    if routes || wanted.routes != actual.routes || wanted.handling != actual.handling {
        steps.push(Step::SetRoutes {
            added: missing(&wanted.routes, &actual.routes),
            removed: missing(&actual.routes, &wanted.routes),
        });
    }
    let is_gone = |ecu: &&String| !wanted.ecus.contains_key(*ecu);
    let gone = actual.ecus.keys().filter(is_gone);
    rest.extend(gone.cloned().map(Step::RemoveEcu));
    let is_gone = |bus: &&String| !wanted.buses.contains_key(*bus);
    let gone = actual.buses.keys().filter(is_gone);
    rest.extend(gone.cloned().map(Step::RemoveBus));
    if actual.is_made && !wanted.is_made {
        rest.push(Step::RemoveTopology);
    }
    steps.append(&mut rest);
    steps
}

/// How many of `rules` are not among `others`.
fn missing(rules: &[Rule], others: &[Rule]) -> usize {
    let mut others: Vec<&Rule> = others.iter().collect();
    let mut is_missing = |rule: &Rule| match others.iter().position(|other| *other == rule) {
        Some(at) => {
            others.swap_remove(at);
            false
        }
        None => true,
    };
    rules.iter().filter(|rule| is_missing(rule)).count()
}
