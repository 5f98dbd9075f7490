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
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 21] = [
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
    ];
}

#[cfg(feature = "planted-bugs")]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        // A thread runs one simulation at a time, and a simulation runs on one thread.
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whether this bug is planted.
    pub fn on(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Plants a bug on this thread, or removes it.
    pub fn set(bug: Option<Bug>) {
        PLANTED.set(bug);
    }
}

#[cfg(feature = "planted-bugs")]
pub use switch::{on, set};

/// Never, in this build.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn on(_: Bug) -> bool {
    false
}
