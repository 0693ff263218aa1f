//! What the main loop and the clients' sessions share.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::keeper::Outcome;
use super::runners::Runners;
use crate::api::Method as _;
use crate::api::methods::{Top, TopReport};
use crate::error::Result;
use crate::federation::config::Federation;
use crate::topology::host::TopologyReport;
use crate::tunnel::config::Tunnel;

/// What was found and done last, for those who ask.
#[derive(Default)]
pub(super) struct Shared {
    outcome: Mutex<Outcome>,
    /// Since when a pass has been running.
    busy: Mutex<Option<Instant>>,
    /// The tunnels that run.
    pub tunnels: Runners<Tunnel>,
    /// The federations that run.
    pub federations: Runners<Federation>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// What came of the last pass.
    pub fn outcome(&self) -> Outcome {
        locked(&self.outcome).clone()
    }

    pub fn set_outcome(&self, outcome: Outcome) {
        *locked(&self.outcome) = outcome;
    }

    /// All that `cangw top` shows, with the tunnels.
    pub fn top(&self, top: Top) -> Result<TopReport> {
        let mut report = top.perform()?;
        report.topologies = self.beside(report.topologies);
        Ok(report)
    }

    /// Topologies with what runs on their buses.
    pub fn beside(&self, mut topologies: Vec<TopologyReport>) -> Vec<TopologyReport> {
        let (tunnels, federations) = (self.tunnels.reports(), self.federations.reports());
        for topology in &mut topologies {
            let is_its = |name: &str| name == topology.name;
            let tunnels = tunnels.iter().filter(|report| is_its(&report.topology));
            topology.tunnels = tunnels.cloned().collect();
            let mut federations = federations.iter();
            let federation = federations.find(|report| is_its(&report.topology));
            topology.federation = federation.cloned();
        }
        topologies
    }

    /// When a pass begins, and `None` when it ends.
    pub fn set_busy(&self, since: Option<Instant>) {
        *locked(&self.busy) = since;
    }

    /// Whether a pass has been running for longer than this.
    pub fn hangs(&self, limit: Duration) -> bool {
        locked(&self.busy).is_some_and(|since| since.elapsed() > limit)
    }
}
