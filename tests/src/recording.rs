//! A recording of a bus: one made here, or a real one.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use cangw::dbc::Dbc;
use cangw::frame_text;

use crate::frame::Frame;

/// Names a file in candump's log format that takes the place of the frames made here.
const LOG: &str = "CANGW_TEST_RECORDING";
/// Names a DBC file for it.
const DBC: &str = "CANGW_TEST_DBC";

/// Identifiers of a vehicle that was made up, each with the time between two frames in milliseconds and the length.
const MESSAGES: [(u32, u32, u8); 34] = {
    let periods = [10, 10, 20, 20, 40, 100, 300];
    let mut messages = [(0, 0, 0); 34];
    let mut i = 0;
    while i < messages.len() {
        messages[i] = (
            0x39 + 37 * i as u32,
            periods[i * periods.len() / messages.len()],
            (8 - i % 3) as u8,
        );
        i += 1;
    }
    messages
};
/// Length of the recording in milliseconds.
const LENGTH: u32 = 3000;

/// Describes message 0x13C of the frames that are made here.
const MADE_UP: &str = "VERSION \"\"\n\nNS_ :\n\nBS_:\n\nBU_: EON\n
BO_ 316 ENGINE_DATA: 7 EON
 SG_ SPEED : 7|16@0+ (0.01,0) [0|250] \"kph\" EON
 SG_ ENGINE_RPM : 23|16@0+ (1,0) [0|15000] \"rpm\" EON
 SG_ TEMPERATURE : 32|8@1- (0.5,-10) [-74|53.5] \"degC\" EON
 SG_ COUNTER : 41|2@0+ (1,0) [0|3] \"\" EON
 SG_ REST : 48|8@1+ (1,0) [0|255] \"\" EON
";

/// The frames of a recording, in order.
///
/// # Panics
/// As [`timed`].
#[must_use]
pub fn frames() -> Vec<Frame> {
    timed().into_iter().map(|(_, frame)| frame).collect()
}

/// The frames of a recording, in order, each with the time since its beginning.
///
/// # Panics
/// When the file named by `CANGW_TEST_RECORDING` is not one.
#[must_use]
pub fn timed() -> Vec<(Duration, Frame)> {
    let Some(path) = std::env::var_os(LOG) else {
        return made_up();
    };
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut begin = None;
    text.lines()
        .map(|line| {
            let time = line
                .split_once(['(', ')'])
                .and_then(|(_, rest)| rest.split_once(')'));
            let time: f64 = time
                .and_then(|(time, _)| time.parse().ok())
                .unwrap_or_else(|| panic!("{line:?} has no time"));
            let since = Duration::from_secs_f64((time - *begin.get_or_insert(time)).max(0.0));
            let frame = line.split(' ').nth(2).unwrap_or_default();
            let frame: frame_text::Frame =
                frame.parse().unwrap_or_else(|e| panic!("{line:?}: {e}"));
            (since, Frame::from_bytes(frame.bytes()))
        })
        .collect()
}

fn made_up() -> Vec<(Duration, Frame)> {
    let mut frames = Vec::new();
    for time in 0..LENGTH {
        for (i, &(id, period, len)) in MESSAGES.iter().enumerate() {
            if time % period != i as u32 % period {
                continue;
            }
            let data: Vec<u8> = (0..u32::from(len))
                .map(|byte| (time * (byte + 3) + id * 7) as u8)
                .collect();
            let since = Duration::from_millis(time.into());
            frames.push((since, Frame::classic(id, &data)));
        }
    }
    frames
}

/// How many frames of each identifier there are.
#[must_use]
pub fn ids(frames: &[Frame]) -> BTreeMap<u32, u64> {
    let mut ids = BTreeMap::new();
    for frame in frames {
        *ids.entry(frame.id()).or_default() += 1;
    }
    ids
}

/// Identifiers as `--id` takes them.
#[must_use]
pub fn list<'a>(ids: impl IntoIterator<Item = &'a u32>) -> String {
    let ids: Vec<String> = ids.into_iter().map(|id| format!("{id:03X}")).collect();
    ids.join(",")
}

/// A DBC file that describes the message `ENGINE_DATA` of the recording with its signal `ENGINE_RPM`.
///
/// # Panics
/// When the file named by `CANGW_TEST_DBC` is not one.
#[must_use]
pub fn dbc() -> (String, Dbc) {
    let text = match std::env::var_os(DBC) {
        Some(path) => {
            fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        }
        None => MADE_UP.to_owned(),
    };
    let dbc = Dbc::parse(&text).expect("a DBC file");
    (text, dbc)
}
