//! Where metrics are read: HTTP on a Unix socket or on the loopback interface.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tracing::warn;

use super::control::{Socket, make};
use super::metrics;
use super::shared::Shared;

/// Connections at once.
const CLIENTS: usize = 16;
/// A request that takes longer to come is left.
const SLOW: Duration = Duration::from_secs(5);
/// A connection that lasts longer is ended.
const LONGEST: Duration = Duration::from_secs(60);

/// An address at which metrics can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket, for everybody who can reach it.
    Unix(PathBuf),
    /// A port of the loopback interface.
    Loopback(SocketAddr),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Self::Loopback(address)),
            Ok(address) => Err(format!(
                "{address} can be reached from other machines; name 127.0.0.1, [::1] or the path of a Unix socket, and let a proxy that asks who it is stand before it"
            )),
            Err(_) => Err(format!(
                "{text:?} is neither an address with a port, such as 127.0.0.1:9465, nor the path of a Unix socket, such as /run/cangw/metrics.sock"
            )),
        }
    }
}

/// A socket that takes those who read metrics.
pub(super) enum Scrapes {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Scrapes {
    /// Listens.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn listen(address: &Address) -> Result<Self> {
        match address {
            Address::Unix(path) => Ok(Self::Unix(make(path, Socket::Control)?)),
            Address::Loopback(address) => {
                let failed = || format!("cannot serve metrics at {address}");
                let listener = std::net::TcpListener::bind(address).with_context(failed)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(TcpListener::from_std(listener)?))
            }
        }
    }

    /// Serves until the daemon ends.
    pub async fn serve(self, shared: Arc<Shared>) {
        let clients = Arc::new(Semaphore::new(CLIENTS));
        loop {
            // Those who come later wait for a place.
            let Ok(place) = Arc::clone(&clients).acquire_owned().await else {
                return;
            };
            let shared = Arc::clone(&shared);
            let accepted = match &self {
                Self::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                    tokio::spawn(async move {
                        talk(stream, shared).await;
                        drop(place);
                    });
                }),
                Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                    tokio::spawn(async move {
                        talk(stream, shared).await;
                        drop(place);
                    });
                }),
            };
            if let Err(e) = accepted {
                warn!("cannot accept who reads metrics: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(respond(&request, &shared).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(SLOW)
        .serve_connection(TokioIo::new(stream), service);
    // Whoever is gone, or does not speak HTTP, needs no answer.
    let _ = tokio::time::timeout(LONGEST, connection).await;
}

async fn respond(request: &Request<Incoming>, shared: &Arc<Shared>) -> Response<Full<Bytes>> {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    const PLAIN: &str = "text/plain; charset=utf-8";
    let (status, kind, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => {
            let shared = Arc::clone(shared);
            match spawn_blocking(move || metrics::text(&shared)).await {
                Ok(Ok(text)) => (StatusCode::OK, OPEN_METRICS, text),
                Ok(Err(e)) => (StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{e}\n")),
                Err(_) => (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    PLAIN,
                    "the log of cangwd says what failed\n".into(),
                ),
            }
        }
        (_, "/metrics") => (
            StatusCode::METHOD_NOT_ALLOWED,
            PLAIN,
            "metrics are read with GET\n".into(),
        ),
        _ => (
            StatusCode::NOT_FOUND,
            PLAIN,
            "there is /metrics only\n".into(),
        ),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_for_this_machine() {
        assert_eq!(
            "/run/x".parse(),
            Ok::<_, String>(Address::Unix("/run/x".into()))
        );
        for good in ["127.0.0.1:9465", "[::1]:1"] {
            let address = good.parse().unwrap();
            assert_eq!(good.parse(), Ok::<_, String>(Address::Loopback(address)));
        }
        for (bad, reason) in [
            ("0.0.0.0:9465", "other machines"),
            ("192.0.2.1:80", "other machines"),
            ("[2001:db8::1]:80", "other machines"),
            ("localhost:80", "neither"),
            ("9465", "neither"),
            ("", "neither"),
        ] {
            assert!(
                bad.parse::<Address>().unwrap_err().contains(reason),
                "{bad}"
            );
        }
    }
}
