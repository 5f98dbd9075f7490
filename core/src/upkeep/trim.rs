//! Trim: log starts move, by a commit, to the end of a slice or merged range whose records are all older than the topic keeps them, or
//! wherever somebody asked. Age is the commit's append time: a record's own timestamp is the client's word.
//!
//! **The brake.** A clock that is far ahead makes everything old. Where more than a quarter of a partition would go at
//! once and the times of its commits, or the clock, leap by more than a day, the trim is *announced* first: stored as
//! an offset of the group [`BRAKE_GROUP`]. An hour later a run goes as far as was announced.

use std::collections::BTreeMap;
use std::ops::Range;

use futures::FutureExt;

use super::{Upkeep, is_superseded};
use crate::error::{Error, Result};
use crate::ledger::action::{Action, GroupOffset, GroupOffsets, L1Range, TrimTo};
use crate::ledger::index::IndexRow;
use crate::ledger::view::{Partition, Slice, Stored, Topic, View};
use crate::limits;
use crate::metrics::Metric;
use crate::plant::{self, Bug};
use crate::record::{Offset, TopicId};
use crate::topic::RETENTION_MS;

/// The group under which trims are announced that the brake holds.
pub const BRAKE_GROUP: &str = "__tidelog_retention";

/// A move of a log start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trim {
    /// Topic id.
    pub id: TopicId,
    /// Topic name.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// The log start before.
    pub from: Offset,
    /// The log start after.
    pub to: Offset,
    /// One past the last offset of the partition.
    pub end: Offset,
    /// Why it goes.
    pub why: Why,
    /// What is then oldest.
    pub(super) oldest: Oldest,
}

/// What retention asks of the first slice or merged range of a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Oldest {
    /// When the last of it was appended, ms; 0: nobody looked.
    pub append_ms: i64,
    /// Bytes of merged records up to its end; 0: it is not merged, or nobody looked.
    pub bytes_running: u64,
}

impl Oldest {
    pub fn of(range: &L1Range) -> Self {
        Self { append_ms: range.append_ms.1, bytes_running: range.bytes_running }
    }
}

/// Why records go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// All of them were appended before this time (`retention.ms`).
    Age {
        /// The time, ms.
        cutoff_ms: i64,
    },
    /// What is left is as large as the topic keeps (`retention.bytes`).
    Size {
        /// The limit of a partition.
        bytes_max: u64,
    },
}

/// What retention lets go now, and what it would.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overdue {
    /// To be committed.
    pub trims: Vec<Trim>,
    /// Held by the brake until an hour after they were announced.
    pub held: Vec<Trim>,
}

impl Upkeep {
    /// What the topics' retention lets go, as of a fresh read. Changes nothing.
    ///
    /// # Errors
    /// Those of the ledger. An index row that is damaged holds up its own partition alone.
    pub async fn overdue(&self) -> Result<Overdue> {
        self.refresh().await?;
        self.overdue_in_view().await
    }

    pub(super) async fn overdue_in_view(&self) -> Result<Overdue> {
        let chain = &self.ledger.chain;
        let now_ms = self.now_ms();
        let known = self.memory().oldest.clone();
        let asked = chain.view(|view| {
            let merged = kept_for(view, now_ms).filter(|kept| {
                let Partition { log_start, indexed_to, .. } = kept.partition;
                // Nothing is old where the first merged records are not.
                let oldest = known.get(&kept.place).filter(|(start, _)| start == log_start);
                let oldest_ms =
                    oldest.map_or(0, |(_, oldest)| oldest.append_ms).max(kept.partition.oldest_ms);
                log_start < indexed_to && oldest_ms < kept.cutoff_ms
            });
            let asked = merged.map(|kept| {
                let Partition { log_start, next, .. } = *kept.partition;
                (kept.place, log_start..next, kept.cutoff_ms)
            });
            asked.collect::<Vec<_>>()
        })?;
        let merged = self.ask(asked, |(place, offsets, cutoff_ms)| {
            self.merged_until_young(place, offsets, cutoff_ms).map(move |found| Ok((place, found?))).boxed()
        });
        let merged = merged.await?.into_iter().filter_map(|(place, ranges)| Some((place, ranges?))).collect();
        let mut overdue = chain.view(|view| overdue(view, now_ms, &merged))?;
        for trim in self.overdue_by_size().await? {
            let same = |other: &&mut Trim| (other.id, other.partition) == (trim.id, trim.partition);
            match overdue.trims.iter_mut().find(same) {
                Some(by_age) if by_age.to >= trim.to => {}
                Some(by_age) => *by_age = trim,
                None => overdue.trims.push(trim),
            }
        }
        Ok(overdue)
    }

    /// The merged ranges of a partition up to the first that is young enough to stay; all of them where so much goes that the
    /// brake wants to know of leaps anywhere. `None`: they cannot be read.
    async fn merged_until_young(
        &self,
        place: (TopicId, u32),
        Range { start: log_start, end }: Range<Offset>,
        cutoff_ms: i64,
    ) -> Result<Option<Vec<L1Range>>> {
        let is_young = |row: &IndexRow| row.range.append_ms.1 >= cutoff_ms;
        let read = async {
            let rows = self.rows_from(place, log_start, is_young).await?;
            let to = rows.iter().rfind(|row| !is_young(row)).map_or(log_start, |row| row.range.end);
            match is_large(log_start..to, end) {
                true => self.rows_from(place, log_start, |_| false).await,
                false => Ok(rows),
            }
        };
        let rows = match read.await {
            Ok(rows) => rows,
            Err(error @ Error::Damaged { .. }) => {
                tracing::warn!(%error, "nothing of the partition is trimmed");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if let Some(first) = rows.first() {
            self.memory().oldest.insert(place, (log_start, Oldest::of(&first.range)));
        }
        Ok(Some(rows.into_iter().map(|row| row.range).collect()))
    }

    /// Commits these trims. One that somebody went beyond already, or whose topic is gone, is left out.
    pub async fn trim(&self, trims: &[Trim]) -> Result<()> {
        let to = |trim: &Trim| {
            let Trim { id: topic, partition, to: log_start, oldest, .. } = *trim;
            let Oldest { append_ms: oldest_ms, bytes_running: oldest_bytes } = oldest;
            TrimTo { topic, partition, log_start, oldest_ms, oldest_bytes }
        };
        self.move_starts(&trims.iter().map(to).collect::<Vec<_>>()).await
    }

    pub(crate) async fn move_starts(&self, trims: &[TrimTo]) -> Result<()> {
        let chain = &self.ledger.chain;
        for trims in trims.chunks(limits::TRIMS_PER_COMMIT) {
            loop {
                let mut records = 0;
                let left: Vec<TrimTo> = chain.view(|view| {
                    let start = |trim: &TrimTo| Some(view.partition(trim.topic, trim.partition)?.log_start);
                    let open = |trim: &&TrimTo| start(trim).is_some_and(|start| start < trim.log_start);
                    let left = trims.iter().filter(open);
                    left.inspect(|trim| records += trim.log_start - start(trim).unwrap_or(trim.log_start))
                        .copied()
                        .collect()
                })?;
                if left.is_empty() {
                    break;
                }
                match self.ledger.act(Action::Trim(left)).await {
                    Ok(_) => {
                        chain.metrics.record(Metric::RecordsTrimmed, records);
                        break;
                    }
                    Err(error) if is_superseded(&error) => self.refresh().await?,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Announces what the brake holds, unless it is announced already.
    pub(super) async fn announce(&self, held: &[Trim]) -> Result<()> {
        let chain = &self.ledger.chain;
        let new: Vec<GroupOffset> = chain.view(|view| {
            let known =
                |trim: &&Trim| announced(view, trim.id, trim.partition).is_none_or(|a| a.offset <= trim.from);
            let offset = |trim: &Trim| GroupOffset {
                topic: trim.id,
                partition: trim.partition,
                offset: Some(trim.to),
                leader_epoch: -1,
                metadata: String::new(),
            };
            held.iter().filter(known).map(offset).collect()
        })?;
        for offsets in new.chunks(limits::GROUP_OFFSETS_PER_COMMIT_MAX) {
            let (group, member) = (BRAKE_GROUP.to_owned(), String::new());
            let announced = GroupOffsets { group, member, generation: -1, offsets: offsets.to_vec() };
            match self.ledger.act(Action::Offsets(announced)).await {
                Ok(_) => {}
                // The next run will.
                Err(error) if is_superseded(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn announced(view: &View, id: TopicId, partition: u32) -> Option<&Stored> {
    view.groups.get(BRAKE_GROUP)?.offsets.get(&(id, partition))
}

/// A partition that keeps its records for a limited time.
struct Kept<'a> {
    place: (TopicId, u32),
    topic: &'a Topic,
    partition: &'a Partition,
    /// What was appended before goes, ms.
    cutoff_ms: i64,
}

fn kept_for(view: &View, now_ms: i64) -> impl Iterator<Item = Kept<'_>> {
    let limited = view.topics.iter().filter_map(move |(id, topic)| {
        let ms = topic.config.get(RETENTION_MS)?.parse::<i64>().ok().filter(|ms| *ms >= 0)?;
        Some((*id, topic, now_ms.saturating_sub(ms)))
    });
    limited.flat_map(|(id, topic, cutoff_ms)| {
        let partitions = topic.partitions.iter().zip(0u32..);
        partitions.map(move |(partition, number)| Kept { place: (id, number), topic, partition, cutoff_ms })
    })
}

/// Records of a partition that go at once, or stay.
#[derive(Debug, Clone, Copy)]
struct Piece {
    end: Offset,
    /// When the first and the last of them were appended, ms.
    append_ms: (i64, i64),
    /// The latest of their own timestamps, µs.
    time_us_max: i64,
    oldest: Oldest,
}

impl Piece {
    fn of_range(range: &L1Range) -> Self {
        let L1Range { end, append_ms, time_us_max, .. } = *range;
        Self { end, append_ms, time_us_max, oldest: Oldest::of(range) }
    }

    fn of_slice(slice: &Slice) -> Self {
        let append_ms = (slice.append_ms, slice.append_ms);
        let oldest = Oldest { append_ms: slice.append_ms, bytes_running: 0 };
        Self { end: slice.end(), append_ms, time_us_max: slice.time_us.1, oldest }
    }
}

/// All of a partition from its log start on: merged and indexed, pending, not merged. `None`: nobody read its rows.
fn pieces(
    view: &View,
    kept: &Kept<'_>,
    merged: &BTreeMap<(TopicId, u32), Vec<L1Range>>,
) -> Option<Vec<Piece>> {
    let Partition { log_start, indexed_to, slices, .. } = kept.partition;
    let mut pieces = Vec::new();
    if log_start < indexed_to {
        pieces.extend(merged.get(&kept.place)?.iter().map(Piece::of_range));
    }
    let pending = view.pending_rows(kept.place.0, kept.place.1);
    pieces.extend(pending.iter().map(|row| Piece::of_range(&row.range)));
    pieces.extend(slices.iter().map(Piece::of_slice));
    pieces.retain(|piece| piece.end > *log_start);
    Some(pieces)
}

/// What retention lets go, as of a view, a time, and the index rows of those partitions where some may be old. Pure.
pub(super) fn overdue(view: &View, now_ms: i64, merged: &BTreeMap<(TopicId, u32), Vec<L1Range>>) -> Overdue {
    let mut overdue = Overdue::default();
    for kept in kept_for(view, now_ms) {
        let Some(pieces) = pieces(view, &kept, merged) else { continue };
        let Kept { place: (id, partition), topic, cutoff_ms, .. } = kept;
        let is_old = |piece: &&Piece| match plant::on(Bug::RetentionByClientTimestamp) {
            true => piece.time_us_max < cutoff_ms.saturating_mul(1_000),
            false => piece.append_ms.1 < cutoff_ms,
        };
        let Some(last) = pieces.iter().take_while(is_old).last() else { continue };
        let (from, to, end) = (kept.partition.log_start, last.end, kept.partition.next);
        let why = Why::Age { cutoff_ms };
        let trim =
            Trim { id, topic: topic.name.clone(), partition, from, to, end, why, oldest: Oldest::default() };
        brake(view, &pieces, trim, now_ms, &mut overdue);
    }
    overdue
}

/// Whether what goes is more than a quarter of what there is.
fn is_large(goes: Range<Offset>, end: Offset) -> bool {
    (goes.end - goes.start).saturating_mul(4) > end - goes.start
}

/// The trim, with what it leaves.
fn leaving(trim: Trim, pieces: &[Piece]) -> Trim {
    let oldest = pieces.iter().find(|piece| piece.end > trim.to);
    Trim { oldest: oldest.map_or_else(Oldest::default, |piece| piece.oldest), ..trim }
}

/// Sorts a trim in: to be done, or to be held.
fn brake(view: &View, pieces: &[Piece], trim: Trim, now_ms: i64, overdue: &mut Overdue) {
    let is_held = is_large(trim.from..trim.to, trim.end)
        && leaps(view, pieces, now_ms)
        && !plant::on(Bug::ClockAheadTrimsAll);
    if !is_held {
        return overdue.trims.push(leaving(trim, pieces));
    }
    let old_ms = now_ms.saturating_sub(limits::BRAKE_MS);
    match announced(view, trim.id, trim.partition) {
        Some(announced) if announced.offset > trim.from && announced.time_ms <= old_ms => {
            let to = trim.to.min(announced.offset);
            overdue.trims.push(leaving(Trim { to, ..trim }, pieces));
        }
        _ => overdue.held.push(trim),
    }
}

/// Whether time leaps by more than a day anywhere from the oldest records to now.
fn leaps(view: &View, pieces: &[Piece], now_ms: i64) -> bool {
    let times = pieces.iter().flat_map(|piece| [piece.append_ms.0, piece.append_ms.1]);
    let times = times.chain([view.time_ms, now_ms]);
    let later = times.clone().skip(1);
    times.zip(later).any(|(before, after)| after.saturating_sub(before) > limits::LEAP_MS)
}
