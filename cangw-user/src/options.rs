//! What a rule has beyond can-gw: what becomes of a frame, its order, identifiers by name, fields of CAN XL, limits, watching.

use std::fmt;

use cangw_common::frame::FrameType;
use cangw_common::rule::XlFilter;
use serde::{Deserialize, Serialize};

use crate::ids::Ids;
use crate::limits::{Limits, Rate, Share};
use crate::rule::{ParseError, hex};

/// What becomes of the frames that a rule takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Action {
    /// A copy goes to another interface (`-d`).
    Forward {
        /// That interface.
        target: String,
    },
    /// They are not sent anywhere.
    Stay {
        /// But what else.
        action: Stay,
    },
}

/// What becomes of frames that are not sent anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stay {
    /// They end here: rules of lower priority and local sockets do not see them (`--drop`).
    Drop,
    /// They are named, so that the policy `deny` lets them pass to local sockets (`--pass`).
    Pass,
    /// They are recorded, and for the policy not named (`--watch` alone).
    Watch,
}

impl Action {
    /// The interface that frames are sent to.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        match self {
            Self::Forward { target } => Some(target),
            Self::Stay { .. } => None,
        }
    }
}

/// What becomes of frames that no rule of their interface names.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// They go on to local sockets, as with can-gw.
    #[default]
    Allow,
    /// They end here, counted as `denied`.
    Deny,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

/// The options of a rule that can-gw does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Texts", into = "Texts")]
pub struct Options {
    /// Rules of higher priority come first; of the same, those that drop come first (`--priority`).
    pub priority: i16,
    /// Identifiers, in the place of a filter.
    pub ids: Ids,
    /// Fields of CAN XL headers.
    pub xl: XlFilter,
    /// Rate limit and faults.
    pub limits: Limits,
    /// Frames are recorded by identifier (`--watch`).
    pub watch: bool,
}

impl Options {
    /// Whether the rule is one that can-gw could have.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks what belongs together, for a rule with this type of frames.
    ///
    /// # Errors
    /// [`ParseError::Misplaced`], and what the parts say.
    pub fn check(&self, kind: FrameType, forwards: bool) -> Result<(), ParseError> {
        self.limits.check()?;
        let misplaced = |option, reason| Err(ParseError::Misplaced { option, reason });
        if self.limits.is_guarded() && !forwards {
            return misplaced(
                "--rate, --duplicate, --corrupt or --drop with a share",
                "needs a target (-d)",
            );
        }
        let xl = kind == FrameType::Xl;
        if !xl && !self.xl.is_empty() {
            return misplaced("--vcid, --sdt or --af", "needs --xl");
        }
        if xl && (!self.ids.pgns.is_empty() || self.ids.ranges.iter().any(|r| r.extended)) {
            return misplaced(
                "--pgn or --id with 8 digits",
                "is for 29-bit identifiers, and the priority of a CAN XL frame has 11 bits",
            );
        }
        Ok(())
    }
}

/// As options, with a space between them.
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        if self.priority != 0 {
            words.push(format!("--priority {}", self.priority));
        }
        words.extend([
            self.ids.to_string(),
            xl_text(&self.xl),
            self.limits.to_string(),
        ]);
        if self.watch {
            words.push("--watch".into());
        }
        words.retain(|word| !word.is_empty());
        f.write_str(&words.join(" "))
    }
}

fn xl_text(xl: &XlFilter) -> String {
    let mut words = Vec::new();
    if let Some(vcid) = xl.vcid {
        words.push(format!("--vcid {vcid:02X}"));
    }
    if let Some(sdt) = xl.sdt {
        words.push(format!("--sdt {sdt:02X}"));
    }
    if let Some(af) = xl.af {
        words.push(format!("--af {}", acceptance_text(af)));
    }
    words.join(" ")
}

pub(crate) fn acceptance_text((value, mask): (u32, u32)) -> String {
    if mask == u32::MAX {
        format!("{value:08X}")
    } else {
        format!("{value:08X}:{mask:08X}")
    }
}

/// Parses `--vcid` and `--sdt`: a byte, hexadecimal.
///
/// # Errors
/// [`ParseError::Value`]
pub fn parse_byte(option: &'static str, text: &str) -> Result<u8, ParseError> {
    hex(text)
        .and_then(|value| u8::try_from(value).ok())
        .ok_or_else(|| ParseError::value(option, text, "a hexadecimal number to FF"))
}

/// Parses `--af`: the acceptance field, or `value:mask`, hexadecimal.
///
/// # Errors
/// [`ParseError::Value`]
pub fn parse_acceptance(text: &str) -> Result<(u32, u32), ParseError> {
    let (value, mask) = text.split_once(':').unwrap_or((text, "FFFFFFFF"));
    match (hex(value), hex(mask)) {
        (Some(value), Some(mask)) => Ok((value & mask, mask)),
        _ => Err(ParseError::value(
            "--af",
            text,
            "an acceptance field, or value:mask, in hexadecimal with at most 8 digits each",
        )),
    }
}

/// [`Options`] as programs read and write them.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Texts {
    #[serde(skip_serializing_if = "is_default")]
    priority: i16,
    #[serde(flatten)]
    ids: Ids,
    #[serde(skip_serializing_if = "is_default")]
    vcid: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    sdt: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    af: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    rate: Option<Rate>,
    #[serde(skip_serializing_if = "is_default")]
    burst: Option<u32>,
    #[serde(skip_serializing_if = "is_default")]
    per_id: bool,
    #[serde(skip_serializing_if = "is_default")]
    drop: Option<Share>,
    #[serde(skip_serializing_if = "is_default")]
    duplicate: Option<Share>,
    #[serde(skip_serializing_if = "is_default")]
    corrupt: Option<Share>,
    #[serde(skip_serializing_if = "is_default")]
    seed: u64,
    #[serde(skip_serializing_if = "is_default")]
    watch: bool,
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl From<Options> for Texts {
    fn from(o: Options) -> Self {
        Self {
            priority: o.priority,
            ids: o.ids,
            vcid: o.xl.vcid.map(|v| format!("{v:02X}")),
            sdt: o.xl.sdt.map(|v| format!("{v:02X}")),
            af: o.xl.af.map(acceptance_text),
            rate: o.limits.rate,
            burst: o.limits.burst,
            per_id: o.limits.per_id,
            drop: o.limits.drop,
            duplicate: o.limits.duplicate,
            corrupt: o.limits.corrupt,
            seed: o.limits.seed,
            watch: o.watch,
        }
    }
}

impl TryFrom<Texts> for Options {
    type Error = ParseError;

    fn try_from(t: Texts) -> Result<Self, ParseError> {
        let byte =
            |option, text: Option<String>| text.map(|text| parse_byte(option, &text)).transpose();
        Ok(Self {
            priority: t.priority,
            ids: t.ids,
            xl: XlFilter {
                vcid: byte("--vcid", t.vcid)?,
                sdt: byte("--sdt", t.sdt)?,
                af: t.af.map(|text| parse_acceptance(&text)).transpose()?,
            },
            limits: Limits {
                rate: t.rate,
                burst: t.burst,
                per_id: t.per_id,
                drop: t.drop,
                duplicate: t.duplicate,
                corrupt: t.corrupt,
                seed: t.seed,
            },
            watch: t.watch,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_names_of_the_rule_file() {
        let options = Options {
            priority: -3,
            ids: Ids::parse(
                &["123,200-2FF".into()],
                &["FEF1".into()],
                &["05".into()],
                &[],
            )
            .unwrap(),
            xl: XlFilter {
                vcid: Some(0x45),
                sdt: None,
                af: Some((0x12, 0xFF)),
            },
            limits: Limits {
                rate: Some("100/s".parse().unwrap()),
                drop: Some("1%".parse().unwrap()),
                seed: 7,
                ..Limits::default()
            },
            watch: true,
        };
        let json = serde_json::json!({
            "priority": -3, "id": ["123", "200-2FF"], "pgn": ["FEF1"], "sa": ["05"], "vcid": "45",
            "af": "00000012:000000FF", "rate": "100/s", "drop": "1%", "seed": 7, "watch": true,
        });
        assert_eq!(serde_json::to_value(&options).unwrap(), json);
        assert_eq!(serde_json::from_value::<Options>(json).unwrap(), options);
        assert_eq!(
            serde_json::to_value(Options::default()).unwrap(),
            serde_json::json!({})
        );
    }
}
