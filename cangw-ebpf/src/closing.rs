//! CAN interfaces that are about to go down, so that nothing is given to them together with others.

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_loop, bpf_probe_read_kernel};
use aya_ebpf::programs::ProbeContext;

use crate::{listeners, maps};

/// `NETDEV_GOING_DOWN` (include/linux/netdevice.h).
const GOING_DOWN: u64 = 10;
/// `ARPHRD_CAN`
const CAN: u16 = 280;
/// Nanoseconds in which the kernel gives a frame to all its targets, several times over.
const FANNED_OUT: u64 = 100_000;
/// The bound of waiting, should the clock stand still. A round takes about 20 ns.
const ROUNDS: u32 = 8192;

/// Offset of `type` in `struct net_device`, by the kernel's type information.
#[unsafe(no_mangle)]
static TYPE_OFFSET: Global<u64> = Global::new(0);
/// Offset of `nd_net` in it.
#[unsafe(no_mangle)]
static NET_OFFSET: Global<u64> = Global::new(0);

/// Entry of `dev_map_notification(notifier, event, info)`, which the kernel calls, as all its kind, before the interface loses `IFF_UP`.
#[inline(always)]
pub fn notified(ctx: &ProbeContext) {
    if ctx.arg::<u64>(1) != Some(GOING_DOWN) {
        return;
    }
    let Some(info) = ctx.arg::<u64>(2) else {
        return;
    };
    // `dev` is the first member of `struct netdev_notifier_info`.
    let info = info as *const u64;
    // SAFETY: the helper checks the address.
    let device = unsafe { bpf_probe_read_kernel(info) };
    let Ok(device) = device else {
        return;
    };
    let kind = (device + TYPE_OFFSET.load()) as *const u16;
    // SAFETY: see above.
    if unsafe { bpf_probe_read_kernel(kind) } != Ok(CAN) {
        return;
    }
    if net_of(device).is_some_and(listeners::is_ours) && maps::count_closing() {
        wait();
    }
}

/// The network namespace of an interface.
#[inline(always)]
pub fn net_of(device: u64) -> Option<u64> {
    let net = (device + NET_OFFSET.load()) as *const u64;
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(net) }.ok()
}

/// Lets frames that are given to several targets just now reach all of them. Most kernels wait for that themselves before the interface loses
/// `IFF_UP`; those of 7.2 do so only where it has a queue (`dev_deactivate_many`).
#[inline(always)]
fn wait() {
    // SAFETY: the helper takes nothing.
    let mut start = unsafe { bpf_ktime_get_ns() };
    // A loop in the program itself would have the verifier look at each round.
    // SAFETY: `is_over` has the signature that bpf_loop asks for, and `start` outlives the call.
    unsafe { bpf_loop(ROUNDS, is_over as *mut c_void, (&raw mut start).cast(), 0) };
}

/// A round of [`wait`]: 1 ends it.
extern "C" fn is_over(_: u64, start: *const u64) -> u64 {
    // SAFETY: bpf_loop passes on what `wait` gave it; the helper takes nothing.
    let waited = unsafe { bpf_ktime_get_ns() - *start };
    u64::from(waited > FANNED_OUT)
}
