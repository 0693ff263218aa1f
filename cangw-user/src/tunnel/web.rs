//! WebSocket: each binary message is a datagram, for clients behind proxies and for browsers.

use std::io;
use std::time::Duration;

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use socket2::Socket;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::header::{HeaderValue, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::http::{HeaderMap, StatusCode};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Bytes, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config, client_async_with_config};

use super::codec::{Frame, Malformed, decode_datagram};
use super::endpoint::{Endpoint, Transport};
use super::tls::Files;

/// Bytes of a message, at most.
const LONGEST: usize = 1 << 16;
/// The name of what the messages are, for those who ask (RFC 6455, 1.9).
const PROTOCOL: &str = "cannelloni";

/// What bytes come and go on.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

type Web = WebSocketStream<Box<dyn Wire>>;

/// A connection.
pub(super) struct WebLink {
    /// The socket below it.
    pub socket: Socket,
    sink: Mutex<SplitSink<Web, Message>>,
    stream: Mutex<SplitStream<Web>>,
}

/// Whom a server serves.
#[derive(Clone)]
pub(super) struct Service {
    pub path: String,
    /// Pages that may connect, when a browser asks for one.
    pub origins: Vec<String>,
    /// For `wss://`.
    pub acceptor: Option<TlsAcceptor>,
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(LONGEST))
        .max_frame_size(Some(LONGEST))
        // Nothing waits there: what is written is flushed.
        .write_buffer_size(0)
        .max_write_buffer_size(4 * LONGEST)
}

fn other(e: tungstenite::Error) -> io::Error {
    match e {
        tungstenite::Error::Io(e) => e,
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => closed(),
        e => io::Error::new(io::ErrorKind::InvalidData, e),
    }
}

fn closed() -> io::Error {
    let what = "the other end closed the connection";
    io::Error::new(io::ErrorKind::UnexpectedEof, what)
}

fn asks_for_protocol(headers: &HeaderMap) -> bool {
    let all = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let mut names = all
        .filter_map(|value| value.to_str().ok())
        .flat_map(|v| v.split(','));
    names.any(|name| name.trim() == PROTOCOL)
}

impl Service {
    /// Whether a request is served. A browser says which page asks: any page that somebody looks at could, from an address that may.
    #[expect(clippy::result_large_err, reason = "the type is the crate's")]
    fn judge(&self, request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
        let refuse = |status, why: &str| {
            let mut response = ErrorResponse::new(Some(format!("{why}\n")));
            *response.status_mut() = status;
            Err(response)
        };
        if request.uri().path() != self.path {
            return refuse(StatusCode::NOT_FOUND, "there is no tunnel at this path");
        }
        if let Some(origin) = request.headers().get(ORIGIN)
            && !self
                .origins
                .iter()
                .any(|known| known.as_bytes() == origin.as_bytes())
        {
            return refuse(
                StatusCode::FORBIDDEN,
                "this page is not among the tunnel's `origins`",
            );
        }
        if asks_for_protocol(request.headers()) {
            let headers = response.headers_mut();
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
        }
        Ok(response)
    }

    /// Serves somebody who has connected.
    pub async fn accept(&self, socket: Socket) -> io::Result<WebLink> {
        let (wire, socket) = tcp(socket)?;
        let wire: Box<dyn Wire> = match &self.acceptor {
            Some(acceptor) => Box::new(acceptor.accept(wire).await?),
            None => Box::new(wire),
        };
        #[expect(clippy::result_large_err, reason = "the type is the crate's")]
        let judge = |request: &Request, response: Response| self.judge(request, response);
        let web = accept_hdr_async_with_config(wire, judge, Some(config())).await;
        Ok(WebLink::new(web.map_err(other)?, socket))
    }
}

/// Goes to a server over a connection that there is.
pub(super) async fn connect(to: &Endpoint, files: &Files, socket: Socket) -> io::Result<WebLink> {
    let (wire, socket) = tcp(socket)?;
    let wire: Box<dyn Wire> = if to.transport == Transport::Wss {
        let (connector, name) = files.connector(&to.host).map_err(io::Error::other)?;
        Box::new(connector.connect(name, wire).await?)
    } else {
        Box::new(wire)
    };
    let request =
        tungstenite::ClientRequestBuilder::new(to.to_string().parse().map_err(io::Error::other)?)
            .with_sub_protocol(PROTOCOL);
    let (web, _) = client_async_with_config(request, wire, Some(config()))
        .await
        .map_err(other)?;
    Ok(WebLink::new(web, socket))
}

fn tcp(socket: Socket) -> io::Result<(TcpStream, Socket)> {
    let twin = socket.try_clone()?;
    Ok((TcpStream::from_std(socket.into())?, twin))
}

impl WebLink {
    fn new(web: Web, socket: Socket) -> Self {
        let (sink, stream) = web.split();
        Self {
            socket,
            sink: Mutex::new(sink),
            stream: Mutex::new(stream),
        }
    }

    /// Waits for the next message. Those that say only that the other end is there have no frames.
    pub async fn receive(&self, frames: &mut Vec<Frame>) -> io::Result<Result<(), Malformed>> {
        match self.stream.lock().await.next().await {
            Some(Ok(Message::Binary(bytes))) => Ok(decode_datagram(&bytes, frames).map(drop)),
            Some(Ok(Message::Text(_))) => Ok(Err(Malformed::Text)),
            Some(Ok(Message::Close(_))) | None => Err(closed()),
            Some(Ok(_)) => Ok(Ok(())),
            Some(Err(e)) => Err(other(e)),
        }
    }

    pub async fn write(&self, message: &[u8]) -> io::Result<()> {
        let message = Message::Binary(Bytes::copy_from_slice(message));
        self.sink.lock().await.send(message).await.map_err(other)
    }

    /// Asks again and again whether the other end is there; ends when that cannot be asked.
    pub async fn ask(&self, every: Duration) -> io::Error {
        loop {
            tokio::time::sleep(every).await;
            let ping = Message::Ping(Bytes::new());
            if let Err(e) = self.sink.lock().await.send(ping).await {
                return other(e);
            }
        }
    }
}
