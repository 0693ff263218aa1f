//! The programs, pinned and attached.

use std::fs;
use std::hash::BuildHasher as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;
use std::sync::OnceLock;

use aya::maps::ProgramArray;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{SchedClassifier, TracePoint, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use foldhash::quality::FixedState;

use super::btf::Btf;
use super::listeners::{self, Known};
use super::maps;
use super::pins::Pins;
use super::{rule_counts, words};
use crate::error::{Error, Result};

/// The programs, built by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/cangw-ebpf.o"));

const MAPS: [&str; 22] = [
    "TABLES",
    "EXACT",
    "HALVES",
    "CROSS",
    "EDITS",
    "XL",
    "GUARDS",
    "BUCKETS",
    "WATCHED",
    "FLIGHTS",
    "TICKETS",
    "PROGRAMS",
    "RULES",
    "REASONS",
    "LAST",
    "XDP_PROGRAMS",
    "AYA_LOGS",
    "FAN_TARGETS",
    "FAN_COUNTS",
    "TAPS",
    "TAPS_MISSED",
    "TAP_ROOM",
];
const TC: &str = "program_tc";
const STEP: &str = "program_step";
const CLASSIFY: &str = "cangw_tc";
const FRONT: &str = "program_front";
const FRONT_PROGRAM: &str = "cangw_front";
const STEP_PROGRAM: &str = "cangw_step";
const DRIVER: &str = "cangw_driver";
const DRIVER_PIN: &str = "program_driver";
/// Places in the map of programs: `Next` in cangw-ebpf.
const STEP_PLACE: u32 = 0;
const DRIVER_PLACE: u32 = 1;
const XDP: &str = "program_xdp";
const REDIRECT_ERR: &str = "program_redirect_err";
const REDIRECT_ERR_LINK: &str = "link_redirect_err";
/// An error of aya, with what was tried.
pub(super) fn failed<E: std::error::Error>(what: impl Into<String>) -> impl FnOnce(E) -> Error {
    move |e| Error::bpf(what, &e)
}

/// A number that tells the programs of this build from those of others.
#[must_use]
pub fn build() -> u64 {
    FixedState::default().hash_one(OBJECT)
}

/// What not all rules need: programs, at which the verifier looks for long, and room.
#[derive(Clone, Copy, Default)]
pub struct Needs {
    /// Slots of rules that are counted: the highest, and one more.
    pub slots: u32,
    /// See [`attach_xdp`].
    pub xdp: bool,
    /// See [`load_step`].
    pub step: bool,
    /// See [`load_driver`].
    pub driver: bool,
}

impl Needs {
    /// What either needs.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            slots: self.slots.max(other.slots),
            xdp: self.xdp || other.xdp,
            step: self.step || other.step,
            driver: self.driver || other.driver,
        }
    }
}

/// Loads the programs and pins them with their maps; maps that are pinned already are kept. Those that not all rules need are loaded if they are known to
/// be needed, or were there before. What turns out to be needed later can still be loaded, but that takes longer.
///
/// # Errors
/// When the kernel refuses; the verifier's last words are in the message.
pub fn load(pins: &Pins, debug: bool, needs: Needs) -> Result<()> {
    maps::create_outer(pins)?;
    rule_counts::make_room(pins, needs.slots)?;
    words::create(pins)?;
    let mut ebpf = open(pins, debug)?;
    if fs::exists(pins.path("AYA_LOGS")).is_ok_and(|pinned| !pinned)
        && let Some(map) = ebpf.map("AYA_LOGS")
    {
        map.pin(pins.path("AYA_LOGS"))
            .map_err(failed("pin the log buffer"))?;
    }
    let step = needs.step || needs.driver;
    for (needed, placed) in [(step, STEP_PLACED), (needs.driver, DRIVER_PLACED)] {
        if needed || pins.path(placed.1).exists() {
            pin_at(pins, &mut ebpf, placed)?;
        }
    }
    // Without probes, frames are copied as if somebody listened; `cangw probe` says why.
    let _ = listeners::pin(pins, &mut ebpf);
    for name in [FRONT_PROGRAM, CLASSIFY] {
        load_tc(&mut ebpf, name, None)?;
    }
    if needs.xdp || pins.path(XDP).exists() {
        pin_xdp(pins, &mut ebpf)?;
    }
    // The main program last: where it is, all are.
    for (name, pin) in [(FRONT_PROGRAM, FRONT), (CLASSIFY, TC)] {
        pin_tc(pins, &mut ebpf, name, pin)?;
    }
    Ok(())
}

/// Loads the XDP program, and the one that counts what its targets do not take.
fn pin_xdp(pins: &Pins, ebpf: &mut Ebpf) -> Result<()> {
    let xdp: &mut Xdp = program(ebpf, "cangw_xdp")?;
    xdp.load().map_err(failed("load the XDP program"))?;
    count_errors_of(pins, xdp)?;
    replace(pins, XDP, |path| {
        xdp.pin(path).map_err(failed("pin the XDP program"))
    })?;
    let errors: &mut TracePoint = program(ebpf, "cangw_redirect_err")?;
    errors
        .load()
        .map_err(failed("load the tracepoint program"))?;
    replace(pins, REDIRECT_ERR, |path| {
        errors
            .pin(path)
            .map_err(failed("pin the tracepoint program"))
    })?;
    if pins.path(REDIRECT_ERR_LINK).exists() {
        count_lost(pins, errors, REDIRECT_ERR_LINK)?;
    }
    Ok(())
}

/// Loads the program for frames behind a driver's prefix, if it is not there. It is the one at which the verifier looks longest, and virtual
/// interfaces never need it.
///
/// # Errors
/// As [`load`].
pub fn load_driver(pins: &Pins, debug: bool) -> Result<()> {
    load_step(pins, debug)?;
    load_once(pins, debug, DRIVER_PLACED)
}

/// Loads the program that gives copies their forms, if it is not there. The verifier looks at it for longer than at all others together but the driver's, and
/// rules whose copies all look like the frame never need it.
///
/// # Errors
/// As [`load`].
pub fn load_step(pins: &Pins, debug: bool) -> Result<()> {
    load_once(pins, debug, STEP_PLACED)
}

/// A program, its pin, and its place in the map of programs.
type Placed = (&'static str, &'static str, u32);
const STEP_PLACED: Placed = (STEP_PROGRAM, STEP, STEP_PLACE);
const DRIVER_PLACED: Placed = (DRIVER, DRIVER_PIN, DRIVER_PLACE);

fn load_once(pins: &Pins, debug: bool, placed: Placed) -> Result<()> {
    if pins.path(placed.1).exists() {
        return Ok(());
    }
    pin_at(pins, &mut open(pins, debug)?, placed)
}

/// The object, with the maps that are pinned.
fn open(pins: &Pins, debug: bool) -> Result<Ebpf> {
    open_knowing(
        pins,
        Known::find().ok().as_ref(),
        ("DEBUG", &u8::from(debug)),
    )
}

/// The same, with what the programs are to know beside a variable of theirs.
pub(super) fn open_knowing<T: aya::Pod>(
    pins: &Pins,
    known: Option<&Known>,
    (name, value): (&str, &T),
) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    for map in MAPS {
        loader.map_pin_path(map, pins.path(map));
    }
    if let Some(known) = known {
        known.tell(&mut loader);
    }
    let ebpf = loader
        .override_global(name, value, true)
        .load(OBJECT)
        .map_err(failed("load the eBPF maps"))?;
    words::give_to(&ebpf, pins)?;
    Ok(ebpf)
}

fn pin_at(pins: &Pins, ebpf: &mut Ebpf, (name, pin, place): Placed) -> Result<()> {
    load_tc(ebpf, name, Some(place))?;
    pin_tc(pins, ebpf, name, pin)
}

fn pin_tc(pins: &Pins, ebpf: &mut Ebpf, name: &str, pin: &str) -> Result<()> {
    let tc: &mut SchedClassifier = program(ebpf, name)?;
    replace(pins, pin, |path| {
        tc.pin(path).map_err(failed("pin a tc program"))
    })
}

/// Loads a tc program, and makes it known to others that go on with it.
fn load_tc(ebpf: &mut Ebpf, name: &str, place: Option<u32>) -> Result<()> {
    let tc: &mut SchedClassifier = program(ebpf, name)?;
    tc.load()
        .map_err(failed(format!("load the program {name}")))?;
    let Some(place) = place else {
        return Ok(());
    };
    let fd = tc.fd().map_err(failed(format!("use the program {name}")))?;
    let fd = fd
        .try_clone()
        .map_err(|e| Error::io(format!("use the program {name}"), e))?;
    let programs = ebpf.map_mut("PROGRAMS").ok_or_else(|| Error::Bpf {
        what: "find the map PROGRAMS".into(),
        message: "it is missing from the object; build cangw again".into(),
    })?;
    ProgramArray::try_from(programs)
        .and_then(|mut programs| programs.set(place, &fd, 0))
        .map_err(failed(format!(
            "make the program {name} known to the others"
        )))
}

/// One of the programs.
pub(super) fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P>
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
pub(super) fn replace(
    pins: &Pins,
    name: &str,
    pin: impl FnOnce(&Path) -> Result<()>,
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
    /// The kernel stays the same.
    static NAMED: OnceLock<bool> = OnceLock::new();
    *NAMED.get_or_init(|| Btf::of_kernel().is_ok_and(|btf| btf.names("SKB_EXT_CAN")))
}

/// Whether the programs are there.
#[must_use]
pub fn is_loaded(pins: &Pins) -> bool {
    pins.path(TC).exists()
}

/// A tc program, for as long as it is held.
pub struct TcProgram(SchedClassifier);

impl TcProgram {
    /// Opens the one that classifies.
    ///
    /// # Errors
    /// When it is not pinned.
    pub fn open(pins: &Pins) -> Result<Self> {
        Self::open_pin(pins, TC)
    }

    /// Opens the one that stands between the runs of lists.
    ///
    /// # Errors
    /// When it is not pinned.
    pub fn open_step(pins: &Pins) -> Result<Self> {
        Self::open_pin(pins, STEP)
    }

    /// Opens one that stands in front of the one that classifies.
    ///
    /// # Errors
    /// When it is not pinned.
    pub fn open_front(pins: &Pins) -> Result<Self> {
        Self::open_pin(pins, FRONT)
    }

    fn open_pin(pins: &Pins, name: &str) -> Result<Self> {
        SchedClassifier::from_pin(pins.path(name))
            .map(Self)
            .map_err(failed(format!("open {name}")))
    }

    /// Its descriptor.
    ///
    /// # Errors
    /// Never for a program that was opened.
    pub fn fd(&self) -> Result<i32> {
        let fd = self.0.fd().map_err(failed("use the tc program"))?;
        Ok(fd.as_fd().as_raw_fd())
    }

    /// The numbers of its maps in the kernel.
    ///
    /// # Errors
    /// Never for a program that was opened.
    pub fn maps(&self) -> Result<Vec<u32>> {
        let info = self.0.info().map_err(failed("use the tc program"))?;
        let maps = info.map_ids().map_err(failed("use the tc program"))?;
        Ok(maps.unwrap_or_default())
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

/// Attaches the XDP program to an interface, or replaces the one that is attached without a gap. It is loaded if it is not there.
///
/// # Errors
/// When the kernel or the device cannot.
pub fn attach_xdp(pins: &Pins, debug: bool, ifindex: u32) -> Result<()> {
    if !pins.path(REDIRECT_ERR).exists() {
        pin_xdp(pins, &mut open(pins, debug)?)?;
    }
    attach_redirect_err(pins)?;
    attach_pinned(
        &mut xdp_program(pins)?,
        &pins.path(&xdp_pin(ifindex)),
        ifindex,
    )
}

/// Attaches a program at generic XDP by a link that is pinned, or gives the link that is there the program.
pub(super) fn attach_pinned(xdp: &mut Xdp, path: &Path, ifindex: u32) -> Result<()> {
    if path.exists() {
        let link: FdLink = PinnedLink::from_pin(path)
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
    let id = xdp
        .attach_to_if_index(ifindex, XdpMode::Skb)
        .map_err(failed("attach the XDP program"))?;
    let link = xdp.take_link(id).map_err(failed("keep the XDP link"))?;
    let link: FdLink = link.try_into().map_err(failed("keep the XDP link"))?;
    link.pin(path).map_err(failed("pin the XDP link"))?;
    Ok(())
}

/// Makes the XDP program known to the one that counts failed redirects, beside the one that is attached until now.
fn count_errors_of(pins: &Pins, new: &Xdp) -> Result<()> {
    let number = |xdp: &Xdp| xdp.info().map(|info| info.id());
    let old =
        xdp_program(pins).and_then(|old| number(&old).map_err(failed("ask for the XDP program")));
    let mut known = maps::xdp_programs(pins)?;
    let others = known
        .keys()
        .flatten()
        .filter(|known| old.as_ref().ok() != Some(known));
    let others: Vec<u32> = others.collect();
    for other in others {
        known
            .remove(&other)
            .map_err(failed("forget an XDP program"))?;
    }
    let new = number(new).map_err(failed("ask for the XDP program"))?;
    known
        .insert(new, 0, 0)
        .map_err(failed("make the XDP program known"))
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
    if pins.path(REDIRECT_ERR_LINK).exists() {
        return Ok(());
    }
    let mut program = TracePoint::from_pin(pins.path(REDIRECT_ERR))
        .map_err(failed("open the tracepoint program"))?;
    count_lost(pins, &mut program, REDIRECT_ERR_LINK)
}

/// Attaches a program where the kernel reports failed redirects, by a link that is pinned, in place of what is there.
pub(super) fn count_lost(pins: &Pins, program: &mut TracePoint, link_pin: &str) -> Result<()> {
    let id = program
        .attach("xdp", "xdp_redirect_err")
        .map_err(failed("attach to the tracepoint xdp:xdp_redirect_err, without which lost frames would not be counted"))?;
    let link = program
        .take_link(id)
        .map_err(failed("keep the tracepoint link"))?;
    let link: FdLink = link
        .try_into()
        .map_err(failed("keep the tracepoint link"))?;
    replace(pins, link_pin, |path| {
        link.pin(path)
            .map(drop)
            .map_err(failed("pin the tracepoint link"))
    })
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

/// The programs loaded without pins, to see whether the kernel takes them.
pub struct Trial(Ebpf);

impl Trial {
    /// Loads them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn load() -> Result<Self> {
        let known = Known::find().ok();
        let mut loader = EbpfLoader::new();
        if let Some(known) = &known {
            known.tell(&mut loader);
        }
        let mut ebpf = loader.load(OBJECT).map_err(failed("load the eBPF maps"))?;
        load_tc(&mut ebpf, STEP_PROGRAM, Some(STEP_PLACE))?;
        load_tc(&mut ebpf, DRIVER, Some(DRIVER_PLACE))?;
        for name in [FRONT_PROGRAM, CLASSIFY] {
            load_tc(&mut ebpf, name, None)?;
        }
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
        let Some(aya::programs::Program::SchedClassifier(tc)) = self.0.program(CLASSIFY) else {
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

    /// Attaches the probes on can.ko.
    ///
    /// # Errors
    /// Why the kernel cannot.
    pub fn probes(&mut self) -> Result<()> {
        Known::find()?;
        listeners::try_out(&mut self.0)
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
