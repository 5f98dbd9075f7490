//! Names of objects. They say whose they are and since when, so that `sweep` can judge them; parsing is strict, and what
//! does not print as it was read is not ours.

use std::fmt;
use std::str::FromStr;

use object_store::path::Path;

use crate::env::Env;
use crate::limits::{CHECKPOINT_BYTES_MAX, SEGMENT_BYTES_MAX};
use crate::{Error, Result};

/// The name of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
            ["probe", ulid] => ulid.parse().ok().map(|ulid| Self::Probe { ulid }),
            _ => None,
        };
        let shown: String = name.chars().take(200).collect();
        parsed.ok_or_else(|| Error::invalid("object name", format!("{shown:?} is not a name of this format")))
    }
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
