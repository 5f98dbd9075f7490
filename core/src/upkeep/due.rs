//! What is not merged yet, and which topics are to be merged now.

use std::collections::{BTreeMap, BTreeSet};

use super::Upkeep;
use crate::error::Result;
use crate::ledger::action::ObjectRef;
use crate::ledger::view::{Place, Slice, View};
use crate::limits;
use crate::metrics::Metric;
use crate::record::TopicId;
use crate::segment::Layout;
use crate::topic::MERGE_MAX_AGE_MS;

/// What a topic has that is not merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmerged {
    /// Topic id.
    pub id: TopicId,
    /// Topic name.
    pub topic: String,
    /// Slices.
    pub slices: u64,
    /// Their records.
    pub records: u64,
    /// Their bytes, about: a row group counts by halves where two share it.
    pub bytes: u64,
    /// When the oldest of them was appended, ms.
    pub oldest_ms: i64,
    /// Why it is to be merged now, if it is.
    pub due: Option<Due>,
}

/// Why a topic is to be merged now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Its oldest records have waited for this long, ms.
    Age(i64),
    /// All topics together have too much, and it has the most slices.
    Backlog,
}

impl Upkeep {
    /// What is not merged yet, by topic, as of a fresh read. Changes nothing.
    pub async fn unmerged(&self) -> Result<Vec<Unmerged>> {
        let chain = &self.ledger.chain;
        self.refresh().await?;
        let now_ms = self.now_ms();
        chain.view(|view| unmerged(view, now_ms))
    }

    /// Tells how much there is to be merged.
    pub(super) fn measure(&self) -> Result<()> {
        let (chain, now_ms) = (&self.ledger.chain, self.now_ms());
        let unmerged = chain.view(|view| unmerged(view, now_ms))?;
        let sum = |of: fn(&Unmerged) -> u64| unmerged.iter().map(of).sum();
        let oldest_ms = unmerged.iter().map(|topic| topic.oldest_ms).min().unwrap_or(now_ms);
        let age_ms = u64::try_from(now_ms.saturating_sub(oldest_ms)).unwrap_or(0);
        chain.metrics.record(Metric::SlicesUnmerged, sum(|topic| topic.slices));
        chain.metrics.record(Metric::BytesUnmerged, sum(|topic| topic.bytes));
        chain.metrics.record(Metric::UnmergedAgeMs, age_ms);
        Ok(())
    }
}

/// What is not merged, by topic, as of a view and a time. Pure.
pub(super) fn unmerged(view: &View, now_ms: i64) -> Vec<Unmerged> {
    let mut shares: BTreeMap<(ObjectRef, u32), u64> = BTreeMap::new();
    for (_, _, slice) in view.slices() {
        if let Place::Object(object, _) = &slice.place {
            *shares.entry((*object, slice.group)).or_default() += 1;
        }
    }
    let share = |slice: &Slice| match &slice.place {
        Place::Inline { length, .. } => u64::from(*length),
        Place::Object(object, layout) => {
            let shared = shares.get(&(*object, slice.group)).copied().unwrap_or(1);
            group_bytes(layout, slice.group) / shared.max(1)
        }
    };
    let mut topics: Vec<Unmerged> = Vec::new();
    for (id, topic) in &view.topics {
        let name = || topic.name.clone();
        let mut sum = Unmerged {
            id: *id,
            topic: name(),
            slices: 0,
            records: 0,
            bytes: 0,
            oldest_ms: i64::MAX,
            due: None,
        };
        for slice in topic.partitions.iter().flat_map(|partition| &partition.slices) {
            sum.slices += 1;
            sum.records += slice.rows;
            sum.bytes += share(slice);
            sum.oldest_ms = sum.oldest_ms.min(slice.append_ms);
        }
        if sum.slices == 0 {
            continue;
        }
        let set_ms = topic.config.get(MERGE_MAX_AGE_MS).and_then(|value| value.parse().ok());
        let is_busy = sum.bytes >= limits::MERGE_AGE_BYTES;
        let age_max_ms =
            set_ms.unwrap_or(if is_busy { limits::MERGE_AGE_MS } else { limits::MERGE_AGE_MS_MAX });
        let age_ms = now_ms.saturating_sub(sum.oldest_ms);
        sum.due = (age_ms >= age_max_ms).then_some(Due::Age(age_ms));
        topics.push(sum);
    }
    // Too much in all: those with the most slices, until the rest is little enough.
    let mut rest: Vec<&mut Unmerged> = topics.iter_mut().filter(|topic| topic.due.is_none()).collect();
    rest.sort_by_key(|topic| topic.slices);
    let (mut slices, mut bytes) =
        rest.iter().fold((0, 0), |(slices, bytes), topic| (slices + topic.slices, bytes + topic.bytes));
    while slices >= limits::MERGE_DUE_SLICES || bytes >= limits::MERGE_DUE_BYTES {
        let Some(topic) = rest.pop() else { break };
        topic.due = Some(Due::Backlog);
        (slices, bytes) = (slices - topic.slices, bytes - topic.bytes);
    }
    topics
}

/// Topics that are merged together, those with the oldest records first: as many as fit into memory whole. Else a batch would
/// be a little of each, and each batch would put a segment for each. Pure.
pub(super) fn lots(mut topics: Vec<Unmerged>) -> Vec<BTreeSet<TopicId>> {
    topics.sort_by_key(|topic| (topic.oldest_ms, topic.id));
    let mut lots: Vec<(BTreeSet<TopicId>, u64)> = Vec::new();
    for topic in topics {
        let raw = topic.slices * limits::MERGE_SLICE_BYTES as u64
            + topic.records * limits::ROW_BYTES as u64
            + topic.bytes * limits::MERGE_RAW_RATIO;
        match lots.last_mut() {
            Some((lot, bytes)) if *bytes + raw <= limits::MERGE_RAW_BYTES as u64 => {
                lot.insert(topic.id);
                *bytes += raw;
            }
            _ => lots.push((BTreeSet::from([topic.id]), raw)),
        }
    }
    lots.into_iter().map(|(lot, _)| lot).collect()
}

fn group_bytes(layout: &Layout, group: u32) -> u64 {
    layout.groups.get(group as usize).map_or(0, |group| u64::from(group.length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_merged_whole_the_oldest_first() {
        let topic = |id: u128, slices: u64, oldest_ms: i64| Unmerged {
            id: TopicId(id),
            topic: String::new(),
            slices,
            records: slices,
            bytes: 0,
            oldest_ms,
            due: None,
        };
        let ids = |topics: Vec<Unmerged>| -> Vec<Vec<u128>> {
            lots(topics).iter().map(|lot| lot.iter().map(|id| id.0).collect()).collect()
        };
        assert_eq!(ids(vec![topic(1, 5, 30), topic(2, 5, 10)]), [[1, 2]]);
        // Ten slices of each of so many are more than one batch holds.
        let slices = (limits::MERGE_RAW_BYTES / (limits::MERGE_SLICE_BYTES + limits::ROW_BYTES)) as u64;
        let half = slices / 2;
        let three = vec![topic(1, half, 30), topic(2, half, 10), topic(3, half, 20)];
        assert_eq!(ids(three), [vec![2, 3], vec![1]]);
        assert_eq!(ids(vec![topic(1, slices + 1, 10), topic(2, 1, 20)]), [[1], [2]], "one at least");
        let large = Unmerged { bytes: limits::MERGE_RAW_BYTES as u64, ..topic(2, 1, 20) };
        assert_eq!(ids(vec![topic(1, 1, 10), large]), [[1], [2]], "bytes count, too");
        assert_eq!(ids(Vec::new()), Vec::<Vec<u128>>::new());
    }
}
