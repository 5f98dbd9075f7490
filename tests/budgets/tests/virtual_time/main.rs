//! Latencies and request rates in virtual time: PUT 50 ms, GET 20 ms, table 5 ms. Every number is printed, and is the same
//! at every run.
#![allow(clippy::disallowed_methods, reason = "the clock is tokio's, paused")]

mod acks;
mod contention;
mod idle;
mod tail;
mod upkeep;

use tidelog_core::Record;

/// A record that is too large to ride inside its commit.
pub fn segment_record(n: usize) -> Record {
    Record::value(format!("{n:08}{}", "x".repeat(5_000)))
}

/// One that rides inside.
pub fn small_record(n: usize) -> Record {
    Record::value(format!("{n:08}{}", "x".repeat(100)))
}

/// Prints a measurement and refuses one above its limit.
#[track_caller]
pub fn at_most(what: &str, measured: f64, limit: f64) {
    println!("{what}: {measured:.2} (at most {limit:.2})");
    assert!(measured <= limit, "{what}: {measured:.3}, at most {limit:.3}");
}
