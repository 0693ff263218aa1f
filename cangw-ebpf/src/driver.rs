//! A driver's frame behind a prefix: its buffer starts with the driver's private bytes, which would leave with the frame if a tc action
//! sent it. So the program sends, and leaves only the echoes to tc.

use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::programs::TcContext;
use cangw_common::abi::{EXCLUSIVE, LIST_ECHO, LIST_FORMS, LIST_STAMP, LOCAL, Reason, mark};
use cangw_common::frame::FrameType;

use crate::access::Skb;
use crate::flight::out_of_memory;
use crate::list::{Send, Walk, cell};
use crate::maps::{self, Next};
use crate::tc::{Found, find, layout_of, local, rest, state_of};

/// The most bytes of prefix that a driver's frame is known to have (6.1).
const MAX_TRIM: u32 = 16;

/// Receives a frame that `tc::receive` has seen already.
#[inline(always)]
pub fn receive(ctx: &TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let Some(state) = state_of(skb) else {
        return TC_ACT_OK;
    };
    let Found {
        tables,
        layout,
        list,
        bytes,
    } = match find(ctx, || layout_of(skb), state) {
        Ok(found) => found,
        Err(verdict) => return verdict,
    };
    let slot = tables.head.slot;
    let first = cell(tables, list);
    let forms = first.flags & LIST_FORMS != 0;
    let stamp = skb.stamp();
    let Some((ticket, flight)) = maps::board() else {
        return out_of_memory(slot);
    };
    flight.begin(slot, tables.head.aux, stamp, layout.kind as u32);
    // Moves the frame to the front of the buffer. Frames are at least 16 bytes long, so that the first 16 bytes of the buffer are
    // always there; those behind a shorter prefix belong to the frame, which is written back after them.
    let mut front = [0u8; MAX_TRIM as usize];
    let kind = flight.kind();
    if matches!(layout.kind, FrameType::Xl)
        || layout.prefix > MAX_TRIM
        || !skb.load(0, &mut front)
        || !skb.load_frame(kind, layout.prefix, &mut flight.original)
        || !skb.store_frame(kind, 0, &flight.original)
        || !skb.resize(layout.len)
    {
        maps::count_reason(slot, Reason::Malformed);
        return rest(first);
    }
    let id = &flight.original.0;
    flight.bytes = bytes;
    flight.id = u32::from_ne_bytes([id[0], id[1], id[2], id[3]]);
    if first.flags & LIST_STAMP != 0 {
        skb.set_stamp(0);
    }
    let shapes = if forms {
        core::ptr::from_mut(flight)
    } else {
        core::ptr::null_mut()
    };
    let mut walk = Walk::new(tables, skb, shapes, list, (layout.len, bytes));
    walk.each::<Send>();
    skb.set_stamp(stamp);
    if !skb.resize(layout.prefix + layout.len)
        || !skb.store(0, &front)
        || !skb.store_frame(kind, layout.prefix, &flight.original)
    {
        return out_of_memory(slot);
    }
    let handle = u32::from(first.handle);
    // Echoes are made from the frame, which tc then leaves to local sockets.
    let unheard = first.flags & LIST_ECHO == 0 && !maps::is_heard(slot);
    let local = local(first, tables.head.flags & EXCLUSIVE != 0 || unheard);
    if first.flags & LIST_ECHO == 0 {
        return if handle != 0 && local != LOCAL {
            TC_ACT_SHOT
        } else {
            rest(first)
        };
    }
    let echo_mark = handle | mark::ECHO_ONLY;
    if !forms {
        skb.set_mark(echo_mark);
        return TC_ACT_UNSPEC;
    }
    skb.set_ticket(ticket);
    flight.mark = echo_mark;
    flight.local = local;
    flight.prefix = layout.prefix;
    flight.form = 0;
    flight.damaged = 0;
    flight.sent = 1;
    maps::go_on(ctx, Next::Step);
    out_of_memory(slot)
}
