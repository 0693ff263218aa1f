//! What hosts of a federation send each other. A message is taken whole or not at all.

use cangw::federation::engine::Announcement;
use cangw::federation::wire::{Frames, Head, Session, encode};

use super::{Target, outcome, refused};

/// Frames of each kind: classic, CAN FD, CAN XL.
const FRAMES: &[u8] = &[
    0, 0, 1, 0x23, 2, 0xDE, 0xAD, // classic
    0x98, 0xFE, 0xF1, 0, 0x83, 1, 9, 9, 9, // CAN FD
    0, 0, 4, 0x56, 0xFF, 0x80, 3, 0, 2, 0, 0, 0, 7, 1, 2, // CAN XL
];

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "federation_message",
            run: message,
            seeds: || vec![FRAMES.to_vec(), [&[1; 33][..], FRAMES].concat()],
            words: &["\u{1}", "\0\0\u{4}V\u{7f}"],
        },
        Target {
            name: "federation_announcement",
            run: announcement,
            seeds: || {
                let announcement = Announcement {
                    host: "bench-3".into(),
                    machine: "bench-3.example".into(),
                    session: Session([7; 16]),
                    since: 1_700_000_000_000,
                    buses: vec!["powertrain".into(), "body".into()],
                };
                vec![announcement.encode()]
            },
            words: &[
                "\"host\":",
                "\"buses\":[",
                "\\u001b",
                "18446744073709551615",
            ],
        },
    ]
}

/// What is shown has nothing in it that a terminal would obey.
fn announcement(input: &[u8]) -> u64 {
    let Some(read) = Announcement::decode(input) else {
        return outcome(serde_json::from_slice::<serde_json::Value>(input).is_ok());
    };
    let buses = read.buses.iter().map(String::as_str);
    for text in buses.chain([&*read.host, &*read.machine]) {
        assert!(!text.chars().any(char::is_control) && text.len() <= input.len());
    }
    assert_eq!(Announcement::decode(&read.encode()), Some(read.clone()));
    outcome((read.buses.len(), read.machine.is_empty()))
}

fn message(input: &[u8]) -> u64 {
    if let Some(head) = input
        .first_chunk::<33>()
        .and_then(|bytes| Head::decode(bytes))
    {
        assert_eq!(head.encode()[..], input[..33]);
    }
    match Frames::decode(input) {
        Ok(frames) => {
            // What a socket takes comes to no more than a known multiple of what came.
            assert!(frames.bytes() <= 16 * input.len());
            let mut again = Vec::new();
            for frame in frames.iter() {
                assert!(encode(frame, &mut again).is_some(), "a controller sends it");
            }
            assert_eq!(Frames::decode(&again), Ok(frames.clone()));
            outcome(frames.len())
        }
        Err(e) => refused(&e),
    }
}
