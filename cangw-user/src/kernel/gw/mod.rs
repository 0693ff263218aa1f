//! The kernel's can-gw: its rules are read, deleted, and put back.

pub mod codec;
mod convert;
pub mod socket;

use std::fs;
use std::io;

pub use self::codec::{Counters, DecodeError, Job};
pub use self::convert::{Names, Refusal};
use self::socket::RouteSocket;
use crate::error::{Error, Result};

const RTM_NEWROUTE: u16 = libc::RTM_NEWROUTE;
const RTM_DELROUTE: u16 = libc::RTM_DELROUTE;
const RTM_GETROUTE: u16 = libc::RTM_GETROUTE;

/// There when can-gw is, as a module or as a part of the kernel.
const MODULE: &str = "/sys/module/can_gw";
/// can-gw's parameter.
const MAX_HOPS: &str = "/sys/module/can_gw/parameters/max_hops";
/// Times that the list is read until it is the same twice.
const ATTEMPTS: usize = 20;

/// The can-gw of the current network namespace.
pub struct CanGw {
    socket: RouteSocket,
    /// Hops after which can-gw deletes a frame, 1 to 6.
    pub max_hops: u8,
}

impl CanGw {
    /// Connects; `None` when this kernel has no can-gw, or its module is not loaded.
    ///
    /// # Errors
    /// When netlink fails.
    pub fn open() -> Result<Option<Self>> {
        // Without can-gw, the kernel would answer the request with all routes of other families.
        if !fs::exists(MODULE).unwrap_or(false) {
            return Ok(None);
        }
        let text = fs::read_to_string(MAX_HOPS)
            .map_err(|e| Error::io(format!("read can-gw's hop limit from {MAX_HOPS}"), e))?;
        let max_hops = text.trim().parse().map_err(|_| {
            let source = io::Error::new(io::ErrorKind::InvalidData, text.trim().to_owned());
            Error::io(format!("read can-gw's hop limit from {MAX_HOPS}"), source)
        })?;
        let socket = RouteSocket::open().map_err(|e| Error::io("open a netlink socket", e))?;
        Ok(Some(Self { socket, max_hops }))
    }

    /// All rules, newest first.
    ///
    /// # Errors
    /// The kernel's answer, or that it cannot be understood.
    pub fn rules(&mut self) -> Result<Vec<Job>> {
        // A long list comes in parts. can-gw does not say when it changed between two of them (`cgw_dump_jobs`).
        let mut before = self.read()?;
        for _ in 0..ATTEMPTS {
            let now = self.read()?;
            let unchanged = before.len() == now.len()
                && before
                    .iter()
                    .zip(&now)
                    .all(|(before, now)| before.same(now));
            if unchanged {
                return Ok(now);
            }
            before = now;
        }
        Err(failed(
            "list can-gw's rules",
            io::Error::new(
                io::ErrorKind::Interrupted,
                "another program changes them all the time; stop it first",
            ),
        ))
    }

    fn read(&mut self) -> Result<Vec<Job>> {
        let what = "list can-gw's rules";
        let answers = self
            .socket
            .dump(RTM_GETROUTE, &codec::request_head(0), RTM_NEWROUTE)
            .map_err(|e| failed(what, e))?;
        answers
            .iter()
            .map(|bytes| {
                Job::decode(bytes).map_err(|error| {
                    let text = format!(
                        "{error}; this kernel's can-gw has something that cangw does not know"
                    );
                    failed(what, io::Error::new(io::ErrorKind::InvalidData, text))
                })
            })
            .collect()
    }

    /// Deletes the newest rule that is the same. False when there is none.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn delete(&mut self, job: &Job) -> Result<bool> {
        match self.socket.change(RTM_DELROUTE, &job.encode()) {
            Ok(()) => Ok(true),
            // can-gw's answer when no rule is the same (`cgw_remove_job`).
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            Err(e) => Err(failed("delete a rule of can-gw", e)),
        }
    }

    /// Adds a rule, as the newest.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn add(&mut self, job: &Job) -> Result<()> {
        self.socket
            .change(RTM_NEWROUTE, &job.encode())
            .map_err(|e| failed("add a rule to can-gw", e))
    }
}

fn failed(what: &str, source: io::Error) -> Error {
    Error::Netlink {
        what: what.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
