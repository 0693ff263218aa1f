//! Buses and ports that are names only: for a host whose kernel has no CAN, and for refusals that the kernel cannot be made to show.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use cangw_common::abi::HubPort;

use crate::containers::fabric::{Bus, Fabric, Port, PortState};
use crate::containers::networks::refused;
use crate::error::Result;

#[derive(Default)]
struct Content {
    buses: BTreeSet<String>,
    /// Bus, name and interface.
    ports: BTreeSet<(String, String, String)>,
    sandboxes: BTreeSet<PathBuf>,
    /// Changes until one is refused.
    until: Option<usize>,
    has_failed: bool,
}

/// The names.
#[derive(Default)]
pub struct Names(Mutex<Content>);

fn name(bus: &Bus) -> String {
    match bus {
        Bus::Own(name, _) => name.clone(),
        Bus::OfTopology(name) => name.clone(),
    }
}

impl Names {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().expect("no test panics with it")
    }

    /// Refuses a change after so many, half done.
    pub fn fail_after(&self, changes: usize) {
        self.content().until = Some(changes);
    }

    /// Refuses no more; whether it did.
    pub fn fail_never(&self) -> bool {
        let mut content = self.content();
        content.until = None;
        std::mem::take(&mut content.has_failed)
    }

    fn change(&self, change: impl FnOnce(&mut Content)) -> Result<()> {
        let mut content = self.content();
        match content.until {
            Some(0) => {
                content.until = None;
                content.has_failed = true;
                Err(refused("the kernel refuses".into()))
            }
            until => {
                content.until = until.map(|until| until - 1);
                change(&mut content);
                Ok(())
            }
        }
    }

    pub fn add_sandbox(&self, path: &str) {
        self.content().sandboxes.insert(path.into());
    }

    /// Adds a bus of this name, or to a bus a port.
    pub fn add(&self, bus: &str, name: &str) {
        let mut content = self.content();
        if bus == "bus" {
            content.buses.insert(name.into());
        } else {
            content
                .ports
                .insert((bus.into(), name.into(), String::new()));
        }
    }

    /// Everything that is there.
    pub fn all(&self) -> BTreeSet<String> {
        let content = self.content();
        let ports = content.ports.iter();
        let ports = ports.map(|(bus, port, interface)| format!("{bus}/{port}={interface}"));
        content.buses.iter().cloned().chain(ports).collect()
    }
}

impl Fabric for Arc<Names> {
    fn make_bus(&self, bus: &Bus) -> Result<()> {
        self.change(|content| {
            content.buses.insert(name(bus));
        })
    }

    fn remove_bus(&self, bus: &Bus) -> Result<()> {
        self.change(|content| {
            content.buses.remove(&name(bus));
            content.ports.retain(|(of, ..)| *of != name(bus));
        })
    }

    fn full_name(&self, _: &str) -> Result<String> {
        Err(refused("no topology is up".into()))
    }

    fn mtu(&self, bus: &Bus) -> Result<u32> {
        match bus {
            Bus::Own(_, mtu) => Ok(*mtu),
            Bus::OfTopology(_) => Err(refused("no topology is up".into())),
        }
    }

    fn make_port(&self, bus: &Bus, port: &Port, _: Option<&HubPort>) -> Result<()> {
        let is_there = self.content().buses.contains(&name(bus));
        if !is_there {
            return Err(refused("the bus is not there".into()));
        }
        self.change(|content| {
            let others =
                |(of, other, _): &(String, String, String)| (of, other) != (&name(bus), &port.name);
            content.ports.retain(others);
            content
                .ports
                .insert((name(bus), port.name.clone(), port.interface.clone()));
        })
    }

    fn remove_port(&self, bus: &Bus, port: &str) -> Result<()> {
        self.change(|content| {
            content
                .ports
                .retain(|(of, other, _)| (of, other.as_str()) != (&name(bus), port));
        })
    }

    fn ports(&self, bus: &Bus) -> Result<Vec<PortState>> {
        let content = self.content();
        let own = content.ports.iter().filter(|(of, ..)| *of == name(bus));
        let state = |(_, port, _): &(String, String, String)| PortState {
            name: port.clone(),
            ..PortState::default()
        };
        Ok(own.map(state).collect())
    }

    fn own(&self) -> Result<Vec<String>> {
        Ok(self.content().buses.iter().cloned().collect())
    }

    fn interface(&self, _: &Bus, _: &str, _: &Path) -> Result<Option<String>> {
        Ok(None)
    }

    fn has_sandbox(&self, sandbox: &Path) -> bool {
        self.content().sandboxes.contains(sandbox)
    }
}
