//! Ctrl-C: the first one asks a command to end in order, the second ends the process.

use tokio::sync::watch;

use crate::tell::tell;

/// The exit code of a command that was interrupted: 128 and the number of the signal, as shells have it.
pub const INTERRUPTED: u8 = 130;

/// Hears of the first Ctrl-C.
#[derive(Debug)]
pub struct Interrupts(watch::Receiver<bool>);

impl Interrupts {
    /// From here on Ctrl-C does not end the process at once; the second one does. `words` are said at the first.
    pub fn listen(words: Option<&'static str>) -> Self {
        let (told, hear) = watch::channel(false);
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                told.send_replace(true);
                if let Some(words) = words {
                    tell(words);
                }
                if tokio::signal::ctrl_c().await.is_ok() {
                    std::process::exit(INTERRUPTED.into());
                }
            }
            // The other end would take a dropped sender for news.
            std::future::pending::<()>().await;
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
