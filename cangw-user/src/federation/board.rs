//! What is known of a federation: its hosts, and what became of frames.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::engine::{Announcement, Class, Message};
use super::report::{About, BusReport, FederationReport, HostReport, HostState, Received, Sent};
use super::wire::{Frames, Head, Numbers, Session};

/// Hosts that are remembered, at most.
const HOSTS: usize = 1024;
/// Runs of a host that are there at once, at most: one, and for a moment others.
const SESSIONS: usize = 8;

/// What has come from a host for one of the buses, in one class.
type Stream = (String, Class);

#[derive(Debug)]
struct Host {
    state: HostState,
    changed: Instant,
    /// Its runs that are there, that whose frames are taken first. A daemon that was killed is there for a while beside the one that follows it.
    sessions: Vec<Session>,
    /// Whether the first of them did not answer.
    is_silent: bool,
    announcement: Option<Announcement>,
    clock: Clock,
    /// Whose clock that is.
    clock_of: Option<Session>,
    streams: BTreeMap<Stream, (Session, Numbers)>,
    received: BTreeMap<String, Received>,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            state: HostState::Init,
            changed: Instant::now(),
            sessions: Vec::new(),
            is_silent: false,
            announcement: None,
            clock: Clock::default(),
            clock_of: None,
            streams: BTreeMap::new(),
            received: BTreeMap::new(),
        }
    }
}

impl Host {
    fn become_(&mut self, state: HostState) {
        if self.state != state {
            self.state = state;
            self.changed = Instant::now();
        }
    }

    /// Another run is the first, or there is none.
    fn begin(&mut self) {
        self.is_silent = false;
        // A run that comes back has the clock that it had: what was on its way meanwhile is known to be old.
        let first = self.sessions.first();
        if first.is_some() && self.clock_of.as_ref() != first {
            self.clock = Clock::default();
            self.clock_of = first.copied();
        }
        self.become_(if self.sessions.is_empty() {
            HostState::Lost
        } else {
            HostState::Init
        });
    }
}

/// A bus, as this host knows it.
#[derive(Debug, Default)]
pub(super) struct Bus {
    pub sent: Sent,
    pub error: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    hosts: BTreeMap<String, Host>,
    pub buses: BTreeMap<String, Bus>,
    pub own: Option<Session>,
    /// Runs of other hosts that have this host's name.
    rivals: BTreeSet<Session>,
    strangers: u64,
    pub error: Option<String>,
}

/// Frames that are to go to a bus.
#[derive(Debug)]
pub(super) struct Delivery {
    pub host: String,
    /// When they left their bus, in the origin's time.
    pub time: u64,
    pub frames: Frames,
    /// The first of them that were there before.
    pub repeated: usize,
}

impl Delivery {
    /// How many frames go to the bus.
    pub fn count(&self) -> u64 {
        (self.frames.len() - self.repeated) as u64
    }
}

/// What is known, for those who ask and for the federation itself.
#[derive(Debug, Default)]
pub(super) struct Board {
    inner: Mutex<Inner>,
}

impl Board {
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts something of a bus.
    pub fn sent(&self, bus: &str, count: impl FnOnce(&mut Sent)) {
        if let Some(bus) = self.lock().buses.get_mut(bus) {
            count(&mut bus.sent);
        }
    }

    /// Counts something that came from a host.
    pub fn received(&self, host: &str, bus: &str, count: impl FnOnce(&mut Received)) {
        if let Some(host) = self.lock().hosts.get_mut(host) {
            count(host.received.entry(bus.to_owned()).or_default());
        }
    }
}

impl Inner {
    /// The host of this name, if there is a place for it.
    fn host(&mut self, name: &str) -> Option<&mut Host> {
        if !self.hosts.contains_key(name) && self.hosts.len() == HOSTS {
            // One that is not there makes room.
            let gone = self.hosts.iter().find(|(_, host)| host.sessions.is_empty());
            let gone = gone.map(|(name, _)| name.clone())?;
            self.hosts.remove(&gone);
        }
        Some(self.hosts.entry(name.to_owned()).or_default())
    }

    /// A host is there.
    pub fn joined(&mut self, name: &str, session: Session) {
        let Some(host) = self.host(name) else {
            self.strangers += 1;
            return;
        };
        if !host.sessions.contains(&session) && host.sessions.len() < SESSIONS {
            host.sessions.push(session);
            if host.sessions.len() == 1 {
                host.begin();
            }
        }
    }

    /// A host has left.
    pub fn left(&mut self, name: &str, session: Session) {
        let Some(host) = self.hosts.get_mut(name) else {
            return;
        };
        let was_first = host.sessions.first() == Some(&session);
        host.sessions.retain(|other| *other != session);
        if was_first {
            host.begin();
        }
    }

    /// All hosts have left, as far as this one knows.
    pub fn alone(&mut self) {
        self.own = None;
        self.rivals.clear();
        for host in self.hosts.values_mut() {
            host.sessions.clear();
            host.begin();
        }
    }

    /// Another host has this host's name.
    pub fn rival_joined(&mut self, session: Session) {
        if self.own != Some(session) && self.rivals.len() < SESSIONS {
            self.rivals.insert(session);
        }
    }

    /// Another host had this host's name.
    pub fn rival_left(&mut self, session: Session) {
        self.rivals.remove(&session);
    }

    /// The runs of all hosts that are there, also of those that have this host's name.
    pub fn present(&self, own: &str) -> Vec<(String, Session)> {
        let hosts = self.hosts.iter();
        let runs = hosts.flat_map(|(name, host)| host.sessions.iter().map(move |s| (&**name, s)));
        let rivals = self.rivals.iter().map(|session| (own, session));
        let all = runs.chain(rivals);
        all.map(|(name, session)| (name.to_owned(), *session))
            .collect()
    }

    /// A host has not answered.
    pub fn silent(&mut self, name: &str, session: Session) {
        if let Some(host) = self.hosts.get_mut(name)
            && host.sessions.first() == Some(&session)
        {
            host.is_silent = true;
        }
    }

    /// A host has answered.
    pub fn answered(&mut self, announcement: Announcement, [asked, other, now]: [u64; 3]) {
        let Some(host) = self.hosts.get_mut(&announcement.host) else {
            return;
        };
        let session = announcement.session;
        let Some(place) = host.sessions.iter().position(|other| *other == session) else {
            return;
        };
        if place != 0 {
            if !host.is_silent {
                return;
            }
            host.sessions.swap(0, place);
            host.begin();
        }
        host.is_silent = false;
        host.clock.answered(asked, other, now);
        host.announcement = Some(announcement);
        host.become_(HostState::Connected);
    }

    /// How old something is that a host took off its bus.
    pub fn age(&mut self, host: &str, time: u64, now: u64) -> Duration {
        let host = self.hosts.get_mut(host);
        host.map_or(Duration::ZERO, |host| host.clock.age(time, now))
    }

    /// A message has come for a bus: what of it is to go there. `content` is what it has, if it is one.
    pub fn take(
        &mut self,
        bus: &str,
        message: &Message<'_>,
        content: Option<(Head, Frames)>,
    ) -> Option<Delivery> {
        let own = self.own;
        let Some(host) = self.host(message.host) else {
            self.strangers += 1;
            return None;
        };
        let count = host.received.entry(bus.to_owned()).or_default();
        let Some((head, frames)) = content else {
            count.malformed += 1;
            return None;
        };
        // Ours, or those of a run that is not the one that is there.
        let is_other = host
            .sessions
            .first()
            .is_some_and(|session| *session != head.origin);
        if own == Some(head.origin) || is_other {
            count.foreign += 1;
            return None;
        }
        let begin = || (head.origin, Numbers::begin(head.number));
        let stream = host.streams.entry((bus.to_owned(), message.class));
        let (origin, numbers) = stream.or_insert_with(begin);
        if *origin != head.origin {
            (*origin, *numbers) = begin();
            count.restarts += 1;
        }
        let arrival = numbers.arrived(head.number, frames.len());
        count.lost += arrival.lost;
        count.repeated += arrival.repeated as u64;
        (arrival.repeated < frames.len()).then(|| Delivery {
            host: message.host.to_owned(),
            time: head.time,
            frames,
            repeated: arrival.repeated,
        })
    }

    /// Hosts that have shared a bus and are lost.
    fn lost_hosts(&self, bus: &str) -> Vec<String> {
        let is_lost = |host: &Host| {
            let about = host.announcement.as_ref();
            let shares = about.is_some_and(|about| about.buses.iter().any(|b| b == bus));
            host.state == HostState::Lost && shares
        };
        let hosts = self.hosts.iter().filter(|(_, host)| is_lost(host));
        hosts.map(|(name, _)| name.clone()).collect()
    }

    /// What is known, of the federation of a realm.
    pub fn report(&self, topology: &str, realm: &str, name: &str) -> FederationReport {
        let bus = |(name, bus): (&String, &Bus)| {
            let report = BusReport {
                sent: bus.sent.clone(),
                lost_hosts: self.lost_hosts(name),
                error: bus.error.clone(),
            };
            (name.clone(), report)
        };
        let host = |(name, host): (&String, &Host)| HostReport {
            host: name.clone(),
            state: host.state,
            for_ms: host.changed.elapsed().as_millis() as u64,
            announcement: host.announcement.as_ref().map(|a| About {
                machine: a.machine.clone(),
                session: a.session.to_string(),
                since: a.since,
                buses: a.buses.clone(),
            }),
            delay_us: host.clock.delay().map(|delay| delay.as_micros() as u64),
            received: host.received.clone(),
        };
        FederationReport {
            topology: topology.to_owned(),
            realm: realm.to_owned(),
            host: name.to_owned(),
            session: self.own.map(|own| own.to_string()).unwrap_or_default(),
            buses: self.buses.iter().map(bus).collect(),
            hosts: self.hosts.iter().map(host).collect(),
            strangers: self.strangers,
            error: self.error.clone(),
        }
    }
}
