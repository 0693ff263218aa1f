//! Rate limits.

use std::thread;
use std::time::{Duration, Instant};

use cangw_tests::frame::{EFF, Frame};
use cangw_tests::lab::{Lab, Link};
use cangw_tests::recording;
use cangw_tests::tool::{Cangw, json};

const LINKS: [Link; 3] = [Link::Vxcan("x0"), Link::Vxcan("x1"), Link::Vcan("v0")];

/// A flood of 100,000 frames for ten seconds of the guest's time.
#[test]
fn a_flood_passes_at_the_rate() {
    const FRAMES: u32 = 100_000;
    const TIME: Duration = Duration::from_secs(10);
    const RATE: f64 = 100.0;
    let mut lab = Lab::new("rate", &LINKS);
    Cangw::Ours.must(
        &lab.namespace,
        "rule add -s x0 -d x1 --rate 100/s --exclusive",
    );
    let start = Instant::now();
    for number in 0..FRAMES {
        // Evenly, or as fast as the guest can.
        let due = TIME * number / FRAMES;
        if number % 100 == 0
            && let Some(early) = due.checked_sub(start.elapsed())
        {
            thread::sleep(early);
        }
        lab.post(
            "x0p",
            &Frame::classic(number % 0x800, &number.to_ne_bytes()),
        );
    }
    let time = start.elapsed().as_secs_f64();
    let passed = lab.take_on("x1p");
    let expected = RATE * time;
    let off = (passed.len() as f64 - expected).abs() / expected;
    assert!(
        off < 0.01,
        "{} frames in {time:.3} s: {:.2} % off",
        passed.len(),
        off * 100.0
    );
    // Nothing is lost silently.
    let rule = &json(&lab.namespace, "stats --json")["rules"][0];
    assert_eq!(rule["handled"], passed.len());
    assert_eq!(rule["dropped_over_rate"], FRAMES as usize - passed.len());
    assert_eq!(rule["dropped"], rule["dropped_over_rate"]);
}

/// So slow a rate that only the bursts pass: then it is known exactly what passes, however fast the guest is.
#[test]
fn each_identifier_of_a_vehicle_has_its_own_limit() {
    const BURST: u64 = 5;
    let mut lab = Lab::new("per-id", &LINKS);
    Cangw::Ours.must(
        &lab.namespace,
        &format!("rule add -s x0 -d x1 --rate 1/h --burst {BURST} --per-id"),
    );
    let frames = recording::frames();
    let sent = recording::ids(&frames);
    assert_eq!(sent.len(), 34);
    frames.iter().for_each(|frame| lab.post("x0p", frame));
    // The same number is another identifier when it is extended.
    let extended = Frame::classic(EFF | frames[0].id(), &[1]);
    lab.post("x0p", &extended);
    let seen = lab.take();
    let mut expected: std::collections::BTreeMap<u32, u64> =
        sent.iter().map(|(id, n)| (*id, (*n).min(BURST))).collect();
    expected.insert(extended.id(), 1);
    assert_eq!(recording::ids(&seen["x1p"]), expected);
    assert_eq!(seen["x0"].len(), frames.len() + 1, "local sockets get all");
    let passed: u64 = expected.values().sum();
    let rule = &json(&lab.namespace, "stats --json")["rules"][0];
    assert_eq!(rule["handled"], passed);
    assert_eq!(rule["dropped_over_rate"], frames.len() as u64 + 1 - passed);
}

/// A limit is its rule's own: other rules, changes of other rules and other copies of the frame do not touch it.
#[test]
fn a_limit_keeps_its_state_while_other_rules_change() {
    let mut lab = Lab::new("limit-state", &LINKS);
    for rule in [
        "rule add -s x0 -d x1 --rate 1/h --burst 3 -m SET:D:0.0.0700000000000000",
        "rule add -s x0 -d v0 -e",
    ] {
        Cangw::Ours.must(&lab.namespace, rule);
    }
    let frame = Frame::classic(0x123, &[1]);
    for change in [
        "rule add -s x0 -d x1 -f 7FF:7FF",
        "rule delete -s x0 -d x1 -f 7FF:7FF",
        "settings log on",
        "settings log off",
        "sync",
    ] {
        lab.send("x0p", &frame);
        Cangw::Ours.must(&lab.namespace, change);
    }
    let seen = lab.take();
    assert_eq!(seen["x1p"], vec![Frame::classic(0x123, &[7]); 3]);
    assert_eq!(seen["v0"], vec![frame.clone(); 5]);
    // A rule that is added anew begins anew.
    let rule = "-s x0 -d x1 --rate 1/h --burst 3 -m SET:D:0.0.0700000000000000";
    Cangw::Ours.must(&lab.namespace, &format!("rule delete {rule}"));
    Cangw::Ours.must(&lab.namespace, &format!("rule add {rule}"));
    lab.send("x0p", &frame);
    assert_eq!(lab.take_on("x1p").len(), 1);
}

/// What is over the limit does not meet the rules of the target as an echo.
#[test]
fn what_is_withheld_is_not_echoed() {
    let mut lab = Lab::new("limit-echo", &LINKS);
    for command in [
        "settings max-hops 2",
        "rule add -s x0 -d v0 -e --rate 1/h --burst 2",
        "rule add -s v0 -d x1",
    ] {
        Cangw::Ours.must(&lab.namespace, command);
    }
    lab.allow_hops(1);
    for _ in 0..5 {
        lab.send("x0p", &Frame::classic(0x123, &[1]));
    }
    let seen = lab.take();
    assert_eq!(seen["v0"].len(), 2);
    assert_eq!(seen["x1p"].len(), 2);
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let lab = Lab::new("bad-limits", &LINKS);
    for (options, reason) in [
        ("-d x1 --rate 0/s", "frames in a time"),
        ("-d x1 --burst 5", "needs --rate"),
        ("-d x1 --rate 1/s --burst 0", "1 to 1000000"),
        ("--rate 1/s --pass", "needs a target"),
        ("-d x1 --drop", "needs a share"),
        ("-d x1 --drop 0%", "percentage"),
        ("-d x1 --seed 3", "needs --drop"),
        ("-d x1 --id 12", "3 hexadecimal digits"),
        ("-d x1 --id 123 -f 123:7FF", "cannot be used with"),
        ("-d x1 --pgn EF05", "destination"),
        ("-d x1 --vcid 5", "--xl"),
        ("", "-d <target interface>"),
        ("--drop -e", "needs a target"),
    ] {
        let answer = Cangw::Ours.run(&lab.namespace, &format!("rule add -s x0 {options}"));
        assert_ne!(answer.code, 0, "{options}");
        assert!(answer.stderr.contains(reason), "{options}: {answer:?}");
    }
    // Drop-in mode has none of it.
    for option in [
        "--rate 1/s",
        "--drop",
        "--id 123",
        "--priority 1",
        "--watch",
    ] {
        let answer = Cangw::Ours.run(&lab.namespace, &format!("-A -s x0 -d x1 {option}"));
        assert_eq!(answer.code, 1, "{option}");
    }
    assert_eq!(Cangw::Ours.list(&lab.namespace), []);
}
