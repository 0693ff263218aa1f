//! From a frame to the list of rules that match it, at a cost that does not depend on the number of rules.
//!
//! - Standard identifiers index a table of 4096 lists (11 bits and RTR).
//! - Extended identifiers that a rule names exactly are in a hash table, with their complete lists.
//! - All others, and error classes, are split into two halves of 15 bits; each half has a class, and a
//!   cross table has the list of each pair of classes (recursive flow classification, Gupta and McKeown 1999).
//!
//! - CAN XL frames index a table by their priority. When some rule asks for VCID, SDU type or acceptance field, each field has
//!   a class, and four cross tables lead from the classes to the list.
//!
//! Userspace compiles the tables (`cangw::compile`); this module reads them, through [`Lookup`], in the kernel and
//! in tests alike.

use crate::abi::{
    CROSS_CHUNK, Cross, EXACT_FD, HALF_KEYS, HAS_EXACT, HAS_XL_FIELDS, SPACE_HALVES, STANDARD_KEYS,
    SpaceIndex, Tables, XlTables,
};
use crate::frame::{EFF_FLAG, EFF_MASK, ERR_FLAG, FrameType, RTR_FLAG, SFF_MASK};
use crate::opaque;

/// Number of a list of rules; [`NO_RULE`] when nothing matches.
pub type ListId = u16;
/// No rule matches.
pub const NO_RULE: ListId = 0;

/// Access to the tables that are not part of [`Tables`].
pub trait Lookup {
    /// List of an exact identifier.
    fn exact(&self, aux: u32, key: u32) -> Option<ListId>;
    /// Classes of the high and low half: `(high[high_key], low[low_key])`.
    fn halves(&self, aux: u32, space: u16, high_key: usize, low_key: usize) -> Option<(u16, u16)>;
    /// Cell `within` (below [`CROSS_CHUNK`]) of a chunk of the cross table.
    fn cross(&self, aux: u32, chunk: u32, within: usize) -> Option<ListId>;
    /// The classes of CAN XL headers.
    fn xl(&self, aux: u32) -> Option<&XlTables>;
}

/// What of a CAN XL header its priority word does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XlFields {
    /// SDU type.
    pub sdt: u8,
    /// Acceptance field.
    pub af: u32,
}

impl XlFields {
    /// Reads them from the 8 bytes after the priority word (`struct canxl_frame`).
    #[must_use]
    #[inline(always)]
    pub const fn from_bytes(b: [u8; 8]) -> Self {
        Self {
            sdt: b[1],
            af: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        }
    }
}

/// The virtual CAN network identifier in the priority word (`CANXL_VCID_OFFSET`).
#[must_use]
#[inline(always)]
pub const fn vcid(priority_word: u32) -> u8 {
    (priority_word >> 16) as u8
}

/// Index of a standard identifier in [`Tables::standard`]: 11 bits, and RTR above them.
///
/// CAN XL frames have no RTR: the key of a priority is the priority.
#[must_use]
#[inline(always)]
pub const fn standard_key(can_id: u32) -> usize {
    ((can_id & SFF_MASK) | ((can_id & RTR_FLAG) >> 19)) as usize & (STANDARD_KEYS - 1)
}

/// The 15 high bits of the 30 bits of RTR and identifier.
#[must_use]
#[inline(always)]
pub const fn high_key(can_id: u32) -> usize {
    (((can_id & EFF_MASK) | ((can_id & RTR_FLAG) >> 1)) >> 15) as usize & (HALF_KEYS - 1)
}

/// The 15 low bits of an identifier.
#[must_use]
#[inline(always)]
pub const fn low_key(can_id: u32) -> usize {
    can_id as usize & (HALF_KEYS - 1)
}

/// Key of an extended identifier in the map of exact identifiers.
#[must_use]
#[inline(always)]
pub const fn exact_key(kind: FrameType, can_id: u32) -> u32 {
    let fd = match kind {
        FrameType::Fd => EXACT_FD,
        FrameType::Classic | FrameType::Xl => 0,
    };
    (can_id & (EFF_FLAG | RTR_FLAG | EFF_MASK)) | fd
}

/// Which part of the tables an identifier belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdClass {
    /// 11 bits: the direct table.
    Standard,
    /// 29 bits.
    Extended,
    /// Error classes.
    Error,
    /// No EFF flag, yet more than 11 bits: no CAN bus carries such a frame.
    Invalid,
}

/// Tells where an identifier is looked up. CAN XL priorities share their word with the VCID, which has a table of its own.
#[must_use]
#[inline(always)]
pub const fn id_class(kind: FrameType, can_id: u32) -> IdClass {
    if matches!(kind, FrameType::Xl) {
        return IdClass::Standard;
    }
    if can_id & !(RTR_FLAG | SFF_MASK) == 0 {
        IdClass::Standard
    } else if can_id & (EFF_FLAG | ERR_FLAG) == 0 {
        IdClass::Invalid
    } else if can_id & ERR_FLAG != 0 {
        IdClass::Error
    } else {
        IdClass::Extended
    }
}

/// Why [`classify`] has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unclassified {
    /// [`IdClass::Invalid`].
    InvalidId,
    /// A table that the head names is missing: never with tables that userspace wrote whole.
    Incomplete,
}

/// The list of the rules that match a frame, at the same cost for one rule and for ten thousand. `fields` reads what is asked of
/// CAN XL frames only, and of these only when a rule wants to know.
///
/// # Errors
/// See [`Unclassified`].
#[inline(always)]
pub fn classify<L: Lookup>(
    tables: &Tables,
    lookup: &L,
    kind: FrameType,
    can_id: u32,
    fields: impl FnOnce() -> Option<XlFields>,
) -> Result<ListId, Unclassified> {
    if matches!(kind, FrameType::Xl) && tables.head.flags & HAS_XL_FIELDS != 0 {
        return fields()
            .and_then(|fields| xl_list(tables.head.aux, lookup, can_id, fields))
            .ok_or(Unclassified::Incomplete);
    }
    let error = match id_class(kind, can_id) {
        IdClass::Standard => {
            let key = match kind {
                FrameType::Xl => (can_id & SFF_MASK) as usize,
                FrameType::Classic | FrameType::Fd => standard_key(can_id),
            };
            // Not by a computed index: where the type is a constant, nothing is left of this.
            let lists = match kind {
                FrameType::Classic => &tables.standard[0],
                FrameType::Fd => &tables.standard[1],
                FrameType::Xl => &tables.standard[2],
            };
            return Ok(lists[opaque(key as u64) as usize % STANDARD_KEYS]);
        }
        IdClass::Invalid => return Err(Unclassified::InvalidId),
        IdClass::Extended => false,
        IdClass::Error => true,
    };
    let Some(space) = SpaceIndex::of(kind, error) else {
        return Err(Unclassified::Incomplete);
    };
    if !error
        && tables.head.flags & HAS_EXACT != 0
        && let Some(list) = lookup.exact(tables.head.aux, exact_key(kind, can_id))
    {
        return Ok(list);
    }
    let space = &tables.head.spaces[space as usize];
    if space.kind != SPACE_HALVES {
        return Ok(space.list);
    }
    // RTR means nothing on an error frame, and no error filter can name it.
    let id = if error { can_id & EFF_MASK } else { can_id };
    let (high, low) = lookup
        .halves(tables.head.aux, space.halves, high_key(id), low_key(id))
        .ok_or(Unclassified::Incomplete)?;
    let cross = Cross {
        first: space.cross,
        columns: u32::from(space.low_classes),
    };
    combine(tables.head.aux, lookup, cross, high, low).ok_or(Unclassified::Incomplete)
}

/// The result of two classes.
#[inline(always)]
fn combine<L: Lookup>(aux: u32, lookup: &L, cross: Cross, row: u16, column: u16) -> Option<u16> {
    let cell = cross
        .first
        .wrapping_add(u32::from(row).wrapping_mul(cross.columns))
        .wrapping_add(u32::from(column));
    lookup.cross(aux, cell / CROSS_CHUNK as u32, cell as usize % CROSS_CHUNK)
}

/// The list of a CAN XL frame by all fields of its header.
#[inline(always)]
fn xl_list<L: Lookup>(aux: u32, lookup: &L, word: u32, fields: XlFields) -> Option<ListId> {
    let xl = lookup.xl(aux)?;
    let class =
        |classes: &[u16], value: u32| classes.get(opaque(u64::from(value)) as usize).copied();
    let vcid = class(&xl.vcid, u32::from(vcid(word)))?;
    let sdt = class(&xl.sdt, u32::from(fields.sdt))?;
    let high = class(&xl.high, fields.af >> 16)?;
    let low = class(&xl.low, fields.af & 0xFFFF)?;
    let kinds = combine(aux, lookup, xl.kinds, vcid, sdt)?;
    let acceptance = combine(aux, lookup, xl.acceptance, high, low)?;
    let content = combine(aux, lookup, xl.content, kinds, acceptance)?;
    combine(
        aux,
        lookup,
        xl.list,
        class(&xl.priority, word & SFF_MASK)?,
        content,
    )
}
