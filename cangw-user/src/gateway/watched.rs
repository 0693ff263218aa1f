//! What rules with `--watch` recorded.

use std::time::{Duration, SystemTime};

use cangw_common::abi::{WATCHED_DATA, WatchKey, Watched};
use cangw_common::frame::{EFF_FLAG, ERR_FLAG, FrameType, RTR_FLAG};
use serde::{Deserialize, Serialize};

use super::{Gateway, find_can};
use crate::error::{Error, Result};
use crate::kernel::maps::Maps;
use crate::kernel::{bpf, clock, link};
use crate::rule::kind_name;

/// What is known of an identifier. Times are in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WatchedId {
    /// Identifier without flags; of a CAN XL frame the priority.
    pub id: u32,
    /// The identifier has 29 bits.
    pub extended: bool,
    /// Remote requests.
    pub remote: bool,
    /// Error frames; the identifier has their classes.
    pub error: bool,
    /// Type of the frames.
    #[serde(with = "crate::rule::kind_name")]
    pub kind: FrameType,
    /// Frames.
    pub count: u64,
    /// When the last came, after the start of 1970.
    pub last: f64,
    /// How long ago that was.
    pub age: f64,
    /// Shortest time between two frames; none before the second.
    pub shortest: Option<f64>,
    /// Mean time between two frames.
    pub mean: Option<f64>,
    /// Longest time between two frames.
    pub longest: Option<f64>,
    /// Data bytes of the last frame; it may have more than are recorded.
    pub len: u16,
    /// The first of these, at most 64.
    pub data: Vec<u8>,
}

impl WatchedId {
    fn new(key: WatchKey, watched: &Watched, now: u64, wall: f64) -> Option<Self> {
        let kind = FrameType::ALL
            .into_iter()
            .find(|kind| *kind as u32 == key.kind)?;
        let head = watched.head;
        let len = match kind {
            FrameType::Classic | FrameType::Fd => u16::from(head[0]),
            FrameType::Xl => u16::from_ne_bytes([head[2], head[3]]),
        };
        let remote = kind == FrameType::Classic && key.id & RTR_FLAG != 0;
        let kept = if remote {
            0
        } else {
            usize::from(len).min(WATCHED_DATA)
        };
        let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
        let age = seconds(now.saturating_sub(watched.last));
        let several = |value: f64| (watched.count > 1).then_some(value);
        let between = watched.last.saturating_sub(watched.first);
        Some(Self {
            id: key.id & !(EFF_FLAG | RTR_FLAG | ERR_FLAG),
            extended: key.id & EFF_FLAG != 0,
            remote,
            error: key.id & ERR_FLAG != 0,
            kind,
            count: watched.count,
            last: wall - age,
            age,
            shortest: several(seconds(watched.shortest)),
            mean: several(seconds(between) / watched.count.saturating_sub(1) as f64),
            longest: several(seconds(watched.longest)),
            len,
            data: watched.data[..kept].to_vec(),
        })
    }

    /// The identifier with its flags, as in a frame.
    #[must_use]
    pub fn can_id(&self) -> u32 {
        let flag = |set, flag| if set { flag } else { 0 };
        self.id
            | flag(self.extended, EFF_FLAG)
            | flag(self.remote, RTR_FLAG)
            | flag(self.error, ERR_FLAG)
    }
}

impl Gateway {
    /// What was recorded on an interface, in the order of identifiers.
    ///
    /// # Errors
    /// When there is no such interface, no rule of it has `--watch`, or a map cannot be read.
    pub fn watched(&self, interface: &str) -> Result<Vec<WatchedId>> {
        let links = link::list(&self.netlink)?;
        let link = find_can(&links, interface)?;
        let watches = |e: &&crate::state::Entry| e.source == link.index && e.rule.options.watch;
        if !self.state.rules.iter().any(|e| watches(&e)) || !bpf::is_loaded(&self.pins) {
            return Err(not_watched(interface));
        }
        let now = clock::monotonic()?;
        let wall = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO)
            .as_secs_f64();
        let found = Maps::open(&self.pins)?.watched(link.index)?;
        let mut ids: Vec<WatchedId> = found
            .iter()
            .filter_map(|(key, watched)| WatchedId::new(*key, watched, now, wall))
            .collect();
        ids.sort_by_key(|w| (w.extended, w.id, w.remote, w.error, kind_name(w.kind)));
        Ok(ids)
    }
}

/// No rule records frames of an interface.
pub(crate) fn not_watched(interface: &str) -> Error {
    Error::NotWatched {
        name: interface.to_owned(),
    }
}
