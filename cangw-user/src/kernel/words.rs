//! Words that the programs and userspace change while frames pass: `cangw_common::abi::Words`.

use std::mem::offset_of;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use aya::Ebpf;
use aya::maps::{Map, MapData};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY;
use cangw_common::abi::{self, FanOut, INTERFACES, SHORTCUTS, Shortcut};
use memmap2::{MmapOptions, MmapRaw};

use super::bpf::failed;
use super::maps::open_data;
use super::pins::Pins;
use super::syscall;
use super::table::{MMAPABLE, bytes};
use crate::error::{Error, Result};

/// Their pin.
const PIN: &str = "WORDS";
/// The section of the object in which the programs have them.
const SECTION: &str = ".bss.words";

/// The words of a network namespace, in the memory that the programs use.
pub struct Words(MmapRaw);

impl Words {
    /// Opens them.
    ///
    /// # Errors
    /// When they are not pinned, or memory is short.
    pub fn open(pins: &Pins) -> Result<Self> {
        let map = open_data(pins, PIN)?;
        MmapOptions::new()
            .len(size_of::<abi::Words>())
            .map_raw(map.fd().as_fd().as_raw_fd())
            .map(Self)
            .map_err(|e| Error::io(format!("use the map {PIN}"), e))
    }

    /// The word `offset` bytes into them.
    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(
            offset + size_of::<u64>() <= self.0.len() && offset.is_multiple_of(size_of::<u64>())
        );
        // SAFETY: the mapping has the word, as checked above, and lives as long as the reference; all who share it change it atomically.
        unsafe { AtomicU64::from_ptr(self.0.as_mut_ptr().add(offset).cast()) }
    }

    /// Who listens on the interface in a slot, or on all.
    pub(super) fn listeners_of(&self, slot: Option<u32>) -> &AtomicU64 {
        let Some(slot) = slot else {
            return self.word(offset_of!(abi::Words, listeners_on_all));
        };
        assert!(slot < INTERFACES);
        self.word(offset_of!(abi::Words, listeners) + slot as usize * size_of::<u64>())
    }

    /// Address of the function by which can-gw receives.
    pub(super) fn can_gw(&self) -> &AtomicU64 {
        self.word(offset_of!(abi::Words, can_gw))
    }

    /// How often an interface was about to go down.
    pub(super) fn closings(&self) -> &AtomicU64 {
        self.word(offset_of!(abi::Words, fan_out) + offset_of!(FanOut, closings))
    }

    /// For which number of these all targets of fan-outs were up.
    pub(super) fn armed(&self) -> &AtomicU64 {
        self.word(offset_of!(abi::Words, fan_out) + offset_of!(FanOut, armed))
    }

    /// What is fanned out of the interface in a slot.
    pub(super) fn source(&self, slot: u32) -> &AtomicU64 {
        let place = offset_of!(FanOut, sources) + slot as usize * size_of::<u64>();
        self.word(offset_of!(abi::Words, fan_out) + place)
    }
}

/// What programs know of most frames ([`Shortcut`]). What an interface has there is forgotten before its tables are switched, and written anew when the kernel has
/// waited for all programs since.
impl Words {
    /// The words of a place.
    fn shortcut_words(&self, ifindex: u32) -> impl Iterator<Item = &AtomicU32> {
        let place = (ifindex % SHORTCUTS) as usize * size_of::<Shortcut>();
        let offset = offset_of!(abi::Words, shortcuts) + place;
        assert!(offset + size_of::<Shortcut>() <= self.0.len());
        (offset..)
            .step_by(size_of::<u32>())
            .take(size_of::<Shortcut>() / size_of::<u32>())
            // SAFETY: the mapping has the word, as checked above, and lives as long as the reference; all who share it change it atomically.
            .map(|offset| unsafe { AtomicU32::from_ptr(self.0.as_mut_ptr().add(offset).cast()) })
    }

    /// Whether programs know this of an interface, or with `None` nothing.
    #[must_use]
    pub fn has_shortcut(&self, ifindex: u32, shortcut: Option<&Shortcut>) -> bool {
        let mut there = self
            .shortcut_words(ifindex)
            .map(|word| word.load(Ordering::SeqCst));
        match shortcut {
            Some(shortcut) => there.eq(words_of(shortcut)),
            None => there.next() != Some(ifindex),
        }
    }

    /// Lets programs know nothing of an interface. Those that run may still go by what was known until the kernel has waited for them.
    pub fn forget_shortcut(&self, ifindex: u32) {
        if let Some(index) = self.shortcut_words(ifindex).next() {
            let _ = index.compare_exchange(ifindex, 0, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// Lets programs know this of an interface, unless another interface has the place.
    pub fn set_shortcut(&self, shortcut: &Shortcut) {
        let mut there = self.shortcut_words(shortcut.ifindex);
        let Some(index) = there
            .next()
            .filter(|index| index.load(Ordering::SeqCst) == 0)
        else {
            return;
        };
        for (word, value) in there.zip(words_of(shortcut).skip(1)) {
            word.store(value, Ordering::SeqCst);
        }
        index.store(shortcut.ifindex, Ordering::SeqCst);
    }
}

fn words_of(shortcut: &Shortcut) -> impl Iterator<Item = u32> {
    bytes(shortcut)
        .as_chunks()
        .0
        .iter()
        .map(|word| u32::from_ne_bytes(*word))
}

/// Creates and pins the words, if they are not there. aya would create a map that cannot be mapped into memory.
///
/// # Errors
/// When memory is short.
pub(super) fn create(pins: &Pins) -> Result<()> {
    let path = pins.path(PIN);
    if path.exists() {
        return Ok(());
    }
    let map = aya_obj::Map::new_from_params(
        BPF_MAP_TYPE_ARRAY as u32,
        size_of::<u32>() as u32,
        size_of::<abi::Words>() as u32,
        1,
        MMAPABLE,
    );
    MapData::create(map, PIN, None)
        .map_err(failed(format!("create the map {PIN}")))?
        .pin(path)
        .map_err(failed(format!("pin the map {PIN}")))
}

/// Gives programs that are to be loaded the pinned words in place of their object's own ones. (aya writes the beginnings of an object's variables
/// into their map each time, so it must not be told of the pin.)
///
/// # Errors
/// When they are not pinned.
pub(super) fn give_to(ebpf: &Ebpf, pins: &Pins) -> Result<()> {
    let Some(Map::Array(own)) = ebpf.map(SECTION) else {
        return Err(Error::Bpf {
            what: format!("find the section {SECTION}"),
            message: "it is missing from the object; build cangw again".into(),
        });
    };
    let pinned = open_data(pins, PIN)?;
    syscall::replace(own.fd().as_fd(), pinned.fd().as_fd())
        .map_err(|e| Error::io(format!("use the map {PIN}"), e))
}
