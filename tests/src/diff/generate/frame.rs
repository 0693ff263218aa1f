//! Random frames: everything that a program can send on a virtual interface.

use fastrand::Rng;

use super::{Pool, chance, mostly, random_data};
use crate::frame::{BRS, EFF, ERR, ESI, Frame, RTR};

/// `CANFD_FDF`
const FDF: u8 = 4;

const LEN: usize = 4;
const FLAGS: usize = 5;
const RAW_DLC: usize = 7;
const DATA: usize = 8;

/// A frame.
pub(super) fn frame(rng: &mut Rng, pool: &Pool) -> Frame {
    let fd = chance(rng, 35);
    let mut bytes = vec![0; if fd { 72 } else { 16 }];
    bytes[..4].copy_from_slice(&identifier(rng, pool).to_ne_bytes());
    if fd {
        bytes[LEN] = rng.u8(..=64);
        bytes[FLAGS] = mostly(rng, 0..=(BRS | ESI), 95) | FDF;
    } else {
        bytes[LEN] = rng.u8(..=8);
        if chance(rng, 20) {
            bytes[LEN] = 8;
            bytes[RAW_DLC] = mostly(rng, 9..=15, 90);
        }
    }
    let length = usize::from(bytes[LEN]);
    random_data(rng, &mut bytes[DATA..DATA + length]);
    // What is behind the data, and in bytes without meaning, goes with the frame.
    if chance(rng, 20) {
        random_data(rng, &mut bytes[DATA + length..]);
    }
    if chance(rng, 3) {
        random_data(rng, &mut bytes[FLAGS + usize::from(fd)..DATA]);
    }
    Frame::from_bytes(&bytes)
}

pub(super) fn identifier(rng: &mut Rng, pool: &Pool) -> u32 {
    match rng.u8(..16) {
        // An error frame, mostly with one class or a few.
        0 => ERR | (1 << rng.u8(..10)) | (1 << rng.u8(..10)),
        1 if chance(rng, 30) => ERR | rng.u32(..),
        1 | 2 => RTR | pool.id(rng),
        3 => pool.id(rng) ^ EFF & 0x8000_07FF,
        _ => pool.id(rng),
    }
}
