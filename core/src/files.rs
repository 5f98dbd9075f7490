//! The exact list of a topic's merged segments, for engines that read Parquet and know nothing of offsets.
//!
//! ```text
//!   log start        indexed_to        first unmerged       until        high watermark
//!  ──────┼───────────────┼───────────────────┼────────────────┼────────────────┼────▶ offsets of a partition
//!        │ rows, and over│   pending folds   │      rest      │
//!        │ them what is being rewritten      │    (slices)    │
//! ```
//! All of it is what one view says, and the index rows below its `indexed_to`, read after it. A rewrite that the view has
//! pending may have overwritten some of its rows and others not: its segment stands for all of them. A rewrite that came
//! after the view may join what is listed with what is not, so then the list is made again. What a list names is kept for
//! [`READ_LAG_MS`](limits::READ_LAG_MS), whatever happens to it.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;

use futures::{StreamExt, TryStreamExt};

use crate::env::offload;
use crate::error::{Error, Result};
use crate::fetch::{Loader, first_row};
use crate::ledger::action::ObjectRef;
use crate::ledger::chain::Chain;
use crate::ledger::index::{IndexRow, RowPages};
use crate::ledger::view::{Place, Slice, View};
use crate::limits;
use crate::log::Log;
use crate::objects::ObjectName;
use crate::record::{Offset, TopicId};
use crate::segment::Compression;
use crate::segment::merged::{MergedPart, MergedSegment, MergedWriter};
use crate::table::Consistency;

/// Where a list ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AsOf {
    /// At the high watermarks.
    #[default]
    End,
    /// Before the first record of each partition that was appended later than this, µs since 1970.
    Time(i64),
    /// Before an offset of each partition. Of one that is not named there is nothing in the list.
    Offsets(BTreeMap<u32, Offset>),
}

/// Consecutive records of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OffsetRange {
    /// Partition.
    pub partition: u32,
    /// First offset.
    pub base: Offset,
    /// One past the last.
    pub end: Offset,
}

/// A merged segment of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedFile {
    /// Its name.
    pub name: ObjectName,
    /// Its size.
    pub bytes: u64,
    /// It holds, or may hold, more than the ranges: only these of its records are in the list.
    pub straddles: bool,
    /// What is in the list of it, by partition.
    pub ranges: Vec<OffsetRange>,
}

/// Where the records of a topic are, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileList {
    /// Topic.
    pub topic: String,
    /// Its id.
    pub id: TopicId,
    /// Append time of its creation, ms.
    pub created_ms: i64,
    /// What is listed, from log start on: one a partition of the topic, some of them empty.
    pub bounds: Vec<OffsetRange>,
    /// The merged segments that hold some of it, in order of their names.
    pub files: Vec<ListedFile>,
    /// What is not merged yet, by partition.
    pub rest: Vec<OffsetRange>,
}

/// What one view says of a topic.
struct Plan {
    topic: String,
    id: TopicId,
    created_ms: i64,
    generation: u64,
    partitions: Vec<Part>,
}

/// What it says of a partition.
struct Part {
    partition: u32,
    log_start: Offset,
    indexed_to: Offset,
    first_unmerged: Offset,
    next: Offset,
    /// The pending rewrite, if any: at most one a topic.
    rewrites: Vec<IndexRow>,
    folds: Vec<IndexRow>,
    /// Of each unmerged slice its first offset and its append time, ms.
    slices: Vec<(Offset, i64)>,
    /// Where the list ends; `None`: where a time says.
    until: Option<Offset>,
}

/// What is listed of a partition.
struct Listed {
    bounds: OffsetRange,
    rest: Offset,
    rows: Vec<IndexRow>,
    /// Records below the bounds were appended up to this hour, if there are any; …
    before: Option<u32>,
    /// … those behind them, from this hour on.
    after: Option<u32>,
}

impl Log {
    /// Where the records of a topic are as of a fresh read.
    ///
    /// # Errors
    /// `UnknownTopic`, `UnknownPartition`, `OffsetOutOfRange`. `TooLarge`: more ranges than
    /// [`FILE_RANGES_MAX`](limits::FILE_RANGES_MAX). `Unavailable`: it was trimmed or rewritten each time while it was listed.
    /// `Damaged`: an index row or an object is missing.
    pub async fn files(&self, topic: &str, as_of: &AsOf) -> Result<FileList> {
        let chain = &self.ledger().chain;
        let loader = Loader::new(limits::MERGE_CACHE_BYTES);
        let mut last = Error::Unavailable { what: "listing files", cause: String::new() };
        for _ in 0..limits::FILES_ATTEMPTS_MAX {
            let plan = chain.fresh_view(chain.tick(), |view| plan(view, topic, as_of)).await??;
            let listed = match list(chain, &loader, &plan, as_of).await {
                // Trimmed and swept meanwhile, or it is damage, which the next view does not mend.
                Err(Error::Superseded { what }) => {
                    last = Error::damaged(format!("index of {topic}"), what);
                    continue;
                }
                other => other?,
            };
            match chain.fresh_view(chain.tick(), |view| changed(view, &plan)).await? {
                Some(cause) => last = Error::Unavailable { what: "listing files", cause },
                None => return together(plan, listed),
            }
        }
        Err(last)
    }

    /// Writes what is not merged yet of a list as merged segments, sorted by partition and offset, each of about
    /// [`MERGE_RAW_BYTES`](limits::MERGE_RAW_BYTES) before it is compressed. `tell` hears of records read. Answers how many
    /// there were.
    ///
    /// # Errors
    /// `Unavailable`: it was merged meanwhile, so a new list is wanted. `Damaged`. Those of `sink`.
    pub async fn write_rest(
        &self,
        list: &FileList,
        mut tell: impl FnMut(u64),
        mut sink: impl FnMut(MergedSegment) -> Result<()>,
    ) -> Result<u64> {
        let chain = &self.ledger().chain;
        let loader = Loader::new(limits::MERGE_CACHE_BYTES);
        let merged = |error| match error {
            Error::Superseded { what } => {
                Error::Unavailable { what: "reading what is not merged", cause: what }
            }
            other => other,
        };
        let inputs = chain.fresh_view(chain.tick(), |view| inputs(view, list)).await?.map_err(merged)?;
        let (mut parts, mut raw_bytes, mut records) = (BTreeMap::new(), 0, 0);
        for of_slot in inputs.chunk_by(|one, other| one.slice.slot == other.slice.slot) {
            for together in of_slot.chunk_by(|one, other| one.place() == other.place()) {
                for part in read(chain, &loader, list, together).await.map_err(merged)? {
                    raw_bytes += part.rows.raw_bytes();
                    records += part.rows.len() as u64;
                    parts.entry(part.partition).or_insert_with(Vec::new).push(part);
                }
                tell(records);
            }
            // Between two commits, so that what is left of a partition follows what was taken.
            if raw_bytes >= limits::MERGE_RAW_BYTES {
                sink(encode(list, std::mem::take(&mut parts)).await?)?;
                raw_bytes = 0;
            }
        }
        if !parts.is_empty() {
            sink(encode(list, parts).await?)?;
        }
        Ok(records)
    }
}

fn plan(view: &View, topic: &str, as_of: &AsOf) -> Result<Plan> {
    let (id, known) = view.topic_or_unknown(topic)?;
    if let AsOf::Offsets(offsets) = as_of
        && let Some((partition, _)) = offsets.last_key_value()
    {
        view.partition_or_unknown(topic, *partition)?;
    }
    let mut rewrites: BTreeMap<u32, Vec<IndexRow>> = BTreeMap::new();
    let mut folds: BTreeMap<u32, Vec<IndexRow>> = BTreeMap::new();
    for (number, pending) in &view.pending {
        let rows = pending.ranges.iter().filter_map(|range| pending.row(*number, range));
        for row in rows.filter(|row| row.object.topic == id) {
            let into = if pending.rewrite { &mut rewrites } else { &mut folds };
            into.entry(row.range.partition).or_default().push(row);
        }
    }
    let mut part = |(p, partition): (&crate::ledger::view::Partition, u32)| {
        let (log_start, next) = (p.log_start, p.next);
        let until = match as_of {
            AsOf::End => Some(next),
            AsOf::Time(_) => None,
            AsOf::Offsets(offsets) => Some(offsets.get(&partition).copied().unwrap_or(log_start)),
        };
        if let Some(offset) = until.filter(|until| !(log_start..=next).contains(until)) {
            let topic = topic.to_owned();
            return Err(Error::OffsetOutOfRange {
                topic,
                partition,
                offset,
                log_start,
                high_watermark: next,
            });
        }
        Ok(Part {
            partition,
            log_start,
            indexed_to: p.indexed_to,
            first_unmerged: p.first_unmerged(),
            next,
            rewrites: rewrites.remove(&partition).unwrap_or_default(),
            folds: folds.remove(&partition).unwrap_or_default(),
            slices: p.slices.iter().map(|slice| (slice.base, slice.append_ms)).collect(),
            until,
        })
    };
    let partitions = known.partitions.iter().zip(0u32..).map(&mut part).collect::<Result<_>>()?;
    let (created_ms, generation) = (known.created_ms, known.generation);
    Ok(Plan { topic: topic.to_owned(), id, created_ms, generation, partitions })
}

/// What makes a list of rows, read after the plan's view, another than that view's.
fn changed(view: &View, plan: &Plan) -> Option<String> {
    let Some((_, known)) = view.topic(&plan.topic).filter(|(id, _)| *id == plan.id) else {
        return Some("the topic was deleted".to_owned());
    };
    if known.generation != plan.generation {
        return Some("merged segments were rewritten".to_owned());
    }
    let starts = known.partitions.iter().zip(&plan.partitions);
    let moved = starts.filter(|(now, then)| now.log_start != then.log_start).count();
    (moved > 0).then(|| "records were trimmed".to_owned())
}

async fn list(chain: &Chain, loader: &Loader, plan: &Plan, as_of: &AsOf) -> Result<Vec<Listed>> {
    let each = plan.partitions.iter().map(|part| part.list(chain, loader, plan, as_of));
    let mut each = futures::stream::iter(each).buffered(limits::FETCHES_MAX);
    let (mut listed, mut ranges) = (Vec::with_capacity(plan.partitions.len()), 0);
    while let Some(next) = each.try_next().await? {
        ranges += next.rows.len();
        if ranges > limits::FILE_RANGES_MAX {
            let (size, limit) = (ranges as u64, limits::FILE_RANGES_MAX as u64);
            return Err(Error::TooLarge { field: "list of files", size, limit });
        }
        listed.push(next);
    }
    Ok(listed)
}

impl Part {
    async fn list(&self, chain: &Chain, loader: &Loader, plan: &Plan, as_of: &AsOf) -> Result<Listed> {
        let until = match (self.until, as_of) {
            (None, AsOf::Time(time_us)) => self.until_time(chain, loader, plan, *time_us).await?,
            (until, _) => until.unwrap_or(self.next),
        };
        let rows = self.rows(chain, plan, until).await?;
        let before = match self.log_start {
            0 => None,
            start => Some(self.hour_at(chain, plan, start).await?.unwrap_or(u32::MAX)),
        };
        let after = self.hour_at(chain, plan, until).await?;
        let bounds = OffsetRange { partition: self.partition, base: self.log_start, end: until };
        Ok(Listed { bounds, rest: self.first_unmerged.max(self.log_start), rows, before, after })
    }

    /// The first offset that was appended later.
    async fn until_time(&self, chain: &Chain, loader: &Loader, plan: &Plan, time_us: i64) -> Result<Offset> {
        let append_ms = time_us.div_euclid(1_000);
        let is_later = |row: &IndexRow| row.range.append_ms.1 > append_ms;
        let indexed = self.log_start..self.indexed_to;
        let row = match first_row(chain, plan.id, self.partition, indexed, is_later).await? {
            Some(row) => Some(row),
            None => self.folds.iter().find(|row| row.range.end > self.log_start && is_later(row)).cloned(),
        };
        if let Some(row) = row {
            let from = row.range.base.max(self.log_start);
            let found = loader.merged_after(chain, &plan.topic, &row, from, append_ms).await?;
            return Ok(found.unwrap_or(row.range.end));
        }
        let later = self.slices.partition_point(|(_, slice_ms)| *slice_ms <= append_ms);
        let found = self.slices.get(later).map_or(self.next, |(base, _)| *base);
        Ok(found.max(self.log_start))
    }

    /// What holds the merged records up to `until`, in order, each once.
    async fn rows(&self, chain: &Chain, plan: &Plan, until: Offset) -> Result<Vec<IndexRow>> {
        let mut found: Vec<IndexRow> = Vec::new();
        let mut next = self.log_start;
        let indexed_until = until.min(self.indexed_to);
        while next < indexed_until {
            if let Some(row) = self.rewrites.iter().find(|row| row.covers(next)) {
                next = row.range.end;
                found.push(row.clone());
                continue;
            }
            // Up to what is being rewritten, if there is something.
            let rewritten = self.rewrites.iter().map(|row| row.range.base).filter(|base| *base > next).min();
            let to = rewritten.map_or(indexed_until, |base| base.min(indexed_until));
            next = self.indexed(chain, plan, next..to, &mut found).await?;
        }
        found.extend(self.folds.iter().filter(|row| row.range.end > next && row.range.base < until).cloned());
        Ok(found)
    }

    /// The rows that hold the offsets `wanted`; answers where the last one ends.
    async fn indexed(
        &self,
        chain: &Chain,
        plan: &Plan,
        wanted: Range<Offset>,
        found: &mut Vec<IndexRow>,
    ) -> Result<Offset> {
        let gap = |offset| Error::Superseded { what: format!("no index row holds offset {offset}") };
        let mut next = wanted.start;
        let first = chain.row_at(plan.id, self.partition, next, Consistency::Strong).await?;
        let first = first.filter(|row| row.covers(next)).ok_or_else(|| gap(next))?;
        let mut pages = RowPages::new(plan.id, self.partition, first.range.base);
        while let Some(rows) = chain.next_rows(&mut pages).await? {
            for row in rows.into_iter().map(|stored| stored.row) {
                if next >= wanted.end {
                    return Ok(next);
                }
                // After a rewrite several keys say the same of one range.
                if row.range.end <= next {
                    continue;
                }
                if !row.covers(next) {
                    return Err(gap(next));
                }
                next = row.range.end;
                found.push(row);
                if found.len() > limits::FILE_RANGES_MAX {
                    let (size, limit) = (found.len() as u64, limits::FILE_RANGES_MAX as u64);
                    return Err(Error::TooLarge { field: "list of files", size, limit });
                }
            }
        }
        if next < wanted.end { Err(gap(next)) } else { Ok(next) }
    }

    /// The hour in which the record at `offset` was appended; `None`: there is none yet.
    async fn hour_at(&self, chain: &Chain, plan: &Plan, offset: Offset) -> Result<Option<u32>> {
        if offset >= self.next {
            return Ok(None);
        }
        if offset >= self.first_unmerged {
            let after = self.slices.partition_point(|(base, _)| *base <= offset);
            let slice = after.checked_sub(1).and_then(|place| self.slices.get(place));
            let hour = slice.map(|(_, append_ms)| append_ms / limits::HOUR_MS);
            return Ok(Some(hour.and_then(|hour| u32::try_from(hour).ok()).unwrap_or(0)));
        }
        if let Some(row) = self.folds.iter().find(|row| row.covers(offset)) {
            return Ok(Some(row.object.hour));
        }
        let row = chain.row_at(plan.id, self.partition, offset, Consistency::Strong).await?;
        let row = row.filter(|row| row.covers(offset));
        let gap = || Error::Superseded { what: format!("no index row holds offset {offset}") };
        Ok(Some(row.ok_or_else(gap)?.object.hour))
    }
}

/// Segment by segment.
fn together(plan: Plan, listed: Vec<Listed>) -> Result<FileList> {
    let mut files: BTreeMap<ObjectName, ListedFile> = BTreeMap::new();
    let (mut bounds, mut rest) = (Vec::new(), Vec::new());
    for one in &listed {
        let OffsetRange { partition, base, end } = one.bounds;
        bounds.push(one.bounds);
        if one.rest < end {
            rest.push(OffsetRange { partition, base: one.rest, end });
        }
        for row in &one.rows {
            let name = row.object.name(&plan.topic);
            let bytes = row.object.footer.end();
            let file = files.entry(name.clone()).or_insert(ListedFile {
                name,
                bytes,
                straddles: false,
                ranges: Vec::new(),
            });
            let range =
                OffsetRange { partition, base: row.range.base.max(base), end: row.range.end.min(end) };
            file.straddles |= (range.base, range.end) != (row.range.base, row.range.end);
            if file.ranges.last().is_some_and(|last| last.partition == partition) {
                let detail = format!("two index rows of {}/{partition} name it", plan.topic);
                return Err(Error::damaged(file.name.to_string(), detail));
            }
            file.ranges.push(range);
        }
    }
    for file in files.values_mut().filter(|file| !file.straddles) {
        let ObjectName::L1 { hour, .. } = file.name else { continue };
        // What the row of a partition says is all that the file holds of it. Of a partition without a row in the list it may
        // hold what lies before or behind the list, if that was appended in its hour.
        let may_hold = |one: &&Listed| {
            one.before.is_some_and(|before| hour <= before) || one.after.is_some_and(|after| hour >= after)
        };
        let is_listed = |one: &Listed| {
            file.ranges.binary_search_by_key(&one.bounds.partition, |range| range.partition).is_ok()
        };
        file.straddles = listed.iter().filter(may_hold).any(|one| !is_listed(one));
    }
    let Plan { topic, id, created_ms, .. } = plan;
    Ok(FileList { topic, id, created_ms, bounds, files: files.into_values().collect(), rest })
}

/// A slice, and which of its offsets are wanted.
struct Input {
    slice: Slice,
    wanted: OffsetRange,
}

impl Input {
    /// What is read at once.
    fn place(&self) -> (Option<ObjectRef>, u32) {
        match &self.slice.place {
            Place::Object(object, _) => (Some(*object), 0),
            Place::Inline { action, .. } => (None, *action),
        }
    }
}

/// The slices of what is not merged, by commit and place.
fn inputs(view: &View, list: &FileList) -> Result<Vec<Input>> {
    let mut inputs = Vec::new();
    for range in &list.rest {
        let OffsetRange { partition, base, end } = *range;
        let known =
            view.partition(list.id, partition).filter(|p| p.first_unmerged() <= base && p.next >= end);
        let gone = || Error::Superseded { what: format!("{}/{partition} was merged or deleted", list.topic) };
        let slices = known.ok_or_else(gone)?.slices_from(base).take_while(|slice| slice.base < end);
        let input = |slice: &Slice| Input {
            wanted: OffsetRange { partition, base: slice.base.max(base), end: slice.end().min(end) },
            slice: slice.clone(),
        };
        inputs.extend(slices.map(input));
    }
    inputs.sort_by_key(|input| (input.slice.slot, input.place(), input.wanted));
    Ok(inputs)
}

/// The wanted records of slices that lie in one object or inline body, found to be what their commit says.
async fn read(chain: &Chain, loader: &Loader, list: &FileList, inputs: &[Input]) -> Result<Vec<MergedPart>> {
    let slices: Vec<(&str, u32, &Slice)> =
        inputs.iter().map(|input| (list.topic.as_str(), input.wanted.partition, &input.slice)).collect();
    let rows = loader.together(chain, &slices).await?;
    let mut parts = Vec::new();
    for (input, rows) in inputs.iter().zip(rows) {
        let Input { slice, wanted } = input;
        let (id, partition, whole) = (list.id, wanted.partition, rows.clone());
        if offload(move || whole.sum(id, partition, 0, whole.len())).await != slice.sum {
            let what = format!("slice {}..{} of {}/{partition}", slice.base, slice.end(), list.topic);
            return Err(Error::damaged(what, "the records are not those of the commit"));
        }
        parts.push(MergedPart {
            partition,
            base: wanted.base,
            append_ms: slice.append_ms,
            time_type: slice.time_type,
            rows: rows.slice((wanted.base - slice.base) as usize, (wanted.end - wanted.base) as usize),
        });
    }
    Ok(parts)
}

async fn encode(list: &FileList, parts: BTreeMap<u32, Vec<MergedPart>>) -> Result<MergedSegment> {
    let mut writer = MergedWriter::new(&list.topic, list.id, Compression::default(), false)?;
    let encode = move || {
        for mut parts in parts.into_values() {
            // A commit is read in the order of its places.
            parts.sort_by_key(|part| part.base);
            parts.into_iter().try_for_each(|part| writer.push(part))?;
        }
        writer.finish()
    };
    offload(encode).await
}
