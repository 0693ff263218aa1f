//! A federation: buses that several hosts share. docs/federation.md follows a frame.

mod board;
mod bus;
mod clock;
pub mod config;
pub mod engine;
pub mod report;
pub mod wire;
#[cfg_attr(not(feature = "zenoh"), path = "none.rs")]
mod zenoh;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tracing::{info, warn};

use self::board::{Board, Bus};
use self::bus::{Shared, way};
use self::config::{Federation, machine};
use self::engine::{Announcement, Answer, EngineError, Event, Registry, Transport};
use self::report::FederationReport;
use self::wire::Session;
use crate::error::{Error, Result};
use crate::tunnel::backoff::Backoff;
use crate::tunnel::port::{self, Ports, on_ports};
use crate::worker::Worker;

/// How often hosts are asked for their clocks.
const ASKING: Duration = Duration::from_secs(2);
/// How long a federation that ends waits for what it has begun.
const ENDING: Duration = Duration::from_secs(5);
/// Name of the ports on buses, which no tunnel can have.
pub const NAME: &str = "federation";

/// What Zenoh is to find in the environment: which of its threads do what.
///
/// All that touches a connection is done by one thread. Zenoh lets a thread read from a TLS connection while another writes to it, which they share without
/// any lock (eclipse-zenoh/zenoh#2557): sooner or later, memory is overwritten. [`Running`] refuses TLS without this.
pub const RUNTIME: (&str, &str) = (
    "ZENOH_RUNTIME",
    "(rx: (handover: tx), acc: (handover: tx), tx: (worker_threads: 1))",
);

/// The ports of each bus.
pub type PortsOf = BTreeMap<String, Arc<dyn Ports>>;

/// What all parts of a federation need.
struct Context {
    topology: String,
    federation: Arc<Federation>,
    ports: PortsOf,
    board: Arc<Board>,
}

/// A federation that runs. It ends when this goes.
pub struct Running {
    context: Arc<Context>,
    worker: Worker,
}

impl Running {
    /// Lets this host take part. What goes wrong later is in the report, and tried again.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(topology: &str, federation: Federation, ports: PortsOf) -> Result<Self> {
        Self::start_by(topology, federation, ports, zenoh::open)
    }

    /// Lets this host take part by an engine.
    fn start_by<E: Registry + Transport>(
        topology: &str,
        federation: Federation,
        ports: PortsOf,
        open: impl AsyncFn(Arc<Federation>) -> std::result::Result<(E, Session), EngineError>
        + Send
        + 'static,
    ) -> Result<Self> {
        let board = Arc::new(Board::default());
        {
            let mut board = board.lock();
            board.error = Some("it is about to begin".into());
            let buses = federation.buses.keys();
            board.buses = buses.map(|bus| (bus.clone(), Bus::default())).collect();
        }
        let context = Arc::new(Context {
            topology: topology.to_owned(),
            federation: Arc::new(federation),
            ports,
            board,
        });
        let failed = |e| Error::io(format!("start the federation of {topology}"), e);
        // Engines use threads of their own; these read and write frames.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("federation")
            .enable_all()
            .build()
            .map_err(failed)?;
        let own = Arc::clone(&context);
        let work = move |stopped| {
            runtime.block_on(own.keep_running(open, stopped));
            runtime.shutdown_timeout(ENDING);
            for ports in own.ports.values() {
                if let Err(e) = ports.sweep() {
                    warn!("{}: federation: {e}", own.topology);
                }
            }
        };
        Ok(Self {
            context,
            worker: Worker::start(NAME, work).map_err(failed)?,
        })
    }

    /// Whether it has ended, which it does not unless something in it fails.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.worker.has_ended()
    }

    /// Whether it does what it is told there.
    #[must_use]
    pub fn is(&self, federation: &Federation) -> bool {
        *self.context.federation == *federation
    }

    /// Its state.
    #[must_use]
    pub fn report(&self) -> FederationReport {
        let Context {
            topology,
            federation,
            ports,
            board,
        } = &*self.context;
        let mut report = board
            .lock()
            .report(topology, &federation.realm, &federation.host);
        for (number, (name, bus)) in report.buses.iter_mut().enumerate() {
            // A bus that is gone keeps nothing back.
            let kept = ports.get(name).and_then(|ports| ports.kept_back().ok());
            if let Some(port) = kept.and_then(|mut kept| kept.remove(&(number as u32))) {
                bus.sent.add_kept_back(&port);
            }
        }
        report
    }
}

impl Context {
    /// Takes part, and again whenever something was wrong with it, until it is stopped.
    async fn keep_running<E: Registry + Transport>(
        &self,
        open: impl AsyncFn(Arc<Federation>) -> std::result::Result<(E, Session), EngineError>,
        mut stopped: oneshot::Receiver<()>,
    ) {
        let mut backoff = Backoff::default();
        loop {
            let begin = Instant::now();
            let opened = tokio::select! {
                _ = &mut stopped => return,
                opened = open(Arc::clone(&self.federation)) => opened,
            };
            let error = match opened {
                Err(e) => e,
                Ok((engine, own)) => {
                    let engine = Arc::new(engine);
                    let ended = tokio::select! {
                        _ = &mut stopped => None,
                        Err(error) = self.take_part(&engine, own) => Some(error),
                    };
                    self.board.lock().alone();
                    // Others are told at once, instead of by the lease.
                    let close = async {
                        Registry::close(&*engine).await;
                        Transport::close(&*engine).await;
                    };
                    let _ = tokio::time::timeout(ENDING, close).await;
                    let Some(error) = ended else { return };
                    self.keep_counters().await;
                    error
                }
            };
            self.fail(&error);
            tokio::select! {
                _ = &mut stopped => return,
                () = tokio::time::sleep(backoff.next(begin.elapsed())) => {}
            }
        }
    }

    /// Counts what buses kept back, before the ports are made anew.
    async fn keep_counters(&self) {
        for (number, name) in (0..).zip(self.federation.buses.keys()) {
            if let Some(ports) = self.ports.get(name)
                && let Some(kept) = port::close(ports, number).await
            {
                self.board.sent(name, |c| c.add_kept_back(&kept));
            }
        }
    }

    fn fail(&self, error: &EngineError) {
        let message = error.to_string();
        let mut board = self.board.lock();
        if board.error.as_ref() != Some(&message) {
            warn!("{}: federation: {message}", self.topology);
        }
        board.error = Some(message);
    }

    /// Takes part until that is not possible any more.
    async fn take_part<E: Registry + Transport>(
        &self,
        engine: &Arc<E>,
        own: Session,
    ) -> std::result::Result<Infallible, EngineError> {
        let Federation { host, buses, .. } = &*self.federation;
        for ports in self.ports.values() {
            let swept = on_ports(ports, |ports| ports.sweep()).await;
            swept.map_err(|e| EngineError::Down(e.to_string()))?;
        }
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let announcement = Announcement {
            host: host.clone(),
            machine: machine(),
            session: own,
            since: unix.unwrap_or_default().as_millis() as u64,
            buses: buses.keys().cloned().collect(),
        };
        self.board.lock().own = Some(own);
        let mut tasks = JoinSet::new();
        for (number, (name, bus)) in buses.iter().enumerate() {
            let Some(ports) = self.ports.get(name) else {
                continue;
            };
            let (entrance, exit) = way(name, &self.board);
            let shared = Shared {
                name: name.clone(),
                number: number as u32,
                bus: bus.clone(),
                max_age: self.federation.max_age,
                flush: self.federation.flush,
                ports: Arc::clone(ports),
                board: Arc::clone(&self.board),
                line: engine.dial(name).await?,
                own,
            };
            let take = move |message: engine::Message<'_>| entrance.take(&message);
            engine.accept(name, take).await?;
            tasks.spawn(async move { shared.run(exit).await });
        }
        engine.announce(&announcement).await?;
        let changed = Arc::new(Notify::new());
        engine.watch(self.teller(&changed)).await?;
        self.board.lock().error = None;
        let Federation { realm, .. } = &*self.federation;
        info!("{}: takes part in {realm} as host {host}", self.topology);
        let mut asking = Asking::new(engine, self, announcement);
        let mut tick = tokio::time::interval(ASKING);
        loop {
            tokio::select! {
                _ = tick.tick() => asking.ask_all(),
                () = changed.notified() => asking.ask_all(),
                Some(answer) = asking.answers.join_next() => {
                    if let Ok(answer) = answer {
                        asking.answered(answer)?;
                    }
                }
                Some(ended) = tasks.join_next() => {
                    let why = ended.err().map_or_else(|| "a bus is closed".to_owned(), |e| e.to_string());
                    return Err(EngineError::Down(why));
                }
            }
        }
    }

    /// Hears of hosts that come and go. Those with this host's name are rivals.
    fn teller(&self, changed: &Arc<Notify>) -> impl Fn(Event) + Send + Sync + 'static {
        let (board, changed) = (Arc::clone(&self.board), Arc::clone(changed));
        let (own, topology) = (self.federation.host.clone(), self.topology.clone());
        move |event| {
            let mut board = board.lock();
            match event {
                Event::Joined(host, session) if host == own => board.rival_joined(session),
                Event::Left(host, session) if host == own => board.rival_left(session),
                Event::Joined(host, session) => {
                    info!("{topology}: federation: + {host}");
                    board.joined(&host, session);
                }
                Event::Left(host, session) => {
                    info!("{topology}: federation: - {host}");
                    board.left(&host, session);
                }
            }
            changed.notify_one();
        }
    }
}

/// A question to a host: its name, its run, when it was asked, and what it answered when.
struct Asked {
    host: String,
    session: Session,
    asked: u64,
    answer: std::result::Result<Answer, EngineError>,
    now: u64,
}

/// Questions to hosts that are not answered yet.
struct Asking<'a, E> {
    engine: &'a Arc<E>,
    context: &'a Context,
    own: Announcement,
    open: BTreeSet<(String, Session)>,
    answers: JoinSet<Asked>,
}

impl<'a, E: Registry> Asking<'a, E> {
    fn new(engine: &'a Arc<E>, context: &'a Context, own: Announcement) -> Self {
        Self {
            engine,
            context,
            own,
            open: BTreeSet::new(),
            answers: JoinSet::new(),
        }
    }

    /// Asks all hosts that are there, and rivals, but for those that are being asked.
    fn ask_all(&mut self) {
        let runs = self.context.board.lock().present(&self.own.host);
        for (host, session) in runs {
            if !self.open.insert((host.clone(), session)) {
                continue;
            }
            let engine = Arc::clone(self.engine);
            self.answers.spawn(async move {
                let asked = clock::now();
                let answer = engine.query(&host, session).await;
                let now = clock::now();
                Asked {
                    host,
                    session,
                    asked,
                    answer,
                    now,
                }
            });
        }
    }

    fn answered(&mut self, asked: Asked) -> std::result::Result<(), EngineError> {
        let Asked {
            host,
            session,
            asked,
            answer,
            now,
        } = asked;
        self.open.remove(&(host.clone(), session));
        let mut board = self.context.board.lock();
        match answer {
            Ok(answer) if answer.announcement.session != session => {}
            Ok(answer) if host == self.own.host => {
                // Of two, the one that was there first stays.
                let other = answer.announcement;
                let is_older = (other.since, other.session) < (self.own.since, self.own.session);
                if is_older {
                    return Err(EngineError::Duplicate(Box::new(other)));
                }
            }
            Ok(answer) => {
                let announcement = Announcement {
                    host,
                    ..answer.announcement
                };
                board.answered(announcement, [asked, answer.clock, now]);
            }
            Err(_) => board.silent(&host, session),
        }
        Ok(())
    }
}

#[cfg(test)]
mod memory;
#[cfg(test)]
mod tests;
