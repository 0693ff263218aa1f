//! A virtual bus: interfaces in a network namespace of which each gives its frames to all others.
//!
//! One program and one map serve a bus, pinned for as long as the bus is there.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use aya::EbpfLoader;
use aya::maps::{DevMap, HashMap, Map, MapData};
use aya::programs::{TracePoint, Xdp};
use aya_obj::programs::XdpAttachType;

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
const LOST: &str = "LOST";
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
        self.pin(&format!("link_{ifindex}"))
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
            .map_pin_path(LOST, self.pin("lost"))
            .load(OBJECT)
            .map_err(failed("load the program of a bus"))?;
        let link = self.pin("link_lost");
        if !link.exists() {
            let lost: &mut TracePoint = bpf::program(&mut ebpf, LOST_PROGRAM)?;
            lost.load().map_err(failed("load the program of a bus"))?;
            bpf::count_lost(lost, &link)?;
        }
        let program: &mut Xdp = bpf::program(&mut ebpf, PROGRAM)?;
        program
            .load()
            .map_err(failed("load the program of a bus"))?;
        let number = program
            .info()
            .map_err(failed("ask for the program of a bus"))?
            .id();
        self.lost_map()?
            .insert(number, 0, 0)
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

    fn lost_map(&self) -> Result<HashMap<MapData, u32, u64>> {
        Map::from_map_data(open_data(self.pins, &self.pin_name("lost"))?)
            .and_then(HashMap::try_from)
            .map_err(failed("open what a bus has lost"))
    }

    /// Frames that some ports missed, because another was down or about to vanish, or memory was short.
    ///
    /// # Errors
    /// When it is not there.
    pub fn lost(&self) -> Result<u64> {
        let map = self.lost_map()?;
        map.iter().try_fold(0, |sum, entry| {
            let (_, frames) = entry.map_err(failed("read what a bus has lost"))?;
            Ok(sum + frames)
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
        match places.iter().position(Option::is_none) {
            Some(free) => {
                self.attach(ifindex)?;
                self.map()?
                    .set(free as u32, ifindex, None, 0)
                    .map_err(failed("add a port to a bus"))
            }
            None => {
                let mut ports: Vec<u32> = places.into_iter().flatten().collect();
                ports.push(ifindex);
                self.load(2 * (ports.len() as u32 - 1).max(LEAST), &ports)?;
                // Each port changes from the old program to the new one at once; both know all ports that were there.
                ports.into_iter().try_for_each(|port| self.attach(port))
            }
        }
    }

    fn attach(&self, ifindex: u32) -> Result<()> {
        let mut xdp = Xdp::from_pin(self.pin("program"), XdpAttachType::Interface)
            .map_err(failed("open the program of a bus"))?;
        attach_pinned(&mut xdp, &self.link_pin(ifindex), ifindex)
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

    /// Removes what an interface that is gone left behind.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn forget(&self, ifindex: u32) -> Result<()> {
        match fs::remove_file(self.link_pin(ifindex)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove the link of a port", e))
            }
            _ => Ok(()),
        }
    }

    /// Removes all of it.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn delete(&self) -> Result<()> {
        let prefix = format!("{}+", self.bus);
        self.pins.remove_all(|name| !name.starts_with(&prefix))
    }
}
