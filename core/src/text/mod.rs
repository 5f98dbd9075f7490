//! Records as text: what a line, or an element of a JSON array, says of a record. Pure: bytes in, a record or an error
//! that names the field out. The command line and the functions share it; `append` and `fetch` know nothing of it.
//!
//! Everything here may come from anybody. A line is bounded before it is kept ([`Lines`]), what is made of it is at
//! most as large as it is, and a bad one leaves its neighbours alone. The record's own limits are
//! [`Record::validate`]'s.
//!
//! | file | |
//! |---|---|
//! | `lines` | bytes → lines of bounded length |
//! | `json` | JSON object ↔ record |

pub mod json;
mod lines;
#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use lines::{Line, Lines};

use crate::error::{Error, Result};
use crate::limits;
use crate::record::Record;

/// What a line holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format<'a> {
    /// The value, any bytes; an empty line is an empty value.
    Plain,
    /// A JSON object, see [`json::parse`].
    Json,
    /// Key, this separator, value; the key ends at the first separator. It must not be empty.
    Keyed(&'a [u8]),
}

/// A record, and the partition that it asks for.
pub type Parsed = (Record, Option<u32>);

impl Format<'_> {
    /// The longest line that may become a record, in bytes.
    pub fn line_bytes_max(self) -> usize {
        match self {
            Self::Plain => limits::RECORD_BYTES_MAX,
            Self::Json => limits::NDJSON_LINE_BYTES_MAX,
            Self::Keyed(separator) => limits::RECORD_BYTES_MAX + separator.len(),
        }
    }

    /// A line, without its end, as a record. [`Error::TooLarge`] or [`Error::InvalidField`] otherwise.
    pub fn parse(self, line: impl Into<Bytes>) -> Result<Parsed> {
        let line = line.into();
        Error::check_size("line", line.len(), self.line_bytes_max())?;
        match self {
            Self::Plain => Ok((Record::value(line), None)),
            Self::Json => json::parse(&line),
            Self::Keyed([]) => Err(Error::invalid("key separator", "it must not be empty")),
            Self::Keyed(separator) => {
                let at = line.windows(separator.len()).position(|window| window == separator);
                let at = at.ok_or_else(|| {
                    let shown = String::from_utf8_lossy(separator);
                    Error::invalid("line", format!("no key separator {shown:?} in it"))
                })?;
                Ok((Record::keyed(line.slice(..at), line.slice(at + separator.len()..)), None))
            }
        }
    }
}
