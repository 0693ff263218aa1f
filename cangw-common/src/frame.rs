//! CAN frames as the kernel lays them out (`include/uapi/linux/can.h`), read only through checked views.

/// `CAN_EFF_FLAG`: the identifier has 29 bits.
pub const EFF_FLAG: u32 = 0x8000_0000;
/// `CAN_RTR_FLAG`: remote transmission request.
pub const RTR_FLAG: u32 = 0x4000_0000;
/// `CAN_ERR_FLAG`: an error message frame of the controller's driver.
pub const ERR_FLAG: u32 = 0x2000_0000;
/// The 11 identifier bits of a standard frame.
pub const SFF_MASK: u32 = 0x7FF;
/// The 29 identifier bits of an extended frame.
pub const EFF_MASK: u32 = 0x1FFF_FFFF;

/// `ETH_P_CAN`: `skb->protocol` of classic CAN.
pub const PROTO_CLASSIC: u16 = 0x000C;
/// `ETH_P_CANFD`.
pub const PROTO_FD: u16 = 0x000D;
/// `ETH_P_CANXL`.
pub const PROTO_XL: u16 = 0x000E;

/// `CAN_MTU`: bytes of a `struct can_frame`.
pub const CLASSIC_LEN: u32 = 16;
/// `CANFD_MTU`: bytes of a `struct canfd_frame`.
pub const FD_LEN: u32 = 72;
/// `CANXL_HDR_SIZE`: bytes of a `struct canxl_frame` before its data.
pub const XL_HEAD: u32 = 12;
/// `CANXL_MAX_DLEN`: data bytes of the longest CAN XL frame.
pub const XL_MAX_DATA: u32 = 2048;
/// `CANXL_XLF`: set in the flags byte of every CAN XL frame.
pub const XL_FLAG: u8 = 0x80;

/// The most bytes that a driver leaves before the frame (`struct can_skb_priv`), as accepted here.
///
/// Drivers set the MAC header before they reserve private headroom, so that programs see that
/// headroom first: 16 bytes on Linux 6.1, 8 on 6.12, none from 7.x. See docs/kernels.md.
pub const MAX_PREFIX: u32 = 64;

/// Offsets within a frame.
pub mod field {
    /// `can_id` of classic and FD frames, `prio` of XL frames.
    pub const ID: usize = 0;
    /// `len` of classic and FD frames, `flags` of XL frames.
    pub const LEN: usize = 4;
    /// `flags` of FD frames (BRS, ESI).
    pub const FLAGS: usize = 5;
    /// `len8_dlc` of classic frames.
    pub const LEN8_DLC: usize = 7;
    /// The data of classic and FD frames.
    pub const DATA: usize = 8;
    /// `len` of XL frames, 16 bits.
    pub const XL_LEN: usize = 6;
    /// Bytes that the classifier reads, in every type of frame.
    pub const HEAD: usize = 8;
}

/// Which CAN a frame belongs to. A rule takes frames of exactly one type, as in can-gw.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameType {
    /// Classic CAN (ISO 11898-1), up to 8 bytes.
    Classic = 0,
    /// CAN FD, up to 64 bytes.
    Fd = 1,
    /// CAN XL, 1 to 2048 bytes.
    Xl = 2,
}

impl FrameType {
    /// All types, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Classic, Self::Fd, Self::Xl];

    /// The smallest MTU of an interface that carries every frame of this type, in bytes.
    #[must_use]
    pub const fn mtu(self) -> u32 {
        match self {
            Self::Classic => CLASSIC_LEN,
            Self::Fd => FD_LEN,
            Self::Xl => XL_HEAD + XL_MAX_DATA,
        }
    }

    /// The longest type of what carries these besides classic frames.
    #[must_use]
    pub const fn longest(fd: bool, xl: bool) -> Self {
        match (xl, fd) {
            (true, _) => Self::Xl,
            (false, true) => Self::Fd,
            (false, false) => Self::Classic,
        }
    }

    /// The type with a number; any other is taken for CAN XL.
    #[must_use]
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Classic,
            1 => Self::Fd,
            _ => Self::Xl,
        }
    }

    /// The type for `skb->protocol` in host order; `None` for what is not CAN.
    #[must_use]
    #[inline(always)]
    pub const fn from_protocol(protocol: u16) -> Option<Self> {
        match protocol {
            PROTO_CLASSIC => Some(Self::Classic),
            PROTO_FD => Some(Self::Fd),
            PROTO_XL => Some(Self::Xl),
            _ => None,
        }
    }
}

/// Where a frame lies in a socket buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Type of the frame.
    pub kind: FrameType,
    /// Bytes before the frame (see [`MAX_PREFIX`]).
    pub prefix: u32,
    /// Bytes of the frame itself.
    pub len: u32,
}

impl Layout {
    /// A classic frame and nothing else.
    pub const CLASSIC: Self = Self {
        kind: FrameType::Classic,
        prefix: 0,
        len: CLASSIC_LEN,
    };
}

/// Finds the frame of type `kind` at the end of a buffer of `total` bytes.
///
/// For CAN XL the prefix is always 0: its length stands in the frame, and no kernel
/// with a prefix has a CAN XL driver.
///
/// `None`: the buffer cannot hold such a frame.
#[must_use]
#[inline(always)]
pub const fn layout(kind: FrameType, total: u32) -> Option<Layout> {
    let len = match kind {
        FrameType::Classic => CLASSIC_LEN,
        FrameType::Fd => FD_LEN,
        FrameType::Xl => total,
    };
    let prefix = total.wrapping_sub(len);
    if prefix > MAX_PREFIX {
        return None;
    }
    Some(Layout { kind, prefix, len })
}

/// Finds the frame in a buffer of `total` bytes that carries no protocol number, as XDP gives it.
///
/// `byte4` is the fifth byte of the buffer and `xl_len` the 16 bits after the sixth; they count only when
/// `virtual_device` says that there is no prefix, which makes the answer unambiguous: CAN XL frames
/// have [`XL_FLAG`] set where classic and FD frames have their length.
#[must_use]
#[inline(always)]
pub const fn layout_by_length(
    total: u32,
    byte4: u8,
    xl_len: u16,
    virtual_device: bool,
) -> Option<Layout> {
    if virtual_device && byte4 & XL_FLAG != 0 {
        return if xl_len as u32 + XL_HEAD == total {
            layout(FrameType::Xl, total)
        } else {
            None
        };
    }
    match total {
        16 => layout(FrameType::Classic, total),
        72 => layout(FrameType::Fd, total),
        // struct can_skb_priv has 16 bytes on 6.1 and 8 on 6.12.
        24 | 32 if !virtual_device => layout(FrameType::Classic, total),
        80 | 88 if !virtual_device => layout(FrameType::Fd, total),
        _ => None,
    }
}

/// The first bytes of a frame: what the classifier needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// `can_id` with its flags, or `prio` with the VCID for CAN XL.
    pub id: u32,
    /// `len` (classic, FD) or `flags` (XL).
    pub len_or_flags: u8,
    /// Data length of CAN XL frames, in bytes; meaningless otherwise.
    pub xl_len: u16,
}

impl Head {
    /// Reads the head from the first [`field::HEAD`] bytes of a frame.
    #[must_use]
    #[inline(always)]
    pub const fn from_bytes(b: [u8; field::HEAD]) -> Self {
        Self {
            id: u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            len_or_flags: b[field::LEN],
            xl_len: u16::from_ne_bytes([b[field::XL_LEN], b[field::XL_LEN + 1]]),
        }
    }

    /// Bytes of data of a valid frame: 0 to 8, 64 or 2048. Remote requests have none.
    #[must_use]
    #[inline(always)]
    pub const fn data_len(&self, kind: FrameType) -> u32 {
        match kind {
            FrameType::Classic if self.id & RTR_FLAG != 0 => 0,
            FrameType::Classic | FrameType::Fd => self.len_or_flags as u32,
            FrameType::Xl => self.xl_len as u32,
        }
    }

    /// Whether the kernel's receive path accepts the frame (`can_is_can_skb` and its siblings).
    #[must_use]
    #[inline(always)]
    pub const fn is_valid(&self, layout: Layout) -> bool {
        match layout.kind {
            FrameType::Classic => self.len_or_flags <= 8,
            FrameType::Fd => self.len_or_flags <= 64,
            FrameType::Xl => {
                self.len_or_flags & XL_FLAG != 0
                    && self.xl_len >= 1
                    && self.xl_len as u32 <= XL_MAX_DATA
                    && self.xl_len as u32 + XL_HEAD == layout.len
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_is_what_remains_before_the_frame() {
        assert_eq!(layout(FrameType::Classic, 16).unwrap().prefix, 0);
        assert_eq!(layout(FrameType::Classic, 24).unwrap().prefix, 8);
        assert_eq!(layout(FrameType::Fd, 88).unwrap().prefix, 16);
        assert_eq!(layout(FrameType::Fd, 71), None);
        assert_eq!(layout(FrameType::Classic, 16 + MAX_PREFIX + 1), None);
        assert_eq!(layout(FrameType::Xl, 13).unwrap().len, 13);
    }

    #[test]
    fn xdp_tells_types_by_length() {
        assert_eq!(
            layout_by_length(16, 8, 0, true).unwrap().kind,
            FrameType::Classic
        );
        assert_eq!(layout_by_length(24, 0, 0, true), None);
        assert_eq!(layout_by_length(24, 0, 0, false).unwrap().prefix, 8);
        assert_eq!(
            layout_by_length(88, 0, 0, false).unwrap().kind,
            FrameType::Fd
        );
        // A CAN XL frame of 4 bytes is as long as a classic frame.
        assert_eq!(
            layout_by_length(16, 0x80, 4, true).unwrap().kind,
            FrameType::Xl
        );
        assert_eq!(layout_by_length(16, 0x80, 5, true), None);
    }

    #[test]
    fn lengths_are_checked_as_the_kernel_does() {
        let classic = layout(FrameType::Classic, 16).unwrap();
        let fd = layout(FrameType::Fd, 72).unwrap();
        let head = |len| Head {
            id: 0x123,
            len_or_flags: len,
            xl_len: 0,
        };
        assert!(head(8).is_valid(classic) && !head(9).is_valid(classic));
        assert!(head(64).is_valid(fd) && !head(65).is_valid(fd));
        let xl = Head {
            id: 1,
            len_or_flags: XL_FLAG,
            xl_len: 2048,
        };
        assert!(xl.is_valid(layout(FrameType::Xl, 2060).unwrap()));
        assert!(!xl.is_valid(layout(FrameType::Xl, 2059).unwrap()));
        assert!(!Head { xl_len: 0, ..xl }.is_valid(layout(FrameType::Xl, 12).unwrap()));
    }
}
