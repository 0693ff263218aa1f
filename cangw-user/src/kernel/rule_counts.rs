//! The counters of rules. They take room on every processor, so that there is room for a few rules at first, and for more when there are more.
//!
//! A map cannot grow: a larger one takes its place, for which the programs are loaded anew. The one before stays pinned, so that nothing that was counted
//! there is lost, nor what programs still count there until the last of them is replaced. A rule's counters are the sums of all maps.

use std::os::fd::AsFd as _;

use aya::maps::{Map, MapData, PerCpuArray};
use aya::util::nr_cpus;
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY;
use cangw_common::abi::{MAX_RULES, RuleCounters};

use super::bpf::{TcProgram, failed, replace};
use super::maps::{open_data, zeroes};
use super::pins::Pins;
use super::syscall;
use crate::error::{Error, Result};

/// The map that the programs use.
const CURRENT: &str = "RULES";
/// How many rules maps have room for. Each is four times as large as the one before, so that all of them take a third more than the last.
const ROOMS: [u32; 4] = [1024, 4096, 16_384, MAX_RULES];

/// The maps of counters: first the one in use, then those before it.
pub struct RuleCounts(Vec<Counts>);

struct Counts {
    values: PerCpuArray<MapData, RuleCounters>,
    /// The same map, for what aya's type cannot.
    map: MapData,
    /// Its number in the kernel.
    id: u32,
    room: u32,
}

impl RuleCounts {
    /// Opens the pinned maps.
    ///
    /// # Errors
    /// When the one in use is missing.
    pub fn open(pins: &Pins) -> Result<Self> {
        let current = Counts::open(pins, CURRENT)?;
        let mut all = vec![current];
        for room in ROOMS {
            let name = former(room);
            if pins.path(&name).exists() {
                let counts = Counts::open(pins, &name)?;
                // It has both names when somebody was killed before there was a larger one.
                if all.iter().all(|known| known.id != counts.id) {
                    all.push(counts);
                }
            }
        }
        Ok(Self(all))
    }

    /// Counters of the rules with slots below `slots`, summed over the CPUs.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn sums(&self, slots: u32) -> Result<Vec<RuleCounters>> {
        let cpus = nr_cpus().map_err(|(what, e)| Error::io(what, e))?;
        let mut sums = vec![RuleCounters::default(); slots as usize];
        for counts in &self.0 {
            let slots = slots.min(counts.room) as usize;
            if slots == 0 {
                continue;
            }
            let values: Vec<RuleCounters> =
                syscall::lookup_batch(counts.map.fd().as_fd(), slots, cpus)
                    .map_err(|e| Error::io("read the rules' counters", e))?;
            for (sum, values) in sums.iter_mut().zip(values.chunks(cpus)) {
                *sum = values.iter().fold(*sum, add);
            }
        }
        Ok(sums)
    }

    /// Sets the counters of a rule to zero.
    ///
    /// # Errors
    /// When a map cannot be written, or has no room for the rule.
    pub fn reset(&mut self, slot: u32) -> Result<()> {
        for (place, counts) in self.0.iter_mut().enumerate() {
            if place == 0 || slot < counts.room {
                let set = counts.values.set(slot, zeroes()?, 0);
                set.map_err(failed("reset a rule's counters"))?;
            }
        }
        Ok(())
    }
}

impl Counts {
    fn open(pins: &Pins, name: &str) -> Result<Self> {
        let map = open_data(pins, name)?;
        let info = map
            .info()
            .map_err(failed(format!("look at the map {name}")))?;
        let (id, room) = (info.id(), info.max_entries());
        let values = Map::from_map_data(open_data(pins, name)?).and_then(PerCpuArray::try_from);
        let values = values.map_err(failed(format!("open the map {name}")))?;
        Ok(Self {
            values,
            map,
            id,
            room,
        })
    }
}

/// Whether the pinned programs count rules with slots below `slots`. They can use a map before the current one: when they could not be loaded anew, or
/// somebody was killed who was about to.
///
/// # Errors
/// When they or their maps cannot be looked at.
pub fn has_room(pins: &Pins, slots: u32) -> Result<bool> {
    let used = TcProgram::open(pins)?.maps()?;
    let all = RuleCounts::open(pins)?.0;
    let serves = |counts: &Counts| slots <= counts.room && used.contains(&counts.id);
    Ok(all.iter().any(serves))
}

/// Makes room for rules with slots below `slots`, for programs that are then to be loaded.
///
/// # Errors
/// When memory is short; what is there stays.
pub(super) fn make_room(pins: &Pins, slots: u32) -> Result<()> {
    if pins.path(CURRENT).exists() {
        let current = Counts::open(pins, CURRENT)?;
        if slots <= current.room {
            return Ok(());
        }
        let name = former(current.room);
        if !pins.path(&name).exists() {
            let pinned = current.map.pin(pins.path(&name));
            pinned.map_err(failed(format!("pin the map {name}")))?;
        }
    }
    let room = ROOMS.into_iter().find(|room| slots <= *room);
    let room = room.ok_or(Error::TooManyRules { max: MAX_RULES })?;
    let map = aya_obj::Map::new_from_params(
        BPF_MAP_TYPE_PERCPU_ARRAY as u32,
        size_of::<u32>() as u32,
        size_of::<RuleCounters>() as u32,
        room,
        0,
    );
    let map = MapData::create(map, CURRENT, None).map_err(failed("create the rules' counters"))?;
    replace(pins, CURRENT, |path| {
        map.pin(path).map_err(failed("pin the rules' counters"))
    })
}

/// The pin of a map of which there is a larger one.
fn former(room: u32) -> String {
    format!("{CURRENT}_{room}")
}

fn add(sum: RuleCounters, value: &RuleCounters) -> RuleCounters {
    RuleCounters {
        sent: sum.sent + value.sent,
        refused: sum.refused + value.refused,
        hop_limit: sum.hop_limit + value.hop_limit,
        mtu: sum.mtu + value.mtu,
        origin: sum.origin + value.origin,
        too_long: sum.too_long + value.too_long,
        by_rule: sum.by_rule + value.by_rule,
        waiting: sum.waiting + value.waiting,
        bytes: sum.bytes + value.bytes,
    }
}
