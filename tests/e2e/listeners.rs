//! Interfaces that are not exclusive: local sockets get every frame as soon as there are any, and nothing is done for them before.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cangw_tests::backlog::Backlog;
use cangw_tests::frame::{BRS, EFF, Frame};
use cangw_tests::module;
use cangw_tests::namespace::Namespace;
use cangw_tests::socket::{ANY, CanSocket};
use cangw_tests::sys;
use cangw_tests::tool::{Cangw, json};

const TARGETS: [&str; 3] = ["x1", "x2", "x3"];
/// After this time without a frame, none is on its way.
const SILENCE: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(60);

/// Pairs of which the first end has the name and is part of the gateway; the name of the other end has a `p` more.
fn gateway() -> Namespace {
    let namespace = Namespace::new("listeners");
    for name in ["x0", "x1", "x2", "x3"] {
        namespace.ip(&format!(
            "link add {name} type vxcan peer name {name}p\nlink set {name} mtu 72 up\nlink set {name}p mtu 72 up"
        ));
    }
    namespace
}

/// What `interface list --json` says of the source's listeners.
fn listeners(namespace: &Namespace) -> serde_json::Value {
    let interfaces = json(namespace, "interface list --json");
    interfaces
        .as_array()
        .and_then(|all| all.iter().find(|i| i["name"] == "x0"))
        .unwrap_or_else(|| panic!("x0 is listed: {interfaces:#}"))["listeners"]
        .clone()
}

/// Frames that local sockets of this namespace could have received, by the kernel's count.
fn received(namespace: &Namespace) -> u64 {
    let stats = namespace.output("cat", &["/proc/net/can/stats"]);
    let line = stats.lines().find(|line| line.ends_with("(RXF)"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("a count of received frames: {stats}"))
}

fn frames() -> Vec<Frame> {
    vec![
        Frame::classic(0x123, &[1, 2, 3, 4, 5, 6, 7, 8]),
        Frame::classic(0x124, &[]),
        Frame::remote(0x123, 0),
        Frame::classic(EFF | 0x1234_5678, &[9]),
        Frame::fd(0x123, BRS, &[0xA5; 64]),
        Frame::fd(EFF | 0x1234_5678, 0, &[1, 2]),
    ]
}

/// Rules (ZEROES is the data of a CAN FD frame) whose lists have every shape: one copy or several, alike or not, edited, echoed, with the
/// time stamp or without.
const RULES: &str = "\
-s x0 -d x1
-s x0 -d x1 -m SET:D:0.0.0102030000000000 -f 123:C00007FF
-s x0 -d x2 -t -f 124:7FF
-s x0 -d x2 -e -f 123:C00007FF
-s x0 -d x3 -m SET:I:101.0.0000000000000000 -f 92345678:DFFFFFFF
-s x0 -d x1 -X -f 123:C00007FF
-s x0 -d x2 -X -M SET:IL:1.0.2.ZEROES -f 123:C00007FF
-s x0 -d x3 -X -M SET:I:77.0.0.ZEROES -f 92345678:DFFFFFFF
";

/// Sends all frames into `x0`, while somebody listens on an interface or nobody does: what came out of each target and to the listener.
/// `others` is the number of frames that local sockets could receive nevertheless: echoes on the targets, and frames that no rule names.
fn carried(
    rules: &str,
    listener: Option<&str>,
    others: u64,
) -> (BTreeMap<&'static str, Vec<Frame>>, Vec<Frame>) {
    let namespace = gateway();
    let sender = CanSocket::open(&namespace, "x0p").deaf().without_loopback();
    for rule in rules.lines() {
        let rule = rule.replace("ZEROES", &"00".repeat(64));
        Cangw::Ours.must(&namespace, &format!("-A {rule}"));
    }
    assert_eq!(listeners(&namespace), 0);
    let listener = listener.map(|name| CanSocket::open(&namespace, name));
    assert_eq!(listeners(&namespace) != 0, listener.is_some());
    let ears: Vec<CanSocket> = TARGETS
        .iter()
        .map(|name| CanSocket::open(&namespace, &format!("{name}p")))
        .collect();
    let before = received(&namespace);
    for frame in frames() {
        sender.send(&frame);
    }
    let mut out = BTreeMap::new();
    for (name, ear) in TARGETS.into_iter().zip(&ears) {
        let frames: Vec<Frame> = std::iter::from_fn(|| ear.receive_within(SILENCE)).collect();
        out.insert(name, frames);
    }
    let mut heard = Vec::new();
    let mut beyond = received(&namespace) - before;
    beyond -= out.values().map(|frames| frames.len() as u64).sum::<u64>();
    if let Some(listener) = listener {
        heard = listener.drain();
    } else {
        assert_eq!(
            beyond, others,
            "frames went to local sockets, of which there are none"
        );
    }
    (out, heard)
}

#[test]
fn targets_get_the_same_whether_or_not_somebody_listens() {
    let (silent, _) = carried(RULES, None, 1);
    let (copied, heard) = carried(RULES, Some("x0"), 1);
    assert_eq!(heard, frames());
    assert_eq!(silent, copied);
    assert!(
        silent.values().all(|frames| !frames.is_empty()),
        "{silent:?}"
    );
}

#[test]
fn a_list_of_one_edit_is_the_same_for_listeners_and_without() {
    for rule in [
        "-s x0 -d x1 -m SET:ID:101.0.1122334455667788 -x 0:7:7:0",
        "-s x0 -d x1 -t -m SET:ID:101.0.1122334455667788",
        "-s x0 -d x1 -X -M SET:IL:77.0.4.ZEROES",
        "-s x0 -d x1 -t",
    ] {
        let fd = rule.contains("-X");
        let unmatched = frames().iter().filter(|frame| frame.is_fd() != fd).count() as u64;
        let (silent, _) = carried(rule, None, unmatched);
        let (copied, heard) = carried(rule, Some("x0"), unmatched);
        assert_eq!(heard, frames(), "{rule}");
        assert_eq!(silent, copied, "{rule}");
        assert!(!silent["x1"].is_empty(), "{rule}");
    }
}

#[test]
fn who_listens_on_all_interfaces_listens_on_each() {
    let (_, heard) = carried("-s x0 -d x1", Some(ANY), 0);
    let of_x0: Vec<Frame> = heard
        .into_iter()
        .filter(|frame| frames().contains(frame))
        .collect();
    // The classic ones once more each, because the socket also hears the far end of the target.
    let classic = frames().iter().filter(|frame| !frame.is_fd()).count();
    assert_eq!(of_x0.len(), frames().len() + classic);
}

#[test]
fn listeners_come_and_go() {
    let namespace = gateway();
    let early = CanSocket::open(&namespace, "x0");
    Cangw::Ours.must(&namespace, "-A -s x0 -d x1");
    // Without CAN_RAW_ERR_FILTER a socket is one receiver, with it two.
    let each = listeners(&namespace).as_u64().expect("a number");
    assert!((1..=2).contains(&each), "{each}");
    let second = CanSocket::open(&namespace, "x0");
    assert_eq!(listeners(&namespace), 2 * each);
    drop(early);
    assert_eq!(listeners(&namespace), each);
    let deaf = second.deaf();
    let errors_only = listeners(&namespace);
    drop(deaf);
    assert_eq!(listeners(&namespace), 0, "{errors_only} before");
    // Nobody of another namespace counts.
    let other = gateway();
    let _elsewhere = CanSocket::open(&other, ANY);
    assert_eq!(listeners(&namespace), 0);
    // Another rule, another look at who listens.
    Cangw::Ours.must(&namespace, "-A -s x0 -d x2");
    assert_eq!(listeners(&namespace), 0);
    // An exclusive interface has no use for the number.
    Cangw::Ours.must(&namespace, "interface set x0 exclusive on");
    assert_eq!(listeners(&namespace), serde_json::Value::Null);
    let late = CanSocket::open(&namespace, "x0");
    Cangw::Ours.must(&namespace, "interface set x0 exclusive off");
    assert_eq!(listeners(&namespace), each);
    drop(late);
    assert_eq!(listeners(&namespace), 0);
}

/// can-utils exits with the number of bytes that it sent.
fn theirs(namespace: &Namespace, arguments: &str) {
    let answer = Cangw::CanUtils.run(namespace, arguments);
    assert_eq!(answer.stdout, "", "{answer:?}");
}

#[test]
fn subscriptions_of_can_gw_do_not_count() {
    let namespace = gateway();
    theirs(&namespace, "-A -s x0 -d x2 -e");
    let answer = Cangw::Ours.run(&namespace, "-A -s x0 -d x1");
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(answer.stderr.contains("cangw import"), "{answer:?}");
    assert_eq!(listeners(&namespace), 0, "it was there before");
    theirs(&namespace, "-A -s x0 -d x3 -e");
    assert_eq!(listeners(&namespace), 0, "it came");
    let ear = CanSocket::open(&namespace, "x0");
    let heard = listeners(&namespace);
    assert_ne!(heard, 0);
    theirs(&namespace, "-F");
    assert_eq!(listeners(&namespace), heard, "they went");
    drop(ear);
    assert_eq!(listeners(&namespace), 0);
}

/// Unloads can.ko with all modules that need it, and loads them again.
fn reload_can() {
    let holders: Vec<String> = std::fs::read_dir("/sys/module/can/holders")
        .expect("can is loaded")
        .map(|holder| {
            holder
                .expect("a module")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .collect();
    for module in holders.iter().map(String::as_str).chain(["can"]) {
        module::unload(module);
    }
    assert!(!std::fs::exists("/sys/module/can").expect("sysfs is readable"));
    for module in &holders {
        module::load(module, &[]);
    }
}

#[test]
fn can_loaded_anew_is_counted_anew() {
    let namespace = gateway();
    Cangw::Ours.must(&namespace, "-A -s x0 -d x1");
    assert_eq!(listeners(&namespace), 0);
    reload_can();
    assert!(listeners(&namespace).is_null(), "nobody has counted");
    {
        let frame = &frames()[0];
        let sockets = ["x0", "x1p"].map(|name| CanSocket::open(&namespace, name));
        CanSocket::open(&namespace, "x0p").send(frame);
        for socket in &sockets {
            assert_eq!(socket.receive(), *frame);
        }
    }
    Cangw::Ours.must(&namespace, "sync");
    assert_eq!(listeners(&namespace), 0);
    let socket = CanSocket::open(&namespace, "x0");
    assert_ne!(listeners(&namespace), 0);
    drop(socket);
    assert_eq!(listeners(&namespace), 0);
}

/// Handle of the filter in front that copies.
const COPY: &str = "0x2";
/// Of the one that takes frames whole.
const TAKE: &str = "0x3";

/// The handle of the filter that is asked first.
fn asked_first(namespace: &Namespace) -> String {
    let filters = namespace.output("tc", &["filter", "show", "dev", "x0", "ingress"]);
    // Wherever it is asked, it has the list's action.
    for place in [COPY, TAKE] {
        let lines = filters
            .lines()
            .skip_while(|line| !line.contains(&format!("handle {place} ")));
        let mut own = lines.skip(1).take_while(|line| !line.starts_with("filter"));
        assert!(
            own.any(|line| line.contains("mirred")),
            "{place}: {filters}"
        );
    }
    let handle = |line: &str| {
        let mut words = line.split_whitespace();
        words.find(|word| *word == "handle")?;
        words.next().map(str::to_owned)
    };
    filters
        .lines()
        .find_map(handle)
        .unwrap_or_else(|| panic!("no filter: {filters}"))
}

#[test]
fn filters_in_front_follow_the_listeners() {
    let namespace = gateway();
    Cangw::Ours.must(&namespace, "-A -s x0 -d x1");
    let sender = CanSocket::open(&namespace, "x0p").deaf();
    let target = CanSocket::open(&namespace, "x1p");
    let arrive = |listener: Option<&CanSocket>| {
        for frame in frames().iter().filter(|frame| !frame.is_fd()) {
            sender.send(frame);
            assert_eq!(target.receive(), *frame);
            if let Some(listener) = listener {
                assert_eq!(listener.receive(), *frame);
            }
        }
        assert_eq!(target.receive_within(SILENCE), None);
        if let Some(listener) = listener {
            assert_eq!(listener.receive_within(SILENCE), None);
        }
    };
    assert_eq!(asked_first(&namespace), TAKE);
    arrive(None);
    let listener = CanSocket::open(&namespace, "x0");
    arrive(Some(&listener));
    Cangw::Ours.must(&namespace, "sync");
    assert_eq!(asked_first(&namespace), COPY);
    arrive(Some(&listener));
    drop(listener);
    arrive(None);
    Cangw::Ours.must(&namespace, "sync");
    assert_eq!(asked_first(&namespace), TAKE);
    arrive(None);
}

/// A sender never pauses while a socket comes and goes: of what is sent in between, it misses nothing, and the target misses nothing at all.
#[test]
fn a_listener_under_load_misses_nothing() {
    const ROUNDS: u32 = 40;
    /// Frames on their way at most, so that no queue overflows.
    const WINDOW: u32 = 2_000;
    let _backlog = Backlog::raise();
    let namespace = gateway();
    Cangw::Ours.must(&namespace, "-A -s x0 -d x1");
    let sender = CanSocket::open(&namespace, "x0p").deaf().without_loopback();
    let target = CanSocket::open(&namespace, "x1p");
    let (sent, arrived, done) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            // The kernel queues what is received on the sender's processor, so that a sender that changes it can overtake itself.
            sys::pin_to_cpu(0).expect("a thread may choose its processor");
            for number in 0u32.. {
                while number - arrived.load(Ordering::SeqCst) > WINDOW {
                    if done.load(Ordering::SeqCst) {
                        return;
                    }
                    thread::yield_now();
                }
                if done.load(Ordering::SeqCst) {
                    return;
                }
                sender.send(&Frame::classic(0x123, &number.to_le_bytes()));
                sent.store(number + 1, Ordering::SeqCst);
            }
        });
        let receiver = scope.spawn(|| {
            let mut next = 0u32;
            loop {
                let Some(frame) = target.receive_within(SILENCE) else {
                    if done.load(Ordering::SeqCst) {
                        return next;
                    }
                    continue;
                };
                let expected = Frame::classic(0x123, &next.to_le_bytes());
                if frame != expected {
                    let mut later = std::iter::from_fn(|| target.receive_within(SILENCE));
                    let fate = if later.any(|frame| frame == expected) {
                        "came later"
                    } else {
                        "is lost"
                    };
                    panic!("{frame} came in the place of {expected}, which {fate}");
                }
                next += 1;
                arrived.store(next, Ordering::SeqCst);
            }
        });
        let rounds = || {
            let mut other = None;
            for round in 0..ROUNDS {
                // The order of the filters in front changes, too.
                if round % 4 == 0 {
                    let socket = CanSocket::open(&namespace, "x0").listening_to(0x7FE);
                    other = Some(socket);
                    Cangw::Ours.must(&namespace, "sync");
                    assert_eq!(asked_first(&namespace), COPY);
                } else if round % 4 == 2 {
                    drop(other.take());
                    Cangw::Ours.must(&namespace, "sync");
                    assert_eq!(asked_first(&namespace), TAKE);
                }
                let ear = CanSocket::open(&namespace, "x0");
                let first = sent.load(Ordering::SeqCst) + 1;
                let start = Instant::now();
                while sent.load(Ordering::SeqCst) < first + 500 {
                    assert!(
                        start.elapsed() < PATIENCE,
                        "the sender waits for the target"
                    );
                    thread::yield_now();
                }
                let last = sent.load(Ordering::SeqCst);
                let mut numbers = Vec::new();
                while numbers.last().is_none_or(|&number| number + 1 < last) {
                    let frame = ear.receive();
                    numbers.push(u32::from_le_bytes(
                        frame.data().try_into().expect("a number"),
                    ));
                }
                assert_eq!(ear.lost(), 0, "the listener was too slow");
                assert!(
                    numbers[0] <= first,
                    "round {round}: began with {}, {first} was sent later",
                    numbers[0]
                );
                assert!(
                    numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]),
                    "round {round}: {numbers:?}"
                );
            }
        };
        let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(rounds));
        done.store(true, Ordering::SeqCst);
        let next = receiver.join().expect("the target misses nothing");
        if let Err(panic) = answer {
            std::panic::resume_unwind(panic);
        }
        assert_eq!(
            next,
            sent.load(Ordering::SeqCst),
            "arrived at the target, of those sent"
        );
    });
    assert_eq!(listeners(&namespace), 0);
}
