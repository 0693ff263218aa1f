//! From the rules of an interface to the tables that the programs look up.
//!
//! The cost of a frame must not depend on the number of rules, so all work is done here: every key that a
//! frame can have is given the number of its complete list of rules. See [`cangw_common::classify`] for the look-up.

mod halves;
mod lists;
mod states;
mod wide;
mod xl;

use std::collections::BTreeMap;
use std::sync::Arc;

use cangw_common::abi::{
    CrossChunk, HAS_EXACT, HAS_XL_FIELDS, Halves, MAX_LIST, STANDARD_KEYS, SpaceIndex, Tables,
    XlTables, form,
};
use cangw_common::classify::{ListId, Lookup, XlFields, classify};
use cangw_common::edit::Edit;
use cangw_common::frame::{EFF_FLAG, EFF_MASK, FrameType, RTR_FLAG, SFF_MASK};
use cangw_common::rule::{Match, Predicate, XlFilter};

pub use halves::MAX_CROSS;
use lists::Lists;
pub use lists::{Fate, List, Outcome, Step};
pub use states::{State, States};
use wide::space;

use crate::options::Stay;

/// Rules that modify frames, in the tables of one interface.
pub const MAX_EDITS: usize = form::EDIT as usize - 1;

/// A rule, as the compiler sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Input {
    /// Key of its counters.
    pub slot: u32,
    /// Type of the frames that it takes.
    pub kind: FrameType,
    /// Their identifiers: one of these holds.
    pub predicates: Vec<Predicate>,
    /// Fields of CAN XL frames.
    pub xl: XlFilter,
    /// What becomes of frames when they are not sent.
    pub stay: Option<Stay>,
    /// Higher ones come first.
    pub priority: i16,
    /// Its frames are recorded.
    pub watch: bool,
    /// Some copies are sent twice.
    pub duplicates: bool,
    /// Interface that it takes frames from.
    pub source: u32,
    /// Interface that it sends to, 0 for none.
    pub target: u32,
    /// Frames are delivered to local sockets of the target and meet its rules (`-e`).
    pub echo: bool,
    /// A frame may go back to the interface that it came from (`-i`).
    pub iif_tx_ok: bool,
    /// Its own hop limit (`-l`), 0 for none.
    pub limit: u8,
    /// The target is the other end of the source's vxcan pair.
    pub to_peer: bool,
    /// The target's MTU is too small for its frames.
    pub misfit: bool,
    /// The target is not there.
    pub waiting: bool,
    /// The target's own rules keep what they forward from its local sockets.
    pub target_exclusive: bool,
    /// Its copies keep the receive time stamp (`-t`).
    pub keep_stamp: bool,
    /// What it changes in a frame.
    pub edit: Option<Arc<Edit>>,
    /// What it changes makes every frame too long for its type.
    pub too_long: bool,
}

impl Input {
    /// A rule without options.
    #[must_use]
    pub fn new(slot: u32, matching: Match, source: u32, target: u32) -> Self {
        Self {
            predicates: vec![matching.predicate],
            ..Self::empty(slot, matching.kind, source, target)
        }
    }

    /// A rule without options that takes no frame.
    #[must_use]
    pub fn empty(slot: u32, kind: FrameType, source: u32, target: u32) -> Self {
        Self {
            slot,
            kind,
            predicates: Vec::new(),
            xl: XlFilter::default(),
            stay: None,
            priority: 0,
            watch: false,
            duplicates: false,
            source,
            target,
            echo: false,
            iif_tx_ok: false,
            limit: 0,
            to_peer: false,
            misfit: false,
            waiting: false,
            target_exclusive: false,
            keep_stamp: false,
            edit: None,
            too_long: false,
        }
    }

    /// Whether a frame is for this rule. Only CAN XL frames have `fields`; without them they are not compared.
    #[must_use]
    pub fn matches(&self, kind: FrameType, can_id: u32, fields: Option<XlFields>) -> bool {
        let id = match kind {
            FrameType::Xl => can_id & SFF_MASK,
            FrameType::Classic | FrameType::Fd => can_id,
        };
        self.kind == kind
            && self.predicates.iter().any(|p| p.matches(id))
            && fields.is_none_or(|fields| self.xl.matches(can_id, fields))
    }

    /// Where it comes among rules that match the same frame: the first in number is the first in order.
    fn rank(&self) -> (std::cmp::Reverse<i16>, bool, u8) {
        let drops = self.stay == Some(Stay::Drop);
        (
            std::cmp::Reverse(self.priority),
            !drops,
            class(&self.predicates),
        )
    }
}

/// What holds for the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Interface {
    /// Its index.
    pub ifindex: u32,
    /// can-gw's `max_hops`.
    pub max_hops: u8,
    /// `EXCLUSIVE`, `VIRTUAL`, `DENY`.
    pub flags: u32,
}

/// Tables of an interface, ready to be written into maps.
pub struct Compiled {
    /// The table that is switched. Handles of the lists are still 0.
    pub tables: Box<Tables>,
    /// How many of its cells are used; those behind are 0.
    pub cells: usize,
    /// Lists of exact identifiers.
    pub exact: BTreeMap<u32, u32>,
    /// Classes of halves, by [`Space::halves`].
    pub halves: Vec<Box<Halves>>,
    /// The cross tables of all spaces.
    pub cross: Vec<CrossChunk>,
    /// Classes of CAN XL headers, when a rule asks for more than their priority.
    pub xl: Option<Box<XlTables>>,
    /// The distinct lists of rules, to be given handles.
    pub lists: Vec<List>,
    /// The edits of the rules, numbered from 1.
    pub edits: Vec<Arc<Edit>>,
}

/// Why rules cannot be compiled. Indices are those of the rules given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// More rules match one frame than a list holds.
    #[error("{} rules match the same frame; at most {MAX_LIST} can", .rules.len())]
    ListTooLong {
        /// The rules of that list.
        rules: Vec<usize>,
    },
    /// The lists of all identifiers together are too long.
    #[error(
        "the rules overlap in too many ways: the lists of rules for all identifiers need more than {} entries",
        cangw_common::abi::MAX_CELLS
    )]
    TooManyLists {
        /// The rule with which the limit was passed.
        rules: Vec<usize>,
    },
    /// The masks on extended identifiers cut the identifiers into too many classes.
    #[error(
        "masks on extended identifiers or CAN XL headers need a table of {cells} cells; at most {MAX_CROSS} fit"
    )]
    TooManyMasks {
        /// The rule with which the limit was passed.
        rules: Vec<usize>,
        /// Cells needed.
        cells: u64,
    },
    /// More rules modify frames than can be numbered.
    #[error("{} rules modify frames; at most {MAX_EDITS} can", .rules.len())]
    TooManyEdits {
        /// These rules.
        rules: Vec<usize>,
    },
    /// Edited echoes can reach an interface in too many ways.
    #[error(
        "edited echoes can come to the interface with index {ifindex} by more than {} combinations of origin and hops; lower max-hops",
        cangw_common::abi::MAX_STATES
    )]
    TooManyStates {
        /// The interface.
        ifindex: u32,
    },
}

impl Error {
    /// The rules that are the reason.
    #[must_use]
    pub fn rules(&self) -> &[usize] {
        match self {
            Self::ListTooLong { rules }
            | Self::TooManyLists { rules }
            | Self::TooManyEdits { rules }
            | Self::TooManyMasks { rules, .. } => rules,
            Self::TooManyStates { .. } => &[],
        }
    }
}

/// The class in which can-gw executes a rule: all, masked, inverted, single identifier (`can_rcv_filter`). A rule with several
/// comparisons counts as masked.
fn class(predicates: &[Predicate]) -> u8 {
    const SINGLE_EFF: u32 = EFF_MASK | EFF_FLAG | RTR_FLAG;
    const SINGLE_SFF: u32 = SFF_MASK | EFF_FLAG | RTR_FLAG;
    let &[predicate] = predicates else {
        return 1;
    };
    match predicate {
        Predicate::Equal { mask: 0, .. } | Predicate::Error { .. } => 0,
        Predicate::Differs { .. } => 2,
        Predicate::Equal { id, mask } => {
            let single = if id & EFF_FLAG != 0 {
                SINGLE_EFF
            } else {
                SINGLE_SFF
            };
            if mask == single && id & RTR_FLAG == 0 {
                3
            } else {
                1
            }
        }
    }
}

/// Of all rules of a network namespace, those that frames of an interface can meet: its own and, unless they are looked up
/// again, those that their echoes reach.
#[must_use]
pub fn relevant(ifindex: u32, rules: &[Input], states: &States) -> Vec<Input> {
    let places = if states.looked_up_again(ifindex) {
        vec![ifindex]
    } else {
        states::reached(ifindex, &states::echo_edges(rules))
    };
    let mut relevant = rules.to_vec();
    relevant.retain(|rule| places.contains(&rule.source));
    relevant
}

/// Compiles the [relevant] rules of one interface, given newest first.
///
/// # Errors
/// See [`Error`]; the rules in force are not touched.
pub fn compile(interface: Interface, rules: &[Input], states: &States) -> Result<Compiled, Error> {
    let mut order: Vec<usize> = (0..rules.len()).collect();
    order.sort_by_key(|&i| rules[i].rank());
    let sorted: Vec<Input> = order.iter().map(|&i| rules[i].clone()).collect();
    let mut out = Compiled::nothing();
    let editing: Vec<usize> = (0..rules.len())
        .filter(|&i| rules[i].edit.is_some())
        .collect();
    let doubled = rules.iter().filter(|rule| rule.duplicates).count();
    if editing.len() + doubled > MAX_EDITS {
        return Err(Error::TooManyEdits { rules: editing });
    }
    let mut lists = Lists::new(interface, &sorted, states);
    build(interface, &sorted, &mut lists, &mut out).map_err(|e| name_rules(e, &order))?;
    let (cells, lists, edits) = lists.finish();
    out.tables.cells[..cells.len()].copy_from_slice(&cells);
    out.cells = cells.len();
    out.tables.head.states = states.of(interface.ifindex).len() as u32;
    out.lists = lists;
    out.edits = edits;
    for step in out.lists.iter_mut().flat_map(|list| &mut list.steps) {
        step.rule = order[step.rule as usize] as u32;
    }
    Ok(out)
}

/// Translates indices in execution order to the caller's.
fn name_rules(error: Error, order: &[usize]) -> Error {
    let back = |rules: Vec<usize>| rules.into_iter().map(|i| order[i]).collect();
    match error {
        Error::ListTooLong { rules } => Error::ListTooLong { rules: back(rules) },
        Error::TooManyLists { rules } => Error::TooManyLists { rules: back(rules) },
        Error::TooManyMasks { rules, cells } => Error::TooManyMasks {
            rules: back(rules),
            cells,
        },
        Error::TooManyEdits { rules } => Error::TooManyEdits { rules: back(rules) },
        Error::TooManyStates { ifindex } => Error::TooManyStates { ifindex },
    }
}

fn zeroed_tables() -> Box<Tables> {
    // SAFETY: Tables consists of integers only, for which all zeroes is a value.
    unsafe { Box::new_zeroed().assume_init() }
}

fn build(
    interface: Interface,
    rules: &[Input],
    lists: &mut Lists<'_>,
    out: &mut Compiled,
) -> Result<(), Error> {
    for kind in FrameType::ALL {
        let of_kind: Vec<usize> = (0..rules.len())
            .filter(|&i| rules[i].kind == kind)
            .collect();
        if kind == FrameType::Xl && of_kind.iter().any(|&i| !rules[i].xl.is_empty()) {
            out.xl = Some(xl::build(rules, &of_kind, lists, &mut out.cross)?);
            continue;
        }
        standard(
            kind,
            rules,
            &of_kind,
            lists,
            &mut out.tables.standard[kind as usize],
        )?;
        for error in [false, true] {
            if let Some(index) = SpaceIndex::of(kind, error) {
                out.tables.head.spaces[index as usize] =
                    space(kind, error, rules, &of_kind, lists, out)?;
            }
        }
    }
    let head = &mut out.tables.head;
    head.ifindex = interface.ifindex;
    head.flags = interface.flags;
    if !out.exact.is_empty() {
        head.flags |= HAS_EXACT;
    }
    if out.xl.is_some() {
        head.flags |= HAS_XL_FIELDS;
    }
    Ok(())
}

/// Fills the direct table of one frame type.
fn standard(
    kind: FrameType,
    rules: &[Input],
    of_kind: &[usize],
    lists: &mut Lists<'_>,
    table: &mut [ListId; STANDARD_KEYS],
) -> Result<(), Error> {
    // Key bits: the identifier, and RTR above it; CAN XL priorities have no RTR.
    let key_bits = match kind {
        FrameType::Xl => SFF_MASK,
        FrameType::Classic | FrameType::Fd => SFF_MASK | 1 << 11,
    };
    let to_key = |id: u32| (id & SFF_MASK) | ((id & RTR_FLAG) >> 19);
    let mut matching = vec![Vec::new(); STANDARD_KEYS];
    for &i in of_kind {
        let mut too_long = None;
        let mut add = |key: u32| {
            let rules: &mut Vec<usize> = &mut matching[key as usize];
            if rules.last() != Some(&i) {
                rules.push(i);
                if rules.len() > MAX_LIST as usize {
                    too_long = Some(key as usize);
                }
            }
        };
        for predicate in &rules[i].predicates {
            let (id, mask, inverted) = match *predicate {
                Predicate::Equal { id, mask } => (id, mask, false),
                Predicate::Differs { id, mask } => (id, mask, true),
                Predicate::Error { .. } => continue,
            };
            // All other bits of a standard frame's identifier are 0, and so is RTR of a CAN XL frame.
            let possible = match kind {
                FrameType::Xl => id & !SFF_MASK == 0,
                FrameType::Classic | FrameType::Fd => id & !(SFF_MASK | RTR_FLAG) == 0,
            };
            let fixed = to_key(mask) & key_bits;
            let value = to_key(id) & fixed;
            if inverted {
                (0..=key_bits)
                    .filter(|key| !possible || key & fixed != value)
                    .for_each(&mut add);
            } else if possible {
                halves::for_each_subset(key_bits & !fixed, |free| add(value | free));
            }
        }
        if let Some(key) = too_long {
            return Err(Error::ListTooLong {
                rules: std::mem::take(&mut matching[key]),
            });
        }
    }
    let mut last: Option<(&[usize], ListId)> = None;
    for (slot, rules) in table.iter_mut().zip(&matching) {
        // Most neighbours have the same rules.
        *slot = match last {
            Some((same, id)) if same == rules.as_slice() => id,
            _ => lists.intern(rules)?,
        };
        last = Some((rules, *slot));
    }
    Ok(())
}

/// The look-ups of the programs, on the host.
impl Lookup for Compiled {
    fn exact(&self, _aux: u32, key: u32) -> Option<ListId> {
        self.exact.get(&key).map(|&list| list as ListId)
    }

    fn halves(&self, _aux: u32, space: u16, high: usize, low: usize) -> Option<(u16, u16)> {
        let halves = self.halves.get(usize::from(space))?;
        Some((halves.high[high], halves.low[low]))
    }

    fn cross(&self, _aux: u32, chunk: u32, within: usize) -> Option<ListId> {
        self.cross.get(chunk as usize).map(|c| c.0[within])
    }

    fn xl(&self, _aux: u32) -> Option<&XlTables> {
        self.xl.as_deref()
    }
}

impl Compiled {
    /// The tables of no interface.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            tables: zeroed_tables(),
            cells: 0,
            exact: BTreeMap::new(),
            halves: Vec::new(),
            cross: Vec::new(),
            xl: None,
            lists: Vec::new(),
            edits: Vec::new(),
        }
    }

    /// What is done with a frame.
    #[must_use]
    pub fn steps(&self, kind: FrameType, can_id: u32) -> Vec<Step> {
        self.list(kind, can_id, None)
            .map(|list| list.steps.clone())
            .unwrap_or_default()
    }

    /// The list of a frame that enters; `None` when nothing is done.
    #[must_use]
    pub fn list(&self, kind: FrameType, can_id: u32, fields: Option<XlFields>) -> Option<&List> {
        let id = classify(&self.tables, self, kind, can_id, || fields).ok()?;
        self.lists.iter().find(|list| list.id == id)
    }
}

#[cfg(test)]
mod tests;
