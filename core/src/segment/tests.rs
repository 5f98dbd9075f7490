use std::collections::BTreeMap;

use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::batch::{Rows, RowsBuilder};
use crate::record::{ConsumerRecord, Header, TopicId};

mod golden;
mod hostile;
mod inline;
mod plain;

/// Rows by topic and partition: what a flush is.
type Flush = BTreeMap<(String, u32), Rows>;

fn rows_of(records: &[ConsumerRecord]) -> Rows {
    let mut rows = RowsBuilder::new();
    for r in records {
        rows.push(r.timestamp_us, r.key.as_deref(), r.value.as_deref(), &r.headers).unwrap();
    }
    rows.finish()
}

fn records_of(rows: &Rows) -> Vec<ConsumerRecord> {
    (0..rows.len()).map(|i| rows.record(i, i as u64)).collect()
}

/// `n` records with `value_bytes` together.
fn sized(n: usize, value_bytes: usize) -> Rows {
    let mut rows = RowsBuilder::new();
    for i in 0..n {
        let size = if i == 0 { value_bytes } else { 0 };
        rows.push(i as i64, None, Some(&vec![b'x'; size]), &[]).unwrap();
    }
    let rows = rows.finish();
    assert_eq!(rows.raw_bytes(), n * limits::ROW_BYTES + value_bytes);
    rows
}

fn slices(flush: &Flush) -> Vec<SegmentSlice<'_>> {
    let entries = flush.iter();
    entries.map(|((topic, p), rows)| SegmentSlice { topic, partition: *p, rows: rows.clone() }).collect()
}

/// One topic `t` with these partitions, from 0.
fn partitions(rows: impl IntoIterator<Item = Rows>) -> Flush {
    (0..).zip(rows).map(|(partition, rows)| (("t".to_owned(), partition), rows)).collect()
}

fn open(encoded: &Encoded) -> Footer {
    Footer::parse(&encoded.layout.footer.cut(&encoded.bytes).unwrap(), &encoded.layout).unwrap()
}

fn group(encoded: &Encoded, footer: &Footer, group: u32) -> Group {
    let span = encoded.layout.groups[group as usize];
    decode_group(footer, group, &span.cut(&encoded.bytes).unwrap()).unwrap()
}

/// Decodes every slice and compares it, records and sums.
fn check_round_trip(flush: &Flush, compression: Compression) {
    let encoded = encode(&slices(flush), compression).unwrap();
    assert_eq!(encoded.placed.len(), flush.len());
    let footer = open(&encoded);
    assert_eq!(footer.groups(), encoded.layout.groups.len());
    assert_eq!(footer.rows(), flush.values().map(|r| r.len() as u64).sum::<u64>());
    assert_eq!(encoded.layout.file_bytes(), encoded.bytes.len() as u64);
    for (((topic, partition), rows), place) in flush.iter().zip(&encoded.placed) {
        let group = group(&encoded, &footer, place.group);
        let found = group.slice(topic, *partition, place.first_row, rows.len() as u64).unwrap();
        assert_eq!(records_of(&found), records_of(rows));
        assert_eq!(found, *rows);
        assert_eq!(found.raw_bytes(), rows.raw_bytes());
        let sum = |rows: &Rows| rows.sum(TopicId(9), *partition, 0, rows.len());
        assert_eq!(sum(&found), sum(rows));
    }
}

fn record() -> impl Strategy<Value = ConsumerRecord> {
    let bytes = || proptest::option::of(vec(any::<u8>(), 0..40).prop_map(Bytes::from));
    let timestamp = prop_oneof![
        Just(limits::TIMESTAMP_US_MIN),
        Just(limits::TIMESTAMP_US_MAX),
        limits::TIMESTAMP_US_MIN..=limits::TIMESTAMP_US_MAX,
    ];
    let header = ("[aé]{0,2}", bytes()).prop_map(|(key, value)| Header { key, value });
    let headers = prop_oneof![3 => Just(Vec::new()), 1 => vec(header, 0..4)];
    (timestamp, bytes(), bytes(), headers).prop_map(|(timestamp_us, key, value, headers)| ConsumerRecord {
        offset: 0,
        timestamp_us,
        key,
        value,
        headers,
    })
}

fn flush() -> impl Strategy<Value = Flush> {
    let slice = (("[ab]{1,2}", 0..4u32), vec(record(), 1..30).prop_map(|records| rows_of(&records)));
    vec(slice, 1..12).prop_map(|slices| slices.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_flush_comes_back(flush in flush(), codec in 0..4usize) {
        check_round_trip(&flush, Compression::ALL[codec]);
    }
}

#[test]
fn large_values_and_many_rows_come_back() {
    let large = ConsumerRecord {
        offset: 0,
        timestamp_us: 1,
        key: None,
        value: Some(vec![7; 1 << 20].into()),
        headers: vec![],
    };
    let many = sized(60_000, 100);
    for codec in Compression::ALL {
        let large = rows_of(&[large.clone(), large.clone(), large.clone()]);
        check_round_trip(&partitions([large, many.clone(), sized(1, 20)]), codec);
    }
}

#[test]
fn many_partitions_come_back() {
    let longest = "z".repeat(limits::TOPIC_NAME_BYTES_MAX);
    let flush =
        (0..3_000).map(|p| ((if p % 2 == 0 { longest.clone() } else { "a".into() }, p), sized(2, 64)));
    check_round_trip(&flush.collect(), Compression::Zstd);
}

#[test]
fn a_slice_has_its_own_group_or_shares_one_with_neighbours() {
    let (own, shared) = (limits::ROW_GROUP_OWN_BYTES, limits::ROW_GROUP_SHARED_BYTES_MAX);
    let small = own - 1;
    let cut = |sizes: &[usize]| {
        let flush = partitions(sizes.iter().map(|raw_bytes| sized(1, raw_bytes - limits::ROW_BYTES)));
        let encoded = encode(&slices(&flush), Compression::None).unwrap();
        assert!(encoded.placed.iter().map(|p| p.first_row).eq(0..sizes.len() as u64));
        encoded.placed.iter().map(|p| p.group).collect::<Vec<_>>()
    };
    assert_eq!(cut(&[60, 60, 60]), [0, 0, 0]);
    assert_eq!(cut(&[own, own]), [0, 1]);
    assert_eq!(cut(&[small, own, small, small]), [0, 1, 2, 2], "never across a slice that has its own");
    assert_eq!(cut(&[small, small, small, small]), [0; 4], "{small} * 4 is just below {shared}");
    assert_eq!(cut(&[small, small, small, small, 60]), [0, 0, 0, 0, 1], "above it begins the next");
    assert_eq!(cut(&[shared * 2, 60]), [0, 1]);
}

#[test]
fn same_input_same_bytes() {
    let flush = partitions([sized(100, 90_000), sized(3, 100), sized(9, 1_000)]);
    for codec in Compression::ALL {
        let (one, two) = (encode(&slices(&flush), codec).unwrap(), encode(&slices(&flush), codec).unwrap());
        assert_eq!(one.bytes, two.bytes);
        assert_eq!((&one.layout, &one.placed), (&two.layout, &two.placed));
        // Where the rows came from does not matter either: their buffers are others now.
        let group = group(&one, &open(&one), 0);
        let again = partitions([group.slice("t", 0, 0, 100).unwrap(), flush[&("t".into(), 1)].clone()]);
        let first = partitions(flush.values().take(2).cloned());
        assert_eq!(
            encode(&slices(&again), codec).unwrap().bytes,
            encode(&slices(&first), codec).unwrap().bytes
        );
    }
}

#[test]
fn what_cannot_be_a_segment_is_refused_by_name() {
    let slice = |topic, partition, rows: &Rows| SegmentSlice { topic, partition, rows: rows.clone() };
    let (one, none) = (sized(1, 20), RowsBuilder::new().finish());
    let refuse = |slices: &[SegmentSlice<'_>], text: &str| {
        let error = encode(slices, Compression::None).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Invalid);
        assert!(error.to_string().contains(text), "{error}");
    };
    refuse(&[], "at least one slice");
    refuse(&[slice("a", 0, &none)], "at least one row");
    refuse(&[slice("a", 1, &one), slice("a", 0, &one)], "rising order");
    refuse(&[slice("a", 0, &one), slice("a", 0, &one)], "rising order");
    refuse(&[slice("b", 0, &one), slice("a", 0, &one)], "rising order");
    let long = "x".repeat(250);
    refuse(&[slice(&long, 0, &one)], "topic is too large: 250, limit 249");
    refuse(&[slice("a", u32::MAX, &one)], "partition is invalid");
    let large = sized(1, limits::RECORD_BYTES_MAX);
    refuse(&[slice("a", 0, &large), slice("b", 0, &large)], "segment is too large");
}

#[test]
fn codecs_have_names() {
    for codec in Compression::ALL {
        assert_eq!(codec.to_string().parse::<Compression>().unwrap(), codec);
    }
    assert_eq!(Compression::default(), Compression::Zstd);
    assert!("gzip".parse::<Compression>().unwrap_err().to_string().contains("none, lz4, snappy, zstd"));
}

#[test]
fn only_the_slice_that_was_written_is_handed_out() {
    let flush = partitions([sized(2, 50), sized(3, 60)]);
    let encoded = encode(&slices(&flush), Compression::None).unwrap();
    let decoded = group(&encoded, &open(&encoded), 0);
    assert_eq!(decoded.slice("t", 1, 2, 3).unwrap().len(), 3);
    assert_eq!(decoded.slice("t", 1, 3, 1).unwrap().len(), 1, "a part will do");
    for (topic, partition, first_row, rows) in [
        ("u", 1, 2, 3),
        ("t", 0, 2, 3),
        ("t", 1, 1, 3),
        ("t", 0, 0, 3),
        ("t", 1, 2, 4),
        ("t", 1, u64::MAX, 2),
    ] {
        let error = decoded.slice(topic, partition, first_row, rows).unwrap_err();
        assert!(error.to_string().starts_with("damaged segment slice"), "{error}");
    }
    // The same partition of two topics: the first row alone is not enough.
    let flush: Flush = [(("a".into(), 0), sized(2, 0)), (("b".into(), 0), sized(2, 0))].into();
    let two_topics = encode(&slices(&flush), Compression::None).unwrap();
    assert!(group(&two_topics, &open(&two_topics), 0).slice("a", 0, 0, 3).is_err());
    let error = decode_group(&open(&encoded), 1, &encoded.bytes).unwrap_err();
    assert!(error.to_string().contains("row group 1 asked for, there are 1"), "{error}");
}
