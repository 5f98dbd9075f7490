//! Rewrite: the merged segments of a topic and hour become few, by the same steps as merge, once the hour is over or there
//! is enough for a large one.
//!
//! ```text
//!   rows of the hour ─▶ read neighbours, verified ─▶ PUT, read back ─▶ commit Rewrite ─▶ over every row of theirs ─▶ commit Indexed
//! ```
//! What is written is never in memory as a whole: it is sent in parts while it is made, and read back as anybody would read it.
//! Until its rows are overwritten a reader finds either: both hold the same records. What is replaced stays for
//! [`read_lag_ms`](super::UpkeepSettings::read_lag_ms), on the dead list.

use std::collections::{BTreeMap, BTreeSet};

use super::merge::{Named, Written, named};
use super::{Memory, Upkeep, is_superseded};
use crate::env::offload;
use crate::error::{Error, Result};
use crate::fetch::Loader;
use crate::ledger::action::{Action, Fold, L1Object, L1Range, LEDGER, ObjectRef, Rewrite};
use crate::ledger::index::{IndexRow, RowPages};
use crate::ledger::view::Slice;
use crate::limits;
use crate::metrics::Metric;
use crate::objects::{Ulid, Upload};
use crate::record::{Offset, RecordSum, TopicId};
use crate::segment::Span;
use crate::segment::merged::{MergedPart, MergedWriter};

/// What a rewrite did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Merged segments that were replaced…
    pub replaced: u64,
    /// … by so many…
    pub objects: u64,
    /// … of so many bytes…
    pub bytes: u64,
    /// … that hold so many records.
    pub records: u64,
    /// What could not be read, and so stays as it is.
    pub damage: Vec<String>,
}

/// An hour of a topic.
pub(super) type Hour = (TopicId, u32);

/// What is known of the merged segments of an hour.
#[derive(Debug, Clone, Default)]
pub(super) struct Noted {
    /// Where its records begin, by partition: at these offsets or later.
    bases: BTreeMap<u32, Offset>,
    /// Bytes of the segments that came since somebody looked.
    bytes: u64,
}

/// A merged segment with those of its rows that are left.
#[derive(Debug, Clone)]
struct Piece {
    object: L1Object,
    number: u64,
    ranges: BTreeMap<u32, L1Range>,
}

impl Piece {
    fn bytes(&self) -> u64 {
        self.object.footer.end()
    }

    /// When its first records were appended.
    fn began(&self) -> (i64, u64) {
        (self.ranges.values().map(|range| range.append_ms.0).min().unwrap_or(0), self.number)
    }
}

impl Upkeep {
    /// Rewrites the hours that are over, or have enough for a large segment; `all`: every hour that has more than one.
    /// `tell` hears of records rewritten.
    ///
    /// # Errors
    /// Those of the ledger and of the stores. What was committed is committed; the next run goes on.
    pub async fn rewrite(&self, all: bool, tell: impl FnMut(u64)) -> Result<Rewritten> {
        self.refresh().await?;
        self.rewrite_in_view(all, tell).await
    }

    pub(super) async fn rewrite_in_view(&self, all: bool, mut tell: impl FnMut(u64)) -> Result<Rewritten> {
        let mut rewritten = Rewritten::default();
        let hours = match all {
            true => self.every_hour().await?,
            false => self.memory().hours.clone(),
        };
        for (hour, noted) in hours {
            let mut lost = 0;
            let over = loop {
                if self.is_late() {
                    return Ok(rewritten);
                }
                match self.rewrite_hour(hour, &noted, all, &mut rewritten).await {
                    Ok(Some(over)) => break over,
                    Ok(None) => tell(rewritten.records),
                    Err(error) if is_superseded(&error) && lost < limits::MERGE_ATTEMPTS_MAX => {
                        lost += 1;
                        self.refresh().await?;
                    }
                    // Somebody else is at it; or what it was made of is gone, which a reader will tell.
                    Err(error) if is_superseded(&error) => break false,
                    Err(error @ Error::Damaged { .. }) => {
                        tracing::warn!(%error, "an hour cannot be rewritten");
                        rewritten.damage.push(error.to_string());
                        break true;
                    }
                    Err(error) => return Err(error),
                }
            };
            let mut memory = self.memory();
            if over {
                memory.hours.remove(&hour);
            } else if let Some(known) = memory.hours.get_mut(&hour)
                && noted.bytes >= limits::REWRITE_BYTES_WANTED
            {
                known.bytes = known.bytes.saturating_sub(noted.bytes);
            }
        }
        Ok(rewritten)
    }

    /// One rewrite. `Some`: there is none to be done; `true`: nor will there be.
    async fn rewrite_hour(
        &self,
        (topic, hour): Hour,
        noted: &Noted,
        all: bool,
        rewritten: &mut Rewritten,
    ) -> Result<Option<bool>> {
        let chain = &self.ledger.chain;
        self.index().await?;
        let now_hour = self.now_ms() / limits::HOUR_MS;
        let state = chain.view(|view| {
            let known = view.topics.get(&topic)?;
            let is_open = |slice: &Slice| slice.append_ms / limits::HOUR_MS <= i64::from(hour);
            let open = known.partitions.iter().any(|p| p.slices.front().is_some_and(is_open));
            let indexed: Vec<Offset> = known.partitions.iter().map(|p| p.indexed_to).collect();
            let named = named(view, &BTreeSet::from([topic])).remove(&topic)?;
            Some((view.slot, known.generation, named, indexed, i64::from(hour) < now_hour && !open))
        })?;
        let Some((drawn, generation, named, indexed, over)) = state else { return Ok(Some(true)) };
        if !all && !over && noted.bytes < limits::REWRITE_BYTES_WANTED {
            return Ok(Some(false));
        }
        let mut pieces: BTreeMap<ObjectRef, Piece> = BTreeMap::new();
        for (partition, base) in &noted.bases {
            let indexed_to = indexed.get(*partition as usize).copied().unwrap_or(0);
            for row in self.rows_of((topic, *partition), *base, hour, indexed_to).await? {
                let IndexRow { number, object, range } = row;
                let piece = pieces.entry(object.object);
                let piece = piece.or_insert_with(|| Piece { object, number, ranges: BTreeMap::new() });
                piece.ranges.insert(range.partition, range);
            }
        }
        let least = if all { 2 } else { limits::REWRITE_OBJECTS_MIN };
        let Some(run) = neighbours(pieces.into_values().collect(), over || all, least) else {
            return Ok(Some(over));
        };
        let written = match self.join((topic, hour), &named, drawn, &run, false).await {
            // Whichever of them is damaged is named.
            Err(Error::Damaged { .. }) => self.join((topic, hour), &named, drawn, &run, true).await?,
            joined => joined?,
        };
        let replaced: Vec<_> = run.iter().map(|piece| (piece.object.object, hour)).collect();
        let records = written.ranges.iter().map(|range| range.rows).sum::<u64>();
        let count = replaced.len() as u64;
        let (objects, ranges) = (vec![written.object], written.ranges);
        let made = objects[0].object;
        let commit = Rewrite { topic, generation, objects, ranges, replaced };
        self.act_rewrite(commit).await?;
        self.memory().forget([made].into_iter());
        rewritten.replaced += count;
        rewritten.objects += 1;
        rewritten.bytes += written.bytes;
        rewritten.records += records;
        chain.metrics.record(Metric::BytesRewritten, written.bytes);
        Ok(None)
    }

    async fn act_rewrite(&self, commit: Rewrite) -> Result<()> {
        #[cfg(feature = "planted-bugs")]
        if crate::plant::on(crate::plant::Bug::RewriteNotCarried) {
            let rows = crate::ledger::view::Pending {
                rewrite: true,
                objects: commit.objects.clone(),
                ranges: commit.ranges.clone(),
            };
            self.ledger.act(Action::Rewrite(commit)).await?;
            let number = self.ledger.chain.slot();
            for row in rows.ranges.iter().filter_map(|range| rows.row(number, range)) {
                self.ledger.chain.write_rows(&row, true).await?;
            }
            return Ok(());
        }
        self.ledger.act(Action::Rewrite(commit)).await?;
        self.index().await?;
        Ok(())
    }

    /// The rows of an hour that are indexed, from an offset on that is not above its first.
    async fn rows_of(
        &self,
        (topic, partition): (TopicId, u32),
        base: Offset,
        hour: u32,
        indexed_to: Offset,
    ) -> Result<Vec<IndexRow>> {
        let mut found: Vec<IndexRow> = Vec::new();
        let mut pages = RowPages::new(topic, partition, base);
        'rows: while let Some(rows) = self.ledger.chain.next_rows(&mut pages).await? {
            for row in rows.into_iter().map(|stored| stored.row) {
                if row.object.hour > hour || row.range.end > indexed_to {
                    break 'rows;
                }
                // After a rewrite several keys say the same of one range.
                let is_new = found.last().is_none_or(|last| last.range.end < row.range.end);
                if row.object.hour == hour && is_new {
                    found.push(row);
                }
            }
        }
        Ok(found)
    }

    /// Every hour that has merged segments, from the index.
    async fn every_hour(&self) -> Result<BTreeMap<Hour, Noted>> {
        let chain = &self.ledger.chain;
        let topics: Vec<(TopicId, u32)> = chain.view(|view| {
            view.topics.iter().map(|(id, topic)| (*id, topic.partitions.len() as u32)).collect()
        })?;
        let mut hours = BTreeMap::new();
        for (topic, partitions) in topics {
            for partition in 0..partitions {
                let mut pages = RowPages::new(topic, partition, 0);
                while let Some(rows) = chain.next_rows(&mut pages).await? {
                    rows.iter().for_each(|stored| note(&mut hours, &stored.row.object, &stored.row.range));
                }
            }
        }
        Ok(hours)
    }

    /// One merged segment of several, found to hold what their rows say; if it `checks`, each of them before it is used.
    async fn join(
        &self,
        (topic, hour): Hour,
        named: &Named,
        drawn: u64,
        run: &[Piece],
        checks: bool,
    ) -> Result<Written> {
        let chain = &self.ledger.chain;
        let object = ObjectRef { era: chain.era, ledger: LEDGER, drawn, ulid: Ulid::draw(&*chain.env).0 };
        // Where its footer is comes last.
        let mut object = L1Object { object, hour, topic, footer: Span { position: 0, length: 0, crc: 0 } };
        self.memory().note_let_go(&object);
        let mut upload = chain.objects.upload(object.name(&named.name), self.settings.part_bytes);
        let (footer, ranges) = match self.send(topic, named, run, checks, &mut upload).await {
            Ok(sent) => sent,
            Err(error) => {
                upload.abort().await;
                return Err(error);
            }
        };
        upload.finish().await?;
        object.footer = footer;
        let loader = Loader::new(limits::REWRITE_CACHE_BYTES);
        for range in &ranges {
            let (sum, next) = self.read_back(&loader, named, &object, range).await?;
            if (sum, next) != (range.sum, range.end) {
                let what = object.name(&named.name).to_string();
                return Err(Error::damaged(what, "what was written is not what was committed"));
            }
        }
        Ok(Written { bytes: object.footer.end(), object, ranges })
    }

    /// Makes the segment and sends it as it becomes: where its footer is, and its ranges.
    async fn send(
        &self,
        topic: TopicId,
        named: &Named,
        run: &[Piece],
        checks: bool,
        upload: &mut Upload,
    ) -> Result<(Span, Vec<L1Range>)> {
        let chain = &self.ledger.chain;
        let loader = Loader::new(limits::REWRITE_CACHE_BYTES);
        let mut writer = MergedWriter::new(&named.name, topic, named.compression, named.bloom)?;
        let partitions: BTreeSet<u32> = run.iter().flat_map(|piece| piece.ranges.keys().copied()).collect();
        let mut ranges: Vec<L1Range> = Vec::new();
        for partition in partitions {
            let mut joined: Option<L1Range> = None;
            let own = run.iter().filter_map(|piece| Some((piece, piece.ranges.get(&partition)?)));
            for (piece, range) in own {
                let row = IndexRow { number: piece.number, object: piece.object.clone(), range: *range };
                let (mut next, mut sum) = (range.base, RecordSum::default());
                while next < range.end {
                    let parts = loader.merged_parts(chain, &named.name, &row, next).await?;
                    let base = range.base;
                    let write = move || {
                        let sum = checks.then(|| sum_of(topic, base, &parts));
                        let next = parts.last().map_or(base, MergedPart::end);
                        parts.into_iter().try_for_each(|part| writer.push(part))?;
                        Ok::<_, Error>((writer, sum.unwrap_or_default(), next))
                    };
                    let more;
                    (writer, more, next) = offload(write).await?;
                    sum = sum + more;
                    for piece in writer.take() {
                        upload.push(piece).await?;
                    }
                }
                if next != range.end || (checks && sum != range.sum) {
                    let what = piece.object.name(&named.name).to_string();
                    return Err(Error::damaged(what, "the records are not those of the fold"));
                }
                joined = Some(match joined {
                    None => L1Range { object: 0, ..*range },
                    Some(before) => L1Range {
                        end: range.end,
                        rows: before.rows + range.rows,
                        append_ms: (before.append_ms.0, range.append_ms.1),
                        time_us_max: range.time_us_max,
                        bytes_running: range.bytes_running,
                        sum: before.sum + range.sum.shifted(range.base - before.base),
                        ..before
                    },
                });
            }
            ranges.extend(joined);
        }
        let segment = offload(move || writer.finish()).await?;
        for piece in segment.parts {
            upload.push(piece).await?;
        }
        for (range, placed) in ranges.iter_mut().zip(&segment.ranges) {
            range.groups = placed.groups;
        }
        Ok((segment.footer, ranges))
    }

    /// The sum of a range's records as a reader finds them, and the offset behind the last.
    async fn read_back(
        &self,
        loader: &Loader,
        named: &Named,
        object: &L1Object,
        range: &L1Range,
    ) -> Result<(RecordSum, Offset)> {
        let row = IndexRow { number: 0, object: object.clone(), range: *range };
        let (mut next, mut sum) = (range.base, RecordSum::default());
        while next < range.end {
            let parts = loader.merged_parts(&self.ledger.chain, &named.name, &row, next).await?;
            let (topic, base) = (object.topic, range.base);
            let (more, end) =
                offload(move || (sum_of(topic, base, &parts), parts.last().map_or(next, MergedPart::end)))
                    .await;
            (sum, next) = (sum + more, end);
        }
        Ok((sum, next))
    }
}

/// The sum of parts within a range that begins at `base`.
fn sum_of(topic: TopicId, base: Offset, parts: &[MergedPart]) -> RecordSum {
    let sum = |part: &MergedPart| {
        part.rows.sum(topic, part.partition, 0, part.rows.len()).shifted(part.base - base)
    };
    parts.iter().map(sum).fold(RecordSum::default(), |all, one| all + one)
}

/// Notes that an hour has merged records from an offset on.
pub(super) fn note(hours: &mut BTreeMap<Hour, Noted>, object: &L1Object, range: &L1Range) {
    note_base(&mut hours.entry((object.topic, object.hour)).or_default().bases, range.partition, range.base);
}

fn note_base(bases: &mut BTreeMap<u32, Offset>, partition: u32, base: Offset) {
    let first = bases.entry(partition).or_insert(base);
    *first = base.min(*first);
}

impl Memory {
    /// Notes what a fold wrote.
    pub(super) fn note_fold(&mut self, fold: &Fold) {
        for range in &fold.ranges {
            note(&mut self.hours, &fold.objects[range.object as usize], range);
        }
        for object in &fold.objects {
            self.hours.entry((object.topic, object.hour)).or_default().bytes += object.footer.end();
        }
    }

    /// Notes the hours that have enough small segments.
    pub(super) fn note_small(&mut self, small: Small) {
        let enough =
            small.0.into_iter().filter(|(_, (objects, _))| objects.len() >= limits::REWRITE_OBJECTS_MIN);
        for (hour, (_, bases)) in enough {
            let known = &mut self.hours.entry(hour).or_default().bases;
            for (partition, base) in bases {
                note_base(known, partition, base);
            }
        }
    }
}

/// Hours that have small segments, as rows tell: as many of these as are enough for a rewrite, and where they begin.
#[derive(Debug, Default)]
pub(super) struct Small(BTreeMap<Hour, (BTreeSet<ObjectRef>, BTreeMap<u32, Offset>)>);

impl Small {
    pub fn note(&mut self, object: &L1Object, range: &L1Range) {
        if object.footer.end() >= limits::REWRITE_BYTES {
            return;
        }
        let (objects, bases) = self.0.entry((object.topic, object.hour)).or_default();
        if objects.len() < limits::REWRITE_OBJECTS_MIN {
            objects.insert(object.object);
        }
        note_base(bases, range.partition, range.base);
    }
}

/// The first merged segments of an hour that are neighbours in every partition, and small: enough for a large one, or as
/// many as there are where the hour is over and they are at least `least`. Pure.
fn neighbours(mut pieces: Vec<Piece>, over: bool, least: usize) -> Option<Vec<Piece>> {
    pieces.sort_by_key(Piece::began);
    let (mut run, mut bytes): (Vec<Piece>, u64) = (Vec::new(), 0);
    let mut ends: BTreeMap<u32, Offset> = BTreeMap::new();
    let is_done = |run: &Vec<Piece>, bytes: u64, enough: u64| match bytes >= enough {
        true => run.len() >= 2,
        false => over && run.len() >= least,
    };
    for piece in pieces {
        let is_large = piece.bytes() >= limits::REWRITE_BYTES;
        let follows = piece
            .ranges
            .iter()
            .all(|(partition, range)| ends.get(partition).is_none_or(|end| *end == range.base));
        let partitions = piece.ranges.keys().filter(|partition| !ends.contains_key(partition)).count();
        let fits = bytes + piece.bytes() <= limits::REWRITE_BYTES_MAX
            && run.len() < limits::REWRITE_OBJECTS_MAX
            && ends.len() + partitions <= limits::RANGES_PER_FOLD;
        if is_large || !follows || !fits {
            // It will not become more.
            if is_done(&run, bytes, limits::REWRITE_BYTES)
                || (!is_large && run.len() >= limits::REWRITE_OBJECTS_MAX)
            {
                return Some(run);
            }
            (run, bytes) = (Vec::new(), 0);
            ends.clear();
        }
        if is_large {
            continue;
        }
        bytes += piece.bytes();
        ends.extend(piece.ranges.iter().map(|(partition, range)| (*partition, range.end)));
        run.push(piece);
        if bytes >= limits::REWRITE_BYTES_WANTED && run.len() >= 2 {
            return Some(run);
        }
    }
    is_done(&run, bytes, limits::REWRITE_BYTES_WANTED).then_some(run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Span;

    const MIB: u32 = 1 << 20;

    /// A merged segment of so many bytes, with these ranges of partitions.
    fn piece(number: u64, bytes: u32, ranges: &[(u32, u64, u64)]) -> Piece {
        let object = ObjectRef { era: 0, ledger: 0, drawn: 0, ulid: u128::from(number) };
        let footer = Span { position: bytes - 100, length: 100, crc: 0 };
        let object = L1Object { object, hour: 5, topic: TopicId(7), footer };
        let range = |(partition, base, end): &(u32, u64, u64)| L1Range {
            object: 0,
            partition: *partition,
            base: *base,
            end: *end,
            rows: end - base,
            groups: (0, 1),
            append_ms: (number as i64, number as i64),
            time_us_max: 0,
            bytes_running: 0,
            sum: RecordSum::default(),
        };
        Piece { object, number, ranges: ranges.iter().map(|r| (r.0, range(r))).collect() }
    }

    fn chosen(pieces: Vec<Piece>, over: bool, least: usize) -> Option<Vec<u64>> {
        neighbours(pieces, over, least).map(|run| run.iter().map(|piece| piece.number).collect())
    }

    #[test]
    fn neighbours_are_joined_once_there_is_enough_or_the_hour_is_over() {
        let small = |number: u64| piece(number, MIB, &[(0, number * 10, number * 10 + 10)]);
        let few = || vec![small(2), small(1), small(3)];
        assert_eq!(chosen(few(), false, 2), None, "the hour goes on");
        assert_eq!(chosen(few(), true, 4), None, "too few");
        assert_eq!(chosen(few(), true, 3), Some(vec![1, 2, 3]));
        let large = |number: u64, mib: u32| piece(number, mib * MIB, &[(0, number * 10, number * 10 + 10)]);
        let all = vec![large(1, 20), large(2, 30), large(3, 20), large(4, 30)];
        assert_eq!(chosen(all, false, 4), Some(vec![1, 2, 3]), "enough for a large one");
        // What they become is a little smaller than they are, and must be large, or it would be rewritten with the next small one.
        let alike =
            |count: u64| (1..=count).map(|n| piece(n, 2_583_000, &[(0, n * 10, n * 10 + 10)])).collect();
        assert_eq!(chosen(alike(26), false, 4), None, "67.2 MB would become 67.0, and 64 MiB are 67.1");
        assert_eq!(chosen(alike(40), false, 4), Some((1..=30).collect()));
        // A large one stays as it is, and is between the others.
        let all = || vec![small(1), small(2), large(3, 64), small(4), small(5), small(6)];
        assert_eq!(chosen(all(), true, 2), Some(vec![1, 2]));
        assert_eq!(chosen(all(), true, 3), Some(vec![4, 5, 6]));
        assert_eq!(chosen(vec![large(1, 60), large(2, 60)], true, 2), None, "together they are too large");
    }

    #[test]
    fn what_has_a_gap_in_any_partition_is_not_joined() {
        let one = piece(1, MIB, &[(0, 0, 10), (1, 0, 5)]);
        let two = piece(2, MIB, &[(0, 10, 20)]);
        let three = piece(3, MIB, &[(0, 20, 30), (1, 7, 9)]);
        let four = piece(4, MIB, &[(1, 9, 12), (2, 0, 1)]);
        let all = || vec![four.clone(), one.clone(), three.clone(), two.clone()];
        assert_eq!(chosen(all(), true, 2), Some(vec![1, 2]));
        assert_eq!(chosen(all(), true, 3), None);
        assert_eq!(chosen(vec![three, four], true, 2), Some(vec![3, 4]));
    }
}
