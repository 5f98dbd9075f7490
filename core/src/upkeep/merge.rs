//! Merge: unmerged slices, whatever segments and commits they lie in, become merged segments of one topic and ingest hour
//! (R4).
//!
//! ```text
//!   finish what others began ─▶ read oldest slices, verified ─▶ PUT, proved ─▶ commit Fold ─▶ index rows ─▶ commit Indexed
//! ```
//! The fold decides: before it nothing was changed, after it anybody can do the rest from the view. So two at once, or one
//! that is killed anywhere, only cost an object that nothing names.

use std::collections::{BTreeMap, BTreeSet};

use super::due::unmerged;
use super::{Upkeep, is_superseded};
use crate::batch::Rows;
use crate::env::offload;
use crate::error::{Error, Result};
use crate::fetch::Loader;
use crate::ledger::action::{Action, Fold, L1Object, L1Range, LEDGER, ObjectRef};
#[cfg(feature = "planted-bugs")]
use crate::ledger::index::IndexRow;
use crate::ledger::view::{Place, Slice, Topic, View};
use crate::limits;
use crate::metrics::Metric;
use crate::objects::Ulid;
use crate::plant::{self, Bug};
use crate::record::{RecordSum, TopicId};
use crate::segment::Compression;
use crate::segment::merged::{MergedFooter, MergedPart, MergedSegment, MergedWriter};
use crate::topic::{BLOOM_FILTER_KEY, COMPRESSION_TYPE};

/// What a merge did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merged {
    /// Folds that were committed.
    pub folds: u64,
    /// Slices that they took.
    pub slices: u64,
    /// Their records.
    pub records: u64,
    /// Merged segments that were written.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Index rows that were written.
    pub rows: u64,
    /// What could not be read, and so stays as it is; with all that follows in its partition.
    pub damage: Vec<String>,
}

/// A slice that is to be merged.
#[derive(Debug, Clone)]
struct Input {
    topic: TopicId,
    partition: u32,
    slice: Slice,
}

/// What a view says of a topic that is merged.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub name: String,
    pub compression: Compression,
    /// The key gets a bloom filter.
    pub bloom: bool,
}

/// The slices of one topic and hour that were read, by partition.
type Hour = BTreeMap<u32, Vec<(Slice, Rows)>>;

/// What was read for one fold.
#[derive(Debug, Default)]
struct Gathered {
    hours: BTreeMap<(TopicId, u32), Hour>,
    raw_bytes: usize,
    ranges: usize,
    blocked: BTreeSet<(TopicId, u32)>,
}

/// A merged segment on its way, and what the fold will say of it.
pub(super) struct Written {
    pub object: L1Object,
    pub ranges: Vec<L1Range>,
    pub bytes: u64,
}

impl Upkeep {
    /// Finishes what others began, then merges the topics that are due, or `all`, fold by fold until none is left. Damaged
    /// slices stay where they are; the merge of the others goes on. `tell` hears of records merged, and of how many.
    ///
    /// # Errors
    /// Those of the ledger and of the stores. What was committed is committed; the next run goes on.
    pub async fn merge(&self, all: bool, tell: impl FnMut(u64, u64)) -> Result<Merged> {
        self.refresh().await?;
        self.merge_in_view(all, tell).await
    }

    pub(super) async fn merge_in_view(&self, all: bool, mut tell: impl FnMut(u64, u64)) -> Result<Merged> {
        let mut merged = Merged::default();
        let mut lost = 0;
        let mut blocked = BTreeSet::new();
        loop {
            merged.rows += self.index().await?;
            if self.is_late() {
                return Ok(merged);
            }
            match self.fold(all, lost > 0, &mut blocked, &mut merged, &mut tell).await {
                Ok(true) => lost = 0,
                Ok(false) => return Ok(merged),
                // Somebody else merged them, or what they lie in was swept since: look again. Who is late every time is not
                // needed.
                Err(error) if is_superseded(&error) => lost += 1,
                Err(error) => return Err(error),
            }
            if lost > limits::MERGE_ATTEMPTS_MAX {
                return Ok(merged);
            }
            if lost > 0 {
                self.refresh().await?;
            }
        }
    }

    /// Writes the index rows of every fold and rewrite that lacks some, and says so.
    pub(super) async fn index(&self) -> Result<u64> {
        let chain = &self.ledger.chain;
        let mut written = 0;
        loop {
            let next = chain.view(|view| {
                let (number, pending) = view.pending.first_key_value()?;
                let rows = pending.ranges.iter().filter_map(|range| pending.row(*number, range));
                // Nobody reads the rows of a topic that was deleted.
                let rows = rows.filter(|row| view.topics.contains_key(&row.object.topic));
                Some((*number, pending.rewrite, rows.collect::<Vec<_>>()))
            })?;
            let Some((number, rewrite, rows)) = next else { return Ok(written) };
            if plant::on(Bug::IndexedBeforeRows) {
                self.ledger.act(Action::Indexed(number)).await?;
            }
            for row in &rows {
                written += chain.write_rows(row, rewrite).await?;
            }
            match self.ledger.act(Action::Indexed(number)).await {
                Ok(_) => {}
                Err(error) if is_superseded(&error) => self.refresh().await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// One fold; `false`: nothing is due. What is missing is damage if it is missing `again`.
    async fn fold(
        &self,
        all: bool,
        again: bool,
        blocked: &mut BTreeSet<(TopicId, u32)>,
        merged: &mut Merged,
        tell: &mut impl FnMut(u64, u64),
    ) -> Result<bool> {
        let chain = &self.ledger.chain;
        let now_ms = self.now_ms();
        let (drawn, names, inputs) = chain.view(|view| {
            let unmerged = unmerged(view, now_ms).into_iter().filter(|topic| all || topic.due.is_some());
            let due = unmerged.map(|topic| topic.id).collect();
            (view.slot, named(view, &due), inputs(view, &due, blocked))
        })?;
        tell(merged.records, merged.records + inputs.iter().map(|input| input.slice.rows).sum::<u64>());
        let mut gathered = Gathered { blocked: std::mem::take(blocked), ..Gathered::default() };
        let read = self.gather(&names, &inputs, again, &mut gathered, merged).await;
        *blocked = std::mem::take(&mut gathered.blocked);
        read?;
        let (mut fold, mut bytes) = (Fold { objects: Vec::new(), ranges: Vec::new() }, 0);
        let mut slices = 0;
        for ((topic, hour), parts) in gathered.hours {
            let Some(named) = names.get(&topic) else { continue };
            slices += parts.values().map(|slices| slices.len() as u64).sum::<u64>();
            let written = self.write(topic, named, hour, drawn, parts).await?;
            let object = fold.objects.len() as u32;
            fold.ranges.extend(written.ranges.iter().map(|range| L1Range { object, ..*range }));
            fold.objects.push(written.object);
            bytes += written.bytes;
        }
        if fold.objects.is_empty() {
            return Ok(false);
        }
        let (objects, records) =
            (fold.objects.len() as u64, fold.ranges.iter().map(|range| range.rows).sum::<u64>());
        #[cfg(feature = "planted-bugs")]
        if plant::on(Bug::RowsBeforeFold) {
            for range in &fold.ranges {
                let object = fold.objects[range.object as usize].clone();
                let row = IndexRow { number: drawn + 1, object, range: L1Range { object: 0, ..*range } };
                chain.write_rows(&row, false).await?;
            }
        }
        self.ledger.act(Action::Fold(fold.clone())).await?;
        self.memory().note_fold(&fold);
        merged.folds += 1;
        merged.slices += slices;
        merged.records += records;
        merged.objects += objects;
        merged.bytes += bytes;
        chain.metrics.record(Metric::RecordsMerged, records);
        chain.metrics.record(Metric::BytesMerged, bytes);
        Ok(true)
    }

    /// Reads slices in the order of their commits until there is enough for one fold. Commits are taken whole, so that what
    /// is taken of a partition begins with its oldest and has no gap.
    async fn gather(
        &self,
        names: &BTreeMap<TopicId, Named>,
        inputs: &[Input],
        again: bool,
        gathered: &mut Gathered,
        merged: &mut Merged,
    ) -> Result<()> {
        let loader = Loader::new(limits::MERGE_CACHE_BYTES);
        let same = |one: &Input, other: &Input| one.slice.slot == other.slice.slot;
        for of_slot in inputs.chunk_by(same) {
            if gathered.raw_bytes >= limits::MERGE_RAW_BYTES || gathered.ranges >= limits::RANGES_PER_FOLD {
                break;
            }
            let mut by_place: BTreeMap<(Option<ObjectRef>, u32), Vec<&Input>> = BTreeMap::new();
            for input in of_slot {
                let place = match &input.slice.place {
                    Place::Object(object, _) => (Some(*object), 0),
                    Place::Inline { action, .. } => (None, *action),
                };
                by_place.entry(place).or_default().push(input);
            }
            for inputs in by_place.into_values() {
                for (input, rows) in inputs.iter().zip(self.read(&loader, names, &inputs, again).await?) {
                    gathered.add(input, rows, merged)?;
                }
            }
        }
        let mut first_bases = BTreeMap::new();
        for input in inputs {
            let first = first_bases.entry((input.topic, input.partition)).or_insert(input.slice.base);
            *first = input.slice.base.min(*first);
        }
        gathered.keep_whole_prefixes(first_bases);
        Ok(())
    }

    /// The rows of slices that lie in one object or inline body, each found to be what its commit says.
    async fn read(
        &self,
        loader: &Loader,
        names: &BTreeMap<TopicId, Named>,
        inputs: &[&Input],
        again: bool,
    ) -> Result<Vec<Result<Rows>>> {
        let chain = &self.ledger.chain;
        let name = |input: &Input| names.get(&input.topic).map_or("", |named| named.name.as_str());
        let slices: Vec<(&str, u32, &Slice)> =
            inputs.iter().map(|input| (name(input), input.partition, &input.slice)).collect();
        let read = match damaged(loader.together(chain, &slices).await, again)? {
            Ok(rows) => rows.into_iter().map(Ok).collect(),
            // One slice is damaged, or its group: the others may be whole.
            Err(_) => {
                let mut each = Vec::new();
                for slice in &slices {
                    let rows = damaged(loader.together(chain, &[*slice]).await, again)?;
                    each.push(rows.and_then(|mut rows| {
                        rows.pop().ok_or_else(|| Error::damaged("slice", "was not read"))
                    }));
                }
                each
            }
        };
        let owned: Vec<(TopicId, u32, RecordSum)> =
            inputs.iter().map(|input| (input.topic, input.partition, input.slice.sum)).collect();
        let check = move || {
            let pairs = owned.into_iter().zip(read);
            let check = |((topic, partition, sum), rows): ((TopicId, u32, RecordSum), Result<Rows>)| {
                let rows = rows?;
                match rows.sum(topic, partition, 0, rows.len()) == sum {
                    true => Ok(rows),
                    false => Err(Error::damaged("slice", "the records are not those of the commit")),
                }
            };
            pairs.map(check).collect()
        };
        Ok(offload(check).await)
    }

    /// Writes one merged segment, proves that it holds what it was made of, and puts it.
    async fn write(
        &self,
        topic: TopicId,
        named: &Named,
        hour: u32,
        drawn: u64,
        parts: Hour,
    ) -> Result<Written> {
        let own = named.clone();
        let (segment, ranges) = offload(move || encode(topic, &own, parts)).await?;
        self.put(topic, named, hour, drawn, segment, ranges).await
    }

    /// Puts a merged segment that was proved.
    pub(super) async fn put(
        &self,
        topic: TopicId,
        named: &Named,
        hour: u32,
        drawn: u64,
        segment: MergedSegment,
        mut ranges: Vec<L1Range>,
    ) -> Result<Written> {
        let chain = &self.ledger.chain;
        for (range, placed) in ranges.iter_mut().zip(&segment.ranges) {
            range.groups = placed.groups;
        }
        let ulid = Ulid::draw(&*chain.env).0;
        let object = ObjectRef { era: chain.era, ledger: LEDGER, drawn, ulid };
        let object = L1Object { object, hour, topic, footer: segment.footer };
        let bytes = segment.bytes.len() as u64;
        chain.objects.put_new(&object.name(&named.name), segment.bytes).await?;
        Ok(Written { object, ranges, bytes })
    }
}

/// Damage is an answer here, and what is missing `again`; whatever else went wrong is not.
fn damaged<T>(read: Result<T>, again: bool) -> Result<Result<T>> {
    match read {
        Err(Error::Superseded { what }) if again => Ok(Err(Error::damaged("slice", what))),
        Err(error @ Error::Damaged { .. }) => Ok(Err(error)),
        Err(error) => Err(error),
        Ok(rows) => Ok(Ok(rows)),
    }
}

impl Gathered {
    fn add(&mut self, input: &Input, rows: Result<Rows>, merged: &mut Merged) -> Result<()> {
        let place = (input.topic, input.partition);
        match rows {
            Err(error) => {
                let slice = &input.slice;
                tracing::warn!(%error, base = slice.base, end = slice.end(), "a slice cannot be merged");
                merged.damage.push(error.to_string());
                self.blocked.insert(place);
            }
            Ok(_) if self.blocked.contains(&place) => {}
            Ok(rows) => {
                self.raw_bytes += rows.raw_bytes();
                let hour = u32::try_from(input.slice.append_ms / limits::HOUR_MS).unwrap_or(0);
                let parts = self.hours.entry((input.topic, hour)).or_default();
                let slices = parts.entry(input.partition).or_default();
                self.ranges += usize::from(slices.is_empty());
                slices.push((input.slice.clone(), rows));
            }
        }
        Ok(())
    }

    /// In the order of offsets (a commit is read in the order of its objects), from each partition's first unmerged offset
    /// on, up to what is damaged.
    fn keep_whole_prefixes(&mut self, mut next: BTreeMap<(TopicId, u32), u64>) {
        for ((topic, _), parts) in &mut self.hours {
            for (partition, slices) in parts.iter_mut() {
                slices.sort_by_key(|(slice, _)| slice.base);
                let next = next.entry((*topic, *partition)).or_insert(u64::MAX);
                let whole = slices.iter().take_while(|(slice, _)| {
                    let follows = slice.base == *next;
                    *next = if follows { slice.end() } else { u64::MAX };
                    follows
                });
                let whole = whole.count();
                slices.truncate(whole);
            }
            parts.retain(|_, slices| !slices.is_empty());
        }
        self.hours.retain(|_, parts| !parts.is_empty());
    }
}

/// The file, and the ranges in it but for their row groups. Pure.
fn encode(topic: TopicId, named: &Named, parts: Hour) -> Result<(MergedSegment, Vec<L1Range>)> {
    let mut writer = MergedWriter::new(&named.name, topic, named.compression, named.bloom)?;
    let mut ranges = Vec::new();
    for (partition, slices) in parts {
        let (Some((first, _)), Some((last, _))) = (slices.first(), slices.last()) else { continue };
        let mut range = L1Range {
            object: 0,
            partition,
            base: first.base,
            end: last.end(),
            rows: last.end() - first.base,
            groups: (0, 0),
            append_ms: (first.append_ms, last.append_ms),
            time_us_max: last.time_us_running,
            sum: RecordSum::default(),
        };
        for (slice, _) in &slices {
            range.sum = range.sum + slice.sum.shifted(slice.base - range.base);
        }
        let part = |(slice, rows): (Slice, Rows)| MergedPart {
            partition,
            base: slice.base,
            append_ms: slice.append_ms,
            time_type: slice.time_type,
            rows,
        };
        slices.into_iter().map(part).try_for_each(|part| writer.push(part))?;
        ranges.push(range);
    }
    let segment = writer.finish()?;
    prove(topic, &named.name, &segment, &ranges)?;
    Ok((segment, ranges))
}

/// Reads the file back: every range holds the records that it was made of (L8).
pub(super) fn prove(topic: TopicId, name: &str, segment: &MergedSegment, ranges: &[L1Range]) -> Result<()> {
    let footer = segment.footer.cut(&segment.bytes)?;
    let footer = MergedFooter::parse(&footer, segment.footer)?;
    for range in ranges {
        let (mut sum, mut next) = (RecordSum::default(), range.base);
        for group in footer.groups_of(range.partition, range.base..range.end) {
            let bytes = footer.span(group)?.cut(&segment.bytes)?;
            let group = footer.decode(group, name, &bytes)?;
            for run in group.runs_from(range.partition, next, range.end)? {
                let rows = run.rows.sum(topic, range.partition, 0, run.rows.len());
                sum = sum + rows.shifted(next - range.base);
                next += run.rows.len() as u64;
            }
        }
        if (sum, next) != (range.sum, range.end) {
            let what = format!("merged segment of {name}/{}", range.partition);
            return Err(Error::damaged(what, "what was written is not what was read"));
        }
    }
    Ok(())
}

pub(super) fn named(view: &View, due: &BTreeSet<TopicId>) -> BTreeMap<TopicId, Named> {
    let compression = |topic: &Topic| {
        let set = topic.config.get(COMPRESSION_TYPE).and_then(|value| value.parse().ok());
        set.unwrap_or_default()
    };
    let named = |id: &TopicId| {
        let topic = view.topics.get(id)?;
        let bloom = topic.config.get(BLOOM_FILTER_KEY).is_some_and(|value| value == "true");
        Some((*id, Named { name: topic.name.clone(), compression: compression(topic), bloom }))
    };
    due.iter().filter_map(named).collect()
}

/// The slices of these topics in the order of their commits, but for partitions whose oldest is known to be damaged.
fn inputs(view: &View, due: &BTreeSet<TopicId>, blocked: &BTreeSet<(TopicId, u32)>) -> Vec<Input> {
    let wanted = |(topic, partition, _): &(TopicId, u32, &Slice)| {
        due.contains(topic) && !blocked.contains(&(*topic, *partition))
    };
    let input =
        |(topic, partition, slice): (TopicId, u32, &Slice)| Input { topic, partition, slice: slice.clone() };
    let mut inputs: Vec<Input> = view.slices().filter(wanted).map(input).collect();
    inputs.sort_by_key(|input| (input.slice.slot, input.topic, input.partition, input.slice.base));
    inputs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::RowsBuilder;
    use crate::ledger::action::TimestampType;

    const TOPIC: TopicId = TopicId(7);

    fn input(base: u64, append_ms: i64) -> Input {
        let slice = Slice {
            base,
            rows: 1,
            slot: 5,
            append_ms,
            place: Place::Inline { action: 0, length: 1 },
            group: 0,
            first_row: 0,
            time_us: (0, 0),
            time_us_running: 0,
            time_type: TimestampType::CreateTime,
            sum: RecordSum::default(),
        };
        Input { topic: TOPIC, partition: 0, slice }
    }

    fn rows() -> Rows {
        let mut rows = RowsBuilder::new();
        rows.push(0, None, None, &[]).unwrap();
        rows.finish()
    }

    /// Bases that are kept of slices read in this order, those of `bad` damaged.
    fn kept(bases: &[u64], bad: &[u64]) -> Vec<u64> {
        let (mut gathered, mut merged) = (Gathered::default(), Merged::default());
        for base in bases {
            let read = match bad.contains(base) {
                true => Err(Error::damaged("slice", "is damaged")),
                false => Ok(rows()),
            };
            // Each in an hour of its own.
            let input = input(*base, *base as i64 * limits::HOUR_MS);
            gathered.add(&input, read, &mut merged).unwrap();
        }
        gathered.keep_whole_prefixes(BTreeMap::from([((TOPIC, 0), 10)]));
        let hours = gathered.hours.into_values().flat_map(BTreeMap::into_values).flatten();
        hours.map(|(slice, _)| slice.base).collect()
    }

    #[test]
    fn what_is_taken_begins_with_the_oldest_and_ends_before_damage() {
        assert_eq!(kept(&[10, 11, 12], &[]), [10, 11, 12]);
        assert_eq!(kept(&[11, 10, 12], &[]), [10, 11, 12], "objects of one commit come in any order");
        assert_eq!(kept(&[10, 11, 12], &[11]), [10]);
        assert_eq!(kept(&[11, 10, 12], &[10]), Vec::<u64>::new(), "what follows damage waits, read or not");
        assert_eq!(kept(&[12, 10, 11], &[11]), [10]);
    }
}
