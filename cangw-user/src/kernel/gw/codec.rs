//! `struct rtcanmsg` and its attributes (include/uapi/linux/can/gw.h), as `cgw_put_job` writes them and `cgw_parse_attr` reads them.
//!
//! What is decoded is what the kernel holds, so that encoding it again names exactly that rule.

use cangw_common::edit::Span;
use cangw_common::frame::{FrameType, field};
use cangw_common::rule::Filter;

use crate::kernel::attr::{self, Attributes};
use crate::modify::{Crc8Checksum, Modification, Operation, XorChecksum};

/// `AF_CAN`
pub const FAMILY: u8 = libc::AF_CAN as u8;
/// `CGW_TYPE_CAN_CAN`
const CAN_CAN: u8 = 1;

/// `CGW_FLAGS_CAN_ECHO`: `-e`.
pub const ECHO: u16 = 1;
/// `CGW_FLAGS_CAN_SRC_TSTAMP`: `-t`.
pub const TIMESTAMP: u16 = 2;
/// `CGW_FLAGS_CAN_IIF_TX_OK`: `-i`.
pub const IIF_TX_OK: u16 = 4;
/// `CGW_FLAGS_CAN_FD`: `-X`.
pub const FD: u16 = 8;

/// Kinds of attributes.
mod kind {
    /// The first of four: `CGW_MOD_AND`, `OR`, `XOR`, `SET`.
    pub(super) const MOD: u16 = 1;
    pub(super) const CS_XOR: u16 = 5;
    pub(super) const CS_CRC8: u16 = 6;
    pub(super) const HANDLED: u16 = 7;
    pub(super) const DROPPED: u16 = 8;
    pub(super) const SRC_IF: u16 = 9;
    pub(super) const DST_IF: u16 = 10;
    pub(super) const FILTER: u16 = 11;
    pub(super) const DELETED: u16 = 12;
    pub(super) const LIM_HOPS: u16 = 13;
    pub(super) const MOD_UID: u16 = 14;
    /// The first of four: `CGW_FDMOD_AND`, `OR`, `XOR`, `SET`.
    pub(super) const FDMOD: u16 = 15;
}

/// Bytes of `struct rtcanmsg`.
const HEAD: usize = 4;
/// Bytes of `struct cgw_csum_crc8`.
const CRC8_LEN: usize = 282;

/// A rule of can-gw (`struct cgw_job`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Job {
    /// [`ECHO`], [`TIMESTAMP`], [`IIF_TX_OK`], [`FD`].
    pub flags: u16,
    /// Hop limit, 0 for none.
    pub limit: u8,
    /// Filter; `0:0` takes all frames.
    pub filter: Filter,
    /// Modifications, at most one for each operation, in the order of operations. Their elements are as the kernel has them.
    pub modifications: Vec<Modification>,
    /// Number of the modifications, 0 for none.
    pub uid: u32,
    /// CRC8 checksum and its profile.
    pub crc8: Option<(Crc8Checksum, RawProfile)>,
    /// XOR checksum.
    pub xor: Option<XorChecksum>,
    /// Index of the source interface.
    pub source: u32,
    /// Index of the target interface.
    pub target: u32,
    /// What it has done so far; not part of what identifies it.
    pub counters: Counters,
}

/// Counters of a rule of can-gw, in frames. They wrap at 2^32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counters {
    /// Sent.
    pub handled: u32,
    /// Not sent.
    pub dropped: u32,
    /// Deleted because of the hop limit or their length.
    pub deleted: u32,
}

/// `profile` and `profile_data` of `struct cgw_csum_crc8`, which the kernel does not look at before it uses them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RawProfile {
    /// Number of the profile.
    pub number: u8,
    /// Its data.
    pub data: [u8; 20],
}

/// Bytes that are not a rule of can-gw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message ends too early.
    #[error("a message of {0} bytes is too short")]
    Short(usize),
    /// Another protocol family.
    #[error("protocol family {0} is not AF_CAN")]
    Family(u8),
    /// Another type of gateway.
    #[error("gateway type {0} is not CAN to CAN")]
    Type(u8),
    /// Not a list of attributes.
    #[error("the attributes are malformed")]
    Malformed,
    /// An attribute of another kernel.
    #[error("attribute {0} is unknown")]
    Unknown(u16),
    /// An attribute for the other type of frames.
    #[error("attribute {0} does not go with the rule's type of frames")]
    Misplaced(u16),
    /// An attribute of a wrong size.
    #[error("attribute {kind} has {len} bytes")]
    Length {
        /// The attribute.
        kind: u16,
        /// Its bytes.
        len: usize,
    },
    /// An attribute that was there already.
    #[error("attribute {0} is there twice")]
    Twice(u16),
    /// An attribute that every rule has.
    #[error("attribute {0} is missing")]
    Missing(u16),
}

impl Job {
    /// Type of the frames that it takes.
    #[must_use]
    pub const fn frames(&self) -> FrameType {
        if self.flags & FD == 0 {
            FrameType::Classic
        } else {
            FrameType::Fd
        }
    }

    /// Whether both are the same but for their counters.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        let without_counters = |job: &Self| Self {
            counters: Counters::default(),
            ..job.clone()
        };
        without_counters(self) == without_counters(other)
    }

    /// Reads a rule from the payload of a netlink message.
    ///
    /// # Errors
    /// When it is anything else than what this kernel header describes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let short = DecodeError::Short(bytes.len());
        let (head, attributes) = bytes.split_first_chunk::<HEAD>().ok_or(short)?;
        match *head {
            [FAMILY, CAN_CAN, _, _] => {}
            [FAMILY, gateway, _, _] => return Err(DecodeError::Type(gateway)),
            [family, ..] => return Err(DecodeError::Family(family)),
        }
        let mut job = Self {
            flags: u16::from_ne_bytes([head[2], head[3]]),
            ..Self::default()
        };
        let mut seen: u32 = 0;
        for (kind, value) in attr::all(attributes).ok_or(DecodeError::Malformed)? {
            job.take(kind, value)?;
            // What was taken has a small number.
            if seen & 1 << kind != 0 {
                return Err(DecodeError::Twice(kind));
            }
            seen |= 1 << kind;
        }
        for kind in [kind::SRC_IF, kind::DST_IF] {
            if seen & 1 << kind == 0 {
                return Err(DecodeError::Missing(kind));
            }
        }
        job.modifications.sort_by_key(|m| m.operation);
        Ok(job)
    }

    /// Takes an attribute.
    fn take(&mut self, kind: u16, value: &[u8]) -> Result<(), DecodeError> {
        fn sized<const N: usize>(kind: u16, value: &[u8]) -> Result<[u8; N], DecodeError> {
            let len = value.len();
            value
                .try_into()
                .map_err(|_| DecodeError::Length { kind, len })
        }
        let number = || sized(kind, value).map(u32::from_ne_bytes);
        match kind {
            kind::HANDLED => self.counters.handled = number()?,
            kind::DROPPED => self.counters.dropped = number()?,
            kind::DELETED => self.counters.deleted = number()?,
            kind::SRC_IF => self.source = number()?,
            kind::DST_IF => self.target = number()?,
            kind::MOD_UID => self.uid = number()?,
            kind::LIM_HOPS => [self.limit] = sized(kind, value)?,
            kind::FILTER => self.filter = filter(sized(kind, value)?),
            kind::CS_XOR => self.xor = Some(XorChecksum(span(sized(kind, value)?))),
            kind::CS_CRC8 => self.crc8 = Some(crc8(&sized(kind, value)?)),
            _ => {
                let operation = |first: u16| Operation::ALL.get(usize::from(kind - first));
                let (&operation, frames) = if kind >= kind::FDMOD {
                    operation(kind::FDMOD).map(|o| (o, FrameType::Fd))
                } else if kind >= kind::MOD {
                    operation(kind::MOD).map(|o| (o, FrameType::Classic))
                } else {
                    None
                }
                .ok_or(DecodeError::Unknown(kind))?;
                if frames != self.frames() {
                    return Err(DecodeError::Misplaced(kind));
                }
                let modification = modification(operation, frames, value);
                let len = value.len();
                self.modifications
                    .push(modification.ok_or(DecodeError::Length { kind, len })?);
            }
        }
        Ok(())
    }

    /// The payload of a netlink message that creates or deletes the rule. Counters cannot be set.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut all = Attributes::default();
        if self.limit != 0 {
            all = all.with(kind::LIM_HOPS, &[self.limit]);
        }
        let first = match self.frames() {
            FrameType::Fd => kind::FDMOD,
            FrameType::Classic | FrameType::Xl => kind::MOD,
        };
        for m in &self.modifications {
            let bytes = modification_bytes(self.frames(), m);
            all = all.with(first + m.operation as u16, &bytes);
        }
        if self.uid != 0 {
            all = all.with_u32(kind::MOD_UID, self.uid);
        }
        if let Some((crc8, profile)) = &self.crc8 {
            all = all.with(kind::CS_CRC8, &crc8_bytes(crc8, profile));
        }
        if let Some(xor) = &self.xor {
            all = all.with(kind::CS_XOR, &span_bytes(xor.0));
        }
        if !self.filter.is_empty() {
            let id = self.filter.id.to_ne_bytes();
            let mask = self.filter.mask.to_ne_bytes();
            all = all.with(kind::FILTER, &[id, mask].concat());
        }
        let all = all
            .with_u32(kind::SRC_IF, self.source)
            .with_u32(kind::DST_IF, self.target);
        let mut bytes = request_head(self.flags).to_vec();
        bytes.extend(all.into_bytes());
        bytes
    }
}

/// The payload of a request for all rules.
#[must_use]
pub const fn request_head(flags: u16) -> [u8; HEAD] {
    let flags = flags.to_ne_bytes();
    [FAMILY, CAN_CAN, flags[0], flags[1]]
}

/// `struct can_filter`.
fn filter(b: [u8; 8]) -> Filter {
    Filter {
        id: u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
        mask: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
    }
}

/// `struct cgw_csum_xor`, and the first bytes of `struct cgw_csum_crc8`.
fn span([from, to, result, init]: [u8; 4]) -> Span {
    Span {
        from: from as i8,
        to: to as i8,
        result: result as i8,
        init,
    }
}

fn span_bytes(span: Span) -> [u8; 4] {
    [span.from as u8, span.to as u8, span.result as u8, span.init]
}

fn crc8(b: &[u8; CRC8_LEN]) -> (Crc8Checksum, RawProfile) {
    let mut table = [0; 256];
    table.copy_from_slice(&b[5..261]);
    let mut data = [0; 20];
    data.copy_from_slice(&b[262..]);
    let crc8 = Crc8Checksum {
        span: span([b[0], b[1], b[2], b[3]]),
        final_xor: b[4],
        table,
    };
    let number = b[261];
    (crc8, RawProfile { number, data })
}

fn crc8_bytes(crc8: &Crc8Checksum, profile: &RawProfile) -> Vec<u8> {
    let mut bytes = span_bytes(crc8.span).to_vec();
    bytes.push(crc8.final_xor);
    bytes.extend(crc8.table);
    bytes.push(profile.number);
    bytes.extend(profile.data);
    bytes
}

/// Bytes of a frame before its elements (`struct cgw_frame_mod`, `struct cgw_fdframe_mod`).
const fn frame_len(frames: FrameType) -> usize {
    match frames {
        FrameType::Fd => 72,
        FrameType::Classic | FrameType::Xl => 16,
    }
}

/// `None` when the attribute has another size.
fn modification(operation: Operation, frames: FrameType, value: &[u8]) -> Option<Modification> {
    let (&elements, frame) = value.split_last()?;
    if frame.len() != frame_len(frames) {
        return None;
    }
    let (id, _) = frame.split_first_chunk()?;
    let mut data = [0; 64];
    data[..frame.len() - field::DATA].copy_from_slice(&frame[field::DATA..]);
    Some(Modification {
        operation,
        elements,
        id: u32::from_ne_bytes(*id),
        len: frame[field::LEN],
        flags: frame[field::FLAGS],
        data,
    })
}

fn modification_bytes(frames: FrameType, m: &Modification) -> Vec<u8> {
    let mut bytes = vec![0; frame_len(frames)];
    bytes[..4].copy_from_slice(&m.id.to_ne_bytes());
    bytes[field::LEN] = m.len;
    bytes[field::FLAGS] = m.flags;
    let room = bytes.len() - field::DATA;
    bytes[field::DATA..].copy_from_slice(&m.data[..room]);
    bytes.push(m.elements);
    bytes
}
