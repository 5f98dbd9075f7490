//! Trim: log starts move, by a commit, to the end of a slice whose records are all older than the topic keeps them, or
//! wherever somebody asked. Age is the commit's append time: a record's own timestamp is the client's word.
//!
//! **The brake.** A clock that is far ahead makes everything old. Where more than a quarter of a partition would go at
//! once and the times of its commits, or the clock, leap by more than a day, the trim is *announced* first: stored as
//! an offset of the group [`BRAKE_GROUP`]. An hour later a run goes as far as was announced.

use super::{Upkeep, is_superseded};
use crate::error::Result;
use crate::ledger::action::{Action, GroupOffset, GroupOffsets, TrimTo};
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
    /// All of it was appended before this time, ms.
    pub cutoff_ms: i64,
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
    pub async fn overdue(&self) -> Result<Overdue> {
        let chain = &self.ledger.chain;
        chain.refresh(chain.tick()).await?;
        let now_ms = self.now_ms();
        chain.view(|view| overdue(view, now_ms))
    }

    /// Commits these trims. One that somebody went beyond already, or whose topic is gone, is left out.
    pub async fn trim(&self, trims: &[Trim]) -> Result<()> {
        let to = |trim: &Trim| TrimTo { topic: trim.id, partition: trim.partition, log_start: trim.to };
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
                    Err(error) if is_superseded(&error) => chain.refresh(chain.tick()).await?,
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

/// What retention lets go, as of a view and a time. Pure.
pub(super) fn overdue(view: &View, now_ms: i64) -> Overdue {
    let mut overdue = Overdue::default();
    for (id, topic) in &view.topics {
        let ms = topic.config.get(RETENTION_MS).and_then(|value| value.parse::<i64>().ok());
        let Some(ms) = ms.filter(|ms| *ms >= 0) else { continue };
        let cutoff_ms = now_ms.saturating_sub(ms);
        for (number, partition) in topic.partitions.iter().enumerate() {
            let to = aged(partition, cutoff_ms).filter(|to| *to > partition.log_start);
            let Some(to) = to else { continue };
            let (from, end, number) = (partition.log_start, partition.next, number as u32);
            let trim =
                Trim { id: *id, topic: topic.name.clone(), partition: number, from, to, end, cutoff_ms };
            brake(view, topic, trim, now_ms, &mut overdue);
        }
    }
    overdue
}

/// To the end of the last slice that was appended before `cutoff_ms`.
fn aged(partition: &Partition, cutoff_ms: i64) -> Option<Offset> {
    let is_old = |slice: &&Slice| match plant::on(Bug::RetentionByClientTimestamp) {
        true => slice.time_us.1 < cutoff_ms.saturating_mul(1_000),
        false => slice.append_ms < cutoff_ms,
    };
    partition.slices.iter().take_while(is_old).last().map(Slice::end)
}

/// Sorts a trim in: to be done, or to be held.
fn brake(view: &View, topic: &Topic, trim: Trim, now_ms: i64, overdue: &mut Overdue) {
    let is_large = (trim.to - trim.from).saturating_mul(4) > trim.end - trim.from;
    let partition = &topic.partitions[trim.partition as usize];
    let is_held = is_large && leaps(view, partition, now_ms) && !plant::on(Bug::ClockAheadTrimsAll);
    if !is_held {
        return overdue.trims.push(trim);
    }
    let old_ms = now_ms.saturating_sub(limits::BRAKE_MS);
    match announced(view, trim.id, trim.partition) {
        Some(announced) if announced.offset > trim.from && announced.time_ms <= old_ms => {
            overdue.trims.push(Trim { to: trim.to.min(announced.offset), ..trim });
        }
        _ => overdue.held.push(trim),
    }
}

/// Whether time leaps by more than a day anywhere from the oldest slice to now.
fn leaps(view: &View, partition: &Partition, now_ms: i64) -> bool {
    let times = partition.slices.iter().map(|slice| slice.append_ms).chain([view.time_ms, now_ms]);
    let later = times.clone().skip(1);
    times.zip(later).any(|(before, after)| after.saturating_sub(before) > limits::LEAP_MS)
}
