//! Following the chain: the process's one view of a ledger, brought forward by tail reads, cold starts and its own
//! commits.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use quick_cache::sync::Cache;
use tokio::sync::{Notify, mpsc};

use super::action::*;
use super::commit::{Committed, Queued, Reply};
use super::decide::{AppendProposal, Proposal};
use super::view::{View, author};
use super::{checkpoint, codec};
use crate::env::SharedEnv;
use crate::error::{Error, Result};
use crate::limits;
use crate::metrics::{Metric, SharedMetrics};
use crate::objects::{ObjectName, Objects};
use crate::plant::{self, Bug};
use crate::table::{Answer, Consistency, Item, SK_MAX, SharedTable, TableError, TableResult};

/// What of a ledger's behaviour can be set. Nothing here touches what is right, only when upkeep happens.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Commits after which a checkpoint is due; 0: never.
    pub checkpoint_commits: u64,
    /// Body bytes after which a checkpoint is due.
    pub checkpoint_bytes: u64,
    /// Whether stripping follows a checkpoint.
    pub strip: bool,
    /// Bodies below this size are left whole.
    pub strip_bytes_min: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            checkpoint_commits: limits::CHECKPOINT_COMMITS,
            checkpoint_bytes: limits::CHECKPOINT_COMMIT_BYTES,
            strip: true,
            strip_bytes_min: limits::STRIP_BYTES_MIN,
        }
    }
}

/// A ledger, as one process sees it. Cheap to clone; the committer stops when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Ledger {
    pub(crate) chain: Arc<Chain>,
    pub(super) queue: mpsc::UnboundedSender<Queued>,
}

/// What the clones share.
#[derive(Debug)]
pub struct Chain {
    pub(crate) table: SharedTable,
    pub(crate) objects: Objects,
    pub(crate) env: SharedEnv,
    pub(crate) metrics: SharedMetrics,
    pub(super) settings: Settings,
    /// Partition key of the ledger's items: `era/ledger`, 4 hex digits each.
    pub(crate) pk: String,
    /// Era that this process writes in.
    pub era: u16,
    /// Upper half of the ids of this process's commits.
    pub who: u64,
    state: Mutex<State>,
    /// One tail read at a time; the others wait for it and share it.
    reading: tokio::sync::Mutex<()>,
    /// Orders requests and strong reads in this process: no clock can (L2).
    ticks: AtomicU64,
    /// The newest commit applied, and whoever waits for the next: woken in the order in which they came. (Tokio's `watch`
    /// wakes in an order of its own, which no seed decides.)
    newest: AtomicU64,
    changed: Notify,
    /// Own clock + this = the store's. Not in the state, whose lock is held while commits are decided and applied: a
    /// sender only wants to know the time.
    skew_ms: AtomicI64,
    /// Inline bodies of commits seen lately, by slot and action.
    inline: Cache<(u64, u32), Bytes>,
    pub(super) checkpointing: AtomicBool,
    /// Proposals are being committed, or an unanswered put is being settled.
    pub(super) committing: AtomicBool,
    pub(super) stripped: AtomicU64,
}

/// The view and what is known of its age.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) view: View,
    pub(super) fatal: Option<Arc<Error>>,
    /// Tick at which the newest finished strong read began.
    strong_tick: u64,
    /// When the head was last seen: the answer of a strong read or of an own put.
    pub(super) head_seen: Option<Duration>,
    /// The view holds every commit that was there at this time: the beginning of a strong read or of an own put. The
    /// process may have stopped between that and the answer, so this is not `head_seen`.
    complete_at: Option<Duration>,
    /// This process's own commits since the newest foreign one.
    pub(super) own_run: u32,
    /// When the newest commit was first seen.
    pub(crate) changed_at: Duration,
    /// When a tail read last saw the view's own commit in the table.
    anchored: Option<Duration>,
    /// Body bytes since the newest checkpoint.
    pub(super) bytes_since: u64,
    /// When a commit of each leader was first seen: slot and time.
    pub(crate) leaders_seen: super::lead::Seen,
}

impl State {
    fn anchor_is_due(&self, now: Duration) -> bool {
        self.view.slot > 0 && self.anchored.is_none_or(|at| now.saturating_sub(at) >= ANCHOR)
    }
}

enum Applied {
    /// Known already, or applied now.
    Yes,
    /// A stub, or not the next: start cold.
    Gap,
}

impl Chain {
    pub(crate) fn new(
        table: SharedTable,
        objects: Objects,
        env: SharedEnv,
        era: u16,
        settings: Settings,
        metrics: SharedMetrics,
    ) -> Self {
        let who = env.random_u64();
        Self {
            table,
            objects,
            who,
            env,
            metrics,
            settings,
            pk: format!("{era:04x}/{LEDGER:04x}"),
            era,
            state: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
            ticks: AtomicU64::new(1),
            newest: AtomicU64::new(0),
            changed: Notify::new(),
            skew_ms: AtomicI64::new(0),
            inline: Cache::new(limits::INLINE_BODIES_CACHED),
            checkpointing: AtomicBool::new(false),
            committing: AtomicBool::new(false),
            stripped: AtomicU64::new(0),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held is a bug of ours; the view may be half applied, so nobody goes on with it.
        self.state.lock().expect("no thread panicked with the view")
    }

    /// The time of a request, in the order of this process.
    pub fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    /// Runs `look` on the view as it is.
    pub fn view<T>(&self, look: impl FnOnce(&View) -> T) -> Result<T> {
        let state = self.state();
        match &state.fatal {
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
            None => Ok(look(&state.view)),
        }
    }

    /// The newest commit applied.
    pub fn slot(&self) -> u64 {
        self.newest.load(Ordering::SeqCst)
    }

    pub(super) fn moved_to(&self, slot: u64) {
        self.newest.store(slot, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// How old this view may be at most.
    pub fn age(&self) -> Duration {
        if plant::on(Bug::ViewTrustedAfterThaw) {
            return Duration::ZERO;
        }
        let complete_at = self.state().complete_at;
        complete_at.map_or(Duration::MAX, |at| self.env.monotonic().saturating_sub(at))
    }

    /// Runs `look` on a view that a strong read brought up to date after `tick` (L4).
    pub async fn fresh_view<T>(&self, tick: u64, look: impl FnOnce(&View) -> T) -> Result<T> {
        self.refresh(tick).await?;
        self.view(look)
    }

    /// Advances the view by a strong read that begins after `tick`, or shares one that did.
    pub async fn refresh(&self, tick: u64) -> Result<()> {
        let _one = self.reading.lock().await;
        if self.state().strong_tick > tick {
            return Ok(());
        }
        self.tail().await
    }

    /// Every commit there is when this is called. One at a time: the caller holds `reading`.
    async fn tail(&self) -> Result<()> {
        self.metrics.record(Metric::TailReads, 1);
        let began = self.tick();
        let complete_at = loop {
            let now = self.env.monotonic();
            let (from, anchor) = {
                let state = self.state();
                let anchor = state.anchor_is_due(now);
                (state.view.slot + u64::from(!anchor), anchor)
            };
            let page =
                self.timed(self.table.range(&self.pk, from, limits::PAGE_ITEMS, Consistency::Strong)).await;
            let page = self.note(page, "reading the ledger")?;
            if anchor {
                self.anchor(from, page.items.first()).await?;
            }
            if !self.apply_items(&page.items)? {
                self.cold_start().await?;
                break now;
            }
            if !page.more {
                break now;
            }
        };
        let mut state = self.state();
        state.strong_tick = state.strong_tick.max(began);
        state.complete_at = state.complete_at.max(Some(complete_at));
        state.head_seen = Some(self.env.monotonic());
        Ok(())
    }

    /// Whether it is time to look whether the table still holds the commit that this view ends with.
    pub(super) fn anchor_is_due(&self) -> bool {
        let now = self.env.monotonic();
        self.state().anchor_is_due(now)
    }

    /// R10: the table must still hold the commit that this view ends with.
    async fn anchor(&self, slot: u64, found: Option<&Item>) -> Result<()> {
        let now = self.env.monotonic();
        let found = match found.filter(|item| item.sk == slot) {
            Some(item) => Some(item.id),
            None => {
                let newest = self.timed(self.table.newest(&self.pk, SK_MAX, Consistency::Strong)).await;
                let newest = self.note(newest, "reading the ledger")?.map_or(0, |item| item.sk);
                return self.poison(Error::RolledBack { seen: slot, found: newest });
            }
        };
        let mut state = self.state();
        if state.view.slot == slot && found != Some(state.view.id) {
            drop(state);
            return self.poison(Error::RolledBack { seen: slot, found: slot });
        }
        state.anchored = Some(now);
        Ok(())
    }

    /// Applies what it can of a run of items; `false`: there is a stub or a gap.
    pub(super) fn apply_items(&self, items: &[Item]) -> Result<bool> {
        let mut state = self.state();
        if let Some(cause) = &state.fatal {
            return Err(Error::Poisoned { cause: cause.clone() });
        }
        let before = state.view.slot;
        let stopped = items.iter().find_map(|item| match self.apply_item(&mut state, item) {
            Ok(Applied::Yes) => None,
            Ok(Applied::Gap) => Some(Ok(false)),
            Err(error) => Some(Err(error)),
        });
        // What comes before an item that cannot be read was applied all the same: whoever waits must hear of it.
        if state.view.slot > before {
            state.changed_at = self.env.monotonic();
            self.moved_to(state.view.slot);
        }
        drop(state);
        stopped.unwrap_or(Ok(true)).or_else(|error| self.poison(error))
    }

    fn apply_item(&self, state: &mut State, item: &Item) -> Result<Applied> {
        if item.sk <= state.view.slot {
            return Ok(Applied::Yes);
        }
        if plant::on(Bug::TailGapSkipped) && item.body.is_none() {
            return Ok(Applied::Yes);
        }
        let gap = item.sk != state.view.slot + 1 && !plant::on(Bug::TailGapSkipped);
        let Some(body) = item.body.as_ref().filter(|_| !gap) else { return Ok(Applied::Gap) };
        let commit = codec::decode(body, item.sk, item.id)?;
        self.apply_commit(state, item.sk, item.id, &commit, body.len())?;
        Ok(Applied::Yes)
    }

    /// Applies a commit and takes note of what is not in the view: bytes, inline bodies, who was heard of.
    pub(super) fn apply_commit(
        &self,
        state: &mut State,
        slot: u64,
        id: u128,
        commit: &Commit,
        bytes: usize,
    ) -> Result<()> {
        state.view.apply(slot, id, commit)?;
        if commit.actions.iter().any(|action| matches!(action, Action::Store(_))) {
            self.check_own(&state.view)?;
        }
        let own = author(id) == self.who;
        state.own_run = if own { state.own_run.saturating_add(1) } else { 0 };
        if state.view.leaders.contains_key(&author(id)) {
            state.leaders_seen.insert(author(id), (slot, self.env.monotonic()));
        }
        state.bytes_since += bytes as u64;
        for (index, action) in commit.actions.iter().enumerate() {
            match action {
                Action::Append(Append { data: Data::Inline(body), .. }) => {
                    self.inline.insert((slot, index as u32), body.clone());
                }
                Action::Checkpoint(_) => state.bytes_since = 0,
                Action::Lead(lead) => {
                    let (take, let_go) = (lead.take.len(), lead.let_go.len());
                    tracing::info!(slot, own, take, let_go, who = %format_args!("{:016x}", lead.who), "leaders changed");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether a strong read that began after `tick` has been applied.
    pub(super) fn read_since(&self, tick: u64) -> bool {
        self.state().strong_tick > tick
    }

    /// Applies this process's own commit, unless a tail read of this process was faster.
    ///
    /// `began`: when its put began; until then nothing was in its slot.
    pub(super) fn apply_own(&self, item: &Item, commit: &Commit, began: Duration) -> Result<()> {
        let mut state = self.state();
        state.head_seen = Some(self.env.monotonic());
        state.complete_at = state.complete_at.max(Some(began));
        if state.view.slot >= item.sk {
            return Ok(());
        }
        let bytes = item.body.as_ref().map_or(0, Bytes::len);
        if let Err(error) = self.apply_commit(&mut state, item.sk, item.id, commit, bytes) {
            drop(state);
            return self.poison(error);
        }
        state.changed_at = self.env.monotonic();
        self.moved_to(state.view.slot);
        Ok(())
    }

    /// Keeps the first fatal error and refuses all that follows. Others pass.
    pub(super) fn poison<T>(&self, error: Error) -> Result<T> {
        if error.kind() == crate::ErrorKind::Fatal {
            let first = {
                let mut state = self.state();
                let first = state.fatal.is_none();
                state.fatal.get_or_insert_with(|| Arc::new(error.clone()));
                first
            };
            if first {
                tracing::error!(%error, "ledger refused from here on");
                self.metrics.record(Metric::Poisoned, 1);
            }
        }
        Err(error)
    }

    /// Takes the newest view, which must be of this chain.
    #[tracing::instrument(level = "debug", skip_all, fields(slot))]
    pub(crate) async fn cold_start(&self) -> Result<()> {
        let began = self.env.monotonic();
        let view = self.newest_view().await?;
        if view.is_empty() {
            return Ok(());
        }
        tracing::Span::current().record("slot", view.slot);
        self.took(Metric::ColdStartUs, began);
        self.check_own(&view).or_else(|error| self.poison(error))?;
        self.replace(view)
    }

    /// Two table reads, one GET: newest commit → the checkpoint that it names → what follows. Empty: there is no commit.
    pub(crate) async fn newest_view(&self) -> Result<View> {
        for attempt in 0..limits::COLD_STARTS_MAX {
            let newest = self.timed(self.table.newest(&self.pk, SK_MAX, Consistency::Strong)).await;
            let newest = self.note(newest, "reading the newest commit")?;
            let seen = self.state().view.slot;
            let found = newest.as_ref().map_or(0, |item| item.sk);
            if found < seen {
                return self.poison(Error::RolledBack { seen, found });
            }
            let Some(newest) = newest else { return Ok(View::default()) };
            match self.load(&newest).await {
                Ok(Some(view)) => return Ok(view),
                Ok(None) => {
                    tracing::debug!(
                        attempt,
                        "the checkpoint went away or a slot was stripped: starting again"
                    );
                    self.pause(attempt).await;
                }
                Err(error) => return self.poison(error),
            }
        }
        let words = match self.era {
            0 => "the newest commit names a checkpoint that is not there",
            _ => {
                "there is no checkpoint for its newest commit; was a restore into this era interrupted? Then run it again"
            }
        };
        self.poison(Error::damaged("ledger", words))
    }

    /// R10: the newest `Store` must name this table and this era.
    fn check_own(&self, view: &View) -> Result<()> {
        let (table, era) = (self.table.name(), self.era);
        let Some(store) = &view.store else { return Ok(()) };
        let what = if store.table != table {
            format!(
                "the ledger was written in table {:?}, but this is {table:?}: a restored copy must go on in a new era (`tidelog restore`)",
                store.table
            )
        } else if store.era > era {
            format!("the log goes on in era {0}: add era={0} to the store's URL", store.era)
        } else if store.era < era {
            format!("a restore from era {} into era {era} has not ended: run it again", store.era)
        } else if store.format > STORE_FORMAT {
            return Err(Error::Newer { what: format!("store format {}", store.format) });
        } else {
            return Ok(());
        };
        Err(Error::StoreRefused { what })
    }

    /// The view as of `newest`; `None`: something went away in between.
    async fn load(&self, newest: &Item) -> Result<Option<View>> {
        let Some(body) = &newest.body else { return Ok(None) };
        let commit = codec::decode(body, newest.sk, newest.id)?;
        let mut view = match commit.checkpoint {
            None => View::default(),
            Some(name) => match self.load_checkpoint(name).await? {
                Some((view, _)) => view,
                None if plant::on(Bug::CheckpointMissingTakenForEmpty) => {
                    return Ok(Some(View { slot: newest.sk, id: newest.id, ..View::default() }));
                }
                None => return Ok(None),
            },
        };
        match self.replay(&mut view, newest.sk).await? {
            true => Ok(Some(view)),
            false => Ok(None),
        }
    }

    /// A checkpoint and its bytes; `None`: it is not there.
    pub(crate) async fn load_checkpoint(&self, name: CheckpointName) -> Result<Option<(View, Bytes)>> {
        let object = ObjectName::from(&name);
        let mut reads = 1;
        loop {
            let Some(bytes) = self.objects.get(&object).await? else { return Ok(None) };
            match checkpoint::decode(&object.to_string(), &bytes) {
                Ok(view) if view.slot == name.at => return Ok(Some((view, bytes))),
                Ok(view) => {
                    return Err(Error::damaged(object.to_string(), format!("is as of commit {}", view.slot)));
                }
                // Perhaps only this answer is damaged, and not the object.
                Err(Error::Damaged { .. } | Error::Newer { .. }) if reads < limits::OBJECT_ATTEMPTS_MAX => {
                    tracing::debug!(reads, "a checkpoint was read damaged: reading it again");
                    self.pause(reads).await;
                    reads += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Applies the commits after `view` up to `to`; `false`: there is a stub or a gap.
    pub(super) async fn replay(&self, view: &mut View, to: u64) -> Result<bool> {
        while view.slot < to {
            let want = (to - view.slot).min(limits::PAGE_ITEMS as u64) as usize;
            let page = self.timed(self.table.range(&self.pk, view.slot + 1, want, Consistency::Strong)).await;
            let page = self.note(page, "reading the ledger")?;
            if page.items.is_empty() {
                return Ok(false);
            }
            for item in page.items.iter().take_while(|item| item.sk <= to) {
                let Some(body) = item.body.as_ref().filter(|_| item.sk == view.slot + 1) else {
                    return Ok(false);
                };
                let commit = codec::decode(body, item.sk, item.id)?;
                view.apply(item.sk, item.id, &commit)?;
            }
        }
        Ok(true)
    }

    fn replace(&self, view: View) -> Result<()> {
        let now = self.env.monotonic();
        let mut state = self.state();
        if view.slot > state.view.slot {
            state.own_run = 0;
            state.bytes_since = limits::CHECKPOINT_COMMIT_BYTES / 2;
            state.leaders_seen =
                view.leaders.iter().map(|(who, leader)| (*who, (leader.slot, now))).collect();
            state.view = view;
            state.changed_at = now;
            state.anchored = Some(now);
            self.moved_to(state.view.slot);
        }
        Ok(())
    }

    /// Waits for a commit after `slot`, at most until `deadline`, polling the tail as often as the log is busy: all
    /// waiters of the process share one query.
    pub async fn wait_past(&self, slot: u64, deadline: Duration) -> Result<()> {
        loop {
            // From before the look: what comes after it is not missed.
            let changed = self.changed.notified();
            let (now, at, changed_at, read_at) = {
                let state = self.state();
                (self.env.monotonic(), state.view.slot, state.changed_at, state.head_seen.unwrap_or_default())
            };
            self.view(|_| ())?;
            if at > slot || now >= deadline {
                return Ok(());
            }
            let poll_at = read_at + poll_interval(now.saturating_sub(changed_at));
            let until = poll_at.min(deadline).saturating_sub(now);
            if !until.is_zero() {
                tokio::select! {
                    biased;
                    () = changed => {}
                    () = self.env.sleep(until) => {}
                }
                continue;
            }
            if self.plant_leads() {
                self.env.sleep(Duration::from_millis(limits::POLL_MS_MAX)).await;
                continue;
            }
            self.refresh(self.tick()).await?;
        }
    }

    /// A planted bug: whoever leads, as far as it knows, takes its own view for the newest. Else `false`.
    pub(crate) fn plant_leads(&self) -> bool {
        plant::on(Bug::DeposedLeaderAnswersNothingNew) && self.state().view.leaders.contains_key(&self.who)
    }

    /// An inline body that is in memory.
    pub fn inline_cached(&self, slot: u64, action: u32) -> Option<Bytes> {
        self.inline.get(&(slot, action))
    }

    /// Inline bodies of the commits from `slot`, read from the table: at most `limit` slots. Each is put into memory.
    pub async fn inline_read(&self, slot: u64, limit: usize) -> Result<()> {
        let page = self.timed(self.table.range(&self.pk, slot, limit, Consistency::Strong)).await;
        for item in self.note(page, "reading inline records")?.items {
            let Some(body) = &item.body else { continue };
            let commit = codec::decode(body, item.sk, item.id)?;
            for (index, action) in commit.actions.into_iter().enumerate() {
                if let Action::Append(Append { data: Data::Inline(body), .. }) = action {
                    self.inline.insert((item.sk, index as u32), body);
                }
            }
        }
        Ok(())
    }

    /// A table request with a bound. Dropped at the bound, it counts as unanswered.
    pub(crate) async fn timed<T>(&self, request: impl Future<Output = TableResult<T>>) -> TableResult<T> {
        tokio::select! {
            biased;
            answer = request => answer,
            () = self.env.sleep(Duration::from_millis(limits::TABLE_TIMEOUT_MS)) => {
                Err(TableError::NoAnswer(format!("none within {} ms", limits::TABLE_TIMEOUT_MS)))
            }
        }
    }

    /// Takes the value out of a read's answer and notes the store's time.
    pub(crate) fn note<T>(&self, answer: TableResult<T>, what: &'static str) -> Result<T> {
        match answer {
            Ok(Answer { value, store_time_ms }) => {
                self.note_time(store_time_ms);
                Ok(value)
            }
            Err(TableError::Damaged(detail)) => self.poison(Error::damaged("table", detail)),
            // Before there is a view it is the way to the table that is wrong; later it may be rights in flux.
            Err(error @ TableError::Refused(_)) if self.slot() == 0 => {
                Err(error.into_error(what, self.table.name()))
            }
            Err(error) => Err(Error::Unavailable { what, cause: error.to_string() }),
        }
    }

    pub(super) fn note_time(&self, store_time_ms: Option<i64>) {
        if let Some(store) = store_time_ms {
            self.skew_ms.store(store.saturating_sub(self.env.now_ms()), Ordering::SeqCst);
        }
    }

    /// Tells how long an event took that `began` then.
    pub(crate) fn took(&self, metric: Metric, began: Duration) {
        let took = self.env.monotonic().saturating_sub(began);
        self.metrics.record(metric, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// A jittered pause that doubles with each attempt.
    pub(crate) async fn pause(&self, attempt: u32) {
        let most = (20u64 << attempt.min(6)).min(limits::POLL_MS_MAX);
        self.env.sleep(Duration::from_millis(most / 2 + self.env.random_u64() % (most / 2 + 1))).await;
    }

    pub(super) fn skew_ms(&self) -> i64 {
        self.skew_ms.load(Ordering::SeqCst)
    }

    /// Own clock, corrected by the store's.
    pub(crate) fn now_ms(&self) -> i64 {
        self.env.now_ms().saturating_add(self.skew_ms())
    }
}

/// How often the view's own commit is looked for in the table.
const ANCHOR: Duration = Duration::from_secs(10);

/// 50 ms while there were commits in the last two seconds, then doubling up to a second.
fn poll_interval(quiet: Duration) -> Duration {
    let quiet_ms = quiet.as_millis() as u64;
    let doublings = quiet_ms.saturating_sub(limits::POLL_QUIET_MS).div_ceil(500).min(10);
    Duration::from_millis((limits::POLL_MS_MIN << doublings).min(limits::POLL_MS_MAX))
}

impl Ledger {
    /// What the clones share: the view and what it is read from.
    pub fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    /// Opens ledger 0 of `era`: a cold start. An empty chain stays empty until [`Ledger::init`].
    pub async fn open(
        table: SharedTable,
        objects: Objects,
        env: SharedEnv,
        era: u16,
        settings: Settings,
        metrics: SharedMetrics,
    ) -> Result<Self> {
        let chain = Arc::new(Chain::new(table, objects, env, era, settings, metrics));
        let (queue, waiting) = mpsc::unbounded_channel();
        let ledger = Self { chain: chain.clone(), queue };
        chain.cold_start().await?;
        tokio::spawn(super::commit::run(chain, ledger.queue.downgrade(), waiting));
        Ok(ledger)
    }

    /// Whether nothing is under way behind the callers' backs: no commit, no put whose outcome is looked for, no
    /// checkpoint. For processes that are stopped between calls: none of it is lost then, but late.
    pub fn is_settled(&self) -> bool {
        let busy = |what: &AtomicBool| what.load(Ordering::SeqCst);
        !busy(&self.chain.committing) && !busy(&self.chain.checkpointing)
    }

    /// The newest commit that this process has applied.
    pub fn chain_slot(&self) -> u64 {
        self.chain.slot()
    }

    /// The environment that the log runs in.
    pub fn env(&self) -> &SharedEnv {
        &self.chain.env
    }

    /// Writes slot 1 if the chain is empty. `true`: this call did.
    pub async fn init(&self) -> Result<bool> {
        if self.chain.view(|view| view.store.is_some())? {
            return Ok(false);
        }
        let store = Store {
            format: STORE_FORMAT,
            store_id: crate::env::random_u128(&*self.chain.env),
            era: self.chain.era,
            table: self.chain.table.name().to_owned(),
            created_ms: self.chain.now_ms(),
        };
        match self.act(Action::Store(store)).await {
            Ok(_) => Ok(true),
            Err(Error::Superseded { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Commits one action, or says why not (L3, L4).
    pub async fn act(&self, action: Action) -> Result<Committed> {
        match self.submit(Proposal::Act(action)).await? {
            Reply::Committed(committed) => Ok(committed),
            Reply::Append(_) => unreachable!("an act is not answered as an append"),
        }
    }

    /// Commits appended rows; one result a batch, in order.
    pub async fn append(&self, proposal: AppendProposal) -> Result<Vec<super::commit::BatchResult>> {
        match self.submit(Proposal::Append(proposal)).await? {
            Reply::Append(results) => Ok(results),
            Reply::Committed(_) => unreachable!("an append is not answered as an act"),
        }
    }

    /// Queues a proposal; its place in the order is taken when this is called, not when it is polled.
    fn submit(&self, proposal: Proposal) -> impl Future<Output = Result<Reply>> + use<> {
        let (queued, reply) = Queued::new(proposal, self.chain.tick(), self.chain.env.monotonic());
        let sent = self.queue.send(queued);
        async move {
            sent.map_err(|_| Error::Closed { what: "the log" })?;
            reply.await.unwrap_or(Err(Error::Closed { what: "the log" }))
        }
    }
}

/// Format of stores that this release writes.
pub const STORE_FORMAT: u32 = 1;
