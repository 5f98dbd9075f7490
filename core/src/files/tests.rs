use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;

use super::*;
use crate::env::{Env, SystemEnv};
use crate::fetch::FetchLimits;
use crate::ledger::Settings;
use crate::ledger::action::{Action, Fold, L1Object, L1Range, Rewrite, TrimTo};
use crate::ledger::index::RowPages;
use crate::ledger::view::Pending;
use crate::segment::Span;
use crate::segment::merged::{MergedFooter, MergedRange};
use crate::store::Store;
use crate::{Position, Record, UpkeepSettings};

/// The machine's own, but for the time of day.
#[derive(Debug)]
struct Clock(AtomicI64, crate::env::SharedEnv);

impl Env for Clock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        self.1.monotonic()
    }

    fn random_u64(&self) -> u64 {
        self.1.random_u64()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        self.1.sleep(time)
    }
}

const HOUR: i64 = limits::HOUR_MS;

struct World {
    clock: Arc<Clock>,
    log: Log,
    /// Of each partition the append time of every record, ms.
    appended: Vec<Vec<i64>>,
}

impl World {
    /// A log with the topic `t`.
    async fn new(partitions: u32) -> Self {
        let clock = Arc::new(Clock(AtomicI64::new(500_000 * HOUR), SystemEnv::shared()));
        let store = Store::memory(clock.clone());
        let log = Log::with_store(store, clock.clone(), true, Settings::default()).await.unwrap();
        log.admin().create_topic("t", partitions, &[]).await.unwrap();
        Self { clock, log, appended: vec![Vec::new(); partitions as usize] }
    }

    fn pass(&self, ms: i64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    /// Records of `bytes` each into a partition, in a segment of their own or inline.
    async fn append(&mut self, partition: u32, records: usize, bytes: usize, inline: bool) {
        let inline_bytes_max = if inline { limits::INLINE_BYTES_MAX } else { 0 };
        let producer = self.log.producer().inline_bytes_max(inline_bytes_max).build().unwrap();
        for _ in 0..records {
            let record = Record::value(vec![7u8; bytes]);
            producer.enqueue("t", Some(partition), record, None).await.unwrap();
        }
        producer.close().await.unwrap();
        let slice = |view: &View| {
            let (_, topic) = view.topic("t").unwrap();
            topic.partitions[partition as usize].slices.back().unwrap().append_ms
        };
        let append_ms = self.log.fresh_view(slice).await.unwrap();
        self.appended[partition as usize].extend(vec![append_ms; records]);
    }

    async fn merge(&self) {
        self.log.upkeep(UpkeepSettings::default()).merge(true, |_, _| {}).await.unwrap();
    }

    async fn rewrite(&self) {
        self.log.upkeep(UpkeepSettings::default()).rewrite(true, |_| {}).await.unwrap();
    }

    async fn trim(&self, partition: u32, before: Offset) {
        self.log.admin().delete_records("t", Some(&[partition]), Position::Offset(before)).await.unwrap();
    }

    async fn list(&self, as_of: AsOf) -> FileList {
        self.log.files("t", &as_of).await.unwrap()
    }

    /// What a file holds, by its own footer.
    async fn ranges_in(&self, file: &ListedFile) -> Vec<MergedRange> {
        let bytes = self.log.store().objects.get(&file.name).await.unwrap().unwrap();
        assert_eq!(bytes.len() as u64, file.bytes);
        ranges_in(&bytes)
    }

    /// Files and rest hold each offset within the bounds once, and a file that holds more says so.
    async fn check(&self, list: &FileList, rewritten: bool) {
        for bounds in &list.bounds {
            let (partition, mut next) = (bounds.partition, bounds.base);
            let ranges = list.files.iter().flat_map(|file| &file.ranges).chain(&list.rest);
            let ranges: BTreeSet<OffsetRange> =
                ranges.filter(|range| range.partition == partition).copied().collect();
            for range in ranges {
                assert_eq!(range.base, next, "{list:?}");
                assert!(range.base < range.end, "{list:?}");
                next = range.end;
            }
            assert_eq!(next, bounds.end, "{list:?}");
        }
        for file in &list.files {
            let held: Vec<OffsetRange> = self.ranges_in(file).await.iter().map(range_of).collect();
            assert!(held == file.ranges || file.straddles, "{file:?} holds {held:?}");
            for range in &file.ranges {
                let is_within = |held: &&OffsetRange| held.base <= range.base && range.end <= held.end;
                assert!(held.iter().filter(|held| held.partition == range.partition).any(|h| is_within(&h)));
            }
        }
        let names: BTreeSet<_> = list.files.iter().map(|file| &file.name).collect();
        assert_eq!(names.len(), list.files.len());
        let hours: BTreeSet<u32> = list.files.iter().filter_map(hour).collect();
        assert!(!rewritten || hours.len() == list.files.len(), "one a topic and hour: {list:?}");
    }
}

fn hour(file: &ListedFile) -> Option<u32> {
    let ObjectName::L1 { hour, .. } = file.name else { return None };
    Some(hour)
}

fn range_of(range: &MergedRange) -> OffsetRange {
    OffsetRange { partition: range.partition, base: range.base, end: range.end }
}

fn ranges_in(bytes: &bytes::Bytes) -> Vec<MergedRange> {
    let (_, ranges) = crate::segment::merged::ranges_of(bytes).unwrap().unwrap();
    ranges
}

fn offsets(pairs: &[(u32, Offset)]) -> AsOf {
    AsOf::Offsets(pairs.iter().copied().collect())
}

/// An object that nobody has to read.
fn object(topic: TopicId, hour: u32, drawn: u64, ulid: u128) -> L1Object {
    let object = ObjectRef { era: 0, ledger: 0, drawn, ulid };
    L1Object { object, hour, topic, footer: Span { position: 400, length: 100, crc: 0 } }
}

fn l1_range(partition: u32, base: Offset, end: Offset) -> L1Range {
    L1Range {
        object: 0,
        partition,
        base,
        end,
        rows: end - base,
        groups: (0, 1),
        append_ms: (0, 0),
        time_us_max: 0,
        bytes_running: 0,
        sum: Default::default(),
    }
}

/// Every state of a log that chance finds: appends, merges, rewrites and trims in any order, asked as of any offsets and
/// times.
#[tokio::test]
async fn each_record_is_listed_once_whatever_happened_before() {
    let mut straddling = 0;
    for seed in 0..40u64 {
        let mut state = seed * 2 + 1;
        let mut draw = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut world = World::new(3).await;
        for _ in 0..14 {
            let mut rewritten = false;
            match draw(8) {
                0..4 => {
                    let (inline, bytes) = (draw(2) == 0, if draw(4) == 0 { 40_000 } else { 10 });
                    world.append(draw(3) as u32, 1 + draw(5) as usize, bytes, inline).await;
                }
                4 | 5 => world.merge().await,
                6 => {
                    world.rewrite().await;
                    rewritten = true;
                }
                _ => {
                    let partition = draw(3) as u32;
                    let (start, end) = world.log.fetcher().watermarks("t", partition).await.unwrap();
                    world.trim(partition, start + draw(end - start + 1)).await;
                }
            }
            world.pass([0, 1, 1_000, HOUR / 2, HOUR][draw(5) as usize]);
            let all = world.list(AsOf::End).await;
            world.check(&all, rewritten).await;
            let mut wanted = BTreeMap::new();
            for bounds in &all.bounds {
                let until = bounds.base + draw(bounds.end - bounds.base + 1);
                if draw(4) > 0 {
                    wanted.insert(bounds.partition, until);
                }
            }
            let some = world.list(AsOf::Offsets(wanted.clone())).await;
            world.check(&some, false).await;
            for bounds in &some.bounds {
                assert_eq!(bounds.end, wanted.get(&bounds.partition).copied().unwrap_or(bounds.base));
            }
            straddling += some.files.iter().filter(|file| file.straddles).count();
            let time_ms =
                500_000 * HOUR + draw(world.clock.now_ms() as u64 - 500_000 * HOUR as u64 + 2) as i64;
            let by_time = world.list(AsOf::Time(time_ms * 1_000 + 999)).await;
            world.check(&by_time, false).await;
            for bounds in &by_time.bounds {
                let appended = &world.appended[bounds.partition as usize];
                let first = appended.partition_point(|append_ms| *append_ms <= time_ms) as u64;
                assert_eq!(bounds.end, first.max(bounds.base), "seed {seed}: {time_ms} in {appended:?}");
            }
            // What is not merged, as files.
            let mut written = Vec::new();
            let mut sink = |segment: MergedSegment| {
                written.extend(ranges_in(&segment.file()).iter().map(range_of));
                Ok(())
            };
            world.log.write_rest(&some, |_| {}, &mut sink).await.unwrap();
            assert_eq!(written, some.rest);
        }
    }
    assert!(straddling > 100, "{straddling}");
}

/// An hour that is wholly in the list is read without a filter, though the hours at its ends are not.
#[tokio::test]
async fn only_files_at_the_ends_straddle() {
    let mut world = World::new(2).await;
    for _ in 0..5 {
        world.append(0, 4, 10, false).await;
        world.append(1, 4, 10, false).await;
        world.merge().await;
        world.pass(HOUR);
    }
    let straddling = async |as_of| -> Vec<bool> {
        world.list(as_of).await.files.iter().map(|file| file.straddles).collect()
    };
    assert_eq!(straddling(AsOf::End).await, [false; 5]);
    assert_eq!(straddling(offsets(&[(0, 8), (1, 8)])).await, [false; 2]);
    assert_eq!(straddling(offsets(&[(0, 20), (1, 8)])).await, [false, false, true, true, true]);
    assert_eq!(straddling(offsets(&[(0, 20)])).await, [true; 5]);
    assert_eq!(straddling(AsOf::Time((500_001 * HOUR) * 1_000)).await, [false; 2]);
    world.trim(0, 6).await;
    assert_eq!(straddling(AsOf::End).await, [true, true, false, false, false]);
    world.trim(1, 8).await;
    assert_eq!(straddling(AsOf::End).await, [true, false, false, false]);
}

/// What was trimmed of a partition lies in another file of the hour that its log start is in.
#[tokio::test]
async fn a_file_may_hold_what_was_trimmed_of_another_partition() {
    let mut world = World::new(2).await;
    for _ in 0..2 {
        world.append(0, 4, 10, false).await;
        world.append(1, 4, 10, false).await;
        world.merge().await;
    }
    world.trim(1, 4).await;
    let list = world.list(AsOf::End).await;
    world.check(&list, false).await;
    assert_eq!(list.files.iter().map(|file| file.straddles).collect::<Vec<_>>(), [true, false]);
}

/// Some rows say the old object and some the new one; the list says the new one, once.
#[tokio::test]
async fn what_is_being_rewritten_is_listed_once() {
    let mut world = World::new(2).await;
    for _ in 0..3 {
        world.append(0, 4, 10, false).await;
        world.append(1, 2, 10, false).await;
        world.merge().await;
    }
    world.append(0, 1, 10, true).await;
    let before = world.list(AsOf::End).await;
    assert_eq!(before.files.len(), 3);
    let chain = &world.log.ledger().chain;
    let new = object(before.id, hour(&before.files[0]).unwrap(), chain.slot(), 77);
    // Of the first two folds.
    let hour_ms = i64::from(new.hour) * limits::HOUR_MS;
    let range =
        |partition, base, end| L1Range { append_ms: (hour_ms, hour_ms), ..l1_range(partition, base, end) };
    let (ranges, objects) = (vec![range(0, 0, 8), range(1, 0, 4)], vec![new.clone()]);
    let commit = Rewrite {
        topic: before.id,
        generation: 0,
        objects: objects.clone(),
        ranges: ranges.clone(),
        replaced: vec![],
    };
    // Sweep finds rows by their hour: nobody may commit records under another one (R3). Nor a time that is yet to come (RFC 0002), or
    // bytes that are nowhere (RFC 0003).
    let trim = TrimTo { topic: before.id, partition: 0, log_start: 1, oldest_ms: 0, oldest_bytes: 0 };
    let wrong = L1Object { hour: new.hour + 1, ..new.clone() };
    let refused = [
        Action::Rewrite(Rewrite { objects: vec![wrong.clone()], ..commit.clone() }),
        Action::Fold(Fold { objects: vec![wrong], ranges: vec![range(0, 12, 13)] }),
        Action::Trim(vec![TrimTo { oldest_ms: i64::MAX, ..trim }]),
        Action::Trim(vec![TrimTo { oldest_bytes: 1 << 40, ..trim }]),
        Action::Fold(Fold { objects: objects.clone(), ranges: vec![range(0, 12, 13)] }),
    ];
    let words =
        ["another hour", "another hour", "after the newest commit", "all there are", "its file has 500"];
    for (action, words) in refused.into_iter().zip(words) {
        let error = world.log.ledger().act(action).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    world.log.ledger().act(Action::Rewrite(commit)).await.unwrap();
    let number = chain.slot();
    let wanted = |base: Offset| {
        let range = |partition, base, end| OffsetRange { partition, base, end };
        vec![range(0, base, 8), range(1, 0, 4)]
    };
    let pending = Pending { rewrite: true, objects, ranges: ranges.clone() };
    for step in 0..3 {
        let list = world.list(AsOf::End).await;
        assert_eq!(list.files.len(), 2, "after {step} partitions: {list:?}");
        let rewritten = list.files.iter().find(|file| file.name == new.name("t")).unwrap();
        assert_eq!((&rewritten.ranges, rewritten.bytes, rewritten.straddles), (&wanted(0), 500, false));
        assert_eq!(list.files.iter().find(|file| **file != *rewritten), Some(&before.files[2]));
        assert_eq!(list.rest, [OffsetRange { partition: 0, base: 12, end: 13 }]);
        if let Some(range) = ranges.get(step) {
            chain.write_rows(&pending.row(number, range).unwrap(), true).await.unwrap();
        }
    }
    world.log.ledger().act(Action::Indexed(number)).await.unwrap();
    world.trim(0, 5).await;
    let list = world.list(AsOf::End).await;
    let rewritten = list.files.iter().find(|file| file.name == new.name("t")).unwrap();
    assert_eq!((&rewritten.ranges, rewritten.straddles), (&wanted(5), true));
}

/// A fold counts from its commit on, whether its rows are written or not.
#[tokio::test]
async fn a_pending_fold_is_in_the_list() {
    let mut world = World::new(1).await;
    world.append(0, 4, 10, false).await;
    world.merge().await;
    world.append(0, 4, 10, false).await;
    world.append(0, 4, 10, false).await;
    let before = world.list(AsOf::End).await;
    let new = object(before.id, hour(&before.files[0]).unwrap(), world.log.ledger().chain.slot(), 77);
    let known = world.log.ledger().chain.view(|view| view.partition(before.id, 0).map(|p| p.bytes_running));
    let range = L1Range { bytes_running: known.unwrap().unwrap(), ..l1_range(0, 4, 8) };
    let fold = Fold { objects: vec![new.clone()], ranges: vec![range] };
    world.log.ledger().act(Action::Fold(fold)).await.unwrap();
    let list = world.list(AsOf::End).await;
    assert_eq!(list.files.len(), 2);
    assert!(list.files.iter().any(|file| file.name == new.name("t")));
    assert_eq!(list.rest, [OffsetRange { partition: 0, base: 8, end: 12 }]);
    // A list from before finds its rest merged.
    let old = world.log.write_rest(&before, |_| {}, |_| Ok(())).await;
    assert!(matches!(old, Err(Error::Unavailable { .. })), "{old:?}");
    let list = world.list(offsets(&[(0, 6)])).await;
    assert!(list.rest.is_empty());
    assert_eq!(list.files.iter().map(|file| file.straddles).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn a_row_that_is_missing_is_told() {
    let mut world = World::new(1).await;
    for _ in 0..2 {
        world.append(0, 4, 10, false).await;
        world.merge().await;
    }
    let id = world.list(AsOf::End).await.id;
    let chain = &world.log.ledger().chain;
    let rows = chain.next_rows(&mut RowPages::new(id, 0, 0)).await.unwrap().unwrap();
    assert!(chain.delete_row(&rows[1]).await.unwrap());
    let error = world.log.files("t", &AsOf::End).await.unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("no index row holds offset 4"), "{error}");
    // What does not need it is listed.
    assert_eq!(world.list(offsets(&[(0, 3)])).await.files.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused() {
    let mut world = World::new(2).await;
    world.append(0, 4, 10, false).await;
    world.trim(0, 2).await;
    let files = async |as_of: AsOf| world.log.files("t", &as_of).await.unwrap_err();
    assert!(matches!(files(offsets(&[(2, 0)])).await, Error::UnknownPartition { partition: 2, .. }));
    assert!(matches!(files(offsets(&[(0, 5)])).await, Error::OffsetOutOfRange { offset: 5, .. }));
    assert!(matches!(files(offsets(&[(0, 1)])).await, Error::OffsetOutOfRange { offset: 1, .. }));
    let unknown = world.log.files("u", &AsOf::End).await.unwrap_err();
    assert!(matches!(unknown, Error::UnknownTopic { .. }));
    assert!(world.list(offsets(&[(0, 2)])).await.rest.is_empty());
}

/// The rest, as files: the records that fetch gives, in files of a bounded size.
#[tokio::test]
async fn the_rest_is_written_as_it_was_appended() {
    let mut world = World::new(2).await;
    for n in 0..5 {
        world.append(n % 2, 5, 1 << 20, false).await;
        world.append(1 - n % 2, 3, 10, n % 2 == 0).await;
        world.pass(1_000);
    }
    world.trim(0, 2).await;
    let list = world.list(AsOf::End).await;
    let mut segments = Vec::new();
    let mut sink = |segment: MergedSegment| {
        segments.push(segment);
        Ok(())
    };
    let records = world.log.write_rest(&list, |_| {}, &mut sink).await.unwrap();
    assert_eq!(records, list.bounds.iter().map(|bounds| bounds.end - bounds.base).sum::<u64>());
    let mut found = vec![Vec::new(); 2];
    for segment in &segments {
        let footer = segment.cut(segment.footer).unwrap();
        let footer = MergedFooter::parse(&footer, segment.footer).unwrap();
        for range in &segment.ranges {
            let mut next = range.base;
            for group in footer.groups_of(range.partition, range.base..range.end) {
                let bytes = segment.cut(footer.span(group).unwrap()).unwrap();
                let group = footer.decode(group, "t", &bytes).unwrap();
                for part in group.parts_from(range.partition, next, range.end).unwrap() {
                    next = part.end();
                    let offsets = part.base..part.end();
                    let records = offsets.zip(0..).map(|(offset, i)| part.rows.record(i, offset));
                    let appended = &world.appended[range.partition as usize];
                    assert_eq!(appended[part.base as usize], part.append_ms);
                    found[range.partition as usize].extend(records);
                }
            }
        }
    }
    for (partition, found) in found.iter().enumerate() {
        let mut from = list.bounds[partition].base;
        let mut wanted = Vec::new();
        while from < list.bounds[partition].end {
            let fetcher = world.log.fetcher();
            let fetched = fetcher.fetch("t", partition as u32, from, FetchLimits::default()).await.unwrap();
            wanted.extend(fetched.records());
            from = fetched.next;
        }
        assert_eq!(found, &wanted);
    }
}
