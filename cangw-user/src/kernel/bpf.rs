//! The programs and maps, pinned.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapFd, PerCpuArray, PerCpuValues};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{SchedClassifier, TracePoint, Xdp, XdpMode};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader};
use cangw_common::abi::{self, CrossChunk, Halves, InterfaceCounters, RuleCounters, Tables};

use super::pins::Pins;
use super::syscall;
use crate::compile::Compiled;
use crate::error::{Error, Result};

/// The programs, built by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/cangw-ebpf.o"));

/// `BPF_F_INNER_MAP`
const INNER_MAP: u32 = 1 << 12;
/// `BPF_F_NO_PREALLOC`
const NO_PREALLOC: u32 = 1;

const MAPS: [&str; 8] = [
    "TABLES", "EXACT", "HALVES", "CROSS", "RULES", "REASONS", "LAST", "AYA_LOGS",
];
const TC: &str = "program_tc";
const XDP: &str = "program_xdp";
const REDIRECT_ERR: &str = "program_redirect_err";
const REDIRECT_ERR_LINK: &str = "link_redirect_err";
/// Pin of the persistent state.
pub const STATE: &str = "state";
/// Bytes of the state in one map value.
const CHUNK: usize = 128 * 1024;

/// The maps that userspace writes and reads.
pub struct Maps {
    tables: ArrayOfMaps<MapData, Array<MapData, Tables>>,
    exact: ArrayOfMaps<MapData, HashMap<MapData, u32, u32>>,
    halves: ArrayOfMaps<MapData, Array<MapData, Halves>>,
    cross: ArrayOfMaps<MapData, Array<MapData, CrossChunk>>,
    rules: PerCpuArray<MapData, RuleCounters>,
    rules_fd: MapData,
    reasons: PerCpuArray<MapData, InterfaceCounters>,
}

fn add(sum: RuleCounters, value: &RuleCounters) -> RuleCounters {
    RuleCounters {
        sent: sum.sent + value.sent,
        refused: sum.refused + value.refused,
        hop_limit: sum.hop_limit + value.hop_limit,
        mtu: sum.mtu + value.mtu,
        origin: sum.origin + value.origin,
    }
}

fn failed<E: std::error::Error>(what: impl Into<String>) -> impl FnOnce(E) -> Error {
    move |e| Error::bpf(what, &e)
}

/// Loads the programs and pins them with their maps; maps that are pinned already are kept.
///
/// # Errors
/// When the kernel refuses; the verifier's last words are in the message.
pub fn load(pins: &Pins, debug: bool) -> Result<()> {
    create_outer_maps(pins)?;
    let debug = u8::from(debug);
    let mut loader = EbpfLoader::new();
    for name in MAPS {
        loader.map_pin_path(name, pins.path(name));
    }
    let mut ebpf = loader
        .override_global("DEBUG", &debug, true)
        .load(OBJECT)
        .map_err(failed("load the eBPF maps"))?;
    if fs::exists(pins.path("AYA_LOGS")).is_ok_and(|pinned| !pinned)
        && let Some(map) = ebpf.map("AYA_LOGS")
    {
        map.pin(pins.path("AYA_LOGS"))
            .map_err(failed("pin the log buffer"))?;
    }
    let tc: &mut SchedClassifier = program(&mut ebpf, "cangw_tc")?;
    tc.load().map_err(failed("load the tc program"))?;
    replace(pins, TC, |path| {
        tc.pin(path).map_err(failed("pin the tc program"))
    })?;
    let xdp: &mut Xdp = program(&mut ebpf, "cangw_xdp")?;
    xdp.load().map_err(failed("load the XDP program"))?;
    replace(pins, XDP, |path| {
        xdp.pin(path).map_err(failed("pin the XDP program"))
    })?;
    let errors: &mut TracePoint = program(&mut ebpf, "cangw_redirect_err")?;
    errors
        .load()
        .map_err(failed("load the tracepoint program"))?;
    replace(pins, REDIRECT_ERR, |path| {
        errors
            .pin(path)
            .map_err(failed("pin the tracepoint program"))
    })
}

/// Creates the maps of maps that are not pinned yet. aya would describe the inner maps by type information, which makes
/// Linux 6.1 take them for different from the inner maps that are created later without (`bpf_map_meta_equal` compares `timer_off`).
fn create_outer_maps(pins: &Pins) -> Result<()> {
    use aya_obj::generated::bpf_map_type::{
        BPF_MAP_TYPE_ARRAY as ARRAY, BPF_MAP_TYPE_HASH as HASH,
    };
    let aux = 2 * abi::INTERFACES;
    for (name, entries, kind, key, value, flags) in [
        (
            "TABLES",
            abi::INTERFACES,
            ARRAY,
            size_of::<u32>(),
            size_of::<Tables>(),
            0,
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
            aux,
            ARRAY,
            size_of::<u32>(),
            size_of::<Halves>(),
            INNER_MAP,
        ),
        (
            "CROSS",
            aux,
            ARRAY,
            size_of::<u32>(),
            size_of::<CrossChunk>(),
            INNER_MAP,
        ),
    ] {
        let inner = aya_obj::Map::new_from_params(kind as u32, key as u32, value as u32, 1, flags);
        let inner = MapData::create(inner, "inner", None).map_err(failed("create an inner map"))?;
        outer(pins, name, entries, inner.fd())?;
    }
    Ok(())
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

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or_else(|| Error::Bpf {
            what: format!("find the program {name}"),
            message: "it is missing from the object; build cangw again".into(),
        })?
        .try_into()
        .map_err(failed(format!("use the program {name}")))
}

/// Pins something in place of what has the name.
fn replace(
    pins: &Pins,
    name: &str,
    pin: impl FnOnce(&std::path::Path) -> Result<()>,
) -> Result<()> {
    let new = pins.path(&format!("{name}_new"));
    let _ = fs::remove_file(&new);
    pin(&new)?;
    fs::rename(&new, pins.path(name)).map_err(|e| Error::io(format!("replace the pin {name}"), e))
}

/// Whether a CAN driver's frames begin at the start of the packet. They do since the kernel keeps the private data of
/// CAN frames in an extension of the socket buffer, which the type information of the kernel shows.
#[must_use]
pub fn drivers_leave_no_prefix() -> bool {
    const EXTENSION: &[u8] = b"SKB_EXT_CAN\0";
    fs::read("/sys/kernel/btf/vmlinux")
        .is_ok_and(|btf| btf.windows(EXTENSION.len()).any(|w| w == EXTENSION))
}

/// Whether the programs are there.
#[must_use]
pub fn is_loaded(pins: &Pins) -> bool {
    pins.path(TC).exists()
}

/// The tc program, for as long as it is held.
pub struct TcProgram(SchedClassifier);

impl TcProgram {
    /// Opens it.
    ///
    /// # Errors
    /// When it is not pinned.
    pub fn open(pins: &Pins) -> Result<Self> {
        SchedClassifier::from_pin(pins.path(TC))
            .map(Self)
            .map_err(failed("open the tc program"))
    }

    /// Its descriptor.
    ///
    /// # Errors
    /// Never for a program that was opened.
    pub fn fd(&self) -> Result<i32> {
        let fd = self.0.fd().map_err(failed("use the tc program"))?;
        Ok(fd.as_fd().as_raw_fd())
    }

    /// Its number in the kernel.
    ///
    /// # Errors
    /// Never for a program that was opened.
    pub fn id(&self) -> Result<u32> {
        Ok(self.0.info().map_err(failed("use the tc program"))?.id())
    }
}

fn xdp_pin(ifindex: u32) -> String {
    format!("link_xdp_{ifindex}")
}

/// Attaches the XDP program to an interface, or replaces the one that is attached without a gap.
///
/// # Errors
/// When the kernel or the device cannot.
pub fn attach_xdp(pins: &Pins, ifindex: u32) -> Result<()> {
    let mut xdp = xdp_program(pins)?;
    let path = pins.path(&xdp_pin(ifindex));
    if path.exists() {
        let link: FdLink = PinnedLink::from_pin(&path)
            .map_err(failed("open the XDP link"))?
            .into();
        let link = link.try_into().map_err(failed("use the XDP link"))?;
        let id = xdp
            .attach_to_link(link)
            .map_err(failed("replace the XDP program"))?;
        // The pin keeps the link.
        drop(xdp.take_link(id));
        return Ok(());
    }
    attach_redirect_err(pins)?;
    let id = xdp
        .attach_to_if_index(ifindex, XdpMode::Skb)
        .map_err(failed("attach the XDP program"))?;
    let link = xdp.take_link(id).map_err(failed("keep the XDP link"))?;
    let link: FdLink = link.try_into().map_err(failed("keep the XDP link"))?;
    link.pin(path).map_err(failed("pin the XDP link"))?;
    Ok(())
}

/// The pinned XDP program.
///
/// # Errors
/// When it is not pinned.
pub fn xdp_program(pins: &Pins) -> Result<Xdp> {
    Xdp::from_pin(pins.path(XDP), aya_obj::programs::XdpAttachType::Interface)
        .map_err(failed("open the XDP program"))
}

/// Attaches the program that counts failed redirects.
fn attach_redirect_err(pins: &Pins) -> Result<()> {
    let path = pins.path(REDIRECT_ERR_LINK);
    if path.exists() {
        return Ok(());
    }
    let mut program = TracePoint::from_pin(pins.path(REDIRECT_ERR))
        .map_err(failed("open the tracepoint program"))?;
    let id = program
        .attach("xdp", "xdp_redirect_err")
        .map_err(failed("attach to the tracepoint xdp:xdp_redirect_err, without which lost frames would not be counted"))?;
    let link = program
        .take_link(id)
        .map_err(failed("keep the tracepoint link"))?;
    let link: FdLink = link
        .try_into()
        .map_err(failed("keep the tracepoint link"))?;
    link.pin(path).map_err(failed("pin the tracepoint link"))?;
    Ok(())
}

/// Whether an interface has the XDP program.
#[must_use]
pub fn has_xdp(pins: &Pins, ifindex: u32) -> bool {
    pins.path(&xdp_pin(ifindex)).exists()
}

/// Detaches the XDP program from an interface.
///
/// # Errors
/// When the pin cannot be removed.
pub fn detach_xdp(pins: &Pins, ifindex: u32) -> Result<()> {
    match fs::remove_file(pins.path(&xdp_pin(ifindex))) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("detach the XDP program", e))
        }
        _ => Ok(()),
    }
}

fn open<T>(pins: &Pins, name: &str) -> Result<T>
where
    T: TryFrom<Map, Error = aya::maps::MapError>,
{
    MapData::from_pin(pins.path(name))
        .and_then(Map::from_map_data)
        .and_then(T::try_from)
        .map_err(failed(format!("open the map {name}")))
}

impl Maps {
    /// Opens the pinned maps.
    ///
    /// # Errors
    /// When one is missing.
    pub fn open(pins: &Pins) -> Result<Self> {
        Ok(Self {
            tables: open(pins, "TABLES")?,
            exact: open(pins, "EXACT")?,
            halves: open(pins, "HALVES")?,
            cross: open(pins, "CROSS")?,
            rules: open(pins, "RULES")?,
            rules_fd: MapData::from_pin(pins.path("RULES"))
                .map_err(failed("open the map RULES"))?,
            reasons: open(pins, "REASONS")?,
        })
    }

    /// Writes the tables beside the live ones, and switches to them: frames in flight see the old set or the new one. When this
    /// returns, no frame uses the old one any more (updates of maps of maps wait for that: `maybe_wait_bpf_programs`).
    ///
    /// # Errors
    /// When memory is short; then the old tables stay.
    pub fn switch(&mut self, slot: u32, compiled: &Compiled) -> Result<()> {
        let aux = compiled.tables.head.aux;
        if !compiled.exact.is_empty() {
            let inner = exact_map(&compiled.exact)?;
            self.exact
                .set(aux, &inner, 0)
                .map_err(failed("install the exact identifiers"))?;
        }
        if !compiled.halves.is_empty() {
            let halves = array(compiled.halves.iter().map(|h| &**h), INNER_MAP)?;
            self.halves
                .set(aux, &halves, 0)
                .map_err(failed("install the classes"))?;
            let cross = array(compiled.cross.iter(), INNER_MAP)?;
            self.cross
                .set(aux, &cross, 0)
                .map_err(failed("install the cross table"))?;
        }
        let tables = array(std::iter::once(&*compiled.tables), 0)?;
        self.tables
            .set(slot, &tables, 0)
            .map_err(failed("switch to the new tables"))
    }

    /// Counters of the rules with slots below `slots`, summed over the CPUs.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn rules(&self, slots: u32) -> Result<Vec<RuleCounters>> {
        if slots == 0 {
            return Ok(Vec::new());
        }
        let cpus = nr_cpus().map_err(|(what, e)| Error::io(what, e))?;
        let values: Vec<RuleCounters> =
            syscall::lookup_batch(self.rules_fd.fd().as_fd(), slots as usize, cpus)
                .map_err(|e| Error::io("read the rules' counters", e))?;
        Ok(values
            .chunks(cpus)
            .map(|values| values.iter().fold(RuleCounters::default(), add))
            .collect())
    }

    /// Sets the counters of a rule to zero.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn reset_rule(&mut self, slot: u32) -> Result<()> {
        self.rules
            .set(slot, zeroes()?, 0)
            .map_err(failed("reset a rule's counters"))
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

fn zeroes<T: aya::Pod + Default>() -> Result<PerCpuValues<T>> {
    let cpus = nr_cpus().map_err(|(what, e)| Error::io(what, e))?;
    PerCpuValues::try_from(vec![T::default(); cpus]).map_err(|e| Error::io("count the CPUs", e))
}

fn exact_map(exact: &BTreeMap<u32, u32>) -> Result<HashMap<MapData, u32, u32>> {
    let mut map = HashMap::create(exact.len() as u32, NO_PREALLOC)
        .map_err(failed("create the map of exact identifiers"))?;
    for (key, list) in exact {
        map.insert(key, list, 0)
            .map_err(failed("fill the map of exact identifiers"))?;
    }
    Ok(map)
}

fn array<'a, T: aya::Pod>(
    values: impl ExactSizeIterator<Item = &'a T>,
    flags: u32,
) -> Result<Array<MapData, T>> {
    let mut map = Array::create(values.len() as u32, flags).map_err(failed("create a table"))?;
    for (i, value) in values.enumerate() {
        map.set(i as u32, value, 0)
            .map_err(failed("fill a table"))?;
    }
    Ok(map)
}

/// Reads the persistent state; `None` when there is none.
///
/// # Errors
/// When the map cannot be read.
pub fn read_state(pins: &Pins) -> Result<Option<Vec<u8>>> {
    if !pins.path(STATE).exists() {
        return Ok(None);
    }
    let map: Array<MapData, [u8; CHUNK]> = open(pins, STATE)?;
    let mut bytes = Vec::new();
    for i in 0..map.len() {
        bytes.extend_from_slice(&map.get(&i, 0).map_err(failed("read the state"))?);
    }
    let len = bytes
        .first_chunk()
        .map_or(0, |b| u64::from_ne_bytes(*b) as usize);
    Ok(bytes.get(8..8 + len).map(<[u8]>::to_vec))
}

/// Replaces the persistent state as a whole.
///
/// # Errors
/// When memory is short; then the old state stays.
pub fn write_state(pins: &Pins, state: &[u8]) -> Result<()> {
    let mut bytes = (state.len() as u64).to_ne_bytes().to_vec();
    bytes.extend_from_slice(state);
    bytes.resize(bytes.len().next_multiple_of(CHUNK), 0);
    let (chunks, _) = bytes.as_chunks::<CHUNK>();
    let map = array(chunks.iter(), 0)?;
    replace(pins, STATE, |path| {
        map.pin(path).map_err(failed("pin the state"))
    })
}

/// The programs loaded without pins, to see whether the kernel takes them.
pub struct Trial(Ebpf);

impl Trial {
    /// Loads them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn load() -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .load(OBJECT)
            .map_err(failed("load the eBPF maps"))?;
        let tc: &mut SchedClassifier = program(&mut ebpf, "cangw_tc")?;
        tc.load().map_err(failed("load the tc program"))?;
        let xdp: &mut Xdp = program(&mut ebpf, "cangw_xdp")?;
        xdp.load().map_err(failed("load the XDP program"))?;
        let errors: &mut TracePoint = program(&mut ebpf, "cangw_redirect_err")?;
        errors
            .load()
            .map_err(failed("load the tracepoint program"))?;
        Ok(Self(ebpf))
    }

    /// Descriptor of the tc program.
    ///
    /// # Errors
    /// Never for programs that were loaded.
    pub fn tc_fd(&self) -> Result<i32> {
        let Some(aya::programs::Program::SchedClassifier(tc)) = self.0.program("cangw_tc") else {
            return Err(Error::Bpf {
                what: "find the tc program".into(),
                message: "it is missing from the object".into(),
            });
        };
        let fd = tc.fd().map_err(failed("use the tc program"))?;
        Ok(fd.as_fd().as_raw_fd())
    }

    /// Attaches the XDP program.
    ///
    /// # Errors
    /// When the kernel or the device cannot.
    pub fn attach_xdp(&mut self, ifindex: u32) -> Result<()> {
        let xdp: &mut Xdp = program(&mut self.0, "cangw_xdp")?;
        xdp.attach_to_if_index(ifindex, XdpMode::Skb)
            .map(drop)
            .map_err(failed("attach the XDP program"))
    }

    /// Attaches to the tracepoint.
    ///
    /// # Errors
    /// When the kernel has none, or tracefs is not mounted.
    pub fn tracepoint(&mut self) -> Result<()> {
        let errors: &mut TracePoint = program(&mut self.0, "cangw_redirect_err")?;
        errors
            .attach("xdp", "xdp_redirect_err")
            .map(drop)
            .map_err(failed("attach to the tracepoint"))
    }
}
