//! What failed, and when it is tried again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::keeper::Outcome;
use crate::error::Result;

/// What failed is tried again after this time, and then after twice as long each time.
pub const RETRY: Duration = Duration::from_secs(1);
const RETRY_AT_MOST: Duration = Duration::from_secs(16);

#[derive(Default)]
struct Failure {
    times: u32,
    until: Option<Instant>,
    message: String,
}

/// Attempts that failed, by what they were for.
#[derive(Default)]
pub struct Failures(BTreeMap<String, Failure>);

impl Failures {
    /// Tries, unless it failed a short time ago; whether it succeeded.
    pub fn attempt(
        &mut self,
        name: &str,
        outcome: &mut Outcome,
        attempt: impl FnOnce() -> Result<()>,
    ) -> bool {
        let failure = self.0.entry(name.to_owned()).or_default();
        if failure.until.is_none_or(|until| until <= Instant::now()) {
            match attempt() {
                Ok(()) => {
                    self.0.remove(name);
                    return true;
                }
                Err(e) => {
                    failure.times += 1;
                    failure.until = Some(Instant::now() + pause(failure.times));
                    failure.message = if name.is_empty() {
                        e.to_string()
                    } else {
                        format!("{name}: {e}")
                    };
                }
            }
        }
        outcome.errors.push(failure.message.clone());
        if let Some(until) = failure.until {
            outcome.again_at(until);
        }
        false
    }
}

/// How long to wait after so many failures, at least one.
fn pause(failures: u32) -> Duration {
    let doubled = 1 << (failures.max(1) - 1).min(16);
    (RETRY * doubled).min(RETRY_AT_MOST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn pauses_grow() {
        let seconds: Vec<u64> = [1, 2, 3, 5, 6, 40].map(|n| pause(n).as_secs()).into();
        assert_eq!(seconds, [1, 2, 4, 16, 16, 16]);
    }

    #[test]
    fn what_failed_is_left_alone_for_a_while() {
        let mut failures = Failures::default();
        let mut outcome = Outcome::default();
        assert!(!failures.attempt("car", &mut outcome, || Err(Error::NoBpffs)));
        assert!(!failures.attempt("car", &mut outcome, || panic!("too early")));
        assert!(failures.attempt("truck", &mut outcome, || Ok(())));
        assert_eq!(outcome.errors.len(), 2);
        assert!(outcome.again.is_some());
    }
}
