//! What the project asks of its speed and size, beside what was measured: a line each, which `bench/run` collects.

use std::fmt;

/// On which side of it a measurement should lie.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Target {
    /// Whether `measured` holds it.
    pub fn holds(self, measured: f64) -> bool {
        match self {
            Self::AtLeast(limit) => measured >= limit,
            Self::AtMost(limit) => measured <= limit,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(limit) => write!(f, "at least {limit}"),
            Self::AtMost(limit) => write!(f, "at most {limit}"),
        }
    }
}

/// Prints the line of one target: `target | holds | what | measured | at least 0.8`.
pub fn check(what: &str, measured: f64, target: Target) {
    let word = if target.holds(measured) { "holds" } else { "MISSED" };
    let digits = if measured < 10.0 { 3 } else { 1 };
    println!("target | {word:<6} | {what:<58} | {measured:>9.digits$} | {target}");
}
