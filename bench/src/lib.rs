//! What the benchmarks share: lines to measure with, bare Parquet to compare with, and paired, alternating runs.
//!
//! | bench | measures |
//! |---|---|
//! | `segment` | encode and decode of L0 segments against bare `parquet` with the same properties |
//! | `append` | the producer, acks included, against bare encode of the same rows |
//! | `catchup` | fetch from a folder against reading and decoding the same files with bare `parquet` |
//! | `cold` | opening a log: many partitions, many commits, many unmerged slices; bytes of a checkpoint |
//! | `allocations` | heap allocations a record; a binary of its own, for its allocator |
//!
//! `bench/run` runs them all and says which targets hold.

use std::time::{Duration, Instant};

pub mod bare;
pub mod histories;
pub mod lines;
pub mod options;
pub mod targets;

/// What a bench can fail with.
pub type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Times of two things done in turn: first and second change places every round, so that drift hits both alike.
#[derive(Debug, Default)]
pub struct Paired {
    ours: Vec<Duration>,
    bare: Vec<Duration>,
}

impl Paired {
    /// Runs both once to warm up, then `rounds` times.
    pub fn run(rounds: usize, mut ours: impl FnMut(), mut bare: impl FnMut()) -> Self {
        Self::timed(rounds, || clock(&mut ours), || clock(&mut bare))
    }

    /// Like [`Paired::run`], of things that look at the clock themselves because they begin with something uncounted.
    pub fn timed(
        rounds: usize,
        mut ours: impl FnMut() -> Duration,
        mut bare: impl FnMut() -> Duration,
    ) -> Self {
        let mut times = Self::default();
        ours();
        bare();
        for round in 0..rounds {
            if round % 2 == 0 {
                times.ours.push(ours());
                times.bare.push(bare());
            } else {
                times.bare.push(bare());
                times.ours.push(ours());
            }
        }
        times
    }

    /// Median of the rounds' bare time / our time: 1 is as fast as bare, 0.9 a tenth slower.
    pub fn ratio(&self) -> f64 {
        let ratios =
            self.bare.iter().zip(&self.ours).map(|(bare, ours)| bare.as_secs_f64() / ours.as_secs_f64());
        median(ratios.collect())
    }

    /// Fastest bare time / our fastest time: what is left of the ratio when the machine has other work.
    pub fn ratio_of_fastest(&self) -> f64 {
        let fastest = |times: &[Duration]| times.iter().min().copied().unwrap_or_default().as_secs_f64();
        fastest(&self.bare) / fastest(&self.ours)
    }

    /// Median times in seconds, ours and bare.
    pub fn medians(&self) -> (f64, f64) {
        let seconds = |times: &[Duration]| median(times.iter().map(Duration::as_secs_f64).collect());
        (seconds(&self.ours), seconds(&self.bare))
    }
}

/// How long `f` takes.
#[allow(clippy::disallowed_methods, reason = "a benchmark looks at the clock")]
pub fn clock<T>(f: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    drop(std::hint::black_box(f()));
    start.elapsed()
}

/// The middle one. Panics if there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
