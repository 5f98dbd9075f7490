//! Index rows when nobody needs them: which objects they name (sweep), those below a log start (trim), those of a topic
//! that was deleted (sweep).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use futures::FutureExt;

use super::Upkeep;
use crate::error::{Error, Result};
use crate::ledger::action::ObjectRef;
use crate::ledger::index::{IndexRow, RowPages};
use crate::limits;
use crate::metrics::Metric;
use crate::objects::ObjectName;
use crate::plant::{self, Bug};
use crate::record::{Offset, TopicId};
use crate::segment::merged::{MergedRange, ranges_of};
use crate::table::Consistency;

/// What is known of the rows at the front of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Front {
    /// As of this log start…
    pub log_start: Offset,
    /// … no row below it is left to be deleted before this time, ms; `i64::MAX`: none is left.
    pub due_ms: i64,
}

/// What the rows of topics name, read as somebody asks.
pub(super) struct Named<'a> {
    upkeep: &'a Upkeep,
    /// `None`: some rows of the topic cannot be read, so nobody knows.
    topics: BTreeMap<TopicId, Option<BTreeSet<ObjectRef>>>,
}

impl<'a> Named<'a> {
    pub fn new(upkeep: &'a Upkeep) -> Self {
        Self { upkeep, topics: BTreeMap::new() }
    }

    /// Whether a row of the topic names the object, or may.
    pub async fn holds(&mut self, topic: TopicId, partitions: u32, object: ObjectRef) -> Result<bool> {
        if !self.topics.contains_key(&topic) {
            let named = match self.upkeep.named_by_rows(topic, partitions).await {
                Ok(named) => Some(named),
                Err(error @ Error::Damaged { .. }) => {
                    tracing::warn!(%error, %topic, "nothing of the topic is swept");
                    None
                }
                Err(error) => return Err(error),
            };
            self.topics.insert(topic, named);
        }
        Ok(self.topics[&topic].as_ref().is_none_or(|named| named.contains(&object)))
    }
}

impl Upkeep {
    async fn named_by_rows(&self, topic: TopicId, partitions: u32) -> Result<BTreeSet<ObjectRef>> {
        let chain = &self.ledger.chain;
        let (mut named, mut all) = (BTreeSet::new(), Vec::new());
        for partition in 0..partitions {
            let mut pages = RowPages::new(topic, partition, 0);
            while let Some(rows) = chain.next_rows(&mut pages).await? {
                named.extend(rows.iter().map(|stored| stored.row.object.object));
                all.extend(rows.into_iter().map(|stored| (stored.row.object, stored.row.range)));
            }
        }
        // All rows of a topic are read seldom: see what there is to be rewritten.
        self.memory().note_rows(&all);
        Ok(named)
    }

    /// Deletes the rows whose records are all below their log start: it notes when it first saw that, and keeps them for
    /// [`read_lag_ms`](super::UpkeepSettings::read_lag_ms), since what a row names is not swept, and readers may hold an older
    /// view. Answers how many were deleted.
    ///
    /// # Errors
    /// Those of the ledger.
    pub async fn trim_rows(&self) -> Result<u64> {
        let chain = &self.ledger.chain;
        // Its own clock or the newest commit's time, whichever is ahead: kept too long rather than too short.
        let (now_ms, mut starts) = chain.view(|view| {
            self.memory().keep(view);
            let mut starts = Vec::new();
            for (id, topic) in &view.topics {
                let partitions = topic.partitions.iter().zip(0u32..).filter(|(p, _)| p.log_start > 0);
                starts.extend(partitions.map(|(p, number)| ((*id, number), p.log_start)));
            }
            (self.now_ms().max(view.time_ms), starts)
        })?;
        starts.retain(|(place, log_start)| {
            let is_done = |front: &Front| front.log_start == *log_start && now_ms < front.due_ms;
            !self.memory().fronts.get(place).is_some_and(is_done)
        });
        let trim = |(place, log_start)| {
            async move {
                let (count, due_ms) = self.trim_front(place, log_start, now_ms).await?;
                self.memory().fronts.insert(place, Front { log_start, due_ms });
                Ok(count)
            }
            .boxed()
        };
        let deleted = self.ask(starts, trim).await?.into_iter().sum();
        if deleted > 0 {
            chain.metrics.record(Metric::RowsTrimmed, deleted);
        }
        Ok(deleted)
    }

    /// Of one partition: how many went, and when the next may go.
    async fn trim_front(
        &self,
        (topic, partition): (TopicId, u32),
        log_start: Offset,
        now_ms: i64,
    ) -> Result<(u64, i64)> {
        let chain = &self.ledger.chain;
        let lag_ms = i64::try_from(self.settings.read_lag_ms).unwrap_or(i64::MAX);
        let (mut deleted, mut due_ms) = (0, i64::MAX);
        let mut pages = RowPages::new(topic, partition, 0);
        'rows: while let Some(rows) = chain.next_rows(&mut pages).await? {
            for stored in rows {
                let is_kept = match plant::on(Bug::StraddlingRowDeleted) {
                    true => stored.row.range.base >= log_start,
                    false => stored.row.range.end > log_start,
                };
                if is_kept {
                    break 'rows;
                }
                let since_ms = match stored.trimmed_ms {
                    0 => now_ms,
                    since_ms => since_ms,
                };
                if now_ms.saturating_sub(since_ms) >= lag_ms {
                    // What it names may be dead then, though nothing was committed.
                    self.memory().clean = None;
                    deleted += u64::from(chain.delete_row(&stored).await?);
                    continue;
                }
                if stored.trimmed_ms == 0 {
                    chain.mark_row(&stored, now_ms.max(1)).await?;
                }
                due_ms = due_ms.min(since_ms.saturating_add(lag_ms));
            }
        }
        Ok((deleted, due_ms))
    }

    /// Deletes the rows of a topic that was deleted, as far as one of its merged segments says where they are. Before the
    /// segment itself goes: else nobody would know of them any more.
    pub(super) async fn drop_rows(&self, name: &ObjectName, bytes: u64) -> Result<()> {
        let ObjectName::L1 { id, .. } = name else { return Ok(()) };
        let ranges = match self.ranges_in(name, bytes).await {
            Ok(Some((topic, ranges))) if topic == *id => ranges,
            Ok(_) => return Ok(()),
            Err(error @ (Error::Damaged { .. } | Error::TooLarge { .. })) => {
                tracing::warn!(%error, "index rows of a deleted topic may be left behind");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for range in ranges {
            let mut pages = RowPages::new(*id, range.partition, range.base);
            'rows: while let Some(rows) = self.ledger.chain.next_rows(&mut pages).await? {
                for stored in rows {
                    if stored.sk >= range.end {
                        break 'rows;
                    }
                    self.ledger.chain.delete_row(&stored).await?;
                }
            }
        }
        Ok(())
    }

    /// Bytes that no CRC is known of, as two reads in a row found them: a bit that flips on the way is not in the file.
    async fn agreed(&self, name: &ObjectName, range: Range<u64>) -> Result<Option<Bytes>> {
        let objects = &self.ledger.chain.objects;
        let mut before = None;
        for _ in 0..limits::AGREED_READS_MAX {
            let Some(read) = objects.get_range(name, range.clone()).await? else { return Ok(None) };
            if before.as_ref() == Some(&read) {
                return Ok(before);
            }
            before = Some(read);
        }
        Err(Error::Unavailable {
            what: "reading a merged segment",
            cause: "no two reads say the same".into(),
        })
    }

    /// Whose records a merged segment says it holds, by the end of the file alone.
    async fn ranges_in(&self, name: &ObjectName, bytes: u64) -> Result<Option<(TopicId, Vec<MergedRange>)>> {
        let mut length = limits::MERGED_TAIL_BYTES.min(bytes);
        loop {
            if length == 0 {
                return Err(Error::damaged(name.to_string(), "is empty"));
            }
            let Some(tail) = self.agreed(name, bytes - length..bytes).await? else { return Ok(None) };
            match ranges_of(&tail)? {
                Ok(found) => return Ok(Some(found)),
                // The footer is longer.
                Err(wanted) if wanted > length && wanted <= bytes => length = wanted,
                Err(wanted) => {
                    let detail = format!("a footer of {wanted} bytes in a file of {bytes}");
                    return Err(Error::damaged(name.to_string(), detail));
                }
            }
        }
    }

    /// The rows that hold records from the log start on, up to the first that `is_enough`.
    pub(super) async fn rows_from(
        &self,
        (topic, partition): (TopicId, u32),
        log_start: Offset,
        is_enough: impl Fn(&IndexRow) -> bool,
    ) -> Result<Vec<IndexRow>> {
        let chain = &self.ledger.chain;
        let first = chain.row_at(topic, partition, log_start, Consistency::Strong).await?;
        if let Some(row) = first.as_ref().filter(|row| row.covers(log_start) && is_enough(row)) {
            return Ok(vec![row.clone()]);
        }
        let from = first.map_or(log_start, |row| row.range.base.min(log_start));
        let (mut found, mut next_offset) = (Vec::new(), log_start);
        let mut pages = RowPages::new(topic, partition, from);
        while let Some(rows) = chain.next_rows(&mut pages).await? {
            for row in rows.into_iter().map(|stored| stored.row).filter(|row| row.range.end > log_start) {
                // After a rewrite several keys say the same of one range.
                if row.range.end <= next_offset && !found.is_empty() {
                    continue;
                }
                next_offset = row.range.end;
                let enough = is_enough(&row);
                found.push(row);
                if enough {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }
}
