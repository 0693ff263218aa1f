//! Scripts as they are in use.

use cangw_tests::frame::{BRS, Frame};
use cangw_tests::lab::{Lab, Link};
use cangw_tests::tool::Cangw;

use super::script::compare;

const BUSES: [Link; 4] = [
    Link::Vcan("vcan1"),
    Link::Vcan("vcan2"),
    Link::Vcan("vcan3"),
    Link::Vcan("vcan4"),
];

const PORTS: [Link; 8] = [
    Link::Vxcan("x0"),
    Link::Vxcan("x1"),
    Link::Vxcan("x2"),
    Link::Vxcan("x3"),
    Link::Vxcan("x4"),
    Link::Vxcan("x5"),
    Link::Vxcan("x6"),
    Link::Vxcan("x7"),
];

/// The table of CRC8 SAE J1850, polynomial 0x1D, as cangw takes it.
fn sae_j1850() -> String {
    let entry = |value: u8| {
        (0..8).fold(value, |crc, _| {
            if crc & 0x80 == 0 {
                crc << 1
            } else {
                crc << 1 ^ 0x1D
            }
        })
    };
    (0..=255).map(|v| format!("{:02X}", entry(v))).collect()
}

/// Each echo is counted as deleted by the rule of the other direction.
#[test]
fn two_ways_with_echo_for_fd() {
    compare(
        "cangw -A -s vcan2 -d vcan1 -X -e
        cangw -A -s vcan1 -d vcan2 -X -e
        send vcan1 all
        send vcan2 all
        total 80 0 80",
        &BUSES,
    );
}

/// Every bus sees the first rule's frames; what goes on is one hop further.
#[test]
fn a_chain_over_three_buses() {
    for (hops, totals) in [
        (2, ["56 0 0", "84 0 0", "84 0 0"]),
        (3, ["56 0 0", "84 0 0", "84 0 0"]),
    ] {
        compare(
            &format!(
                "hops {hops}
                cangw -A -s vcan1 -d vcan2 -e
                cangw -A -s vcan2 -d vcan3 -e
                send vcan1 classic
                total {}
                send vcan2 classic
                total {}
                send vcan3 classic
                total {}",
                totals[0], totals[1], totals[2]
            ),
            &BUSES,
        );
    }
}

/// With the way back, frames come to their origin again, where nothing is counted.
#[test]
fn a_chain_over_three_buses_and_back() {
    for (hops, total) in [(2, "6 0 2"), (3, "8 0 4")] {
        compare(
            &format!(
                "hops {hops}
                cangw -A -s vcan1 -d vcan2 -e
                cangw -A -s vcan2 -d vcan3 -e
                cangw -A -s vcan3 -d vcan2 -e
                cangw -A -s vcan2 -d vcan1 -e
                send vcan1 one
                send vcan2 one
                send vcan3 one
                total {total}"
            ),
            &BUSES,
        );
    }
}

#[test]
fn a_mesh_of_eight_ports() {
    let mut script = String::new();
    for from in 0..8 {
        for to in (0..8).filter(|to| *to != from) {
            script += &format!("cangw -A -s x{from} -d x{to}\n");
        }
    }
    for port in 0..8 {
        script += &format!("send x{port}p one\nsend x{port}p one-fd\n");
    }
    compare(&(script + "total 56 0 0"), &PORTS);
}

/// The counter in the second byte is set, and the CRC8 before it is made anew, with one byte of 16 for the counter.
#[test]
fn a_counter_and_its_crc8() {
    let table = sae_j1850();
    let changes = format!(
        "-m AND:D:0.0.FFF0FFFFFFFFFFFF -m OR:D:0.0.0007000000000000 -c 1:-1:0:FF:FF:{table} -p 2:A0A1A2A3A4A5A6A7A8A9AAABACADAEAF"
    );
    compare(
        &format!(
            "cangw -A -s x0 -d x1 -f 123:7FF {changes}
            cangw -A -s x0 -d x2 -m SET:DL:0.8.0003000000000000 -c 1:7:0:FF:FF:{table} -p 3:
            send x0p classic
            send x0p lengths
            total 84 0 0"
        ),
        &PORTS,
    );
}

/// The check value of the CRC's definition.
#[test]
fn a_crc8_is_that_of_the_standard() {
    let mut lab = Lab::new("dropin", &PORTS);
    let (nothing, table) = ("FF".repeat(64), sae_j1850());
    Cangw::Ours.must(
        &lab.namespace,
        &format!("-A -s x0 -d x1 -X -M AND:D:0.0.0.{nothing} -c 0:8:9:FF:FF:{table}"),
    );
    lab.send("x0p", &Frame::fd(0x123, BRS, b"123456789\0"));
    let seen = lab.take_on("x1p");
    assert_eq!(seen[0].data(), b"123456789\x4B");
}

/// All 256 identifiers that the rule matches, and as many that it does not.
#[test]
fn identifier_length_and_data_together() {
    compare(
        "cangw -A -s x0 -d x1 -f 400:700 -m SET:I:321.0.0000000000000000 -m AND:L:0.5.0000000000000000 -m XOR:D:0.0.FF00FF0055AA0180
        cangw -A -s x0 -d x2 -e -f 400:700 -m SET:I:80000321.0.0000000000000000 -m AND:L:0.C.0000000000000000 -m XOR:D:0.0.0123456789ABCDEF
        send x0p block
        total 512 0 0",
        &PORTS,
    );
}
