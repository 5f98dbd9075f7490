//! From an index row to records: footer, then the row groups that are wanted, verified before they are parsed, cached.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::load::{Entry, Key, Loader};
use crate::env::offload;
use crate::error::{Error, Result};
use crate::ledger::chain::Chain;
use crate::ledger::index::{IndexRow, SharedRow};
use crate::limits;
use crate::metrics::Metric;
use crate::objects::ObjectName;
use crate::record::{Offset, TopicId};
use crate::segment::merged::{MergedFooter, MergedGroup, MergedPart, MergedRun};
use crate::table::Consistency;

impl Loader {
    /// The index row that holds `offset`. From memory unless `consistency` is strong: what a row says of an offset stays
    /// true, only its object may be swept. `Superseded`: there is none, or none yet.
    pub async fn row(
        &self,
        chain: &Chain,
        topic: TopicId,
        partition: u32,
        offset: Offset,
        consistency: Consistency,
    ) -> Result<SharedRow> {
        let key = Key::Row(topic, partition);
        if consistency == Consistency::Eventual
            && let Some(Entry::Row(row)) = self.cache.get(&key)
            && row.covers(offset)
        {
            return Ok(row);
        }
        let found = chain.row_at(topic, partition, offset, consistency).await?;
        match found.filter(|row| row.covers(offset)) {
            Some(row) => {
                let row = Arc::new(row);
                self.cache.insert(key, Entry::Row(row.clone()));
                Ok(row)
            }
            None => Err(Error::Superseded { what: format!("no index row holds offset {offset}") }),
        }
    }

    /// As [`Self::merged`], in what was appended at one time: for whoever makes another segment of it. Of one row group.
    pub async fn merged_parts(
        &self,
        chain: &Chain,
        topic: &str,
        row: &IndexRow,
        from: Offset,
    ) -> Result<Vec<MergedPart>> {
        let read = async || {
            let (name, groups) = self.merged_groups(chain, topic, row, from, 0).await?;
            let group = groups.first().ok_or_else(|| missing(&name, from))?;
            let parts = group.parts_from(row.range.partition, from, row.range.end);
            let parts = parts.map_err(|error| about(&name, error))?;
            if parts.is_empty() { Err(missing(&name, from)) } else { Ok(parts) }
        };
        match read().await {
            Err(Error::Damaged { .. }) => read().await,
            other => other,
        }
    }

    /// Records of a row from offset `from` on, in runs: those of one row group at least, and of about `bytes` if they lie
    /// behind each other. `Superseded`: the object is not there.
    pub async fn merged(
        &self,
        chain: &Chain,
        topic: &str,
        row: &IndexRow,
        from: Offset,
        bytes: usize,
    ) -> Result<Vec<MergedRun>> {
        let first = self.merged_runs(chain, topic, row, from, bytes).await;
        match first {
            // Perhaps only this answer is damaged, and not the object; and what lies before the damage is unharmed.
            Err(Error::Damaged { .. }) => {
                tracing::debug!("a merged segment was read damaged: reading it again");
                self.merged_runs(chain, topic, row, from, 0).await
            }
            other => other,
        }
    }

    async fn merged_runs(
        &self,
        chain: &Chain,
        topic: &str,
        row: &IndexRow,
        from: Offset,
        bytes: usize,
    ) -> Result<Vec<MergedRun>> {
        let (name, groups) = self.merged_groups(chain, topic, row, from, bytes).await?;
        let mut runs = Vec::new();
        let mut next = from;
        for group in groups {
            let found = group.runs_from(row.range.partition, next, row.range.end);
            let found = found.map_err(|error| about(&name, error))?;
            next = found.last().map_or(next, |run| run.base + run.rows.len() as u64);
            runs.extend(found);
        }
        if runs.is_empty() {
            return Err(missing(&name, from));
        }
        Ok(runs)
    }

    /// The row groups that hold a row's records from offset `from` on: one at least, and as many as take `bytes` in memory.
    async fn merged_groups(
        &self,
        chain: &Chain,
        topic: &str,
        row: &IndexRow,
        from: Offset,
        bytes: usize,
    ) -> Result<(ObjectName, Vec<Arc<MergedGroup>>)> {
        let name = row.object.name(topic);
        let footer = self.merged_footer(chain, row, &name).await?;
        let groups = footer.groups_of(row.range.partition, from..row.range.end);
        let (end, mut left) = (groups.end, bytes as u64);
        let mut wanted = groups.start..(groups.start + 1).min(end);
        while wanted.end < end {
            left = left.saturating_sub(footer.raw_bytes(wanted.end - 1));
            if footer.raw_bytes(wanted.end) > left {
                break;
            }
            wanted.end += 1;
        }
        let loaded = self.merged_loaded(chain, topic, row, &name, &footer, wanted).await?;
        Ok((name, loaded))
    }

    async fn merged_footer(&self, chain: &Chain, row: &IndexRow, name: &ObjectName) -> Result<MergedFooter> {
        let object = row.object.object;
        let key = Key::MergedFooter(object);
        if let Some(Entry::MergedFooter(footer, _)) = self.cache.get(&key) {
            return Ok(footer);
        }
        let span = row.object.footer;
        crate::segment::merged::check_span(span).map_err(|error| about(name, error))?;
        let raw = get(chain, name, u64::from(span.position)..span.end()).await?;
        let footer = MergedFooter::parse(&raw, span).map_err(|error| about(name, error))?;
        let weight = footer.memory_bytes() as u64;
        self.cache.insert(key, Entry::MergedFooter(footer.clone(), weight));
        Ok(footer)
    }

    /// Row groups that lie behind each other: those that the cache lacks, from the first to the last, by one GET.
    async fn merged_loaded(
        &self,
        chain: &Chain,
        topic: &str,
        row: &IndexRow,
        name: &ObjectName,
        footer: &MergedFooter,
        wanted: Range<u32>,
    ) -> Result<Vec<Arc<MergedGroup>>> {
        let object = row.object.object;
        let cached = |group: &u32| match self.cache.get(&Key::MergedGroup(object, *group)) {
            Some(Entry::MergedGroup(found, _)) => Some(found),
            _ => None,
        };
        let found: Vec<Option<Arc<MergedGroup>>> = wanted.clone().map(|group| cached(&group)).collect();
        let missing: Vec<u32> =
            wanted.zip(&found).filter(|(_, found)| found.is_none()).map(|(group, _)| group).collect();
        chain.metrics.record(Metric::CacheHits, (found.len() - missing.len()) as u64);
        chain.metrics.record(Metric::CacheMisses, missing.len() as u64);
        let mut decoded = Vec::new().into_iter();
        if let (Some(first), Some(last)) = (missing.first(), missing.last()) {
            let began = chain.env.monotonic();
            let at = u64::from(footer.span(*first)?.position);
            let raw = get(chain, name, at..footer.span(*last)?.end()).await?;
            let cut = |group: &u32| {
                let span = footer.span(*group)?;
                let from = (u64::from(span.position) - at) as usize;
                Ok((*group, raw.slice(from..from + span.length as usize)))
            };
            let parts = missing.iter().map(cut).collect::<Result<Vec<(u32, Bytes)>>>()?;
            let (footer, topic) = (footer.clone(), topic.to_owned());
            let decode = move || {
                let decode = |(group, raw): &(u32, Bytes)| footer.decode(*group, &topic, raw).map(Arc::new);
                parts.iter().map(decode).collect::<Result<Vec<_>>>()
            };
            let groups = offload(decode).await.map_err(|error| about(name, error))?;
            for (group, decoded) in missing.iter().zip(&groups) {
                let weight = decoded.raw_bytes() as u64;
                self.cache
                    .insert(Key::MergedGroup(object, *group), Entry::MergedGroup(decoded.clone(), weight));
            }
            decoded = groups.into_iter();
            chain.took(Metric::RunUs, began);
        }
        Ok(found.into_iter().filter_map(|found| found.or_else(|| decoded.next())).collect())
    }

    /// The first offset of a row from `from` on that was appended after `append_ms`: bisects on row groups, since append times
    /// rise.
    pub async fn merged_after(
        &self,
        chain: &Chain,
        topic: &str,
        row: &IndexRow,
        from: Offset,
        append_ms: i64,
    ) -> Result<Option<Offset>> {
        let (partition, name) = (row.range.partition, row.object.name(topic));
        let footer = self.merged_footer(chain, row, &name).await?;
        let mut groups = footer.groups_of(partition, from..row.range.end);
        let mut found = None;
        while !groups.is_empty() {
            let middle = groups.start.midpoint(groups.end);
            let base = footer.offsets_in(middle, partition).map_or(from, |(base, _)| base.max(from));
            let parts = self.merged_parts(chain, topic, row, base).await?;
            match parts.iter().find(|part| part.append_ms > append_ms) {
                Some(part) => (found, groups.end) = (Some(part.base), middle),
                None => groups.start = middle + 1,
            }
        }
        Ok(found)
    }

    /// The first record of a row from offset `from` on whose time is `time_us` or later.
    pub async fn merged_at(
        &self,
        chain: &Chain,
        topic: &str,
        row: &IndexRow,
        mut from: Offset,
        time_us: i64,
    ) -> Result<Option<Offset>> {
        while from < row.range.end {
            for run in self.merged(chain, topic, row, from, limits::MERGED_GROUP_RAW_BYTES).await? {
                if let Some(place) = run.first_at(time_us) {
                    return Ok(Some(run.base + place as u64));
                }
                from = run.base + run.rows.len() as u64;
            }
        }
        Ok(None)
    }
}

async fn get(chain: &Chain, name: &ObjectName, range: Range<u64>) -> Result<Bytes> {
    let gone = || Error::Superseded { what: format!("{name} is not there") };
    chain.objects.get_range(name, range).await?.ok_or_else(gone)
}

fn missing(name: &ObjectName, offset: Offset) -> Error {
    Error::damaged(name.to_string(), format!("offset {offset} is not in it"))
}

fn about(name: &ObjectName, error: Error) -> Error {
    match error {
        Error::Damaged { what, detail } => Error::Damaged { what: format!("{name} ({what})"), detail },
        other => other,
    }
}
