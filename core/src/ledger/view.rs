//! The view: everything that the ledger says, as of one commit.
//!
//! ```text
//!   log start        indexed_to        first unmerged        next = high watermark
//!  ──────┼───────────────┼───────────────────┼────────────────────┼──────▶ offsets of a partition
//!        │  index rows   │   pending folds   │  unmerged slices   │
//! ```
//! Reads from one view never join two of these sources (R4): an offset lies in exactly one of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::action::*;
use super::index::IndexRow;
use crate::error::{Error, Result};
use crate::limits;
use crate::record::{Offset, RecordSum, TopicId};
use crate::segment::Layout;

/// State as of commit `slot`. A pure function of the commits up to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// The newest commit applied; 0: none.
    pub slot: u64,
    /// Its id.
    pub id: u128,
    /// Its time, ms.
    pub time_ms: i64,
    /// The newest `Store`; `None` only at slot 0.
    pub store: Option<Store>,
    /// The newest `Level`.
    pub level: u32,
    /// The newest checkpoint named…
    pub checkpoint: Option<Checkpoint>,
    /// … and the one before it: strip goes no further than this.
    pub checkpoint_before: Option<Checkpoint>,
    /// Names drawn before this commit are refused.
    pub floor: u64,
    /// The directory.
    pub topics: BTreeMap<TopicId, Topic>,
    /// Topic ids by name.
    pub names: BTreeMap<String, TopicId>,
    /// L0 objects that still have an unmerged slice.
    pub objects: BTreeMap<ObjectRef, Segment>,
    /// Processes that lead at least one partition.
    pub leaders: BTreeMap<u64, Leader>,
    /// Consumer groups.
    pub groups: BTreeMap<String, Group>,
    /// Folds and rewrites whose index rows are not all known to be written, by commit number.
    pub pending: BTreeMap<u64, Pending>,
    /// Objects that nothing reads any more, in the order in which they died.
    pub dead: Vec<Dead>,
}

/// An L0 segment that is still needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its row groups and footer.
    pub layout: Arc<Layout>,
    /// Unmerged slices in it.
    pub slices: u32,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Append time of its creation, ms.
    pub created_ms: i64,
    /// Number of its newest rewrite; 0: none.
    pub generation: u64,
    /// Configuration.
    pub config: BTreeMap<String, String>,
    /// Its partitions, by number.
    pub partitions: Vec<Partition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Partition {
    /// First readable offset.
    pub log_start: Offset,
    /// The next offset to be given: the high watermark.
    pub next: Offset,
    /// Below it, offsets are found by index rows.
    pub indexed_to: Offset,
    /// When the last of the first slice or merged range from the log start on was appended, or before, ms: nothing goes by its age
    /// until that is old. 0: nobody knows.
    pub oldest_ms: i64,
    /// Bytes that its records took when they were merged: [`bytes_running`](L1Range::bytes_running) of its last merged range.
    pub bytes_running: u64,
    /// The same of its first merged range from the log start on, or less: nothing goes by its size while fewer bytes than are kept
    /// came after that.
    pub oldest_bytes: u64,
    /// Who leads, if anybody.
    pub leader: Option<u64>,
    /// The last leader epochs and the offsets that they began at.
    pub epochs: VecDeque<(u32, Offset)>,
    /// Unmerged slices: dense, ascending, ending at `next`.
    pub slices: VecDeque<Slice>,
    /// Largest timestamp before the first unmerged slice, µs.
    pub time_us_before: i64,
    /// What is known of producers.
    pub producers: BTreeMap<ProducerKey, Producer>,
}

/// An unmerged slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// First offset.
    pub base: Offset,
    /// Records.
    pub rows: u64,
    /// The commit that placed it.
    pub slot: u64,
    /// That commit's time, ms.
    pub append_ms: i64,
    /// Where its rows are.
    pub place: Place,
    /// Row group.
    pub group: u32,
    /// First row in the segment or inline body.
    pub first_row: u64,
    /// Smallest and largest stored timestamp, µs.
    pub time_us: (i64, i64),
    /// Largest timestamp of the partition up to and with this slice, µs.
    pub time_us_running: i64,
    /// Whose time it is read as.
    pub time_type: TimestampType,
    /// Record sum.
    pub sum: RecordSum,
}

/// Where the rows of an unmerged slice are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In an L0 segment.
    Object(ObjectRef, Arc<Layout>),
    /// In its commit: index of the action, and bytes of the inline body.
    Inline {
        /// Which action of the commit.
        action: u32,
        /// Bytes of its body.
        length: u32,
    },
}

impl Slice {
    /// One past its last offset.
    pub fn end(&self) -> Offset {
        self.base + self.rows
    }
}

/// A producer as one partition knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// Current epoch.
    pub epoch: u16,
    /// Its newest batches, oldest first: at most [`limits::PRODUCER_WINDOW`].
    pub window: VecDeque<Window>,
}

/// One batch of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First sequence.
    pub first: u64,
    /// Last sequence.
    pub last: u64,
    /// Offset of the first record.
    pub base: Offset,
    /// Append time, ms.
    pub append_ms: i64,
}

impl Producer {
    /// Accounts for a batch.
    pub fn push(this: Option<Self>, epoch: u16, batch: Window) -> Self {
        let mut next = match this {
            Some(known) if known.epoch == epoch => known,
            _ => Self { epoch, window: VecDeque::with_capacity(1) },
        };
        next.window.push_back(batch);
        let window =
            if crate::plant::on(crate::plant::Bug::DedupeWindowOfOne) { 1 } else { limits::PRODUCER_WINDOW };
        while next.window.len() > window {
            next.window.pop_front();
        }
        next
    }

    /// Append time of its newest batch, ms.
    pub fn last_ms(&self) -> i64 {
        self.window.back().map_or(i64::MIN, |w| w.append_ms)
    }
}

/// A process that leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Where it answers; empty: nowhere.
    pub address: String,
    /// Its newest commit.
    pub slot: u64,
    /// Partitions that it leads; never 0.
    pub partitions: u32,
}

/// A consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group {
    /// Commit time of its newest change, ms.
    pub last_ms: i64,
    /// Generation given with it; −1: none.
    pub generation: i32,
    /// Stored offsets.
    pub offsets: BTreeMap<(TopicId, u32), Stored>,
}

/// A stored group offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Next offset to read.
    pub offset: Offset,
    /// Leader epoch of the last record read; −1: unknown.
    pub leader_epoch: i32,
    /// The consumer's own words.
    pub metadata: String,
    /// Commit time, ms.
    pub time_ms: i64,
}

/// A fold or rewrite whose index rows are being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// It replaces rows below `indexed_to`.
    pub rewrite: bool,
    /// Objects.
    pub objects: Vec<L1Object>,
    /// Ranges.
    pub ranges: Vec<L1Range>,
}

impl Pending {
    /// One of its ranges as the index row that it will be.
    pub fn row(&self, number: u64, range: &L1Range) -> Option<IndexRow> {
        let object = self.objects.get(range.object as usize)?.clone();
        Some(IndexRow { number, object, range: L1Range { object: 0, ..*range } })
    }
}

/// An object that nothing reads any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dead {
    /// Its name…
    pub object: ObjectRef,
    /// … with topic and hour if it is an L1 object.
    pub l1: Option<(TopicId, u32)>,
    /// The commit that let it go.
    pub slot: u64,
    /// That commit's time, ms.
    pub time_ms: i64,
}

impl View {
    /// No commit was applied.
    pub fn is_empty(&self) -> bool {
        self.slot == 0
    }

    /// A topic by name.
    pub fn topic(&self, name: &str) -> Option<(TopicId, &Topic)> {
        let id = *self.names.get(name)?;
        Some((id, self.topics.get(&id)?))
    }

    /// A topic by name, or the error that a caller should see.
    pub fn topic_or_unknown(&self, name: &str) -> Result<(TopicId, &Topic)> {
        self.topic(name).ok_or_else(|| Error::UnknownTopic { topic: name.into() })
    }

    /// A partition by topic id.
    pub fn partition(&self, topic: TopicId, partition: u32) -> Option<&Partition> {
        self.topics.get(&topic)?.partitions.get(partition as usize)
    }

    pub(super) fn partition_mut(&mut self, topic: TopicId, partition: u32) -> Option<&mut Partition> {
        self.topics.get_mut(&topic)?.partitions.get_mut(partition as usize)
    }

    /// A partition by topic name, or the error that a caller should see.
    pub fn partition_or_unknown(&self, name: &str, partition: u32) -> Result<(TopicId, &Topic, &Partition)> {
        let (id, topic) = self.topic_or_unknown(name)?;
        let found = topic.partitions.get(partition as usize).ok_or_else(|| Error::UnknownPartition {
            topic: name.into(),
            partition,
            partitions: topic.partitions.len() as u32,
        })?;
        Ok((id, topic, found))
    }

    /// What folds took from a partition's slices whose index rows are not all written, as the rows that will be; in order.
    pub fn pending_rows(&self, topic: TopicId, partition: u32) -> Vec<IndexRow> {
        let folds = self.pending.iter().filter(|(_, pending)| !pending.rewrite);
        let rows = folds.flat_map(|(number, pending)| {
            pending.ranges.iter().filter_map(|range| pending.row(*number, range))
        });
        rows.filter(|row| (row.object.topic, row.range.partition) == (topic, partition)).collect()
    }

    /// Unmerged slices in the whole view.
    pub fn slices(&self) -> impl Iterator<Item = (TopicId, u32, &Slice)> {
        self.topics.iter().flat_map(|(id, topic)| {
            topic
                .partitions
                .iter()
                .enumerate()
                .flat_map(move |(p, partition)| partition.slices.iter().map(move |s| (*id, p as u32, s)))
        })
    }
}

impl Partition {
    /// First offset that is neither indexed nor pending.
    pub fn first_unmerged(&self) -> Offset {
        self.slices.front().map_or(self.next, |s| s.base)
    }

    /// The unmerged slice that holds `offset`, and those after it.
    pub fn slices_from(&self, offset: Offset) -> impl Iterator<Item = &Slice> {
        let first = self.slices.partition_point(|s| s.end() <= offset);
        self.slices.range(first..)
    }

    /// Largest timestamp up to the newest slice, µs.
    pub fn time_us_running(&self) -> i64 {
        self.slices.back().map_or(self.time_us_before, |s| s.time_us_running)
    }

    /// The current leader epoch; −1: nobody ever led.
    pub fn leader_epoch(&self) -> i64 {
        self.epochs.back().map_or(-1, |(epoch, _)| i64::from(*epoch))
    }
}

/// The process that made a commit: the upper half of its id.
pub fn author(id: u128) -> u64 {
    (id >> 64) as u64
}
