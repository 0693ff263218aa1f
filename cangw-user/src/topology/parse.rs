//! A topology file in TOML: `version`, `name`, `[bus.…]`, `[ecu.…]`, `[tunnel.…]`, `[federation]`, `[[route]]`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use cangw_common::frame::FrameType;
use serde::Deserialize;

use super::{Bus, Device, Ecu, Topology, is_name};
use crate::error::{Error, Result};
use crate::federation::config::{Federation, FederationTable};
use crate::file::names::Dbcs;
use crate::file::places::{error_at, from_toml};
use crate::file::tables::{RuleTable, version};
use crate::options::Policy;
use crate::rule::{Rule, is_interface_name, kind_name};
use crate::tunnel::config::{Tunnel, TunnelTable, check_name};

/// ISO 11898-1, and what drivers of the kernel take.
const BITRATES: RangeInclusive<u32> = 1..=1_000_000;
const DATA_BITRATES: RangeInclusive<u32> = 1..=20_000_000;
/// What a name of a topology, a bus or an ECU is.
const NAME: &str = "at most 15 letters, digits, `-` and `_`, the first a letter";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    #[serde(rename = "version", deserialize_with = "version")]
    _version: u32,
    name: String,
    #[serde(default)]
    bus: BTreeMap<String, BusTable>,
    #[serde(default)]
    ecu: BTreeMap<String, EcuTable>,
    #[serde(default)]
    tunnel: BTreeMap<String, TunnelTable>,
    federation: Option<FederationTable>,
    #[serde(default)]
    route: Vec<RuleTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BusTable {
    device: Option<String>,
    dbc: Option<PathBuf>,
    bitrate: Option<u32>,
    dbitrate: Option<u32>,
    restart_ms: Option<u32>,
    txqueuelen: Option<u32>,
    fd: Option<bool>,
    #[serde(default)]
    xl: bool,
    #[serde(default)]
    policy: Policy,
    #[serde(default)]
    exclusive: bool,
    #[serde(default)]
    containers: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EcuTable {
    interfaces: BTreeMap<String, String>,
}

pub(super) fn parse(file: &str, text: &str, dbcs: Dbcs) -> Result<Topology> {
    let tables: Tables = from_toml(file, text)?;
    let source = Source { file, text };
    let topology = Topology {
        buses: source.buses(tables.bus)?,
        ecus: BTreeMap::new(),
        tunnels: BTreeMap::new(),
        federation: None,
        routes: Vec::new(),
        name: tables.name,
    };
    if !is_name(&topology.name) {
        let name = &topology.name;
        return Err(source.error(
            &["name"],
            format!("{name:?} is no name for a topology: {NAME}"),
        ));
    }
    let ecus = source.ecus(tables.ecu, &topology)?;
    let tunnels = source.tunnels(tables.tunnel, &topology, dbcs.folder())?;
    let federation = source.federation(tables.federation, &topology, dbcs.folder())?;
    let topology = Topology {
        ecus,
        federation,
        tunnels,
        ..topology
    };
    source.check_twins(&topology)?;
    let routes = source.routes(tables.route, &topology, dbcs)?;
    Ok(Topology { routes, ..topology })
}

/// The file, for the place of an error.
struct Source<'a> {
    file: &'a str,
    text: &'a str,
}

impl Source<'_> {
    /// An error at a key.
    fn error(&self, path: &[&str], message: String) -> Error {
        error_at((self.file, self.text), path, message)
    }

    fn buses(&self, tables: BTreeMap<String, BusTable>) -> Result<BTreeMap<String, Bus>> {
        let mut buses = BTreeMap::new();
        // Names of interfaces on the gateway, and the buses that have them.
        let mut interfaces: BTreeMap<String, String> = BTreeMap::new();
        for (name, table) in tables {
            let refuse = |key: &str, message| self.error(&["bus", &name, key], message);
            if !is_name(&name) {
                return Err(refuse("", format!("{name:?} is no name for a bus: {NAME}")));
            }
            let interface = table.device.clone().unwrap_or_else(|| name.clone());
            if !is_interface_name(&interface) {
                let message = format!("{interface:?} is no name of an interface, as `can0` is");
                return Err(refuse("device", message));
            }
            if let Some(other) = interfaces.insert(interface.clone(), name.clone()) {
                let message = format!(
                    "bus {other} has the interface {interface} already (on the gateway, a virtual bus is an interface of its name); name another"
                );
                return Err(refuse("device", message));
            }
            let checked = table.check();
            let bus = checked.map_err(|(key, message)| refuse(key, message))?;
            buses.insert(name, bus);
        }
        if buses.is_empty() {
            return Err(self.error(
                &[],
                "a topology needs a bus, such as `[bus.body]` for a virtual one".into(),
            ));
        }
        Ok(buses)
    }

    fn ecus(
        &self,
        tables: BTreeMap<String, EcuTable>,
        topology: &Topology,
    ) -> Result<BTreeMap<String, Ecu>> {
        for (name, table) in &tables {
            if !is_name(name) {
                return Err(self.error(
                    &["ecu", name],
                    format!("{name:?} is no name for an ECU: {NAME}"),
                ));
            }
            if table.interfaces.is_empty() {
                return Err(self.error(
                    &["ecu", name, "interfaces"],
                    "an ECU needs an interface, such as `interfaces = { can0 = \"body\" }`".into(),
                ));
            }
            for (interface, bus) in &table.interfaces {
                let path = ["ecu", name, "interfaces", interface];
                if !is_interface_name(interface) || interface == "lo" {
                    return Err(self.error(
                        &path,
                        format!("{interface:?} is no name for a CAN interface, as `can0` is"),
                    ));
                }
                if !topology.buses.contains_key(bus) {
                    return Err(self.error(&path, no_bus(bus, topology)));
                }
            }
        }
        let ecus = tables.into_iter().map(|(name, table)| {
            let interfaces = table.interfaces;
            (name, Ecu { interfaces })
        });
        Ok(ecus.collect())
    }

    fn tunnels(
        &self,
        tables: BTreeMap<String, TunnelTable>,
        topology: &Topology,
        folder: Option<&Path>,
    ) -> Result<BTreeMap<String, Tunnel>> {
        let one = |(name, mut table): (String, TunnelTable)| {
            let refuse = |key: &str, message| self.error(&["tunnel", &name, key], message);
            check_name(&name).map_err(|message| refuse("", message))?;
            let placed = table.place_files(folder);
            placed.map_err(|message| refuse("", message.into()))?;
            if !topology.buses.contains_key(&table.bus) {
                return Err(refuse("bus", no_bus(&table.bus, topology)));
            }
            let tunnel = table.check();
            let tunnel = tunnel.map_err(|(key, message)| refuse(key, message))?;
            Ok((name, tunnel))
        };
        tables.into_iter().map(one).collect()
    }

    fn federation(
        &self,
        table: Option<FederationTable>,
        topology: &Topology,
        folder: Option<&Path>,
    ) -> Result<Option<Federation>> {
        let Some(mut table) = table else {
            return Ok(None);
        };
        let refuse = |key: &str, message| self.error(&["federation", key], message);
        let placed = table.place_files(folder);
        placed.map_err(|message| refuse("", message.into()))?;
        for bus in table.bus.keys() {
            if !topology.buses.contains_key(bus) {
                let path = ["federation", "bus", bus];
                return Err(self.error(&path, no_bus(bus, topology)));
            }
        }
        let federation = table.check(&topology.name);
        let federation = federation.map_err(|(key, message)| refuse(key, message))?;
        Ok(Some(federation))
    }

    /// A bus that is a device and a virtual bus beside it has two interfaces on the gateway, between which all frames pass.
    fn check_twins(&self, topology: &Topology) -> Result<()> {
        let is_device = |name: &str| {
            let devices = topology.buses.iter();
            let mut devices = devices.filter_map(|(bus, it)| Some((bus, it.device.as_ref()?)));
            devices.find(|(_, device)| device.interface == name)
        };
        for (name, bus) in &topology.buses {
            if bus.device.is_none() || !topology.is_hub(name) {
                continue;
            }
            if let Some((other, _)) = is_device(name) {
                let message = format!(
                    "{name} has ECUs, tunnels, a federation or containers, and so an interface of its name beside its device; give the bus another name"
                );
                return Err(self.error(&["bus", other, "device"], message));
            }
            for (key, is_so) in [
                ("policy", bus.policy == Policy::Deny),
                ("exclusive", bus.exclusive),
            ] {
                if is_so {
                    let message = format!(
                        "{name} has a device and ECUs, tunnels, a federation or containers, between which all frames pass; remove this, or give them a virtual bus and routes"
                    );
                    return Err(self.error(&["bus", name, key], message));
                }
            }
        }
        Ok(())
    }

    fn routes(
        &self,
        tables: Vec<RuleTable>,
        topology: &Topology,
        mut dbcs: Dbcs,
    ) -> Result<Vec<Rule>> {
        let mut rules = Vec::with_capacity(tables.len());
        for (index, RuleTable { rule, names }) in tables.into_iter().enumerate() {
            let index = index.to_string();
            let refuse = |key: &str, message| self.error(&["route", &index, key], message);
            let ends = [("from", Some(rule.source.as_str())), ("to", rule.target())];
            for (key, bus) in ends {
                let Some(bus) = bus else { continue };
                let Some(found) = topology.buses.get(bus) else {
                    return Err(refuse(key, no_bus(bus, topology)));
                };
                let carries = match rule.kind {
                    FrameType::Classic => true,
                    FrameType::Fd => found.fd,
                    FrameType::Xl => found.xl,
                };
                if !carries {
                    let kind = kind_name(rule.kind);
                    let message = format!(
                        "bus {bus} does not carry such frames; give it `{kind} = true`, or the route another kind"
                    );
                    return Err(refuse("kind", message));
                }
            }
            if rule.target() == Some(&rule.source) {
                let message = format!(
                    "a frame reaches everybody on {} without a route; name another bus",
                    rule.source
                );
                return Err(refuse("to", message));
            }
            let dbc = topology.buses.get(&rule.source);
            let dbc = dbc.and_then(|bus| bus.dbc.as_deref());
            let rule = names.resolve(rule, &mut dbcs, dbc);
            rules.push(rule.map_err(|(key, error)| refuse(key, error.to_string()))?);
        }
        Ok(rules)
    }
}

fn no_bus(name: &str, topology: &Topology) -> String {
    let all: Vec<&str> = topology.buses.keys().map(String::as_str).collect();
    let near = all
        .iter()
        .filter(|other| strsim::damerau_levenshtein(name, other) <= 2)
        .min_by_key(|other| strsim::damerau_levenshtein(name, other));
    match near {
        Some(near) => format!("there is no bus {name:?}; did you mean {near:?}?"),
        None => format!("there is no bus {name:?}; the buses are {}", all.join(", ")),
    }
}

impl BusTable {
    /// The bus; or the key that is wrong, and why.
    fn check(self) -> Result<Bus, (&'static str, String)> {
        let is_real = self.device.is_some();
        for (key, is_there) in [
            ("bitrate", self.bitrate.is_some()),
            ("dbitrate", self.dbitrate.is_some()),
            ("restart_ms", self.restart_ms.is_some()),
            ("txqueuelen", self.txqueuelen.is_some()),
        ] {
            if is_there && !is_real {
                return Err((
                    key,
                    "a virtual bus has none; give the bus its `device`, such as \"can0\", or remove this"
                        .into(),
                ));
            }
        }
        let fd = self.fd.unwrap_or(!is_real || self.dbitrate.is_some());
        for (key, value, range) in [
            ("bitrate", self.bitrate, BITRATES),
            ("dbitrate", self.dbitrate, DATA_BITRATES),
        ] {
            if let Some(value) = value
                && !range.contains(&value)
            {
                let (from, to) = range.into_inner();
                return Err((
                    key,
                    format!("{value} is not from {from} to {to} bits a second"),
                ));
            }
        }
        if self.dbitrate.is_some() && !fd {
            return Err((
                "dbitrate",
                "is for CAN FD; give the bus `fd = true`, or remove this".into(),
            ));
        }
        if let (Some(rate), Some(data)) = (self.bitrate, self.dbitrate)
            && data < rate
        {
            return Err((
                "dbitrate",
                format!("{data} is below the bitrate, {rate}; the data phase is at least as fast"),
            ));
        }
        if self.xl && !fd {
            return Err((
                "xl",
                "a bus that carries CAN XL frames carries CAN FD frames; remove `fd = false`"
                    .into(),
            ));
        }
        if self.xl && is_real {
            return Err((
                "xl",
                "is for virtual buses; a device with CAN XL is set up with `ip link`, and its bus then takes no `xl`"
                    .into(),
            ));
        }
        if self.dbitrate.is_some() && self.bitrate.is_none() {
            return Err((
                "dbitrate",
                "needs a bitrate beside it, such as `bitrate = 500000`".into(),
            ));
        }
        if self.txqueuelen == Some(0) {
            return Err((
                "txqueuelen",
                "0 lets no frame wait, so that bursts are lost; ip-link's default is 10".into(),
            ));
        }
        let (bitrate, dbitrate) = (self.bitrate, self.dbitrate);
        let (restart_ms, txqueuelen) = (self.restart_ms, self.txqueuelen);
        Ok(Bus {
            device: self.device.map(|interface| Device {
                interface,
                bitrate,
                dbitrate,
                restart_ms,
                txqueuelen,
            }),
            dbc: self.dbc,
            fd,
            xl: self.xl,
            policy: self.policy,
            exclusive: self.exclusive,
            containers: self.containers,
        })
    }
}

#[cfg(test)]
mod tests;
