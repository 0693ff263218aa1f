//! Many frames without a pause: all arrive, once, in order.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use cangw_tests::backlog::Backlog;
use cangw_tests::frame::{EFF, Frame};
use cangw_tests::keeper::Keeper;
use cangw_tests::kernel;
use cangw_tests::namespace::Namespace;
use cangw_tests::socket::CanSocket;
use cangw_tests::sys;
use cangw_tests::tool::{Cangw, Listed, json, load};

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
    let sender = CanSocket::open(namespace, "x0p").deaf();
    let receiver = CanSocket::open(namespace, "x1p");
    flood_through(namespace, (&sender, &receiver), enough)
}

/// The same from one socket to another.
pub fn flood_through(
    namespace: &Namespace,
    sockets: (&CanSocket, &CanSocket),
    enough: &AtomicBool,
) -> u64 {
    let (sent, missed) = flood_with_gaps(namespace, sockets, enough, 0);
    assert_eq!(missed, 0);
    sent
}

/// Whether a frame is late or lost.
fn whether_it_comes(receiver: &CanSocket, wanted: &Frame) -> String {
    let mut later = 0;
    while let Some(frame) = receiver.receive_within(Duration::from_millis(500)) {
        later += 1;
        if frame == *wanted {
            return format!("came {later} frames later");
        }
    }
    format!("did not come with {later} later ones")
}

/// The same, where up to so many frames may be missing. Returns how many were sent, and how many of them are missing.
fn flood_with_gaps(
    namespace: &Namespace,
    (sender, receiver): (&CanSocket, &CanSocket),
    enough: &AtomicBool,
    gaps: u64,
) -> (u64, u64) {
    let _backlog = Backlog::raise();
    let sent = AtomicU64::new(0);
    let received = AtomicU64::new(0);
    let finished = AtomicBool::new(false);
    let missed = thread::scope(|scope| {
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
            let (mut next, mut missed) = (0u64, 0);
            loop {
                let Some(frame) = receiver.receive_within(Duration::from_millis(500)) else {
                    if finished.load(Ordering::Relaxed) || next < sent.load(Ordering::Relaxed) {
                        break;
                    }
                    continue;
                };
                while missed < gaps && frame != Frame::classic(ID, &next.to_le_bytes()) {
                    missed += 1;
                    next += 1;
                }
                let wanted = Frame::classic(ID, &next.to_le_bytes());
                assert!(
                    frame == wanted,
                    "{frame} came instead of number {next} ({next:X}, bytes swapped), which {}{}",
                    whether_it_comes(receiver, &wanted),
                    where_frames_went(namespace, receiver)
                );
                next += 1;
                received.store(next, Ordering::Relaxed);
            }
            (next, missed)
        };
        let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
        finished.store(true, Ordering::Relaxed);
        match answer {
            Ok((next, missed)) => {
                assert_eq!(
                    next,
                    sent.load(Ordering::Relaxed),
                    "arrived or missed, of those sent{}",
                    where_frames_went(namespace, receiver)
                );
                missed
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    assert_eq!(receiver.lost(), 0, "the receiving socket was too slow");
    (sent.into_inner(), missed)
}

/// A flood that lasts until other work is done.
fn flood_beside(namespace: &Namespace, work: impl FnOnce() + Send) -> u64 {
    beside(work, |done| flood(namespace, done))
}

/// A flood that is told when other work is done.
pub fn beside<T>(work: impl FnOnce() + Send, flood: impl FnOnce(&AtomicBool) -> T) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // However the work ends, the flood must.
            let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            done.store(true, Ordering::Relaxed);
            if let Err(panic) = answer {
                std::panic::resume_unwind(panic);
            }
        });
        flood(&done)
    })
}

#[test]
fn all_frames_arrive_in_order() {
    let namespace = gateway();
    Cangw::Ours.must(&namespace, "-A -s x0 -d x1 -f 123:7FF");
    let sent = flood(&namespace, &AtomicBool::new(true));
    let rules = Cangw::Ours.list(&namespace);
    assert_eq!((rules[0].handled, rules[0].dropped), (sent, 0));
}

#[test]
fn all_frames_arrive_in_order_while_the_engine_changes() {
    let namespace = gateway();
    // Another interface keeps the XDP program in the kernel's dispatcher: its code is changed in place with the first user of a program, and with
    // the last, and an emulated processor that executes it meanwhile can stop (an int3 that nobody knows of any more).
    Cangw::Ours.must(
        &namespace,
        "rule add -s x2p -d x1p --exclusive --engine xdp",
    );
    Cangw::Ours.must(&namespace, "rule add -s x0 -d x1 --exclusive");
    let sent = flood_beside(&namespace, || {
        for _ in 0..10 {
            for change in ["interface set x0 engine xdp", "-A -s x0 -d x2"] {
                Cangw::Ours.must(&namespace, change);
            }
            for change in ["interface set x0 engine tc", "-D -s x0 -d x2"] {
                Cangw::Ours.must(&namespace, change);
            }
        }
    });
    let rules = Cangw::Ours.list(&namespace);
    assert_eq!((rules[0].handled, rules[0].dropped), (sent, 0));
}

/// XDP gives each frame to all targets, in the order of the rules; a flood into the last of them misses nothing while the others go down and
/// up again. A processor of a guest can stand still for longer than the program waits for frames that are on their way where the kernel does not;
/// what that loses is counted.
#[test]
fn all_frames_arrive_in_order_while_other_targets_go_down() {
    const TIMES: u64 = 30;
    let namespace = gateway();
    let sender = CanSocket::open(&namespace, "x0p").deaf();
    let receiver = CanSocket::open(&namespace, "x1p");
    Cangw::Ours.must(&namespace, "rule add -s x0 -d x1 --exclusive --engine xdp");
    Cangw::Ours.must(&namespace, "-A -s x0 -d x2");
    let changes = || {
        for _ in 0..TIMES {
            namespace.ip("link set x2 down");
            namespace.ip("link set x2 up");
            Cangw::Ours.must(&namespace, "sync");
        }
    };
    let gaps = if kernel::version() >= (7, 0) {
        TIMES
    } else {
        0
    };
    let (sent, missed) = beside(changes, |done| {
        flood_with_gaps(&namespace, (&sender, &receiver), done, gaps)
    });
    let rules = Cangw::Ours.list(&namespace);
    let counts: Vec<_> = rules
        .iter()
        .map(|rule| rule.handled + rule.dropped)
        .collect();
    assert_eq!(counts, [sent, sent]);
    assert_eq!((rules[1].handled, rules[1].dropped), (sent, 0));
    let interfaces = json(&namespace, "interface list --json");
    assert_eq!(
        interfaces[0]["reasons"]["fan_out"], missed,
        "{interfaces:#}"
    );
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
    let _keeper = Keeper::begin();
    let namespace = gateway();
    Cangw::Ours.must(&namespace, "-A -s x0 -d x1 -f 123:7FF");
    let sent = flood_beside(&namespace, || {
        for change in 0..changes / 2 {
            let rule = RULES[change % RULES.len()];
            Cangw::Ours.must(&namespace, &format!("-A {rule}"));
            Cangw::Ours.must(&namespace, &format!("-D {rule}"));
        }
    });
    let rules = Cangw::Ours.list(&namespace);
    assert_eq!(rules.len(), 1);
    assert_eq!((rules[0].handled, rules[0].dropped), (sent, 0));
}

/// There is room for the counters of 1,024 rules at first, then of 4,096, and of 16,384; the programs are new each time.
#[test]
fn all_frames_arrive_in_order_while_rules_outgrow_their_room() {
    let _keeper = Keeper::begin();
    for engine in ["tc", "xdp"] {
        let namespace = gateway();
        let flow = format!("-s x0 -d x1 -f 123:7FF --exclusive --engine {engine}");
        Cangw::Ours.must(&namespace, &format!("rule add {flow}"));
        let mut others = 0;
        let sent = flood_beside(&namespace, || {
            for more in [1500, 3000] {
                // On another interface, so that the engine stays.
                let rules = (others..others + more)
                    .map(|n| format!("-s x2 -d x1 -f {:X}:9FFFFFFF\n", EFF | n));
                load(&namespace, &rules.collect::<String>());
                others += more;
            }
        });
        let receiver = CanSocket::open(&namespace, "x1p");
        let last = Frame::classic(EFF | (others - 1), &[1, 2, 3]);
        CanSocket::open(&namespace, "x2p").deaf().send(&last);
        assert_eq!(receiver.receive(), last);
        let rules = Cangw::Ours.list(&namespace);
        assert_eq!(rules.len(), 1 + others as usize);
        let handled = |rule: &Listed| (rule.handled, rule.dropped);
        assert_eq!(rules.last().map(handled), Some((sent, 0)), "{engine}");
        assert_eq!(rules.first().map(handled), Some((1, 0)), "{engine}");
        assert_eq!(former_maps(), ["RULES_1024", "RULES_4096"]);
        Cangw::Ours.must(&namespace, "-F");
        assert!(former_maps().is_empty(), "{:?}", former_maps());
    }
}

/// Pins of all maps of counters that were too small.
fn former_maps() -> Vec<String> {
    let gateways = fs::read_dir("/sys/fs/bpf/cangw").expect("the keeper's is there");
    let pins = gateways.flat_map(|gateway| fs::read_dir(gateway.expect("a folder").path()));
    let names = pins.flatten().map(|pin| pin.expect("a pin").file_name());
    let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
    names.retain(|name| name.starts_with("RULES_"));
    names.sort();
    names
}

/// An interface that has rules and becomes the target of one with `-e` needs another qdisc; the kernel has no way to replace it without a gap.
#[test]
fn frames_that_come_while_a_qdisc_is_replaced_are_counted() {
    let _keeper = Keeper::begin();
    let namespace = gateway();
    Cangw::Ours.must(&namespace, "-A -s x0 -d x1 -f 123:7FF");
    let sender = CanSocket::open(&namespace, "x0p").deaf();
    let stop = AtomicBool::new(false);
    let (sent, answer) = thread::scope(|scope| {
        let sending = scope.spawn(|| {
            for sent in 0..FRAMES {
                if stop.load(Ordering::Relaxed) {
                    return sent;
                }
                sender.send(&Frame::classic(ID, &[]));
                thread::sleep(Duration::from_micros(100));
            }
            FRAMES
        });
        thread::sleep(Duration::from_millis(50));
        let answer = Cangw::Ours.run(&namespace, "-A -s x1 -d x0 -e -f 700:7FF");
        thread::sleep(Duration::from_millis(50));
        stop.store(true, Ordering::Relaxed);
        (sending.join().expect("the sender ends"), answer)
    });
    assert_eq!(answer.code, 0, "{answer:?}");
    let rules = Cangw::Ours.list(&namespace);
    // The newest comes first.
    let served = rules[1].handled + rules[1].dropped;
    let interfaces = json(&namespace, "interface list --json");
    let unserved = interfaces[0]["reasons"]["unserved"].as_u64();
    let unserved = unserved.expect("a number of frames");
    assert!(
        served <= sent && sent <= served + unserved,
        "{sent} sent, {served} served, {unserved} not: {answer:?}"
    );
    let note = format!("up to {unserved} frames that arrived meanwhile were not forwarded");
    assert_eq!(answer.stderr.contains(&note), unserved != 0, "{answer:?}");
}
