//! The file in TOML: `version`, `[settings]`, `[[interface]]`, `[[rule]]`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use cangw_common::frame::FrameType;
use cangw_common::rule::{Filter, XlFilter};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::names::{Dbcs, Names};
use super::places::{error_at, from_toml};
use super::{Document, check_name};
use crate::error::Result;
use crate::gateway::InterfaceChange;
use crate::ids::{IdRange, Ids, address_texts};
use crate::limits::{Limits, Rate, Share};
use crate::modify::{Changes, Crc8Checksum, Modification, Profile, XorChecksum, parse_uid};
use crate::options::{
    Action, Options, Policy, Stay, acceptance_text, is_default, parse_acceptance, parse_byte,
};
use crate::rule::{Engine, ParseError, Rule};

const HEAD: &str = "# From `cangw export`. `cangw rule load` adds all rules in one step or none.\n";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    #[serde(deserialize_with = "version")]
    version: u32,
    #[serde(default, skip_serializing_if = "SettingsTable::is_empty")]
    settings: SettingsTable,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    interface: Vec<InterfaceTable>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rule: Vec<RuleTable>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsTable {
    #[serde(
        default,
        deserialize_with = "max_hops",
        skip_serializing_if = "Option::is_none"
    )]
    max_hops: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<bool>,
}

impl SettingsTable {
    fn is_empty(&self) -> bool {
        self.max_hops.is_none() && self.log.is_none()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InterfaceTable {
    #[serde(deserialize_with = "name")]
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exclusive: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    engine: Option<Engine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policy: Option<Policy>,
}

/// A [`Rule`] without what it does not have, and without tables in it. The names are those of its JSON.
#[derive(Deserialize)]
#[serde(try_from = "RuleFields")]
pub(crate) struct RuleTable {
    /// The rule, without what it says by names.
    pub rule: Rule,
    pub names: Names,
}

impl Serialize for RuleTable {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        RuleFields::from(&self.rule).serialize(s)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFields {
    #[serde(deserialize_with = "name", alias = "from")]
    source: String,
    #[serde(
        default,
        alias = "to",
        deserialize_with = "some_name",
        skip_serializing_if = "Option::is_none"
    )]
    target: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    action: Option<Stay>,
    #[serde(
        default = "classic",
        with = "crate::rule::kind_name",
        skip_serializing_if = "is_classic"
    )]
    kind: FrameType,
    #[serde(default, skip_serializing_if = "is_default")]
    echo: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    timestamp: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    iif_tx_ok: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    limit: u8,
    #[serde(
        default,
        with = "crate::rule::filter_text",
        skip_serializing_if = "Option::is_none"
    )]
    filter: Option<Filter>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    modify: Vec<Text<AnyModification>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<Text<Uid>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crc8: Option<Text<Crc8Checksum>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crc8_profile: Option<Text<Profile>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    xor: Option<Text<XorChecksum>>,
    #[serde(default, skip_serializing_if = "is_default")]
    priority: i16,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    id: Vec<Text<IdRange>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pgn: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sa: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    da: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vcid: Option<Text<Byte>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sdt: Option<Text<Byte>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    af: Option<Text<Acceptance>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate: Option<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    burst: Option<u32>,
    #[serde(default, skip_serializing_if = "is_default")]
    per_id: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drop: Option<Share>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    duplicate: Option<Share>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    corrupt: Option<Share>,
    #[serde(default, skip_serializing_if = "is_default")]
    seed: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    watch: bool,
    // What is written has no names: rules are kept as what they mean.
    #[serde(default, skip_serializing)]
    dbc: Option<PathBuf>,
    #[serde(default, skip_serializing)]
    message: Vec<String>,
    #[serde(default, skip_serializing)]
    set: Vec<String>,
}

/// A value that is written as a text.
struct Text<T>(T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

impl<'de, T: FromStr<Err = ParseError>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// A modification of frames of a type, which its text tells: FD frames have one part more.
struct AnyModification(FrameType, Modification);

impl FromStr for AnyModification {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let kind = if text.matches('.').count() > 2 {
            FrameType::Fd
        } else {
            FrameType::Classic
        };
        Ok(Self(kind, Modification::parse(kind, text)?))
    }
}

impl fmt::Display for AnyModification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.1.text(self.0))
    }
}

struct Byte(u8);

impl FromStr for Byte {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse_byte("byte", text).map(Self)
    }
}

impl fmt::Display for Byte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02X}", self.0)
    }
}

struct Acceptance((u32, u32));

impl FromStr for Acceptance {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse_acceptance(text).map(Self)
    }
}

impl fmt::Display for Acceptance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&acceptance_text(self.0))
    }
}

struct Uid(u32);

impl FromStr for Uid {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse_uid(text).map(Self)
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}", self.0)
    }
}

impl TryFrom<RuleFields> for RuleTable {
    type Error = ParseError;

    fn try_from(fields: RuleFields) -> Result<Self, ParseError> {
        let kind = fields.kind;
        let other = fields.modify.iter().find(|m| m.0.0 != kind);
        match (kind, other) {
            (_, None) => {}
            (FrameType::Classic, _) => return Err(ParseError::FdOnClassic),
            (FrameType::Fd, _) => return Err(ParseError::ClassicOnFd),
            (FrameType::Xl, _) => return Err(ParseError::XlModification),
        }
        let names = Names {
            dbc: fields.dbc,
            message: fields.message,
            set: fields.set,
            uid: fields.uid.map_or(0, |uid| uid.0.0),
            crc8: fields.crc8.map(|c| c.0),
            profile: fields.crc8_profile.map(|p| p.0),
            xor: fields.xor.map(|x| x.0),
        };
        let modifications: Vec<_> = fields.modify.into_iter().map(|m| m.0.1).collect();
        let (crc8, xor) = (names.crc8, names.xor);
        let by_name = !names.set.is_empty() || crc8.is_none() && xor.is_none();
        let changes = if modifications.is_empty() && by_name {
            None
        } else {
            let (uid, profile) = (names.uid, names.profile);
            Some(Changes::new(kind, modifications, uid, crc8, profile, xor)?)
        };
        let action = match (fields.target, fields.action) {
            (Some(target), None) => Action::Forward { target },
            (None, Some(action)) => Action::Stay { action },
            (None, None) => {
                return Err(ParseError::Misplaced {
                    option: "a rule",
                    reason: "needs a target, or the action \"drop\", \"pass\" or \"watch\"",
                });
            }
            (Some(_), Some(_)) => {
                return Err(ParseError::Misplaced {
                    option: "action",
                    reason: "does not go with a target",
                });
            }
        };
        let mut ids = Ids::parse(&[], &fields.pgn, &fields.sa, &fields.da)?;
        ids.ranges = fields.id.into_iter().map(|id| id.0).collect();
        let rule = Rule {
            source: fields.source,
            action,
            kind,
            echo: fields.echo,
            timestamp: fields.timestamp,
            iif_tx_ok: fields.iif_tx_ok,
            limit: fields.limit,
            // As on the command line, 0:0 is none.
            filter: fields.filter.filter(|f| !f.is_empty()),
            changes,
            options: Options {
                priority: fields.priority,
                ids,
                xl: XlFilter {
                    vcid: fields.vcid.map(|v| v.0.0),
                    sdt: fields.sdt.map(|v| v.0.0),
                    af: fields.af.map(|v| v.0.0),
                },
                limits: Limits {
                    rate: fields.rate,
                    burst: fields.burst,
                    per_id: fields.per_id,
                    drop: fields.drop,
                    duplicate: fields.duplicate,
                    corrupt: fields.corrupt,
                    seed: fields.seed,
                },
                watch: fields.watch,
            },
        };
        rule.check()?;
        Ok(Self { rule, names })
    }
}

impl From<&Rule> for RuleFields {
    fn from(rule: &Rule) -> Self {
        let changes = rule.changes.as_ref();
        let options = &rule.options;
        let modify = |c: &Changes| {
            let texts = c.modifications().iter();
            texts
                .map(|m| Text(AnyModification(c.kind(), *m)))
                .collect::<Vec<_>>()
        };
        Self {
            source: rule.source.clone(),
            target: rule.target().map(str::to_owned),
            action: match rule.action {
                Action::Forward { .. } => None,
                Action::Stay { action } => Some(action),
            },
            kind: rule.kind,
            echo: rule.echo,
            timestamp: rule.timestamp,
            iif_tx_ok: rule.iif_tx_ok,
            limit: rule.limit,
            filter: rule.filter,
            modify: changes.map(modify).unwrap_or_default(),
            uid: changes.filter(|c| c.uid != 0).map(|c| Text(Uid(c.uid))),
            crc8: changes.and_then(|c| c.crc8).map(Text),
            crc8_profile: changes.and_then(|c| c.profile).map(Text),
            xor: changes.and_then(|c| c.xor).map(Text),
            priority: options.priority,
            id: options.ids.ranges.iter().copied().map(Text).collect(),
            pgn: options.ids.pgn_texts(),
            sa: address_texts(&options.ids.sources),
            da: address_texts(&options.ids.destinations),
            vcid: options.xl.vcid.map(|v| Text(Byte(v))),
            sdt: options.xl.sdt.map(|v| Text(Byte(v))),
            af: options.xl.af.map(|v| Text(Acceptance(v))),
            rate: options.limits.rate,
            burst: options.limits.burst,
            per_id: options.limits.per_id,
            drop: options.limits.drop,
            duplicate: options.limits.duplicate,
            corrupt: options.limits.corrupt,
            seed: options.limits.seed,
            watch: options.watch,
            dbc: None,
            message: Vec::new(),
            set: Vec::new(),
        }
    }
}

const fn classic() -> FrameType {
    FrameType::Classic
}

fn is_classic(kind: &FrameType) -> bool {
    *kind == FrameType::Classic
}

/// Reads the version of a file, which has to be the one that there is.
pub(crate) fn version<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    let found = u32::deserialize(d)?;
    if found == VERSION {
        return Ok(found);
    }
    Err(serde::de::Error::custom(format_args!(
        "version {found} of the file format, but this cangw reads version {VERSION}"
    )))
}

fn name<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    let name = String::deserialize(d)?;
    check_name(&name).map_err(serde::de::Error::custom)?;
    Ok(name)
}

fn some_name<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    name(d).map(Some)
}

fn max_hops<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u8>, D::Error> {
    match u8::deserialize(d)? {
        hops @ 1..=6 => Ok(Some(hops)),
        hops => Err(serde::de::Error::custom(format_args!(
            "{hops} is not from 1 to 6"
        ))),
    }
}

impl From<&Document> for Tables {
    fn from(document: &Document) -> Self {
        Self {
            version: VERSION,
            settings: SettingsTable {
                max_hops: document.max_hops,
                log: document.log,
            },
            interface: document
                .interfaces
                .iter()
                .map(|i| InterfaceTable {
                    name: i.name.clone(),
                    exclusive: i.change.exclusive,
                    engine: i.change.engine,
                    policy: i.change.policy,
                })
                .collect(),
            rule: document.rules.iter().map(RuleTable::from).collect(),
        }
    }
}

impl From<&Rule> for RuleTable {
    fn from(rule: &Rule) -> Self {
        Self {
            rule: rule.clone(),
            names: Names::default(),
        }
    }
}

impl Tables {
    /// The document, with the rules that were made of its tables.
    fn document(self, rules: Vec<Rule>) -> Document {
        let mut document = Document {
            max_hops: self.settings.max_hops,
            log: self.settings.log,
            rules,
            ..Document::default()
        };
        for table in self.interface {
            let change = InterfaceChange {
                exclusive: table.exclusive,
                engine: table.engine,
                policy: table.policy,
            };
            if !change.is_empty() {
                document.interface(&table.name).add(change);
            }
        }
        document
    }
}

impl RuleTable {
    /// The rule, which says nothing by names.
    ///
    /// # Errors
    /// When it does.
    pub(crate) fn without_names(self) -> std::result::Result<Rule, &'static str> {
        if self.names.dbc.is_some() || !self.names.message.is_empty() || !self.names.set.is_empty()
        {
            return Err(
                "names of a DBC file (`dbc`, `message`, `set`) are looked up by `cangw`; give what they mean",
            );
        }
        Ok(self.rule)
    }
}

/// The document as it is in a file, without names.
impl Serialize for Document {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        Tables::from(self).serialize(s)
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut tables = Tables::deserialize(d)?;
        let rules = std::mem::take(&mut tables.rule).into_iter();
        let rules = rules
            .map(RuleTable::without_names)
            .collect::<std::result::Result<_, _>>()
            .map_err(serde::de::Error::custom)?;
        Ok(tables.document(rules))
    }
}

pub(super) fn write(document: &Document) -> String {
    // There is no value in it that TOML does not have.
    HEAD.to_owned() + &toml::to_string(document).unwrap_or_default()
}

pub(super) fn parse(file: &str, text: &str) -> Result<Document> {
    let mut tables: Tables = from_toml(file, text)?;
    let mut dbcs = Dbcs::of(file);
    let mut rules = Vec::with_capacity(tables.rule.len());
    for (index, table) in std::mem::take(&mut tables.rule).into_iter().enumerate() {
        let rule = table.names.resolve(table.rule, &mut dbcs, None);
        let rule = rule.map_err(|(key, error)| {
            error_at(
                (file, text),
                &["rule", &index.to_string(), key],
                error.to_string(),
            )
        })?;
        rules.push(rule);
    }
    Ok(tables.document(rules))
}
