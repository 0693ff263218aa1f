//! What comes from the network. A datagram is taken whole or not at all; a stream is the same however it is cut, and keeps less than a frame.

use std::time::{Duration, Instant};

use cangw::tunnel::codec::{Frame, GREETING, HEAD, LONGEST, Stream, decode_datagram};
use cangw::tunnel::sequence::{Arrival, Sequence};

use super::{Target, outcome, refused};

/// A datagram with a frame of each kind.
const DATAGRAM: &[u8] = &[
    2, 0, 7, 0, 4, // head
    0, 0, 1, 0x23, 2, 0xDE, 0xAD, // classic
    0x98, 0xFE, 0xF1, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, // extended
    0x40, 0, 7, 0xFF, 8, // remote
    0, 0, 3, 0x21, 0x83, 1, 9, 9, 9, // CAN FD
];

pub(super) fn targets() -> Vec<Target> {
    let target = |name, run, seeds| Target {
        name,
        run,
        seeds,
        words: &["\u{2}\0\0\0\u{1}", "CANNELLONIv1"],
    };
    vec![
        target("tunnel_datagram", datagram, || vec![DATAGRAM.to_vec()]),
        target("tunnel_stream", stream, || {
            vec![[&GREETING[..], &DATAGRAM[HEAD..]].concat()]
        }),
        target("tunnel_sequence", sequence, || {
            vec![(0..=255).collect(), (0..200).rev().collect()]
        }),
    ]
}

/// A frame that was taken is one that a CAN socket takes.
fn check(frames: &[Frame]) {
    for frame in frames {
        assert_eq!(Frame::from_socket(frame.socket_bytes()), Some(*frame));
        assert!(frame.encoded_len() <= LONGEST);
    }
}

fn datagram(input: &[u8]) -> u64 {
    let mut frames = Vec::new();
    match decode_datagram(input, &mut frames) {
        Ok(_) => {
            check(&frames);
            let mut again = input[..HEAD].to_vec();
            frames.iter().for_each(|frame| frame.encode(&mut again));
            assert_eq!(again, input);
            outcome(frames.len())
        }
        Err(e) => {
            assert_eq!(frames, [], "{e}");
            refused(&e)
        }
    }
}

fn stream(input: &[u8]) -> u64 {
    let feed = |size: usize| {
        let (mut stream, mut frames) = (Stream::default(), Vec::new());
        let mut parts = input.chunks(size);
        let result = parts.try_for_each(|part| stream.take(part, &mut frames));
        (result, frames, stream.waiting())
    };
    let (result, frames, waiting) = feed(input.len().max(1));
    check(&frames);
    for size in [1, 7, 64] {
        let other = feed(size);
        assert_eq!(
            (&result, &frames),
            (&other.0, &other.1),
            "in parts of {size}"
        );
    }
    match result {
        Ok(()) => {
            assert!(waiting < LONGEST, "{waiting} bytes wait");
            outcome(frames.len())
        }
        Err(e) => refused(&e),
    }
}

fn sequence(input: &[u8]) -> u64 {
    let mut sequence = Sequence::new(Duration::from_secs(1));
    let now = Instant::now();
    let mut kinds = [0u32; 5];
    let mut missing = 0i64;
    for (n, number) in (0..).zip(input) {
        match sequence.arrived(*number, n % 5, now) {
            Arrival::Next => kinds[0] += 1,
            Arrival::Ahead(lost) => {
                kinds[1] += 1;
                missing += i64::from(lost);
            }
            Arrival::Late => {
                kinds[2] += 1;
                missing -= 1;
            }
            Arrival::Again => kinds[3] += 1,
            Arrival::Anew => kinds[4] += 1,
        }
        assert!(missing >= 0, "more came late than were missing");
    }
    outcome(kinds.map(|kind| kind.min(3)))
}
