//! Which ECU sends what, and when.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cangw_tests::frame::Frame;

/// Frames with their times and senders, in order.
pub struct Traffic {
    pub frames: Vec<(Duration, &'static str, Frame)>,
    /// Where they come from, for people.
    pub origin: &'static str,
}

/// Identifiers and periods in milliseconds, of the shape that cars have.
const PERIODS: [(u32, u64); 30] = [
    (0x039, 15),
    (0x095, 10),
    (0x133, 10),
    (0x136, 10),
    (0x13A, 10),
    (0x143, 10),
    (0x158, 10),
    (0x161, 10),
    (0x166, 10),
    (0x17C, 10),
    (0x183, 10),
    (0x18E, 10),
    (0x191, 10),
    (0x1A4, 20),
    (0x1AA, 20),
    (0x1B0, 20),
    (0x1CF, 20),
    (0x1D0, 20),
    (0x1DC, 20),
    (0x21E, 40),
    (0x294, 40),
    (0x305, 100),
    (0x309, 100),
    (0x320, 100),
    (0x324, 100),
    (0x37C, 100),
    (0x405, 300),
    (0x40C, 300),
    (0x428, 300),
    (0x5A1, 1000),
];
const GENERATED: u64 = 3000;

impl Traffic {
    /// Reads a recording in candump's log format; where there is none, makes similar frames. Requests of the diagnostics, the answers
    /// of the engine, and frames of the program on the gateway are added to both.
    ///
    /// # Errors
    /// When the recording is not in that format.
    pub fn read(path: &Path) -> Result<Self> {
        let (mut frames, origin) = match fs::read_to_string(path) {
            Ok(text) => (
                recorded(&text)?,
                "a recording of a real car, and some requests",
            ),
            Err(_) => (generated(), "30 identifiers with periods of 10 to 1000 ms"),
        };
        let end = frames.last().map_or(Duration::ZERO, |(time, ..)| *time);
        for n in 0.. {
            let time = Duration::from_millis(100 * n);
            if time >= end {
                break;
            }
            // OBD-2: the engine's speed, please.
            let answer = Frame::classic(0x7E8, &[4, 0x41, 0x0C, 0x0B, n as u8, 0, 0, 0]);
            frames.push((
                time,
                "diag",
                Frame::classic(0x7DF, &[2, 1, 0x0C, 0, 0, 0, 0, 0]),
            ));
            frames.push((time + Duration::from_millis(5), "engine", answer));
            frames.push((time, "app", Frame::classic(0x6F1, &[n as u8])));
        }
        frames.sort_by_key(|(time, ..)| *time);
        Ok(Self { frames, origin })
    }

    /// From the first frame to the last.
    pub fn duration(&self) -> Duration {
        self.frames
            .last()
            .map_or(Duration::ZERO, |(time, ..)| *time)
    }
}

/// The ECU that has an identifier.
fn sender(id: u32) -> &'static str {
    match id {
        0..0x1A0 => "engine",
        0x1A0..0x200 => "brakes",
        _ => "dash",
    }
}

fn recorded(text: &str) -> Result<Vec<(Duration, &'static str, Frame)>> {
    let mut start = None;
    text.lines()
        .enumerate()
        .map(|(number, line)| {
            let (time, frame) = parse(line).with_context(|| {
                format!(
                    "line {} of the recording is not as candump -L writes it: {line}",
                    number + 1
                )
            })?;
            let time = time.saturating_sub(*start.get_or_insert(time));
            Ok((time, sender(frame.id()), frame))
        })
        .collect()
}

/// `(SECONDS.MICROSECONDS) INTERFACE ID#DATA`
fn parse(line: &str) -> Option<(Duration, Frame)> {
    let mut words = line.split_whitespace();
    let (seconds, micros) = words
        .next()?
        .strip_prefix('(')?
        .strip_suffix(')')?
        .split_once('.')?;
    let (id, data) = words.nth(1)?.split_once('#')?;
    let data = (0..data.len() / 2)
        .map(|i| u8::from_str_radix(data.get(2 * i..2 * i + 2)?, 16).ok())
        .collect::<Option<Vec<u8>>>()?;
    let time =
        Duration::from_secs(seconds.parse().ok()?) + Duration::from_micros(micros.parse().ok()?);
    let id = u32::from_str_radix(id, 16).ok()?;
    (data.len() <= 8).then(|| (time, Frame::classic(id, &data)))
}

fn generated() -> Vec<(Duration, &'static str, Frame)> {
    let mut frames = Vec::new();
    for (offset, (id, period)) in (0..).zip(PERIODS) {
        for n in 0..GENERATED / period {
            // Not all at the same moment.
            let time = Duration::from_millis(n * period) + Duration::from_micros(250 * offset);
            let data = (n * 7 + u64::from(id)).to_le_bytes();
            frames.push((time, sender(id), Frame::classic(id, &data)));
        }
    }
    frames.sort_by_key(|(time, ..)| *time);
    frames
}
