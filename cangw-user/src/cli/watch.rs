//! `cangw watch`: the identifiers on an interface.

pub(super) mod decoded;
mod history;
mod live;
mod screen;
pub(super) mod table;
#[cfg(test)]
mod tests;
pub(super) mod text;

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::Path;

use serde::Serialize;

use super::output;
use crate::api::client::Door;
use crate::api::methods::Watch;
use crate::dbc::Dbc;
use crate::error::{Error, Result};
use crate::gateway::WatchedId;
use decoded::Decoded;
use history::Marks;
use table::Table;

pub(super) fn run(interface: &str, dbc: Option<&Path>, json: bool, once: bool) -> Result<()> {
    let dbc = dbc.map(Dbc::read).transpose()?;
    let dbc = dbc.as_ref();
    if !json && !once && std::io::stdout().is_terminal() {
        let interface = interface.to_owned();
        return live::run(&interface.clone(), dbc, move || watched(&interface));
    }
    let ids = watched(interface)?;
    let text = match (json, dbc) {
        (false, _) => plain_text(&ids, dbc),
        (true, Some(_)) => json_text(&Decoded::all(&ids, dbc))?,
        (true, None) => json_text(&ids)?,
    };
    output::print(|out| out.write_all(text.as_bytes()))
}

/// What was recorded. The gateway is open, and so held, for this only.
fn watched(interface: &str) -> Result<Vec<WatchedId>> {
    let interface = interface.to_owned();
    Door::open()?.call(Watch { interface })
}

/// The table, for any width.
fn plain_text(ids: &[WatchedId], dbc: Option<&Dbc>) -> String {
    let rows = Decoded::all(ids, dbc);
    let marks: Vec<Marks> = rows.iter().map(|_| Marks::default()).collect();
    let table = Table::new(&rows, &marks, dbc.is_some(), None);
    let mut text = String::new();
    for line in table.lines() {
        text += line.plain().trim_end();
        text.push('\n');
    }
    text
}

/// JSON that can be shown on a terminal: names in a DBC file can have characters that control one, which JSON only partly escapes.
fn json_text<T: Serialize>(value: &T) -> Result<String> {
    let json =
        serde_json::to_string_pretty(value).map_err(|e| Error::io("write JSON", e.into()))?;
    let mut text = String::with_capacity(json.len() + 1);
    for c in json.chars() {
        // These are in strings only, except the ends of lines, which are not in strings.
        if c == '\n' || text::is_visible(c) {
            text.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text.push('\n');
    Ok(text)
}
