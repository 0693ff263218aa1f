//! The maps, private behind named functions. Userspace fills them before it attaches a program.

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, DevMap, HashMap, PerCpuArray, ProgramArray, RingBuf};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::TcContext;
use cangw_common::abi::{
    self, BucketKey, CrossChunk, FLIGHTS as FLIGHT_COUNT, FanCounters, Flight, Guard, Halves,
    InterfaceCounters, Reason, RuleCounters, Shortcut, Tables, TapRoom, WatchKey, Watched, Words,
    XlTables,
};
use cangw_common::classify::{ListId, Lookup};
use cangw_common::edit::Edit;
use cangw_common::opaque;

use crate::access;
pub use crate::counter::count;
use crate::shared::Shared;
use crate::word;

/// `BPF_F_INNER_MAP`: inner maps may have any number of entries.
const INNER_MAP: usize = 1 << 12;
/// `BPF_NOEXIST`: an entry that is there stays.
const BPF_NOEXIST: u64 = 1;
/// `BPF_F_NO_PREALLOC`.
const NO_PREALLOC: usize = 1;
const INTERFACES: usize = abi::INTERFACES as usize;
/// Two generations of each interface's auxiliary tables: the live one and the one being built.
const AUX: usize = 2 * INTERFACES;

#[btf_map]
static TABLES: ArrayOfMaps<Array<Tables, 1>, INTERFACES> = ArrayOfMaps::new();
#[btf_map]
static EXACT: ArrayOfMaps<HashMap<u32, u32, 1, NO_PREALLOC>, AUX> = ArrayOfMaps::new();
#[btf_map]
static HALVES: ArrayOfMaps<Array<Halves, 1>, { AUX * abi::SPACES as usize }> = ArrayOfMaps::new();
#[btf_map]
static CROSS: ArrayOfMaps<Array<CrossChunk, 1, INNER_MAP>, AUX> = ArrayOfMaps::new();
#[btf_map]
static EDITS: ArrayOfMaps<Array<Edit, 1, INNER_MAP>, AUX> = ArrayOfMaps::new();
#[btf_map]
static XL: ArrayOfMaps<Array<XlTables, 1>, AUX> = ArrayOfMaps::new();
#[btf_map]
static GUARDS: HashMap<u32, Guard, { abi::MAX_RULES as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static BUCKETS: HashMap<BucketKey, u64, { abi::MAX_BUCKETS as usize }, NO_PREALLOC> =
    HashMap::new();
#[btf_map]
static WATCHED: HashMap<WatchKey, Watched, { abi::MAX_WATCHED as usize }, NO_PREALLOC> =
    HashMap::new();
#[btf_map]
static FLIGHTS: PerCpuArray<Flight, { FLIGHT_COUNT as usize }> = PerCpuArray::new();
#[btf_map]
static TICKETS: PerCpuArray<u64, 1> = PerCpuArray::new();
#[btf_map]
static PROGRAMS: ProgramArray<2> = ProgramArray::new();
#[btf_map]
/// Userspace makes it as large as it has to be.
static RULES: PerCpuArray<RuleCounters, 1> = PerCpuArray::new();
#[btf_map]
static REASONS: PerCpuArray<InterfaceCounters, INTERFACES> = PerCpuArray::new();
#[unsafe(link_section = ".bss.words")]
static WORDS: Shared<Words> = Shared::new(Words::NONE);
/// The targets to which frames of an interface go all at once, by its auxiliary tables.
#[btf_map]
static FAN_TARGETS: ArrayOfMaps<DevMap<1>, AUX> = ArrayOfMaps::new();
/// How many frames did, by the same index.
#[btf_map]
static FAN_COUNTS: PerCpuArray<FanCounters, AUX> = PerCpuArray::new();
/// The numbers of the XDP programs of this network namespace.
#[btf_map]
static XDP_PROGRAMS: HashMap<u32, u32, { abi::MAX_XDP_PROGRAMS }, NO_PREALLOC> = HashMap::new();
/// The ring buffers of captures.
#[btf_map]
static TAPS: ArrayOfMaps<RingBuf<u8, { abi::MIN_RING as usize }>, { abi::TAPS as usize }> =
    ArrayOfMaps::new();
/// Records that found no room, by the same index.
#[btf_map]
static TAPS_MISSED: PerCpuArray<u64, { abi::TAPS as usize }> = PerCpuArray::new();
#[btf_map]
static TAP_ROOM: PerCpuArray<TapRoom, 1> = PerCpuArray::new();
#[btf_map]
static LAST: PerCpuArray<LastRedirect, 1> = PerCpuArray::new();

/// Debugging output through aya-log; the verifier removes it from the program while this is 0.
#[unsafe(no_mangle)]
static DEBUG: Global<u8> = Global::new(0);

/// Whether to log.
#[inline(always)]
pub fn debug() -> bool {
    DEBUG.load() != 0
}

/// The redirect that this CPU has under way, for `cangw_redirect_err`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LastRedirect {
    /// Source interface; 0 when there is none.
    pub source: u32,
    /// Target interface.
    pub target: u32,
    /// Slot of the rule that sent it.
    pub rule: u16,
    /// 0.
    pub reserved: u16,
}

/// The tables of an interface.
#[inline(always)]
pub fn tables(ifindex: u32) -> Option<&'static Tables> {
    let mut probe = 0;
    while probe < abi::PROBES {
        let slot = abi::slot(ifindex, probe);
        if let Some(tables) = TABLES.get_value(slot, &0)
            && tables.head.ifindex == ifindex
        {
            return Some(tables);
        }
        probe += 1;
    }
    None
}

/// The maps that belong to [`Tables`].
pub struct Aux;

impl Lookup for Aux {
    #[inline(always)]
    fn exact(&self, aux: u32, key: u32) -> Option<ListId> {
        let map = EXACT.get(aux)?;
        // SAFETY: userspace fills the map before it becomes reachable and never changes an entry afterwards.
        unsafe { map.get(key) }.map(|list| *list as ListId)
    }

    #[inline(always)]
    fn halves(&self, aux: u32, space: u16, high_key: usize, low_key: usize) -> Option<(u16, u16)> {
        let halves = HALVES.get_value(aux * abi::SPACES + u32::from(space), &0)?;
        let high = halves.high.get(opaque(high_key as u64) as usize)?;
        let low = halves.low.get(opaque(low_key as u64) as usize)?;
        Some((*high, *low))
    }

    #[inline(always)]
    fn cross(&self, aux: u32, chunk: u32, within: usize) -> Option<ListId> {
        CROSS.get_value(aux, &chunk).map(|c| c.0[within])
    }

    #[inline(always)]
    fn xl(&self, aux: u32) -> Option<&XlTables> {
        XL.get_value(aux, &0)
    }
}

/// Room for a frame in flight, with a ticket by which [`flight`] finds it again.
#[inline(always)]
pub fn board() -> Option<(u32, &'static mut Flight)> {
    // Atomic, for the reason given at `count`.
    let ticket = access::add(TICKETS.get_ptr_mut(0)?, 1) as u32;
    let flight = FLIGHTS.get_ptr_mut(ticket % FLIGHT_COUNT)?;
    // SAFETY: a value of a per-CPU map, valid until the program ends. Another frame on this CPU takes another ticket; the one that
    // takes the same room, 16 tickets later, shows in `Flight::ticket`.
    let flight = unsafe { &mut *flight };
    flight.ticket = ticket;
    Some((ticket, flight))
}

/// The flight with this ticket, if its room was not taken by another meanwhile.
#[inline(always)]
pub fn flight(ticket: u32) -> Option<&'static mut Flight> {
    let flight = FLIGHTS.get_ptr_mut(ticket % FLIGHT_COUNT)?;
    // SAFETY: as in `board`.
    let flight = unsafe { &mut *flight };
    (flight.ticket == ticket).then_some(flight)
}

/// The programs that others go on with, by their places in the map. Together they would be too much for the verifier.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Next {
    /// `cangw_step`
    Step = 0,
    /// `cangw_driver`
    Driver = 1,
}

/// Goes on with another program; returns only if it is not there.
#[inline(always)]
pub fn go_on(ctx: &TcContext, next: Next) {
    // SAFETY: nothing of this program is left undone.
    unsafe { PROGRAMS.tail_call(ctx, next as u32) };
}

/// An edit of an interface, by its number from 1.
#[inline(always)]
pub fn edit(aux: u32, number: u32) -> Option<&'static Edit> {
    EDITS.get_value(aux, &number.wrapping_sub(1))
}

/// The guard of a rule that has one.
#[inline(always)]
pub fn guard(rule: u32) -> Option<*mut Guard> {
    GUARDS.get_ptr_mut(rule)
}

/// The state of the rate limit of an identifier; `None` when there is no room for another.
#[inline(always)]
pub fn bucket(key: BucketKey) -> Option<*mut u64> {
    if BUCKETS.get_ptr_mut(key).is_none() {
        // Another CPU may be faster.
        let _ = BUCKETS.insert(key, 0, BPF_NOEXIST);
    }
    BUCKETS.get_ptr_mut(key)
}

/// What is known of an identifier before its first frame. It is no variable because the stack is short.
static UNSEEN: Watched = Watched {
    newest: 0,
    count: 0,
    first: 0,
    last: 0,
    shortest: u64::MAX,
    longest: 0,
    head: [0; 8],
    data: [0; abi::WATCHED_DATA],
    begun: 0,
};

/// What is known of a watched identifier; `None` when there is no room for another.
#[inline(always)]
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "by value it would be copied to the stack"
)]
pub fn watched(key: &WatchKey) -> Option<*mut Watched> {
    if WATCHED.get_ptr_mut(key).is_none() {
        // Another CPU may be faster.
        let _ = WATCHED.insert(key, &UNSEEN, BPF_NOEXIST);
    }
    WATCHED.get_ptr_mut(key)
}

/// Counts of a rule; `None` never happens for rules that userspace wrote.
#[inline(always)]
pub fn rule(slot: u16) -> Option<*mut RuleCounters> {
    RULES.get_ptr_mut(u32::from(slot))
}

/// Counts a frame that no rule looked at.
#[inline(always)]
pub fn count_reason(slot: u32, reason: Reason) {
    if let Some(counters) = REASONS.get_ptr_mut(slot) {
        // SAFETY: the index is below the array's length, so the pointer stays within the map's value.
        count(unsafe { &raw mut (*counters).0[reason as usize] }, 1);
    }
}

/// Whether a local socket listens on an interface, or might.
#[inline(always)]
pub fn is_heard(slot: u32) -> bool {
    let here = word::load(listeners_on(slot));
    abi::is_heard(here | word::load(listeners_on_all()))
}

/// The word of those who listen on the interface in a slot.
#[inline(always)]
pub fn listeners_on(slot: u32) -> *mut u64 {
    let place = slot % abi::INTERFACES;
    // SAFETY: the place lies within the words.
    unsafe { &raw mut (*WORDS.get()).listeners[place as usize] }
}

/// The word of those who listen on all interfaces.
#[inline(always)]
pub fn listeners_on_all() -> *mut u64 {
    // SAFETY: a word of the variable.
    unsafe { &raw mut (*WORDS.get()).listeners_on_all }
}

/// What is known of most frames of an interface, if it is there.
#[inline(always)]
pub fn shortcut(ifindex: u32) -> Option<&'static Shortcut> {
    // SAFETY: the place lies within the words. Userspace changes what an interface has there only when the kernel has waited for all programs that
    // found its index there.
    let shortcut = unsafe { &(*WORDS.get()).shortcuts[(ifindex % abi::SHORTCUTS) as usize] };
    (shortcut.ifindex == ifindex).then_some(shortcut)
}

/// Where the address of `can_can_gw_rcv` is kept.
#[inline(always)]
pub fn can_gw() -> *mut u64 {
    // SAFETY: a word of the variable.
    unsafe { &raw mut (*WORDS.get()).can_gw }
}

/// Remembers the redirect that the kernel is about to carry out.
#[inline(always)]
pub fn remember(redirect: LastRedirect) {
    if let Some(last) = LAST.get_ptr_mut(0) {
        // SAFETY: a per-CPU value; generic XDP runs its redirect on this CPU before the next frame.
        unsafe { *last = redirect };
    }
}

/// The redirect that this CPU has under way.
#[inline(always)]
pub fn last() -> Option<LastRedirect> {
    // SAFETY: as in `remember`.
    LAST.get_ptr(0).map(|last| unsafe { *last })
}

/// Whether a program is this network namespace's at XDP.
#[inline(always)]
pub fn is_our_xdp(program: u32) -> bool {
    XDP_PROGRAMS.get_ptr(program).is_some()
}

/// `BPF_F_BROADCAST`: to all interfaces of the map.
const BROADCAST: u64 = 1 << 3;
/// A place that no map of targets has: with one that is there, the kernel would report it as the target of a redirect that failed
/// (`__bpf_xdp_redirect_map`), and nobody could tell that the frame was for several.
const NOWHERE: u32 = u32::MAX;

/// An interface whose classic frames go to several targets at once.
pub struct FanOutOf {
    aux: u32,
}

/// What is fanned out of an interface, if anything is. Only its first slot is asked, because every frame pays for it: in the rare case that this is
/// another interface's, tc serves the frames.
#[inline(always)]
pub fn fan_out(ifindex: u32) -> Option<FanOutOf> {
    let slot = abi::slot(ifindex, 0) as usize;
    // SAFETY: the slot lies within the words.
    let source = word::load(unsafe { &raw const (*WORDS.get()).fan_out.sources[slot] });
    abi::fan_aux(source, ifindex).map(|aux| FanOutOf { aux })
}

/// Whether all targets were up when userspace looked, and none was about to go down since.
#[inline(always)]
pub fn is_armed() -> bool {
    let words = WORDS.get();
    // SAFETY: words of the variable.
    let (closings, armed) = unsafe {
        (
            &raw const (*words).fan_out.closings,
            &raw const (*words).fan_out.armed,
        )
    };
    word::load(closings) == word::load(armed)
}

impl FanOutOf {
    /// Gives the frame to all targets, and counts it; false when they are not there.
    #[inline(always)]
    pub fn redirect(&self, bytes: u32) -> bool {
        let Some(targets) = FAN_TARGETS.get(self.aux) else {
            return false;
        };
        if targets.redirect(NOWHERE, BROADCAST).is_err() {
            return false;
        }
        if let Some(counters) = FAN_COUNTS.get_ptr_mut(self.aux) {
            // SAFETY: as in `count_reason`.
            let (frames, all_bytes) =
                unsafe { (&raw mut (*counters).frames, &raw mut (*counters).bytes) };
            count(frames, 1);
            count(all_bytes, u64::from(bytes));
        }
        true
    }
}

/// A CAN interface is about to go down. Whether frames were given to several targets at once until now.
#[inline(always)]
pub fn count_closing() -> bool {
    let was_armed = is_armed();
    // SAFETY: a word of the variable.
    count(unsafe { &raw mut (*WORDS.get()).fan_out.closings }, 1);
    was_armed
}

/// Room for a record that does not fit on the stack.
#[inline(always)]
pub fn tap_room() -> Option<&'static mut TapRoom> {
    // SAFETY: a value of a per-CPU map, valid until the program ends. The programs that take it do not interrupt each other: all run in
    // softirqs, or with them off.
    TAP_ROOM.get_ptr_mut(0).map(|room| unsafe { &mut *room })
}

/// The ring buffer of a capture, with the count of its records that found no room; `None` when nobody captures there.
#[inline(always)]
pub fn tap(place: u32) -> Option<(*mut c_void, *mut u64)> {
    let ring = TAPS.get(place)?;
    let missed = TAPS_MISSED.get_ptr_mut(place)?;
    Some((core::ptr::from_ref(ring).cast_mut().cast(), missed))
}
