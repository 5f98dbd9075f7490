//! Retention by size: the oldest merged records go while what stays is at least as large as the topic keeps (Kafka's rule).
//!
//! A partition's bytes are those of its row groups in the segments that they were merged into; where partitions share a row
//! group, its share by rows. What is not merged yet counts as nothing, and what a rewrite saves is not taken off.
//!
//! Every merged range knows the bytes up to its end (RFC 0003). So the rows that go are read, and one that stays; and none while the
//! view tells that nothing goes.

use futures::FutureExt;

use super::Upkeep;
use super::trim::{Oldest, Trim, Why};
use crate::error::{Error, Result};
use crate::ledger::index::IndexRow;
use crate::ledger::view::{Partition, View};
use crate::plant::{self, Bug};
use crate::record::{Offset, TopicId};
use crate::topic::RETENTION_BYTES;

/// A partition that takes more bytes than it keeps.
struct Oversized {
    id: TopicId,
    topic: String,
    partition: u32,
    log_start: Offset,
    indexed_to: Offset,
    end: Offset,
    bytes_max: u64,
    /// Merged ranges go that end within so many bytes of the partition's first record.
    bytes_over: u64,
    pending: Vec<IndexRow>,
}

impl Upkeep {
    /// What retention by size lets go, as of this view.
    pub(super) async fn overdue_by_size(&self) -> Result<Vec<Trim>> {
        let all = self.ledger.chain.view(oversized)?;
        let shorten = |oversized: Oversized| {
            async move {
                match self.shorten(&oversized).await {
                    Err(error @ Error::Damaged { .. }) => {
                        tracing::warn!(%error, "the partition is not trimmed by its size");
                        Ok(None)
                    }
                    shortened => shortened,
                }
            }
            .boxed()
        };
        let known = self.memory().oldest.clone();
        let is_known = |o: &Oversized| {
            let oldest = known.get(&(o.id, o.partition)).filter(|(log_start, _)| *log_start == o.log_start);
            oldest.is_some_and(|(_, oldest)| oldest.bytes_running > o.bytes_over)
        };
        let all = all.into_iter().filter(|oversized| !is_known(oversized)).collect();
        Ok(self.ask(all, shorten).await?.into_iter().flatten().collect())
    }

    async fn shorten(&self, oversized: &Oversized) -> Result<Option<Trim>> {
        let Oversized { id, partition, log_start, indexed_to, end, bytes_max, bytes_over, .. } = *oversized;
        let stays = |row: &IndexRow| row.range.bytes_running > bytes_over;
        let mut rows = Vec::new();
        if log_start < indexed_to {
            rows = self.rows_from((id, partition), log_start, stays).await?;
            rows.retain(|row| row.range.end <= indexed_to);
        }
        rows.extend(oversized.pending.iter().filter(|row| row.range.end > log_start).cloned());
        if let Some(first) = rows.first() {
            self.memory().oldest.insert((id, partition), (log_start, Oldest::of(&first.range)));
        }
        let goes = rows.iter().take_while(|row| !stays(row)).count();
        let Some(to) = rows[..goes].last().map(|row| row.range.end) else { return Ok(None) };
        let oldest = rows.get(goes).map_or_else(Oldest::default, |row| Oldest::of(&row.range));
        let (topic, why) = (oversized.topic.clone(), Why::Size { bytes_max });
        Ok(Some(Trim { id, topic, partition, from: log_start, to, end, why, oldest }))
    }
}

/// The partitions of which something goes, as far as the view knows. Pure.
fn oversized(view: &View) -> Vec<Oversized> {
    let mut all = Vec::new();
    for (id, topic) in &view.topics {
        let bytes_max = topic.config.get(RETENTION_BYTES).and_then(|value| value.parse::<i64>().ok());
        // −1: all of them.
        let Some(bytes_max) = bytes_max.and_then(|bytes| u64::try_from(bytes).ok()) else { continue };
        for (partition, number) in topic.partitions.iter().zip(0u32..) {
            let Partition { log_start, indexed_to, next, bytes_running, oldest_bytes, .. } = *partition;
            let over = bytes_running.checked_sub(bytes_max).filter(|over| oldest_bytes <= *over);
            let over = over.map(|over| if plant::on(Bug::SizeLimitForgotten) { bytes_running } else { over });
            let Some(bytes_over) = over else { continue };
            let pending = view.pending_rows(*id, number);
            if log_start >= indexed_to && pending.is_empty() {
                continue;
            }
            let topic = topic.name.clone();
            let (id, partition, end) = (*id, number, next);
            let place = Oversized {
                id,
                topic,
                partition,
                log_start,
                indexed_to,
                end,
                bytes_max,
                bytes_over,
                pending,
            };
            all.push(place);
        }
    }
    all
}
