//! Frames on their way to a peer: how long they wait for others to share a datagram, in which order, and when they are too old.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use cangw_common::frame::{EFF_FLAG, EFF_MASK};

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
    /// The same for single identifiers, where it is shorter; those of 29 bits with `CAN_EFF_FLAG`.
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
        self.bytes += frame.encoded_len();
        let due = now + self.wait(&frame);
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
        self.frames.push_back((frame, now));
        dropped
    }

    /// How long a frame may wait for others.
    fn wait(&self, frame: &Frame) -> Duration {
        let own = self
            .packing
            .flush_ids
            .get(&(frame.id() & (EFF_FLAG | EFF_MASK)));
        own.map_or(self.packing.flush, |own| self.packing.flush.min(*own))
    }

    /// Whether there are frames for a whole datagram.
    fn is_full(&self) -> bool {
        self.bytes >= self.packing.payload
    }

    /// When the frames are to be sent; `None` when there are none.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        match self.frames.front() {
            // At once.
            Some((_, since)) if self.is_full() => Some(*since),
            _ => self.due,
        }
    }

    /// How many frames wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Throws away what is too old; how many frames that were.
    pub fn expire(&mut self, now: Instant) -> u64 {
        let is_old = |since: Instant| now.duration_since(since) > self.packing.max_age;
        let before = self.frames.len();
        // In the order of identifiers, the oldest can be anywhere.
        let oldest = if self.packing.sort {
            self.frames.iter().map(|(_, since)| *since).min()
        } else {
            self.frames.front().map(|(_, since)| *since)
        };
        if oldest.is_some_and(is_old) {
            let bytes = &mut self.bytes;
            self.frames.retain(|(frame, since)| {
                let stays = !is_old(*since);
                if !stays {
                    *bytes -= frame.encoded_len();
                }
                stays
            });
        }
        let gone = (before - self.frames.len()) as u64;
        if self.frames.is_empty() {
            self.due = None;
        }
        gone
    }

    /// What is to be sent now, as so many datagrams at most, each with the number of its frames. As long as none has waited for its time, only whole datagrams.
    pub fn datagrams(&mut self, now: Instant, most: usize, mut each: impl FnMut(Vec<u8>, u16)) {
        let all = self.due.is_some_and(|due| due <= now);
        let frames = self.frames.make_contiguous();
        if self.packing.sort {
            frames.sort_by_key(|(frame, _)| frame.plain_id());
        }
        let mut sent = 0;
        for _ in 0..most {
            if sent == frames.len() {
                break;
            }
            let mut datagram = Vec::with_capacity(self.packing.payload);
            codec::begin(&mut datagram);
            let mut count = 0;
            let mut is_full = false;
            for (frame, _) in &frames[sent..] {
                is_full = datagram.len() + frame.encoded_len() > self.packing.payload
                    || count == u16::MAX;
                if is_full && count > 0 {
                    break;
                }
                frame.encode(&mut datagram);
                count += 1;
            }
            if !all && !is_full && datagram.len() < self.packing.payload {
                break;
            }
            codec::finish(&mut datagram, self.sequence, count);
            self.sequence = self.sequence.wrapping_add(1);
            sent += usize::from(count);
            each(datagram, count);
        }
        self.frames.drain(..sent);
        let rest = self.frames.iter();
        self.bytes = HEAD
            + rest
                .clone()
                .map(|(frame, _)| frame.encoded_len())
                .sum::<usize>();
        self.due = rest.map(|(frame, since)| *since + self.wait(frame)).min();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::codec::decode_datagram;
    use crate::tunnel::codec::tests::classic;

    fn frame(id: u32, length: usize) -> Frame {
        classic(id, &[0; 8][..length])
    }

    fn outgoing(flush_ids: &[(u32, u64)], sort: bool) -> Outgoing {
        let millis = |(id, ms): &(u32, u64)| (*id, Duration::from_millis(*ms));
        Outgoing::new(Packing {
            payload: 1472,
            flush: Duration::from_millis(100),
            flush_ids: flush_ids.iter().map(millis).collect(),
            sort,
            max_age: Duration::from_secs(1),
        })
    }

    /// The identifiers in each datagram.
    fn take(outgoing: &mut Outgoing, now: Instant) -> Vec<(u8, Vec<u32>)> {
        let mut all = Vec::new();
        outgoing.datagrams(now, usize::MAX, |datagram, count| {
            let mut frames = Vec::new();
            let number = decode_datagram(&datagram, &mut frames).expect("a datagram");
            assert_eq!(frames.len(), usize::from(count));
            assert!(datagram.len() <= 1472);
            all.push((number, frames.iter().map(Frame::id).collect()));
        });
        all
    }

    #[test]
    fn frames_wait_for_others_until_one_may_not() {
        let (mut outgoing, begin) = (outgoing(&[(7, 5), (8, 500)], false), Instant::now());
        let after = |ms| begin + Duration::from_millis(ms);
        assert_eq!(outgoing.due(), None);
        outgoing.push(frame(1, 8), after(0));
        assert_eq!(outgoing.due(), Some(after(100)));
        outgoing.push(frame(8, 8), after(10));
        assert_eq!(
            outgoing.due(),
            Some(after(100)),
            "no longer than all others"
        );
        outgoing.push(frame(7, 8), after(20));
        assert_eq!(outgoing.due(), Some(after(25)));
        assert_eq!(take(&mut outgoing, after(24)), []);
        assert_eq!(take(&mut outgoing, after(25)), [(0, vec![1, 8, 7])]);
        assert_eq!((outgoing.due(), outgoing.is_empty()), (None, true));
    }

    #[test]
    fn whole_datagrams_leave_at_once_and_the_rest_waits() {
        let (mut outgoing, now) = (outgoing(&[], true), Instant::now());
        for n in 0..130 {
            outgoing.push(frame(1000 - n, 8), now);
        }
        assert_eq!(outgoing.due(), Some(now));
        let datagrams = take(&mut outgoing, now);
        assert_eq!(datagrams.len(), 1);
        assert_eq!(
            datagrams[0],
            (0, (871..=982).collect::<Vec<u32>>()),
            "112, sorted"
        );
        assert_eq!(outgoing.due(), Some(now + Duration::from_millis(100)));
        let rest = take(&mut outgoing, now + Duration::from_millis(100));
        assert_eq!(rest, [(1, (983..=1000).collect::<Vec<u32>>())]);
    }

    #[test]
    fn what_is_too_old_or_finds_no_room_is_counted() {
        let (mut outgoing, begin) = (outgoing(&[], false), Instant::now());
        for n in 0..=LONGEST_QUEUE {
            let dropped = outgoing.push(frame(1, 0), begin);
            assert_eq!(dropped.no_room, u64::from(n == LONGEST_QUEUE));
        }
        let late = begin + Duration::from_secs(2);
        assert_eq!(outgoing.push(frame(2, 0), late).too_old, 1);
        assert_eq!(outgoing.expire(late), LONGEST_QUEUE as u64 - 1);
        assert_eq!(outgoing.expire(late), 0);
        assert_eq!(
            take(&mut outgoing, late + Duration::from_secs(1)),
            [(0, vec![2])]
        );
    }
}
