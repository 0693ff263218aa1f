//! A rule as people write it: parsing of its parts, and the line of `cangw -L`.

use std::fmt;
use std::str::FromStr;

use cangw_common::frame::FrameType;
use cangw_common::rule::{Filter, INV_FILTER, Predicate};
use serde::{Deserialize, Serialize};

use crate::modify::Changes;
use crate::options::{Action, Options, Stay};

/// A rule, checked in itself, but not yet against the interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Source interface (`-s`).
    pub source: String,
    /// What becomes of the frames: most go to a target interface (`-d`).
    #[serde(flatten)]
    pub action: Action,
    /// Type of frames: `-X` for FD, `--xl` for XL.
    #[serde(with = "kind_name")]
    pub kind: FrameType,
    /// Deliver to local sockets of the target, too (`-e`).
    pub echo: bool,
    /// Keep the receive time stamp (`-t`).
    pub timestamp: bool,
    /// A frame may go back to the interface that it came from (`-i`).
    pub iif_tx_ok: bool,
    /// Hop limit (`-l`), 0 for none.
    pub limit: u8,
    /// Filter (`-f`).
    #[serde(with = "filter_text")]
    pub filter: Option<Filter>,
    /// What it changes in the frames (`-m`, `-M`, `-u`, `-c`, `-p`, `-x`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Changes>,
    /// What can-gw does not have.
    #[serde(default, flatten)]
    pub options: Options,
}

/// How an interface's frames are handled.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The engine that suits the rules, this kernel and this device.
    #[default]
    Auto,
    /// tc ingress: does everything.
    Tc,
    /// Generic XDP: forwards unmodified frames of exclusive interfaces to one target each.
    Xdp,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Tc => "tc",
            Self::Xdp => "xdp",
        })
    }
}

/// The name of a frame type, for people and JSON.
#[must_use]
pub const fn kind_name(kind: FrameType) -> &'static str {
    match kind {
        FrameType::Classic => "classic",
        FrameType::Fd => "fd",
        FrameType::Xl => "xl",
    }
}

/// Text that is not what an option takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// `-f`
    #[error(
        "Bad filter definition '{0}': expected <can_id>:<can_mask>, or <can_id>~<can_mask> to invert, in hexadecimal with at most 8 digits each"
    )]
    Filter(String),
    /// `-f` of a CAN XL rule
    #[error(
        "Bad filter definition '{0}': a CAN XL rule is filtered by the 11-bit priority, so that identifier and mask are at most 7FF"
    )]
    XlFilter(String),
    /// `-l`
    #[error("Bad hop limit definition '{0}': expected a number from 1 to 6")]
    Limit(String),
    /// `-m`, `-M`
    #[error(
        "Problem {problem} with modification definition '{text}': expected <AND|OR|XOR|SET>:<{}>:<can_id>.{}, in hexadecimal",
        if *fd { "any of IFLD" } else { "any of ILD" },
        if *fd { "<flags>.<len>.<64 data bytes>" } else { "<dlc>.<8 data bytes>" }
    )]
    Modification {
        /// can-utils' number for the part that is wrong.
        problem: u8,
        /// The text.
        text: String,
        /// Whether it was for FD frames.
        fd: bool,
    },
    /// `-x`
    #[error(
        "Bad XOR checksum definition '{0}': expected <from>:<to>:<result>:<init>, indices in decimal and the initial value in hexadecimal"
    )]
    Xor(String),
    /// `-c`
    #[error(
        "Bad CRC8 checksum definition '{0}': expected <from>:<to>:<result>:<init>:<xor>:<table>, indices in decimal, values and the 256 bytes of the table in hexadecimal"
    )]
    Crc8(String),
    /// `-p`
    #[error(
        "Bad CRC8 profile definition '{0}': expected 1:<byte>, 2:<16 bytes> or 3:, bytes in hexadecimal"
    )]
    Profile(String),
    /// `-u`
    #[error("Bad uid '{0}': expected at most 8 hexadecimal digits")]
    Uid(String),
    /// `-c` or `-x` without `-m` or `-M`
    #[error("-c or -x can only be used in conjunction with -m/-M")]
    ChecksumAlone,
    /// `-m` on an FD rule
    #[error("No -m modifications allowed in CAN FD mode! Use -M.")]
    ClassicOnFd,
    /// `-M` on a classic rule
    #[error("No -M modifications allowed in Classic CAN mode! Use -m, or -X for an FD rule.")]
    FdOnClassic,
    /// Modifications on a CAN XL rule
    #[error("CAN XL frames cannot be modified")]
    XlModification,
    /// An index of a checksum
    #[error(
        "checksum index {index} is outside the data: expected 0 to {}, or -{len} to -1 from the end", len - 1
    )]
    Index {
        /// The index.
        index: i8,
        /// Bytes of data that a frame has at most.
        len: i8,
    },
    /// A value of an option that can-gw does not have
    #[error("Bad {option} '{text}': expected {expected}")]
    Value {
        /// The option.
        option: &'static str,
        /// Its value.
        text: String,
        /// What it should be.
        expected: &'static str,
    },
    /// `--pgn`
    #[error("parameter group {pgn:04X}: {reason}")]
    Pgn {
        /// The group.
        pgn: u32,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An option without one that it needs, or beside one that it excludes
    #[error("{option} {reason}")]
    Misplaced {
        /// The option.
        option: &'static str,
        /// Why.
        reason: &'static str,
    },
}

impl ParseError {
    /// [`ParseError::Value`]
    pub(crate) fn value(option: &'static str, text: &str, expected: &'static str) -> Self {
        Self::Value {
            option,
            text: text.to_owned(),
            expected,
        }
    }

    /// What can-utils' cangw prints in the same case.
    #[must_use]
    pub fn classic_message(&self) -> String {
        match self {
            Self::Filter(text) | Self::XlFilter(text) => {
                format!("Bad filter definition '{text}'.")
            }
            Self::Limit(text) => format!("Bad hop limit definition '{text}'."),
            Self::Modification { problem, text, .. } => {
                format!("Problem {problem} with modification definition '{text}'.")
            }
            Self::Xor(text) => format!("Bad XOR checksum definition '{text}'."),
            Self::Crc8(text) => format!("Bad CRC8 checksum definition '{text}'."),
            Self::Profile(text) => format!("Bad CRC8 profile definition '{text}'."),
            Self::ClassicOnFd => "No -m modifications allowed in CAN FD mode!".into(),
            Self::FdOnClassic => "No -M modifications allowed in Classic CAN mode!".into(),
            Self::ChecksumAlone => self.to_string(),
            Self::Uid(_)
            | Self::XlModification
            | Self::Index { .. }
            | Self::Value { .. }
            | Self::Pgn { .. }
            | Self::Misplaced { .. } => String::new(),
        }
    }
}

/// Reads up to 8 hexadecimal digits, with or without `0x`.
pub(crate) fn hex(text: &str) -> Option<u32> {
    let digits = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))
        .unwrap_or(text);
    // from_str_radix accepts a sign, and more than 8 digits when they begin with zeroes.
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, 16).ok()
}

/// Parses `-f`: `id:mask` or `id~mask`, hexadecimal.
///
/// # Errors
/// [`ParseError::Filter`]
pub fn parse_filter(text: &str) -> Result<Filter, ParseError> {
    let bad = || ParseError::Filter(text.to_owned());
    let (id, mask, inverted) = if let Some((id, mask)) = text.split_once(':') {
        (id, mask, 0)
    } else {
        let (id, mask) = text.split_once('~').ok_or_else(bad)?;
        (id, mask, INV_FILTER)
    };
    Ok(Filter {
        id: hex(id).ok_or_else(bad)? | inverted,
        mask: hex(mask).ok_or_else(bad)?,
    })
}

/// Parses `-l`: 1 to 6, decimal. (Above the gateway's `max-hops` it is refused later.)
///
/// # Errors
/// [`ParseError::Limit`]
pub fn parse_limit(text: &str) -> Result<u8, ParseError> {
    match u8::from_str(text) {
        Ok(limit) if limit > 0 => Ok(limit),
        _ => Err(ParseError::Limit(text.to_owned())),
    }
}

/// Writes a filter as `cangw -L` does.
#[must_use]
pub fn filter_text(filter: Filter) -> String {
    let sign = if filter.id & INV_FILTER != 0 {
        '~'
    } else {
        ':'
    };
    format!("{:03X}{sign}{:X}", filter.id & !INV_FILTER, filter.mask)
}

/// Whether an interface can have this name (`dev_valid_name` in net/core/dev.c).
#[must_use]
pub fn is_interface_name(name: &str) -> bool {
    // IFNAMSIZ, without the byte that ends it.
    (1..16).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.contains(['/', ':', '\0'])
        // As C's isspace; other alphabets' spaces are allowed.
        && !name.contains([' ', '\t', '\n', '\x0B', '\x0C', '\r'])
}

impl Rule {
    /// A rule that forwards all frames of a type, and does nothing else.
    #[must_use]
    pub fn new(source: impl Into<String>, target: impl Into<String>, kind: FrameType) -> Self {
        Self {
            source: source.into(),
            action: Action::Forward {
                target: target.into(),
            },
            kind,
            echo: false,
            timestamp: false,
            iif_tx_ok: false,
            limit: 0,
            filter: None,
            changes: None,
            options: Options::default(),
        }
    }

    /// The comparisons of which one must hold for a frame's identifier.
    #[must_use]
    pub fn predicates(&self) -> Vec<Predicate> {
        match self.filter {
            Some(filter) => vec![filter.predicate()],
            None if !self.options.ids.is_empty() => self.options.ids.predicates(),
            None => vec![Predicate::Equal { id: 0, mask: 0 }],
        }
    }

    /// The interface that it sends to.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        self.action.target()
    }

    /// Whether it is one that can-gw could have: `cangw -A` can add it.
    #[must_use]
    pub fn is_classic(&self) -> bool {
        self.target().is_some() && self.options.is_default()
    }

    /// Checks what needs no kernel.
    ///
    /// # Errors
    /// [`ParseError::XlFilter`], [`ParseError::Misplaced`]
    pub fn check(&self) -> Result<(), ParseError> {
        let misplaced = |option, reason| Err(ParseError::Misplaced { option, reason });
        if let Some(f) = self.filter {
            if self.kind == FrameType::Xl && (f.id & !INV_FILTER | f.mask) > 0x7FF {
                return Err(ParseError::XlFilter(filter_text(f)));
            }
            if !self.options.ids.is_empty() {
                return misplaced("-f", "does not go with --id, --pgn or --message");
            }
        }
        if self.target().is_none() {
            let forwards = self.echo || self.timestamp || self.iif_tx_ok || self.limit != 0;
            if forwards || self.changes.is_some() {
                return misplaced(
                    "-e, -t, -i, -l, or what changes frames,",
                    "needs a target (-d)",
                );
            }
        }
        if self.action
            == (Action::Stay {
                action: Stay::Watch,
            })
            && !self.options.watch
        {
            return misplaced("the action watch", "needs --watch");
        }
        self.options.check(self.kind, self.target().is_some())
    }
}

/// The rule as options, in the order of `cangw -L`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "-s {}", self.source)?;
        match &self.action {
            Action::Forward { target } => write!(f, " -d {target}")?,
            Action::Stay { action: Stay::Drop } => f.write_str(" --drop")?,
            Action::Stay { action: Stay::Pass } => f.write_str(" --pass")?,
            Action::Stay {
                action: Stay::Watch,
            } => {}
        }
        match self.kind {
            FrameType::Classic => {}
            FrameType::Fd => f.write_str(" -X")?,
            FrameType::Xl => f.write_str(" --xl")?,
        }
        for (set, option) in [
            (self.echo, " -e"),
            (self.timestamp, " -t"),
            (self.iif_tx_ok, " -i"),
        ] {
            if set {
                f.write_str(option)?;
            }
        }
        if self.limit != 0 {
            write!(f, " -l {}", self.limit)?;
        }
        if let Some(changes) = &self.changes {
            // Each of its options ends with a space.
            write!(f, " {}", changes.to_string().trim_end())?;
        }
        if let Some(filter) = self.filter {
            write!(f, " -f {}", filter_text(filter))?;
        }
        if !self.options.is_default() {
            write!(f, " {}", self.options)?;
        }
        Ok(())
    }
}

pub(crate) mod kind_name {
    use super::FrameType;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(kind: &FrameType, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(super::kind_name(*kind))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<FrameType, D::Error> {
        let name = String::deserialize(d)?;
        FrameType::ALL
            .into_iter()
            .find(|k| super::kind_name(*k) == name)
            .ok_or_else(|| serde::de::Error::custom(format!("unknown frame type {name:?}")))
    }
}

pub(crate) mod filter_text {
    use super::Filter;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(f: &Option<Filter>, s: S) -> Result<S::Ok, S::Error> {
        match f {
            Some(filter) => s.serialize_some(&super::filter_text(*filter)),
            None => s.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Filter>, D::Error> {
        Option::<String>::deserialize(d)?
            .map(|text| super::parse_filter(&text).map_err(serde::de::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_and_written_as_cangw_does() {
        for (text, listed) in [
            ("123:7FF", "123:7FF"),
            ("123~C00007FF", "123~C00007FF"),
            ("0x1:0x2", "001:2"),
            ("80000123:9fffffff", "80000123:9FFFFFFF"),
            ("20000123:7FF", "123~7FF"),
            ("0~0", "000~0"),
        ] {
            assert_eq!(filter_text(parse_filter(text).unwrap()), listed, "{text}");
        }
        for bad in [
            "",
            ":",
            "123",
            "123:",
            ":7FF",
            "12G:7FF",
            "123:7FF ",
            "+1:2",
            "123456789:1",
            "1:2:3",
            "1~2~3",
            "-1:7FF",
            "0x:1",
            "1.2",
        ] {
            assert_eq!(
                parse_filter(bad),
                Err(ParseError::Filter(bad.into())),
                "{bad}"
            );
        }
    }

    #[test]
    fn names_are_those_that_the_kernel_takes() {
        for good in ["can0", "a;b$c", "-x", "...", "fifteen-bytes-x", "\u{e9}"] {
            assert!(is_interface_name(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a b",
            "a/b",
            "a:b",
            "a\tb",
            "sixteen-bytes-xy",
        ] {
            assert!(!is_interface_name(bad), "{bad}");
        }
    }

    #[test]
    fn limits_are_small_numbers() {
        assert_eq!(parse_limit("6"), Ok(6));
        for bad in ["0", "", "-1", "x", "1x", "256"] {
            assert_eq!(parse_limit(bad), Err(ParseError::Limit(bad.into())));
        }
    }

    #[test]
    fn an_xl_rule_is_filtered_by_its_priority() {
        let mut rule = Rule {
            echo: true,
            iif_tx_ok: true,
            limit: 2,
            filter: Some(Filter {
                id: 0x123,
                mask: 0x7FF,
            }),
            ..Rule::new("a", "b", FrameType::Xl)
        };
        assert_eq!(rule.check(), Ok(()));
        assert_eq!(rule.to_string(), "-s a -d b --xl -e -i -l 2 -f 123:7FF");
        rule.filter = Some(Filter {
            id: 0x123,
            mask: 0xFFF,
        });
        assert!(rule.check().is_err());
    }
}
