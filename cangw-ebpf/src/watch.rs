//! What is known of each identifier on a watched interface.

use aya_ebpf::bindings::__sk_buff;
use cangw_common::abi::{Reason, WATCHED_DATA, WatchKey, Watched};
use cangw_common::frame::{FrameType, SFF_MASK, XL_HEAD, field};

use crate::access::{self, Skb};
use crate::maps;
use crate::word;

/// How often a word that other CPUs change meanwhile is tried.
const TRIES: u32 = 4;

/// Records a frame that begins `prefix` bytes into the buffer. A function of its own, so that its variables cost other frames nothing.
#[inline(never)]
pub fn record(skb: *mut __sk_buff, slot: u32, kind: u32, prefix: u32) {
    let skb = Skb(skb);
    let mut head = [0u8; field::HEAD];
    if !skb.load(prefix, &mut head) {
        return;
    }
    let xl = kind == FrameType::Xl as u32;
    let word = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]);
    let key = WatchKey {
        ifindex: skb.ifindex(),
        id: if xl { word & SFF_MASK } else { word },
        kind,
    };
    let now = word::now();
    let Some(watched) = maps::watched(&key) else {
        maps::count_reason(slot, Reason::Unwatched);
        return;
    };
    // SAFETY: here and below, `watched` points to a value of a map, which is valid until the program ends. Words that are counted
    // or compared are changed by atomic instructions; the data are guarded by their two numbers.
    let count = unsafe { &raw mut (*watched).count };
    let count = access::add(count, 1) + 1;
    // SAFETY: as above.
    let before = access::exchange(unsafe { &raw mut (*watched).last }, now);
    if count > 1 {
        intervals(watched, now.saturating_sub(before));
    } else {
        // SAFETY: as above.
        access::store(unsafe { &raw mut (*watched).first }, now);
    }
    // SAFETY: as above.
    unsafe {
        access::store(&raw mut (*watched).begun, count);
        if xl {
            let _ = skb.load(prefix + field::LEN as u32, &mut (*watched).head);
        } else {
            (*watched).head = [head[4], head[5], head[6], head[7], 0, 0, 0, 0];
        }
        let data = &mut (*watched).data;
        if kind == FrameType::Classic as u32 {
            if let Some(data) = data.first_chunk_mut::<8>() {
                let _ = skb.load(prefix + field::DATA as u32, data);
            }
        } else if xl {
            let len = u32::from(u16::from_ne_bytes([head[6], head[7]]));
            let _ = skb.load_up_to(prefix + XL_HEAD, len, data);
        } else {
            let _ = skb.load::<WATCHED_DATA>(prefix + field::DATA as u32, data);
        }
        access::store(&raw mut (*watched).newest, count);
    }
}

#[inline(always)]
fn intervals(watched: *mut Watched, interval: u64) {
    // SAFETY: as in `record`.
    let (shortest, longest) =
        unsafe { (&raw mut (*watched).shortest, &raw mut (*watched).longest) };
    let mut tries = 0;
    while tries < TRIES {
        let old = word::load(shortest);
        if interval >= old || word::replace(shortest, old, interval) {
            break;
        }
        tries += 1;
    }
    tries = 0;
    while tries < TRIES {
        let old = word::load(longest);
        if interval <= old || word::replace(longest, old, interval) {
            break;
        }
        tries += 1;
    }
}
