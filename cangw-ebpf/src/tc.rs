//! tc ingress: the engine that does everything.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::programs::TcContext;
use aya_log_ebpf::debug;
use cangw_common::abi::{
    self, CHECKED, Cell, DENY, EXCLUSIVE, LIST_DENIED, LIST_DROP, LIST_ECHO, LIST_FORMS,
    LIST_STAMP, LIST_WATCH, LOCAL, LOCAL_IF_UNSENT, NEVER_LOCAL, Reason, SHORTCUT_EXCLUSIVE,
    Shortcut, Tables, UNSENT, mark,
};
use cangw_common::classify::{NO_RULE, classify};
use cangw_common::frame::{FrameType, Layout, SFF_MASK, layout};
use cangw_common::opaque;

use crate::access::Skb;
use crate::flight::{self, out_of_memory};
use crate::list::{self, CheckMtu, Count, CountMtu, Walk, cell};
use crate::maps::{self, Aux, Next};
use crate::shortcut;
use crate::watch;

/// A frame for which there are rules.
pub struct Found {
    /// Tables of the interface.
    pub tables: &'static Tables,
    /// Where the frame lies.
    pub layout: Layout,
    /// Number of the list, or of its variant for the state in which the frame arrived.
    pub list: u32,
    /// Data bytes of the frame.
    pub bytes: u32,
}

/// Where a frame lies in the buffer; `None` when there is none, or not a whole one.
#[inline(always)]
pub fn layout_of(skb: Skb) -> Option<Layout> {
    layout(FrameType::from_protocol(skb.protocol())?, skb.len())
}

/// The state in which a frame arrives: 0 unless it is an echo. `None` when an echo has met the rules here already.
#[inline(always)]
pub fn state_of(skb: Skb) -> Option<u32> {
    if skb.mark() & mark::ECHO == 0 {
        return Some(0);
    }
    match (skb.mark() & mark::STATE) >> mark::STATE_SHIFT {
        0 => None,
        state => Some(state),
    }
}

/// Looks a frame up; the verdict when there is no list for it, which is counted. Where the frame lies is asked when it is to be known: a
/// `None` that waits has parts that were never written, and the verifier does not let them be moved.
#[inline(always)]
pub fn find(
    ctx: &TcContext,
    layout: impl FnOnce() -> Option<Layout>,
    state: u32,
) -> Result<Found, i32> {
    let skb = Skb(ctx.skb.skb);
    let ifindex = skb.ifindex();
    let Some(tables) = maps::tables(ifindex) else {
        maps::count_reason(abi::slot(ifindex, 0), Reason::NoTables);
        return Err(TC_ACT_OK);
    };
    if state > tables.head.states {
        // The rules changed while the echo was on its way.
        maps::count_reason(tables.head.slot, Reason::NoTables);
        return Err(TC_ACT_OK);
    }
    let malformed = || Err(unlisted(tables, state, Reason::Malformed));
    let Some(layout) = layout() else {
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
        Ok(NO_RULE) => Err(unlisted(tables, state, Reason::Unmatched)),
        Ok(list) => {
            if maps::debug() {
                // Copies, because what the macro refers to has to lie on the stack.
                let numbers = [ifindex, id, list.into()];
                let [ifindex, id, list] = numbers.map(|number| opaque(number.into()));
                debug!(ctx, "if {} id {:x} list {}", ifindex, id, list);
            }
            Ok(Found {
                tables,
                layout,
                list: u32::from(list) + state,
                bytes: head.data_len(layout.kind),
            })
        }
        Err(_) => malformed(),
    }
}

/// Counts a frame without a list, and says what becomes of it. A function of its own, so that frames with a list do not pay for the policy.
#[inline(never)]
fn unlisted(tables: &Tables, state: u32, reason: Reason) -> i32 {
    // The policy is for frames that enter here; an echo entered elsewhere.
    let denies = tables.head.flags & DENY != 0 && state == 0;
    let denied = denies && matches!(reason, Reason::Unmatched);
    let reason = if denied { Reason::Denied } else { reason };
    maps::count_reason(tables.head.slot, reason);
    if denies { TC_ACT_SHOT } else { TC_ACT_OK }
}

/// Receives a frame. `TC_ACT_OK` lets it go on to local sockets; `TC_ACT_UNSPEC` leads to the filter of its mark.
#[inline(always)]
pub fn receive(ctx: &TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    if let Some(verdict) = shortcut(skb) {
        return verdict;
    }
    let verdict = match skb.left() {
        Some(verdict) => {
            skb.take();
            verdict
        }
        None => decide(ctx),
    };
    match verdict {
        TAKE => TC_ACT_UNSPEC,
        SHAPE => {
            maps::go_on(ctx, Next::Step);
            out_of_memory(abi::slot(skb.ifindex(), 0))
        }
        BEHIND => {
            maps::go_on(ctx, Next::Driver);
            out_of_memory(abi::slot(skb.ifindex(), 0))
        }
        verdict => verdict,
    }
}

/// The verdict for most frames.
#[inline(always)]
fn shortcut(skb: Skb) -> Option<i32> {
    let go = |known: &Shortcut, cell, bytes| {
        list::sent(Shortcut::rule(cell), bytes);
        let audience = Audience::when(known.flags & SHORTCUT_EXCLUSIVE != 0, known.slot);
        skb.set_mark(Shortcut::handle(cell) | audience.bits());
        Some(TC_ACT_UNSPEC)
    };
    shortcut::take(skb, go, || TC_ACT_OK)
}

/// What becomes of a frame: a verdict of the kernel, or [`TAKE`], [`SHAPE`], [`BEHIND`].
#[inline(always)]
pub fn decide(ctx: &TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    // Most frames. With constants for their layout and state there is less to do.
    if skb.is_classic() && skb.mark() & mark::ECHO == 0 {
        return match find(ctx, || Some(Layout::CLASSIC), 0) {
            Ok(found) => forward(skb, &found),
            Err(verdict) => verdict,
        };
    }
    if FrameType::from_protocol(skb.protocol()).is_none() {
        return TC_ACT_OK;
    }
    let Some(state) = state_of(skb) else {
        return TC_ACT_OK;
    };
    match find(ctx, || layout_of(skb), state) {
        Ok(found) => forward(skb, &found),
        Err(verdict) => verdict,
    }
}

/// Carries out the list of a frame.
#[inline(always)]
fn forward(skb: Skb, found: &Found) -> i32 {
    let first = cell(found.tables, found.list);
    let kind = found.layout.kind as u32;
    if found.layout.prefix != 0 {
        beside(skb, found.tables, first, kind, found.layout.prefix);
        return BEHIND;
    }
    let is_classic = matches!(found.layout.kind, FrameType::Classic);
    if first.flags & (SPECIAL | UNSENT | CHECKED) == 0 && first.len == 1 {
        // A list of one rule, whose copy looks like the frame.
        if !is_classic && !skb.fits(first.ifindex, found.layout.len) {
            list::count_misfit(first);
            return TC_ACT_OK;
        }
        if skb.stamp() == 0 || first.flags & LIST_STAMP == 0 {
            list::count_sent(first, found.bytes);
            return hand_over(skb, first, Audience::of(found.tables));
        }
        // Or only loses its time stamp.
        let audience = Audience::of(found.tables);
        if audience != Audience::Some {
            skb.set_stamp(0);
            list::count_sent(first, found.bytes);
            return hand_over(skb, first, audience);
        }
    }
    let loses_stamp = first.flags & LIST_STAMP != 0 && skb.stamp() != 0;
    if first.flags & SPECIAL != 0 || loses_stamp || !is_classic {
        // CAN XL frames are never edited.
        let editable = !matches!(found.layout.kind, FrameType::Xl);
        if editable && first.len == 1 && first.flags & NOT_ALONE == LIST_FORMS {
            let audience = Audience::of(found.tables);
            if audience != Audience::Some {
                let bits = audience.bits();
                let verdict = flight::send_edited(skb.0, found.tables, found.list, kind, bits);
                return if verdict == TC_ACT_UNSPEC {
                    TAKE
                } else {
                    verdict
                };
            }
        }
        return forward_other(skb.0, found.tables, found.list, kind);
    }
    // A classic frame whose copies look like it.
    let lengths = (found.layout.len, found.bytes);
    Walk::new(
        found.tables,
        skb,
        core::ptr::null_mut(),
        found.list,
        lengths,
    )
    .each::<Count>();
    if first.handle == 0 {
        return TC_ACT_OK;
    }
    hand_over(skb, first, Audience::of(found.tables))
}

/// Leaves a frame to the filter of its list.
#[inline(always)]
fn hand_over(skb: Skb, first: &Cell, audience: Audience) -> i32 {
    skb.set_mark(u32::from(first.handle) | audience.bits());
    if audience == Audience::Some {
        TC_ACT_UNSPEC
    } else {
        TAKE
    }
}

/// Whether local sockets get what is forwarded. (No `Option` with the bits of the mark: the compiler moves also the bits that are not
/// there, which the verifier refuses.)
#[derive(Clone, Copy, PartialEq, Eq)]
enum Audience {
    /// The interface is exclusive.
    Excluded,
    /// Nobody listens.
    None,
    /// Somebody listens.
    Some,
}

impl Audience {
    #[inline(always)]
    fn of(tables: &Tables) -> Self {
        Self::when(tables.head.flags & EXCLUSIVE != 0, tables.head.slot)
    }

    #[inline(always)]
    fn when(exclusive: bool, slot: u32) -> Self {
        if exclusive {
            Self::Excluded
        } else if maps::is_heard(slot) {
            Self::Some
        } else {
            Self::None
        }
    }

    /// Bits of the mark, with the handle of a list.
    #[inline(always)]
    const fn bits(self) -> u32 {
        match self {
            Self::None => mark::TAKEN,
            Self::Excluded | Self::Some => 0,
        }
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
fn beside(skb: Skb, tables: &Tables, first: &Cell, kind: u32, prefix: u32) {
    if first.flags & LIST_WATCH != 0 {
        watch::record(skb.0, tables.head.slot, kind, prefix);
    }
    if first.flags & LIST_DENIED != 0 {
        maps::count_reason(tables.head.slot, Reason::Denied);
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
/// `cangw_driver` is to go on with a frame that stands behind a prefix.
const BEHIND: i32 = 0x101;
/// As `TC_ACT_UNSPEC`, for a frame of which nothing is left for local sockets.
pub const TAKE: i32 = 0x102;

/// Carries out a list of rules for any frame without a prefix. A function of its own, so that its variables cost the others nothing.
#[inline(never)]
fn forward_other(skb: *mut __sk_buff, tables: &Tables, list: u32, kind: u32) -> i32 {
    let skb = Skb(skb);
    let slot = tables.head.slot;
    let first = cell(tables, list);
    beside(skb, tables, first, kind, 0);
    let audience = Audience::of(tables);
    let local = local(first, audience != Audience::Some);
    let mut handle = u32::from(first.handle);
    // A list that drops has no twin for nobody.
    if handle != 0 && local == LOCAL_IF_UNSENT {
        handle |= audience.bits();
    }
    let stamp = skb.stamp();
    let loses_stamp = stamp != 0 && first.flags & LIST_STAMP != 0;
    let forms = first.flags & LIST_FORMS != 0;
    let restores = loses_stamp && local == LOCAL;
    let frame_type = FrameType::from_number(kind);
    // Read again where the forms need it: the verifier lets no head wait, of which `None` has parts that were never written.
    let bytes = skb.head(0).map_or(0, |head| head.data_len(frame_type));
    let lengths = (skb.len(), bytes);
    let mut walk = Walk::new(tables, skb, core::ptr::null_mut(), list, lengths);
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
        room.bytes = bytes;
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
