//! Merged segments of old must be read for ever, and the writer must make the same bytes: what it makes is what a merge
//! proves. `TIDELOG_BLESS=1 cargo test -p tidelog-core golden` writes the newest files anew; a changed file is a change of
//! format. A writer that puts the same columns into other bytes, which every reader of the version reads, gets files of its own
//! beside those of the one before.

use std::fs;
use std::path::PathBuf;

use super::*;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/v1").join(name)
}

/// By the name of their files: `merged` wrote every column row by row, `merged-runs` those that a part has one value of by runs.
const WRITERS: [&str; 2] = ["merged", "merged-runs"];

/// Two partitions in one row group, one in several of its own, the first under both rules of time; null and empty keys
/// and values, headers with and without a value, the first and the last time there is.
fn expected() -> Vec<Vec<MergedPart>> {
    let odd = [
        (limits::TIMESTAMP_US_MIN, Some("key"), None, vec![("trace", Some("1")), ("trace", None)]),
        (limits::TIMESTAMP_US_MAX, Some(""), Some("ünïcödé"), vec![("", Some(""))]),
        (1_766_000_000_000_000, None, None, vec![]),
    ];
    let mut builder = RowsBuilder::new();
    for (time_us, key, value, headers) in odd {
        let header = |(key, value): (&str, Option<&'static str>)| Header {
            key: key.into(),
            value: value.map(bytes::Bytes::from),
        };
        let headers: Vec<Header> = headers.into_iter().map(header).collect();
        builder.push(time_us, key.map(str::as_bytes), value.map(str::as_bytes), &headers).unwrap();
    }
    vec![
        vec![
            part(0, 41, 1_766_000_000_002, builder.finish()),
            part(0, 44, 1_766_000_000_005, rows(0, 4, 10)),
        ],
        vec![part(7, 0, 1_766_000_000_004, rows(4, 3, 10))],
        vec![part(9, 5, 1_766_000_000_004, rows(0, 100, 1_000))],
    ]
}

fn written(compression: Compression, bloom: bool) -> MergedSegment {
    let mut writer = MergedWriter::new("orders", TOPIC, compression, bloom).unwrap();
    expected().into_iter().flatten().for_each(|part| writer.push(part).unwrap());
    writer.finish().unwrap()
}

#[test]
fn golden_merged_segments_are_read_and_written_for_ever() {
    let codecs = Compression::ALL.into_iter().map(|codec| (codec, false)).chain([(Compression::Zstd, true)]);
    for (compression, bloom) in codecs {
        let name = |writer: &str| format!("{writer}-{compression}{}", if bloom { "-bloom" } else { "" });
        let newest = name(WRITERS[WRITERS.len() - 1]);
        let written = written(compression, bloom);
        // `position length crc` of the footer; those of the row groups are in it.
        let span = written.footer;
        let line = format!("{} {} {:08x}\n", span.position, span.length, span.crc);
        if std::env::var_os("TIDELOG_BLESS").is_some() {
            fs::write(path(&format!("{newest}.parquet")), written.file()).unwrap();
            fs::write(path(&format!("{newest}.layout")), &line).unwrap();
        }
        for name in WRITERS.map(name) {
            let bytes = bytes::Bytes::from(fs::read(path(&format!("{name}.parquet"))).unwrap());
            let stored = fs::read_to_string(path(&format!("{name}.layout"))).unwrap();
            check(&name, &bytes, &stored);
            let is_same = bytes == written.file() && stored == line;
            assert!(is_same || name != newest, "{name} changed: that is a change of format");
        }
    }
}

fn check(name: &str, bytes: &bytes::Bytes, layout: &str) {
    let mut fields = layout.split_whitespace();
    let mut field = || fields.next().unwrap();
    let footer = Span {
        position: field().parse().unwrap(),
        length: field().parse().unwrap(),
        crc: u32::from_str_radix(field(), 16).unwrap(),
    };
    let parsed = MergedFooter::parse(&footer.cut(bytes).unwrap(), footer).unwrap();
    assert_eq!((parsed.topic(), parsed.groups()), (TOPIC, 2), "{name}");
    assert_eq!(ranges_of(bytes).unwrap().unwrap(), (TOPIC, parsed.ranges().to_vec()), "{name}");
    for (parts, range) in expected().iter().zip(parsed.ranges()) {
        let mut next = range.base;
        assert_eq!((range.partition, next), (parts[0].partition, parts[0].base), "{name}");
        let mut found = Vec::new();
        for group in parsed.groups_of(range.partition, range.base..range.end) {
            let bytes = parsed.span(group).unwrap().cut(bytes).unwrap();
            let group = parsed.decode(group, "orders", &bytes).unwrap();
            for run in group.runs_from(range.partition, next, range.end).unwrap() {
                next = run.base + run.rows.len() as u64;
                let records = (0..run.rows.len()).map(|i| run.rows.record(i, run.base + i as u64));
                found.push((run.time_type, run.append_us, records.collect::<Vec<_>>()));
            }
        }
        let wanted: Vec<_> = parts
            .iter()
            .map(|part| {
                let records = (0..part.rows.len()).map(|i| part.rows.record(i, part.base + i as u64));
                (part.time_type, part.append_ms * 1_000, records.collect::<Vec<_>>())
            })
            .collect();
        assert_eq!((found, next), (wanted, range.end), "{name}/{}", range.partition);
    }
}
