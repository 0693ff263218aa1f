//! `cangw export`: everything that was set, as a file.

use std::path::Path;

use super::args::Format;
use super::output;
use crate::api::client::Door;
use crate::api::methods::SettingsShow;
use crate::error::Result;
use crate::file::{self, Document};

pub(super) fn run(format: Format, to: Option<&Path>) -> Result<()> {
    let settings = Door::open()?.call(SettingsShow {})?;
    let report = output::report()?;
    for rule in &report.rules {
        if let Some(name) = &rule.waiting_for {
            eprintln!(
                "cangw: {} waits for interface {name}; the file can be loaded only when that is there",
                rule.rule
            );
        }
    }
    let document = Document::of(settings, &report);
    let text = match format {
        Format::Script => document.to_script(),
        Format::Toml => document.to_toml(),
    };
    match to {
        Some(path) => file::write(path, &text),
        None => output::print(|out| out.write_all(text.as_bytes())),
    }
}
