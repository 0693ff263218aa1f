//! Compiling rules and looking frames up, on the host.

use cangw::compile::{Input, Interface, States, compile};
use cangw::rule::{Rule, parse_filter};
use cangw::state::{Entry, State};
use cangw_common::classify::classify;
use cangw_common::frame::{EFF_FLAG, FrameType};
use cangw_common::rule::{Filter, Match};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const INTERFACE: Interface = Interface {
    ifindex: 1,
    max_hops: 1,
    flags: 0,
};

fn rules(count: u32) -> Vec<Input> {
    (0..count)
        .map(|i| {
            let filter = match i % 3 {
                0 => Filter {
                    id: i / 3 % 0x800,
                    mask: 0xC000_07FF,
                },
                1 => Filter {
                    id: EFF_FLAG | (i * 7919),
                    mask: 0xDFFF_FFFF,
                },
                _ => Filter {
                    id: EFF_FLAG | (i << 8),
                    mask: 0x83FF_FF00,
                },
            };
            let kind = FrameType::Classic;
            let predicate = filter.predicate();
            Input::new(i, Match { kind, predicate }, 1, 2)
        })
        .collect()
}

fn state(count: u32) -> State {
    let rule = |i| Rule {
        filter: Some(Filter {
            id: EFF_FLAG | (i * 7919),
            mask: 0xDFFF_FFFF,
        }),
        ..Rule::new("can0", "can1", FrameType::Classic)
    };
    State {
        rules: (0..count)
            .map(|i| Entry::new(&rule(i), i, (1, 2)))
            .collect(),
        ..State::default()
    }
}

fn bench(c: &mut Criterion) {
    c.bench_function("parse a filter", |b| {
        b.iter(|| parse_filter(std::hint::black_box("92345678:DFFFFFFF")));
    });
    // What a change reads, copies and writes beside the tables.
    let state = state(10_000);
    c.bench_function("read and write the state of 10,000 rules", |b| {
        b.iter(|| {
            let bytes = postcard::to_allocvec(&state).unwrap_or_default();
            postcard::from_bytes::<State>(&bytes).map(|state| state.rules.len())
        });
    });
    let mut group = c.benchmark_group("compile");
    group.sample_size(10);
    for count in [1, 100, 10_000] {
        let rules = rules(count);
        group.bench_with_input(BenchmarkId::from_parameter(count), &rules, |b, rules| {
            b.iter(|| compile(INTERFACE, rules, &States::default()).map(|c| c.lists.len()));
        });
    }
    group.finish();
    let mut group = c.benchmark_group("classify");
    group.throughput(Throughput::Elements(1));
    for count in [1, 10_000] {
        let Ok(tables) = compile(INTERFACE, &rules(count), &States::default()) else {
            panic!("{count} rules do not compile");
        };
        for (name, id) in [("standard", 0x123), ("extended", EFF_FLAG | 0x18FE_F121)] {
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter(|| {
                    let id = std::hint::black_box(id);
                    classify(&tables.tables, &tables, FrameType::Classic, id, || None)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
