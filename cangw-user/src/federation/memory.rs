//! An engine without a network, for tests: hosts of one process, whose ways can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::clock;
use super::engine::{
    Announcement, Answer, Class, EngineError, Event, Line, Message, Registry, Transport,
};
use super::wire::Session;

type Tell = Arc<dyn Fn(Event) + Send + Sync>;
type Take = Arc<dyn Fn(Message<'_>) + Send + Sync>;

/// A message on its way: who sent it to which bus, how, its head and its frames.
#[derive(Clone)]
struct Parcel {
    host: String,
    bus: String,
    class: Class,
    head: Vec<u8>,
    frames: Vec<u8>,
}

#[derive(Default)]
struct Member {
    announcement: Option<Announcement>,
    tell: Option<Tell>,
    takes: BTreeMap<String, Take>,
}

#[derive(Default)]
struct State {
    members: BTreeMap<Session, Member>,
    /// Hosts whose ways are cut.
    cut: BTreeSet<String>,
    /// Messages that were sent while their hosts were cut, and are kept as a network does.
    kept: Vec<Parcel>,
    sessions: u8,
    /// How many bytes of frames were sent, by class.
    sent: BTreeMap<Class, u64>,
}

/// A network.
#[derive(Clone, Default)]
pub struct Net(Arc<Mutex<State>>);

/// A host's end of it.
pub struct End {
    net: Net,
    own: Session,
    host: String,
}

/// What an end sends a bus's frames by.
pub struct Way {
    net: Net,
    own: Session,
    host: String,
    bus: String,
}

impl Net {
    fn state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many bytes of frames of a class were sent.
    pub fn sent(&self, class: Class) -> u64 {
        self.state(|state| state.sent.get(&class).copied().unwrap_or_default())
    }

    /// A host comes to it.
    pub fn open(&self, host: &str) -> (End, Session) {
        let own = self.state(|state| {
            state.sessions += 1;
            let own = Session([state.sessions; 16]);
            state.members.insert(own, Member::default());
            own
        });
        let end = End {
            net: self.clone(),
            own,
            host: host.to_owned(),
        };
        (end, own)
    }

    /// Tells others of a host, and it of others.
    fn tell(&self, host: &str, event: fn(String, Session) -> Event) {
        let calls = self.state(|state| {
            let mut calls: Vec<(Tell, Event)> = Vec::new();
            for (session, member) in &state.members {
                let Some(own) = &member.announcement else {
                    continue;
                };
                for (other, them) in &state.members {
                    let Some(about) = &them.announcement else {
                        continue;
                    };
                    let is_of_host = own.host == host || about.host == host;
                    if other != session
                        && is_of_host
                        && let Some(tell) = &member.tell
                    {
                        calls.push((Arc::clone(tell), event(about.host.clone(), *other)));
                    }
                }
            }
            calls
        });
        calls.into_iter().for_each(|(tell, event)| tell(event));
    }

    /// Cuts a host off. Others are told, as after the lease.
    pub fn cut(&self, host: &str) {
        self.state(|state| state.cut.insert(host.to_owned()));
        self.tell(host, Event::Left);
    }

    /// Lets a host come back. What was sent meanwhile arrives, as late as it is.
    pub fn mend(&self, host: &str) {
        let kept = self.state(|state| {
            state.cut.remove(host);
            std::mem::take(&mut state.kept)
        });
        self.tell(host, Event::Joined);
        kept.into_iter().for_each(|parcel| self.carry(parcel));
    }

    /// Brings a message to all others.
    fn carry(&self, parcel: Parcel) {
        let takes = self.state(|state| {
            let sent = state.sent.entry(parcel.class).or_default();
            *sent += parcel.frames.len() as u64;
            if state.cut.contains(&parcel.host) {
                state.kept.push(parcel.clone());
                return Vec::new();
            }
            let others = state.members.values().filter(|member| {
                let about = member.announcement.as_ref();
                about.is_some_and(|a| a.host != parcel.host && !state.cut.contains(&a.host))
            });
            others
                .filter_map(|member| member.takes.get(&parcel.bus).cloned())
                .collect::<Vec<Take>>()
        });
        for take in takes {
            take(Message {
                host: &parcel.host,
                class: parcel.class,
                head: &parcel.head,
                frames: &parcel.frames,
            });
        }
    }
}

impl Registry for End {
    async fn announce(&self, own: &Announcement) -> Result<(), EngineError> {
        let duplicate = self.net.state(|state| {
            let mut others = state
                .members
                .values()
                .filter_map(|m| m.announcement.as_ref());
            others.find(|other| other.host == own.host).cloned()
        });
        if let Some(other) = duplicate {
            return Err(EngineError::Duplicate(Box::new(other)));
        }
        self.net.state(|state| {
            let member = state.members.entry(self.own).or_default();
            member.announcement = Some(own.clone());
        });
        self.net.tell(&own.host, Event::Joined);
        Ok(())
    }

    async fn query(&self, host: &str, session: Session) -> Result<Answer, EngineError> {
        let found = self.net.state(|state| {
            let is_cut = state.cut.contains(host) || state.cut.contains(&self.host);
            let member = state.members.get(&session).filter(|_| !is_cut);
            member.and_then(|member| member.announcement.clone())
        });
        let announcement = found.ok_or_else(|| EngineError::NoSuchHost(host.to_owned()))?;
        let clock = clock::now();
        Ok(Answer {
            announcement,
            clock,
        })
    }

    async fn watch(&self, tell: impl Fn(Event) + Send + Sync + 'static) -> Result<(), EngineError> {
        let tell: Tell = Arc::new(tell);
        let others = self.net.state(|state| {
            let member = state.members.entry(self.own).or_default();
            member.tell = Some(Arc::clone(&tell));
            let others = state
                .members
                .iter()
                .filter(|(session, _)| **session != self.own);
            let about =
                others.filter_map(|(s, m)| Some((m.announcement.as_ref()?.host.clone(), *s)));
            about.collect::<Vec<_>>()
        });
        others
            .into_iter()
            .for_each(|(host, session)| tell(Event::Joined(host, session)));
        Ok(())
    }

    async fn close(&self) {
        let was_known = self.net.state(|state| {
            let member = state.members.get(&self.own);
            member.is_some_and(|member| member.announcement.is_some())
        });
        if was_known {
            self.net.tell(&self.host, Event::Left);
        }
        self.net.state(|state| state.members.remove(&self.own));
    }
}

impl Transport for End {
    type Line = Way;

    async fn dial(&self, bus: &str) -> Result<Way, EngineError> {
        Ok(Way {
            net: self.net.clone(),
            own: self.own,
            host: self.host.clone(),
            bus: bus.to_owned(),
        })
    }

    async fn accept(
        &self,
        bus: &str,
        take: impl Fn(Message<'_>) + Send + Sync + 'static,
    ) -> Result<(), EngineError> {
        self.net.state(|state| {
            let member = state.members.entry(self.own).or_default();
            member.takes.insert(bus.to_owned(), Arc::new(take));
        });
        Ok(())
    }

    async fn close(&self) {
        self.net.state(|state| state.members.remove(&self.own));
    }
}

impl Line for Way {
    fn send(&self, class: Class, head: &[u8], frames: Vec<u8>) -> Result<(), EngineError> {
        if !self
            .net
            .state(|state| state.members.contains_key(&self.own))
        {
            return Err(EngineError::Down("it is closed".into()));
        }
        self.net.carry(Parcel {
            host: self.host.clone(),
            bus: self.bus.clone(),
            class,
            head: head.to_vec(),
            frames,
        });
        Ok(())
    }
}
