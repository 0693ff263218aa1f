//! `cangw import`: the rules of the kernel's can-gw.

use serde::Serialize;

use super::output;
use crate::error::{Error, Result};
use crate::gateway::Gateway;
use crate::import::Import;
use crate::kernel::gw::Counters;
use crate::rule::Rule;
use crate::state::Settings;

/// A rule of can-gw for programs, with can-gw's counters, in frames.
#[derive(Serialize)]
struct Line {
    #[serde(flatten)]
    rule: Rule,
    handled: u32,
    dropped: u32,
    deleted: u32,
}

impl Line {
    fn new(rule: &Rule, counters: Counters) -> Self {
        Self {
            rule: rule.clone(),
            handled: counters.handled,
            dropped: counters.dropped,
            deleted: counters.deleted,
        }
    }
}

pub(super) fn run(dry_run: bool, json: bool) -> Result<()> {
    let import = Import::look()?;
    let found = import.as_ref().map_or(&[][..], |import| &import.rules);
    let lines: Vec<Line> = found
        .iter()
        .map(|(job, rule)| Line::new(rule, job.counters))
        .collect();
    let Some(import) = import.filter(|_| !lines.is_empty()) else {
        eprintln!("cangw: nothing to import: can-gw has no rules in this network namespace");
        return print(&lines, json);
    };
    let max_hops = import.max_hops();
    if dry_run {
        let (settings, has_rules) = gateway_now()?;
        print(&lines, json)?;
        if import.raises_max_hops(settings, has_rules) {
            eprintln!("cangw: max-hops would be raised to {max_hops}, as can-gw has it");
        } else {
            warn_of_hops(max_hops, settings);
        }
        eprintln!(
            "cangw: {} to be imported; nothing was changed",
            rules(lines.len())
        );
        return Ok(());
    }
    let mut gateway = Gateway::open()?;
    let imported = import.run(&mut gateway)?;
    output::tell_notes(gateway.notes());
    print(&lines, json)?;
    if imported.raised_max_hops {
        eprintln!("cangw: max-hops is {max_hops} now, as can-gw has it");
    }
    warn_of_hops(max_hops, gateway.settings());
    eprintln!(
        "cangw: {} imported and deleted from can-gw; counters start at 0",
        rules(lines.len())
    );
    if imported.left > 0 {
        eprintln!(
            "cangw: another program added {} to can-gw meanwhile; import again",
            rules(imported.left)
        );
    }
    Ok(())
}

/// The gateway's settings, and whether it has rules. Who may not read them can still see what can-gw has.
fn gateway_now() -> Result<(Settings, bool)> {
    match Gateway::look() {
        Ok(Some(gateway)) => Ok((gateway.settings(), !gateway.report()?.rules.is_empty())),
        Ok(None) | Err(Error::Privilege { .. }) => Ok((Settings::default(), false)),
        Err(error) => Err(error),
    }
}

fn warn_of_hops(can_gw: u8, settings: Settings) {
    let ours = settings.max_hops;
    if can_gw > ours {
        eprintln!(
            "cangw: can-gw deletes a frame after {can_gw} hops, this gateway after {ours}, because it had rules before; `cangw settings max-hops {can_gw}` changes that"
        );
    }
}

fn print(lines: &[Line], json: bool) -> Result<()> {
    if json {
        return output::json(&lines);
    }
    output::print(|out| {
        for line in lines {
            writeln!(
                out,
                "cangw -A {} # {} handled {} dropped {} deleted",
                line.rule, line.handled, line.dropped, line.deleted
            )?;
        }
        Ok(())
    })
}

fn rules(count: usize) -> String {
    format!("{count} rule{}", if count == 1 { "" } else { "s" })
}
