//! How long to wait before the next attempt.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(10);
/// What has worked for so long begins with the shortest pause again.
const LASTING: Duration = Duration::from_secs(10);

/// The pauses of one who tries again and again: each twice as long as the one before, and shorter or longer by up to a quarter, so that many do not
/// come at once.
#[derive(Debug)]
pub struct Backoff {
    pause: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { pause: FIRST }
    }
}

impl Backoff {
    /// The next pause, after something that has worked for a while has failed.
    pub fn next(&mut self, worked: Duration) -> Duration {
        if worked > LASTING {
            self.pause = FIRST;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST);
        // A number that nobody can foresee, without a source of random numbers for it.
        let share = RandomState::new().hash_one(pause) % 1000;
        pause * 3 / 4 + pause / 2 * share as u32 / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_differ() {
        let mut backoff = Backoff::default();
        for wanted in [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000u64] {
            let pause = backoff.next(Duration::ZERO);
            let wanted = Duration::from_millis(wanted);
            assert!(
                pause >= wanted * 3 / 4 && pause <= wanted * 5 / 4,
                "{pause:?}"
            );
        }
        assert!(backoff.next(2 * LASTING) <= FIRST * 5 / 4);
        let firsts: std::collections::HashSet<Duration> = (0..20)
            .map(|_| Backoff::default().next(Duration::ZERO))
            .collect();
        assert!(firsts.len() > 5, "{firsts:?}");
    }
}
