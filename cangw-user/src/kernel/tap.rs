//! A capture's end in the kernel: programs at tracepoints that tell a ring buffer what comes, what leaves and what is kept back.
//!
//! The programs go with the process. Its place in the map of ring buffers is a folder among the pins that it holds locked, so that whoever comes next
//! sees that it died.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use aya::Ebpf;
use aya::maps::{Map, MapData, PerCpuArray, PerCpuValues, RingBuf};
use aya::programs::RawTracePoint;
use aya::util::nr_cpus;
use cangw_common::abi;

use super::bpf::{self, failed};
use super::listeners::Known;
use super::maps::{self, TAPS};
use super::pins::Pins;
use super::syscall;
use crate::error::{Error, Result};

/// The programs and where they are attached.
const PROGRAMS: [(&str, &str); 3] = [
    ("cangw_received", "netif_receive_skb"),
    ("cangw_left", "net_dev_queue"),
    ("cangw_redirected", "xdp_redirect"),
];
const MISSED: &str = "TAPS_MISSED";

/// A capture.
pub struct Tap {
    ring: RingBuf<MapData>,
    missed: PerCpuArray<MapData, u64>,
    place: u32,
    /// Until [`Self::detach`].
    programs: Option<Ebpf>,
    /// Held as long as the capture lives.
    _place: File,
}

impl Tap {
    /// Begins, with a ring buffer of so many bytes (a power of two). The gateway's maps are pinned.
    ///
    /// # Errors
    /// When all places are taken, or the kernel refuses.
    pub fn begin(pins: &Pins, bytes: u32) -> Result<Self> {
        let known = Known::find()?;
        let taken = (0..abi::TAPS).find_map(|place| match pins.take_capture(place) {
            Ok(None) => None,
            Ok(Some(file)) => Some(Ok((place, file))),
            Err(e) => Some(Err(e)),
        });
        let (place, file) = taken.transpose()?.ok_or_else(|| Error::Unsupported {
            what: format!("more than {} captures at a time", abi::TAPS),
            remedy: "end another one".into(),
        })?;
        let ring = maps::ring(bytes)?;
        let mut missed: PerCpuArray<MapData, u64> = maps::open(pins, MISSED)?;
        let none = nr_cpus().map_err(|(what, e)| Error::io(what, e))?;
        PerCpuValues::try_from(vec![0; none])
            .map_err(|e| Error::io("count what a capture misses", e))
            .and_then(|none| {
                missed
                    .set(place, none, 0)
                    .map_err(failed("count what a capture misses"))
            })?;
        let taps = maps::open_data(pins, TAPS)?;
        syscall::set_map(taps.fd().as_fd(), place, ring.fd().as_fd())
            .map_err(|e| Error::io("let the gateway know a capture", e))?;
        let mut programs = bpf::open_knowing(pins, Some(&known), ("TAP", &place))?;
        for (name, tracepoint) in PROGRAMS {
            let program: &mut RawTracePoint = bpf::program(&mut programs, name)?;
            program
                .load()
                .map_err(failed(format!("load the program {name}")))?;
            program
                .attach(tracepoint)
                .map_err(failed(format!("attach to the tracepoint {tracepoint}")))?;
        }
        let ring =
            RingBuf::try_from(Map::from_map_data(ring).map_err(failed("read a ring buffer"))?)
                .map_err(failed("read a ring buffer"))?;
        Ok(Self {
            ring,
            missed,
            place,
            programs: Some(programs),
            _place: file,
        })
    }

    /// Its place.
    #[must_use]
    pub fn place(&self) -> u32 {
        self.place
    }

    /// The next record with what stands behind it, if there is one.
    pub fn take(&mut self) -> Option<impl std::ops::Deref<Target = [u8]> + '_> {
        self.ring.next()
    }

    /// What is readable when there are records.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring buffer lives as long as the borrow.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }

    /// Records that found no room until now, by CPU.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn missed(&self) -> Result<impl Iterator<Item = (u32, u64)> + Clone> {
        let missed = self.missed.get(&self.place, 0);
        let missed = missed.map_err(failed("count what a capture misses"))?;
        Ok((0..).zip(missed.to_vec()))
    }

    /// Ends: no record comes any more. What is in the ring buffer can still be read.
    pub fn detach(&mut self) {
        self.programs = None;
    }
}

/// Forgets captures whose processes are gone. Whether one is alive.
///
/// # Errors
/// When something cannot be removed.
pub fn sweep(pins: &Pins) -> Result<bool> {
    let mut alive = false;
    for place in 0..abi::TAPS {
        if !pins.has_capture(place) {
            continue;
        }
        match pins.take_capture(place)? {
            Some(_) => forget(pins, place)?,
            None => alive = true,
        }
    }
    Ok(alive)
}

/// Forgets the capture at a place.
///
/// # Errors
/// When something cannot be removed.
pub fn forget(pins: &Pins, place: u32) -> Result<()> {
    if pins.path(TAPS).exists() {
        let taps = maps::open_data(pins, TAPS)?;
        syscall::delete_index(taps.fd().as_fd(), place)
            .map_err(|e| Error::io("let the gateway forget a capture", e))?;
    }
    pins.leave_capture(place)
}
