//! Both formats: what is written is read, and what cannot be read is named.

use cangw_common::edit::Span;
use cangw_common::frame::FrameType;
use cangw_common::rule::Filter;
use proptest::prelude::*;

use super::*;
use crate::modify::{Changes, Crc8Checksum, Modification, Operation, Profile, XorChecksum};

const SCRIPT: &str = "#!/bin/sh
# From `cangw export`. Run it, or `cangw rule load` it, which adds all rules in one step or none.
set -e
cangw settings max-hops 3
cangw settings log on
cangw interface set can0 exclusive on
cangw interface set can0 engine tc
cangw interface set 'a;b$c' engine xdp
cangw -A -s can0 -d 'a;b$c'
cangw -A -s can0 -d vcan1 -X -e -t -i -l 2 -f 80000123~9FFFFFFF
cangw -A -s can0 -d vcan1 -m AND:IL:7FF.7.1122334455667788 -m SET:D:000.0.0000000000000000 -u CAFE -x -1:0:7:5A
";

const TOML: &str = r#"# From `cangw export`. `cangw rule load` adds all rules in one step or none.
version = 1

[settings]
max_hops = 3
log = true

[[interface]]
name = "can0"
exclusive = true
engine = "tc"

[[interface]]
name = "a;b$c"
engine = "xdp"

[[rule]]
source = "can0"
target = "a;b$c"

[[rule]]
source = "can0"
target = "vcan1"
kind = "fd"
echo = true
timestamp = true
iif_tx_ok = true
limit = 2
filter = "80000123~9FFFFFFF"

[[rule]]
source = "can0"
target = "vcan1"
modify = ["AND:IL:7FF.7.1122334455667788", "SET:D:000.0.0000000000000000"]
uid = "CAFE"
xor = "-1:0:7:5A"
"#;

fn parse(text: &str) -> Document {
    Document::parse("f", text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn refused(text: &str) -> String {
    Document::parse("f", text).unwrap_err().to_string()
}

#[test]
fn both_formats_say_the_same() {
    assert_eq!(parse(SCRIPT), parse(TOML));
    let document = parse(SCRIPT);
    assert_eq!(document.rules.len(), 3);
    assert_eq!(document.to_script(), SCRIPT);
    assert_eq!(document.to_toml(), TOML);
}

#[test]
fn nothing_is_a_file_too() {
    let nothing = Document::default();
    assert_eq!(parse(&nothing.to_script()), nothing);
    assert_eq!(parse(&nothing.to_toml()), nothing);
    assert_eq!(parse(""), nothing);
    assert_eq!(parse("\n# only\n\n  # comments\n"), nothing);
}

#[test]
fn lists_of_both_programs_can_be_read() {
    let text = "cangw -A -s a -d b -f 123:7FF # 1 handled 2 dropped 3 deleted\n\
        /usr/bin/cangw -A -s a -d b -X # 0 handled 0 dropped 0 deleted\n\
        -s a -d b\n  sudo cangw -A -s 'a' -d b -e -i  \n";
    let rules: Vec<_> = parse(text).rules.iter().map(Rule::to_string).collect();
    let expected = ["-s a -d b -f 123:7FF", "-s a -d b -X", "-s a -d b"];
    assert_eq!(rules[..3], expected);
    assert_eq!(rules[3], "-s a -d b -e -i");
}

#[test]
fn the_line_that_is_wrong_is_named() {
    for (line, message) in [
        ("cangw -A -s a", "-d <target interface> is missing"),
        ("-s a -d b -f 12G:7FF", "Bad filter definition '12G:7FF'"),
        ("-s a -d b --colour", "unexpected argument '--colour'"),
        ("cangw settings max-hops 7", "7"),
        ("cangw settings reset", "not for a file"),
        ("cangw interface set a mood on", "mood"),
        ("cangw flush", "`cangw flush` is no rule"),
        ("-s 'a", "a quote is not closed"),
        ("-s 'a b' -d c", "\"a b\" cannot be the name"),
        (
            "interface set a/b exclusive on",
            "\"a/b\" cannot be the name",
        ),
        (
            "[[rule]]",
            "this looks like TOML; such a file begins with `version = 1`",
        ),
    ] {
        let error = refused(&format!("# first\n-s a -d b\n{line}\n-s c -d d\n"));
        assert!(error.starts_with("f, line 3: "), "{error}");
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn the_key_that_is_wrong_is_named() {
    for (line, key, message) in [
        (
            "filter = \"12G:7FF\"",
            "rule.filter",
            "Bad filter definition",
        ),
        ("limit = \"2\"", "rule.limit", "expected u8"),
        ("limit = 256", "rule.limit", "expected u8"),
        ("colour = 1", "rule.colour", "unknown field `colour`"),
        ("kind = \"xxl\"", "rule.kind", "unknown frame type"),
        ("modify = [\"SET:I:1.0\"]", "rule.modify", "Problem 5"),
        ("modify = \"SET\"", "rule.modify", "expected a sequence"),
        ("crc8 = \"0:1\"", "rule.crc8", "Bad CRC8"),
        (
            "crc8_profile = \"4:\"",
            "rule.crc8_profile",
            "Bad CRC8 profile",
        ),
        ("uid = \"x\"", "rule.uid", "Bad uid"),
        ("xor = 5", "rule.xor", "expected a string"),
    ] {
        let text = format!(
            "version = 1\n[[rule]]\nsource='a'\ntarget='b'\n\n[[rule]]\nsource='c'\ntarget='d'\n{line}\n"
        );
        let error = refused(&text);
        assert!(error.starts_with(&format!("f, line 9: {key}: ")), "{error}");
        assert!(error.contains(message), "{error}");
    }
    for (rest, line, message) in [
        ("max_hops = 3", 2, "max_hops: unknown field"),
        (
            "[settings]\nmax_hops = 9",
            3,
            "settings.max_hops: 9 is not from 1 to 6",
        ),
        (
            "[[interface]]\nname = 'a'\nengine = 'fast'",
            4,
            "interface.engine: unknown variant",
        ),
        (
            "[[interface]]\nexclusive = true",
            2,
            "interface: missing field `name`",
        ),
        (
            "\n[[rule]]\ntarget = 'a'",
            3,
            "rule: missing field `source`",
        ),
        (
            "[[rule]]\nsource = 'a'\ntarget = ''",
            4,
            "rule.target: \"\" cannot be the name",
        ),
        (
            "[[rule]]\nsource = 'a'\ntarget = 'b'\nxor = '0:1:2:3'",
            2,
            "rule: -c or -x can only",
        ),
        (
            "[[rule]]\nsource = 'a'\ntarget = 'b'\nkind='fd'\nmodify = ['SET:I:1.0.0000000000000000']",
            2,
            "rule: No -m",
        ),
        (
            "[[rule]]\nsource = 'a'\ntarget = 'b'\nkind='xl'\nfilter='800:800'",
            2,
            "rule: Bad filter",
        ),
        ("[[rule]\n", 2, ""),
        ("source", 2, ""),
    ] {
        let error = refused(&format!("version = 1\n{rest}\n"));
        let expected = format!("f, line {line}: {message}");
        assert!(error.starts_with(&expected), "{error}\n{expected}");
    }
    let error = refused("# by a newer one\nversion = 2\n");
    assert_eq!(
        error,
        "f, line 2: version: version 2 of the file format, but this cangw reads version 1"
    );
}

#[test]
fn a_file_is_replaced_as_a_whole() {
    let folder = std::env::temp_dir().join(format!("cangw-file-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let (file, link) = (folder.join("rules"), folder.join("link"));
    write(&file, "one").unwrap();
    std::os::unix::fs::symlink("rules", &link).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    write(&link, "two").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "two");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, MODE);
    // Nothing else stays, also after a failure.
    assert!(write(&folder, "a folder").is_err());
    assert!(write(&folder.join("no/such"), "").is_err());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
    fs::remove_dir_all(&folder).unwrap();
}

/// Names that a shell and TOML have to be careful with.
fn names() -> impl Strategy<Value = String> {
    let strange = "[!-.0-9;-~\u{a0}-\u{ff}]{1,15}";
    // `-h` asks `cangw interface set` for its help.
    let possible = |name: &String| is_interface_name(name) && !name.starts_with("-h");
    prop_oneof!["[a-z]{1,5}[0-9]", strange].prop_filter("not a name", possible)
}

fn changes(kind: FrameType) -> impl Strategy<Value = Option<Changes>> {
    let len = if kind == FrameType::Fd { 64i8 } else { 8 };
    let all = if kind == FrameType::Fd { 15u8 } else { 7 };
    let modification = (
        0..4usize,
        1..=all,
        any::<u32>(),
        any::<[u8; 2]>(),
        any::<[u8; 32]>(),
    );
    let modification = modification.prop_map(
        move |(operation, elements, id, [mut flags, length], half)| {
            let mut data = [0; 64];
            data[..32].copy_from_slice(&half);
            data[32..].copy_from_slice(&half);
            if kind != FrameType::Fd {
                flags = 0;
                data[8..].fill(0);
            }
            Modification {
                operation: Operation::ALL[operation],
                elements,
                id,
                len: length,
                flags,
                data,
            }
        },
    );
    let span =
        (-len..len, -len..len, -len..len, any::<u8>()).prop_map(|(from, to, result, init)| Span {
            from,
            to,
            result,
            init,
        });
    let table = any::<[u8; 32]>().prop_map(|part| {
        let mut table = [0; 256];
        table
            .chunks_mut(32)
            .for_each(|chunk| chunk.copy_from_slice(&part));
        table
    });
    let crc8 =
        (span.clone(), any::<u8>(), table).prop_map(|(span, final_xor, table)| Crc8Checksum {
            span,
            final_xor,
            table,
        });
    let profile = prop_oneof![
        any::<u8>().prop_map(Profile::Byte),
        any::<[u8; 16]>().prop_map(Profile::Table),
        Just(Profile::Identifier),
    ];
    let parts = (
        prop::collection::vec(modification, 1..5),
        any::<u32>(),
        prop::option::of(crc8),
        prop::option::of(profile),
        prop::option::of(span.prop_map(XorChecksum)),
    );
    prop::option::of(parts).prop_map(move |parts| {
        let (modifications, uid, crc8, profile, xor) = parts?;
        Some(Changes::new(kind, modifications, uid, crc8, profile, xor).unwrap())
    })
}

fn rules() -> impl Strategy<Value = Rule> {
    let kind = prop_oneof![Just(FrameType::Classic), Just(FrameType::Fd)];
    let filter = (any::<u32>(), any::<u32>()).prop_map(|(id, mask)| Filter { id, mask });
    let rest = (
        names(),
        names(),
        any::<[bool; 3]>(),
        0u8..7,
        prop::option::of(filter),
    );
    (kind.prop_flat_map(|kind| (Just(kind), changes(kind))), rest).prop_map(
        |((kind, changes), (source, target, [echo, timestamp, iif_tx_ok], limit, filter))| Rule {
            echo,
            timestamp,
            iif_tx_ok,
            limit,
            filter: filter.filter(|f| !f.is_empty()),
            changes,
            ..Rule::new(source, target, kind)
        },
    )
}

/// Rules with what can-gw does not have.
fn rules_with_options() -> impl Strategy<Value = Rule> {
    let ids = prop_oneof![
        Just(""),
        Just("--id 123,200-2FF,18FEF100"),
        Just("--pgn FEF1,EF00 --sa 05"),
        Just("--pgn EF00 --da 12,13"),
    ];
    let limits = prop_oneof![
        Just(""),
        Just("--rate 100/s"),
        Just(
            "--rate 30/min --burst 7 --per-id --drop 1% --duplicate 0.25% --corrupt 100% --seed 9"
        ),
    ];
    let priority = prop_oneof![Just(""), Just("--priority -3"), Just("--priority 12")];
    let watch = prop_oneof![Just(""), Just("--watch")];
    let forwarding = (ids, limits, priority, watch).prop_map(|(ids, limits, priority, watch)| {
        format!("-d b {ids} {limits} {priority} {watch}")
    });
    let all = prop_oneof![
        4 => forwarding,
        1 => Just("--drop --id 100-1FF --priority 5".to_owned()),
        1 => Just("--pass".to_owned()),
        1 => Just("--watch -f 123:7FF".to_owned()),
        1 => Just("-d b --xl --vcid 45 --sdt 01 --af 12345600:FFFFFF00 --id 123".to_owned()),
    ];
    all.prop_map(|options| {
        let line = format!("cangw rule add -s a {options}");
        Document::parse("f", &line).unwrap().rules.remove(0)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(
        rules in prop::collection::vec(prop_oneof![rules(), rules_with_options()], 0..5),
        name in names(),
        max_hops in prop::option::of(1u8..7),
        log in any::<Option<bool>>(),
    ) {
        let document = Document {
            max_hops,
            log,
            interfaces: vec![Interface {
                name,
                change: InterfaceChange { exclusive: Some(true), policy: Some(Policy::Deny), engine: None },
            }],
            rules,
        };
        for text in [document.to_script(), document.to_toml()] {
            prop_assert_eq!(Document::parse("f", &text).unwrap(), document.clone(), "{}", text);
        }
    }
}
