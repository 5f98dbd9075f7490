//! Ctrl-C and, from service managers and containers, SIGTERM: the first asks a command to end in order, the second ends the
//! process.

use tokio::sync::watch;

use crate::tell::tell;

/// The exit code of a command that was interrupted: 128 and the number of SIGINT, as shells have it.
pub const INTERRUPTED: u8 = 130;

/// Hears of the first Ctrl-C or SIGTERM.
#[derive(Debug)]
pub struct Interrupts(watch::Receiver<bool>);

impl Interrupts {
    /// From here on neither ends the process at once; the second one does. `words` are said at the first.
    pub fn listen(words: Option<&'static str>) -> Self {
        let (told, hear) = watch::channel(false);
        // Asked for once and before the words: the second may come as soon as somebody has read them.
        let mut signals = Signals::ask();
        tokio::spawn(async move {
            signals.next().await;
            told.send_replace(true);
            if let Some(words) = words {
                tell(words);
            }
            signals.next().await;
            std::process::exit(INTERRUPTED.into());
        });
        Self(hear)
    }

    /// Whether there was one.
    pub fn is_told(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for the first.
    pub async fn told(&mut self) {
        if self.0.wait_for(|told| *told).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Both signals, from when they were asked for: none between two calls of `next` is missed.
#[cfg(unix)]
struct Signals([Option<tokio::signal::unix::Signal>; 2]);

#[cfg(unix)]
impl Signals {
    fn ask() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self([SignalKind::interrupt(), SignalKind::terminate()].map(|kind| signal(kind).ok()))
    }

    async fn next(&mut self) {
        let [interrupted, terminated] = &mut self.0;
        tokio::select! {
            () = received(interrupted) => {}
            () = received(terminated) => {}
        }
    }
}

#[cfg(unix)]
async fn received(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn ask() -> Self {
        Self
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}
