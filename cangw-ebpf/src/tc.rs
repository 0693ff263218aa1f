//! tc ingress: the engine that does everything.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::programs::TcContext;
use aya_log_ebpf::debug;
use cangw_common::abi::{
    self, CHECKED, Cell, DENY, EXCLUSIVE, LIST_DENIED, LIST_DROP, LIST_ECHO, LIST_FORMS,
    LIST_STAMP, LIST_WATCH, LOCAL, LOCAL_IF_UNSENT, NEVER_LOCAL, Reason, Tables, UNSENT, mark,
};
use cangw_common::classify::{NO_RULE, classify};
use cangw_common::frame::{CLASSIC_LEN, FrameType, Layout, PROTO_CLASSIC, SFF_MASK, layout};

use crate::access::Skb;
use crate::flight::{self, out_of_memory};
use crate::list::{self, CheckMtu, Count, CountMtu, Walk, cell};
use crate::maps::{self, Aux, Next};
use crate::watch;

/// A frame for which there are rules.
pub struct Found {
    /// Slot of the interface.
    pub slot: u32,
    /// Its tables.
    pub tables: &'static Tables,
    /// Where the frame lies.
    pub layout: Layout,
    /// Number of the list.
    pub list: u32,
}

/// Where a frame lies in the buffer; `None` when there is none, or not a whole one.
#[inline(always)]
pub fn layout_of(skb: Skb) -> Option<Layout> {
    layout(FrameType::from_protocol(skb.protocol())?, skb.len())
}

/// Looks a frame up; the verdict when there is no list for it, which is counted.
#[inline(always)]
pub fn find(ctx: &TcContext, layout: Option<Layout>) -> Result<Found, i32> {
    let skb = Skb(ctx.skb.skb);
    let mut state = 0;
    if skb.mark() & mark::ECHO != 0 {
        state = (skb.mark() & mark::STATE) >> mark::STATE_SHIFT;
        if state == 0 {
            return Err(TC_ACT_OK);
        }
    }
    let ifindex = skb.ifindex();
    let Some((slot, tables)) = maps::tables(ifindex) else {
        maps::count_reason(abi::slot(ifindex, 0), Reason::NoTables);
        return Err(TC_ACT_OK);
    };
    if state > tables.head.states {
        // The rules changed while the echo was on its way.
        maps::count_reason(slot, Reason::NoTables);
        return Err(TC_ACT_OK);
    }
    let malformed = || Err(unlisted(slot, tables, state, Reason::Malformed));
    let Some(layout) = layout else {
        return malformed();
    };
    let Some(head) = skb.head(layout.prefix) else {
        return malformed();
    };
    if !head.is_valid(layout) {
        return malformed();
    }
    let id = head.id;
    match classify(tables, &Aux, layout.kind, id, || skb.xl_fields()) {
        Ok(NO_RULE) => Err(unlisted(slot, tables, state, Reason::Unmatched)),
        Ok(list) => {
            if maps::debug() {
                debug!(ctx, "if {} id {:x} list {}", ifindex, id, list);
            }
            let list = u32::from(list) + state;
            Ok(Found {
                slot,
                tables,
                layout,
                list,
            })
        }
        Err(_) => malformed(),
    }
}

/// Counts a frame without a list, and says what becomes of it. A function of its own, so that frames with a list do not pay for the policy.
#[inline(never)]
fn unlisted(slot: u32, tables: &Tables, state: u32, reason: Reason) -> i32 {
    // The policy is for frames that enter here; an echo entered elsewhere.
    let denies = tables.head.flags & DENY != 0 && state == 0;
    let denied = denies && matches!(reason, Reason::Unmatched);
    maps::count_reason(slot, if denied { Reason::Denied } else { reason });
    if denies { TC_ACT_SHOT } else { TC_ACT_OK }
}

/// Receives a frame. `TC_ACT_OK` lets it go on to local sockets; `TC_ACT_UNSPEC` leads to the filter of its mark.
#[inline(always)]
pub fn receive(ctx: &TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    // Most frames. With constants for their layout there is less to do.
    if skb.protocol() == PROTO_CLASSIC && skb.len() == CLASSIC_LEN {
        return match find(ctx, Some(Layout::CLASSIC)) {
            Ok(found) => forward(ctx, &found),
            Err(verdict) => verdict,
        };
    }
    if FrameType::from_protocol(skb.protocol()).is_none() {
        return TC_ACT_OK;
    }
    match find(ctx, layout_of(skb)) {
        Ok(found) => forward(ctx, &found),
        Err(verdict) => verdict,
    }
}

/// Carries out the list of a frame.
#[inline(always)]
fn forward(ctx: &TcContext, found: &Found) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let first = cell(found.tables, found.list);
    let kind = found.layout.kind as u32;
    if found.layout.prefix != 0 {
        beside(skb, found.slot, first, kind, found.layout.prefix);
        maps::go_on(ctx, Next::Driver);
        return out_of_memory(found.slot);
    }
    let special = if skb.stamp() == 0 {
        SPECIAL
    } else {
        SPECIAL | LIST_STAMP
    };
    if first.flags & special != 0 || !matches!(found.layout.kind, FrameType::Classic) {
        let taken = taken_if_unheard(found.slot, found.tables);
        // CAN XL frames are never edited.
        let editable = !matches!(found.layout.kind, FrameType::Xl);
        if editable
            && first.len == 1
            && first.flags & NOT_ALONE == LIST_FORMS
            && let Some(bits) = taken
        {
            return flight::send_edited(skb.0, found.slot, found.tables, found.list, kind | bits);
        }
        let verdict = forward_other(skb.0, found.slot, found.tables, found.list, kind);
        if verdict != SHAPE {
            return verdict;
        }
        maps::go_on(ctx, Next::Step);
        return out_of_memory(found.slot);
    }
    // A classic frame whose copies look like it.
    if first.len == 1 && first.flags & (UNSENT | CHECKED) == 0 {
        list::count_sent(first);
    } else {
        let (tables, len) = (found.tables, found.layout.len);
        Walk::new(tables, skb, core::ptr::null_mut(), found.list, len).each::<Count>();
    }
    let handle = u32::from(first.handle);
    if handle == 0 {
        return TC_ACT_OK;
    }
    let bits = taken_if_unheard(found.slot, found.tables).unwrap_or(0);
    skb.set_mark(handle | bits);
    TC_ACT_UNSPEC
}

/// Whether forwarded frames are taken from local sockets, and by which bits of the mark: on an exclusive interface always, on others
/// while none listens.
#[inline(always)]
fn taken_if_unheard(slot: u32, tables: &Tables) -> Option<u32> {
    if tables.head.flags & EXCLUSIVE != 0 {
        Some(0)
    } else if maps::is_heard(slot) {
        None
    } else {
        Some(mark::TAKEN)
    }
}

/// A list that is more than copies which look like the frame.
const SPECIAL: u16 = LIST_FORMS | LIST_WATCH | LIST_DROP;

/// Of a list of one rule: flags other than [`LIST_FORMS`] say that the frame is not just edited and sent.
const NOT_ALONE: u16 = SPECIAL | LIST_ECHO | UNSENT | CHECKED;

/// What becomes of a frame that no filter takes.
#[inline(always)]
pub fn rest(first: &Cell) -> i32 {
    if first.flags & LIST_DROP != 0 {
        TC_ACT_SHOT
    } else {
        TC_ACT_OK
    }
}

/// What a list does beside its rules, once for each frame.
#[inline(always)]
fn beside(skb: Skb, slot: u32, first: &Cell, kind: u32, prefix: u32) {
    if first.flags & LIST_WATCH != 0 {
        watch::record(skb.0, slot, kind, prefix);
    }
    if first.flags & LIST_DENIED != 0 {
        maps::count_reason(slot, Reason::Denied);
    }
}

/// Whether local sockets get a frame in the end: see [`Flight::local`].
#[inline(always)]
pub fn local(first: &Cell, exclusive: bool) -> u32 {
    if first.flags & LIST_DROP != 0 {
        NEVER_LOCAL
    } else if exclusive {
        LOCAL_IF_UNSENT
    } else {
        LOCAL
    }
}

/// Beside the kernel's verdicts: `cangw_step` is to give the frame its first form.
const SHAPE: i32 = 0x100;

/// Carries out a list of rules for any frame without a prefix. A function of its own, so that its variables cost the others nothing.
#[inline(never)]
fn forward_other(skb: *mut __sk_buff, slot: u32, tables: &Tables, list: u32, kind: u32) -> i32 {
    let skb = Skb(skb);
    let first = cell(tables, list);
    beside(skb, slot, first, kind, 0);
    let taken = taken_if_unheard(slot, tables);
    let local = local(first, taken.is_some());
    let handle = match taken {
        Some(bits) if local == LOCAL_IF_UNSENT && first.handle != 0 => {
            u32::from(first.handle) | bits
        }
        _ => u32::from(first.handle),
    };
    let stamp = skb.stamp();
    let loses_stamp = stamp != 0 && first.flags & LIST_STAMP != 0;
    let forms = first.flags & LIST_FORMS != 0;
    let restores = loses_stamp && local == LOCAL;
    let mut walk = Walk::new(tables, skb, core::ptr::null_mut(), list, skb.len());
    if kind != FrameType::Classic as u32 {
        // An MTU can only shrink while its interface is down, so this fails only between such a change
        // and the next call of `cangw`, which takes the target out of the list.
        walk.each::<CheckMtu>();
        if walk.misfit != 0 {
            walk.each::<CountMtu>();
            return rest(first);
        }
    }
    if forms || restores {
        let Some((ticket, room)) = maps::board() else {
            return out_of_memory(slot);
        };
        skb.set_ticket(ticket);
        room.begin(slot, tables.head.aux, stamp, kind);
        room.mark = handle;
        room.local = local;
        if forms {
            let Some(head) = skb.head(0) else {
                maps::count_reason(slot, Reason::Malformed);
                return rest(first);
            };
            // CAN XL frames are never edited.
            room.id = if kind == FrameType::Xl as u32 {
                head.id & SFF_MASK
            } else {
                head.id
            };
            if kind != FrameType::Xl as u32 && !skb.copy_frame(room.kind(), &mut room.original) {
                maps::count_reason(slot, Reason::Malformed);
                return rest(first);
            }
        }
        walk.flight = room;
    }
    walk.each::<Count>();
    if handle == 0 {
        return rest(first);
    }
    if forms {
        return SHAPE;
    }
    if loses_stamp {
        skb.set_stamp(0);
    }
    skb.set_mark(if restores {
        handle | mark::RESTORE
    } else {
        handle
    });
    TC_ACT_UNSPEC
}
