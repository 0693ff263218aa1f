//! [`Changes`] in JSON.

use std::str::FromStr;

use cangw_common::frame::FrameType;
use serde::{Deserialize, Serialize};

use super::{Changes, Kind, Modification, parse_uid};
use crate::rule::ParseError;

/// [`Changes`] as programs read and write them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Text {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    fd: bool,
    modify: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crc8: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crc8_profile: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    xor: Option<String>,
}

impl From<Changes> for Text {
    fn from(c: Changes) -> Self {
        Self {
            fd: c.kind == Kind::Fd,
            modify: c.modifications.iter().map(|m| m.text(c.kind())).collect(),
            uid: (c.uid != 0).then(|| format!("{:X}", c.uid)),
            crc8: c.crc8.map(|v| v.to_string()),
            crc8_profile: c.profile.map(|v| v.to_string()),
            xor: c.xor.map(|v| v.to_string()),
        }
    }
}

impl TryFrom<Text> for Changes {
    type Error = ParseError;

    fn try_from(t: Text) -> Result<Self, ParseError> {
        fn parse<T: FromStr<Err = ParseError>>(
            text: Option<&String>,
        ) -> Result<Option<T>, ParseError> {
            text.map(|text| text.parse()).transpose()
        }
        let kind = if t.fd {
            FrameType::Fd
        } else {
            FrameType::Classic
        };
        let modifications = t.modify.iter().map(|text| Modification::parse(kind, text));
        Self::new(
            kind,
            modifications.collect::<Result<Vec<_>, _>>()?,
            t.uid.as_deref().map_or(Ok(0), parse_uid)?,
            parse(t.crc8.as_ref())?,
            parse(t.crc8_profile.as_ref())?,
            parse(t.xor.as_ref())?,
        )
    }
}
