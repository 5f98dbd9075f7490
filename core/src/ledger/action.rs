//! What a commit can say. All actions of a commit take effect, or none does.
//!
//! Every number that outlives a process is in these types; `codec` draws their bytes, `apply` gives them their
//! meaning, `decide` says when they may be put.

use bytes::Bytes;

use crate::objects::{ObjectName, Ulid};
use crate::record::{Offset, RecordSum, TopicId};
use crate::segment::{Layout, Span};

/// A commit: the body of one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Id of the commit in the slot before; 0 in slot 1.
    pub prev: u128,
    /// Append time of everything in it: milliseconds since 1970, never less than the commit before.
    pub time_ms: i64,
    /// The newest checkpoint of the view it was decided from (R2).
    pub checkpoint: Option<CheckpointName>,
    /// What it does.
    pub actions: Vec<Action>,
}

/// Names a checkpoint object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckpointName {
    /// The state is as of this commit.
    pub at: u64,
    /// The era it was written in.
    pub era: u16,
    /// Tells two attempts apart.
    pub ulid: u128,
}

/// Names a segment. `drawn` is the newest commit of the view when the name was drawn (R3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// Era it was written in.
    pub era: u16,
    /// Ledger that names it.
    pub ledger: u16,
    /// Newest commit known when the name was drawn.
    pub drawn: u64,
    /// Unique.
    pub ulid: u128,
}

impl From<&CheckpointName> for ObjectName {
    fn from(name: &CheckpointName) -> Self {
        Self::Checkpoint { era: name.era, ledger: LEDGER, at: name.at, ulid: Ulid(name.ulid) }
    }
}

impl From<&ObjectRef> for ObjectName {
    fn from(object: &ObjectRef) -> Self {
        let ObjectRef { era, ledger, drawn, ulid } = *object;
        Self::L0 { era, ledger, drawn, ulid: Ulid(ulid) }
    }
}

/// The one ledger of a store. Every key and name carries its number, so that more can come.
pub const LEDGER: u16 = 0;

/// One thing that a commit does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant's type says it")]
pub enum Action {
    Store(Store),
    /// Commits and checkpoints up to this format level may follow.
    Level(u32),
    Topic(TopicChange),
    Append(Append),
    Lead(Lead),
    Trim(Vec<TrimTo>),
    Checkpoint(Checkpoint),
    Expire(Expire),
    Offsets(GroupOffsets),
    Floor(Floor),
    Fold(Fold),
    Rewrite(Rewrite),
    /// The index rows of this fold or rewrite are all written.
    Indexed(u64),
}

impl Action {
    /// Its kind in plain words, for the item's hint.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Store(_) => "store",
            Self::Level(_) => "level",
            Self::Topic(_) => "topic",
            Self::Append(_) => "append",
            Self::Lead(_) => "lead",
            Self::Trim(_) => "trim",
            Self::Checkpoint(_) => "checkpoint",
            Self::Expire(_) => "expire",
            Self::Offsets(_) => "offsets",
            Self::Floor(_) => "floor",
            Self::Fold(_) => "fold",
            Self::Rewrite(_) => "rewrite",
            Self::Indexed(_) => "indexed",
        }
    }
}

/// Slot 1: what this store is. The newest one is in every view and checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Format of the store as a whole.
    pub format: u32,
    /// Tells stores apart.
    pub store_id: u128,
    /// The era this chain goes on in.
    pub era: u16,
    /// The table's own name; a DynamoDB table of another name is a restored copy (R10).
    pub table: String,
    /// Milliseconds since 1970.
    pub created_ms: i64,
}

/// A change of the directory of topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicChange {
    /// A new topic with a new id.
    Create {
        /// Never used again.
        id: TopicId,
        /// Kafka's grammar.
        name: String,
        /// At least 1.
        partitions: u32,
        /// Configuration.
        config: Vec<(String, String)>,
    },
    /// More partitions, other configuration.
    Alter {
        /// Which topic.
        id: TopicId,
        /// Only growing.
        partitions: Option<u32>,
        /// `None` removes a key.
        config: Vec<(String, Option<String>)>,
    },
    /// Drops the topic and all that the view knows of it.
    Delete {
        /// Which topic.
        id: TopicId,
    },
}

/// Records get their offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// Where the rows are.
    pub data: Data,
    /// Who gets which of them.
    pub slices: Vec<SliceBody>,
}

/// Where an append's rows are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// In a segment that was uploaded and answered before (L1).
    Object {
        /// Its name.
        object: ObjectRef,
        /// Its row groups and footer.
        layout: Layout,
    },
    /// In the commit itself, in the inline encoding (R8).
    Inline(Bytes),
}

/// The rows of one partition in one segment or inline body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceBody {
    /// Topic.
    pub topic: TopicId,
    /// Partition.
    pub partition: u32,
    /// Offset of the first row. Apply asserts that it is the partition's next.
    pub base: Offset,
    /// Row group it lies in; 0 in an inline body.
    pub group: u32,
    /// Its first row, counted in the whole segment or inline body.
    pub first_row: u64,
    /// Smallest and largest stored timestamp, µs.
    pub time_us: (i64, i64),
    /// Whose time `timestamp` is read as.
    pub time_type: TimestampType,
    /// Record sum.
    pub sum: RecordSum,
    /// Its batches in order; their rows add up to the slice's.
    pub batches: Vec<BatchBody>,
}

impl SliceBody {
    /// Rows of all batches.
    pub fn rows(&self) -> u64 {
        self.batches.iter().map(|b| u64::from(b.rows)).sum()
    }
}

/// Consecutive rows of one producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchBody {
    /// How many.
    pub rows: u32,
    /// Reserved; 0.
    pub flags: u8,
    /// Who sent them, if they are to be deduplicated.
    pub identity: Option<Identity>,
}

/// Whose time a record's timestamp is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "Kafka's words")]
pub enum TimestampType {
    #[default]
    CreateTime,
    LogAppendTime,
}

/// How sequences of a producer behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IdentityKind {
    /// Kafka's: each batch begins where the last one ended.
    Dense,
    /// Growing with gaps: a file's byte position, a Kinesis sequence number.
    Monotone,
    /// One batch, once: an HTTP idempotency key, an SQS message id.
    Once,
}

/// A producer, as one partition sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerKey {
    /// How its sequences behave.
    pub kind: IdentityKind,
    /// Producer id (63 bit), or a 128-bit key.
    pub producer: u128,
}

/// What a batch is deduplicated by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Who.
    pub key: ProducerKey,
    /// A greater epoch fences the smaller ones.
    pub epoch: u16,
    /// Sequence of its first record.
    pub first_sequence: u64,
    /// Sequence of its last record.
    pub last_sequence: u64,
}

/// A process takes or lets go the leadership of partitions. Advice; the put decides (R6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lead {
    /// The process.
    pub who: u64,
    /// Where it answers; empty: nowhere.
    pub address: String,
    /// Each raises the partition's leader epoch by one.
    pub take: Vec<(TopicId, u32)>,
    /// Let go; the epoch stays.
    pub let_go: Vec<(TopicId, u32)>,
}

/// Moves a partition's log start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrimTo {
    /// Topic.
    pub topic: TopicId,
    /// Partition.
    pub partition: u32,
    /// New log start.
    pub log_start: Offset,
    /// When the last of the first slice or merged range from there on was appended, ms; 0: nobody looked.
    pub oldest_ms: i64,
    /// That merged range's [`bytes_running`](L1Range::bytes_running); 0: nobody looked, or it is not merged.
    pub oldest_bytes: u64,
}

/// Names a new checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its name.
    pub name: CheckpointName,
    /// xxh3-64 of its bytes.
    pub checksum: u64,
}

/// Forgets producers or groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expire {
    /// Which.
    pub what: Expiring,
    /// Last seen before this append time, ms.
    pub before_ms: i64,
}

/// What `Expire` forgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiring {
    /// Producers of this kind.
    Producers(IdentityKind),
    /// Consumer groups.
    Groups,
}

/// Offsets that a consumer group stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOffsets {
    /// The group.
    pub group: String,
    /// Who stores; may be empty.
    pub member: String,
    /// −1: none.
    pub generation: i32,
    /// What; an offset of `None` deletes the entry.
    pub offsets: Vec<GroupOffset>,
}

/// One stored offset: the next one to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOffset {
    /// Topic.
    pub topic: TopicId,
    /// Partition.
    pub partition: u32,
    /// Next offset to read; `None` deletes.
    pub offset: Option<Offset>,
    /// Leader epoch of the last record read; −1: unknown.
    pub leader_epoch: i32,
    /// The consumer's own words.
    pub metadata: String,
}

/// Names drawn before this commit are refused from here on (R3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// The commit number.
    pub floor: u64,
    /// Entries that died before this commit leave the dead list.
    pub forget: u64,
}

/// Small segments became large ones (R4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fold {
    /// The new objects.
    pub objects: Vec<L1Object>,
    /// What they hold.
    pub ranges: Vec<L1Range>,
}

/// Large segments became larger ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// The one topic.
    pub topic: TopicId,
    /// The number of the topic's newest rewrite when the inputs were read; 0: none.
    pub generation: u64,
    /// The new objects.
    pub objects: Vec<L1Object>,
    /// What they hold.
    pub ranges: Vec<L1Range>,
    /// The objects of the topic that are needed no more once the rows are overwritten, each with its hour.
    pub replaced: Vec<(ObjectRef, u32)>,
}

/// An L1 object: one topic, one ingest hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct L1Object {
    /// Its name.
    pub object: ObjectRef,
    /// Hours since 1970.
    pub hour: u32,
    /// Its topic.
    pub topic: TopicId,
    /// Its footer.
    pub footer: Span,
}

/// The records of one partition in one L1 object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct L1Range {
    /// Index into `objects`.
    pub object: u32,
    /// Partition.
    pub partition: u32,
    /// First offset.
    pub base: Offset,
    /// One past the last.
    pub end: Offset,
    /// Records; fewer than `end − base` after compaction.
    pub rows: u64,
    /// First row group and how many.
    pub groups: (u32, u32),
    /// First and last append time, ms.
    pub append_ms: (i64, i64),
    /// Largest timestamp of the partition up to here, µs.
    pub time_us_max: i64,
    /// Bytes that the partition's records took when they were merged, from its first record up to here; a rewrite changes
    /// none of it. 0: merged before anybody counted.
    pub bytes_running: u64,
    /// Record sum.
    pub sum: RecordSum,
}
