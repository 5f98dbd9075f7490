//! Catch-up: fetch of a whole partition from a folder, against reading and decoding the same files with bare Parquet.
//!
//! `taskset -c 0 cargo run --release -p tidelog-bench --bin tidelog-bench -- catchup [--lines FILE] [--rounds N] [--records N]`
//!
//! Both sides begin with files that the operating system has in memory and nothing decoded, read and decode all of them
//! in order, and look at the length of every value:
//!
//! | ours | bare |
//! |---|---|
//! | a new `Fetcher` with an empty cache; `fetch` from offset 0 to the high watermark, 8 MiB at a time | `fs::read` of each file |
//! | plan from the view, one GET an object, CRC-32C of footer and groups, page headers | |
//! | decode; topic and partition of every row compared; runs with offsets | the default Arrow reader, 8,192 rows a batch |
//!
//! The log is open. The consumer's line, which hands out a record at a time with its bytes shared, is for comparison.

use std::path::PathBuf;

use bytes::Bytes;
use tidelog_bench::bare::{self, TOPIC};
use tidelog_bench::options::Options;
use tidelog_bench::targets::{self, Target};
use tidelog_bench::{Fallible, Paired, clock, lines};
use tidelog_core::fetch::FetchLimits;
use tidelog_core::ledger::view::{Place, View};
use tidelog_core::objects::ObjectName;
use tidelog_core::segment::Compression;
use tidelog_core::{Fetcher, Log, Position, Record, limits};
use tokio::runtime::Runtime;

pub fn run(options: &Options) -> Fallible<()> {
    let lines = lines::read(options.lines.as_deref())?;
    println!("{} lines, {} rounds", options.records, options.rounds);
    println!("codec   by              ours MB/s   bare MB/s   ratio   of CPU time   ours ns/record");
    for compression in [Compression::Zstd, Compression::None] {
        measure(compression, &lines, options)?;
    }
    Ok(())
}

/// A folder with a log in it, and the files of its segments in the order of their offsets.
struct Filled {
    log: Log,
    files: Vec<PathBuf>,
    _folder: tempfile::TempDir,
}

async fn fill(compression: Compression, lines: &[Vec<u8>], records: usize) -> Fallible<Filled> {
    let folder = tempfile::tempdir()?;
    let store = folder.path().join("store");
    let log = Log::open(&store.display().to_string()).await?;
    log.admin().create_topic(TOPIC, 1, &[]).await?;
    let producer = log.producer().compression(compression).linger_ms(1_000).build()?;
    for (i, line) in lines.iter().cycle().take(records).enumerate() {
        let mut record = Record::value(line.clone());
        record.timestamp_us = Some(1_766_000_000_000_000 + i as i64 * 137);
        producer.enqueue(TOPIC, None, record, None).await?;
    }
    producer.close().await?;
    let chain = log.ledger().chain();
    let files = chain.view(|view: &View| {
        let file = |place: &Place| match place {
            Place::Object(object, _) => Some(store.join(ObjectName::from(object).to_string())),
            Place::Inline { .. } => None,
        };
        view.slices().filter_map(|(_, _, slice)| file(&slice.place)).collect()
    })?;
    Ok(Filled { log, files, _folder: folder })
}

fn measure(compression: Compression, lines: &[Vec<u8>], options: &Options) -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let filled = runtime.block_on(fill(compression, lines, options.records))?;
    let found = bare_read(&filled.files);
    assert_eq!(found.0, options.records as u64, "one slice a file, and no file twice");
    assert_eq!(fetch(&runtime, &filled.log), found);
    assert_eq!(consume(&runtime, &filled.log), found);
    let megabytes = found.1 as f64 / 1e6;
    let print = |by: &str, times: &Paired| {
        let (ours, bare) = times.medians();
        println!(
            "{:<7} {by:<15} {:>9.0} {:>11.0} {:>7.2} {:>13.2} {:>16.0}",
            compression.to_string(),
            megabytes / ours,
            megabytes / bare,
            times.ratio(),
            times.ratio_of_cpu(),
            ours * 1e9 / found.0 as f64
        );
    };
    let bare = || clock(|| bare_read(&filled.files));
    let fetched = Paired::timed(options.rounds, || clock(|| fetch(&runtime, &filled.log)), bare);
    print("fetch", &fetched);
    print("consumer", &Paired::timed(options.rounds, || clock(|| consume(&runtime, &filled.log)), bare));
    let what = format!("catch-up fetch / bare read and decode, {compression}");
    targets::check(&what, fetched.ratio(), Target::AtLeast(0.8));
    Ok(())
}

pub fn fetch(runtime: &Runtime, log: &Log) -> (u64, u64) {
    let fetcher = Fetcher::new(log.ledger().clone(), limits::CACHE_BYTES_DEFAULT);
    runtime.block_on(async {
        let (mut rows, mut bytes, mut next) = (0, 0, 0);
        loop {
            let fetched = fetcher.fetch(TOPIC, 0, next, FetchLimits::default()).await.expect("fetches");
            for run in &fetched.runs {
                rows += run.rows.len() as u64;
                bytes += run.rows.values().map(|value| value.map_or(0, |v| v.len() as u64)).sum::<u64>();
            }
            next = fetched.next;
            if next == fetched.high_watermark {
                return (rows, bytes);
            }
        }
    })
}

fn consume(runtime: &Runtime, log: &Log) -> (u64, u64) {
    runtime.block_on(async {
        let mut consumer = log.consumer(TOPIC).until(Position::End).build().await.expect("starts");
        let (mut rows, mut bytes) = (0, 0);
        while let Some(message) = consumer.next_message().await {
            let value = message.expect("is read").record.value;
            (rows, bytes) = (rows + 1, bytes + value.map_or(0, |v| v.len() as u64));
        }
        (rows, bytes)
    })
}

pub fn bare_read(files: &[PathBuf]) -> (u64, u64) {
    let read = |file: &PathBuf| Bytes::from(std::fs::read(file).expect("a file"));
    let found = files.iter().map(|file| look_at(&[read(file)]));
    found.fold((0, 0), |sum, found| (sum.0 + found.0, sum.1 + found.1))
}

/// Rows and bytes of values of these files.
pub fn look_at(files: &[Bytes]) -> (u64, u64) {
    let found = files.iter().flat_map(bare::decode).map(|batch| bare::look(&batch));
    found.fold((0, 0), |sum, found| (sum.0 + found.0, sum.1 + found.1))
}
