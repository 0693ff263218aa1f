//! What a federation is told: a table of a topology's file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use cangw_common::frame::{EFF_FLAG, EFF_MASK, RTR_FLAG};
use serde::{Deserialize, Serialize};

use crate::as_text::as_text;
use crate::containers::options::PortOptions;
use crate::ids::IdRange;
use crate::limits::Rate;
use crate::tunnel::config::{Span, Wrong, check_flush};
use crate::tunnel::endpoint::host_and_port;
use crate::tunnel::tls;

const FLUSH: Duration = Duration::from_millis(1);
const MAX_AGE: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(10);
/// Shorter ones would take pauses of a network for losses.
const SHORTEST_LEASE: Duration = Duration::from_secs(1);
/// Zenoh's port.
const PORT: u16 = 7447;
/// Bytes of a name of a realm or a host.
const LONGEST_NAME: usize = 63;

/// How this host takes part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// With all others that it is connected to.
    #[default]
    Peer,
    /// Through a router.
    Client,
    /// And carries what others send.
    Router,
}

impl Mode {
    /// As in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Client => "client",
            Self::Router => "router",
        }
    }
}

/// `tcp://HOST:PORT` or `tls://HOST:PORT`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locator {
    /// Whether by TLS.
    pub is_safe: bool,
    /// A name, or an address; IPv6 without its brackets.
    pub host: String,
    /// 7447 when none is given.
    pub port: u16,
}

impl Locator {
    fn scheme(&self) -> &'static str {
        if self.is_safe { "tls" } else { "tcp" }
    }

    /// `HOST:PORT`, an IPv6 address in brackets.
    #[must_use]
    pub fn place(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }
}

impl FromStr for Locator {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "{text:?}: {why}; expected such as tls://gateway.example:7447 or tcp://[fd00::7]:7447"
            )
        };
        let (is_safe, rest) = match text.split_once("://") {
            Some(("tcp", rest)) => (false, rest),
            Some(("tls", rest)) => (true, rest),
            _ => return Err(wrong("neither tcp:// nor tls:// is before the address")),
        };
        let (host, port) = host_and_port(rest).map_err(|why| wrong(&why))?;
        let port = port.unwrap_or(PORT);
        let host = host.to_owned();
        Ok(Self {
            is_safe,
            host,
            port,
        })
    }
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.place())
    }
}

as_text!(Locator);

/// A federation as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FederationTable {
    /// Hosts with the same realm share buses.
    pub realm: Option<String>,
    /// This host's name.
    pub host: Option<String>,
    /// How it takes part.
    pub mode: Mode,
    /// Where others come to.
    pub listen: Vec<Locator>,
    /// Others to which it goes.
    pub connect: Vec<Locator>,
    /// Whether it looks for others on the local network.
    pub scout: bool,
    /// Whether it connects to hosts of which others tell.
    pub gossip: bool,
    /// How long a frame waits for others, at most.
    pub flush: Option<Span>,
    /// Frames that are older are thrown away.
    pub max_age: Option<Span>,
    /// Silence after which a host is lost.
    pub lease: Option<Span>,
    /// By TLS: file of this host's certificate (PEM).
    pub certificate: Option<PathBuf>,
    /// By TLS: that of its key.
    pub key: Option<PathBuf>,
    /// By TLS: that of the authorities that vouch for others.
    pub ca: Option<PathBuf>,
    /// By TLS: hosts that may take part, by the names in their certificates.
    pub hosts: Vec<String>,
    /// By TLS: those that may also carry what others send.
    pub routers: Vec<String>,
    /// The buses that are shared.
    pub bus: BTreeMap<String, BusTable>,
}

/// A bus that is shared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BusTable {
    /// Identifiers that come from other hosts.
    pub allow: Vec<IdRange>,
    /// Identifiers that go to other hosts.
    pub filter: Vec<IdRange>,
    /// Frames that come from all other hosts together.
    pub rate: Option<Rate>,
    /// Identifiers that are sent ahead of all others.
    pub realtime: Vec<IdRange>,
}

/// Files of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// This host's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities.
    pub ca: PathBuf,
}

/// A bus that is shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bus {
    /// What its port keeps back.
    pub limits: PortOptions,
    /// Identifiers that are sent ahead of all others.
    pub realtime: Vec<IdRange>,
}

impl Bus {
    /// Whether frames with an identifier (with the flags of `linux/can.h`) are sent ahead of all others.
    #[must_use]
    pub fn is_realtime(&self, id: u32) -> bool {
        let (extended, plain) = (id & EFF_FLAG != 0, id & !RTR_FLAG & EFF_MASK);
        let mut ranges = self.realtime.iter();
        ranges
            .any(|range| range.extended == extended && (range.first..=range.last).contains(&plain))
    }
}

/// A federation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Federation {
    /// Hosts with the same realm share buses.
    pub realm: String,
    /// This host's name.
    pub host: String,
    /// How it takes part.
    pub mode: Mode,
    /// Where others come to.
    pub listen: Vec<Locator>,
    /// Others to which it goes.
    pub connect: Vec<Locator>,
    /// Whether it looks for others on the local network.
    pub scout: bool,
    /// Whether it connects to hosts of which others tell.
    pub gossip: bool,
    /// How long a frame waits for others, at most.
    pub flush: Duration,
    /// Frames that are older are thrown away.
    pub max_age: Duration,
    /// Silence after which a host is lost.
    pub lease: Duration,
    /// Who is who by TLS.
    pub files: Option<Files>,
    /// Hosts that may take part; all whom the authorities know when both are empty.
    pub hosts: Vec<String>,
    /// Those that may also carry what others send.
    pub routers: Vec<String>,
    /// The buses that are shared.
    pub buses: BTreeMap<String, Bus>,
}

/// Whether a text can be the name of a realm or a host, which is a part of keys.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let may_be = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let begins = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    begins && text.len() <= LONGEST_NAME && text.bytes().all(may_be)
}

fn name(text: &str) -> Result<String, String> {
    if is_name(text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is no name: at most {LONGEST_NAME} letters, digits, `-`, `_` and `.`, the first a letter or digit"
    ))
}

/// What this machine calls itself.
#[must_use]
pub fn machine() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

impl FederationTable {
    /// The federation of a topology's buses.
    ///
    /// # Errors
    /// The key that is wrong, and why.
    pub fn check(&self, topology: &str) -> Result<Federation, Wrong> {
        let realm = self.realm.as_deref().unwrap_or(topology);
        let machine = machine();
        let host = self.host.as_deref().unwrap_or(&machine);
        let flush = self.flush.map_or(FLUSH, |span| span.0);
        let max_age = self.max_age.map_or(MAX_AGE, |span| span.0);
        let lease = self.lease.map_or(LEASE, |span| span.0);
        if max_age < Duration::from_millis(1) {
            return Err(("max_age", "is at least 1ms".into()));
        }
        check_flush(flush, max_age, self.flush.is_some())?;
        if lease < SHORTEST_LEASE {
            return Err(("lease", format!("is at least {}", Span(SHORTEST_LEASE))));
        }
        if self.bus.is_empty() && self.mode != Mode::Router {
            return Err((
                "",
                "a federation shares buses: one [federation.bus.NAME] for each; only a router can do without".into(),
            ));
        }
        self.check_places()?;
        let buses = self.bus.iter().map(|(name, bus)| {
            let bus = bus.check().map_err(|message| ("bus", message))?;
            Ok((name.clone(), bus))
        });
        Ok(Federation {
            realm: name(realm).map_err(|message| ("realm", message))?,
            host: name(host).map_err(|message| ("host", message))?,
            mode: self.mode,
            listen: self.listen.clone(),
            connect: self.connect.clone(),
            scout: self.scout,
            gossip: self.gossip,
            flush,
            max_age,
            lease,
            files: self.files()?,
            hosts: self.hosts.clone(),
            routers: self.routers.clone(),
            buses: buses.collect::<Result<_, Wrong>>()?,
        })
    }

    /// Where others are, as the mode needs it.
    fn check_places(&self) -> Result<(), Wrong> {
        let (listens, connects) = (!self.listen.is_empty(), !self.connect.is_empty());
        match self.mode {
            Mode::Client if listens => Err(("listen", "a client only connects".into())),
            Mode::Client if !connects => Err((
                "connect",
                "a client needs its routers, such as `connect = [\"tls://gateway.example\"]`"
                    .into(),
            )),
            Mode::Router if !listens => Err((
                "listen",
                "a router needs it, such as `listen = [\"tls://0.0.0.0:7447\"]`".into(),
            )),
            Mode::Peer if !listens && !connects && !self.scout => Err((
                "",
                "nobody would be found: `listen`, `connect` or `scout = true` is missing".into(),
            )),
            _ => Ok(()),
        }?;
        let listen = self
            .listen
            .iter()
            .find(|l| l.host.parse::<std::net::IpAddr>().is_err());
        if let Some(locator) = listen {
            return Err((
                "listen",
                format!(
                    "{} is no address of this host; expected such as 0.0.0.0, [::] or one of its addresses",
                    locator.host
                ),
            ));
        }
        if let Some(locator) = self.connect.iter().find(|locator| locator.port == 0) {
            return Err(("connect", format!("{locator}: port 0 is nobody's")));
        }
        Ok(())
    }

    fn files(&self) -> Result<Option<Files>, Wrong> {
        let places = || self.listen.iter().chain(&self.connect);
        let is_safe = places().any(|locator| locator.is_safe);
        let files = [
            ("certificate", &self.certificate),
            ("key", &self.key),
            ("ca", &self.ca),
        ];
        if !is_safe {
            let lists = [("hosts", &self.hosts), ("routers", &self.routers)];
            let lists = lists.iter().filter(|(_, list)| !list.is_empty());
            let given = files.iter().filter(|(_, file)| file.is_some());
            let key = given
                .map(|(key, _)| *key)
                .chain(lists.map(|(key, _)| *key))
                .next();
            return match key {
                Some(key) => Err((key, "is for tls://".into())),
                None => Ok(None),
            };
        }
        if let Some(locator) = places().find(|locator| !locator.is_safe) {
            let key = if self.listen.contains(locator) {
                "listen"
            } else {
                "connect"
            };
            return Err((
                key,
                format!(
                    "{locator} lets in whom no certificate names; beside tls://, everything is by tls://"
                ),
            ));
        }
        if self.scout {
            return Err((
                "scout",
                "would find whom no certificate names; by tls://, others are named by `connect`"
                    .into(),
            ));
        }
        for (key, file) in files {
            if file.is_none() {
                return Err((
                    key,
                    "by tls://, both ends show certificates: `certificate`, `key` and `ca` are files in PEM".into(),
                ));
            }
        }
        for (key, list) in [("hosts", &self.hosts), ("routers", &self.routers)] {
            for host in list {
                name(host).map_err(|message| (key, message))?;
            }
        }
        let (certificate, key, ca) = (&self.certificate, &self.key, &self.ca);
        Ok(certificate.as_ref().zip(key.as_ref()).zip(ca.as_ref()).map(
            |((certificate, key), ca)| Files {
                certificate: certificate.clone(),
                key: key.clone(),
                ca: ca.clone(),
            },
        ))
    }

    /// Lets paths of files begin at a folder; without one, it can have no files.
    pub(crate) fn place_files(&mut self, folder: Option<&Path>) -> Result<(), &'static str> {
        let files = [&mut self.certificate, &mut self.key, &mut self.ca];
        tls::place(files, folder)
    }
}

impl BusTable {
    fn check(&self) -> Result<Bus, String> {
        let limits = PortOptions {
            fd: true,
            xl: true,
            prefix: None,
            allow: self.allow.clone(),
            filter: self.filter.clone(),
            rate: self.rate,
        };
        let wrong = |(key, message)| format!("{key} {message}");
        limits.check().map_err(wrong)?;
        Ok(Bus {
            limits,
            realtime: self.realtime.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Federation, String> {
        let table: FederationTable = toml::from_str(text).map_err(|e| e.to_string())?;
        let checked = table.check("car");
        checked.map_err(|(key, message)| format!("{key}: {message}"))
    }

    #[test]
    fn defaults() {
        let federation = check("connect = [\"tcp://[fd00::7]\"]\n[bus.powertrain]\n[bus.body]")
            .expect("a federation");
        assert_eq!(federation.realm, "car");
        assert_eq!(federation.host, machine());
        assert_eq!(federation.mode, Mode::Peer);
        assert_eq!(federation.connect[0].to_string(), "tcp://[fd00::7]:7447");
        assert!(
            federation.listen.is_empty() && !federation.scout,
            "nobody comes in"
        );
        assert_eq!((federation.max_age, federation.lease), (MAX_AGE, LEASE));
        assert_eq!(federation.files, None);
        assert!(federation.buses.keys().eq(["body", "powertrain"]));
    }

    #[test]
    fn realtime_identifiers() {
        let text = "scout = true\n[bus.b]\nrealtime = [\"0C8-0CF\", \"18FEF100\"]";
        let federation = check(text).expect("a federation");
        let bus = &federation.buses["b"];
        for (id, is) in [
            (0xC8, true),
            (0xCF | RTR_FLAG, true),
            (0xC8 | EFF_FLAG, false),
            (0x18FE_F100 | EFF_FLAG, true),
            (0xC7, false),
        ] {
            assert_eq!(bus.is_realtime(id), is, "{id:X}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let tls = "certificate = \"c\"\nkey = \"k\"\nca = \"a\"\n";
        let refused = [
            (
                "scout = true".to_owned(),
                "one [federation.bus.NAME] for each",
            ),
            ("[bus.b]".into(), "`listen`, `connect` or `scout"),
            (
                "mode = \"client\"\nscout = true\n[bus.b]".into(),
                "connect: a client needs",
            ),
            (
                "mode = \"client\"\nlisten = [\"tcp://0.0.0.0\"]\n[bus.b]".into(),
                "listen: a client only",
            ),
            (
                "mode = \"router\"\nconnect = [\"tcp://a\"]\n[bus.b]".into(),
                "listen: a router needs",
            ),
            (
                "listen = [\"tcp://gateway\"]\n[bus.b]".into(),
                "listen: gateway is no address",
            ),
            (
                "connect = [\"tcp://a:0\"]\n[bus.b]".into(),
                "connect: tcp://a:0: port 0",
            ),
            (
                "connect = [\"udp://a\"]\n[bus.b]".into(),
                "neither tcp:// nor tls://",
            ),
            (
                "connect = [\"tcp://a b\"]\n[bus.b]".into(),
                "neither a name nor an address",
            ),
            (
                "scout = true\nrealm = \"a/b\"\n[bus.b]".into(),
                "realm: \"a/b\" is no name",
            ),
            (
                "scout = true\nhost = \"@b\"\n[bus.b]".into(),
                "host: \"@b\" is no name",
            ),
            (
                "scout = true\nlease = \"10ms\"\n[bus.b]".into(),
                "lease: is at least 1s",
            ),
            (
                "scout = true\nmax_age = \"0s\"\n[bus.b]".into(),
                "max_age: is at least",
            ),
            (
                "scout = true\nhosts = [\"b\"]\n[bus.b]".into(),
                "hosts: is for tls",
            ),
            ("scout = true\nca = \"b\"\n[bus.b]".into(), "ca: is for tls"),
            (
                "connect = [\"tls://a\"]\n[bus.b]".into(),
                "certificate: by tls://, both ends",
            ),
            (
                format!("{tls}connect = [\"tls://a\"]\nlisten = [\"tcp://0.0.0.0\"]\n[bus.b]"),
                "listen: tcp://0.0.0.0:7447 lets in",
            ),
            (
                format!("{tls}connect = [\"tls://a\"]\nscout = true\n[bus.b]"),
                "scout: would find",
            ),
            (
                format!("{tls}connect = [\"tls://a\"]\nhosts = [\"*\"]\n[bus.b]"),
                "hosts: \"*\" is no name",
            ),
            (
                "scout = true\n[bus.b]\nspeed = 3".into(),
                "unknown field `speed`",
            ),
        ];
        for (text, part) in refused {
            let error = check(&text).expect_err(&text);
            assert!(error.contains(part), "{text}\n{error}");
        }
    }
}
