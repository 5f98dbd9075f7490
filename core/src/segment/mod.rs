//! 3 · The segment (L0): the rows of one flush as an immutable Parquet file, all topics and partitions mixed (L9).
//!
//! ```text
//! byte 0        4                                            footer.position                        end of file
//!      │ "PAR1" │ row group 0 │ row group 1 │ … │ row group n-1 │ footer metadata │ its length u32 LE │ "PAR1" │
//!               └── groups[0] ┴── groups[1] ┴─ …┴── groups[n-1] ┴────────────────── footer ─────────────────┘
//! ```
//! The spans lie end to end from byte 4 to the end of the file; each carries the CRC-32C of exactly its bytes, in the
//! commit that names the segment. The leading magic belongs to no span: no reader looks at it.
//!
//! Rows are sorted by (topic, partition), arrival order within. There is no offset column, because offsets come into
//! being after the upload: `offset = slice.base + (row - slice.first_row)`. Pure: same input, same bytes.
//!
//! | file | |
//! |---|---|
//! | `schema` | the columns and how each is encoded |
//! | `writer` | slices → row groups → bytes and [`Layout`] |
//! | `runs` | the columns that say the same row after row |
//! | `plain`, `file` | values as pages while they arrive; pages → column chunks → the file and its footer |
//! | `reader` | verified bytes → [`Footer`] → [`Group`] → rows |
//! | `pages` | bounds what a row group may decode to, before it is decoded |
//! | `inline` | the other home of rows: small batches inside a commit |
//! | `merged` | what merge makes of many: one topic, sorted, with offsets (L1) |

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;

use bytes::Bytes;
use crc_fast::CrcAlgorithm;

use crate::error::{Error, Result};
use crate::limits;
use crate::plant::{self, Bug};

mod file;
pub mod inline;
pub mod merged;
mod pages;
pub(crate) mod plain;
mod reader;
mod runs;
pub mod schema;
#[cfg(test)]
mod tests;
mod writer;

pub use reader::{Footer, Group, decode_group};
pub use writer::{Encoded, Place, SegmentSlice, encode};

/// How the pages of a segment are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4 (Parquet's `LZ4_RAW`).
    Lz4,
    /// Snappy.
    Snappy,
    /// Zstandard, level 1.
    #[default]
    Zstd,
}

impl Compression {
    /// Every codec, in the order of the variants.
    pub const ALL: [Self; 4] = [Self::None, Self::Lz4, Self::Snappy, Self::Zstd];

    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Snappy => "snappy",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Compression {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|c| c.name() == name);
        found.ok_or_else(|| {
            Error::invalid("compression", format!("{name:?} is not one of none, lz4, snappy, zstd"))
        })
    }
}

/// A run of a segment's bytes, and the CRC-32C of exactly them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// Of its first byte in the file.
    pub position: u32,
    /// In bytes.
    pub length: u32,
    /// CRC-32C (Castagnoli).
    pub crc: u32,
}

impl Span {
    /// The span from `position` up to `end` of `file`.
    fn of(file: &[u8], position: usize, end: usize) -> Result<Self> {
        Error::check_size("segment", file.len(), limits::SEGMENT_BYTES_MAX)?;
        let bytes =
            file.get(position..end).ok_or_else(|| Error::damaged("segment", "a span outside the file"))?;
        // Fits: SEGMENT_BYTES_MAX is below 4 GiB.
        Ok(Self { position: position as u32, length: bytes.len() as u32, crc: crc32c(bytes) })
    }

    /// One past its last byte.
    pub fn end(&self) -> u64 {
        u64::from(self.position) + u64::from(self.length)
    }

    /// Its bytes, cut from the whole file without a copy. Not verified yet.
    pub fn cut(&self, file: &Bytes) -> Result<Bytes> {
        if self.end() > file.len() as u64 {
            let detail = format!("{} bytes long, a span ends at {}", file.len(), self.end());
            return Err(Error::damaged("segment", detail));
        }
        Ok(file.slice(self.position as usize..self.end() as usize))
    }

    /// Refuses bytes that are not this span's: length first, then CRC.
    fn verify(&self, what: &str, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 != u64::from(self.length) {
            return Err(Error::damaged(what, format!("{} bytes long, must be {}", bytes.len(), self.length)));
        }
        let crc = crc32c(bytes);
        if crc != self.crc && !plant::on(Bug::ChecksumsIgnored) {
            return Err(Error::damaged(what, format!("CRC-32C {crc:08x}, must be {:08x}", self.crc)));
        }
        Ok(())
    }
}

/// CRC-32C (Castagnoli; CRC-32/ISCSI in the catalogue of CRCs).
fn crc32c(bytes: &[u8]) -> u32 {
    // The algorithm has 32 bits, its type is that of all of them.
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Where the parts of a segment lie. Stored in the commit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Layout {
    /// The row groups, in order.
    pub groups: Vec<Span>,
    /// Parquet's footer metadata, its length and the trailing magic: all that follows the last group.
    pub footer: Span,
}

impl Layout {
    /// Refuses a layout that is not end to end as drawn above, or beyond a limit.
    pub fn check(&self) -> Result<()> {
        let damaged = |detail: String| Err(Error::damaged("segment layout", detail));
        if self.groups.is_empty() || self.groups.len() > limits::ROW_GROUPS_MAX {
            return damaged(format!("{} row groups, limit {}", self.groups.len(), limits::ROW_GROUPS_MAX));
        }
        let mut next = schema::MAGIC.len() as u64;
        for span in self.groups.iter().chain([&self.footer]) {
            if u64::from(span.position) != next || span.length == 0 {
                return damaged(format!(
                    "a span of {} bytes at {}, expected at {next}",
                    span.length, span.position
                ));
            }
            next = span.end();
        }
        if next > limits::SEGMENT_BYTES_MAX as u64 {
            return damaged(format!("{next} bytes in all, limit {}", limits::SEGMENT_BYTES_MAX));
        }
        let footer_max = limits::FOOTER_BYTES_MAX + self.groups.len() * limits::FOOTER_BYTES_PER_GROUP_MAX;
        if self.footer.length as usize > footer_max {
            return damaged(format!("a footer of {} bytes, limit {footer_max}", self.footer.length));
        }
        Ok(())
    }

    /// Length of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.footer.end()
    }
}

/// Runs a piece of Parquet decoding. Its bytes have passed their CRC, so it should never fail; should the decoder
/// panic on them all the same, only this segment is damaged, not the process.
fn guarded<T>(what: &str, decode: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(Error::damaged(what, format!("the Parquet decoder panicked: {text}")))
    })
}
