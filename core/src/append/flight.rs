//! A flight: the records that travel together, from the first `send` to the ack. Open, it grows; sealed, it becomes
//! one segment (or one inline body) and one proposal.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

use crate::batch::RowsBuilder;
use crate::error::{Error, Result};
use crate::ledger::action::{Identity, IdentityKind, ProducerKey, TimestampType};
use crate::ledger::commit::BatchResult;
use crate::limits;
use crate::record::{Header, Offset, TopicId};
use crate::segment::Compression;

/// What a producer needs to know of a topic, as of some commit.
#[derive(Debug)]
pub(super) struct TopicInfo {
    pub id: TopicId,
    pub name: Arc<str>,
    pub partitions: u32,
    pub record_bytes_max: usize,
    pub inline_bytes_max: usize,
    pub compression: Compression,
    pub time_type: TimestampType,
    /// Partitions that this process leads: unkeyed records go there first.
    pub led: Vec<u32>,
}

/// Who sent a record, if it is to be deduplicated: its place in the producer's own sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// The producer.
    pub key: ProducerKey,
    /// Its epoch.
    pub epoch: u16,
    /// The record's sequence.
    pub sequence: u64,
}

/// Consecutive rows of one producer in a chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub rows: u32,
    pub identity: Option<Identity>,
    /// A client's own batch: nothing is added to it, so that a retry of it is recognised.
    pub closed: bool,
}

/// The records of one partition.
#[derive(Debug)]
pub(super) struct Chunk {
    pub topic: Arc<TopicInfo>,
    pub partition: u32,
    pub rows: RowsBuilder,
    pub marks: Vec<Mark>,
}

impl Chunk {
    #[inline]
    fn mark(&mut self, tag: Option<Tag>) {
        let identity = tag.map(|tag| Identity {
            key: tag.key,
            epoch: tag.epoch,
            first_sequence: tag.sequence,
            last_sequence: tag.sequence,
        });
        let last = self.marks.last_mut().filter(|last| !last.closed && last.rows < u32::MAX);
        if let Some(last) = last
            && continues(last.identity.as_mut(), tag)
        {
            last.rows += 1;
            return;
        }
        self.marks.push(Mark { rows: 1, identity, closed: false });
    }
}

/// Lengthens the identity of a batch by one more record, if it may.
fn continues(last: Option<&mut Identity>, tag: Option<Tag>) -> bool {
    match (last, tag) {
        (None, None) => true,
        (Some(last), Some(tag)) if (last.key, last.epoch) == (tag.key, tag.epoch) => {
            let follows = match tag.key.kind {
                IdentityKind::Dense => tag.sequence == last.last_sequence + 1,
                IdentityKind::Monotone => tag.sequence > last.last_sequence,
                IdentityKind::Once => false,
            };
            if follows {
                last.last_sequence = tag.sequence;
            }
            follows
        }
        _ => false,
    }
}

/// A flight that still takes records.
#[derive(Debug)]
pub(super) struct Open {
    /// Given when it is sealed.
    pub number: u64,
    pub chunks: Vec<Chunk>,
    index: BTreeMap<(TopicId, u32), usize>,
    /// Id and codec of its topics.
    names: BTreeMap<Arc<str>, (TopicId, Compression)>,
    /// The chunk that took the newest record, and most often takes the next.
    newest: usize,
    pub raw_bytes: usize,
    pub rows: usize,
    /// When its first record came.
    pub since: Duration,
    pub compression: Compression,
    room: Option<Room>,
    expected: Option<Expected>,
    pub flight: Arc<Flight>,
}

/// What the flight before held, rows and their bytes: the next will be like it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// The partition with the most.
    most: (TopicId, u32),
    of_most: (usize, usize),
    /// Of the mean partition, and some more.
    of_others: (usize, usize),
    partitions: usize,
}

impl Expected {
    fn rows(&self, topic: TopicId, partition: u32) -> RowsBuilder {
        let is_most = self.most == (topic, partition);
        let (rows, bytes) = if is_most { self.of_most } else { self.of_others };
        RowsBuilder::with_capacity(rows, bytes)
    }
}

/// Bytes of the buffer that are given back when this is dropped.
///
/// One a flight: a permit a record would cost two more counted references each.
#[derive(Debug)]
pub(super) struct Room {
    budget: Arc<Semaphore>,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.budget.add_permits(self.bytes);
    }
}

/// One record, borrowed: what a push copies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub timestamp_us: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [Header],
    pub tag: Option<Tag>,
}

impl Open {
    pub fn new(
        compression: Compression,
        since: Duration,
        budget: Arc<Semaphore>,
        expected: Option<Expected>,
    ) -> Self {
        Self {
            number: 0,
            chunks: Vec::new(),
            index: BTreeMap::new(),
            names: BTreeMap::new(),
            newest: 0,
            raw_bytes: 0,
            rows: 0,
            since,
            compression,
            room: Some(Room { budget, bytes: 0 }),
            expected,
            flight: Arc::default(),
        }
    }

    #[inline]
    pub fn is_full(&self) -> bool {
        self.raw_bytes >= limits::SEGMENT_RAW_BYTES || self.rows >= limits::SEGMENT_ROWS_MAX
    }

    /// Whether more records of this topic may be sent while this flight is open: not if it holds some of the same name
    /// under another id, or some that were to have another codec.
    #[inline]
    pub fn fits(&self, topic: &Arc<TopicInfo>) -> bool {
        let newest = self.chunks.get(self.newest);
        newest.is_some_and(|chunk| Arc::ptr_eq(&chunk.topic, topic))
            || self.names.get(&topic.name).is_none_or(|known| *known == (topic.id, topic.compression))
    }

    /// Adds a record; answers its chunk and row.
    #[inline]
    pub fn push(&mut self, topic: &Arc<TopicInfo>, partition: u32, row: Row<'_>) -> Result<(u32, u32)> {
        let (index, number) = self.push_row(topic, partition, &row)?;
        self.chunks[index].mark(row.tag);
        Ok((index as u32, number))
    }

    /// Adds a client's own batch: nothing is added to it later.
    pub fn push_batch<'a>(
        &mut self,
        topic: &Arc<TopicInfo>,
        partition: u32,
        rows: impl Iterator<Item = Row<'a>>,
        identity: Identity,
    ) -> Result<Vec<(u32, u32)>> {
        let mut places = Vec::new();
        let mut chunk = 0;
        for row in rows {
            let (index, number) = self.push_row(topic, partition, &row)?;
            places.push((index as u32, number));
            chunk = index;
        }
        let mark = Mark { rows: places.len() as u32, identity: Some(identity), closed: true };
        self.chunks[chunk].marks.push(mark);
        Ok(places)
    }

    #[inline]
    fn push_row(&mut self, topic: &Arc<TopicInfo>, partition: u32, row: &Row<'_>) -> Result<(usize, u32)> {
        let index = self.chunk(topic, partition);
        let chunk = &mut self.chunks[index];
        let before = chunk.rows.raw_bytes();
        chunk.rows.push(row.timestamp_us, row.key, row.value, row.headers)?;
        self.raw_bytes += chunk.rows.raw_bytes() - before;
        self.rows += 1;
        Ok((index, chunk.rows.len() as u32 - 1))
    }

    /// Where records of this partition go.
    #[inline]
    fn chunk(&mut self, topic: &Arc<TopicInfo>, partition: u32) -> usize {
        let newest = self.chunks.get(self.newest);
        if newest.is_some_and(|chunk| chunk.partition == partition && chunk.topic.id == topic.id) {
            return self.newest;
        }
        self.newest = *self.index.entry((topic.id, partition)).or_insert_with(|| {
            // Never for more partitions than there were, or their room would add up.
            let like = self.expected.filter(|like| self.chunks.len() < like.partitions);
            let rows = like.map_or_else(RowsBuilder::new, |like| like.rows(topic.id, partition));
            let marks = Vec::new();
            self.names.insert(topic.name.clone(), (topic.id, topic.compression));
            self.chunks.push(Chunk { topic: topic.clone(), partition, rows, marks });
            self.chunks.len() - 1
        });
        self.newest
    }

    /// What the flight after this one may expect.
    pub fn expect(&self) -> Option<Expected> {
        let most = self.chunks.iter().max_by_key(|chunk| chunk.rows.len())?;
        let size = |rows: usize, raw_bytes: usize| (rows, raw_bytes.saturating_sub(rows * limits::ROW_BYTES));
        let mean = |all: usize| all / self.chunks.len() * 5 / 4;
        Some(Expected {
            most: (most.topic.id, most.partition),
            of_most: size(most.rows.len(), most.rows.raw_bytes()),
            of_others: size(mean(self.rows), mean(self.raw_bytes)),
            partitions: self.chunks.len(),
        })
    }

    /// So many bytes of the buffer are the flight's from here on, until the ack.
    pub fn hold(&mut self, bytes: usize) {
        // Taken out by `release` only when nothing is pushed any more.
        if let Some(room) = &mut self.room {
            room.bytes += bytes;
        }
    }

    /// Gives back bytes of the buffer that are no record's.
    pub fn give_back(&self, bytes: usize) {
        if let Some(room) = &self.room {
            room.budget.add_permits(bytes);
        }
    }

    pub fn release(&mut self) -> Option<Room> {
        self.room.take()
    }
}

/// What the senders of a flight wait for.
#[derive(Debug, Default)]
pub(super) struct Flight {
    landed: OnceLock<Vec<Landed>>,
    notify: Notify,
}

/// What became of a chunk.
#[derive(Debug)]
pub(super) struct Landed {
    pub topic: Arc<TopicInfo>,
    pub partition: u32,
    pub rows: u32,
    /// First row and result of each batch.
    pub batches: Vec<(u32, BatchResult)>,
}

impl Flight {
    pub fn land(&self, landed: Vec<Landed>) {
        // Only the driver lands a flight, and once.
        let _ = self.landed.set(landed);
        self.notify.notify_waiters();
    }
}

/// A record on its way: resolves when its commit is durable.
///
/// Dropping it takes nothing back: the record is in the log or will be, and nobody is told.
#[derive(Debug)]
pub struct Delivery {
    pub(super) flight: Arc<Flight>,
    pub(super) chunk: u32,
    pub(super) row: u32,
    pub(super) partition: u32,
    pub(super) timestamp_us: i64,
}

/// Where a record ended up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordMetadata {
    /// Topic name.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: u32,
    /// Its offset. `None` only for a duplicate whose original offset is no longer known.
    pub offset: Option<Offset>,
    /// Microseconds since 1970: the record's own, or the append time under `LogAppendTime`.
    pub timestamp_us: i64,
    /// The log held the record already.
    pub duplicate: bool,
}

impl Delivery {
    /// The partition that the record goes to.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Waits for the ack.
    #[allow(clippy::manual_async_fn, reason = "it would move the delivery once more, into its own state")]
    pub fn wait(self) -> impl Future<Output = Result<RecordMetadata>> + Send {
        async move {
            loop {
                if let Some(acked) = self.poll_now() {
                    return acked;
                }
                let landing = self.flight.notify.notified();
                // Not if it landed since: then nobody would wake this.
                if self.flight.landed.get().is_none() {
                    landing.await;
                }
            }
        }
    }

    /// The ack, if it is there.
    #[inline]
    pub fn poll_now(&self) -> Option<Result<RecordMetadata>> {
        self.flight.landed.get().map(|landed| self.result(landed))
    }

    #[inline]
    fn result(&self, landed: &[Landed]) -> Result<RecordMetadata> {
        let lost = || Error::Closed { what: "the producer" };
        let landed = landed.get(self.chunk as usize).ok_or_else(lost)?;
        let after = landed.batches.partition_point(|(first, _)| *first <= self.row);
        let (first, result) = landed.batches.get(after.wrapping_sub(1)).ok_or_else(lost)?;
        let place = u64::from(self.row - first);
        let metadata = |base: Option<Offset>, append_ms: i64, duplicate| RecordMetadata {
            topic: landed.topic.name.clone(),
            partition: landed.partition,
            offset: base.map(|base| base + place),
            timestamp_us: match landed.topic.time_type {
                TimestampType::CreateTime => self.timestamp_us,
                TimestampType::LogAppendTime => append_ms.saturating_mul(1_000),
            },
            duplicate,
        };
        match result {
            BatchResult::Placed { base, append_ms, .. } => Ok(metadata(Some(*base), *append_ms, false)),
            BatchResult::Duplicate { base, append_ms } => Ok(metadata(*base, *append_ms, true)),
            BatchResult::Failed(error) => Err(error.clone()),
            BatchResult::Redraw => Err(lost()),
        }
    }
}
