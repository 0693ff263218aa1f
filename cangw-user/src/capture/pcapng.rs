//! pcapng (draft-ietf-opsawg-pcapng), with frames as `LINKTYPE_CAN_SOCKETCAN` has them, and what became of each as its comment.

use std::collections::HashMap;

use cangw_common::frame::{FrameType, field};

use super::line::{Direction, Line};
use crate::frame_text::Frame;

const SECTION: u32 = 0x0A0D_0D0A;
const INTERFACE: u32 = 1;
pub(crate) const STATISTICS: u32 = 5;
pub(crate) const PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1A2B_3C4D;
/// Length of a section that is not known.
const OPEN_END: i64 = -1;
/// `LINKTYPE_CAN_SOCKETCAN`
const LINKTYPE: u16 = 227;
/// Longest frame: none is cut.
const SNAPLEN: u32 = 0;
/// `CANFD_FDF`: told in the flags of every FD frame.
const FDF: u8 = 4;

/// Codes of options.
mod option {
    pub const END: u16 = 0;
    pub const COMMENT: u16 = 1;
    pub const USER_APPLICATION: u16 = 4;
    pub const IF_NAME: u16 = 2;
    pub const IF_TSRESOL: u16 = 9;
    pub const PACKET_FLAGS: u16 = 2;
    pub const USER_DELIVERED: u16 = 8;
    pub const OS_DROPPED: u16 = 7;
}

/// `if_tsresol`: nanoseconds.
const NANOSECONDS: u8 = 9;

/// A writer. What it makes is to be written in that order.
#[derive(Default)]
pub(super) struct Pcapng {
    interfaces: HashMap<String, u32>,
    packets: u64,
}

impl Pcapng {
    /// What the file begins with.
    pub fn begin(&self, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        body.extend(BYTE_ORDER.to_ne_bytes());
        body.extend(1u16.to_ne_bytes());
        body.extend(0u16.to_ne_bytes());
        body.extend(OPEN_END.to_ne_bytes());
        let program = concat!("cangw ", env!("CARGO_PKG_VERSION"));
        add_option(&mut body, option::USER_APPLICATION, program.as_bytes());
        add_option(&mut body, option::END, &[]);
        block(out, SECTION, &body);
    }

    /// A frame.
    pub fn packet(&mut self, frame: &Frame, line: &Line, out: &mut Vec<u8>) {
        let interface = self.interface(&line.interface, out);
        let mut data = Vec::new();
        frame_bytes(frame, &mut data);
        let mut body = Vec::new();
        body.extend(interface.to_ne_bytes());
        timestamp(line.time, &mut body);
        body.extend((data.len() as u32).to_ne_bytes());
        body.extend((data.len() as u32).to_ne_bytes());
        body.extend(&data);
        pad(&mut body);
        add_option(&mut body, option::COMMENT, line.explain().as_bytes());
        let direction: u32 = match line.direction {
            Direction::In => 1,
            Direction::Out => 2,
        };
        add_option(&mut body, option::PACKET_FLAGS, &direction.to_ne_bytes());
        add_option(&mut body, option::END, &[]);
        block(out, PACKET, &body);
        self.packets += 1;
    }

    /// How much was lost, for the first interface, as the format has no place for the whole capture.
    pub fn lost(&mut self, time: u64, lost: u64, out: &mut Vec<u8>) {
        let interface = match self.interfaces.values().min() {
            Some(first) => *first,
            None => self.interface("all", out),
        };
        let mut body = Vec::new();
        body.extend(interface.to_ne_bytes());
        timestamp(time, &mut body);
        let comment = format!("{lost} events of all interfaces found no room in the ring buffer");
        add_option(&mut body, option::COMMENT, comment.as_bytes());
        add_option(&mut body, option::OS_DROPPED, &lost.to_ne_bytes());
        add_option(
            &mut body,
            option::USER_DELIVERED,
            &self.packets.to_ne_bytes(),
        );
        add_option(&mut body, option::END, &[]);
        block(out, STATISTICS, &body);
    }

    /// The number of an interface, which is described before its first frame.
    fn interface(&mut self, name: &str, out: &mut Vec<u8>) -> u32 {
        if let Some(number) = self.interfaces.get(name) {
            return *number;
        }
        let number = self.interfaces.len() as u32;
        self.interfaces.insert(name.to_owned(), number);
        let mut body = Vec::new();
        body.extend(LINKTYPE.to_ne_bytes());
        body.extend(0u16.to_ne_bytes());
        body.extend(SNAPLEN.to_ne_bytes());
        add_option(&mut body, option::IF_NAME, name.as_bytes());
        add_option(&mut body, option::IF_TSRESOL, &[NANOSECONDS]);
        add_option(&mut body, option::END, &[]);
        block(out, INTERFACE, &body);
        number
    }
}

/// What [`Pcapng::lost`] told.
pub(crate) fn lost(block: &[u8]) -> Option<u64> {
    // Type, length, interface, time.
    let mut rest = block.get(20..)?;
    loop {
        let (head, body) = rest.split_first_chunk::<4>()?;
        let [a, b, c, d] = *head;
        let len = usize::from(u16::from_ne_bytes([c, d]));
        if u16::from_ne_bytes([a, b]) == option::OS_DROPPED {
            return Some(u64::from_ne_bytes(*body.first_chunk()?));
        }
        rest = body.get(len.next_multiple_of(4)..)?;
    }
}

/// The frame with its identifier, or priority and VCID, in network byte order.
fn frame_bytes(frame: &Frame, out: &mut Vec<u8>) {
    let bytes = frame.bytes();
    out.extend(frame.can_id().to_be_bytes());
    match frame.kind() {
        // The length of the data on the bus stands where it does in memory; nothing follows the data.
        FrameType::Classic | FrameType::Fd => {
            let end = field::DATA + usize::from(bytes[field::LEN]);
            out.extend(&bytes[field::LEN..end.min(bytes.len())]);
            if frame.kind() == FrameType::Fd {
                out[field::FLAGS] |= FDF;
            }
        }
        // Length and acceptance field are little-endian.
        FrameType::Xl => {
            out.extend(&bytes[field::LEN..field::XL_LEN]);
            let word = |at: usize| [bytes[at], bytes[at + 1]];
            out.extend(u16::from_ne_bytes(word(field::XL_LEN)).to_le_bytes());
            out.extend(frame.af().unwrap_or_default().to_le_bytes());
            out.extend(&bytes[cangw_common::frame::XL_HEAD as usize..]);
        }
    }
}

fn timestamp(time: u64, out: &mut Vec<u8>) {
    out.extend(((time >> 32) as u32).to_ne_bytes());
    out.extend((time as u32).to_ne_bytes());
}

fn add_option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend(code.to_ne_bytes());
    body.extend((value.len() as u16).to_ne_bytes());
    body.extend(value);
    pad(body);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

/// A block, of whose body the length is a multiple of four.
fn block(out: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let len = (12 + body.len()) as u32;
    out.extend(kind.to_ne_bytes());
    out.extend(len.to_ne_bytes());
    out.extend(body);
    out.extend(len.to_ne_bytes());
}
