//! Modifications and checksums.

use super::script::{VIRTUAL, compare};

macro_rules! cases {
    ($($(#[$doc:meta])* $name:ident: $script:literal;)*) => {
        $($(#[$doc])* #[test] fn $name() { compare(&script($script), &VIRTUAL); })*
    };
}

/// A CRC8 table that is no table of any polynomial, but tells every value apart.
fn table() -> String {
    (0..=255u8)
        .map(|i| format!("{:02X}", i.wrapping_mul(167) ^ 0x3C))
        .collect()
}

/// Puts long values into a script: `{table}`, `{fd:XX}` for 64 bytes of XX.
fn script(text: &str) -> String {
    let mut text = text.replace("{table}", &table());
    while let Some(at) = text.find("{fd:") {
        let bytes = text[at + 4..at + 6].repeat(64);
        text.replace_range(at..at + 7, &bytes);
    }
    text
}

cases! {
    set_id_and_length: "
        cangw -A -s x0 -d x1 -m SET:IL:333.4.1122334455667788
        send x0p classic
        total 28 0 0";
    all_four: "
        cangw -A -s x0 -d x1 -m AND:ID:1FFFF0FF.0.FF00FF00FF00FF0F -m OR:D:0.0.0100000000000080 -m XOR:LD:0.1.00000000FFFFFFFF -m SET:I:80012345.0.0000000000000000
        send x0p lengths
        total 25 0 0";
    in_another_order_and_repeated: "
        cangw -A -s x0 -d x1 -m SET:D:1.2.0102030405060708 -m OR:I:700.0.0000000000000000 -m OR:I:400.0.0000000000000000 -m AND:I:3FF.8.FFFFFFFFFFFFFFFF
        send x0p classic
        total 28 0 0";
    a_fifth_is_not_looked_at: "
        cangw -A -s x0 -d x1 -m AND:D:0.0.FFFFFFFFFFFFFF00 -m OR:D:0.0.0000000000000001 -m XOR:D:0.0.0000000000000002 -m SET:L:0.8.0000000000000000 -m nonsense
        send x0p lengths
        total 25 0 0";
    raw_dlc: "
        cangw -A -s x0 -d x1 -m OR:L:0.8.0000000000000000
        cangw -A -s x0 -d x2 -m XOR:L:0.3.0000000000000000
        cangw -A -s x0 -d v0 -e -m AND:L:0.7.0000000000000000
        send x0p lengths
        total 75 0 0";
    length_that_never_fits: "
        cangw -A -s x0 -d x1 -m SET:L:0.10.0000000000000000
        cangw -A -s x0 -d x2 -m OR:L:0.FF.0000000000000000
        cangw -A -s x0 -d x2
        send x0p lengths
        total 25 0 50";
    fd_all_elements: "
        cangw -A -s x0 -d x1 -X -M SET:IFLD:92345678.1.20.{fd:5A}
        cangw -A -s x0 -d x2 -X -M XOR:FD:0.3.0.{fd:FF} -M AND:I:7F0.0.0.{fd:00}
        send x0p fd
        total 80 0 0";
    // 0x20 added to a length beyond 32 does not fit.
    fd_length_that_fits_some_frames: "
        cangw -A -s x0 -d x1 -X -M OR:L:0.0.40.{fd:00}
        cangw -A -s x0 -d x2 -X -M XOR:L:0.0.60.{fd:00}
        cangw -A -s x0 -d x2 -X
        cangw -A -s x0 -d v0 -X -e -M XOR:L:0.0.41.{fd:00}
        send x0p fd
        total 64 0 96";
    xor_checksums: "
        cangw -A -s x0 -d x1 -m SET:I:100.0.0000000000000000 -x 0:6:7:00
        cangw -A -s x0 -d x1 -m SET:I:101.0.0000000000000000 -x 6:0:7:A5
        cangw -A -s x0 -d x1 -m SET:I:102.0.0000000000000000 -x 0:-2:-1:FF
        cangw -A -s x0 -d x1 -m SET:I:103.0.0000000000000000 -x -1:-8:7:01
        cangw -A -s x0 -d x1 -m SET:I:104.0.0000000000000000 -x -1:7:3:00
        send x0p lengths
        total 125 0 0";
    crc8_checksums: "
        cangw -A -s x0 -d x1 -m SET:I:100.0.0000000000000000 -c 0:6:7:FF:FF:{table}
        cangw -A -s x0 -d x1 -m SET:I:101.0.0000000000000000 -c 6:0:7:12:34:{table} -p 1:AB
        cangw -A -s x0 -d x1 -m SET:I:102.0.0000000000000000 -c 0:-2:-1:00:00:{table} -p 2:00112233445566778899AABBCCDDEEFF
        cangw -A -s x0 -d x1 -m OR:I:400.0.0000000000000000 -c -1:-8:7:01:00:{table} -p 3:
        cangw -A -s x0 -d x1 -m SET:I:104.0.0000000000000000 -c -3:-1:-4:01:00:{table} -x 0:7:0:00
        send x0p lengths
        total 125 0 0";
    fd_checksums: "
        cangw -A -s x0 -d x1 -X -M SET:I:100.0.0.{fd:00} -c 0:62:63:FF:FF:{table}
        cangw -A -s x0 -d x1 -X -M SET:I:101.0.0.{fd:00} -c 63:0:1:12:34:{table} -p 1:AB -x -64:-1:0:00
        cangw -A -s x0 -d x1 -X -M SET:I:102.0.0.{fd:00} -c -1:0:-2:00:00:{table} -p 2:00112233445566778899AABBCCDDEEFF
        cangw -A -s x0 -d x1 -X -M AND:I:7FF.0.0.{fd:00} -x -1:-64:5:01 -p 3:
        send x0p fd
        total 160 0 0";
    // A profile without a CRC8 and a uid without a modification are lost.
    what_is_lost: "
        cangw -A -s x0 -d x1 -m SET:I:100.0.0000000000000000 -p 1:AB
        cangw -A -s x0 -d x2 -u 5
        cangw -A -s x0 -d x2 -u 5
        send x0p one
        total 3 0 0";
    // Sources and targets see their own frames only.
    targets_with_different_modifications: "
        cangw -A -s x0 -d x1 -m SET:I:100.0.0000000000000000
        cangw -A -s x0 -d x1
        cangw -A -s x0 -d x2 -m SET:I:101.0.0000000000000000 -f 123:7FF
        cangw -A -s x0 -d v0 -e -m SET:D:101.0.0102030405060708
        cangw -A -s x0 -d v1 -e
        cangw -A -s x0 -d x1 -m SET:I:102.0.0000000000000000 -m XOR:D:0.0.FFFFFFFFFFFFFFFF
        send x0p classic
        total 146 0 0";
    echo_of_a_modified_frame: "
        cangw -A -s v0 -d v1 -e -m SET:I:124.0.0000000000000000
        cangw -A -s v1 -d v0 -e -f 124:7FF
        cangw -A -s v1 -d v2 -e -f 123:7FF
        send v0 one
        send v1 one
        total 2 0 1";
    two_ways_with_modifications: "
        cangw -A -s v0 -d v1 -e -m OR:I:400.0.0000000000000000
        cangw -A -s v1 -d v0 -e -m AND:I:3FF.0.0000000000000000
        send v0 classic
        send v1 classic
        total 56 0 56";
    a_chain_that_modifies: "
        hops 3
        cangw -A -s v0 -d v1 -e -m SET:I:101.0.0000000000000000
        cangw -A -s v1 -d v2 -e -m SET:I:102.0.0000000000000000 -f 101:7FF
        cangw -A -s v2 -d v0 -e -m SET:I:103.0.0000000000000000 -f 102:7FF
        cangw -A -s v2 -d v0 -e -i -f 102:7FF
        cangw -A -s v0 -d x1 -f 102:7FF
        send v0 one
        send v1 one
        send v2 classic
        total 3 0 2";
    a_limit_before_a_modification: "
        hops 4
        cangw -A -s v0 -d v1 -e -l 2
        cangw -A -s v1 -d v2 -e -m SET:I:102.0.0000000000000000
        cangw -A -s v2 -d x1 -e
        cangw -A -s v2 -d v0 -e -m SET:I:103.0.0000000000000000
        send v0 one
        send v1 one
        total 5 0 2";
    update_in_place: "
        cangw -A -s x0 -d x1 -m SET:I:100.0.0000000000000000 -u AB12 -f 123:7FF
        cangw -A -s x0 -d x2
        send x0p one
        cangw -A -s x0 -d x1 -m SET:L:0.2.0000000000000000 -x 0:1:2:00 -u AB12 -f 123:7FF -e -l 1
        send x0p one
        total 4 0 0
        cangw -A -s x0 -d x1 -m SET:I:100.0.0000000000000000 -u AB12 -f 124:7FF
        cangw -A -s x0 -d x2 -m SET:I:100.0.0000000000000000 -u AB12 -f 123:7FF
        send x0p one
        total 6 0 0";
    delete_by_modifications: "
        cangw -A -s x0 -d x1 -m SET:I:100.0.0000000000000000
        cangw -A -s x0 -d x1 -m SET:I:101.0.0000000000000000
        cangw -A -s x0 -d x1
        cangw -D -s x0 -d x1 -m SET:I:102.0.0000000000000000
        cangw -D -s x0 -d x1 -m SET:I:100.1.0000000000000000
        cangw -D -s x0 -d x1 -m SET:I:100.0.0000000000000000
        send x0p one
        cangw -D -s x0 -d x1 -m SET:I:101.0.0000000000000000 -x 0:1:2:00
        cangw -D -s x0 -d x1
        total 1 0 0";
    delete_by_uid: "
        cangw -A -s x0 -d x1 -m SET:I:100.0.0000000000000000 -u 7
        cangw -A -s x0 -d x1 -m SET:I:101.0.0000000000000000 -u 8
        cangw -D -s x0 -d x1 -m SET:I:100.0.0000000000000000
        cangw -D -s x0 -d x1 -u 7
        cangw -D -s x0 -d x1 -m AND:I:0.0.0000000000000000 -u 7
        send x0p one
        total 1 0 0";
    bad_modifications: "
        cangw -A -s x0 -d x1 -m SOT:I:1.1.0000000000000000
        cangw -A -s x0 -d x1 -m SET:X:1.1.0000000000000000
        cangw -A -s x0 -d x1 -m SET::1.1.0000000000000000
        cangw -A -s x0 -d x1 -m SET:I:1.1.00000000000000
        cangw -A -s x0 -d x1 -m SET:I:1.1.00000000000000GG
        cangw -A -s x0 -d x1 -m SET:I:1.1
        cangw -A -s x0 -d x1 -X -m SET:I:1.1.0000000000000000
        cangw -A -s x0 -d x1 -M SET:I:1.1.1.{fd:00}
        cangw -A -s x0 -d x1 -x 0:1:2:00
        cangw -A -s x0 -d x1 -c 0:1:2:00:00:{table}
        cangw -A -s x0 -d x1 -m SET:I:1.1.0000000000000000 -x 0:8:2:00
        cangw -A -s x0 -d x1 -m SET:I:1.1.0000000000000000 -x 0:1:-9:00
        cangw -A -s x0 -d x1 -m SET:I:1.1.0000000000000000 -c 0:1:8:00:00:{table}
        cangw -A -s x0 -d x1 -m SET:I:1.1.0000000000000000 -x 0:1:2
        cangw -A -s x0 -d x1 -m SET:I:1.1.0000000000000000 -c 0:1:2:00:00:00
        cangw -A -s x0 -d x1 -m SET:I:1.1.0000000000000000 -p 4:
        cangw -A -s x0 -d x1 -m SET:I:1.1.0000000000000000 -p 2:00
        total 0 0 0";
}
