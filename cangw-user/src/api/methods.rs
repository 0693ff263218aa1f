//! The methods that need nothing but the kernel. [`super::service`] has the others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Call, Method};
use crate::containers;
use crate::containers::fabric::Kernel;
use crate::containers::report::NetworkReport;
use crate::error::{Error, Result};
use crate::file::Document;
use crate::file::tables::RuleTable;
use crate::frame_text::Frame;
use crate::gateway::{
    Gateway, InterfaceChange, InterfaceReport, Report, RuleReport, Verdict, WatchedId, not_watched,
};
use crate::kernel::can_status::{self, CanStatus};
use crate::kernel::netlink::Netlink;
use crate::rule::Rule;
use crate::state::Settings;
use crate::topology::Topology;
use crate::topology::host::{self, Host, TopologyReport};

/// What was done, and what else a user should know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Steps that were taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<String>,
    /// Sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A rule as in a file, which says nothing by names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleText(pub Rule);

impl Serialize for RuleText {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        RuleTable::from(&self.0).serialize(s)
    }
}

impl<'de> Deserialize<'de> for RuleText {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let rule = RuleTable::deserialize(d)?.without_names();
        rule.map(Self).map_err(serde::de::Error::custom)
    }
}

macro_rules! methods {
    ($($(#[$doc:meta])* $id:literal $changes:literal $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* } -> $reply:ty;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, Serialize, Deserialize)]
            #[serde(deny_unknown_fields)]
            pub struct $name { $($(#[$field_doc])* pub $field: $kind,)* }

            impl Call for $name {
                const ID: &'static str = $id;
                const CHANGES: bool = $changes;
                type Reply = $reply;
            }

            impl Method for $name {
                fn perform(self) -> Result<$reply> {
                    self.done()
                }
            }
        )*

        /// Names of those that need the kernel only, and whether they change something.
        pub const ALL: &[(&str, bool)] = &[$(($id, $changes)),*];

        /// The request as it is understood, written again; `None` when there is no such method.
        ///
        /// # Errors
        /// What is wrong with the request.
        pub fn understand(request: super::Request) -> Option<Result<serde_json::Value>> {
            match request.id.as_str() {
                $($id => Some(request.call::<$name>().and_then(|method| super::value(&method))),)*
                _ => None,
            }
        }

        /// Carries out a request in this process; `None` when there is no such method.
        ///
        /// # Errors
        /// What is wrong with the request, and what the method says.
        pub fn perform(request: super::Request) -> Option<Result<serde_json::Value>> {
            match request.id.as_str() {
                $($id => Some(
                    request.call::<$name>().and_then(Method::perform).and_then(|reply| super::value(&reply)),
                ),)*
                _ => None,
            }
        }
    };
}

methods! {
    /// The rules, newest first, with their counters.
    "rule_list" false RuleList {} -> Vec<RuleReport>;
    /// Adds the rules of a document, the last being the newest, and changes the settings that it has: all or, on an error, nothing.
    "rule_add" true RuleAdd {
        /// As in a file in TOML.
        document: Document,
    } -> Done;
    /// Deletes the newest rule that is like this one.
    "rule_delete" true RuleDelete {
        /// The rule.
        rule: RuleText,
    } -> Done;
    /// Puts a rule in the place of the newest that is like another, in one step.
    "rule_replace" true RuleReplace {
        /// The one that goes.
        old: RuleText,
        /// The one that comes.
        new: RuleText,
    } -> Done;
    /// Deletes all rules.
    "rule_flush" true RuleFlush {} -> Done;
    /// What would become of a frame.
    "rule_test" false RuleTest {
        /// Interface on which it would come.
        source: String,
        /// The frame as in candump's logs.
        frame: String,
    } -> Verdict;
    /// The interfaces that have rules or settings, with their counters.
    "interface_list" false InterfaceList {} -> Vec<InterfaceReport>;
    /// Changes how the frames of an interface are handled.
    "interface_set" true InterfaceSet {
        /// The interface.
        interface: String,
        /// What changes.
        change: InterfaceChange,
    } -> Done;
    /// The CAN interfaces of the gateway, with and without rules: their states and counters.
    "link_list" false LinkList {} -> Vec<CanStatus>;
    /// The settings.
    "settings_show" false SettingsShow {} -> Settings;
    /// Changes the settings.
    "settings_set" true SettingsSet {
        /// The new ones.
        settings: Settings,
    } -> Done;
    /// All rules and interfaces with their counters.
    "stats" false Stats {} -> Report;
    /// All that `cangw top` shows, from one look.
    "top" false Top {} -> TopReport;
    /// What rules with `watch` recorded on an interface.
    "watch" false Watch {
        /// The interface.
        interface: String,
    } -> Vec<WatchedId>;
    /// Applies the rules again.
    "sync" true Sync {} -> Done;
    /// The topologies that are up.
    "status" false Status {} -> Vec<TopologyReport>;
    /// The CAN networks of containers, with the counters of their ports.
    "networks" false Networks {} -> Vec<NetworkReport>;
    /// The steps that would make a topology as its file says.
    "diff" false Diff {
        /// The file's name, for errors.
        file: String,
        /// Its text.
        text: String,
    } -> Done;
    /// Makes a topology as its file says. `cangwd` keeps it so from then on.
    "up" true Up {
        /// The file's name, for errors.
        file: String,
        /// Its text.
        text: String,
    } -> Done;
    /// Takes a topology down.
    "down" true Down {
        /// Its name.
        topology: String,
    } -> Done;
    /// The ECUs that are up.
    "ecu_list" false EcuList {} -> Vec<EcuReport>;
}

/// Everything, from one look.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TopReport {
    /// Rules and interfaces with their counters.
    pub report: Report,
    /// The CAN interfaces.
    pub links: Vec<CanStatus>,
    /// The topologies that are up.
    pub topologies: Vec<TopologyReport>,
    /// What was recorded, by interface.
    pub watched: BTreeMap<String, Vec<WatchedId>>,
    /// The networks of containers.
    #[serde(default)]
    pub networks: Vec<NetworkReport>,
}

/// An ECU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EcuReport {
    /// Its topology.
    pub topology: String,
    /// Its name.
    pub ecu: String,
    /// Its interfaces, with their buses.
    pub interfaces: BTreeMap<String, String>,
}

fn report() -> Result<Report> {
    Gateway::look()?.map_or_else(|| Ok(Report::default()), |gateway| gateway.report())
}

fn change(what: impl FnOnce(&mut Gateway) -> Result<()>) -> Result<Done> {
    let mut gateway = Gateway::open()?;
    what(&mut gateway)?;
    Ok(Done {
        notes: gateway.notes(),
        ..Done::default()
    })
}

/// Changes the gateway if it is there.
fn change_what_is_there(what: impl FnOnce(&mut Gateway) -> Result<()>) -> Result<Done> {
    if let Some(mut gateway) = Gateway::look()? {
        what(&mut gateway)?;
    }
    Ok(Done::default())
}

impl RuleList {
    fn done(self) -> Result<Vec<RuleReport>> {
        Ok(report()?.rules)
    }
}

impl RuleAdd {
    fn done(self) -> Result<Done> {
        change(|gateway| self.document.load(gateway))
    }
}

impl RuleDelete {
    fn done(self) -> Result<Done> {
        change(|gateway| gateway.delete(&self.rule.0))
    }
}

impl RuleReplace {
    fn done(self) -> Result<Done> {
        change(|gateway| gateway.replace(&self.old.0, &self.new.0))
    }
}

impl RuleFlush {
    fn done(self) -> Result<Done> {
        change_what_is_there(Gateway::flush)
    }
}

impl RuleTest {
    fn done(self) -> Result<Verdict> {
        let frame: Frame = self.frame.parse().map_err(Error::Frame)?;
        Gateway::open()?.verdict(&self.source, &frame)
    }
}

impl InterfaceList {
    fn done(self) -> Result<Vec<InterfaceReport>> {
        Ok(report()?.interfaces)
    }
}

impl InterfaceSet {
    fn done(self) -> Result<Done> {
        change(|gateway| gateway.set_interface(&self.interface, self.change))
    }
}

impl LinkList {
    fn done(self) -> Result<Vec<CanStatus>> {
        can_status::list(&Netlink::open()?)
    }
}

impl SettingsShow {
    fn done(self) -> Result<Settings> {
        let gateway = Gateway::look()?;
        Ok(gateway.map_or_else(Settings::default, |gateway| gateway.settings()))
    }
}

impl SettingsSet {
    fn done(self) -> Result<Done> {
        change(|gateway| gateway.set(self.settings))
    }
}

impl Stats {
    fn done(self) -> Result<Report> {
        report()
    }
}

impl Top {
    fn done(self) -> Result<TopReport> {
        let mut top = TopReport::default();
        if let Some(gateway) = Gateway::look()? {
            top.report = gateway.report()?;
            for rule in &top.report.rules {
                let name = &rule.rule.source;
                let is_new = || !top.watched.contains_key(name);
                if rule.rule.options.watch && rule.waiting_for.is_none() && is_new() {
                    top.watched.insert(name.clone(), gateway.watched(name)?);
                }
            }
        }
        top.links = can_status::list(&Netlink::open()?)?;
        top.topologies = Host::open()?.report(top.report.rules.clone())?;
        top.networks = Networks {}.done()?;
        Ok(top)
    }
}

impl Watch {
    fn done(self) -> Result<Vec<WatchedId>> {
        Gateway::look()?
            .ok_or_else(|| not_watched(&self.interface))?
            .watched(&self.interface)
    }
}

impl Sync {
    fn done(self) -> Result<Done> {
        change_what_is_there(Gateway::sync)
    }
}

impl Status {
    fn done(self) -> Result<Vec<TopologyReport>> {
        Host::open()?.report(report()?.rules)
    }
}

impl Networks {
    fn done(self) -> Result<Vec<NetworkReport>> {
        crate::capability::require("looking at the networks of containers")?;
        containers::networks::Networks::new(&containers::folder(), Kernel).report()
    }
}

impl Diff {
    fn done(self) -> Result<Done> {
        let topology = Topology::parse_alone(&self.file, &self.text)?;
        let steps = Host::open()?.diff(&topology.name, &topology.shape())?;
        Ok(Done {
            steps: steps.iter().map(ToString::to_string).collect(),
            ..Done::default()
        })
    }
}

impl Up {
    fn done(self) -> Result<Done> {
        let topology = Topology::parse_alone(&self.file, &self.text)?;
        let mut done = Done::default();
        Host::open()?.up(&topology, &mut |step| done.steps.push(step.to_string()))?;
        Ok(done)
    }
}

impl Down {
    fn done(self) -> Result<Done> {
        let mut done = Done::default();
        Host::open()?.down(&self.topology, &mut |step| {
            done.steps.push(step.to_string());
        })?;
        Ok(done)
    }
}

impl EcuList {
    fn done(self) -> Result<Vec<EcuReport>> {
        let host = Host::open()?;
        let mut reports = Vec::new();
        for topology in host::topologies(std::iter::empty())? {
            for (ecu, interfaces) in host.shape(&topology)?.ecus {
                reports.push(EcuReport {
                    topology: topology.clone(),
                    ecu,
                    interfaces,
                });
            }
        }
        Ok(reports)
    }
}
