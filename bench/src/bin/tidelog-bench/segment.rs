//! Encode and decode of L0 segments, CRCs and record sums included, against the bare Parquet writer and reader with
//! the same properties, schema and row groups.
//!
//! `taskset -c 0 cargo run --release -p tidelog-bench --bin tidelog-bench -- segment [--lines FILE] [--rounds N] [--partitions N]`

use std::hint::black_box;

use arrow::array::{BinaryViewArray, RecordBatch};
use tidelog_bench::bare::{self, TOPIC as NAME};
use tidelog_bench::options::Options;
use tidelog_bench::targets::{self, Target};
use tidelog_bench::{Fallible, Paired, lines};
use tidelog_core::batch::{Rows, RowsBuilder};
use tidelog_core::limits;
use tidelog_core::record::TopicId;
use tidelog_core::segment::{Compression, Encoded, Footer, SegmentSlice, decode_group, encode};

const TOPIC: TopicId = TopicId(42);

pub fn run(options: &Options) -> Fallible<()> {
    let lines = lines::read(options.lines.as_deref())?;
    let partitions = fill(&lines, options.partitions as usize)?;
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
    println!("codec   what       ours MB/s   bare MB/s   ratio   of CPU time   ratio in size");
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
    let bare = bare::encode(&groups, compression);
    let size = encoded.bytes.len() as f64 / bare.len() as f64;
    let print = |what: &str, times: &Paired| {
        let (ours, bare) = times.medians();
        println!(
            "{:<7} {what:<10} {:>9.0} {:>11.0} {:>7.2} {:>13.2} {size:>15.3}",
            compression.to_string(),
            megabytes / ours,
            megabytes / bare,
            times.ratio(),
            times.ratio_of_cpu(),
        );
    };
    let encode = Paired::run(
        rounds,
        || drop(black_box(ours_encode(partitions, compression))),
        || drop(black_box(bare::encode(&groups, compression))),
    );
    print("encode", &encode);
    let decode = Paired::run(
        rounds,
        || drop(black_box(ours_decode(&encoded, partitions))),
        || drop(black_box(bare::decode(&encoded.bytes))),
    );
    print("decode", &decode);
    let least = match compression {
        Compression::Zstd => 0.9,
        Compression::None => 0.7,
        _ => return Ok(()),
    };
    // The targets are about one partition's lines; many small row groups are here to be looked at.
    if partitions.len() > 1 {
        return Ok(());
    }
    let what = |of: &str| format!("{of} / bare, {compression}");
    targets::check(&what("encode"), encode.ratio(), Target::AtLeast(least));
    targets::check(&what("decode"), decode.ratio(), Target::AtLeast(0.9));
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
    let slice = |(partition, rows): (u32, &Rows)| SegmentSlice { topic: NAME, partition, rows: rows.clone() };
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
            .slice(NAME, partition, place.first_row, rows.len() as u64)
            .expect("a slice")
    };
    (0..).zip(partitions).zip(&encoded.placed).map(slice).collect()
}

/// The batches of each row group, ready to be written.
fn bare_groups(partitions: &[Rows], encoded: &Encoded) -> Fallible<Vec<Vec<RecordBatch>>> {
    let mut groups = vec![Vec::new(); encoded.layout.groups.len()];
    for ((partition, rows), place) in (0..).zip(partitions).zip(&encoded.placed) {
        let keys = BinaryViewArray::from_iter((0..rows.len()).map(|i| rows.key(i)));
        let values = BinaryViewArray::from_iter((0..rows.len()).map(|i| rows.value(i)));
        groups[place.group as usize].push(bare::batch(
            partition,
            rows.timestamps_us().to_vec(),
            keys,
            values,
        )?);
    }
    Ok(groups)
}
