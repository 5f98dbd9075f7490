//! The committer: one task a process and ledger that takes what is ready, decides, puts, and settles (§3.2).
//!
//! ```text
//! answer to the put of c at n+1            outcome
//! ───────────────────────────────────────  ─────────────────────────────────────────────────────────────
//! success, or the item there has id c      Committed, at the offsets decided from view n
//! whole item of another                    Conflict: apply it, decide again
//! stub of another                          Conflict: start cold, decide again
//! no answer (time-outs and 5xx included)   look at n+1; absent: put the same c again; else as above
//! refused or throttled, first attempt      definitely not applied
//! ```
//! At most one slot is unsettled (R6): the put of n+2 is sent when n+1 is known to be taken. The records of c never go
//! under a new id before that. Callers that waited too long are told `Unknown`; the settling goes on.

mod planted;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::action::*;
use super::chain::Chain;
use super::codec;
use super::decide::{self, BatchOutcome, Decision, Outcome, Proposal};
use super::view::author;
use crate::error::{Error, Result};
use crate::limits;
use crate::metrics::Metric;
use crate::plant::{self, Bug};
use crate::record::Offset;
use crate::table::{Consistency, Item, Put, TableError};

/// Where an act ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Its commit.
    pub slot: u64,
    /// That commit's time, ms.
    pub time_ms: i64,
}

/// What became of a batch.
#[derive(Debug, Clone)]
pub enum BatchResult {
    /// Committed at these offsets, durably (L1).
    Placed {
        /// Offset of its first row.
        base: Offset,
        /// Append time, ms.
        append_ms: i64,
        /// Its commit.
        slot: u64,
    },
    /// It was in the log before.
    Duplicate {
        /// Its original offset, if it is still known.
        base: Option<Offset>,
        /// Its original append time, ms.
        append_ms: i64,
    },
    /// The object's name is out of date: upload again under a new one. Not committed.
    Redraw,
    /// Not committed, unless the error is [`Error::Unknown`].
    Failed(Error),
}

#[derive(Debug)]
pub(super) enum Reply {
    Append(Vec<BatchResult>),
    Committed(Committed),
}

/// A proposal on its way.
#[derive(Debug)]
pub(super) struct Queued {
    proposal: Proposal,
    tick: u64,
    arrived: Duration,
    /// For an append: the results so far, and which of them the batches still proposed belong to.
    results: Vec<Option<BatchResult>>,
    open: Vec<usize>,
    /// `None`: answered.
    reply: Option<oneshot::Sender<Result<Reply>>>,
}

impl Queued {
    pub(super) fn new(
        proposal: Proposal,
        tick: u64,
        arrived: Duration,
    ) -> (Self, oneshot::Receiver<Result<Reply>>) {
        let (reply, receiver) = oneshot::channel();
        let batches = match &proposal {
            Proposal::Append(append) => append.batches.len(),
            Proposal::Act(_) => 0,
        };
        let (results, open) = (vec![None; batches], (0..batches).collect());
        (Self { proposal, tick, arrived, results, open, reply: Some(reply) }, receiver)
    }

    fn answer(&mut self, reply: Result<Reply>) {
        if let Some(sender) = self.reply.take() {
            // The caller may have gone; what is committed stays committed.
            let _ = sender.send(reply);
        }
    }

    /// Answers every batch that has no result yet, or the act, with `error`.
    fn fail(&mut self, error: &Error) {
        let reply = match &self.proposal {
            Proposal::Act(_) => Err(error.clone()),
            Proposal::Append(_) => {
                let failed = || BatchResult::Failed(error.clone());
                Ok(Reply::Append(self.results.drain(..).map(|r| r.unwrap_or_else(failed)).collect()))
            }
        };
        self.answer(reply);
    }

    /// Takes in what a decision said; `committed` if something was put for it. `true`: it is done.
    fn settle(&mut self, outcome: Outcome, committed: Option<Committed>) -> bool {
        if self.reply.is_none() {
            return true;
        }
        match (outcome, committed) {
            (Outcome::Deferred, _) => return false,
            (Outcome::Accepted, Some(committed)) => self.answer(Ok(Reply::Committed(committed))),
            (Outcome::Accepted, None) => return false,
            (Outcome::Refused(error), _) => self.answer(Err(error)),
            (Outcome::Redraw, _) => {
                let redraw = |r: Option<BatchResult>| r.unwrap_or(BatchResult::Redraw);
                let results = self.results.drain(..).map(redraw).collect();
                self.answer(Ok(Reply::Append(results)));
            }
            (Outcome::Append(outcomes), _) => {
                let Proposal::Append(append) = &mut self.proposal else { return true };
                let mut still = Vec::new();
                let mut batches = Vec::new();
                for ((index, outcome), batch) in self.open.iter().zip(outcomes).zip(&append.batches) {
                    self.results[*index] = match (outcome, committed) {
                        (BatchOutcome::Placed { base }, Some(Committed { slot, time_ms })) => {
                            Some(BatchResult::Placed { base, append_ms: time_ms, slot })
                        }
                        (BatchOutcome::Duplicate { base, append_ms }, _) => {
                            Some(BatchResult::Duplicate { base, append_ms })
                        }
                        (BatchOutcome::Refused(error), _) => Some(BatchResult::Failed(error)),
                        (BatchOutcome::Placed { .. }, None) | (BatchOutcome::Deferred, _) => {
                            still.push(*index);
                            batches.push(*batch);
                            None
                        }
                    };
                }
                (self.open, append.batches) = (still, batches);
                if !self.open.is_empty() {
                    return false;
                }
                let results = self.results.drain(..).flatten().collect();
                self.answer(Ok(Reply::Append(results)));
            }
        }
        true
    }
}

/// What became of a put.
enum Settled {
    Committed,
    /// The slot is another's: here is what they wrote, whole or a stub.
    Conflict(Item),
    /// Definitely not applied.
    NotApplied(TableError),
    /// Nobody will ever know: the table cannot be read any more.
    Damaged(Error),
}

/// Runs until the last handle of the ledger is dropped.
pub(super) async fn run(
    chain: Arc<Chain>,
    queue: mpsc::WeakUnboundedSender<Queued>,
    mut arriving: mpsc::UnboundedReceiver<Queued>,
) {
    let mut committer = Committer { chain, waiting: VecDeque::new() };
    loop {
        if committer.waiting.is_empty() {
            committer.chain.committing.store(false, Ordering::SeqCst);
            match arriving.recv().await {
                Some(queued) => committer.waiting.push_back(queued),
                None => return,
            }
        }
        committer.chain.committing.store(true, Ordering::SeqCst);
        while let Ok(queued) = arriving.try_recv() {
            committer.waiting.push_back(queued);
        }
        committer.round(&mut arriving).await;
        super::keep::checkpoint_if_due(&committer.chain, &queue);
    }
}

struct Committer {
    chain: Arc<Chain>,
    waiting: VecDeque<Queued>,
}

impl Committer {
    /// One commit, or the finding that none is needed.
    #[tracing::instrument(name = "commit", level = "debug", skip_all, fields(n = self.waiting.len(), slot, outcome))]
    async fn round(&mut self, arriving: &mut mpsc::UnboundedReceiver<Queued>) {
        let round_began = self.chain.env.monotonic();
        let (mut conflicts, mut throttled, mut tail_read) = (0, 0, false);
        // Always empty, unless a bug is planted.
        let mut kept: Option<Decision> = None;
        loop {
            let decided = match kept.take() {
                Some(kept) => self.chain.view(|view| (view.slot, view.id, kept)),
                None => self.decide(),
            };
            let (slot, prev, decision) = match decided {
                Ok(decided) => decided,
                Err(error) => return self.fail_all(&error),
            };
            if let Some(tick) = self.unproven_refusal(&decision) {
                if let Err(error) = self.chain.refresh(tick).await {
                    return self.fail_all(&error);
                }
                continue;
            }
            if decision.actions.is_empty() {
                return self.settle(decision, None);
            }
            // Head rule: a fresh look is cheaper than a lost put.
            if !tail_read && !self.head_is_known() {
                if let Err(error) = self.chain.refresh(self.chain.tick()).await {
                    return self.fail_all(&error);
                }
                tail_read = true;
                continue;
            }
            let commit = match self.commit(slot, prev, &decision) {
                Ok(commit) => commit,
                Err(error) => return self.fail_decided(&decision, &error),
            };
            let item = match self.item(slot + 1, &commit) {
                Ok(item) => item,
                Err(error) => return self.fail_decided(&decision, &error),
            };
            let ahead = self.plant_before_put(&item, &commit, &decision);
            let began = self.chain.env.monotonic();
            match self.put(&item, &decision, arriving).await {
                Settled::Committed => {
                    let committed = Committed { slot: slot + 1, time_ms: commit.time_ms };
                    self.chain.took(Metric::CommitUs, round_began);
                    tracing::Span::current().record("slot", slot + 1).record("outcome", "committed");
                    return match self.chain.apply_own(&item, &commit, began) {
                        Ok(()) => {
                            self.settle(decision, Some(committed));
                            self.plant_after_put(ahead, arriving).await;
                        }
                        // Committed all the same: the view is wrong, not the chain.
                        Err(error) => {
                            self.settle(decision, Some(committed));
                            self.fail_all(&error);
                        }
                    };
                }
                Settled::Conflict(theirs) => {
                    self.chain.metrics.record(Metric::Conflicts, 1);
                    let (slot, stub) = (theirs.sk, theirs.body.is_none());
                    tracing::debug!(slot, stub, whose = %format_args!("{:016x}", author(theirs.id)), "conflict");
                    self.forget_answered();
                    if let Err(error) = self.take_in(theirs).await {
                        return self.fail_all(&error);
                    }
                    (conflicts, tail_read) = (conflicts + 1, false);
                    if plant::on(Bug::OffsetsFromMemory) && decision.outcomes.len() == self.waiting.len() {
                        kept = Some(decision);
                    }
                    if conflicts > 2 {
                        self.chain.pause(conflicts - 3).await;
                    }
                }
                Settled::NotApplied(TableError::Throttled(cause)) => {
                    throttled += 1;
                    self.expire(&cause);
                    self.forget_answered();
                    self.chain.pause(throttled).await;
                }
                Settled::NotApplied(error) => {
                    tracing::Span::current().record("outcome", "refused");
                    let error = not_applied(error, self.chain.table.name());
                    return self.fail_decided(&decision, &error);
                }
                Settled::Damaged(error) => {
                    tracing::Span::current().record("outcome", "unknown");
                    return self.fail_all(&error);
                }
            }
            if self.waiting.is_empty() {
                return;
            }
        }
    }

    fn decide(&self) -> Result<(u64, u128, Decision)> {
        if plant::on(Bug::ProducerExpiryByOwnClock) || plant::on(Bug::TwoSlotsInFlight) {
            return self.plant_decide();
        }
        self.chain.view(|view| {
            (view.slot, view.id, decide::decide(view, self.waiting.iter().map(|queued| &queued.proposal)))
        })
    }

    /// L4: the tick of a refused proposal that no strong read has begun after.
    fn unproven_refusal(&self, decision: &Decision) -> Option<u64> {
        if !decision.refused || plant::on(Bug::RefusalFromStaleView) {
            return None;
        }
        let refused = decision.outcomes.iter().zip(&self.waiting).filter(|(outcome, _)| match outcome {
            Outcome::Refused(_) => true,
            Outcome::Append(batches) => batches.iter().any(|b| matches!(b, BatchOutcome::Refused(_))),
            _ => false,
        });
        let newest = refused.map(|(_, queued)| queued.tick).max()?;
        (!self.chain.read_since(newest)).then_some(newest)
    }

    fn head_is_known(&self) -> bool {
        // R10: a writer who reads nothing would go on for ever on a table that was put back under it.
        if self.chain.anchor_is_due() {
            return false;
        }
        let state = self.chain.state();
        let age = state.head_seen.map(|seen| self.chain.env.monotonic().saturating_sub(seen));
        state.own_run >= limits::LONE_COMMITS
            || age.is_some_and(|age| age < Duration::from_millis(limits::HEAD_EVIDENCE_MS))
    }

    fn commit(&self, slot: u64, prev: u128, decision: &Decision) -> Result<Commit> {
        let (state, skew_ms) = (self.chain.state(), self.chain.skew_ms());
        if skew_ms.abs() > limits::CLOCK_SKEW_MS_MAX {
            let what = "this machine's clock";
            let cause = format!("it is {skew_ms} ms off the store's; set the clock");
            return Err(Error::Unavailable { what, cause });
        }
        // A tail read of this process may have gone on since; then the put will find the slot taken.
        let checkpoint = state.view.checkpoint.map(|named| named.name).filter(|name| name.at <= slot);
        let now_ms = self.chain.env.now_ms().saturating_add(skew_ms);
        let time_ms = decide::commit_time(&state.view, now_ms);
        Ok(Commit { prev, time_ms, checkpoint, actions: decision.actions.clone() })
    }

    fn item(&self, slot: u64, commit: &Commit) -> Result<Item> {
        let id = (u128::from(self.chain.who) << 64) | u128::from(self.chain.env.random_u64());
        let body = codec::encode(commit, slot, id)?;
        let mut kinds: Vec<&str> = commit.actions.iter().map(Action::kind).collect();
        kinds.dedup();
        Ok(Item { sk: slot, id, time_ms: commit.time_ms, body: Some(body), hint: kinds.join(" ") })
    }

    /// Puts until the slot is known to be taken, by this commit or by another.
    async fn put(
        &mut self,
        item: &Item,
        decision: &Decision,
        arriving: &mut mpsc::UnboundedReceiver<Queued>,
    ) -> Settled {
        let began = self.chain.env.monotonic();
        let (mut unanswered, mut attempt) = (false, 0);
        loop {
            let put = self.chain.timed(self.chain.table.put_if_absent(&self.chain.pk, item)).await;
            let cause = match put {
                Ok(answer) => {
                    self.chain.note_time(answer.store_time_ms);
                    return match answer.value {
                        Put::Stored => Settled::Committed,
                        Put::Exists(there) => whose(there, item),
                    };
                }
                // Only the first attempt of all can be known not to have been applied.
                Err(error @ (TableError::Refused(_) | TableError::Throttled(_))) if !unanswered => {
                    return Settled::NotApplied(error);
                }
                Err(error) => error,
            };
            if plant::on(Bug::NoAnswerTakenForFailed) {
                return Settled::NotApplied(TableError::Refused(cause.to_string()));
            }
            if plant::on(Bug::NewIdBeforeSlotKnown) {
                return Settled::NotApplied(TableError::Throttled(cause.to_string()));
            }
            unanswered = true;
            self.chain.metrics.record(Metric::PutsUnanswered, 1);
            tracing::debug!(slot = item.sk, %cause, "a put was not answered: looking at its slot");
            let waited = self.chain.env.monotonic().saturating_sub(began);
            if plant::on(Bug::ForgetUnsettled) && waited > Duration::from_millis(limits::TABLE_TIMEOUT_MS) {
                return Settled::NotApplied(TableError::Throttled("forgotten while it was frozen".into()));
            }
            match self.look(item, decision, &cause, began, &mut attempt, arriving).await {
                Ok(Some(there)) => {
                    tracing::debug!(slot = item.sk, own = there.id == item.id, attempt, "unknown settled");
                    return whose(there, item);
                }
                Ok(None) => {}
                Err(error) => return Settled::Damaged(error),
            }
            if plant::on(Bug::OneAbsentReadDecides) {
                return Settled::NotApplied(TableError::Throttled("absent".into()));
            }
        }
    }

    /// What is in the slot, once the table answers; `None`: nothing yet.
    ///
    /// # Errors
    /// The table is damaged: this ledger is refused from here on, and the commit's own callers are told `Unknown`.
    async fn look(
        &mut self,
        item: &Item,
        decision: &Decision,
        cause: &TableError,
        began: Duration,
        attempt: &mut u32,
        arriving: &mut mpsc::UnboundedReceiver<Queued>,
    ) -> Result<Option<Item>> {
        loop {
            let waited = self.chain.env.monotonic().saturating_sub(began);
            if waited >= Duration::from_millis(limits::SETTLE_MS_MAX) {
                while let Ok(queued) = arriving.try_recv() {
                    self.waiting.push_back(queued);
                }
                self.tell_unknown(decision, waited, cause);
                self.expire(&cause.to_string());
            }
            let found =
                self.chain.timed(self.chain.table.get(&self.chain.pk, item.sk, Consistency::Strong)).await;
            *attempt += 1;
            match found {
                Ok(answer) if answer.value.is_some() => return Ok(answer.value),
                Ok(_) => {
                    self.chain.pause(*attempt).await;
                    return Ok(None);
                }
                Err(TableError::Damaged(detail)) => {
                    self.tell_unknown(decision, waited, cause);
                    return self.chain.poison(Error::damaged("table", detail));
                }
                Err(error) => {
                    tracing::debug!(%error, slot = item.sk, "cannot look at the slot yet");
                    self.chain.pause(*attempt).await;
                }
            }
        }
    }

    /// Applies what somebody else wrote in the slot.
    async fn take_in(&self, theirs: Item) -> Result<()> {
        self.chain.state().own_run = 0;
        let bug = if theirs.body.is_none() { Bug::StubTakenForCommit } else { Bug::ConflictNotApplied };
        if plant::on(bug) {
            let view = &mut self.chain.state().view;
            if theirs.sk == view.slot + 1 {
                (view.slot, view.id) = (theirs.sk, theirs.id);
                self.chain.moved_to(theirs.sk);
            }
            return Ok(());
        }
        match self.chain.apply_items(std::slice::from_ref(&theirs))? {
            true => Ok(()),
            // A stub or a gap: a tail read starts cold.
            false => self.chain.refresh(self.chain.tick()).await,
        }
    }

    /// Hands each proposal its outcome; what is deferred stays.
    fn settle(&mut self, decision: Decision, committed: Option<Committed>) {
        let mut outcomes = decision.outcomes.into_iter();
        self.waiting.retain_mut(|queued| match outcomes.next() {
            Some(outcome) => !queued.settle(outcome, committed),
            None => queued.reply.is_some(),
        });
    }

    fn in_commit(outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Accepted => true,
            Outcome::Append(batches) => batches.iter().any(|b| matches!(b, BatchOutcome::Placed { .. })),
            _ => false,
        }
    }

    /// Tells whoever is in the unsettled commit that its outcome is unknown.
    fn tell_unknown(&mut self, decision: &Decision, waited: Duration, cause: &TableError) {
        let error = Error::Unknown { waited_ms: waited.as_millis() as u64, cause: cause.to_string() };
        tracing::warn!(%error, "told that the outcome is unknown; the settling goes on");
        for (queued, outcome) in self.waiting.iter_mut().zip(&decision.outcomes) {
            if Self::in_commit(outcome) && queued.reply.is_some() {
                queued.fail(&error);
            }
        }
    }

    /// After a Conflict: who was told `Unknown` is not put again.
    fn forget_answered(&mut self) {
        self.waiting.retain(|queued| queued.reply.is_some());
    }

    /// Tells whoever has waited too long without being in a commit.
    fn expire(&mut self, cause: &str) {
        let now = self.chain.env.monotonic();
        let too_long = Duration::from_millis(limits::SETTLE_MS_MAX);
        let error = Error::Unavailable { what: "the table takes no commits", cause: cause.into() };
        for queued in &mut self.waiting {
            if queued.reply.is_some() && now.saturating_sub(queued.arrived) >= too_long {
                queued.fail(&error);
            }
        }
    }

    /// Fails what was in a commit that is known not to have been applied.
    fn fail_decided(&mut self, decision: &Decision, error: &Error) {
        for (queued, outcome) in self.waiting.iter_mut().zip(&decision.outcomes) {
            if Self::in_commit(outcome) {
                queued.fail(error);
            }
        }
        self.forget_answered();
    }

    fn fail_all(&mut self, error: &Error) {
        self.waiting.iter_mut().for_each(|queued| queued.fail(error));
        self.waiting.clear();
    }
}

/// Whose the item in the slot is: the commit id decides (L3).
fn whose(there: Item, mine: &Item) -> Settled {
    match there.id == mine.id && !plant::on(Bug::OwnCommitTakenForLostRace) {
        true => Settled::Committed,
        false => Settled::Conflict(there),
    }
}

fn not_applied(error: TableError, table: &str) -> Error {
    error.into_error("the table takes no commits", table)
}
