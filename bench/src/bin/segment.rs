//! Encode and decode of L0 segments, CRCs and record sums included, against the bare Parquet writer and reader with
//! the same properties, schema and row groups.
//!
//! `taskset -c 0 cargo run --release -p tidelog-bench --bin segment -- [--lines FILE] [--rounds N] [--partitions N]`

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryViewArray, DictionaryArray, Int32Array, ListArray, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Int32Type};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tidelog_bench::{Paired, lines};
use tidelog_core::batch::{Rows, RowsBuilder};
use tidelog_core::limits;
use tidelog_core::record::TopicId;
use tidelog_core::segment::{Compression, Encoded, Footer, SegmentSlice, decode_group, encode, schema};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const TOPIC: TopicId = TopicId(42);

struct Options {
    lines: Option<PathBuf>,
    rounds: usize,
    partitions: usize,
}

fn options() -> Fallible<Options> {
    let mut options = Options { lines: None, rounds: 31, partitions: 1 };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--lines" => options.lines = Some(value.into()),
            "--rounds" => options.rounds = value.parse::<usize>()?.max(1),
            "--partitions" => options.partitions = value.parse::<usize>()?.max(1),
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    Ok(options)
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Fallible<()> {
    let options = options()?;
    let lines = lines::read(options.lines.as_deref())?;
    let partitions = fill(&lines, options.partitions)?;
    let rows: usize = partitions.iter().map(Rows::len).sum();
    let value_bytes: usize = partitions
        .iter()
        .map(|r| (0..r.len()).map(|i| r.value(i).map_or(0, <[u8]>::len)).sum::<usize>())
        .sum();
    println!(
        "{rows} lines of {} bytes on average, {} partitions, {} rounds",
        value_bytes / rows,
        partitions.len(),
        options.rounds
    );
    let sums = Paired::run(options.rounds, || sums(&partitions), || drop(black_box(copy(&partitions))));
    let each = |seconds: f64| seconds * 1e9 / rows as f64;
    println!("record sum {:.1} ns a record, push {:.1} ns", each(sums.medians().0), each(sums.medians().1));
    println!("codec   what       ours MB/s   bare MB/s   ratio   ratio in size");
    for compression in [Compression::Zstd, Compression::None, Compression::Lz4, Compression::Snappy] {
        measure(compression, &partitions, value_bytes as f64 / 1e6, options.rounds)?;
    }
    Ok(())
}

/// One segment's worth of lines, dealt out to the partitions in turn.
fn fill(lines: &[Vec<u8>], partitions: usize) -> Fallible<Vec<Rows>> {
    let mut builders: Vec<_> = (0..partitions).map(|_| RowsBuilder::new()).collect();
    let mut raw_bytes = 0;
    for (i, line) in lines.iter().cycle().enumerate() {
        if raw_bytes >= limits::SEGMENT_RAW_BYTES {
            break;
        }
        raw_bytes += line.len() + limits::ROW_BYTES;
        builders[i % partitions].push(1_766_000_000_000_000 + i as i64 * 137, None, Some(line), &[])?;
    }
    Ok(builders.into_iter().map(RowsBuilder::finish).collect())
}

fn measure(compression: Compression, partitions: &[Rows], megabytes: f64, rounds: usize) -> Fallible<()> {
    let encoded = ours_encode(partitions, compression);
    let groups = bare_groups(partitions, &encoded)?;
    let bare = bare_encode(&groups, compression);
    let size = encoded.bytes.len() as f64 / bare.len() as f64;
    let print = |what: &str, times: Paired| {
        let (ours, bare) = times.medians();
        println!(
            "{:<7} {what:<10} {:>9.0} {:>11.0} {:>7.2} {size:>12.3}",
            compression.to_string(),
            megabytes / ours,
            megabytes / bare,
            times.ratio()
        );
    };
    print(
        "encode",
        Paired::run(
            rounds,
            || drop(black_box(ours_encode(partitions, compression))),
            || drop(black_box(bare_encode(&groups, compression))),
        ),
    );
    print(
        "decode",
        Paired::run(
            rounds,
            || drop(black_box(ours_decode(&encoded, partitions))),
            || drop(black_box(bare_decode(&encoded.bytes))),
        ),
    );
    Ok(())
}

fn sums(partitions: &[Rows]) {
    for (partition, rows) in (0..).zip(partitions) {
        black_box(rows.sum(TOPIC, partition, 0, rows.len()));
    }
}

fn copy(partitions: &[Rows]) -> Vec<Rows> {
    let copy = |rows: &Rows| {
        let mut builder = RowsBuilder::new();
        for i in 0..rows.len() {
            builder.push(rows.timestamp_us(i), rows.key(i), rows.value(i), &[]).expect("fits");
        }
        builder.finish()
    };
    partitions.iter().map(copy).collect()
}

/// What an append does: record sums, then the segment with its CRCs.
fn ours_encode(partitions: &[Rows], compression: Compression) -> Encoded {
    sums(partitions);
    let slice =
        |(partition, rows): (u32, &Rows)| SegmentSlice { topic: "lines", partition, rows: rows.clone() };
    let slices: Vec<_> = (0..).zip(partitions).map(slice).collect();
    encode(&slices, compression).expect("encodes")
}

/// What a fetch does: verify, decode, compare topic and partition.
fn ours_decode(encoded: &Encoded, partitions: &[Rows]) -> Vec<Rows> {
    let layout = &encoded.layout;
    let footer = layout.footer.cut(&encoded.bytes).and_then(|b| Footer::parse(&b, layout)).expect("a footer");
    let decode = |(i, span): (u32, &tidelog_core::segment::Span)| {
        span.cut(&encoded.bytes).and_then(|b| decode_group(&footer, i, &b)).expect("a group")
    };
    let groups: Vec<_> = (0..).zip(&layout.groups).map(decode).collect();
    let slice = |((partition, rows), place): ((u32, &Rows), &tidelog_core::segment::Place)| {
        groups[place.group as usize]
            .slice("lines", partition, place.first_row, rows.len() as u64)
            .expect("a slice")
    };
    (0..).zip(partitions).zip(&encoded.placed).map(slice).collect()
}

/// The batches of each row group, ready to be written.
fn bare_groups(partitions: &[Rows], encoded: &Encoded) -> Fallible<Vec<Vec<RecordBatch>>> {
    let mut groups = vec![Vec::new(); encoded.layout.groups.len()];
    for ((partition, rows), place) in (0..).zip(partitions).zip(&encoded.placed) {
        groups[place.group as usize].push(bare_batch(partition, rows)?);
    }
    Ok(groups)
}

fn bare_batch(partition: i32, rows: &Rows) -> Fallible<RecordBatch> {
    let DataType::List(element) = schema::arrow().field(5).data_type().clone() else {
        return Err("headers are a list".into());
    };
    let DataType::Struct(fields) = element.data_type().clone() else { return Err("of structs".into()) };
    let n = rows.len();
    let none = Arc::new(StructArray::new_null(fields, 0));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(DictionaryArray::<Int32Type>::try_new(
            Int32Array::from(vec![0; n]),
            Arc::new(StringArray::from(vec!["lines"])),
        )?),
        Arc::new(Int32Array::from(vec![partition; n])),
        Arc::new(TimestampMicrosecondArray::from(rows.timestamps_us().to_vec()).with_timezone("UTC")),
        Arc::new(BinaryViewArray::from_iter((0..n).map(|i| rows.key(i)))),
        Arc::new(BinaryViewArray::from_iter((0..n).map(|i| rows.value(i)))),
        Arc::new(ListArray::new(element, OffsetBuffer::new_zeroed(n), none, None)),
    ];
    Ok(RecordBatch::try_new(schema::arrow(), columns)?)
}

fn bare_encode(groups: &[Vec<RecordBatch>], compression: Compression) -> Bytes {
    let properties = schema::writer_properties(compression).as_ref().clone();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema::arrow(), Some(properties)).expect("opens");
    for batches in groups {
        batches.iter().for_each(|b| writer.write(b).expect("writes"));
        writer.flush().expect("flushes");
    }
    Bytes::from(writer.into_inner().expect("closes"))
}

fn bare_decode(file: &Bytes) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file.clone()).expect("a Parquet file");
    let reader = reader.with_batch_size(8_192).build().expect("opens");
    reader.map(|batch| batch.expect("decodes")).collect()
}
