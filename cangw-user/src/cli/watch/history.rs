//! What changed between two looks.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::decoded::Decoded;

/// How long a change stays marked.
const MARKED: Duration = Duration::from_secs(1);

/// What was seen before.
#[derive(Default)]
pub(super) struct History {
    /// By identifier with its flags, and frame type.
    seen: HashMap<(u32, u32), Seen>,
    started: bool,
}

#[derive(Default)]
struct Seen {
    bytes: Vec<Shown<u8>>,
    /// The bits of values, by the number of their signal. Those of signals that are not in every frame stay.
    signals: HashMap<usize, Shown<u64>>,
}

/// A value, and when it became that one; `None` if it was so from the start.
#[derive(Clone, Copy)]
struct Shown<T> {
    value: T,
    changed: Option<Instant>,
}

/// Whether the bytes and signals of an identifier are marked, in their order.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Marks {
    pub(super) bytes: Vec<bool>,
    pub(super) signals: Vec<bool>,
}

impl History {
    /// Takes note of what there is `now`, and says for each identifier what is to be marked.
    ///
    /// All of an identifier that was not there before is marked, but nothing at the first call. What changed and changed back between
    /// two calls was not seen.
    pub(super) fn update(&mut self, rows: &[Decoded<'_>], now: Instant) -> Vec<Marks> {
        let mut before = std::mem::take(&mut self.seen);
        // A value of which nothing is known.
        let new = self.started.then_some(now);
        self.started = true;
        let mut marks = Vec::with_capacity(rows.len());
        for row in rows {
            let key = (row.watched.can_id(), row.watched.kind as u32);
            let mut seen = before.remove(&key).unwrap_or_default();
            let old = seen.bytes.iter().copied().map(Some);
            let old = old.chain(std::iter::repeat(None));
            let data = row.watched.data.iter().zip(old);
            seen.bytes = data
                .map(|(&byte, old)| Shown::next(old, byte, now, new))
                .collect();
            let mut marked = Marks {
                bytes: seen.bytes.iter().map(|b| b.is_marked(now)).collect(),
                signals: Vec::with_capacity(row.signals.len()),
            };
            for signal in &row.signals {
                let old = seen.signals.get(&signal.index).copied();
                let next = Shown::next(old, signal.value.to_bits(), now, new);
                seen.signals.insert(signal.index, next);
                marked.signals.push(next.is_marked(now));
            }
            self.seen.insert(key, seen);
            marks.push(marked);
        }
        marks
    }
}

impl<T: PartialEq> Shown<T> {
    fn next(old: Option<Self>, value: T, now: Instant, new: Option<Instant>) -> Self {
        match old {
            Some(old) if old.value == value => old,
            Some(_) => Self {
                value,
                changed: Some(now),
            },
            None => Self {
                value,
                changed: new,
            },
        }
    }

    fn is_marked(&self, now: Instant) -> bool {
        self.changed
            .is_some_and(|changed| now.duration_since(changed) < MARKED)
    }
}
