//! DESIGN §9, counted on the requests that AWS would get: the DynamoDB adapter against Amazon's own engine, which says what
//! each request consumed, and the S3 adapter against the project's S3 server, which logs what it was asked. With 10,000
//! partitions in the store. Our own counters must say the same, to the unit: budgets and bills are made of them elsewhere.
//!
//! Ignored unless asked for, since it needs Java and npm: `./test counted`.
#![allow(clippy::disallowed_methods, reason = "real servers in real time")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tidelog_budgets::Times;
use tidelog_budgets::meter::{Bill, Meter};
use tidelog_budgets::virtual_time::{Draws, VirtualEnv};
use tidelog_budgets::world::Process;
use tidelog_core::counting::{ObjectCounts, TableCounts};
use tidelog_core::env::{SharedEnv, SystemEnv};
use tidelog_core::fetch::FetchLimits;
use tidelog_core::store::aws::Access;
use tidelog_core::store::{Place, S3Url, StoreUrl};
use tidelog_core::{Compression, Log, Position, Record, UpkeepSettings, prices};
use tidelog_s3server::{Server as S3Server, Verb};
use tidelog_servers::{KEY_ID, REGION, SECRET, Server, dynamodb};

const TOPICS: u32 = 10;
const PARTITIONS: u32 = 1_000;
/// What a range takes in a fold, at most.
const FOLD_RANGE_BYTES: u64 = 128;

/// The servers, which count, and the way to them.
struct Aws {
    url: S3Url,
    meter: Meter,
    s3: S3Server,
    _dynamodb: Server,
}

/// What an operation cost, as both sides saw it.
struct Cost {
    objects: ObjectCounts,
    table: TableCounts,
}

impl Aws {
    async fn start() -> Self {
        let dynamodb = dynamodb(None).unwrap();
        let address: SocketAddr = dynamodb.url().trim_start_matches("http://").parse().unwrap();
        let meter = Meter::start(address).await.unwrap();
        let s3 = S3Server::start("bucket", 1).await.unwrap();
        let url = S3Url {
            bucket: "bucket".to_owned(),
            table: "log".to_owned(),
            region: Some(REGION.to_owned()),
            endpoint_dynamodb: Some(meter.endpoint()),
            endpoint_s3: Some(s3.endpoint()),
            ..S3Url::default()
        };
        let aws = Self { url, meter, s3, _dynamodb: dynamodb };
        aws.access(SystemEnv::shared()).table().create().await.unwrap();
        aws
    }

    fn access(&self, env: SharedEnv) -> Access {
        Access::with_keys(&self.url, KEY_ID, SECRET, env).unwrap()
    }

    async fn process(&self, env: SharedEnv) -> Process {
        let access = self.access(env.clone());
        let objects = access.objects().unwrap().store().clone();
        let url = StoreUrl { place: Place::S3(self.url.clone()), era: 0 };
        Process::open(env, Arc::new(access.table()), objects, url, false).await
    }

    /// The topics, and a checkpoint that holds them.
    async fn filled(&self) -> Process {
        let process = self.process(SystemEnv::shared()).await;
        for topic in 0..TOPICS {
            process.log.admin().create_topic(&format!("topic-{topic}"), PARTITIONS, &[]).await.unwrap();
        }
        process.log.ledger().checkpoint().await.unwrap();
        process
    }

    /// What `work`, the only one at it, costs; printed, and compared with what the servers saw.
    async fn cost<T>(&self, what: &str, process: &Process, work: impl Future<Output = T>) -> (T, Cost) {
        self.meter.take();
        self.s3.forget();
        let (done, objects, table) = process.cost(work).await;
        let (bill, seen) = (self.meter.take(), self.s3.counts());
        print(what, &objects, &table);
        let of = |verb| seen.get(&verb).copied().unwrap_or_default();
        assert_eq!(
            (of(Verb::Put), of(Verb::Get), of(Verb::Head)),
            (objects.puts, objects.gets, objects.heads)
        );
        assert_eq!(seen.values().sum::<u64>(), objects.requests(), "{seen:?}");
        same(&bill, &table);
        (done, Cost { objects, table })
    }
}

/// DynamoDB's own count is ours.
fn same(bill: &Bill, table: &TableCounts) {
    let asked = (bill.of("PutItem"), bill.of("GetItem"), bill.of("Query"), bill.all());
    assert_eq!(asked, (table.puts, table.gets, table.queries, table.requests()), "{bill:?}");
    assert_eq!(bill.refused, table.conflicts, "{bill:?}");
    if bill.refused == 0 {
        assert_eq!(bill.write_units, table.write_units as f64, "{bill:?} {table:?}");
    }
    let read = (bill.read_units + bill.empty as f64) * 2.0;
    assert_eq!(read, table.read_half_units as f64, "{bill:?} {table:?}");
}

fn print(what: &str, objects: &ObjectCounts, table: &TableCounts) {
    println!(
        "{what:<38} {} PUT {} GET {} other | {} puts ({} lost) {} reads | {} W {} R | ${:.2} a million (prices of {})",
        objects.puts,
        objects.gets,
        objects.requests() - objects.puts - objects.gets,
        table.puts,
        table.conflicts,
        table.gets + table.queries,
        table.write_units,
        table.read_half_units as f64 / 2.0,
        prices::dollars(objects, table) * 1e6,
        prices::READ,
    );
}

/// A record to each of so many partitions, as one flush.
async fn send(log: &Log, partitions: u32, bytes: usize) {
    let producer = log.producer().linger_ms(1_000).compression(Compression::None).build().unwrap();
    for partition in 0..partitions {
        let record = Record::value(vec![b'x'; bytes]);
        producer.enqueue("topic-0", Some(partition), record, None).await.unwrap();
    }
    producer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs DynamoDB Local: ./test counted"]
async fn every_line_of_the_budget() {
    let aws = Aws::start().await;
    let process = aws.filled().await;
    let log = &process.log;
    flushes(&aws, &process).await;
    let (cold, cost) = aws_cold(&aws, log).await;
    assert!(cost.objects.gets <= 1 && cost.objects.requests() <= 1);
    assert_eq!((cost.table.queries, cost.table.requests()), (2, 2));
    fetches(&aws, &process, &cold).await;
    following(&aws, &process).await;
    merges(&aws, &process).await;
}

async fn flushes(aws: &Aws, process: &Process) {
    let log = &process.log;
    for (what, slices, bytes, puts, units) in [
        ("flush, 1 slice", 1, 5_000, 1, 1),
        ("flush, 256 slices", 256, 100, 1, 32),
        ("flush, 300 slices", 300, 100, 1, 32),
        // One commit for each 300, of the same object.
        ("flush, 900 slices", 900, 100, 3, 96),
    ] {
        // A look whether the table was put back is due each ten seconds; it shall not fall into what is counted.
        log.admin().topics().await.unwrap();
        let ((), cost) = aws.cost(what, process, send(log, slices, bytes)).await;
        assert_eq!((cost.objects.puts, cost.objects.requests()), (1, 1), "{what}");
        assert_eq!((cost.table.puts, cost.table.requests()), (puts, puts), "a lone writer needs no look");
        assert!(cost.table.write_units <= units, "{what}: {} W", cost.table.write_units);
    }
    for bytes in [100, 1_000, 3_800] {
        log.admin().topics().await.unwrap();
        let what = format!("small batch, {bytes} bytes");
        let ((), cost) = aws.cost(&what, process, send(log, 1, bytes)).await;
        assert_eq!((cost.objects.requests(), cost.table.puts, cost.table.requests()), (0, 1, 1), "{what}");
        assert!(cost.table.write_units <= 5, "{what}: {} W", cost.table.write_units);
    }
}

/// A process begins: counted from its first request on.
async fn aws_cold(aws: &Aws, log: &Log) -> (Process, Cost) {
    aws.meter.take();
    aws.s3.forget();
    let cold = aws.process(SystemEnv::shared()).await;
    let (objects, table) = cold.counts();
    print("cold start, 10,000 partitions", &objects, &table);
    same(&aws.meter.take(), &table);
    assert_eq!(cold.log.ledger().chain_slot(), log.ledger().chain_slot());
    (cold, Cost { objects, table })
}

async fn fetches(aws: &Aws, process: &Process, reader: &Process) {
    // Row groups of their own, in an object that is too large to be read whole.
    send(&process.log, 32, 100_000).await;
    let fetcher = reader.log.fetcher();
    let limits = FetchLimits::default();
    let at = async |partition| fetcher.watermarks("topic-0", partition).await.unwrap().1 - 1;
    let (offsets, cost) = aws.cost("look at a partition's end", reader, at(0)).await;
    assert!(cost.table.requests() <= 1);
    let first = fetcher.fetch("topic-0", 0, offsets, limits);
    let (first, cost) = aws.cost("fetch of a range, cold footer", reader, first).await;
    assert!(first.unwrap().runs.len() == 1 && cost.objects.gets <= 2);
    let last = at(1).await;
    let second = fetcher.fetch("topic-0", 1, last, limits);
    let (second, cost) = aws.cost("fetch of a range, warm footer", reader, second).await;
    assert_eq!(second.unwrap().runs.len(), 1);
    assert!(cost.objects.requests() <= 1 && cost.table.requests() <= 1);
    let again = fetcher.fetch("topic-0", 1, last, limits);
    let (_, cost) = aws.cost("the same again", reader, again).await;
    assert_eq!((cost.objects.requests(), cost.table.requests()), (0, 0));
}

/// k segments: k GETs and a PUT an output, two puts to the table and a write unit a row; and what that is beside their ingest.
async fn merges(aws: &Aws, process: &Process) {
    const SEGMENTS: u64 = 20;
    let upkeep = process.log.upkeep(UpkeepSettings::default());
    upkeep.merge(true, |_, _| {}).await.unwrap();
    for partitions in [1, 100] {
        let ingest = async {
            for _ in 0..SEGMENTS {
                send(&process.log, partitions, 5_000).await;
            }
        };
        let what = format!("{SEGMENTS} flushes, {partitions} slices each");
        let ((), ingest) = aws.cost(&what, process, ingest).await;
        let what = format!("merge of {SEGMENTS} segments, {partitions} rows");
        let (merged, cost) = aws.cost(&what, process, upkeep.merge(true, |_, _| {})).await;
        let merged = merged.unwrap();
        assert_eq!((merged.slices, merged.folds), (SEGMENTS * u64::from(partitions), 1));
        assert!(merged.objects <= 2, "one, or two where an hour ends meanwhile");
        assert!(cost.objects.gets <= SEGMENTS && cost.objects.puts == merged.objects, "{what}");
        assert_eq!(cost.objects.requests(), cost.objects.gets + cost.objects.puts, "{what}");
        let rows = merged.rows;
        assert!((u64::from(partitions)..=2 * u64::from(partitions)).contains(&rows));
        // The fold, `Indexed`, and the rows. The look is one: is what I know the newest?
        assert_eq!((cost.table.puts, cost.table.replaces, cost.table.deletes), (2 + rows, 0, 0), "{what}");
        assert!(cost.table.gets + cost.table.queries <= 1, "{what}: {:?}", cost.table);
        let of_fold = 1 + u64::from(partitions) * FOLD_RANGE_BYTES / 1_024;
        assert!(cost.table.write_units <= 1 + of_fold + rows, "{what}: {} W", cost.table.write_units);
        let dollars = |cost: &Cost| prices::dollars(&cost.objects, &cost.table);
        println!("  merge beside its ingest, dollars: {:.2}", dollars(&cost) / dollars(&ingest));
    }
}

async fn following(aws: &Aws, process: &Process) {
    let ((), cost) = aws.cost("idle, 2 s", process, tokio::time::sleep(Duration::from_secs(2))).await;
    assert_eq!((cost.objects.requests(), cost.table.requests()), (0, 0));
    let mut consumer = process.log.consumer("topic-0").from(Position::End).build().await.unwrap();
    let mut wait = async |seconds| {
        let waited = tokio::time::timeout(Duration::from_secs(seconds), consumer.next_message()).await;
        assert!(waited.is_err(), "{waited:?}");
    };
    // Polls slow down within four seconds of silence.
    wait(5).await;
    let ((), cost) = aws.cost("following 1,000 idle partitions, 5 s", process, wait(5)).await;
    assert_eq!((cost.objects.requests(), cost.table.puts), (0, 0));
    // The one that was asked for before may be answered within.
    assert!(cost.table.requests() <= 6 && cost.table.read_half_units <= 12);
}

/// Nothing is asked of real adapters in an hour, which is skipped by pausing the process's clock.
#[test]
#[ignore = "needs DynamoDB Local: ./test counted"]
fn an_idle_hour_asks_nothing() {
    let servers = tokio::runtime::Runtime::new().unwrap();
    let aws = servers.block_on(Aws::start());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let now_ms = SystemEnv::shared().now_ms();
        let process = aws.process(VirtualEnv::since(tokio::time::Instant::now(), now_ms, 1)).await;
        process.log.admin().create_topic("topic-0", PARTITIONS, &[]).await.unwrap();
        let producer = process.log.producer().build().unwrap();
        producer.send("topic-0", Record::value(vec![b'x'; 5_000])).await.unwrap();
        tokio::time::pause();
        let hour = tokio::time::sleep(Duration::from_secs(3_600));
        let ((), cost) = aws.cost("idle, a virtual hour", &process, hour).await;
        assert_eq!((cost.objects.requests(), cost.table.requests()), (0, 0));
    });
}

/// The bound on puts is 1.3 where a request takes 5 ms; a slower table lets more of them meet.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs DynamoDB Local: ./test counted"]
async fn eight_writers_lose_few_puts() {
    const WRITERS: u64 = 8;
    let aws = Aws::start().await;
    let mut processes = vec![aws.filled().await];
    while processes.len() < WRITERS as usize {
        processes.push(aws.process(SystemEnv::shared()).await);
    }
    let before = join_all(processes.iter().map(async |process| process.counts())).await;
    aws.meter.take();
    let sending = processes.iter().zip(1..).map(async |(process, seed)| {
        let producer = process.log.producer().linger_ms(0).build().unwrap();
        let (draws, began, mut flushes, mut times) = (Draws::new(seed), Instant::now(), 0, Vec::new());
        while began.elapsed() < Duration::from_secs(10) {
            tokio::time::sleep(draws.gap(50.0 / WRITERS as f64)).await;
            let sent = Instant::now();
            producer.send("topic-0", Record::value(vec![b'x'; 5_000])).await.unwrap();
            (flushes, _) = (flushes + 1, times.push(sent.elapsed()));
        }
        (flushes, times)
    });
    let sent = join_all(sending).await;
    let flushes: u64 = sent.iter().map(|(flushes, _)| flushes).sum();
    let acks = Times::new(sent.into_iter().flat_map(|(_, times)| times).collect());
    let (mut objects, mut table) = (ObjectCounts::default(), TableCounts::default());
    for (process, before) in processes.iter().zip(before) {
        let (o, t) = (process.counts().0.since(&before.0), process.counts().1.since(&before.1));
        objects.puts += o.puts;
        table.puts += t.puts;
        table.conflicts += t.conflicts;
        table.queries += t.queries;
        table.write_units += t.write_units;
        table.read_half_units += t.read_half_units;
    }
    print(&format!("{flushes} flushes of 8 writers"), &objects, &table);
    let bill = aws.meter.take();
    assert_eq!(
        (bill.of("PutItem"), bill.of("Query"), bill.refused),
        (table.puts, table.queries, table.conflicts)
    );
    let ratio = table.puts as f64 / flushes as f64;
    // An ack here is a PUT to the own server, a query and a put.
    let slow = (acks.mean_ms() / 10.0).max(1.0);
    println!("puts a flush {ratio:.2}, acks {acks}, mean {:.1} ms", acks.mean_ms());
    assert!(ratio <= 1.0 + 0.3 * slow, "{ratio:.2} puts a flush where acks take {:.1} ms", acks.mean_ms());
}
