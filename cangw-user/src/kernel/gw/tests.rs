//! The codec on what a kernel sent, and on everything else.

use proptest::prelude::*;

use super::*;
use crate::kernel::attr::{self, Attributes};
use crate::kernel::link::Link;

/// What can-utils' cangw lists, and what the kernel sends for it.
const CAPTURED: &str = include_str!("captured.txt");

/// Lines of the list, and messages.
fn captured() -> Vec<(&'static str, Vec<u8>)> {
    let lines: Vec<_> = CAPTURED.lines().filter(|l| !l.starts_with('#')).collect();
    let bytes = |hex: &str| {
        (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect()
    };
    lines.chunks(2).map(|l| (l[0], bytes(l[1]))).collect()
}

fn names() -> Names {
    let link = |index, name: &str| Link {
        index,
        name: name.into(),
        is_can: true,
        mtu: 72,
        up: true,
        kind: "vcan".into(),
        peer: None,
        other_end: None,
    };
    Names::from([link(2, "vcan0"), link(3, "vcan1")].as_slice())
}

/// A message without its counters, which no request has.
fn without_counters(message: &[u8]) -> Vec<u8> {
    let (head, attributes) = message.split_at(4);
    let kept = attr::all(attributes)
        .unwrap()
        .into_iter()
        .filter(|(kind, _)| ![7, 8, 12].contains(kind))
        .fold(Attributes::default(), |all, (kind, value)| {
            all.with(kind, value)
        });
    [head, &kept.into_bytes()].concat()
}

#[test]
fn what_the_kernel_sends_is_what_cangw_lists() {
    let captured = captured();
    assert_eq!(captured.len(), 5);
    for (line, message) in captured {
        let job = Job::decode(&message).unwrap();
        let rule = job.to_rule(&names()).unwrap();
        let c = job.counters;
        let text = format!(
            "cangw -A {rule} # {} handled {} dropped {} deleted",
            c.handled, c.dropped, c.deleted
        );
        assert_eq!(text, line);
        assert_eq!(job.encode(), without_counters(&message), "{line}");
    }
}

#[test]
fn what_is_not_known_is_refused_with_its_number() {
    let (_, message) = captured().pop().unwrap();
    let with = |kind, value: &[u8]| {
        let more = Attributes::default().with(kind, value).into_bytes();
        Job::decode(&[message.clone(), more].concat())
    };
    assert!(with(13, &[1]).is_ok());
    let length = |kind, len| Err(DecodeError::Length { kind, len });
    for (kind, len, expected) in [
        (0, 4, Err(DecodeError::Unknown(0))),
        (19, 4, Err(DecodeError::Unknown(19))),
        (300, 4, Err(DecodeError::Unknown(300))),
        (9, 4, Err(DecodeError::Twice(9))),
        (13, 2, length(13, 2)),
        (11, 7, length(11, 7)),
        (6, 281, length(6, 281)),
        (5, 0, length(5, 0)),
        (1, 16, length(1, 16)),
        (1, 0, length(1, 0)),
        (15, 73, Err(DecodeError::Misplaced(15))),
    ] {
        assert_eq!(with(kind, &vec![0; len]), expected, "attribute {kind}");
    }
    let fd = Job {
        flags: codec::FD,
        ..Job::default()
    };
    let more = Attributes::default().with(4, &[0; 17]).into_bytes();
    assert_eq!(
        Job::decode(&[fd.encode(), more].concat()),
        Err(DecodeError::Misplaced(4))
    );
    let head = |family, gateway| Job::decode(&[family, gateway, 0, 0]);
    assert_eq!(head(2, 1), Err(DecodeError::Family(2)));
    assert_eq!(head(29, 2), Err(DecodeError::Type(2)));
    assert_eq!(head(29, 1), Err(DecodeError::Missing(9)));
    assert_eq!(Job::decode(&[29, 1, 0]), Err(DecodeError::Short(3)));
}

#[test]
fn what_ours_does_not_have_is_refused() {
    let captured = captured();
    let job = Job::decode(&captured[0].1).unwrap();
    assert!(job.to_rule(&names()).is_ok());
    let refused = |change: fn(&mut Job)| {
        let mut job = job.clone();
        change(&mut job);
        job.to_rule(&names()).unwrap_err()
    };
    assert_eq!(refused(|j| j.source = 7), Refusal::Interface(7));
    assert_eq!(refused(|j| j.flags = 0x31), Refusal::Flags(0x30));
    let elements = Refusal::Elements {
        operation: "SET",
        elements: 9,
    };
    assert_eq!(refused(|j| j.modifications[0].elements = 9), elements);
    assert!(matches!(
        refused(|j| j.modifications.clear()),
        Refusal::Changes(_)
    ));
}

/// can-gw compares all bytes of the profile when it looks for a rule to delete, but takes a number that it does not know for none.
#[test]
fn an_unknown_profile_is_kept_for_can_gw_and_none_for_us() {
    let mut job = Job::decode(&captured()[0].1).unwrap();
    job.crc8.as_mut().unwrap().1 = codec::RawProfile {
        number: 200,
        data: [7; 20],
    };
    assert!(Job::decode(&job.encode()).unwrap().same(&job));
    let rule = job.to_rule(&names()).unwrap();
    assert_eq!(rule.changes.unwrap().profile, None);
}

/// Messages of the kernel with some bytes changed, added and cut.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let tail = prop::collection::vec(any::<u8>(), 0..12);
    (0..5usize, changes, tail, any::<prop::sample::Index>()).prop_map(
        |(which, changes, tail, cut)| {
            let mut bytes = captured().swap_remove(which).1;
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            bytes.extend(tail);
            let cut = cut.index(2 * bytes.len());
            bytes.truncate(cut);
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_decoded_is_encoded_again(bytes in mutated()) {
        if let Ok(job) = Job::decode(&bytes) {
            let again = Job::decode(&job.encode()).unwrap();
            prop_assert!(again.same(&job), "{job:?}\n{again:?}");
            let _ = job.to_rule(&names());
        }
    }

    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Job::decode(&bytes);
        let _ = socket::messages(&bytes);
    }
}
