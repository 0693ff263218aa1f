//! Captures: what comes, what leaves, and what a rule keeps back, told to ring buffers. Nothing of it runs while nobody captures, except
//! that a copy that is not sent asks whether somebody does.

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::{
    bpf_get_smp_processor_id, bpf_loop, bpf_probe_read_kernel as probe_read, bpf_ringbuf_output,
};
use aya_ebpf::programs::RawTracePointContext;
use cangw_common::abi::{
    DENY, ECHOED, LEFT, LISTED, MAX_LIST, NO_RULES, RECEIVED, REDIRECTED, Reason, TAP_ECHO,
    TAP_FRAME, TAPS, Tables, TapCell, TapRecord, TapRoom, WITHHELD, Withheld, mark,
};
use cangw_common::classify::{NO_RULE, XlFields, classify};
use cangw_common::frame::{FrameType, Head, field, layout};
use cangw_common::opaque;

use crate::closing::net_of;
use crate::list::cell;
use crate::listeners::{ifindex_of, is_ours};
use crate::maps::{self, Aux};
use crate::word;

/// What userspace replaces in the variables below. Not 0: the compiler may put a constant of a program in the same place as a variable of the same
/// value, and both would be replaced.
const UNKNOWN: u64 = u64::MAX - 1;

/// Which of the captures this program serves.
#[unsafe(no_mangle)]
static TAP: Global<u32> = Global::new(UNKNOWN as u32);
/// Offsets in `struct sk_buff`, by the kernel's type information.
#[unsafe(no_mangle)]
static SKB_DEV: Global<u64> = Global::new(UNKNOWN);
#[unsafe(no_mangle)]
static SKB_LEN: Global<u64> = Global::new(UNKNOWN);
#[unsafe(no_mangle)]
static SKB_DATA: Global<u64> = Global::new(UNKNOWN);
#[unsafe(no_mangle)]
static SKB_PROTOCOL: Global<u64> = Global::new(UNKNOWN);
#[unsafe(no_mangle)]
static SKB_MARK: Global<u64> = Global::new(UNKNOWN);
#[unsafe(no_mangle)]
static SKB_IIF: Global<u64> = Global::new(UNKNOWN);

/// Place of the argument `index` of `xdp:xdp_redirect` (include/trace/events/xdp.h).
const INDEX: usize = 6;
/// Place of `map_id`, which is `INT_MAX` for a redirect by the interface's index.
const MAP_ID: usize = 5;
const NO_MAP: u32 = i32::MAX as u32;

/// A value of the kernel's.
#[inline(always)]
fn read<T>(at: u64) -> Option<T> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(at as *const T) }.ok()
}

/// A CAN frame in a buffer of the kernel, on an interface of this network namespace.
struct Seen {
    skb: u64,
    kind: FrameType,
    ifindex: u32,
    data: u64,
    len: u32,
}

impl Seen {
    #[inline(always)]
    fn new(skb: u64) -> Option<Self> {
        let protocol = u16::from_be(read(skb + SKB_PROTOCOL.load())?);
        let kind = FrameType::from_protocol(protocol)?;
        let device: u64 = read(skb + SKB_DEV.load())?;
        if !net_of(device).is_some_and(is_ours) {
            return None;
        }
        Some(Self {
            skb,
            kind,
            ifindex: ifindex_of(device)?,
            data: read(skb + SKB_DATA.load())?,
            len: read(skb + SKB_LEN.load())?,
        })
    }

    /// The record, which stands in its room so far as all have it in common.
    #[inline(always)]
    fn begin(&self, what: u32) -> Option<&'static mut TapRoom> {
        let room = maps::tap_room()?;
        room.record = TapRecord {
            what,
            ifindex: self.ifindex,
            kind: self.kind as u32,
            ..TapRecord::default()
        };
        Some(room)
    }

    /// Adds the frame's bytes, and tells it.
    #[inline(always)]
    fn tell(&self, room: &mut TapRoom) {
        let cells = at_most(room.record.cells, MAX_LIST);
        let at = cells as usize * size_of::<TapCell>();
        // No frame is longer.
        let len = at_most(self.len, TAP_FRAME as u32);
        let to = room.body.as_mut_ptr().wrapping_add(at);
        // SAFETY: there is room for the longest frame behind the most cells; the helper checks the source.
        let copied = unsafe { probe_read(to.cast(), len, self.data as *const c_void) };
        room.record.len = if copied == 0 { len } else { 0 };
        tell(&raw mut *room, at as u32 + room.record.len);
    }
}

/// A number that is at most another, so that the verifier sees it.
#[inline(always)]
fn at_most(number: u32, limit: u32) -> u32 {
    let number = opaque(u64::from(number)) as u32;
    if number > limit { limit } else { number }
}

/// Puts a record that stands in its room into this program's ring buffer.
#[inline(always)]
fn tell(room: *mut TapRoom, body: u32) {
    tell_one(TAP.load(), room, body);
}

/// Puts a record that stands in its room, with so many bytes behind it, into the ring buffer of a capture, if there is one.
#[inline(always)]
fn tell_one(place: u32, room: *mut TapRoom, body: u32) {
    let Some((ring, missed)) = maps::tap(place) else {
        return;
    };
    // SAFETY: `room` is the per-CPU value, which nobody else uses now, and `body` bytes of its body are filled.
    unsafe {
        (*room).record.time = word::now();
        (*room).record.cpu = bpf_get_smp_processor_id();
        (*room).record.missed = word::load(missed);
        let len = size_of::<TapRecord>() as u64 + u64::from(body);
        if bpf_ringbuf_output(ring, room.cast(), len, 0) != 0 {
            maps::count(missed, 1);
        }
    }
}

/// Tells of a frame that came, and what the rules say about it.
#[inline(always)]
pub fn received(ctx: &RawTracePointContext) {
    let Some(seen) = Seen::new(ctx.arg(0)) else {
        return;
    };
    let Some(room) = seen.begin(RECEIVED) else {
        return;
    };
    look_up(&seen, room);
    seen.tell(room);
}

/// Looks the frame up in the tables, as `tc::find` does.
#[inline(always)]
fn look_up(seen: &Seen, room: &mut TapRoom) {
    let record = &mut room.record;
    let skb_mark = read::<u32>(seen.skb + SKB_MARK.load()).unwrap_or(0);
    let mut state = 0;
    if skb_mark & mark::ECHO != 0 {
        record.flags = TAP_ECHO;
        state = (skb_mark & mark::STATE) >> mark::STATE_SHIFT;
        if state == 0 {
            record.status = ECHOED;
            return;
        }
    }
    let Some(tables) = maps::tables(seen.ifindex) else {
        record.status = NO_RULES;
        return;
    };
    if state > tables.head.states {
        record.status = because(Reason::NoTables);
        return;
    }
    let head = read::<[u8; field::HEAD]>(seen.data).map(Head::from_bytes);
    let (Some(layout), Some(head)) = (layout(seen.kind, seen.len), head) else {
        record.status = because(Reason::Malformed);
        return;
    };
    if layout.prefix != 0 || !head.is_valid(layout) {
        record.status = because(Reason::Malformed);
        return;
    }
    let fields = || read(seen.data + field::LEN as u64).map(XlFields::from_bytes);
    match classify(tables, &Aux, seen.kind, head.id, fields) {
        Ok(NO_RULE) => {
            let denied = tables.head.flags & DENY != 0 && state == 0;
            record.status = because(if denied {
                Reason::Denied
            } else {
                Reason::Unmatched
            });
        }
        Ok(list) => {
            let list = u32::from(list) + state;
            record.status = LISTED;
            record.flags |= u32::from(cell(tables, list).flags);
            name_rules(tables, list, room);
        }
        Err(_) => record.status = because(Reason::Malformed),
    }
}

#[inline(always)]
const fn because(reason: Reason) -> u32 {
    reason as u32 + 1
}

/// A walk over a list that only names its rules.
struct Naming<'a> {
    tables: &'a Tables,
    first: u32,
    next: u32,
    room: *mut TapRoom,
}

#[inline(always)]
fn name_rules(tables: &Tables, list: u32, room: &mut TapRoom) {
    let first = cell(tables, list);
    let len = u32::from(first.len);
    if len > MAX_LIST {
        return;
    }
    let mut naming = Naming {
        tables,
        first: list,
        next: u32::from(first.next),
        room: &raw mut *room,
    };
    // SAFETY: `name` has the signature that bpf_loop asks for, and `naming` outlives the call.
    unsafe {
        bpf_loop(len, name as *mut c_void, (&raw mut naming).cast(), 0);
    }
    room.record.cells = len;
}

/// The body of the loop.
extern "C" fn name(index: u32, naming: *mut c_void) -> i64 {
    // SAFETY: `name_rules` passes its own, which lives on the stack for the whole loop.
    let naming = unsafe { &*naming.cast::<Naming<'_>>() };
    let at = if index == 0 {
        naming.first
    } else {
        naming.next.wrapping_add(index - 1)
    };
    let from = cell(naming.tables, at);
    let place = opaque(u64::from(index)) as usize & (MAX_LIST as usize - 1);
    // SAFETY: the body has room for MAX_LIST cells, and is aligned to 8 bytes.
    unsafe {
        let cells: *mut TapCell = (&raw mut (*naming.room).body).cast();
        *cells.add(place) = TapCell {
            rule: from.rule,
            flags: from.flags,
            ifindex: from.ifindex,
        };
    }
    0
}

/// Tells of a frame that was given to an interface.
#[inline(always)]
pub fn left(ctx: &RawTracePointContext) {
    let Some(seen) = Seen::new(ctx.arg(0)) else {
        return;
    };
    let Some(room) = seen.begin(LEFT) else {
        return;
    };
    room.record.from = read::<u32>(seen.skb + SKB_IIF.load()).unwrap_or(0);
    seen.tell(room);
}

/// Tells of a frame that XDP gave to another interface, or with a map to all of it.
#[inline(always)]
pub fn redirected(ctx: &RawTracePointContext) {
    let device: u64 = ctx.arg(0);
    if !net_of(device).is_some_and(is_ours) {
        return;
    }
    let (Some(from), Some(room)) = (ifindex_of(device), maps::tap_room()) else {
        return;
    };
    let by_index = ctx.arg::<u32>(MAP_ID) == NO_MAP;
    room.record = TapRecord {
        what: REDIRECTED,
        ifindex: if by_index { ctx.arg(INDEX) } else { 0 },
        from,
        ..TapRecord::default()
    };
    tell(room, 0);
}

/// Tells all captures that a rule does not send its copy of the frame that came last on this CPU. A function of its own, and without variables, so that
/// it costs the others nothing: their stack is short.
#[inline(never)]
pub fn withheld(rule: u32, why: Withheld) {
    let Some(room) = maps::tap_room() else {
        return;
    };
    room.record = TapRecord {
        what: WITHHELD,
        status: why as u32,
        rule,
        ..TapRecord::default()
    };
    let mut place = 0;
    while place < TAPS {
        tell_one(place, room, 0);
        place += 1;
    }
}
