//! Rate limits and faults: which of a rule's frames are withheld, sent twice or damaged.
//!
//! Everything here is arithmetic on one word of state, so that the programs can carry it out with a compare-and-exchange, whichever CPU
//! a frame comes to, and tests can follow it on the host.

/// The share of all frames.
pub const ALL: u64 = 1 << 32;

/// One step of the generic cell rate algorithm (ITU-T I.371), which is a token bucket with one word of state: the time at which the bucket
/// would be full again. Times are in nanoseconds.
///
/// `interval` is the time between two frames at the limit, and `tolerance` how much earlier than that one may come: the burst minus one,
/// times the interval. `None`: the frame is over the limit, and the state stays.
#[must_use]
#[inline(always)]
pub const fn within_rate(full_at: u64, now: u64, interval: u64, tolerance: u64) -> Option<u64> {
    if full_at > now && full_at - now > tolerance {
        return None;
    }
    let from = if full_at > now { full_at } else { now };
    Some(from.wrapping_add(interval))
}

/// One step of the choice of a share of all frames, of 2^32: the new state, and for a frame that is chosen a random number.
///
/// The frames are divided into strata of one chosen frame each, at a random place in its stratum: the places look random, and the number of
/// frames chosen of any `n` differs from the share of `n` by less than 2. The state counts frames (high half) and chosen frames (low half).
#[must_use]
#[inline(always)]
pub const fn choose(state: u64, share: u64, seed: u64) -> (u64, Option<u64>) {
    let (frames, chosen) = (state >> 32, state & 0xFFFF_FFFF);
    let random = mix(seed ^ chosen);
    // The next place is (chosen + random) / share, with random in 0..1, in units of frames.
    let next = (chosen << 32) | (random >> 32);
    let is_chosen = next < (frames + 1) * share;
    let chosen = chosen + is_chosen as u64;
    let state = if frames == 0xFFFF_FFFF - 1 {
        // Begins anew after 4 billion frames.
        0
    } else {
        ((frames + 1) << 32) | chosen
    };
    (state, if is_chosen { Some(mix(random)) } else { None })
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): all bits of the result depend on all bits of `value`.
#[must_use]
#[inline(always)]
pub const fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// How many of the frames, one every `step`, pass in `total`.
    fn passed(step: u64, total: u64, interval: u64, tolerance: u64) -> u64 {
        let mut full_at = 0;
        let mut passed = 0;
        let mut now = 1_000 * MS;
        let end = now + total;
        while now < end {
            if let Some(next) = within_rate(full_at, now, interval, tolerance) {
                full_at = next;
                passed += 1;
            }
            now += step;
        }
        passed
    }

    #[test]
    fn a_flood_passes_at_the_rate_and_once_the_burst() {
        // 100 a second, burst 1 and 5, for ten seconds.
        assert_eq!(passed(MS / 10, 10_000 * MS, 10 * MS, 0), 1000);
        assert_eq!(passed(MS / 10, 10_000 * MS, 10 * MS, 40 * MS), 1004);
    }

    #[test]
    fn frames_at_the_rate_all_pass_also_when_some_come_early() {
        assert_eq!(passed(10 * MS, 10_000 * MS, 10 * MS, 0), 1000);
        let mut full_at = 0;
        for i in 1..1000u64 {
            let early = if i % 2 == 0 { MS } else { 0 };
            full_at = within_rate(full_at, i * 10 * MS - early, 10 * MS, 10 * MS).unwrap();
        }
    }

    #[test]
    fn a_share_is_kept_to_two_frames() {
        for share in [
            0,
            1,
            ALL / 100_000,
            ALL / 100,
            ALL / 10,
            ALL * 3 / 10,
            ALL * 9 / 10,
            ALL,
        ] {
            for seed in 0..20 {
                let mut state = 0;
                let mut chosen = 0u64;
                for n in 1..=20_000u64 {
                    let (next, hit) = choose(state, share, mix(seed));
                    state = next;
                    chosen += u64::from(hit.is_some());
                    let ideal = (u128::from(n) * u128::from(share) / u128::from(ALL)) as u64;
                    assert!(
                        chosen.abs_diff(ideal) < 2,
                        "{share} {seed} {n} {chosen} {ideal}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_seed_gives_the_same_frames_and_another_seed_others() {
        let frames = |seed| {
            let mut state = 0;
            (0..1000)
                .map(|_| {
                    let (next, hit) = choose(state, ALL / 10, seed);
                    state = next;
                    hit
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(frames(1), frames(1));
        assert_ne!(frames(1), frames(2));
        // The distances between chosen frames are not all the same.
        let places: Vec<_> = (0..1000).filter(|&i| frames(1)[i].is_some()).collect();
        let distances: std::collections::HashSet<_> =
            places.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(distances.len() > 5, "{distances:?}");
    }

    #[test]
    fn the_count_of_frames_begins_anew_before_it_overflows() {
        let (state, _) = choose(0xFFFF_FFFE_0000_0000, ALL, 1);
        assert_eq!(state, 0);
    }
}
