//! Metrics are the counters.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use cangw_tests::daemon::Daemon;
use cangw_tests::frame::Frame;
use cangw_tests::namespace::Namespace;
use cangw_tests::socket::CanSocket;
use cangw_tests::tool::{Cangw, Listed, json};
use openmetrics_parser::openmetrics::parse_openmetrics;
use openmetrics_parser::{LabelSet, MetricNumber, OpenMetricsValue};
use serde_json::Value;

use crate::daemon::{Down, File};
use crate::topologies::TWO_BUSES;

/// What a strict parser reads is what `cangw stats` says.
#[test]
fn metrics_are_the_counters() {
    let gateway = Namespace::new("api");
    let _down = Down(&gateway);
    let file = File::new(TWO_BUSES);
    let port = "127.0.0.1:9465";
    let path = "/tmp/cangw-metrics.sock";
    let refused = Daemon::spawn(&gateway, &[file.path(), "--metrics", "0.0.0.0:9465"]).wait();
    assert!(!refused.success());
    for address in [port, path] {
        let _daemon = Daemon::start(&gateway, &[file.path(), "--metrics", address]);
        let engine = CanSocket::open(&Namespace::of_others("car.engine"), "can0");
        let dashboard = CanSocket::open(&Namespace::of_others("car.dashboard"), "can0");
        for id in [0xC8, 0xC8, 0x1F0, 0x700] {
            engine.send(&Frame::classic(id, &[1]));
        }
        for _ in 0..3 {
            let _ = dashboard.receive();
        }
        let text = gateway.enter(|| scrape(address, "/metrics"));
        let stats = json(&gateway, "stats --json");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("application/openmetrics-text"), "{head}");
        let metrics = parse_openmetrics(body).unwrap_or_else(|e| panic!("{e}:\n{body}"));
        let value = |family: &str, labels: &[(&str, &str)]| -> u64 {
            let family = &metrics.families[family];
            let is_it = |set: &LabelSet| {
                let mut labels = labels.iter();
                labels.all(|(name, value)| set.get_label_value(name) == Some(value))
            };
            let mut samples = family.iter_samples();
            let sample = samples.find(|s| s.get_labelset().is_ok_and(|set| is_it(&set)));
            let number = match &sample.expect("a sample").value {
                OpenMetricsValue::Counter(counter) => &counter.value,
                OpenMetricsValue::Gauge(number) => number,
                other => panic!("{other:?}"),
            };
            match number {
                MetricNumber::Int(number) => *number as u64,
                MetricNumber::Float(number) => *number as u64,
            }
        };
        let rules = stats["rules"].as_array().expect("rules");
        assert_eq!(rules.len(), 3);
        let listed = Cangw::Ours.list(&gateway);
        for (rule, Listed { rule: text, .. }) in rules.iter().zip(&listed) {
            for result in [
                "handled",
                "dropped_refused",
                "dropped_over_rate",
                "skipped_origin",
            ] {
                let labels = [
                    ("rule", text.trim_end()),
                    ("topology", "car"),
                    ("result", result),
                ];
                let found = value("cangw_rule_frames", &labels);
                assert_eq!(Value::from(found), rule[result], "{labels:?}");
            }
            let labels = [("rule", text.trim_end()), ("topology", "car")];
            let found = value("cangw_rule_bytes", &labels);
            assert_eq!(Value::from(found), rule["bytes"], "{labels:?}");
        }
        for interface in stats["interfaces"].as_array().expect("interfaces") {
            let name = interface["name"].as_str().expect("a name");
            for (reason, frames) in interface["reasons"].as_object().expect("reasons") {
                let labels = [("interface", name), ("reason", reason)];
                let found = value("cangw_interface_frames", &labels);
                assert_eq!(Value::from(found), *frames, "{labels:?}");
            }
        }
        assert!(
            value(
                "cangw_link_frames",
                &[("interface", "body"), ("direction", "tx")]
            ) >= 3
        );
        assert_eq!(value("cangw_rules", &[("state", "in force")]), 3);
        assert!(value("cangw_filters", &[("interface", "powertrain")]) > 1);
        assert_eq!(value("cangw_link_up", &[("interface", "body")]), 1);
        assert_eq!(value("cangw_topologies", &[]), 1);
        let other = gateway.enter(|| scrape(address, "/"));
        assert!(other.starts_with("HTTP/1.1 404 "), "{other}");
    }
    let _ = fs::remove_file(path);
}

/// What comes by HTTP from an address or a path.
fn scrape(address: &str, page: &str) -> String {
    let request = format!("GET {page} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut text = String::new();
    if address.starts_with('/') {
        let mut stream = UnixStream::connect(address).expect("a server");
        stream.write_all(request.as_bytes()).expect("a request");
        stream.read_to_string(&mut text).expect("a page");
    } else {
        let mut stream = TcpStream::connect(address).expect("a server");
        stream.write_all(request.as_bytes()).expect("a request");
        stream.read_to_string(&mut text).expect("a page");
    }
    text
}
