use super::*;
use crate::error::ErrorKind;

fn header(key: &str, value: Option<&str>) -> Header {
    Header { key: key.into(), value: value.map(|v| Bytes::copy_from_slice(v.as_bytes())) }
}

/// Four rows: plain, nulls, empties with headers, plain with a repeated header key.
fn sample() -> Rows {
    let mut rows = RowsBuilder::new();
    rows.push(30, Some(b"k0"), Some(b"v0"), &[]).unwrap();
    rows.push(10, None, None, &[]).unwrap();
    rows.push(40, Some(b""), Some(b""), &[header("", Some("")), header("n", None)]).unwrap();
    rows.push(20, None, Some(b"v3"), &[header("a", Some("1")), header("a", Some("2"))]).unwrap();
    assert_eq!(rows.len(), 4);
    let raw_bytes = rows.raw_bytes();
    let rows = rows.finish();
    assert_eq!(rows.raw_bytes(), raw_bytes);
    rows
}

#[test]
fn what_goes_in_comes_out() {
    let rows = sample();
    assert_eq!((rows.len(), rows.is_empty()), (4, false));
    assert_eq!(rows.raw_bytes(), 4 * limits::ROW_BYTES + 4 * limits::HEADER_BYTES + 4 + 2 + 1 + 4);
    assert_eq!(rows.time_range(), Some((10, 40)));
    assert_eq!(rows.timestamps_us(), [30, 10, 40, 20]);
    assert_eq!((rows.key(0), rows.value(0)), (Some(&b"k0"[..]), Some(&b"v0"[..])));
    assert_eq!((rows.key(1), rows.value(1)), (None, None));
    assert_eq!((rows.key(2), rows.value(2)), (Some(&b""[..]), Some(&b""[..])), "empty is not null");
    assert_eq!(rows.headers(0).len(), 0);
    assert_eq!(rows.headers(2).collect::<Vec<_>>(), [("", Some(&b""[..])), ("n", None)]);
    assert_eq!(
        rows.record(3, 77),
        ConsumerRecord {
            offset: 77,
            timestamp_us: 20,
            key: None,
            value: Some("v3".into()),
            headers: vec![header("a", Some("1")), header("a", Some("2"))],
        }
    );
}

#[test]
fn records_share_the_buffers() {
    let rows = sample();
    let value = rows.record(0, 0).value.unwrap();
    assert_eq!(value.as_ptr(), rows.value(0).unwrap().as_ptr(), "no copy");
    drop(rows);
    assert_eq!(value, "v0", "kept alive by the record");
}

#[test]
fn slices_are_the_rows_they_name() {
    let rows = sample();
    let part = rows.slice(1, 2);
    assert_eq!(part.len(), 2);
    for i in 0..2 {
        assert_eq!(part.record(i, 0), rows.record(i + 1, 0));
    }
    assert_eq!(part.raw_bytes(), 2 * limits::ROW_BYTES + 2 * limits::HEADER_BYTES + 1);
    assert_eq!(part.slice(1, 1).headers(0).len(), 2);
    assert_eq!(rows.slice(4, 0).time_range(), None);
    assert_eq!(rows.slice(0, 4), rows);
    assert_ne!(rows.slice(0, 1), rows.slice(1, 1));
    assert_ne!(rows.slice(2, 1), rows.slice(3, 1));
}

#[test]
fn rows_that_differ_in_headers_alone_differ() {
    let with = |headers: &[Header]| {
        let mut rows = RowsBuilder::new();
        rows.push(0, None, None, headers).unwrap();
        rows.finish()
    };
    assert_ne!(with(&[header("a", None)]), with(&[header("a", Some(""))]));
    assert_ne!(with(&[header("a", None)]), with(&[]));
    assert_eq!(with(&[header("a", None)]), with(&[header("a", None)]));
}

#[test]
fn sums_are_those_of_the_records() {
    let rows = sample();
    let (topic, partition) = (TopicId(5), 6);
    let mut hasher = RecordHasher::new(topic, partition);
    let mut expected = RecordSum::default();
    for i in 1..4u64 {
        let r = rows.record(i as usize, 0);
        let headers = r.headers.iter().map(|h| (h.key.as_bytes(), h.value.as_deref()));
        expected.push(i - 1, hasher.hash(r.timestamp_us, r.key.as_deref(), r.value.as_deref(), headers));
    }
    assert_eq!(rows.sum(topic, partition, 1, 3), expected);
    assert_eq!(rows.slice(1, 3).sum(topic, partition, 0, 3), expected);
    assert_ne!(rows.sum(topic, partition, 0, 3), expected);
    let joined = rows.sum(topic, partition, 0, 1) + expected.shifted(1);
    assert_eq!(rows.sum(topic, partition, 0, 4), joined);
}

#[test]
fn a_batch_has_a_limit_and_survives_it() {
    let mut rows = RowsBuilder::new();
    let large = vec![0; limits::RECORD_BYTES_MAX];
    rows.push(1, None, Some(&large), &[]).unwrap();
    let error = rows.push(2, None, Some(&large), &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().starts_with("segment is too large: "), "{error}");
    rows.push(3, None, Some(b"small"), &[]).unwrap();
    let rows = rows.finish();
    assert_eq!(rows.timestamps_us(), [1, 3], "the refused row left nothing behind");
    assert_eq!(rows.value(1), Some(&b"small"[..]));
}

#[test]
fn the_largest_record_fits_behind_an_almost_full_batch() {
    let headers: Vec<Header> = (0..limits::HEADERS_PER_RECORD_MAX).map(|_| header("", None)).collect();
    let mut rows = RowsBuilder::new();
    rows.push(0, None, Some(&vec![0; limits::SEGMENT_RAW_BYTES - limits::ROW_BYTES - 1]), &[]).unwrap();
    rows.push(0, None, Some(&vec![0; limits::RECORD_BYTES_MAX]), &headers).unwrap();
}

/// A small slice of a large group does not keep the group, whatever is large in it; the records stay the same.
#[test]
fn what_is_little_of_its_buffers_is_copied() {
    for (value, header) in [(200, 20), (2, 0), (2, 200)] {
        let mut rows = RowsBuilder::new();
        for n in 0..1_000u32 {
            let value_of_header = (n % 2 == 0).then(|| vec![1; header].into());
            let headers = match header {
                0 => Vec::new(),
                _ => vec![Header { key: "h".into(), value: value_of_header }],
            };
            let key = (n % 3 == 0).then(|| format!("k{n}"));
            let key = key.as_deref().map(str::as_bytes);
            rows.push(i64::from(n), key, Some(&vec![n as u8; value]), &headers).unwrap();
        }
        let rows = rows.finish();
        let held = |rows: &Rows| {
            let array = rows.value_array();
            let data = array.data_buffers().iter().map(|buffer| buffer.len()).sum::<usize>();
            data + array.views().inner().capacity() + rows.timestamps().inner().capacity()
        };
        let few = rows.slice(500, 10);
        assert!(held(&few) > 20_000, "{}", held(&few));
        let own = few.clone().compacted().unwrap();
        assert!(held(&own) < 10_000, "{}", held(&own));
        assert!(own.shared_bytes() < 10_000, "{}", own.shared_bytes());
        assert_eq!(own, few);
        assert_eq!(own.sum(TopicId(1), 2, 0, 10), few.sum(TopicId(1), 2, 0, 10));
        let most = rows.slice(0, 900);
        assert_eq!(held(&most.clone().compacted().unwrap()), held(&most), "not worth a copy");
    }
}
