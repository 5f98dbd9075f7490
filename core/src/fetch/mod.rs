//! 5 · Fetch: offset → slices of one view → bytes → verified rows.
//!
//! | file | what it is |
//! |---|---|
//! | `load` | gets a slice's rows: one GET a run, verified before they are parsed, cached |
//! | `merged` | the same for merged segments, found by index rows |
//! | `time` | the first offset at or after a time |
//! | `consumer` | follows partitions: a `Stream` |
//!
//! Fetch never writes and never lists (L6): an object is read because a committed slice, fold or index row names it. One
//! fetch reads from one of the three, as one view says which (R4).

mod consumer;
mod load;
mod merged;
mod time;

use std::sync::Arc;
use std::time::Duration;

pub use consumer::{Consumer, ConsumerSettings, Message, Position};
use load::Asking;
pub(crate) use load::Loader;
pub(crate) use time::first_row;

use crate::batch::Rows;
use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::ledger::action::TimestampType;
use crate::ledger::index::{IndexRow, SharedRow};
use crate::ledger::view::{Partition, Slice, View};
use crate::limits::{self, FETCH_ATTEMPTS_MAX};
use crate::metrics::Metric;
use crate::plant::{self, Bug};
use crate::record::{ConsumerRecord, Offset, TopicId};
use crate::table::Consistency;

/// How much one fetch answers with, and how long it waits for something.
#[derive(Debug, Clone, Copy)]
pub struct FetchLimits {
    /// Bytes of keys, values and headers, unless the first record alone is larger.
    pub bytes_max: usize,
    /// Records.
    pub records_max: usize,
    /// Time to wait at the end of the partition before the answer is empty, ms.
    pub wait_ms: u64,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            bytes_max: limits::FETCH_BYTES_DEFAULT,
            records_max: limits::FETCH_RECORDS_DEFAULT,
            wait_ms: 0,
        }
    }
}

/// The answer of a fetch.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Whose records: the name may be another topic's by now than when the offset was learned.
    pub topic: TopicId,
    /// Runs of consecutive records.
    pub runs: Vec<Run>,
    /// Where to go on.
    pub next: Offset,
    /// First readable offset.
    pub log_start: Offset,
    /// One past the last readable offset.
    pub high_watermark: Offset,
}

impl Fetched {
    /// The records in order.
    pub fn records(&self) -> impl Iterator<Item = ConsumerRecord> {
        self.runs.iter().flat_map(|run| (0..run.rows.len()).map(|i| run.record(i)))
    }
}

/// Consecutive records of one slice.
#[derive(Debug, Clone)]
pub struct Run {
    /// Offset of the first.
    pub base: Offset,
    /// The records.
    pub rows: Rows,
    /// Under `LogAppendTime` the time that all of them have, µs.
    pub append_us: Option<i64>,
}

impl Run {
    /// The `i`-th record. Its bytes are shared, not copied.
    pub fn record(&self, i: usize) -> ConsumerRecord {
        let mut record = self.rows.record(i, self.base + i as u64);
        record.timestamp_us = self.append_us.unwrap_or(record.timestamp_us);
        record
    }
}

/// Reads partitions of one log. Cheap to clone; the clones share the cache.
#[derive(Debug, Clone)]
pub struct Fetcher {
    ledger: Ledger,
    loader: Arc<Loader>,
    /// The partitions that a consumer reads side by side.
    beside: Arc<[u32]>,
}

/// What a fetch is going to read, from one view (R4).
struct Plan {
    topic: TopicId,
    source: Source,
    log_start: Offset,
    high_watermark: Offset,
    /// The view's commit.
    slot: u64,
}

/// Where an offset's record is: in one of these alone.
enum Source {
    /// It is not there yet.
    Nothing,
    /// In unmerged slices.
    Slices(Vec<Slice>),
    /// In a fold whose index rows are not all written.
    Pending(SharedRow),
    /// Where the index says.
    Index(TopicId),
}

impl Plan {
    fn is_empty(&self) -> bool {
        matches!(self.source, Source::Nothing)
    }
}

/// An answer that fills up.
struct Filling {
    fetched: Fetched,
    limits: FetchLimits,
    bytes: usize,
    records: usize,
}

impl Filling {
    fn new(plan: &Plan, offset: Offset, limits: FetchLimits) -> Self {
        let (log_start, high_watermark) = (plan.log_start, plan.high_watermark);
        let (topic, runs) = (plan.topic, Vec::new());
        let fetched = Fetched { topic, runs, next: offset, log_start, high_watermark };
        Self { fetched, limits, bytes: 0, records: 0 }
    }

    /// Takes of `rows` what fits, from row `from` on, which is the next offset. `false`: it is full.
    fn take(&mut self, rows: &Rows, from: usize, append_us: Option<i64>) -> bool {
        let room = self.limits.bytes_max.saturating_sub(self.bytes);
        let fit = rows.fitting(from, self.limits.records_max.saturating_sub(self.records), room);
        // One record at least, or nobody would get on.
        let take = if self.fetched.runs.is_empty() { fit.0.max(1) } else { fit.0 };
        if take == 0 {
            return false;
        }
        self.bytes += if take == fit.0 { fit.1 } else { rows.slice(from, take).raw_bytes() };
        self.records += take;
        let base = self.fetched.next;
        self.fetched.runs.push(Run { base, rows: rows.slice(from, take), append_us });
        self.fetched.next += take as u64;
        let is_cut = from + take < rows.len();
        !is_cut && self.bytes < self.limits.bytes_max && self.records < self.limits.records_max
    }
}

impl Fetcher {
    /// A fetcher with a cache of `cache_bytes`.
    pub fn new(ledger: Ledger, cache_bytes: u64) -> Self {
        Self { ledger, loader: Arc::new(Loader::new(cache_bytes)), beside: Arc::default() }
    }

    /// The same, for a consumer that reads these partitions side by side: one GET brings what all of them want of a segment.
    pub(crate) fn beside(mut self, partitions: &[u32]) -> Self {
        self.beside = partitions.into();
        self
    }

    /// Records of a partition from `offset` on. At the end it waits up to `wait_ms`, and its empty answer rests on a tail
    /// read that is at most a second old (L4). Below the log start or past the end: [`Error::OffsetOutOfRange`].
    pub async fn fetch(
        &self,
        topic: &str,
        partition: u32,
        offset: Offset,
        limits: FetchLimits,
    ) -> Result<Fetched> {
        let chain = &self.ledger.chain;
        let tick = chain.tick();
        let deadline = chain.env.monotonic() + Duration::from_millis(limits.wait_ms);
        let mut plan = match self.plan(topic, partition, offset, limits) {
            Ok(plan) => plan,
            Err(Error::Poisoned { cause }) => return Err(Error::Poisoned { cause }),
            // A "no" must be checked by a read that began after the request came in.
            Err(_) => {
                chain.refresh(tick).await?;
                self.plan(topic, partition, offset, limits)?
            }
        };
        while plan.is_empty() {
            // Looked at after each wait, too: this process may have been stopped in the middle of one.
            let is_old = chain.age() > Duration::from_millis(limits::EMPTY_FETCH_AGE_MS);
            if is_old && !chain.plant_leads() {
                chain.refresh(chain.tick()).await?;
            } else if chain.env.monotonic() < deadline {
                chain.wait_past(plan.slot, deadline).await?;
            } else {
                break;
            }
            plan = self.plan(topic, partition, offset, limits)?;
        }
        // Merged, stripped or trimmed in between: look again with a fresh view. That may be old, too, by the time that it is
        // used, if this process was stopped meanwhile: it is damage if nothing was committed since.
        let gone = |error| match error {
            Error::Superseded { what } => {
                Error::damaged(format!("{topic}/{partition} at offset {offset}"), what)
            }
            other => other,
        };
        let asked = (topic, partition, offset);
        let mut read = self.read(&plan, asked, limits, Consistency::Eventual).await;
        for attempt in 0..FETCH_ATTEMPTS_MAX {
            let Err(Error::Superseded { .. }) = &read else { break };
            let before = plan.slot;
            chain.refresh(chain.tick()).await?;
            plan = self.plan(topic, partition, offset, limits)?;
            if attempt > 0 && plan.slot == before {
                break;
            }
            read = self.read(&plan, asked, limits, Consistency::Strong).await;
        }
        let read = read.map_err(gone);
        match (read, &mut plan.source) {
            // What lies before the damage is unharmed; the fetch that begins with the damaged slice says so.
            (Err(Error::Damaged { .. }), Source::Slices(slices)) if slices.len() > 1 => {
                slices.truncate(1);
                self.read(&plan, asked, limits, Consistency::Strong).await.map_err(gone)
            }
            (read, _) => read,
        }
    }

    fn plan(&self, topic: &str, partition: u32, offset: Offset, limits: FetchLimits) -> Result<Plan> {
        self.ledger.chain.view(|view| plan(view, topic, partition, offset, limits))?
    }

    async fn read(
        &self,
        plan: &Plan,
        (topic, partition, offset): (&str, u32, Offset),
        limits: FetchLimits,
        consistency: Consistency,
    ) -> Result<Fetched> {
        let chain = &self.ledger.chain;
        let mut filling = Filling::new(plan, offset, limits);
        match &plan.source {
            Source::Nothing => {}
            Source::Slices(slices) => self.read_slices(slices, topic, partition, &mut filling).await?,
            Source::Pending(row) => self.read_merged(row, topic, &mut filling).await?,
            Source::Index(id) => {
                let row = self.loader.row(chain, *id, partition, offset, consistency).await?;
                self.read_merged(&row, topic, &mut filling).await?;
            }
        }
        chain.metrics.record(Metric::RecordsFetched, filling.records as u64);
        chain.metrics.record(Metric::BytesFetched, filling.bytes as u64);
        Ok(filling.fetched)
    }

    /// Object by object, so that none is read for an answer that is full already.
    async fn read_slices(
        &self,
        mut rest: &[Slice],
        topic: &str,
        partition: u32,
        filling: &mut Filling,
    ) -> Result<()> {
        while !rest.is_empty() {
            let asking = Asking { topic, partition, beside: &self.beside };
            let loaded = self.loader.rows(&self.ledger.chain, asking, rest).await?;
            let (now, later) = rest.split_at(loaded.len());
            for (slice, rows) in now.iter().zip(loaded) {
                let next = filling.fetched.next;
                let from = next.checked_sub(slice.base).filter(|from| *from < slice.rows);
                let Some(from) = from.map(|from| from as usize) else {
                    let what = format!("{topic}/{partition} at offset {next}");
                    return Err(Error::damaged(what, format!("slice {}..{}", slice.base, slice.end())));
                };
                let append_us = match slice.time_type {
                    TimestampType::CreateTime => None,
                    TimestampType::LogAppendTime => Some(slice.append_ms.saturating_mul(1_000)),
                };
                if !filling.take(&rows, from, append_us) {
                    return Ok(());
                }
            }
            rest = later;
        }
        Ok(())
    }

    async fn read_merged(&self, row: &IndexRow, topic: &str, filling: &mut Filling) -> Result<()> {
        let (from, bytes) = (filling.fetched.next, filling.limits.bytes_max);
        for run in self.loader.merged(&self.ledger.chain, topic, row, from, bytes).await? {
            let append_us = match run.time_type {
                TimestampType::CreateTime => None,
                TimestampType::LogAppendTime => Some(run.append_us),
            };
            if !filling.take(&run.rows, 0, append_us) {
                break;
            }
        }
        Ok(())
    }

    /// Log start and high watermark, from a read that begins now.
    pub async fn watermarks(&self, topic: &str, partition: u32) -> Result<(Offset, Offset)> {
        let chain = &self.ledger.chain;
        let look = |view: &View| {
            let (id, _, p) = view.partition_or_unknown(topic, partition)?;
            // `uploaded` is 0, unless a bug is planted.
            Ok((p.log_start, p.next.max(plant::uploaded(chain.who, id.0, partition))))
        };
        chain.fresh_view(chain.tick(), look).await?
    }
}

fn plan(view: &View, topic: &str, partition: u32, offset: Offset, limits: FetchLimits) -> Result<Plan> {
    let (id, _, found) = view.partition_or_unknown(topic, partition)?;
    let high_watermark = found.next;
    if offset < found.log_start || offset > high_watermark {
        let (topic, log_start) = (topic.to_owned(), found.log_start);
        return Err(Error::OffsetOutOfRange { topic, partition, offset, log_start, high_watermark });
    }
    let source = match offset < found.first_unmerged() {
        true => merged(view, (id, found, partition), offset)?,
        false => unmerged(found, offset, limits),
    };
    Ok(Plan { topic: id, source, log_start: found.log_start, high_watermark, slot: view.slot })
}

/// Where a record is that a fold took from the slices.
fn merged(
    view: &View,
    (id, partition, number): (TopicId, &Partition, u32),
    offset: Offset,
) -> Result<Source> {
    if offset < partition.indexed_to || plant::on(Bug::PendingTakenForIndexed) {
        return Ok(Source::Index(id));
    }
    let rows = view.pending_rows(id, number);
    match rows.into_iter().find(|row| row.covers(offset)) {
        Some(row) => Ok(Source::Pending(Arc::new(row))),
        None => Err(Error::damaged("view", format!("offset {offset} of {id}/{number} is nowhere"))),
    }
}

fn unmerged(partition: &Partition, offset: Offset, limits: FetchLimits) -> Source {
    let mut slices = Vec::new();
    let (mut records, mut bytes) = (0u64, 0usize);
    for slice in partition.slices_from(offset) {
        slices.push(slice.clone());
        records += slice.end() - slice.base.max(offset);
        bytes += slice_bytes(slice);
        if records >= limits.records_max as u64
            || bytes >= limits.bytes_max
            || slices.len() >= limits::SLICES_PER_FETCH
        {
            break;
        }
    }
    if slices.is_empty() { Source::Nothing } else { Source::Slices(slices) }
}

/// About how many bytes a slice brings: its share of its row group.
fn slice_bytes(slice: &Slice) -> usize {
    match &slice.place {
        crate::ledger::view::Place::Inline { length, .. } => *length as usize,
        crate::ledger::view::Place::Object(_, layout) => {
            layout.groups.get(slice.group as usize).map_or(0, |group| group.length as usize)
        }
    }
}
