//! Leading (R6): which partitions a long-lived writer takes. All of it is advice that saves conflicts; the put decides.
//!
//! A process claims, up to its fair share, partitions that nobody leads. It takes over a partition only if it holds
//! records for it, and only from a leader of which no commit was seen for [`limits::LEADER_SILENCE_MS`] by its own
//! monotonic clock. There is no heartbeat: an idle leader that nobody else has records for stays the leader.

use std::collections::BTreeMap;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::action::{Action, Lead};
use super::chain::{Chain, Ledger};
use super::view::{Topic, View};
use crate::error::{Error, Result};
use crate::limits;
use crate::metrics::Metric;
use crate::record::TopicId;

/// When a commit of each leader was first seen: slot and own time.
pub(crate) type Seen = BTreeMap<u64, (u64, Duration)>;

/// Rendezvous hashing: each process has its own order of preference, and all agree on each other's.
fn score(who: u64, topic: TopicId, partition: u32) -> u64 {
    let mut bytes = [0; 28];
    bytes[..8].copy_from_slice(&who.to_be_bytes());
    bytes[8..24].copy_from_slice(&topic.0.to_be_bytes());
    bytes[24..].copy_from_slice(&partition.to_be_bytes());
    xxh3_64(&bytes)
}

fn is_silent(seen: &Seen, who: u64, now: Duration) -> bool {
    seen.get(&who)
        .is_some_and(|(_, at)| now.saturating_sub(*at) > Duration::from_millis(limits::LEADER_SILENCE_MS))
}

/// Whether `who`, which leads, is the one that should keep the log: the first among those that lead and are not silent. Two
/// that are silent to each other may both be; that costs requests alone.
pub(crate) fn is_keeper(view: &View, seen: &Seen, who: u64, now: Duration) -> bool {
    let mut living = view.leaders.keys().filter(|other| **other == who || !is_silent(seen, **other, now));
    living.next() == Some(&who)
}

/// Partitions of a topic that `who` should claim: leaderless ones that it prefers, up to its share among the living.
pub(crate) fn claims(
    view: &View,
    seen: &Seen,
    who: u64,
    topic: TopicId,
    now: Duration,
) -> Vec<(TopicId, u32)> {
    let Some(found) = view.topics.get(&topic) else { return Vec::new() };
    let others = view.leaders.keys().filter(|other| **other != who && !is_silent(seen, **other, now)).count();
    let led = found.partitions.iter().filter(|p| p.leader == Some(who)).count();
    let share = found.partitions.len().div_ceil(others + 1).saturating_sub(led);
    let free = found.partitions.iter().enumerate().filter(|(_, p)| p.leader.is_none());
    let mut free: Vec<u32> = free.map(|(number, _)| number as u32).collect();
    free.sort_by_key(|partition| std::cmp::Reverse(score(who, topic, *partition)));
    free.truncate(share.min(limits::PARTITIONS_PER_LEAD));
    free.into_iter().map(|partition| (topic, partition)).collect()
}

/// Of the partitions that this process has records for: those whose leader let go or fell silent.
pub(crate) fn takeovers(
    view: &View,
    seen: &Seen,
    who: u64,
    held: &[(TopicId, u32)],
    now: Duration,
) -> Vec<(TopicId, u32)> {
    let vacant = |(topic, partition): &&(TopicId, u32)| match view.partition(*topic, *partition) {
        Some(found) => found.leader.is_none_or(|leader| leader != who && is_silent(seen, leader, now)),
        None => false,
    };
    held.iter().filter(vacant).take(limits::PARTITIONS_PER_LEAD).copied().collect()
}

/// Partitions of a topic that `who` leads.
pub(crate) fn led(topic: &Topic, who: u64) -> Vec<u32> {
    let led = topic.partitions.iter().enumerate().filter(|(_, p)| p.leader == Some(who));
    led.map(|(number, _)| number as u32).collect()
}

impl Chain {
    /// Runs `choose` on the view and on what was heard of the leaders.
    pub(crate) fn with_leaders<T>(&self, choose: impl FnOnce(&View, &Seen, Duration) -> T) -> T {
        let now = self.env.monotonic();
        let state = self.state();
        choose(&state.view, &state.leaders_seen, now)
    }
}

impl Ledger {
    /// Takes partitions. Somebody who was faster is no error.
    pub async fn take(&self, take: Vec<(TopicId, u32)>) -> Result<()> {
        self.lead(take, Vec::new()).await
    }

    /// Lets go of all that this process leads.
    pub async fn let_go(&self) -> Result<()> {
        let who = self.chain.who;
        let all = self.chain.view(|view| {
            let of = |(id, topic): (&TopicId, &Topic)| {
                led(topic, who).into_iter().map(|p| (*id, p)).collect::<Vec<_>>()
            };
            view.topics.iter().flat_map(of).collect::<Vec<_>>()
        })?;
        for let_go in all.chunks(limits::PARTITIONS_PER_LEAD) {
            self.lead(Vec::new(), let_go.to_vec()).await?;
        }
        Ok(())
    }

    #[tracing::instrument(level = "debug", skip_all, fields(take = take.len(), let_go = let_go.len()))]
    async fn lead(&self, take: Vec<(TopicId, u32)>, let_go: Vec<(TopicId, u32)>) -> Result<()> {
        if take.is_empty() && let_go.is_empty() {
            return Ok(());
        }
        let taken = take.len() as u64;
        let lead = Lead { who: self.chain.who, address: String::new(), take, let_go };
        match self.act(Action::Lead(lead)).await {
            Ok(_) => {
                self.chain.metrics.record(Metric::PartitionsTaken, taken);
                Ok(())
            }
            // Somebody was faster.
            Err(Error::Superseded { .. } | Error::TopicDeleted { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::view::{Leader, Partition};

    const T: TopicId = TopicId(1);

    fn view(leaders: &[Option<u64>]) -> View {
        let mut view = View::default();
        let partition = |leader: &Option<u64>| Partition { leader: *leader, ..Partition::default() };
        let partitions = leaders.iter().map(partition).collect();
        let topic =
            Topic { name: "t".into(), created_ms: 0, generation: 0, config: BTreeMap::new(), partitions };
        view.topics.insert(T, topic);
        for who in leaders.iter().flatten() {
            let entry = view.leaders.entry(*who);
            entry.or_insert(Leader { address: String::new(), slot: 1, partitions: 0 }).partitions += 1;
        }
        view
    }

    #[test]
    fn a_fair_share_of_what_nobody_leads() {
        let now = Duration::from_secs(100);
        let alone = claims(&view(&[None; 8]), &Seen::new(), 1, T, now);
        assert_eq!(alone.len(), 8);
        let second = view(&[Some(1), Some(1), None, None, None, None, None, None]);
        let fresh = Seen::from([(1, (1, now))]);
        let claimed = claims(&second, &fresh, 2, T, now);
        assert_eq!(claimed.len(), 4, "half, beside one other");
        assert!(claimed.iter().all(|(_, p)| *p >= 2), "only what nobody leads");
        let silent = Seen::from([(1, (1, Duration::ZERO))]);
        assert_eq!(claims(&second, &silent, 2, T, now).len(), 6, "the dead have no share");
    }

    #[test]
    fn only_the_silent_are_replaced() {
        let now = Duration::from_secs(100);
        let view = view(&[Some(1), Some(2), None]);
        let held = [(T, 0), (T, 1), (T, 2)];
        let fresh = Seen::from([(1, (1, now)), (2, (1, Duration::ZERO))]);
        assert_eq!(takeovers(&view, &fresh, 3, &held, now), [(T, 1), (T, 2)]);
        assert_eq!(takeovers(&view, &fresh, 2, &held, now), [(T, 2)], "never from itself");
        assert!(
            takeovers(&view, &Seen::new(), 3, &held[..1], now).is_empty(),
            "not heard of yet: not silent yet"
        );
    }
}
