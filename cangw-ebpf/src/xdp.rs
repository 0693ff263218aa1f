//! Generic XDP: the engine for exclusive interfaces whose frames go out unmodified, each to one target or all to the same ones.

use aya_ebpf::bindings::xdp_action::{XDP_PASS, XDP_REDIRECT};
use aya_ebpf::helpers::bpf_redirect;
use aya_ebpf::programs::{TracePointContext, XdpContext};
use aya_log_ebpf::debug;
use cangw_common::abi::{self, Cell, MAX_CELLS, Reason, TC_BEHIND, Tables, VIRTUAL};
use cangw_common::classify::{IdClass, NO_RULE, classify, id_class};
use cangw_common::frame::{CLASSIC_LEN, FrameType, Head, Layout, layout_by_length};

use crate::access::Packet;
use crate::maps::{self, Aux, LastRedirect};

/// Offset of `prog_id` in the record of `xdp:xdp_redirect_err` (include/trace/events/xdp.h).
const TRACE_PROGRAM: usize = 8;
/// Offset of `ifindex`.
const TRACE_IFINDEX: usize = 16;
/// Offset of `to_ifindex`.
const TRACE_TO_IFINDEX: usize = 24;

/// Receives a frame. What no rule takes goes on to local sockets.
#[inline(always)]
pub fn receive(ctx: &XdpContext) -> u32 {
    let packet = Packet(ctx.ctx);
    let ifindex = packet.ifindex();
    if let Some(fan_out) = maps::fan_out(ifindex) {
        return match fanned_out(packet) {
            Some(bytes) if maps::is_armed() && fan_out.redirect(bytes) => XDP_REDIRECT,
            _ => XDP_PASS,
        };
    }
    let Some(tables) = maps::tables(ifindex) else {
        maps::count_reason(abi::slot(ifindex, 0), Reason::NoTables);
        return XDP_PASS;
    };
    if tables.head.flags & abi::XDP_REDIRECT == 0 {
        return XDP_PASS;
    }
    let Some((layout, head)) = frame(packet, tables) else {
        return leave(tables, Reason::Malformed);
    };
    // Userspace does not give an interface to this engine when a rule asks for fields of CAN XL frames.
    match classify(tables, &Aux, layout.kind, head.id, || None) {
        Ok(NO_RULE) => leave(tables, Reason::Unmatched),
        Ok(list) => {
            if maps::debug() {
                debug!(ctx, "if {} id {:x} list {}", ifindex, head.id, list);
            }
            // Every list has one rule.
            let cell = &tables.cells[list as usize & (MAX_CELLS - 1)];
            let bytes = head.data_len(layout.kind);
            redirect(packet, tables, ifindex, (layout, bytes), cell)
        }
        Err(_) => leave(tables, Reason::Malformed),
    }
}

/// Leaves a frame to tc, which counts why it is not forwarded, or where there is none, to local sockets.
#[inline(always)]
fn leave(tables: &Tables, reason: Reason) -> u32 {
    if tables.head.flags & TC_BEHIND == 0 {
        maps::count_reason(tables.head.slot, reason);
    }
    XDP_PASS
}

/// Where the frame lies, and its head.
#[inline(always)]
fn frame(packet: Packet, tables: &Tables) -> Option<(Layout, Head)> {
    let first = packet.head(0)?;
    let is_virtual = tables.head.flags & VIRTUAL != 0;
    let layout = layout_by_length(packet.len(), first.len_or_flags, first.xl_len, is_virtual)?;
    let head = packet.head(layout.prefix)?;
    head.is_valid(layout).then_some((layout, head))
}

/// Data bytes of a frame that is one of those that all go to the same targets: classic ones with an identifier that a bus can carry. Others are
/// served and counted by tc.
#[inline(always)]
fn fanned_out(packet: Packet) -> Option<u32> {
    if packet.len() != CLASSIC_LEN {
        return None;
    }
    // A short CAN XL frame has no length that would be valid in a classic one.
    let head = packet.head(0)?;
    let is_one = head.is_valid(Layout::CLASSIC)
        && matches!(
            id_class(FrameType::Classic, head.id),
            IdClass::Standard | IdClass::Extended
        );
    is_one.then_some(head.data_len(FrameType::Classic))
}

#[inline(always)]
fn redirect(
    packet: Packet,
    tables: &Tables,
    ifindex: u32,
    (layout, bytes): (Layout, u32),
    cell: &Cell,
) -> u32 {
    let Some(rule) = maps::rule(cell.rule) else {
        return XDP_PASS;
    };
    // SAFETY (here and below): `rule` points to this CPU's value of the map, valid until the program ends.
    if !matches!(layout.kind, FrameType::Classic) && !packet.fits(cell.ifindex, layout.len) {
        if tables.head.flags & TC_BEHIND == 0 {
            // SAFETY: see above.
            maps::count(unsafe { &raw mut (*rule).mtu }, 1);
        }
        return XDP_PASS;
    }
    if layout.prefix != 0 {
        // Cutting the prefix off with bpf_xdp_adjust_head makes the kernel compare the wrong bytes with an Ethernet
        // header and give the frame another protocol (bpf_prog_run_generic_xdp), so that it would be lost.
        return leave(tables, Reason::Prefix);
    }
    // SAFETY: see above.
    maps::count(unsafe { &raw mut (*rule).sent }, 1);
    // SAFETY: see above.
    maps::count(unsafe { &raw mut (*rule).bytes }, u64::from(bytes));
    maps::remember(LastRedirect {
        source: ifindex,
        target: cell.ifindex,
        rule: cell.rule,
        reserved: 0,
    });
    // SAFETY: the helper takes numbers only.
    unsafe { bpf_redirect(cell.ifindex, 0) as u32 & XDP_REDIRECT }
}

/// The kernel could not redirect: counts it for the rule, if it was ours. The redirect is carried out on the CPU
/// that ran the program, before its next frame, so that the last one remembered is the one that failed.
#[inline(always)]
pub fn redirect_failed(ctx: &TracePointContext) {
    // SAFETY: all offsets lie within the event's record.
    let (Ok(program), Ok(source), Ok(target)) = (unsafe {
        (
            ctx.read_at::<u32>(TRACE_PROGRAM),
            ctx.read_at::<i32>(TRACE_IFINDEX),
            ctx.read_at::<i32>(TRACE_TO_IFINDEX),
        )
    }) else {
        return;
    };
    // Other network namespaces have interfaces of the same indices.
    if !maps::is_our_xdp(program) {
        return;
    }
    if target == 0 {
        // The frame was for several targets.
        if let Some(tables) = maps::tables(source as u32) {
            maps::count_reason(tables.head.slot, Reason::FanOut);
        }
        return;
    }
    if let Some(last) = maps::last()
        && last.source == source as u32
        && last.target == target as u32
        && let Some(rule) = maps::rule(last.rule)
    {
        // SAFETY: `rule` points to this CPU's value of the map, valid until the program ends.
        maps::count(unsafe { &raw mut (*rule).refused }, 1);
    }
}
