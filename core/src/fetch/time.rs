//! The first offset at or after a time: bisects on the running maximum of timestamps, in the index and in the view, then
//! looks into the first slice or merged segment that holds such a time.

use std::ops::Range;

use super::Fetcher;
use super::load::Asking;
use crate::batch::Rows;
use crate::error::{Error, Result};
use crate::ledger::action::TimestampType;
use crate::ledger::chain::Chain;
use crate::ledger::index::IndexRow;
use crate::ledger::view::{Slice, View};
use crate::record::{Offset, TopicId};
use crate::table::Consistency;

/// Where the first record at or after a time may be.
enum Late {
    /// In the index, between these offsets.
    Indexed { id: TopicId, from: Offset, to: Offset },
    /// From an offset on, in a fold whose rows are not all written.
    Pending(Offset, IndexRow),
    /// From an offset on, in an unmerged slice.
    Slice(Offset, Slice),
}

impl Fetcher {
    /// The first offset whose timestamp is at or after `time_us`; `None`: there is none yet. Bisects on the running
    /// maximum of timestamps, then looks into the first slice that holds such a time.
    pub async fn offset_at(&self, topic: &str, partition: u32, time_us: i64) -> Result<Option<Offset>> {
        match self.look_up(topic, partition, time_us).await {
            // Stripped, trimmed or swept in between: look again, once, with a fresh view.
            Err(Error::Superseded { .. }) => match self.look_up(topic, partition, time_us).await {
                Err(Error::Superseded { what }) => {
                    Err(Error::damaged(format!("{topic}/{partition} at time {time_us}"), what))
                }
                other => other,
            },
            other => other,
        }
    }

    async fn look_up(&self, topic: &str, partition: u32, time_us: i64) -> Result<Option<Offset>> {
        let chain = &self.ledger.chain;
        let mut from = 0;
        loop {
            let late =
                chain.fresh_view(chain.tick(), |view| late(view, topic, partition, from, time_us)).await??;
            let (found, after) = match late {
                None => return Ok(None),
                Some(Late::Indexed { id, from: first, to }) => {
                    let is_late = |row: &IndexRow| row.range.time_us_max >= time_us;
                    match first_row(chain, id, partition, first..to, is_late).await? {
                        Some(row) => (self.in_row(topic, &row, first, time_us).await?, row.range.end),
                        None => (None, to),
                    }
                }
                Some(Late::Pending(at, row)) => (self.in_row(topic, &row, at, time_us).await?, row.range.end),
                Some(Late::Slice(at, slice)) => {
                    (self.in_slice(topic, partition, &slice, at, time_us).await?, slice.end())
                }
            };
            if found.is_some() {
                return Ok(found);
            }
            // The log starts behind the last late record of what was looked into.
            from = after;
        }
    }

    async fn in_row(
        &self,
        topic: &str,
        row: &IndexRow,
        from: Offset,
        time_us: i64,
    ) -> Result<Option<Offset>> {
        let from = from.max(row.range.base);
        self.loader.merged_at(&self.ledger.chain, topic, row, from, time_us).await
    }

    async fn in_slice(
        &self,
        topic: &str,
        partition: u32,
        slice: &Slice,
        at: Offset,
        time_us: i64,
    ) -> Result<Option<Offset>> {
        if slice.time_type == TimestampType::LogAppendTime {
            return Ok(Some(at));
        }
        let asking = Asking { topic, partition, beside: &[] };
        let rows = self.loader.rows(&self.ledger.chain, asking, std::slice::from_ref(slice)).await?;
        let mut left = (at - slice.base) as usize..slice.rows as usize;
        let late = |rows: &Rows| left.find(|i| rows.timestamp_us(*i) >= time_us);
        Ok(rows.first().and_then(late).map(|row| slice.base + row as u64))
    }
}

/// The first index row of the offsets `range` that `is_late`, as all after it are.
pub(crate) async fn first_row(
    chain: &Chain,
    id: TopicId,
    partition: u32,
    mut range: Range<Offset>,
    is_late: impl Fn(&IndexRow) -> bool,
) -> Result<Option<IndexRow>> {
    let mut found = None;
    while range.start < range.end {
        let middle = range.start.midpoint(range.end);
        let row = chain.row_at(id, partition, middle, Consistency::Strong).await?;
        let row = row.filter(|row| row.covers(middle));
        let row =
            row.ok_or_else(|| Error::Superseded { what: format!("no index row holds offset {middle}") })?;
        if is_late(&row) {
            range.end = row.range.base;
            found = Some(row);
        } else {
            range.start = row.range.end;
        }
    }
    Ok(found)
}

/// Where to look next, from offset `from` on.
fn late(view: &View, topic: &str, partition: u32, from: Offset, time_us: i64) -> Result<Option<Late>> {
    let (id, _, p) = view.partition_or_unknown(topic, partition)?;
    let from = p.log_start.max(from);
    if from < p.indexed_to {
        return Ok(Some(Late::Indexed { id, from, to: p.indexed_to }));
    }
    let pending = view.pending_rows(id, partition).into_iter();
    let mut pending = pending.filter(|row| row.range.end > from && row.range.time_us_max >= time_us);
    if let Some(row) = pending.next() {
        return Ok(Some(Late::Pending(from.max(row.range.base), row)));
    }
    // The running maximum counts what was trimmed, and every slice before: the slice's own decides.
    let first = p.slices.partition_point(|s| s.time_us_running < time_us || s.end() <= from);
    let late = p.slices.range(first..).find(|slice| time_us_max(slice) >= time_us);
    Ok(late.map(|slice| Late::Slice(from.max(slice.base), slice.clone())))
}

/// The largest timestamp that a slice's records are read with, µs.
fn time_us_max(slice: &Slice) -> i64 {
    match slice.time_type {
        TimestampType::CreateTime => slice.time_us.1,
        TimestampType::LogAppendTime => slice.append_ms.saturating_mul(1_000),
    }
}
