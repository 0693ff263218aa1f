//! What the eBPF programs and userspace of the CAN gateway share.
//!
//! - [`frame`]: a checked view of a CAN frame in a socket buffer,
//! - [`rule`]: what a rule says, with can-gw's meaning of filters,
//! - [`abi`]: the layout of map keys and values,
//! - [`edit`]: modifications and checksums,
//! - [`guard`]: rate limits and faults,
//! - [`classify`]: from an identifier to the list of rules that match.
//!
//! Everything is `no_std`, allocates nothing, and runs unchanged in the kernel
//! and on the host, so that `cargo test` proves what the kernel executes.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod abi;
pub mod classify;
pub mod edit;
pub mod frame;
pub mod guard;
pub mod rule;

/// Hides where a number came from, so that a check of its range stays in the program for the kernel's verifier, which
/// does not know what the compiler concluded from earlier branches.
#[must_use]
#[inline(always)]
pub fn opaque(value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = value;
        // SAFETY: moves a register to itself. (Without any instruction, two lines would share one in the line information.)
        unsafe {
            core::arch::asm!("{0} = {0}", inout(reg) value, options(nomem, nostack, preserves_flags))
        };
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    value
}
