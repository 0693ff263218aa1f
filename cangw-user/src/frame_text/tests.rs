//! Texts against the bytes that they stand for, and back.

use proptest::prelude::*;

use super::*;

fn frame(text: &str) -> Frame {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

/// Identifier word, then the rest of the bytes.
fn bytes(id: u32, rest: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = [&id.to_ne_bytes(), rest].concat();
    bytes.resize(size, 0);
    bytes
}

#[test]
fn classic_frames() {
    for (text, id, rest, printed) in [
        ("123#", 0x123, &[0, 0, 0, 0][..], "123#"),
        (
            "123#DEADbeef",
            0x123,
            &[4, 0, 0, 0, 0xDE, 0xAD, 0xBE, 0xEF],
            "123#DEADBEEF",
        ),
        (
            "00000123#11",
            0x8000_0123,
            &[1, 0, 0, 0, 0x11],
            "00000123#11",
        ),
        (
            "1FFFFFFF#11.2233.44",
            0x9FFF_FFFF,
            &[4, 0, 0, 0, 0x11, 0x22, 0x33, 0x44],
            "1FFFFFFF#11223344",
        ),
        (
            "20000004#0011",
            0x2000_0004,
            &[2, 0, 0, 0, 0, 0x11],
            "20000004#0011",
        ),
        ("7FF#R", 0x4000_07FF, &[0, 0, 0, 0], "7FF#R"),
        ("123#R0", 0x4000_0123, &[0, 0, 0, 0], "123#R"),
        ("12345678#r5", 0xD234_5678, &[5, 0, 0, 0], "12345678#R5"),
        ("123#R8_F", 0x4000_0123, &[8, 0, 0, 15], "123#R8_F"),
        (
            "123#1122334455667788_b",
            0x123,
            &[8, 0, 0, 11, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88],
            "123#1122334455667788_B",
        ),
    ] {
        let frame = frame(text);
        assert_eq!(frame.bytes(), bytes(id, rest, 16), "{text}");
        assert_eq!(frame.to_string(), printed);
        assert_eq!((frame.kind(), frame.flags()), (FrameType::Classic, 0));
        assert_eq!((frame.can_id(), frame.sdt()), (id, None));
    }
    assert!(frame("123#R5").data().is_empty());
    assert_eq!(frame("123#R5").len(), 5);
    assert_eq!(frame("123#1122334455667788_9").raw_dlc(), Some(9));
}

#[test]
fn fd_frames_have_the_flags_and_the_length_of_the_text() {
    for (text, id, rest, printed) in [
        ("123##0", 0x123, &[0, 0, 0, 0][..], "123##0"),
        (
            "123##3112233",
            0x123,
            &[3, 3, 0, 0, 0x11, 0x22, 0x33],
            "123##3112233",
        ),
        // As can-utils writes it with separators.
        (
            "12345678##5.11.22",
            0x9234_5678,
            &[2, 5, 0, 0, 0x11, 0x22],
            "12345678##51122",
        ),
    ] {
        let frame = frame(text);
        assert_eq!(frame.bytes(), bytes(id, rest, 72), "{text}");
        assert_eq!(frame.to_string(), printed);
        assert_eq!((frame.kind(), frame.flags()), (FrameType::Fd, rest[1]));
        assert_eq!(frame.data(), &rest[4..]);
    }
    let long = format!("123##F{}", "A5".repeat(64));
    assert_eq!((frame(&long).len(), frame(&long).flags()), (64, 15));
    assert_eq!(frame(&long).to_string(), long);
}

#[test]
fn xl_frames() {
    let text = "45123#81:07:12345678#11223344.556677";
    let xl = frame(text);
    let mut expected = 0x0045_0123_u32.to_ne_bytes().to_vec();
    expected.extend([0x81, 0x07]);
    expected.extend(7_u16.to_ne_bytes());
    expected.extend(0x1234_5678_u32.to_ne_bytes());
    expected.extend([0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77]);
    assert_eq!(xl.bytes(), expected);
    assert_eq!((xl.kind(), xl.can_id()), (FrameType::Xl, 0x0045_0123));
    assert_eq!((xl.vcid(), xl.sdt()), (Some(0x45), Some(7)));
    assert_eq!((xl.af(), xl.flags()), (Some(0x1234_5678), 0x81));
    assert_eq!((xl.len(), xl.data()), (7, &expected[12..]));
    assert_eq!(xl.to_string(), text.replace('.', ""));
    assert_eq!(xl.raw_dlc(), None);
    let long = format!("FF7FF#FF:FF:FFFFFFFF#{}", "A5".repeat(2048));
    assert_eq!(frame(&long).len(), 2048);
    assert_eq!(frame(&long).to_string(), long);
}

#[test]
fn refusals_say_what_where_and_what_would_be_right() {
    use Problem::*;
    let expected = |problem: &Problem| matches!(problem, Expected { .. });
    for (text, at, right) in [
        ("", 1, &expected as &dyn Fn(&Problem) -> bool),
        ("#", 1, &|p| *p == Digits(0)),
        ("12#", 1, &|p| *p == Digits(2)),
        ("1234567890123#", 1, &|p| *p == Digits(13)),
        ("123", 4, &expected),
        ("12G#", 3, &expected),
        ("12\u{e4}#", 3, &expected),
        ("800#", 1, &|p| *p == Identifier(0x800)),
        ("40000000#", 1, &|p| *p == Identifier(0x4000_0000)),
        ("80000123#", 1, &|p| *p == Identifier(0x8000_0123)),
        ("123#1", 6, &expected),
        ("123#112", 8, &expected),
        ("123#11.", 8, &expected),
        ("123#11..22", 8, &expected),
        ("123#11 22", 7, &expected),
        ("123#112233445566778899", 21, &|p| *p == Long(8)),
        ("123#11_9", 7, &|p| *p == RawDlc(1)),
        ("123#1122334455667788_8", 22, &expected),
        ("123#1122334455667788_", 22, &expected),
        ("123#1122334455667788_99", 23, &expected),
        ("123#R9", 6, &expected),
        ("123#R12", 7, &expected),
        ("123#R7_9", 7, &|p| *p == RawDlc(7)),
        ("123##", 6, &expected),
        ("123##R", 6, &expected),
        ("123##1_9", 7, &expected),
        ("45823#81:00:12345678#11", 3, &|p| *p == Priority(0x823)),
        ("45123#01:00:12345678#11", 7, &|p| *p == XlFlag(1)),
        ("45123#81:00:12345678#", 22, &|p| *p == Empty),
        ("45123#81:00:1234567#11", 20, &expected),
        ("45123#81#11", 9, &expected),
        ("45123##81", 7, &expected),
    ] {
        let error = text.parse::<Frame>().unwrap_err();
        assert!(right(&error.problem), "{error}");
        assert_eq!(error.at, at, "{error}");
    }
    let long = format!("45123#81:00:12345678#{}", "11".repeat(2049));
    let error = long.parse::<Frame>().unwrap_err();
    assert_eq!(error.problem, Long(2048));
    assert!(error.to_string().len() < 300, "{error}");
    assert_eq!(
        "123#1g".parse::<Frame>().unwrap_err().to_string(),
        "Bad frame '123#1g', character 6: found 'g', but expected a data byte of two hexadecimal digits"
    );
    assert_eq!(
        "45123#01:0".parse::<Frame>().unwrap_err().to_string(),
        "Bad frame '45123#01:0', character 7: CAN XL flags need the mark 80: write '81' instead of '01' here"
    );
}

#[test]
fn bytes_of_a_socket_are_checked() {
    let classic = frame("123#11").bytes().to_vec();
    assert_eq!(
        Frame::from_bytes(FrameType::Classic, &classic),
        Ok(frame("123#11"))
    );
    for (kind, bytes) in [
        (FrameType::Classic, bytes(1, &[9], 16)),
        (FrameType::Classic, bytes(1, &[8], 17)),
        (FrameType::Classic, bytes(1, &[8], 24)),
        (FrameType::Fd, bytes(1, &[65], 72)),
        (FrameType::Fd, bytes(1, &[64], 16)),
        (FrameType::Xl, bytes(1, &[0x80, 0], 12)),
        (FrameType::Xl, bytes(1, &[0x80, 0], 13)),
        (FrameType::Xl, vec![]),
    ] {
        let error = Frame::from_bytes(kind, &bytes).unwrap_err();
        assert_eq!(error.len, bytes.len(), "{error}");
    }
    // What a modification can make of an identifier does not look like another frame.
    let odd = Frame::from_bytes(FrameType::Classic, &bytes(0x12345, &[0], 16)).unwrap();
    assert_eq!(odd.to_string(), "12345#");
    assert!("12345#".parse::<Frame>().is_err());
}

/// Frames without bits that the notation leaves out.
fn any_frame() -> impl Strategy<Value = Frame> {
    let id = prop_oneof![
        0..=0x7FF_u32,
        (0..=0x1FFF_FFFF_u32).prop_map(|id| id | EFF_FLAG),
        (0..=0x1FFF_FFFF_u32).prop_map(|id| id | ERR_FLAG),
    ];
    let data = |most| prop::collection::vec(any::<u8>(), 0..=most);
    let raw_dlc = prop_oneof![Just(0), 9..=15_u8];
    prop_oneof![
        (id.clone(), data(8), raw_dlc, any::<bool>()).prop_map(|(id, data, dlc, remote)| {
            let dlc = if data.len() == 8 { dlc } else { 0 };
            let (id, data, len) = match remote {
                true => (id | RTR_FLAG, vec![], data.len()),
                false => (id, data.clone(), data.len()),
            };
            let rest = [&[len as u8, 0, 0, dlc][..], &data].concat();
            Frame::from_bytes(FrameType::Classic, &bytes(id, &rest, 16)).unwrap()
        }),
        (id, 0..16_u8, data(64)).prop_map(|(id, flags, data)| {
            let rest = [&[data.len() as u8, flags, 0, 0][..], &data].concat();
            Frame::from_bytes(FrameType::Fd, &bytes(id, &rest, 72)).unwrap()
        }),
        (any::<u8>(), 0..=0x7FF_u32, any::<[u8; 6]>(), data(2047)).prop_map(
            |(vcid, priority, head, data)| {
                let len = (data.len() as u16 + 1).to_ne_bytes();
                let head = [
                    head[0] | 0x80,
                    head[1],
                    len[0],
                    len[1],
                    1,
                    2,
                    head[2],
                    head[3],
                    9,
                ];
                let rest = [&head[..], &data].concat();
                let id = u32::from(vcid) << 16 | priority;
                Frame::from_bytes(FrameType::Xl, &bytes(id, &rest, 13 + data.len())).unwrap()
            }
        ),
    ]
}

proptest! {
    #[test]
    fn frames_survive_their_text(frame in any_frame()) {
        let text = frame.to_string();
        prop_assert_eq!(text.parse::<Frame>(), Ok(frame.clone()), "{}", text);
        prop_assert_eq!(text.to_lowercase().parse::<Frame>(), Ok(frame));
    }

    #[test]
    fn any_bytes_can_be_printed(
        kind in prop::sample::select(FrameType::ALL.to_vec()),
        bytes in prop_oneof![
            any::<[u8; 16]>().prop_map(|b| b.to_vec()),
            prop::collection::vec(any::<u8>(), 72),
            prop::collection::vec(any::<u8>(), 0..80),
        ],
    ) {
        if let Ok(frame) = Frame::from_bytes(kind, &bytes) {
            let text = frame.to_string();
            if let Ok(same) = text.parse::<Frame>() {
                prop_assert_eq!(same.to_string(), text);
                prop_assert_eq!(same.data(), frame.data());
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(
        text in "([0-9a-fA-F]{3}|[0-3][0-9a-f]{7}|[0-9A-F]{2}[0-7][0-9A-F]{2}|[0-9]{0,9})#[0-9a-fA-FR#_:.G\u{e4}]{0,40}"
    ) {
        match text.parse::<Frame>() {
            Ok(frame) => prop_assert_eq!(frame.to_string().parse::<Frame>(), Ok(frame)),
            Err(error) => prop_assert!(error.at <= text.chars().count() + 1),
        }
    }
}
