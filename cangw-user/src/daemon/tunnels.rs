//! Which tunnels run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::info;

use crate::error::{Error, Result};
use crate::topology::host::TopologyReport;
use crate::tunnel::Running;
use crate::tunnel::board::TunnelReport;
use crate::tunnel::config::Tunnel;
use crate::tunnel::port::KernelPorts;

/// Topology and name.
type Key = (String, String);
/// The tunnels that are to run, on buses of their topologies.
pub(super) type Wanted = BTreeMap<Key, Tunnel>;

/// The tunnels that run.
#[derive(Default)]
pub(super) struct Tunnels {
    running: Mutex<BTreeMap<Key, Running>>,
}

impl Tunnels {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends those that are not wanted, or not so.
    pub fn end_others(&self, wanted: &Wanted) {
        let is_other = |key: &Key, running: &mut Running| {
            let is_so = wanted.get(key).is_some_and(|tunnel| running.is(tunnel));
            !is_so || running.has_ended()
        };
        // They end when nobody who asks waits for it.
        let ended: Vec<(Key, Running)> = self.lock().extract_if(.., is_other).collect();
        for ((topology, name), _) in &ended {
            info!("{topology}: - tunnel {name}");
        }
    }

    /// Starts those that do not run yet. What failed.
    pub fn start(&self, wanted: &Wanted) -> Vec<Error> {
        let mut running = self.lock();
        let mut errors = Vec::new();
        for (key, tunnel) in wanted {
            if running.contains_key(key) {
                continue;
            }
            match start(key, tunnel) {
                Ok(started) => {
                    info!("{}: + tunnel {} ({})", key.0, key.1, tunnel.endpoint());
                    running.insert(key.clone(), started);
                }
                Err(e) => errors.push(e),
            }
        }
        errors
    }

    /// What they do.
    pub fn reports(&self) -> Vec<TunnelReport> {
        let running = self.lock();
        let reports = running.iter();
        reports
            .map(|((topology, _), running)| running.report(topology))
            .collect()
    }

    /// Topologies with the tunnels on their buses.
    pub fn beside(&self, mut topologies: Vec<TopologyReport>) -> Vec<TopologyReport> {
        for report in self.reports() {
            let found = topologies.iter_mut().find(|t| t.name == report.topology);
            if let Some(topology) = found {
                topology.tunnels.push(report);
            }
        }
        topologies
    }
}

fn start((topology, name): &Key, tunnel: &Tunnel) -> Result<Running> {
    let ports = KernelPorts::new(name, (topology, &tunnel.bus), tunnel.limits.clone());
    Running::start(name, tunnel.clone(), Arc::new(ports))
}
