//! Processes on one store, each with clock, network and counters of its own.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use tidelog_core::Log;
use tidelog_core::counting::{CountingStore, CountingTable, ObjectCounts, TableCounts};
use tidelog_core::env::SharedEnv;
use tidelog_core::ledger::Settings;
use tidelog_core::metrics::Totals;
use tidelog_core::objects::Objects;
use tidelog_core::store::{Place, Store, StoreUrl};
use tidelog_core::table::{MemoryTable, SharedTable};
use tokio::time::Instant;

use crate::virtual_time::{Delay, SlowStore, SlowTable, VirtualEnv};

/// Milliseconds that requests take, and the spread of the PUTs.
#[derive(Debug, Clone, Copy)]
pub struct Latencies {
    /// Median of a PUT.
    pub put_ms: f64,
    /// `sigma` of the PUTs' logarithm.
    pub put_sigma: f64,
    /// A GET or HEAD.
    pub get_ms: f64,
    /// Any request to the table.
    pub table_ms: f64,
}

/// What the targets are about.
pub const S3: Latencies = Latencies { put_ms: 50.0, put_sigma: 0.0, get_ms: 20.0, table_ms: 5.0 };
/// The same with the tail of S3: p99 some 2.5 times the median.
pub const S3_TAIL: Latencies = Latencies { put_sigma: 0.4, ..S3 };
/// The same with a heavy tail: p99 some 8 times the median.
pub const S3_HEAVY_TAIL: Latencies = Latencies { put_sigma: 0.9, ..S3 };

/// One store in memory.
#[derive(Debug)]
pub struct World {
    /// When it began.
    pub start: Instant,
    latencies: Latencies,
    table: SharedTable,
    objects: Arc<dyn ObjectStore>,
}

/// One process.
#[derive(Debug)]
pub struct Process {
    /// Its log.
    pub log: Log,
    /// What it asked of the table.
    pub table: CountingTable,
    /// What it asked of the objects.
    pub objects: CountingStore,
    /// What happened in it.
    pub totals: Totals,
}

impl World {
    /// An empty one. Inside a paused runtime.
    pub fn new(latencies: Latencies) -> Self {
        let (table, objects) = (Arc::new(MemoryTable::new()), Arc::new(InMemory::new()));
        Self { start: Instant::now(), latencies, table, objects }
    }

    /// Its stores as the process `seed` sees them, over its own network.
    pub fn stores(&self, seed: u64) -> (SharedEnv, SharedTable, Arc<dyn ObjectStore>) {
        let Latencies { put_ms, put_sigma, get_ms, table_ms } = self.latencies;
        let env = VirtualEnv::new(self.start, seed);
        let table = SlowTable::new(self.table.clone(), Delay::new(table_ms, 0.0, seed));
        let (put, get) = (Delay::new(put_ms, put_sigma, seed + 1_000), Delay::new(get_ms, 0.0, seed));
        (env, Arc::new(table), Arc::new(SlowStore::new(self.objects.clone(), put, get)))
    }

    /// A process that makes checkpoints as usual, or none.
    pub async fn process(&self, seed: u64, checkpoints: bool) -> Process {
        let (env, table, objects) = self.stores(seed);
        let url = StoreUrl { place: Place::Memory, era: 0 };
        Process::open(env, table, objects, url, checkpoints).await
    }

    /// Virtual time since its beginning.
    pub fn now(&self) -> std::time::Duration {
        self.start.elapsed()
    }
}

impl Process {
    /// Opens, or begins, the log on these stores.
    pub async fn open(
        env: SharedEnv,
        table: SharedTable,
        objects: Arc<dyn ObjectStore>,
        url: StoreUrl,
        checkpoints: bool,
    ) -> Self {
        let (table, objects) = (CountingTable::new(table), CountingStore::new(objects));
        let settings = match checkpoints {
            true => Settings::default(),
            false => Settings { checkpoint_commits: 0, ..Settings::default() },
        };
        let store = Store {
            table: Arc::new(table.clone()),
            objects: Objects::remote(Arc::new(objects.clone()), env.clone()),
            url,
        };
        let totals = Totals::default();
        let builder = Log::builder().env(env).settings(settings).metrics(Arc::new(totals.clone()));
        let log = builder.open_store(store).await.expect("it opens");
        Self { log, table, objects, totals }
    }

    /// Its counts so far.
    pub fn counts(&self) -> (ObjectCounts, TableCounts) {
        (self.objects.counts(), self.table.counts())
    }

    /// What `work` asks of the stores.
    pub async fn cost<T>(&self, work: impl Future<Output = T>) -> (T, ObjectCounts, TableCounts) {
        let before = self.counts();
        let done = work.await;
        let after = self.counts();
        (done, after.0.since(&before.0), after.1.since(&before.1))
    }
}
