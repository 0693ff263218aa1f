//! tc ingress, filters in front of `cangw_tc` that have actions of their own, so that frames of an interface's only list are spared the way to
//! an fw filter. Such a filter names its list by its class, and takes a frame by the answer -1. Whatever it does not take, it leaves to
//! the next, with the verdict: no frame is looked up twice. They are only shorter ways; without them `cangw_tc` does everything.

use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_UNSPEC};
use aya_ebpf::programs::TcContext;
use cangw_common::abi::{Reason, SHORTCUT_ALL, SHORTCUT_EXCLUSIVE, SHORTCUT_ONLY, front, mark};
use cangw_common::classify::{IdClass, id_class};
use cangw_common::frame::{FrameType, Layout, SFF_MASK};

use crate::access::Skb;
use crate::list;
use crate::maps;
use crate::tc::{self, TAKE};

/// `cls_bpf_classify()`: the filter's actions follow. (After -1 they do as well, but the kernel copies the filter's class first.)
const MATCH: i32 = 1;
/// The next filter follows.
const NO_MATCH: i32 = 0;

/// Classifies a frame unless the filter before has, and takes it if the filter is for what becomes of it.
#[inline(always)]
pub fn receive(ctx: &TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    if let Some(answer) = shortcut(skb) {
        return answer;
    }
    let left = skb.left();
    let verdict = left.unwrap_or_else(|| tc::decide(ctx));
    let (class, mark) = (skb.classid(), skb.mark());
    let matches = if class & front::COPY == 0 {
        verdict == TAKE && mark & mark::HANDLE == class
    } else {
        verdict == TC_ACT_UNSPEC && mark == class & !front::COPY
    };
    if !matches {
        skb.leave(verdict);
        return NO_MATCH;
    }
    if left.is_some() {
        skb.take();
    }
    MATCH
}

/// The answer for most frames of most interfaces that have such a filter: classic ones without a time stamp, for a rule that sends them as they are,
/// or for none. A frame that the filter takes keeps its mark.
#[inline(always)]
fn shortcut(skb: Skb) -> Option<i32> {
    let known = maps::shortcut(skb.ifindex())?;
    if !skb.is_classic() || skb.mark() & mark::ECHO != 0 || skb.stamp() != 0 || skb.left().is_some()
    {
        return None;
    }
    let head = skb.classic_head()?;
    if !head.is_valid(Layout::CLASSIC) {
        return None;
    }
    let bytes = if head.id <= SFF_MASK {
        if !known.has(head.id) {
            if known.flags & SHORTCUT_ONLY == 0 {
                return None;
            }
            maps::count_reason(known.slot, Reason::Unmatched);
            skb.leave(TC_ACT_OK);
            return Some(NO_MATCH);
        }
        u32::from(head.len_or_flags)
    } else {
        let class = id_class(FrameType::Classic, head.id);
        if known.flags & SHORTCUT_ALL == 0
            || !matches!(class, IdClass::Standard | IdClass::Extended)
        {
            return None;
        }
        head.data_len(FrameType::Classic)
    };
    let (class, handle) = (skb.classid(), u32::from(known.handle));
    let copies = class == handle | front::COPY;
    if copies {
        // An exclusive interface has no such filter.
        if maps::is_heard(known.slot) {
            list::sent(known.rule, bytes);
            return Some(MATCH);
        }
    } else if class != handle {
        // Its actions are another list's.
        return None;
    } else if known.flags & SHORTCUT_EXCLUSIVE != 0 || !maps::is_heard(known.slot) {
        list::sent(known.rule, bytes);
        return Some(MATCH);
    }
    // For the other filter.
    list::sent(known.rule, bytes);
    if copies {
        skb.set_mark(handle | mark::TAKEN);
        skb.leave(TAKE);
    } else {
        skb.set_mark(handle);
        skb.leave(TC_ACT_UNSPEC);
    }
    Some(NO_MATCH)
}
