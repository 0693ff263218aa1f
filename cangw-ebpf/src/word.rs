//! Words of maps that several CPUs change.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;

/// How often a word that other CPUs change meanwhile is tried. One of them succeeds with each try.
pub const TRIES: u32 = 4;

/// Nanoseconds of the monotonic clock.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_ktime_get_ns() }
}

/// Reads a word of a map that other CPUs may change.
#[inline(always)]
pub fn load(word: *const u64) -> u64 {
    // SAFETY: callers pass pointers into a map's value, 8-byte aligned and valid until the program ends; the verifier checks it.
    unsafe { word.read_volatile() }
}

/// Writes a word of a map if it is still `old`, atomically; whether it was. BPF_ATOMIC | BPF_CMPXCHG.
#[inline(always)]
pub fn replace(word: *mut u64, old: u64, new: u64) -> bool {
    #[cfg(target_arch = "bpf")]
    {
        let mut found = old;
        // SAFETY: as in `load`.
        unsafe {
            core::arch::asm!("r0 = cmpxchg_64({0} + 0, r0, {1})", in(reg) word, in(reg) new, inout("r0") found);
        }
        found == old
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as in `load`.
    unsafe {
        let same = *word == old;
        if same {
            *word = new;
        }
        same
    }
}
