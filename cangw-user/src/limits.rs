//! Rate limits and faults of a rule: their text, and the [`Guard`] that the data path asks.

use std::fmt;
use std::str::FromStr;

use cangw_common::abi::{Fault, Guard, PER_ID};
use cangw_common::guard::{ALL, mix};

use crate::as_text::as_text;
use crate::rule::ParseError;

const SECOND: u64 = 1_000_000_000;
/// Frames in a second beyond which a limit is none on any CAN bus.
const MAX_RATE: u64 = 1_000_000;
const MAX_BURST: u32 = 1_000_000;
/// Units of a [`Share`] in all frames.
const WHOLE: u32 = 100_000_000;

/// The time to which a rate refers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// `s`
    Second,
    /// `min`
    Minute,
    /// `h`
    Hour,
}

impl Unit {
    const ALL: [Self; 3] = [Self::Second, Self::Minute, Self::Hour];

    const fn name(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "min",
            Self::Hour => "h",
        }
    }

    const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
        }
    }
}

/// `--rate`: frames in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// At least 1.
    pub frames: u32,
    /// In which time.
    pub unit: Unit,
}

impl Rate {
    /// Nanoseconds between two frames, rounded.
    #[must_use]
    pub const fn interval(self) -> u64 {
        let frames = self.frames as u64;
        (self.unit.seconds() * SECOND + frames / 2) / frames
    }

    /// Nanoseconds that a frame may come earlier than at the rate, with a burst of at least 1.
    #[must_use]
    pub const fn tolerance(self, burst: u32) -> u64 {
        (burst as u64 - 1).saturating_mul(self.interval())
    }

    /// The burst when none is given: what comes in a twentieth of a second, and at least 2, so that frames at the rate may jitter.
    #[must_use]
    pub fn default_burst(self) -> u32 {
        ((SECOND / 20 / self.interval()) as u32).max(2)
    }
}

impl FromStr for Rate {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let rate = || {
            let (frames, unit) = text.split_once('/')?;
            let unit = Unit::ALL.into_iter().find(|u| u.name() == unit)?;
            let frames: u32 = digits(frames)?;
            let fits = frames > 0 && u64::from(frames) <= MAX_RATE * unit.seconds();
            fits.then_some(Self { frames, unit })
        };
        let expected = "frames in a time, such as 100/s, 30/min or 5/h, at most 1000000/s";
        rate().ok_or_else(|| ParseError::value("--rate", text, expected))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.frames, self.unit.name())
    }
}

/// A whole number without a sign.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    let only = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    only.then(|| text.parse().ok()).flatten()
}

/// A share of frames, in millionths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Share(u32);

impl Share {
    /// Of 2^32.
    #[must_use]
    pub const fn of_all(self) -> u64 {
        (self.0 as u64 * ALL + WHOLE as u64 / 2) / WHOLE as u64
    }
}

impl FromStr for Share {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let share = || {
            let number = text.strip_suffix('%')?;
            let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
            if fraction.is_empty() || fraction.len() > 6 {
                return None;
            }
            let fraction: u32 = digits(&format!("{fraction:0<6}"))?;
            let whole: u32 = digits(whole)?;
            let share = whole.checked_mul(1_000_000)?.checked_add(fraction)?;
            (share > 0 && share <= WHOLE).then_some(Self(share))
        };
        let expected = "a percentage from 0.000001% to 100%, such as 1% or 0.25%";
        share().ok_or_else(|| ParseError::value("share", text, expected))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if fraction == 0 {
            return write!(f, "{whole}%");
        }
        let fraction = format!("{fraction:06}");
        write!(f, "{whole}.{}%", fraction.trim_end_matches('0'))
    }
}

/// What is done to some of a rule's frames.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limits {
    /// `--rate`
    pub rate: Option<Rate>,
    /// `--burst`: frames that may come at once.
    pub burst: Option<u32>,
    /// `--per-id`: each identifier has the rate for itself.
    pub per_id: bool,
    /// `--drop SHARE`
    pub drop: Option<Share>,
    /// `--duplicate SHARE`
    pub duplicate: Option<Share>,
    /// `--corrupt SHARE`
    pub corrupt: Option<Share>,
    /// `--seed`: which frames are chosen.
    pub seed: u64,
}

impl Limits {
    /// Checks what belongs together.
    ///
    /// # Errors
    /// [`ParseError::Misplaced`], [`ParseError::Value`]
    pub fn check(&self) -> Result<(), ParseError> {
        let misplaced = |option, reason| Err(ParseError::Misplaced { option, reason });
        if self.rate.is_none() && (self.burst.is_some() || self.per_id) {
            return misplaced("--burst or --per-id", "needs --rate");
        }
        if self.seed != 0 && !self.has_faults() {
            return misplaced(
                "--seed",
                "needs --drop, --duplicate or --corrupt with a share",
            );
        }
        match self.burst {
            Some(burst) if burst == 0 || burst > MAX_BURST => Err(ParseError::value(
                "--burst",
                &burst.to_string(),
                "1 to 1000000 frames",
            )),
            _ => Ok(()),
        }
    }

    fn has_faults(&self) -> bool {
        self.drop.is_some() || self.duplicate.is_some() || self.corrupt.is_some()
    }

    /// Whether there is anything to ask the data path for.
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        self.rate.is_some() || self.has_faults()
    }

    /// What the data path asks, with nothing counted yet.
    #[must_use]
    pub fn guard(&self) -> Guard {
        let fault = |share: Option<Share>, number: u64| Fault {
            share: share.map_or(0, Share::of_all),
            // Each fault chooses for itself.
            seed: mix(mix(self.seed).wrapping_add(number)),
            ..Fault::default()
        };
        let mut guard = Guard {
            drop: fault(self.drop, 1),
            duplicate: fault(self.duplicate, 2),
            corrupt: fault(self.corrupt, 3),
            ..Guard::default()
        };
        if let Some(rate) = self.rate {
            let burst = self.burst.unwrap_or_else(|| rate.default_burst());
            guard.interval = rate.interval();
            guard.tolerance = rate.tolerance(burst);
            guard.flags = if self.per_id { PER_ID } else { 0 };
        }
        guard
    }
}

/// As options, with a space between them.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = Vec::new();
        if let Some(rate) = self.rate {
            words.push(format!("--rate {rate}"));
        }
        if let Some(burst) = self.burst {
            words.push(format!("--burst {burst}"));
        }
        if self.per_id {
            words.push("--per-id".into());
        }
        for (option, share) in [
            ("--drop", self.drop),
            ("--duplicate", self.duplicate),
            ("--corrupt", self.corrupt),
        ] {
            if let Some(share) = share {
                words.push(format!("{option} {share}"));
            }
        }
        if self.seed != 0 {
            words.push(format!("--seed {}", self.seed));
        }
        f.write_str(&words.join(" "))
    }
}

as_text!(Rate, Share);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_frames_in_a_time() {
        for (text, interval, burst) in [
            ("100/s", 10_000_000, 5),
            ("1/s", SECOND, 2),
            ("30/min", 2 * SECOND, 2),
            ("1000000/s", 1000, 50_000),
            ("3/s", 333_333_333, 2),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(
                (rate.interval(), rate.default_burst()),
                (interval, burst),
                "{text}"
            );
            assert_eq!(rate.to_string(), text);
        }
        for bad in [
            "",
            "100",
            "/s",
            "0/s",
            "-1/s",
            "+1/s",
            "1/ms",
            "1000001/s",
            "1/s ",
            "99999999999/h",
        ] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn shares_are_percentages() {
        for (text, of_all) in [
            ("100%", ALL),
            ("50%", ALL / 2),
            ("1%", 42_949_673),
            ("0.000001%", 43),
            ("12.5%", ALL / 8),
        ] {
            let share: Share = text.parse().unwrap();
            assert_eq!(share.of_all(), of_all, "{text}");
            assert_eq!(share.to_string(), text);
        }
        for bad in [
            "",
            "%",
            "1",
            "0%",
            "101%",
            "100.000001%",
            "1.%",
            ".5%",
            "-1%",
            "0.0000001%",
            "1,5%",
        ] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_belongs_together_is_checked() {
        let rate = Some("100/s".parse().unwrap());
        assert!(
            Limits {
                burst: Some(5),
                ..Limits::default()
            }
            .check()
            .is_err()
        );
        assert!(
            Limits {
                rate,
                burst: Some(0),
                ..Limits::default()
            }
            .check()
            .is_err()
        );
        assert!(
            Limits {
                rate,
                seed: 1,
                ..Limits::default()
            }
            .check()
            .is_err()
        );
        let good = Limits {
            rate,
            burst: Some(1),
            per_id: true,
            drop: Some("1%".parse().unwrap()),
            seed: 7,
            ..Limits::default()
        };
        good.check().unwrap();
        assert_eq!(
            good.to_string(),
            "--rate 100/s --burst 1 --per-id --drop 1% --seed 7"
        );
        let guard = good.guard();
        assert_eq!(
            (guard.interval, guard.tolerance, guard.flags),
            (10_000_000, 0, PER_ID)
        );
        assert_ne!(guard.drop.seed, guard.corrupt.seed);
    }
}
