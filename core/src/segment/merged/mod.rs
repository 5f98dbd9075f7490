//! The merged segment (L1): the rows of one topic and ingest hour as a Parquet file that any engine reads, sorted by
//! (partition, offset), with the absolute offset (L9).
//!
//! ```text
//! byte 0    4                                              footer.position                            end of file
//!      │ "PAR1" │ row group 0 │ … │ row group n-1 │ page index · bloom filters · footer metadata · length · "PAR1" │
//!               └── groups[0] ┴─ …┴── groups[n-1] ┴────────────────────── footer ────────────────────────────────┘
//! ```
//! The footer's span and CRC-32C are in the fold that names the file, and in its index rows. Those of the row groups are in
//! the footer, under the key `tidelog` of its key-value metadata, as JSON:
//!
//! ```json
//! {"version": 1, "topic": "<id>", "groups": [[position, length, crc, rows], …],
//!  "ranges": [[partition, base, end, first group, groups], …]}
//! ```
//! A partition of at least [`ROW_GROUP_OWN_BYTES`](crate::limits::ROW_GROUP_OWN_BYTES) has row groups of its own, of about
//! [`MERGED_GROUP_RAW_BYTES`](crate::limits::MERGED_GROUP_RAW_BYTES) each; smaller neighbours share one. Pure: same input,
//! same bytes.
//!
//! `timestamp` is what the producer said. Where `timestamp_type` is 1 (LogAppendTime), a record's time is `append_time`.

mod reader;
mod same;
pub mod schema;
#[cfg(test)]
mod tests;
mod writer;

use serde::{Deserialize, Serialize};

pub(crate) use reader::check_span;
pub use reader::{MergedFooter, MergedGroup, MergedRun, ranges_of};
pub use writer::{MergedPart, MergedRange, MergedSegment, MergedWriter};

/// The key of our own metadata in the footer.
const METADATA_KEY: &str = "tidelog";

/// Our own metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Metadata {
    version: u32,
    topic: String,
    groups: Vec<(u32, u32, u32, u64)>,
    ranges: Vec<(u32, u64, u64, u32, u32)>,
}
