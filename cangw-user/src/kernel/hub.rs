//! A virtual bus: interfaces in a network namespace of which each gives its frames to all others.
//!
//! One map serves a bus, and one program for ports without limits and two for those that have some, pinned for as long as the bus is there. What counts
//! the frames that ports missed serves all buses of a namespace.

use std::fs;
use std::hash::BuildHasher as _;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use aya::EbpfLoader;
use aya::maps::{DevMap, HashMap, Map, MapData};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{TracePoint, Xdp};
use aya_obj::programs::XdpAttachType;
use cangw_common::abi::{BUS_NAME, HubPort, HubProgram};
use foldhash::quality::FixedState;

use super::bpf::{self, attach_pinned, failed};
use super::maps::open_data;
use super::pins::Pins;
use super::syscall;
use crate::error::{Error, Result};

/// The program, built by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/cangw-hub.o"));
/// The programs with the names of their pins, and where they are attached.
const PROGRAMS: [(&str, &str, XdpAttachType); 3] = [
    ("cangw_hub", PROGRAM, XdpAttachType::Interface),
    ("cangw_hub_limited", LIMITED, XdpAttachType::Interface),
    ("cangw_hub_outlet", OUTLET, XdpAttachType::DevMap),
];
const PROGRAM: &str = "program";
const LIMITED: &str = "limited";
const OUTLET: &str = "outlet";
const LOADING: &str = "load the program of a bus";
const LOST_PROGRAM: &str = "cangw_hub_lost";
const MAP: &str = "PORTS";
const HUBS: &str = "HUBS";
/// Pins that all buses share. Those of a bus begin with its name.
const HUBS_PIN: &str = "+hubs";
const LIMITS: &str = "LIMITED";
const LIMITS_PIN: &str = "+limits";
const LOST_LINK: &str = "+link_lost";
const LINK: &str = "link_";
/// Places of the smallest map.
const LEAST: u32 = 8;
/// Ports of a bus: a frame goes to all of them at once, and more than `net.core.netdev_max_backlog` (1000) find no room before the first is received.
pub const MAX_PORTS: usize = 256;

/// What there is of a bus in bpffs. To be used in the namespace of its interfaces.
pub struct Hub<'a> {
    pins: &'a Pins,
    bus: String,
}

impl<'a> Hub<'a> {
    /// The bus of this name, whether it is there or not.
    #[must_use]
    pub fn new(pins: &'a Pins, bus: &str) -> Self {
        Self {
            pins,
            bus: bus.to_owned(),
        }
    }

    /// The names of all buses in the namespace.
    ///
    /// # Errors
    /// When the folder of pins cannot be read.
    pub fn names(pins: &Pins) -> Result<Vec<String>> {
        let names = pins.names()?.into_iter();
        let bus = |name: String| name.strip_suffix("+ports").map(str::to_owned);
        Ok(names.filter_map(bus).collect())
    }

    fn pin_name(&self, what: &str) -> String {
        // `+` is in no name of a bus.
        format!("{}+{what}", self.bus)
    }

    fn pin(&self, what: &str) -> PathBuf {
        self.pins.path(&self.pin_name(what))
    }

    fn link_pin(&self, ifindex: u32) -> PathBuf {
        self.pin(&format!("{LINK}{ifindex}"))
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.pin("ports").exists()
    }

    /// Makes it, with room for so many ports.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn create(&self, ports: u32) -> Result<()> {
        self.load(ports.max(LEAST).next_power_of_two(), &[])
    }

    /// Loads the program with a map that has the ports, and pins both in the place of what is there.
    fn load(&self, room: u32, ports: &[u32]) -> Result<()> {
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(MAP, room)
            .map_pin_path(HUBS, self.pins.path(HUBS_PIN))
            .map_pin_path(LIMITS, self.pins.path(LIMITS_PIN))
            .load(OBJECT)
            .map_err(failed(LOADING))?;
        let mut hubs = hubs(self.pins)?;
        if hubs.iter().flatten().all(|(_, hub)| hub.build != build()) {
            let lost: &mut TracePoint = bpf::program(&mut ebpf, LOST_PROGRAM)?;
            lost.load().map_err(failed(LOADING))?;
            bpf::count_lost(self.pins, lost, LOST_LINK)?;
        }
        let hub = HubProgram {
            bus: self.key(),
            build: build(),
            lost: 0,
        };
        for (name, ..) in PROGRAMS {
            let program: &mut Xdp = bpf::program(&mut ebpf, name)?;
            program.load().map_err(failed(LOADING))?;
            hubs.insert(number(program)?, hub, 0)
                .map_err(failed("count what a bus loses"))?;
        }
        let map = ebpf.take_map(MAP).ok_or_else(|| Error::Bpf {
            what: LOADING.into(),
            message: format!("the object has no {MAP}"),
        })?;
        let mut map = DevMap::try_from(map).map_err(failed("use the ports of a bus"))?;
        let outlet: &mut Xdp = bpf::program(&mut ebpf, PROGRAMS[2].0)?;
        let limits = limits(self.pins)?;
        for (place, ifindex) in (0..).zip(ports) {
            let outlet = has_outlet(&limits, *ifindex).then_some(&*outlet);
            set(&mut map, place, *ifindex, outlet)?;
        }
        // The map first: a port that is added from now on is to be known to the program that it gets.
        bpf::replace(self.pins, &self.pin_name("ports"), |path| {
            map.pin(path).map_err(failed("pin the ports of a bus"))
        })?;
        for (name, pin, _) in PROGRAMS {
            let program: &mut Xdp = bpf::program(&mut ebpf, name)?;
            bpf::replace(self.pins, &self.pin_name(pin), |path| {
                program
                    .pin(path)
                    .map_err(failed("pin the program of a bus"))
            })?;
        }
        Ok(())
    }

    /// Its name in the kernel's map.
    fn key(&self) -> [u8; BUS_NAME] {
        let mut key = [0; BUS_NAME];
        let name = self.bus.as_bytes();
        key[..name.len()].copy_from_slice(name);
        key
    }

    /// Whether its program is of this build of cangw.
    ///
    /// # Errors
    /// When it is not there.
    pub fn is_current(&self) -> Result<bool> {
        let hubs = hubs(self.pins)?;
        for (_, pin, kind) in PROGRAMS {
            if !self.pin(pin).exists() {
                // Somebody was interrupted, or an older build had none.
                return Ok(false);
            }
            let hub = hubs.get(&number(&self.program(pin, kind)?)?, 0);
            if !hub.is_ok_and(|hub| hub.build == build()) {
                return Ok(false);
            }
        }
        // Whoever grew it may have been interrupted, and some ports have a program that does not know all others.
        let limits = limits(self.pins)?;
        let numbers = [PROGRAM, LIMITED].map(|pin| {
            let program = self.program(pin, XdpAttachType::Interface)?;
            number(&program)
        });
        let [program, limited] = numbers;
        let (program, limited) = (program?, limited?);
        for port in self.ports()? {
            let wanted = if is_limited(&limits, port) {
                limited
            } else {
                program
            };
            if self.attached(port)? != Some(wanted) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The number of the program that a port has; `None` when it has none.
    fn attached(&self, ifindex: u32) -> Result<Option<u32>> {
        let path = self.link_pin(ifindex);
        if !path.exists() {
            return Ok(None);
        }
        let failed = || failed("look at the program of a port");
        let link: FdLink = PinnedLink::from_pin(&path).map_err(failed())?.into();
        Ok(Some(link.info().map_err(failed())?.program_id()))
    }

    /// Gives all ports a program of this build, one after the other, while frames pass.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn renew(&self) -> Result<()> {
        self.grow(self.room()?, &self.ports()?)
    }

    /// Gives all ports another program, whose map has more room.
    fn grow(&self, room: u32, ports: &[u32]) -> Result<()> {
        self.load(room, ports)?;
        // Each port changes from the old program to the new one at once; both know all ports that were there.
        ports.iter().try_for_each(|port| self.attach(*port))
    }

    /// Frames that some ports missed, because another was down or about to vanish, or memory was short.
    ///
    /// # Errors
    /// When it is not there.
    pub fn lost(&self) -> Result<u64> {
        let hubs = hubs(self.pins)?;
        hubs.iter().try_fold(0, |sum, entry| {
            let (_, hub) = entry.map_err(failed("read what a bus has lost"))?;
            Ok(sum + if hub.bus == self.key() { hub.lost } else { 0 })
        })
    }

    fn map(&self) -> Result<DevMap<MapData>> {
        Map::from_map_data(open_data(self.pins, &self.pin_name("ports"))?)
            .and_then(DevMap::try_from)
            .map_err(failed(format!("open the ports of bus {}", self.bus)))
    }

    fn places(&self) -> Result<Vec<Option<u32>>> {
        let map = self.map()?;
        let place = |place| match map.get(place, 0) {
            Ok(value) => Ok(Some(value.if_index)),
            // An interface that vanished leaves its place.
            Err(aya::maps::MapError::KeyNotFound) => Ok(None),
            Err(e) => Err(failed("read the ports of a bus")(e)),
        };
        (0..map.len()).map(place).collect()
    }

    /// How many ports it has room for, before it grows.
    ///
    /// # Errors
    /// When it is not there.
    pub fn room(&self) -> Result<u32> {
        Ok(self.map()?.len())
    }

    /// Indices of its interfaces.
    ///
    /// # Errors
    /// When it is not there.
    pub fn ports(&self) -> Result<Vec<u32>> {
        Ok(self.places()?.into_iter().flatten().collect())
    }

    /// Makes an interface a port. Frames of the others are not interrupted.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add(&self, ifindex: u32, limits: Option<&HubPort>) -> Result<()> {
        let places = self.places()?;
        let mut ports: Vec<u32> = places.iter().copied().flatten().collect();
        self.forget_others(&ports)?;
        if ports.len() >= MAX_PORTS {
            return Err(Error::Unsupported {
                what: format!("room for another port on bus {}, which has {MAX_PORTS}", self.bus),
                remedy: "take one off, or divide the bus in two and let a rule lead from one to the other".into(),
            });
        }
        if let Some(port) = limits {
            self::limits(self.pins)?
                .insert(ifindex, port, 0)
                .map_err(failed("set the limits of a port"))?;
        }
        match places.iter().position(Option::is_none) {
            Some(free) => {
                self.attach(ifindex)?;
                let outlet = limits.is_some_and(HubPort::has_outlet);
                let outlet = outlet.then(|| self.program(OUTLET, XdpAttachType::DevMap));
                set(
                    &mut self.map()?,
                    free as u32,
                    ifindex,
                    outlet.transpose()?.as_ref(),
                )
            }
            None => {
                let room = 2 * (ports.len() as u32).max(LEAST);
                ports.push(ifindex);
                self.grow(room, &ports)
            }
        }
    }

    fn program(&self, pin: &str, kind: XdpAttachType) -> Result<Xdp> {
        Xdp::from_pin(self.pin(pin), kind).map_err(failed("open the program of a bus"))
    }

    fn attach(&self, ifindex: u32) -> Result<()> {
        let is_limited = is_limited(&limits(self.pins)?, ifindex);
        let pin = if is_limited { LIMITED } else { PROGRAM };
        let mut program = self.program(pin, XdpAttachType::Interface)?;
        attach_pinned(&mut program, &self.link_pin(ifindex), ifindex)
    }

    /// The limits of a port with what they kept back; `None` when it has none.
    ///
    /// # Errors
    /// When the bus is not there.
    pub fn limits(&self, ifindex: u32) -> Result<Option<HubPort>> {
        match limits(self.pins)?.get(&ifindex, 0) {
            Ok(port) => Ok(Some(port)),
            Err(aya::maps::MapError::KeyNotFound) => Ok(None),
            Err(e) => Err(failed("read the limits of a port")(e)),
        }
    }

    /// Takes a port off the bus: frames of the others do not reach it any more.
    ///
    /// # Errors
    /// When the kernel refuses, except that it is no port.
    pub fn leave(&self, ifindex: u32) -> Result<()> {
        if let Some(place) = self.places()?.iter().position(|p| *p == Some(ifindex)) {
            let map = open_data(self.pins, &self.pin_name("ports"))?;
            syscall::delete_index(map.fd().as_fd(), place as u32)
                .map_err(|e| Error::io("remove a port from a bus", e))?;
        }
        Ok(())
    }

    /// Forgets an interface that is gone.
    ///
    /// # Errors
    /// When a pin cannot be removed, except that there is none.
    pub fn forget(&self, ifindex: u32) -> Result<()> {
        // Most ports have none, and no port of a bus that an older build made.
        if let Ok(mut limits) = limits(self.pins) {
            let _ = limits.remove(&ifindex);
        }
        match fs::remove_file(self.link_pin(ifindex)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove the link of a port", e))
            }
            _ => Ok(()),
        }
    }

    /// Removes what interfaces that vanished left behind.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forget_vanished(&self) -> Result<()> {
        self.forget_others(&self.ports()?)
    }

    fn forget_others(&self, ports: &[u32]) -> Result<()> {
        let prefix = self.pin_name(LINK);
        for name in self.pins.names()? {
            let ifindex = name.strip_prefix(&prefix).and_then(|n| n.parse().ok());
            if let Some(ifindex) = ifindex.filter(|ifindex| !ports.contains(ifindex)) {
                self.forget(ifindex)?;
            }
        }
        Ok(())
    }

    /// Removes all of it, and with the last bus what all share.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn delete(&self) -> Result<()> {
        let prefix = format!("{}+", self.bus);
        self.pins.remove_all(|name| !name.starts_with(&prefix))?;
        if Self::names(self.pins)?.is_empty() {
            return self.pins.remove_all(|name| !name.starts_with('+'));
        }
        let mut hubs = hubs(self.pins)?;
        let of_this = hubs.iter().flatten();
        let of_this = of_this.filter(|(_, hub)| hub.bus == self.key());
        let numbers: Vec<u32> = of_this.map(|(number, _)| number).collect();
        for number in numbers {
            // A program that still counts until its last frame is through does that in vain.
            let _ = hubs.remove(&number);
        }
        Ok(())
    }
}

/// A number that tells the programs of this build from those of others.
fn build() -> u64 {
    FixedState::default().hash_one(OBJECT)
}

fn number(program: &Xdp) -> Result<u32> {
    let info = program.info();
    Ok(info.map_err(failed("ask for the program of a bus"))?.id())
}

fn set(map: &mut DevMap<MapData>, place: u32, ifindex: u32, outlet: Option<&Xdp>) -> Result<()> {
    let outlet = outlet.map(Xdp::fd).transpose();
    let outlet = outlet.map_err(failed("use the program of a bus"))?;
    map.set(place, ifindex, outlet, 0)
        .map_err(failed("add a port to a bus"))
}

fn has_outlet(limits: &HashMap<MapData, u32, HubPort>, ifindex: u32) -> bool {
    limits.get(&ifindex, 0).is_ok_and(|port| port.has_outlet())
}

fn is_limited(limits: &HashMap<MapData, u32, HubPort>, ifindex: u32) -> bool {
    limits.get(&ifindex, 0).is_ok_and(|port| port.is_limited())
}

/// The limits of ports, by the indices of their interfaces.
fn limits(pins: &Pins) -> Result<HashMap<MapData, u32, HubPort>> {
    Map::from_map_data(open_data(pins, LIMITS_PIN)?)
        .and_then(HashMap::try_from)
        .map_err(failed("open the limits of ports"))
}

/// The programs of all buses, by their numbers.
fn hubs(pins: &Pins) -> Result<HashMap<MapData, u32, HubProgram>> {
    Map::from_map_data(open_data(pins, HUBS_PIN)?)
        .and_then(HashMap::try_from)
        .map_err(failed("open what the buses have lost"))
}
