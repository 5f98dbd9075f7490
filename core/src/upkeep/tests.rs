use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::*;
use crate::counting::CountingStore;
use crate::env::{Env, SystemEnv};
use crate::ledger::Settings;
use crate::ledger::index::{IndexRow, RowPages};
use crate::metrics::{Metric, Totals};
use crate::objects::{ObjectName, Ulid};
#[cfg(feature = "planted-bugs")]
use crate::plant::{self, Bug};
use crate::store::Store;
use crate::{Log, Position, Record};

mod merge;
mod rewrite;
mod rows;

const SECOND: i64 = 1_000;
const HOUR: i64 = 3_600 * SECOND;
const DAY: i64 = 24 * HOUR;

/// The machine's own, but for the time of day.
#[derive(Debug)]
struct Clock {
    now_ms: AtomicI64,
    own: crate::env::SharedEnv,
}

impl Clock {
    fn pass(&self, ms: i64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Env for Clock {
    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        self.own.monotonic()
    }

    fn random_u64(&self) -> u64 {
        self.own.random_u64()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        self.own.sleep(time)
    }
}

struct World {
    clock: Arc<Clock>,
    counts: Arc<CountingStore>,
    totals: Totals,
    log: Log,
}

impl World {
    /// A log with the topic `t` of two partitions.
    async fn new(config: &[(&str, &str)]) -> Self {
        let now_ms = AtomicI64::new(1_790_000_000_000);
        let clock = Arc::new(Clock { now_ms, own: SystemEnv::shared() });
        let mut store = Store::memory(clock.clone());
        let counts = Arc::new(CountingStore::new(store.objects.store().clone()));
        store.objects = store.objects.wrapped(|_| counts.clone());
        let totals = Totals::default();
        let builder = Log::builder().env(clock.clone()).metrics(Arc::new(totals.clone()));
        let log = builder.open_store(store).await.unwrap();
        let config: Vec<_> =
            config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        log.admin().create_topic("t", 2, &config).await.unwrap();
        Self { clock, counts, totals, log }
    }

    fn upkeep(&self) -> Upkeep {
        self.log.upkeep(UpkeepSettings::default())
    }

    /// Ten records of 1 KiB into a partition, in a segment of their own.
    async fn flush(&self, partition: u32) {
        self.flush_at(partition, self.clock.now_ms()).await;
    }

    async fn flush_at(&self, partition: u32, timestamp_ms: i64) {
        let producer = self.log.producer().inline_bytes_max(0).build().unwrap();
        for n in 0..10u8 {
            let value: Vec<u8> = (0..1_024u32).map(|i| (i * 7 + u32::from(n)) as u8).collect();
            let record = Record { timestamp_us: Some(timestamp_ms * 1_000), ..Record::value(value) };
            producer.enqueue("t", Some(partition), record, None).await.unwrap();
        }
        producer.close().await.unwrap();
    }

    async fn start(&self, partition: u32) -> u64 {
        self.log.fetcher().watermarks("t", partition).await.unwrap().0
    }

    async fn paths(&self) -> Vec<String> {
        let listed: Vec<_> = self.counts.list(None).try_collect().await.unwrap();
        listed.iter().map(|found| found.location.to_string()).collect()
    }

    async fn put(&self, path: &str) {
        self.counts.put(&Path::from(path), "somebody's".into()).await.unwrap();
    }

    /// A sweep by somebody who knows nothing of earlier ones.
    async fn sweep(&self) -> (Swept, Vec<Deletion>) {
        let mut deleted = Vec::new();
        let swept =
            self.upkeep().sweep(Sweep::Whole, |deletion| deleted.push(deletion.clone())).await.unwrap();
        (swept, deleted)
    }

    async fn run(&self) -> (Run, Vec<Deletion>) {
        let mut deleted = Vec::new();
        let run = self
            .upkeep()
            .run(|step| {
                if let Step::Deleted(deletion) = step {
                    deleted.push(deletion.clone());
                }
            })
            .await
            .unwrap();
        (run, deleted)
    }
}

fn l0(era: u16, drawn: u64, ulid: u128) -> String {
    ObjectName::L0 { era, ledger: 0, drawn, ulid: Ulid(ulid) }.to_string()
}

/// Writers that live for one request never get to a checkpoint of their own.
#[tokio::test]
async fn a_run_checkpoints_and_strips_what_others_committed() {
    let store = Store::memory(SystemEnv::shared());
    let open = |checkpoint_commits| {
        let settings = Settings { checkpoint_commits, strip_bytes_min: 1, ..Settings::default() };
        Log::with_store(store.clone(), SystemEnv::shared(), true, settings)
    };
    let (writer, keeper) = (open(0).await.unwrap(), open(10).await.unwrap());
    let upkeep = keeper.upkeep(UpkeepSettings::default());
    let mut made = 0;
    let mut create = async |count: u32| {
        for _ in 0..count {
            made += 1;
            writer.admin().create_topic(&format!("t{made}"), 1, &[]).await.unwrap();
        }
    };
    create(8).await;
    assert_eq!(upkeep.run(|_| {}).await.unwrap().kept, Kept::default(), "nine commits are not enough");
    create(1).await;
    let kept = upkeep.run(|_| {}).await.unwrap().kept;
    assert_eq!(kept, Kept { checkpoint: Some(10), stripped: 0 }, "strip stays one checkpoint behind");
    assert_eq!(upkeep.run(|_| {}).await.unwrap().kept, Kept::default(), "nothing was committed since");
    create(10).await;
    let kept = upkeep.run(|_| {}).await.unwrap().kept;
    // All up to the first checkpoint, but the one that says what the store is.
    assert_eq!(kept, Kept { checkpoint: Some(21), stripped: 9 });
    assert_eq!(open(0).await.unwrap().admin().topics().await.unwrap().len(), 19, "a cold start finds all");
}

/// A strip must leave them until they are merged; a later one, of any process, finds them without a look at the whole chain.
#[tokio::test]
async fn inline_records_are_stripped_once_they_are_merged() {
    let world = World::new(&[]).await;
    let producer = world.log.producer().build().unwrap();
    producer.enqueue("t", Some(0), Record::value(vec![b'x'; 2_000]), None).await.unwrap();
    producer.close().await.unwrap();
    let slot = world.log.ledger().chain_slot();
    let body = async || {
        let found = world.log.store().table.get("0000/0000", slot, crate::table::Consistency::Strong).await;
        found.unwrap().value.unwrap().body
    };
    let keep = async || {
        world.log.ledger().checkpoint().await.unwrap();
        let store = world.log.store().clone();
        let another = Log::with_store(store, world.clock.clone(), true, Settings::default()).await.unwrap();
        another.ledger().strip().await.unwrap()
    };
    for _ in 0..3 {
        keep().await;
        assert!(body().await.is_some(), "nobody else has the records");
    }
    world.upkeep().merge(true, |_, _| {}).await.unwrap();
    assert_eq!(keep().await, 1);
    assert_eq!(body().await, None);
}

#[tokio::test]
async fn retention_lets_whole_slices_go_by_their_append_time() {
    let world = World::new(&[("retention.ms", "10000")]).await;
    // Of the clients' own times, one is old and one lies ahead.
    world.flush_at(0, 1_000).await;
    world.clock.pass(6 * SECOND);
    world.flush_at(0, 1_990_000_000_000).await;
    world.flush(1).await;
    assert_eq!(world.run().await.0.trimmed, [], "nothing is older than ten seconds");
    world.clock.pass(5 * SECOND);
    let (run, _) = world.run().await;
    assert_eq!(run.trimmed.iter().map(|t| (t.partition, t.from, t.to)).collect::<Vec<_>>(), [(0, 0, 10)]);
    assert_eq!((world.start(0).await, world.start(1).await), (10, 0));
    world.clock.pass(10 * SECOND);
    world.run().await;
    assert_eq!((world.start(0).await, world.start(1).await), (20, 10), "a partition may be empty");
    assert_eq!(world.run().await.0.trimmed, []);
}

#[tokio::test]
async fn retention_without_a_limit_keeps_all() {
    let world = World::new(&[("retention.ms", "-1")]).await;
    world.flush(0).await;
    world.clock.pass(400 * DAY);
    let overdue = world.upkeep().overdue().await.unwrap();
    assert_eq!(overdue, Overdue::default());
}

/// I-TRIM's brake: what a wrong clock would let go is kept for an hour.
#[tokio::test]
async fn a_leap_of_time_holds_large_trims_for_an_hour() {
    let world = World::new(&[("retention.ms", "604800000")]).await;
    for _ in 0..4 {
        world.flush(0).await;
        world.clock.pass(HOUR);
    }
    world.clock.pass(30 * DAY);
    let (run, _) = world.run().await;
    assert_eq!((run.trimmed.len(), run.held.len(), run.held[0].to), (0, 1, 40));
    assert_eq!(world.log.admin().groups().await.unwrap(), Vec::<String>::new(), "no consumer's group");
    world.clock.pass(HOUR - SECOND);
    assert_eq!(world.run().await.0.trimmed, [], "the hour is not over");
    // With what was appended since nobody was threatened.
    world.flush(0).await;
    world.clock.pass(2 * SECOND);
    let (run, _) = world.run().await;
    assert_eq!(run.trimmed.iter().map(|t| (t.from, t.to)).collect::<Vec<_>>(), [(0, 40)]);
    // What was announced once does not count for what comes later.
    world.flush(0).await;
    world.clock.pass(30 * DAY);
    let (run, _) = world.run().await;
    assert_eq!((run.trimmed.len(), run.held.len()), (0, 1));
    assert_eq!(world.start(0).await, 40);
}

#[tokio::test]
async fn a_leap_that_is_in_the_commits_already_holds_too() {
    let world = World::new(&[("retention.ms", "604800000")]).await;
    world.flush(0).await;
    world.clock.pass(30 * DAY);
    world.flush(0).await;
    world.flush(0).await;
    let (run, _) = world.run().await;
    assert_eq!((run.trimmed.len(), run.held.len()), (0, 1));
    // Without a leap, a large trim is an ordinary one.
    let world = World::new(&[("retention.ms", "604800000")]).await;
    for _ in 0..10 {
        world.flush(0).await;
        world.clock.pass(23 * HOUR);
    }
    world.flush(0).await;
    assert_eq!(world.run().await.0.trimmed.len(), 1);
}

#[tokio::test]
async fn a_clock_that_is_behind_deletes_nothing() {
    let world = World::new(&[("retention.ms", "10000")]).await;
    world.flush(0).await;
    world.log.admin().delete_records("t", None, Position::End).await.unwrap();
    world.put(&l0(0, 0, 7)).await;
    world.clock.pass(-365 * DAY);
    let (run, deleted) = world.run().await;
    assert_eq!((run.trimmed.len(), run.held.len(), deleted.len()), (0, 0, 0));
}

#[tokio::test]
async fn only_what_no_commit_names_or_can_name_goes() {
    let world = World::new(&[]).await;
    world.flush(0).await;
    world.flush(0).await;
    world.flush(1).await;
    let before = world.paths().await;
    let segments: Vec<_> = before.iter().filter(|path| path.starts_with("l0/")).collect();
    assert_eq!(segments.len(), 3);
    let orphans = [l0(0, 0, 1), l0(0, 2, 2)];
    let slot = world.log.ledger().chain().slot();
    let others = [
        l0(0, slot + 9, 3),
        l0(1, 0, 4),
        "l0/0000/0001/0000000000000000/00000000000000000000000001.parquet".to_owned(),
        "l0/0000/0000/0000000000000000/notes.txt".to_owned(),
        "topics/t/somebody.parquet".to_owned(),
        "readme".to_owned(),
    ];
    for path in orphans.iter().chain(&others) {
        world.put(path).await;
    }
    assert_eq!(world.sweep().await.1, [], "a quarter of an hour must pass");
    world.clock.pass(16 * 60 * SECOND);
    let mut planned = Vec::new();
    world.upkeep().sweepable(|deletion| planned.push(deletion.clone())).await.unwrap();
    let (swept, deleted) = world.sweep().await;
    assert_eq!(
        planned.iter().map(|d| &d.name).collect::<Vec<_>>(),
        deleted.iter().map(|d| &d.name).collect::<Vec<_>>()
    );
    let mut names: Vec<_> = deleted.iter().map(|d| d.name.to_string()).collect();
    names.sort();
    assert_eq!(names, orphans);
    assert!(
        deleted.iter().all(|d| matches!(d.why, Reason::Orphan { .. }) && d.bytes == Some(10)),
        "{deleted:?}"
    );
    assert_eq!((swept.objects, swept.bytes, swept.floor), (2, 20, slot));
    // Trimmed: dead for an hour before it goes. The partition beside it keeps its own.
    world.log.admin().delete_records("t", Some(&[0]), Position::Offset(10)).await.unwrap();
    world.clock.pass(59 * 60 * SECOND);
    assert_eq!(world.sweep().await.1, []);
    world.clock.pass(2 * 60 * SECOND);
    let (_, deleted) = world.sweep().await;
    assert!(matches!(&deleted[..], [Deletion { why: Reason::Dead { .. }, .. }]), "{deleted:?}");
    world.log.admin().delete_topic("t").await.unwrap();
    world.clock.pass(2 * HOUR);
    let (swept, deleted) = world.sweep().await;
    assert_eq!((deleted.len(), swept.objects), (2, 2));
    let mut left = world.paths().await;
    left.retain(|path| !path.starts_with("probe/"));
    let mut expected = others.to_vec();
    expected.sort();
    left.sort();
    assert_eq!(left, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_tells_of_orphans_and_of_its_listing() {
    // Not merged meanwhile: by the slice the floor knows an old commit.
    let world = World::new(&[("merge.max.age.ms", "86400000")]).await;
    world.flush(0).await;
    for ulid in 0..1_000 {
        world.put(&l0(0, 0, ulid)).await;
    }
    world.clock.pass(HOUR);
    let mut listed = Vec::new();
    let tell = |step: Step<'_>| {
        if let Step::Listing(objects) = step {
            listed.push(objects);
        }
    };
    let swept = world.upkeep().run_whole(tell).await.unwrap().swept.unwrap();
    assert_eq!((swept.objects, listed), (1_000, vec![1_000]));
    assert_eq!(world.totals.of(Metric::OrphanBytes).sum, 1_000 * "somebody's".len() as u64);
    world.sweep().await;
    assert_eq!(world.totals.of(Metric::OrphanBytes).sum, 0, "they are gone");
}

#[tokio::test]
async fn the_two_newest_checkpoints_stay() {
    let world = World::new(&[]).await;
    for _ in 0..4 {
        world.flush(0).await;
        world.log.ledger().checkpoint().await.unwrap();
    }
    let checkpoints =
        |paths: Vec<String>| paths.into_iter().filter(|path| path.starts_with("ckpt/")).collect::<Vec<_>>();
    let mut all = checkpoints(world.paths().await);
    all.sort();
    let (_, deleted) = world.run().await;
    assert_eq!(deleted.len(), 2);
    let mut left = checkpoints(world.paths().await);
    left.sort();
    assert_eq!(left, all[2..]);
    let cold = Log::with_store(world.log.store().clone(), world.clock.clone(), false, Settings::default());
    assert_eq!(cold.await.unwrap().admin().topics().await.unwrap(), ["t"]);
}

#[tokio::test]
async fn a_run_that_can_find_nothing_new_asks_for_nothing() {
    let world = World::new(&[]).await;
    world.flush(0).await;
    world.put(&l0(0, 0, 1)).await;
    world.clock.pass(HOUR);
    let upkeep = world.upkeep();
    for _ in 0..3 {
        upkeep.run(|_| {}).await.unwrap();
        world.clock.pass(HOUR);
    }
    let (counts, slot) = (world.counts.counts(), world.log.ledger().chain().slot());
    for _ in 0..10 {
        let run = upkeep.run(|_| {}).await.unwrap();
        assert_eq!(run.swept.unwrap_or_default().listed, 0);
        world.clock.pass(HOUR);
    }
    assert_eq!(world.counts.counts(), counts, "no request");
    assert_eq!(world.log.ledger().chain().slot(), slot, "no commit");
}

#[tokio::test]
async fn a_folder_keeps_no_empty_folders_of_what_was_swept() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path().to_str().unwrap()).await.unwrap();
    log.admin().create_topic("t", 1, &[]).await.unwrap();
    for _ in 0..3 {
        let producer = log.producer().inline_bytes_max(0).build().unwrap();
        producer.send("t", Record::value("x")).await.unwrap();
        producer.close().await.unwrap();
    }
    let drawn = || std::fs::read_dir(folder.path().join("l0/0000/0000")).unwrap().count();
    assert_eq!(drawn(), 3);
    log.admin().delete_records("t", None, Position::Offset(2)).await.unwrap();
    let upkeep = log.upkeep(UpkeepSettings { sweep_lag_ms: 0, read_lag_ms: 0, ..UpkeepSettings::default() });
    assert_eq!(upkeep.sweep(Sweep::Whole, |_| {}).await.unwrap().objects, 2);
    assert_eq!(drawn(), 1);
    let report = crate::verify::verify(log.store(), |_, _| {}).await.unwrap();
    assert_eq!((report.damage, report.records), (vec![], 1));
}

#[tokio::test]
async fn records_are_deleted_before_an_offset_or_a_time() {
    let world = World::new(&[]).await;
    for partition in [0, 0, 1] {
        world.flush(partition).await;
        world.clock.pass(SECOND);
    }
    let admin = world.log.admin();
    let error = admin.delete_records("t", None, Position::Offset(11)).await.unwrap_err();
    assert!(
        matches!(error, crate::Error::OffsetOutOfRange { partition: 1, high_watermark: 10, .. }),
        "{error}"
    );
    assert_eq!((world.start(0).await, world.start(1).await), (0, 0), "nothing was changed");
    admin.delete_records("t", Some(&[0]), Position::Offset(11)).await.unwrap();
    assert_eq!((world.start(0).await, world.start(1).await), (11, 0), "inside of a slice");
    let records = world.log.fetcher().fetch("t", 0, 11, Default::default()).await.unwrap();
    assert_eq!(
        records.records().map(|record| record.offset).collect::<Vec<_>>(),
        (11..20).collect::<Vec<_>>()
    );
    assert_eq!(admin.delete_records("t", None, Position::Offset(5)).await.unwrap(), [(0, 11), (1, 5)]);
    let second = Position::Time((1_790_000_000_000 + SECOND) * 1_000);
    assert_eq!(admin.delete_records("t", Some(&[0]), second).await.unwrap(), [(0, 11)]);
    assert_eq!(admin.delete_records("t", None, Position::End).await.unwrap(), [(0, 20), (1, 10)]);
    assert!(admin.delete_records("t", Some(&[2]), Position::End).await.is_err());
    assert!(admin.delete_records("u", None, Position::End).await.is_err());
}

#[cfg(feature = "planted-bugs")]
#[test]
fn a_planted_bug_that_takes_long_is_noticed() {
    let found = std::panic::catch_unwind(|| {
        plant::set(Some(Bug::LONG));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { dead_are_kept(&World::new(&[]).await).await });
    });
    plant::set(None);
    assert!(found.is_err(), "it was not noticed");
}

#[cfg(feature = "planted-bugs")]
async fn dead_are_kept(world: &World) {
    world.flush(0).await;
    world.flush(1).await;
    world.log.admin().delete_records("t", Some(&[0]), Position::End).await.unwrap();
    world.clock.pass(HOUR / 2);
    assert_eq!(world.sweep().await.1, []);
}

/// Everything a consumer would see of a partition.
async fn all(world: &World, partition: u32) -> Vec<crate::ConsumerRecord> {
    let fetcher = world.log.fetcher();
    let (mut at, end) = fetcher.watermarks("t", partition).await.unwrap();
    let mut records = Vec::new();
    while at < end {
        let fetched = fetcher.fetch("t", partition, at, crate::fetch::FetchLimits::default()).await.unwrap();
        records.extend(fetched.records());
        assert!(fetched.next > at, "{fetched:?}");
        at = fetched.next;
    }
    records
}

async fn inline(world: &World, partition: u32) {
    let producer = world.log.producer().build().unwrap();
    producer.enqueue("t", Some(partition), Record::keyed("k", "small"), None).await.unwrap();
    producer.close().await.unwrap();
}

fn l1(topic: &str, id: TopicId, drawn: u64, ulid: u128) -> String {
    let (topic, ulid) = (topic.into(), Ulid(ulid));
    ObjectName::L1 { topic, id, hour: 497_222, era: 0, ledger: 0, drawn, ulid }.to_string()
}

impl World {
    async fn merge(&self) -> Merged {
        self.upkeep().merge(true, |_, _| {}).await.unwrap()
    }

    async fn merged(&self) -> Vec<String> {
        let mut paths = self.paths().await;
        paths.retain(|path| path.starts_with("topics/"));
        paths.sort();
        paths
    }

    async fn index(&self, id: TopicId, partition: u32) -> usize {
        self.rows(id, partition).await.len()
    }

    async fn rows(&self, id: TopicId, partition: u32) -> Vec<IndexRow> {
        let mut pages = RowPages::new(id, partition, 0);
        let mut rows = Vec::new();
        while let Some(page) = self.log.ledger().chain.next_rows(&mut pages).await.unwrap() {
            rows.extend(page.into_iter().map(|stored| stored.row));
        }
        rows
    }

    async fn verify(&self) -> crate::verify::Report {
        crate::verify::verify(self.log.store(), |_, _| {}).await.unwrap()
    }
}

/// One of the processes that lead merges, and only while it does.
#[tokio::test(start_paused = true)]
async fn whoever_leads_keeps_the_log() {
    let world = World::new(&[("merge.max.age.ms", "1000")]).await;
    let merged_after = async |leads: bool, upkeep: bool| {
        let before = world.merged().await.len();
        let producer = world.log.producer().lead(leads).upkeep(upkeep).build().unwrap();
        producer.send("t", Record::value("x")).await.unwrap();
        world.clock.pass(2 * SECOND);
        world.clock.own.sleep(Duration::from_secs(60)).await;
        producer.close().await.unwrap();
        drop(producer);
        world.merged().await.len() - before
    };
    assert_eq!(merged_after(false, true).await, 0);
    assert_eq!(merged_after(true, false).await, 0);
    assert_eq!(merged_after(true, true).await, 1);
    // Nobody is left.
    world.flush(0).await;
    world.clock.pass(2 * SECOND);
    world.clock.own.sleep(Duration::from_secs(60)).await;
    assert_eq!(world.merged().await.len(), 1);
}

/// Where a run was long enough the next one follows without a pause.
#[tokio::test(start_paused = true)]
#[allow(clippy::disallowed_methods, reason = "virtual time: tokio's clock, paused")]
async fn a_keeper_that_has_more_to_do_does_not_pause() {
    let world = World::new(&[]).await;
    let producer = world.log.producer().lead(true).upkeep(false).build().unwrap();
    producer.send("t", Record::value("x")).await.unwrap();
    let six_looks = async |run_max: Duration| {
        let (looks, began) = (AtomicI64::new(0), tokio::time::Instant::now());
        world.upkeep().within(run_max).keep(|| looks.fetch_add(1, Ordering::SeqCst) < 5).await;
        began.elapsed()
    };
    let pause = Duration::from_millis(limits::KEEP_EVERY_MS);
    let (hurried, idle) = (six_looks(Duration::ZERO).await, six_looks(Duration::from_secs(3_600)).await);
    assert!(hurried < 2 * pause && 3 * pause <= idle, "{hurried:?}, {idle:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_ends_in_its_time_and_the_next_goes_on() {
    let world = World::new(&[("merge.max.age.ms", "1000"), ("retention.ms", "28800000")]).await;
    world.flush(0).await;
    world.put(&l0(0, 0, 1)).await;
    world.clock.pass(HOUR);
    let hurried = world.upkeep().within(Duration::ZERO);
    let run = hurried.run(|_| {}).await.unwrap();
    assert!(run.more && run.merged.folds == 0 && run.swept.unwrap().objects == 0, "{run:?}");
    let run = hurried.run_after_appends(|_| {}).await.unwrap();
    assert!(run.more && run.merged.folds == 0 && run.swept.is_none(), "{run:?}");
    let run = world.upkeep().within(Duration::from_secs(3_600)).run_after_appends(|_| {}).await.unwrap();
    assert!(!run.more && run.merged.folds == 1 && run.swept.is_none(), "{run:?}");
    world.clock.pass(HOUR);
    let run = world.upkeep().run_whole(|_| {}).await.unwrap();
    assert!(!run.more && run.swept.unwrap().objects == 2, "{run:?}");
    // A sweep has its share, whatever was before it.
    world.put(&l0(0, 0, 2)).await;
    let run = hurried.run_whole(|_| {}).await.unwrap();
    assert!(run.more && run.swept.unwrap().objects == 1, "{run:?}");
    // Nor does retention look at more than there is time for.
    world.clock.pass(8 * HOUR);
    for (most, trimmed) in [(0, 0), (3_600, 1)] {
        let run = world.upkeep().within(Duration::from_secs(most)).run(|_| {}).await.unwrap();
        assert_eq!((run.more, run.trimmed.len(), run.held.len()), (trimmed == 0, trimmed, 0), "{run:?}");
    }
}

/// A run that is short of time asks about another first each time, so that each has its turn.
#[tokio::test]
async fn what_there_is_no_time_for_has_its_turn() {
    let upkeep = World::new(&[]).await.upkeep().within(Duration::from_secs(3_600));
    let mut first = std::collections::BTreeSet::new();
    for _ in 0..200 {
        upkeep.begin();
        let ask = |number: u32| {
            // The time is over as soon as one is asked about.
            upkeep.memory().until = Some(Duration::ZERO);
            async move { Ok(number) }.boxed()
        };
        let asked = upkeep.ask((0..8).collect(), ask).await.unwrap();
        assert_eq!(asked.len(), 1);
        first.extend(asked);
    }
    assert_eq!(first, (0..8).collect());
}

/// Sixty merged segments, orphans among them, and those of a deleted topic before them.
async fn large() -> (World, Vec<String>) {
    let world = World::new(&[]).await;
    for _ in 0..60 {
        world.flush(0).await;
        world.merge().await;
        world.clock.pass(HOUR);
    }
    world.sweep().await;
    let mut orphans = Vec::new();
    for (n, path) in world.merged().await.iter().enumerate().filter(|(n, _)| n % 5 == 0) {
        let ObjectName::L1 { topic, id, hour, era, ledger, .. } = path.parse().unwrap() else {
            panic!("{path}")
        };
        let ulid = Ulid(n as u128);
        orphans.push(ObjectName::L1 { topic, id, hour, era, ledger, drawn: 1, ulid }.to_string());
    }
    for hour in 0..10 {
        let (topic, id, ulid) = ("gone".into(), TopicId(7), Ulid(hour.into()));
        orphans.push(ObjectName::L1 { topic, id, hour, era: 0, ledger: 0, drawn: 1, ulid }.to_string());
    }
    for path in &orphans {
        world.put(path).await;
    }
    orphans.sort();
    (world, orphans)
}

/// Of a bucket, which is listed in order, a run that is short of time looks at a part, and the next one at what follows.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_all_there_is_goes_on_where_it_stopped() {
    for _ in 0..5 {
        let (world, orphans) = large().await;
        let there = world.merged().await.len() as u64;
        assert_eq!(there, 60 + orphans.len() as u64);
        let settings = UpkeepSettings { list_page: 7, ..UpkeepSettings::default() };
        let hurried = world.log.upkeep(settings.clone()).within(Duration::ZERO);
        let (mut parts, mut listed, mut deleted) = (Vec::new(), 0, Vec::new());
        loop {
            let is_few = |path: &&String| path.starts_with("l0/") || path.starts_with("ckpt/");
            let few = world.paths().await.iter().filter(is_few).count() as u64;
            let tell = |step: Step<'_>| {
                if let Step::Deleted(deletion) = step {
                    deleted.push(deletion.name.to_string());
                }
            };
            let run = hurried.run_whole(tell).await.unwrap();
            let swept = run.swept.unwrap();
            listed += swept.listed - few;
            parts.push(swept);
            if !swept.more {
                break;
            }
            assert!(run.more && parts.len() < 100, "{run:?}");
            assert!(swept.listed - few <= 14, "{parts:?}");
        }
        assert!(parts.len() > 10, "{parts:?}");
        deleted.sort();
        assert_eq!((listed, &deleted), (there, &orphans), "each once: {parts:?}");
        assert_eq!(world.merged().await.len(), 60);
        assert_eq!(world.totals.of(Metric::OrphanBytes).sum, (orphans.len() as u64 - 10) * 10);
        // What came behind its back is found by the next.
        for path in [orphans.first().unwrap(), orphans.last().unwrap()] {
            world.put(path).await;
        }
        while hurried.run_whole(|_| {}).await.unwrap().swept.unwrap().more {}
        assert_eq!(world.merged().await.len(), 60);
    }
}

/// While a look at all there is goes on, too.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_let_go_behind_the_back_of_a_look_is_deleted_by_name() {
    let (world, _) = large().await;
    let upkeep = world.log.upkeep(UpkeepSettings { list_page: 7, ..UpkeepSettings::default() });
    let hurried = upkeep.clone().within(Duration::ZERO);
    for _ in 0..5 {
        assert!(hurried.sweep(Sweep::Whole, |_| {}).await.unwrap().more);
    }
    world.log.admin().delete_records("t", Some(&[0]), Position::End).await.unwrap();
    upkeep.begin();
    assert_eq!(upkeep.trim_rows().await.unwrap(), 0, "an hour for readers");
    world.clock.pass(HOUR);
    assert_eq!(upkeep.trim_rows().await.unwrap(), 60);
    while hurried.sweep(Sweep::Whole, |_| {}).await.unwrap().more {}
    assert_eq!(world.merged().await, Vec::<String>::new());
}

/// Nor has each part of a log its turn only if one process lives for so long.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_all_there_is_begins_anywhere() {
    let (world, _) = large().await;
    let settings = UpkeepSettings { list_page: 7, ..UpkeepSettings::default() };
    let mut runs = 0;
    while world.merged().await.len() > 60 {
        let hurried = world.log.upkeep(settings.clone()).within(Duration::ZERO);
        assert!(hurried.sweep(Sweep::Whole, |_| {}).await.unwrap().more);
        runs += 1;
        assert!(runs < 1_000);
    }
    assert!(runs > 10, "{runs}");
}

/// What a merge or a rewrite put that lost its race is deleted by who put it, without a look at all there is.
#[tokio::test(flavor = "multi_thread")]
async fn what_lost_its_race_is_deleted_by_name() {
    for rewrites in [false, true] {
        let world = World::new(&[]).await;
        let (one, other) = (world.upkeep(), world.upkeep());
        let mut lost = 0;
        for _ in 0..100 {
            let before = world.merged().await.len();
            for _ in 0..2 {
                world.flush(0).await;
                match rewrites {
                    true => drop(world.merge().await),
                    false => drop(tokio::join!(one.merge(true, |_, _| {}), other.merge(true, |_, _| {}))),
                }
            }
            if rewrites {
                drop(tokio::join!(one.rewrite(true, |_| {}), other.rewrite(true, |_| {})));
            }
            lost = world.merged().await.len() - before - if rewrites { 3 } else { 2 };
            if lost > 0 {
                break;
            }
        }
        assert!(lost > 0, "nobody lost");
        world.clock.pass(HOUR);
        world.flush(0).await;
        world.clock.pass(2 * HOUR);
        let mut orphans = 0;
        for upkeep in [&one, &other] {
            let tell = |deletion: &Deletion| {
                let is_l1 = matches!(deletion.name, ObjectName::L1 { .. });
                orphans += usize::from(is_l1 && matches!(deletion.why, Reason::Orphan { .. }));
            };
            upkeep.sweep(Sweep::LetGo, tell).await.unwrap();
            assert!(upkeep.memory().let_go.is_empty());
        }
        assert_eq!(orphans, lost);
        assert_eq!(world.sweep().await.1, [], "nothing is left");
        let report = world.verify().await;
        assert!(report.damage.is_empty(), "{report:?}");
    }
}
