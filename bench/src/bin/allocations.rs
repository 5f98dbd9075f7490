//! Heap allocations a record: push and encode, decode, and records for a consumer. Exits 1 above the limit.
//!
//! `cargo run --release -p tidelog-bench --bin allocations -- [RECORDS]`

use std::hint::black_box;

use tidelog_bench::lines;
use tidelog_core::batch::RowsBuilder;
use tidelog_core::limits;
use tidelog_core::record::TopicId;
use tidelog_core::segment::{Compression, Footer, SegmentSlice, decode_group, encode};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Allocations a record that push and encode may cost.
const LIMIT: f64 = 0.02;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let records: usize = std::env::args().nth(1).map_or(Ok(1_000_000), |n| n.parse())?;
    let lines = lines::generated(20_000);
    let _profiler = dhat::Profiler::builder().testing().build();
    let mut segments = Vec::new();
    let mut rows = RowsBuilder::new();
    let before = dhat::HeapStats::get().total_blocks;
    for (i, line) in lines.iter().cycle().take(records).enumerate() {
        rows.push(i as i64, None, Some(line), &[])?;
        if rows.raw_bytes() >= limits::SEGMENT_RAW_BYTES || i + 1 == records {
            let rows = std::mem::take(&mut rows).finish();
            black_box(rows.sum(TopicId(1), 0, 0, rows.len()));
            segments.push(encode(&[SegmentSlice { topic: "lines", partition: 0, rows }], Compression::Zstd)?);
        }
    }
    let encoded = dhat::HeapStats::get().total_blocks;
    let mut found = 0;
    for segment in &segments {
        let footer = Footer::parse(&segment.layout.footer.cut(&segment.bytes)?, &segment.layout)?;
        let group = decode_group(&footer, 0, &segment.layout.groups[0].cut(&segment.bytes)?)?;
        let rows = group.slice("lines", 0, 0, footer.rows())?;
        (0..rows.len()).for_each(|i| drop(black_box(rows.record(i, i as u64))));
        found += rows.len();
    }
    let decoded = dhat::HeapStats::get().total_blocks;
    assert_eq!(found, records);
    let each = |blocks: u64| blocks as f64 / records as f64;
    let (encode, decode) = (each(encoded - before), each(decoded - encoded));
    println!("{records} records in {} segments", segments.len());
    println!("push, sum, encode   {encode:.4} allocations a record (limit {LIMIT})");
    println!("decode, record()    {decode:.4} allocations a record");
    if encode > LIMIT {
        return Err("above the limit".into());
    }
    Ok(())
}
