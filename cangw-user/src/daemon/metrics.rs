//! Metrics for Prometheus, in the text format of OpenMetrics.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::shared::Shared;
use crate::api::methods::{Top, TopReport};
use crate::api::service::HealthReport;
use crate::containers::names::short;
use crate::containers::report::PortReport;
use crate::error::{Error, Result};
use crate::federation::report::{FederationReport, HostState};
use crate::gateway::RuleReport;
use crate::kernel::can_status::{BusState, CanStatus};
use crate::tunnel::board::{PeerReport, PeerState, TunnelReport};

/// All that is told in one scrape.
#[derive(Debug)]
struct Scrape {
    top: TopReport,
    health: HealthReport,
}

/// Labels, and a value.
type Sample<'a> = (Vec<(&'static str, &'a str)>, u64);

/// What was found, as text.
///
/// # Errors
/// What the gateway says.
pub(super) fn text(shared: &Shared) -> Result<String> {
    let health = shared.outcome().into();
    let scrape = Scrape {
        top: shared.top(Top {})?,
        health,
    };
    let mut registry = Registry::with_prefix("cangw");
    registry.register_collector(Box::new(scrape));
    let mut text = String::new();
    encode(&mut text, &registry)
        .map_err(|e| Error::io("write metrics", std::io::Error::other(e)))?;
    Ok(text)
}

/// What became of the frames of a rule: all counters of `cangw stats` that are not sums of others.
fn results(rule: &RuleReport) -> [(&'static str, u64); 13] {
    [
        ("handled", rule.handled),
        ("dropped_refused", rule.dropped_refused),
        ("dropped_mtu", rule.dropped_mtu),
        ("dropped_waiting", rule.dropped_waiting),
        ("dropped_by_rule", rule.dropped_by_rule),
        ("dropped_over_rate", rule.dropped_over_rate),
        ("dropped_by_fault", rule.dropped_by_fault),
        ("deleted_hop_limit", rule.deleted_hop_limit),
        ("deleted_too_long", rule.deleted_too_long),
        ("skipped_origin", rule.skipped_origin),
        ("duplicated", rule.duplicated),
        ("corrupted", rule.corrupted),
        ("rate_shared", rule.rate_shared),
    ]
}

fn peer_labels<'a>(tunnel: &'a TunnelReport, peer: &'a PeerReport) -> Vec<(&'static str, &'a str)> {
    vec![
        ("topology", &tunnel.topology),
        ("tunnel", &tunnel.name),
        ("peer", &peer.address),
    ]
}

struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn family<'a>(
        &mut self,
        (name, help): (&str, &str),
        kind: MetricType,
        samples: impl IntoIterator<Item = Sample<'a>>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in samples {
            let metric = family.encode_family(&labels)?;
            match kind {
                MetricType::Counter => ConstCounter::new(value).encode(metric)?,
                _ => ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(metric)?,
            }
        }
        Ok(())
    }

    fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = Sample<'a>>,
    ) -> fmt::Result {
        self.family((name, help), MetricType::Counter, samples)
    }

    fn gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = Sample<'a>>,
    ) -> fmt::Result {
        self.family((name, help), MetricType::Gauge, samples)
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer(encoder);
        self.rules(&mut writer)?;
        self.interfaces(&mut writer)?;
        self.ports(&mut writer)?;
        self.tunnels(&mut writer)?;
        self.federations(&mut writer)?;
        self.daemon(&mut writer)
    }
}

impl Scrape {
    fn rules(&self, writer: &mut Writer<'_>) -> fmt::Result {
        // Rules can be the same; a set of labels may come only once.
        let mut rules: BTreeMap<(String, &str), BTreeMap<&'static str, u64>> = BTreeMap::new();
        let mut bytes: BTreeMap<(String, &str), u64> = BTreeMap::new();
        for rule in &self.top.report.rules {
            let key = (rule.rule.to_string(), rule.topology.as_str());
            *bytes.entry(key.clone()).or_default() += rule.bytes;
            let sums = rules.entry(key).or_default();
            for (result, frames) in results(rule) {
                *sums.entry(result).or_default() += frames;
            }
        }
        let samples = rules.iter().flat_map(|((rule, topology), sums)| {
            sums.iter().map(move |(result, frames)| {
                let labels = vec![
                    ("rule", rule.as_str()),
                    ("topology", *topology),
                    ("result", *result),
                ];
                (labels, *frames)
            })
        });
        writer.counters(
            "rule_frames",
            "Frames by rule, and what became of them",
            samples,
        )?;
        let samples = bytes.iter().map(|((rule, topology), bytes)| {
            let labels = vec![("rule", rule.as_str()), ("topology", *topology)];
            (labels, *bytes)
        });
        writer.counters(
            "rule_bytes",
            "Data bytes of the frames that a rule gave to its target, as they came",
            samples,
        )?;
        let waiting = self.top.report.rules.iter();
        let waiting = waiting.filter(|rule| rule.waiting_for.is_some()).count();
        let samples = [
            (
                vec![("state", "in force")],
                (self.top.report.rules.len() - waiting) as u64,
            ),
            (vec![("state", "waiting")], waiting as u64),
        ];
        writer.gauges("rules", "Rules", samples)
    }

    fn interfaces(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let reasons = self.top.report.interfaces.iter().flat_map(|interface| {
            let shared = ("refused_shared", interface.refused_shared);
            let reasons = interface.reasons.iter();
            let reasons = reasons.map(|(reason, frames)| (reason.as_ref(), *frames));
            reasons.chain([shared]).map(|(reason, frames)| {
                let labels = vec![("interface", interface.name.as_str()), ("reason", reason)];
                (labels, frames)
            })
        });
        writer.counters(
            "interface_frames",
            "Frames on an interface that no rule took, by reason",
            reasons,
        )?;
        let filters = self.top.report.interfaces.iter();
        let filters = filters.map(|i| (vec![("interface", i.name.as_str())], i.filters.into()));
        writer.gauges(
            "filters",
            "Filters of tc that carry out the rules of an interface",
            filters,
        )?;
        let watched = self.top.watched.iter();
        let watched = watched.map(|(name, ids)| {
            let labels = vec![("interface", name.as_str())];
            (labels, ids.len() as u64)
        });
        writer.gauges(
            "watched_ids",
            "Identifiers that are recorded on an interface; 16,384 on all",
            watched,
        )?;
        for (name, help, counts) in [
            (
                "link_frames",
                "Frames on a CAN interface",
                (|link| (link.rx_frames, link.tx_frames)) as fn(&CanStatus) -> (u64, u64),
            ),
            ("link_bytes", "Bytes of data on a CAN interface", |link| {
                (link.rx_bytes, link.tx_bytes)
            }),
            (
                "link_dropped",
                "Frames that the kernel or a driver dropped",
                |link| (link.rx_dropped, link.tx_dropped),
            ),
            ("link_errors", "Errors on a CAN interface", |link| {
                (link.rx_errors, link.tx_errors)
            }),
        ] {
            let samples = self.top.links.iter().flat_map(|link| {
                let (rx, tx) = counts(link);
                [("rx", rx), ("tx", tx)].map(|(direction, count)| {
                    let labels = vec![("interface", link.name.as_str()), ("direction", direction)];
                    (labels, count)
                })
            });
            writer.counters(name, help, samples)?;
        }
        let up = self.top.links.iter();
        let up = up.map(|link| (vec![("interface", link.name.as_str())], u64::from(link.up)));
        writer.gauges("link_up", "Whether a CAN interface is up", up)?;
        let states = self.top.links.iter().filter_map(|link| {
            let state = link.state?;
            Some(BusState::ALL.map(|each| {
                let labels = vec![("interface", link.name.as_str()), ("state", each.name())];
                (labels, u64::from(each == state))
            }))
        });
        writer.gauges(
            "bus_state",
            "The state of a controller on its bus: 1 for the one that it is in",
            states.flatten(),
        )
    }

    fn ports(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let networks = self.top.networks.iter();
        let ports: Vec<(&str, String, &PortReport)> = networks
            .flat_map(|network| {
                let ports = network.ports.iter();
                ports.map(|port| (short(&network.id), port.name(), port))
            })
            .collect();
        let frames = ports.iter().flat_map(|(network, name, port)| {
            let counts = [("sent", port.sent), ("received", port.received)];
            counts.map(|(direction, count)| {
                let port = [("network", *network), ("port", name.as_str())];
                ([&port[..], &[("direction", direction)]].concat(), count)
            })
        });
        writer.counters(
            "port_frames",
            "Frames that an interface on a containers' network sent and was given",
            frames,
        )?;
        let kept_back = ports.iter().flat_map(|(network, name, port)| {
            port.kept_back().map(|(reason, count)| {
                let port = [("network", *network), ("port", name.as_str())];
                ([&port[..], &[("reason", reason)]].concat(), count)
            })
        });
        writer.counters(
            "port_kept_back_frames",
            "Frames that the limits of an interface on a containers' network kept back",
            kept_back,
        )
    }

    fn tunnels(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let tunnels = self.top.topologies.iter().flat_map(|t| &t.tunnels);
        let peers: Vec<(&TunnelReport, &PeerReport)> = tunnels
            .flat_map(|tunnel| tunnel.peers.iter().map(move |peer| (tunnel, peer)))
            .collect();
        let up = peers.iter().map(|(tunnel, peer)| {
            let is_up = u64::from(peer.state == PeerState::Connected);
            (peer_labels(tunnel, peer), is_up)
        });
        writer.gauges(
            "tunnel_peer_connected",
            "Whether a peer of a tunnel is there",
            up,
        )?;
        let events = peers.iter().flat_map(|(tunnel, peer)| {
            let counters = peer.counters.all().into_iter();
            counters.map(|(event, count)| {
                let mut labels = peer_labels(tunnel, peer);
                labels.push(("event", event));
                (labels, count)
            })
        });
        writer.gauges(
            "tunnel_peer_events",
            "What became of the frames and datagrams of a tunnel's peer; lost ones are counted back when they come late",
            events,
        )
    }

    fn federations(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let topologies = self.top.topologies.iter();
        let all: Vec<&FederationReport> = topologies.flat_map(|t| &t.federation).collect();
        let hosts = || {
            let hosts = all.iter().flat_map(|federation| {
                let topology = federation.topology.as_str();
                federation.hosts.iter().map(move |host| (topology, host))
            });
            hosts.map(|(topology, host)| {
                let labels = vec![("topology", topology), ("host", host.host.as_str())];
                (labels, host)
            })
        };
        let up =
            hosts().map(|(labels, host)| (labels, u64::from(host.state == HostState::Connected)));
        writer.gauges(
            "federation_host_connected",
            "Whether a host that shares buses is there",
            up,
        )?;
        let events = hosts().flat_map(|(labels, host)| {
            host.received.iter().flat_map(move |(bus, received)| {
                let labels = labels.clone();
                received.all().into_iter().map(move |(event, count)| {
                    let more = [("bus", bus.as_str()), ("event", event)];
                    (labels.iter().copied().chain(more).collect(), count)
                })
            })
        });
        writer.counters(
            "federation_received_events",
            "What became of the frames of another host",
            events,
        )?;
        let sent = all.iter().flat_map(|federation| {
            federation.buses.iter().flat_map(move |(bus, report)| {
                report.sent.all().into_iter().map(move |(event, count)| {
                    let topology = federation.topology.as_str();
                    let labels = vec![
                        ("topology", topology),
                        ("bus", bus.as_str()),
                        ("event", event),
                    ];
                    (labels, count)
                })
            })
        });
        writer.counters(
            "federation_sent_events",
            "What became of the frames of a bus on their way to other hosts",
            sent,
        )
    }

    fn daemon(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let lost = self.top.topologies.iter().flat_map(|topology| {
            topology.buses.iter().map(|(bus, report)| {
                let labels = vec![("topology", topology.name.as_str()), ("bus", bus.as_str())];
                (labels, report.lost)
            })
        });
        writer.counters(
            "bus_lost_frames",
            "Frames of a virtual bus that some of its ports missed",
            lost,
        )?;
        for (name, help, value) in [
            (
                "topologies",
                "Topologies that are kept",
                self.health.topologies.len(),
            ),
            (
                "failures",
                "What could not be done in the last pass",
                self.health.errors.len(),
            ),
        ] {
            writer.gauges(name, help, [(Vec::new(), value as u64)])?;
        }
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        writer.gauges("build_info", "The version of cangwd", [(version, 1)])
    }
}
