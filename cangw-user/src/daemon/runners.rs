//! What runs on the buses of topologies: tunnels, federations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::info;

use crate::error::{Error, Result};
use crate::federation::config::Federation;
use crate::federation::report::FederationReport;
use crate::federation::{self, PortsOf};
use crate::tunnel;
use crate::tunnel::board::TunnelReport;
use crate::tunnel::config::Tunnel;
use crate::tunnel::port::{KernelPorts, Ports};

/// Topology and name.
pub(super) type Key = (String, String);
/// Those that are to run, on buses of their topologies.
pub(super) type Wanted<T> = BTreeMap<Key, T>;

/// What can run: how it is told what to do.
pub(super) trait Runs {
    type Running: Send;
    type Report;

    fn start(&self, key: &Key) -> Result<Self::Running>;
    /// For the log.
    fn label(key: &Key) -> String;
    /// For the log: what it is told.
    fn place(&self) -> String;
    /// Whether it runs, as it is told there.
    fn is(&self, running: &Self::Running) -> bool;
    fn report(running: &Self::Running, topology: &str) -> Self::Report;
}

impl Runs for Tunnel {
    type Running = tunnel::Running;
    type Report = TunnelReport;

    fn start(&self, (topology, name): &Key) -> Result<tunnel::Running> {
        let ports = KernelPorts::new(name, (topology, &self.bus), self.limits.clone());
        tunnel::Running::start(name, self.clone(), Arc::new(ports))
    }

    fn label((_, name): &Key) -> String {
        format!("tunnel {name}")
    }

    fn place(&self) -> String {
        self.endpoint()
    }

    fn is(&self, running: &tunnel::Running) -> bool {
        running.is(self) && !running.has_ended()
    }

    fn report(running: &tunnel::Running, topology: &str) -> TunnelReport {
        running.report(topology)
    }
}

impl Runs for Federation {
    type Running = federation::Running;
    type Report = FederationReport;

    fn start(&self, (topology, name): &Key) -> Result<federation::Running> {
        let ports = |(bus, it): (&String, &federation::config::Bus)| {
            let ports = KernelPorts::new(name, (topology, bus), it.limits.clone());
            (bus.clone(), Arc::new(ports) as Arc<dyn Ports>)
        };
        let ports: PortsOf = self.buses.iter().map(ports).collect();
        federation::Running::start(topology, self.clone(), ports)
    }

    fn label((_, name): &Key) -> String {
        name.clone()
    }

    fn place(&self) -> String {
        format!("host {} of {}", self.host, self.realm)
    }

    fn is(&self, running: &federation::Running) -> bool {
        running.is(self) && !running.has_ended()
    }

    fn report(running: &federation::Running, _topology: &str) -> FederationReport {
        running.report()
    }
}

/// Those that run.
pub(super) struct Runners<T: Runs> {
    running: Mutex<BTreeMap<Key, T::Running>>,
}

impl<T: Runs> Default for Runners<T> {
    fn default() -> Self {
        Self {
            running: Mutex::default(),
        }
    }
}

impl<T: Runs> Runners<T> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, T::Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends those that are not wanted, or not so.
    pub fn end_others(&self, wanted: &Wanted<T>) {
        let is_other = |key: &Key, running: &mut T::Running| {
            let wanted = wanted.get(key);
            !wanted.is_some_and(|wanted| wanted.is(running))
        };
        // They end when nobody who asks waits for it.
        let ended: Vec<(Key, T::Running)> = self.lock().extract_if(.., is_other).collect();
        for (key, _) in &ended {
            info!("{}: - {}", key.0, T::label(key));
        }
    }

    /// Starts those that do not run yet. What failed.
    pub fn start(&self, wanted: &Wanted<T>) -> Vec<Error> {
        let mut running = self.lock();
        let mut errors = Vec::new();
        for (key, wanted) in wanted {
            if running.contains_key(key) {
                continue;
            }
            match wanted.start(key) {
                Ok(started) => {
                    info!("{}: + {} ({})", key.0, T::label(key), wanted.place());
                    running.insert(key.clone(), started);
                }
                Err(e) => errors.push(e),
            }
        }
        errors
    }

    /// What they do.
    pub fn reports(&self) -> Vec<T::Report> {
        let running = self.lock();
        let reports = running.iter();
        reports
            .map(|((topology, _), running)| T::report(running, topology))
            .collect()
    }
}
