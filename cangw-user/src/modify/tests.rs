//! The composed edit against can-gw's own way, operation by operation.

use cangw_common::edit::FrameBytes;
use proptest::prelude::*;

use cangw_common::edit::Span;

use super::*;

const TABLE: &str = "1D"; // a table of one value, 256 times

#[test]
fn definitions_are_read_and_written_as_cangw_does() {
    for (kind, text, listed) in [
        (
            FrameType::Classic,
            "SET:IL:333.4.1122334455667788",
            "SET:IL:333.4.1122334455667788",
        ),
        (
            FrameType::Classic,
            "AND:DLI:80000001.F.00ff00ff00ff00ff",
            "AND:ILD:80000001.F.00FF00FF00FF00FF",
        ),
        (
            FrameType::Classic,
            "OR:D:0.0.0000000000000001",
            "OR:D:000.0.0000000000000001",
        ),
    ] {
        assert_eq!(Modification::parse(kind, text).unwrap().text(kind), listed);
    }
    let fd = format!("XOR:IFLD:123.1.40.{}", "A5".repeat(64));
    assert_eq!(
        Modification::parse(FrameType::Fd, &fd)
            .unwrap()
            .text(FrameType::Fd),
        fd
    );
    for (text, number) in [
        ("", 1),
        ("SET", 1),
        (":I:1.1.0000000000000000", 1),
        ("XSET:I:1.1.0000000000000000", 1),
        ("SEE:I:1.1.0000000000000000", 2),
        ("SET::1.1.0000000000000000", 3),
        ("SET:ILDD:1.1.0000000000000000", 3),
        ("SET:F:1.1.0000000000000000", 4),
        ("SET:I:1.1", 5),
        ("SET:I:1.100.0000000000000000", 5),
        ("SET:I:1.1.00000000000000", 6),
        ("SET:I:1.1.000000000000000000", 6),
        ("SET:I:1.1.000000000000000G", 7),
    ] {
        let error = Modification::parse(FrameType::Classic, text).unwrap_err();
        assert!(
            matches!(error, ParseError::Modification { problem, .. } if problem == number),
            "{text}: {error}"
        );
    }
}

#[test]
fn checksums_are_read_and_written_as_cangw_does() {
    let table = TABLE.repeat(256);
    let crc8 = format!("-8:7:-1:0A:FF:{table}");
    assert_eq!(crc8.parse::<Crc8Checksum>().unwrap().to_string(), crc8);
    for text in ["0:6:7:00", "-1:-8:3:FF"] {
        assert_eq!(text.parse::<XorChecksum>().unwrap().to_string(), text);
    }
    for text in ["1:AB", "2:00112233445566778899AABBCCDDEEFF", "3:"] {
        assert_eq!(text.parse::<Profile>().unwrap().to_string(), text);
    }
    for bad in [
        "",
        "0:1:2",
        "0:1:2:3:4",
        "0:1:2:100",
        "0:1:200:1",
        "a:1:2:3",
    ] {
        assert!(bad.parse::<XorChecksum>().is_err(), "{bad}");
    }
    for bad in ["", "1:", "2:00", "3:1", "4:", "0:"] {
        assert!(bad.parse::<Profile>().is_err(), "{bad}");
    }
    assert!(
        format!("0:1:2:0:0:{}", TABLE.repeat(255))
            .parse::<Crc8Checksum>()
            .is_err()
    );
}

#[test]
fn what_can_gw_refuses_is_refused() {
    let modification =
        Modification::parse(FrameType::Classic, "SET:I:1.0.0000000000000000").unwrap();
    let with = |xor: &str| {
        Changes::new(
            FrameType::Classic,
            [modification],
            0,
            None,
            None,
            Some(xor.parse().unwrap()),
        )
    };
    assert!(with("-8:7:0:0").is_ok());
    assert_eq!(with("0:8:0:0"), Err(ParseError::Index { index: 8, len: 8 }));
    assert_eq!(
        with("0:0:-9:0"),
        Err(ParseError::Index { index: -9, len: 8 })
    );
    assert_eq!(
        Changes::new(FrameType::Classic, [], 0, None, None, None),
        Err(ParseError::ChecksumAlone)
    );
}

#[test]
fn a_uid_stands_for_its_changes() {
    let changes = |text: &str, uid| {
        let m = Modification::parse(FrameType::Classic, text).unwrap();
        Changes::new(FrameType::Classic, [m], uid, None, None, None).unwrap()
    };
    let (a, b) = ("SET:I:1.0.0000000000000000", "SET:I:2.0.0000000000000000");
    assert!(Changes::same(Some(&changes(a, 5)), Some(&changes(b, 5))));
    assert!(!Changes::same(Some(&changes(a, 5)), Some(&changes(a, 6))));
    assert!(!Changes::same(Some(&changes(a, 5)), Some(&changes(a, 0))));
    assert!(!Changes::same(Some(&changes(a, 0)), Some(&changes(b, 0))));
    assert!(Changes::same(Some(&changes(a, 0)), Some(&changes(a, 0))));
    assert!(!Changes::same(None, Some(&changes(a, 0))));
    assert!(Changes::same(None, None));
}

fn modifications(kind: FrameType) -> impl Strategy<Value = Vec<Modification>> {
    let byte = || prop_oneof![Just(0u8), 0u8..16, Just(0x40), Just(0xFF), any::<u8>()];
    let one = (
        0usize..4,
        1u8..16,
        any::<u32>(),
        byte(),
        byte(),
        prop::array::uniform32(byte()),
    );
    prop::collection::vec(one, 1..5).prop_map(move |all| {
        all.into_iter()
            .map(|(operation, elements, id, len, flags, half)| {
                let mut data = [0; 64];
                data[..32].copy_from_slice(&half);
                data[32..].copy_from_slice(&half);
                Modification {
                    operation: Operation::ALL[operation],
                    elements: if kind == FrameType::Fd {
                        elements
                    } else {
                        (elements & 7).max(1)
                    },
                    id,
                    len,
                    flags,
                    data,
                }
            })
            .collect()
    })
}

/// One operation after the other, as the functions of can-gw do.
fn one_by_one(kind: FrameType, modifications: &[Modification], frame: &FrameBytes) -> FrameBytes {
    let mut f = *frame;
    let mut sorted = modifications.to_vec();
    sorted.sort_by_key(|m| m.operation);
    for m in &sorted {
        let op = |have: u8, value: u8| match m.operation {
            Operation::And => have & value,
            Operation::Or => have | value,
            Operation::Xor => have ^ value,
            Operation::Set => value,
        };
        if m.elements & ID != 0 {
            for (i, b) in m.id.to_ne_bytes().into_iter().enumerate() {
                f.0[i] = op(f.0[i], b);
            }
        }
        if m.elements & LEN != 0 && kind == FrameType::Fd {
            f.0[4] = op(f.0[4], m.len);
        }
        if m.elements & LEN != 0 && kind == FrameType::Classic {
            if m.operation != Operation::Set && f.0[4] == 8 && f.0[7] > 8 && f.0[7] <= 15 {
                f.0[4] = f.0[7];
            }
            f.0[4] = op(f.0[4], m.len);
            f.0[7] = 0;
            if f.0[4] > 8 && f.0[4] <= 15 {
                f.0[7] = f.0[4];
                f.0[4] = 8;
            }
        }
        if m.elements & FLAGS != 0 && kind == FrameType::Fd {
            f.0[5] = op(f.0[5], m.flags);
        }
        if m.elements & DATA != 0 {
            for i in 0..data_len(kind) {
                f.0[8 + i] = op(f.0[8 + i], m.data[i]);
            }
        }
    }
    if kind == FrameType::Fd {
        f.0[5] |= 4;
    }
    f
}

fn frames(kind: FrameType) -> impl Strategy<Value = FrameBytes> {
    let longest = data_len(kind) as u8;
    (
        any::<u32>(),
        0..=longest,
        prop::collection::vec(any::<u8>(), 67),
    )
        .prop_map(|(id, len, rest)| {
            let mut f = FrameBytes::ZERO;
            f.0[..4].copy_from_slice(&id.to_ne_bytes());
            f.0[4] = len;
            f.0[5..].copy_from_slice(&rest);
            f
        })
}

fn cases() -> impl Strategy<Value = (FrameType, Vec<Modification>, FrameBytes)> {
    prop_oneof![Just(FrameType::Classic), Just(FrameType::Fd)]
        .prop_flat_map(|kind| (Just(kind), modifications(kind), frames(kind)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn composed_operations_do_what_they_do_one_by_one((kind, ms, frame) in cases()) {
        let changes = Changes::new(kind, ms, 0, None, None, None).unwrap();
        let edit = changes.edit(0);
        let mut edited = FrameBytes::ZERO;
        let fits = edit.apply(kind, &frame, &mut edited);
        let expected = one_by_one(kind, changes.modifications(), &frame);
        prop_assert_eq!(fits, usize::from(expected.0[4]) <= data_len(kind));
        match changes.fits() {
            Fits::Always => prop_assert!(fits),
            Fits::Never => prop_assert!(!fits),
            Fits::Sometimes => {}
        }
        if fits {
            prop_assert_eq!(&edited.0[..8 + data_len(kind)], &expected.0[..8 + data_len(kind)]);
        }
    }

    #[test]
    fn text_and_json_give_the_same_changes((kind, ms, _) in cases(), uid in any::<u32>()) {
        let changes = Changes::new(kind, ms, uid, None, None, Some(XorChecksum(Span { from: -8, to: 7, result: -1, init: 3 }))).unwrap();
        let text = serde_json::to_string(&changes).unwrap();
        let mut expected = changes.clone();
        if kind == FrameType::Classic {
            // The text has no more than what a classic frame has.
            for m in &mut expected.modifications { m.flags = 0; m.data[8..].fill(0); }
        }
        prop_assert_eq!(serde_json::from_str::<Changes>(&text).unwrap(), expected);
    }
}
