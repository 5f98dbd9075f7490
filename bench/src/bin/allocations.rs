//! Heap allocations a record, by dhat: of the segment's own work, and of the whole way through `send`.
//!
//! `cargo run --release -p tidelog-bench --bin allocations -- [--records N] [--lines FILE]`
//!
//! The whole way: 10⁶ calls of `send` to a store in memory, 40,000 at a time, each waited for to its ack. The calls' own
//! futures lie in boxes that are made once; the records' values are slices of one buffer. All else is counted: flights,
//! segments, the store's copies, commits, acks.

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use tidelog_bench::options::Options;
use tidelog_bench::targets::{self, Target};
use tidelog_bench::{Fallible, lines};
use tidelog_core::append::Producer;
use tidelog_core::batch::RowsBuilder;
use tidelog_core::limits;
use tidelog_core::record::TopicId;
use tidelog_core::segment::{Compression, Footer, SegmentSlice, decode_group, encode};
use tidelog_core::{Log, Record, RecordMetadata, Result};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Calls of `send` under way at once: more than a segment's worth.
const SENDS: usize = 40_000;

fn main() -> Fallible<()> {
    let options = Options::from_args(1, 1_000_000)?;
    let lines = lines::read(options.lines.as_deref())?;
    let _profiler = dhat::Profiler::builder().testing().build();
    segments(options.records, &lines)?;
    for partitions in [1, 64] {
        sends(options.records, &lines, partitions)?;
    }
    Ok(())
}

fn blocks() -> u64 {
    dhat::HeapStats::get().total_blocks
}

fn segments(records: usize, lines: &[Vec<u8>]) -> Fallible<()> {
    let mut segments = Vec::new();
    let mut rows = RowsBuilder::new();
    let before = blocks();
    for (i, line) in lines.iter().cycle().take(records).enumerate() {
        rows.push(i as i64, None, Some(line), &[])?;
        if rows.raw_bytes() >= limits::SEGMENT_RAW_BYTES || i + 1 == records {
            let rows = std::mem::take(&mut rows).finish();
            black_box(rows.sum(TopicId(1), 0, 0, rows.len()));
            segments.push(encode(&[SegmentSlice { topic: "lines", partition: 0, rows }], Compression::Zstd)?);
        }
    }
    let encoded = blocks();
    let mut found = 0;
    for segment in &segments {
        let footer = Footer::parse(&segment.layout.footer.cut(&segment.bytes)?, &segment.layout)?;
        let group = decode_group(&footer, 0, &segment.layout.groups[0].cut(&segment.bytes)?)?;
        let rows = group.slice("lines", 0, 0, footer.rows())?;
        (0..rows.len()).for_each(|i| drop(black_box(rows.record(i, i as u64))));
        found += rows.len();
    }
    let decoded = blocks();
    assert_eq!(found, records);
    let each = |blocks: u64| blocks as f64 / records as f64;
    println!("{records} records in {} segments", segments.len());
    println!("decode, record()    {:.4} allocations a record", each(decoded - encoded));
    targets::check("allocations a record: push, sum, encode", each(encoded - before), Target::AtMost(0.02));
    Ok(())
}

fn sends(records: usize, lines: &[Vec<u8>], partitions: u32) -> Fallible<()> {
    let all = Bytes::from(lines.concat());
    let mut at = 0;
    let cut = |line: &Vec<u8>| {
        at += line.len();
        all.slice(at - line.len()..at)
    };
    let values: Vec<Bytes> = lines.iter().map(cut).collect();
    // With one partition no record has a key; with several, the keys deal them out.
    let keys: Vec<Bytes> = match partitions {
        1 => Vec::new(),
        _ => (0..partitions).map(|n| Bytes::from(format!("host-{n}"))).collect(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let total = runtime.block_on(async {
        let log = Log::open("memory:").await?;
        log.admin().create_topic("lines", partitions, &[]).await?;
        let producer = log.producer().build()?;
        // Warm: the boxes are made, the topic is known.
        let mut calls: Vec<_> = (0..SENDS).map(|_| Box::pin(send(&producer, Record::value("")))).collect();
        all_acked(&mut calls).await?;
        let before = blocks();
        let mut sent = 0;
        while sent < records {
            let now = SENDS.min(records - sent);
            for (i, call) in calls[..now].iter_mut().enumerate() {
                let value = Some(values[(sent + i) % values.len()].clone());
                let key = keys.get((sent + i) % partitions as usize).cloned();
                call.set(send(&producer, Record { key, value, ..Record::default() }));
            }
            all_acked(&mut calls[..now]).await?;
            sent += now;
        }
        let total = blocks() - before;
        producer.close().await?;
        Ok::<_, tidelog_core::Error>(total)
    })?;
    let what = format!("allocations a record: send to ack, {partitions} partitions");
    let each = total as f64 / records as f64;
    match partitions {
        1 => targets::check(&what, each, Target::AtMost(0.05)),
        // Each slice has buffers and a footer entry of its own; the target is about one partition's records.
        _ => println!("{what}: {each:.3}"),
    }
    Ok(())
}

fn send(producer: &Producer, record: Record) -> impl Future<Output = Result<RecordMetadata>> {
    producer.send("lines", record)
}

/// Polls every call until all are done; each wakes this one task.
async fn all_acked<F: Future<Output = Result<RecordMetadata>>>(calls: &mut [Pin<Box<F>>]) -> Result<()> {
    let mut done = vec![false; calls.len()];
    let mut left = calls.len();
    std::future::poll_fn(|context| {
        for (call, done) in calls.iter_mut().zip(&mut done).filter(|(_, done)| !**done) {
            if let Poll::Ready(acked) = call.as_mut().poll(context) {
                black_box(acked?);
                (*done, left) = (true, left - 1);
            }
        }
        if left == 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}
