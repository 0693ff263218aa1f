//! The eBPF programs of the CAN gateway.
//!
//! - `cangw_tc` classifies at tc ingress and hands the frame to the fw filter that carries out its list,
//! - `cangw_front` does the same in front of it, for an interface with a single list, without that filter,
//! - `cangw_driver` goes on with frames behind a driver's prefix,
//! - `cangw_step` gives a frame another form between two filters of its list,
//! - `cangw_xdp` forwards at generic XDP, for exclusive interfaces,
//! - `cangw_redirect_err` counts what generic XDP could not deliver,
//! - `cangw_listen`, `cangw_unlisten` and `cangw_can_loaded` keep count of the local sockets that listen,
//! - `cangw_closing` tells `cangw_xdp` that an interface is about to go down,
//! - `cangw_received`, `cangw_left` and `cangw_redirected` tell captures what becomes of frames.
//!
//! docs/architecture.md follows a frame through them. The crate also compiles for the host, where it does nothing, so
//! that lints and editors see it; what can be tested without a kernel is in `cangw-common`.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

mod access;
mod closing;
mod counter;
mod driver;
mod flight;
mod front;
mod guard;
mod list;
mod listeners;
mod maps;
mod object;
mod rate;
mod shared;
mod shortcut;
mod tap;
mod tc;
mod watch;
mod word;
mod xdp;

use aya_ebpf::macros::{classifier, kprobe, raw_tracepoint, tracepoint, xdp as xdp_program};
use aya_ebpf::programs::{
    ProbeContext, RawTracePointContext, TcContext, TracePointContext, XdpContext,
};

/// tc ingress: classify a frame, count it, and mark it for the filters behind.
#[classifier]
pub fn cangw_tc(ctx: TcContext) -> i32 {
    tc::receive(&ctx)
}

/// tc ingress, before `cangw_tc`: the same, and take the frames of one list.
#[classifier]
pub fn cangw_front(ctx: TcContext) -> i32 {
    front::receive(&ctx)
}

/// tc ingress, called by `cangw_tc`: send a frame that stands behind a prefix.
#[classifier]
pub fn cangw_driver(ctx: TcContext) -> i32 {
    driver::receive(&ctx)
}

/// tc ingress, between the filters: prepare the next copies.
#[classifier]
pub fn cangw_step(ctx: TcContext) -> i32 {
    flight::step(access::Skb(ctx.skb.skb))
}

/// Generic XDP: classify a frame and redirect it.
#[xdp_program]
pub fn cangw_xdp(ctx: XdpContext) -> u32 {
    xdp::receive(&ctx)
}

/// `xdp:xdp_redirect_err`: the target did not take a frame that `cangw_xdp` redirected.
#[tracepoint(category = "xdp", name = "xdp_redirect_err")]
pub fn cangw_redirect_err(ctx: TracePointContext) -> u32 {
    xdp::redirect_failed(&ctx);
    0
}

/// Entry of `can_rx_register`: a socket begins to listen.
#[kprobe]
pub fn cangw_listen(ctx: ProbeContext) -> u32 {
    listeners::register(&ctx);
    0
}

/// Entry of `can_rx_unregister`: a socket ends to listen.
#[kprobe]
pub fn cangw_unlisten(ctx: ProbeContext) -> u32 {
    listeners::unregister(&ctx);
    0
}

/// `module:module_load`: nobody counts the listeners of a new can.ko yet.
#[tracepoint(category = "module", name = "module_load")]
pub fn cangw_can_loaded(ctx: TracePointContext) -> u32 {
    listeners::module_loaded(&ctx);
    0
}

/// Entry of `dev_map_notification`: an interface is about to go down.
#[kprobe]
pub fn cangw_closing(ctx: ProbeContext) -> u32 {
    closing::notified(&ctx);
    0
}

/// `net:netif_receive_skb`: a frame came to an interface.
#[raw_tracepoint]
pub fn cangw_received(ctx: RawTracePointContext) -> i32 {
    tap::received(&ctx);
    0
}

/// `net:net_dev_queue`: a frame was given to an interface.
#[raw_tracepoint]
pub fn cangw_left(ctx: RawTracePointContext) -> i32 {
    tap::left(&ctx);
    0
}

/// `xdp:xdp_redirect`: XDP gave a frame to an interface.
#[raw_tracepoint]
pub fn cangw_redirected(ctx: RawTracePointContext) -> i32 {
    tap::redirected(&ctx);
    0
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
