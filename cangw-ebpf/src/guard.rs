//! Rules with a rate limit or faults: asked for each frame before a copy is sent.

use cangw_common::abi::{BucketKey, Fault, Guard, PER_ID};
use cangw_common::guard::{choose, within_rate};

use crate::access;
use crate::maps;

/// How often a word that other CPUs change meanwhile is tried. One of them succeeds with each try.
const TRIES: u32 = 8;

/// What a rule does with a frame, in one word for the verifier's sake.
#[derive(Clone, Copy)]
pub struct Answer(u64);

impl Answer {
    const SEND: u64 = 1;
    const AGAIN: u64 = 2;
    const DAMAGE: u64 = 4;
    const FLAGS: u64 = 7;

    /// Whether it sends it.
    #[inline(always)]
    pub fn sends(self) -> bool {
        self.0 & Self::SEND != 0
    }

    /// 1 when it sends it twice.
    #[inline(always)]
    pub fn again(self) -> u32 {
        (self.0 & Self::AGAIN) as u32 / Self::AGAIN as u32
    }

    /// Whether it flips a bit of the data.
    #[inline(always)]
    pub fn damages(self) -> bool {
        self.0 & Self::DAMAGE != 0
    }

    /// Which one.
    #[inline(always)]
    pub fn random(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Asks the guard of a rule about a frame with this identifier, and counts what is withheld or duplicated.
#[inline(always)]
pub fn ask(rule: u32, id: u32) -> Answer {
    Answer(answer(rule, id))
}

/// [`ask`], as a function of its own, which the verifier looks at once.
#[inline(never)]
fn answer(rule: u32, id: u32) -> u64 {
    let Some(guard) = maps::guard(rule) else {
        // There is a guard for every rule that userspace marked.
        return 0;
    };
    // SAFETY: here and below, `guard` points to a value of a map, which is valid until the program ends, and is changed by atomic
    // instructions only.
    let interval = unsafe { (*guard).interval };
    if interval != 0 && !is_within_rate(guard, rule, id) {
        // SAFETY: as above.
        maps::count(unsafe { &raw mut (*guard).over_rate }, 1);
        return 0;
    }
    // SAFETY: as above.
    if chosen(unsafe { &raw mut (*guard).drop }) != 0 {
        // SAFETY: as above.
        maps::count(unsafe { &raw mut (*guard).drop.count }, 1);
        return 0;
    }
    let mut answer = Answer::SEND;
    // SAFETY: as above.
    if chosen(unsafe { &raw mut (*guard).duplicate }) != 0 {
        // SAFETY: as above.
        maps::count(unsafe { &raw mut (*guard).duplicate.count }, 1);
        answer |= Answer::AGAIN;
    }
    // SAFETY: as above.
    let random = chosen(unsafe { &raw mut (*guard).corrupt });
    if random != 0 {
        answer |= Answer::DAMAGE | random & !Answer::FLAGS;
    }
    answer
}

/// Counts a frame that was damaged.
#[inline(always)]
pub fn count_damaged(rule: u32) {
    if let Some(guard) = maps::guard(rule) {
        // SAFETY: as in `answer`.
        maps::count(unsafe { &raw mut (*guard).corrupt.count }, 1);
    }
}

#[inline(always)]
fn is_within_rate(guard: *mut Guard, rule: u32, id: u32) -> bool {
    // SAFETY: as in `answer`.
    let (flags, interval, tolerance) =
        unsafe { ((*guard).flags, (*guard).interval, (*guard).tolerance) };
    // SAFETY: as in `answer`.
    let mut full_at = unsafe { &raw mut (*guard).full_at };
    if flags & PER_ID != 0 {
        match maps::bucket(BucketKey { rule, id }) {
            Some(own) => full_at = own,
            // SAFETY: as in `answer`.
            None => maps::count(unsafe { &raw mut (*guard).shared }, 1),
        }
    }
    take(full_at, interval, tolerance) != 0
}

/// Takes a frame out of a limit; 0 when there is none left.
#[inline(never)]
fn take(full_at: *mut u64, interval: u64, tolerance: u64) -> u64 {
    let now = access::now();
    let mut tries = 0;
    while tries < TRIES {
        let old = access::load(full_at);
        let Some(new) = within_rate(old, now, interval, tolerance) else {
            return 0;
        };
        if access::replace(full_at, old, new) {
            return 1;
        }
        tries += 1;
    }
    0
}

/// Whether a fault is done to the next frame: a random number, or 0.
#[inline(never)]
fn chosen(fault: *mut Fault) -> u64 {
    // SAFETY: as in `answer`.
    let (share, seed) = unsafe { ((*fault).share, (*fault).seed) };
    if share == 0 {
        return 0;
    }
    // SAFETY: as in `answer`.
    let state = unsafe { &raw mut (*fault).state };
    let mut tries = 0;
    while tries < TRIES {
        let old = access::load(state);
        let (new, random) = choose(old, share, seed);
        if access::replace(state, old, new) {
            return match random {
                Some(random) => random | 1,
                None => 0,
            };
        }
        tries += 1;
    }
    0
}
