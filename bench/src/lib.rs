//! What the benchmarks share: lines to measure with, and paired, alternating runs.
//!
//! | binary | measures |
//! |---|---|
//! | `segment` | encode and decode of L0 segments against bare `parquet` with the same properties |
//! | `allocations` | heap allocations a record |

use std::time::{Duration, Instant};

pub mod lines;

/// Times of two things done in turn: first and second change places every round, so that drift hits both alike.
#[derive(Debug, Default)]
pub struct Paired {
    ours: Vec<Duration>,
    bare: Vec<Duration>,
}

impl Paired {
    /// Runs both once to warm up, then `rounds` times.
    pub fn run(rounds: usize, mut ours: impl FnMut(), mut bare: impl FnMut()) -> Self {
        let mut times = Self::default();
        ours();
        bare();
        for round in 0..rounds {
            if round % 2 == 0 {
                times.ours.push(time(&mut ours));
                times.bare.push(time(&mut bare));
            } else {
                times.bare.push(time(&mut bare));
                times.ours.push(time(&mut ours));
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

    /// Median times in seconds, ours and bare.
    pub fn medians(&self) -> (f64, f64) {
        let seconds = |times: &[Duration]| median(times.iter().map(Duration::as_secs_f64).collect());
        (seconds(&self.ours), seconds(&self.bare))
    }
}

#[allow(clippy::disallowed_methods, reason = "a benchmark looks at the clock")]
fn time(f: &mut impl FnMut()) -> Duration {
    let start = Instant::now();
    f();
    start.elapsed()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
