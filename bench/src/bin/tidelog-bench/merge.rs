//! Merge: unmerged segments become merged ones, against decoding and encoding the same rows with bare Parquet.
//!
//! `cargo build --release -p tidelog-bench`, then `taskset -c 0 target/release/tidelog-bench merge [--lines FILE] [--rounds N] [--records N] [--codec NAME] [--store FOLDER]`
//!
//! Both sides begin with the same segments in memory and end with files of the same rows, columns, properties and row groups there:
//!
//! | ours | bare |
//! |---|---|
//! | GET from memory, CRC-32C of footer and groups, decode; topic and partition of every row compared | the Arrow reader, with the segment's own types |
//! | record sums compared with the commit's | |
//! | encode, CRCs | `ArrowWriter`, flushed where ours begin a row group |
//! | prove: decode what was encoded, record sums again | |
//! | PUT, commits of fold and `Indexed`, index rows | |
//!
//! Then: the peak of resident memory of a process that merges a folder's log; bytes written by merge and rewrite for each byte of
//! ingest; catch-up over merged segments, as `catchup` does it. `--store` leaves that log for `bench/duckdb`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int32Array, Int64Array, ListArray, RecordBatch, StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::DataType;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use tidelog_bench::bare::TOPIC;
use tidelog_bench::options::Options;
use tidelog_bench::targets::{self, Target};
use tidelog_bench::{Fallible, Paired, clock, lines};
use tidelog_core::env::SystemEnv;
use tidelog_core::ledger::Settings;
use tidelog_core::segment::{Compression, merged, schema};
use tidelog_core::store::Store;
use tidelog_core::topic::{COMPRESSION_TYPE, INLINE_BYTES_MAX};
use tidelog_core::upkeep::UpkeepSettings;
use tidelog_core::{Log, Record};
use tokio::runtime::{Builder, Runtime};

use super::catchup;

pub fn run(options: &Options) -> Fallible<()> {
    let lines = lines::read(options.lines.as_deref())?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    println!("{} lines, {} rounds", options.records, options.rounds);
    println!("codec   what       ours MB/s   bare MB/s   ratio   ratio in size");
    for compression in codecs(options) {
        merge(&runtime, compression, &lines, options)?;
    }
    memory(&runtime, &lines)?;
    written(&runtime, &lines, options)?;
    println!("codec   what       ours MB/s   bare MB/s   ratio");
    for compression in codecs(options) {
        catch_up(&runtime, compression, &lines, options)?;
    }
    Ok(())
}

fn codecs(options: &Options) -> Vec<Compression> {
    options.codec.map_or_else(|| vec![Compression::Zstd, Compression::None], |codec| vec![codec])
}

async fn in_memory(compression: Compression) -> Fallible<Log> {
    let env = SystemEnv::shared();
    let log = Log::with_store(Store::memory(env.clone()), env, true, Settings::default()).await?;
    create(&log, compression).await?;
    Ok(log)
}

async fn in_folder(folder: &Path, compression: Compression) -> Fallible<Log> {
    let log = Log::open(&folder.display().to_string()).await?;
    create(&log, compression).await?;
    Ok(log)
}

async fn create(log: &Log, compression: Compression) -> Fallible<()> {
    // All of it in segments, the last few lines, too: that is what bare Parquet reads.
    let config = [
        (COMPRESSION_TYPE.to_owned(), compression.to_string()),
        (INLINE_BYTES_MAX.to_owned(), "0".to_owned()),
    ];
    log.admin().create_topic(TOPIC, 1, &config).await?;
    Ok(())
}

async fn fill(log: &Log, lines: &[Vec<u8>], records: usize) -> Fallible<()> {
    let producer = log.producer().linger_ms(1_000).build()?;
    for (i, line) in lines.iter().cycle().take(records).enumerate() {
        let mut record = Record::value(line.clone());
        record.timestamp_us = Some(1_766_000_000_000_000 + i as i64 * 137);
        producer.enqueue(TOPIC, None, record, None).await?;
    }
    Ok(producer.close().await?)
}

/// Merges all there is; answers bytes written.
async fn merge_all(log: &Log) -> Fallible<u64> {
    let merged = log.upkeep(UpkeepSettings::default()).merge(true, |_, _| {}).await?;
    assert_eq!(merged.damage, Vec::<String>::new());
    Ok(merged.bytes)
}

/// The files below a prefix, in the order in which they were written.
async fn files(log: &Log, prefix: &str) -> Fallible<Vec<Bytes>> {
    let store = log.store().objects.store();
    let mut found: Vec<_> = store.list(Some(&prefix.into())).try_collect().await?;
    found.sort_by(|one, other| one.location.cmp(&other.location));
    let mut files = Vec::new();
    for file in found {
        files.push(store.get(&file.location).await?.bytes().await?);
    }
    Ok(files)
}

fn merge(runtime: &Runtime, compression: Compression, lines: &[Vec<u8>], options: &Options) -> Fallible<()> {
    let filled = || {
        runtime.block_on(async {
            let log = in_memory(compression).await?;
            fill(&log, lines, options.records).await?;
            Fallible::Ok(log)
        })
    };
    let log = filled()?;
    let segments = runtime.block_on(files(&log, "l0"))?;
    runtime.block_on(merge_all(&log))?;
    let made = runtime.block_on(files(&log, "topics"))?;
    let groups: Vec<Vec<usize>> = made.iter().map(groups).collect::<Fallible<_>>()?;
    let bare = bare_merge(&segments, &groups, compression);
    let bytes = |files: &[Bytes]| files.iter().map(Bytes::len).sum::<usize>() as f64;
    let size = bytes(&made) / bytes(&bare);
    assert_eq!(catchup::look_at(&made), catchup::look_at(&bare), "the same rows");
    let value_bytes = catchup::look_at(&made).1;
    let times = Paired::timed(
        options.rounds,
        || {
            let log = filled().expect("a log");
            clock(|| runtime.block_on(merge_all(&log)).expect("merges"))
        },
        || clock(|| bare_merge(&segments, &groups, compression)),
    );
    let (ours, bare) = times.medians();
    let megabytes = value_bytes as f64 / 1e6;
    let codec = compression.to_string();
    let (ours, bare, ratio) = (megabytes / ours, megabytes / bare, times.ratio());
    println!("{codec:<7} merge      {ours:>9.0} {bare:>11.0} {ratio:>7.2} {size:>15.3}");
    targets::check(&format!("merge / bare decode and encode, {codec}"), ratio, Target::AtLeast(0.75));
    targets::check(&format!("merged file / bare file in size, {codec}"), size, Target::AtMost(1.05));
    Ok(())
}

/// Rows of each row group.
fn groups(file: &Bytes) -> Fallible<Vec<usize>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file.clone())?;
    Ok(reader.metadata().row_groups().iter().map(|group| group.num_rows() as usize).collect())
}

/// Files with row groups of so many rows, of the rows of these segments.
fn bare_merge(segments: &[Bytes], files: &[Vec<usize>], compression: Compression) -> Vec<Bytes> {
    let batches = segments.iter().flat_map(|segment| {
        let options = ArrowReaderOptions::new().with_schema(schema::arrow());
        let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(segment.clone(), options);
        reader.expect("a segment").with_batch_size(8_192).build().expect("opens")
    });
    let mut batches = batches.map(|batch| batch.expect("decodes"));
    let (mut offset, mut rest) = (0, RecordBatch::new_empty(schema::arrow()));
    let mut file = |groups: &Vec<usize>| {
        // As ours: no bloom filter, and timestamps that differ.
        let properties = merged::schema::writer_properties(compression, false, false);
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), merged::schema::arrow(), options);
        let mut writer = writer.expect("opens");
        for rows in groups {
            let mut left = *rows;
            while left > 0 {
                if rest.num_rows() == 0 {
                    rest = batches.next().expect("as many rows");
                }
                let take = left.min(rest.num_rows());
                writer.write(&merged_batch(&rest.slice(0, take), offset)).expect("writes");
                rest = rest.slice(take, rest.num_rows() - take);
                (offset, left) = (offset + take as i64, left - take);
            }
            writer.flush().expect("flushes");
        }
        Bytes::from(writer.into_inner().expect("closes"))
    };
    files.iter().map(&mut file).collect()
}

/// Rows of a segment, without headers, with the columns of a merged one.
fn merged_batch(batch: &RecordBatch, offset: i64) -> RecordBatch {
    let rows = batch.num_rows();
    let DataType::List(element) = merged::schema::arrow().field(8).data_type().clone() else {
        panic!("headers are a list");
    };
    let DataType::Struct(fields) = element.data_type().clone() else { panic!("of structs") };
    let none = Arc::new(StructArray::new_null(fields, 0));
    let appended = TimestampMicrosecondArray::from(vec![1_766_000_000_000_000; rows]).with_timezone("UTC");
    let columns: Vec<ArrayRef> = vec![
        batch.column(0).clone(),
        batch.column(1).clone(),
        Arc::new(Int64Array::from_iter_values(offset..offset + rows as i64)),
        batch.column(2).clone(),
        Arc::new(appended),
        Arc::new(Int32Array::from(vec![0; rows])),
        batch.column(3).clone(),
        batch.column(4).clone(),
        Arc::new(ListArray::new(element, OffsetBuffer::new_zeroed(rows), none, None)),
    ];
    RecordBatch::try_new(merged::schema::arrow(), columns).expect("the columns of a merged segment")
}

/// So many lines fill more than one rewrite.
const MEMORY_LINES: usize = 12_800_000;

/// Peak of resident memory of a process of its own that merges and rewrites what takes many folds.
fn memory(runtime: &Runtime, lines: &[Vec<u8>]) -> Fallible<()> {
    let folder = tempfile::tempdir()?;
    let store = folder.path().join("store");
    runtime.block_on(async {
        let log = in_folder(&store, Compression::Zstd).await?;
        fill(&log, lines, MEMORY_LINES).await
    })?;
    let binary = std::env::current_exe()?.with_file_name("merge-peak");
    let child = std::process::Command::new(&binary).arg(&store).output();
    let child = child.map_err(|error| format!("{}: {error}; build the whole package", binary.display()))?;
    if !child.status.success() {
        return Err(String::from_utf8_lossy(&child.stderr).into());
    }
    let peaks: Vec<f64> =
        String::from_utf8(child.stdout)?.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let peaks: [f64; 2] =
        peaks.try_into().map_err(|found| format!("two numbers are wanted, not {found:?}"))?;
    for (what, peak_mib) in ["merge", "merge and rewrite"].iter().zip(peaks) {
        let what = format!("peak of resident memory, {what} of {MEMORY_LINES} lines, MiB");
        targets::check(&what, peak_mib, Target::AtMost(128.0));
    }
    Ok(())
}

/// Bytes that merge and rewrite write for each byte of ingest: eight merges, then one rewrite of the hour.
fn written(runtime: &Runtime, lines: &[Vec<u8>], options: &Options) -> Fallible<()> {
    let (ingested, written) = runtime.block_on(async {
        let log = in_memory(Compression::Zstd).await?;
        let mut written = 0;
        for _ in 0..8 {
            fill(&log, lines, options.records).await?;
            written += merge_all(&log).await?;
        }
        let ingested: usize = files(&log, "l0").await?.iter().map(Bytes::len).sum();
        let rewritten = log.upkeep(UpkeepSettings::default()).rewrite(true, |_| {}).await?;
        assert_ne!(rewritten.objects, 0);
        Fallible::Ok((ingested as f64, (written + rewritten.bytes) as f64))
    })?;
    targets::check("bytes by merge and rewrite / bytes of ingest", written / ingested, Target::AtMost(2.2));
    Ok(())
}

fn catch_up(
    runtime: &Runtime,
    compression: Compression,
    lines: &[Vec<u8>],
    options: &Options,
) -> Fallible<()> {
    let folder = tempfile::tempdir()?;
    let store = match (&options.store, compression) {
        (Some(store), Compression::Zstd) => store.clone(),
        _ => folder.path().join("store"),
    };
    let log = runtime.block_on(async {
        let log = in_folder(&store, compression).await?;
        fill(&log, lines, options.records).await?;
        merge_all(&log).await?;
        Fallible::Ok(log)
    })?;
    let files = below(&store.join("topics"))?;
    let found = catchup::bare_read(&files);
    assert_eq!(found.0, options.records as u64);
    assert_eq!(catchup::fetch(runtime, &log), found);
    let times = Paired::timed(
        options.rounds,
        || clock(|| catchup::fetch(runtime, &log)),
        || clock(|| catchup::bare_read(&files)),
    );
    let (ours, bare) = times.medians();
    let (megabytes, codec) = (found.1 as f64 / 1e6, compression.to_string());
    let (ours, bare, ratio) = (megabytes / ours, megabytes / bare, times.ratio());
    println!("{codec:<7} catch-up   {ours:>9.0} {bare:>11.0} {ratio:>7.2}");
    let what = format!("catch-up, merged / bare read and decode, {codec}");
    targets::check(&what, ratio, Target::AtLeast(0.8));
    Ok(())
}

/// Every file below a folder.
fn below(folder: &Path) -> Fallible<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(below(&path)?) } else { found.push(path) }
    }
    found.sort();
    Ok(found)
}
