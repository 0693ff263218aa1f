//! Delays of many frames.

use serde::{Deserialize, Serialize};

/// Steps in which a delay doubles.
const STEPS: u64 = 16;

/// How many frames had which delay, to some 6 %.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Delays(Vec<u64>);

/// The step of a delay in microseconds.
fn step(delay: u64) -> usize {
    if delay < STEPS {
        return delay as usize;
    }
    let power = u64::from(delay.ilog2() - STEPS.ilog2());
    (power * STEPS + (delay >> power)) as usize
}

/// The least delay of a step.
fn delay(step: usize) -> u64 {
    let step = step as u64;
    if step < 2 * STEPS {
        return step;
    }
    let power = step / STEPS - 1;
    (step - power * STEPS) << power
}

impl Delays {
    /// A frame had a delay, in microseconds.
    pub fn add(&mut self, delay: u64) {
        self.count(step(delay), 1);
    }

    /// And those of others.
    pub fn merge(&mut self, other: &Self) {
        for (step, &count) in other.0.iter().enumerate() {
            self.count(step, count);
        }
    }

    fn count(&mut self, step: usize, count: u64) {
        if self.0.len() <= step {
            self.0.resize(step + 1, 0);
        }
        self.0[step] += count;
    }

    /// What a part of all frames needed at most, in microseconds.
    pub fn quantile(&self, part: f64) -> u64 {
        let all: u64 = self.0.iter().sum();
        let mut left = (all as f64 * part) as u64;
        for (step, &count) in self.0.iter().enumerate() {
            if count > left {
                return delay(step);
            }
            left -= count;
        }
        delay(self.0.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_fine_enough() {
        for exact in [0, 1, 15, 16, 17, 31, 32, 33, 100, 12_345, 5_000_000] {
            let least = delay(step(exact));
            assert!(
                least <= exact && exact - least <= exact / STEPS,
                "{exact}: {least}"
            );
            assert!(delay(step(exact) + 1) > exact, "{exact}");
        }
    }

    #[test]
    fn quantiles() {
        let mut delays = Delays::default();
        (0..10).for_each(|delay| delays.add(delay));
        let mut others = Delays::default();
        others.add(1000);
        delays.merge(&others);
        assert_eq!(delays.quantile(0.5), 5);
        assert_eq!(delays.quantile(1.0), delay(step(1000)));
    }
}
