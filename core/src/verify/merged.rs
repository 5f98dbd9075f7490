//! Merged segments: where index rows and pending folds say that records are, they are.

use std::collections::BTreeMap;

use super::chain::detail;
use super::{Known, Report, twice};
use crate::env::offload;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::action::{L1Object, L1Range, ObjectRef};
use crate::ledger::index::IndexRow;
use crate::limits;
use crate::objects::ObjectName;
use crate::record::{Offset, RecordSum, TopicId};
use crate::segment::merged::{MergedFooter, MergedGroup, check_span};
use crate::store::Store;
use crate::table::{Consistency, TableError};

/// A range by its place among the segment's, and offsets of it.
type Part = (usize, Offset, Offset);

/// A merged segment, and what rows say is in it.
type Named = (L1Object, Vec<L1Range>);

/// Reads the index of every partition; answers with the segments that it names.
pub(super) async fn find(store: &Store, known: &Known, report: &mut Report) -> Result<Vec<Named>> {
    let mut all = known.pending.clone();
    for (topic, partition, indexed_to) in &known.indexed {
        let place = (*topic, *partition);
        let log_start = known.log_starts.get(&place).copied().unwrap_or(0);
        if log_start >= *indexed_to {
            continue;
        }
        let mut next = log_start;
        let (mut gaps, mut bytes) = (Vec::new(), 0);
        for row in rows(store, known, report, place).await? {
            // Below the log start are those that trim has not deleted yet; later ones are still pending.
            if row.range.end <= next || row.range.base >= *indexed_to {
                continue;
            }
            if row.range.base > next {
                gaps.push((next, row.range.base));
            }
            let counted = std::mem::replace(&mut bytes, row.range.bytes_running);
            if counted > bytes {
                let words = format!("{bytes} bytes up to offset {}, but {counted} before", row.range.end);
                report.damaged(format!("index of {}/{partition}", known.name(*topic)), words, Vec::new());
            }
            next = row.range.end;
            all.push(row);
        }
        if next < *indexed_to {
            gaps.push((next, *indexed_to));
        }
        for (from, to) in gaps {
            let what = format!("index of {}/{partition}", known.name(*topic));
            let words = format!("no row says where offsets {from} to {} are", to - 1);
            report.damaged(what, words, known.touched(*topic, *partition, from, to).into_iter().collect());
        }
    }
    let mut named: BTreeMap<ObjectRef, Named> = BTreeMap::new();
    for IndexRow { object, range, .. } in all {
        let (_, ranges) = named.entry(object.object).or_insert_with(|| (object, Vec::new()));
        if !ranges.contains(&range) {
            ranges.push(range);
        }
    }
    Ok(named.into_values().collect())
}

/// The rows of a partition, in order, as far as they can be read.
async fn rows(
    store: &Store,
    known: &Known,
    report: &mut Report,
    (topic, partition): (TopicId, u32),
) -> Result<Vec<IndexRow>> {
    let pk = IndexRow::pk(store.era(), topic, partition);
    let what = || format!("index of {}/{partition}", known.name(topic));
    let (mut rows, mut from) = (Vec::new(), Some(0));
    while let Some(at) = from {
        let page = match store.table.range(&pk, at, limits::PAGE_ITEMS, Consistency::Strong).await {
            Ok(answer) => answer.value,
            Err(TableError::Damaged(detail)) => {
                report.damaged(what(), detail, Vec::new());
                return Ok(rows);
            }
            Err(error) => return Err(error.into_error("reading the index", store.table.name())),
        };
        for item in &page.items {
            report.rows += 1;
            match IndexRow::read(topic, partition, item) {
                Ok(row) => rows.push(row),
                Err(error @ Error::Newer { .. }) => return Err(error),
                // What it said is told as a gap.
                Err(error) => report.damaged(what(), detail(&error), Vec::new()),
            }
        }
        from = page.items.last().filter(|_| page.more).map(|last| last.sk + 1);
    }
    rows.sort_by_key(|row| row.range.base);
    Ok(rows)
}

/// Reads these segments, row group by row group.
pub(super) async fn check(
    store: &Store,
    known: &Known,
    named: Vec<Named>,
    report: &mut Report,
    progress: &mut impl FnMut(u64),
) -> Result<()> {
    let mut done = 0;
    for (object, ranges) in named {
        progress(done);
        let look = async || {
            let (name, ranges) = (object.name(&known.name(object.topic)), ranges.clone());
            let mut found = Report::default();
            Check { store, known, report: &mut found, name, ranges }.segment(&object).await?;
            Ok(found)
        };
        report.add(twice(look).await?);
        done += 1;
    }
    progress(done);
    Ok(())
}

struct Check<'a> {
    store: &'a Store,
    known: &'a Known,
    report: &'a mut Report,
    name: ObjectName,
    ranges: Vec<L1Range>,
}

impl Check<'_> {
    async fn segment(&mut self, object: &L1Object) -> Result<()> {
        let topic = object.topic;
        let footer = match self.footer(object).await {
            Ok(footer) => footer,
            Err(error) => return self.tell(error, None, topic),
        };
        self.report.merged += 1;
        // Of each range: the sum so far, and where it goes on; `None`: part of it is damaged.
        let mut sums: Vec<Option<(RecordSum, Offset)>> =
            self.ranges.iter().map(|range| Some((RecordSum::default(), range.base))).collect();
        for group in 0..footer.groups() {
            let here: Vec<Part> = (0..self.ranges.len())
                .filter_map(|index| {
                    let range = self.ranges[index];
                    let (from, to) = footer.offsets_in(group, range.partition)?;
                    let (from, to) = (from.max(range.base), to.min(range.end));
                    (from < to).then_some((index, from, to))
                })
                .collect();
            let decoded = match self.group(&footer, group).await {
                Ok(decoded) => decoded,
                Err(error) => {
                    here.iter().for_each(|(index, _, _)| sums[*index] = None);
                    self.tell(error, Some((&here, group)), topic)?;
                    continue;
                }
            };
            for (index, from, to) in here {
                let Some((sum, next)) = sums[index] else { continue };
                let base = self.ranges[index].base;
                sums[index] = match sum_of(&decoded, topic, &self.ranges[index], from, to) {
                    Ok(more) if next == from => Some((sum + more.shifted(from - base), to)),
                    _ => None,
                };
                if sums[index].is_none() {
                    let words = format!("row group {group} does not hold the records of the index");
                    self.damaged(words, vec![(self.ranges[index].partition, from, to)], topic);
                }
            }
        }
        for (index, found) in sums.into_iter().enumerate() {
            let range = self.ranges[index];
            self.report.slices += 1;
            self.report.records += range.end - range.base;
            if found.is_some_and(|found| found != (range.sum, range.end)) {
                let words = "the records are not those of the fold: their sum differs".to_owned();
                self.damaged(words, vec![(range.partition, range.base, range.end)], topic);
            }
        }
        Ok(())
    }

    async fn footer(&mut self, object: &L1Object) -> Result<MergedFooter> {
        let span = object.footer;
        check_span(span)?;
        let bytes = self.get(u64::from(span.position)..span.end()).await?;
        let footer = MergedFooter::parse(&bytes, span)?;
        match footer.topic() == object.topic {
            true => Ok(footer),
            false => Err(Error::damaged("footer", "is of another topic")),
        }
    }

    async fn group(&mut self, footer: &MergedFooter, group: u32) -> Result<MergedGroup> {
        let span = footer.span(group)?;
        let bytes = self.get(u64::from(span.position)..span.end()).await?;
        let (footer, topic) = (footer.clone(), self.topic());
        offload(move || footer.decode(group, &topic, &bytes)).await
    }

    async fn get(&mut self, range: std::ops::Range<u64>) -> Result<bytes::Bytes> {
        let bytes = self.store.objects.get_range(&self.name, range).await?;
        let bytes = bytes.ok_or_else(|| Error::damaged("object", "missing"))?;
        self.report.bytes += bytes.len() as u64;
        Ok(bytes)
    }

    fn topic(&self) -> String {
        match &self.name {
            ObjectName::L1 { topic, .. } => topic.to_string(),
            other => other.to_string(),
        }
    }

    /// Damage is told; what keeps from looking is passed on.
    fn tell(&mut self, error: Error, within: Option<(&[Part], u32)>, topic: TopicId) -> Result<()> {
        if matches!(error, Error::Newer { .. }) || error.kind() == ErrorKind::Retry {
            return Err(error);
        }
        let (words, places) = match within {
            None => (detail(&error), self.ranges.iter().map(|r| (r.partition, r.base, r.end)).collect()),
            Some((here, group)) => {
                let place = |(index, from, to): &Part| (self.ranges[*index].partition, *from, *to);
                (format!("row group {group}: {}", detail(&error)), here.iter().map(place).collect())
            }
        };
        self.damaged(words, places, topic);
        Ok(())
    }

    fn damaged(&mut self, words: String, places: Vec<(u32, Offset, Offset)>, topic: TopicId) {
        let touched = places.into_iter().filter_map(|(p, from, to)| self.known.touched(topic, p, from, to));
        let touched = super::join(touched.collect());
        self.report.damaged(self.name.to_string(), words, touched);
    }
}

fn sum_of(
    group: &MergedGroup,
    topic: TopicId,
    range: &L1Range,
    from: Offset,
    to: Offset,
) -> Result<RecordSum> {
    let (mut sum, mut next) = (RecordSum::default(), from);
    for run in group.runs_from(range.partition, from, to)? {
        let rows = run.rows.sum(topic, range.partition, 0, run.rows.len());
        sum = sum + rows.shifted(next - from);
        next += run.rows.len() as u64;
    }
    match next == to {
        true => Ok(sum),
        false => Err(Error::damaged("row group", format!("ends at offset {next}, must at {to}"))),
    }
}
