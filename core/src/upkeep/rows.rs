//! Index rows when nobody needs them: which objects they name (sweep), those below a log start (trim), those of a topic
//! that was deleted (sweep).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use futures::FutureExt;

use super::rewrite::{Hour, Small};
use super::sweep::Sweep;
use super::{Memory, Upkeep};
use crate::error::{Error, Result};
use crate::ledger::action::{L1Object, ObjectRef};
use crate::ledger::index::{IndexRow, RowPages, StoredRow};
use crate::ledger::view::Topic;
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

/// What index rows name, read as somebody asks: of a topic, or of one of its hours.
pub(super) struct Named<'a> {
    upkeep: &'a Upkeep,
    /// Where a sweep looks: whoever asks for all there is reads each topic once.
    among: Sweep,
    /// `None`: some of the rows cannot be read, so nobody knows.
    known: BTreeMap<(TopicId, Option<u32>), Option<BTreeSet<ObjectRef>>>,
}

impl<'a> Named<'a> {
    pub fn new(upkeep: &'a Upkeep, among: Sweep) -> Self {
        Self { upkeep, among, known: BTreeMap::new() }
    }

    /// Whether a row of the hour names the object, or may.
    pub async fn holds(&mut self, (topic, hour): Hour, object: ObjectRef) -> Result<bool> {
        let asked = (topic, (self.among == Sweep::LetGo).then_some(hour));
        if !self.known.contains_key(&asked) {
            let named = match self.upkeep.named_by_rows(asked).await {
                Ok(named) => named,
                Err(error @ Error::Damaged { .. }) => {
                    tracing::warn!(%error, %topic, "nothing of the topic is swept");
                    None
                }
                Err(error) => return Err(error),
            };
            // A listing comes to a topic once.
            if self.among == Sweep::Whole {
                self.known.clear();
            }
            self.known.insert(asked, named);
        }
        Ok(self.known[&asked].as_ref().is_none_or(|named| named.contains(&object)))
    }
}

impl Memory {
    /// A row is deleted that names this.
    fn note_row(&mut self, object: &L1Object) {
        self.clean = None;
        self.note_let_go(object);
    }

    /// No commit or row needs this, as far as this process knows. If one does all the same, a sweep sees it.
    pub(super) fn note_let_go(&mut self, L1Object { object, topic, hour, .. }: &L1Object) {
        if self.let_go.len() < limits::SWEEP_OBJECTS_MAX {
            self.let_go.insert(*object, Some((*topic, *hour)));
        }
    }
}

impl Upkeep {
    /// What the rows of a topic name, or those of one hour. `None`: the topic is gone.
    pub(super) async fn named_by_rows(
        &self,
        (topic, hour): (TopicId, Option<u32>),
    ) -> Result<Option<BTreeSet<ObjectRef>>> {
        let chain = &self.ledger.chain;
        let ends = chain.view(|view| {
            let ends = |topic: &Topic| topic.partitions.iter().map(|p| p.next).collect::<Vec<_>>();
            view.topics.get(&topic).map(ends)
        })?;
        let Some(ends) = ends else { return Ok(None) };
        let (mut named, mut small) = (BTreeSet::new(), Small::default());
        for (end, partition) in ends.into_iter().zip(0u32..) {
            let from = match hour {
                Some(_) if partition > 0 && plant::on(Bug::OnePartitionAsked) => break,
                Some(hour) => self.hour_begins((topic, partition), hour, end).await?,
                None => 0,
            };
            let mut pages = RowPages::new(topic, partition, from);
            'rows: while let Some(rows) = chain.next_rows(&mut pages).await? {
                for StoredRow { row, .. } in rows {
                    match hour {
                        Some(hour) if row.object.hour > hour => break 'rows,
                        Some(hour) if row.object.hour < hour => continue,
                        Some(_) => {}
                        None => small.note(&row.object, &row.range),
                    }
                    named.insert(row.object.object);
                }
            }
        }
        // All rows of a topic are read seldom: see what there is to be rewritten.
        self.memory().note_small(small);
        Ok(Some(named))
    }

    /// A key that no row of this hour, or of a later one, is before. Bisects: hours of rows do not go back, since a row's is that in
    /// which its records were appended, whoever wrote it and when.
    async fn hour_begins(
        &self,
        (topic, partition): (TopicId, u32),
        hour: u32,
        end: Offset,
    ) -> Result<Offset> {
        // All rows before `from` are of earlier hours; the first of the hour is at `to` or before, or the first behind it.
        let (mut from, mut to) = (0, end);
        while from < to {
            let middle = from + (to - from) / 2;
            match self.ledger.chain.row_at(topic, partition, middle, Consistency::Strong).await? {
                Some(row) if row.object.hour >= hour => to = row.range.base.max(from),
                Some(row) => from = row.range.end.max(middle + 1),
                None => from = middle + 1,
            }
        }
        Ok(from.min(to))
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
                    self.memory().note_row(&stored.row.object);
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
