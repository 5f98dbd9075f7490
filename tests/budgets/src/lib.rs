//! What tests of cost and time need.
//!
//! | module | what it is |
//! |---|---|
//! | [`virtual_time`] | a clock that jumps to whatever is waited for, and stores in memory that take their time by it |
//! | [`meter`] | DynamoDB's own bill: a proxy that asks it for the units of each request |
//! | [`world`] | processes on one store, each with its counters |
//!
//! | test | what it asserts |
//! |---|---|
//! | `virtual_time` | acks, tails, conflicts, reads a second, an idle hour: the same numbers at every run |
//! | `counted` | each line of DESIGN §9 but merge's, on the requests that S3 and DynamoDB get |
#![allow(
    clippy::disallowed_methods,
    reason = "the clock is tokio's, paused; the meter is a server for tests"
)]

pub mod meter;
pub mod virtual_time;
pub mod world;

use std::time::Duration;

/// Times in order, for quantiles.
#[derive(Debug, Clone, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Sorts them. Panics if there are none.
    pub fn new(mut times: Vec<Duration>) -> Self {
        assert!(!times.is_empty(), "nothing was timed");
        times.sort();
        Self(times)
    }

    /// Their mean, in milliseconds.
    pub fn mean_ms(&self) -> f64 {
        self.0.iter().sum::<Duration>().as_secs_f64() * 1e3 / self.0.len() as f64
    }

    /// The quantile `q`, 0 to 1, in milliseconds.
    pub fn ms(&self, q: f64) -> f64 {
        let place = ((self.0.len() as f64 * q).ceil() as usize).clamp(1, self.0.len()) - 1;
        self.0[place].as_secs_f64() * 1e3
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (p50, p99) = (self.ms(0.5), self.ms(0.99));
        write!(f, "p50 {p50:.1} ms, p99 {p99:.1} ms, most {:.1} ms, of {}", self.ms(1.0), self.0.len())
    }
}
