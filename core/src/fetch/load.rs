//! From slices to rows. What was fetched is verified before it is parsed (L8), and kept: row groups decoded, footers
//! parsed.
//!
//! A consumer reads several partitions, whose slices lie side by side in the same segments. The first that asks for one gets,
//! with one GET, the row groups of all of them; the others wait for it, and find theirs in the cache.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::batch::Rows;
use crate::env::offload;
use crate::error::{Error, Result};
use crate::ledger::action::ObjectRef;
use crate::ledger::chain::Chain;
use crate::ledger::index::{IndexRow, SharedRow};
use crate::ledger::view::{Place, Slice};
use crate::limits;
use crate::metrics::Metric;
use crate::objects::ObjectName;
use crate::record::TopicId;
use crate::segment::merged::{MergedFooter, MergedGroup};
use crate::segment::{Footer, Group, Layout, decode_group, inline};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Footer(ObjectRef),
    Group(ObjectRef, u32),
    /// The index row of a partition that was read last.
    Row(TopicId, u32),
    MergedFooter(ObjectRef),
    MergedGroup(ObjectRef, u32),
}

#[derive(Debug, Clone)]
pub(super) enum Entry {
    Footer(Arc<Footer>, u64),
    Group(Arc<Group>, u64),
    Row(SharedRow),
    MergedFooter(MergedFooter, u64),
    MergedGroup(Arc<MergedGroup>, u64),
}

#[derive(Debug, Clone)]
pub(super) struct ByBytes;

impl Weighter<Key, Entry> for ByBytes {
    fn weight(&self, _: &Key, entry: &Entry) -> u64 {
        match entry {
            Entry::Footer(_, bytes) | Entry::Group(_, bytes) => (*bytes).max(1),
            Entry::MergedFooter(_, bytes) | Entry::MergedGroup(_, bytes) => (*bytes).max(1),
            Entry::Row(_) => size_of::<IndexRow>() as u64,
        }
    }
}

/// Loads rows through a bounded cache.
#[derive(Debug)]
pub(crate) struct Loader {
    pub(super) cache: Cache<Key, Entry, ByBytes>,
    /// What others want is brought along up to here: it must still be there when they ask.
    shared_bytes: u64,
    /// Whose turn it is to read an object that several partitions share.
    turns: Mutex<BTreeMap<ObjectRef, Weak<tokio::sync::Mutex<()>>>>,
}

/// Whose rows are asked for, and who else will ask for theirs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking<'a> {
    pub topic: &'a str,
    pub partition: u32,
    /// The partitions that one consumer reads; empty: nobody else asks.
    pub beside: &'a [u32],
}

/// Slices that follow each other in one object.
struct ObjectRun<'a> {
    object: ObjectRef,
    /// The commit that names them.
    slot: u64,
    layout: &'a Arc<Layout>,
    groups: Vec<u32>,
}

impl Loader {
    pub fn new(cache_bytes: u64) -> Self {
        // The number of entries is an estimate that only sizes the table.
        let cache = Cache::with_weighter(1_024, cache_bytes, ByBytes);
        Self { cache, shared_bytes: limits::SHARED_READ_BYTES.min(cache_bytes / 8), turns: Mutex::default() }
    }

    /// The rows of the first slices, each whole: of all that lie in one object with the first, or of the first alone where
    /// it is inline. `Superseded`: an object or slot is no longer what the view says.
    pub(super) async fn rows(
        &self,
        chain: &Chain,
        asking: Asking<'_>,
        slices: &[Slice],
    ) -> Result<Vec<Rows>> {
        let Some(first) = slices.first() else { return Ok(Vec::new()) };
        let (object, layout) = match &first.place {
            Place::Inline { action, .. } => {
                let inline = |slice: &&Slice| matches!(slice.place, Place::Inline { .. });
                let last = slices.iter().take_while(inline).map(|slice| slice.slot).max();
                let body = self.inline(chain, first.slot, *action, last.unwrap_or(first.slot)).await?;
                return Ok(vec![cut_inline(&body, first)?]);
            }
            Place::Object(object, layout) => (*object, layout),
        };
        let same = |slice: &&Slice| matches!(&slice.place, Place::Object(o, _) if *o == object);
        let run: Vec<&Slice> = slices.iter().take_while(same).collect();
        let mut groups: Vec<u32> = run.iter().map(|slice| slice.group).collect();
        groups.dedup();
        let run_of = ObjectRun { object, slot: first.slot, layout, groups };
        let loaded = self.groups(chain, asking, &run_of).await?;
        let cut = |slice: &&Slice| {
            let place = run_of.groups.iter().position(|group| *group == slice.group).unwrap_or(0);
            let rows = loaded[place].slice(asking.topic, asking.partition, slice.first_row, slice.rows);
            rows.map_err(|error| about(object, error))
        };
        run.iter().map(cut).collect()
    }

    /// The rows of slices, each with its topic and partition, that lie in one object or inline body: by one GET.
    pub async fn together(&self, chain: &Chain, slices: &[(&str, u32, &Slice)]) -> Result<Vec<Rows>> {
        let Some((_, _, first)) = slices.first() else { return Ok(Vec::new()) };
        let (object, layout) = match &first.place {
            Place::Inline { action, .. } => {
                let body = self.inline(chain, first.slot, *action, first.slot).await?;
                return slices.iter().map(|(_, _, slice)| cut_inline(&body, slice)).collect();
            }
            Place::Object(object, layout) => (*object, layout),
        };
        let groups: BTreeSet<u32> = slices.iter().map(|(_, _, slice)| slice.group).collect();
        let run = ObjectRun { object, slot: first.slot, layout, groups: groups.into_iter().collect() };
        let nobody = Asking { topic: "", partition: 0, beside: &[] };
        let loaded = self.groups(chain, nobody, &run).await?;
        let cut = |(topic, partition, slice): &(&str, u32, &Slice)| {
            let place = run.groups.iter().position(|group| *group == slice.group).unwrap_or(0);
            let rows = loaded[place].slice(topic, *partition, slice.first_row, slice.rows);
            rows.map_err(|error| about(object, error))
        };
        slices.iter().map(cut).collect()
    }

    /// The inline body of a slot: from memory, or by one query that brings those up to the slot `last`, too.
    async fn inline(&self, chain: &Chain, slot: u64, action: u32, last: u64) -> Result<Bytes> {
        if let Some(body) = chain.inline_cached(slot, action) {
            return Ok(body);
        }
        let limit = (last - slot + 1).min(limits::INLINE_READ_SLOTS) as usize;
        chain.inline_read(slot, limit).await?;
        chain
            .inline_cached(slot, action)
            .ok_or_else(|| Error::Superseded { what: format!("commit {slot} is a stub") })
    }

    async fn groups(
        &self,
        chain: &Chain,
        asking: Asking<'_>,
        run: &ObjectRun<'_>,
    ) -> Result<Vec<Arc<Group>>> {
        let mut found = self.cached(run.object, &run.groups);
        let missing = found.values().filter(|found| found.is_none()).count();
        chain.metrics.record(Metric::CacheHits, (run.groups.len() - missing) as u64);
        chain.metrics.record(Metric::CacheMisses, missing as u64);
        let shared = missing > 0 && asking.beside.len() > 1;
        let turn = if shared { Some(self.turn(run.object).lock_owned().await) } else { None };
        let mut wanted = run.groups.clone();
        if turn.is_some() {
            // Somebody may have brought them meanwhile.
            found = self.cached(run.object, &run.groups);
            wanted = self.beside(chain, asking, run)?;
        }
        // What this run lacks, whoever brings it meanwhile; of the others what the cache lacks.
        let lacks = |group: &u32| match found.get(group) {
            Some(found) => found.is_none(),
            None => !self.holds(run.object, *group),
        };
        let wanted: Vec<u32> = match found.values().all(Option::is_some) {
            true => Vec::new(),
            false => wanted.into_iter().filter(lacks).collect(),
        };
        if !wanted.is_empty() {
            let began = chain.env.monotonic();
            let mut fetched = self.fetch(chain, run, &wanted).await;
            if let Err(Error::Damaged { .. }) = &fetched {
                // Perhaps only this answer is damaged, and not the object: it is damage if it is told twice. What others want
                // of it is their affair.
                tracing::debug!("a segment was read damaged: reading it again");
                let own: Vec<u32> =
                    wanted.iter().copied().filter(|group| found.contains_key(group)).collect();
                fetched = self.fetch(chain, run, &own).await.map(|groups| {
                    found.extend(own.into_iter().zip(groups.into_iter().map(Some)));
                    Vec::new()
                });
            }
            for (group, fetched) in wanted.into_iter().zip(fetched?) {
                found.entry(group).and_modify(|found| *found = Some(fetched));
            }
            chain.took(Metric::RunUs, began);
        }
        run.groups
            .iter()
            .map(|group| {
                let lost = || about(run.object, Error::damaged("slice", "lies in no row group"));
                found.get(group).cloned().flatten().ok_or_else(lost)
            })
            .collect()
    }

    fn cached(&self, object: ObjectRef, groups: &[u32]) -> BTreeMap<u32, Option<Arc<Group>>> {
        let look = |group: &u32| match self.cache.get(&Key::Group(object, *group)) {
            Some(Entry::Group(found, _)) => (*group, Some(found)),
            _ => (*group, None),
        };
        groups.iter().map(look).collect()
    }

    fn holds(&self, object: ObjectRef, group: u32) -> bool {
        self.cache.peek(&Key::Group(object, group)).is_some()
    }

    fn turn(&self, object: ObjectRef) -> Arc<tokio::sync::Mutex<()>> {
        // A map of turns: whatever a panic left in it will do.
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(&object).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        turns.insert(object, Arc::downgrade(&turn));
        turn
    }

    /// The row groups that all partitions of the consumer want of the object, in order; those of the run alone where all
    /// would be too much for one GET.
    fn beside(&self, chain: &Chain, asking: Asking<'_>, run: &ObjectRun<'_>) -> Result<Vec<u32>> {
        let mut groups: BTreeSet<u32> = chain.view(|view| {
            let Some((_, topic)) = view.topic(asking.topic) else { return BTreeSet::new() };
            let partitions = asking.beside.iter().filter_map(|number| topic.partitions.get(*number as usize));
            let slices = partitions.flat_map(|partition| {
                let first = partition.slices.partition_point(|slice| slice.slot < run.slot);
                partition.slices.range(first..).take_while(|slice| slice.slot == run.slot)
            });
            let here = slices.filter(|slice| matches!(&slice.place, Place::Object(o, _) if *o == run.object));
            here.map(|slice| slice.group).collect()
        })?;
        groups.extend(&run.groups);
        let at = |group: Option<&u32>| run.layout.groups.get(*group? as usize);
        let span = at(groups.first()).zip(at(groups.last()));
        let bytes = span.map(|(first, last)| last.end() - u64::from(first.position));
        match bytes {
            Some(bytes) if bytes <= self.shared_bytes => Ok(groups.into_iter().collect()),
            _ => Ok(run.groups.clone()),
        }
    }

    /// One GET for the groups that are missing: the whole object where it is small or mostly wanted, else the range
    /// that they lie in, and one more for the footer unless it is known.
    #[tracing::instrument(
        name = "run",
        level = "debug",
        skip_all,
        fields(object = %ObjectName::from(&run.object), groups = missing.len())
    )]
    async fn fetch(&self, chain: &Chain, run: &ObjectRun<'_>, missing: &[u32]) -> Result<Vec<Arc<Group>>> {
        let span = |group: u32| run.layout.groups.get(group as usize).copied();
        let spans: Vec<_> = missing.iter().filter_map(|group| span(*group)).collect();
        let (Some(first), Some(last)) = (spans.first(), spans.last()) else {
            return Err(about(run.object, Error::damaged("slice", "lies in no row group")));
        };
        let size = run.layout.file_bytes();
        let (from, mut to) = (u64::from(first.position), last.end());
        let known = match self.cache.get(&Key::Footer(run.object)) {
            Some(Entry::Footer(footer, _)) => Some(footer),
            _ => None,
        };
        let whole = size <= limits::WHOLE_OBJECT_BYTES || (to - from) * 2 >= size;
        let from = if whole { 0 } else { from };
        // A footer that is near comes with the same request.
        if whole || (known.is_none() && size - to <= limits::WHOLE_OBJECT_BYTES / 4) {
            to = size;
        }
        let name = ObjectName::from(&run.object);
        let gone = || Error::Superseded { what: format!("{name} is not there") };
        let bytes = chain.objects.get_range(&name, from..to).await?.ok_or_else(gone)?;
        let footer = match known {
            Some(footer) => footer,
            None => {
                let at = u64::from(run.layout.footer.position);
                let raw = match to == size {
                    true => bytes.slice((at - from) as usize..),
                    false => chain.objects.get_range(&name, at..size).await?.ok_or_else(gone)?,
                };
                let footer = Footer::parse(&raw, run.layout).map_err(|error| about(run.object, error))?;
                let footer = Arc::new(footer);
                let weight = footer.memory_bytes() as u64;
                self.cache.insert(Key::Footer(run.object), Entry::Footer(footer.clone(), weight));
                footer
            }
        };
        let wanted: Vec<(u32, Bytes)> = missing
            .iter()
            .zip(&spans)
            .map(|(group, span)| {
                let at = (u64::from(span.position) - from) as usize;
                (*group, bytes.slice(at..at + span.length as usize))
            })
            .collect();
        let decoded = offload(move || {
            let decode = |(group, raw): &(u32, Bytes)| decode_group(&footer, *group, raw).map(Arc::new);
            wanted.iter().map(decode).collect::<Result<Vec<_>>>()
        })
        .await
        .map_err(|error| about(run.object, error))?;
        for (group, decoded) in missing.iter().zip(&decoded) {
            let weight = decoded.rows().raw_bytes() as u64;
            self.cache.insert(Key::Group(run.object, *group), Entry::Group(decoded.clone(), weight));
        }
        Ok(decoded)
    }
}

/// Names the object in an error about its bytes.
fn about(object: ObjectRef, error: Error) -> Error {
    match error {
        Error::Damaged { what, detail } => {
            Error::Damaged { what: format!("{} ({what})", ObjectName::from(&object)), detail }
        }
        other => other,
    }
}

fn cut_inline(body: &Bytes, slice: &Slice) -> Result<Rows> {
    let rows = inline::decode_inline(body)?;
    let end = slice.first_row.checked_add(slice.rows);
    match end {
        Some(end) if end <= rows.len() as u64 => {
            Ok(rows.slice(slice.first_row as usize, slice.rows as usize))
        }
        _ => Err(Error::damaged(
            format!("commit {}", slice.slot),
            format!("its inline body has {} rows, a slice ends at {end:?}", rows.len()),
        )),
    }
}
