//! Files in TOML, and where in them an error is: line and key.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

use super::in_line;
use crate::error::{Error, Result};

/// Reads a file in TOML.
///
/// # Errors
/// [`Error::File`] with line and key.
pub(crate) fn from_toml<T: DeserializeOwned>(file: &str, text: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or_default();
        let message = error.message().to_owned();
        let key = key_at(text, &span);
        let line = line_at(text, span.start);
        in_line(file, line, Error::Key { key, message })
    })
}

/// An error at a key of a file, given by its name and text, and the keys and the numbers of array items that lead to it. If it is not there, at the last one
/// that is.
pub(crate) fn error_at((file, text): (&str, &str), path: &[&str], message: String) -> Error {
    let mut place = 0;
    if let Ok(table) = DeTable::parse(text) {
        let mut at = DeValue::Table(table.into_inner());
        for step in path {
            let next = match &at {
                DeValue::Table(table) => table.get_key_value(*step).map(|(key, value)| {
                    // Tables in an array begin with their own heads.
                    let starts = key.span().start;
                    (starts, value.get_ref().clone())
                }),
                DeValue::Array(items) => step
                    .parse::<usize>()
                    .ok()
                    .and_then(|index| items.get(index))
                    .map(|item| (item.span().start, item.get_ref().clone())),
                _ => None,
            };
            let Some((starts, value)) = next else {
                break;
            };
            place = starts;
            at = value;
        }
    }
    let keys: Vec<&str> = path
        .iter()
        .copied()
        .filter(|step| step.starts_with(|c: char| !c.is_ascii_digit()))
        .collect();
    let key = Some(keys.join("."));
    in_line(file, line_at(text, place), Error::Key { key, message })
}

/// The number of the line, from 1, in which a place is.
fn line_at(text: &str, place: usize) -> usize {
    let before = &text.as_bytes()[..place.min(text.len())];
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The key at a place, such as `rule.filter`; `None` for text that is no TOML.
fn key_at(text: &str, place: &Range<usize>) -> Option<String> {
    let parsed = DeTable::parse(text).ok()?;
    find_key(parsed.get_ref(), place)
}

fn find_key(table: &DeTable<'_>, place: &Range<usize>) -> Option<String> {
    let covers = |span: Range<usize>| span.start <= place.start && place.end <= span.end;
    table.iter().find_map(|(key, value)| {
        let inner = match value.get_ref() {
            DeValue::Table(inner) => find_key(inner, place),
            DeValue::Array(items) => items
                .iter()
                .filter_map(|item| item.get_ref().as_table())
                .find_map(|inner| find_key(inner, place)),
            _ => None,
        };
        let name = key.get_ref();
        if let Some(inner) = inner {
            return Some(format!("{name}.{inner}"));
        }
        // Of tables in an array, each has a place of its own.
        let items = value.get_ref().as_array().into_iter().flatten();
        let mut spans = [key.span(), value.span()]
            .into_iter()
            .chain(items.map(|item| item.span()));
        spans.any(covers).then(|| name.to_string())
    })
}
