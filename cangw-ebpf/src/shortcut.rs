//! A shorter way for most frames: classic ones without a time stamp, for a rule that sends them as they are, or for none. What is to be known of them
//! lies at an address that the program knows, so that no table has to be found.

use cangw_common::abi::{Reason, SHORTCUT_EXCLUSIVE, SHORTCUT_ONLY, Shortcut, mark};
use cangw_common::classify::{IdClass, id_class};
use cangw_common::frame::{FrameType, Layout, SFF_MASK};

use crate::access::Skb;
use crate::maps;

/// Goes on with such a frame: `go` with what is known, the cell of its rule, and its data bytes; `unmatched` when no rule is for it, which is
/// counted. `None` for all other frames, of which the tables know. (The parts are no `Option` of their own: of its `None` they would never have been
/// written, and the verifier does not let them be moved.)
#[inline(always)]
pub fn take(
    skb: Skb,
    go: impl FnOnce(&'static Shortcut, u32, u32) -> Option<i32>,
    unmatched: impl FnOnce() -> i32,
) -> Option<i32> {
    let known = maps::shortcut(skb.ifindex())?;
    if !skb.is_classic() || skb.mark() & mark::ECHO != 0 || skb.stamp() != 0 || skb.left().is_some()
    {
        return None;
    }
    let head = skb.classic_head()?;
    if !head.is_valid(Layout::CLASSIC) {
        return None;
    }
    let (cell, bytes) = if head.id <= SFF_MASK {
        let cell = known.cells[head.id as usize & SFF_MASK as usize];
        if cell == 0 {
            if known.flags & SHORTCUT_ONLY == 0 {
                return None;
            }
            maps::count_reason(known.slot, Reason::Unmatched);
            return Some(unmatched());
        }
        (cell, u32::from(head.len_or_flags))
    } else {
        let class = id_class(FrameType::Classic, head.id);
        if known.all == 0 || !matches!(class, IdClass::Standard | IdClass::Extended) {
            return None;
        }
        (known.all, head.data_len(FrameType::Classic))
    };
    go(known, cell, bytes)
}

/// Whether local sockets get the frames of an interface, too.
#[inline(always)]
pub fn is_heard(known: &Shortcut) -> bool {
    known.flags & SHORTCUT_EXCLUSIVE == 0 && maps::is_heard(known.slot)
}
