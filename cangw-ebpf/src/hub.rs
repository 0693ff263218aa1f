//! The program of a virtual bus: a frame from one port reaches every other port, once.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

mod counter;
mod object;

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::bindings::xdp_action::XDP_ABORTED;
use aya_ebpf::btf_maps::{DevMap, HashMap};
use aya_ebpf::macros::{btf_map, tracepoint, xdp};
use aya_ebpf::programs::{TracePointContext, XdpContext};
use cangw_common::abi::{HubProgram, MAX_HUBS};

/// The ports. Userspace makes it as large as the bus needs: the kernel looks at all its places for each frame.
#[btf_map]
static PORTS: DevMap<1> = DevMap::new();

/// The programs by their numbers: a bus has another one after it has grown. All buses of a topology share the map and `cangw_hub_lost`, because
/// a tracepoint takes 64 programs only (`BPF_TRACE_MAX_PROGS`).
#[btf_map]
static HUBS: HashMap<u32, HubProgram, MAX_HUBS, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Offset of `prog_id` in the record of `xdp:xdp_redirect_err` (include/trace/events/xdp.h).
const TRACE_PROGRAM: usize = 8;
/// `BPF_F_BROADCAST | BPF_F_EXCLUDE_INGRESS`
const TO_ALL_OTHERS: u64 = 1 << 3 | 1 << 4;

/// Generic XDP at the bus's end of each port.
#[xdp]
pub fn cangw_hub(_: XdpContext) -> u32 {
    PORTS.redirect(0, TO_ALL_OTHERS).unwrap_or(XDP_ABORTED)
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
