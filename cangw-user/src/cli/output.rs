//! Lists and counters on standard output.

use std::io::Write as _;

use crate::error::{Error, Result};
use crate::gateway::{Gateway, InterfaceReport, Report, RuleReport};
use crate::rule::{filter_text, kind_name};
use cangw_common::frame::FrameType;
use serde::Serialize;

/// Everything that is to be known; empty where there is no gateway.
pub(super) fn report() -> Result<Report> {
    match Gateway::look()? {
        Some(gateway) => gateway.report(),
        None => Ok(Report::default()),
    }
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
            writeln!(out, "{program} -A {}", classic_line(rule))?;
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

fn classic_line(r: &RuleReport) -> String {
    let rule = &r.rule;
    let mut line = format!("-s {} -d {} ", rule.source, rule.target);
    line.push_str(match rule.kind {
        FrameType::Classic => "",
        FrameType::Fd => "-X ",
        FrameType::Xl => "--xl ",
    });
    for (set, option) in [
        (rule.echo, "-e "),
        (rule.timestamp, "-t "),
        (rule.iif_tx_ok, "-i "),
    ] {
        if set {
            line.push_str(option);
        }
    }
    if rule.limit != 0 {
        line.push_str(&format!("-l {} ", rule.limit));
    }
    if let Some(changes) = &rule.changes {
        line.push_str(&changes.to_string());
    }
    if let Some(filter) = rule.filter {
        line.push_str(&format!("-f {} ", filter_text(filter)));
    }
    line + &format!(
        "# {} handled {} dropped {} deleted",
        r.handled, r.dropped, r.deleted
    )
}

pub(super) fn rules(rules: &[RuleReport]) -> Result<()> {
    print(|out| {
        for r in rules {
            let rule = &r.rule;
            write!(
                out,
                "{} -> {} {}",
                rule.source,
                rule.target,
                kind_name(rule.kind)
            )?;
            match rule.filter {
                Some(filter) => write!(out, " filter {}", filter_text(filter))?,
                None => write!(out, " all")?,
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

pub(super) fn interfaces(interfaces: &[InterfaceReport]) -> Result<()> {
    print(|out| {
        for i in interfaces {
            let engine = i.engine.map_or("none".to_owned(), |e| e.to_string());
            let exclusive = if i.exclusive { "on" } else { "off" };
            writeln!(
                out,
                "{}: engine {engine} (asked: {}) exclusive {exclusive}",
                i.name, i.engine_asked
            )?;
        }
        Ok(())
    })
}

pub(super) fn stats(report: &Report) -> Result<()> {
    print(|out| {
        for r in &report.rules {
            writeln!(out, "{}", r.rule)?;
            writeln!(
                out,
                "    handled {} dropped {} (refused {} mtu {}) deleted {} (hop limit {} too long {}) skipped_origin {}",
                r.handled,
                r.dropped,
                r.dropped_refused,
                r.dropped_mtu,
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
