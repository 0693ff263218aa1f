//! Topologies: buses, ECUs and routes in one file.
//!
//! A bus is virtual, or a real CAN device. An ECU is a network namespace with interfaces on buses. Routes are the gateway's rules, between
//! buses instead of interfaces. docs/topology.md says what becomes of them in the kernel.

mod ecu;
pub mod graph;
pub mod host;
pub mod marks;
mod parse;
pub mod plan;

use std::collections::BTreeMap;
use std::path::PathBuf;

use cangw_common::frame::FrameType;

pub use self::ecu::EcuHandle;
use self::plan::{BusShape, Handling, Shape};
use crate::error::Result;
use crate::federation::config::Federation;
use crate::file::names::Dbcs;
use crate::kernel::can::CanConfig;
use crate::options::{Action, Policy};
use crate::rule::Rule;
use crate::tunnel::config::Tunnel;

/// What a topology file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Its name, of which this host has one.
    pub name: String,
    /// The buses, by name.
    pub buses: BTreeMap<String, Bus>,
    /// The ECUs, by name.
    pub ecus: BTreeMap<String, Ecu>,
    /// What shares its buses with other hosts.
    pub federation: Option<Federation>,
    /// The tunnels, by name.
    pub tunnels: BTreeMap<String, Tunnel>,
    /// Rules whose source and target are buses, oldest first.
    pub routes: Vec<Rule>,
}

/// A bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bus {
    /// The real device that is the bus; `None` for a virtual one.
    pub device: Option<Device>,
    /// The DBC file in which names in routes from here are looked up; a relative path begins at the folder of the topology's file.
    pub dbc: Option<PathBuf>,
    /// Whether it carries CAN FD frames.
    pub fd: bool,
    /// Whether it carries CAN XL frames.
    pub xl: bool,
    /// What becomes of frames on the gateway's interface of the bus that no route names.
    pub policy: Policy,
    /// Whether programs on the gateway miss what routes forward.
    pub exclusive: bool,
    /// Whether containers can join it. A virtual bus has room for them in any case; a real device gets one beside it.
    pub containers: bool,
}

/// A real CAN device (ip-link(8), `type can`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Name of the interface.
    pub interface: String,
    /// Bits a second, 1 to 1,000,000; `None` leaves the device as it is.
    pub bitrate: Option<u32>,
    /// Bits a second in the data phase of CAN FD frames, up to 20,000,000.
    pub dbitrate: Option<u32>,
    /// Milliseconds after which the device restarts when it went bus-off; 0 for never.
    pub restart_ms: Option<u32>,
    /// Frames that wait to be sent.
    pub txqueuelen: Option<u32>,
}

/// An ECU: a network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ecu {
    /// The bus of each interface.
    pub interfaces: BTreeMap<String, String>,
}

impl Topology {
    /// Reads the text of a file and checks it whole.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) with line and key.
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        parse::parse(file, text, Dbcs::of(file))
    }

    /// As [`Self::parse`], of a text that somebody else sent: names of DBC files are refused, because their files are not this process's to read.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_alone(file: &str, text: &str) -> Result<Self> {
        parse::parse(file, text, Dbcs::none())
    }

    /// The ports of a bus that are ECUs': name of the ECU, and of its interface.
    pub fn ports<'a>(&'a self, bus: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.ecus.iter().flat_map(move |(ecu, Ecu { interfaces })| {
            let on_bus = interfaces.iter().filter(move |(_, b)| *b == bus);
            on_bus.map(|(interface, _)| (ecu.as_str(), interface.as_str()))
        })
    }

    /// The interfaces of the gateway that are on a bus: the real device, and the port of the virtual bus that has the ECUs.
    pub(crate) fn interfaces<'a>(&'a self, bus: &'a str) -> Vec<&'a str> {
        let device = self.buses.get(bus).and_then(|bus| bus.device.as_ref());
        let device = device.map(|device| device.interface.as_str());
        let port = self.is_hub(bus).then_some(bus);
        device.into_iter().chain(port).collect()
    }

    /// Whether there is a virtual bus.
    pub(crate) fn is_hub(&self, bus: &str) -> bool {
        let described = self.buses.get(bus);
        described.is_some_and(|bus| bus.device.is_none() || bus.containers)
            || self.ports(bus).next().is_some()
            || self.tunnels.values().any(|tunnel| tunnel.bus == bus)
            || self
                .federation
                .as_ref()
                .is_some_and(|federation| federation.buses.contains_key(bus))
    }

    /// Rules between the interfaces of buses that have a real device and ECUs: all frames pass, whatever routes say.
    fn bridges(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (name, bus) in &self.buses {
            let kinds = [
                (FrameType::Classic, true),
                (FrameType::Fd, bus.fd),
                (FrameType::Xl, bus.xl),
            ];
            let kinds = kinds.into_iter().filter(|(_, carried)| *carried);
            let interfaces = self.interfaces(name);
            if let &[device, port] = &interfaces[..] {
                for (kind, _) in kinds {
                    for (from, to) in [(device, port), (port, device)] {
                        let mut rule = Rule::new(from, to, kind);
                        rule.options.priority = i16::MAX;
                        rules.push(rule);
                    }
                }
            }
        }
        rules
    }

    /// What it is in the kernel.
    #[must_use]
    pub fn shape(&self) -> Shape {
        let buses = self.buses.iter().filter(|(name, _)| self.is_hub(name));
        let buses = buses.map(|(name, bus)| {
            let shape = BusShape {
                mtu: bus.mtu(),
                has_gateway: true,
                is_whole: true,
            };
            (name.clone(), shape)
        });
        let devices = self.buses.values().filter_map(|bus| {
            let device = bus.device.as_ref()?;
            let config = CanConfig {
                up: true,
                bitrate: device.bitrate,
                dbitrate: device.dbitrate,
                // Where no bit rate is given, the device stays as it is.
                fd: device.bitrate.is_some().then_some(bus.fd),
                restart_ms: device.restart_ms,
                txqueuelen: device.txqueuelen,
            };
            Some((device.interface.clone(), config))
        });
        let ecus = self.ecus.iter();
        let ecus = ecus.map(|(name, ecu)| (name.clone(), ecu.interfaces.clone()));
        let mut routes = self.bridges();
        for route in &self.routes {
            for source in self.interfaces(&route.source) {
                let mut rule = route.clone();
                source.clone_into(&mut rule.source);
                let Some(bus) = route.target() else {
                    routes.push(rule);
                    continue;
                };
                for target in self.interfaces(bus) {
                    rule.action = Action::Forward {
                        target: target.to_owned(),
                    };
                    routes.push(rule.clone());
                }
            }
        }
        let handling = self.buses.iter().flat_map(|(name, bus)| {
            let handling = Handling {
                exclusive: bus.exclusive,
                policy: bus.policy,
            };
            let interfaces = self.interfaces(name).into_iter();
            interfaces.map(move |interface| (interface.to_owned(), handling))
        });
        let buses: BTreeMap<_, _> = buses.collect();
        Shape {
            is_made: !buses.is_empty(),
            buses,
            devices: devices.collect(),
            ecus: ecus.collect(),
            routes,
            handling: handling
                .filter(|(_, handling)| *handling != Handling::default())
                .collect(),
        }
    }
}

impl Bus {
    /// The size of its largest frame, in bytes (linux/can.h).
    #[must_use]
    pub fn mtu(&self) -> u32 {
        FrameType::longest(self.fd, self.xl).mtu()
    }
}

/// Whether a text can be the name of a topology, a bus, an ECU or a tunnel: at most 15 letters, digits, `-` and `_`, the first a letter.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let may_follow = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    text.len() <= 15
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(may_follow)
}
