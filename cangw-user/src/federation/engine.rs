//! What carries a federation: a registry of hosts, and a transport for their frames. Zenoh is one such engine, memory is another.

use std::future::Future;

use serde::{Deserialize, Serialize};

use super::config::is_name;
use super::wire::Session;
use crate::topology;

/// What a host says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Its name, which no other host of the realm has.
    pub host: String,
    /// What the machine calls itself.
    pub machine: String,
    /// Its run.
    pub session: Session,
    /// Since when it runs: milliseconds of UNIX time.
    pub since: u64,
    /// The buses that it shares.
    pub buses: Vec<String>,
}

/// Bytes of an announcement, at most.
const LONGEST: usize = 64 << 10;
/// Characters of a machine's name, at most (RFC 1035).
const LONGEST_MACHINE: usize = 253;

impl Announcement {
    /// As it is sent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers are JSON")
    }

    /// Reads what a host has sent; `None` when that is no announcement. What is in it can be shown on a terminal.
    #[must_use]
    pub fn decode(text: &[u8]) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let mut read: Self = serde_json::from_slice(text).ok()?;
        if !is_name(&read.host) || !read.buses.iter().all(|bus| topology::is_name(bus)) {
            return None;
        }
        let machine = read.machine.chars().filter(|c| !c.is_control());
        read.machine = machine.take(LONGEST_MACHINE).collect();
        Some(read)
    }
}

/// What a host answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it says of itself.
    pub announcement: Announcement,
    /// Its clock then, in nanoseconds.
    pub clock: u64,
}

/// A host has come or gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is there.
    Joined(String, Session),
    /// It is not there any more, or cannot be reached.
    Left(String, Session),
}

/// What an engine cannot do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// It does not work.
    #[error("the federation is down: {0}")]
    Down(String),
    /// Nobody has this name, or whoever had it does not answer.
    #[error("host {0} does not answer")]
    NoSuchHost(String),
    /// Another host has announced the same name.
    #[error(
        "the machine {} is in the federation as host {} already (session {}); give one of them another `host`",
        .0.machine, .0.host, .0.session
    )]
    Duplicate(Box<Announcement>),
}

/// Who takes part.
pub trait Registry: Send + Sync + 'static {
    /// Says that this host is there, and answers whoever asks until [`Self::close`].
    ///
    /// # Errors
    /// [`EngineError::Duplicate`] when it is known that another host has the name.
    fn announce(&self, own: &Announcement) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Asks a host.
    ///
    /// # Errors
    /// [`EngineError::NoSuchHost`] when it does not answer within two seconds.
    fn query(
        &self,
        host: &str,
        session: Session,
    ) -> impl Future<Output = Result<Answer, EngineError>> + Send;

    /// Tells of all other hosts that are there, and of those that come and go.
    ///
    /// # Errors
    /// When that cannot be known.
    fn watch(
        &self,
        tell: impl Fn(Event) + Send + Sync + 'static,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Takes back what was announced. Others are told that this host has left.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// How frames go: those of real time are ahead of all others, and not put together with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// All that is not of real time.
    Normal,
    /// Those that `realtime` names.
    RealTime,
}

impl Class {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Normal, Self::RealTime];
}

/// A message that has come.
#[derive(Debug)]
pub struct Message<'a> {
    /// Who sent it, as far as the engine knows.
    pub host: &'a str,
    /// How.
    pub class: Class,
    /// Its [`Head`](super::wire::Head), from a stranger to be doubted.
    pub head: &'a [u8],
    /// Its [`Frames`](super::wire::Frames), likewise.
    pub frames: &'a [u8],
}

/// The way of frames.
pub trait Transport: Send + Sync + 'static {
    /// The way from a bus of this host to all others that share it.
    type Line: Line;

    /// Opens the way out of a bus.
    ///
    /// # Errors
    /// When there is none.
    fn dial(&self, bus: &str) -> impl Future<Output = Result<Self::Line, EngineError>> + Send;

    /// Opens the way into a bus. Never gives back what this host sent.
    ///
    /// # Errors
    /// When there is none.
    fn accept(
        &self,
        bus: &str,
        take: impl Fn(Message<'_>) + Send + Sync + 'static,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Closes all ways.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// The way out of a bus.
pub trait Line: Send + Sync + 'static {
    /// Sends a message to whoever shares the bus. It is thrown away rather than waited for where the network is too slow.
    ///
    /// # Errors
    /// When the engine does not work any more.
    fn send(&self, class: Class, head: &[u8], frames: Vec<u8>) -> Result<(), EngineError>;
}
