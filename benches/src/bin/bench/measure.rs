//! One case, measured.

use std::time::{Duration, Instant};

use cangw_benches::{Measured, View};

use crate::cases::{BATCH, Case, Gateway};
use crate::scene::Scene;

/// Measures instructions. `reading` is what taking a frame out of a socket costs, in nanoseconds, if that is known; the first
/// measurement finds it out.
pub fn count(case: &Case, reading: &mut Option<f64>) -> Measured {
    let scene = Scene::new(case);
    warm_up(case, &scene);
    let frame = case.frame();
    let (mut spent, mut drained, mut delivered) = (Duration::ZERO, Duration::ZERO, 0);
    for _ in 0..case.frames / BATCH {
        let start = Instant::now();
        for _ in 0..BATCH {
            scene.sender.send(&frame);
        }
        if case.gateway == Gateway::Forwarder {
            // It runs while this thread waits for its frames.
            for _ in 0..BATCH {
                drop(scene.receivers[0].receive());
            }
            delivered += BATCH;
            spent += start.elapsed();
            continue;
        }
        // On one CPU a frame has reached the receiver's queue when `send` returns; taking it out is not counted.
        spent += start.elapsed();
        let start = Instant::now();
        delivered += drain(&scene);
        drained += start.elapsed();
    }
    while case.forwards() && delivered < case.frames * case.targets {
        drop(scene.receivers[0].receive());
        delivered += 1;
    }
    let mut each = spent.as_nanos() as f64 / f64::from(case.frames);
    match case.gateway {
        Gateway::Forwarder => each -= reading.unwrap_or_default(),
        Gateway::CanGw => {
            reading.get_or_insert(drained.as_nanos() as f64 / f64::from(delivered));
        }
        _ => {}
    }
    measured(
        case,
        case.frames,
        delivered,
        View::Counted { instructions: each },
    )
}

/// Measures by the clock.
pub fn time(case: &Case) -> Measured {
    let scene = Scene::new(case);
    warm_up(case, &scene);
    let frame = case.frame();
    let singles = case.frames / 10;
    let mut times: Vec<f64> = (0..singles)
        .map(|_| {
            let start = Instant::now();
            scene.sender.send(&frame);
            drop(scene.receivers[0].receive());
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[(times.len() as f64 * share) as usize];
    let start = Instant::now();
    let mut delivered = 0;
    for _ in 0..case.frames / BATCH {
        for _ in 0..BATCH {
            scene.sender.send(&frame);
        }
        delivered += drain(&scene);
    }
    while delivered < case.frames {
        drop(scene.receivers[0].receive());
        delivered += 1;
    }
    let view = View::Clock {
        median_us: at(0.5),
        p99_us: at(0.99),
        frames_per_s: f64::from(case.frames) / start.elapsed().as_secs_f64(),
    };
    measured(case, case.frames + singles, delivered + singles, view)
}

fn measured(case: &Case, sent: u32, delivered: u32, view: View) -> Measured {
    let expected = if case.forwards() {
        sent * case.targets
    } else {
        0
    };
    assert_eq!(delivered, expected, "frames that arrived: {}", case.name());
    Measured {
        name: case.name(),
        group: case.group.to_owned(),
        gateway: case.gateway.name().to_owned(),
        kind: case.kind.name().to_owned(),
        rules: case.rules,
        targets: case.targets,
        sent,
        delivered,
        view,
    }
}

/// The kernel takes up to a second until it sends through a pair that has just become whole. The first frames also pay for caches and
/// for the kernel's own patching of code.
fn warm_up(case: &Case, scene: &Scene) {
    let frame = case.frame();
    for _ in 0..BATCH {
        scene.sender.send(&frame);
        let arrives = |receiver: &cangw_tests::socket::CanSocket| {
            receiver
                .receive_within(Duration::from_millis(100))
                .is_some()
        };
        if case.forwards() && scene.receivers.iter().all(arrives) {
            break;
        }
    }
    drain(scene);
}

fn drain(scene: &Scene) -> u32 {
    let receivers = scene.receivers.iter();
    receivers.map(|r| r.drain().len() as u32).sum()
}
