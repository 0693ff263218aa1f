//! Options of containers' networks, and what netavark says of a network. What is taken does what it says; what is not is refused in words.

use std::path::Path;

use cangw::containers::fabric::Kernel;
use cangw::containers::netavark;
use cangw::containers::networks::Networks;
use cangw::containers::options::{Given, NetworkOptions, PortOptions};
use serde_json::Value;

use super::{Target, outcome, refused};

const WORDS: &[&str] = &[
    "\"fd\": \"true\"",
    "\"xl\": \"false\"",
    "\"prefix\": \"can\"",
    "\"allow\": \"100-1FF,7DF\"",
    "\"filter\": \"18DAF100-18DAF1FF\"",
    "\"rate\": \"10/s\"",
    "\"bus\": \"car.body\"",
    "\"host_if\": \"can0\"",
    "00000000",
    "1FFFFFFF",
    "7FF",
    "-",
    "+",
    ", ",
    "{",
    "}",
    "\"ipam_options\": {\"driver\": \"none\"}",
    "\"subnets\": []",
    "null",
];

/// How a frame with an identifier begins.
fn head(id: u32, extended: bool) -> [u8; 8] {
    let id = id | if extended { 0x8000_0000 } else { 0 };
    let [a, b, c, d] = id.to_ne_bytes();
    [a, b, c, d, 8, 0, 0, 0]
}

/// A port sends what `allow` names and nothing next to it, unless another range has that.
fn check(options: &PortOptions) {
    for bus_mtu in [16, 72, 2060] {
        let limits = options.limits(bus_mtu);
        let is_smaller = options.mtu() < bus_mtu;
        let limited = !options.allow.is_empty() || !options.filter.is_empty();
        let is_limited = is_smaller || limited || options.rate.is_some();
        assert_eq!(limits.is_some(), is_limited);
        let Some(limits) = limits else {
            continue;
        };
        assert_eq!(limits.mtu != 0, is_smaller);
        for (ranges, set) in [
            (&options.allow, &limits.send),
            (&options.filter, &limits.receive),
        ] {
            let named = |id: u32, extended: bool| {
                let mut ranges = ranges.iter();
                ranges.any(|r| r.extended == extended && (r.first..=r.last).contains(&id))
            };
            for range in ranges {
                let near = [
                    range.first,
                    range.last,
                    range.first.wrapping_sub(1),
                    range.last + 1,
                ];
                for id in near {
                    let highest = if range.extended { 0x1FFF_FFFF } else { 0x7FF };
                    if id <= highest {
                        let has = set.has(head(id, range.extended));
                        assert_eq!(has, named(id, range.extended), "{id:X}");
                    }
                }
            }
        }
    }
}

pub(super) fn targets() -> Vec<Target> {
    vec![Target {
        name: "containers",
        run: |input| {
            let networks = Networks::new(Path::new("/nonexistent"), Kernel);
            let created = match netavark::respond(&networks, &["create"], input) {
                Ok(network) => {
                    let network = network.expect("an answer").to_string();
                    let again = netavark::respond(&networks, &["create"], network.as_bytes());
                    let again = again.expect("it was taken before").expect("an answer");
                    assert_eq!(again.to_string(), network);
                    1
                }
                Err(e) => refused(&e),
            };
            let Ok(value) = serde_json::from_slice::<Value>(input) else {
                return created;
            };
            let Ok(given) = serde_json::from_value::<Given>(value["options"].clone()) else {
                return created;
            };
            match NetworkOptions::parse(&given) {
                Err(e) => outcome((created, refused(&e))),
                Ok(options) => {
                    check(&options.ports);
                    outcome((created, format!("{options:?}")))
                }
            }
        },
        seeds: || {
            let seeds = [
                r#"{"id": "ab", "name": "n", "options": {"fd": "true", "allow": "100-1FF,7DF", "rate": "10/s"}, "ipam_options": {"driver": "none"}}"#,
                r#"{"id": "ab", "options": {"filter": "18DAF100-18DAF1FF+000", "bus": "car.body", "host_if": "can0", "prefix": "c"}}"#,
                r#"{"id": "ab", "subnets": [{"subnet": "10.0.0.0/8"}]}"#,
            ];
            seeds.map(|text| text.as_bytes().to_vec()).to_vec()
        },
        words: WORDS,
    }]
}
