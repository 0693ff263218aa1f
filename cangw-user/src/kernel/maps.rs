//! The maps, pinned: tables that are switched, counters, and the persistent state.

use std::collections::{BTreeMap, HashSet};
use std::mem::offset_of;
use std::os::fd::AsFd as _;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use aya::maps::{ArrayOfMaps, DevMap, HashMap, Map, MapData, MapFd, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use aya_obj::generated::bpf_map_type::{BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_RINGBUF};
use cangw_common::abi::{
    self, BucketKey, Cell, CrossChunk, FanCounters, Guard, Halves, InterfaceCounters, RuleCounters,
    Tables, WatchKey, Watched, XlTables,
};
use cangw_common::edit::Edit;

use super::bpf::{failed, replace};
use super::pins::Pins;
use super::rule_counts::RuleCounts;
use super::syscall;
use super::table::{self, MMAPABLE, array, bytes};
use crate::compile::Compiled;
use crate::error::{Error, Result};

/// `BPF_F_INNER_MAP`
const INNER_MAP: u32 = 1 << 12;
/// `BPF_F_NO_PREALLOC`
const NO_PREALLOC: u32 = 1;

/// How often it is looked whether an update can be seen, which takes some microseconds.
const SEEN: Duration = Duration::from_micros(50);

/// Pin of the persistent state.
pub const STATE: &str = "state";
/// How often data are read that may be written meanwhile.
const WHOLE_TRIES: usize = 100;
/// Bytes of the state in one map value.
const CHUNK: usize = 4096;
type Chunk = [u8; CHUNK];

/// The maps that userspace writes and reads.
pub struct Maps {
    tables: MapData,
    exact: MapData,
    halves: MapData,
    cross: MapData,
    edits: MapData,
    xl: MapData,
    guards: HashMap<MapData, u32, Guard>,
    buckets: HashMap<MapData, BucketKey, u64>,
    watched: HashMap<MapData, WatchKey, Watched>,
    rules: RuleCounts,
    reasons: PerCpuArray<MapData, InterfaceCounters>,
    fan_targets: ArrayOfMaps<MapData, DevMap<MapData>>,
    fan_counts: PerCpuArray<MapData, FanCounters>,
}

/// `struct bpf_devmap_val`
const DEVMAP_VALUE: usize = 8;

/// Creates the maps of maps that are not pinned yet. aya would describe the inner maps by type information, which makes
/// Linux 6.1 take them for different from the inner maps that are created later without (`bpf_map_meta_equal` compares `timer_off`).
pub(super) fn create_outer(pins: &Pins) -> Result<()> {
    use aya_obj::generated::bpf_map_type::{
        BPF_MAP_TYPE_ARRAY as ARRAY, BPF_MAP_TYPE_DEVMAP as DEVMAP, BPF_MAP_TYPE_HASH as HASH,
    };
    let aux = 2 * abi::INTERFACES;
    for (name, entries, kind, key, value, flags) in [
        (
            "TABLES",
            abi::INTERFACES,
            ARRAY,
            size_of::<u32>(),
            size_of::<Tables>(),
            MMAPABLE,
        ),
        (
            "EXACT",
            aux,
            HASH,
            size_of::<u32>(),
            size_of::<u32>(),
            NO_PREALLOC,
        ),
        (
            "HALVES",
            aux * abi::SPACES,
            ARRAY,
            size_of::<u32>(),
            size_of::<Halves>(),
            MMAPABLE,
        ),
        (
            "CROSS",
            aux,
            ARRAY,
            size_of::<u32>(),
            size_of::<CrossChunk>(),
            INNER_MAP | MMAPABLE,
        ),
        (
            "EDITS",
            aux,
            ARRAY,
            size_of::<u32>(),
            size_of::<Edit>(),
            INNER_MAP | MMAPABLE,
        ),
        (
            "XL",
            aux,
            ARRAY,
            size_of::<u32>(),
            size_of::<XlTables>(),
            MMAPABLE,
        ),
        (
            "FAN_TARGETS",
            aux,
            DEVMAP,
            size_of::<u32>(),
            DEVMAP_VALUE,
            0,
        ),
    ] {
        let inner = aya_obj::Map::new_from_params(kind as u32, key as u32, value as u32, 1, flags);
        let inner = MapData::create(inner, "inner", None).map_err(failed("create an inner map"))?;
        outer(pins, name, entries, inner.fd())?;
    }
    outer(pins, TAPS, abi::TAPS, ring(abi::MIN_RING)?.fd())
}

/// Where the ring buffers of captures are.
pub(super) const TAPS: &str = "TAPS";

/// A ring buffer of so many bytes, a power of two and at least [`abi::MIN_RING`].
///
/// # Errors
/// When memory is short.
pub(super) fn ring(bytes: u32) -> Result<MapData> {
    let ring = aya_obj::Map::new_from_params(BPF_MAP_TYPE_RINGBUF as u32, 0, 0, bytes, 0);
    MapData::create(ring, "capture", None).map_err(failed("create a ring buffer"))
}

/// Creates and pins an array of maps like `inner`.
fn outer(pins: &Pins, name: &str, entries: u32, inner: &MapFd) -> Result<()> {
    let path = pins.path(name);
    if path.exists() {
        return Ok(());
    }
    let fd = syscall::create_array_of_maps(name, entries, inner.as_fd())
        .map_err(|e| Error::io(format!("create the map {name}"), e))?;
    MapData::from_fd(fd)
        .map_err(failed(format!("create the map {name}")))?
        .pin(path)
        .map_err(failed(format!("pin the map {name}")))
}

pub(super) fn open<T>(pins: &Pins, name: &str) -> Result<T>
where
    T: TryFrom<Map, Error = aya::maps::MapError>,
{
    Map::from_map_data(open_data(pins, name)?)
        .and_then(T::try_from)
        .map_err(failed(format!("open the map {name}")))
}

/// Opens a pinned map for what aya's types of maps cannot.
///
/// # Errors
/// When it is not pinned.
pub(super) fn open_data(pins: &Pins, name: &str) -> Result<MapData> {
    MapData::from_pin(pins.path(name)).map_err(failed(format!("open the map {name}")))
}

/// The XDP programs whose failed redirects count.
pub(super) fn xdp_programs(pins: &Pins) -> Result<HashMap<MapData, u32, u32>> {
    open(pins, "XDP_PROGRAMS")
}

impl Maps {
    /// Opens the pinned maps.
    ///
    /// # Errors
    /// When one is missing.
    pub fn open(pins: &Pins) -> Result<Self> {
        Ok(Self {
            tables: open_data(pins, "TABLES")?,
            exact: open_data(pins, "EXACT")?,
            halves: open_data(pins, "HALVES")?,
            cross: open_data(pins, "CROSS")?,
            edits: open_data(pins, "EDITS")?,
            xl: open_data(pins, "XL")?,
            guards: open(pins, "GUARDS")?,
            buckets: open(pins, "BUCKETS")?,
            watched: open(pins, "WATCHED")?,
            rules: RuleCounts::open(pins)?,
            reasons: open(pins, "REASONS")?,
            fan_targets: open(pins, "FAN_TARGETS")?,
            fan_counts: open(pins, "FAN_COUNTS")?,
        })
    }

    /// Writes the tables beside the live ones, and switches to them: frames in flight see the old set or the new one. When this
    /// returns, no frame uses the old one any more (updates of maps of maps wait for that: `maybe_wait_bpf_programs`).
    ///
    /// # Errors
    /// When memory is short; then the old tables stay.
    pub fn switch(&mut self, slot: u32, compiled: &mut Compiled) -> Result<()> {
        compiled.tables.head.slot = slot;
        let updates = self.updates(compiled)?;
        let used = offset_of!(Tables, cells) + compiled.cells * size_of::<Cell>();
        let tables = std::iter::once(&bytes(&*compiled.tables)[..used]);
        let tables = Update::new(&self.tables, slot, array::<Tables>(tables, 0)?)?;
        std::thread::scope(|scope| {
            let mut running: Vec<_> = updates
                .iter()
                .map(|update| (update, scope.spawn(|| update.make())))
                .collect();
            // In each update the kernel waits until no frame uses what was there before; side by side, all wait only once. The tables come when all
            // that they name can be seen, or one failed, which is told below.
            let is_over = |(update, thread): &(&Update<'_>, ScopedJoinHandle<'_, _>)| {
                thread.is_finished() || update.is_made()
            };
            while !running.iter().all(is_over) {
                std::thread::sleep(SEEN);
            }
            let made = updates.iter().all(Update::is_made);
            let switched = if made { tables.make() } else { Ok(()) };
            for (_, thread) in running.drain(..) {
                let ended = thread.join();
                ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            switched
        })
    }

    /// What goes with new tables, in the places that the tables in force do not use.
    fn updates(&self, compiled: &Compiled) -> Result<Vec<Update<'_>>> {
        let aux = compiled.tables.head.aux;
        let mut updates = Vec::new();
        if !compiled.exact.is_empty() {
            updates.push(Update::new(&self.exact, aux, exact_map(&compiled.exact)?)?);
        }
        // Each in a map of its own: the only value of a map is looked up without a call.
        for (place, classes) in (aux * abi::SPACES..).zip(&compiled.halves) {
            let map = array::<Halves>(std::iter::once(bytes(&**classes)), 0)?;
            updates.push(Update::new(&self.halves, place, map)?);
        }
        if !compiled.cross.is_empty() {
            let map = array::<CrossChunk>(compiled.cross.iter().map(bytes), INNER_MAP)?;
            updates.push(Update::new(&self.cross, aux, map)?);
        }
        if let Some(classes) = &compiled.xl {
            let map = array::<XlTables>(std::iter::once(bytes(&**classes)), 0)?;
            updates.push(Update::new(&self.xl, aux, map)?);
        }
        if !compiled.edits.is_empty() {
            let edits = compiled.edits.iter().map(|edit| bytes(&**edit));
            let map = array::<Edit>(edits, INNER_MAP)?;
            updates.push(Update::new(&self.edits, aux, map)?);
        }
        Ok(updates)
    }

    /// Forgets the tables of a slot; when this returns, no frame uses them any more.
    ///
    /// # Errors
    /// When the map cannot be changed.
    pub fn clear(&mut self, slot: u32) -> Result<()> {
        syscall::delete_index(self.tables.fd().as_fd(), slot)
            .map_err(|e| Error::io("remove the tables of an interface", e))
    }

    /// Counters of the rules with slots below `slots`, summed over the CPUs.
    ///
    /// # Errors
    /// As [`RuleCounts::sums`].
    pub fn rules(&self, slots: u32) -> Result<Vec<RuleCounters>> {
        self.rules.sums(slots)
    }

    /// Prepares the fan-out of an interface, for its auxiliary tables that are not in use.
    ///
    /// # Errors
    /// When memory is short, or a target is gone.
    pub fn set_fan_out(&mut self, aux: u32, targets: &[u32]) -> Result<()> {
        let map = aya_obj::Map::new_from_params(
            aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_DEVMAP as u32,
            size_of::<u32>() as u32,
            DEVMAP_VALUE as u32,
            targets.len() as u32,
            0,
        );
        let map = MapData::create(map, "", None).map_err(failed("create a map of targets"))?;
        let mut devices: DevMap<MapData> = Map::from_map_data(map)
            .and_then(DevMap::try_from)
            .map_err(failed("create a map of targets"))?;
        for (place, target) in (0..).zip(targets) {
            devices
                .set(place, *target, None, 0)
                .map_err(failed("fill a map of targets"))?;
        }
        self.fan_counts
            .set(aux, zeroes()?, 0)
            .map_err(failed("reset a counter"))?;
        self.fan_targets
            .set(aux, &devices, 0)
            .map_err(failed("install a map of targets"))
    }

    /// What XDP gave to all targets by these auxiliary tables.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn fan_count(&self, aux: u32) -> Result<FanCounters> {
        let values = self.fan_counts.get(&aux, 0);
        let values = values.map_err(failed("read a counter"))?;
        Ok(FanCounters {
            frames: values.iter().map(|count| count.frames).sum(),
            bytes: values.iter().map(|count| count.bytes).sum(),
        })
    }

    /// Sets the counters of a rule to zero.
    ///
    /// # Errors
    /// As [`RuleCounts::reset`].
    pub fn reset_rule(&mut self, slot: u32) -> Result<()> {
        self.rules.reset(slot)
    }

    /// Adds the guard of a rule; one that is there keeps its state.
    ///
    /// # Errors
    /// When memory is short.
    pub fn add_guard(&mut self, slot: u32, guard: Guard) -> Result<()> {
        if self.guards.get(&slot, 0).is_ok() {
            return Ok(());
        }
        self.guards
            .insert(slot, guard, 0)
            .map_err(failed("install a rate limit"))
    }

    /// The guard of a rule, with its counters.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn guard(&self, slot: u32) -> Result<Guard> {
        self.guards
            .get(&slot, 0)
            .map_err(failed("read a rate limit's counters"))
    }

    /// Forgets the guards of all other rules.
    ///
    /// # Errors
    /// When a map cannot be changed.
    pub fn retain_guards(&mut self, slots: &HashSet<u32>) -> Result<()> {
        let keys = keys(&self.guards, |slot| !slots.contains(slot))?;
        for slot in &keys {
            self.guards
                .remove(slot)
                .map_err(failed("remove a rate limit"))?;
        }
        if keys.is_empty() {
            return Ok(());
        }
        for key in self::keys(&self.buckets, |key| !slots.contains(&key.rule))? {
            self.buckets
                .remove(&key)
                .map_err(failed("remove an identifier's rate limit"))?;
        }
        Ok(())
    }

    /// Forgets what was recorded on all other interfaces.
    ///
    /// # Errors
    /// When the map cannot be changed.
    pub fn retain_watched(&mut self, interfaces: &HashSet<u32>) -> Result<()> {
        for key in keys(&self.watched, |key| !interfaces.contains(&key.ifindex))? {
            self.watched
                .remove(&key)
                .map_err(failed("remove a watched identifier"))?;
        }
        Ok(())
    }

    /// What was recorded on an interface, by identifier.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn watched(&self, ifindex: u32) -> Result<Vec<(WatchKey, Watched)>> {
        let mut found = Vec::new();
        for key in keys(&self.watched, |key| key.ifindex == ifindex)? {
            // Whole data are there sooner or later, whoever writes meanwhile.
            for _ in 0..WHOLE_TRIES {
                let Ok(watched) = self.watched.get(&key, 0) else {
                    break;
                };
                if watched.newest == watched.begun {
                    found.push((key, watched));
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Counters of the interface in a slot, summed over the CPUs.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn reasons(&self, slot: u32) -> Result<InterfaceCounters> {
        let values = self
            .reasons
            .get(&slot, 0)
            .map_err(failed("read an interface's counters"))?;
        let mut sum = InterfaceCounters::default();
        for value in values.iter() {
            for (total, n) in sum.0.iter_mut().zip(value.0) {
                *total += n;
            }
        }
        Ok(sum)
    }

    /// Sets the counters of the interface in a slot to zero.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn reset_reasons(&mut self, slot: u32) -> Result<()> {
        self.reasons
            .set(slot, zeroes()?, 0)
            .map_err(failed("reset an interface's counters"))
    }
}

/// The keys of a map that `wanted` says yes to.
fn keys<K: aya::Pod, V: aya::Pod>(
    map: &HashMap<MapData, K, V>,
    wanted: impl Fn(&K) -> bool,
) -> Result<Vec<K>> {
    map.keys()
        .filter(|key| key.as_ref().map_or(true, &wanted))
        .collect::<std::result::Result<_, _>>()
        .map_err(failed("read the keys of a map"))
}

pub(super) fn zeroes<T: aya::Pod + Default>() -> Result<PerCpuValues<T>> {
    let cpus = nr_cpus().map_err(|(what, e)| Error::io(what, e))?;
    PerCpuValues::try_from(vec![T::default(); cpus]).map_err(|e| Error::io("count the CPUs", e))
}

fn exact_map(exact: &BTreeMap<u32, u32>) -> Result<MapData> {
    let map = aya_obj::Map::new_from_params(
        BPF_MAP_TYPE_HASH as u32,
        size_of::<u32>() as u32,
        size_of::<u32>() as u32,
        exact.len() as u32,
        NO_PREALLOC,
    );
    let map =
        MapData::create(map, "", None).map_err(failed("create the map of exact identifiers"))?;
    let (keys, lists): (Vec<u32>, Vec<u32>) = exact.iter().unzip();
    syscall::update_batch(map.fd().as_fd(), &keys, &lists)
        .map_err(|e| Error::io("fill the map of exact identifiers", e))?;
    Ok(map)
}

/// A map that is to come into an array of maps.
struct Update<'a> {
    outer: &'a MapData,
    index: u32,
    inner: MapData,
    /// The kernel's number of the inner map.
    number: u32,
}

impl<'a> Update<'a> {
    fn new(outer: &'a MapData, index: u32, inner: MapData) -> Result<Self> {
        let info = inner.info().map_err(failed("look at a table"))?;
        Ok(Self {
            outer,
            index,
            number: info.id(),
            inner,
        })
    }

    /// Makes it, and waits until no frame uses what was there before.
    fn make(&self) -> Result<()> {
        syscall::set_map(self.outer.fd().as_fd(), self.index, self.inner.fd().as_fd())
            .map_err(|e| Error::io("install a table", e))
    }

    /// Whether frames that come from now on see it.
    fn is_made(&self) -> bool {
        syscall::map_at(self.outer.fd().as_fd(), self.index) == Some(self.number)
    }
}

/// Reads the persistent state; `None` when there is none.
///
/// # Errors
/// When the map cannot be read.
pub fn read_state(pins: &Pins) -> Result<Option<Vec<u8>>> {
    if !pins.path(STATE).exists() {
        return Ok(None);
    }
    let map = open_data(pins, STATE)?;
    let found = table::read::<Chunk>(&map, |len| len.saturating_add(8))?;
    // Another version kept it in another form: nothing of it can be read, which its reader says.
    Ok(Some(
        found.map_or_else(Vec::new, |mut bytes| bytes.split_off(8)),
    ))
}

/// Replaces the persistent state as a whole.
///
/// # Errors
/// When memory is short; then the old state stays.
pub fn write_state(pins: &Pins, state: &[u8]) -> Result<()> {
    let mut bytes = (state.len() as u64).to_ne_bytes().to_vec();
    bytes.extend_from_slice(state);
    let map = array::<Chunk>(bytes.chunks(CHUNK), 0)?;
    replace(pins, STATE, |path| {
        map.pin(path).map_err(failed("pin the state"))
    })
}
