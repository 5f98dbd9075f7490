//! What the log did, told to a hook of the caller's: a summary, CloudWatch's embedded format, Prometheus.
//!
//! ```text
//! metrics    what happened in the log: records, commits, lost races, times        told here, by name
//! counting   what it asked of the stores: requests, bytes, billed units           counted at the ports
//! ```
//! The two do not overlap: a GET or a query is a request, and [`counting`](crate::counting) wraps the ports that make it.
//!
//! A hook is called by the tasks of the log, a few times a flight, a commit or a fetch and never for each record. It
//! must be quick and must not wait. Without one, a call of an empty function is all that it costs.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Hears what the log did. `()` is the hook that does not listen.
pub trait Metrics: Debug + Send + Sync + 'static {
    /// Something happened; what `value` is depends on the metric's [`Kind`].
    fn record(&self, metric: Metric, value: u64);
}

/// A shared hook.
pub type SharedMetrics = Arc<dyn Metrics>;

impl Metrics for () {
    fn record(&self, _: Metric, _: u64) {}
}

/// What the value of a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// How many more there are.
    Counter,
    /// How many there are now.
    Gauge,
    /// How long one event took, in µs. Told once an event, so the number of values is the number of events.
    Time,
}

/// The enum, and what each metric is called: `Variant (label): Kind "name"`.
macro_rules! metrics {
    ($($(#[$doc:meta])* $metric:ident $(($label:ty))? : $kind:ident $name:literal,)+) => {
        /// A metric. Its name ends with the unit where that is not a plain number.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Metric { $($(#[$doc])* $metric $(($label))?,)+ }

        impl Metric {
            /// Its name, in snake case. Names do not change.
            pub fn name(self) -> &'static str {
                match self { $(Self::$metric { .. } => $name,)+ }
            }

            /// What its values are.
            pub fn kind(self) -> Kind {
                match self { $(Self::$metric { .. } => Kind::$kind,)+ }
            }
        }
    };
}

metrics! {
    /// Records that were sealed into a flight. Each is appended, a duplicate, or refused, once.
    RecordsSent: Counter "records_sent",
    /// Keys, values and headers of the records sent, with the small sum for each row that the limits count.
    BytesSent: Counter "sent_bytes",
    /// Records that a commit of this process gave an offset.
    RecordsAppended: Counter "records_appended",
    /// Records that the log held before.
    RecordsDuplicate: Counter "records_duplicate",
    /// Records whose sender was told an error. Label `error`: its [`Error::name`](crate::Error::name).
    RecordsRefused(&'static str): Counter "records_refused",
    /// Batches (records of one producer and partition that are answered together) that were answered.
    Batches: Counter "batches",
    /// Flights whose rows rode inside their commit, without a segment.
    InlineFlights: Counter "inline_flights",
    /// Bytes that a producer holds until their ack. Told by each producer of the process, for itself.
    BufferedBytes: Gauge "buffered_bytes",
    /// From the first record of a flight until its answer.
    AckUs: Time "ack_us",
    /// The upload of a segment that succeeded. A segment that had to be named anew is uploaded twice.
    UploadUs: Time "upload_us",
    /// Bytes of those segments.
    SegmentBytes: Counter "segment_bytes",

    /// A commit of this process, from the first look at what waits until it is durable: lost races and settling included.
    CommitUs: Time "commit_us",
    /// Lost races: puts that found another's commit in their slot.
    Conflicts: Counter "conflicts",
    /// Puts that nobody answered, so that their slot had to be looked at (L3).
    PutsUnanswered: Counter "puts_unanswered",
    /// Reads of the ledger's tail. Whoever waits in one process shares them.
    TailReads: Counter "tail_reads",
    /// A cold start that succeeded: newest commit, checkpoint, and what follows it.
    ColdStartUs: Time "cold_start_us",
    /// A checkpoint of this process that was written and named.
    CheckpointUs: Time "checkpoint_us",
    /// Commits whose bodies this process stripped.
    SlotsStripped: Counter "slots_stripped",
    /// Records that this process's trims let go.
    RecordsTrimmed: Counter "records_trimmed",
    /// Slices that were not merged when upkeep last ran…
    SlicesUnmerged: Gauge "unmerged_slices",
    /// … their bytes, about…
    BytesUnmerged: Gauge "unmerged_bytes",
    /// … and how long ago the oldest of them was appended, ms.
    UnmergedAgeMs: Gauge "unmerged_age_ms",
    /// Index rows that this process deleted, since all their records were trimmed.
    RowsTrimmed: Counter "rows_trimmed",
    /// Records that this process's merges folded.
    RecordsMerged: Counter "records_merged",
    /// Bytes of the merged segments that they wrote.
    BytesMerged: Counter "merged_bytes",
    /// Bytes of the merged segments that its rewrites wrote.
    BytesRewritten: Counter "rewritten_bytes",
    /// Bytes of orphans (uploads that no commit names or ever will) that a sweep found, before it deleted them. Those that are
    /// younger than its floor are not among them: nobody knows yet.
    OrphanBytes: Gauge "orphan_bytes",
    /// Objects that this process's sweeps deleted.
    ObjectsSwept: Counter "objects_swept",
    /// Their bytes, as far as they were listed: what is deleted by name is not measured.
    BytesSwept: Counter "swept_bytes",
    /// Partitions that this process came to lead.
    PartitionsTaken: Counter "partitions_taken",
    /// 1 from the fatal error on after which this process refuses the ledger.
    Poisoned: Counter "poisoned",

    /// Records that fetches answered with. Read-ahead counts, whether it is handed out or not.
    RecordsFetched: Counter "records_fetched",
    /// Their bytes, counted as in `BytesSent`.
    BytesFetched: Counter "fetched_bytes",
    /// Row groups that were in the cache.
    CacheHits: Counter "cache_hits",
    /// Row groups that were not.
    CacheMisses: Counter "cache_misses",
    /// A run of row groups got from a segment, verified and decoded: one GET, two if its footer is far away.
    RunUs: Time "run_us",
}

impl Metric {
    /// Name and value of its label, for the metrics that have one. The values are a closed set.
    pub fn label(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::RecordsRefused(error) => Some(("error", error)),
            _ => None,
        }
    }
}

/// How often a metric was told, and what its values come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Total {
    /// Values told: of a [`Kind::Time`], the number of events.
    pub count: u64,
    /// Their sum; of a [`Kind::Gauge`], the newest.
    pub sum: u64,
    /// The largest.
    pub max: u64,
}

/// A hook that adds up. Clones share their totals.
#[derive(Debug, Clone, Default)]
pub struct Totals(Arc<Mutex<BTreeMap<Metric, Total>>>);

impl Totals {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Metric, Total>> {
        // Whole after a panic, too: an entry is three numbers.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The total of one metric.
    pub fn of(&self, metric: Metric) -> Total {
        self.lock().get(&metric).copied().unwrap_or_default()
    }

    /// Every metric that was told so far.
    pub fn all(&self) -> Vec<(Metric, Total)> {
        self.lock().iter().map(|(metric, total)| (*metric, *total)).collect()
    }
}

impl Metrics for Totals {
    fn record(&self, metric: Metric, value: u64) {
        let mut totals = self.lock();
        let total = totals.entry(metric).or_default();
        total.count += 1;
        total.max = total.max.max(value);
        total.sum = match metric.kind() {
            Kind::Gauge => value,
            Kind::Counter | Kind::Time => total.sum.saturating_add(value),
        };
    }
}
