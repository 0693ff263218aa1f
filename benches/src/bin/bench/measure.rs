//! One case, measured.

use std::time::{Duration, Instant};

use cangw_benches::{Measured, View};

use crate::cases::{BATCH, Case, Gateway};
use crate::scene::Scene;

/// Measures instructions, up to where frames arrive at the targets' other ends: what sockets there do with them is the same
/// whoever forwards them.
pub fn count(case: &Case) -> Measured {
    let mut scene = Scene::new(case);
    warm_up(case, &scene);
    let forwarder = case.gateway == Gateway::Forwarder;
    if !forwarder {
        scene.receivers.clear();
    }
    // Namespaces and programs of the case before go away later than their files.
    std::thread::sleep(Duration::from_secs(2));
    let frame = case.frame();
    let before = scene.arrived();
    let mut spent = Duration::ZERO;
    for _ in 0..case.frames / BATCH {
        let start = Instant::now();
        for _ in 0..BATCH {
            scene.sender.send(&frame);
        }
        // On one CPU a frame has arrived when `send` returns, unless another program has to forward it.
        for _ in 0..if forwarder { BATCH } else { 0 } {
            drop(scene.receivers[0].receive());
        }
        spent += start.elapsed();
    }
    let expected = u64::from(if case.forwards() {
        case.frames * case.targets
    } else {
        0
    });
    let patience = Instant::now();
    while scene.arrived() - before < expected && patience.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let delivered = u32::try_from(scene.arrived() - before).expect("as many as were sent");
    let instructions = spent.as_nanos() as f64 / f64::from(case.frames);
    measured(case, case.frames, delivered, View::Counted { instructions })
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
