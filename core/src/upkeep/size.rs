//! Retention by size: the oldest merged records go while what stays is at least as large as the topic keeps (Kafka's rule).
//!
//! A partition's bytes are those of its row groups in merged segments; where partitions share a row group, its share by
//! rows. What is not merged yet counts as nothing, so a partition keeps a little more than it must, never less.
//!
//! All of a partition is measured only where something may have to go. Until then a process adds what came since: where that
//! is enough to tell, as if each file were the partition's own, since an index row tells how large its file is.

use std::collections::{BTreeMap, BTreeSet};

use futures::{FutureExt, StreamExt, TryStreamExt, stream};

use super::Upkeep;
use super::trim::{Trim, Why};
use crate::error::{Error, Result};
use crate::ledger::action::ObjectRef;
use crate::ledger::index::IndexRow;
use crate::ledger::view::{Partition, View};
use crate::limits;
use crate::record::{Offset, TopicId};
use crate::topic::RETENTION_BYTES;

/// What is known of a partition that keeps so many bytes.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// As of this log start and this limit…
    log_start: Offset,
    bytes_max: u64,
    /// … its indexed records up to here…
    to: Offset,
    /// … take about so many bytes, or fewer…
    bytes: u64,
    /// … and nothing goes while all that is merged takes fewer than these.
    enough: u64,
    /// Its bytes in merged segments whose footers were read.
    pub(super) exact: BTreeMap<ObjectRef, u64>,
}

/// A partition that keeps so many bytes.
struct Limited {
    id: TopicId,
    topic: String,
    partition: u32,
    log_start: Offset,
    indexed_to: Offset,
    end: Offset,
    bytes_max: u64,
    pending: Vec<IndexRow>,
}

impl Upkeep {
    /// What retention by size lets go, as of this view.
    pub(super) async fn oversized(&self) -> Result<Vec<Trim>> {
        let limited = self.ledger.chain.view(limited)?;
        let shorten = |limited: Limited| {
            async move {
                match self.shorten(&limited).await {
                    Err(error @ (Error::Damaged { .. } | Error::Superseded { .. })) => {
                        tracing::warn!(%error, "the partition is not trimmed by its size");
                        Ok(None)
                    }
                    shortened => shortened,
                }
            }
            .boxed()
        };
        Ok(self.ask(limited, shorten).await?.into_iter().flatten().collect())
    }

    async fn shorten(&self, limited: &Limited) -> Result<Option<Trim>> {
        let Limited { id, partition, log_start, bytes_max, .. } = *limited;
        let mut known = self.memory().sizes.remove(&(id, partition)).unwrap_or_default();
        let to = self.measured(limited, &mut known).await;
        self.memory().sizes.insert((id, partition), known);
        Ok(to?.filter(|to| *to > log_start).map(|to| Trim {
            id,
            topic: limited.topic.clone(),
            partition,
            from: log_start,
            to,
            end: limited.end,
            why: Why::Size { bytes_max },
            oldest_ms: 0,
        }))
    }

    /// Where the log is to start, if something is to go.
    async fn measured(&self, limited: &Limited, known: &mut Measured) -> Result<Option<Offset>> {
        let Limited { log_start, indexed_to, bytes_max, .. } = *limited;
        let whole = |rows: &[IndexRow]| rows.iter().map(|row| row.object.footer.end()).sum::<u64>();
        let pending = whole(&limited.pending);
        if (known.log_start, known.bytes_max) == (log_start, bytes_max) {
            let came = self.indexed(limited, known.to).await?;
            let mut bytes = whole(&came);
            if known.bytes + bytes + pending >= known.enough {
                let Some(pieces) = self.sizes(&limited.topic, &came, &mut known.exact).await? else {
                    return Ok(None);
                };
                bytes = pieces.iter().map(|(_, bytes)| bytes).sum();
            }
            (known.bytes, known.to) = (known.bytes + bytes, known.to.max(indexed_to));
            if known.bytes + pending < known.enough {
                return Ok(None);
            }
        }
        let mut rows = self.indexed(limited, log_start).await?;
        let bytes = whole(&rows);
        if bytes + pending < bytes_max {
            let exact = std::mem::take(&mut known.exact);
            *known = Measured { log_start, bytes_max, to: indexed_to, bytes, enough: bytes_max, exact };
            return Ok(None);
        }
        rows.extend(limited.pending.iter().cloned());
        let named: BTreeSet<ObjectRef> = rows.iter().map(|row| row.object.object).collect();
        known.exact.retain(|object, _| named.contains(object));
        let Some(pieces) = self.sizes(&limited.topic, &rows, &mut known.exact).await? else {
            return Ok(None);
        };
        let to = kept_from(&pieces, bytes_max);
        let start = to.map_or(log_start, |to| to.max(log_start));
        let left = || pieces.iter().filter(|(end, _)| *end > start);
        let bytes = left().filter(|(end, _)| *end <= indexed_to).map(|(_, bytes)| bytes).sum();
        let enough = bytes_max + left().next().map_or(0, |(_, bytes)| *bytes);
        let exact = std::mem::take(&mut known.exact);
        *known = Measured { log_start: start, bytes_max, to: indexed_to, bytes, enough, exact };
        Ok(to)
    }

    /// Where each of these rows ends and what its records take, from the footers that nobody read yet; `None`: the run was long
    /// enough.
    async fn sizes(
        &self,
        topic: &str,
        rows: &[IndexRow],
        exact: &mut BTreeMap<ObjectRef, u64>,
    ) -> Result<Option<Vec<(Offset, u64)>>> {
        let unknown = rows.iter().filter(|row| !exact.contains_key(&row.object.object));
        let reads: Vec<_> = unknown
            .map(|row| {
                let bytes = self.loader.merged_bytes(&self.ledger.chain, topic, row);
                async move { Ok::<_, Error>((row.object.object, bytes.await?)) }.boxed()
            })
            .collect();
        let mut read = stream::iter(reads).buffered(limits::RETENTION_READS_AT_ONCE);
        while let Some((object, bytes)) = read.try_next().await? {
            exact.insert(object, bytes);
            if self.is_late() {
                return Ok(None);
            }
        }
        let piece = |row: &IndexRow| (row.range.end, exact.get(&row.object.object).copied().unwrap_or(0));
        Ok(Some(rows.iter().map(piece).collect()))
    }

    /// The rows of indexed records from an offset or the log start on.
    async fn indexed(&self, limited: &Limited, from: Offset) -> Result<Vec<IndexRow>> {
        let Limited { id, partition, log_start, indexed_to, .. } = *limited;
        let from = from.max(log_start);
        if from >= indexed_to {
            return Ok(Vec::new());
        }
        let mut rows = self.rows_from((id, partition), from, |_| false).await?;
        rows.retain(|row| row.range.end <= indexed_to);
        Ok(rows)
    }
}

/// Where the log is to start: at the end of the last of the pieces without which the others are still large enough. Pure.
fn kept_from(pieces: &[(Offset, u64)], bytes_max: u64) -> Option<Offset> {
    let mut left: u64 = pieces.iter().map(|(_, bytes)| bytes).sum();
    let goes = |(_, bytes): &&(Offset, u64)| {
        left -= bytes;
        left >= bytes_max
    };
    pieces.iter().take_while(goes).last().map(|(end, _)| *end)
}

fn limited(view: &View) -> Vec<Limited> {
    let mut all = Vec::new();
    for (id, topic) in &view.topics {
        let bytes_max = topic.config.get(RETENTION_BYTES).and_then(|value| value.parse::<i64>().ok());
        // −1: all of them.
        let Some(bytes_max) = bytes_max.and_then(|bytes| u64::try_from(bytes).ok()) else { continue };
        for (partition, number) in topic.partitions.iter().zip(0u32..) {
            let Partition { log_start, indexed_to, next, .. } = *partition;
            let pending = view.pending_rows(*id, number);
            if log_start >= indexed_to && pending.is_empty() {
                continue;
            }
            let topic = topic.name.clone();
            let (id, partition, end) = (*id, number, next);
            all.push(Limited { id, topic, partition, log_start, indexed_to, end, bytes_max, pending });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_never_less_than_the_limit() {
        let pieces = [(10, 100), (20, 50), (30, 100)];
        assert_eq!(kept_from(&pieces, 250), None);
        assert_eq!(kept_from(&pieces, 151), None);
        assert_eq!(kept_from(&pieces, 150), Some(10));
        assert_eq!(kept_from(&pieces, 101), Some(10));
        assert_eq!(kept_from(&pieces, 100), Some(20));
        assert_eq!(kept_from(&pieces, 0), Some(30));
        assert_eq!(kept_from(&[], 0), None);
    }
}
