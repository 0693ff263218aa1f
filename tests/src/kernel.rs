//! The kernel on which the tests run.

/// Its version, major and minor number.
///
/// # Panics
/// When it does not say.
#[must_use]
pub fn version() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel release");
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor),
        _ => panic!("{release} is no kernel release"),
    }
}
