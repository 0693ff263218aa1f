//! What comes from a capture, taken apart only as far as it has to be known.

use std::io::{self, BufRead};

use crate::capture::Format;
use crate::capture::line::Told;
use crate::capture::pcapng;

/// A line, or a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// A frame.
    Frame,
    /// So many events were lost until now.
    Lost(u64),
    /// Something else.
    Other,
}

/// Bytes of a block's type and length.
const HEAD: usize = 8;
/// A block that is longer than the longest frame and comment is none.
const LONGEST: usize = 1 << 20;

/// Reads the next one; `None` at the end.
///
/// # Errors
/// When it cannot be read, or ends within one.
pub(super) fn next(
    reader: &mut impl BufRead,
    format: Format,
    bytes: &mut Vec<u8>,
) -> io::Result<Option<Unit>> {
    bytes.clear();
    if format == Format::Pcapng {
        return block(reader, bytes);
    }
    if reader.read_until(b'\n', bytes)? == 0 {
        return Ok(None);
    }
    Ok(Some(match format {
        Format::Json => match serde_json::from_slice(bytes)? {
            Told::Frame(_) => Unit::Frame,
            Told::Lost { events } => Unit::Lost(events),
        },
        Format::Log | Format::Pcapng => match bytes.strip_prefix(b"# ") {
            None => Unit::Frame,
            Some(rest) => {
                let number = std::str::from_utf8(rest)
                    .ok()
                    .and_then(|text| text.split(' ').next());
                let number = number.and_then(|number| number.parse().ok());
                number.map_or(Unit::Other, Unit::Lost)
            }
        },
    }))
}

fn block(reader: &mut impl BufRead, bytes: &mut Vec<u8>) -> io::Result<Option<Unit>> {
    if reader.fill_buf()?.is_empty() {
        return Ok(None);
    }
    bytes.resize(HEAD, 0);
    reader.read_exact(bytes)?;
    let word = |bytes: &[u8], at: usize| {
        let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
        word.map_or(0, |word| u32::from_ne_bytes(*word))
    };
    let (kind, len) = (word(bytes, 0), word(bytes, 4) as usize);
    if !(HEAD..=LONGEST).contains(&len) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    bytes.resize(len, 0);
    reader.read_exact(&mut bytes[HEAD..])?;
    Ok(Some(match kind {
        pcapng::PACKET => Unit::Frame,
        pcapng::STATISTICS => pcapng::lost(bytes).map_or(Unit::Other, Unit::Lost),
        _ => Unit::Other,
    }))
}
