//! tc ingress: the engine that does everything.

use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::programs::TcContext;
use aya_log_ebpf::debug;
use cangw_common::abi::{self, EXCLUSIVE, LIST_ECHO, Reason, Tables, mark};
use cangw_common::classify::{ListId, NO_RULE, classify};
use cangw_common::frame::{CLASSIC_LEN, FD_LEN, FrameType, Layout, layout};

use crate::access::Skb;
use crate::list::{Step, Walk, cell};
use crate::maps::{self, Aux};

/// The most bytes of prefix that a driver's frame is known to have (6.1).
const MAX_TRIM: u32 = 16;

/// Receives a frame. `TC_ACT_OK` lets it go on to local sockets; `TC_ACT_UNSPEC` leads to the filter of its mark.
#[inline(always)]
pub fn receive(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    if skb.mark() & mark::ECHO != 0 {
        return TC_ACT_OK;
    }
    let Some(kind) = FrameType::from_protocol(skb.protocol()) else {
        return TC_ACT_OK;
    };
    let ifindex = skb.ifindex();
    let Some((slot, tables)) = maps::tables(ifindex) else {
        maps::count_reason(abi::slot(ifindex, 0), Reason::NoTables);
        return TC_ACT_OK;
    };
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
            forward(skb, slot, tables, layout, list)
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
fn forward(skb: Skb, slot: u32, tables: &Tables, layout: Layout, list: ListId) -> i32 {
    let first = cell(tables, u32::from(list));
    let mut walk = Walk::new(tables, skb, layout.len);
    let handle = u32::from(first.handle);
    if layout.prefix != 0 {
        if send_copies(&mut walk, layout, first).is_none() {
            maps::count_reason(slot, Reason::Malformed);
            return TC_ACT_OK;
        }
        if first.flags & LIST_ECHO == 0 {
            return if handle != 0 && tables.head.flags & EXCLUSIVE != 0 {
                TC_ACT_SHOT
            } else {
                TC_ACT_OK
            };
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
            return TC_ACT_OK;
        }
    }
    walk.each(first, Step::Count);
    if handle == 0 {
        return TC_ACT_OK;
    }
    skb.set_mark(handle);
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
