//! Frames that XDP gives to several targets at once.

use std::collections::HashSet;

use super::Gateway;
use crate::error::Result;
use crate::kernel::maps::Maps;
use crate::kernel::{fan_out, link, listeners};
use crate::state::{Live, State};

impl Gateway {
    /// Lets XDP give frames to several targets at once, if the probes are there and all targets are up. Else tc serves them.
    pub(super) fn arm_fan_out(&self, state: &State) {
        let targets: HashSet<u32> = fanning(state)
            .flat_map(|live| &live.fan_out)
            .filter_map(|slot| state.rules.iter().find(|e| e.slot == *slot))
            .map(|entry| entry.target)
            .collect();
        if targets.is_empty() || !listeners::are_attached(&self.pins) {
            return;
        }
        let Ok(switch) = fan_out::Switch::open(&self.pins) else {
            return;
        };
        if !switch.is_armed() {
            let _ = switch.arm(|| {
                let links = link::list(&self.netlink)?;
                let up = |index: &u32| links.iter().any(|l| l.index == *index && l.up);
                Ok(targets.iter().all(up))
            });
        }
    }
}

/// Interfaces whose frames XDP gives to several targets at once.
fn fanning(state: &State) -> impl Iterator<Item = &Live> {
    let live = state.interfaces.values().filter_map(|i| i.live.as_ref());
    live.filter(|live| !live.fan_out.is_empty())
}

pub(super) fn fans_out(state: &State) -> bool {
    fanning(state).next().is_some()
}

/// Keeps what XDP counted for several rules at once, by tables that no frame uses any more.
pub(super) fn keep_fanned_out(maps: &Maps, state: &mut State, live: &Live) -> Result<()> {
    if live.fan_out.is_empty() {
        return Ok(());
    }
    let counted = maps.fan_count(live.aux())?;
    for entry in &mut state.rules {
        if live.fan_out.contains(&entry.slot) {
            entry.fanned_out += counted.frames;
            entry.fanned_out_bytes += counted.bytes;
        }
    }
    Ok(())
}
