//! Old bytes must go on decoding. `TIDELOG_BLESS=1 cargo test -p tidelog-core golden` writes the files anew; a changed
//! file is a change of format (see docs/FORMAT.md).

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::segment::inline::{decode_inline, encode_inline};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/v1").join(name)
}

fn bless() -> bool {
    std::env::var_os("TIDELOG_BLESS").is_some()
}

fn expected() -> Flush {
    let record =
        |timestamp_us, key: Option<&'static str>, value: Option<&'static str>, headers| ConsumerRecord {
            offset: 0,
            timestamp_us,
            key: key.map(Bytes::from),
            value: value.map(Bytes::from),
            headers,
        };
    let header =
        |key: &str, value: Option<&'static str>| Header { key: key.into(), value: value.map(Bytes::from) };
    let plain = [record(0, None, Some("the first record"), vec![]), record(1, None, Some(""), vec![])];
    let odd = [
        record(
            limits::TIMESTAMP_US_MAX,
            Some("key"),
            None,
            vec![header("trace", Some("1")), header("trace", None)],
        ),
        record(limits::TIMESTAMP_US_MIN, Some(""), Some("ünïcödé"), vec![header("", Some(""))]),
        record(1_766_000_000_000_000, None, None, vec![]),
    ];
    let slice =
        |topic: &str, partition, records: &[ConsumerRecord]| ((topic.into(), partition), rows_of(records));
    [
        slice("audit", 0, &plain),
        slice("orders", 0, &odd),
        slice("orders", 7, &plain[..1]),
        (("wide".into(), 3), sized(2, 70_000)),
    ]
    .into()
}

/// `position length crc` of each group, then of the footer.
fn layout_text(layout: &Layout) -> String {
    let line = |s: &Span| format!("{} {} {:08x}\n", s.position, s.length, s.crc);
    layout.groups.iter().chain([&layout.footer]).map(line).collect()
}

fn parse_layout(text: &str) -> Layout {
    let span = |line: &str| {
        let fields: Vec<_> = line.split(' ').collect();
        let crc = u32::from_str_radix(fields[2], 16).unwrap();
        Span { position: fields[0].parse().unwrap(), length: fields[1].parse().unwrap(), crc }
    };
    let mut spans: Vec<_> = text.lines().map(span).collect();
    let footer = spans.pop().unwrap();
    Layout { groups: spans, footer }
}

#[test]
fn golden_segments_decode() {
    let flush = expected();
    for codec in Compression::ALL {
        let (file, layout) =
            (path(&format!("segment-{codec}.parquet")), path(&format!("segment-{codec}.layout")));
        if bless() {
            let encoded = encode(&slices(&flush), codec).unwrap();
            fs::write(&file, &encoded.bytes).unwrap();
            fs::write(&layout, layout_text(&encoded.layout)).unwrap();
        }
        let layout = parse_layout(&fs::read_to_string(layout).unwrap());
        let encoded = Encoded { bytes: fs::read(file).unwrap().into(), layout, placed: vec![] };
        let footer = open(&encoded);
        assert_eq!(footer.groups(), 2);
        let mut first_row = 0;
        for ((topic, partition), rows) in &flush {
            let group = group(&encoded, &footer, u32::from(topic == "wide"));
            let found = group.slice(topic, *partition, first_row, rows.len() as u64).unwrap();
            assert_eq!(records_of(&found), records_of(rows), "{codec} {topic}/{partition}");
            first_row += rows.len() as u64;
        }
    }
}

#[test]
fn golden_sums_and_inline_rows_are_the_same_bytes() {
    let flush = expected();
    let small: Vec<Rows> =
        flush.iter().filter(|((topic, _), _)| topic != "wide").map(|(_, r)| r.clone()).collect();
    let sums: String = flush
        .iter()
        .map(|((topic, partition), rows)| {
            let sum = rows.sum(TopicId(0x0123_4567_89ab_cdef_0011_2233_4455_6677), *partition, 0, rows.len());
            format!("{topic}/{partition} {:032x} {:032x}\n", sum.hashes, sum.places)
        })
        .collect();
    if bless() {
        fs::write(path("rows.inline"), encode_inline(&small).unwrap()).unwrap();
        fs::write(path("rows.sums"), &sums).unwrap();
    }
    let bytes = Bytes::from(fs::read(path("rows.inline")).unwrap());
    let all: Vec<_> = small.iter().flat_map(records_of).collect();
    let found = decode_inline(&bytes).unwrap();
    assert_eq!(records_of(&found).len(), all.len());
    assert!(
        records_of(&found)
            .iter()
            .zip(&all)
            .all(|(a, b)| *a == ConsumerRecord { offset: a.offset, ..b.clone() })
    );
    assert_eq!(encode_inline(&small).unwrap(), bytes);
    assert_eq!(fs::read_to_string(path("rows.sums")).unwrap(), sums);
}
