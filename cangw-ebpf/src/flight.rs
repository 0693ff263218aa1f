//! A frame whose copies differ: tc sends a run of copies that look the same, the next program gives the frame another form.

use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT, TC_ACT_STOLEN, TC_ACT_UNSPEC};
use cangw_common::abi::{self, Flight, QUEUE, Reason, form};
use cangw_common::edit::CHECKED;
use cangw_common::opaque;

use crate::access::Skb;
use crate::list;
use crate::maps;

/// Lets a form wait.
#[inline(always)]
pub fn queue(flight: &mut Flight, form: u16) {
    flight.queue[(opaque(u64::from(flight.queued)) as usize) & (QUEUE - 1)] = form;
    flight.queued = flight.queued.wrapping_add(1);
}

/// Whether a frame got its form.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shaped {
    /// It has.
    Ready,
    /// Its length would not fit its type.
    TooLong,
    /// The kernel has no memory for a copy.
    NoMemory,
}

/// Gives the frame that begins `offset` bytes into the buffer a form. With `counts`, edits that may not fit are counted
/// for their rules.
#[inline(always)]
pub fn shape(skb: Skb, flight: &mut Flight, offset: u32, form: u32, counts: bool) -> Shaped {
    let kept = form & u32::from(form::KEEP) != 0;
    skb.set_stamp(if kept { flight.stamp } else { 0 });
    let number = form & u32::from(form::EDIT);
    if number == flight.form {
        return Shaped::Ready;
    }
    let kind = flight.kind();
    if number == 0 {
        flight.form = 0;
        return ready(skb.store_frame(kind, offset, &flight.original));
    }
    // There is an edit for every number that userspace wrote.
    let Some(edit) = maps::edit(flight.aux, number) else {
        return Shaped::NoMemory;
    };
    let fits = edit.apply(kind, &flight.original, &mut flight.work);
    if edit.flags & CHECKED != 0 && counts {
        if fits {
            list::add(edit.rule as u16, 1, |r| &raw mut r.sent);
        } else {
            list::add(edit.rule as u16, 1, |r| &raw mut r.too_long);
        }
    }
    if !fits {
        return Shaped::TooLong;
    }
    flight.form = number;
    ready(skb.store_frame(kind, offset, &flight.work))
}

#[inline(always)]
fn ready(stored: bool) -> Shaped {
    if stored {
        Shaped::Ready
    } else {
        Shaped::NoMemory
    }
}

/// Prepares the next run: `TC_ACT_UNSPEC` leads to the filter that sends it. After the last run the frame is what it was,
/// for the local sockets.
#[inline(always)]
pub fn advance(skb: Skb, flight: &mut Flight) -> i32 {
    let next = opaque(u64::from(flight.taken)) as usize & (QUEUE - 1);
    let form = if flight.taken >= flight.queued {
        u32::from(form::END)
    } else {
        u32::from(flight.queue[next])
    };
    flight.taken = flight.taken.wrapping_add(1);
    let prefix = flight.prefix;
    if form == u32::from(form::END) {
        skb.set_mark(0);
        if flight.exclusive != 0 && flight.sent != 0 {
            return TC_ACT_STOLEN;
        }
        return match shape(skb, flight, prefix, u32::from(form::KEEP), false) {
            Shaped::Ready | Shaped::TooLong => TC_ACT_OK,
            Shaped::NoMemory => out_of_memory(flight.slot),
        };
    }
    // A frame with a prefix was sent and counted by the program.
    match shape(skb, flight, prefix, form, prefix == 0) {
        Shaped::Ready => {
            flight.sent = 1;
            skb.set_mark(flight.mark);
            TC_ACT_UNSPEC
        }
        // Without the mark no filter sends it.
        Shaped::TooLong => {
            skb.set_mark(0);
            TC_ACT_UNSPEC
        }
        Shaped::NoMemory => out_of_memory(flight.slot),
    }
}

/// Ends a frame that cannot be what it should be; wrong bytes must go nowhere.
#[inline(always)]
pub fn out_of_memory(slot: u32) -> i32 {
    maps::count_reason(slot, Reason::NoMemory);
    TC_ACT_SHOT
}

/// Between two filters of a list: another form, or, for a list that is only long, nothing.
#[inline(always)]
pub fn step(skb: Skb) -> i32 {
    let Some(ticket) = skb.ticket() else {
        return TC_ACT_UNSPEC;
    };
    match maps::flight(ticket) {
        Some(flight) => advance(skb, flight),
        None => out_of_memory(abi::slot(skb.ifindex(), 0)),
    }
}
