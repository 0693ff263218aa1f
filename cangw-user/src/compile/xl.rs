//! Recursive flow classification of CAN XL headers: a class for each value of each field, and cross tables that combine classes.

use std::collections::HashMap;

use cangw_common::abi::{CROSS_CHUNK, Cross, CrossChunk, XL_HALF, XlTables};
use cangw_common::classify::ListId;

use super::halves::MAX_CROSS;
use super::lists::Lists;
use super::{Error, Input};

/// The rules that are still possible: a bit for each.
type Rules = Vec<u64>;

/// Classes of values, each with the rules that its values leave possible.
struct Classes {
    of_value: Vec<u16>,
    rules: Vec<Rules>,
}

/// Numbers sets of rules.
#[derive(Default)]
struct Numbers {
    known: HashMap<Rules, u16>,
    rules: Vec<Rules>,
}

impl Numbers {
    /// The number of a set; `None` when there are more than 65,536.
    fn of(&mut self, rules: Rules) -> Option<u16> {
        if let Some(&number) = self.known.get(&rules) {
            return Some(number);
        }
        let number = u16::try_from(self.rules.len()).ok()?;
        self.known.insert(rules.clone(), number);
        self.rules.push(rules);
        Some(number)
    }
}

/// The classes of a field with `values` values, by whether each rule takes a value.
fn classes(values: usize, rules: usize, takes: impl Fn(usize, u32) -> bool) -> Classes {
    let mut numbers = Numbers::default();
    let of_value = (0..values as u32).map(|value| {
        let mut possible = vec![0; rules.div_ceil(64)];
        for rule in (0..rules).filter(|&rule| takes(rule, value)) {
            possible[rule / 64] |= 1 << (rule % 64);
        }
        // No field has more values than there are numbers.
        numbers.of(possible).unwrap_or_default()
    });
    Classes {
        of_value: of_value.collect(),
        rules: numbers.rules,
    }
}

/// Cells of the cross table of two fields: the rules that both leave possible, in the order of the cells.
fn cells<'a>(rows: &'a [Rules], columns: &'a [Rules]) -> impl Iterator<Item = Rules> + 'a {
    rows.iter().flat_map(|row| {
        columns
            .iter()
            .map(|column| row.iter().zip(column).map(|(a, b)| a & b).collect())
    })
}

/// Appends cells to the cross table.
fn append(cross: &mut Vec<CrossChunk>, columns: usize, cells: &[u16]) -> Cross {
    let first = (cross.len() * CROSS_CHUNK) as u32;
    for part in cells.chunks(CROSS_CHUNK) {
        let mut chunk = CrossChunk([0; CROSS_CHUNK]);
        chunk.0[..part.len()].copy_from_slice(part);
        cross.push(chunk);
    }
    Cross {
        first,
        columns: columns as u32,
    }
}

/// Builds the tables for the rules with the numbers `of_kind`.
pub(super) fn build(
    rules: &[Input],
    of_kind: &[usize],
    lists: &mut Lists<'_>,
    cross: &mut Vec<CrossChunk>,
) -> Result<Box<XlTables>, Error> {
    let rule = |i: usize| &rules[of_kind[i]];
    let n = of_kind.len();
    let is = |wanted: Option<u8>, value: u32| wanted.is_none_or(|w| u32::from(w) == value);
    let acceptance = |i: usize, shift: u32, value: u32| {
        rule(i).xl.af.is_none_or(|(wanted, mask)| {
            let mask = (mask >> shift) & 0xFFFF;
            value & mask == (wanted >> shift) & mask
        })
    };
    // SAFETY: XlTables consists of integers only, for which all zeroes is a value.
    let mut tables: Box<XlTables> = unsafe { Box::new_zeroed().assume_init() };
    let priority = classes(tables.priority.len(), n, |i, v| {
        rule(i).predicates.iter().any(|p| p.matches(v))
    });
    let vcid = classes(256, n, |i, v| is(rule(i).xl.vcid, v));
    let sdt = classes(256, n, |i, v| is(rule(i).xl.sdt, v));
    let high = classes(XL_HALF, n, |i, v| acceptance(i, 16, v));
    let low = classes(XL_HALF, n, |i, v| acceptance(i, 0, v));
    tables.priority.copy_from_slice(&priority.of_value);
    tables.vcid.copy_from_slice(&vcid.of_value);
    tables.sdt.copy_from_slice(&sdt.of_value);
    tables.high.copy_from_slice(&high.of_value);
    tables.low.copy_from_slice(&low.of_value);

    let mut combine = |rows: &[Rules], columns: &[Rules]| -> Result<(Cross, Vec<Rules>), Error> {
        let too_many = || Error::TooManyMasks {
            rules: of_kind.to_vec(),
            cells: (rows.len() * columns.len()) as u64,
        };
        if (rows.len() * columns.len()) as u64 > MAX_CROSS {
            return Err(too_many());
        }
        let mut numbers = Numbers::default();
        let found: Option<Vec<u16>> = cells(rows, columns).map(|set| numbers.of(set)).collect();
        let found = found.ok_or_else(too_many)?;
        Ok((append(cross, columns.len(), &found), numbers.rules))
    };
    let (kinds, kind_rules) = combine(&vcid.rules, &sdt.rules)?;
    let (halves, half_rules) = combine(&high.rules, &low.rules)?;
    let (content, content_rules) = combine(&kind_rules, &half_rules)?;
    tables.kinds = kinds;
    tables.acceptance = halves;
    tables.content = content;

    let (rows, columns) = (&priority.rules, &content_rules);
    if (rows.len() * columns.len()) as u64 > MAX_CROSS {
        return Err(Error::TooManyMasks {
            rules: of_kind.to_vec(),
            cells: (rows.len() * columns.len()) as u64,
        });
    }
    let found: Result<Vec<ListId>, Error> = cells(rows, columns)
        .map(|set| {
            let matching: Vec<usize> = (0..n)
                .filter(|&i| set[i / 64] >> (i % 64) & 1 != 0)
                .map(|i| of_kind[i])
                .collect();
            lists.intern(&matching)
        })
        .collect();
    tables.list = append(cross, columns.len(), &found?);
    Ok(tables)
}
