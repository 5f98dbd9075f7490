//! The log on S3's latencies, in real time: the S3 server of the tests on a thread of its own (PUT 50 ms, GET 20 ms; log-normal,
//! sigma 0.4, as the peers were measured), a table in memory that takes 5 ms a request.
//!
//! `cargo run --release -p tidelog-bench --bin tidelog-bench -- s3 [--lines FILE] [--rounds N] [--records N]`
//!
//! | line | what |
//! |---|---|
//! | acks | one record after the other; and 1,000 records a second, as the peers were paced |
//! | flat out | `records` of 1 KiB, as fast as the buffer takes them, until the last is acked; one partition, and 256 |
//! | beside a merge | acks at half of flat out, with merges of the same topic running all the while in the same process, and without |
//! | catch-up | a new process reads all of it; against ranged GETs of the same bytes, one after the other |
//!
//! The server works on the same two cores. The peers are quoted, not run: see their lines.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::ObjectStore;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tidelog_bench::options::Options;
use tidelog_bench::targets::{self, Target};
use tidelog_bench::{Fallible, clock, lines, median};
use tidelog_budgets::Times;
use tidelog_budgets::virtual_time::{Delay, SlowTable};
use tidelog_budgets::world::Process;
use tidelog_core::env::SystemEnv;
use tidelog_core::fetch::FetchLimits;
use tidelog_core::ledger::view::{Place as SlicePlace, View};
use tidelog_core::objects::ObjectName;
use tidelog_core::store::aws::Access;
use tidelog_core::store::{Place, S3Url, StoreUrl};
use tidelog_core::table::{MemoryTable, SharedTable, Table};
use tidelog_core::upkeep::UpkeepSettings;
use tidelog_core::{Compression, Fetcher, Record, limits, prices};
use tidelog_s3server::{ACCESS_KEY, Latency, SECRET_KEY, Server, Verb};
use tokio::runtime::Runtime;

const RECORD_BYTES: usize = 1_024;

/// What the same kind of server gave others on 22 November 2026, two cores, PUT 50 and GET 20 ms, sigma 0.4.
const PEERS: &str = "\
peers, quoted from their runs of 22 November 2026 and not run again (same latencies, a server of the same crate):
  s2-lite 0.43.4   paced acks p50 93 ms, p99 180 ms; one stream flat out 35 to 37 MB/s a client
  nisshi 0.8.1     paced acks p50 280 ms, p99 397 ms; one partition 8.5 MB/s a client; 256 partitions 0.13 MB/s";

/// The servers, and what is sent to them.
struct Bench {
    runtime: Runtime,
    /// Lives as long as the bench; the server is on it.
    _servers: Runtime,
    server: Server,
    table: SharedTable,
    values: Vec<Bytes>,
}

pub fn run(options: &Options) -> Fallible<()> {
    let bench = Bench::start(options)?;
    bench.acks()?;
    bench.flat_out(options)?;
    bench.beside_merge(options)?;
    bench.catch_up(options)?;
    println!("{PEERS}");
    Ok(())
}

/// The acks beside a merge alone.
pub fn beside_merge(options: &Options) -> Fallible<()> {
    Bench::start(options)?.beside_merge(options)
}

/// Lines put together to values of one size.
fn values(lines: Vec<Vec<u8>>) -> Vec<Bytes> {
    let all = Bytes::from(lines.join(&b'\n'));
    (0..all.len() / RECORD_BYTES).map(|n| all.slice(n * RECORD_BYTES..(n + 1) * RECORD_BYTES)).collect()
}

impl Bench {
    fn start(options: &Options) -> Fallible<Self> {
        let servers = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let server = servers.block_on(Server::start("bucket", 1))?;
        let latency = |median_ms| Latency::LogNormal { median_ms, sigma: 0.4 };
        server.set_latency(Verb::Put, latency(50.0));
        server.set_latency(Verb::Get, latency(20.0));
        server.set_latency(Verb::Head, latency(20.0));
        let values = values(lines::read(options.lines.as_deref())?);
        println!("{} records of {RECORD_BYTES} bytes, {} rounds", options.records, options.rounds);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        Ok(Self { runtime, _servers: servers, server, table: Arc::new(MemoryTable::new()), values })
    }

    /// The bucket, and a table as far away as DynamoDB.
    fn stores(&self) -> Fallible<(SharedTable, Arc<dyn ObjectStore>, StoreUrl)> {
        let url = S3Url {
            bucket: "bucket".to_owned(),
            table: "log".to_owned(),
            region: Some("us-east-1".to_owned()),
            endpoint_s3: Some(self.server.endpoint()),
            ..S3Url::default()
        };
        let access = Access::with_keys(&url, ACCESS_KEY, SECRET_KEY, SystemEnv::shared())?;
        let table = Arc::new(SlowTable::new(self.table.clone(), Delay::new(5.0, 0.0, 1)));
        Ok((table, access.objects()?.store().clone(), StoreUrl { place: Place::S3(url), era: 0 }))
    }

    fn process(&self) -> Fallible<Process> {
        let (table, objects, url) = self.stores()?;
        Ok(self.runtime.block_on(Process::open(SystemEnv::shared(), table, objects, url, true)))
    }

    fn topic(&self, process: &Process, name: &str, partitions: u32) -> Fallible<()> {
        self.runtime.block_on(process.log.admin().create_topic(name, partitions, &[]))?;
        Ok(())
    }

    fn record(&self, n: usize) -> Record {
        Record { value: Some(self.values[n % self.values.len()].clone()), ..Record::default() }
    }

    fn acks(&self) -> Fallible<()> {
        let process = self.process()?;
        // Producers start tasks of their own.
        let _inside = self.runtime.enter();
        self.topic(&process, "acks", 1)?;
        let (_, objects, _) = self.stores()?;
        let slow = SlowTable::new(Arc::new(MemoryTable::new()), Delay::new(5.0, 0.0, 1));
        // No record is small enough for its commit.
        let producer = || process.log.producer().inline_bytes_max(0).build();
        let alone = producer()?;
        let (mut ours, mut floor) = (Vec::new(), Vec::new());
        for n in 0..200 {
            ours.push(clock(|| self.runtime.block_on(alone.send("acks", self.record(n)))));
            let path = Path::from(format!("floor/{n}"));
            floor.push(clock(|| {
                self.runtime.block_on(async {
                    let put = objects.put(&path, vec![0; 2_048].into()).await;
                    (put, slow.get("floor", 1, tidelog_core::table::Consistency::Strong).await)
                })
            }));
        }
        let (ours, floor) = (Times::new(ours), Times::new(floor));
        println!("acks, one after the other, linger 5 ms: {ours}; a PUT and a table request: {floor}");
        targets::check(
            "ack p50 above the floor's, linger 5 ms, ms",
            ours.ms(0.5) - floor.ms(0.5),
            Target::AtMost(7.0),
        );
        let paced = self.runtime.block_on(self.paced(producer()?));
        println!("acks, 1,000 records a second, linger 5 ms: {paced}");
        Ok(())
    }

    #[allow(clippy::disallowed_methods, reason = "a benchmark looks at the clock")]
    async fn paced(&self, producer: tidelog_core::Producer) -> Times {
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        let mut sent = Vec::new();
        for n in 0..6_000 {
            ticks.tick().await;
            let began = std::time::Instant::now();
            let delivery = producer.enqueue("acks", None, self.record(n), None).await.expect("is accepted");
            sent.push(tokio::spawn(async move { delivery.wait().await.map(|_| began.elapsed()) }));
        }
        let times = futures::future::join_all(sent).await;
        Times::new(times.into_iter().map(|time| time.expect("runs").expect("is acked")).collect())
    }

    fn flat_out(&self, options: &Options) -> Fallible<()> {
        for (compression, partitions, target) in [
            (Compression::None, 1, Some(100.0)),
            (Compression::Lz4, 1, Some(100.0)),
            (Compression::None, 256, None),
        ] {
            let mut speeds = Vec::new();
            for round in 0..options.rounds {
                let process = self.process()?;
                let topic = format!("{compression}-{partitions}-{round}");
                self.topic(&process, &topic, partitions)?;
                let before = process.counts();
                let took = clock(|| {
                    self.runtime.block_on(self.send(
                        &process,
                        &topic,
                        compression,
                        partitions,
                        options.records,
                    ))
                });
                let mib = (options.records * RECORD_BYTES) as f64 / f64::from(1 << 20);
                speeds.push(mib / took.as_secs_f64());
                let (objects, table) =
                    (process.counts().0.since(&before.0), process.counts().1.since(&before.1));
                println!(
                    "flat out, {compression}, {partitions} partitions: {:.0} MiB/s; {:.2} requests a MiB, ${:.4} a GiB ({})",
                    speeds[round],
                    (objects.requests() + table.requests()) as f64 / mib,
                    prices::dollars(&objects, &table) / mib * 1_024.0,
                    prices::READ,
                );
            }
            let what = format!("MiB/s flat out, {compression}, {partitions} partitions");
            match target {
                Some(least) => targets::check(&what, median(speeds), Target::AtLeast(least)),
                None => targets::check(&what, median(speeds), Target::AtLeast(36.0)),
            }
        }
        Ok(())
    }

    /// Until the last is acked. What the buffer does not take waits.
    async fn send(
        &self,
        process: &Process,
        topic: &str,
        compression: Compression,
        partitions: u32,
        records: usize,
    ) {
        let producer = process.log.producer().compression(compression).build().expect("builds");
        for n in 0..records {
            let partition = Some(n as u32 % partitions);
            drop(producer.enqueue(topic, partition, self.record(n), None).await.expect("is accepted"));
        }
        producer.close().await.expect("is acked");
        let appended = process.totals.of(tidelog_core::metrics::Metric::RecordsAppended).sum;
        assert_eq!(appended, records as u64, "every record is in the log");
    }

    /// Both of a pair follow each other, so that what the machine does besides hits them alike.
    fn beside_merge(&self, options: &Options) -> Fallible<()> {
        let mut ratios = Vec::new();
        for round in 0..options.rounds {
            let process = self.process()?;
            let topic = format!("beside-{round}");
            self.topic(&process, &topic, 1)?;
            let codec = Compression::default();
            let flat =
                clock(|| self.runtime.block_on(self.send(&process, &topic, codec, 1, options.records)));
            let rate = options.records as f64 / flat.as_secs_f64() / 2.0;
            let with = || {
                self.runtime.block_on(async {
                    let upkeep = process.log.upkeep(UpkeepSettings::default());
                    let merging = async {
                        loop {
                            upkeep.merge(true, |_, _| {}).await.expect("merges");
                        }
                    };
                    tokio::select! {
                        acks = self.at_rate(&process, &topic, rate) => acks,
                        () = merging => unreachable!("it goes on"),
                    }
                })
            };
            let without = || self.runtime.block_on(self.at_rate(&process, &topic, rate));
            let (with, without) = if round % 2 == 0 {
                let without = without();
                (with(), without)
            } else {
                (with(), without())
            };
            println!(
                "acks at {:.0} MiB/s, {codec}: {without}; beside merges: {with}",
                rate * RECORD_BYTES as f64 / f64::from(1 << 20)
            );
            ratios.push(with.ms(0.99) / without.ms(0.99));
        }
        targets::check("ack p99 beside a merge / without", median(ratios), Target::AtMost(1.1));
        Ok(())
    }

    /// Five seconds of so many records a second; each tick's first is timed.
    #[allow(clippy::disallowed_methods, reason = "a benchmark looks at the clock")]
    async fn at_rate(&self, process: &Process, topic: &str, rate: f64) -> Times {
        let producer = process.log.producer().build().expect("builds");
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        let (mut sent, mut n) = (Vec::new(), 0);
        for tick in 1..=5_000 {
            ticks.tick().await;
            let began = std::time::Instant::now();
            let mut timed = true;
            while (n as f64) < rate / 1e3 * f64::from(tick) {
                let delivery =
                    producer.enqueue(topic, Some(0), self.record(n), None).await.expect("is taken");
                n += 1;
                if std::mem::take(&mut timed) {
                    sent.push(tokio::spawn(async move { delivery.wait().await.map(|_| began.elapsed()) }));
                }
            }
        }
        producer.close().await.expect("is acked");
        let times = futures::future::join_all(sent).await;
        Times::new(times.into_iter().map(|time| time.expect("runs").expect("is acked")).collect())
    }

    fn catch_up(&self, options: &Options) -> Fallible<()> {
        let process = self.process()?;
        let (mut ratios, mut speeds) = (Vec::new(), Vec::new());
        let topic = "none-1-0";
        let (_, objects, _) = self.stores()?;
        let files = process.log.ledger().chain().view(|view: &View| {
            let (_, topic) = view.topic(topic).expect("it was written");
            let of = |place: &SlicePlace| match place {
                SlicePlace::Object(object, layout) => {
                    Some((Path::from(ObjectName::from(object).to_string()), layout.file_bytes()))
                }
                SlicePlace::Inline { .. } => None,
            };
            topic.partitions[0].slices.iter().filter_map(|slice| of(&slice.place)).collect::<Vec<_>>()
        })?;
        for round in 0..options.rounds {
            let reader = self.process()?;
            let ours = || clock(|| self.runtime.block_on(read(&reader, topic, options.records)));
            let raw = || clock(|| self.runtime.block_on(get(&*objects, &files)));
            let (ours, raw) = if round % 2 == 0 {
                (ours(), raw())
            } else {
                let raw = raw();
                (ours(), raw)
            };
            let mib = (options.records * RECORD_BYTES) as f64 / f64::from(1 << 20);
            ratios.push(raw.as_secs_f64() / ours.as_secs_f64());
            speeds.push(mib / ours.as_secs_f64());
            println!(
                "catch-up, none: {:.0} MiB/s, {} GETs; raw ranged GETs of the same bytes {:.0} MiB/s, {} GETs",
                speeds[round],
                reader.objects.counts().gets,
                mib / raw.as_secs_f64(),
                files.len(),
            );
        }
        targets::check("catch-up / raw ranged GETs of the same bytes", median(ratios), Target::AtLeast(0.8));
        Ok(())
    }
}

/// Reads a whole partition through the fetcher, as fast as it comes.
async fn read(process: &Process, topic: &str, records: usize) {
    let fetcher = Fetcher::new(process.log.ledger().clone(), limits::CACHE_BYTES_DEFAULT);
    let (mut next, mut rows) = (0, 0);
    while rows < records {
        let fetched = fetcher.fetch(topic, 0, next, FetchLimits::default()).await.expect("fetches");
        rows += fetched.runs.iter().map(|run| run.rows.len()).sum::<usize>();
        next = fetched.next;
    }
    assert_eq!(rows, records);
}

/// The same bytes, a range a file, one after the other.
async fn get(objects: &dyn ObjectStore, files: &[(Path, u64)]) {
    for (path, bytes) in files {
        let got = objects.get_range(path, 0..*bytes).await.expect("is there");
        assert_eq!(got.len() as u64, *bytes);
    }
}
