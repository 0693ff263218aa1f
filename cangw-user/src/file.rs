//! Rules, settings and interfaces in a file: as a shell script of `cangw` lines, or as TOML.

mod lines;
pub(crate) mod names;
pub(crate) mod places;
pub(crate) mod tables;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::gateway::{Gateway, InterfaceChange, Report};
use crate::kernel::link;
use crate::kernel::netlink::Netlink;
use crate::options::Policy;
use crate::rule::{Engine, Rule, is_interface_name};
use crate::state::Settings;

/// Permissions of a file that is written: everyone may read it.
const MODE: u32 = 0o644;

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// [`Settings::max_hops`], when the file sets it.
    pub max_hops: Option<u8>,
    /// [`Settings::log`], when the file sets it.
    pub log: Option<bool>,
    /// Interfaces with settings.
    pub interfaces: Vec<Interface>,
    /// The rules, oldest first: the order in which they are added.
    pub rules: Vec<Rule>,
}

/// How the frames of an interface are to be handled, as far as a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// What is to be set.
    pub change: InterfaceChange,
}

impl Interface {
    /// Adds what a further line sets.
    fn add(&mut self, change: InterfaceChange) {
        self.change = InterfaceChange {
            exclusive: change.exclusive.or(self.change.exclusive),
            engine: change.engine.or(self.change.engine),
            policy: change.policy.or(self.change.policy),
        };
    }
}

/// Rules, oldest first, and nothing else.
impl From<Vec<Rule>> for Document {
    fn from(rules: Vec<Rule>) -> Self {
        Self {
            rules,
            ..Self::default()
        }
    }
}

impl Document {
    /// What a gateway has, without what is the default.
    #[must_use]
    pub fn of(settings: Settings, report: &Report) -> Self {
        let default = Settings::default();
        let interfaces = report.interfaces.iter().map(|i| Interface {
            name: i.name.clone(),
            change: InterfaceChange {
                exclusive: i.exclusive.then_some(true),
                engine: Some(i.engine_asked).filter(|e| *e != Engine::Auto),
                policy: Some(i.policy).filter(|p| *p != Policy::Allow),
            },
        });
        Self {
            max_hops: Some(settings.max_hops).filter(|m| *m != default.max_hops),
            log: Some(settings.log).filter(|l| *l != default.log),
            interfaces: interfaces.filter(|i| !i.change.is_empty()).collect(),
            rules: report.rules.iter().rev().map(|r| r.rule.clone()).collect(),
        }
    }

    /// Reads the text of a file. It is TOML when it begins, after comments, with `version`.
    ///
    /// # Errors
    /// [`Error::File`] with the line, and in TOML the key.
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        let mut lines = text.lines().map(str::trim);
        let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
        let key = first.and_then(|line| line.split(['=', ' ', '\t']).next());
        if key == Some("version") {
            tables::parse(file, text)
        } else {
            lines::parse(file, text)
        }
    }

    /// A shell script that adds the rules; also to be read by [`Self::parse`].
    #[must_use]
    pub fn to_script(&self) -> String {
        lines::write(self)
    }

    /// The file in TOML.
    #[must_use]
    pub fn to_toml(&self) -> String {
        tables::write(self)
    }

    /// Adds the rules to a gateway and changes its settings: all or, on an error, nothing.
    ///
    /// # Errors
    /// As [`Gateway::add`] and [`Gateway::set`].
    pub fn load(&self, gateway: &mut Gateway) -> Result<()> {
        self.check_interfaces()?;
        let old = gateway.settings();
        let new = Settings {
            max_hops: self.max_hops.unwrap_or(old.max_hops),
            log: self.log.unwrap_or(old.log),
        };
        gateway.set(new)?;
        let added = gateway.add_with(
            &self.rules,
            |state| {
                for i in &self.interfaces {
                    i.change.apply(state, &i.name);
                }
            },
            &mut |_| Ok(()),
        );
        if added.is_err() {
            // The error that is reported is the one that came first.
            let _ = gateway.set(old);
        }
        added
    }

    /// Those with settings must be there, as those of rules.
    fn check_interfaces(&self) -> Result<()> {
        if self.interfaces.is_empty() {
            return Ok(());
        }
        let links = link::list(&Netlink::open()?)?;
        for Interface { name, .. } in &self.interfaces {
            match links.iter().find(|link| link.name == *name) {
                Some(link) if link.is_can => {}
                Some(_) => return Err(Error::NotCan { name: name.clone() }),
                None => return Err(Error::NoInterface { name: name.clone() }),
            }
        }
        Ok(())
    }

    /// The entry for an interface; a new one when there is none.
    fn interface(&mut self, name: &str) -> &mut Interface {
        let found = self.interfaces.iter().position(|i| i.name == name);
        let at = found.unwrap_or_else(|| {
            self.interfaces.push(Interface {
                name: name.to_owned(),
                ..Interface::default()
            });
            self.interfaces.len() - 1
        });
        &mut self.interfaces[at]
    }
}

/// Refuses what cannot be the name of an interface; such a file was not written by an export.
fn check_name(name: &str) -> Result<(), String> {
    if is_interface_name(name) {
        return Ok(());
    }
    Err(format!("{name:?} cannot be the name of an interface"))
}

/// The same for the interfaces of a rule.
fn check_names(rule: &Rule) -> Result<(), String> {
    check_name(&rule.source)?;
    rule.target().map_or(Ok(()), check_name)
}

/// An error in a line of a file, counted from 1.
pub(crate) fn in_line(file: &str, line: usize, error: Error) -> Error {
    Error::File {
        file: file.to_owned(),
        line,
        error: Box::new(error),
    }
}

/// Writes a file such that it is there as a whole or, after an error or a crash, as it was before. What is no file, such as a
/// pipe, is written to.
///
/// # Errors
/// The system's answer, with the file's name.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let failed = |e| Error::io(format!("write {}", path.display()), e);
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            let mut file = OpenOptions::new().write(true).open(path).map_err(failed)?;
            file.write_all(text.as_bytes()).map_err(failed)
        }
        // A link stays one.
        Ok(_) => replace(&fs::canonicalize(path).map_err(failed)?, text).map_err(failed),
        Err(e) if e.kind() == io::ErrorKind::NotFound => replace(path, text).map_err(failed),
        Err(e) => Err(failed(e)),
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "this names no file"))?;
    let mut temporary = name.to_owned();
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary: PathBuf = path.with_file_name(temporary);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(MODE);
    let mut file = options.open(&temporary)?;
    let written = file
        .write_all(text.as_bytes())
        // Whatever the umask is.
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(MODE)))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests;
