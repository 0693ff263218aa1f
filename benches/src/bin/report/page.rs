//! The part of docs/performance.md that has the numbers.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use cangw_benches::{CAN_GW, Measured, NO_GATEWAY, OfKernel, Results, View};

const BEGIN: &str = "<!-- numbers: written by cargo xtask bench -->\n";
const END: &str = "<!-- end of numbers -->";

/// The page with other numbers.
pub fn update(page: &str, numbers: &str) -> Result<String> {
    let parts = page
        .split_once(BEGIN)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) =
        parts.with_context(|| format!("the page has no lines `{}` and `{END}`", BEGIN.trim()))?;
    Ok(format!("{before}{BEGIN}\n{numbers}\n{END}{after}"))
}

/// Tables of all kernels. The plots are in the folder.
pub fn numbers(results: &Results, folder: &str) -> String {
    let mut text = String::new();
    for (line, of_kernel) in results {
        // Writing to a String cannot fail.
        let _ = kernel(&mut text, line, of_kernel, folder);
    }
    text.trim_end().to_owned()
}

fn kernel(text: &mut String, line: &str, of: &OfKernel, folder: &str) -> std::fmt::Result {
    writeln!(
        text,
        "## Linux {line}\n\nKernel {}; measured by `{}`.\n",
        of.release, of.command
    )?;
    writeln!(text, "### One rule\n")?;
    writeln!(
        text,
        "| | instructions a frame | added | to can-gw | sent | delivered |"
    )?;
    writeln!(text, "|---|---|---|---|---|---|")?;
    for measured in group(of, "path") {
        let added = of.added(measured).unwrap_or_default();
        let ratio = if measured.gateway == NO_GATEWAY {
            String::new()
        } else {
            to_can_gw(of, measured)
        };
        writeln!(
            text,
            "| {} | {} | {} | {ratio} | {} | {} |",
            measured.gateway,
            number(measured.instructions().unwrap_or_default()),
            number(added),
            number(measured.sent.into()),
            number(measured.delivered.into()),
        )?;
    }
    writeln!(text)?;
    for (title, name, what) in [
        (
            "One rule, while a socket listens on the source in any case",
            "heard",
            "",
        ),
        ("Many rules", "rules", "rules"),
        (
            "One rule with `-m` on identifier and data, and CRC8",
            "changes",
            "",
        ),
        (
            "The same, while the sender's interface has a copy of the frame",
            "shared",
            "",
        ),
        ("CAN FD, 64 bytes", "fd", ""),
        ("A frame that no rule matches", "unmatched", ""),
        ("Hubs: one frame to many targets", "targets", "targets"),
    ] {
        writeln!(
            text,
            "### {title}\n\nInstructions added for a frame, and their ratio to can-gw's:\n"
        )?;
        let mut gateways: Vec<&str> = Vec::new();
        let mut rows: Vec<(&str, u32, u32)> = Vec::new();
        for m in group(of, name).filter(|m| m.gateway != NO_GATEWAY) {
            if !gateways.contains(&m.gateway.as_str()) {
                gateways.push(&m.gateway);
            }
            let row = (m.kind.as_str(), m.rules, m.targets);
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        writeln!(text, "| {what} | {} |", gateways.join(" | "))?;
        writeln!(text, "|---|{}", "---|".repeat(gateways.len()))?;
        for row in rows {
            let label = match what {
                "rules" => format!("{} {}", number(row.1.into()), row.0),
                "targets" => row.2.to_string(),
                _ => String::new(),
            };
            write!(text, "| {label} |")?;
            for gateway in &gateways {
                let cell = group(of, name)
                    .find(|m| m.gateway == *gateway && row == (&m.kind, m.rules, m.targets));
                let cell = cell.map_or(String::new(), |m| {
                    let added = number(of.added(m).unwrap_or_default());
                    if m.gateway == CAN_GW {
                        added
                    } else {
                        format!("{added} ({})", to_can_gw(of, m))
                    }
                });
                write!(text, " {cell} |")?;
            }
            writeln!(text)?;
        }
        writeln!(text)?;
    }
    for (plot, what) in [
        ("rules", "instructions by number of rules"),
        ("targets", "instructions by number of targets"),
    ] {
        writeln!(
            text,
            "![Linux {line}: {what}]({folder}/{plot}-{line}.svg)\n"
        )?;
    }
    clock(text, of)
}

/// The second view.
fn clock(text: &mut String, of: &OfKernel) -> std::fmt::Result {
    writeln!(
        text,
        "### By the clock\n\nAn emulated machine on a busy one: only good for comparing rows.\n"
    )?;
    writeln!(text, "| | median | 99 % | frames a second |")?;
    writeln!(text, "|---|---|---|---|")?;
    for measured in &of.clock {
        if let View::Clock {
            median_us,
            p99_us,
            frames_per_s,
        } = measured.view
        {
            writeln!(
                text,
                "| {} | {median_us:.0} µs | {p99_us:.0} µs | {} |",
                measured.gateway,
                number(frames_per_s)
            )?;
        }
    }
    writeln!(text)
}

fn group<'a>(of: &'a OfKernel, name: &str) -> impl Iterator<Item = &'a Measured> {
    of.counted.iter().filter(move |m| m.group == name)
}

/// Ratio of the added instructions to those of can-gw in the same case.
fn to_can_gw(of: &OfKernel, measured: &Measured) -> String {
    let same = |m: &&Measured| {
        m.gateway == CAN_GW
            && m.group == measured.group
            && m.kind == measured.kind
            && m.rules == measured.rules
            && m.targets == measured.targets
    };
    let can_gw = of.counted.iter().find(same).and_then(|m| of.added(m));
    match (of.added(measured), can_gw) {
        (Some(ours), Some(theirs)) => format!("{:.3}", ours / theirs),
        _ => String::new(),
    }
}

/// A whole number with commas.
fn number(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value <= -0.5 {
        text.insert(0, '-');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas() {
        assert_eq!(number(0.2), "0");
        assert_eq!(number(999.0), "999");
        assert_eq!(number(1000.4), "1,000");
        assert_eq!(number(-1_234_567.0), "-1,234,567");
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let page = format!("a\n{BEGIN}old\n{END}\nb\n");
        let updated = update(&page, "new").unwrap();
        assert_eq!(updated, format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert_eq!(update(&updated, "new").unwrap(), updated);
        assert!(update("a page of something else", "new").is_err());
    }
}
