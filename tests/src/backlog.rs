//! The processors' queues of received frames.

use std::fs;

const LIMIT: &str = "/proc/sys/net/core/netdev_max_backlog";

/// Long queues, for as long as this lives: the kernel drops what does not fit into one, and the gateway cannot know of that.
pub struct Backlog(String);

impl Backlog {
    /// Makes them long.
    ///
    /// # Panics
    /// Without the privilege.
    #[must_use]
    pub fn raise() -> Self {
        let before = fs::read_to_string(LIMIT).expect("the queue's length can be read");
        fs::write(LIMIT, "1000000").expect("the queue's length can be changed");
        Self(before)
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        let _ = fs::write(LIMIT, &self.0);
    }
}
