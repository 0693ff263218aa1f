//! What a frame costs on its way through a gateway: from `send()` on one vxcan pair to reception on another.
//!
//! In a guest that counts instructions (`cargo xtask vm --icount -- target/release/cangw-path`) a nanosecond
//! is an executed instruction, and the numbers repeat to about 0.1 %. Everywhere else they are times of this machine.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use cangw_tests::frame::Frame;
use cangw_tests::namespace::Namespace;
use cangw_tests::socket::CanSocket;
use cangw_tests::tool::Cangw;

const FRAMES: u32 = 10_000;
const BATCH: u32 = 100;
const ID: u32 = 0x123;
/// An extended identifier that a rule names.
const EXACT: u32 = 0x8000_1234;
/// One that only the mask of a parameter group names.
const GROUP: u32 = 0x9855_0721;

/// A gateway to be measured.
struct Case {
    name: &'static str,
    /// Identifier of the frames.
    id: u32,
    /// Whether frames arrive.
    forwards: bool,
    prepare: fn(&Namespace),
}

const CASES: &[Case] = &[
    Case {
        name: "no gateway",
        id: ID,
        forwards: false,
        prepare: |_| {},
    },
    Case {
        name: "can-gw, 1 rule",
        id: ID,
        forwards: true,
        prepare: |ns| drop(Cangw::CanUtils.must(ns, "-A -s a1 -d b0 -f 123:C00007FF")),
    },
    Case {
        name: "tc, 1 rule",
        id: ID,
        forwards: true,
        prepare: |ns| drop(Cangw::Ours.must(ns, "-A -s a1 -d b0 -f 123:C00007FF")),
    },
    Case {
        name: "tc, 1 rule, exclusive",
        id: ID,
        forwards: true,
        prepare: |ns| {
            let rule = "rule add -s a1 -d b0 -f 123:C00007FF --exclusive";
            drop(Cangw::Ours.must(ns, rule));
        },
    },
    Case {
        name: "tc, 10,000 rules",
        id: ID,
        forwards: true,
        prepare: |ns| load(ns, 10_000),
    },
    Case {
        name: "tc, 10,000 rules, exclusive",
        id: ID,
        forwards: true,
        prepare: |ns| {
            load(ns, 10_000);
            drop(Cangw::Ours.must(ns, "interface set a1 exclusive on"));
        },
    },
    Case {
        name: "tc, 1 rule, exact 29 bits",
        id: EXACT,
        forwards: true,
        prepare: |ns| drop(Cangw::Ours.must(ns, "-A -s a1 -d b0 -f 80001234:DFFFFFFF")),
    },
    Case {
        name: "tc, 10,000 rules, exact 29 bits",
        id: EXACT,
        forwards: true,
        prepare: |ns| load(ns, 10_000),
    },
    Case {
        name: "tc, 1 rule, masked 29 bits",
        id: GROUP,
        forwards: true,
        prepare: |ns| drop(Cangw::Ours.must(ns, "-A -s a1 -d b0 -f 80550700:80FFFF00")),
    },
    Case {
        name: "tc, 10,000 rules, masked 29 bits",
        id: GROUP,
        forwards: true,
        prepare: |ns| load(ns, 10_000),
    },
    Case {
        name: "XDP, 1 rule, exclusive",
        id: ID,
        forwards: true,
        prepare: |ns| {
            let rule = "rule add -s a1 -d b0 -f 123:C00007FF --exclusive --engine xdp";
            drop(Cangw::Ours.must(ns, rule));
        },
    },
    Case {
        name: "can-gw, -m and CRC8",
        id: ID,
        forwards: true,
        prepare: |ns| drop(Cangw::CanUtils.must(ns, &format!("-A {}", edit()))),
    },
    Case {
        name: "tc, -m and CRC8",
        id: ID,
        forwards: true,
        prepare: |ns| drop(Cangw::Ours.must(ns, &format!("-A {}", edit()))),
    },
    Case {
        name: "tc, -m and CRC8, exclusive",
        id: ID,
        forwards: true,
        prepare: |ns| {
            let rule = format!("rule add {} --exclusive", edit());
            drop(Cangw::Ours.must(ns, &rule));
        },
    },
];

/// A rule that writes a byte and a CRC8 over the first seven.
fn edit() -> String {
    let table: String = (0..=255u8).map(|i| format!("{i:02X}")).collect();
    format!(
        "-s a1 -d b0 -f 123:C00007FF -m SET:I:124.0.0000000000000000 -m AND:D:0.0.00FFFFFFFFFFFFFF -c 0:6:7:FF:FF:{table}"
    )
}

/// Loads rules on extended identifiers, parameter groups and, last, those that the frames match.
fn load(namespace: &Namespace, rules: u32) {
    let mut text = String::new();
    for i in 0..rules - 3 {
        let (id, mask) = if i % 2 == 0 {
            (0x8000_0000 | (i * 7919), 0xDFFF_FFFFu32)
        } else {
            (0x8000_0000 | (i << 8), 0x83FF_FF00)
        };
        let _ = writeln!(text, "-s a1 -d b0 -f {id:X}:{mask:X}");
    }
    text.push_str("-s a1 -d b0 -f 80550700:80FFFF00\n-s a1 -d b0 -f 80001234:DFFFFFFF\n");
    text.push_str("-s a1 -d b0 -f 123:C00007FF\n");
    let file = std::env::temp_dir().join(format!("cangw-path-{}", std::process::id()));
    std::fs::write(&file, text).expect("the temporary folder can be written");
    Cangw::Ours.must(namespace, &format!("rule load {}", file.display()));
    let _ = std::fs::remove_file(file);
}

fn measure(case: &Case) -> f64 {
    let namespace = Namespace::new("path");
    namespace.ip("link add a0 type vxcan peer name a1\nlink add b0 type vxcan peer name b1");
    for name in ["a0", "a1", "b0", "b1"] {
        namespace.ip(&format!("link set {name} mtu 72\nlink set {name} up"));
    }
    (case.prepare)(&namespace);
    let sender = CanSocket::open(&namespace, "a0");
    let receiver = CanSocket::open(&namespace, "b1");
    let frame = Frame::classic(case.id, &[1, 2, 3, 4, 5, 6, 7, 8]);
    // The kernel takes up to a second until it sends through a pair that has just become whole. The first
    // frames also pay for caches and for the kernel's own patching of code.
    for _ in 0..BATCH {
        sender.send(&frame);
        if case.forwards
            && receiver
                .receive_within(Duration::from_millis(100))
                .is_some()
        {
            break;
        }
    }
    drop(receiver.drain());
    let mut arrived = 0;
    // On one CPU the frame has reached the receiver's queue when `send` returns; taking it out is not counted.
    let mut round = |frames: u32| {
        let mut spent = Duration::ZERO;
        for _ in 0..frames / BATCH {
            let start = Instant::now();
            for _ in 0..BATCH {
                sender.send(&frame);
            }
            spent += start.elapsed();
            arrived += receiver.drain().len() as u32;
        }
        spent
    };
    let spent = round(FRAMES);
    while case.forwards && arrived < FRAMES {
        drop(receiver.receive());
        arrived += 1;
    }
    let expected = if case.forwards { FRAMES } else { 0 };
    assert_eq!(arrived, expected, "frames that arrived with {}", case.name);
    Cangw::Ours.must(&namespace, "-F");
    spent.as_nanos() as f64 / f64::from(FRAMES)
}

fn main() {
    println!(
        "{:33} {:>8} {:>8} {:>10}",
        "", "a frame", "added", "to can-gw"
    );
    let mut base = 0.0;
    let mut can_gw = f64::NAN;
    for case in CASES {
        let cost = measure(case);
        match case.name {
            "no gateway" => base = cost,
            name if name.starts_with("can-gw") => can_gw = cost - base,
            _ => {}
        }
        let added = cost - base;
        println!(
            "{:33} {cost:8.0} {added:8.0} {:10.3}",
            case.name,
            added / can_gw
        );
    }
}
