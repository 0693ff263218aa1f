//! HTTP for Docker's calls, on a Unix socket.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tracing::{debug, info, warn};

use super::docker;
use super::fabric::Fabric;
use super::networks::Networks;

/// Connections at once.
const CLIENTS: usize = 64;
/// A request whose head takes longer to come is left.
const SLOW: Duration = Duration::from_secs(30);
/// The largest request that is read, in bytes. Docker's have some hundred.
const LARGEST: usize = 1 << 20;
/// What Docker says that it takes (pkg/plugins).
const KIND: &str = "application/vnd.docker.plugins.v1.1+json";

/// Serves until the future is dropped.
pub async fn serve<F: Fabric + 'static>(listener: UnixListener, networks: Arc<Networks<F>>) {
    let clients = Arc::new(Semaphore::new(CLIENTS));
    loop {
        // Those who come later wait for a place.
        let Ok(place) = Arc::clone(&clients).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let networks = Arc::clone(&networks);
                tokio::spawn(async move {
                    let service = service_fn(|request| {
                        let answer = respond(request, Arc::clone(&networks));
                        async { Ok::<_, Infallible>(answer.await) }
                    });
                    // Whoever is gone, or does not speak HTTP, needs no answer.
                    let _ = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(SLOW)
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                    drop(place);
                });
            }
            Err(e) => {
                warn!("cannot accept Docker's call: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn respond<F: Fabric + 'static>(
    request: Request<Incoming>,
    networks: Arc<Networks<F>>,
) -> Response<Full<Bytes>> {
    if request.method() != Method::POST {
        let refusal = json!({ "Err": "cangw: calls are made with POST" });
        return response(StatusCode::METHOD_NOT_ALLOWED, &refusal);
    }
    let path = request.uri().path().to_owned();
    let body = Limited::new(request.into_body(), LARGEST).collect().await;
    let Ok(body) = body else {
        let refusal = json!({ "Err": "cangw: the request did not come, or is too long" });
        return response(StatusCode::BAD_REQUEST, &refusal);
    };
    let answered = spawn_blocking(move || {
        let answer = docker::answer(&networks, &path, &body.to_bytes());
        (path, answer)
    });
    let Ok((path, answer)) = answered.await else {
        let refusal = json!({ "Err": "cangw: the log of cangwd says what failed" });
        return response(StatusCode::INTERNAL_SERVER_ERROR, &refusal);
    };
    match answer.get("Err") {
        Some(error) => warn!("{path}: {error}"),
        None if path.ends_with("OperInfo") => debug!("{path}"),
        None => info!("{path}"),
    }
    response(StatusCode::OK, &answer)
}

fn response(status: StatusCode, answer: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(answer.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(KIND));
    response
}
