//! Hexadecimal digits.

use crate::rule::hex;

pub fn hex_byte(text: &str) -> Option<u8> {
    hex(text).and_then(|value| u8::try_from(value).ok())
}

/// Fills `bytes` from exactly as many pairs of digits.
pub fn hex_bytes(text: &str, bytes: &mut [u8]) -> Option<()> {
    let text = text.as_bytes();
    if text.len() != 2 * bytes.len() || !text.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(())
}

pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
