//! The door to time, randomness and ids. Nothing else in the core may ask for them (see `clippy.toml`), so the
//! simulator owns all three.

use std::fmt::Debug;
use std::io;
use std::num::NonZero;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::runtime::{self, Handle, Runtime, RuntimeFlavor};
use tokio::task::JoinHandle;

use crate::limits;

/// Time, randomness and waiting.
pub trait Env: Debug + Send + Sync + 'static {
    /// Wall clock: milliseconds since 1970, UTC. May jump; nothing that must be right depends on it (L2).
    fn now_ms(&self) -> i64;
    /// Time since some start that never goes back. For waits and ages.
    fn monotonic(&self) -> Duration;
    /// 64 random bits.
    fn random_u64(&self) -> u64;
    /// Waits.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()>;
}

/// A shared [`Env`].
pub type SharedEnv = Arc<dyn Env>;

/// 128 random bits: a commit id, a topic id, a store id.
pub fn random_u128(env: &dyn Env) -> u128 {
    (u128::from(env.random_u64()) << 64) | u128::from(env.random_u64())
}

/// The machine's own clock, random numbers and timers.
#[derive(Debug)]
pub struct SystemEnv {
    start: std::time::Instant,
}

impl SystemEnv {
    /// A shared system environment.
    #[allow(clippy::disallowed_methods, reason = "this is the door")]
    pub fn shared() -> SharedEnv {
        Arc::new(Self { start: std::time::Instant::now() })
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the door")]
impl Env for SystemEnv {
    fn now_ms(&self) -> i64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn random_u64(&self) -> u64 {
        // The operating system's generator: a frozen and copied process (Lambda) must not repeat ids.
        getrandom::u64().expect("the operating system has random numbers")
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }
}

/// Runs heavy work (encoding, decoding) off the async threads where there are several, in place where there is one:
/// the simulator has one, and so keeps its order.
///
/// There are as many threads for it as cores, and [`limits::HEAVY_THREADS_MIN`] at least, whoever asks: no more could work
/// at once, and each keeps much of what it freed, since the C library gives each thread a heap of its own.
pub async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    /// Never driven: it is for its threads.
    static HEAVY: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = cores.max(limits::HEAVY_THREADS_MIN);
        runtime::Builder::new_current_thread().max_blocking_threads(threads).build()
    });
    if is_alone() {
        return work();
    }
    match &*HEAVY {
        Ok(heavy) => done(heavy.spawn_blocking(work)).await,
        Err(_) => done(tokio::task::spawn_blocking(work)).await,
    }
}

/// Runs what waits, for a disk say, off the async threads where there are several.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    if is_alone() { work() } else { done(tokio::task::spawn_blocking(work)).await }
}

fn is_alone() -> bool {
    Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread
}

async fn done<T>(task: JoinHandle<T>) -> T {
    match task.await {
        Ok(value) => value,
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down: nobody will see the answer.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[allow(clippy::disallowed_methods, reason = "what keeps a thread busy is looked at")]
    async fn heavy_work_has_no_more_threads_than_cores() {
        let work = || {
            std::thread::sleep(Duration::from_millis(20));
            format!("{:?}", std::thread::current().id())
        };
        let all = futures::future::join_all((0..40).map(|_| offload(work))).await;
        let threads = all.into_iter().collect::<BTreeSet<_>>().len();
        let cores = std::thread::available_parallelism().unwrap().get();
        assert!(threads <= cores.max(limits::HEAVY_THREADS_MIN), "{threads} threads");
        assert!(threads >= limits::HEAVY_THREADS_MIN, "{threads} threads");
    }
}
