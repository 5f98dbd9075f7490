//! Upkeep: what nobody needs any more goes. Any process may run it, several at once, and be killed anywhere in it.
//!
//! | file | what it is |
//! |---|---|
//! | `trim`, `size` | log starts move: by a topic's retention (time, bytes), or because somebody asked |
//! | `keeper` | it runs beside writing, in one process of those that lead |
//! | `due` | which topics are to be merged now |
//! | `merge` | small segments become merged ones |
//! | `rewrite` | small merged segments become large ones |
//! | `rows` | index rows: which objects they name, and which of them nobody needs |
//! | `sweep` | objects that nothing names, or will ever name, are deleted |
//!
//! Only a commit takes records away; what is deleted afterwards is what the ledger does not name. Nothing else in Tidelog
//! deletes or lists objects.

mod due;
mod keeper;
mod merge;
mod rewrite;
mod rows;
mod size;
mod sweep;
#[cfg(test)]
mod tests;
mod trim;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{self, BoxFuture};
use futures::{StreamExt, TryStreamExt, stream};

pub use due::{Due, Unmerged};
pub use merge::Merged;
pub use rewrite::Rewritten;
pub use sweep::{Deletion, Reason, Sweep, Swept};
pub use trim::{BRAKE_GROUP, Overdue, Trim, Why};

use crate::error::{Error, Result};
pub use crate::ledger::Kept;
use crate::ledger::Ledger;
use crate::ledger::action::ObjectRef;
use crate::ledger::view::View;
use crate::limits;
use crate::record::{Offset, TopicId};

/// How long things are kept from deletion. Data only.
#[derive(Debug, Clone)]
pub struct UpkeepSettings {
    /// The floor is a commit at least this old, ms: an upload that takes longer is done again (R3).
    pub sweep_lag_ms: u64,
    /// What a commit let go is kept this long, ms: readers may hold an older view.
    pub read_lag_ms: u64,
    /// What a rewrite makes is sent in parts of so many bytes if it is larger.
    pub part_bytes: usize,
    /// A look at all there is asks whether there is time left each time it looked at so many merged segments.
    pub list_page: u64,
}

impl Default for UpkeepSettings {
    fn default() -> Self {
        Self {
            sweep_lag_ms: limits::SWEEP_LAG_MS,
            read_lag_ms: limits::READ_LAG_MS,
            part_bytes: limits::UPLOAD_PART_BYTES,
            list_page: limits::LIST_PAGE,
        }
    }
}

/// Merges, trims and sweeps one log. Cheap to clone; the clones share what they know.
#[derive(Debug, Clone)]
pub struct Upkeep {
    ledger: Ledger,
    settings: UpkeepSettings,
    memory: Arc<Mutex<Memory>>,
    /// Whoever encodes: one at a time, so that it takes one core and no more.
    encoding: Arc<tokio::sync::Mutex<()>>,
    /// After so long a run begins nothing more.
    run_max: Option<Duration>,
}

/// What a process knows of earlier runs, and so need not look up again. Nothing rests on it: it only saves requests.
#[derive(Debug, Default)]
struct Memory {
    /// The commit and the horizon as of which there was nothing to sweep in all there is.
    clean: Option<sweep::Horizon>,
    /// How far a look at all there is came that stopped.
    round: Option<sweep::Round>,
    /// When this run begins nothing more, by the monotonic clock.
    until: Option<Duration>,
    /// When the last sweep was, ms.
    swept_ms: Option<i64>,
    /// When all there is is to be looked at next, ms.
    whole_ms: Option<i64>,
    /// The checkpoint as of which no older ones are left.
    checkpoint: Option<u64>,
    /// Objects that were let go, or put and not yet named, and are not deleted yet; merged segments with their hour.
    let_go: BTreeMap<ObjectRef, Option<rewrite::Hour>>,
    /// What is left to be done about rows below log starts.
    fronts: BTreeMap<(TopicId, u32), rows::Front>,
    /// As of a log start: the first merged records.
    oldest: BTreeMap<(TopicId, u32), (Offset, trim::Oldest)>,
    /// Hours that may have merged segments to be rewritten.
    hours: BTreeMap<rewrite::Hour, rewrite::Noted>,
}

impl Memory {
    /// Forgets topics that are gone.
    fn keep(&mut self, view: &View) {
        self.fronts.retain(|(topic, _), _| view.topics.contains_key(topic));
        self.oldest.retain(|(topic, _), _| view.topics.contains_key(topic));
        self.hours.retain(|(topic, _), _| view.topics.contains_key(topic));
    }

    /// What a run sweeps now. A time that is further off than it can be was told by a clock that was wrong.
    fn sweep_due(&mut self, now_ms: i64) -> Option<Sweep> {
        let whole_ms = *self.whole_ms.get_or_insert(now_ms + limits::WHOLE_SWEEP_FIRST_MS);
        let waits = |until_ms: i64, pause_ms: i64| (until_ms - pause_ms..until_ms).contains(&now_ms);
        if !waits(whole_ms, limits::WHOLE_SWEEP_EVERY_MS) {
            return Some(Sweep::Whole);
        }
        let swept =
            self.swept_ms.is_some_and(|at| waits(at + limits::SWEEP_EVERY_MS, limits::SWEEP_EVERY_MS));
        (!swept).then_some(Sweep::LetGo)
    }

    fn sweep_done(&mut self, now_ms: i64, swept: &Swept) {
        self.swept_ms = (!swept.more).then_some(now_ms);
        if swept.whole && !swept.more {
            self.whole_ms = Some(now_ms + limits::WHOLE_SWEEP_EVERY_MS);
        }
    }
}

/// What one run did.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// What was merged.
    pub merged: Merged,
    /// What was rewritten.
    pub rewritten: Rewritten,
    /// Log starts that were moved.
    pub trimmed: Vec<Trim>,
    /// Those that must wait, since the clock may be wrong; see [`Overdue::held`].
    pub held: Vec<Trim>,
    /// Index rows that were deleted, since all their records were trimmed.
    pub rows: u64,
    /// Checkpoint and strip, if one was due.
    pub kept: Kept,
    /// What was deleted; `None`: the last sweep was not long ago.
    pub swept: Option<Swept>,
    /// There is more to be done: the run was long enough.
    pub more: bool,
}

/// What a run is doing, for a progress bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// Merging: so many records are in merged segments, of about so many that are due.
    Merging(u64, u64),
    /// Rewriting: so many records are in large segments.
    Rewriting(u64),
    /// Sweeping: so many objects were looked at.
    Listing(u64),
    /// An object was deleted.
    Deleted(&'a Deletion),
}

impl Upkeep {
    /// Upkeep of the log behind `ledger`.
    pub fn new(ledger: Ledger, settings: UpkeepSettings) -> Self {
        Self { ledger, settings, memory: Arc::default(), encoding: Arc::default(), run_max: None }
    }

    /// All of it: forgets silent producers and groups, trims by retention, merges and rewrites what is due, checkpoints and strips if
    /// that is due, sweeps (in one process not more often than every quarter of an hour): mostly what was let go, and once a day,
    /// an hour after the first run of this process, all there is. `tell` hears how it goes on.
    ///
    /// # Errors
    /// Those of the ledger and of the stores. What was done is done; the next run goes on.
    pub async fn run(&self, tell: impl FnMut(Step<'_>)) -> Result<Run> {
        self.run_and_sweep(None, tell).await
    }

    /// The same, and looks at all there is now, for what [`run`](Self::run) finds once a day.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_whole(&self, tell: impl FnMut(Step<'_>)) -> Result<Run> {
        self.run_and_sweep(Some(Sweep::Whole), tell).await
    }

    async fn run_and_sweep(&self, among: Option<Sweep>, mut tell: impl FnMut(Step<'_>)) -> Result<Run> {
        let mut run = Run::default();
        self.begin();
        // One read serves the whole run: whatever was committed since, commits are decided from the newest view.
        self.refresh().await?;
        self.ledger.expire().await?;
        let overdue = self.overdue_in_view().await?;
        self.announce(&overdue.held).await?;
        self.trim(&overdue.trims).await?;
        (run.trimmed, run.held) = (overdue.trims, overdue.held);
        run.rows = self.trim_rows().await?;
        self.gather_up(&mut run, &mut tell).await?;
        let now_ms = self.now_ms();
        if let Some(among) = among.or_else(|| self.memory().sweep_due(now_ms)) {
            let swept = self.sweep_in_view(among, &mut tell).await?;
            self.memory().sweep_done(now_ms, &swept);
            run.more |= swept.more;
            run.swept = Some(swept);
        }
        Ok(run)
    }

    /// What appends make due, and nothing that looks at all there is: merges and rewrites, checkpoints and strips.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_after_appends(&self, mut tell: impl FnMut(Step<'_>)) -> Result<Run> {
        let mut run = Run::default();
        self.begin();
        self.refresh().await?;
        self.gather_up(&mut run, &mut tell).await?;
        Ok(run)
    }

    async fn gather_up(&self, run: &mut Run, tell: &mut impl FnMut(Step<'_>)) -> Result<()> {
        run.merged = self.merge_in_view(false, |done, of| tell(Step::Merging(done, of))).await?;
        self.measure()?;
        run.rewritten = self.rewrite_in_view(false, |records| tell(Step::Rewriting(records))).await?;
        run.kept = self.ledger.keep_short().await?;
        run.more = self.is_late();
        Ok(())
    }

    /// The same, but after `run_max` a run begins nothing more: it says so, and the next one goes on. Its sweep has a quarter of that for
    /// itself, whatever was before it.
    pub fn within(self, run_max: Duration) -> Self {
        Self { run_max: Some(run_max), ..self }
    }

    /// The same, which knows what this one knows, with other settings.
    pub fn with_settings(self, settings: UpkeepSettings) -> Self {
        Self { settings, ..self }
    }

    fn begin(&self) {
        let until = self.run_max.map(|most| self.ledger.chain.env.monotonic() + most);
        self.memory().until = until;
    }

    /// The run was long enough.
    fn is_late(&self) -> bool {
        self.memory().until.is_some_and(|until| self.ledger.chain.env.monotonic() >= until)
    }

    /// Asks about each, several at once, until the run was long enough. It begins anywhere, so that each has its turn, even if no
    /// process lives to finish.
    async fn ask<'a, T, A: 'a>(
        &self,
        mut all: Vec<T>,
        one: impl Fn(T) -> BoxFuture<'a, Result<A>>,
    ) -> Result<Vec<A>> {
        if self.run_max.is_some() && !all.is_empty() {
            let first = self.ledger.chain.env.random_u64() % all.len() as u64;
            all.rotate_left(first as usize);
        }
        let asked = stream::iter(all).take_while(|_| future::ready(!self.is_late())).map(one);
        asked.buffered(limits::RETENTION_READS_AT_ONCE).try_collect().await
    }

    /// Brings the view forward, by a strong read that begins now.
    async fn refresh(&self) -> Result<()> {
        let chain = &self.ledger.chain;
        chain.refresh(chain.tick()).await
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        // Each part is replaced whole, and nothing rests on it.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Own clock or the store's, whichever is behind: a clock that is ahead must not delete.
    fn now_ms(&self) -> i64 {
        let chain = &self.ledger.chain;
        chain.now_ms().min(chain.env.now_ms())
    }
}

/// Somebody else was faster, or the topic is gone: look again.
fn is_superseded(error: &Error) -> bool {
    matches!(error, Error::Superseded { .. } | Error::TopicDeleted { .. })
}
