//! Merge: unmerged slices, whatever segments and commits they lie in, become merged segments of one topic and ingest hour
//! (R4).
//!
//! ```text
//!   finish what others began ─▶ read oldest slices ─▶ PUT, proved ─▶ commit Fold ─▶ index rows ─▶ commit Indexed ─▶ …
//!                               └── one batch ──────┘   └── fold by fold, until the batch is written ──────────┘
//! ```
//! The fold decides: before it nothing was changed, after it anybody can do the rest from the view. So two at once, or one
//! that is killed anywhere, only cost an object that nothing names.
//!
//! What was read has passed its CRCs. Whether it is what was committed is found once, at the end: what was written is read
//! back, and its record sums are those of the commits. Only if they are not, the slices are looked at one by one.

use std::collections::{BTreeMap, BTreeSet};

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::PutPayload;

use super::due::{lots, unmerged};
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

/// Slices of one topic and hour that were read, by partition.
type Hour = BTreeMap<u32, Vec<(Slice, Rows)>>;

/// What was read for some folds.
#[derive(Debug, Default)]
struct Gathered {
    hours: BTreeMap<(TopicId, u32), Hour>,
    raw_bytes: usize,
}

/// What one run knows of its batches.
#[derive(Debug, Default)]
struct Passes {
    /// Partitions whose oldest slice is damaged.
    blocked: BTreeSet<(TopicId, u32)>,
    /// Times in a row that somebody else was faster.
    lost: u32,
    /// Some rows were not those of their commit: each slice is looked at before it is used.
    checks: bool,
}

/// What becomes one merged segment.
struct Piece {
    topic: TopicId,
    hour: u32,
    parts: Hour,
}

/// A merged segment on its way, and what the fold will say of it.
pub(super) struct Written {
    pub object: L1Object,
    pub ranges: Vec<L1Range>,
    pub bytes: u64,
}

impl Upkeep {
    /// Finishes what others began, then merges what the topics have that are due now, or `all`, fold by fold; what comes
    /// meanwhile is for the next run. Damaged slices stay where they are; the merge of the others goes on. `tell` hears of
    /// records merged, and of how many.
    ///
    /// # Errors
    /// Those of the ledger and of the stores. What was committed is committed; the next run goes on.
    pub async fn merge(&self, all: bool, tell: impl FnMut(u64, u64)) -> Result<Merged> {
        self.refresh().await?;
        self.merge_in_view(all, tell).await
    }

    pub(super) async fn merge_in_view(&self, all: bool, mut tell: impl FnMut(u64, u64)) -> Result<Merged> {
        let (mut merged, mut passes) = (Merged::default(), Passes::default());
        let now_ms = self.now_ms();
        let (mut topics, until) = self.ledger.chain.view(|view| (unmerged(view, now_ms), view.slot))?;
        topics.retain(|topic| all || topic.due.is_some());
        let of: u64 = topics.iter().map(|topic| topic.records).sum();
        let mut lots = lots(topics).into_iter().peekable();
        loop {
            merged.rows += self.index().await?;
            let Some(lot) = lots.peek() else { return Ok(merged) };
            if self.is_late() {
                return Ok(merged);
            }
            match self.batch(lot, until, &mut passes, &mut merged, |done| tell(done, of.max(done))).await {
                Ok(any) => {
                    passes.lost = 0;
                    lots.next_if(|_| !any);
                }
                // Somebody else merged them, or what they lie in was swept since: look again. Who is late every time is not
                // needed.
                Err(error) if is_superseded(&error) => passes.lost += 1,
                Err(error @ Error::Damaged { .. }) if !passes.checks => {
                    tracing::warn!(%error, "looking at each slice by itself");
                    passes.checks = true;
                }
                Err(error) => return Err(error),
            }
            if passes.lost > limits::MERGE_ATTEMPTS_MAX {
                return Ok(merged);
            }
            if passes.lost > 0 {
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
            let writes: Vec<_> = rows.iter().map(|row| chain.write_rows(row, rewrite).boxed()).collect();
            let mut writes = stream::iter(writes).buffered(limits::MERGE_ROWS_AT_ONCE);
            while let Some(count) = writes.try_next().await? {
                written += count;
            }
            match self.ledger.act(Action::Indexed(number)).await {
                Ok(_) => {}
                Err(error) if is_superseded(&error) => self.refresh().await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads the oldest slices of these topics, up to a slot and as many as fit into memory, and folds them; `false`: there
    /// are none.
    async fn batch(
        &self,
        topics: &BTreeSet<TopicId>,
        until: u64,
        passes: &mut Passes,
        merged: &mut Merged,
        mut tell: impl FnMut(u64),
    ) -> Result<bool> {
        let (names, inputs) = self.ledger.chain.view(|view| {
            let mut inputs = inputs(view, topics, &passes.blocked);
            inputs.retain(|input| input.slice.slot <= until);
            (named(view, topics), inputs)
        })?;
        tell(merged.records);
        let gathered = self.gather(&names, &inputs, passes, merged).await?;
        let mut pieces = gathered.into_pieces().into_iter().peekable();
        let is_empty = pieces.peek().is_none();
        while pieces.peek().is_some() {
            let mut ranges = 0;
            // One at least, so that it goes on.
            let mut fits = |piece: &Piece| {
                let is_first = ranges == 0;
                ranges += piece.parts.len();
                is_first || ranges <= limits::RANGES_PER_FOLD
            };
            let fold = std::iter::from_fn(|| pieces.next_if(&mut fits)).collect();
            self.fold(&names, fold, merged).await?;
            tell(merged.records);
            merged.rows += self.index().await?;
            if self.is_late() {
                break;
            }
        }
        Ok(!is_empty)
    }

    /// One fold.
    async fn fold(
        &self,
        names: &BTreeMap<TopicId, Named>,
        pieces: Vec<Piece>,
        merged: &mut Merged,
    ) -> Result<()> {
        let chain = &self.ledger.chain;
        let drawn = chain.view(|view| view.slot)?;
        let (mut fold, mut bytes) = (Fold { objects: Vec::new(), ranges: Vec::new() }, 0);
        let slices = |piece: &Piece| piece.parts.values().map(|slices| slices.len() as u64).sum::<u64>();
        let slices = pieces.iter().map(slices).sum::<u64>();
        let pieces = pieces.into_iter().filter_map(|piece| Some((names.get(&piece.topic)?, piece)));
        let writes: Vec<_> = pieces.map(|(named, piece)| self.write(named, drawn, piece).boxed()).collect();
        let mut writes = stream::iter(writes).buffered(limits::MERGE_PUTS_AT_ONCE);
        while let Some(written) = writes.try_next().await? {
            let object = fold.objects.len() as u32;
            fold.ranges.extend(written.ranges.iter().map(|range| L1Range { object, ..*range }));
            fold.objects.push(written.object);
            bytes += written.bytes;
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
        chain.view(|view| count_up(view, &mut fold))?;
        self.ledger.act(Action::Fold(fold.clone())).await?;
        self.memory().forget(fold.objects.iter().map(|object| object.object));
        self.memory().note_fold(&fold);
        merged.folds += 1;
        merged.slices += slices;
        merged.records += records;
        merged.objects += objects;
        merged.bytes += bytes;
        chain.metrics.record(Metric::RecordsMerged, records);
        chain.metrics.record(Metric::BytesMerged, bytes);
        Ok(())
    }

    /// Reads slices in the order of their commits until there are enough for one batch. Commits are taken whole, so that what
    /// is taken of a partition begins with its oldest and has no gap.
    async fn gather(
        &self,
        names: &BTreeMap<TopicId, Named>,
        inputs: &[Input],
        passes: &mut Passes,
        merged: &mut Merged,
    ) -> Result<Gathered> {
        let loader = Loader::new(limits::MERGE_CACHE_BYTES);
        let mut gathered = Gathered::default();
        let same = |one: &Input, other: &Input| one.slice.slot == other.slice.slot;
        for of_slot in inputs.chunk_by(same) {
            if gathered.raw_bytes >= limits::MERGE_RAW_BYTES {
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
                for (input, rows) in inputs.iter().zip(self.read(&loader, names, &inputs, passes).await?) {
                    gathered.add(input, rows, &mut passes.blocked, merged)?;
                }
            }
        }
        let mut first_bases = BTreeMap::new();
        for input in inputs {
            let first = first_bases.entry((input.topic, input.partition)).or_insert(input.slice.base);
            *first = input.slice.base.min(*first);
        }
        gathered.keep_whole_prefixes(first_bases);
        Ok(gathered)
    }

    /// The rows of slices that lie in one object or inline body.
    async fn read(
        &self,
        loader: &Loader,
        names: &BTreeMap<TopicId, Named>,
        inputs: &[&Input],
        passes: &Passes,
    ) -> Result<Vec<Result<Rows>>> {
        let (chain, again) = (&self.ledger.chain, passes.lost > 0);
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
        let checks = passes.checks;
        let owned: Vec<(TopicId, u32, RecordSum)> =
            inputs.iter().map(|input| (input.topic, input.partition, input.slice.sum)).collect();
        let keep = move || {
            let keep = |((topic, partition, sum), rows): ((TopicId, u32, RecordSum), Result<Rows>)| {
                let rows = rows?;
                match checks && rows.sum(topic, partition, 0, rows.len()) != sum {
                    true => Err(Error::damaged("slice", "the records are not those of the commit")),
                    false => rows.compacted(),
                }
            };
            owned.into_iter().zip(read).map(keep).collect()
        };
        Ok(offload(keep).await)
    }

    /// Writes one merged segment, proves that it holds what it was made of, and puts it.
    async fn write(&self, named: &Named, drawn: u64, piece: Piece) -> Result<Written> {
        let (own, Piece { topic, hour, parts }) = (named.clone(), piece);
        let (segment, ranges) = {
            // The other cores are for appends.
            let _one = self.encoding.lock().await;
            offload(move || encode(topic, &own, parts)).await?
        };
        self.put(topic, named, hour, drawn, segment, ranges).await
    }

    /// Puts a merged segment that was proved.
    async fn put(
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
        let bytes = segment.file_bytes();
        let parts = PutPayload::from_iter(segment.parts);
        // Until a commit names it: it may lose its race.
        self.memory().note_let_go(&object);
        chain.objects.put_new(&object.name(&named.name), parts).await?;
        Ok(Written { object, ranges, bytes })
    }
}

/// Ranges know the bytes of their own records: from here on with those of all that was merged before them. Whatever else is folded of
/// their partitions meanwhile takes their slices.
fn count_up(view: &View, fold: &mut Fold) {
    let mut running: BTreeMap<(TopicId, u32), u64> = BTreeMap::new();
    for range in &mut fold.ranges {
        let Some(object) = fold.objects.get(range.object as usize) else { continue };
        let known = || view.partition(object.topic, range.partition).map_or(0, |p| p.bytes_running);
        let before = running.entry((object.topic, range.partition)).or_insert_with(known);
        *before = before.saturating_add(range.bytes_running);
        range.bytes_running = *before;
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
    fn add(
        &mut self,
        input: &Input,
        rows: Result<Rows>,
        blocked: &mut BTreeSet<(TopicId, u32)>,
        merged: &mut Merged,
    ) -> Result<()> {
        let place = (input.topic, input.partition);
        match rows {
            Err(error) => {
                let slice = &input.slice;
                tracing::warn!(%error, base = slice.base, end = slice.end(), "a slice cannot be merged");
                merged.damage.push(error.to_string());
                blocked.insert(place);
            }
            Ok(_) if blocked.contains(&place) => {}
            Ok(rows) => {
                self.raw_bytes += limits::MERGE_SLICE_BYTES + rows.raw_bytes();
                let hour = u32::try_from(input.slice.append_ms / limits::HOUR_MS).unwrap_or(0);
                let parts = self.hours.entry((input.topic, hour)).or_default();
                parts.entry(input.partition).or_default().push((input.slice.clone(), rows));
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

    /// By topic and hour, in this order; an hour of more partitions than a fold has ranges is several.
    fn into_pieces(self) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::new();
        for ((topic, hour), parts) in self.hours {
            let mut begins = true;
            for (partition, slices) in parts {
                match pieces.last_mut() {
                    Some(piece) if !begins && piece.parts.len() < limits::RANGES_PER_FOLD => {
                        piece.parts.insert(partition, slices);
                    }
                    _ => pieces.push(Piece { topic, hour, parts: BTreeMap::from([(partition, slices)]) }),
                }
                begins = false;
            }
        }
        pieces
    }
}

/// The file, and the ranges in it but for their row groups, and with the bytes of their own records alone. Pure.
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
            bytes_running: 0,
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
    let footer = prove(topic, &named.name, &segment, &ranges)?;
    ranges.iter_mut().for_each(|range| range.bytes_running = footer.bytes_of(range.partition));
    Ok((segment, ranges))
}

/// Reads the file back: it holds the ranges that it was made of, where its footer says, and nothing else (L8). Answers the footer.
fn prove(topic: TopicId, name: &str, segment: &MergedSegment, ranges: &[L1Range]) -> Result<MergedFooter> {
    let footer = MergedFooter::parse(&segment.cut(segment.footer)?, segment.footer)?;
    let other = |partition: u32| {
        let what = format!("merged segment of {name}/{partition}");
        Error::damaged(what, "what was written is not what was committed")
    };
    let mut left = ranges.iter();
    // The range that is being read, its sum so far, and its next offset.
    let mut begin = || left.next().map(|range| (range, RecordSum::default(), range.base));
    let mut now = begin();
    for group in 0..footer.groups() {
        footer.look(group, name, &segment.cut(footer.span(group)?)?, |rows| {
            let mut from = 0;
            while from < rows.len() {
                let (range, sum, next) = now.as_mut().ok_or_else(|| other(rows.partition(from)))?;
                let count = (range.end - *next).min((rows.len() - from) as u64) as usize;
                // Where a reader would look for them.
                let place = footer.groups_of(range.partition, *next..*next + count as u64);
                let own = rows.exactly(from..from + count, range.partition, *next);
                let own =
                    own.filter(|_| place == (group..group + 1)).ok_or_else(|| other(range.partition))?;
                *sum = *sum + own.sum(topic, range.partition, 0, count).shifted(*next - range.base);
                (from, *next) = (from + count, *next + count as u64);
                if *next == range.end {
                    if *sum != range.sum {
                        return Err(other(range.partition));
                    }
                    now = begin();
                }
            }
            Ok(())
        })?;
    }
    match now {
        None => Ok(footer),
        Some((range, ..)) => Err(other(range.partition)),
    }
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
        rows_of(None)
    }

    fn rows_of(value: Option<&[u8]>) -> Rows {
        let mut rows = RowsBuilder::new();
        rows.push(0, None, value, &[]).unwrap();
        rows.finish()
    }

    /// Bases that are kept of slices read in this order, those of `bad` damaged.
    fn kept(bases: &[u64], bad: &[u64]) -> Vec<u64> {
        let (mut gathered, mut merged) = (Gathered::default(), Merged::default());
        let mut blocked = BTreeSet::new();
        for base in bases {
            let read = match bad.contains(base) {
                true => Err(Error::damaged("slice", "is damaged")),
                false => Ok(rows()),
            };
            // Each in an hour of its own.
            let input = input(*base, *base as i64 * limits::HOUR_MS);
            gathered.add(&input, read, &mut blocked, &mut merged).unwrap();
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

    /// Two partitions with a row group each.
    fn two() -> (MergedSegment, Vec<L1Range>) {
        let value = vec![b'v'; limits::ROW_GROUP_OWN_BYTES];
        let part = |partition: u32| {
            let rows = rows_of(Some(&value));
            let mut input = input(10, 5);
            input.slice.sum = rows.sum(TOPIC, partition, 0, 1);
            (partition, vec![(input.slice, rows)])
        };
        let named = Named { name: "t".into(), compression: Compression::None, bloom: false };
        encode(TOPIC, &named, BTreeMap::from([part(0), part(1)])).unwrap()
    }

    /// A CRC is computed from what is written, so it does not tell that the wrong thing was.
    fn with_footer(mut segment: MergedSegment, from: &str, to: &str) -> MergedSegment {
        let mut footer = segment.parts.pop().unwrap().to_vec();
        let at = footer.windows(from.len()).position(|there| there == from.as_bytes()).unwrap();
        footer[at..at + from.len()].copy_from_slice(to.as_bytes());
        segment.footer.crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &footer) as u32;
        segment.parts.push(footer.into());
        segment
    }

    #[test]
    fn what_was_written_is_proved_from_its_footer_on() {
        let (segment, ranges) = two();
        assert!(prove(TOPIC, "t", &segment, &ranges).is_ok());
        let refused = |segment: &MergedSegment, ranges: &[L1Range]| {
            let error = prove(TOPIC, "t", segment, ranges).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
        };
        // The footer sends readers to each other's row groups.
        let (good, swapped) = ("[0,10,11,0,1],[1,10,11,1,1]", "[0,10,11,1,1],[1,10,11,0,1]");
        refused(&with_footer(segment.clone(), good, swapped), &ranges);
        let other = L1Range { sum: ranges[0].sum.shifted(1) + ranges[1].sum, ..ranges[1] };
        refused(&segment, &[ranges[0], other]);
        refused(&segment, &ranges[..1]);
        let more = L1Range { partition: 2, ..ranges[1] };
        refused(&segment, &[ranges[0], ranges[1], more]);
        let longer = L1Range { end: 12, ..ranges[1] };
        refused(&segment, &[ranges[0], longer]);
    }
}
