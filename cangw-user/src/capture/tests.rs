use cangw_common::abi::{self, TapCell, TapRecord, Withheld};
use cangw_common::frame::FrameType;
use proptest::prelude::*;

use super::line::{Direction, Fate, Line, Verdict};
use super::names::Names;
use super::pcapng::{self, Pcapng};
use super::record::{Record, What};
use super::story::{OPEN, Stories, Story};
use crate::frame_text::Frame;
use crate::kernel::table::bytes;

const X0: u32 = 10;
const X1: u32 = 11;
const X2: u32 = 12;

fn names() -> Names {
    Names::fixed(
        &[(1, "first"), (2, "second")],
        &[(X0, "x0"), (X1, "x1"), (X2, "x2")],
    )
}

fn frame() -> Frame {
    "123#1122".parse().unwrap()
}

/// A record as a program puts it together.
fn record(record: TapRecord, cells: &[TapCell], frame: &[u8]) -> Vec<u8> {
    let record = TapRecord {
        len: frame.len() as u32,
        cells: cells.len() as u32,
        ..record
    };
    let mut all = bytes(&record).to_vec();
    for cell in cells {
        all.extend(cell.rule.to_ne_bytes());
        all.extend(cell.flags.to_ne_bytes());
        all.extend(cell.ifindex.to_ne_bytes());
    }
    all.extend(frame);
    all
}

fn parsed(of: TapRecord, cells: &[TapCell]) -> Record {
    Record::parse(&record(of, cells, frame().bytes())).expect("a record")
}

fn came(time: u64, cells: &[TapCell]) -> Record {
    let of = TapRecord {
        time,
        what: abi::RECEIVED,
        ifindex: X0,
        ..TapRecord::default()
    };
    parsed(of, cells)
}

fn left(time: u64, ifindex: u32, from: u32) -> Record {
    let of = TapRecord {
        time,
        what: abi::LEFT,
        ifindex,
        from,
        ..TapRecord::default()
    };
    parsed(of, &[])
}

fn withheld(rule: u32, why: Withheld) -> Record {
    let of = TapRecord {
        what: abi::WITHHELD,
        rule,
        status: why as u32,
        ..TapRecord::default()
    };
    parsed(of, &[])
}

const fn to(rule: u16, ifindex: u32) -> TapCell {
    TapCell {
        rule,
        flags: 0,
        ifindex,
    }
}

/// Everything that records lead to, in its order.
fn told(records: impl IntoIterator<Item = Record>, missed: u64) -> Vec<Line> {
    let (mut stories, mut names) = (Stories::default(), names());
    let mut told: Vec<Story> = Vec::new();
    for record in records {
        told.extend(stories.add(record, &mut names));
    }
    told.extend(stories.ripe(u64::MAX, std::iter::once((0, missed)), &mut names));
    assert!(!stories.is_open());
    told.into_iter()
        .flat_map(|story| story.lines)
        .map(|(_, line)| line)
        .collect()
}

fn fates(line: &Line) -> Vec<(&str, Fate)> {
    line.rules
        .iter()
        .map(|rule| (rule.rule.as_str(), rule.fate))
        .collect()
}

#[test]
fn copies_belong_to_the_frame_that_came_before() {
    let lines = told(
        [
            came(5, &[to(1, X1), to(2, X2)]),
            left(6, X1, X0),
            left(7, X2, X0),
            left(8, X1, 0),
            left(9, X1, X2),
        ],
        0,
    );
    let gist: Vec<(u64, &str, Direction, Verdict)> = lines
        .iter()
        .map(|line| {
            (
                line.time,
                line.interface.as_str(),
                line.direction,
                line.verdict,
            )
        })
        .collect();
    assert_eq!(
        gist,
        [
            (5, "x0", Direction::In, Verdict::Forwarded),
            (6, "x1", Direction::Out, Verdict::Sent),
            (7, "x2", Direction::Out, Verdict::Sent),
            (8, "x1", Direction::Out, Verdict::Local),
            (9, "x1", Direction::Out, Verdict::Foreign),
        ]
    );
    assert_eq!(
        fates(&lines[0]),
        [("first", Fate::Sent), ("second", Fate::Sent)]
    );
    assert_eq!(fates(&lines[2]), [("second", Fate::Sent)]);
    assert_eq!(
        lines[0].to_string(),
        "(0.000000) x0 123#1122 R forwarded: to x1 by \"first\"; to x2 by \"second\""
    );
}

#[test]
fn a_copy_that_does_not_come_was_not_taken_unless_something_was_lost() {
    let only_first = || [came(5, &[to(1, X1), to(2, X2)]), left(6, X1, X0)];
    let lines = told(only_first(), 0);
    assert_eq!(
        fates(&lines[0]),
        [("first", Fate::Sent), ("second", Fate::NotTaken)]
    );
    let lines = told(only_first(), 1);
    assert_eq!(
        fates(&lines[0]),
        [("first", Fate::Sent), ("second", Fate::Unknown)]
    );
    let lines = told([came(5, &[to(1, X1)])], 1);
    assert_eq!(lines[0].verdict, Verdict::Unknown);
    // Also when the next frame tells of it.
    let mut next = came(7, &[]);
    next.missed = 3;
    let lines = told([came(5, &[to(1, X1)]), next], 3);
    assert_eq!(lines[0].verdict, Verdict::Unknown);
}

#[test]
fn what_a_rule_withholds_is_told_with_the_reason() {
    for (why, fate) in [
        (Withheld::OverRate, Fate::OverRate),
        (Withheld::Fault, Fate::Fault),
        (Withheld::TooLong, Fate::TooLong),
        (Withheld::Mtu, Fate::Mtu),
        (Withheld::Refused, Fate::NotTaken),
    ] {
        let lines = told(
            [
                came(5, &[to(1, X1), to(2, X1)]),
                withheld(1, why),
                left(6, X1, X0),
            ],
            0,
        );
        assert_eq!(fates(&lines[0]), [("first", fate), ("second", Fate::Sent)]);
        assert_eq!(fates(&lines[1]), [("second", Fate::Sent)]);
    }
}

#[test]
fn a_second_copy_is_told_only_when_there_is_one() {
    let twice = [to(1, X1), to(1, X1)];
    let lines = told([came(5, &twice), left(6, X1, X0)], 0);
    assert_eq!(fates(&lines[0]), [("first", Fate::Sent)]);
    let lines = told([came(5, &twice), left(6, X1, X0), left(7, X1, X0)], 0);
    assert_eq!(lines.len(), 3);
    let lines = told([came(5, &twice), withheld(1, Withheld::Fault)], 0);
    assert_eq!(fates(&lines[0]), [("first", Fate::Fault)]);
}

#[test]
fn an_echo_comes_while_the_frame_is_on_its_way() {
    let mut echo = came(6, &[to(2, X2)]);
    if let What::Received { ifindex, flags, .. } = &mut echo.what {
        (*ifindex, *flags) = (X1, abi::TAP_ECHO);
    }
    let lines = told(
        [
            came(5, &[to(1, X1), to(2, X2)]),
            left(6, X1, X0),
            echo,
            left(7, X2, X1),
            left(8, X2, X0),
        ],
        0,
    );
    let in_lines: Vec<&Line> = lines
        .iter()
        .filter(|l| l.direction == Direction::In)
        .collect();
    assert_eq!(in_lines.len(), 2);
    assert!(
        in_lines
            .iter()
            .all(|line| line.verdict == Verdict::Forwarded)
    );
}

#[test]
fn frames_wait_for_their_copies_and_not_for_longer() {
    let (mut stories, mut names) = (Stories::default(), names());
    assert!(stories.add(came(5, &[to(1, X1)]), &mut names).is_empty());
    let none = std::iter::once((0, 0));
    assert!(
        stories
            .ripe(5 + OPEN - 1, none.clone(), &mut names)
            .is_empty()
    );
    assert_eq!(stories.ripe(5 + OPEN, none, &mut names).len(), 1);
    // One that no rule matches waits for nothing.
    assert_eq!(stories.add(came(6, &[]), &mut names).len(), 1);
}

fn pcapng_of(text: &str) -> Vec<u8> {
    let line = told([came(5, &[])], 0).remove(0);
    let mut out = Vec::new();
    let mut pcapng = Pcapng::default();
    pcapng.begin(&mut out);
    pcapng.packet(&text.parse().unwrap(), &line, &mut out);
    pcapng.lost(7, 42, &mut out);
    out
}

/// The blocks of a file, checked for their lengths.
fn blocks(mut file: &[u8]) -> Vec<(u32, &[u8])> {
    let word = |bytes: &[u8]| u32::from_ne_bytes(*bytes.first_chunk().unwrap());
    let mut blocks = Vec::new();
    while !file.is_empty() {
        let len = word(&file[4..]) as usize;
        let (block, rest) = file.split_at(len);
        assert_eq!(len % 4, 0);
        assert_eq!(word(&block[len - 4..]) as usize, len);
        blocks.push((word(block), block));
        file = rest;
    }
    blocks
}

#[test]
fn frames_are_in_pcapng_as_linktype_can_socketcan_says() {
    for (text, expected) in [
        ("123#1122", "00000123 02000000 1122"),
        ("12345678#", "92345678 00000000"),
        ("123#R5", "40000123 05000000 0000000000"),
        (
            "123#1122334455667788_F",
            "00000123 0800000F 1122334455667788",
        ),
        ("123##1AABBCC", "00000123 03050000 AABBCC"),
        (
            "45123#81:00:12345678#AABB",
            "00450123 8100 0200 78563412 AABB",
        ),
    ] {
        let file = pcapng_of(text);
        let blocks = blocks(&file);
        let kinds: Vec<u32> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [0x0A0D_0D0A, 1, pcapng::PACKET, pcapng::STATISTICS]);
        let expected: String = expected.split(' ').collect();
        let packet = blocks[2].1;
        let len = u32::from_ne_bytes(*packet[20..].first_chunk().unwrap()) as usize;
        let data: String = packet[28..28 + len]
            .iter()
            .map(|b| format!("{b:02X}"))
            .collect();
        assert_eq!(data, expected, "{text}");
        assert_eq!(pcapng::lost(blocks[3].1), Some(42));
    }
}

proptest! {
    #[test]
    fn records_are_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), what in 0u32..5, cells in 0u32..40) {
        let _ = Record::parse(&bytes);
        let of = TapRecord { what, kind: FrameType::Classic as u32, ..TapRecord::default() };
        let mut made = record(of, &[], &bytes);
        let at = std::mem::offset_of!(TapRecord, cells);
        made[at..at + 4].copy_from_slice(&cells.to_ne_bytes());
        let (mut stories, mut names) = (Stories::default(), names());
        if let Some(record) = Record::parse(&made) {
            let _ = stories.add(record, &mut names);
        }
        let _ = pcapng::lost(&bytes);
    }
}
