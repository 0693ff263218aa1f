//! Where a tunnel listens, or what it connects to: `TRANSPORT://HOST:PORT`, of a WebSocket with a path.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::as_text::as_text;

/// cannelloni's port.
pub const PORT: u16 = 20000;

/// How frames get to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A stream.
    Tcp,
    /// Datagrams that neither get lost nor change places.
    Sctp,
    /// Messages of a WebSocket.
    Ws,
    /// The same over TLS.
    Wss,
}

impl Transport {
    const ALL: [Self; 5] = [Self::Udp, Self::Tcp, Self::Sctp, Self::Ws, Self::Wss];

    /// As in an endpoint.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Sctp => "sctp",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// Whether it is a WebSocket.
    #[must_use]
    pub fn is_web(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }

    /// The port when none is given.
    fn port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp | Self::Sctp => PORT,
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }
}

/// `TRANSPORT://HOST:PORT`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// How frames get there.
    pub transport: Transport,
    /// A name, or an address; IPv6 without its brackets.
    pub host: String,
    /// [`PORT`] when none is given, and 80 or 443 of a WebSocket.
    pub port: u16,
    /// Of a WebSocket: the path, which begins with `/`. Empty of others.
    pub path: String,
}

impl Endpoint {
    /// The address, when it is not a name.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        let host: IpAddr = self.host.parse().ok()?;
        Some(SocketAddr::new(host, self.port))
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "{text:?}: {why}; expected such as udp://10.0.0.7:20000, tcp://[fd00::7]:20000 or wss://gateway.example/can"
            )
        };
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| wrong("there is no transport before the address"))?;
        let transport = Transport::ALL
            .into_iter()
            .find(|transport| transport.name() == scheme)
            .ok_or_else(|| wrong(&format!("{scheme} is no transport")))?;
        let (rest, path) = match rest.find('/') {
            Some(at) if transport.is_web() => rest.split_at(at),
            None if transport.is_web() => (rest, "/"),
            _ => (rest, ""),
        };
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
        if !path.bytes().all(is_plain) {
            return Err(wrong("a path has letters, digits and /-._~ only"));
        }
        let (host, port) = host_and_port(rest).map_err(|why| wrong(&why))?;
        let port = port.unwrap_or_else(|| transport.port());
        Ok(Self {
            transport,
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        })
    }
}

/// `HOST` or `HOST:PORT`, an IPv6 address in brackets.
///
/// # Errors
/// Why it is neither.
pub(crate) fn host_and_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or("a bracket is missing")?;
        host.parse::<std::net::Ipv6Addr>()
            .map_err(|_| format!("{host} is no IPv6 address"))?;
        (host, port)
    } else {
        match text.find(':') {
            Some(at) => text.split_at(at),
            None => (text, ""),
        }
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            let port = digits.parse();
            Some(port.map_err(|_| format!("{digits:?} is no port, which is from 0 to 65535"))?)
        }
        _ => return Err("what follows the host is no port; IPv6 addresses have brackets".into()),
    };
    let may_be = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
    if host.is_empty() || host.len() > 253 || !host.bytes().all(may_be) {
        return Err("the host is neither a name nor an address".into());
    }
    Ok((host, port))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host, port, path, ..
        } = self;
        let transport = self.transport.name();
        if host.contains(':') {
            write!(f, "{transport}://[{host}]:{port}{path}")
        } else {
            write!(f, "{transport}://{host}:{port}{path}")
        }
    }
}

as_text!(Endpoint);
