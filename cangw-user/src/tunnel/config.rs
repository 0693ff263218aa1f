//! What a tunnel is told: a table of a topology's file, or what `cangw tunnel add` sends.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use cangw_common::frame::EFF_FLAG;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::endpoint::{Endpoint, Transport};
use super::outgoing::Packing;
use super::tls::{self, Files};
use super::web::Service;
use crate::as_text::as_text;
use crate::containers::options::PortOptions;
use crate::ids::IdRange;
use crate::kernel::hub::MAX_PORTS;
use crate::limits::Rate;
use crate::topology::is_name;

/// Bytes of IP packets, from what every IPv4 host takes (RFC 791) to the largest.
const MTUS: RangeInclusive<u16> = 576..=65_535;
/// cannelloni's defaults.
const MTU: u16 = 1500;
const FLUSH: Duration = Duration::from_millis(100);
const MAX_AGE: Duration = Duration::from_secs(1);
const STALE: Duration = Duration::from_secs(10);
const CLIENTS: u16 = 16;
/// Bytes of heads: IPv4, IPv6, UDP, SCTP with that of a chunk.
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;
const SCTP: usize = 28;
/// Bytes of a tunnel's name: with a mark and a number of three digits, it is an interface's.
const LONGEST_NAME: usize = 11;
/// Longest of all times.
const LONGEST: Duration = Duration::from_secs(3600);

/// A length of time as text: a whole number with its unit, `us`, `ms` or `s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

const UNITS: [(&str, u64); 3] = [("us", 1), ("ms", 1000), ("s", 1_000_000)];

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let unit = UNITS.iter().find(|(name, _)| *name == unit);
        let micros = unit.and_then(|(_, micros)| number.parse::<u64>().ok()?.checked_mul(*micros));
        let span = micros.map(Duration::from_micros);
        span.filter(|span| *span <= LONGEST)
            .map(Self)
            .ok_or_else(|| {
                format!("{text:?} is no time; expected such as 500us, 20ms or 2s, at most an hour")
            })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        let unit = UNITS
            .iter()
            .rev()
            .find(|(_, unit)| micros.is_multiple_of(u128::from(*unit)));
        let (name, unit) = unit.unwrap_or(&UNITS[0]);
        write!(f, "{}{name}", micros / u128::from(*unit))
    }
}

as_text!(Span);

/// A tunnel as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelTable {
    /// Its bus.
    pub bus: String,
    /// Where peers come to; of a client by UDP, where it sends from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<Endpoint>,
    /// The peer to which it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<Endpoint>,
    /// Networks of those that may come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<String>,
    /// How many may be there at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_clients: Option<u16>,
    /// How long a frame waits for others, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flush: Option<Span>,
    /// The same for single identifiers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub flush_ids: BTreeMap<String, Span>,
    /// Whether the frames of a datagram are in the order of their identifiers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sort: bool,
    /// Bytes of a packet, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Frames that are older are not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
    /// Silence after which a peer is stale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<Span>,
    /// How often a datagram without frames says that this end is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Span>,
    /// `wss`: the file of this end's certificate (PEM). A server needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// `wss`: that of its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// `wss`: that of the authorities that vouch for the other end. A client trusts those of its host without it; a server asks clients for certificates with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Pages of browsers that may come by `ws` and `wss`, such as `https://bench.example`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<String>,
    /// Identifiers that come from the network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<IdRange>,
    /// Identifiers that go there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filter: Vec<IdRange>,
    /// Frames that come from each peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Those that come to an address.
    Server {
        /// The address.
        listen: SocketAddr,
        /// Networks of those that may.
        clients: Vec<IpNet>,
        /// How many may be there at once.
        most: usize,
        /// Of a WebSocket: its path, and pages of browsers that may come.
        web: (String, Vec<String>),
    },
    /// One peer.
    Client {
        /// The peer.
        connect: Endpoint,
        /// The address to send from.
        from: Option<SocketAddr>,
    },
}

/// A tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Its bus.
    pub bus: String,
    /// How frames get there.
    pub transport: Transport,
    /// Who is at the other end.
    pub role: Role,
    /// How frames are put into datagrams, but for `payload`, which depends on the address.
    packing: Packing,
    mtu: u16,
    /// Silence after which a peer is stale.
    pub stale: Duration,
    /// How often this end says that it is there.
    pub heartbeat: Option<Duration>,
    /// What the ports keep back.
    pub limits: PortOptions,
    /// Who is who by TLS.
    pub(super) files: Files,
}

/// Checks the name of a tunnel.
///
/// # Errors
/// Why it is none.
pub fn check_name(name: &str) -> Result<(), String> {
    if name == crate::federation::NAME {
        return Err(format!(
            "{name} is the name of what shares buses with other hosts; give the tunnel another name"
        ));
    }
    if is_name(name) && name.len() <= LONGEST_NAME {
        return Ok(());
    }
    Err(format!(
        "{name:?} is no name for a tunnel: at most {LONGEST_NAME} letters, digits, `-` and `_`, the first a letter"
    ))
}

/// A key of a table, and what is wrong with it.
pub type Wrong = (&'static str, String);

impl Tunnel {
    /// How frames are packed on their way to an address.
    #[must_use]
    pub fn packing(&self, to: IpAddr) -> Packing {
        let ip = if to.is_ipv4() { IPV4 } else { IPV6 };
        let above = match self.transport {
            Transport::Sctp => SCTP,
            // As by UDP: a message is a datagram.
            _ => UDP,
        };
        Packing {
            payload: usize::from(self.mtu) - ip - above,
            ..self.packing.clone()
        }
    }

    /// Frames that are older are not sent.
    #[must_use]
    pub fn max_age(&self) -> Duration {
        self.packing.max_age
    }

    /// Where it listens, or what it connects to.
    #[must_use]
    pub fn endpoint(&self) -> String {
        match &self.role {
            Role::Server { listen, web, .. } => {
                format!("{}://{listen}{}", self.transport.name(), web.0)
            }
            Role::Client { connect, .. } => connect.to_string(),
        }
    }

    /// Whom a server serves by WebSocket; `None` of other tunnels.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub(super) fn service(&self) -> crate::Result<Option<Service>> {
        let Role::Server { web, .. } = &self.role else {
            return Ok(None);
        };
        if !self.transport.is_web() {
            return Ok(None);
        }
        let is_safe = self.transport == Transport::Wss;
        Ok(Some(Service {
            path: web.0.clone(),
            origins: web.1.clone(),
            acceptor: is_safe.then(|| self.files.acceptor()).transpose()?,
        }))
    }

    /// Whether an address may come.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        match &self.role {
            Role::Server { clients, .. } => {
                let address = address.to_canonical();
                clients.iter().any(|network| network.contains(&address))
            }
            Role::Client { .. } => false,
        }
    }
}

/// Whether frames that wait for others get old; the key that is wrong if `flush` was given or not.
pub(crate) fn check_flush(flush: Duration, max_age: Duration, is_given: bool) -> Result<(), Wrong> {
    if flush * 2 <= max_age {
        return Ok(());
    }
    let (flush, max_age) = (Span(flush), Span(max_age));
    Err((
        if is_given { "flush" } else { "max_age" },
        format!(
            "frames that wait for {flush} would be too old after {max_age}; make `max_age` at least twice `flush`"
        ),
    ))
}

impl TunnelTable {
    /// The tunnel.
    ///
    /// # Errors
    /// The key that is wrong, and why.
    pub fn check(&self) -> Result<Tunnel, Wrong> {
        let (transport, role) = self.role()?;
        if let Some(mtu) = self.mtu
            && !MTUS.contains(&mtu)
        {
            let (least, most) = MTUS.into_inner();
            return Err(("mtu", format!("{mtu} is not from {least} to {most} bytes")));
        }
        let is_datagrams = transport != Transport::Tcp;
        if !self.origins.is_empty() && (!transport.is_web() || self.connect.is_some()) {
            return Err(("origins", "is for servers by ws and wss".into()));
        }
        for (key, is_there, fits) in [
            ("flush", self.flush.is_some(), is_datagrams),
            ("flush_ids", !self.flush_ids.is_empty(), is_datagrams),
            ("sort", self.sort, is_datagrams),
            ("mtu", self.mtu.is_some(), is_datagrams),
            (
                "heartbeat",
                self.heartbeat.is_some(),
                transport == Transport::Udp,
            ),
        ] {
            if is_there && !fits {
                return Err((
                    key,
                    "is for datagrams; a stream sends each frame at once, and has its own ways to ask".into(),
                ));
            }
        }
        for (key, span) in [
            ("max_age", self.max_age),
            ("stale", self.stale),
            ("heartbeat", self.heartbeat),
        ] {
            if span.is_some_and(|span| span.0 < Duration::from_millis(1)) {
                return Err((key, "is at least 1ms".into()));
            }
        }
        let or = |span: Option<Span>, default| span.map_or(default, |span| span.0);
        // A stream has no datagrams to fill.
        let flush = if is_datagrams { FLUSH } else { Duration::ZERO };
        let (flush, max_age) = (or(self.flush, flush), or(self.max_age, MAX_AGE));
        check_flush(flush, max_age, self.flush.is_some())?;
        let limits = PortOptions {
            fd: true,
            xl: false,
            prefix: None,
            allow: self.allow.clone(),
            filter: self.filter.clone(),
            rate: self.rate,
        };
        limits.check()?;
        Ok(Tunnel {
            bus: self.bus.clone(),
            transport,
            role,
            packing: Packing {
                payload: 0,
                flush,
                flush_ids: self.flush_ids()?,
                sort: self.sort,
                max_age,
            },
            mtu: self.mtu.unwrap_or(MTU),
            stale: or(self.stale, STALE),
            heartbeat: self.heartbeat.map(|span| span.0),
            limits,
            files: self.files(transport, self.connect.is_none())?,
        })
    }

    fn files(&self, transport: Transport, is_server: bool) -> Result<Files, Wrong> {
        for (key, is_there) in [
            ("certificate", self.certificate.is_some()),
            ("key", self.key.is_some()),
            ("ca", self.ca.is_some()),
        ] {
            if is_there && transport != Transport::Wss {
                return Err((key, "is for wss".into()));
            }
        }
        if self.certificate.is_some() != self.key.is_some() {
            let key = if self.key.is_some() {
                "certificate"
            } else {
                "key"
            };
            return Err((
                key,
                "a certificate needs its key, and a key its certificate".into(),
            ));
        }
        if is_server && transport == Transport::Wss && self.certificate.is_none() {
            return Err((
                "certificate",
                "a server by wss needs `certificate` and `key`, files in PEM".into(),
            ));
        }
        Ok(Files {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            ca: self.ca.clone(),
        })
    }

    /// Lets paths of files begin at a folder; without one, it can have no files.
    pub(crate) fn place_files(&mut self, folder: Option<&Path>) -> Result<(), &'static str> {
        let files = [&mut self.certificate, &mut self.key, &mut self.ca];
        tls::place(files, folder)
    }

    /// Whether it names files.
    #[must_use]
    pub fn has_files(&self) -> bool {
        self.certificate.is_some() || self.key.is_some() || self.ca.is_some()
    }

    /// Whether it names files, by paths that begin at a folder that is not known.
    #[must_use]
    pub fn has_relative_files(&self) -> bool {
        let mut files = [&self.certificate, &self.key, &self.ca]
            .into_iter()
            .flatten();
        files.any(|path| path.is_relative())
    }

    fn role(&self) -> Result<(Transport, Role), Wrong> {
        let listen = self.listen.as_ref().map(|endpoint| {
            let address = endpoint.address().ok_or_else(|| {
                let host = &endpoint.host;
                ("listen", format!("{host} is no address of this host; expected such as 0.0.0.0, [::] or one of its addresses"))
            })?;
            Ok::<_, Wrong>((endpoint.transport, address))
        });
        let listen = listen.transpose()?;
        if let Some(connect) = &self.connect {
            if !self.clients.is_empty() || self.max_clients.is_some() {
                let key = if self.clients.is_empty() {
                    "max_clients"
                } else {
                    "clients"
                };
                return Err((
                    key,
                    "is for a server; with `connect`, the peer is the only one".into(),
                ));
            }
            if connect.port == 0 {
                return Err(("connect", "port 0 is no peer's".into()));
            }
            if listen.is_some_and(|(transport, _)| transport != connect.transport) {
                return Err((
                    "listen",
                    format!(
                        "is another transport than `connect`, {}",
                        connect.transport.name()
                    ),
                ));
            }
            if listen.is_some() && connect.transport != Transport::Udp {
                return Err(("listen", "goes with `connect` for udp only, whose peers send to a port that they are told".into()));
            }
            let role = Role::Client {
                connect: connect.clone(),
                from: listen.map(|(_, address)| address),
            };
            return Ok((connect.transport, role));
        }
        let (transport, listen) = listen.ok_or_else(|| {
            let message = "a tunnel needs `listen = \"udp://0.0.0.0:20000\"` for peers to come, or `connect = \"udp://10.0.0.7:20000\"` to go to one";
            ("", message.to_owned())
        })?;
        if self.clients.is_empty() {
            return Err(("clients", "a server needs those that may come, such as `clients = [\"10.0.0.0/24\"]`; \"0.0.0.0/0\" and \"::/0\" are everybody".into()));
        }
        let clients = self.clients.iter().map(|text| {
            let network = text
                .parse::<IpNet>()
                .or_else(|_| text.parse().map(|address: IpAddr| address.into()));
            network.map_err(|_| {
                (
                    "clients",
                    format!("{text:?} is neither a network, such as 10.0.0.0/24, nor an address"),
                )
            })
        });
        let clients = clients.collect::<Result<_, _>>()?;
        let most = self.max_clients.unwrap_or(CLIENTS);
        if most == 0 || usize::from(most) >= MAX_PORTS {
            return Err((
                "max_clients",
                format!("{most} is not from 1 to {}", MAX_PORTS - 1),
            ));
        }
        let most = usize::from(most);
        let path = self.listen.as_ref().map(|listen| listen.path.clone());
        let web = (path.unwrap_or_default(), self.origins.clone());
        Ok((
            transport,
            Role::Server {
                listen,
                clients,
                most,
                web,
            },
        ))
    }

    fn flush_ids(&self) -> Result<BTreeMap<u32, Duration>, Wrong> {
        let one = |(text, span): (&String, &Span)| {
            let range = text
                .parse::<IdRange>()
                .ok()
                .filter(|range| range.first == range.last);
            let range = range.ok_or_else(|| {
                (
                    "flush_ids",
                    format!(
                        "{text:?} is no identifier: 3 hexadecimal digits, or 8 for an extended one"
                    ),
                )
            })?;
            let flag = if range.extended { EFF_FLAG } else { 0 };
            Ok((range.first | flag, span.0))
        };
        self.flush_ids.iter().map(one).collect()
    }
}
