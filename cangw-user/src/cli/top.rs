//! `cangw top`: what goes on, by bus, interface, rule and identifier.

mod keys;
mod live;
mod rates;
mod screen;
#[cfg(test)]
mod tests;
mod view;

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::thread;
use std::time::{Duration, Instant};

use super::output;
use crate::api::client::Door;
use crate::api::methods::Top;
use crate::error::{Error, Result};
use rates::{Rates, Sample};

/// What is shown, and how.
pub(super) struct Options {
    /// Time between two looks.
    pub interval: Duration,
    pub json: bool,
    pub once: bool,
}

pub(super) fn run(options: &Options) -> Result<()> {
    let live = !options.json && !options.once && std::io::stdout().is_terminal();
    if live {
        return live::run(options.interval);
    }
    let mut before = look()?;
    loop {
        thread::sleep(options.interval);
        let now = look()?;
        let rates = Rates::between(&before, &now);
        before = now;
        if options.json {
            let line = serde_json::to_string(&rates);
            let line = line.map_err(|e| Error::io("write JSON", e.into()))?;
            output::print(|out| writeln!(out, "{line}"))?;
        } else {
            output::print(|out| out.write_all(text(&rates).as_bytes()))?;
        }
        if options.once {
            return Ok(());
        }
    }
}

/// Looks at everything.
fn look() -> Result<Sample> {
    let time = Instant::now();
    let top = Door::open()?.call(Top {})?;
    Ok(Sample { time, top })
}

/// Everything as tables, without a terminal.
fn text(rates: &Rates) -> String {
    let mut text = String::new();
    for pane in view::Pane::ALL {
        let table = view::table(pane, rates, &view::Order::default(), "");
        let _ = writeln!(text, "{}", pane.title());
        let widths: Vec<usize> = (0..table.head.len())
            .map(|column| {
                let cells = table.rows.iter().map(|row| row.cells[column].len());
                cells.chain([table.head[column].len()]).max().unwrap_or(0)
            })
            .collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let cells = cells
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}  "));
            cells.collect::<String>().trim_end().to_owned()
        };
        let _ = writeln!(text, "  {}", line(&mut table.head.iter().copied()));
        for row in &table.rows {
            let _ = writeln!(
                text,
                "  {}",
                line(&mut row.cells.iter().map(String::as_str))
            );
        }
    }
    text
}
