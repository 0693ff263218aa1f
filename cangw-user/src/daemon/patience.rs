//! With a device that does not keep what it is told, and with somebody who undoes every step, one could go on as fast as the machine can; then the bus
//! would never have peace.

use std::time::{Duration, Instant};

/// Passes that may take steps without a pause.
const MOST: u32 = 20;
/// After this time, one more may.
pub const REFILL: Duration = Duration::from_secs(1);

/// How many more passes may take steps at once.
pub struct Patience {
    left: u32,
    since: Instant,
}

impl Patience {
    /// All of it.
    pub fn new(now: Instant) -> Self {
        Self {
            left: MOST,
            since: now,
        }
    }

    /// A pass took steps; false when there is to be a pause of [`REFILL`] now.
    pub fn spend(&mut self, now: Instant) -> bool {
        let gained = (now - self.since).as_nanos() / REFILL.as_nanos();
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        if self.left.saturating_add(gained) >= MOST {
            *self = Self::new(now);
        } else {
            self.left += gained;
            self.since += REFILL * gained;
        }
        self.left = self.left.saturating_sub(1);
        self.left != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_out_and_comes_back() {
        let start = Instant::now();
        let mut patience = Patience::new(start);
        let calm = (1..100).take_while(|_| patience.spend(start)).count();
        assert_eq!(calm as u32, MOST - 1);
        // Once a second for ever, with a pause each time.
        for second in 1..100 {
            assert!(!patience.spend(start + REFILL * second));
        }
        let later = start + REFILL * 200;
        assert!(patience.spend(later));
        let calm = (1..100).take_while(|_| patience.spend(later)).count();
        assert_eq!(calm as u32, MOST - 2);
    }
}
