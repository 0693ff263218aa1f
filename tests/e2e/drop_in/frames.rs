//! The frames that scripts send.

use cangw_tests::frame::{BRS, EFF, ERR, ESI, Frame};

/// A named set of frames.
pub fn set(name: &str) -> Vec<Frame> {
    match name {
        "classic" => classic(8),
        // The emulated controllers lose step at remote frames with another length.
        "bus" => classic(0),
        "lengths" => lengths(),
        "errors" => errors(),
        "block" => block(),
        "fd" => fd(),
        "all" => [classic(8), errors(), fd()].concat(),
        "one" => vec![Frame::classic(0x123, &[1, 2, 3])],
        "one-fd" => vec![Frame::fd(0x123, BRS, &[7; 12])],
        other => panic!("no set of frames is called {other}"),
    }
}

/// Identifiers around those that the scripts filter by, as data frames and as remote frames with lengths up to the one given.
fn classic(remote_len: u8) -> Vec<Frame> {
    let ids = [
        0,
        1,
        0x122,
        0x123,
        0x124,
        0x323,
        0x7FF,
        EFF,
        EFF | 0x123,
        EFF | 0x124,
        EFF | 0x0001_0123,
        EFF | 0x1234_5678,
        EFF | 0x1234_5679,
        EFF | 0x1FFF_FFFF,
    ];
    let data = |i: usize| Frame::classic(ids[i], &[i as u8; 8][..i % 9]);
    let remote = |i: usize| Frame::remote(ids[i], (i % 9) as u8 % (remote_len + 1));
    (0..ids.len()).flat_map(|i| [data(i), remote(i)]).collect()
}

/// All lengths, also those DLC that mean 8 bytes.
fn lengths() -> Vec<Frame> {
    let data = [0, 1, 0x7F, 0x80, 0xFF, 0x55, 0xAA, 8];
    let short = (0..=8).map(|n| Frame::classic(0x123, &data[..n]));
    let remote = (0..=8).map(|n| Frame::remote(EFF | 0x123, n));
    let raw = (9..=15).map(|dlc| Frame::raw_dlc(0x123, dlc, data));
    short.chain(remote).chain(raw).collect()
}

/// The 256 identifiers from 400 on, and the next 256, with all lengths.
fn block() -> Vec<Frame> {
    (0x400..0x600)
        .map(|id| Frame::classic(id, &[id as u8; 8][..id as usize % 9]))
        .collect()
}

/// One frame of each error class, and one of several.
fn errors() -> Vec<Frame> {
    (0..10)
        .map(|class| ERR | 1 << class)
        .chain([ERR | 0x2C, ERR | 0x1FFF_FFFF])
        .map(|id| Frame::classic(id, &[0, 4, 0, 0, 0, 0, 96, 0]))
        .collect()
}

/// Standard and extended FD frames with all flags and lengths.
fn fd() -> Vec<Frame> {
    let lengths = [0, 1, 8, 12, 16, 20, 24, 32, 48, 64];
    let mut frames = Vec::new();
    for (i, length) in lengths.into_iter().enumerate() {
        let flags = [0, BRS, ESI, BRS | ESI][i % 4];
        let data: Vec<u8> = (0..length).map(|n| n as u8 ^ 0xA5).collect();
        for id in [0x123, 0x124, EFF | 0x123, EFF | 0x1234_5678] {
            frames.push(Frame::fd(id, flags, &data));
        }
    }
    frames
}
