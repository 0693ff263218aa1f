//! What is fuzzed, and what each target promises.

mod api;
mod bytes;
mod containers;
mod dbc;
mod federation;
mod text;
mod topology;
mod tunnel;

use std::hash::{DefaultHasher, Hash, Hasher as _};

/// Something that reads inputs.
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Reads an input and panics when a promise is broken. Inputs with different outcomes have different numbers.
    pub run: fn(&[u8]) -> u64,
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// What inputs are made of.
    pub words: &'static [&'static str],
}

/// All targets.
#[must_use]
pub fn all() -> Vec<Target> {
    text::targets()
        .into_iter()
        .chain(bytes::targets())
        .chain(dbc::targets())
        .chain(topology::targets())
        .chain(api::targets())
        .chain(containers::targets())
        .chain(federation::targets())
        .chain(tunnel::targets())
        .collect()
}

/// The number of an outcome.
fn outcome(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// The number of a refusal: its message, without what it repeats of the input between quotes.
fn refused(error: &impl std::fmt::Display) -> u64 {
    const QUOTES: [char; 3] = ['\'', '"', '`'];
    let text = error.to_string();
    let head = text.split(QUOTES).next();
    let tail = text.rsplit(QUOTES).next();
    let words = |text: Option<&str>| {
        let text = text.unwrap_or_default();
        let characters = text.chars().filter(|c| !c.is_ascii_digit());
        characters.take(80).collect::<String>()
    };
    outcome((words(head), words(tail)))
}
