//! From slices to rows. What was fetched is verified before it is parsed (L8), and kept: row groups decoded, footers
//! parsed.

use std::sync::Arc;

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::batch::Rows;
use crate::env::offload;
use crate::error::{Error, Result};
use crate::ledger::action::ObjectRef;
use crate::ledger::chain::Chain;
use crate::ledger::view::{Place, Slice};
use crate::limits;
use crate::metrics::Metric;
use crate::objects::ObjectName;
use crate::segment::{Footer, Group, Layout, decode_group, inline};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Footer(ObjectRef),
    Group(ObjectRef, u32),
}

#[derive(Debug, Clone)]
enum Entry {
    Footer(Arc<Footer>, u64),
    Group(Arc<Group>, u64),
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Key, Entry> for ByBytes {
    fn weight(&self, _: &Key, entry: &Entry) -> u64 {
        match entry {
            Entry::Footer(_, bytes) | Entry::Group(_, bytes) => (*bytes).max(1),
        }
    }
}

/// Loads rows through a bounded cache.
#[derive(Debug)]
pub(super) struct Loader {
    cache: Cache<Key, Entry, ByBytes>,
}

/// Slices that follow each other in one object.
struct ObjectRun<'a> {
    object: ObjectRef,
    layout: &'a Arc<Layout>,
    groups: Vec<u32>,
}

impl Loader {
    pub fn new(cache_bytes: u64) -> Self {
        // The number of entries is an estimate that only sizes the table.
        Self { cache: Cache::with_weighter(1_024, cache_bytes, ByBytes) }
    }

    /// The rows of the first slices, each whole: of all that lie in one object with the first, or of the first alone where
    /// it is inline. `Superseded`: an object or slot is no longer what the view says.
    pub async fn rows(
        &self,
        chain: &Chain,
        topic: &str,
        partition: u32,
        slices: &[Slice],
    ) -> Result<Vec<Rows>> {
        let Some(first) = slices.first() else { return Ok(Vec::new()) };
        let (object, layout) = match &first.place {
            Place::Inline { action, .. } => {
                let body = self.inline(chain, first.slot, *action, slices).await?;
                return Ok(vec![cut_inline(&body, first)?]);
            }
            Place::Object(object, layout) => (*object, layout),
        };
        let same = |slice: &&Slice| matches!(&slice.place, Place::Object(o, _) if *o == object);
        let run: Vec<&Slice> = slices.iter().take_while(same).collect();
        let mut groups: Vec<u32> = run.iter().map(|slice| slice.group).collect();
        groups.dedup();
        let run_of = ObjectRun { object, layout, groups };
        let loaded = self.groups(chain, &run_of).await?;
        let cut = |slice: &&Slice| {
            let place = run_of.groups.iter().position(|group| *group == slice.group).unwrap_or(0);
            let rows = loaded[place].slice(topic, partition, slice.first_row, slice.rows);
            rows.map_err(|error| about(object, error))
        };
        run.iter().map(cut).collect()
    }

    /// The inline body of a slot: from memory, or by one query that brings those of the next slices, too.
    async fn inline(&self, chain: &Chain, slot: u64, action: u32, ahead: &[Slice]) -> Result<Bytes> {
        if let Some(body) = chain.inline_cached(slot, action) {
            return Ok(body);
        }
        let inline = |slice: &&Slice| matches!(slice.place, Place::Inline { .. });
        let last = ahead.iter().take_while(inline).map(|slice| slice.slot).max().unwrap_or(slot);
        let limit = (last - slot + 1).min(limits::INLINE_READ_SLOTS) as usize;
        chain.inline_read(slot, limit).await?;
        chain
            .inline_cached(slot, action)
            .ok_or_else(|| Error::Superseded { what: format!("commit {slot} is a stub") })
    }

    async fn groups(&self, chain: &Chain, run: &ObjectRun<'_>) -> Result<Vec<Arc<Group>>> {
        let cached = |group: &u32| match self.cache.get(&Key::Group(run.object, *group)) {
            Some(Entry::Group(group, _)) => Some(group),
            _ => None,
        };
        let found: Vec<Option<Arc<Group>>> = run.groups.iter().map(cached).collect();
        let missing: Vec<u32> = run
            .groups
            .iter()
            .zip(&found)
            .filter(|(_, found)| found.is_none())
            .map(|(group, _)| *group)
            .collect();
        chain.metrics.record(Metric::CacheHits, (run.groups.len() - missing.len()) as u64);
        if missing.is_empty() {
            return Ok(found.into_iter().flatten().collect());
        }
        chain.metrics.record(Metric::CacheMisses, missing.len() as u64);
        let began = chain.env.monotonic();
        let mut fetched = self.fetch(chain, run, &missing).await;
        if let Err(Error::Damaged { .. }) = &fetched {
            // Perhaps only this answer is damaged, and not the object: it is damage if it is told twice.
            tracing::debug!("a segment was read damaged: reading it again");
            fetched = self.fetch(chain, run, &missing).await;
        }
        let mut fetched = fetched?.into_iter();
        chain.took(Metric::RunUs, began);
        Ok(found.into_iter().filter_map(|found| found.or_else(|| fetched.next())).collect())
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
