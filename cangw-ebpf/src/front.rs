//! tc ingress, filters in front of `cangw_tc` that have actions of their own, so that frames of an interface's only list are spared the way to
//! an fw filter. Such a filter names its list by its class, and takes a frame by the answer -1. Whatever it does not take, it leaves to
//! the next, with the verdict: no frame is looked up twice. They are only shorter ways; without them `cangw_tc` does everything.

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::programs::TcContext;
use cangw_common::abi::{front, mark};

use crate::access::Skb;
use crate::tc::{self, TAKE};

/// `cls_bpf_classify()`: the filter's actions follow.
const MATCH: i32 = -1;
/// The next filter follows.
const NO_MATCH: i32 = 0;

/// Classifies a frame unless the filter before has, and takes it if the filter is for what becomes of it.
#[inline(always)]
pub fn receive(ctx: &TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
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
