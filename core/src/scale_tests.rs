//! What each verb costs in requests where there is much of everything, beside what it costs where there is little: flat, but for
//! the look-up of a time and of the rows of an hour, which are logarithmic, and for what looks at everything (what a process first hears
//! of a limit in bytes, its daily look at all objects), which is bounded for each thing it looks at.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::batch::{Rows, RowsBuilder};
use crate::counting::{CountingStore, CountingTable, ObjectCounts, TableCounts};
use crate::env::{Env, SharedEnv, SystemEnv};
use crate::fetch::FetchLimits;
use crate::ledger::action::*;
use crate::ledger::chain::STORE_FORMAT;
use crate::ledger::index::IndexRow;
use crate::ledger::view::{Partition, Topic, View};
use crate::ledger::{Settings, checkpoint, codec};
use crate::objects::{ObjectName, Objects};
use crate::record::{RecordSum, TopicId};
use crate::segment::merged::{MergedPart, MergedWriter};
use crate::segment::{Compression, Span};
use crate::store::Store as Opened;
use crate::table::{Item, MemoryTable, SharedTable};
use crate::topic::{RETENTION_BYTES, RETENTION_MS};
use crate::upkeep::{Sweep, Upkeep, UpkeepSettings};
use crate::{Fetcher, Log, Position, Record, limits};

/// The topic of many slices. It has two partitions, which share its merged segments.
const BIG: TopicId = TopicId(u128::MAX);
/// Records of each of its slices.
const ROWS: u64 = 40;
/// What a merged record of a topic takes.
const ROW_BYTES: u64 = 100;
/// Merged segments of each other topic, a record each.
const OBJECTS: u64 = 10;
const WHOLE_SWEEP: &str = "upkeep, idle, its daily look at all";
const PART: &str = "a look at a hundred objects";
const LITTLE_MORE: &str = "retention by size, of little more";
const SWEEP: &str = "sweep of what was let go";
const NOW_MS: i64 = 1_790_000_000_000;
/// When the first slice of the big topic was appended; each further one a millisecond later.
const OLDEST_MS: i64 = NOW_MS - 26 * limits::HOUR_MS;
const RETENTION: i64 = 7 * 24 * limits::HOUR_MS;

/// How much there is.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// The checkpoint is the state as of this commit.
    commits: u64,
    /// Idle topics, each with [`OBJECTS`] merged segments.
    topics: u32,
    /// Merged slices of each partition of the big topic.
    slices: u64,
}

const SMALL: Size = Size { commits: 100, topics: 10, slices: 100 };
const LARGE: Size = Size { commits: 1_000_000, topics: 10_000, slices: 10_000 };

/// The machine's own, but for the time of day.
#[derive(Debug)]
struct Clock {
    now_ms: AtomicI64,
    own: SharedEnv,
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
    table: Arc<CountingTable>,
    objects: Arc<CountingStore>,
    store: Opened,
}

/// Requests to the objects and to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    objects: ObjectCounts,
    table: TableCounts,
}

impl Cost {
    fn requests(&self) -> (u64, u64) {
        (self.objects.requests(), self.table.requests())
    }
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(Clock { now_ms: AtomicI64::new(NOW_MS), own: SystemEnv::shared() });
        let env: SharedEnv = clock.clone();
        let table = Arc::new(CountingTable::new(Arc::new(MemoryTable::new().with_env(env.clone()))));
        let memory = Opened::memory(env.clone());
        let objects = Arc::new(CountingStore::new(memory.objects.store().clone()));
        let store =
            Opened { table: table.clone(), objects: Objects::new(objects.clone(), env), url: memory.url };
        Self { clock, table, objects, store }
    }

    async fn open(&self) -> Log {
        // Checkpoints are made where a test asks for them.
        let settings = Settings { checkpoint_commits: 0, ..Settings::default() };
        Log::with_store(self.store.clone(), self.clock.clone(), true, settings).await.unwrap()
    }

    async fn cost<T>(&self, work: impl Future<Output = T>) -> (T, Cost) {
        let (objects, table) = (self.objects.counts(), self.table.counts());
        let value = work.await;
        let objects = self.objects.counts().since(&objects);
        let table = self.table.counts().since(&table);
        (value, Cost { objects, table })
    }

    fn pass(&self, ms: i64) {
        self.clock.now_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// A log as it is after so many commits: stubs, a checkpoint and two commits behind it; index rows and merged segments, of
    /// which only those of `sampled` can be read.
    async fn filled(size: Size, sampled: &[u64]) -> Self {
        let world = Self::new();
        let table = &world.store.table;
        for slot in 1..=size.commits {
            put(table, Item { sk: slot, id: u128::from(slot), time_ms: 0, body: None, hint: String::new() })
                .await;
        }
        let view = view(size);
        let bytes = checkpoint::encode(&view);
        let checksum = checkpoint::checksum(&bytes[..bytes.len() - 8]);
        let name = CheckpointName { at: view.slot, era: 0, ulid: 1 };
        world.store.objects.put_new(&ObjectName::from(&name), bytes).await.unwrap();
        let named = [Action::Checkpoint(Checkpoint { name, checksum })];
        let behind = [(None, named), (Some(name), [Action::Level(codec::LEVEL)])];
        let mut prev = view.id;
        for ((checkpoint, actions), slot) in behind.into_iter().zip(size.commits + 1..) {
            let (id, time_ms) = (u128::from(slot), view.time_ms);
            let commit = Commit { prev, time_ms, checkpoint, actions: actions.to_vec() };
            let body = codec::encode(&commit, slot, id).unwrap();
            put(table, Item { sk: slot, id, time_ms, body: Some(body), hint: String::new() }).await;
            prev = id;
        }
        let log = world.open().await;
        for slice in 0..size.slices {
            big_slice(&log, slice, sampled.contains(&slice)).await;
        }
        for number in 0..size.topics {
            for place in 0..OBJECTS {
                let topic = TopicId(u128::from(number));
                let object = l1(topic, place, Span { position: 4, length: 4, crc: 0 });
                write_row(&log, object.clone(), range(0, place, place + 1, (0, 1))).await;
                let name = object.name(&name_of(topic));
                world.store.objects.put_new(&name, Bytes::from_static(b"a segment")).await.unwrap();
            }
        }
        world
    }
}

async fn put(table: &SharedTable, item: Item) {
    table.put_if_absent("0000/0000", &item).await.unwrap();
}

fn name_of(topic: TopicId) -> String {
    if topic == BIG { "big".to_owned() } else { format!("topic-{}", topic.0) }
}

/// All that is there is merged, and was committed two hours ago.
fn view(size: Size) -> View {
    let store =
        Store { format: STORE_FORMAT, store_id: 1, era: 0, table: "memory".to_owned(), created_ms: 0 };
    let mut view = View {
        slot: size.commits,
        id: u128::from(size.commits),
        time_ms: NOW_MS - 2 * limits::HOUR_MS,
        store: Some(store),
        level: codec::LEVEL,
        ..View::default()
    };
    let ids = (0..size.topics).map(|number| (TopicId(u128::from(number)), 1, OBJECTS));
    for (id, partitions, records) in ids.chain([(BIG, 2, size.slices * ROWS)]) {
        let oldest_ms = if id == BIG { OLDEST_MS } else { view.time_ms };
        let (next, indexed_to, bytes_running) = (records, records, records * ROW_BYTES);
        let partition = Partition { next, indexed_to, oldest_ms, bytes_running, ..Partition::default() };
        let topic = Topic {
            name: name_of(id),
            created_ms: 0,
            generation: 0,
            config: [(RETENTION_MS.to_owned(), RETENTION.to_string())].into(),
            partitions: vec![partition; partitions],
        };
        view.names.insert(topic.name.clone(), id);
        view.topics.insert(id, topic);
    }
    view
}

/// The `place`th merged segment of a topic. At most three lie in an hour, so that there is nothing to be rewritten.
fn l1(topic: TopicId, place: u64, footer: Span) -> L1Object {
    let object = ObjectRef { era: 0, ledger: LEDGER, drawn: 1, ulid: u128::from(place) + 1 };
    L1Object { object, hour: 490_000 + (place / 3) as u32, topic, footer }
}

fn range(partition: u32, base: u64, end: u64, groups: (u32, u32)) -> L1Range {
    let append_ms = NOW_MS - 2 * limits::HOUR_MS;
    L1Range {
        object: 0,
        partition,
        base,
        end,
        rows: end - base,
        groups,
        append_ms: (append_ms, append_ms),
        time_us_max: end as i64 - 1,
        bytes_running: end * ROW_BYTES,
        sum: RecordSum::default(),
    }
}

async fn write_row(log: &Log, object: L1Object, range: L1Range) {
    let row = IndexRow { number: 1, object, range };
    log.ledger().chain().write_rows(&row, false).await.unwrap();
}

/// A merged segment of the big topic with its rows; its file only if `readable`. Both partitions have a row group of their own.
async fn big_slice(log: &Log, slice: u64, readable: bool) {
    let (base, end) = (slice * ROWS, (slice + 1) * ROWS);
    let mut footer = Span { position: 4, length: 4, crc: 0 };
    if readable {
        let mut writer = MergedWriter::new("big", BIG, Compression::None, false).unwrap();
        for partition in 0..2 {
            let (append_ms, time_type, rows) = (NOW_MS, TimestampType::CreateTime, rows(base));
            writer.push(MergedPart { partition, base, append_ms, time_type, rows }).unwrap();
        }
        let segment = writer.finish().unwrap();
        assert_eq!(segment.ranges.iter().map(|range| range.groups).collect::<Vec<_>>(), [(0, 1), (1, 1)]);
        footer = segment.footer;
        log.store().objects.put_new(&l1(BIG, slice, footer).name("big"), segment.file()).await.unwrap();
    }
    let append_ms = OLDEST_MS + slice as i64;
    for partition in 0..2 {
        let range =
            L1Range { append_ms: (append_ms, append_ms), ..range(partition, base, end, (partition, 1)) };
        write_row(log, l1(BIG, slice, footer), range).await;
    }
}

/// Records whose timestamp is their offset.
fn rows(base: u64) -> Rows {
    let mut rows = RowsBuilder::new();
    let value = vec![b'x'; 2 * limits::ROW_GROUP_OWN_BYTES / ROWS as usize];
    for offset in base..base + ROWS {
        rows.push(offset as i64, None, Some(&value), &[]).unwrap();
    }
    rows.finish()
}

async fn send(log: &Log) {
    let producer = log.producer().inline_bytes_max(0).linger_ms(1_000).build().unwrap();
    producer.enqueue("big", Some(0), Record::value("a line"), None).await.unwrap();
    producer.close().await.unwrap();
}

async fn fetch(fetcher: &Fetcher, partition: u32, offset: u64) {
    let limits = FetchLimits { records_max: 1, ..FetchLimits::default() };
    let fetched = fetcher.fetch("big", partition, offset, limits).await.unwrap();
    let found: Vec<_> = fetched.records().map(|record| (record.offset, record.timestamp_us)).collect();
    assert_eq!(found, [(offset, offset as i64)]);
}

/// What each verb costs in a log of this size.
async fn costs(size: Size) -> Vec<(&'static str, Cost)> {
    let sampled = [0, 1, size.slices / 3, size.slices / 2, size.slices - 1];
    let world = World::filled(size, &sampled).await;
    let mut costs = Vec::new();
    let (log, cost) = world.cost(world.open()).await;
    costs.push(("cold start", cost));
    let (names, cost) = world.cost(async { log.admin().topics().await.unwrap() }).await;
    assert_eq!(names.len(), size.topics as usize + 1);
    costs.push(("topics list", cost));

    let fetcher = log.fetcher();
    for slice in sampled {
        let offset = slice * ROWS + 7;
        let ((), cold) = world.cost(fetch(&fetcher, 1, offset)).await;
        assert_eq!((cold.objects.gets, cold.requests()), (2, (2, 1)), "offset {offset}");
        let ((), warm) = world.cost(fetch(&fetcher, 0, offset)).await;
        assert_eq!((warm.objects.gets, warm.table.queries), (1, 1), "offset {offset}");
        assert_eq!(warm.requests(), (1, 1), "offset {offset}");
        if slice == 0 {
            costs.extend([("fetch of any one offset", cold), ("the same, footer cached", warm)]);
        }
    }
    let mut most: Option<Cost> = None;
    for slice in sampled {
        let at = slice * ROWS + 7;
        let look_up = async { fetcher.offset_at("big", 0, at as i64).await.unwrap() };
        let (found, cost) = world.cost(look_up).await;
        assert_eq!(found, Some(at));
        most = most.filter(|most| most.requests() >= cost.requests()).or(Some(cost));
    }
    costs.extend(most.map(|cost| ("time look-up, at most", cost)));

    let upkeep = log.upkeep(UpkeepSettings::default());
    let ((), cost) = world.cost(idle(&upkeep)).await;
    costs.push(("upkeep, a process's first run", cost));
    let pauses = [
        ("upkeep, idle, seconds later", 20_000),
        ("upkeep, idle, once a sweep is due", limits::SWEEP_EVERY_MS),
        (WHOLE_SWEEP, limits::WHOLE_SWEEP_FIRST_MS),
        ("upkeep, idle, hours later", 2 * limits::HOUR_MS),
    ];
    for (what, pause_ms) in pauses {
        world.pass(pause_ms);
        if what == WHOLE_SWEEP {
            // By a process that has no time for more.
            let settings = UpkeepSettings { list_page: 100, ..UpkeepSettings::default() };
            let hurried = log.upkeep(settings).within(Duration::ZERO);
            let part = async { hurried.sweep(Sweep::Whole, |_| {}).await.unwrap() };
            let (swept, cost) = world.cost(part).await;
            assert!(swept.listed < 300, "{swept:?}");
            costs.push((PART, cost));
        }
        let ((), cost) = world.cost(idle(&upkeep)).await;
        costs.push((what, cost));
    }

    send(&log).await;
    let ((), cost) = world.cost(send(&log)).await;
    costs.push(("append of a segment", cost));
    // Strip goes to the newest checkpoint but one.
    log.ledger().checkpoint().await.unwrap();
    log.ledger().checkpoint().await.unwrap();
    let (named, cost) = world.cost(async { log.ledger().checkpoint().await.unwrap() }).await;
    assert!(named.is_some());
    costs.push(("checkpoint", cost));
    let fresh = world.open().await;
    let (stripped, cost) = world.cost(async { fresh.ledger().strip().await }).await;
    stripped.unwrap();
    costs.push(("strip by another process", cost));

    let bytes = size.slices * ROWS * ROW_BYTES;
    for (what, keeps, starts) in [
        ("retention by size, of less", bytes + 1, vec![]),
        (LITTLE_MORE, bytes - 1, vec![]),
        ("retention by size, of three slices", bytes - 3 * ROWS * ROW_BYTES, vec![3 * ROWS; 2]),
    ] {
        let limit = [(RETENTION_BYTES.to_owned(), Some(keeps.to_string()))];
        log.admin().alter_topic("big", None, &limit).await.unwrap();
        let fresh = world.open().await.upkeep(UpkeepSettings::default());
        let (overdue, cost) = world.cost(async { fresh.overdue().await.unwrap() }).await;
        assert_eq!(overdue.trims.iter().map(|trim| trim.to).collect::<Vec<_>>(), starts, "{what}");
        costs.push((what, cost));
        if what == LITTLE_MORE {
            let (_, cost) = world.cost(async { fresh.overdue().await.unwrap() }).await;
            costs.push(("the same again", cost));
        }
    }
    let (merged, cost) = world.cost(async { upkeep.merge(true, |_, _| {}).await.unwrap() }).await;
    assert_eq!(merged.records, 2);
    costs.push(("merge of two segments", cost));
    log.admin().alter_topic("big", None, &[(RETENTION_BYTES.to_owned(), None)]).await.unwrap();
    // Three of its slices are too old.
    world.clock.now_ms.store(OLDEST_MS + RETENTION + 3, Ordering::SeqCst);
    let trim = async {
        let overdue = upkeep.overdue().await.unwrap();
        assert_eq!(overdue.trims.iter().map(|trim| trim.to).collect::<Vec<_>>(), [3 * ROWS; 2]);
        upkeep.trim(&overdue.trims).await.unwrap();
        upkeep.trim_rows().await.unwrap();
    };
    let ((), cost) = world.cost(trim).await;
    costs.push(("retention by age, of three slices", cost));
    let fresh = world.open().await.upkeep(UpkeepSettings::default());
    let (overdue, cost) = world.cost(async { fresh.overdue().await.unwrap() }).await;
    assert_eq!(overdue.trims, []);
    costs.push(("the same by another process, then", cost));
    world.pass(limits::READ_LAG_MS as i64);
    let (deleted, cost) = world.cost(async { upkeep.trim_rows().await.unwrap() }).await;
    assert_eq!(deleted, 6);
    costs.push(("their rows, an hour later", cost));
    let (swept, cost) = world.cost(async { upkeep.sweep(Sweep::LetGo, |_| {}).await.unwrap() }).await;
    assert_eq!((swept.objects, swept.listed), (7, 4), "their segments, what was merged, and a checkpoint");
    costs.push((SWEEP, cost));
    let delete =
        async { log.admin().delete_records("big", Some(&[1]), Position::Offset(5 * ROWS)).await.unwrap() };
    let (starts, cost) = world.cost(delete).await;
    assert_eq!(starts, [(1, 5 * ROWS)]);
    costs.push(("delete-records", cost));
    costs
}

/// A run that finds nothing to be done.
async fn idle(upkeep: &Upkeep) {
    let run = upkeep.run(|_| {}).await.unwrap();
    assert_eq!((run.merged.folds, run.rewritten.objects, run.rows), (0, 0, 0));
    assert_eq!((run.trimmed, run.held), (vec![], vec![]));
    assert_eq!(run.swept.map_or(0, |swept| swept.objects), 0);
}

/// Their hour goes on, so that each may have to be rewritten yet.
#[tokio::test]
async fn a_thousand_idle_topics_cost_one_read_a_run() {
    const TOPICS: u32 = 1_000;
    let world = World::new();
    let log = world.open().await;
    let retention = [(RETENTION_MS.to_owned(), RETENTION.to_string())];
    let producer = log.producer().build().unwrap();
    for topic in 0..TOPICS {
        let name = format!("topic-{topic}");
        log.admin().create_topic(&name, 1, &retention).await.unwrap();
        producer.enqueue(&name, Some(0), Record::value("a line"), None).await.unwrap();
    }
    producer.close().await.unwrap();
    let upkeep = log.upkeep(UpkeepSettings::default());
    world.pass(limits::MERGE_AGE_MS_MAX);
    let run = upkeep.run(|_| {}).await.unwrap();
    assert_eq!((run.merged.records, run.merged.objects), (u64::from(TOPICS), u64::from(TOPICS)));
    // Sweeps until all is swept that was merged, and looks at what is oldest in each topic.
    world.pass(2 * limits::SWEEP_EVERY_MS);
    upkeep.run(|_| {}).await.unwrap();
    world.pass(20_000);
    for _ in 0..3 {
        let ((), cost) = world.cost(idle(&upkeep)).await;
        println!("an idle run of upkeep over {TOPICS} topics: {cost:?}");
        assert_eq!(cost.requests(), (0, 1));
        world.pass(20_000);
    }
}

#[tokio::test]
async fn what_a_verb_costs_does_not_grow_with_the_log() {
    let (small, large) = (costs(SMALL).await, costs(LARGE).await);
    let size = |size: Size| {
        let Size { commits, topics, slices } = size;
        format!(
            "{commits} commits, {topics} topics, {slices} slices, {} objects",
            u64::from(topics) * OBJECTS
        )
    };
    println!(
        "requests to objects + table, table's write and half read units; left: {}; right: {}",
        size(SMALL),
        size(LARGE)
    );
    let show = |Cost { objects, table }: &Cost| {
        format!(
            "{:>5} + {:<5} {:>4} W {:>6} ½R",
            objects.requests(),
            table.requests(),
            table.write_units,
            table.read_half_units
        )
    };
    for ((what, small), (_, large)) in small.iter().zip(&large) {
        println!("{what:<34} {}   {}", show(small), show(large));
    }
    for ((what, small), (_, large)) in small.iter().zip(&large) {
        let (objects, table) = large.requests();
        match *what {
            "time look-up, at most" => {
                let halvings = u64::from(LARGE.slices.ilog2()) + 1;
                assert!(table <= 1 + halvings && objects <= 2, "{what}: {large:?}");
            }
            SWEEP => {
                // Of offsets, where the hour is at the front; then a page of each partition.
                let halvings = u64::from((LARGE.slices * ROWS).ilog2()) + 1;
                assert!(table <= 2 * (halvings + 1) + 4 && objects <= 2, "{what}: {large:?}");
            }
            WHOLE_SWEEP => {
                assert!(table <= u64::from(LARGE.topics) + 100 && objects <= 3, "{what}: {large:?}");
            }
            PART => {
                // Ten topics, or the rows of the big one.
                let pages = 2 * (LARGE.slices / limits::PAGE_ITEMS as u64 + 3);
                assert!(table <= 2 + 11 + pages && objects <= 4, "{what}: {large:?}");
            }
            _ if what.starts_with("upkeep, idle") || *what == "the same again" => {
                assert_eq!(large.requests(), (0, 1), "{what}: {large:?}");
            }
            _ => assert_eq!(small.requests(), large.requests(), "{what}"),
        }
    }
}
