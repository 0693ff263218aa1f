//! The programs natively, on the kernel of this machine (`BPF_PROG_TEST_RUN`): nanoseconds a frame, by number of rules and type of frame.
//!
//! The kernel runs test packets through the XDP program only; the tc program looks up in the same tables. Needs root.

#[path = "../cangw-user/tests/loaded/mod.rs"]
mod loaded;

use std::time::Duration;

use cangw::compile::Input;
use cangw_common::frame::{EFF_FLAG, FrameType};
use cangw_common::rule::{Filter, Match};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use loaded::{LOOPBACK, bytes, load};

/// What the kernel runs in one call at most, so that others get the processor.
const MOST: u64 = 100_000;

/// `XDP_REDIRECT`
const XDP_REDIRECT: u32 = 4;

/// The identifiers of the frames, each matched by one of the last rules.
const FRAMES: [(&str, FrameType, u32, u32); 4] = [
    ("standard", FrameType::Classic, 0x123, 0xC000_07FF),
    (
        "extended",
        FrameType::Classic,
        EFF_FLAG | 0x1234,
        0xDFFF_FFFF,
    ),
    (
        "PGN",
        FrameType::Classic,
        EFF_FLAG | 0x1855_0721,
        0x83FF_FF00,
    ),
    ("FD", FrameType::Fd, 0x123, 0xC000_07FF),
];

fn rules(count: u32) -> Vec<Input> {
    let others = (0..count.saturating_sub(FRAMES.len() as u32)).map(|i| {
        let (id, mask) = if i % 2 == 0 {
            (EFF_FLAG | (i * 7919), 0xDFFF_FFFF)
        } else {
            (EFF_FLAG | (i << 8), 0x83FF_FF00)
        };
        (FrameType::Classic, id, mask)
    });
    let last = FRAMES.map(|(_, kind, id, mask)| (kind, id & mask, mask));
    let input = |(slot, (kind, id, mask)): (usize, (FrameType, u32, u32))| {
        let predicate = Filter { id, mask }.predicate();
        Input {
            iif_tx_ok: true,
            ..Input::new(slot as u32, Match { kind, predicate }, LOOPBACK, LOOPBACK)
        }
    };
    others.chain(last).enumerate().map(input).collect()
}

fn bench(c: &mut Criterion) {
    let (mut loaded, _) = load();
    let mut group = c.benchmark_group("XDP program");
    group.throughput(Throughput::Elements(1));
    for count in [4, 100, 10_000] {
        loaded.install(&rules(count));
        for (name, kind, id, _) in FRAMES {
            let frame = bytes(kind, id);
            // What is measured is a frame that is forwarded.
            assert_eq!(loaded.run(&frame, 1).return_value, XDP_REDIRECT);
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter_custom(|times| {
                    let mut spent = Duration::ZERO;
                    let mut left = times;
                    while left > 0 {
                        let now = left.min(MOST) as u32;
                        // The kernel says what one run takes, on average.
                        spent += loaded.run(&frame, now).duration * now;
                        left -= u64::from(now);
                    }
                    spent
                });
            });
        }
    }
    group.finish();
    // What a change costs beside the state and netlink: the tables are compiled anew, and switched.
    let mut group = c.benchmark_group("change");
    group.sample_size(20);
    for count in [4, 10_000] {
        let rules = rules(count);
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| loaded.install(&rules).lists.len());
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
