//! A frame whose copies differ: tc sends a run of copies that look the same, the next program gives the frame another form.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT, TC_ACT_STOLEN, TC_ACT_UNSPEC};
use cangw_common::abi::{
    self, Flight, KEEP_STAMP, LOCAL_IF_UNSENT, NEVER_LOCAL, QUEUE, Reason, Tables, Withheld, form,
};
use cangw_common::edit::{CHECKED, DUPLICATE, Edit, GUARDED, IDENTITY};
use cangw_common::frame::{FrameType, Head, RTR_FLAG, XL_HEAD, field};
use cangw_common::opaque;

use crate::access::Skb;
use crate::guard;
use crate::list;
use crate::maps;
use crate::tap;

/// Lets a form wait.
#[inline(always)]
pub fn queue(flight: &mut Flight, form: u16) {
    flight.queue[(opaque(u64::from(flight.queued)) as usize) & (QUEUE - 1)] = form;
    flight.queued = flight.queued.wrapping_add(1);
}

/// Makes the form that was queued last one that is not sent.
#[inline(always)]
pub fn skip_last(flight: &mut Flight) {
    let last = flight.queued.wrapping_sub(1);
    flight.queue[(opaque(u64::from(last)) as usize) & (QUEUE - 1)] = form::SKIP;
}

/// Whether a frame got its form.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shaped {
    /// It has.
    Ready,
    /// Its length would not fit its type.
    TooLong,
    /// The rule's rate limit or a fault keeps it back, and has counted it.
    Withheld,
    /// The kernel has no memory for a copy.
    NoMemory,
}

/// What a frame is given its form for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A copy that tc sends. Edits that may not fit are counted for their rules.
    Tc,
    /// A copy that the program sends and counts.
    Program,
    /// Nothing that a rule's guard is asked about: an echo of what was sent, or local sockets.
    Other,
}

/// Gives the frame that begins `offset` bytes into the buffer a form.
#[inline(always)]
pub fn shape(skb: Skb, flight: &mut Flight, offset: u32, form: u32, purpose: Purpose) -> Shaped {
    let kept = form & u32::from(form::KEEP) != 0;
    skb.set_stamp(if kept { flight.stamp } else { 0 });
    if flight.damaged != 0 && mend(skb.0, flight) == 0 {
        return Shaped::NoMemory;
    }
    let number = form & u32::from(form::EDIT);
    if number == flight.form {
        return Shaped::Ready;
    }
    if number == 0 {
        return original(skb, flight, offset);
    }
    // There is an edit for every number that userspace wrote.
    let Some(edit) = maps::edit(flight.aux, number) else {
        return Shaped::NoMemory;
    };
    let guarded = flags(edit) & (GUARDED | DUPLICATE) != 0;
    if guarded && purpose != Purpose::Other && guard::admit(flight, flags(edit), edit.rule) == 0 {
        return Shaped::Withheld;
    }
    let shaped = if flags(edit) & IDENTITY != 0 {
        original(skb, flight, offset)
    } else {
        edited(skb, flight, offset, number, edit)
    };
    if shaped == Shaped::TooLong {
        flight.again = 0;
        if purpose != Purpose::Other {
            tap::withheld(edit.rule, Withheld::TooLong);
        }
    }
    if flags(edit) & CHECKED != 0 && purpose == Purpose::Tc {
        match shaped {
            Shaped::Ready => list::sent(edit.rule as u16, flight.bytes),
            Shaped::TooLong => list::add(edit.rule as u16, 1, |r| &raw mut r.too_long),
            Shaped::Withheld | Shaped::NoMemory => {}
        }
    }
    if flight.damage != 0 && shaped == Shaped::Ready && purpose != Purpose::Other {
        damage_bit(skb.0, flight, offset, edit.rule);
    }
    shaped
}

/// Sends a frame without a prefix that its only rule edits, always sends, and leaves nothing of for local sockets. What it was is forgotten,
/// so that the way through the other programs is spared. `bits` are those of the mark that take the frame. A function of its own for its variables' sake.
#[inline(never)]
pub fn send_edited(
    skb: *mut __sk_buff,
    tables: &Tables,
    list: u32,
    frame_type: u32,
    bits: u32,
) -> i32 {
    let skb = Skb(skb);
    let slot = tables.head.slot;
    let rule = list::cell(tables, list);
    if frame_type != FrameType::Classic as u32 && !skb.fits(rule.ifindex, skb.len()) {
        list::count_misfit(rule);
        return TC_ACT_OK;
    }
    // A flight only for its room: on the stack, the verifier would follow every byte through every step of a checksum.
    let (Some(edit), Some((_, room))) = (
        maps::edit(tables.head.aux, u32::from(rule.extra)),
        maps::board(),
    ) else {
        return out_of_memory(slot);
    };
    room.kind = frame_type;
    let kind = room.kind();
    if !skb.copy_frame(kind, &mut room.original) {
        maps::count_reason(slot, Reason::Malformed);
        return TC_ACT_OK;
    }
    if !edit.apply(kind, &room.original, &mut room.work) || !skb.store_frame(kind, 0, &room.work) {
        return out_of_memory(slot);
    }
    if rule.flags & KEEP_STAMP == 0 && skb.stamp() != 0 {
        skb.set_stamp(0);
    }
    let head = room.original.0.first_chunk();
    let bytes = head.map_or(0, |head| Head::from_bytes(*head).data_len(kind));
    list::count_sent(rule, bytes);
    skb.set_mark(u32::from(rule.handle) | bits);
    TC_ACT_UNSPEC
}

/// The flags of an edit, read anew each time, so that the verifier does not look at everything once for each combination of them.
#[inline(always)]
fn flags(edit: &Edit) -> u32 {
    // SAFETY: a reference to a part of a value of a map.
    unsafe { (&raw const edit.flags).read_volatile() }
}

/// Makes the frame what it was.
#[inline(always)]
fn original(skb: Skb, flight: &mut Flight, offset: u32) -> Shaped {
    if flight.form == 0 {
        return Shaped::Ready;
    }
    flight.form = 0;
    ready(skb.store_frame(flight.kind(), offset, &flight.original))
}

/// Makes the frame what an edit makes of the original.
#[inline(always)]
fn edited(skb: Skb, flight: &mut Flight, offset: u32, number: u32, edit: &Edit) -> Shaped {
    let kind = flight.kind();
    if !edit.apply(kind, &flight.original, &mut flight.work) {
        return Shaped::TooLong;
    }
    flight.form = number;
    ready(skb.store_frame(kind, offset, &flight.work))
}

/// Flips a bit of the data, if there are any; the next form begins with taking that back. A function of its own for its variables' sake.
#[inline(never)]
fn damage_bit(skb: *mut __sk_buff, flight: &mut Flight, offset: u32, rule: u32) {
    let skb = Skb(skb);
    let random = flight.damage;
    flight.damage = 0;
    let mut head = [0u8; 4];
    if !skb.load(offset + field::LEN as u32, &mut head) {
        return;
    }
    let (begin, len) = if flight.kind == FrameType::Xl as u32 {
        (XL_HEAD, u32::from(u16::from_ne_bytes([head[2], head[3]])))
    } else {
        (field::DATA as u32, u32::from(head[0]))
    };
    if len == 0 || flight.kind == FrameType::Classic as u32 && flight.id & RTR_FLAG != 0 {
        return;
    }
    let bit = random % (len * 8);
    let at = offset + begin + bit / 8;
    let mut byte = [0u8; 1];
    if !skb.load(at, &mut byte) {
        return;
    }
    if skb.store(at, &[byte[0] ^ (1 << (bit % 8))]) {
        flight.damaged = at;
        flight.undamaged = u32::from(byte[0]);
        guard::count_damaged(rule);
    }
}

/// Takes back what [`damage_bit`] did; 0 when the kernel has no memory for that.
#[inline(never)]
fn mend(skb: *mut __sk_buff, flight: &mut Flight) -> u32 {
    let at = flight.damaged;
    flight.damaged = 0;
    u32::from(Skb(skb).store(at, &[flight.undamaged as u8]))
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
    if form == u32::from(form::SKIP) {
        skb.set_mark(0);
        return TC_ACT_UNSPEC;
    }
    if form == u32::from(form::END) {
        skb.set_mark(0);
        if flight.local == NEVER_LOCAL {
            return TC_ACT_SHOT;
        }
        if flight.local == LOCAL_IF_UNSENT && flight.sent != 0 {
            return TC_ACT_STOLEN;
        }
        return match shape(skb, flight, prefix, u32::from(form::KEEP), Purpose::Other) {
            Shaped::NoMemory => out_of_memory(flight.slot),
            _ => TC_ACT_OK,
        };
    }
    // A frame with a prefix was sent and counted by the program.
    let purpose = if prefix == 0 {
        Purpose::Tc
    } else {
        Purpose::Other
    };
    match shape(skb, flight, prefix, form, purpose) {
        Shaped::Ready => {
            flight.sent = 1;
            skb.set_mark(flight.mark);
        }
        // Without the mark no filter sends it.
        Shaped::Withheld => {
            flight.sent = 1;
            skb.set_mark(0);
        }
        Shaped::TooLong => skb.set_mark(0),
        Shaped::NoMemory => return out_of_memory(flight.slot),
    }
    TC_ACT_UNSPEC
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
