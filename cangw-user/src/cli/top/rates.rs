//! From two looks at the counters to rates.

use std::collections::HashMap;
use std::time::Instant;

use serde::Serialize;

use crate::api::methods::TopReport;
use crate::containers::names::short;
use crate::containers::report::{NetworkReport, PortReport};
use crate::gateway::{Report, RuleReport, WatchedId};
use crate::kernel::can_status::{BusState, CanStatus};
use crate::rule::kind_name;

/// Bits of a classic frame on the wire beside its data: start to interframe space, with an 11-bit identifier and without stuff bits (ISO 11898-1).
const FRAME_BITS: f64 = 47.0;

/// One look.
#[derive(Clone, Debug)]
pub struct Sample {
    pub time: Instant,
    pub top: TopReport,
}

/// What went on between two looks. Rates are in frames a second, other numbers are totals.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Time between the looks, in seconds.
    pub seconds: f64,
    pub buses: Vec<BusRate>,
    pub interfaces: Vec<InterfaceRate>,
    pub rules: Vec<RuleRate>,
    pub ids: Vec<IdRate>,
    pub ports: Vec<PortRate>,
}

/// A virtual bus.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BusRate {
    pub topology: String,
    pub bus: String,
    /// Its ECUs.
    pub ecus: usize,
    /// Frames that pass between it and the gateway's interface.
    pub rate: f64,
    /// Frames that some ports missed.
    pub lost: u64,
    pub lost_rate: f64,
}

/// A CAN interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InterfaceRate {
    pub name: String,
    pub up: bool,
    pub state: Option<BusState>,
    pub rx_rate: f64,
    pub tx_rate: f64,
    /// Of a controller: the part of its bit rate that is in use at least, in percent. Stuff bits, long identifiers and what others retry come on top.
    pub load: Option<f64>,
    /// Frames that the kernel, a driver or the gateway dropped here.
    pub dropped: u64,
    pub dropped_rate: f64,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleRate {
    pub rule: String,
    pub topology: String,
    pub waiting_for: Option<String>,
    pub rate: f64,
    pub handled: u64,
    pub dropped: u64,
    pub dropped_rate: f64,
    pub deleted: u64,
    /// Every counter, for who opens the rule.
    pub counters: Vec<(&'static str, u64)>,
}

/// A container's interface, or the host's, on a network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PortRate {
    /// First digits of the network's identifier.
    pub network: String,
    /// Its container or endpoint and its interface.
    pub port: String,
    pub sent_rate: f64,
    pub received_rate: f64,
    /// Frames that its limits kept back, by reason.
    pub kept_back: [(&'static str, u64); 4],
    pub kept_back_rate: f64,
}

/// An identifier on an interface whose rules record them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IdRate {
    pub interface: String,
    /// As in candump.
    pub id: String,
    pub rate: f64,
    pub count: u64,
    /// Seconds since the last.
    pub age: f64,
    /// The data of the last, in hexadecimal.
    pub data: String,
}

fn id_text(id: &WatchedId) -> String {
    let digits = if id.extended { 8 } else { 3 };
    let kind = match (id.remote, id.error) {
        (true, _) => " remote",
        (_, true) => " error",
        _ => "",
    };
    format!("{:0digits$X}{kind}", id.id)
}

/// Reasons for which frames of an interface end without a rule that says so.
fn lost_on(report: &Report, name: &str) -> u64 {
    let interface = report.interfaces.iter().find(|i| i.name == name);
    interface.map_or(0, |i| {
        let reasons = i.reasons.iter();
        let lost = reasons.filter(|(reason, _)| {
            matches!(
                reason.as_ref(),
                "denied" | "no_memory" | "fan_out" | "unserved"
            )
        });
        lost.map(|(_, frames)| frames).sum::<u64>() + i.refused_shared
    })
}

fn counters(rule: &RuleReport) -> Vec<(&'static str, u64)> {
    vec![
        ("handled", rule.handled),
        ("data bytes given to the target", rule.bytes),
        ("duplicated", rule.duplicated),
        ("corrupted", rule.corrupted),
        ("dropped: refused", rule.dropped_refused),
        ("dropped: MTU", rule.dropped_mtu),
        ("dropped: waiting", rule.dropped_waiting),
        ("dropped: by rule", rule.dropped_by_rule),
        ("dropped: over rate", rule.dropped_over_rate),
        ("dropped: by fault", rule.dropped_by_fault),
        ("deleted: hop limit", rule.deleted_hop_limit),
        ("deleted: too long", rule.deleted_too_long),
        ("skipped: from the target", rule.skipped_origin),
        ("rate limit shared", rule.rate_shared),
    ]
}

impl Rates {
    /// What went on between two looks. What was not there at the first one has no rates yet.
    pub fn between<'a>(before: &'a Sample, now: &'a Sample) -> Self {
        let seconds = now.time.duration_since(before.time).as_secs_f64();
        let (before, now) = (&before.top, &now.top);
        let rate = |now: u64, before: Option<u64>| match before {
            Some(before) if seconds > 0.0 => now.saturating_sub(before) as f64 / seconds,
            _ => 0.0,
        };
        let link_before = |name: &str| before.links.iter().find(|link| link.name == name);
        let interfaces = now.links.iter().map(|link| {
            let was = link_before(&link.name);
            let bits = |link: &CanStatus| {
                let frames = (link.rx_frames + link.tx_frames) as f64;
                frames * FRAME_BITS + (link.rx_bytes + link.tx_bytes) as f64 * 8.0
            };
            let bits = was.map_or(0.0, |was| (bits(link) - bits(was)).max(0.0));
            let load = link.bitrate.filter(|rate| *rate != 0);
            let load = load.map(|rate| bits / seconds.max(1e-9) / f64::from(rate) * 100.0);
            let dropped = |link: &CanStatus, report| {
                link.rx_dropped + link.tx_dropped + lost_on(report, &link.name)
            };
            let all = dropped(link, &now.report);
            InterfaceRate {
                name: link.name.clone(),
                up: link.up,
                state: link.state,
                rx_rate: rate(link.rx_frames, was.map(|was| was.rx_frames)),
                tx_rate: rate(link.tx_frames, was.map(|was| was.tx_frames)),
                load,
                dropped: all,
                dropped_rate: rate(all, was.map(|was| dropped(was, &before.report))),
            }
        });
        let interfaces: Vec<InterfaceRate> = interfaces.collect();
        let lost_before: HashMap<(&str, &str), u64> = before
            .topologies
            .iter()
            .flat_map(|t| {
                t.buses
                    .iter()
                    .map(|(bus, b)| ((t.name.as_str(), bus.as_str()), b.lost))
            })
            .collect();
        let buses = now.topologies.iter().flat_map(|topology| {
            topology.buses.iter().map(|(bus, report)| {
                let gateway = interfaces.iter().find(|i| i.name == *bus);
                let ecus = topology.ecus.values();
                let was = lost_before.get(&(topology.name.as_str(), bus.as_str()));
                BusRate {
                    topology: topology.name.clone(),
                    bus: bus.clone(),
                    ecus: ecus.filter(|ecu| ecu.values().any(|b| b == bus)).count(),
                    rate: gateway.map_or(0.0, |i| i.rx_rate + i.tx_rate),
                    lost: report.lost,
                    lost_rate: rate(report.lost, was.copied()),
                }
            })
        });
        let buses = buses.collect();
        // Rules can be the same: the first is compared with the first, and so on.
        let mut rules_before: HashMap<String, Vec<&RuleReport>> = HashMap::new();
        for rule in before.report.rules.iter().rev() {
            rules_before
                .entry(rule.rule.to_string())
                .or_default()
                .push(rule);
        }
        let rules = now.report.rules.iter().map(|rule| {
            let text = rule.rule.to_string();
            let was = rules_before.get_mut(&text).and_then(Vec::pop);
            RuleRate {
                rule: text.trim_end().to_owned(),
                topology: rule.topology.clone(),
                waiting_for: rule.waiting_for.clone(),
                rate: rate(rule.handled, was.map(|was| was.handled)),
                handled: rule.handled,
                dropped: rule.dropped,
                dropped_rate: rate(rule.dropped, was.map(|was| was.dropped)),
                deleted: rule.deleted,
                counters: counters(rule),
            }
        });
        let rules = rules.collect();
        let all_ids = |top: &'a TopReport| {
            let watched = top.watched.iter();
            watched.flat_map(|(interface, ids)| ids.iter().map(move |id| (interface, id)))
        };
        let key = |interface: &'a str, id: &WatchedId| (interface, id.can_id(), kind_name(id.kind));
        let ids_before: HashMap<(&str, u32, &str), u64> = all_ids(before)
            .map(|(interface, id)| (key(interface, id), id.count))
            .collect();
        let ids = all_ids(now).map(|(interface, id)| {
            let was = ids_before.get(&key(interface, id));
            let data = id.data.iter();
            IdRate {
                interface: interface.clone(),
                id: id_text(id),
                rate: rate(id.count, was.copied()),
                count: id.count,
                age: id.age,
                data: data.map(|byte| format!("{byte:02X}")).collect(),
            }
        });
        let key = |network: &NetworkReport, port: &PortReport| {
            (network.id.clone(), port.endpoint.clone())
        };
        let all_ports = |top: &'a TopReport| {
            let networks = top.networks.iter();
            networks.flat_map(|network| network.ports.iter().map(move |port| (network, port)))
        };
        let ports_before: HashMap<_, &PortReport> = all_ports(before)
            .map(|(network, port)| (key(network, port), port))
            .collect();
        let ports = all_ports(now).map(|(network, port)| {
            let was = ports_before.get(&key(network, port));
            let kept = |port: &PortReport| port.kept_back().iter().map(|(_, n)| n).sum();
            PortRate {
                network: short(&network.id).to_owned(),
                port: port.name(),
                sent_rate: rate(port.sent, was.map(|was| was.sent)),
                received_rate: rate(port.received, was.map(|was| was.received)),
                kept_back: port.kept_back(),
                kept_back_rate: rate(kept(port), was.map(|was| kept(was))),
            }
        });
        Self {
            seconds,
            ids: ids.collect(),
            ports: ports.collect(),
            buses,
            interfaces,
            rules,
        }
    }
}
