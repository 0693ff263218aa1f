//! The programs of a virtual bus: a frame from one port reaches every other port, once.
//!
//! Most ports have no limits, and the smallest program. One that has some gets `cangw_hub_limited` for the frames that it sends, and
//! `cangw_hub_outlet` for those that it is given.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

mod counter;
mod object;
mod rate;
mod word;

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS};
use aya_ebpf::btf_maps::{DevMap, HashMap};
use aya_ebpf::macros::{btf_map, tracepoint, xdp};
use aya_ebpf::programs::{TracePointContext, XdpContext};
use cangw_common::abi::{HubPort, HubProgram, MAX_HUBS, MAX_LIMITED, RECEIVES_SOME, SENDS_SOME};
use cangw_common::frame::field;

/// The ports. Userspace makes it as large as the bus needs: the kernel looks at all its places for each frame.
#[btf_map]
static PORTS: DevMap<1> = DevMap::new();

/// The programs by their numbers: a bus has another one after it has grown. All buses of a topology share the map and `cangw_hub_lost`, because
/// a tracepoint takes 64 programs only (`BPF_TRACE_MAX_PROGS`).
#[btf_map]
static HUBS: HashMap<u32, HubProgram, MAX_HUBS, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// The ports that have limits, by the indices of their interfaces.
#[btf_map]
static LIMITED: HashMap<u32, HubPort, MAX_LIMITED, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Offset of `prog_id` in the record of `xdp:xdp_redirect_err` (include/trace/events/xdp.h).
const TRACE_PROGRAM: usize = 8;
/// `BPF_F_BROADCAST | BPF_F_EXCLUDE_INGRESS`
const TO_ALL_OTHERS: u64 = 1 << 3 | 1 << 4;

/// Generic XDP at the bus's end of each port.
#[xdp]
pub fn cangw_hub(_: XdpContext) -> u32 {
    PORTS.redirect(0, TO_ALL_OTHERS).unwrap_or(XDP_ABORTED)
}

/// Generic XDP at the bus's end of a port that may not send everything.
#[xdp]
pub fn cangw_hub_limited(ctx: XdpContext) -> u32 {
    // SAFETY: the kernel passes a valid context.
    let port = unsafe { (*ctx.ctx).ingress_ifindex };
    let (Some(port), Some(head)) = (LIMITED.get_ptr_mut(port), head(&ctx)) else {
        // Without its limits it sends nothing. What is kept back here is counted as an exception of XDP.
        return XDP_ABORTED;
    };
    // SAFETY: `port` points to a value of the map, valid until the program ends. Userspace replaces values as a whole; what changes in one are
    // its counters and the state of its limit.
    let (flags, interval, tolerance, send) = unsafe {
        (
            (*port).flags,
            (*port).interval,
            (*port).tolerance,
            &(*port).send,
        )
    };
    if flags & SENDS_SOME != 0 && !send.has(head) {
        // SAFETY: as above.
        counter::count(unsafe { &raw mut (*port).denied }, 1);
        return XDP_DROP;
    }
    // SAFETY: as above.
    if interval != 0 && !rate::take(unsafe { &raw mut (*port).full_at }, interval, tolerance) {
        // SAFETY: as above.
        counter::count(unsafe { &raw mut (*port).over_rate }, 1);
        return XDP_DROP;
    }
    PORTS.redirect(0, TO_ALL_OTHERS).unwrap_or(XDP_ABORTED)
}

/// For each frame that a port with limits is given, before it leaves.
#[xdp(map = "devmap")]
pub fn cangw_hub_outlet(ctx: XdpContext) -> u32 {
    // SAFETY: the kernel passes a valid context.
    let port = unsafe { (*ctx.ctx).egress_ifindex };
    let (Some(port), Some(head)) = (LIMITED.get_ptr_mut(port), head(&ctx)) else {
        return XDP_ABORTED;
    };
    // SAFETY: as in `cangw_hub_limited`.
    let (flags, mtu, receive) = unsafe { ((*port).flags, (*port).mtu, &(*port).receive) };
    if flags & RECEIVES_SOME != 0 && !receive.has(head) {
        // SAFETY: as in `cangw_hub_limited`.
        counter::count(unsafe { &raw mut (*port).filtered }, 1);
        return XDP_DROP;
    }
    if mtu != 0 && ctx.data_end() - ctx.data() > mtu as usize {
        // SAFETY: as in `cangw_hub_limited`.
        counter::count(unsafe { &raw mut (*port).too_large }, 1);
        return XDP_DROP;
    }
    XDP_PASS
}

/// How a frame begins.
#[inline(always)]
fn head(ctx: &XdpContext) -> Option<[u8; field::HEAD]> {
    let start = ctx.data();
    if start + field::HEAD > ctx.data_end() {
        return None;
    }
    // SAFETY: the bytes lie within the packet, checked above.
    Some(unsafe { *(start as *const [u8; field::HEAD]) })
}

/// The kernel's broadcast ended early: a port was down or about to vanish, or memory was short.
#[tracepoint]
pub fn cangw_hub_lost(ctx: TracePointContext) -> u32 {
    // SAFETY: the offset lies within the event's record.
    if let Ok(program) = unsafe { ctx.read_at::<u32>(TRACE_PROGRAM) }
        && let Some(hub) = HUBS.get_ptr_mut(program)
    {
        // SAFETY: `hub` points to a value of the map, valid until the program ends.
        counter::count(unsafe { &raw mut (*hub).lost }, 1);
    }
    0
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
