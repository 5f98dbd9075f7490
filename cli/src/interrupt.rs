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
        tokio::spawn(async move {
            asked().await;
            told.send_replace(true);
            if let Some(words) = words {
                tell(words);
            }
            asked().await;
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

/// Waits for one of the two.
async fn asked() {
    tokio::select! {
        () = interrupted() => {}
        () = terminated() => {}
    }
}

async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}

#[cfg(unix)]
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut signals) => drop(signals.recv().await),
        Err(_) => std::future::pending().await,
    }
}

#[cfg(not(unix))]
async fn terminated() {
    std::future::pending().await
}
