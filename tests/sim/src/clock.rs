//! Virtual time, and what a process sees of it: a clock that is off and jumps, and a gate that holds it up.
#![allow(clippy::disallowed_methods, reason = "the simulator's own clock is tokio's, paused")]

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use tidelog_core::env::Env;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::rng::Rng;

/// The world's true time when a seed begins, ms since 1970.
const EPOCH_MS: u64 = 1_790_000_000_000;

/// Virtual time of a seed.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Begins now. Inside the seed's runtime.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Since the seed began.
    pub fn now(&self) -> Duration {
        self.0.elapsed()
    }

    /// Since the seed began, ms.
    pub fn ms(&self) -> u64 {
        self.now().as_millis() as u64
    }

    /// The world's true wall clock, ms since 1970.
    pub fn wall_ms(&self) -> i64 {
        (EPOCH_MS + self.ms()) as i64
    }
}

/// Waits, in virtual time.
pub async fn sleep_ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// `work`, unless it takes longer.
pub async fn within<T>(ms: u64, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::from_millis(ms), work).await.ok()
}

/// One life of a process: everything it does passes through here.
#[derive(Debug)]
pub struct Gate {
    /// Process and life, for the trace.
    pub name: String,
    clock: Clock,
    frozen_until_ms: AtomicU64,
    cut_until_ms: AtomicU64,
    skew_ms: AtomicI64,
    is_dead: AtomicBool,
    died: Notify,
}

impl Gate {
    /// A process whose wall clock is off by `skew_ms`.
    pub fn new(name: String, clock: Clock, skew_ms: i64) -> Arc<Self> {
        Arc::new(Self {
            name,
            clock,
            frozen_until_ms: AtomicU64::new(0),
            cut_until_ms: AtomicU64::new(0),
            skew_ms: AtomicI64::new(skew_ms),
            is_dead: AtomicBool::new(false),
            died: Notify::new(),
        })
    }

    /// Returns when the process runs; never if it is dead.
    pub async fn pass(&self) {
        loop {
            if self.is_dead.load(SeqCst) {
                return std::future::pending().await;
            }
            let left = self.frozen_until_ms.load(SeqCst).saturating_sub(self.clock.ms());
            if left == 0 {
                return;
            }
            sleep_ms(left).await;
        }
    }

    /// Stops the process for so long.
    pub fn freeze(&self, ms: u64) {
        self.frozen_until_ms.fetch_max(self.clock.ms() + ms, SeqCst);
    }

    /// Cuts its network for so long: it runs, and gets no answers.
    pub fn cut(&self, ms: u64) {
        self.cut_until_ms.fetch_max(self.clock.ms() + ms, SeqCst);
    }

    /// Whether its network is cut.
    pub fn is_cut(&self) -> bool {
        self.clock.ms() < self.cut_until_ms.load(SeqCst)
    }

    /// Ends it: nothing of it ever goes on.
    pub fn kill(&self) {
        self.is_dead.store(true, SeqCst);
        self.died.notify_waiters();
    }

    /// Sets how far its wall clock is off.
    pub fn set_skew(&self, ms: i64) {
        self.skew_ms.store(ms, SeqCst);
    }

    /// Waits for its end.
    pub async fn died(&self) {
        // From before the look: a death after it is not missed.
        let died = self.died.notified();
        if !self.is_dead.load(SeqCst) {
            died.await;
        }
    }

    /// What the process answers; `None`: it died before. A frozen one takes and gives nothing.
    pub async fn ask<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let asked = async {
            self.pass().await;
            let answer = work.await;
            self.pass().await;
            answer
        };
        tokio::select! {
            biased;
            answer = asked => Some(answer),
            () = self.died() => None,
        }
    }
}

/// The [`Env`] of one life of a process.
#[derive(Debug)]
pub struct SimEnv {
    clock: Clock,
    gate: Arc<Gate>,
    rng: Mutex<Rng>,
}

impl SimEnv {
    /// Time and randomness of the process behind `gate`.
    pub fn new(clock: Clock, gate: Arc<Gate>, rng: Rng) -> Arc<Self> {
        Arc::new(Self { clock, gate, rng: Mutex::new(rng) })
    }
}

impl Env for SimEnv {
    fn now_ms(&self) -> i64 {
        self.clock.wall_ms() + self.gate.skew_ms.load(SeqCst)
    }

    fn monotonic(&self) -> Duration {
        self.clock.now()
    }

    fn random_u64(&self) -> u64 {
        self.rng.lock().expect("one thread").draw()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        let gate = self.gate.clone();
        Box::pin(async move {
            tokio::time::sleep(time).await;
            gate.pass().await;
        })
    }
}
