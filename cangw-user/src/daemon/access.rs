//! Who may do what: by the user and the groups of the process that connected, as the kernel tells them (`SO_PEERCRED`, `SO_PEERGROUPS`).

use std::io;
use std::os::fd::AsFd as _;

use nix::unistd::Group;
use tokio::net::UnixStream;

use crate::kernel::syscall;

/// Members may change everything.
const CHANGE: &str = "cangw";
/// Members may look.
const LOOK: &str = "cangw-read";

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Nothing.
    None,
    /// What changes nothing.
    Look,
    /// Everything.
    Change,
}

impl Access {
    /// That of the process at the other end.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let peer = stream.peer_cred()?;
        if peer.uid() == 0 {
            return Ok(Self::Change);
        }
        let mut groups = syscall::peer_groups(stream.as_fd())?;
        groups.push(peer.gid());
        // Looked up for each client: groups can be made while this process runs.
        let is_in = |name: &str| {
            let group = Group::from_name(name).ok().flatten();
            group.is_some_and(|group| groups.contains(&group.gid.as_raw()))
        };
        Ok(if is_in(CHANGE) {
            Self::Change
        } else if is_in(LOOK) {
            Self::Look
        } else {
            Self::None
        })
    }

    /// Whether this is enough; else the reason.
    ///
    /// # Errors
    /// For a client that may not.
    pub fn allows(self, method: &str, changes: bool) -> Result<(), String> {
        let needed = if changes { Self::Change } else { Self::Look };
        if self >= needed {
            return Ok(());
        }
        let groups = if changes {
            CHANGE.to_owned()
        } else {
            format!("{CHANGE} or {LOOK}")
        };
        Err(format!(
            "{method} is for root and members of the group {groups}; `usermod -aG {CHANGE} USER` makes one, after the next login"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_change_may_look() {
        for (access, look, change) in [
            (Access::None, false, false),
            (Access::Look, true, false),
            (Access::Change, true, true),
        ] {
            assert_eq!(access.allows("stats", false).is_ok(), look);
            assert_eq!(access.allows("up", true).is_ok(), change);
        }
    }
}
