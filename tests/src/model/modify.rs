//! Modifications and checksums, one function after the other.

use crate::diff::rule::{Crc8, DATA, FLAGS, ID, LEN, Operation, Profile, Rule, Span};

/// Offsets in a frame.
const LENGTH: usize = 4;
const FD_FLAGS: usize = 5;
const RAW_DLC: usize = 7;
const PAYLOAD: usize = 8;

/// Changes a frame as a rule says. False when its length then does not fit, and it is deleted.
pub fn modify(rule: &Rule, frame: &mut [u8]) -> bool {
    for operation in Operation::ALL {
        for m in rule
            .modifications
            .iter()
            .filter(|m| m.operation == operation)
        {
            if m.elements & ID != 0 {
                each(operation, &mut frame[..4], &m.id.to_ne_bytes());
            }
            if m.elements & LEN != 0 && rule.fd {
                each(operation, &mut frame[LENGTH..=LENGTH], &[m.len]);
            } else if m.elements & LEN != 0 {
                data_length_code(operation, frame, m.len);
            }
            if m.elements & FLAGS != 0 && rule.fd {
                each(operation, &mut frame[FD_FLAGS..=FD_FLAGS], &[m.flags]);
            }
            if m.elements & DATA != 0 {
                each(operation, &mut frame[PAYLOAD..], &m.data);
            }
        }
    }
    if usize::from(frame[LENGTH]) > frame.len() - PAYLOAD {
        return false;
    }
    if let Some(crc8) = &rule.crc8 {
        write_crc8(frame, crc8, rule.profile.as_ref());
    }
    if let Some(span) = &rule.xor {
        write_xor(frame, span);
    }
    true
}

/// Does an operation on each byte, as many as the frame has.
fn each(operation: Operation, bytes: &mut [u8], operands: &[u8]) {
    for (byte, operand) in bytes.iter_mut().zip(operands) {
        match operation {
            Operation::And => *byte &= operand,
            Operation::Or => *byte |= operand,
            Operation::Xor => *byte ^= operand,
            Operation::Set => *byte = *operand,
        }
    }
}

/// The length of a classic frame is modified as a raw data length code of 0 to 15.
fn data_length_code(operation: Operation, frame: &mut [u8], operand: u8) {
    if operation != Operation::Set && frame[LENGTH] == 8 && (9..=15).contains(&frame[RAW_DLC]) {
        frame[LENGTH] = frame[RAW_DLC];
    }
    each(operation, &mut frame[LENGTH..=LENGTH], &[operand]);
    frame[RAW_DLC] = 0;
    if (9..=15).contains(&frame[LENGTH]) {
        frame[RAW_DLC] = frame[LENGTH];
        frame[LENGTH] = 8;
    }
}

/// The bytes that a checksum covers, in order, and the place of the result; `None` when an index lies before the data.
fn covered(frame: &[u8], span: &Span) -> Option<(Vec<u8>, usize)> {
    let length = i32::from(frame[LENGTH]);
    let place = |index: i8| {
        let index = i32::from(index);
        usize::try_from(if index < 0 { length + index } else { index }).ok()
    };
    let (from, to, result) = (place(span.from)?, place(span.to)?, place(span.result)?);
    let data = &frame[PAYLOAD..];
    let bytes = if from <= to {
        data[from..=to].to_vec()
    } else {
        data[to..=from].iter().rev().copied().collect()
    };
    Some((bytes, result))
}

fn write_crc8(frame: &mut [u8], crc8: &Crc8, profile: Option<&Profile>) {
    let Some((mut bytes, result)) = covered(frame, &crc8.span) else {
        return;
    };
    match profile {
        None => {}
        Some(Profile::Byte(byte)) => bytes.push(*byte),
        Some(Profile::Table(table)) => bytes.push(table[usize::from(frame[PAYLOAD + 1] & 0xF)]),
        Some(Profile::Identifier) => {
            let id = u32::from_ne_bytes([frame[0], frame[1], frame[2], frame[3]]);
            bytes.push((id ^ (id >> 8)) as u8);
        }
    }
    let step = |crc: u8, byte: &u8| crc8.table[usize::from(crc ^ byte)];
    let crc = bytes.iter().fold(crc8.span.init, step);
    frame[PAYLOAD + result] = crc ^ crc8.final_xor;
}

fn write_xor(frame: &mut [u8], span: &Span) {
    if let Some((bytes, result)) = covered(frame, span) {
        frame[PAYLOAD + result] = bytes.iter().fold(span.init, |sum, byte| sum ^ byte);
    }
}
