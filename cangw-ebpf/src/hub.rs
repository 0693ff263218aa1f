//! The program of a virtual bus: a frame from one port reaches every other port, once.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

mod object;

use aya_ebpf::bindings::xdp_action::XDP_ABORTED;
use aya_ebpf::btf_maps::DevMap;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;

/// The ports. Userspace makes it as large as the bus needs: the kernel looks at all its places for each frame.
#[btf_map]
static PORTS: DevMap<1> = DevMap::new();

/// `BPF_F_BROADCAST | BPF_F_EXCLUDE_INGRESS`
const TO_ALL_OTHERS: u64 = 1 << 3 | 1 << 4;

/// Generic XDP at the bus's end of each port.
#[xdp]
pub fn cangw_hub(_: XdpContext) -> u32 {
    PORTS.redirect(0, TO_ALL_OTHERS).unwrap_or(XDP_ABORTED)
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
