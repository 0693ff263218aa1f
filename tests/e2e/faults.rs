//! Faults: a share of the copies is dropped, sent twice or damaged.

use cangw_tests::frame::Frame;
use cangw_tests::lab::{Lab, Link};
use cangw_tests::tool::{Cangw, json};

const LINKS: [Link; 4] = [
    Link::Vxcan("x0"),
    Link::Vxcan("x1"),
    Link::Vxcan("x2"),
    Link::Vxcan("x3"),
];
const FRAMES: u32 = 100_000;
const BATCH: u32 = 10_000;

/// A frame with a number and its checksum.
fn frame(number: u32) -> Frame {
    let [a, b, c, _] = number.to_le_bytes();
    Frame::classic(0x123, &[a, b, c, a ^ b ^ c])
}

/// The number of a frame; `None` when the checksum is wrong.
fn number_of(frame: &Frame) -> Option<u32> {
    match *frame.data() {
        [a, b, c, sum] if a ^ b ^ c == sum => Some(u32::from_le_bytes([a, b, c, 0])),
        _ => None,
    }
}

fn rule(namespace: &cangw_tests::namespace::Namespace, target: &str) -> serde_json::Value {
    let stats = json(namespace, "stats --json");
    let rules = stats["rules"].as_array().expect("rules");
    let found = rules.iter().find(|rule| rule["target"] == target);
    found.expect("a rule to this target").clone()
}

/// How often each of the frames arrived, and how many have one other bit. The first three bytes are the number and the fourth its
/// exclusive or, so that a damaged frame is told from another one.
fn compare(numbers: std::ops::Range<u32>, arrived: &[Frame]) -> (Vec<u32>, u32) {
    let mut times = vec![0; numbers.len()];
    let mut damaged = 0;
    let mut next = numbers.start;
    for found in arrived {
        let number = match number_of(found) {
            Some(number) => number,
            None => {
                damaged += 1;
                // It shows its number by its place.
                let (was, is) = (frame(next), found);
                let bits = was.data().iter().zip(is.data());
                let bits: u32 = bits.map(|(a, b)| (a ^ b).count_ones()).sum();
                assert_eq!(bits, 1, "{is} in the place of {was}");
                next
            }
        };
        assert!(
            number + 1 >= next && numbers.contains(&number),
            "{number} after {next}"
        );
        times[(number - numbers.start) as usize] += 1;
        next = number + 1;
    }
    (times, damaged)
}

#[test]
fn shares_hold() {
    let mut lab = Lab::new("faults", &LINKS);
    for options in [
        "-d x1 --drop 1%",
        "-d x2 --duplicate 10%",
        "-d x3 --corrupt 0.5%",
    ] {
        Cangw::Ours.must(
            &lab.namespace,
            &format!("rule add -s x0 {options} --seed 7 --exclusive"),
        );
    }
    let (mut missing, mut twice, mut damaged) = (0, 0, 0);
    for first in (0..FRAMES).step_by(BATCH as usize) {
        let batch = first..first + BATCH;
        batch
            .clone()
            .for_each(|number| lab.post("x0p", &frame(number)));
        let seen = lab.take();
        let count = |times: &[u32], wanted| times.iter().filter(|&&n| n == wanted).count();
        let (times, other) = compare(batch.clone(), &seen["x1p"]);
        missing += count(&times, 0);
        assert_eq!(
            (count(&times, 0) + count(&times, 1), other),
            (BATCH as usize, 0)
        );
        let (times, other) = compare(batch.clone(), &seen["x2p"]);
        twice += count(&times, 2);
        assert_eq!(
            (count(&times, 1) + count(&times, 2), other),
            (BATCH as usize, 0)
        );
        let (times, other) = compare(batch, &seen["x3p"]);
        damaged += other;
        assert_eq!(count(&times, 1), BATCH as usize);
        assert_eq!(seen.get("x0"), None, "exclusive, also for what is dropped");
    }
    // Within 1 % of the share.
    assert!((990..=1010).contains(&missing), "{missing} dropped");
    assert!((9_900..=10_100).contains(&twice), "{twice} sent twice");
    assert!((495..=505).contains(&damaged), "{damaged} damaged");
    let count = |target, name: &str| rule(&lab.namespace, target)[name].as_u64();
    assert_eq!(count("x1", "dropped_by_fault"), Some(missing as u64));
    assert_eq!(
        count("x1", "handled"),
        Some(u64::from(FRAMES) - missing as u64)
    );
    assert_eq!(count("x2", "duplicated"), Some(twice as u64));
    assert_eq!(
        count("x2", "handled"),
        Some(u64::from(FRAMES) + twice as u64)
    );
    assert_eq!(count("x3", "corrupted"), Some(u64::from(damaged)));
    assert_eq!(count("x3", "handled"), Some(u64::from(FRAMES)));
}

#[test]
fn a_seed_chooses_the_same_frames() {
    let mut lab = Lab::new("seeds", &LINKS);
    let mut run = |seed| {
        let rule = format!("-s x0 -d x1 --drop 10% --duplicate 10% --corrupt 10% --seed {seed}");
        Cangw::Ours.must(&lab.namespace, &format!("rule add {rule}"));
        (0..2000).for_each(|number| lab.post("x0p", &frame(number)));
        let seen = lab.take_on("x1p");
        Cangw::Ours.must(&lab.namespace, &format!("rule delete {rule}"));
        seen
    };
    let first = run(7);
    assert_ne!(first.len(), 2000);
    assert_eq!(run(7), first);
    assert_ne!(run(8), first);
}

/// The source sees the frame as it came, and the next copy is not damaged.
#[test]
fn damage_is_the_copys_own() {
    let mut lab = Lab::new("damage", &LINKS);
    for options in [
        "-d x3 -m SET:I:100.0.0000000000000000",
        "-d x2",
        "-d x1 --corrupt 100% -x 0:2:3:00 -m XOR:D:0.0.0100000000000000",
    ] {
        Cangw::Ours.must(&lab.namespace, &format!("rule add -s x0 {options}"));
    }
    let sent = Frame::classic(0x123, &[1, 2, 3, 4]);
    lab.send("x0p", &sent);
    let seen = lab.take();
    let right = [0, 2, 3, 1];
    let wrong: u32 = seen["x1p"][0]
        .data()
        .iter()
        .zip(right)
        .map(|(a, b)| (a ^ b).count_ones())
        .sum();
    assert_eq!(
        wrong, 1,
        "after the modification and its checksum: {:?}",
        seen["x1p"]
    );
    assert_eq!(seen["x2p"], std::slice::from_ref(&sent));
    assert_eq!(seen["x3p"], [Frame::classic(0x100, &[1, 2, 3, 4])]);
    assert_eq!(seen["x0"], [sent]);
    // A frame without data has nothing to damage.
    lab.send("x0p", &Frame::classic(0x123, &[]));
    lab.send("x0p", &Frame::remote(0x123, 8));
    assert_eq!(lab.take_on("x1p").len(), 2);
    assert_eq!(rule(&lab.namespace, "x1")["corrupted"], 1);
}
