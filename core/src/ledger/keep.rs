//! Keeping the chain short for whoever starts cold: checkpoints, then strip (R1, R2). Off the ack path.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;

use super::action::*;
use super::chain::{Chain, Ledger};
use super::checkpoint;
use super::commit::Queued;
use super::view::{Place, Slice, View};
use crate::error::{Error, Result};
use crate::limits;
use crate::metrics::Metric;
use crate::objects::{ObjectName, Ulid};
use crate::plant::{self, Bug};
use crate::table::{Consistency, Item};

/// What was done to keep the chain short.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// The commit that the new checkpoint is the state as of, if one was due.
    pub checkpoint: Option<u64>,
    /// Commits that lost their bodies.
    pub stripped: u64,
}

/// Starts a checkpoint beside the commits if one is due and none is under way.
pub(super) fn checkpoint_if_due(chain: &Arc<Chain>, queue: &mpsc::WeakUnboundedSender<Queued>) {
    if !is_due(chain) {
        return;
    }
    let Some(queue) = queue.upgrade() else { return };
    let ledger = Ledger { chain: chain.clone(), queue };
    tokio::spawn(async move {
        if let Err(error) = ledger.expire().await {
            tracing::debug!(%error, "nothing was expired");
        }
        if let Err(error) = ledger.keep_short().await {
            tracing::warn!(%error, "checkpoint or strip did not finish; the next one will");
        }
    });
}

fn is_due(chain: &Chain) -> bool {
    let state = chain.state();
    let since = state.view.slot - state.view.checkpoint.map_or(0, |named| named.name.at);
    let commits = chain.settings.checkpoint_commits;
    let enough = since >= commits || (since > 1 && state.bytes_since >= chain.settings.checkpoint_bytes);
    commits > 0 && enough && state.fatal.is_none()
}

/// One at a time in a process: whoever has it checkpoints.
struct Turn<'a>(&'a AtomicBool);

impl<'a> Turn<'a> {
    fn take(of: &'a AtomicBool) -> Option<Self> {
        (!of.swap(true, Ordering::SeqCst)).then_some(Self(of))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Ledger {
    /// Checkpoints, then strips, if a checkpoint is due and none is under way in this process.
    pub async fn keep_short(&self) -> Result<Kept> {
        if !is_due(&self.chain) {
            return Ok(Kept::default());
        }
        let Some(_turn) = Turn::take(&self.chain.checkpointing) else { return Ok(Kept::default()) };
        let checkpoint = self.checkpoint().await?.map(|name| name.at);
        let stripped = if self.chain.settings.strip { self.strip().await? } else { 0 };
        Ok(Kept { checkpoint, stripped })
    }

    /// Forgets producers and groups that were silent for a week (`once`: 15 minutes), and the oldest producers above the ledger's cap. By the
    /// ledger's own time, and only through commits: no reader's clock forgets anything (R5).
    pub async fn expire(&self) -> Result<()> {
        for expire in self.chain.view(expirable)? {
            match self.act(Action::Expire(expire)).await {
                Ok(_) | Err(Error::Superseded { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes the view as an object, then names it in a commit. `None`: somebody named a newer one first.
    #[tracing::instrument(level = "debug", skip_all, fields(at, bytes))]
    pub async fn checkpoint(&self) -> Result<Option<CheckpointName>> {
        let chain = &self.chain;
        let began = chain.env.monotonic();
        let (at, bytes) = chain.view(|view| (view.slot, checkpoint::encode(view)))?;
        tracing::Span::current().record("at", at).record("bytes", bytes.len());
        let name = CheckpointName { at, era: chain.era, ulid: Ulid::draw(&*chain.env).0 };
        let checksum = checkpoint::checksum(&bytes[..bytes.len() - 8]);
        if plant::on(Bug::StripBeforeCheckpointNamed) {
            self.strip_to(at).await?;
        }
        chain.objects.put_new(&ObjectName::from(&name), bytes).await?;
        match self.act(Action::Checkpoint(Checkpoint { name, checksum })).await {
            Ok(_) => {
                chain.took(Metric::CheckpointUs, began);
                Ok(Some(name))
            }
            Err(Error::Superseded { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Strips the bodies of slots up to the newest checkpoint but one, after proving that replay from that one gives
    /// the newest byte for byte: a wrong checkpoint must not become the only truth. Answers how many were stripped.
    pub async fn strip(&self) -> Result<u64> {
        let chain = &self.chain;
        let (newest, before) = chain.view(|view| (view.checkpoint, view.checkpoint_before))?;
        let (Some(newest), Some(before)) = (newest, before) else { return Ok(0) };
        if chain.stripped.load(Ordering::SeqCst) >= before.name.at {
            return Ok(0);
        }
        // Either may be swept by now, and then somebody else is further on.
        let Some((mut view, _)) = chain.load_checkpoint(before.name).await? else { return Ok(0) };
        let (done, inline) = (view.checkpoint_before.map_or(0, |named| named.name.at), inline_slots(&view));
        let Some((_, bytes)) = chain.load_checkpoint(newest.name).await? else { return Ok(0) };
        if !chain.replay(&mut view, newest.name.at).await? {
            return Ok(0);
        }
        if checkpoint::encode(&view) != bytes {
            let what = ObjectName::from(&newest.name).to_string();
            let detail = format!("replay from the checkpoint at {} gives other bytes", before.name.at);
            return chain.poison(Error::damaged(what, detail));
        }
        // Whoever named the checkpoints since has stripped these: twice, so one of them may have been killed.
        let done = chain.stripped.fetch_max(done, Ordering::SeqCst).max(done);
        let merged = self.strip_merged(done, &inline).await?;
        Ok(merged + self.strip_to(before.name.at).await?)
    }

    #[tracing::instrument(name = "strip", level = "debug", skip(self))]
    async fn strip_to(&self, to: u64) -> Result<u64> {
        let chain = &self.chain;
        // As of now, not as of the checkpoint: only a merge takes a slice out of this set, and none ever comes back.
        let inline = match plant::on(Bug::InlineStrippedBeforeMerge) {
            true => BTreeSet::new(),
            false => chain.view(inline_slots)?,
        };
        let (mut from, mut stripped) = (chain.stripped.load(Ordering::SeqCst) + 1, 0);
        while from <= to {
            let want = (to - from + 1).min(limits::PAGE_ITEMS as u64) as usize;
            let page = chain.timed(chain.table.range(&chain.pk, from, want, Consistency::Eventual)).await;
            let page = chain.note(page, "reading old commits")?;
            let Some(last) = page.items.last() else { break };
            from = last.sk + 1;
            for item in page.items.iter().filter(|item| item.sk <= to && !inline.contains(&item.sk)) {
                stripped += u64::from(self.strip_item(item).await?);
            }
        }
        chain.stripped.fetch_max(to, Ordering::SeqCst);
        chain.metrics.record(Metric::SlotsStripped, stripped);
        tracing::debug!(stripped, "stripped");
        Ok(stripped)
    }

    /// Strips those of the slots `inline` up to `done` whose records were merged since: earlier strips had to leave them.
    async fn strip_merged(&self, done: u64, inline: &BTreeSet<u64>) -> Result<u64> {
        let chain = &self.chain;
        let now = chain.view(inline_slots)?;
        let mut stripped = 0;
        for slot in inline.range(..=done).filter(|slot| !now.contains(slot)) {
            let item = chain.timed(chain.table.get(&chain.pk, *slot, Consistency::Eventual)).await;
            if let Some(item) = chain.note(item, "reading old commits")? {
                stripped += u64::from(self.strip_item(&item).await?);
            }
        }
        chain.metrics.record(Metric::SlotsStripped, stripped);
        Ok(stripped)
    }

    async fn strip_item(&self, item: &Item) -> Result<bool> {
        let chain = &self.chain;
        let large = item.body.as_ref().is_some_and(|body| body.len() >= chain.settings.strip_bytes_min);
        // The commit that says what the store is stays whole.
        if !large || item.hint.contains("store") {
            return Ok(false);
        }
        let stub = Item { body: None, ..item.clone() };
        let replaced = chain.timed(chain.table.replace_if(&chain.pk, &stub, item.id)).await;
        chain.note(replaced, "stripping an old commit")
    }
}

/// The commits that hold records which are not merged.
fn inline_slots(view: &View) -> BTreeSet<u64> {
    let is_inline = |slice: &Slice| matches!(slice.place, Place::Inline { .. });
    let slices = view.slices().map(|(_, _, slice)| slice);
    slices.filter(|slice| is_inline(slice)).map(|slice| slice.slot).collect()
}

/// What is to be forgotten, as of a view.
fn expirable(view: &View) -> Vec<Expire> {
    let old_ms = |after_ms: i64| view.time_ms.saturating_sub(after_ms);
    let kinds = [IdentityKind::Dense, IdentityKind::Monotone, IdentityKind::Once];
    let partitions = || view.topics.values().flat_map(|topic| &topic.partitions);
    let mut all = Vec::new();
    for kind in kinds {
        let mut seen: Vec<i64> = partitions()
            .flat_map(|p| {
                p.producers.iter().filter(|(key, _)| key.kind == kind).map(|(_, known)| known.last_ms())
            })
            .collect();
        seen.sort_unstable();
        let capped_ms = seen.len().checked_sub(limits::PRODUCERS_MAX).map_or(i64::MIN, |over| seen[over]);
        let after_ms = if kind == IdentityKind::Once { limits::ONCE_EXPIRE_MS } else { limits::EXPIRE_MS };
        let before_ms = old_ms(after_ms).max(capped_ms);
        if seen.first().is_some_and(|oldest| *oldest < before_ms) {
            all.push(Expire { what: Expiring::Producers(kind), before_ms });
        }
    }
    let before_ms = old_ms(limits::EXPIRE_MS);
    if view.groups.values().any(|group| group.last_ms < before_ms) {
        all.push(Expire { what: Expiring::Groups, before_ms });
    }
    all
}
