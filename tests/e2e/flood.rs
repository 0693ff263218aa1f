//! Many frames without a pause: all arrive, once, in order.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use cangw_tests::backlog::Backlog;
use cangw_tests::frame::Frame;
use cangw_tests::namespace::Namespace;
use cangw_tests::socket::CanSocket;
use cangw_tests::sys;
use cangw_tests::tool::Cangw;

const ID: u32 = 0x123;
const FRAMES: u64 = 200_000;
/// Frames that may be on their way. More would only test the size of the kernel's queues.
const WINDOW: u64 = 20_000;

fn gateway() -> Namespace {
    let namespace = Namespace::new("flood");
    for name in ["x0", "x1", "x2"] {
        namespace.ip(&format!(
            "link add {name} type vxcan peer name {name}p\nlink set {name} up\nlink set {name}p up"
        ));
    }
    namespace
}

/// All counters on the way, to tell which part lost a frame.
fn where_frames_went(namespace: &Namespace, receiver: &CanSocket) -> String {
    let _ = receiver.drain();
    let queues = fs::read_to_string("/proc/net/softnet_stat").unwrap_or_default();
    format!(
        "\nlost by the receiving socket: {}\n{}\n{}\nqueues of received frames (second column: lost)\n{queues}",
        receiver.lost(),
        Cangw::Ours.run(namespace, "stats").stdout,
        namespace.output("ip", &["-s", "link", "show", "type", "vxcan"]),
    )
}

/// Sends numbered frames into `x0p` until there are [`FRAMES`] and `enough` says so; each must come out of `x1p`
/// exactly once and in order. Returns how many were sent.
fn flood(namespace: &Namespace, enough: &AtomicBool) -> u64 {
    let _backlog = Backlog::raise();
    let sender = CanSocket::open(namespace, "x0p").deaf();
    let receiver = CanSocket::open(namespace, "x1p");
    let sent = AtomicU64::new(0);
    let received = AtomicU64::new(0);
    let finished = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Each processor has its own queue of received frames: a sender that moves to another one overtakes itself.
            sys::pin_to_cpu(0).expect("a thread may choose its processor");
            for number in 0u64.. {
                if number >= FRAMES && enough.load(Ordering::Relaxed) {
                    break;
                }
                while number - received.load(Ordering::Relaxed) > WINDOW {
                    if finished.load(Ordering::Relaxed) {
                        return;
                    }
                    thread::sleep(Duration::from_micros(100));
                }
                sender.send(&Frame::classic(ID, &number.to_le_bytes()));
                sent.store(number + 1, Ordering::Relaxed);
            }
            finished.store(true, Ordering::Relaxed);
        });
        // A panic here must let the sender go.
        let check = || {
            let mut next = 0u64;
            loop {
                let Some(frame) = receiver.receive_within(Duration::from_millis(500)) else {
                    if finished.load(Ordering::Relaxed) || next < sent.load(Ordering::Relaxed) {
                        break;
                    }
                    continue;
                };
                assert!(
                    frame == Frame::classic(ID, &next.to_le_bytes()),
                    "{frame} came instead of number {next} ({next:X}, bytes swapped){}",
                    where_frames_went(namespace, &receiver)
                );
                next += 1;
                received.store(next, Ordering::Relaxed);
            }
            next
        };
        let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
        finished.store(true, Ordering::Relaxed);
        match answer {
            Ok(next) => assert_eq!(
                next,
                sent.load(Ordering::Relaxed),
                "arrived, of those sent{}",
                where_frames_went(namespace, &receiver)
            ),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    assert_eq!(receiver.lost(), 0, "the receiving socket was too slow");
    sent.into_inner()
}

#[test]
fn all_frames_arrive_in_order() {
    let namespace = gateway();
    Cangw::Ours.must(&namespace, "-A -s x0 -d x1 -f 123:7FF");
    let sent = flood(&namespace, &AtomicBool::new(true));
    let rules = Cangw::Ours.list(&namespace);
    assert_eq!((rules[0].handled, rules[0].dropped), (sent, 0));
}

/// How many rules are added and deleted beside a flood: a few, or `CANGW_TEST_CHANGES`. In an emulated guest one takes about 0.3 s.
fn changes() -> usize {
    match std::env::var("CANGW_TEST_CHANGES") {
        Ok(text) => text.parse().expect("CANGW_TEST_CHANGES is a number"),
        Err(_) => 100,
    }
}

#[test]
fn all_frames_arrive_in_order_while_rules_change() {
    let changes = changes();
    // Rules for other frames, and rules that send the flood elsewhere, too.
    const RULES: [&str; 4] = [
        "-s x0 -d x2 -f 124:7FF",
        "-s x0 -d x2 -f 123:C00007FF",
        "-s x0 -d x2 -e",
        "-s x2 -d x1 -f 700:700",
    ];
    let namespace = gateway();
    Cangw::Ours.must(&namespace, "-A -s x0 -d x1 -f 123:7FF");
    let done = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        scope.spawn(|| {
            // However the changes end, the flood must.
            let answer = std::panic::catch_unwind(|| {
                for change in 0..changes / 2 {
                    let rule = RULES[change % RULES.len()];
                    Cangw::Ours.must(&namespace, &format!("-A {rule}"));
                    Cangw::Ours.must(&namespace, &format!("-D {rule}"));
                }
            });
            done.store(true, Ordering::Relaxed);
            if let Err(panic) = answer {
                std::panic::resume_unwind(panic);
            }
        });
        flood(&namespace, &done)
    });
    let rules = Cangw::Ours.list(&namespace);
    assert_eq!(rules.len(), 1);
    assert_eq!((rules[0].handled, rules[0].dropped), (sent, 0));
}
