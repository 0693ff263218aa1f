//! Rules of a file that name messages and signals of a DBC file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::dbc::Dbc;
use crate::error::{Error, Result};
use crate::modify::{Changes, Crc8Checksum, Profile, XorChecksum};
use crate::rule::{ParseError, Rule};

/// What a rule says by names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub dbc: Option<PathBuf>,
    pub message: Vec<String>,
    pub set: Vec<String>,
    // What belongs to the modifications, if these are all by name.
    pub uid: u32,
    pub crc8: Option<Crc8Checksum>,
    pub profile: Option<Profile>,
    pub xor: Option<XorChecksum>,
}

/// The DBC files that the rules of a file name, each read once.
pub(crate) struct Dbcs {
    /// Where they are looked for; `None` where none may be read.
    folder: Option<PathBuf>,
    read: BTreeMap<PathBuf, Dbc>,
}

impl Dbcs {
    /// Those of a file: relative paths begin at its folder.
    pub fn of(file: &str) -> Self {
        Self {
            folder: Some(Path::new(file).parent().unwrap_or(Path::new("")).into()),
            read: BTreeMap::new(),
        }
    }

    /// Those of a text that somebody else sent, who may not let this process read files.
    pub fn none() -> Self {
        Self {
            folder: None,
            read: BTreeMap::new(),
        }
    }

    /// Where relative paths begin; `None` where no files may be read.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Reads one.
    pub fn get(&mut self, path: &Path) -> Result<&Dbc> {
        let Some(folder) = &self.folder else {
            let message = "names of a DBC file are not looked up for others; run `cangw` as root, or give what they mean";
            return Err(Error::Key {
                key: None,
                message: message.into(),
            });
        };
        let path = folder.join(path);
        if !self.read.contains_key(&path) {
            // Not a device or a pipe, which never ends or never begins.
            let kind = std::fs::metadata(&path);
            if kind.as_ref().is_ok_and(|kind| !kind.is_file()) {
                let what = format!("read {}", path.display());
                let reason = std::io::Error::other("it is no regular file");
                return Err(Error::io(what, reason));
            }
            self.read.insert(path.clone(), Dbc::read(&path)?);
        }
        Ok(&self.read[&path])
    }
}

impl Names {
    /// Adds to a rule what its names say. `other` is the DBC file where the rule names none.
    ///
    /// # Errors
    /// The key, and what is wrong with it.
    pub fn resolve(
        &self,
        mut rule: Rule,
        dbcs: &mut Dbcs,
        other: Option<&Path>,
    ) -> std::result::Result<Rule, (&'static str, Error)> {
        let (key, names) = match (&self.message[..], &self.set[..]) {
            ([], []) => return Ok(rule),
            ([], _) => ("set", &self.set),
            _ => ("message", &self.message),
        };
        let Some(path) = self.dbc.as_deref().or(other) else {
            let message = format!(
                "{:?} is a name of a DBC file; say which with `dbc = \"FILE\"`",
                names[0]
            );
            return Err((key, Error::Key { key: None, message }));
        };
        let dbc = dbcs.get(path).map_err(|e| ("dbc", e))?;
        let messages = self.message.iter().map(String::as_str);
        let sets = self.set.iter().map(String::as_str);
        let ids = &mut rule.options.ids;
        let named = |e: ParseError| (key, Error::Parse(e));
        let mut modifications = dbc
            .resolve(rule.kind, messages, sets, ids)
            .map_err(|e| (key, e.into()))?;
        if !modifications.is_empty() {
            let others = rule.changes.as_ref().map(Changes::modifications);
            modifications.extend(others.unwrap_or_default());
            let (crc8, profile, xor) = (self.crc8, self.profile, self.xor);
            let changes = Changes::new(rule.kind, modifications, self.uid, crc8, profile, xor);
            rule.changes = Some(changes.map_err(named)?);
        }
        rule.check().map_err(named)?;
        Ok(rule)
    }
}
