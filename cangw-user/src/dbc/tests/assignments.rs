//! What `MESSAGE.SIGNAL=VALUE` sets, and what it is refused for.

use super::*;

#[test]
fn bits_are_set_and_merged() {
    let dbc = dbc();
    let mut set = dbc.parse_set("ENGINE_DATA.ENGINE_RPM=3e3").unwrap();
    assert_eq!(
        (set.message.as_str(), set.can_id, set.len),
        ("ENGINE_DATA", 0x158, 8)
    );
    assert_eq!(set.mask, padded(&[0, 0, 0xFF, 0xFF]));
    assert_eq!(set.bits, padded(&[0, 0, 0x0B, 0xB8]));
    let gear = dbc
        .parse_set(" ENGINE_DATA.GEAR = Drive = forward ")
        .unwrap();
    assert_eq!(gear.bits[6], 0x40);
    set.merge(&gear).unwrap();
    set.merge(&gear).unwrap();
    assert_eq!(set.mask, padded(&[0, 0, 0xFF, 0xFF, 0, 0, 0x70]));
    assert_eq!(set.bits, padded(&[0, 0, 0x0B, 0xB8, 0, 0, 0x40]));
    let before = set.clone();
    let other = dbc.parse_set("ENGINE_DATA.GEAR=1").unwrap();
    assert_eq!(
        error(set.merge(&other)),
        "byte 6 of ENGINE_DATA is to get different bits from two signals: leave one of them out"
    );
    assert!(set.merge(&dbc.parse_set("MUXED.E=1").unwrap()).is_err());
    assert_eq!(set, before);
    let all = dbc.parse_set("INTEL.ALL=18446744073709551615").unwrap();
    assert_eq!(all.bits, padded(&[0xFF; 8]));
    let all = dbc.parse_set("INTEL.ALL=9007199254740993").unwrap();
    assert_eq!(all.bits, padded(&[1, 0, 0, 0, 0, 0, 0x20]));
    assert!(dbc.parse_set("INTEL.ALL=18446744073709551616").is_err());
    assert_eq!(dbc.parse_set("MUXED.KIND=1").unwrap().bits[0], 1);
    assert!(dbc.parse_set("INTEL.RATIO=nan").is_ok());
}

#[test]
fn refusals_say_why() {
    let dbc = dbc();
    for (text, part) in [
        ("", "expected <message>.<signal>=<value>"),
        ("ENGINE_DATA=1", "expected <message>.<signal>=<value>"),
        ("ENGINE_DATA.GEAR", "expected <message>.<signal>=<value>"),
        ("ENGINE_DATA.GEAR=", "expected <message>.<signal>=<value>"),
        ("ENGINE.GEAR=1", "similar: ENGINE_DATA"),
        ("ENGINE_DATA.GAER=1", "has no signal 'GAER'"),
        ("ENGINE_DATA.GEAR=9", "3 bits hold values from 0 to 7"),
        (
            "ENGINE_DATA.GEAR=Fast",
            "cannot be 'Fast': expected a number, or one of 'Park', 'Reverse', 'Drive = forward'",
        ),
        ("ENGINE_DATA.GEAR=inf", "cannot be 'inf'"),
        ("ENGINE_DATA.SPEED=Fast", "the DBC file names no values"),
        (
            "ENGINE_DATA.GEAR=Reserved",
            "stands for several values of ENGINE_DATA.GEAR: give one of the numbers 5, 6",
        ),
        ("MUXED.A=1", "it is in frames with KIND=0 only"),
        ("MUXED.B=1", "it is in frames with KIND=1 only"),
    ] {
        let error = error(dbc.parse_set(text));
        assert!(error.contains(part), "{text}: {error}");
    }
}
