//! Which capabilities this process has.

use crate::error::{Error, Result};

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// The effective capabilities, from /proc; `None` when they cannot be read.
fn effective() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    parse(&status)
}

fn parse(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// The missing capability among those that the gateway needs.
fn missing(caps: u64) -> Option<&'static str> {
    let has = |cap: u32| caps & (1 << cap) != 0;
    // CAP_SYS_ADMIN includes the two that were split off it in Linux 5.8.
    [
        (CAP_NET_ADMIN, "CAP_NET_ADMIN", false),
        (CAP_BPF, "CAP_BPF", true),
        (CAP_PERFMON, "CAP_PERFMON", true),
    ]
    .into_iter()
    .find(|(cap, _, split)| !(has(*cap) || *split && has(CAP_SYS_ADMIN)))
    .map(|(_, name, _)| name)
}

/// Fails when a capability is missing.
///
/// # Errors
/// [`Error::Privilege`] with its name.
pub fn require(what: &'static str) -> Result<()> {
    match effective().and_then(missing) {
        Some(capability) => Err(Error::Privilege { what, capability }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_capability_is_named() {
        assert_eq!(
            parse("Name:\tx\nCapEff:\t000001ffffffffff\n"),
            Some(0x1ff_ffff_ffff)
        );
        assert_eq!(parse("Name: x"), None);
        assert_eq!(missing(0), Some("CAP_NET_ADMIN"));
        assert_eq!(missing(1 << CAP_NET_ADMIN), Some("CAP_BPF"));
        assert_eq!(
            missing(1 << CAP_NET_ADMIN | 1 << CAP_BPF),
            Some("CAP_PERFMON")
        );
        assert_eq!(missing(1 << CAP_NET_ADMIN | 1 << CAP_SYS_ADMIN), None);
    }
}
