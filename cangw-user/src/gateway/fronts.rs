//! Filters in front of the program: a shorter way for the frames of an interface that has a single list.

use cangw_common::abi::{
    DENY, EXCLUSIVE, HAS_EXACT, KEEP_STAMP, LIST_ECHO, LIST_STAMP, SHORTCUT_EXCLUSIVE,
    SHORTCUT_ONLY, SPACE_UNIFORM, Shortcut, SpaceIndex, front, mark,
};
use cangw_common::classify::{ListId, NO_RULE};
use cangw_common::frame::FrameType;

use crate::compile::Compiled;
use crate::error::Result;
use crate::kernel::bpf::TcProgram;
use crate::kernel::filter::{self, End, Front, Installed, Place, Plan};
use crate::kernel::netlink::Netlink;
use crate::kernel::pins::Pins;
use crate::kernel::syscall;
use crate::kernel::words::Words;

/// The filters in front that serve an interface with one list, given with its twins by their bits of the mark; each with the handle of the
/// twin whose actions it has.
pub(super) fn of_only_list(
    exclusive: bool,
    handle: u32,
    twins: &[(u32, Plan)],
) -> Vec<(Front, u32)> {
    let fronts = if exclusive {
        vec![(Front::Take, 0)]
    } else {
        vec![(Front::Copy, 0), (Front::Take, mark::TAKEN)]
    };
    let ends_there = |bits: u32| {
        let plan = twins.iter().find(|(b, _)| *b == bits).map(|(_, plan)| plan);
        plan.is_some_and(|plan| plan.runs.len() == 1 && plan.end != End::Next)
    };
    // A list that drops frames has no twin for nobody, and is the program's affair.
    if handle & front::COPY != 0
        || !fronts
            .iter()
            .any(|(front, bits)| *front == Front::Take && ends_there(*bits))
    {
        return Vec::new();
    }
    fronts
        .into_iter()
        .filter(|(_, bits)| ends_there(*bits))
        .map(|(front, bits)| (front, handle | bits))
        .collect()
}

/// What programs can know of an interface's classic frames without its tables: those whose list is one rule that sends them as they are. `None` when that is none
/// with a standard identifier, so that it would only be asked in vain.
pub(super) fn shortcut(compiled: &Compiled, slot: u32) -> Option<Box<Shortcut>> {
    let tables = &compiled.tables;
    let head = &tables.head;
    let cell_of = |list: ListId| {
        let cell = &tables.cells[usize::from(list)];
        let plain = cell.len == 1 && cell.flags & !(LIST_ECHO | LIST_STAMP | KEEP_STAMP) == 0;
        let is_known = list != NO_RULE && cell.handle != 0 && plain;
        is_known.then(|| Shortcut::cell(cell.rule, cell.handle))
    };
    let mut shortcut = Box::new(Shortcut {
        ifindex: head.ifindex,
        slot,
        ..Shortcut::NONE
    });
    // Without RTR, keys are identifiers.
    let standard = &tables.standard[FrameType::Classic as usize];
    let mut is_only = head.flags & DENY == 0;
    for (cell, list) in shortcut.cells.iter_mut().zip(standard) {
        *cell = cell_of(*list).unwrap_or(0);
        is_only &= *cell != 0 || *list == NO_RULE;
    }
    if shortcut.cells == Shortcut::NONE.cells {
        return None;
    }
    let extended = head.spaces[SpaceIndex::ClassicExtended as usize];
    let is_for_all = standard.iter().all(|list| *list == extended.list)
        && head.flags & HAS_EXACT == 0
        && extended.kind == SPACE_UNIFORM;
    if is_for_all {
        shortcut.all = cell_of(extended.list).unwrap_or(0);
    }
    for (is_so, flag) in [
        (is_only, SHORTCUT_ONLY),
        (head.flags & EXCLUSIVE != 0, SHORTCUT_EXCLUSIVE),
    ] {
        if is_so {
            shortcut.flags |= flag;
        }
    }
    Some(shortcut)
}

/// What is to stand in front of the program of an interface, once its tables are in force.
pub(super) enum Fronts {
    /// What is there.
    Stay,
    /// These instead, each with the actions of a list, and what programs know.
    New(Vec<(Front, Installed)>, Option<Box<Shortcut>>),
}

impl Fronts {
    /// Finds the lists of the filters that are wanted. What stands there now stays if it is the same; else it goes, which makes the way
    /// of frames longer but leads to the same.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn prepare(
        netlink: &Netlink,
        pins: &Pins,
        ifindex: u32,
        wanted: &[(Front, u32)],
        shortcut: Option<Box<Shortcut>>,
    ) -> Result<Self> {
        let (present, lists): (Vec<Installed>, Vec<Installed>) =
            filter::installed(netlink, ifindex)?
                .into_iter()
                .partition(|filter| matches!(filter.place, Place::Front(..)));
        let mut fronts = Vec::new();
        for (front, handle) in wanted {
            let list = lists
                .iter()
                .find(|list| list.handle == *handle && list.place == Place::Run(0));
            if let Some(list) = list {
                fronts.push((*front, list.clone()));
            }
        }
        let mut stay = present.len() == fronts.len();
        if stay && !fronts.is_empty() {
            let program = TcProgram::open_front(pins)?.id()?;
            for (front, list) in &fronts {
                let place = Place::Front(*front, program);
                stay &= present
                    .iter()
                    .any(|p| p.place == place && p.is_front_of(list));
            }
        }
        let words = Words::open(pins)?;
        if stay && words.has_shortcut(ifindex, shortcut.as_deref()) {
            return Ok(Self::Stay);
        }
        detach(netlink, ifindex, &present, fronts.is_empty())?;
        words.forget_shortcut(ifindex);
        Ok(Self::New(fronts, shortcut))
    }

    /// Attaches those that are not there, so that the one is asked first that most frames are for: while somebody listens (`heard`) the one that
    /// copies. `copies_first` says which that is, where there are both.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach(
        self,
        netlink: &Netlink,
        pins: &Pins,
        ifindex: u32,
        heard: bool,
        copies_first: &mut Option<bool>,
    ) -> Result<()> {
        let first = if heard { Front::Copy } else { Front::Take };
        let mut fronts = match self {
            Self::New(fronts, shortcut) => {
                if let Some(shortcut) = shortcut {
                    // No program goes by what was known before: the tables were switched since it was forgotten, which waits for them.
                    Words::open(pins)?.set_shortcut(&shortcut);
                }
                *copies_first = (fronts.len() == Front::ALL.len()).then_some(heard);
                fronts
            }
            Self::Stay if *copies_first == Some(!heard) => {
                *copies_first = Some(heard);
                let mut present = filter::installed(netlink, ifindex)?;
                present.retain(|p| matches!(p.place, Place::Front(front, _) if front == first));
                filter::detach_front(netlink, ifindex, first)?;
                present.into_iter().map(|list| (first, list)).collect()
            }
            Self::Stay => return Ok(()),
        };
        if fronts.is_empty() {
            return Ok(());
        }
        fronts.sort_by_key(|(front, _)| *front == first);
        let program = TcProgram::open_front(pins)?;
        fronts.iter().try_for_each(|(front, list)| {
            filter::attach_front(netlink, ifindex, *front, program.fd()?, list)
        })
    }

    /// Takes all off an interface. When this returns, no frame carries a verdict that waits for the program.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(netlink: &Netlink, pins: &Pins, ifindex: u32) -> Result<()> {
        let mut present = filter::installed(netlink, ifindex)?;
        present.retain(|filter| matches!(filter.place, Place::Front(..)));
        Words::open(pins)?.forget_shortcut(ifindex);
        detach(netlink, ifindex, &present, true)
    }
}

/// Detaches filters, and waits until no frame carries a verdict of theirs when none are to come back: then the program behind them may be
/// next to go.
fn detach(netlink: &Netlink, ifindex: u32, present: &[Installed], wait: bool) -> Result<()> {
    for filter in present {
        if let Place::Front(front, _) = filter.place {
            filter::detach_front(netlink, ifindex, front)?;
        }
    }
    if wait && !present.is_empty() {
        syscall::wait_for_frames();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cangw_common::frame::{EFF_FLAG, EFF_MASK, RTR_FLAG, SFF_MASK};
    use cangw_common::rule::{Filter, Match};

    use super::*;
    use crate::compile::{Input, Interface, States, compile};

    /// Identifier and all flags that a filter can ask for.
    const EXACT: u32 = EFF_FLAG | RTR_FLAG | SFF_MASK;

    fn rule(slot: u32, target: u32, (id, mask): (u32, u32)) -> Input {
        let matching = Match {
            kind: FrameType::Classic,
            predicate: Filter { id, mask }.predicate(),
        };
        Input::new(slot, matching, 5, target)
    }

    /// What is known of an interface whose lists have the handles 1, 2, ...
    fn known(flags: u32, rules: &[Input]) -> Option<Box<Shortcut>> {
        let interface = Interface {
            ifindex: 5,
            max_hops: 1,
            flags,
        };
        let mut compiled = compile(interface, rules, &States::default()).unwrap();
        for (handle, list) in (1..).zip(&compiled.lists) {
            compiled.tables.cells[usize::from(list.id)].handle = handle;
        }
        shortcut(&compiled, 9)
    }

    #[test]
    fn only_single_rules_have_cells() {
        let rules = [
            rule(3, 7, (0x123, EXACT)),
            rule(4, 7, (0x125, EXACT)),
            rule(6, 8, (0x125, EXACT)),
        ];
        let shortcut = known(0, &rules).unwrap();
        assert_eq!((shortcut.ifindex, shortcut.slot), (5, 9));
        let cell = shortcut.cells[0x123];
        assert_eq!(Shortcut::rule(cell), 3);
        assert!([1, 2].contains(&Shortcut::handle(cell)));
        let others = (0..).zip(shortcut.cells).filter(|(id, _)| *id != 0x123);
        assert!(others.map(|(_, cell)| cell).all(|cell| cell == 0));
        assert_eq!((shortcut.flags, shortcut.all), (0, 0));
        assert!(known(0, &rules[1..]).is_none());
        assert!(known(0, &[rule(3, 7, (EFF_FLAG | 1, EFF_FLAG | EFF_MASK))]).is_none());
    }

    #[test]
    fn what_no_rule_is_for_passes_unless_it_is_denied() {
        let rules = [rule(3, 7, (0x123, EXACT)), rule(4, 8, (0x124, EXACT))];
        assert_eq!(known(0, &rules).unwrap().flags, SHORTCUT_ONLY);
        let exclusive = known(EXCLUSIVE, &rules).unwrap().flags;
        assert_eq!(exclusive, SHORTCUT_ONLY | SHORTCUT_EXCLUSIVE);
        assert_eq!(known(DENY, &rules).unwrap().flags, 0);
    }

    #[test]
    fn a_rule_for_all_frames_has_all_cells() {
        let all = known(0, &[rule(3, 7, (0, 0))]).unwrap();
        assert_eq!(all.all, Shortcut::cell(3, 1));
        assert!(all.cells.iter().all(|cell| *cell == all.all));
        let most = known(0, &[rule(3, 7, (0, RTR_FLAG))]).unwrap();
        assert_eq!(most.all, 0, "remote requests are not for it");
        assert_eq!(most.cells[0x7FF], Shortcut::cell(3, 1));
    }
}
