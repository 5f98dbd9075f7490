//! Upkeep: what nobody needs any more goes. Any process may run it, several at once, and be killed anywhere in it.
//!
//! | file | what it is |
//! |---|---|
//! | `trim` | log starts move: by a topic's retention, or because somebody asked |
//! | `merge` | small segments become large ones |
//! | `sweep` | objects that no commit names, or will ever name, are deleted |
//!
//! Only a commit takes records away; what is deleted afterwards is what the ledger does not name. Nothing else in Tidelog
//! deletes or lists objects.

mod merge;
mod sweep;
#[cfg(test)]
mod tests;
mod trim;

use std::sync::{Arc, Mutex, PoisonError};

pub use merge::Merged;
pub use sweep::{Deletion, Reason, Swept};
pub use trim::{BRAKE_GROUP, Overdue, Trim};

use crate::error::{Error, Result};
pub use crate::ledger::Kept;
use crate::ledger::Ledger;
use crate::limits;

/// How long things are kept from deletion. Data only.
#[derive(Debug, Clone)]
pub struct UpkeepSettings {
    /// The floor is a commit at least this old, ms: an upload that takes longer is done again (R3).
    pub sweep_lag_ms: u64,
    /// What a commit let go is kept this long, ms: readers may hold an older view.
    pub read_lag_ms: u64,
}

impl Default for UpkeepSettings {
    fn default() -> Self {
        Self { sweep_lag_ms: limits::SWEEP_LAG_MS, read_lag_ms: limits::READ_LAG_MS }
    }
}

/// Trims and sweeps one log. Cheap to clone; the clones share what they know.
#[derive(Debug, Clone)]
pub struct Upkeep {
    ledger: Ledger,
    settings: UpkeepSettings,
    /// The commit and the horizon as of which there was nothing to sweep.
    clean: Arc<Mutex<Option<sweep::Horizon>>>,
}

/// What one run did.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// Log starts that were moved.
    pub trimmed: Vec<Trim>,
    /// Those that must wait, since the clock may be wrong; see [`Overdue::held`].
    pub held: Vec<Trim>,
    /// Checkpoint and strip, if one was due.
    pub kept: Kept,
    /// What was deleted.
    pub swept: Swept,
}

impl Upkeep {
    /// Upkeep of the log behind `ledger`.
    pub fn new(ledger: Ledger, settings: UpkeepSettings) -> Self {
        Self { ledger, settings, clean: Arc::default() }
    }

    /// All of it: forgets silent producers and groups, trims by retention, checkpoints and strips if that is due, sweeps.
    /// `tell` hears of each deletion after it is done.
    ///
    /// # Errors
    /// Those of the ledger and of the object store. What was done is done; the next run goes on.
    pub async fn run(&self, tell: impl FnMut(&Deletion)) -> Result<Run> {
        self.ledger.expire().await?;
        let overdue = self.overdue().await?;
        self.announce(&overdue.held).await?;
        self.trim(&overdue.trims).await?;
        let kept = self.ledger.keep_short().await?;
        let swept = self.sweep(tell).await?;
        Ok(Run { trimmed: overdue.trims, held: overdue.held, kept, swept })
    }

    fn clean(&self) -> std::sync::MutexGuard<'_, Option<sweep::Horizon>> {
        // One value, replaced whole.
        self.clean.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Own clock or the store's, whichever is behind: a clock that is ahead must not delete.
    fn now_ms(&self) -> i64 {
        let chain = &self.ledger.chain;
        chain.now_ms().min(chain.env.now_ms())
    }
}

/// Somebody else was faster, or the topic is gone: look again.
fn is_superseded(error: &Error) -> bool {
    matches!(error, Error::Superseded { .. } | Error::UnknownTopic { .. })
}
