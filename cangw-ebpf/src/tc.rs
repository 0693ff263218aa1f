//! tc ingress: the engine that does everything.

use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::programs::TcContext;
use aya_log_ebpf::debug;
use cangw_common::abi::{self, EXCLUSIVE, LIST_ECHO, LIST_FORMS, LIST_STAMP, Reason, Tables, mark};
use cangw_common::classify::{NO_RULE, classify};
use cangw_common::frame::{CLASSIC_LEN, FD_LEN, FrameType, Layout, layout};

use crate::access::Skb;
use crate::flight::{advance, out_of_memory};
use crate::list::{Step, Walk, cell};
use crate::maps::{self, Aux};

/// The most bytes of prefix that a driver's frame is known to have (6.1).
const MAX_TRIM: u32 = 16;

/// Receives a frame. `TC_ACT_OK` lets it go on to local sockets; `TC_ACT_UNSPEC` leads to the filter of its mark.
#[inline(always)]
pub fn receive(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let state = if skb.mark() & mark::ECHO == 0 {
        0
    } else {
        let state = (skb.mark() & mark::STATE) >> mark::STATE_SHIFT;
        if state == 0 {
            return TC_ACT_OK;
        }
        state
    };
    let Some(kind) = FrameType::from_protocol(skb.protocol()) else {
        return TC_ACT_OK;
    };
    let ifindex = skb.ifindex();
    let Some((slot, tables)) = maps::tables(ifindex) else {
        maps::count_reason(abi::slot(ifindex, 0), Reason::NoTables);
        return TC_ACT_OK;
    };
    if state > tables.head.states {
        // The rules changed while the echo was on its way.
        maps::count_reason(slot, Reason::NoTables);
        return TC_ACT_OK;
    }
    let Some((layout, id)) = frame(skb, kind) else {
        maps::count_reason(slot, Reason::Malformed);
        return TC_ACT_OK;
    };
    match classify(tables, &Aux, kind, id) {
        Ok(NO_RULE) => {
            maps::count_reason(slot, Reason::Unmatched);
            TC_ACT_OK
        }
        Ok(list) => {
            if maps::debug() {
                debug!(&ctx, "if {} id {:x} list {}", ifindex, id, list);
            }
            forward(skb, slot, tables, layout, u32::from(list) + state)
        }
        Err(_) => {
            maps::count_reason(slot, Reason::Malformed);
            TC_ACT_OK
        }
    }
}

/// Where the frame lies, and its identifier.
#[inline(always)]
fn frame(skb: Skb, kind: FrameType) -> Option<(Layout, u32)> {
    let layout = layout(kind, skb.len())?;
    let head = skb.head(layout.prefix)?;
    head.is_valid(layout).then_some((layout, head.id))
}

/// Carries out a list of rules.
#[inline(always)]
fn forward(skb: Skb, slot: u32, tables: &Tables, layout: Layout, list: u32) -> i32 {
    let first = cell(tables, list);
    let handle = u32::from(first.handle);
    let exclusive = tables.head.flags & EXCLUSIVE != 0;
    let stamp = skb.stamp();
    let loses_stamp = stamp != 0 && first.flags & LIST_STAMP != 0;
    let forms = first.flags & LIST_FORMS != 0;
    let restores = loses_stamp && !exclusive && layout.prefix == 0;
    skb.clear_ticket();
    let mut flight = core::ptr::null_mut();
    if forms || restores {
        let Some((ticket, room)) = maps::board() else {
            return out_of_memory(slot);
        };
        skb.set_ticket(ticket);
        room.stamp = stamp;
        room.mark = handle;
        room.slot = slot;
        room.aux = tables.head.aux;
        room.prefix = layout.prefix;
        room.kind = layout.kind as u32;
        room.queued = 0;
        room.taken = 0;
        room.form = 0;
        room.counts = u32::from(layout.prefix == 0);
        room.exclusive = u32::from(exclusive);
        room.sent = 0;
        if forms && !skb.load_frame(layout.kind, layout.prefix, &mut room.original) {
            maps::count_reason(slot, Reason::Malformed);
            return TC_ACT_OK;
        }
        flight = core::ptr::from_mut(room);
    }
    if loses_stamp {
        skb.set_stamp(0);
    }
    let mut walk = Walk::new(tables, skb, flight, layout.len);
    if layout.prefix != 0 {
        if send_copies(&mut walk, layout, first).is_none() {
            maps::count_reason(slot, Reason::Malformed);
            return TC_ACT_OK;
        }
        skb.set_stamp(stamp);
        if first.flags & LIST_ECHO == 0 {
            return if handle != 0 && exclusive {
                TC_ACT_SHOT
            } else {
                TC_ACT_OK
            };
        }
        // SAFETY: a value of a per-CPU map, valid until the program ends; `walk` refers to it only while it walks.
        if forms && let Some(flight) = unsafe { flight.as_mut() } {
            walk.each(first, Step::QueueEcho);
            flight.mark = handle | mark::ECHO_ONLY;
            flight.form = 0;
            flight.sent = 1;
            return advance(skb, flight);
        }
        skb.set_mark(handle | mark::ECHO_ONLY);
        return TC_ACT_UNSPEC;
    }
    if !matches!(layout.kind, FrameType::Classic) {
        // An MTU can only shrink while its interface is down, so this fails only between such a change
        // and the next call of `cangw`, which takes the target out of the list.
        walk.each(first, Step::CheckMtu);
        if walk.misfit != 0 {
            walk.each(first, Step::CountMtu);
            skb.set_stamp(stamp);
            return TC_ACT_OK;
        }
    }
    walk.each(first, Step::Count);
    if handle == 0 {
        return TC_ACT_OK;
    }
    // SAFETY: as above.
    if forms && let Some(flight) = unsafe { flight.as_mut() } {
        return advance(skb, flight);
    }
    skb.set_mark(if restores {
        handle | mark::RESTORE
    } else {
        handle
    });
    TC_ACT_UNSPEC
}

/// Sends a driver's frame from within the program: its buffer starts with the driver's private bytes, which
/// would leave with the frame if a tc action sent it.
#[inline(always)]
fn send_copies(walk: &mut Walk<'_>, layout: Layout, first: &abi::Cell) -> Option<()> {
    match layout.kind {
        FrameType::Classic => trim::<{ CLASSIC_LEN as usize }>(walk, layout.prefix, first),
        FrameType::Fd => trim::<{ FD_LEN as usize }>(walk, layout.prefix, first),
        FrameType::Xl => None,
    }
}

/// Moves the frame to the front of the buffer, sends a copy to each target, and restores the buffer.
#[inline(always)]
fn trim<const N: usize>(walk: &mut Walk<'_>, prefix: u32, first: &abi::Cell) -> Option<()> {
    if prefix > MAX_TRIM {
        return None;
    }
    let skb = walk.skb();
    // Frames are at least 16 bytes long, so that the first 16 bytes of the buffer are always there; those
    // behind a shorter prefix belong to the frame, which is written back after them.
    let mut front = [0u8; MAX_TRIM as usize];
    let mut frame = [0u8; N];
    if !skb.load(0, &mut front)
        || !skb.load(prefix, &mut frame)
        || !skb.store(0, &frame)
        || !skb.resize(N as u32)
    {
        return None;
    }
    walk.each(first, Step::Send);
    (skb.resize(prefix + N as u32) && skb.store(0, &front) && skb.store(prefix, &frame))
        .then_some(())
}

const _: () = assert!(CLASSIC_LEN >= MAX_TRIM);
