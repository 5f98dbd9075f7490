use std::io::BufReader;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::record::{ConsumerRecord, Header};

fn all(text: &[u8], limit: usize, buffer: usize) -> Vec<Line> {
    let mut lines = Lines::new(BufReader::with_capacity(buffer, text), limit);
    std::iter::from_fn(|| lines.next_line().unwrap()).collect()
}

fn line(text: &str) -> Line {
    Line::Bytes(text.into())
}

#[test]
fn lines_end_as_they_may() {
    for buffer in 1..20 {
        let found = all(b"a\r\n\n\r\nb\rc\nlast\r", 5, buffer);
        let wanted = ["a", "", "", "b\rc", "last\r"].map(line);
        assert_eq!(found, wanted, "buffer of {buffer}");
        assert_eq!(all(b"", 5, buffer), []);
        assert_eq!(all(b"\n", 5, buffer), [line("")]);
    }
}

#[test]
fn long_lines_are_skipped_to_their_end() {
    for buffer in 1..20 {
        let found = all(b"12345\r\n123456\n1234567890\r\nx\n123456", 5, buffer);
        let wanted = [line("12345"), Line::TooLong(6), Line::TooLong(10), line("x"), Line::TooLong(6)];
        assert_eq!(found, wanted, "buffer of {buffer}");
    }
}

#[test]
fn skipping_counts_lines() {
    let mut lines = Lines::new(&b"a\nbb\nccc\n"[..], 5);
    assert!(lines.skip_to(5).unwrap());
    assert_eq!(lines.next_line().unwrap(), Some(line("ccc")));
    assert_eq!((lines.number, lines.position), (3, 9));
    assert!(!lines.skip_to(10).unwrap());
}

#[test]
fn a_line_without_end_takes_no_more_than_its_limit() {
    // 1 GiB of input; a buffer that grew with it would be seen in the test's memory, and the length is told all the same.
    let endless = std::io::Read::take(std::io::repeat(b'x'), 1 << 30);
    let mut lines = Lines::new(BufReader::new(endless), 100);
    assert_eq!(lines.next_line().unwrap(), Some(Line::TooLong(1 << 30)));
}

fn refused(text: impl Into<Bytes>) -> String {
    let error = Format::Json.parse(text).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Invalid, "{error}");
    error.to_string()
}

#[test]
fn errors_name_the_field_and_what_is_allowed() {
    for (text, wanted) in [
        ("nonsense", "record is invalid: not a JSON object"),
        ("", "record is invalid: not a JSON object"),
        ("[1]", "record is invalid: not a JSON object"),
        ("{\"value\":\"x\"} x", "record is invalid: not JSON: trailing characters, at byte 15"),
        ("{\"value\":\"x", "record is invalid: not JSON: EOF"),
        ("{\"value\":}", "record is invalid: not JSON: expected value, at byte 10"),
        ("\u{feff}{\"value\":\"x\"}", "record is invalid: it begins with a byte order mark; remove it"),
        (r#"{"vlaue":"x"}"#, "unknown field \"vlaue\": known are key, key_base64, value,"),
        (r#"{"value":"x","value":"y"}"#, "record is invalid: value is set twice"),
        (r#"{"value":null,"value":"y"}"#, "value is set twice"),
        (r#"{"value":5}"#, "value is invalid: it must be a string or null, not 5"),
        (r#"{"value":{"a":1}}"#, "value is invalid: it must be a string or null"),
        (r#"{"value":"x","value_base64":"eA=="}"#, "both value and value_base64 are set"),
        (r#"{"key":"x","key_base64":"eA=="}"#, "both key and key_base64 are set"),
        (r#"{"key_base64":"?"}"#, "key_base64 is invalid: not base 64"),
        (r#"{"key_base64":"eA"}"#, "key_base64 is invalid: not base 64"),
        (r#"{"key_base64":"eB=="}"#, "key_base64 is invalid: not base 64"),
        (r#"{"value_base64":7}"#, "value_base64 is invalid: it must be a string or null"),
        (r#"{"value":"\ud800"}"#, "value is invalid: "),
        (r#"{"value":"\udc00x"}"#, "value is invalid: lone leading surrogate"),
        ("{\"value\":\"a\0b\"}", "not JSON: control character"),
        (r#"{"timestamp":1.5}"#, "timestamp is invalid: 1.5 is no whole number of milliseconds"),
        (r#"{"timestamp":1e3}"#, "timestamp is invalid: 1e3 is no whole number"),
        (r#"{"timestamp":1e999}"#, "timestamp is invalid: 1e999 is no whole number"),
        (r#"{"timestamp":"5"}"#, "timestamp is invalid: \"5\" is no whole number"),
        (r#"{"timestamp":-1}"#, "timestamp is invalid: -1000 µs is outside"),
        (r#"{"timestamp":253402300800000}"#, "timestamp is invalid: 253402300800000000 µs is outside"),
        (r#"{"timestamp":9223372036854775807}"#, "timestamp is invalid"),
        (r#"{"partition":-1}"#, "partition is invalid: -1 is no partition number"),
        (r#"{"partition":4294967296}"#, "partition is invalid"),
        (r#"{"partition":0.0}"#, "partition is invalid"),
        (r#"{"headers":{}}"#, "headers is invalid: it must be an array of objects"),
        (r#"{"headers":[5]}"#, "headers is invalid: not a JSON object"),
        (r#"{"headers":[{"value":"x"}]}"#, "headers is invalid: each needs a string as its key"),
        (r#"{"headers":[{"key":5}]}"#, "header key is invalid: it must be a string or null, not 5"),
        (r#"{"headers":[{"key":"h","value":5}]}"#, "header value is invalid: it must be a string or null"),
        (r#"{"headers":[{"key":"h","key":"h"}]}"#, "headers is invalid: key is set twice"),
        (r#"{"headers":[{"key":"h","key_base64":"aA=="}]}"#, "headers is invalid: unknown field"),
    ] {
        let said = refused(text);
        assert!(said.contains(wanted), "{text}: {said}");
        assert!(!said.contains("line 1"), "{said}");
    }
    let said = refused(&b"{\"value\":\"\xff\"}"[..]);
    assert!(said.contains("not UTF-8 at byte 11; send bytes that are no text as base 64"), "{said}");
}

#[test]
fn hostile_sizes_are_refused_in_bounded_memory_and_depth() {
    // Deeper than any stack, where a value is passed over and where one is wanted.
    for field in ["value", "headers", "topic", "timestamp"] {
        let deep = format!("{{\"{field}\":{}{}}}", "[".repeat(1 << 20), "]".repeat(1 << 20));
        let parsed = Format::Json.parse(deep);
        assert_eq!(parsed.is_ok(), field == "topic", "{field}: passed over, not looked into");
    }
    let said = refused(format!("{{\"timestamp\":{}}}", "9".repeat(1 << 20)));
    assert!(said.len() < 200 && said.contains("timestamp is invalid"), "{said}");
    let said = refused(format!("{{\"{}\":1}}", "é".repeat(1 << 19)));
    assert!(said.len() < 300 && said.contains("unknown field"), "{said}");
    let many = vec!["{\"key\":\"h\"}"; limits::HEADERS_PER_RECORD_MAX + 1];
    assert_eq!(
        refused(format!("{{\"headers\":[{}]}}", many.join(","))),
        "headers is too large: 129, limit 128"
    );
    let (record, _) = Format::Json.parse(format!("{{\"headers\":[{}]}}", many[1..].join(","))).unwrap();
    assert_eq!(record.headers.len(), limits::HEADERS_PER_RECORD_MAX);
    for format in [Format::Plain, Format::Json, Format::Keyed(b"\t")] {
        let limit = format.line_bytes_max();
        let error = format.parse(vec![b'x'; limit + 1]).unwrap_err();
        assert_eq!(error.to_string(), format!("line is too large: {}, limit {limit}", limit + 1));
    }
}

#[test]
fn odd_but_right_objects_are_records() {
    let parse = |text: &str| Format::Json.parse(text.to_owned()).unwrap();
    assert_eq!(parse("{}"), (Record::default(), None));
    let nulls =
        r#" {"key":null,"key_base64":"/wA=","value":null,"headers":null,"timestamp":null,"partition":null} "#;
    assert_eq!(parse(nulls).0.key.unwrap(), &[0xff, 0][..]);
    let (record, partition) = parse(
        r#"{"val\u0075e":"\u0000\ud83c\udf0a","timestamp":0,"partition":3,"topic":[{}],"offset":1e999}"#,
    );
    assert_eq!(
        (record.value.unwrap(), record.timestamp_us, partition),
        ("\0\u{1f30a}".into(), Some(0), Some(3))
    );
}

#[test]
fn keys_end_at_the_first_separator() {
    let (record, _) = Format::Keyed(b"::").parse(&b"a:b::c::d"[..]).unwrap();
    assert_eq!(record, Record::keyed("a:b", "c::d"));
    let error = Format::Keyed(b"\t").parse(&b"no tab"[..]).unwrap_err();
    assert_eq!(error.to_string(), "line is invalid: no key separator \"\\t\" in it");
    assert!(Format::Keyed(b"").parse(&b"x"[..]).unwrap_err().to_string().contains("must not be empty"));
}

fn record() -> impl Strategy<Value = ConsumerRecord> {
    let text = "[\"\\\\\u{0}-\u{1f}a-zé\u{2028}\u{1f30a}\u{feff}]{0,12}".prop_map(Bytes::from);
    let bytes = prop_oneof![text, vec(any::<u8>(), 0..20).prop_map(Bytes::from)];
    let bytes = proptest::option::of(bytes).boxed();
    let header = (any::<String>(), bytes.clone()).prop_map(|(key, value)| Header { key, value });
    let timestamp_us = limits::TIMESTAMP_US_MIN..=limits::TIMESTAMP_US_MAX;
    (any::<u64>(), timestamp_us, bytes.clone(), bytes, vec(header, 0..4)).prop_map(
        |(offset, timestamp_us, key, value, headers)| ConsumerRecord {
            offset,
            timestamp_us,
            key,
            value,
            headers,
        },
    )
}

/// What [`Lines`] must find, in the plainest way.
fn split(text: &[u8], limit: usize) -> Vec<Line> {
    let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    let last = lines.pop().filter(|last| !last.is_empty());
    let ended = lines.into_iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let line = |line: &[u8]| match line.len() > limit {
        true => Line::TooLong(line.len() as u64),
        false => Line::Bytes(line.to_vec()),
    };
    ended.chain(last).map(line).collect()
}

proptest! {
    #[test]
    fn what_is_written_is_read(record in record(), topic in "[a-z\"\\\\é]{1,9}", partition in any::<u32>()) {
        let mut out = Vec::new();
        json::write(&mut out, &topic, partition, &record).unwrap();
        prop_assert!(!out.contains(&b'\n'));
        let (read, asked) = Format::Json.parse(out).unwrap();
        prop_assert_eq!((read.key, read.value, read.headers), (record.key, record.value, record.headers));
        prop_assert_eq!((read.timestamp_us, asked), (Some(record.timestamp_us / 1_000 * 1_000), Some(partition)));
    }

    #[test]
    fn any_bytes_are_a_record_or_a_named_error(text in vec(any::<u8>(), 0..80)) {
        for format in [Format::Plain, Format::Json, Format::Keyed(b"=")] {
            if let Err(error) = format.parse(text.clone()) {
                prop_assert_eq!(error.kind(), crate::ErrorKind::Invalid);
            }
        }
    }

    #[test]
    fn lines_are_those_of_the_text(text in "[ab\r\n]{0,40}", limit in 0..9usize, buffer in 1..12usize) {
        prop_assert_eq!(all(text.as_bytes(), limit, buffer), split(text.as_bytes(), limit));
    }
}
