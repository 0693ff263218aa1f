//! Text: options and rule files. Whatever is accepted can be printed, and is the same when it is read again.

use std::fmt::{Debug, Display};

use cangw::cli::understand;
use cangw::file::Document;
use cangw::frame_text::Frame;
use cangw::modify::{Crc8Checksum, Modification, Profile, XorChecksum, parse_uid};
use cangw::rule::{Rule, filter_text, is_interface_name, parse_filter, parse_limit};
use cangw_common::frame::FrameType;

use super::{Target, outcome, refused};

const SCRIPT: &str = "#!/bin/sh\nset -e\ncangw settings max-hops 3\ncangw settings log on\n\
    cangw interface set can0 exclusive on\ncangw interface set 'a;b$c' engine xdp\n\
    cangw -A -s can0 -d 'a;b$c' # 1 handled 0 dropped 0 deleted\n\
    cangw -A -s can0 -d vcan1 -e -t -i -l 2 -f 80000123~9FFFFFFF\n\
    cangw -A -s can0 -d vcan1 -m AND:IL:7FF.7.1122334455667788 -m SET:D:000.0.0000000000000000 -u CAFE -x -1:0:7:5A\n\
    cangw -A -s a -d b --xl -f 123:7FF\n\
    cangw interface set can0 policy deny\n\
    cangw rule add -s a -d b --id 123,200-2FF --pgn FEF1 --sa 05 --rate 100/s --burst 5 --per-id --drop 1% --seed 7 --priority -3\n\
    cangw rule add -s a --drop --id 18FEF100-18FEF1FF --watch\ncangw rule add -s a -d b --xl --vcid 45 --af 12:FF\n";
const TOML: &str = "version = 1\n\n[settings]\nmax_hops = 3\nlog = true\n\n[[interface]]\nname = \"can0\"\n\
    exclusive = true\nengine = \"tc\"\n\n[[rule]]\nsource = \"can0\"\ntarget = 'a\"b'\nkind = \"fd\"\necho = true\n\
    timestamp = true\niif_tx_ok = true\nlimit = 2\nfilter = \"80000123~9FFFFFFF\"\n\n[[rule]]\nsource = \"can0\"\n\
    target = \"vcan1\"\nmodify = [\"AND:IL:7FF.7.1122334455667788\", \"SET:D:000.0.0000000000000000\"]\nuid = \"CAFE\"\n\
    xor = \"-1:0:7:5A\"\ncrc8_profile = \"3:\"\n";
const WORDS: &[&str] = &[
    "-A",
    " -s ",
    " -d ",
    " -X ",
    " -e ",
    " -t ",
    " -i ",
    " -l ",
    " -f ",
    " -m ",
    " -M ",
    " -u ",
    " -c ",
    " -p ",
    " -x ",
    " --xl ",
    "AND:",
    "OR:",
    "XOR:",
    "SET:",
    "ILD",
    "IFLD",
    "can0",
    "cangw ",
    "settings max-hops ",
    "settings log ",
    "interface set ",
    " exclusive ",
    " engine ",
    " on\n",
    "80000123~9FFFFFFF",
    "123:7FF",
    "2000",
    "\n",
    "#",
    "'",
];
const KEYS: &[&str] = &[
    "\n[[rule]]\n",
    "\n[[interface]]\n",
    "\n[settings]\n",
    "version = 1\n",
    "source = ",
    "target = ",
    "kind = ",
    "\"classic\"\n",
    "\"fd\"\n",
    "\"xl\"\n",
    "echo = ",
    "timestamp = ",
    "iif_tx_ok = ",
    "limit = ",
    "filter = ",
    "modify = [",
    "]\n",
    "uid = ",
    "crc8 = ",
    "crc8_profile = ",
    "xor = ",
    "name = ",
    "exclusive = ",
    "engine = ",
    "max_hops = ",
    "log = ",
    "true\n",
    "false\n",
    "\"a\"\n",
    "\"0:1:2:3\"\n",
    "\"SET:I:1.0.0000000000000000\"",
    "\\u0041",
    "'''",
];

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "filter",
            run: |input| again(input, parse_filter, |f| filter_text(*f)),
            seeds: || {
                seeds(&[
                    "123:7FF",
                    "123~C00007FF",
                    "0x1:0x2",
                    "20000123:1FFFFFFF",
                    "0~0",
                ])
            },
            words: &["0x", ":", "~", "FFFFFFFF", "20000000"],
        },
        Target {
            name: "frame-text",
            run: |input| again(input, str::parse::<Frame>, Frame::to_string),
            seeds: || {
                seeds(&[
                    "123#DEADBEEF",
                    "12345678#11.22.33",
                    "20000004#0011000000000000",
                    "123#R5",
                    "123#R8_B",
                    "123#1122334455667788_F",
                    "123##3112233",
                    "45123#81:00:12345678#11223344.556677",
                ])
            },
            words: &[
                "#", "##", "R", "_", ".", ":", "123", "12345678", "81:00:", "11223344",
            ],
        },
        Target {
            name: "numbers",
            run: |input| {
                again(input, parse_limit, u8::to_string)
                    ^ again(input, parse_uid, |u| format!("{u:X}"))
            },
            seeds: || seeds(&["1", "6", "255", "CAFE", "0xFFFFFFFF"]),
            words: &["0x", "+", "-"],
        },
        Target {
            name: "modification",
            run: modification,
            seeds: || {
                let fd = format!("XOR:IFLD:123.1.40.{}", "A5".repeat(64));
                seeds(&[
                    "SET:IL:333.4.1122334455667788",
                    "AND:DLI:80000001.F.00ff00ff00ff00ff",
                    "OR:D:0.0.0000000000000001",
                    &fd,
                ])
            },
            words: &[
                "AND:",
                "OR:",
                "XOR:",
                "SET:",
                "I",
                "F",
                "L",
                "D",
                ":",
                ".",
                "FF",
                "0000000000000000",
            ],
        },
        Target {
            name: "checksums",
            run: checksums,
            seeds: || {
                let crc8 = format!("-8:7:-1:0A:FF:{}", "1D".repeat(256));
                seeds(&[
                    "0:6:7:00",
                    "-1:-8:3:FF",
                    "1:AB",
                    "2:00112233445566778899AABBCCDDEEFF",
                    "3:",
                    &crc8,
                ])
            },
            words: &[":", "-128", "127", "-64", "FF", "0x"],
        },
        Target {
            name: "options",
            run: options,
            seeds: || {
                seeds(
                    &SCRIPT
                        .lines()
                        .filter(|l| l.contains("-A"))
                        .collect::<Vec<_>>(),
                )
            },
            words: WORDS,
        },
        Target {
            name: "script",
            run: file,
            seeds: || {
                let crc8 = format!(
                    "-A -s a -d b -m SET:I:1.0.0000000000000000 -c 0:1:2:3:4:{} -p 1:AB",
                    "1D".repeat(256)
                );
                let fd = format!("-A -s a -d b -X -M SET:IFLD:1.0.8.{}", "1D".repeat(64));
                seeds(&[SCRIPT, &crc8, &fd])
            },
            words: WORDS,
        },
        Target {
            name: "toml",
            run: file,
            seeds: || seeds(&[TOML, "version = 1"]),
            words: KEYS,
        },
    ]
}

fn seeds(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// What is read is the same after it was written and read again.
fn again<T: PartialEq + Debug, E: Display>(
    input: &[u8],
    read: impl Fn(&str) -> Result<T, E>,
    write: impl Fn(&T) -> String,
) -> u64 {
    let text = String::from_utf8_lossy(input);
    match read(&text) {
        Ok(value) => {
            let written = write(&value);
            match read(&written) {
                Ok(same) => assert_eq!(same, value, "{text:?} is written as {written:?}"),
                Err(e) => panic!("{text:?} is written as {written:?}, which is refused: {e}"),
            }
            outcome(written.len())
        }
        Err(error) => refused(&error),
    }
}

fn modification(input: &[u8]) -> u64 {
    let of = |kind| {
        again(
            input,
            |text| Modification::parse(kind, text),
            |m| m.text(kind),
        )
    };
    of(FrameType::Classic) ^ of(FrameType::Fd).rotate_left(1)
}

fn checksums(input: &[u8]) -> u64 {
    let xor = again(input, str::parse::<XorChecksum>, XorChecksum::to_string);
    let crc8 = again(input, str::parse::<Crc8Checksum>, Crc8Checksum::to_string);
    let profile = again(input, str::parse::<Profile>, Profile::to_string);
    xor ^ crc8.rotate_left(1) ^ profile.rotate_left(2)
}

/// The words of a command line. What is a rule is the same when its line in `cangw -L` is read, and in the state.
fn options(input: &[u8]) -> u64 {
    // No argument contains a zero byte.
    let text = String::from_utf8_lossy(input).replace('\0', "0");
    let words = text.split(' ').filter(|word| !word.is_empty());
    let line = |words: &mut dyn Iterator<Item = &str>| understand(words.map(str::to_owned));
    let Some(rule) = line(&mut words.clone()) else {
        return outcome(words.filter(|word| word.starts_with('-')).count().min(4));
    };
    let printed = format!("cangw -A {rule}");
    if !rule.source.contains(char::is_whitespace)
        && !rule
            .target()
            .is_some_and(|name| name.contains(char::is_whitespace))
        && !rule.source.is_empty()
        && rule.target() != Some("")
    {
        let same = line(&mut printed.split_whitespace());
        assert_eq!(same.as_ref(), Some(&rule), "{printed:?}");
    }
    self::rule(&rule)
}

/// A rule survives being stored as JSON.
fn stored(rule: &Rule) {
    let json = serde_json::to_string(rule).expect("a rule can be stored");
    let same: Rule = serde_json::from_str(&json).unwrap_or_else(|e| panic!("{json}: {e}"));
    assert_eq!(same, *rule, "{json}");
}

/// What makes a difference in how a rule is printed.
fn shape(rule: &Rule) -> u64 {
    let changes = rule.changes.as_ref().map(|c| {
        let operations: Vec<_> = c
            .modifications()
            .iter()
            .map(|m| (m.operation, m.elements))
            .collect();
        (
            operations,
            c.uid != 0,
            c.crc8.is_some(),
            c.profile.is_some(),
            c.xor.is_some(),
        )
    });
    outcome((
        rule.kind,
        rule.echo,
        rule.timestamp,
        rule.iif_tx_ok,
        rule.limit.min(7),
        rule.filter.is_some(),
        changes,
    ))
}

/// A rule file in either format.
fn file(input: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(input);
    match Document::parse("file", &text) {
        Ok(found) => {
            document(&found);
            found.rules.iter().for_each(stored);
            let rules: Vec<u64> = found.rules.iter().map(shape).take(3).collect();
            outcome((
                found.max_hops,
                found.log,
                found.interfaces.len().min(3),
                rules,
            ))
        }
        Err(error) => refused(&error),
    }
}

/// A document is the same in both formats.
fn document(document: &Document) {
    let rules = document.rules.iter();
    let mut names = rules
        .flat_map(|rule| std::iter::once(rule.source.as_str()).chain(rule.target()))
        .chain(document.interfaces.iter().map(|i| i.name.as_str()));
    let possible = names.all(is_interface_name);
    for text in [document.to_script(), document.to_toml()] {
        match Document::parse("again", &text) {
            Ok(same) => assert_eq!(same, *document, "{text}"),
            // No rule in force has such a name.
            Err(error) => assert!(!possible, "{error}\n{text}"),
        }
    }
}

/// A rule from elsewhere can be written in all ways.
pub(super) fn rule(rule: &Rule) -> u64 {
    stored(rule);
    document(&Document {
        rules: vec![rule.clone()],
        ..Document::default()
    });
    shape(rule)
}
