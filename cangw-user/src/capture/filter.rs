//! Which frames a capture shows.

use std::fmt;
use std::str::FromStr;

use cangw_common::frame::{EFF_FLAG, EFF_MASK, ERR_FLAG, FrameType, SFF_MASK};
use cangw_common::rule::Predicate;
use serde::{Deserialize, Serialize};

use crate::frame_text::Frame;
use crate::ids::IdRange;
use crate::rule::{ParseError, parse_filter};

/// Identifiers, ranges of them (`123,200-2FF,18FEF100`), and filters as candump has them (`123:7FF`, `123~7FF`), separated by commas. A frame
/// is shown when one of them names it; an empty filter names all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Filter {
    text: String,
    terms: Vec<Term>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Term {
    /// Data frames and remote requests, also CAN XL frames with such a priority.
    Range(IdRange),
    /// As the kernel compares: error frames by their classes only.
    Predicate(Predicate),
}

impl FromStr for Filter {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let term = |part: &str| {
            if part.contains([':', '~']) {
                parse_filter(part).map(|filter| Term::Predicate(filter.predicate()))
            } else {
                part.parse().map(Term::Range)
            }
        };
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        Ok(Self {
            text: text.to_owned(),
            terms: parts.map(term).collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<String> for Filter {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<Filter> for String {
    fn from(filter: Filter) -> Self {
        filter.text
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Filter {
    /// Whether it names a frame.
    #[must_use]
    pub fn names(&self, frame: &Frame) -> bool {
        let id = match frame.kind() {
            FrameType::Classic | FrameType::Fd => frame.can_id(),
            FrameType::Xl => frame.can_id() & SFF_MASK,
        };
        let names = |term: &Term| match term {
            Term::Range(range) => {
                let extended = id & EFF_FLAG != 0;
                let mask = if extended { EFF_MASK } else { SFF_MASK };
                id & ERR_FLAG == 0
                    && range.extended == extended
                    && (range.first..=range.last).contains(&(id & mask))
            }
            Term::Predicate(predicate) => predicate.matches(id),
        };
        self.terms.is_empty() || self.terms.iter().any(names)
    }
}

#[cfg(test)]
mod tests {
    use super::Filter;

    #[test]
    fn a_filter_names_what_one_of_its_parts_names() {
        let names = |filter: &str, frame: &str| {
            let filter: Filter = filter.parse().unwrap();
            filter.names(&frame.parse().unwrap())
        };
        for (filter, frame, expected) in [
            ("", "123#", true),
            ("123", "123#11", true),
            ("123", "123#R", true),
            ("123", "00000123#11", false),
            ("00000123", "00000123#11", true),
            ("100-1FF,7FF", "180##111", true),
            ("100-1FF,7FF", "200#", false),
            ("100-1FF,7FF", "7FF#", true),
            ("123:700", "1FF#", true),
            ("123~700", "1FF#", false),
            ("123~700", "200#", true),
            ("0:20000004", "20000004#0000000000000000", true),
            ("004", "20000004#0000000000000000", false),
            ("123", "45123#81:00:12345678#11", true),
        ] {
            assert_eq!(names(filter, frame), expected, "{filter} {frame}");
        }
        for wrong in ["12", "123-", "200-100", "123:", "123:7FF:1", "x"] {
            assert!(wrong.parse::<Filter>().is_err(), "{wrong}");
        }
    }
}
