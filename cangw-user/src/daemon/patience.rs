//! How often something may happen.
//!
//! With a device that does not keep what it is told, and with somebody who undoes every step, passes could go on as fast as the machine can, and the
//! bus would never have peace; a client could ask as fast.

use std::time::{Duration, Instant};

/// How many more may come at once.
pub struct Patience {
    most: u32,
    refill: Duration,
    left: u32,
    since: Instant,
}

impl Patience {
    /// All of it: `most`, and one more after each `refill`.
    pub fn new(most: u32, refill: Duration, now: Instant) -> Self {
        Self {
            most,
            refill,
            left: most,
            since: now,
        }
    }

    /// One came; false when it was one too many.
    pub fn spend(&mut self, now: Instant) -> bool {
        let gained = (now - self.since).as_nanos() / self.refill.as_nanos();
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        if self.left.saturating_add(gained) >= self.most {
            self.left = self.most;
            self.since = now;
        } else {
            self.left += gained;
            self.since += self.refill * gained;
        }
        let enough = self.left != 0;
        self.left = self.left.saturating_sub(1);
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_out_and_comes_back() {
        const MOST: u32 = 20;
        const REFILL: Duration = Duration::from_secs(1);
        let start = Instant::now();
        let mut patience = Patience::new(MOST, REFILL, start);
        let calm = (1..100).take_while(|_| patience.spend(start)).count();
        assert_eq!(calm as u32, MOST);
        for second in 1..100 {
            let now = start + REFILL * second;
            assert!(patience.spend(now) && !patience.spend(now));
        }
        let later = start + REFILL * 200;
        let calm = (1..100).take_while(|_| patience.spend(later)).count();
        assert_eq!(calm as u32, MOST);
    }
}
