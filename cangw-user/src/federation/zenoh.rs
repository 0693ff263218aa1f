//! Zenoh as the engine of a federation.
//!
//! | key | |
//! |---|---|
//! | `can/REALM/BUS/HOST/data`, `…/realtime` | frames of a host's bus |
//! | `can/@hosts/REALM/HOST/SESSION` | liveliness token of a host; whoever asks there gets its announcement, with its clock attached |
//!
//! Frames of all buses (`can/**`) do not have the hosts among them, because no wildcard matches what begins with `@`.

use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use zenoh::Wait as _;
use zenoh::bytes::ZBytes;
use zenoh::liveliness::LivelinessToken;
use zenoh::pubsub::Publisher;
use zenoh::qos::{CongestionControl, Priority};
use zenoh::query::Query;
use zenoh::sample::{Locality, SampleKind};

use super::RUNTIME;
use super::clock;
use super::config::{Federation, Locator, is_name};
use super::engine::{
    Announcement, Answer, Class, EngineError, Event, Line, Message, Registry, Transport,
};
use super::wire::Session;
use crate::kernel::sockets::end_lingering;

/// How long an answer takes, at most.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of a message, at most; ours have half of it.
const LONGEST_MESSAGE: usize = 256 << 10;

/// Batches of 64 KiB that wait in a connection, of each class: what a burst of a busy bus fills.
const QUEUE: u8 = 16;
/// Part of the lease that whatever cannot be thrown away waits for room in a connection, before that is closed. Zenoh holds its routing tables meanwhile, so
/// that all other connections stand still, and would be lost, too, after a lease.
const BLOCKED: u32 = 8;

/// Zenoh closes its connections with `SO_LINGER` of so many seconds. To a host that does not answer, the kernel keeps the thread for as long, and the other
/// hosts would be lost meanwhile.
const LINGER: i32 = 10;
/// How often new connections are looked for: several times in the shortest lease.
const LINGER_TICK: Duration = Duration::from_millis(300);

fn down(e: impl std::fmt::Display) -> EngineError {
    EngineError::Down(e.to_string())
}

fn class_name(class: Class) -> &'static str {
    match class {
        Class::Normal => "data",
        Class::RealTime => "realtime",
    }
}

/// Opens a session. It listens and scouts only where it is told.
pub(super) async fn open(federation: Arc<Federation>) -> Result<(Engine, Session), EngineError> {
    let (variable, value) = RUNTIME;
    if federation.files.is_some() && std::env::var_os(variable).is_none_or(|set| set != value) {
        return Err(down(format!(
            "TLS needs {variable}={value} in the environment, as cangwd sets it"
        )));
    }
    let session = zenoh::open(configuration(&federation)?)
        .await
        .map_err(down)?;
    let own = Session(session.zid().to_le_bytes());
    let mut tasks = JoinSet::new();
    tasks.spawn(keep_from_lingering());
    let engine = Engine {
        session,
        own,
        federation,
        token: Mutex::new(None),
        _tasks: tasks,
    };
    Ok((engine, own))
}

async fn keep_from_lingering() {
    let mut tick = tokio::time::interval(LINGER_TICK);
    loop {
        tick.tick().await;
        if let Err(e) = end_lingering(LINGER) {
            tracing::debug!("{e}");
        }
    }
}

/// The federation in the words of Zenoh's configuration.
fn configuration(federation: &Federation) -> Result<zenoh::Config, EngineError> {
    let mut config = zenoh::Config::default();
    let mut set = |key: &str, value: Value| {
        let result = config.insert_json5(key, &value.to_string());
        result.map_err(|e| EngineError::Down(format!("{key}: {e}")))
    };
    let places = |locators: &[Locator]| {
        let scheme = |locator: &Locator| if locator.is_safe { "tls" } else { "tcp" };
        let place = |locator: &Locator| format!("{}/{}", scheme(locator), locator.place());
        locators.iter().map(place).collect::<Vec<_>>()
    };
    set("mode", json!(federation.mode.name()))?;
    set("listen/endpoints", json!(places(&federation.listen)))?;
    set("connect/endpoints", json!(places(&federation.connect)))?;
    set("scouting/multicast/enabled", json!(federation.scout))?;
    set("scouting/gossip/enabled", json!(federation.gossip))?;
    set(
        "transport/link/tx/lease",
        json!(federation.lease.as_millis() as u64),
    )?;
    set("transport/link/rx/max_message_size", json!(LONGEST_MESSAGE))?;
    let queue = "transport/link/tx/queue";
    for class in ["control", "data", "real_time"] {
        set(&format!("{queue}/size/{class}"), json!(QUEUE))?;
    }
    set(
        &format!("{queue}/congestion_control/block/wait_before_close"),
        json!((federation.lease / BLOCKED).as_micros() as u64),
    )?;
    set(
        "queries_default_timeout",
        json!(PATIENCE.as_millis() as u64),
    )?;
    let Some(files) = &federation.files else {
        return Ok(config);
    };
    let (certificate, key) = (json!(files.certificate), json!(files.key));
    set("transport/link/protocols", json!(["tls"]))?;
    set("transport/link/tls/root_ca_certificate", json!(files.ca))?;
    set("transport/link/tls/enable_mtls", json!(true))?;
    set("transport/link/tls/listen_certificate", certificate.clone())?;
    set("transport/link/tls/listen_private_key", key.clone())?;
    set("transport/link/tls/connect_certificate", certificate)?;
    set("transport/link/tls/connect_private_key", key)?;
    set("transport/link/tls/close_link_on_expiration", json!(true))?;
    if !(federation.hosts.is_empty() && federation.routers.is_empty()) {
        set("access_control", access(federation))?;
    }
    Ok(config)
}

/// Who may say what, by the names in certificates: a host as itself, a router also for others.
fn access(federation: &Federation) -> Value {
    let realm = &federation.realm;
    let all = json!([
        "put",
        "delete",
        "declare_subscriber",
        "query",
        "declare_queryable",
        "reply",
        "liveliness_token",
        "declare_liveliness_subscriber",
        "liveliness_query"
    ]);
    let questions = json!([
        "declare_subscriber",
        "query",
        "declare_liveliness_subscriber",
        "liveliness_query"
    ]);
    let everything = [format!("can/{realm}/**"), format!("can/@hosts/{realm}/**")];
    let mut rules = vec![
        json!({"id": "out", "permission": "allow", "flows": ["egress"], "messages": all, "key_exprs": everything}),
        json!({"id": "ask", "permission": "allow", "flows": ["ingress"], "messages": questions, "key_exprs": everything}),
        json!({"id": "carry", "permission": "allow", "flows": ["ingress"], "messages": all, "key_exprs": everything}),
    ];
    let mut subjects = Vec::new();
    let mut policies = Vec::new();
    for host in &federation.hosts {
        let own = [
            format!("can/{realm}/*/{host}/**"),
            format!("can/@hosts/{realm}/{host}/**"),
        ];
        let rule = format!("host {host}");
        rules.push(json!({"id": rule, "permission": "allow", "flows": ["ingress"], "messages": all, "key_exprs": own}));
        subjects.push(json!({"id": rule, "cert_common_names": [host]}));
        policies.push(json!({"subjects": [rule], "rules": ["out", "ask", rule]}));
    }
    for router in &federation.routers {
        let subject = format!("router {router}");
        subjects.push(json!({"id": subject, "cert_common_names": [router]}));
        policies.push(json!({"subjects": [subject], "rules": ["out", "carry"]}));
    }
    json!({"enabled": true, "default_permission": "deny", "rules": rules, "subjects": subjects, "policies": policies})
}

/// A session.
pub(super) struct Engine {
    session: zenoh::Session,
    own: Session,
    federation: Arc<Federation>,
    token: Mutex<Option<LivelinessToken>>,
    /// They end with this.
    _tasks: JoinSet<()>,
}

impl Engine {
    /// The key of a host's run, or of all with wildcards.
    fn host_key(&self, host: &str, session: &str) -> String {
        format!("can/@hosts/{}/{host}/{session}", self.federation.realm)
    }

    fn set_token(&self, token: Option<LivelinessToken>) -> Option<LivelinessToken> {
        let mut held = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *held, token)
    }
}

/// The host and the run of a token's key. Others may have made it.
fn whose(key: &str) -> Option<(String, Session)> {
    let mut parts = key.rsplit('/');
    let session = Session::from_str(parts.next()?).ok()?;
    let host = parts.next().filter(|host| is_name(host))?;
    Some((host.to_owned(), session))
}

impl Registry for Engine {
    async fn announce(&self, own: &Announcement) -> Result<(), EngineError> {
        let key = self.host_key(&own.host, &own.session.to_string());
        let text = own.encode();
        let answer = {
            let key = key.clone();
            move |query: Query| {
                let reply = query.reply(&key, text.clone());
                let reply = reply.attachment(clock::now().to_be_bytes());
                // Whoever asked has gone.
                let _ = reply.wait();
            }
        };
        let queryable = self.session.declare_queryable(&key).callback(answer);
        queryable.background().await.map_err(down)?;
        let others = self.host_key(&own.host, "*");
        let tokens = self.session.liveliness().get(&others).timeout(PATIENCE);
        let tokens = tokens.await.map_err(down)?;
        while let Ok(token) = tokens.recv_async().await {
            let key = token
                .into_result()
                .map(|sample| sample.key_expr().to_string());
            let other = key.ok().and_then(|key| whose(&key));
            let Some((host, session)) = other.filter(|(_, session)| *session != self.own) else {
                continue;
            };
            // One that does not answer is about to be forgotten.
            if let Ok(answer) = self.query(&host, session).await {
                return Err(EngineError::Duplicate(Box::new(answer.announcement)));
            }
        }
        let token = self.session.liveliness().declare_token(&key).await;
        self.set_token(Some(token.map_err(down)?));
        Ok(())
    }

    async fn query(&self, host: &str, session: Session) -> Result<Answer, EngineError> {
        let key = self.host_key(host, &session.to_string());
        let replies = self.session.get(&key).timeout(PATIENCE);
        let replies = replies.allowed_destination(Locality::Remote);
        // Ahead of frames, and never in their way: a question is asked again.
        let replies = replies.priority(Priority::InteractiveLow);
        let replies = replies.congestion_control(CongestionControl::Drop);
        let replies = replies.await.map_err(down)?;
        while let Ok(reply) = replies.recv_async().await {
            let Ok(sample) = reply.into_result() else {
                continue;
            };
            let clock = sample.attachment().map(|bytes| bytes.to_bytes());
            let clock = clock.and_then(|bytes| Some(u64::from_be_bytes((*bytes).try_into().ok()?)));
            let text = sample.payload().to_bytes();
            if let Some((announcement, clock)) = Announcement::decode(&text).zip(clock) {
                return Ok(Answer {
                    announcement,
                    clock,
                });
            }
        }
        Err(EngineError::NoSuchHost(host.to_owned()))
    }

    async fn watch(&self, tell: impl Fn(Event) + Send + Sync + 'static) -> Result<(), EngineError> {
        let own = self.own;
        let hear = move |sample: zenoh::sample::Sample| {
            let Some((host, session)) = whose(sample.key_expr().as_str()) else {
                return;
            };
            if session == own {
                return;
            }
            tell(match sample.kind() {
                SampleKind::Put => Event::Joined(host, session),
                SampleKind::Delete => Event::Left(host, session),
            });
        };
        let all = self.host_key("*", "*");
        let liveliness = self.session.liveliness();
        let subscriber = liveliness.declare_subscriber(&all).history(true);
        subscriber.callback(hear).background().await.map_err(down)
    }

    async fn close(&self) {
        // Others hear of it even when the session cannot be closed in an orderly way.
        if let Some(token) = self.set_token(None) {
            let _ = token.undeclare().await;
        }
    }
}

impl Transport for Engine {
    type Line = ZenohLine;

    async fn dial(&self, bus: &str) -> Result<ZenohLine, EngineError> {
        let publisher = async |class: Class| {
            let Federation { realm, host, .. } = &*self.federation;
            let key = format!("can/{realm}/{bus}/{host}/{}", class_name(class));
            let publisher = self
                .session
                .declare_publisher(key)
                .allowed_destination(Locality::Remote)
                .congestion_control(CongestionControl::Drop);
            let publisher = match class {
                Class::Normal => publisher,
                Class::RealTime => publisher.priority(Priority::RealTime).express(true),
            };
            publisher.await.map_err(down)
        };
        Ok(ZenohLine([
            publisher(Class::Normal).await?,
            publisher(Class::RealTime).await?,
        ]))
    }

    async fn accept(
        &self,
        bus: &str,
        take: impl Fn(Message<'_>) + Send + Sync + 'static,
    ) -> Result<(), EngineError> {
        let key = format!("can/{}/{bus}/*/*", self.federation.realm);
        let take = move |sample: zenoh::sample::Sample| {
            let mut parts = sample.key_expr().as_str().rsplit('/');
            let (class, host) = (parts.next(), parts.next());
            let class = Class::ALL
                .into_iter()
                .find(|c| Some(class_name(*c)) == class);
            let (Some(class), Some(host)) = (class, host) else {
                return;
            };
            let head = sample
                .attachment()
                .map(ZBytes::to_bytes)
                .unwrap_or_default();
            let frames = sample.payload().to_bytes();
            take(Message {
                host,
                class,
                head: &head,
                frames: &frames,
            });
        };
        let subscriber = self.session.declare_subscriber(key);
        let subscriber = subscriber.allowed_origin(Locality::Remote).callback(take);
        subscriber.background().await.map_err(down)
    }

    async fn close(&self) {
        let _ = self.session.close().await;
    }
}

/// Publishers of a bus, by class.
pub(super) struct ZenohLine([Publisher<'static>; 2]);

impl Line for ZenohLine {
    fn send(&self, class: Class, head: &[u8], frames: Vec<u8>) -> Result<(), EngineError> {
        let put = self.0[class as usize].put(frames);
        put.attachment(head).wait().map_err(down)
    }
}
