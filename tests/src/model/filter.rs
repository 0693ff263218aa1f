//! Which rules take a frame, and in which order: `can_rcv_list_find` and `can_rcv_filter`.

use crate::diff::rule::{INVERTED, Rule};
use crate::frame::{EFF, ERR, RTR};

const STANDARD: u32 = 0x7FF;
const EXTENDED: u32 = 0x1FFF_FFFF;

/// A list of receivers. The kernel goes through them in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum List {
    Error,
    All,
    Masked,
    Inverted,
    Extended,
    Standard,
}

/// The list of a filter, and the identifier and mask that it is reduced to.
fn reduce(id: u32, mask: u32) -> (List, u32, u32) {
    if mask & ERR != 0 {
        return (List::Error, id, mask & EXTENDED);
    }
    let mask = if mask & EFF != 0 && id & EFF == 0 {
        mask & (STANDARD | EFF | RTR)
    } else {
        mask
    };
    let inverted = id & INVERTED != 0;
    let id = id & mask;
    let list = if inverted {
        List::Inverted
    } else if mask == 0 {
        List::All
    } else if mask == EXTENDED | EFF | RTR && id & EFF != 0 && id & RTR == 0 {
        List::Extended
    } else if mask == STANDARD | EFF | RTR && id & (EFF | RTR) == 0 {
        List::Standard
    } else {
        List::Masked
    };
    (list, id, mask)
}

/// Whether a receiver of a list gets a frame.
fn takes(list: List, id: u32, mask: u32, frame: u32) -> bool {
    if (list == List::Error) != (frame & ERR != 0) {
        return false;
    }
    match list {
        List::Error => frame & mask != 0,
        List::All => true,
        List::Masked => frame & mask == id,
        List::Inverted => frame & mask != id,
        List::Extended => frame == id,
        List::Standard => frame & (EFF | RTR) == 0 && frame & STANDARD == id,
    }
}

/// The numbers of the rules that take a frame with this identifier, in the order in which they get it. Rules are given
/// newest first.
pub fn matching<'a>(rules: impl Iterator<Item = &'a Rule>, source: &str, frame: u32) -> Vec<usize> {
    let mut found: Vec<(List, usize)> = Vec::new();
    for (number, rule) in rules.enumerate().filter(|(_, rule)| rule.source == source) {
        let (id, mask) = rule.filter.unwrap_or((0, 0));
        let (list, id, mask) = reduce(id, mask);
        if takes(list, id, mask, frame) {
            found.push((list, number));
        }
    }
    // Newer ones stand before older ones in each list.
    found.sort();
    found.into_iter().map(|(_, number)| number).collect()
}
