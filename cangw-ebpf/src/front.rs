//! tc ingress, filters in front of `cangw_tc` that have actions of their own, so that frames of an interface's only list are spared the way to
//! an fw filter. Such a filter names its list by its class, and takes a frame by the answer -1. Whatever it does not take, it leaves to
//! the next, with the verdict: no frame is looked up twice. They are only shorter ways; without them `cangw_tc` does everything.

use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_UNSPEC};
use aya_ebpf::programs::TcContext;
use cangw_common::abi::{Shortcut, front, mark};

use crate::access::Skb;
use crate::list;
use crate::shortcut;
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

/// The answer for most frames. One that the filter takes keeps its mark.
#[inline(always)]
fn shortcut(skb: Skb) -> Option<i32> {
    let go = |known: &Shortcut, cell, bytes| {
        let (rule, handle) = (Shortcut::rule(cell), Shortcut::handle(cell));
        let class = skb.classid();
        let copies = class == handle | front::COPY;
        if !copies && class != handle {
            // Its actions are another list's.
            return None;
        }
        list::sent(rule, bytes);
        let heard = shortcut::is_heard(known);
        if copies == heard {
            return Some(MATCH);
        }
        // For the other filter.
        let (mark, verdict) = if copies {
            (handle | mark::TAKEN, TAKE)
        } else {
            (handle, TC_ACT_UNSPEC)
        };
        skb.set_mark(mark);
        skb.leave(verdict);
        Some(NO_MATCH)
    };
    let unmatched = || {
        skb.leave(TC_ACT_OK);
        NO_MATCH
    };
    shortcut::take(skb, go, unmatched)
}
