//! 5 · Fetch: offset → slices of one view → bytes → verified rows.
//!
//! | file | what it is |
//! |---|---|
//! | `load` | gets a slice's rows: one GET a run, verified before they are parsed, cached |
//! | `consumer` | follows partitions: a `Stream` |
//!
//! Fetch never writes and never lists (L6): an object is read because a committed slice names it.

mod consumer;
mod load;

use std::sync::Arc;
use std::time::Duration;

pub use consumer::{Consumer, ConsumerSettings, Message, Position};
use load::{Asking, Loader};

use crate::batch::Rows;
use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::ledger::action::TimestampType;
use crate::ledger::view::{Slice, View};
use crate::limits;
use crate::metrics::Metric;
use crate::plant;
use crate::record::{ConsumerRecord, Offset};

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

/// What a fetch is going to read: slices of one view (R4).
struct Plan {
    slices: Vec<Slice>,
    log_start: Offset,
    high_watermark: Offset,
    /// The view's commit.
    slot: u64,
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
        while plan.slices.is_empty() {
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
        // Merged, stripped or trimmed in between: look again, once, with a fresh view.
        let gone = |error| match error {
            Error::Superseded { what } => {
                Error::damaged(format!("{topic}/{partition} at offset {offset}"), what)
            }
            other => other,
        };
        let mut read = self.read(&plan, topic, partition, offset, limits).await;
        if let Err(Error::Superseded { .. }) = read {
            chain.refresh(chain.tick()).await?;
            plan = self.plan(topic, partition, offset, limits)?;
            read = self.read(&plan, topic, partition, offset, limits).await.map_err(gone);
        }
        match read {
            // What lies before the damage is unharmed; the fetch that begins with the damaged slice says so.
            Err(Error::Damaged { .. }) if plan.slices.len() > 1 => {
                plan.slices.truncate(1);
                self.read(&plan, topic, partition, offset, limits).await.map_err(gone)
            }
            other => other,
        }
    }

    fn plan(&self, topic: &str, partition: u32, offset: Offset, limits: FetchLimits) -> Result<Plan> {
        self.ledger.chain.view(|view| plan(view, topic, partition, offset, limits))?
    }

    async fn read(
        &self,
        plan: &Plan,
        topic: &str,
        partition: u32,
        offset: Offset,
        limits: FetchLimits,
    ) -> Result<Fetched> {
        let mut fetched = Fetched {
            runs: Vec::new(),
            next: offset,
            log_start: plan.log_start,
            high_watermark: plan.high_watermark,
        };
        let (mut bytes, mut records) = (0, 0);
        let mut rest = &plan.slices[..];
        // Object by object, so that none is read for an answer that is full already.
        'full: while !rest.is_empty() {
            let asking = Asking { topic, partition, beside: &self.beside };
            let loaded = self.loader.rows(&self.ledger.chain, asking, rest).await?;
            let (now, later) = rest.split_at(loaded.len());
            for (slice, rows) in now.iter().zip(loaded) {
                let from = fetched.next.checked_sub(slice.base).filter(|from| *from < slice.rows);
                let Some(from) = from.map(|from| from as usize) else {
                    let what = format!("{topic}/{partition} at offset {}", fetched.next);
                    return Err(Error::damaged(what, format!("slice {}..{}", slice.base, slice.end())));
                };
                let room = limits.bytes_max.saturating_sub(bytes);
                let fit = rows.fitting(from, limits.records_max.saturating_sub(records), room);
                // One record at least, or nobody would get on.
                let take = if fetched.runs.is_empty() { fit.0.max(1) } else { fit.0 };
                if take == 0 {
                    break 'full;
                }
                bytes += if take == fit.0 { fit.1 } else { rows.slice(from, take).raw_bytes() };
                records += take;
                let append_us = match slice.time_type {
                    TimestampType::CreateTime => None,
                    TimestampType::LogAppendTime => Some(slice.append_ms.saturating_mul(1_000)),
                };
                fetched.runs.push(Run { base: fetched.next, rows: rows.slice(from, take), append_us });
                fetched.next += take as u64;
                let is_cut = from + take < rows.len();
                if is_cut || bytes >= limits.bytes_max || records >= limits.records_max {
                    break 'full;
                }
            }
            rest = later;
        }
        self.ledger.chain.metrics.record(Metric::RecordsFetched, records as u64);
        self.ledger.chain.metrics.record(Metric::BytesFetched, bytes as u64);
        Ok(fetched)
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
            let found = chain
                .fresh_view(chain.tick(), |view| {
                    let (_, _, p) = view.partition_or_unknown(topic, partition)?;
                    let from = p.log_start.max(from);
                    // The running maximum counts what was trimmed, and every slice before: the slice's own decides.
                    let first = p.slices.partition_point(|s| s.time_us_running < time_us || s.end() <= from);
                    let late = p.slices.range(first..).find(|slice| time_us_max(slice) >= time_us);
                    Ok::<_, Error>(late.cloned().map(|slice| (from.max(slice.base), slice)))
                })
                .await??;
            let Some((at, slice)) = found else { return Ok(None) };
            if slice.time_type == TimestampType::LogAppendTime {
                return Ok(Some(at));
            }
            let asking = Asking { topic, partition, beside: &[] };
            let rows = self.loader.rows(chain, asking, std::slice::from_ref(&slice)).await?;
            let left = (at - slice.base) as usize..slice.rows as usize;
            let late = |rows: &Rows| left.clone().find(|i| rows.timestamp_us(*i) >= time_us);
            if let Some(row) = rows.first().and_then(late) {
                return Ok(Some(slice.base + row as u64));
            }
            // The log starts inside this slice, after its last late record.
            from = slice.end();
        }
    }
}

/// The largest timestamp that a slice's records are read with, µs.
fn time_us_max(slice: &Slice) -> i64 {
    match slice.time_type {
        TimestampType::CreateTime => slice.time_us.1,
        TimestampType::LogAppendTime => slice.append_ms.saturating_mul(1_000),
    }
}

fn plan(view: &View, topic: &str, partition: u32, offset: Offset, limits: FetchLimits) -> Result<Plan> {
    let (_, _, found) = view.partition_or_unknown(topic, partition)?;
    let high_watermark = found.next;
    if offset < found.log_start || offset > high_watermark {
        let (topic, log_start) = (topic.to_owned(), found.log_start);
        return Err(Error::OffsetOutOfRange { topic, partition, offset, log_start, high_watermark });
    }
    if offset < found.first_unmerged() {
        return Err(Error::Newer {
            what: format!("offset {offset} of {topic}/{partition} lies in a merged segment"),
        });
    }
    let mut slices = Vec::new();
    let (mut records, mut bytes) = (0u64, 0usize);
    for slice in found.slices_from(offset) {
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
    Ok(Plan { slices, log_start: found.log_start, high_watermark, slot: view.slot })
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
