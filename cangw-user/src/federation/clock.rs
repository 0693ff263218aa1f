//! Clocks of hosts, which need not agree.

use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Samples of which the one with the shortest way is taken.
const SAMPLES: usize = 8;

/// This host's clock: nanoseconds of UNIX time as it was when the program began, which never jump.
#[must_use]
pub fn now() -> u64 {
    static BEGIN: LazyLock<(Instant, Duration)> = LazyLock::new(|| {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        (Instant::now(), unix.unwrap_or_default())
    });
    let (begin, unix) = *BEGIN;
    (unix + begin.elapsed()).as_nanos() as u64
}

/// What is known of another host's clock.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// How far that clock is ahead of ours, and how long the question and its answer took, in nanoseconds; the latest last.
    samples: VecDeque<(i64, u64)>,
    /// The smallest difference between our clock at the arrival of a message and the other's at its departure.
    least: Option<i64>,
}

impl Clock {
    /// The other clock's time came as an answer to a question.
    pub fn answered(&mut self, asked: u64, other: u64, now: u64) {
        let way = now.saturating_sub(asked);
        let ahead = other.wrapping_sub(asked + way / 2) as i64;
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((ahead, way));
    }

    /// How long a message takes to the host: half of the shortest way of the last answers.
    #[must_use]
    pub fn delay(&self) -> Option<Duration> {
        let ways = self.samples.iter().map(|(_, way)| *way);
        ways.min().map(|way| Duration::from_nanos(way / 2))
    }

    /// How long ago something was that the other clock says. Before the host has answered, how much longer it took than the fastest so far.
    pub fn age(&mut self, time: u64, now: u64) -> Duration {
        let difference = now.wrapping_sub(time) as i64;
        let least = self.least.map_or(difference, |least| least.min(difference));
        self.least = Some(least);
        let best = self.samples.iter().min_by_key(|(_, way)| *way);
        let age = match best {
            Some((ahead, _)) => difference.saturating_add(*ahead),
            None => difference.saturating_sub(least),
        };
        Duration::from_nanos(u64::try_from(age).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn ages_do_not_depend_on_what_clocks_say() {
        for ahead in [0, 3_600_000 * MS, 0_u64.wrapping_sub(3_600_000 * MS)] {
            let other = |time: u64| time.wrapping_add(ahead);
            let now = 1_000_000_000 * MS;
            let mut clock = Clock::default();
            let age = |clock: &mut Clock, ms: u64| clock.age(other(now - ms * MS), now).as_millis();
            assert_eq!(age(&mut clock, 5), 0, "nothing is known yet");
            assert_eq!(age(&mut clock, 30), 25);
            assert_eq!(clock.delay(), None);
            // A slow answer, then a fast one: 2 ms there and back.
            clock.answered(now - 500 * MS, other(now - 10 * MS), now);
            clock.answered(now - 2 * MS, other(now - MS), now);
            assert_eq!(clock.delay(), Some(Duration::from_millis(1)));
            assert_eq!(age(&mut clock, 5), 5);
            assert_eq!(age(&mut clock, 20_000), 20_000);
            assert_eq!(clock.age(other(now + MS), now), Duration::ZERO);
        }
    }

    #[test]
    fn clocks_that_drift_are_followed() {
        let mut clock = Clock::default();
        for n in 0..=SAMPLES as u64 {
            let now = n * 1000 * MS + MS;
            clock.answered(now - MS, now + n * MS, now);
        }
        let now = SAMPLES as u64 * 1000 * MS + MS;
        let age = clock.age(now + SAMPLES as u64 * MS, now);
        assert!(age < Duration::from_millis(SAMPLES as u64), "{age:?}");
    }
}
