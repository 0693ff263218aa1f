//! The clock of the data path.

use crate::error::{Error, Result};

/// Nanoseconds of the monotonic clock, as `bpf_ktime_get_ns` gives them.
///
/// # Errors
/// Never on Linux.
pub fn monotonic() -> Result<u64> {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a timespec that lives for the call.
    if unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) } != 0 {
        return Err(Error::io("read the clock", std::io::Error::last_os_error()));
    }
    Ok(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}
