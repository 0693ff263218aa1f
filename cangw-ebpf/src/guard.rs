//! Rules with a rate limit or faults: asked for each frame before a copy is sent.

use cangw_common::abi::{BucketKey, Fault, Flight, Guard, PER_ID, Reason, Withheld};
use cangw_common::edit::DUPLICATE;
use cangw_common::guard::choose;

use crate::maps;
use crate::rate;
use crate::tap;
use crate::word::{self, TRIES};

/// Asks the guard of an edit's rule whether a copy is sent; 0 when it is not. What is to be done to the copy stands in the flight afterwards:
/// the verifier does not follow what lies in a map, and so does not look at all that comes after this once for each answer.
#[inline(never)]
pub fn admit(flight: &mut Flight, flags: u32, rule: u32) -> u32 {
    flight.damage = 0;
    if flags & DUPLICATE != 0 {
        let again = flight.again;
        flight.again = 0;
        return again;
    }
    flight.again = 0;
    let Some(guard) = maps::guard(rule) else {
        // There is one for every rule that userspace marked, so that this does not happen; if it did, it would be counted.
        maps::count_reason(flight.slot, Reason::NoTables);
        return 0;
    };
    // SAFETY: here and below, `guard` points to a value of a map, which is valid until the program ends, and is changed by atomic
    // instructions only.
    let interval = unsafe { (*guard).interval };
    if interval != 0 && !is_within_rate(guard, rule, flight.id) {
        // SAFETY: as above.
        maps::count(unsafe { &raw mut (*guard).over_rate }, 1);
        tap::withheld(rule, Withheld::OverRate);
        return 0;
    }
    // SAFETY: as above.
    if chosen(unsafe { &raw mut (*guard).drop }) != 0 {
        // SAFETY: as above.
        maps::count(unsafe { &raw mut (*guard).drop.count }, 1);
        tap::withheld(rule, Withheld::Fault);
        return 0;
    }
    // SAFETY: as above.
    if chosen(unsafe { &raw mut (*guard).duplicate }) != 0 {
        // SAFETY: as above.
        maps::count(unsafe { &raw mut (*guard).duplicate.count }, 1);
        flight.again = 1;
    }
    // SAFETY: as above.
    flight.damage = chosen(unsafe { &raw mut (*guard).corrupt }) as u32;
    1
}

/// Counts a frame that was damaged.
#[inline(always)]
pub fn count_damaged(rule: u32) {
    if let Some(guard) = maps::guard(rule) {
        // SAFETY: as in `admit`.
        maps::count(unsafe { &raw mut (*guard).corrupt.count }, 1);
    }
}

#[inline(always)]
fn is_within_rate(guard: *mut Guard, rule: u32, id: u32) -> bool {
    // SAFETY: as in `admit`.
    let (flags, interval, tolerance) =
        unsafe { ((*guard).flags, (*guard).interval, (*guard).tolerance) };
    // SAFETY: as in `admit`.
    let mut full_at = unsafe { &raw mut (*guard).full_at };
    if flags & PER_ID != 0 {
        match maps::bucket(BucketKey { rule, id }) {
            Some(own) => full_at = own,
            // SAFETY: as in `admit`.
            None => maps::count(unsafe { &raw mut (*guard).shared }, 1),
        }
    }
    rate::take(full_at, interval, tolerance)
}

/// Whether a fault is done to the next frame: a random number, or 0.
#[inline(never)]
fn chosen(fault: *mut Fault) -> u64 {
    // SAFETY: as in `admit`.
    let (share, seed) = unsafe { ((*fault).share, (*fault).seed) };
    if share == 0 {
        return 0;
    }
    // SAFETY: as in `admit`.
    let state = unsafe { &raw mut (*fault).state };
    let mut tries = 0;
    while tries < TRIES {
        let old = word::load(state);
        let (new, random) = choose(old, share, seed);
        if word::replace(state, old, new) {
            return match random {
                Some(random) => random | 1,
                None => 0,
            };
        }
        tries += 1;
    }
    0
}
