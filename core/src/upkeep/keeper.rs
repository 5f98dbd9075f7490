//! Upkeep beside writing: processes that lead keep the log, one of them at a time.

use std::time::Duration;

use super::Upkeep;
use crate::error::Error;
use crate::ledger::lead;
use crate::limits;

impl Upkeep {
    /// Runs again and again while `lives` says so, as long as this process is the first of those that lead; at once where a run was
    /// long enough and has more to do. Ends where it has not the right to: then upkeep is somebody else's.
    pub(crate) async fn keep(self, lives: impl Fn() -> bool) {
        let (chain, mut goes_on) = (self.ledger.chain.clone(), false);
        loop {
            // Not all at once.
            if !std::mem::take(&mut goes_on) {
                let pause_ms = limits::KEEP_EVERY_MS / 2 + chain.env.random_u64() % limits::KEEP_EVERY_MS;
                chain.env.sleep(Duration::from_millis(pause_ms)).await;
            }
            if !lives() {
                return;
            }
            let is_keeper = chain.with_leaders(|view, seen, now| lead::is_keeper(view, seen, chain.who, now));
            if !is_keeper {
                continue;
            }
            match self.run(|_| {}).await {
                Ok(run) => goes_on = run.more,
                Err(error @ Error::CannotOpen { .. }) => {
                    tracing::info!(%error, "this process leaves upkeep to others");
                    return;
                }
                Err(Error::Poisoned { .. }) => return,
                Err(error) => tracing::warn!(%error, "upkeep did not finish; the next run goes on"),
            }
        }
    }
}
