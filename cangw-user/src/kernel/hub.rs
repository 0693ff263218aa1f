//! A virtual bus: interfaces in a network namespace of which each gives its frames to all others.
//!
//! One program and one map serve a bus, pinned for as long as the bus is there. What counts the frames that ports missed serves all buses of a
//! namespace.

use std::fs;
use std::hash::BuildHasher as _;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use aya::EbpfLoader;
use aya::maps::{DevMap, HashMap, Map, MapData};
use aya::programs::{TracePoint, Xdp};
use aya_obj::programs::XdpAttachType;
use cangw_common::abi::{BUS_NAME, HubProgram};
use foldhash::quality::FixedState;

use super::bpf::{self, attach_pinned, failed};
use super::maps::open_data;
use super::pins::Pins;
use super::syscall;
use crate::error::{Error, Result};

/// The program, built by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/cangw-hub.o"));
const PROGRAM: &str = "cangw_hub";
const LOST_PROGRAM: &str = "cangw_hub_lost";
const MAP: &str = "PORTS";
const HUBS: &str = "HUBS";
/// Pins that all buses share. Those of a bus begin with its name.
const HUBS_PIN: &str = "+hubs";
const LOST_LINK: &str = "+link_lost";
const LINK: &str = "link_";
/// Places of the smallest map.
const LEAST: u32 = 8;

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
        let failed = |e| Error::io(format!("read {}", pins.folder().display()), e);
        let mut names = Vec::new();
        for entry in fs::read_dir(pins.folder()).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let bus = name.to_str().and_then(|name| name.strip_suffix("+ports"));
            names.extend(bus.map(str::to_owned));
        }
        Ok(names)
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
            .load(OBJECT)
            .map_err(failed("load the program of a bus"))?;
        let program: &mut Xdp = bpf::program(&mut ebpf, PROGRAM)?;
        program
            .load()
            .map_err(failed("load the program of a bus"))?;
        let number = number(program)?;
        let mut hubs = hubs(self.pins)?;
        if hubs.iter().flatten().all(|(_, hub)| hub.build != build()) {
            let lost: &mut TracePoint = bpf::program(&mut ebpf, LOST_PROGRAM)?;
            lost.load().map_err(failed("load the program of a bus"))?;
            bpf::count_lost(self.pins, lost, LOST_LINK)?;
        }
        let hub = HubProgram {
            bus: self.key(),
            build: build(),
            lost: 0,
        };
        hubs.insert(number, hub, 0)
            .map_err(failed("count what a bus loses"))?;
        let map = ebpf.take_map(MAP).ok_or_else(|| Error::Bpf {
            what: "load the program of a bus".into(),
            message: format!("the object has no {MAP}"),
        })?;
        let mut map = DevMap::try_from(map).map_err(failed("use the ports of a bus"))?;
        for (place, ifindex) in (0..).zip(ports) {
            map.set(place, *ifindex, None, 0)
                .map_err(failed("fill the ports of a bus"))?;
        }
        // The map first: a port that is added from now on is to be known to the program that it gets.
        bpf::replace(self.pins, &self.pin_name("ports"), |path| {
            map.pin(path).map_err(failed("pin the ports of a bus"))
        })?;
        let program: &mut Xdp = bpf::program(&mut ebpf, PROGRAM)?;
        bpf::replace(self.pins, &self.pin_name("program"), |path| {
            program
                .pin(path)
                .map_err(failed("pin the program of a bus"))
        })
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
        if !self.pin("program").exists() {
            // Somebody was interrupted.
            return Ok(false);
        }
        let hub = hubs(self.pins)?.get(&number(&self.program()?)?, 0);
        Ok(hub.is_ok_and(|hub| hub.build == build()))
    }

    /// Gives all ports a program of this build, one after the other, while frames pass.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn renew(&self) -> Result<()> {
        let room = self.map()?.len();
        self.grow(room, &self.ports()?)
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
    pub fn add(&self, ifindex: u32) -> Result<()> {
        let places = self.places()?;
        let mut ports: Vec<u32> = places.iter().copied().flatten().collect();
        self.forget_others(&ports)?;
        match places.iter().position(Option::is_none) {
            Some(free) => {
                self.attach(ifindex)?;
                self.map()?
                    .set(free as u32, ifindex, None, 0)
                    .map_err(failed("add a port to a bus"))
            }
            None => {
                let room = 2 * (ports.len() as u32).max(LEAST);
                ports.push(ifindex);
                self.grow(room, &ports)
            }
        }
    }

    fn program(&self) -> Result<Xdp> {
        Xdp::from_pin(self.pin("program"), XdpAttachType::Interface)
            .map_err(failed("open the program of a bus"))
    }

    fn attach(&self, ifindex: u32) -> Result<()> {
        attach_pinned(&mut self.program()?, &self.link_pin(ifindex), ifindex)
    }

    /// Takes a port off the bus.
    ///
    /// # Errors
    /// When the kernel refuses, except that it is no port.
    pub fn remove(&self, ifindex: u32) -> Result<()> {
        if let Some(place) = self.places()?.iter().position(|p| *p == Some(ifindex)) {
            let map = open_data(self.pins, &self.pin_name("ports"))?;
            syscall::delete_index(map.fd().as_fd(), place as u32)
                .map_err(|e| Error::io("remove a port from a bus", e))?;
        }
        self.forget(ifindex)
    }

    fn forget(&self, ifindex: u32) -> Result<()> {
        match fs::remove_file(self.link_pin(ifindex)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove the link of a port", e))
            }
            _ => Ok(()),
        }
    }

    /// Removes what interfaces that vanished left behind.
    fn forget_others(&self, ports: &[u32]) -> Result<()> {
        let prefix = self.pin_name(LINK);
        let is_left = |name: &str| {
            let ifindex = name.strip_prefix(&prefix).and_then(|n| n.parse().ok());
            ifindex.is_some_and(|ifindex: u32| !ports.contains(&ifindex))
        };
        self.pins.remove_all(|name| !is_left(name))
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

/// The programs of all buses, by their numbers.
fn hubs(pins: &Pins) -> Result<HashMap<MapData, u32, HubProgram>> {
    Map::from_map_data(open_data(pins, HUBS_PIN)?)
        .and_then(HashMap::try_from)
        .map_err(failed("open what the buses have lost"))
}
