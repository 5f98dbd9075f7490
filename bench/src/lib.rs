//! What the benchmarks share: lines to measure with, bare Parquet to compare with, and paired, alternating runs.
//!
//! | bench | measures |
//! |---|---|
//! | `segment` | encode and decode of L0 segments against bare `parquet` with the same properties |
//! | `append` | the producer, acks included, against bare encode of the same rows |
//! | `catchup` | fetch from a folder against reading and decoding the same files with bare `parquet` |
//! | `cold` | opening a log: many partitions, many commits, many unmerged slices; bytes of a checkpoint |
//! | `merge` | merge against bare decode and encode, its memory, bytes written by upkeep, catch-up over merged segments |
//! | `s3` | acks (also beside merges: `beside-merge` alone), one partition and 256 flat out, catch-up, on the S3 server of the tests with S3's latencies |
//! | `functions` | the functions' binaries: init, first and warm answers, memory at rest |
//! | `allocations` | heap allocations a record; a binary of its own, for its allocator |
//!
//! `bench/run` runs those up to `merge` and `allocations`, `bench/s3` and `bench/functions` the others; each says which
//! targets hold.

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
    /// Processor time of all rounds, ours and bare.
    cpu: (Duration, Duration),
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
                times.ours.push(with_cpu(&mut times.cpu.0, &mut ours));
                times.bare.push(with_cpu(&mut times.cpu.1, &mut bare));
            } else {
                times.bare.push(with_cpu(&mut times.cpu.1, &mut bare));
                times.ours.push(with_cpu(&mut times.cpu.0, &mut ours));
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

    /// Bare processor time / ours, of all rounds together, whatever is not counted in a round included: what can be said
    /// while the machine has other work.
    pub fn ratio_of_cpu(&self) -> f64 {
        self.cpu.1.as_secs_f64() / self.cpu.0.as_secs_f64()
    }

    /// Median times in seconds, ours and bare.
    pub fn medians(&self) -> (f64, f64) {
        let seconds = |times: &[Duration]| median(times.iter().map(Duration::as_secs_f64).collect());
        (seconds(&self.ours), seconds(&self.bare))
    }
}

fn with_cpu(cpu: &mut Duration, run: &mut impl FnMut() -> Duration) -> Duration {
    let before = cpu_time();
    let time = run();
    *cpu += cpu_time().saturating_sub(before);
    time
}

/// Processor time of this process's living threads, from Linux's scheduler; 0 where there is none.
fn cpu_time() -> Duration {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return Duration::ZERO };
    let time = |thread: std::fs::DirEntry| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    };
    threads.flatten().filter_map(time).sum()
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
