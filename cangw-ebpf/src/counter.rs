//! Counters in maps.

/// Adds to a counter, of this CPU or of all. Atomic, also where it is of one, because on PREEMPT_RT the softirq that
/// executes a program can be preempted by another one on the same CPU.
#[inline(always)]
pub fn count(counter: *mut u64, times: u64) {
    // SAFETY: callers pass pointers into a value of a map, 8-byte aligned and valid until the program ends. The
    // instruction is BPF_ATOMIC | BPF_ADD without fetch, which core's atomics do not offer for this target.
    #[cfg(target_arch = "bpf")]
    unsafe {
        core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) times);
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as above.
    unsafe {
        *counter += times;
    }
}
