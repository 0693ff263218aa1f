//! Rate limits.

use cangw_common::guard::within_rate;

use crate::word::{self, TRIES};

/// Takes a frame out of a limit, whose state `full_at` points into a map's value; false when there is none left.
#[inline(always)]
pub fn take(full_at: *mut u64, interval: u64, tolerance: u64) -> bool {
    try_take(full_at, interval, tolerance) != 0
}

#[inline(never)]
fn try_take(full_at: *mut u64, interval: u64, tolerance: u64) -> u64 {
    let now = word::now();
    let mut tries = 0;
    while tries < TRIES {
        let old = word::load(full_at);
        let Some(new) = within_rate(old, now, interval, tolerance) else {
            return 0;
        };
        if word::replace(full_at, old, new) {
            return 1;
        }
        tries += 1;
    }
    0
}
