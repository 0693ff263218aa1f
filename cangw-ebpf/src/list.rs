//! What happens to the rules of a list, one after the other.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_loop;
use cangw_common::abi::{
    CHECKED, Cell, DROP, ECHO_RUN, Flight, HOP_LIMIT, MAX_CELLS, MISFIT, ORIGIN, PASS, RUN,
    RuleCounters, TOO_LONG, Tables, UNSENT, Withheld,
};

use crate::access::Skb;
use crate::flight::{self, Purpose, Shaped};
use crate::maps;
use crate::tap;

/// What to do with each rule of a list.
pub trait Visit {
    /// Whether the first rule is visited outside of the loop: faster for lists of one rule, twice the work for the verifier.
    const UNROLLED: bool = true;
    /// Does it.
    fn visit(walk: &mut Walk<'_>, cell: &Cell);
}

/// Count it; the filters behind the program send. Its form waits in the flight, if there is one.
pub struct Count;
/// Count it as stopped by the target's MTU.
pub struct CountMtu;
/// See whether the target carries the frame.
pub struct CheckMtu;
/// Send a copy, and count that. Its form waits in the flight, if there is one, for the filters that echo.
pub struct Send;

/// A walk over a list.
#[repr(C)]
pub struct Walk<'a> {
    tables: &'a Tables,
    skb: Skb,
    /// Null when all copies look like the frame.
    pub flight: *mut Flight,
    /// Number of the first cell.
    first: u32,
    /// Number of the second.
    next: u32,
    len: u32,
    /// Data bytes of the frame, for the rules' counters.
    bytes: u32,
    /// Set by [`CheckMtu`] when a target does not carry the frame.
    pub misfit: u32,
}

/// A cell of the tables.
#[inline(always)]
pub fn cell(tables: &Tables, index: u32) -> &Cell {
    &tables.cells[index as usize & (MAX_CELLS - 1)]
}

impl<'a> Walk<'a> {
    /// Prepares walks over the list with number `first` for a frame of `len` bytes, `bytes` of which are data.
    #[inline(always)]
    pub fn new(
        tables: &'a Tables,
        skb: Skb,
        flight: *mut Flight,
        first: u32,
        (len, bytes): (u32, u32),
    ) -> Self {
        Self {
            tables,
            skb,
            flight,
            first,
            next: 0,
            len,
            bytes,
            misfit: 0,
        }
    }

    /// Visits every rule of the list.
    #[inline(always)]
    pub fn each<V: Visit>(&mut self) {
        let first = cell(self.tables, self.first);
        let len = u32::from(first.len);
        if len == 0 {
            return;
        }
        self.next = u32::from(first.next);
        let rest = if V::UNROLLED {
            V::visit(self, first);
            len - 1
        } else {
            len
        };
        if rest != 0 {
            // A helper instead of a loop: the verifier looks at its body once, however long the list.
            // SAFETY: `visit_next` has the signature that bpf_loop asks for and `self` outlives the call.
            unsafe {
                bpf_loop(
                    rest,
                    visit_next::<V> as *mut c_void,
                    core::ptr::from_mut(self).cast(),
                    0,
                );
            }
        }
    }
}

/// The body of the loop.
extern "C" fn visit_next<V: Visit>(index: u32, walk: *mut c_void) -> i64 {
    // SAFETY: `each` passes its own walk, which lives on the stack for the whole loop.
    let walk = unsafe { &mut *walk.cast::<Walk<'_>>() };
    let at = if V::UNROLLED {
        walk.next.wrapping_add(index)
    } else if index == 0 {
        walk.first
    } else {
        walk.next.wrapping_add(index - 1)
    };
    let cell = cell(walk.tables, at);
    V::visit(walk, cell);
    0
}

#[inline(always)]
fn sends(cell: &Cell) -> bool {
    cell.flags & UNSENT == 0
}

impl Visit for Count {
    #[inline(always)]
    fn visit(walk: &mut Walk<'_>, cell: &Cell) {
        if !sends(cell) {
            count_unsent(cell, walk.bytes);
            return;
        }
        if cell.flags & CHECKED == 0 {
            count_sent(cell, walk.bytes);
        }
        if cell.flags & RUN != 0
            // SAFETY: a value of a per-CPU map, valid until the program ends; nothing else refers to it during the walk.
            && let Some(flight) = unsafe { walk.flight.as_mut() }
        {
            flight::queue(flight, cell.form());
        }
    }
}

impl Visit for CountMtu {
    #[inline(always)]
    fn visit(walk: &mut Walk<'_>, cell: &Cell) {
        if sends(cell) {
            count_misfit(cell);
        } else {
            count_unsent(cell, walk.bytes);
        }
    }
}

impl Visit for CheckMtu {
    #[inline(always)]
    fn visit(walk: &mut Walk<'_>, cell: &Cell) {
        if sends(cell) && !walk.skb.fits(cell.ifindex, walk.len) {
            walk.misfit = 1;
        }
    }
}

impl Visit for Send {
    const UNROLLED: bool = false;

    #[inline(always)]
    fn visit(walk: &mut Walk<'_>, cell: &Cell) {
        if !sends(cell) {
            count_unsent(cell, walk.bytes);
            return;
        }
        // SAFETY: as in `Count`.
        if let Some(flight) = unsafe { walk.flight.as_mut() } {
            let form = cell.form();
            if cell.flags & ECHO_RUN != 0 {
                flight::queue(flight, form);
            }
            if !walk.skb.fits(cell.ifindex, walk.len) {
                count_misfit(cell);
                return;
            }
            match flight::shape(walk.skb, flight, 0, u32::from(form), Purpose::Program) {
                Shaped::Ready => {}
                Shaped::NoMemory => {
                    count_sent(cell, walk.bytes);
                    count_refused(cell);
                    return;
                }
                kept @ (Shaped::TooLong | Shaped::Withheld) => {
                    if kept == Shaped::TooLong {
                        with_rule(cell, |r| &raw mut r.too_long);
                    }
                    // It is a run of its own.
                    if cell.flags & ECHO_RUN != 0 {
                        flight::skip_last(flight);
                    }
                    return;
                }
            }
        } else if !walk.skb.fits(cell.ifindex, walk.len) {
            count_misfit(cell);
            return;
        }
        count_sent(cell, walk.bytes);
        if !walk.skb.send_copy(cell.ifindex) {
            count_refused(cell);
        }
    }
}

/// Counts a frame that a rule sends.
#[inline(always)]
pub fn count_sent(cell: &Cell, bytes: u32) {
    sent(cell.rule, bytes);
}

/// The same, by the slot of the rule.
#[inline(always)]
pub fn sent(slot: u16, bytes: u32) {
    sent_often(slot, 1, bytes);
}

/// The same for several copies.
#[inline(always)]
fn sent_often(slot: u16, times: u64, bytes: u32) {
    if let Some(rule) = maps::rule(slot) {
        // SAFETY: as in `add`.
        let (frames, all_bytes) = unsafe { (&raw mut (*rule).sent, &raw mut (*rule).bytes) };
        maps::count(frames, times);
        maps::count(all_bytes, times * u64::from(bytes));
    }
}

/// Counts a frame that the target of a rule is too small for.
#[inline(always)]
pub fn count_misfit(cell: &Cell) {
    with_rule(cell, |r| &raw mut r.mtu);
    tap::withheld(u32::from(cell.rule), Withheld::Mtu);
}

/// Counts a copy that the kernel had no memory for, or the target did not take.
#[inline(always)]
fn count_refused(cell: &Cell) {
    with_rule(cell, |r| &raw mut r.refused);
    tap::withheld(u32::from(cell.rule), Withheld::Refused);
}

/// Counts what a rule that does not send does.
#[inline(always)]
fn count_unsent(cell: &Cell, bytes: u32) {
    if cell.flags & UNSENT == PASS {
        return sent_often(cell.rule, u64::from(cell.extra), bytes);
    }
    add(cell.rule, u64::from(cell.extra), |r| {
        match cell.flags & UNSENT {
            HOP_LIMIT => &raw mut r.hop_limit,
            ORIGIN => &raw mut r.origin,
            MISFIT => &raw mut r.mtu,
            TOO_LONG => &raw mut r.too_long,
            DROP => &raw mut r.by_rule,
            // WAITING
            _ => &raw mut r.waiting,
        }
    });
}

/// Counts once for a rule.
#[inline(always)]
fn with_rule(cell: &Cell, counter: impl Fn(&mut RuleCounters) -> *mut u64) {
    add(cell.rule, 1, counter);
}

/// Adds to a counter of a rule.
#[inline(always)]
pub fn add(slot: u16, times: u64, counter: impl Fn(&mut RuleCounters) -> *mut u64) {
    if let Some(rule) = maps::rule(slot) {
        // SAFETY: the pointer is to this CPU's value of the map, valid until the program ends; no other reference exists here.
        let counter = counter(unsafe { &mut *rule });
        maps::count(counter, times);
    }
}
