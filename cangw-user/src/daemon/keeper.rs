//! What should be, and one pass over what is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tracing::info;

use super::failures::{Failures, RETRY};
use super::runners::Wanted;
use super::shared::Shared;
use crate::api::methods::{Done, Down, Up};
use crate::api::refused;
use crate::api::service::{HealthReport, TunnelAdd, TunnelRemove};
use crate::containers;
use crate::containers::fabric::{Fabric as _, HIDDEN, Kernel};
use crate::containers::networks::Networks;
use crate::error::{Error, Result};
use crate::federation;
use crate::federation::config::Federation;
use crate::folder::entries;
use crate::gateway::Gateway;
use crate::kernel::netns::NetNs;
use crate::topology::Topology;
use crate::topology::host::{Host, Stubborn, buses_path};
use crate::tunnel::config::{Tunnel, check_name};
use crate::tunnel::port::sweep_others;
use crate::tunnel::store::Store;

/// Where topologies are described.
#[derive(Clone, Debug)]
pub enum Sources {
    /// All `*.toml` of a folder, in the order of their names; none when there is no such folder.
    Folder(PathBuf),
    /// These files.
    Files(Vec<PathBuf>),
}

impl Sources {
    fn files(&self) -> Result<Vec<PathBuf>> {
        let folder = match self {
            Self::Files(files) => return Ok(files.clone()),
            Self::Folder(folder) => folder,
        };
        let mut files = entries(folder)?;
        files.retain(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        });
        files.sort();
        Ok(files)
    }

    /// All topologies, or none if one is wrong.
    fn read(&self) -> Result<Vec<Topology>> {
        let mut topologies: Vec<Topology> = Vec::new();
        let mut from: Vec<PathBuf> = Vec::new();
        for path in self.files()? {
            let name = path.display().to_string();
            let text =
                fs::read_to_string(&path).map_err(|e| Error::io(format!("read {name}"), e))?;
            let topology = Topology::parse(&name, &text)?;
            if let Some(at) = topologies.iter().position(|t| t.name == topology.name) {
                return Err(Error::TwiceTopology {
                    name: topology.name,
                    files: [from[at].display().to_string(), name],
                });
            }
            topologies.push(topology);
            from.push(path);
        }
        Ok(topologies)
    }
}

/// Name of the rules among topologies, which all have longer ones.
const RULES: &str = "";
/// That of all networks of containers, which is none that a topology can have.
const NETWORKS: &str = "container networks";

/// What came of a pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The topologies that are to be up.
    pub topologies: Vec<String>,
    /// The gateway's interfaces on each of their buses.
    pub buses: BTreeMap<String, Vec<String>>,
    /// The rules of the gateway, routes of topologies among them.
    pub rules: usize,
    /// Of these: they wait for an interface.
    pub waiting: usize,
    /// Steps that were taken.
    pub steps: usize,
    /// What could not be done.
    pub errors: Vec<String>,
    /// When to try that again.
    pub again: Option<Instant>,
}

impl Outcome {
    pub fn again_at(&mut self, time: Instant) {
        self.again = Some(self.again.map_or(time, |again| again.min(time)));
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (topologies, rules) = (self.topologies.len(), self.rules);
        write!(f, "topologies: {topologies}, rules: {rules}")?;
        if self.waiting != 0 {
            write!(f, ", waiting: {}", self.waiting)?;
        }
        match self.errors.first() {
            Some(error) => write!(f, "; {error}"),
            None => Ok(()),
        }
    }
}

impl From<Outcome> for HealthReport {
    fn from(outcome: Outcome) -> Self {
        Self {
            topologies: outcome.topologies,
            rules: outcome.rules,
            waiting: outcome.waiting,
            errors: outcome.errors,
        }
    }
}

/// The topologies that are kept, and the gateway of this network namespace.
pub struct Keeper {
    sources: Sources,
    topologies: Vec<Topology>,
    /// Names of those that clients sent.
    sent: BTreeSet<String>,
    /// Names of topologies that are not described any more.
    gone: BTreeSet<String>,
    failures: Failures,
    stubborn: Stubborn,
    networks: Networks<Kernel>,
    shared: Arc<Shared>,
    /// Whether ports that tunnels of an earlier process left are gone.
    swept: bool,
    /// The tunnels that clients added; or why they cannot be read.
    added: Result<Store, String>,
}

impl Keeper {
    /// Reads all topologies.
    ///
    /// # Errors
    /// The first file that is wrong, and where.
    pub fn load(sources: Sources, shared: Arc<Shared>) -> Result<Self> {
        let folder = containers::folder();
        Ok(Self {
            shared,
            swept: false,
            added: Store::open(&folder).map_err(|e| e.to_string()),
            topologies: sources.read()?,
            sources,
            sent: BTreeSet::new(),
            gone: BTreeSet::new(),
            failures: Failures::default(),
            stubborn: Stubborn::new(),
            networks: Networks::new(&folder, Kernel),
        })
    }

    /// Reads them again. Those that are gone will be taken down; those that clients sent stay.
    ///
    /// # Errors
    /// As [`Self::load`]; then nothing changes.
    pub fn reload(&mut self) -> Result<()> {
        let topologies = self.sources.read()?;
        self.failures = Failures::default();
        let before = std::mem::replace(&mut self.topologies, topologies);
        self.sent
            .retain(|name| self.topologies.iter().all(|t| t.name != *name));
        let (sent, others): (Vec<_>, Vec<_>) = before
            .into_iter()
            .partition(|t| self.sent.contains(&t.name));
        self.topologies.extend(sent);
        self.gone.extend(others.into_iter().map(|t| t.name));
        let topologies = &self.topologies;
        self.gone
            .retain(|name| topologies.iter().all(|t| t.name != *name));
        Ok(())
    }

    /// Makes a topology that a client sent, and keeps it from now on, until a file describes it or this process ends.
    ///
    /// # Errors
    /// What is wrong with it; the step that failed. Then everything is as before.
    pub fn up(&mut self, up: &Up) -> Result<Done> {
        let topology = Topology::parse_alone(&up.file, &up.text)?;
        let mut done = Done::default();
        Host::open()?.up(&topology, &mut |step| note(&mut done, &topology.name, step))?;
        self.topologies.retain(|t| t.name != topology.name);
        self.gone.remove(&topology.name);
        self.failures = Failures::default();
        self.sent.insert(topology.name.clone());
        self.topologies.push(topology);
        Ok(done)
    }

    /// Takes a topology down, and keeps it no more, until the files are read again.
    ///
    /// # Errors
    /// The step that failed.
    pub fn down(&mut self, Down { topology }: &Down) -> Result<Done> {
        let mut done = Done::default();
        self.topologies.retain(|t| t.name != *topology);
        self.sent.remove(topology);
        // Its tunnels end before their buses do.
        self.keep_tunnels(&mut Outcome::default());
        Host::open()?.down(topology, &mut |step| note(&mut done, topology, step))?;
        Ok(done)
    }

    /// The namespaces whose interfaces matter, as far as they are there.
    pub fn namespaces(&self) -> Vec<NetNs> {
        let buses = self.topologies.iter().map(|t| buses_path(&t.name));
        let buses = buses.chain([buses_path(HIDDEN)]);
        let buses = buses.filter_map(|path| NetNs::open(&path).ok());
        NetNs::current().into_iter().chain(buses).collect()
    }

    fn buses(&self) -> BTreeMap<String, Vec<String>> {
        let mut buses: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for topology in &self.topologies {
            for bus in topology.buses.keys() {
                let interfaces = topology.interfaces(bus).into_iter().map(str::to_owned);
                buses.entry(bus.clone()).or_default().extend(interfaces);
            }
        }
        buses
    }

    /// Makes everything as it should be, as far as possible. What failed is left alone for a while: an attempt that is undone changes interfaces, too, and
    /// would lead to the next one at once.
    pub fn keep(&mut self) -> Outcome {
        self.end_tunnels();
        let mut outcome = Outcome {
            topologies: self.topologies.iter().map(|t| t.name.clone()).collect(),
            buses: self.buses(),
            ..Outcome::default()
        };
        if let Err(e) = self.keep_topologies(&mut outcome) {
            outcome.errors.push(e.to_string());
            outcome.again_at(Instant::now() + RETRY);
        }
        // Behind the topologies, because networks can be their buses.
        let mut all_known = true;
        self.failures.attempt(NETWORKS, &mut outcome, || {
            all_known = self.networks.keep()?;
            Ok(())
        });
        if !all_known {
            outcome.again_at(Instant::now() + RETRY);
        }
        self.keep_tunnels(&mut outcome);
        let mut counts = (0, 0);
        self.failures.attempt(RULES, &mut outcome, || {
            counts = keep_rules()?;
            Ok(())
        });
        (outcome.rules, outcome.waiting) = counts;
        outcome
    }

    fn keep_topologies(&mut self, outcome: &mut Outcome) -> Result<()> {
        if self.topologies.is_empty() && self.gone.is_empty() {
            return Ok(());
        }
        let host = Host::open()?;
        let mut steps = 0;
        let mut tell = |name: &str, step: &dyn fmt::Display| {
            steps += 1;
            info!("{name}: {step}");
        };
        let failures = &mut self.failures;
        self.gone.retain(|name| {
            !failures.attempt(name, outcome, || {
                host.down(name, &mut |step| tell(name, step))
            })
        });
        for topology in &self.topologies {
            let name = &topology.name;
            let stubborn = &mut self.stubborn;
            failures.attempt(name, outcome, || {
                host.keep(topology, stubborn, &mut |step| tell(name, step))
            });
        }
        outcome.steps = steps;
        Ok(())
    }

    /// Makes a tunnel that a client wants, and keeps it from now on.
    ///
    /// # Errors
    /// What is wrong with it; then everything is as before.
    pub fn add_tunnel(&mut self, TunnelAdd { name, tunnel }: &TunnelAdd) -> Result<Done> {
        check_name(name).map_err(refused)?;
        tunnel.check().map_err(|(key, message)| {
            let colon = if key.is_empty() { "" } else { ": " };
            refused(format!("{key}{colon}{message}"))
        })?;
        if tunnel.has_relative_files() {
            return Err(refused(
                "files of certificates are named by their whole paths, which begin with /",
            ));
        }
        let mut tunnel = tunnel.clone();
        tunnel.bus = Kernel.full_name(&tunnel.bus)?;
        let topology = tunnel.bus.split('.').next().unwrap_or_default();
        let mut others = self.topologies.iter().filter(|t| t.name == topology);
        if others.any(|t| t.tunnels.contains_key(name)) {
            return Err(refused(format!(
                "topology {topology} has a tunnel {name}; give this one another name"
            )));
        }
        let added = self.added.as_mut().map_err(|e| refused(e.clone()))?;
        let mut tunnels = added.tunnels.clone();
        if tunnels.insert(name.clone(), tunnel).is_some() {
            return Err(refused(format!(
                "there is a tunnel {name}; `cangw tunnel remove {name}` ends it"
            )));
        }
        added.set(tunnels)?;
        let mut outcome = Outcome::default();
        self.keep_tunnels(&mut outcome);
        Ok(Done {
            notes: outcome.errors,
            ..Done::default()
        })
    }

    /// Ends a tunnel that a client added.
    ///
    /// # Errors
    /// When there is none.
    pub fn remove_tunnel(&mut self, TunnelRemove { name }: &TunnelRemove) -> Result<Done> {
        let added = self.added.as_mut().map_err(|e| refused(e.clone()))?;
        let mut tunnels = added.tunnels.clone();
        if tunnels.remove(name).is_none() {
            return Err(refused(format!(
                "`cangw tunnel add` made no tunnel {name}; those of a topology are in its file"
            )));
        }
        added.set(tunnels)?;
        self.keep_tunnels(&mut Outcome::default());
        Ok(Done::default())
    }

    /// The tunnels that are to run; and those that cannot, and why.
    fn tunnels(&self) -> (Wanted<Tunnel>, Vec<String>) {
        let mut errors = Vec::new();
        let mut wanted = Wanted::new();
        for topology in &self.topologies {
            for (name, tunnel) in &topology.tunnels {
                wanted.insert((topology.name.clone(), name.clone()), tunnel.clone());
            }
        }
        let added = match &self.added {
            Ok(added) => &added.tunnels,
            Err(e) => {
                errors.push(e.clone());
                return (wanted, errors);
            }
        };
        for (name, table) in added {
            let (topology, bus) = table.bus.split_once('.').unwrap_or(("", &table.bus));
            match table.check() {
                Ok(mut tunnel) => {
                    tunnel.bus = bus.to_owned();
                    let key = (topology.to_owned(), name.clone());
                    if wanted.insert(key, tunnel).is_some() {
                        errors.push(format!("tunnel {name} was added, and topology {topology} has one of that name; `cangw tunnel remove {name}` ends the former"));
                    }
                }
                Err((key, message)) => errors.push(format!("tunnel {name}: {key}: {message}")),
            }
        }
        (wanted, errors)
    }

    /// The federations that are to run.
    fn federations(&self) -> Wanted<Federation> {
        let federations = self.topologies.iter().filter_map(|topology| {
            let key = (topology.name.clone(), federation::NAME.to_owned());
            Some((key, topology.federation.clone()?))
        });
        federations.collect()
    }

    /// Takes the ports of tunnels off the buses that no tunnel has which is to run. Those that run take care of theirs.
    fn sweep(&self, wanted: &Wanted<Tunnel>) -> Result<()> {
        for topology in &self.topologies {
            for bus in topology.buses.keys() {
                let is_gone = |name: &str| {
                    let key = (topology.name.clone(), name.to_owned());
                    let is_federation = name == federation::NAME && topology.federation.is_some();
                    !is_federation && !wanted.contains_key(&key)
                };
                sweep_others((&topology.name, bus), is_gone)?;
            }
        }
        Ok(())
    }

    /// Ends the tunnels and federations that are not to run any more.
    fn end_tunnels(&self) {
        self.shared.tunnels.end_others(&self.tunnels().0);
        self.shared.federations.end_others(&self.federations());
    }

    /// Lets those tunnels and federations run that are to, and no other.
    fn keep_tunnels(&mut self, outcome: &mut Outcome) {
        let (wanted, errors) = self.tunnels();
        outcome.errors.extend(errors);
        if !self.swept {
            match self.sweep(&wanted) {
                Ok(()) => self.swept = true,
                Err(e) => {
                    outcome.errors.push(e.to_string());
                    outcome.again_at(Instant::now() + RETRY);
                }
            }
        }
        self.end_tunnels();
        let mut failed = self.shared.tunnels.start(&wanted);
        failed.extend(self.shared.federations.start(&self.federations()));
        for error in failed {
            outcome.errors.push(error.to_string());
            outcome.again_at(Instant::now() + RETRY);
        }
    }

    /// Takes all topologies and rules away.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn teardown(&mut self) -> Result<()> {
        self.gone
            .extend(self.topologies.drain(..).map(|topology| topology.name));
        self.end_tunnels();
        if !self.gone.is_empty() {
            let host = Host::open()?;
            for name in &self.gone {
                host.down(name, &mut |step| info!("{name}: {step}"))?;
            }
        }
        if Gateway::look()?.is_some() {
            Gateway::open()?.flush()?;
        }
        Ok(())
    }
}

/// Logs a step that a client wants, and tells it.
fn note(done: &mut Done, topology: &str, step: &dyn fmt::Display) {
    info!("{topology}: {step}");
    done.steps.push(step.to_string());
}

/// Keeps the rules of this network namespace; how many there are, and how many of them wait.
fn keep_rules() -> Result<(usize, usize)> {
    if Gateway::look()?.is_none() {
        return Ok((0, 0));
    }
    let mut gateway = Gateway::open()?;
    if gateway.keep()? {
        info!("replaced the programs by those of this version");
    }
    gateway.notes().iter().for_each(|note| info!("{note}"));
    Ok(gateway.rule_counts())
}
