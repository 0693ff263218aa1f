//! The only raw access to packets and contexts: bounds are checked here, once.

use core::ffi::c_void;

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::{
    bpf_check_mtu, bpf_clone_redirect, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes,
};
use cangw_common::classify::XlFields;
use cangw_common::edit::FrameBytes;
use cangw_common::frame::{CLASSIC_LEN, FD_LEN, FrameType, Head, MAX_PREFIX, PROTO_CLASSIC, field};
use cangw_common::opaque;

/// Reads the head of a frame `offset` bytes into a packet.
#[inline(always)]
fn head(data: usize, data_end: usize, offset: u32) -> Option<Head> {
    let offset = if offset == 0 {
        0
    } else {
        opaque(u64::from(offset)) as usize
    };
    if offset > MAX_PREFIX as usize {
        return None;
    }
    let start = data + offset;
    if start + field::HEAD > data_end {
        return None;
    }
    // One load instead of seven.
    // SAFETY: the bytes start..start + HEAD lie within the packet, checked above. The kernel's own receive path reads them
    // there as the first word of struct canfd_frame, which it aligns to 8 bytes.
    let word = unsafe { *(start as *const u64) };
    Some(Head::from_bytes(word.to_ne_bytes()))
}

/// Reads the head of a classic frame at the begin of a packet.
#[inline(always)]
fn classic_head(data: usize, data_end: usize) -> Option<Head> {
    if data + field::HEAD > data_end {
        return None;
    }
    // SAFETY: both lie within the packet, checked above; on the alignment see `head`. Volatile, so that they stay two loads: nothing has to be cut
    // out of a word, of which the kernel's verifier would not know the ranges.
    unsafe {
        Some(Head {
            id: (data as *const u32).read_volatile(),
            len_or_flags: ((data + field::LEN) as *const u8).read_volatile(),
            xl_len: 0,
        })
    }
}

/// Whether `len` bytes pass the MTU of an interface; also true when the interface is gone, which is counted as refused.
///
/// # Safety
/// `context` is the one that the kernel passed to the program.
#[inline(always)]
unsafe fn fits(context: *mut c_void, ifindex: u32, len: u32) -> bool {
    let mut mtu = len;
    // SAFETY: the context is valid, says the caller, and `mtu` lives on the stack.
    unsafe { bpf_check_mtu(context, ifindex, &raw mut mtu, 0, 0) <= 0 }
}

/// Length of a frame that can be edited. Constants for the verifier, which has to know the range.
#[inline(always)]
const fn frame_len(kind: FrameType) -> u32 {
    match kind {
        FrameType::Classic => CLASSIC_LEN,
        FrameType::Fd | FrameType::Xl => FD_LEN,
    }
}

/// Writes a word of a map that other CPUs may read.
#[inline(always)]
pub fn store(word: *mut u64, value: u64) {
    // SAFETY: callers pass pointers into a map's value, 8-byte aligned and valid until the program ends; the verifier checks it.
    unsafe { word.write_volatile(value) }
}

/// Adds to a word of a map, atomically; the value before. The instruction is BPF_ATOMIC | BPF_ADD | BPF_FETCH.
#[inline(always)]
pub fn add(word: *mut u64, value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = value;
        // SAFETY: as in `store`.
        unsafe {
            core::arch::asm!("{0} = atomic_fetch_add((u64 *)({1} + 0), {0})", inout(reg) value, in(reg) word);
        }
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as in `store`.
    unsafe {
        let old = *word;
        *word = old + value;
        old
    }
}

/// Writes a word of a map, atomically; the value before. BPF_ATOMIC | BPF_XCHG.
#[inline(always)]
pub fn exchange(word: *mut u64, value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = value;
        // SAFETY: as in `store`.
        unsafe {
            core::arch::asm!("{0} = xchg_64({1} + 0, {0})", inout(reg) value, in(reg) word);
        }
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as in `store`.
    unsafe {
        word.replace(value)
    }
}

/// By this, a verdict in `skb->cb` is known from what others left there.
const LEFT: u32 = 0x6361_6E77;

/// A socket buffer at tc ingress.
#[derive(Clone, Copy)]
pub struct Skb(pub *mut __sk_buff);

impl Skb {
    /// `skb->protocol` in host order.
    #[inline(always)]
    pub fn protocol(self) -> u16 {
        // SAFETY: the kernel passes a valid context; the verifier rewrites the access.
        u16::from_be(unsafe { (*self.0).protocol } as u16)
    }

    /// Bytes of the buffer, any prefix included.
    #[inline(always)]
    pub fn len(self) -> u32 {
        // SAFETY: as in `protocol`.
        unsafe { (*self.0).len }
    }

    /// Whether it is a classic frame without a prefix.
    #[inline(always)]
    pub fn is_classic(self) -> bool {
        // Not cut to 16 bits, which the field has in the kernel.
        // SAFETY: as in `protocol`.
        let protocol = unsafe { (*self.0).protocol };
        protocol == u32::from(PROTO_CLASSIC.to_be()) && self.len() == CLASSIC_LEN
    }

    /// Interface whose ingress this is.
    #[inline(always)]
    pub fn ifindex(self) -> u32 {
        // SAFETY: as in `protocol`.
        unsafe { (*self.0).ifindex }
    }

    /// `skb->mark`.
    #[inline(always)]
    pub fn mark(self) -> u32 {
        // SAFETY: as in `protocol`.
        unsafe { (*self.0).mark }
    }

    /// Sets `skb->mark`.
    #[inline(always)]
    pub fn set_mark(self, mark: u32) {
        // SAFETY: as in `protocol`; the mark is writable at tc.
        unsafe { (*self.0).mark = mark }
    }

    /// The receive time stamp, in nanoseconds; 0 when nobody on this machine asked for time stamps.
    #[inline(always)]
    pub fn stamp(self) -> u64 {
        // SAFETY: as in `protocol`.
        let (stamp, kind) = unsafe {
            (
                &raw const (*self.0).tstamp,
                &raw const (*self.0).tstamp_type,
            )
        };
        // SAFETY: as in `protocol`. To a program that asks for the kind, the kernel gives the stamp as it is, which costs less than to
        // tell the time of reception from that of departure each time.
        unsafe {
            match stamp.read_volatile() {
                0 => 0,
                _ if kind.read_volatile() != 0 => 0,
                stamp => stamp,
            }
        }
    }

    /// Sets the receive time stamp.
    #[inline(always)]
    pub fn set_stamp(self, stamp: u64) {
        // SAFETY: as in `protocol`; the time stamp is writable at tc.
        unsafe { (*self.0).tstamp = stamp }
    }

    /// The ticket that goes with the frame through the filters of this hook; `None` when it has none.
    #[inline(always)]
    pub fn ticket(self) -> Option<u32> {
        // SAFETY: as in `protocol`.
        let (ticket, check) = unsafe { ((*self.0).cb[0], (*self.0).cb[1]) };
        // What others left in cb does not look like this.
        (check == !ticket).then_some(ticket)
    }

    /// Gives the frame a ticket.
    #[inline(always)]
    pub fn set_ticket(self, ticket: u32) {
        // SAFETY: as in `protocol`; cb is writable at tc.
        unsafe {
            (*self.0).cb[0] = ticket;
            (*self.0).cb[1] = !ticket;
        }
    }

    /// `skb->tc_classid`: what the filter that runs the program says of itself.
    #[inline(always)]
    pub fn classid(self) -> u32 {
        // SAFETY: as in `protocol`.
        unsafe { (*self.0).tc_classid }
    }

    /// Leaves a verdict to the next program of this hook.
    #[inline(always)]
    pub fn leave(self, verdict: i32) {
        // SAFETY: as in `protocol`; cb is writable at tc.
        unsafe {
            (*self.0).cb[2] = verdict as u32;
            (*self.0).cb[3] = LEFT;
        }
    }

    /// The verdict that a program before this one has left, if any.
    #[inline(always)]
    pub fn left(self) -> Option<i32> {
        // SAFETY: as in `protocol`.
        unsafe { ((*self.0).cb[3] == LEFT).then(|| (*self.0).cb[2] as i32) }
    }

    /// Takes away what [`Self::leave`] left.
    #[inline(always)]
    pub fn take(self) {
        // SAFETY: as in `protocol`; cb is writable at tc.
        unsafe { (*self.0).cb[3] = 0 }
    }

    /// Head of the frame behind `prefix` bytes.
    #[inline(always)]
    pub fn head(self, prefix: u32) -> Option<Head> {
        // SAFETY: as in `protocol`.
        let (data, end) = unsafe { ((*self.0).data as usize, (*self.0).data_end as usize) };
        head(data, end, prefix)
    }

    /// Head of a classic frame without a prefix.
    #[inline(always)]
    pub fn classic_head(self) -> Option<Head> {
        // SAFETY: as in `protocol`.
        let (data, end) = unsafe { ((*self.0).data as usize, (*self.0).data_end as usize) };
        classic_head(data, end)
    }

    /// The fields of a CAN XL frame, which never has a prefix.
    #[inline(always)]
    pub fn xl_fields(self) -> Option<XlFields> {
        let mut fields = [0u8; 8];
        self.load(field::LEN as u32, &mut fields)
            .then(|| XlFields::from_bytes(fields))
    }

    /// Whether `len` bytes pass the MTU of an interface; also true when the interface is gone, which its action counts.
    #[inline(always)]
    pub fn fits(self, ifindex: u32, len: u32) -> bool {
        // SAFETY: the context is valid.
        unsafe { fits(self.0.cast(), ifindex, len) }
    }

    /// Copies `buf.len()` bytes at `offset` out of the buffer.
    #[inline(always)]
    pub fn load<const N: usize>(self, offset: u32, buf: &mut [u8; N]) -> bool {
        // SAFETY: the destination has N bytes; the helper checks the source.
        unsafe { bpf_skb_load_bytes(self.0.cast(), offset, buf.as_mut_ptr().cast(), N as u32) == 0 }
    }

    /// Copies `len` bytes, at least 1, at `offset` out of the buffer; the first `N`, a power of two, when there are more.
    #[inline(always)]
    pub fn load_up_to<const N: usize>(self, offset: u32, len: u32, buf: &mut [u8; N]) -> bool {
        const { assert!(N.is_power_of_two()) };
        let len = if len > N as u32 { N as u32 } else { len };
        // In this form also Linux 6.1 sees that it is 1 to N.
        let len = (opaque(u64::from(len.wrapping_sub(1))) as u32 & (N as u32 - 1)) + 1;
        // SAFETY: the destination has N bytes, and `len` is at most that; the helper checks the source.
        unsafe { bpf_skb_load_bytes(self.0.cast(), offset, buf.as_mut_ptr().cast(), len) == 0 }
    }

    /// Copies bytes to `offset`.
    #[inline(always)]
    pub fn store<const N: usize>(self, offset: u32, buf: &[u8; N]) -> bool {
        // SAFETY: the source has N bytes; the helper checks the destination.
        unsafe { bpf_skb_store_bytes(self.0.cast(), offset, buf.as_ptr().cast(), N as u32, 0) == 0 }
    }

    /// Copies a frame that begins where the buffer does out of it; the rest of `to` stays as it is. Cheaper than [`Self::load_frame`].
    #[inline(always)]
    pub fn copy_frame(self, kind: FrameType, to: &mut FrameBytes) -> bool {
        // SAFETY: as in `protocol`.
        let (data, end) = unsafe { ((*self.0).data as usize, (*self.0).data_end as usize) };
        let words = match kind {
            FrameType::Classic => CLASSIC_LEN as usize / 8,
            FrameType::Fd | FrameType::Xl => FD_LEN as usize / 8,
        };
        if data + 8 * words > end {
            return false;
        }
        let mut word = 0;
        while word < words {
            // SAFETY: the bytes lie within the packet, checked above; on their alignment see `head`.
            to.set_word(word, unsafe { *((data + 8 * word) as *const u64) });
            word += 1;
        }
        true
    }

    /// Copies a frame at `offset` out of the buffer; the rest of `to` stays as it is.
    #[inline(always)]
    pub fn load_frame(self, kind: FrameType, offset: u32, to: &mut FrameBytes) -> bool {
        let to = to.0.as_mut_ptr().cast();
        let len = frame_len(kind);
        // SAFETY: `to` has room for the longest frame; the helper checks the source.
        unsafe { bpf_skb_load_bytes(self.0.cast(), offset, to, len) == 0 }
    }

    /// Copies a frame to `offset`.
    #[inline(always)]
    pub fn store_frame(self, kind: FrameType, offset: u32, frame: &FrameBytes) -> bool {
        let frame = frame.0.as_ptr().cast();
        let len = frame_len(kind);
        // SAFETY: `frame` has the length of the longest frame; the helper checks the destination.
        unsafe { bpf_skb_store_bytes(self.0.cast(), offset, frame, len, 0) == 0 }
    }

    /// Makes the buffer `len` bytes long.
    #[inline(always)]
    pub fn resize(self, len: u32) -> bool {
        // SAFETY: the context is valid.
        unsafe { bpf_skb_change_tail(self.0, len, 0) == 0 }
    }

    /// Sends a copy; false when the target did not take it.
    #[inline(always)]
    pub fn send_copy(self, ifindex: u32) -> bool {
        // SAFETY: the context is valid.
        unsafe { bpf_clone_redirect(self.0, ifindex, 0) == 0 }
    }
}

/// A packet at XDP.
#[derive(Clone, Copy)]
pub struct Packet(pub *mut xdp_md);

impl Packet {
    /// Interface that received it.
    #[inline(always)]
    pub fn ifindex(self) -> u32 {
        // SAFETY: the kernel passes a valid context; the verifier rewrites the access.
        unsafe { (*self.0).ingress_ifindex }
    }

    /// Bytes of the packet, any prefix included.
    #[inline(always)]
    pub fn len(self) -> u32 {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.0).data_end - (*self.0).data }
    }

    /// Head of the frame behind `prefix` bytes.
    #[inline(always)]
    pub fn head(self, prefix: u32) -> Option<Head> {
        // SAFETY: as in `ifindex`.
        let (data, end) = unsafe { ((*self.0).data as usize, (*self.0).data_end as usize) };
        head(data, end, prefix)
    }

    /// Whether `len` bytes pass the MTU of an interface.
    #[inline(always)]
    pub fn fits(self, ifindex: u32, len: u32) -> bool {
        // SAFETY: the context is valid.
        unsafe { fits(self.0.cast(), ifindex, len) }
    }
}
