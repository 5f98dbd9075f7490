//! Retention by size: the oldest merged records go while what stays is at least as large as the topic keeps (Kafka's rule).
//!
//! A partition's bytes are those of its row groups in merged segments; where partitions share a row group, its share by
//! rows. What is not merged yet counts as nothing, so a partition keeps a little more than it must, never less.

use std::collections::BTreeMap;

use super::Upkeep;
use super::trim::{Trim, Why};
use crate::error::{Error, Result};
use crate::ledger::index::IndexRow;
use crate::ledger::view::{Partition, View};
use crate::record::{Offset, TopicId};
use crate::topic::RETENTION_BYTES;

/// Bytes of a partition in merged segments, by the first offset there.
pub(super) type Sizes = BTreeMap<(TopicId, u32), BTreeMap<Offset, u64>>;

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
    /// What retention by size lets go, as of this view. Asks nothing if nothing was committed since there was nothing.
    pub(super) async fn oversized(&self) -> Result<Vec<Trim>> {
        let chain = &self.ledger.chain;
        let (slot, limited) = chain.view(|view| (view.slot, limited(view)))?;
        if self.memory().sized_slot == Some(slot) {
            return Ok(Vec::new());
        }
        let mut trims = Vec::new();
        let mut sizes = Sizes::new();
        for partition in limited {
            match self.shorten(&partition, &mut sizes).await {
                Ok(trim) => trims.extend(trim),
                Err(error @ (Error::Damaged { .. } | Error::Superseded { .. })) => {
                    tracing::warn!(%error, "the partition is not trimmed by its size");
                }
                Err(error) => return Err(error),
            }
        }
        let mut memory = self.memory();
        memory.sizes = sizes;
        memory.sized_slot = trims.is_empty().then_some(slot);
        Ok(trims)
    }

    async fn shorten(&self, limited: &Limited, sizes: &mut Sizes) -> Result<Option<Trim>> {
        let Limited { id, partition, log_start, indexed_to, bytes_max, .. } = *limited;
        let place = (id, partition);
        let mut rows = Vec::new();
        if log_start < indexed_to {
            let stored = self.rows_from(place, log_start, |_| false).await?;
            rows.extend(
                stored.into_iter().map(|stored| stored.row).filter(|row| row.range.end <= indexed_to),
            );
        }
        rows.extend(limited.pending.iter().cloned());
        let known = self.memory().sizes.remove(&place).unwrap_or_default();
        let mut pieces: Vec<(Offset, u64)> = Vec::new();
        for row in &rows {
            // A rewrite changes little of it.
            let bytes = match known.get(&row.range.base) {
                Some(bytes) => *bytes,
                None => self.loader.merged_bytes(&self.ledger.chain, &limited.topic, row).await?,
            };
            sizes.entry(place).or_default().insert(row.range.base, bytes);
            pieces.push((row.range.end, bytes));
        }
        let to = kept_from(&pieces, bytes_max);
        Ok(to.filter(|to| *to > log_start).map(|to| Trim {
            id,
            topic: limited.topic.clone(),
            partition,
            from: log_start,
            to,
            end: limited.end,
            why: Why::Size { bytes_max },
        }))
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
