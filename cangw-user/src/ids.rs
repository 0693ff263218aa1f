//! Identifiers of a rule as people name them: single ones, ranges, J1939 parameter groups.

use std::fmt;
use std::str::FromStr;

use cangw_common::frame::{EFF_FLAG, EFF_MASK, RTR_FLAG, SFF_MASK};
use cangw_common::rule::Predicate;
use serde::{Deserialize, Serialize};

use crate::as_text::as_text;
use crate::rule::{ParseError, hex};

/// J1939 (SAE J1939-21): the bits of an identifier above priority that say which parameter group it is.
const PDU_FORMAT: u32 = 0x03FF_0000;
/// The byte that is part of the group (PDU2), or a destination (PDU1).
const PDU_SPECIFIC: u32 = 0x0000_FF00;
const SOURCE_ADDRESS: u32 = 0x0000_00FF;
/// PDU formats from here on are PDU2.
const PDU2: u32 = 0xF000;
const MAX_PGN: u32 = 0x3_FFFF;

/// One identifier, or all from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdRange {
    /// 29 bits instead of 11.
    pub extended: bool,
    /// First identifier.
    pub first: u32,
    /// Last identifier.
    pub last: u32,
}

impl FromStr for IdRange {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = || {
            ParseError::value(
                "--id",
                text,
                "identifiers with 3 hexadecimal digits (standard, to 7FF) or 8 (extended, to 1FFFFFFF), ranges FIRST-LAST of them, separated by commas",
            )
        };
        let one = |text: &str| {
            let id = hex(text).filter(|_| !text.starts_with("0x"))?;
            match text.len() {
                3 if id <= SFF_MASK => Some((false, id)),
                8 if id <= EFF_MASK => Some((true, id)),
                _ => None,
            }
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (extended, first) = one(first).ok_or_else(bad)?;
        let (also_extended, last) = one(last).ok_or_else(bad)?;
        if extended != also_extended || first > last {
            return Err(bad());
        }
        Ok(Self {
            extended,
            first,
            last,
        })
    }
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = if self.extended { 8 } else { 3 };
        write!(f, "{:0width$X}", self.first)?;
        if self.last != self.first {
            write!(f, "-{:0width$X}", self.last)?;
        }
        Ok(())
    }
}

as_text!(IdRange);

impl IdRange {
    /// One identifier, with [`EFF_FLAG`] when it has 29 bits.
    #[must_use]
    pub const fn single(can_id: u32) -> Self {
        let extended = can_id & EFF_FLAG != 0;
        let id = can_id & if extended { EFF_MASK } else { SFF_MASK };
        Self {
            extended,
            first: id,
            last: id,
        }
    }

    /// The fewest masks that together are the range.
    fn cover(&self, each: &mut impl FnMut(Predicate)) {
        let flag = if self.extended { EFF_FLAG } else { 0 };
        let all = if self.extended { EFF_MASK } else { SFF_MASK };
        let mut first = self.first;
        loop {
            // The largest block of a power of two that begins here and does not go beyond the end.
            let mut block = 1u32;
            while block <= all && first & block == 0 && first + (2 * block - 1) <= self.last {
                block *= 2;
            }
            each(Predicate::Equal {
                id: flag | first,
                mask: EFF_FLAG | RTR_FLAG | (all & !(block - 1)),
            });
            match first.checked_add(block) {
                Some(next) if next <= self.last => first = next,
                _ => return,
            }
        }
    }
}

/// The identifiers of a rule: it takes the data frames that one of them names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Texts", into = "Texts")]
pub struct Ids {
    /// `--id`
    pub ranges: Vec<IdRange>,
    /// `--pgn`: J1939 parameter groups.
    pub pgns: Vec<u32>,
    /// `--sa`: their source addresses, all when empty.
    pub sources: Vec<u8>,
    /// `--da`: their destinations, all when empty.
    pub destinations: Vec<u8>,
}

impl Ids {
    /// Whether nothing is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.pgns.is_empty()
    }

    /// Reads the options' texts, lists separated by commas.
    ///
    /// # Errors
    /// [`ParseError::Value`], [`ParseError::Pgn`]
    pub fn parse(
        ids: &[String],
        pgns: &[String],
        sources: &[String],
        destinations: &[String],
    ) -> Result<Self, ParseError> {
        let ids = Self {
            ranges: list(ids, str::parse)?,
            pgns: list(pgns, |text| number("--pgn", text, MAX_PGN))?,
            sources: list(sources, |text| number("--sa", text, 0xFF).map(|n| n as u8))?,
            destinations: list(destinations, |text| {
                number("--da", text, 0xFF).map(|n| n as u8)
            })?,
        };
        ids.check()?;
        Ok(ids)
    }

    fn check(&self) -> Result<(), ParseError> {
        for &pgn in &self.pgns {
            let reason = match (pgn & 0xFF00 >= PDU2, pgn & 0xFF != 0) {
                (true, _) if !self.destinations.is_empty() => {
                    "its messages have no destination (PDU2), so that --da cannot be asked for"
                }
                (false, true) => {
                    "its low byte is the destination (PDU1); end it with 00 and name the destination with --da"
                }
                _ => continue,
            };
            return Err(ParseError::Pgn { pgn, reason });
        }
        if self.pgns.is_empty() && !(self.sources.is_empty() && self.destinations.is_empty()) {
            return Err(ParseError::Misplaced {
                option: "--sa or --da",
                reason: "needs --pgn",
            });
        }
        Ok(())
    }

    /// The parameter groups as `--pgn` takes them.
    pub(crate) fn pgn_texts(&self) -> Vec<String> {
        self.pgns.iter().map(|pgn| format!("{pgn:04X}")).collect()
    }

    /// The comparisons that together are the identifiers.
    #[must_use]
    pub fn predicates(&self) -> Vec<Predicate> {
        let mut predicates = Vec::new();
        for range in &self.ranges {
            range.cover(&mut |predicate| predicates.push(predicate));
        }
        let any = |addresses: &[u8]| -> Vec<Option<u8>> {
            if addresses.is_empty() {
                vec![None]
            } else {
                addresses.iter().copied().map(Some).collect()
            }
        };
        for &pgn in &self.pgns {
            for source in any(&self.sources) {
                for destination in any(&self.destinations) {
                    let mut id = EFF_FLAG | pgn << 8;
                    let mut mask = EFF_FLAG | RTR_FLAG | PDU_FORMAT;
                    if pgn & 0xFF00 >= PDU2 {
                        mask |= PDU_SPECIFIC;
                    }
                    if let Some(destination) = destination {
                        id |= u32::from(destination) << 8;
                        mask |= PDU_SPECIFIC;
                    }
                    if let Some(source) = source {
                        id |= u32::from(source);
                        mask |= SOURCE_ADDRESS;
                    }
                    predicates.push(Predicate::Equal { id, mask });
                }
            }
        }
        predicates
    }
}

fn list<T>(
    texts: &[String],
    mut one: impl FnMut(&str) -> Result<T, ParseError>,
) -> Result<Vec<T>, ParseError> {
    texts
        .iter()
        .flat_map(|text| text.split(','))
        .map(|text| one(text.trim()))
        .collect()
}

fn number(option: &'static str, text: &str, max: u32) -> Result<u32, ParseError> {
    hex(text)
        .filter(|&number| number <= max)
        .ok_or_else(|| ParseError::Value {
            option,
            text: text.to_owned(),
            expected: match option {
                "--pgn" => "hexadecimal numbers to 3FFFF, separated by commas",
                _ => "hexadecimal addresses to FF, separated by commas",
            },
        })
}

/// Addresses as `--sa` and `--da` take them.
pub(crate) fn address_texts(addresses: &[u8]) -> Vec<String> {
    addresses.iter().map(|a| format!("{a:02X}")).collect()
}

/// As options, with a space between them.
impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<String> = self.ranges.iter().map(IdRange::to_string).collect();
        let options = [
            ("--id", ids),
            ("--pgn", self.pgn_texts()),
            ("--sa", address_texts(&self.sources)),
            ("--da", address_texts(&self.destinations)),
        ];
        let mut space = "";
        for (option, texts) in options.iter().filter(|(_, texts)| !texts.is_empty()) {
            write!(f, "{space}{option} {}", texts.join(","))?;
            space = " ";
        }
        Ok(())
    }
}

/// [`Ids`] as programs read and write them.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Texts {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    id: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pgn: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sa: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    da: Vec<String>,
}

impl From<Ids> for Texts {
    fn from(ids: Ids) -> Self {
        Self {
            id: ids.ranges.iter().map(IdRange::to_string).collect(),
            pgn: ids.pgn_texts(),
            sa: address_texts(&ids.sources),
            da: address_texts(&ids.destinations),
        }
    }
}

impl TryFrom<Texts> for Ids {
    type Error = ParseError;

    fn try_from(t: Texts) -> Result<Self, ParseError> {
        Self::parse(&t.id, &t.pgn, &t.sa, &t.da)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cangw_common::frame::ERR_FLAG;
    use proptest::prelude::*;

    fn parse(id: &str, pgn: &str, sa: &str, da: &str) -> Result<Ids, ParseError> {
        let list = |text: &str| {
            if text.is_empty() {
                Vec::new()
            } else {
                vec![text.to_owned()]
            }
        };
        Ids::parse(&list(id), &list(pgn), &list(sa), &list(da))
    }

    fn takes(ids: &Ids, can_id: u32) -> bool {
        ids.predicates().iter().any(|p| p.matches(can_id))
    }

    #[test]
    fn the_number_of_digits_tells_standard_from_extended() {
        let ids = parse("123,00000123,700-7FF", "", "", "").unwrap();
        assert!(takes(&ids, 0x123) && takes(&ids, EFF_FLAG | 0x123));
        assert!(takes(&ids, 0x700) && takes(&ids, 0x7FF) && !takes(&ids, 0x6FF));
        assert!(!takes(&ids, EFF_FLAG | 0x700));
        assert!(!takes(&ids, RTR_FLAG | 0x123), "data frames only");
        assert!(!takes(&ids, ERR_FLAG | 0x123));
        assert_eq!(ids.to_string(), "--id 123,00000123,700-7FF");
        for bad in [
            "",
            "1",
            "12",
            "1234",
            "800",
            "20000000",
            "200-100",
            "100-00000200",
            "100-",
            "-100",
            "0x1",
            "12G",
            "1 2",
        ] {
            assert!(parse(&format!("123,{bad}"), "", "", "").is_err(), "{bad}");
        }
    }

    #[test]
    fn parameter_groups_are_those_of_j1939() {
        // PDU2, from every priority and source.
        let ids = parse("", "FEF1", "", "").unwrap();
        assert!(takes(&ids, EFF_FLAG | 0x18FE_F105) && takes(&ids, EFF_FLAG | 0x0CFE_F1FF));
        assert!(!takes(&ids, EFF_FLAG | 0x18FE_F205) && !takes(&ids, EFF_FLAG | 0x19FE_F105));
        let ids = parse("", "FEF1,FEF2", "05,06", "").unwrap();
        assert!(takes(&ids, EFF_FLAG | 0x18FE_F205) && !takes(&ids, EFF_FLAG | 0x18FE_F207));
        // PDU1, to every destination, and to one.
        let ids = parse("", "EF00", "", "").unwrap();
        assert!(takes(&ids, EFF_FLAG | 0x18EF_1234) && !takes(&ids, EFF_FLAG | 0x18EE_1234));
        let ids = parse("", "EF00", "", "12").unwrap();
        assert!(takes(&ids, EFF_FLAG | 0x18EF_1234) && !takes(&ids, EFF_FLAG | 0x18EF_1334));
        assert!(parse("", "EF12", "", "").is_err());
        assert!(parse("", "FEF1", "", "12").is_err());
        assert!(parse("", "40000", "", "").is_err());
        assert!(parse("123", "", "05", "").is_err());
    }

    proptest! {
        #[test]
        fn masks_of_a_range_are_the_range(extended: bool, a: u32, b: u32, tries: Vec<u32>) {
            let all = if extended { EFF_MASK } else { SFF_MASK };
            let (a, b) = (a & all, b & all);
            let range = IdRange { extended, first: a.min(b), last: a.max(b) };
            let ids = Ids { ranges: vec![range], ..Ids::default() };
            prop_assert!(ids.predicates().len() <= 56);
            let edges = [range.first, range.last, range.first.wrapping_sub(1), range.last + 1, 0, all];
            for id in tries.into_iter().chain(edges) {
                let id = id & all;
                let expected = (range.first..=range.last).contains(&id);
                let flag = if extended { EFF_FLAG } else { 0 };
                prop_assert_eq!(takes(&ids, flag | id), expected, "{:X}", id);
                prop_assert!(!takes(&ids, (flag ^ EFF_FLAG) | (id & SFF_MASK)));
            }
            prop_assert_eq!(range.to_string().parse::<IdRange>().unwrap(), range);
        }
    }
}
