//! Planted bugs: a switch for each law, so that the simulator can show that it would notice.
//!
//! The switches exist only with the feature `planted-bugs`; in every other build [`on`] is a constant `false` and the
//! branches behind it are gone. `docs/INVARIANTS.md` lists which law each one breaks.

/// One bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it; INVARIANTS.md has a line on each")]
#[repr(u8)]
pub enum Bug {
    OwnCommitTakenForLostRace = 1,
    NoAnswerTakenForFailed,
    OneAbsentReadDecides,
    CommitBeforeUpload,
    RefusalFromStaleView,
    TwoSlotsInFlight,
    StripBeforeCheckpointNamed,
    CheckpointWithoutProducers,
    DedupeWindowOfOne,
    ProducerExpiryByOwnClock,
    WatermarkFromUploaded,
    DeposedLeaderAnswersNothingNew,
    TailGapSkipped,
    AppendTimeGoesBack,
    GroupCommitPassesEarlierBatch,
    NewIdBeforeSlotKnown,
    CheckpointMissingTakenForEmpty,
    /// L2: offsets from a private counter.
    OffsetsFromMemory,
    /// L5: an object is deleted on an error path.
    DeleteOnError,
    /// L7: the settled state of a put lives in memory only.
    ForgetUnsettled,
    /// L8: checksums are not looked at.
    ChecksumsIgnored,
    /// R3: an object drawn below the floor is accepted.
    FloorIgnored,
    /// L5: a name is the commit number alone, and a put overwrites.
    NameReused,
    /// L7: the view in memory is taken for fresh, however long the process was stopped.
    ViewTrustedAfterThaw,
    /// R5: a batch of a fenced epoch is accepted.
    StaleEpochAccepted,
    /// R1: a stub in the slot is taken for a commit that changes nothing.
    StubTakenForCommit,
    /// L3: another's commit is passed over, and what it changed is not known.
    ConflictNotApplied,
    /// Sweep: R3, deletes without a floor, by the view that it had.
    SweepWithoutFloor,
    /// Sweep: R3, the floor is what is old enough by the clock, and is not committed.
    FloorFromClock,
    /// Sweep: R3, takes what is named from a view before the floor.
    NamedReadBeforeFloor,
    /// Sweep: R2, deletes the newest checkpoint but one.
    NamedCheckpointSwept,
    /// Sweep: deletes what died a moment ago, while readers hold older views.
    DeadSweptAtOnce,
    /// Trim: retention goes by the clients' timestamps.
    RetentionByClientTimestamp,
    /// Trim: retention by size lets all go that is merged, once there is too much.
    SizeLimitForgotten,
    /// Trim: a slice that reaches over the log start goes, too.
    StraddlingSliceDropped,
    /// R4: `Indexed` is committed before the rows are written.
    IndexedBeforeRows,
    /// R4: a reader looks for a pending fold in the index.
    PendingTakenForIndexed,
    /// R8: a commit is stripped while an inline slice of it is unmerged.
    InlineStrippedBeforeMerge,
    /// Trim: a clock far ahead trims all at once.
    ClockAheadTrimsAll,
    /// Trim: an index row that reaches over the log start is deleted, too.
    StraddlingRowDeleted,
    /// Trim: an index row is deleted whoever wrote it since it was looked at.
    RowDeletedUnasked,
    /// Sweep: objects of a topic that index rows name are taken for orphans.
    RowsIgnoredBySweep,
    /// Sweep: of the rows of an hour only the first partition's are read.
    OnePartitionAsked,
    /// Sweep: the index rows are read before the view that is judged by.
    RowsReadBeforeView,
    /// Rewrite: the view does not carry it until its rows are written.
    RewriteNotCarried,
    /// Index: a row of an older fold that is written late wins.
    OlderRowWins,
    /// Sweep: what no view and no row names is deleted, whenever its name was drawn.
    SweptAboveFloor,
    /// Merge: the index rows are written before the fold is committed.
    RowsBeforeFold,
    /// Fold: an L0 object dies with the first slice that is merged, whoever else has some in it.
    SharedObjectKilled,
    /// Fold: what was folded already is folded once more.
    FoldedTwice,
    /// Topics: one that is made anew gets the id that its name had before.
    TopicIdReused,
    /// Sweep: an old era's sweeper deletes the objects of the new one.
    NewerEraSwept,
    /// Restore: the chain is copied before the index rows, so that it is taken for done when they are not there.
    RestoredBeforeRows,
    /// DynamoDB: a query's first page is taken for all there is.
    FirstPageTakenForAll,
    /// DynamoDB: an unanswered put is repeated at once, and a throttle of the second taken for "not applied" (L3).
    ThrottleTakenForNotApplied,
    /// DynamoDB: an eventual read is taken for the head (L4).
    EventualReadTakenForHead,
    /// Objects: 409 `ConditionalRequestConflict` is taken for "exists, and is ours".
    ConflictTakenForExists,
    /// Objects: a body that broke off is taken for the whole.
    TruncatedBodyAccepted,
    /// Objects: a range is answered with fewer bytes than asked for.
    RangeOfOtherLengthAccepted,
}

impl Bug {
    /// Those of an adapter, which its own tests notice: the simulator has a table of its own.
    pub const ADAPTER: [Bug; 3] =
        [Bug::FirstPageTakenForAll, Bug::ThrottleTakenForNotApplied, Bug::EventualReadTakenForHead];

    /// Those of objects behind a network, which `tests/s3server` notices, through the fault proxy.
    pub const OBJECTS: [Bug; 3] =
        [Bug::ConflictTakenForExists, Bug::TruncatedBodyAccepted, Bug::RangeOfOtherLengthAccepted];

    /// What takes longer than a simulation: `upkeep/tests.rs` notices it.
    pub const LONG: Bug = Bug::DeadSweptAtOnce;

    /// Those that the simulator must notice.
    pub const ALL: [Bug; 52] = [
        Bug::OwnCommitTakenForLostRace,
        Bug::NoAnswerTakenForFailed,
        Bug::OneAbsentReadDecides,
        Bug::CommitBeforeUpload,
        Bug::RefusalFromStaleView,
        Bug::TwoSlotsInFlight,
        Bug::StripBeforeCheckpointNamed,
        Bug::CheckpointWithoutProducers,
        Bug::DedupeWindowOfOne,
        Bug::ProducerExpiryByOwnClock,
        Bug::WatermarkFromUploaded,
        Bug::DeposedLeaderAnswersNothingNew,
        Bug::TailGapSkipped,
        Bug::AppendTimeGoesBack,
        Bug::GroupCommitPassesEarlierBatch,
        Bug::NewIdBeforeSlotKnown,
        Bug::CheckpointMissingTakenForEmpty,
        Bug::OffsetsFromMemory,
        Bug::DeleteOnError,
        Bug::ForgetUnsettled,
        Bug::ChecksumsIgnored,
        Bug::FloorIgnored,
        Bug::NameReused,
        Bug::ViewTrustedAfterThaw,
        Bug::StaleEpochAccepted,
        Bug::StubTakenForCommit,
        Bug::ConflictNotApplied,
        Bug::SweepWithoutFloor,
        Bug::FloorFromClock,
        Bug::NamedReadBeforeFloor,
        Bug::NamedCheckpointSwept,
        Bug::RetentionByClientTimestamp,
        Bug::SizeLimitForgotten,
        Bug::StraddlingSliceDropped,
        Bug::IndexedBeforeRows,
        Bug::PendingTakenForIndexed,
        Bug::InlineStrippedBeforeMerge,
        Bug::StraddlingRowDeleted,
        Bug::RowDeletedUnasked,
        Bug::RowsIgnoredBySweep,
        Bug::OnePartitionAsked,
        Bug::RowsReadBeforeView,
        Bug::RewriteNotCarried,
        Bug::OlderRowWins,
        Bug::SweptAboveFloor,
        Bug::RowsBeforeFold,
        Bug::SharedObjectKilled,
        Bug::FoldedTwice,
        Bug::TopicIdReused,
        Bug::ClockAheadTrimsAll,
        Bug::NewerEraSwept,
        Bug::RestoredBeforeRows,
    ];
}

#[cfg(feature = "planted-bugs")]
mod switch {
    use super::Bug;
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    thread_local! {
        // A thread runs one simulation at a time, and a simulation runs on one thread.
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
        static UPLOADED: RefCell<BTreeMap<(u64, u128, u32), u64>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// Whether this bug is planted.
    pub fn on(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Plants a bug on this thread, or removes it.
    pub fn set(bug: Option<Bug>) {
        PLANTED.set(bug);
        UPLOADED.with_borrow_mut(BTreeMap::clear);
    }

    /// For `WatermarkFromUploaded`: where a process's uncommitted records of a partition end.
    pub fn note_uploaded(who: u64, topic: u128, partition: u32, end: u64) {
        UPLOADED.with_borrow_mut(|all| all.insert((who, topic, partition), end));
    }

    /// What [`note_uploaded`] was told last; 0: nothing.
    pub fn uploaded(who: u64, topic: u128, partition: u32) -> u64 {
        UPLOADED.with_borrow(|all| all.get(&(who, topic, partition)).copied().unwrap_or(0))
    }
}

#[cfg(feature = "planted-bugs")]
pub use switch::{note_uploaded, on, set, uploaded};

/// Never, in this build.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn on(_: Bug) -> bool {
    false
}

/// Nothing, in this build.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn note_uploaded(_: u64, _: u128, _: u32, _: u64) {}

/// Nothing, in this build.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn uploaded(_: u64, _: u128, _: u32) -> u64 {
    0
}
