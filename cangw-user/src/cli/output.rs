//! Lists and counters on standard output.

use std::io::Write as _;

use crate::api::Method;
use crate::api::client::Door;
use crate::api::methods::{Done, Stats};
use crate::error::{Error, Result};
use crate::gateway::{InterfaceReport, Report, RuleReport};
use crate::kernel::listeners::Receivers;
use crate::options::{Action, Stay};
use crate::rule::{filter_text, kind_name};
use serde::Serialize;

/// Changes the gateway, and says what a user should know of it.
pub(super) fn change(change: impl Method<Reply = Done>) -> Result<()> {
    let done = Door::open()?.call(change)?;
    tell_notes(done.notes);
    Ok(())
}

/// Says what a user should know of changes that succeeded.
pub(super) fn tell_notes(notes: Vec<String>) {
    for note in notes {
        eprintln!("cangw: {note}");
    }
}

/// Everything that is to be known; empty where there is no gateway.
pub(super) fn report() -> Result<Report> {
    Door::open()?.call(Stats {})
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<()> {
    let text =
        serde_json::to_string_pretty(value).map_err(|e| Error::io("write JSON", e.into()))?;
    print(|out| writeln!(out, "{text}"))
}

/// Writes all at once: standard output would flush at the ends of lines.
pub(super) fn print(
    write: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>,
) -> Result<()> {
    let mut text = Vec::new();
    write(&mut text)
        .and_then(|()| std::io::stdout().lock().write_all(&text))
        .map_err(|e| Error::io("write to standard output", e))
}

/// Counters behind each other, `before` in front of the first. Those that are 0 are not told, but for those that always are.
pub(super) fn counters(
    out: &mut dyn std::io::Write,
    mut before: &str,
    counters: &[(&str, u64)],
    always: &[&str],
) -> std::io::Result<()> {
    for (what, count) in counters {
        if *count != 0 || always.contains(what) {
            write!(out, "{before} {what} {count}")?;
            before = ",";
        }
    }
    Ok(())
}

/// Ends a line, with what is wrong there.
pub(super) fn end(out: &mut dyn std::io::Write, error: Option<&str>) -> std::io::Result<()> {
    match error {
        Some(error) => writeln!(out, "; {error}"),
        None => writeln!(out),
    }
}

/// `cangw -L`: each line can be used in a script.
pub(super) fn classic_list() -> Result<()> {
    let program = std::env::args()
        .next()
        .as_deref()
        .and_then(|arg| std::path::Path::new(arg).file_name()?.to_str())
        .unwrap_or("cangw")
        .to_owned();
    let report = report()?;
    print(|out| {
        for rule in &report.rules {
            let verb = if rule.rule.is_classic() {
                "-A"
            } else {
                "rule add"
            };
            writeln!(out, "{program} {verb} {}", line(rule))?;
        }
        Ok(())
    })?;
    for rule in &report.rules {
        if let Some(name) = &rule.waiting_for {
            eprintln!("cangw: {} waits for interface {name}", rule.rule);
        }
    }
    Ok(())
}

/// A rule as options, with the counters that `cangw -L` shows. Modifications end with a space there, as every option does.
fn line(r: &RuleReport) -> String {
    format!(
        "{} # {} handled {} dropped {} deleted",
        r.rule, r.handled, r.dropped, r.deleted
    )
}

pub(super) fn rules(rules: &[RuleReport]) -> Result<()> {
    print(|out| {
        for r in rules {
            let rule = &r.rule;
            write!(out, "{} ", rule.source)?;
            match &rule.action {
                Action::Forward { target } => write!(out, "-> {target}")?,
                Action::Stay { action: Stay::Drop } => write!(out, "drop")?,
                Action::Stay { action: Stay::Pass } => write!(out, "pass")?,
                Action::Stay {
                    action: Stay::Watch,
                } => write!(out, "watch")?,
            }
            write!(out, " {}", kind_name(rule.kind))?;
            match rule.filter {
                Some(filter) => write!(out, " filter {}", filter_text(filter))?,
                None if rule.options.ids.is_empty() => write!(out, " all")?,
                None => {}
            }
            if !rule.options.is_default() {
                write!(out, " {}", rule.options)?;
            }
            for (set, word) in [
                (rule.echo, " echo"),
                (rule.timestamp, " timestamp"),
                (rule.iif_tx_ok, " iif-tx-ok"),
            ] {
                if set {
                    write!(out, "{word}")?;
                }
            }
            if rule.limit != 0 {
                write!(out, " hops {}", rule.limit)?;
            }
            if let Some(changes) = &rule.changes {
                write!(out, " {}", changes.to_string().trim_end())?;
            }
            if let Some(name) = &r.waiting_for {
                write!(out, " WAITING for {name}")?;
            }
            writeln!(
                out,
                "\n    handled {} dropped {} deleted {}",
                r.handled, r.dropped, r.deleted
            )?;
        }
        Ok(())
    })
}

/// Says so when the kernel's can-gw has rules on an interface that gets one of ours.
pub(super) fn warn_of_can_gw(interface: &str) {
    if Receivers::read().is_ok_and(|receivers| receivers.can_gw_on(interface)) {
        eprintln!(
            "cangw: the kernel's can-gw has rules on {interface}, too: it gets only the frames that are left to local sockets, and forwards them a second time; `cangw import` takes its rules over"
        );
    }
}

pub(super) fn interfaces(interfaces: &[InterfaceReport]) -> Result<()> {
    print(|out| {
        for i in interfaces {
            let engine = i.engine.map_or("none".to_owned(), |e| e.to_string());
            let exclusive = if i.exclusive { "on" } else { "off" };
            write!(
                out,
                "{}: engine {engine} (asked: {}) exclusive {exclusive} policy {}",
                i.name, i.engine_asked, i.policy
            )?;
            match i.listeners {
                _ if i.exclusive || i.engine.is_none() => writeln!(out)?,
                Some(0) => writeln!(out, " listeners 0 (nothing is copied)")?,
                Some(n) => writeln!(out, " listeners {n}")?,
                None => writeln!(out, " listeners unknown (everything is copied)")?,
            }
        }
        Ok(())
    })
}

pub(super) fn stats(report: &Report) -> Result<()> {
    print(|out| {
        for r in &report.rules {
            writeln!(out, "{}", r.rule)?;
            // What only some rules can have is shown when there is some.
            let some = |counts: &[(u64, &str)]| -> String {
                let counts = counts.iter().filter(|(count, _)| *count != 0);
                counts.map(|(n, name)| format!(" {name} {n}")).collect()
            };
            let mut handled = some(&[
                (r.duplicated, "duplicated"),
                (r.corrupted, "corrupted"),
                (r.rate_shared, "rate shared"),
            ]);
            if !handled.is_empty() {
                handled = format!(" ({})", handled.trim_start());
            }
            let dropped = format!("refused {} mtu {}", r.dropped_refused, r.dropped_mtu)
                + &some(&[
                    (r.dropped_waiting, "waiting"),
                    (r.dropped_by_rule, "by rule"),
                    (r.dropped_over_rate, "over rate"),
                    (r.dropped_by_fault, "by fault"),
                ]);
            writeln!(
                out,
                "    handled {}{handled} dropped {} ({dropped}) deleted {} (hop limit {} too long {}) skipped_origin {}",
                r.handled,
                r.dropped,
                r.deleted,
                r.deleted_hop_limit,
                r.deleted_too_long,
                r.skipped_origin
            )?;
        }
        for i in &report.interfaces {
            write!(out, "{}:", i.name)?;
            for (reason, count) in &i.reasons {
                write!(out, " {reason} {count}")?;
            }
            writeln!(out, " refused_shared {}", i.refused_shared)?;
        }
        Ok(())
    })
}
