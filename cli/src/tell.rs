//! What goes to stderr beside a progress bar: a command's own words, and what `--log` asks to see of the log's events.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use clap::ValueEnum;
use indicatif::ProgressBar;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// The bar that is on the screen.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Which events are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Nothing
    Off,
    /// The ledger is refused from here on
    Error,
    /// What cannot be done now, and is tried again
    Warn,
    /// Leaders that change
    Info,
    /// Each flush, commit, cold start and checkpoint with its time; lost races
    Debug,
    /// All there is
    Trace,
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Off => Self::OFF,
            Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
            Level::Trace => Self::TRACE,
        }
    }
}

/// Shows the log's events up to `level` from here on. Spans are shown when they end.
pub fn start(level: Level) {
    if level == Level::Off {
        return;
    }
    let shown = tracing_subscriber::fmt().with_max_level(level).with_span_events(FmtSpan::CLOSE);
    // Fails only if there is one already, and `main` calls this once.
    let _ = shown.with_writer(|| Stderr).try_init();
}

/// From here on, `bar` steps aside for what is told.
pub fn beside(bar: &ProgressBar) {
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
}

/// Says a line.
pub fn tell(words: &str) {
    // Nobody may be there to read it.
    let _ = Stderr.write_all(format!("{words}\n").as_bytes());
}

/// Standard error, a progress bar aside. An event is written in one piece.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let write = || io::stderr().write_all(bytes).map(|()| bytes.len());
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
