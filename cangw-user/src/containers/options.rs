//! What can be said of a network and of its ports: `-o KEY=VALUE`.

use std::collections::BTreeMap;
use std::str::FromStr;

use cangw_common::abi::{HubPort, ID_RANGES, IdSet, RECEIVES_SOME, SENDS_SOME};
use cangw_common::frame::FrameType;

use crate::error::{Error, Result};
use crate::ids::IdRange;
use crate::limits::Rate;
use crate::rule::is_interface_name;

/// The options of a network or of a port, as they were given.
pub type Given = BTreeMap<String, String>;

/// Keys of a network alone.
const OF_NETWORK: [&str; 2] = ["bus", "host_if"];
/// Keys of a port; a network's hold for all of its ports that do not say otherwise.
const OF_PORT: [&str; 6] = ["fd", "xl", "prefix", "allow", "filter", "rate"];
/// What may follow a prefix.
const NUMBER: &str = "255";

/// A network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkOptions {
    /// The bus of a topology that it is, `BUS` or `TOPOLOGY.BUS`; `None` for one of its own.
    pub bus: Option<String>,
    /// Name of the host's interface on it.
    pub host_if: Option<String>,
    /// Of its ports.
    pub ports: PortOptions,
}

/// A port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortOptions {
    /// Whether it carries CAN FD.
    pub fd: bool,
    /// Whether it carries CAN XL.
    pub xl: bool,
    /// What the name of its interface begins with.
    pub prefix: Option<String>,
    /// Identifiers that it may send; all when it is empty.
    pub allow: Vec<IdRange>,
    /// Identifiers that it gets; all when it is empty.
    pub filter: Vec<IdRange>,
    /// Frames that it may send.
    pub rate: Option<Rate>,
}

impl NetworkOptions {
    /// Reads them.
    ///
    /// # Errors
    /// The first option that is unknown or wrong, and what would be right.
    pub fn parse(given: &Given) -> Result<Self> {
        let mut known = OF_NETWORK.to_vec();
        known.extend(OF_PORT);
        require_known(given, &known)?;
        let host_if = given.get("host_if").cloned();
        if let Some(name) = &host_if
            && !is_interface_name(name)
        {
            return Err(wrong(
                "host_if",
                name,
                "a name for an interface, such as can0: at most 15 characters, no space and no `/`",
            ));
        }
        if let Some(bus) = given.get("bus")
            && !bus.split('.').all(crate::topology::is_name)
        {
            return Err(wrong(
                "bus",
                bus,
                "the name of a topology's bus, such as body or car.body",
            ));
        }
        Ok(Self {
            bus: given.get("bus").cloned(),
            host_if,
            ports: PortOptions::of(given)?,
        })
    }
}

impl PortOptions {
    /// Reads a port's, where the network's hold otherwise.
    ///
    /// # Errors
    /// As [`NetworkOptions::parse`].
    pub fn parse(given: &Given, network: &Given) -> Result<Self> {
        require_known(given, &OF_PORT)?;
        let mut all = network.clone();
        all.extend(given.clone());
        Self::of(&all)
    }

    fn of(given: &Given) -> Result<Self> {
        let prefix = given.get("prefix").cloned();
        if let Some(prefix) = &prefix
            && (prefix.is_empty()
                || prefix.ends_with(|c: char| c.is_ascii_digit())
                || !is_interface_name(&format!("{prefix}{NUMBER}")))
        {
            return Err(wrong(
                "prefix",
                prefix,
                "what interfaces' names begin with, such as can: at most 12 characters, no space and no `/`, and no digit at the end, because a number follows",
            ));
        }
        let rate = given.get("rate").map(|text| value("rate", text));
        let options = Self {
            fd: flag(given, "fd")?,
            xl: flag(given, "xl")?,
            prefix,
            allow: ranges(given, "allow")?,
            filter: ranges(given, "filter")?,
            rate: rate.transpose()?,
        };
        options.check().map_err(|(key, message)| Error::Container {
            message: format!("option {key} {message}"),
        })?;
        Ok(options)
    }

    /// Whether the bus's programs have room for its ranges.
    ///
    /// # Errors
    /// The option that has too many, and what to do.
    pub fn check(&self) -> std::result::Result<(), (&'static str, String)> {
        for (key, ranges) in [("allow", &self.allow), ("filter", &self.filter)] {
            if ranges.iter().filter(|range| range.extended).count() > ID_RANGES {
                return Err((
                    key,
                    format!("has at most {ID_RANGES} ranges of extended identifiers; join some"),
                ));
            }
        }
        Ok(())
    }

    /// The size of its largest frame, in bytes.
    #[must_use]
    pub fn mtu(&self) -> u32 {
        FrameType::longest(self.fd, self.xl).mtu()
    }

    /// What the bus's programs are to keep back, on a bus that carries frames of this size; `None` when nothing.
    #[must_use]
    pub fn limits(&self, bus_mtu: u32) -> Option<HubPort> {
        let mut port = HubPort::NONE;
        for (ranges, set, flag) in [
            (&self.allow, &mut port.send, SENDS_SOME),
            (&self.filter, &mut port.receive, RECEIVES_SOME),
        ] {
            if !ranges.is_empty() {
                fill(set, ranges);
                port.flags |= flag;
            }
        }
        if let Some(rate) = self.rate {
            port.interval = rate.interval();
            port.tolerance = rate.tolerance(rate.default_burst());
        }
        if self.mtu() < bus_mtu {
            port.mtu = self.mtu();
        }
        (port.is_limited() || port.has_outlet()).then_some(port)
    }
}

fn fill(set: &mut IdSet, ranges: &[IdRange]) {
    for range in ranges {
        if range.extended {
            // `check` has seen to it that there is room.
            if let Some(place) = set.extended.get_mut(set.ranges as usize) {
                *place = [range.first, range.last];
                set.ranges += 1;
            }
        } else {
            for id in range.first..=range.last {
                set.standard[(id / 64) as usize] |= 1 << (id % 64);
            }
        }
    }
}

fn require_known(given: &Given, known: &[&str]) -> Result<()> {
    let Some(key) = given.keys().find(|key| !known.contains(&key.as_str())) else {
        return Ok(());
    };
    let message = if OF_NETWORK.contains(&key.as_str()) {
        format!("option {key} is one of a network: `docker network create -o {key}=…`")
    } else {
        format!("there is no option {key}; there are {}", known.join(", "))
    };
    Err(Error::Container { message })
}

fn wrong(key: &str, text: &str, expected: &str) -> Error {
    Error::Container {
        message: format!("option {key}={text:?} is not {expected}"),
    }
}

fn value<T: FromStr<Err = crate::rule::ParseError>>(key: &str, text: &str) -> Result<T> {
    text.parse().map_err(|e| Error::Container {
        message: format!("option {key}={text:?}: {e}"),
    })
}

fn flag(given: &Given, key: &str) -> Result<bool> {
    match given.get(key).map(String::as_str) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(wrong(key, other, "true or false")),
    }
}

/// Ranges, separated by commas or, where options are separated by commas themselves (`docker network connect --driver-opt`), by `+`.
fn ranges(given: &Given, key: &str) -> Result<Vec<IdRange>> {
    let Some(text) = given.get(key) else {
        return Ok(Vec::new());
    };
    let texts = text.split([',', '+']).filter(|text| !text.is_empty());
    let ranges: Vec<IdRange> = texts.map(|text| value(key, text)).collect::<Result<_>>()?;
    if ranges.is_empty() {
        return Err(wrong(
            key,
            text,
            "a list of identifiers, such as 100-1FF,7DF",
        ));
    }
    Ok(ranges)
}
