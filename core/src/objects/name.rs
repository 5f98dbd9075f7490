//! Names of objects. They say whose they are and since when, so that `sweep` can judge them; parsing is strict, and what
//! does not print as it was read is not ours.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use object_store::path::Path;

use crate::env::Env;
use crate::limits::{CHECKPOINT_BYTES_MAX, MERGED_BYTES_MAX, SEGMENT_BYTES_MAX};
use crate::record::TopicId;
use crate::topic::check_name;
use crate::{Error, Result};

/// The name of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectName {
    /// A segment as a flush wrote it.
    L0 {
        /// Era of the store.
        era: u16,
        /// Ledger whose commits name it.
        ledger: u16,
        /// Newest commit of the view that the name was drawn at (R3).
        drawn: u64,
        /// Makes it unique.
        ulid: Ulid,
    },
    /// A merged segment: one topic, one ingest hour.
    L1 {
        /// Topic name.
        topic: Arc<str>,
        /// Topic id.
        id: TopicId,
        /// Hours since 1970 at which its records were appended.
        hour: u32,
        /// Era of the store.
        era: u16,
        /// Ledger whose commits name it.
        ledger: u16,
        /// Newest commit of the view that the name was drawn at (R3).
        drawn: u64,
        /// Makes it unique.
        ulid: Ulid,
    },
    /// A checkpoint.
    Checkpoint {
        /// Era of the store.
        era: u16,
        /// Ledger whose state it is.
        ledger: u16,
        /// The commit that it is the state as of.
        at: u64,
        /// Makes it unique.
        ulid: Ulid,
    },
    /// What `init` tries a store with.
    Probe {
        /// Makes it unique.
        ulid: Ulid,
    },
}

impl ObjectName {
    /// The name as a path of the store.
    pub fn path(&self) -> Path {
        Path::from(self.to_string())
    }

    /// Largest object of this kind, in bytes.
    pub fn bytes_max(&self) -> u64 {
        match self {
            Self::L0 { .. } => SEGMENT_BYTES_MAX as u64,
            Self::L1 { .. } => MERGED_BYTES_MAX as u64,
            Self::Checkpoint { .. } => CHECKPOINT_BYTES_MAX as u64,
            Self::Probe { .. } => 64,
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::L0 { era, ledger, drawn, ulid } => {
                write!(f, "l0/{era:04x}/{ledger:04x}/{drawn:016x}/{ulid}.parquet")
            }
            Self::L1 { topic, id, hour, era, ledger, drawn, ulid } => {
                let (date, hour) = (Date::of_day(hour / HOURS), hour % HOURS);
                write!(f, "topics/{topic}/{id}/date={date}/hour={hour:02}/")?;
                write!(f, "{era:04x}.{ledger:04x}.{drawn:016x}.{ulid}.parquet")
            }
            Self::Checkpoint { era, ledger, at, ulid } => {
                write!(f, "ckpt/{era:04x}/{ledger:04x}/{at:016x}/{ulid}")
            }
            Self::Probe { ulid } => write!(f, "probe/{ulid}"),
        }
    }
}

impl FromStr for ObjectName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let parts: Vec<&str> = name.splitn(6, '/').collect();
        let parsed = match parts[..] {
            ["l0", era, ledger, drawn, file] => file.strip_suffix(".parquet").and_then(|ulid| {
                let (era, ledger, drawn) = (hex(era, 4)?, hex(ledger, 4)?, hex(drawn, 16)?);
                Some(Self::L0 { era: era as u16, ledger: ledger as u16, drawn, ulid: ulid.parse().ok()? })
            }),
            ["ckpt", era, ledger, at, ulid] => (|| {
                let (era, ledger, at) = (hex(era, 4)?, hex(ledger, 4)?, hex(at, 16)?);
                Some(Self::Checkpoint {
                    era: era as u16,
                    ledger: ledger as u16,
                    at,
                    ulid: ulid.parse().ok()?,
                })
            })(),
            ["topics", topic, id, date, hour, file] => merged(topic, id, date, hour, file),
            ["probe", ulid] => ulid.parse().ok().map(|ulid| Self::Probe { ulid }),
            _ => None,
        };
        let shown: String = name.chars().take(200).collect();
        parsed.ok_or_else(|| Error::invalid("object name", format!("{shown:?} is not a name of this format")))
    }
}

fn merged(topic: &str, id: &str, date: &str, hour: &str, file: &str) -> Option<ObjectName> {
    check_name(topic).ok()?;
    let (high, low) = (hex(id.get(..16)?, 16)?, hex(id.get(16..)?, 16)?);
    let day = date.strip_prefix("date=")?.parse::<Date>().ok()?.day()?;
    let hour = digits(hour.strip_prefix("hour=")?, 2)?;
    let (era, rest) = file.strip_suffix(".parquet")?.split_once('.')?;
    let (ledger, rest) = rest.split_once('.')?;
    let (drawn, ulid) = rest.split_once('.')?;
    let name = ObjectName::L1 {
        topic: topic.into(),
        id: TopicId(u128::from(high) << 64 | u128::from(low)),
        hour: day.checked_mul(HOURS)?.checked_add(hour)?,
        era: hex(era, 4)? as u16,
        ledger: hex(ledger, 4)? as u16,
        drawn: hex(drawn, 16)?,
        ulid: ulid.parse().ok()?,
    };
    (hour < HOURS).then_some(name)
}

const HOURS: u32 = 24;

/// A day of the Gregorian calendar, as `2026-11-22`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Date {
    year: u32,
    month: u32,
    day: u32,
}

impl Date {
    /// From days since 1970. By Howard Hinnant's `civil_from_days`
    /// (<https://howardhinnant.github.io/date_algorithms.html>): years begin in March, eras have 400.
    fn of_day(days: u32) -> Self {
        let days = u64::from(days) + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        // Days are a u32, so the year is below 12 million.
        Self { year: year as u32, month: month as u32, day: day as u32 }
    }

    /// Days since 1970; `None`: there is no such day, or it is before 1970.
    fn day(self) -> Option<u32> {
        if !(1970..=9999).contains(&self.year) || !(1..=12).contains(&self.month) {
            return None;
        }
        let year = self.year - u32::from(self.month <= 2);
        let (era, year_of_era) = (year / 400, year % 400);
        let from_march = if self.month > 2 { self.month - 3 } else { self.month + 9 };
        let of_year = (153 * from_march + 2) / 5 + self.day.checked_sub(1)?;
        let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
        let days = (era * 146_097 + of_era).checked_sub(719_468)?;
        (Self::of_day(days) == self).then_some(days)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl FromStr for Date {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, '-');
        let mut next = |count| parts.next().and_then(|part| digits(part, count)).ok_or(());
        Ok(Self { year: next(4)?, month: next(2)?, day: next(2)? })
    }
}

/// Exactly `count` decimal digits.
fn digits(text: &str, count: usize) -> Option<u32> {
    let plain = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

/// Exactly `digits` lower-case hexadecimal digits (at most 16).
fn hex(text: &str, digits: usize) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if text.len() != digits || !plain {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

/// 48 bits of milliseconds since 1970 and 80 random bits, as 26 digits of Crockford's base 32
/// (<https://github.com/ulid/spec>). Sorts by time; nothing that must be right depends on the time (L2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ulid(pub u128);

const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const ULID_DIGITS: usize = 26;

impl Ulid {
    /// Draws one.
    pub fn draw(env: &dyn Env) -> Self {
        const TIME_MAX: u64 = (1 << 48) - 1;
        let time = u64::try_from(env.now_ms()).unwrap_or(0).min(TIME_MAX);
        let random = (u128::from(env.random_u64() & 0xffff) << 64) | u128::from(env.random_u64());
        Self((u128::from(time) << 80) | random)
    }

    /// The time that it was drawn at, by the clock of whoever drew it: ms since 1970.
    pub fn time_ms(self) -> i64 {
        (self.0 >> 80) as i64
    }
}

impl fmt::Display for Ulid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in (0..ULID_DIGITS).rev() {
            let digit = (self.0 >> (5 * place)) & 31;
            write!(f, "{}", char::from(DIGITS[digit as usize]))?;
        }
        Ok(())
    }
}

impl FromStr for Ulid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused =
            || Error::invalid("ulid", format!("not {ULID_DIGITS} digits of Crockford's base 32, upper case"));
        // 26 digits are 130 bits: the first holds only three.
        if text.len() != ULID_DIGITS || text.as_bytes()[0] > b'7' {
            return Err(refused());
        }
        text.bytes()
            .try_fold(0u128, |sum, byte| {
                let digit = DIGITS.iter().position(|digit| *digit == byte)?;
                Some((sum << 5) | digit as u128)
            })
            .map(Self)
            .ok_or_else(refused)
    }
}
