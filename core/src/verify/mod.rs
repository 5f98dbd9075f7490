//! Verify: reads all that the ledger names and checks every sum. It reports instead of stopping at the first damage, so it
//! works on a store and not on an opened log. Nothing here writes.
//!
//! | file | what it checks |
//! |---|---|
//! | `chain` | commits: checksums, order, replay; checkpoints: present, whole, what replay gives |
//! | `rows` | segments and inline bodies: present, every CRC, every slice's record sum |
//! | `merged` | index rows: readable, no gap, bytes that rise; merged segments: present, every CRC, every range's record sum |

mod chain;
mod merged;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::error::Result;
use crate::ledger::index::IndexRow;
use crate::ledger::view::Slice;
use crate::record::{Offset, TopicId};
use crate::store::Store;

/// What was looked at, and what is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Commits there are.
    pub commits: u64,
    /// Of these, the ones stripped of their bodies.
    pub stripped: u64,
    /// Checkpoints read.
    pub checkpoints: u64,
    /// Segments read.
    pub segments: u64,
    /// Index rows read.
    pub rows: u64,
    /// Merged segments read.
    pub merged: u64,
    /// Slices and merged ranges whose record sum was computed.
    pub slices: u64,
    /// Their records.
    pub records: u64,
    /// Bytes of segments and checkpoints read.
    pub bytes: u64,
    /// What is damaged; empty: nothing.
    pub damage: Vec<Damage>,
}

/// One damaged thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// A commit, object or table.
    pub what: String,
    /// What is wrong with it.
    pub detail: String,
    /// Records that it touches. Empty: none that can be read now, or `detail` says that nobody can know.
    pub touches: Vec<Touched>,
    /// Its commit, if it is one.
    slot: Option<u64>,
}

/// Offsets of a partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Touched {
    /// Topic name, or its id where the name is lost.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// First offset.
    pub from: Offset,
    /// One past the last.
    pub to: Offset,
}

/// A slice, and whose it is.
type Owned = (TopicId, u32, Slice);

/// What the chain says, as far as it can be read.
#[derive(Debug, Default)]
struct Known {
    names: BTreeMap<TopicId, String>,
    log_starts: BTreeMap<(TopicId, u32), Offset>,
    slices: Vec<Owned>,
    /// Partitions with the offset up to which index rows say where records are.
    indexed: Vec<(TopicId, u32, Offset)>,
    /// Folds whose rows are not all known to be written.
    pending: Vec<IndexRow>,
}

impl Known {
    fn name(&self, topic: TopicId) -> String {
        self.names.get(&topic).cloned().unwrap_or_else(|| topic.to_string())
    }

    fn touched(&self, topic: TopicId, partition: u32, from: Offset, to: Offset) -> Option<Touched> {
        let from = from.max(self.log_starts.get(&(topic, partition)).copied().unwrap_or(0));
        (from < to).then(|| Touched { topic: self.name(topic), partition, from, to })
    }

    fn touched_by<'a>(&self, slices: impl IntoIterator<Item = &'a Owned>) -> Vec<Touched> {
        let each = slices.into_iter();
        join(each.filter_map(|(topic, p, slice)| self.touched(*topic, *p, slice.base, slice.end())).collect())
    }
}

/// Neighbouring ranges become one.
fn join(mut all: Vec<Touched>) -> Vec<Touched> {
    all.sort();
    let mut joined: Vec<Touched> = Vec::new();
    for next in all {
        match joined.last_mut() {
            Some(last)
                if (&last.topic, last.partition) == (&next.topic, next.partition) && last.to >= next.from =>
            {
                last.to = last.to.max(next.to);
            }
            _ => joined.push(next),
        }
    }
    joined
}

impl Report {
    fn damaged(&mut self, what: impl Into<String>, detail: impl Into<String>, touches: Vec<Touched>) {
        self.damage.push(Damage { what: what.into(), detail: detail.into(), touches, slot: None });
    }

    /// Adds what was found in one object.
    fn add(&mut self, other: Report) {
        let Report { commits, stripped, checkpoints, segments, rows, merged, slices, records, bytes, damage } =
            other;
        self.commits += commits;
        self.stripped += stripped;
        self.checkpoints += checkpoints;
        self.segments += segments;
        self.rows += rows;
        self.merged += merged;
        self.slices += slices;
        self.records += records;
        self.bytes += bytes;
        self.damage.extend(damage);
    }
}

/// Looks at an object once more where the first look finds damage: a bit that flipped on its way is not in the object (L8).
async fn twice<Look: Future<Output = Result<Report>>>(look: impl Fn() -> Look) -> Result<Report> {
    let found = look().await?;
    if found.damage.is_empty() { Ok(found) } else { look().await }
}

/// Reads the whole store. `progress` is told how many segments are done, and of how many.
///
/// # Errors
/// What keeps it from looking: `Unavailable`, `Newer`, `CannotOpen`. Damage is no error here.
pub async fn verify(store: &Store, mut progress: impl FnMut(u64, u64)) -> Result<Report> {
    let mut report = Report::default();
    let known = chain::walk(store, &mut report).await?;
    let merged = merged::find(store, &known, &mut report).await?;
    let segments = rows::count(&known);
    let total = segments + merged.len() as u64;
    rows::check(store, &known, &mut report, &mut |done| progress(done, total)).await?;
    merged::check(store, &known, merged, &mut report, &mut |done| progress(segments + done, total)).await?;
    for damage in &mut report.damage {
        if let Some(slot) = damage.slot {
            let placed = known.touched_by(known.slices.iter().filter(|(_, _, slice)| slice.slot == slot));
            damage.touches = join(std::mem::take(&mut damage.touches).into_iter().chain(placed).collect());
        }
    }
    Ok(report)
}
