//! Tables as they are seen, and what does not get into them.

use std::time::{Duration, Instant};

use cangw_common::frame::FrameType;

use super::history::History;
use super::text::{Line, Mark, draw};
use super::*;

const FILE: &str = r#"VERSION ""

NS_ :

BS_:

BU_: ECU

BO_ 344 ENGINE_DATA: 8 ECU
 SG_ SPEED : 7|16@0+ (0.01,0) [0|250] "kph" ECU
 SG_ ENGINE_RPM : 23|16@0+ (1,0) [0|15000] "rpm" ECU
 SG_ GEAR : 32|3@1+ (1,0) [0|7] "" ECU
 SG_ TEMPERATURE : 47|8@0+ (0.1,-40) [0|0] "°C" ECU

BO_ 2566844672 EXTENDED: 8 ECU
 SG_ ALL : 0|64@1+ (1,0) [0|0] "" ECU

VAL_ 344 GEAR 0 "Park" 4 "Drive" ;
"#;

fn dbc() -> Dbc {
    Dbc::parse(FILE).unwrap_or_else(|e| panic!("{e}"))
}

fn watched(id: u32, data: &[u8]) -> WatchedId {
    WatchedId {
        id,
        extended: id > 0x7FF,
        remote: false,
        error: false,
        kind: FrameType::Classic,
        count: 2,
        last: 1.7e9,
        age: 0.0421,
        shortest: Some(0.000_123),
        mean: Some(0.1),
        longest: Some(12.3456),
        len: data.len() as u16,
        data: data.to_vec(),
    }
}

fn engine() -> WatchedId {
    watched(0x158, &[0x30, 0x39, 0x03, 0xE8, 4, 0x91, 0, 0])
}

/// The lines on a terminal, with marked text in brackets.
fn shown(
    history: &mut History,
    now: Instant,
    ids: &[WatchedId],
    dbc: Option<&Dbc>,
    (width, height): (usize, usize),
) -> Vec<String> {
    let rows = Decoded::all(ids, dbc);
    let marks = history.update(&rows, now);
    let table = Table::new(&rows, &marks, dbc.is_some(), Some(width));
    let lines = table.fit("can0", width, height);
    assert!(lines.len() <= height);
    assert!(lines.iter().all(|line| line.width() <= width));
    bracketed(&lines)
}

fn bracketed(lines: &[Line]) -> Vec<String> {
    let text = draw(lines, Mark::Underline);
    let text = text.strip_prefix("\x1b[H").unwrap();
    let text = text.replace("\x1b[4m", "[").replace("\x1b[0m", "]");
    let lines = text.split("\r\n");
    lines
        .map(|line| {
            let erased = line.strip_prefix("\x1b[K");
            let text = erased.or_else(|| line.strip_prefix("\x1b[J")).unwrap();
            assert!(text.chars().all(text::is_visible), "{text:?}");
            text.to_owned()
        })
        .collect()
}

/// The first look at identifiers, on a terminal of this size.
fn first(ids: &[WatchedId], dbc: Option<&Dbc>, size: (usize, usize)) -> Vec<String> {
    shown(&mut History::default(), Instant::now(), ids, dbc, size)
}

#[test]
fn plain_table() {
    let once = WatchedId {
        count: 1,
        shortest: None,
        mean: None,
        longest: None,
        ..watched(0x18F0_1234, &[0; 8])
    };
    let remote = WatchedId {
        remote: true,
        len: 5,
        ..watched(0x7FF, &[])
    };
    let error = WatchedId {
        error: true,
        ..watched(4, &[0, 0x11])
    };
    let fd = WatchedId {
        kind: FrameType::Fd,
        ..watched(0x123, &[0xAB; 12])
    };
    let xl = WatchedId {
        kind: FrameType::Xl,
        len: 2048,
        count: 12_345_678,
        ..watched(0x45, &[1, 2])
    };
    let expected = "\
ID               COUNT  AGE ms  MIN ms  MEAN ms  MAX ms   LEN  DATA
158                  2   42.10   0.123    100.0   12346     8  30 39 03 E8 04 91 00 00
7FF R                2   42.10   0.123    100.0   12346     5
18F01234             1   42.10       -        -       -     8  00 00 00 00 00 00 00 00
00000004 ERR         2   42.10   0.123    100.0   12346     2  00 11
123 fd               2   42.10   0.123    100.0   12346    12  AB AB AB AB AB AB AB AB AB AB AB AB
045 xl        12345678   42.10   0.123    100.0   12346  2048  01 02 …
";
    let text = plain_text(&[engine(), remote, once, error, fd, xl], None);
    assert_eq!(text, expected);
    assert_eq!(
        plain_text(&[], None),
        "ID    COUNT  AGE ms  MIN ms  MEAN ms  MAX ms  LEN  DATA\n"
    );
}

#[test]
fn plain_table_with_names() {
    let unknown = watched(0x159, &[1]);
    let extended = watched(0x18FE_F600, &[0xFF; 8]);
    let remote = WatchedId {
        remote: true,
        ..watched(0x158, &[])
    };
    let priority = WatchedId {
        kind: FrameType::Xl,
        ..watched(0x158, &[0; 8])
    };
    let file = FILE.replace("2566844672", &(0x98FE_F600_u32).to_string());
    let dbc = Dbc::parse(&file).unwrap();
    let expected = "\
ID        MESSAGE       COUNT  AGE ms  MIN ms  MEAN ms  MAX ms  LEN  DATA
158       ENGINE_DATA       2   42.10   0.123    100.0   12346    8  30 39 03 E8 04 91 00 00
    SPEED 123.45 kph
    ENGINE_RPM 1000 rpm
    GEAR 4 (Drive)
    TEMPERATURE -25.5 °C
159                         2   42.10   0.123    100.0   12346    1  01
18FEF600  EXTENDED          2   42.10   0.123    100.0   12346    8  FF FF FF FF FF FF FF FF
    ALL 18446744073709552000
158 R     ENGINE_DATA       2   42.10   0.123    100.0   12346    0
158 xl                      2   42.10   0.123    100.0   12346    8  00 00 00 00 00 00 00 00
";
    let ids = [engine(), unknown, extended, remote, priority];
    assert_eq!(plain_text(&ids, Some(&dbc)), expected);
}

#[test]
fn changed_bytes_and_signals_stay_marked_for_a_second() {
    let (mut history, start, dbc) = (History::default(), Instant::now(), dbc());
    let mut ids = vec![engine()];
    let mut look = |ids: &[WatchedId], after| {
        let now = start + Duration::from_millis(after);
        let lines = shown(&mut history, now, ids, Some(&dbc), (120, 10));
        // Behind the columns that do not change.
        let data = lines[2].split("    8  ").last().unwrap();
        [data.to_owned(), lines[3..].join("\n")]
    };
    let data = "30 39 03 E8 04 91 00 00";
    let signals = "    SPEED 123.45 kph        ENGINE_RPM 1000 rpm     GEAR 4 (Drive)          TEMPERATURE -25.5 °C";
    assert_eq!(look(&ids, 0), [data, signals]);
    assert_eq!(look(&ids, 200), [data, signals]);

    ids[0].data[4] = 0;
    ids[0].data[6] = 1;
    let data = "30 39 03 E8 [00] 91 [01] 00";
    let marked = signals.replace("4 (Drive) ", "[0 (Park)]  ");
    assert_eq!(look(&ids, 400), [data, marked.as_str()]);
    // The second byte changes again, which lengthens its mark only.
    ids[0].data[6] = 2;
    let data = data.replace("[01]", "[02]");
    assert_eq!(look(&ids, 1000), [data.as_str(), &marked]);
    assert_eq!(look(&ids, 1399), [data.as_str(), &marked]);
    let data = "30 39 03 E8 00 91 [02] 00";
    let unmarked = signals.replace("4 (Drive) ", "0 (Park)  ");
    assert_eq!(look(&ids, 1400), [data, &unmarked]);

    // A new identifier, and one that is no longer there.
    let new = vec![watched(0x7FF, &[1; 8])];
    let all = ["[01]"; 8].join(" ");
    assert_eq!(look(&new, 1600), [&all, ""]);
}

#[test]
fn identifiers_of_other_types_are_others() {
    let mut history = History::default();
    let now = Instant::now();
    let ids = |byte| {
        let fd = WatchedId {
            kind: FrameType::Fd,
            ..watched(0x100, &[byte])
        };
        [watched(0x100, &[1]), fd]
    };
    shown(&mut history, now, &ids(2), None, (80, 5));
    let lines = shown(&mut history, now, &ids(3), None, (80, 5));
    assert!(lines[2].ends_with(" 01") && lines[3].ends_with(" [03]"));
}

#[test]
fn what_does_not_fit_is_cut_and_counted() {
    let fd = |id| WatchedId {
        kind: FrameType::Fd,
        ..watched(id, &(0..32).collect::<Vec<_>>())
    };
    let ids = [fd(1), fd(2), watched(3, &[0xFF])];
    let lines = first(&ids, None, (80, 9));
    let expected = "\
can0
ID       COUNT  AGE ms  MIN ms  MEAN ms  MAX ms  LEN  DATA
001 fd       2   42.10   0.123    100.0   12346   32  00 01 02 03 04 05 06 07
                                                      08 09 0A 0B 0C 0D 0E 0F
                                                      10 11 12 13 14 15 16 17
                                                      18 19 1A 1B 1C 1D 1E 1F
002 fd       2   42.10   0.123    100.0   12346   32  00 01 02 03 04 05 06 07
                                                      08 09 0A 0B 0C 0D 0E 0F
2 of 3 identifiers do not fit";
    assert_eq!(lines.join("\n"), expected);
    // All fit exactly, and one line is missing.
    let lines = first(&ids, None, (80, 11));
    assert!(lines[10].starts_with("003") && lines[10].ends_with(" FF"));
    let lines = first(&ids, None, (80, 10));
    assert!(lines[8].ends_with(" 17"), "{lines:?}");
    assert_eq!(lines[9], "2 of 3 identifiers do not fit");
    // Wide enough for all data in a line.
    let lines = first(&ids, None, (200, 5));
    assert!(lines[4].starts_with("003") && lines[4].ends_with(" FF"));
    // Nearly no room for data, and none.
    let lines = first(&ids, None, (60, 24));
    assert!(lines[2].ends_with("32  00 01…"), "{lines:?}");
    assert_eq!(lines.len(), 5);
    assert_eq!(first(&ids, None, (3, 4)), ["ca…", "ID…", "00…", "2 …"]);
    for width in 0..100 {
        for height in 1..12 {
            let lines = first(&ids, Some(&dbc()), (width, height));
            assert!(!lines.is_empty());
        }
    }
}

#[test]
fn marks_survive_a_cut() {
    let mut history = History::default();
    let now = Instant::now();
    shown(&mut history, now, &[watched(1, &[1, 2])], None, (55, 3));
    let lines = shown(&mut history, now, &[watched(1, &[3, 4])], None, (55, 3));
    assert!(lines[2].ends_with("    2  [03] […]"), "{lines:?}");
}

#[test]
fn control_characters_of_a_file_are_shown_by_a_sign() {
    let evil = "\x1b[2J\u{9b}31m\u{7f}\r\u{7}\u{202e}\u{200b}";
    let file = FILE
        .replace("\"kph\"", &format!("\"k{evil}ph\""))
        .replace("Drive", &format!("Dr{evil}ive"));
    let dbc = Dbc::parse(&file).unwrap();
    let rows = [engine()];
    let plain = plain_text(&rows, Some(&dbc));
    assert!(plain.contains(
        "SPEED 123.45 k\u{fffd}[2J\u{fffd}31m\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}ph\n"
    ));
    assert!(plain.contains("GEAR 4 (Dr\u{fffd}[2J"));
    assert!(plain.lines().flat_map(str::chars).all(text::is_visible));
    // Asserts the same.
    first(&rows, Some(&dbc), (80, 24));

    let json = json_text(&Decoded::all(&rows, Some(&dbc))).unwrap();
    assert!(json.lines().flat_map(str::chars).all(text::is_visible));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["signals"][0]["unit"], format!("k{evil}ph"));

    // Names come from other places than a file, too.
    let title = Line::new("a\x1b[0m\u{e0041}").plain();
    assert_eq!(title, "a\u{fffd}[0m\u{fffd}");
}

#[test]
fn json() {
    let value = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap();
    let ids = [engine(), watched(0x159, &[1])];
    let without = value(json_text(&ids).unwrap());
    assert_eq!(without, serde_json::to_value(&ids).unwrap());
    assert_eq!(without[0]["kind"], "classic");

    let dbc = dbc();
    let with = value(json_text(&Decoded::all(&ids, Some(&dbc))).unwrap());
    let mut expected = without;
    expected[0]["message"] = "ENGINE_DATA".into();
    expected[0]["signals"] = serde_json::json!([
        { "name": "SPEED", "value": 123.45, "unit": "kph" },
        { "name": "ENGINE_RPM", "value": 1000.0, "unit": "rpm" },
        { "name": "GEAR", "value": 4.0, "unit": "", "text": "Drive" },
        { "name": "TEMPERATURE", "value": -25.5, "unit": "°C" },
    ]);
    expected[1]["message"] = serde_json::Value::Null;
    expected[1]["signals"] = serde_json::json!([]);
    assert_eq!(with, expected);
}

#[test]
fn no_color_underlines() {
    let of = |value: Option<&str>| Mark::of(value.map(std::ffi::OsStr::new));
    assert_eq!(of(None), Mark::Reverse);
    assert_eq!(of(Some("")), Mark::Reverse);
    assert_eq!(of(Some("0")), Mark::Underline);
    let mut line = Line::new("a");
    line.push("b", true);
    assert_eq!(
        draw(&[line.clone()], Mark::Reverse),
        "\x1b[H\x1b[Ja\x1b[7mb\x1b[0m"
    );
    assert_eq!(
        draw(&[line, Line::new("c")], Mark::Underline),
        "\x1b[H\x1b[Ka\x1b[4mb\x1b[0m\r\n\x1b[Jc"
    );
}
