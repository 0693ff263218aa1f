//! What dockerd says of its networks (Docker Engine API).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::doctor::Known;

/// The largest answer that is read, in bytes.
const LARGEST: usize = 16 << 20;
/// How long Docker may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Network {
    #[serde(rename = "Id")]
    id: String,
    #[serde(default, rename = "Containers")]
    containers: Option<BTreeMap<String, Container>>,
}

#[derive(Deserialize)]
struct Container {
    #[serde(rename = "EndpointID")]
    endpoint: String,
}

/// Docker's socket: that of `DOCKER_HOST`, or the usual one.
#[must_use]
pub fn socket() -> PathBuf {
    let given = std::env::var("DOCKER_HOST").ok();
    let path = given
        .as_deref()
        .and_then(|host| host.strip_prefix("unix://"));
    path.unwrap_or("/run/docker.sock").into()
}

/// The networks with our driver, and their endpoints; `None` when no dockerd is there.
///
/// # Errors
/// When it is there and does not answer as it should.
pub fn networks() -> Result<Option<Known>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let asked = tokio::time::timeout(PATIENCE, ask()).await;
        asked.with_context(|| format!("{} does not answer", socket().display()))?
    })
}

async fn ask() -> Result<Option<Known>> {
    // {"driver":["cangw"]}
    let list = "/networks?filters=%7B%22driver%22%3A%5B%22cangw%22%5D%7D";
    let Some(networks) = get::<Vec<Network>>(list).await? else {
        return Ok(None);
    };
    let mut known = Known::new();
    for network in networks {
        // The list has no containers.
        let Some(network) = get::<Network>(&format!("/networks/{}", network.id)).await? else {
            continue;
        };
        let containers = network.containers.unwrap_or_default();
        let endpoints = containers.into_values().map(|container| container.endpoint);
        known.insert(network.id, endpoints.collect());
    }
    Ok(Some(known))
}

/// An answer; `None` when nobody is there, or there is no such thing any more.
async fn get<T: DeserializeOwned>(path: &str) -> Result<Option<T>> {
    let socket = socket();
    let named = || format!("ask {}", socket.display());
    let Ok(stream) = UnixStream::connect(&socket).await else {
        return Ok(None);
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .with_context(named)?;
    tokio::spawn(connection);
    let request = Request::get(path)
        .header("Host", "docker")
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await.with_context(named)?;
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Ok(None),
        status => bail!("{}: {status}", named()),
    }
    let body = Limited::new(answer.into_body(), LARGEST).collect().await;
    let Ok(body) = body else {
        bail!("{}: the answer is cut short, or too long", named());
    };
    serde_json::from_slice(&body.to_bytes()).with_context(named)
}
