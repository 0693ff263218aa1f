use proptest::prelude::*;

use super::*;

const BRS: u8 = 1;

/// A classic frame.
pub(crate) fn classic(id: u32, data: &[u8]) -> Frame {
    let mut bytes = [0; CLASSIC];
    bytes[..4].copy_from_slice(&id.to_ne_bytes());
    bytes[field::LEN] = data.len() as u8;
    bytes[field::DATA..field::DATA + data.len()].copy_from_slice(data);
    Frame::from_socket(&bytes).expect("a frame")
}

fn fd(id: u32, flags: u8, data: &[u8]) -> Frame {
    let mut bytes = [0; FULL];
    bytes[..4].copy_from_slice(&id.to_ne_bytes());
    bytes[field::LEN] = data.len() as u8;
    bytes[field::FLAGS] = flags;
    bytes[field::DATA..field::DATA + data.len()].copy_from_slice(data);
    Frame::from_socket(&bytes).expect("a frame")
}

fn remote(id: u32, length: u8) -> Frame {
    let mut bytes = [0; CLASSIC];
    bytes[..4].copy_from_slice(&(id | RTR_FLAG).to_ne_bytes());
    bytes[field::LEN] = length;
    Frame::from_socket(&bytes).expect("a frame")
}

/// A datagram as it is on the way.
pub(crate) fn datagram(sequence: u8, frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    begin(&mut bytes);
    frames.iter().for_each(|frame| frame.encode(&mut bytes));
    finish(&mut bytes, sequence, frames.len() as u16);
    bytes
}

/// Datagrams byte for byte, made by hand from the format's description.
fn vectors() -> Vec<(u8, Vec<Frame>, &'static [u8])> {
    vec![
        (0, vec![], &[2, 0, 0, 0, 0]),
        (
            0,
            vec![classic(0x123, &[0xDE, 0xAD, 0xBE, 0xEF])],
            &[2, 0, 0, 0, 1, 0, 0, 1, 0x23, 4, 0xDE, 0xAD, 0xBE, 0xEF],
        ),
        (
            255,
            vec![
                classic(EFF_FLAG | 0x18FE_F100, &[1, 2, 3, 4, 5, 6, 7, 8]),
                remote(0x7FF, 8),
                classic(0, &[]),
            ],
            &[
                2, 0, 255, 0, 3, // head
                0x98, 0xFE, 0xF1, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, // extended
                0x40, 0, 7, 0xFF, 8, // remote: a length, and no data
                0, 0, 0, 0, 0, // empty
            ],
        ),
        (
            7,
            vec![fd(0x321, BRS, &[0xAA; 12]), fd(EFF_FLAG | 1, 0, &[])],
            &[
                2, 0, 7, 0, 2, // head
                0, 0, 3, 0x21, 0x8C, 1, // CAN FD: bit 7 of the length, and flags
                0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, //
                0x80, 0, 0, 1, 0x80, 0,
            ],
        ),
    ]
}

#[test]
fn datagrams_are_byte_for_byte() {
    for (sequence, frames, bytes) in vectors() {
        assert_eq!(datagram(sequence, &frames), bytes);
        let mut decoded = Vec::new();
        assert_eq!(decode_datagram(bytes, &mut decoded), Ok(sequence));
        assert_eq!(decoded, frames);
    }
}

#[test]
fn streams_are_byte_for_byte_however_they_are_cut() {
    let mut bytes = b"CANNELLONIv1".to_vec();
    let mut frames = Vec::new();
    for (_, some, datagram) in vectors() {
        bytes.extend_from_slice(&datagram[HEAD..]);
        frames.extend(some);
    }
    for cut in 1..bytes.len() {
        let (mut stream, mut decoded) = (Stream::default(), Vec::new());
        for part in bytes.chunks(cut) {
            stream.take(part, &mut decoded).expect("a stream");
        }
        assert!(stream.is_greeted());
        assert_eq!(decoded, frames, "{cut}");
    }
}

#[test]
fn what_is_no_datagram_is_refused_whole() {
    let good: &[u8] = &[2, 0, 0, 0, 1, 0, 0, 1, 0x23, 1, 9];
    let with = |at: usize, value: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = value;
        bytes
    };
    let two_frames = [
        &[2, 0, 0, 0, 2][..],
        &good[HEAD..],
        &[0, 0, 1, 0x23, 9],
        &[0; 9],
    ]
    .concat();
    for (bytes, wrong) in [
        (vec![], Malformed::Short),
        (good[..4].to_vec(), Malformed::Short),
        (good[..10].to_vec(), Malformed::Short),
        (with(4, 2), Malformed::Short),
        ([good, &[0]].concat(), Malformed::Long),
        (with(4, 0), Malformed::Long),
        (with(0, 1), Malformed::Version(1)),
        (with(1, 2), Malformed::Code(2)),
        (with(9, 9), Malformed::Length(9)),
        (with(9, 0xFF), Malformed::Length(127)),
        (with(9, 0x80 | 65), Malformed::Length(65)),
        (with(5, 0x20), Malformed::Id(0x2000_0123)),
        (with(7, 0x08), Malformed::Id(0x823)),
        // The second frame is wrong, and so the first is not taken.
        (two_frames, Malformed::Length(9)),
    ] {
        let mut frames = vec![classic(1, &[])];
        assert_eq!(
            decode_datagram(&bytes, &mut frames),
            Err(wrong),
            "{bytes:02X?}"
        );
        assert_eq!(frames.len(), 1);
    }
    // A remote frame of CAN FD.
    let bytes = [2, 0, 0, 0, 1, 0x40, 0, 1, 0x23, 0x80, 0];
    let decoded = decode_datagram(&bytes, &mut Vec::new());
    assert_eq!(decoded, Err(Malformed::Id(0x4000_0123)));
}

#[test]
fn a_stream_that_is_none_ends() {
    for bytes in [&b"CANNELLONIv2"[..], b"GET / HTTP/1.1\r\n", b"CANx"] {
        let mut stream = Stream::default();
        assert_eq!(
            stream.take(bytes, &mut Vec::new()),
            Err(Malformed::Greeting)
        );
    }
    let mut stream = Stream::default();
    let mut frames = Vec::new();
    let bytes = [
        &b"CANNELLONIv1"[..],
        &[0, 0, 1, 0x23, 1, 9],
        &[0, 0, 1, 0x23, 9],
    ]
    .concat();
    assert_eq!(stream.take(&bytes, &mut frames), Err(Malformed::Length(9)));
    assert_eq!(frames, [classic(0x123, &[9])], "those before it are whole");
}

#[test]
fn a_socket_gives_no_other_frames() {
    let mut error = [0; CLASSIC];
    error[..4].copy_from_slice(&(ERR_FLAG | 4).to_ne_bytes());
    assert_eq!(Frame::from_socket(&error), None);
    assert_eq!(Frame::from_socket(&[0; 15]), None);
    assert_eq!(Frame::from_socket(&[0; 76]), None, "CAN XL");
    let mut long = [0; CLASSIC];
    long[field::LEN] = 9;
    assert_eq!(Frame::from_socket(&long), None);
}

/// Any frame that can be on a bus.
fn frames() -> impl Strategy<Value = Frame> {
    let id = prop_oneof![0..=SFF_MASK, (0..=EFF_MASK).prop_map(|id| id | EFF_FLAG)];
    let data = |most| proptest::collection::vec(any::<u8>(), 0..=most);
    prop_oneof![
        (id.clone(), data(8)).prop_map(|(id, data)| classic(id, &data)),
        (id.clone(), any::<u8>(), data(64)).prop_map(|(id, flags, data)| fd(id, flags, &data)),
        (id, 0u8..=8).prop_map(|(id, length)| remote(id, length)),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(all in proptest::collection::vec(frames(), 0..50), sequence: u8) {
        let bytes = datagram(sequence, &all);
        prop_assert_eq!(bytes.len(), HEAD + all.iter().map(Frame::encoded_len).sum::<usize>());
        let mut decoded = Vec::new();
        prop_assert_eq!(decode_datagram(&bytes, &mut decoded), Ok(sequence));
        prop_assert_eq!(&decoded, &all);
        for frame in &decoded {
            prop_assert_eq!(Frame::from_socket(frame.socket_bytes()), Some(*frame));
        }
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut decoded = Vec::new();
        match decode_datagram(&bytes, &mut decoded) {
            Ok(sequence) => prop_assert_eq!(datagram(sequence, &decoded), bytes),
            Err(_) => prop_assert!(decoded.is_empty()),
        }
    }
}
