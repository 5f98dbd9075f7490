//! A writer process for the tests beside it: the shipped library, on a folder, with a pause before each put if asked.
//!
//! ```text
//! append STORE TOPIC WRITER RECORDS PAUSE_MS ACKS   plain records `WRITER:n`, one commit each, acks to a file
//! resume STORE TOPIC WRITER RECORDS ACKS            the same with sequences: goes on after what the log holds
//! read   STORE TOPIC FOUND                          reads from the start and on; what it finds to a file, like acks
//! upkeep STORE                                      all upkeep without a pause, and with hardly any lag
//! open   STORE                                      opens what must be there
//! flood  STORE TOPIC BYTES                          as much as that, through a 64 MiB buffer; prints peak memory
//! ```

use std::fmt::Debug;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidelog_core::append::Tag;
use tidelog_core::counting::CountingTable;
use tidelog_core::env::SystemEnv;
use tidelog_core::ledger::Settings;
use tidelog_core::ledger::action::{IdentityKind, ProducerKey};
use tidelog_core::store::{Store, StoreUrl};
use tidelog_core::table::{Consistency, Item, Page, Put, SharedTable, Table, TableResult};
use tidelog_core::upkeep::Sweep;
use tidelog_core::{Error, ErrorKind, Log, Message, Record, UpkeepSettings};

/// Waits a random time between the decision and the put, so that others get the slot.
#[derive(Debug)]
struct Pausing {
    inner: SharedTable,
    pause_ms: u64,
}

#[async_trait]
impl Table for Pausing {
    fn name(&self) -> &str {
        self.inner.name()
    }
    #[allow(clippy::disallowed_methods, reason = "a real process")]
    async fn put_if_absent(&self, pk: &str, item: &Item) -> TableResult<Put> {
        if self.pause_ms > 0 {
            let pause = (item.id as u64) % (self.pause_ms + 1);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        self.inner.put_if_absent(pk, item).await
    }
    async fn get(&self, pk: &str, sk: u64, consistency: Consistency) -> TableResult<Option<Item>> {
        self.inner.get(pk, sk, consistency).await
    }
    async fn newest(&self, pk: &str, to: u64, consistency: Consistency) -> TableResult<Option<Item>> {
        self.inner.newest(pk, to, consistency).await
    }
    async fn range(&self, pk: &str, from: u64, limit: usize, consistency: Consistency) -> TableResult<Page> {
        self.inner.range(pk, from, limit, consistency).await
    }
    async fn replace_if(&self, pk: &str, item: &Item, expect: u128) -> TableResult<bool> {
        self.inner.replace_if(pk, item, expect).await
    }
    async fn delete_if(&self, pk: &str, sk: u64, expect: u128) -> TableResult<bool> {
        self.inner.delete_if(pk, sk, expect).await
    }
}

async fn open(url: &str, pause_ms: u64) -> tidelog_core::Result<(Log, Arc<CountingTable>)> {
    let env = SystemEnv::shared();
    let store = Store::open(&url.parse::<StoreUrl>()?, env.clone(), true).await?;
    let counting = Arc::new(CountingTable::new(store.table.clone()));
    let table = Arc::new(Pausing { inner: counting.clone(), pause_ms });
    let settings = Settings { checkpoint_commits: 40, strip_bytes_min: 0, ..Settings::default() };
    let log = Log::with_store(Store { table, ..store }, env, true, settings).await?;
    Ok((log, counting))
}

fn acks(path: &str) -> std::fs::File {
    std::fs::OpenOptions::new().create(true).append(true).open(path).expect("the ack file opens")
}

/// One `write` a line: a kill tears no line but the last.
fn write_place(acks: &mut std::fs::File, value: &str, partition: u32, offset: Option<u64>) {
    let line = format!("{value} {partition} {}\n", offset.unwrap_or(u64::MAX));
    acks.write_all(line.as_bytes()).expect("an ack is written");
}

async fn append(args: &[String]) -> tidelog_core::Result<()> {
    let [store, topic, writer, records, pause_ms, path] = args else { panic!("append takes six arguments") };
    let (log, table) = open(store, pause_ms.parse().expect("a number")).await?;
    let producer = log.producer().linger_ms(0).lead(true).build()?;
    let mut acks = acks(path);
    for n in 0..records.parse::<u64>().expect("a number") {
        let ack = producer.send(topic, Record::value(format!("{writer}:{n}"))).await?;
        write_place(&mut acks, &format!("{writer}:{n}"), ack.partition, ack.offset);
    }
    producer.close().await?;
    println!("{}", table.counts().conflicts);
    Ok(())
}

/// Goes on after the sequence that the log holds, like a shipper of a file. Every third record is too large to ride inline.
async fn resume(args: &[String]) -> tidelog_core::Result<()> {
    let [store, topic, writer, records, path] = args else { panic!("resume takes five arguments") };
    let (log, _) = open(store, 0).await?;
    let writer: u128 = writer.parse().expect("a number");
    let key = ProducerKey { kind: IdentityKind::Monotone, producer: writer };
    let chain = &log.ledger().chain();
    let known = chain
        .fresh_view(chain.tick(), |view| {
            let (_, _, partition) = view.partition_or_unknown(topic, 0)?;
            Ok::<_, Error>(
                partition.producers.get(&key).and_then(|known| known.window.back()).map(|w| w.last),
            )
        })
        .await??;
    let from = known.map_or(1, |last| last + 1);
    let producer = log.producer().linger_ms(1).build()?;
    let mut acks = acks(path);
    let mut under_way = std::collections::VecDeque::new();
    for n in from..=records.parse::<u64>().expect("a number") {
        let padding = if n % 3 == 0 { 6_000 } else { 10 };
        let record = Record::value(format!("{writer}:{n} {}", "x".repeat(padding)));
        let tag = Tag { key, epoch: 0, sequence: n };
        under_way.push_back((n, producer.enqueue(topic, Some(0), record, Some(tag)).await?));
        while under_way.len() > 16 {
            let Some((n, delivery)) = under_way.pop_front() else { break };
            let ack = delivery.wait().await?;
            write_place(&mut acks, &format!("{writer}:{n}"), ack.partition, ack.offset);
        }
    }
    for (n, delivery) in under_way {
        let ack = delivery.wait().await?;
        write_place(&mut acks, &format!("{writer}:{n}"), ack.partition, ack.offset);
    }
    producer.close().await
}

async fn read(args: &[String]) -> tidelog_core::Result<()> {
    let [store, topic, path] = args else { panic!("read takes three arguments") };
    let (log, _) = open(store, 0).await?;
    let mut found = acks(path);
    let mut consumer = log.consumer(topic).build().await?;
    while let Some(message) = consumer.next_message().await {
        let Message { partition, record, .. } = message?;
        let value = record.value.unwrap_or_default();
        let value = std::str::from_utf8(&value).expect("values are text");
        write_place(&mut found, value.split(' ').next().unwrap_or_default(), partition, Some(record.offset));
    }
    Ok(())
}

async fn flood(args: &[String]) -> tidelog_core::Result<()> {
    let [store, topic, bytes] = args else { panic!("flood takes three arguments") };
    let (log, _) = open(store, 0).await?;
    let producer = log.producer().build()?;
    let bytes: u64 = bytes.parse().expect("a number");
    let mut sent = 0;
    let mut line = 0u64;
    let mut last = None;
    while sent < bytes {
        // A line that compresses about as well as a log does.
        let value = format!(
            "2026-11-22T10:{:02}:{:02}.{:06} INFO request id={:016x} path=/api/v1/items/{} status=200 bytes={} {}",
            line / 60 % 60,
            line % 60,
            line * 7919 % 1_000_000,
            line.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            line % 977,
            line % 8192,
            "the quick brown fox jumps over the lazy dog ".repeat(18)
        );
        sent += value.len() as u64;
        line += 1;
        last = Some(producer.enqueue(topic, None, Record::value(value), None).await?);
    }
    if let Some(last) = last {
        last.wait().await?;
    }
    producer.close().await?;
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says how much memory was used");
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).map(str::trim).unwrap_or_default();
    println!("{line} {peak}");
    Ok(())
}

async fn upkeep(args: &[String]) -> tidelog_core::Result<()> {
    let [store] = args else { panic!("upkeep takes one argument") };
    let (log, _) = open(store, 0).await?;
    // Views of readers are at most this old. Small parts, so that a kill meets uploads, too.
    let upkeep =
        log.upkeep(UpkeepSettings { sweep_lag_ms: 0, read_lag_ms: 3_000, part_bytes: 2_000, list_page: 3 });
    loop {
        let done = async {
            // By name first: a look at all there is would leave nothing to it.
            upkeep.sweep(Sweep::LetGo, |_| {}).await?;
            upkeep.run_whole(|_| {}).await?;
            // Hours that are not over, too: none is while a test runs.
            upkeep.rewrite(true, |_| {}).await
        };
        match done.await {
            Err(error) if error.kind() != ErrorKind::Retry => return Err(error),
            _ => {}
        }
    }
}

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.first().map(String::as_str) {
        Some("append") => append(&args[1..]).await,
        Some("resume") => resume(&args[1..]).await,
        Some("flood") => flood(&args[1..]).await,
        Some("read") => read(&args[1..]).await,
        Some("upkeep") => upkeep(&args[1..]).await,
        Some("open") => Log::open_existing(args.get(1).expect("open takes an argument")).await.map(drop),
        other => panic!("append, resume, read, upkeep, open or flood, not {other:?}"),
    };
    if let Err(error) = done {
        eprintln!("{error}");
        std::process::exit(if error.kind() == ErrorKind::Retry { 3 } else { 1 });
    }
}
