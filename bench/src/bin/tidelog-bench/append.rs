//! Append: the library's producer to a store in memory, acks included, against bare Parquet encode of the same rows.
//!
//! `taskset -c 0 cargo run --release -p tidelog-bench --bin tidelog-bench -- append [--lines FILE] [--rounds N] [--records N]`
//!
//! Both sides begin with the same lines in memory, each with its timestamp, make an owned [`Record`] of each (its value a
//! counted reference to the line), and end with the same rows as Parquet files in an [`InMemory`] store, which they keep:
//! what is measured takes fresh memory for every file, and frees none.
//!
//! | ours | bare |
//! |---|---|
//! | `enqueue` of the record, which waits while the buffer is full | a push of the record into Arrow builders |
//! | record sums, encode, CRCs; one thread for all of it | `ArrowWriter`, same properties, as many rows a file |
//! | PUT to memory, commit in a memory table, apply | PUT to memory |
//! | every batch's ack is taken by a hook, as `tidelog produce` does | |
//!
//! Opening and dropping the log and the store is not counted, except in the ratio of processor time.
//!
//! Two more pairs, without a target: every record's own `Delivery` is kept and waited for; and bare begins with Arrow
//! batches that are ready, makes no records, pushes nothing and puts its files into a `Vec`.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use tidelog_bench::bare::{self, Columns, TOPIC};
use tidelog_bench::options::Options;
use tidelog_bench::targets::{self, Target};
use tidelog_bench::{Fallible, Paired, clock, lines};
use tidelog_core::append::{Acked, Producer};
use tidelog_core::ledger::commit::BatchResult;
use tidelog_core::segment::Compression;
use tidelog_core::{Log, Record, limits};

/// Records that wait for their acks at once: more than a segment takes.
const UNACKED_MAX: usize = 32_000;

type Row = (i64, Bytes);

pub fn run(options: &Options) -> Fallible<()> {
    let rows = rows(lines::read(options.lines.as_deref())?, options.records);
    let bytes: usize = rows.iter().map(|(_, line)| line.len()).sum();
    println!("{} lines of {} bytes on average, {} rounds", rows.len(), bytes / rows.len(), options.rounds);
    println!("codec   against                ours MB/s   bare MB/s   ratio   of CPU time   ours ns/record");
    for compression in [Compression::Zstd, Compression::None] {
        measure(compression, &rows, bytes as f64 / 1e6, options.rounds)?;
    }
    Ok(())
}

/// The lines again and again, as slices of one buffer.
fn rows(lines: Vec<Vec<u8>>, count: usize) -> Vec<Row> {
    let all = Bytes::from(lines.concat());
    let mut at = 0;
    let cut = |line: &Vec<u8>| {
        at += line.len();
        all.slice(at - line.len()..at)
    };
    let cut: Vec<Bytes> = lines.iter().map(cut).collect();
    (0..count).map(|i| (1_766_000_000_000_000 + i as i64 * 137, cut[i % cut.len()].clone())).collect()
}

fn measure(compression: Compression, rows: &[Row], megabytes: f64, rounds: usize) -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ours = || {
        runtime.block_on(async {
            let log = log().await;
            // One past the offset of the newest record that was acked.
            let acked = Arc::new(AtomicU64::new(0));
            let seen = acked.clone();
            let hook = move |batches: &[Acked<'_>]| batches.iter().for_each(|batch| count(&seen, batch));
            let producer = log.producer().compression(compression).on_ack(hook).build().expect("builds");
            let begun = clock_now();
            for row in rows {
                producer.enqueue(TOPIC, None, record(row), None).await.expect("is accepted");
            }
            producer.flush().await.expect("flushes");
            assert_eq!(acked.load(Ordering::Relaxed), rows.len() as u64, "every record is acked");
            begun()
        })
    };
    let ours_each = || {
        runtime.block_on(async {
            let log = log().await;
            let producer = log.producer().compression(compression).build().expect("builds");
            let (begun, sent) = (clock_now(), append(&producer, rows).await);
            assert_eq!(sent, rows.len() as u64 - 1, "the last offset");
            begun()
        })
    };
    let print = |against: &str, times: &Paired| {
        let (ours, bare) = times.medians();
        println!(
            "{:<7} {against:<22} {:>9.0} {:>11.0} {:>7.2} {:>13.2} {:>16.0}",
            compression.to_string(),
            megabytes / ours,
            megabytes / bare,
            times.ratio(),
            times.ratio_of_cpu(),
            ours * 1e9 / rows.len() as f64
        );
    };
    let whole = Paired::timed(rounds, ours, || runtime.block_on(bare_append(rows, compression)));
    print("push and encode", &whole);
    let each = Paired::timed(rounds, ours_each, || runtime.block_on(bare_append(rows, compression)));
    print("the same, each waited", &each);
    let batches: Vec<RecordBatch> = segments(rows).map(bare_batch).collect::<Fallible<Vec<_>>>()?;
    let files = || batches.iter().map(|b| bare::encode(&[vec![b.clone()]], compression)).collect::<Vec<_>>();
    print("encode only", &Paired::timed(rounds, ours, || clock(files)));
    let what = format!("append with acks / bare push and encode, {compression}");
    targets::check(&what, whole.ratio(), Target::AtLeast(0.8));
    Ok(())
}

async fn log() -> Log {
    let log = Log::open("memory:").await.expect("opens");
    log.admin().create_topic(TOPIC, 1, &[]).await.expect("creates");
    log
}

/// Moves the count on by a batch that is acked where the one before ended.
fn count(acked: &AtomicU64, batch: &Acked<'_>) {
    if let BatchResult::Placed { base, .. } = batch.result
        && acked.load(Ordering::Relaxed) == *base
    {
        acked.fetch_add(u64::from(batch.rows), Ordering::Relaxed);
    }
}

/// Answers how long ago it was called.
#[allow(clippy::disallowed_methods, reason = "a benchmark looks at the clock")]
fn clock_now() -> impl FnOnce() -> Duration {
    let start = std::time::Instant::now();
    move || start.elapsed()
}

/// Sends every row, and waits for every ack; the greatest offset.
async fn append(producer: &Producer, rows: &[Row]) -> u64 {
    let mut unacked = VecDeque::with_capacity(UNACKED_MAX);
    let mut greatest = 0;
    for row in rows {
        if unacked.len() == UNACKED_MAX {
            greatest = greatest.max(acked(&mut unacked).await);
        }
        unacked.push_back(producer.enqueue(TOPIC, None, record(row), None).await.expect("is accepted"));
    }
    // Without this the last flight would linger for company.
    producer.flush().await.expect("flushes");
    while !unacked.is_empty() {
        greatest = greatest.max(acked(&mut unacked).await);
    }
    greatest
}

fn record((timestamp_us, line): &Row) -> Record {
    Record { timestamp_us: Some(*timestamp_us), value: Some(line.clone()), ..Record::default() }
}

async fn acked(unacked: &mut VecDeque<tidelog_core::Delivery>) -> u64 {
    let oldest = unacked.pop_front().expect("not empty");
    let metadata = oldest.wait().await.expect("is acked");
    metadata.offset.expect("is no duplicate")
}

/// As many rows as a segment takes, and so on.
fn segments(rows: &[Row]) -> impl Iterator<Item = &[Row]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let mut raw_bytes = 0;
        let full = |(_, line): &Row| {
            raw_bytes += line.len() + limits::ROW_BYTES;
            raw_bytes >= limits::SEGMENT_RAW_BYTES
        };
        let end = rest.iter().position(full).map_or(rest.len(), |last| last + 1);
        let (segment, after) = rest.split_at(end);
        rest = after;
        (!segment.is_empty()).then_some(segment)
    })
}

fn bare_batch(rows: &[Row]) -> Fallible<RecordBatch> {
    let mut columns = Columns::default();
    for record in rows.iter().map(record).map(black_box) {
        columns.push(record.timestamp_us.unwrap_or_default(), record.value.as_deref().unwrap_or_default());
    }
    columns.finish(0)
}

async fn bare_append(rows: &[Row], compression: Compression) -> Duration {
    let (store, begun) = (InMemory::new(), clock_now());
    for (i, rows) in segments(rows).enumerate() {
        let file = bare::encode(&[vec![bare_batch(rows).expect("a batch")]], compression);
        store.put(&Path::from(i.to_string()), file.into()).await.expect("is put");
    }
    begun()
}
