//! Small DBC files, whose frames were worked out by hand.

mod assignments;
mod random;

use super::*;

const FILE: &str = r#"VERSION "1"

NS_ :
    CM_
    VAL_

BS_:

BU_: ECU DASH

BO_ 344 ENGINE_DATA: 8 ECU
 SG_ SPEED : 7|16@0+ (0.01,0) [0|250] "kph" DASH
 SG_ ENGINE_RPM : 23|16@0+ (1,0) [0|15000] "rpm" DASH
 SG_ ACCEL : 32|9@0- (-0.02,0) [-20|20] "m/s2" DASH
 SG_ GEAR : 52|3@1+ (1,0) [0|7] "" DASH
 SG_ TEMPERATURE : 55|3@0+ (10,-40) [0|0] "°C" DASH
 SG_ COUNTER : 61|2@0+ (1,0) [0|3] "" DASH

BO_ 2566844672 INTEL: 8 Vector__XXX
 SG_ LOW : 12|8@1+ (1,0) [0|255] "" DASH
 SG_ DIFFERENCE : 20|12@1- (0.5,10) [0|0] "" DASH
 SG_ ALL : 0|64@1+ (1,0) [0|0] "" DASH
 SG_ RATIO : 32|32@1- (2,0) [0|0] "" DASH

BO_ 1000 MUXED: 4 ECU
 SG_ KIND M : 0|8@1+ (1,0) [0|0] "" DASH
 SG_ A m0 : 8|8@1+ (1,0) [0|0] "" DASH
 SG_ B m1M : 8|8@1+ (1,0) [0|0] "" DASH
 SG_ C m2 : 16|8@1+ (1,0) [0|0] "" DASH
 SG_ D m7 : 16|8@1- (1,0) [0|0] "" DASH
 SG_ E : 24|8@1+ (1,0) [0|0] "" DASH

BO_ 1001 PRECISE: 24 ECU
 SG_ DOUBLE : 71|64@0+ (1,0) [0|0] "" DASH

BO_ 3221225472 VECTOR__INDEPENDENT_SIG_MSG: 0 Vector__XXX
 SG_ NOWHERE : 0|8@1+ (1,0) [0|0] "" Vector__XXX

CM_ SG_ 344 GEAR "Stellung des Wählhebels";
VAL_ 344 GEAR 0 "Park" 1 "Reverse" 4 "Drive = forward" 5 "Reserved" 6 "Reserved" ;
VAL_ 344 TEMPERATURE 0 "cold" ;
SIG_VALTYPE_ 2566844672 RATIO : 1;
SIG_VALTYPE_ 1001 DOUBLE : 2;
SG_MUL_VAL_ 1000 D B 3-4, 7-7;
"#;

fn dbc() -> Dbc {
    Dbc::parse(FILE).unwrap_or_else(|e| panic!("{e}"))
}

fn signal(full_name: &str) -> Signal {
    let (message, signal) = full_name.split_once('.').unwrap();
    dbc()
        .message(message)
        .unwrap()
        .signal(signal)
        .unwrap()
        .clone()
}

fn padded(data: &[u8]) -> [u8; MAX_DATA] {
    let mut padded = [0; MAX_DATA];
    padded[..data.len()].copy_from_slice(data);
    padded
}

/// A file with one message.
fn one(len: u64, signal: &str) -> Dbc {
    Dbc::parse(&format!("BO_ 1 M: {len} X\n SG_ {signal} [0|0] \"\" X")).unwrap()
}

fn error(result: Result<impl std::fmt::Debug, DbcError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn messages_are_found() {
    let dbc = dbc();
    let names: Vec<_> = dbc.messages().iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["ENGINE_DATA", "INTEL", "MUXED", "PRECISE"]);
    let intel = dbc.by_id(0x98FE_F100).unwrap();
    assert_eq!((intel.name.as_str(), intel.len), ("INTEL", 8));
    assert_eq!(dbc.by_id(0x18FE_F100), None);
    assert_eq!(
        dbc.by_id(0x158).unwrap(),
        dbc.message("ENGINE_DATA").unwrap()
    );
    let speed = signal("ENGINE_DATA.SPEED");
    assert_eq!(
        (speed.start, speed.bits, speed.unit.as_str()),
        (7, 16, "kph")
    );
    assert_eq!((speed.min, speed.max, speed.factor), (0.0, 250.0, 0.01));
    assert_eq!(signal("ENGINE_DATA.TEMPERATURE").unit, "\u{b0}C");
    assert_eq!(
        error(dbc.message("engine_dat")),
        "no message is named 'engine_dat' in the DBC file; similar: ENGINE_DATA"
    );
    assert_eq!(
        error(dbc.message("XYZ")),
        "no message is named 'XYZ' in the DBC file, nor similarly"
    );
    assert_eq!(
        error(dbc.message("ENGINE_DATA").unwrap().signal("RPM")),
        "message ENGINE_DATA has no signal 'RPM' in the DBC file; similar: ENGINE_RPM"
    );
}

#[test]
fn values_lie_where_the_file_says() {
    for (name, value, bytes, mask) in [
        // 100 kph are 10000 = 0x2710.
        (
            "ENGINE_DATA.SPEED",
            100.0,
            &[0x27, 0x10][..],
            &[0xFF, 0xFF][..],
        ),
        (
            "ENGINE_DATA.ENGINE_RPM",
            3000.0,
            &[0, 0, 0x0B, 0xB8],
            &[0, 0, 0xFF, 0xFF],
        ),
        // -1 / -0.02 = 50; 9 bits from bit 0 of byte 4 to bit 0 of byte 5.
        (
            "ENGINE_DATA.ACCEL",
            -1.0,
            &[0, 0, 0, 0, 0, 50],
            &[0, 0, 0, 0, 1, 0xFF],
        ),
        // 1 / -0.02 = -50, in 9 bits 0x1CE.
        (
            "ENGINE_DATA.ACCEL",
            1.0,
            &[0, 0, 0, 0, 1, 0xCE],
            &[0, 0, 0, 0, 1, 0xFF],
        ),
        (
            "ENGINE_DATA.GEAR",
            5.0,
            &[0, 0, 0, 0, 0, 0, 0x50],
            &[0, 0, 0, 0, 0, 0, 0x70],
        ),
        (
            "ENGINE_DATA.COUNTER",
            2.0,
            &[0, 0, 0, 0, 0, 0, 0, 0x20],
            &[0, 0, 0, 0, 0, 0, 0, 0x30],
        ),
        // Bits 12 to 19: the high half of byte 1 has the low half of the value.
        (
            "INTEL.LOW",
            f64::from(0xA5),
            &[0, 0x50, 0x0A],
            &[0, 0xF0, 0x0F],
        ),
        // (-1 - 10) / 0.5 = -22, in 12 bits 0xFEA, from bit 4 of byte 2.
        (
            "INTEL.DIFFERENCE",
            -1.0,
            &[0, 0, 0xA0, 0xFE],
            &[0, 0, 0xF0, 0xFF],
        ),
        // 1.5 is 0x3FC00000.
        (
            "INTEL.RATIO",
            3.0,
            &[0, 0, 0, 0, 0, 0, 0xC0, 0x3F],
            &[0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF],
        ),
        // -2.0 is 0xC000000000000000.
        (
            "PRECISE.DOUBLE",
            -2.0,
            &[0, 0, 0, 0, 0, 0, 0, 0, 0xC0],
            &[
                0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
            ],
        ),
    ] {
        let signal = signal(name);
        assert_eq!(signal.encode(value).unwrap(), padded(bytes), "{name}");
        assert_eq!(signal.mask(), padded(mask), "{name}");
        assert_eq!(signal.decode(&padded(bytes)), Some(value), "{name}");
        let needed = mask.len();
        assert_eq!(signal.decode(&padded(bytes)[..needed - 1]), None, "{name}");
        assert_eq!(
            signal.decode(&padded(bytes)[..needed]),
            Some(value),
            "{name}"
        );
        // Bits of other signals do not matter.
        let full: Vec<u8> = padded(bytes)
            .iter()
            .zip(signal.mask())
            .map(|(b, m)| b | !m)
            .collect();
        assert_eq!(signal.decode(&full), Some(value), "{name}");
    }
    assert_eq!(
        signal("INTEL.DIFFERENCE").raw(&padded(&[0, 0, 0xA0, 0xFE])),
        Some(-22)
    );
    assert_eq!(
        signal("INTEL.ALL").raw(&[0xFF; 8]),
        Some(i128::from(u64::MAX))
    );
}

#[test]
fn values_have_names() {
    let gear = signal("ENGINE_DATA.GEAR");
    assert_eq!(gear.text(4.0), Some("Drive = forward"));
    assert_eq!(gear.text(3.0), None);
    assert_eq!(gear.text(f64::NAN), None);
    assert_eq!(signal("ENGINE_DATA.TEMPERATURE").text(-40.0), Some("cold"));
    assert_eq!(signal("ENGINE_DATA.TEMPERATURE").text(0.0), None);
}

#[test]
fn values_that_the_bits_cannot_hold_are_refused() {
    assert_eq!(
        error(signal("ENGINE_DATA.SPEED").encode(700.0)),
        "ENGINE_DATA.SPEED cannot be 700: its 16 bits hold values from 0 to 655.35 kph"
    );
    assert_eq!(
        error(signal("ENGINE_DATA.ACCEL").encode(5.14)),
        "ENGINE_DATA.ACCEL cannot be 5.14: its 9 bits hold values from -5.1000000000000005 to 5.12 m/s2"
    );
    // Outside the range of the file, but not of the bits.
    assert!(signal("ENGINE_DATA.SPEED").encode(655.35).is_ok());
    for value in [8.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
        assert!(signal("ENGINE_DATA.GEAR").encode(value).is_err(), "{value}");
    }
    let ratio = signal("INTEL.RATIO");
    assert!(ratio.encode(1e39).is_err());
    assert!(ratio.encode(f64::NEG_INFINITY).is_ok());
    let nan = ratio.encode(f64::NAN).unwrap();
    assert!(ratio.decode(&nan).unwrap().is_nan());
}

#[test]
fn multiplexed_signals_are_left_out_of_other_frames() {
    let dbc = dbc();
    let decode = |data: &[u8]| {
        let values = dbc.message("MUXED").unwrap().decode(data);
        values
            .iter()
            .map(|(s, v)| format!("{}={v}", s.name))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(decode(&[0, 1, 2, 3]), "KIND=0 A=1 E=3");
    assert_eq!(decode(&[2, 1, 2, 3]), "KIND=2 C=2 E=3");
    assert_eq!(decode(&[9, 1, 2, 3]), "KIND=9 E=3");
    // D is there for two ranges of B, which is there if KIND is 1.
    assert_eq!(decode(&[1, 4, 255, 3]), "KIND=1 B=4 D=-1 E=3");
    assert_eq!(decode(&[1, 7, 2, 3]), "KIND=1 B=7 D=2 E=3");
    assert_eq!(decode(&[1, 5, 2, 3]), "KIND=1 B=5 E=3");
    assert_eq!(decode(&[7, 7, 2, 3]), "KIND=7 E=3");
    assert_eq!(decode(&[1, 4]), "KIND=1 B=4");
    assert_eq!(decode(&[]), "");
    // In a circle, and with two multiplexors.
    let text = "BO_ 1 M: 8 X\n SG_ A m0M : 0|8@1+ (1,0) [0|0] \"\" X\n SG_ B m0M : 8|8@1+ (1,0) [0|0] \"\" X\n\
                BO_ 2 N: 8 X\n SG_ A M : 0|8@1+ (1,0) [0|0] \"\" X\n SG_ B M : 8|8@1+ (1,0) [0|0] \"\" X\n \
                SG_ C m0 : 8|8@1+ (1,0) [0|0] \"\" X\nSG_MUL_VAL_ 1 A B 0-0;\nSG_MUL_VAL_ 1 B A 0-0;\n";
    let dbc = Dbc::parse(text).unwrap();
    assert_eq!(dbc.message("M").unwrap().decode(&[0; 8]), []);
    assert_eq!(dbc.message("N").unwrap().decode(&[0; 8]).len(), 2);
}

#[test]
fn flaws_matter_on_use() {
    for (len, text, part) in [
        (8, "S : 0|0@1+ (1,0)", "it has 0 bits"),
        (8, "S : 0|65@1+ (1,0)", "it has 65 bits"),
        (
            8,
            "S : 57|8@1+ (1,0)",
            "its place 57|8 is not within the first 8 data bytes",
        ),
        (
            8,
            "S : 56|9@0+ (1,0)",
            "its place 56|9 is not within the first 8 data bytes",
        ),
        (0, "S : 0|1@1+ (1,0)", "within the first 0 data bytes"),
        (1785, "S : 512|1@1+ (1,0)", "within the first 64 data bytes"),
        (8, "S : 99999999999|1@0+ (1,0)", "its place 65535|1"),
        (8, "S : 0|8@1+ (0,0)", "the factor is not 0"),
        (8, "S : 0|8@1+ (1e999,0)", "both are finite"),
    ] {
        let dbc = one(len, text);
        let message = dbc.message("M").unwrap();
        assert_eq!(message.decode(&[0; 64]), []);
        let signal = message.signal("S").unwrap();
        assert_eq!((signal.mask(), signal.text(0.0)), ([0; 64], None));
        let error = error(signal.encode(0.0));
        assert!(error.contains(part) && error.contains("M.S"), "{error}");
        assert!(dbc.parse_set("M.S=0").is_err());
    }
    let float = "BO_ 1 M: 8 X\n SG_ S : 0|16@1- (1,0) [0|0] \"\" X\nSIG_VALTYPE_ 1 S : 1;";
    let error_of = |text: &str| error(Dbc::parse(text).unwrap().message("M"));
    assert!(error(Dbc::parse(float).unwrap().parse_set("M.S=1")).contains("a number of 32"));
    // The parser would make 1 of this identifier.
    assert!(error_of("BO_ 65537 M: 8 X\n").contains("its identifier 65537 is neither"));
    assert!(error_of("BO_ 2048 M: 8 X\n").contains("its identifier 2048 is neither"));
    assert!(error_of("BO_ 4294967295 M: 8 X\n").contains("its identifier 4294967295"));
    assert!(error_of("BO_ 1 M: 65536 X\n").contains("its length of 65536 bytes"));
    assert!(error_of("BO_ 1 M: 8 X\nBO_ 2 M: 8 X\n").contains("2 messages are named 'M'"));
    assert!(error_of("BO_ 1 M: 8 X\nBO_ 2048 M: 8 X\n").contains("2 messages are named 'M'"));
}

#[test]
fn text_that_is_no_dbc_is_refused_with_its_line() {
    assert_eq!(
        error(Dbc::parse(
            "BO_ 1 M: 8 X\n SG_ S : 0|8@2+ (1,0) [0|0] \"\" X\n"
        )),
        "line 2 is not DBC from column 14 on: 'SG_ S : 0|8@2+ (1,0) [0|0] \"\" X': correct it or delete it"
    );
    assert!(error(Dbc::parse("\n\nhello")).contains("line 3"));
    assert!(error(Dbc::parse("BO_ 99999999999 M: 8 X\n")).contains("99999999999"));
    assert!(error(Dbc::parse("BO_ 1 M: -8 X\n")).contains("-8"));
    assert_eq!(Dbc::parse("").unwrap(), Dbc::default());
}

#[test]
fn files_are_bounded_and_may_be_in_windows_1252() {
    assert_eq!(read::decoded(b"\xB0C"), "\u{b0}C");
    assert_eq!(read::decoded("\u{b0}C".as_bytes()), "\u{b0}C");
    let folder = std::env::temp_dir().join(format!("cangw-dbc-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("test.dbc");
    let latin: Vec<u8> = FILE.chars().map(|c| c as u8).collect();
    for bytes in [
        latin,
        FILE.replace('\n', "\r\n").into_bytes(),
        format!("\u{FEFF}{FILE}").into_bytes(),
    ] {
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(Dbc::read(&file).unwrap(), dbc());
    }
    std::fs::write(&file, "hello").unwrap();
    let message = error(Dbc::read(&file));
    assert!(message.contains("test.dbc: line 1"), "{message}");
    std::fs::File::create(&file)
        .unwrap()
        .set_len(MAX_FILE + 1)
        .unwrap();
    assert!(error(Dbc::read(&file)).contains("more than 16 MiB"));
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(error(Dbc::read(&file)).contains("cannot read DBC file"));
}
