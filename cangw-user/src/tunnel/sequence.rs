//! What the sequence numbers of a peer's datagrams say: which are missing, which came late, which came twice.
//!
//! A number has 8 bits, so that only the last few can be told from the next ones. Of the last [`WINDOW`] a hash of the datagram is known: one that comes again with other
//! contents is no copy, but the first of a peer that began anew.

use std::time::{Duration, Instant};

/// So far behind the newest a datagram can come late. All other numbers are ahead.
pub const WINDOW: u8 = 64;
/// A peer whose number 0 comes so far ahead began anew; it did not lose just what leads there.
const LEAP: u8 = 32;

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The next one, or the first.
    Next,
    /// Later than the next: so many are missing between.
    Ahead(u8),
    /// One that was missing.
    Late,
    /// One that has been here, which is to be thrown away.
    Again,
    /// The first of a peer that began anew.
    Anew,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// From before the first that was seen.
    Nothing,
    Missing,
    Seen(u64),
}

/// The numbers of a peer.
#[derive(Debug)]
pub struct Sequence {
    /// Newest number, and when the last datagram came.
    newest: Option<(u8, Instant)>,
    known: Box<[Known; 256]>,
    silence: Duration,
}

impl Sequence {
    /// Of a peer of which nothing came yet. After a silence of this length, any number is as good as the next.
    #[must_use]
    pub fn new(silence: Duration) -> Self {
        Self {
            newest: None,
            known: Box::new([Known::Nothing; 256]),
            silence,
        }
    }

    /// Takes note of a datagram with a number and a hash of what is in it.
    pub fn arrived(&mut self, number: u8, hash: u64, now: Instant) -> Arrival {
        let Some((newest, last)) = self.newest else {
            return self.begin(number, hash, now, Arrival::Next);
        };
        let ahead = number.wrapping_sub(newest);
        if now.duration_since(last) > self.silence
            || (number == 0 && (LEAP..=u8::MAX - WINDOW).contains(&ahead))
        {
            return self.begin(number, hash, now, Arrival::Anew);
        }
        let place = usize::from(number);
        if newest.wrapping_sub(number) < WINDOW {
            let arrival = match self.known[place] {
                Known::Seen(before) if before == hash => Arrival::Again,
                Known::Seen(_) => return self.begin(number, hash, now, Arrival::Anew),
                Known::Missing => Arrival::Late,
                Known::Nothing => Arrival::Next,
            };
            self.known[place] = Known::Seen(hash);
            self.newest = Some((newest, now));
            return arrival;
        }
        for between in 1..ahead {
            self.known[usize::from(newest.wrapping_add(between))] = Known::Missing;
        }
        self.known[place] = Known::Seen(hash);
        self.newest = Some((number, now));
        match ahead {
            1 => Arrival::Next,
            _ => Arrival::Ahead(ahead - 1),
        }
    }

    fn begin(&mut self, number: u8, hash: u64, now: Instant, arrival: Arrival) -> Arrival {
        self.known.fill(Known::Nothing);
        self.known[usize::from(number)] = Known::Seen(hash);
        self.newest = Some((number, now));
        arrival
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(10);

    /// What datagrams are, each given by its number and contents.
    fn arrivals(datagrams: &[(u8, u64)]) -> Vec<Arrival> {
        let (mut sequence, now) = (Sequence::new(SILENCE), Instant::now());
        let arrive = |(number, hash): &(u8, u64)| sequence.arrived(*number, *hash, now);
        datagrams.iter().map(arrive).collect()
    }

    #[test]
    fn all_numbers_in_order_are_next() {
        let datagrams: Vec<_> = (0..1000u64).map(|n| (n as u8, n)).collect();
        assert!(arrivals(&datagrams).iter().all(|a| *a == Arrival::Next));
    }

    #[test]
    fn gaps_and_those_that_come_late_or_twice() {
        use Arrival::{Again, Ahead, Late, Next};
        assert_eq!(
            arrivals(&[
                (254, 1),
                (255, 2),
                (1, 3),
                (0, 4),
                (0, 4),
                (5, 5),
                (3, 6),
                (254, 1),
                (253, 9)
            ]),
            [
                Next,
                Next,
                Ahead(1),
                Late,
                Again,
                Ahead(3),
                Late,
                Again,
                Next
            ]
        );
    }

    #[test]
    fn a_peer_that_begins_anew_loses_nothing() {
        use Arrival::{Anew, Next};
        // Where its numbers have been, and where they have not.
        assert_eq!(
            arrivals(&[(0, 1), (1, 2), (2, 3), (0, 4), (1, 5)]),
            [Next, Next, Next, Anew, Next]
        );
        assert_eq!(
            arrivals(&[(199, 1), (200, 2), (0, 3), (1, 4)]),
            [Next, Next, Anew, Next]
        );
        let (mut sequence, now) = (Sequence::new(SILENCE), Instant::now());
        sequence.arrived(7, 1, now);
        assert_eq!(sequence.arrived(90, 2, now + 2 * SILENCE), Anew);
        assert_eq!(sequence.arrived(91, 3, now + 2 * SILENCE), Next);
    }

    /// Whatever is lost, moved by a few places or sent twice, is counted to the piece.
    #[test]
    fn what_a_network_does_is_counted() {
        proptest::proptest!(|(fates in proptest::collection::vec(0u8..100, 300..3000))| {
            let last = fates.len() - 1;
            let (mut order, mut lost, mut twice) = (Vec::new(), 0, 0);
            for (n, fate) in fates.iter().enumerate() {
                // The ends are there, so that what is missing before them is seen to be.
                match fate {
                    0..5 if n != 0 && n != last => lost += 1,
                    5..10 => { order.extend([n, n]); twice += 1; }
                    _ => order.push(n),
                }
            }
            let mut moved = order.clone();
            for (at, fate) in (1..order.len().saturating_sub(2)).zip(&fates) {
                if *fate > 95 { moved.swap(at, at + 1); }
            }
            let (mut late, mut newest) = (0, 0);
            for (at, n) in moved.iter().enumerate() {
                if *n < newest && !moved[..at].contains(n) { late += 1; }
                newest = newest.max(*n);
            }
            let datagrams: Vec<_> = moved.iter().map(|n| (*n as u8, *n as u64)).collect();
            let (mut counted, mut counted_late, mut again) = (0i64, 0, 0);
            for arrival in arrivals(&datagrams) {
                match arrival {
                    Arrival::Next => {}
                    Arrival::Ahead(missing) => counted += i64::from(missing),
                    Arrival::Late => { counted -= 1; counted_late += 1; }
                    Arrival::Again => again += 1,
                    Arrival::Anew => panic!("nobody began anew"),
                }
            }
            assert_eq!((counted, counted_late, again), (lost, late, twice));
        });
    }
}
