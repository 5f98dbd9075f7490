//! Where planted bugs do their harm in the committer; nothing without one.

use super::*;
use crate::ledger::view::View;

/// A second commit that is on its way while the first is unsettled.
pub(super) struct Ahead {
    item: Item,
    commit: Commit,
    decision: Decision,
}

impl Committer {
    pub(super) fn plant_before_put(
        &self,
        item: &Item,
        commit: &Commit,
        decision: &Decision,
    ) -> Option<Ahead> {
        if plant::on(Bug::WatermarkFromUploaded) {
            for action in &decision.actions {
                let Action::Append(append) = action else { continue };
                for slice in &append.slices {
                    let end = slice.base + slice.rows();
                    plant::note_uploaded(self.chain.who, slice.topic.0, slice.partition, end);
                }
            }
        }
        plant::on(Bug::TwoSlotsInFlight).then(|| self.pipeline(item, commit, decision)).flatten()
    }

    /// A writer that pipelines: what still waits is decided as if the first commit had landed, and put behind it.
    fn pipeline(&self, item: &Item, commit: &Commit, decision: &Decision) -> Option<Ahead> {
        let placed = |batch: &BatchOutcome| matches!(batch, BatchOutcome::Placed { .. });
        let settles = decision.outcomes.iter().all(|outcome| match outcome {
            Outcome::Accepted => true,
            Outcome::Append(batches) => batches.iter().all(placed),
            _ => false,
        });
        if !settles {
            return None;
        }
        let mut view = self.chain.view(View::clone).ok()?;
        view.apply(item.sk, item.id, commit).ok()?;
        let rest = self.waiting.iter().skip(decision.outcomes.len()).map(|queued| &queued.proposal);
        let decision = decide::decide(&view, rest);
        if decision.actions.is_empty() || decision.refused {
            return None;
        }
        let mut next = self.commit(view.slot, view.id, &decision).ok()?;
        next.time_ms = next.time_ms.max(view.time_ms);
        let item = self.item(view.slot + 1, &next).ok()?;
        let (chain, sent) = (self.chain.clone(), item.clone());
        tokio::spawn(async move { chain.table.put_if_absent(&chain.pk, &sent).await.is_ok() });
        Some(Ahead { item, commit: next, decision })
    }

    /// The first commit landed, so the second is looked after.
    pub(super) async fn plant_after_put(
        &mut self,
        ahead: Option<Ahead>,
        arriving: &mut mpsc::UnboundedReceiver<Queued>,
    ) {
        let Some(Ahead { item, commit, decision }) = ahead else { return };
        let began = self.chain.env.monotonic();
        if let Settled::Committed = self.put(&item, &decision, arriving).await
            && self.chain.apply_own(&item, &commit, began).is_ok()
        {
            let committed = Committed { slot: item.sk, time_ms: commit.time_ms };
            self.settle(decision, Some(committed));
        }
    }

    /// Decides with a bug that lies in what is looked at.
    pub(super) fn plant_decide(&self) -> Result<(u64, u128, Decision)> {
        let mut view = self.chain.view(View::clone)?;
        let mut most = usize::MAX;
        if plant::on(Bug::ProducerExpiryByOwnClock) {
            let before_ms = self.chain.env.now_ms() - 60_000;
            for partition in view.topics.values_mut().flat_map(|topic| &mut topic.partitions) {
                partition.producers.retain(|_, producer| producer.last_ms() >= before_ms);
            }
        } else {
            // One flight a commit, so that there is something to pipeline.
            most = 1;
        }
        let proposals = self.waiting.iter().take(most).map(|queued| &queued.proposal);
        Ok((view.slot, view.id, decide::decide(&view, proposals)))
    }
}
