//! Errors, in four kinds by what the caller does next.
//!
//! | kind | what to do | CLI exit code |
//! |---|---|---|
//! | [`Retry`](ErrorKind::Retry) | the same call again, after a pause | 3 |
//! | [`Refresh`](ErrorKind::Refresh) | look at the state the message carries, then ask again | 1 |
//! | [`Invalid`](ErrorKind::Invalid) | fix the request: it will never succeed as it is | 1 |
//! | [`Fatal`](ErrorKind::Fatal) | stop: damage, or a store that this process must not touch | 4 |

use std::sync::Arc;

use crate::record::Offset;

/// What the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The same call may succeed later, unchanged.
    Retry,
    /// The caller's picture is out of date; the error carries what is true.
    Refresh,
    /// The request itself is wrong.
    Invalid,
    /// Damage, or a store that must not be used by this process.
    Fatal,
}

/// An error of the log. Cheap to clone: one failed commit answers many sends.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The commit's outcome could not be learned in time (L3). It may or may not have happened.
    #[error(
        "outcome unknown after {waited_ms} ms: the records may or may not be in the log; retry with the same producer id and sequence, or expect a duplicate: {cause}"
    )]
    Unknown {
        /// Time spent looking.
        waited_ms: u64,
        /// Last answer of the store.
        cause: String,
    },
    /// A store is busy, throttled, locked or unreachable.
    #[error("{what}; try again later: {cause}")]
    Unavailable {
        /// What was asked of which store.
        what: &'static str,
        /// The store's own words.
        cause: String,
    },
    /// No room for more unacknowledged bytes.
    #[error("send buffer is full ({limit_bytes} bytes unacknowledged): wait for acks, or raise buffer_bytes")]
    BufferFull {
        /// The buffer's size.
        limit_bytes: usize,
    },
    /// An earlier batch of the same producer failed, so this one must not overtake it.
    #[error("an earlier batch of this producer failed; send again from the first one that failed: {cause}")]
    EarlierBatchFailed {
        /// Why the earlier one failed.
        cause: Arc<Error>,
    },
    /// The ledger holds something that this version cannot read (see `Level`).
    #[error("this store is written by a newer tidelog ({what}); upgrade this binary")]
    Newer {
        /// What was met.
        what: String,
    },
    /// The producer or log was closed.
    #[error("{what} is closed")]
    Closed {
        /// What was closed.
        what: &'static str,
    },

    /// A fetch below the log start or past the end.
    #[error(
        "offset {offset} is out of range for {topic}/{partition}: log start {log_start}, high watermark {high_watermark}"
    )]
    OffsetOutOfRange {
        /// Topic name.
        topic: String,
        /// Partition.
        partition: u32,
        /// What was asked.
        offset: Offset,
        /// First readable offset.
        log_start: Offset,
        /// One past the last readable offset.
        high_watermark: Offset,
    },
    /// A sequence that neither continues nor repeats what the log holds (Kafka: OUT_OF_ORDER_SEQUENCE_NUMBER).
    #[error(
        "sequence {got} of producer {producer:#x} is out of order in partition {partition}: expected {expected}"
    )]
    OutOfOrderSequence {
        /// Producer id or key.
        producer: u128,
        /// Partition.
        partition: u32,
        /// Next sequence that would be accepted.
        expected: u64,
        /// First sequence of the refused batch.
        got: u64,
    },
    /// A newer epoch of this producer exists (Kafka: INVALID_PRODUCER_EPOCH).
    #[error("producer {producer:#x} is fenced in partition {partition}: epoch {got}, current {current}")]
    ProducerFenced {
        /// Producer id or key.
        producer: u128,
        /// Partition.
        partition: u32,
        /// Epoch known to the log.
        current: u16,
        /// Epoch of the refused batch.
        got: u16,
    },
    /// A sequence above 0 of a producer that the log does not know (Kafka: UNKNOWN_PRODUCER_ID).
    #[error(
        "producer {producer:#x} is unknown in partition {partition}, but its sequence {got} is not 0: its state expired, or it never wrote"
    )]
    UnknownProducer {
        /// Producer id or key.
        producer: u128,
        /// Partition.
        partition: u32,
        /// First sequence of the refused batch.
        got: u64,
    },
    /// No such topic.
    #[error("unknown topic {topic:?}: create it with `tidelog topic create {topic} --partitions N`")]
    UnknownTopic {
        /// Topic name.
        topic: String,
    },
    /// The topic was deleted between the look at it and what was to be done with it; perhaps there is another of that name.
    #[error(
        "topic {topic:?} was deleted meanwhile, and nothing was done: ask again, if there is a new one of that name"
    )]
    TopicDeleted {
        /// Topic name.
        topic: String,
    },
    /// No such partition.
    #[error("topic {topic:?} has no partition {partition}: it has {partitions}, numbered from 0")]
    UnknownPartition {
        /// Topic name.
        topic: String,
        /// What was asked.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// No such consumer group.
    #[error("unknown consumer group {group:?}")]
    UnknownGroup {
        /// Group name.
        group: String,
    },
    /// The topic exists already.
    #[error("topic {topic:?} exists already")]
    TopicExists {
        /// Topic name.
        topic: String,
    },
    /// A condition of upkeep no longer holds: somebody else was there first. Nothing was changed.
    #[error("superseded: {what}")]
    Superseded {
        /// The condition.
        what: String,
    },

    /// A field is larger than its limit.
    #[error("{field} is too large: {size}, limit {limit}")]
    TooLarge {
        /// The field.
        field: &'static str,
        /// Its size.
        size: u64,
        /// Its limit.
        limit: u64,
    },
    /// A field has a value that is not allowed.
    #[error("{field} is invalid: {reason}")]
    InvalidField {
        /// The field.
        field: &'static str,
        /// Why, and what is allowed.
        reason: String,
    },
    /// The store URL, folder or table cannot be used as it is.
    #[error("cannot open store {url}: {reason}")]
    CannotOpen {
        /// As given.
        url: String,
        /// Why, and what to do.
        reason: String,
    },

    /// Bytes that are not what was written. Run `tidelog verify`.
    #[error("damaged {what}: {detail}; run `tidelog verify` to see which offsets it touches")]
    Damaged {
        /// Which object, slot or row.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Other bytes are under the name of an object than those that were put (L5). Nothing was overwritten.
    #[error(
        "name {name} is used already: {found} other bytes are there, ours are {ours}; something else writes to this store"
    )]
    NameReused {
        /// The object.
        name: String,
        /// Size of what was put.
        ours: u64,
        /// Size of what is there.
        found: u64,
    },
    /// The table is older than what this process has seen: it was rolled back or replaced (R10).
    #[error(
        "the table went back: this process has seen commit {seen}, the table ends at {found}; restore into a new table and era"
    )]
    RolledBack {
        /// Newest commit this process has applied.
        seen: u64,
        /// Newest commit there is.
        found: u64,
    },
    /// This ledger failed a check in this process and is not read or written any more.
    #[error("ledger refused since a fatal error: {cause}")]
    Poisoned {
        /// The first error.
        cause: Arc<Error>,
    },
    /// The store breaks a promise that the log rests on.
    #[error("store refused: {what}")]
    StoreRefused {
        /// The promise.
        what: String,
    },
}

impl Error {
    /// What the caller does next.
    pub fn kind(&self) -> ErrorKind {
        use Error::*;
        match self {
            Unknown { .. }
            | Unavailable { .. }
            | BufferFull { .. }
            | EarlierBatchFailed { .. }
            | Newer { .. }
            | Closed { .. } => ErrorKind::Retry,
            OffsetOutOfRange { .. }
            | OutOfOrderSequence { .. }
            | ProducerFenced { .. }
            | UnknownProducer { .. }
            | UnknownTopic { .. }
            | TopicDeleted { .. }
            | UnknownPartition { .. }
            | UnknownGroup { .. }
            | TopicExists { .. }
            | Superseded { .. } => ErrorKind::Refresh,
            TooLarge { .. } | InvalidField { .. } | CannotOpen { .. } => ErrorKind::Invalid,
            Damaged { .. }
            | NameReused { .. }
            | RolledBack { .. }
            | Poisoned { .. }
            | StoreRefused { .. } => ErrorKind::Fatal,
        }
    }

    /// What it is called, in snake case: for labels and machines. Names do not change.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "unknown",
            Self::Unavailable { .. } => "unavailable",
            Self::BufferFull { .. } => "buffer_full",
            Self::EarlierBatchFailed { .. } => "earlier_batch_failed",
            Self::Newer { .. } => "newer",
            Self::Closed { .. } => "closed",
            Self::OffsetOutOfRange { .. } => "offset_out_of_range",
            Self::OutOfOrderSequence { .. } => "out_of_order_sequence",
            Self::ProducerFenced { .. } => "producer_fenced",
            Self::UnknownProducer { .. } => "unknown_producer",
            Self::UnknownTopic { .. } => "unknown_topic",
            Self::TopicDeleted { .. } => "topic_deleted",
            Self::UnknownPartition { .. } => "unknown_partition",
            Self::UnknownGroup { .. } => "unknown_group",
            Self::TopicExists { .. } => "topic_exists",
            Self::Superseded { .. } => "superseded",
            Self::TooLarge { .. } => "too_large",
            Self::InvalidField { .. } => "invalid_field",
            Self::CannotOpen { .. } => "cannot_open",
            Self::Damaged { .. } => "damaged",
            Self::NameReused { .. } => "name_reused",
            Self::RolledBack { .. } => "rolled_back",
            Self::Poisoned { .. } => "poisoned",
            Self::StoreRefused { .. } => "store_refused",
        }
    }

    /// With the name that the asker knows a topic by: the ledger knows ids.
    pub(crate) fn of_topic(mut self, name: &str) -> Self {
        if let Self::TopicDeleted { topic } = &mut self {
            name.clone_into(topic);
        }
        self
    }

    /// A [`Error::Damaged`].
    pub fn damaged(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Damaged { what: what.into(), detail: detail.into() }
    }

    /// A [`Error::InvalidField`].
    pub fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        Self::InvalidField { field, reason: reason.into() }
    }

    /// Refuses `size` above `limit`.
    pub fn check_size(field: &'static str, size: usize, limit: usize) -> Result<(), Self> {
        if size > limit {
            return Err(Self::TooLarge { field, size: size as u64, limit: limit as u64 });
        }
        Ok(())
    }
}

/// A result of the log.
pub type Result<T, E = Error> = std::result::Result<T, E>;
