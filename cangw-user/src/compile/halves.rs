//! Recursive flow classification of 30-bit identifiers: classes of the two halves, and a cross table.

use cangw_common::abi::{CROSS_CHUNK, CrossChunk, HALF_KEYS, Halves};
use cangw_common::classify::ListId;
use foldhash::HashMap;

use super::Error;
use super::lists::Lists;
use super::wide::Wide;

/// The most cells of a cross table: 8 MiB.
pub const MAX_CROSS: u64 = 4 << 20;

const HALF_BITS: u32 = 15;
const HALF_MASK: u32 = HALF_KEYS as u32 - 1;

/// The tables of one space.
pub(super) struct Table {
    pub(super) halves: Box<Halves>,
    pub(super) cross: Vec<CrossChunk>,
    pub(super) low_classes: u16,
}

/// Calls `each` with every subset of the bits of `mask`.
pub(super) fn for_each_subset(mask: u32, mut each: impl FnMut(u32)) {
    let mut subset = 0u32;
    loop {
        each(subset);
        if subset == mask {
            return;
        }
        subset = subset.wrapping_sub(mask) & mask;
    }
}

/// One half of a predicate.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Half {
    id: u32,
    mask: u32,
}

impl Half {
    /// Error filters match when any bit is common, others when all compared bits agree.
    fn matches(self, error: bool, value: u32) -> bool {
        if error {
            value & self.mask != 0
        } else {
            value & self.mask == self.id & self.mask
        }
    }

    fn for_each(self, error: bool, mut each: impl FnMut(usize)) {
        if error {
            (0..HALF_KEYS)
                .filter(|&v| self.matches(true, v as u32))
                .for_each(each);
        } else {
            let fixed = self.id & self.mask;
            for_each_subset(HALF_MASK & !self.mask, |free| each((fixed | free) as usize));
        }
    }
}

/// Classes of the values of one half: values that no predicate tells apart share a class.
struct Classes {
    of_value: Vec<u16>,
    /// A value of each class.
    examples: Vec<u32>,
}

fn classes(error: bool, halves: &[Half]) -> Classes {
    let mut distinct: Vec<Half> = halves.iter().copied().filter(|h| h.mask != 0).collect();
    distinct.sort_unstable_by_key(|h| (h.mask, h.id & h.mask));
    distinct.dedup_by_key(|h| (h.mask, h.id & h.mask));
    let mut class = vec![0u32; HALF_KEYS];
    // What the values of a class become that a half splits off; 0 for nothing yet, as class 0 is never new.
    let mut split = vec![0u32];
    for half in distinct {
        split.fill(0);
        let before = split.len();
        half.for_each(error, |value| {
            let old = class[value] as usize;
            debug_assert!(old < before);
            if split[old] == 0 {
                split[old] = split.len() as u32;
                split.push(0);
            }
            class[value] = split[old];
        });
    }
    // Classes that were split away are empty: number the others anew.
    let mut number = vec![None; split.len()];
    let mut examples = Vec::new();
    let of_value = class
        .iter()
        .enumerate()
        .map(|(value, c)| {
            *number[*c as usize].get_or_insert_with(|| {
                examples.push(value as u32);
                (examples.len() - 1) as u16
            })
        })
        .collect();
    Classes { of_value, examples }
}

/// Bits of the predicates that hold for a value.
fn bits(error: bool, predicates: &[Half], value: u32) -> Vec<u64> {
    let mut out = vec![0u64; predicates.len().div_ceil(64)];
    for (i, half) in predicates.iter().enumerate() {
        if half.matches(error, value) {
            out[i / 64] |= 1 << (i % 64);
        }
    }
    out
}

fn split(wide: &Wide) -> (Half, Half) {
    let half = |shift: u32| Half {
        id: (wide.id >> shift) & HALF_MASK,
        mask: (wide.mask >> shift) & HALF_MASK,
    };
    (half(HALF_BITS), half(0))
}

/// Builds the tables for predicates, each with the rule that it belongs to.
pub(super) fn build(
    error: bool,
    rules: &[(Wide, usize)],
    lists: &mut Lists<'_>,
) -> Result<Table, Error> {
    // Rules with the same predicate are one.
    let mut index: HashMap<Wide, usize> = HashMap::default();
    let mut predicates: Vec<(Wide, Vec<usize>)> = Vec::new();
    for (wide, rule) in rules {
        let at = *index.entry(*wide).or_insert_with(|| {
            predicates.push((*wide, Vec::new()));
            predicates.len() - 1
        });
        predicates[at].1.push(*rule);
    }
    let (high, low): (Vec<Half>, Vec<Half>) = predicates.iter().map(|(w, _)| split(w)).unzip();
    let high_classes = classes(error, &high);
    let low_classes = classes(error, &low);
    let (rows, columns) = (high_classes.examples.len(), low_classes.examples.len());
    if (rows * columns) as u64 > MAX_CROSS {
        return Err(too_many_masks(error, &high, &low, &predicates));
    }
    let row_bits: Vec<_> = high_classes
        .examples
        .iter()
        .map(|&v| bits(error, &high, v))
        .collect();
    let column_bits: Vec<_> = low_classes
        .examples
        .iter()
        .map(|&v| bits(error, &low, v))
        .collect();
    let mut inverted = vec![0u64; predicates.len().div_ceil(64)];
    for (i, (wide, _)) in predicates.iter().enumerate() {
        inverted[i / 64] |= u64::from(wide.inverted) << (i % 64);
    }
    let mut cross = vec![CrossChunk([0; CROSS_CHUNK]); (rows * columns).div_ceil(CROSS_CHUNK)];
    let mut known: HashMap<Vec<(u32, u64)>, ListId> = HashMap::default();
    // The words of bits that are not 0: few of many predicates hold.
    let mut hit = Vec::new();
    for (r, row) in row_bits.iter().enumerate() {
        for (c, column) in column_bits.iter().enumerate() {
            hit.clear();
            for (word, inverted) in (0..).zip(&inverted) {
                let (row, column) = (row[word as usize], column[word as usize]);
                let bits = if error {
                    row | column
                } else {
                    (row & column) ^ inverted
                };
                if bits != 0 {
                    hit.push((word, bits));
                }
            }
            let list = match known.get(&hit) {
                Some(&list) => list,
                None => {
                    let list = lists.intern(&expand(&hit, &predicates))?;
                    known.insert(hit.clone(), list);
                    list
                }
            };
            let cell = r * columns + c;
            cross[cell / CROSS_CHUNK].0[cell % CROSS_CHUNK] = list;
        }
    }
    // SAFETY: Halves consists of integers only, for which all zeroes is a value.
    let mut halves: Box<Halves> = unsafe { Box::new_zeroed().assume_init() };
    halves.high.copy_from_slice(&high_classes.of_value);
    halves.low.copy_from_slice(&low_classes.of_value);
    Ok(Table {
        halves,
        cross,
        low_classes: columns as u16,
    })
}

/// The rules of the predicates whose bits are set, in order of execution.
fn expand(hit: &[(u32, u64)], predicates: &[(Wide, Vec<usize>)]) -> Vec<usize> {
    let mut rules = Vec::new();
    for &(word, mut bits) in hit {
        while bits != 0 {
            let predicate = word * u64::BITS + bits.trailing_zeros();
            rules.extend_from_slice(&predicates[predicate as usize].1);
            bits &= bits - 1;
        }
    }
    rules.sort_unstable();
    rules.dedup();
    rules
}

/// Names the first rule with which the cross table becomes too large.
fn too_many_masks(
    error: bool,
    high: &[Half],
    low: &[Half],
    predicates: &[(Wide, Vec<usize>)],
) -> Error {
    let cells = |n: usize| {
        let rows = classes(error, &high[..n]).examples.len() as u64;
        rows * classes(error, &low[..n]).examples.len() as u64
    };
    let (mut fits, mut fails) = (0, predicates.len());
    while fails - fits > 1 {
        let middle = fits.midpoint(fails);
        if cells(middle) > MAX_CROSS {
            fails = middle;
        } else {
            fits = middle;
        }
    }
    Error::TooManyMasks {
        rules: predicates[fails - 1].1.clone(),
        cells: cells(predicates.len()),
    }
}
