//! Listener-aware forwarding: can.ko tells who begins and ends to listen, so that frames are copied only for someone.

use aya_ebpf::helpers::{bpf_probe_read_kernel, bpf_probe_read_kernel_str_bytes};
use aya_ebpf::programs::{ProbeContext, TracePointContext};
use aya_ebpf::{EbpfContext as _, Global};
use cangw_common::abi::{EVENT, LISTENER, PROBES_LOST, UNCOUNTED};

use crate::{access, maps, word};

/// Place of `can_rx_register`'s and `can_rx_unregister`'s argument `func` (net/can/af_can.c).
const FUNC: usize = 4;
/// Of the first only: `ident`.
#[cfg(not(bpf_target_arch = "x86_64"))]
const IDENT: usize = 6;
/// Offset of `name` in the record of `module:module_load` (include/trace/events/module.h): where it lies in the record, in 16 bits.
const MODULE_NAME: usize = 12;

/// Of the network namespace whose gateway this is, `SO_NETNS_COOKIE`.
#[unsafe(no_mangle)]
static NET_COOKIE: Global<u64> = Global::new(0);
/// Offset of `net_cookie` in `struct net`, by the kernel's type information.
#[unsafe(no_mangle)]
static COOKIE_OFFSET: Global<u64> = Global::new(0);
/// Offset of `ifindex` in `struct net_device`.
#[unsafe(no_mangle)]
static IFINDEX_OFFSET: Global<u64> = Global::new(0);

/// Counts a new listener before the kernel knows it, so that it misses nothing.
#[inline(always)]
pub fn register(ctx: &ProbeContext) {
    let Some(func) = ctx.arg::<u64>(FUNC) else {
        return;
    };
    if is_named_gw(ctx) {
        access::store(maps::can_gw(), func);
        return;
    }
    changed(ctx, LISTENER + EVENT);
}

/// Counts a listener less.
#[inline(always)]
pub fn unregister(ctx: &ProbeContext) {
    let func = ctx.arg::<u64>(FUNC);
    if func == Some(word::load(maps::can_gw())) {
        return;
    }
    changed(ctx, EVENT.wrapping_sub(LISTENER));
}

/// Whether it is can-gw that subscribes. Where that cannot be seen, it counts as a listener.
#[inline(always)]
fn is_named_gw(ctx: &ProbeContext) -> bool {
    // SAFETY: the registers are those of a probe at the function's entry.
    #[cfg(bpf_target_arch = "x86_64")]
    let ident = unsafe {
        // Six arguments are in registers; the first of the others lies behind the return address.
        bpf_probe_read_kernel(((*ctx.regs).rsp + 8) as *const u64).ok()
    };
    #[cfg(not(bpf_target_arch = "x86_64"))]
    let ident = ctx.arg::<u64>(IDENT);
    let Some(ident) = ident else {
        return false;
    };
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(ident as *const [u8; 3]) }.is_ok_and(|name| name == *b"gw\0")
}

/// Whether a `struct net` is the network namespace whose gateway this is.
#[inline(always)]
pub fn is_ours(net: u64) -> bool {
    let cookie = (net + COOKIE_OFFSET.load()) as *const u64;
    // SAFETY: the helper checks the address.
    let cookie = unsafe { bpf_probe_read_kernel(cookie) };
    cookie == Ok(NET_COOKIE.load())
}

/// The number of an interface.
#[inline(always)]
pub fn ifindex_of(device: u64) -> Option<u32> {
    let ifindex = (device + IFINDEX_OFFSET.load()) as *const u32;
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(ifindex) }.ok()
}

/// Adds to the word of the interface that the call is about.
#[inline(always)]
fn changed(ctx: &ProbeContext, by: u64) {
    let (Some(net), Some(device)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1)) else {
        return;
    };
    if !is_ours(net) {
        return;
    }
    if device == 0 {
        maps::count(maps::listeners_on_all(), by);
        return;
    }
    if let Some(ifindex) = ifindex_of(device)
        && let Some(tables) = maps::tables(ifindex)
    {
        maps::count(maps::listeners_on(tables.head.slot), by);
    }
}

/// When can.ko is loaded anew, the probes on it are gone, and nothing is known until they are there again.
#[inline(always)]
pub fn module_loaded(ctx: &TracePointContext) {
    // SAFETY: the offset lies within the event's record.
    let Ok(place) = (unsafe { ctx.read_at::<u32>(MODULE_NAME) }) else {
        return;
    };
    let mut name = [0u8; 5];
    let from = ctx.as_ptr() as usize + (place & 0xFFFF) as usize;
    // SAFETY: the helper checks the address.
    let read = unsafe { bpf_probe_read_kernel_str_bytes(from as *const u8, &mut name) };
    if read == Ok(b"can") {
        access::store(maps::listeners_on_all(), UNCOUNTED | PROBES_LOST);
    }
}
