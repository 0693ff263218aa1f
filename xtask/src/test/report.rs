//! What the steps of a test run came to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// How many tests passed and failed, and which failed.
#[derive(Default, PartialEq, Eq, Debug)]
pub struct Count {
    passed: u32,
    failed: u32,
    failures: Vec<String>,
}

impl Count {
    /// Reads the output of test executables of Rust's test harness.
    pub fn of(output: &[u8]) -> Self {
        let mut count = Self::default();
        let mut unfinished = 0;
        for line in String::from_utf8_lossy(output).lines() {
            if let Some(result) = line.strip_prefix("test result: ") {
                count.passed += number_before(result, " passed");
                count.failed += number_before(result, " failed");
                unfinished -= 1;
            } else if line.starts_with("running ")
                && (line.ends_with(" tests") || line.ends_with(" test"))
            {
                unfinished += 1;
            } else if let Some(name) = line
                .strip_prefix("test ")
                .and_then(|rest| rest.strip_suffix(" ... FAILED"))
            {
                count.failures.push(name.to_owned());
            }
        }
        for _ in 0..unfinished {
            count.add_failure("an executable ended amid its tests");
        }
        count
    }

    /// Reads the output of test executables that were cut off: what was said of single tests, whose names come, too.
    pub fn of_cut_off(output: &[u8]) -> (Self, Vec<String>) {
        let mut count = Self::default();
        let mut done = Vec::new();
        for line in String::from_utf8_lossy(output).lines() {
            let Some(rest) = line.strip_prefix("test ") else {
                continue;
            };
            if let Some(name) = rest.strip_suffix(" ... ok") {
                count.passed += 1;
                done.push(name.to_owned());
            } else if let Some(name) = rest.strip_suffix(" ... FAILED") {
                count.add_failure(name);
                done.push(name.to_owned());
            }
        }
        (count, done)
    }

    /// Both together.
    pub fn and(mut self, other: Self) -> Self {
        self.passed += other.passed;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self
    }

    /// A test that is not one of Rust's test harness.
    pub fn of_one(name: &str, passed: bool) -> Self {
        let mut count = Self::default();
        if passed {
            count.passed = 1;
        } else {
            count.add_failure(name);
        }
        count
    }

    /// Adds what no executable could say itself: that the whole run went wrong, or that no test ran at all.
    pub fn or_failed(mut self, success: bool, want_some: bool) -> Self {
        if !success && self.failed == 0 {
            self.add_failure("ended without a result");
        }
        if want_some && self.passed + self.failed == 0 {
            self.add_failure("no test ran");
        }
        self
    }

    fn add_failure(&mut self, what: &str) {
        self.failed += 1;
        self.failures.push(what.to_owned());
    }
}

/// The 3 of "ok. 3 passed; 0 failed" for " passed".
fn number_before(text: &str, word: &str) -> u32 {
    let before = text.split(word).next().unwrap_or_default();
    before
        .rsplit(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// The steps so far.
#[derive(Default)]
pub struct Report {
    steps: Vec<(String, Duration, Count)>,
}

impl Report {
    /// Runs a step beneath its headline. An error counts as a failure, is shown, and comes back.
    pub fn step(
        &mut self,
        name: impl Into<String>,
        work: impl FnOnce() -> Result<Count>,
    ) -> Result<()> {
        let name = name.into();
        println!("\n=== {name} ===");
        let start = Instant::now();
        let mut outcome = Ok(());
        let count = work().unwrap_or_else(|error| {
            eprintln!("xtask: {error:#}");
            let mut count = Count::default();
            count.add_failure(format!("{error:#}").lines().next().unwrap_or_default());
            outcome = Err(error.context(format!("stopped at the step `{name}`")));
            count
        });
        self.steps.push((name, start.elapsed(), count));
        outcome
    }

    /// Runs a step for each of the items, `most` of them at the same time.
    pub fn at_once<T: Sync>(
        &mut self,
        items: &[(String, T)],
        most: usize,
        work: impl Fn(&T) -> Result<Count> + Sync,
    ) {
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..most.min(items.len()) {
                scope.spawn(|| {
                    while let Some((name, item)) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let mut own = Self::default();
                        // Why it stopped was said, and is in the report.
                        let _ = own.step(name.clone(), || work(item));
                        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                        done.append(&mut own.steps);
                    }
                });
            }
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        let place = |name: &String| items.iter().position(|(known, _)| known == name);
        done.sort_by_key(|(name, ..)| place(name));
        self.steps.append(&mut done);
    }

    /// Prints the table and the line that sums it up; returns the exit status.
    pub fn finish(self) -> u8 {
        println!(
            "\n{:<26} {:>8} {:>8} {:>8}",
            "step", "seconds", "passed", "failed"
        );
        let (mut passed, mut failed) = (0, 0);
        for (name, time, count) in &self.steps {
            println!(
                "{name:<26} {:>8.1} {:>8} {:>8}",
                time.as_secs_f64(),
                count.passed,
                count.failed
            );
            passed += count.passed;
            failed += count.failed;
        }
        for (name, _, count) in &self.steps {
            for failure in &count.failures {
                println!("failed: {name}: {failure}");
            }
        }
        println!("cangw: {passed} passed, {failed} failed");
        u8::from(failed > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_executables_add_up() {
        let output = b"running 2 tests\ntest a ... ok\ntest b::c ... FAILED\n\
            test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
            test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        let count = Count::of(output);
        assert_eq!(
            count,
            Count {
                passed: 13,
                failed: 1,
                failures: vec!["b::c".into()]
            }
        );
    }

    #[test]
    fn crashes_count() {
        let output = b"running 1 test\ntest a ... \nrunning 2 tests\ntest result: ok. 2 passed; 0 failed; 0 ignored\n";
        let count = Count::of(output);
        assert_eq!((count.passed, count.failed), (2, 1));
    }

    #[test]
    fn what_was_done_before_a_crash_counts() {
        let output = b"running 4 tests\ntest a ... ok\ntest b::c ... FAILED\ntest d ... ";
        let (count, done) = Count::of_cut_off(output);
        assert_eq!((count.passed, count.failed), (1, 1));
        assert_eq!(done, ["a", "b::c"]);
        let count = count.and(Count::of(b"test result: ok. 2 passed; 0 failed; 0 ignored"));
        assert_eq!((count.passed, count.failed), (3, 1));
    }

    #[test]
    fn silence_is_a_failure() {
        assert_eq!(Count::of(b"").or_failed(true, true).failed, 1);
        assert_eq!(Count::of(b"").or_failed(true, false).failed, 0);
        assert_eq!(
            Count::of(b"test result: ok. 1 passed; 0 failed")
                .or_failed(false, true)
                .failed,
            1
        );
    }
}
