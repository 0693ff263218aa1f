//! `cangw export`: everything that was set, as a file.

use std::path::Path;

use super::args::Format;
use super::output;
use crate::error::Result;
use crate::file::{self, Document};
use crate::gateway::{Gateway, Report};
use crate::state::Settings;

pub(super) fn run(format: Format, to: Option<&Path>) -> Result<()> {
    let (settings, report) = match Gateway::look()? {
        Some(gateway) => (gateway.settings(), gateway.report()?),
        None => (Settings::default(), Report::default()),
    };
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
