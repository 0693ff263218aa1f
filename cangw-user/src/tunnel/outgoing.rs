//! Frames on their way to a peer: how long they wait for others to share a datagram, in which order, and when they are too old.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::codec::{self, Frame, HEAD};

/// Frames that wait for a peer that cannot be reached, at most.
pub const LONGEST_QUEUE: usize = 8192;

/// How frames are put into datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Bytes of a datagram, at most.
    pub payload: usize,
    /// How long a frame waits for others, at most.
    pub flush: Duration,
    /// The same for single identifiers, where it is shorter.
    pub flush_ids: BTreeMap<u32, Duration>,
    /// Whether the frames of a datagram are in the order of their identifiers.
    pub sort: bool,
    /// Frames that are older are not sent.
    pub max_age: Duration,
}

/// The frames that wait.
#[derive(Debug)]
pub struct Outgoing {
    packing: Packing,
    frames: VecDeque<(Frame, Instant)>,
    bytes: usize,
    due: Option<Instant>,
    sequence: u8,
}

/// Frames that will not be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// They were older than they may be.
    pub too_old: u64,
    /// They found the queue full.
    pub no_room: u64,
}

impl Outgoing {
    /// Nothing, to be packed so.
    #[must_use]
    pub fn new(packing: Packing) -> Self {
        Self {
            packing,
            frames: VecDeque::new(),
            bytes: HEAD,
            due: None,
            sequence: 0,
        }
    }

    /// Adds a frame. The oldest goes when there is no room.
    pub fn push(&mut self, frame: Frame, now: Instant) -> Dropped {
        let mut dropped = Dropped::default();
        if self.frames.len() == LONGEST_QUEUE
            && let Some((oldest, since)) = self.frames.pop_front()
        {
            self.bytes -= oldest.encoded_len();
            if now.duration_since(since) > self.packing.max_age {
                dropped.too_old = 1;
            } else {
                dropped.no_room = 1;
            }
        }
        let own = self.packing.flush_ids.get(&frame.plain_id());
        let wait = own.map_or(self.packing.flush, |own| self.packing.flush.min(*own));
        self.bytes += frame.encoded_len();
        let due = if self.bytes >= self.packing.payload {
            now
        } else {
            now + wait
        };
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
        self.frames.push_back((frame, now));
        dropped
    }

    /// When the frames are to be sent; `None` when there are none.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Throws away what is too old; how many frames that were.
    pub fn expire(&mut self, now: Instant) -> u64 {
        let mut gone = 0;
        while let Some((frame, since)) = self.frames.front()
            && now.duration_since(*since) > self.packing.max_age
        {
            self.bytes -= frame.encoded_len();
            self.frames.pop_front();
            gone += 1;
        }
        if self.frames.is_empty() {
            self.due = None;
        }
        gone
    }

    /// All frames that wait, as datagrams, each with the number of its frames.
    pub fn datagrams(&mut self, mut each: impl FnMut(Vec<u8>, u16)) {
        self.due = None;
        self.bytes = HEAD;
        let mut frames: Vec<Frame> = self.frames.drain(..).map(|(frame, _)| frame).collect();
        if self.packing.sort {
            frames.sort_by_key(Frame::plain_id);
        }
        let mut rest = &frames[..];
        while !rest.is_empty() {
            let mut datagram = Vec::with_capacity(self.packing.payload);
            codec::begin(&mut datagram);
            let mut count = 0;
            for frame in rest {
                let is_full = datagram.len() + frame.encoded_len() > self.packing.payload;
                if count > 0 && (is_full || count == usize::from(u16::MAX)) {
                    break;
                }
                frame.encode(&mut datagram);
                count += 1;
            }
            codec::finish(&mut datagram, self.sequence, count as u16);
            self.sequence = self.sequence.wrapping_add(1);
            rest = &rest[count..];
            each(datagram, count as u16);
        }
    }

    /// A datagram without frames, which says that this end is there.
    pub fn heartbeat(&mut self) -> Vec<u8> {
        let mut datagram = Vec::new();
        codec::begin(&mut datagram);
        codec::finish(&mut datagram, self.sequence, 0);
        self.sequence = self.sequence.wrapping_add(1);
        datagram
    }

    /// Frames for a stream, up to so many bytes, appended to it; how many frames.
    pub fn stream(&mut self, to: &mut Vec<u8>, most: usize) -> u64 {
        let mut count = 0;
        while to.len() < most
            && let Some((frame, _)) = self.frames.pop_front()
        {
            self.bytes -= frame.encoded_len();
            frame.encode(to);
            count += 1;
        }
        self.due = if self.frames.is_empty() {
            None
        } else {
            self.due
        };
        count
    }
}
