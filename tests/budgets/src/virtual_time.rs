//! Virtual time: tokio's clock, paused, jumps to the next thing that is waited for. Computing takes none of it, so what is
//! timed is waiting alone, and one seed gives one result.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use tidelog_core::env::Env;
use tidelog_core::table::{Consistency, Item, Page, Put, SharedTable, Table, TableResult};
use tokio::time::Instant;

/// Wall clock at the start, ms since 1970.
const EPOCH_MS: i64 = 1_790_000_000_000;

/// Random numbers of a seed: SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug)]
pub struct Draws(Mutex<u64>);

impl Draws {
    /// Those of a seed. Neighbours must not be one sequence begun at different places, so the seed is mixed first.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(mixed(seed.wrapping_add(1))))
    }

    /// 64 bits.
    pub fn bits(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(*state)
    }

    /// In [0, 1).
    pub fn unit(&self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Until the next event, where there are `rate` a second and none knows of another.
    pub fn gap(&self, rate: f64) -> Duration {
        Duration::from_secs_f64(-(1.0 - self.unit()).ln() / rate)
    }

    /// Standard normal, by Box and Muller.
    fn normal(&self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

fn mixed(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A process's time and chance.
#[derive(Debug)]
pub struct VirtualEnv {
    start: Instant,
    start_ms: i64,
    draws: Draws,
}

impl VirtualEnv {
    /// All of one world have one start.
    pub fn new(start: Instant, seed: u64) -> Arc<Self> {
        Self::since(start, EPOCH_MS, seed)
    }

    /// With a wall clock that said `start_ms` at the start.
    pub fn since(start: Instant, start_ms: i64, seed: u64) -> Arc<Self> {
        Arc::new(Self { start, start_ms, draws: Draws::new(seed) })
    }
}

impl Env for VirtualEnv {
    fn now_ms(&self) -> i64 {
        self.start_ms + self.monotonic().as_millis() as i64
    }
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
    fn random_u64(&self) -> u64 {
        self.draws.bits()
    }
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }
}

/// How long one kind of request takes: log-normal around its median, `sigma` of the logarithm.
#[derive(Debug)]
pub struct Delay {
    median_ms: f64,
    sigma: f64,
    draws: Draws,
}

impl Delay {
    /// `sigma` 0: always the same.
    pub fn new(median_ms: f64, sigma: f64, seed: u64) -> Self {
        Self { median_ms, sigma, draws: Draws::new(seed) }
    }

    /// Draws one, waits the first half of it, does the work, waits the rest. Whole milliseconds: tokio's timers have no
    /// others, and would round each half up.
    pub async fn around<T>(&self, work: impl Future<Output = T>) -> T {
        let ms = (self.median_ms * (self.sigma * self.draws.normal()).exp()).round() as u64;
        tokio::time::sleep(Duration::from_millis(ms / 2)).await;
        let done = work.await;
        tokio::time::sleep(Duration::from_millis(ms - ms / 2)).await;
        done
    }
}

/// A table whose requests take time.
#[derive(Debug)]
pub struct SlowTable {
    inner: SharedTable,
    delay: Delay,
}

impl SlowTable {
    /// `inner`, later.
    pub fn new(inner: SharedTable, delay: Delay) -> Self {
        Self { inner, delay }
    }
}

#[async_trait]
impl Table for SlowTable {
    fn name(&self) -> &str {
        self.inner.name()
    }
    async fn put_if_absent(&self, pk: &str, item: &Item) -> TableResult<Put> {
        self.delay.around(self.inner.put_if_absent(pk, item)).await
    }
    async fn get(&self, pk: &str, sk: u64, consistency: Consistency) -> TableResult<Option<Item>> {
        self.delay.around(self.inner.get(pk, sk, consistency)).await
    }
    async fn newest(&self, pk: &str, to: u64, consistency: Consistency) -> TableResult<Option<Item>> {
        self.delay.around(self.inner.newest(pk, to, consistency)).await
    }
    async fn range(&self, pk: &str, from: u64, limit: usize, consistency: Consistency) -> TableResult<Page> {
        self.delay.around(self.inner.range(pk, from, limit, consistency)).await
    }
    async fn replace_if(&self, pk: &str, item: &Item, expect: u128) -> TableResult<bool> {
        self.delay.around(self.inner.replace_if(pk, item, expect)).await
    }
    async fn delete_if(&self, pk: &str, sk: u64, expect: u128) -> TableResult<bool> {
        self.delay.around(self.inner.delete_if(pk, sk, expect)).await
    }
}

/// A store of objects whose PUTs and GETs take time.
#[derive(Debug)]
pub struct SlowStore {
    inner: Arc<dyn ObjectStore>,
    put: Delay,
    get: Delay,
}

impl SlowStore {
    /// `inner`, later.
    pub fn new(inner: Arc<dyn ObjectStore>, put: Delay, get: Delay) -> Self {
        Self { inner, put, get }
    }
}

impl fmt::Display for SlowStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for SlowStore {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        self.put.around(self.inner.put_opts(path, payload, options)).await
    }
    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }
    async fn get_opts(&self, path: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.get.around(self.inner.get_opts(path, options)).await
    }
    fn delete_stream(
        &self,
        paths: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(paths)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
