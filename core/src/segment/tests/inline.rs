//! The inline encoding: drawn bytes, round trips, hostile bytes.

use super::*;
use crate::segment::inline::{decode_inline, encode_inline, inline_bytes};

#[test]
fn the_bytes_are_as_drawn() {
    let mut records = vec![
        ConsumerRecord { offset: 0, timestamp_us: 300, key: None, value: Some("ab".into()), headers: vec![] },
        ConsumerRecord { offset: 1, timestamp_us: 299, key: Some("".into()), value: None, headers: vec![] },
    ];
    records[1].headers.push(Header { key: "h".into(), value: None });
    let bytes = encode_inline(&[rows_of(&records), rows_of(&[]), rows_of(&records[..1])]).unwrap();
    let expected: &[u8] = &[
        2, // rows in the first section
        0xd8, 0x04, 0, 3, b'a', b'b', 0, // +300, null, "ab", no headers
        1, 1, 0, 1, 2, b'h', 0, // -1, "", null, one header: "h", null
        1, 0xd8, 0x04, 0, 3, b'a', b'b', 0, // the second begins anew
    ];
    assert_eq!(bytes, expected);
    let found = decode_inline(&bytes).unwrap();
    assert_eq!(found.slice(0, 2), rows_of(&records));
    assert_eq!(found.slice(2, 1), rows_of(&records[..1]));
}

proptest! {
    #[test]
    fn any_rows_come_back(a in vec(record(), 0..10), b in vec(record(), 0..10)) {
        let (a, b) = (rows_of(&a), rows_of(&b));
        let size = inline_bytes(&a) + inline_bytes(&b);
        match encode_inline(&[a.clone(), b.clone()]) {
            Ok(bytes) => {
                prop_assert_eq!(bytes.len(), size, "the size is known before");
                let all = decode_inline(&bytes).unwrap();
                prop_assert_eq!(records_of(&all.slice(0, a.len())), records_of(&a));
                prop_assert_eq!(all.slice(a.len(), b.len()), b);
            }
            Err(_) => prop_assert!(size > limits::INLINE_BYTES_MAX),
        }
    }

    #[test]
    fn any_bytes_are_refused_or_are_rows(bytes in vec(any::<u8>(), 0..60), count in 0..5u8) {
        // A plausible count in front lets some of them through.
        let bytes = Bytes::from([vec![count], bytes].concat());
        if let Ok(rows) = decode_inline(&bytes) {
            let again = encode_inline(std::slice::from_ref(&rows)).unwrap();
            prop_assert_eq!(decode_inline(&again).unwrap(), rows);
        }
    }
}

#[test]
fn cut_flipped_and_oversized_bytes_are_refused() {
    let records: Vec<_> = (0..20)
        .map(|i| ConsumerRecord {
            offset: i,
            timestamp_us: i as i64,
            key: Some("key".into()),
            value: None,
            headers: vec![Header { key: "h".into(), value: Some("v".into()) }],
        })
        .collect();
    let bytes = encode_inline(&[rows_of(&records)]).unwrap();
    for end in 1..bytes.len() {
        assert!(decode_inline(&bytes.slice(..end)).is_err(), "cut at {end}");
    }
    assert!(decode_inline(&Bytes::from([&bytes[..], &[0]].concat())).is_err(), "one byte more");
    for i in 0..bytes.len() {
        for mask in [1, 0x80, 0xff] {
            let mut flipped = bytes.to_vec();
            flipped[i] ^= mask;
            let _ = decode_inline(&Bytes::from(flipped)); // may be other rows; must not panic
        }
    }
    for claim in [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0xff; 10], &[1, 0, 0xff, 0xff, 0xff, 0x7f]] {
        assert!(
            decode_inline(&Bytes::copy_from_slice(claim)).is_err(),
            "{claim:?} claims more than there is"
        );
    }
    let long = Bytes::from(vec![0; limits::INLINE_BYTES_MAX + 1]);
    assert!(decode_inline(&long).unwrap_err().to_string().contains("limit 4096"));
}

#[test]
fn the_limit_is_exact() {
    let rows = |value: usize| {
        let mut rows = RowsBuilder::new();
        rows.push(0, None, Some(&vec![0; value]), &[]).unwrap();
        rows.finish()
    };
    let most = limits::INLINE_BYTES_MAX - 6; // count, timestamp, null, length (2), no headers
    assert_eq!(encode_inline(&[rows(most)]).unwrap().len(), limits::INLINE_BYTES_MAX);
    let error = encode_inline(&[rows(most + 1)]).unwrap_err();
    assert_eq!(error.to_string(), "inline batches is too large: 4097, limit 4096");
    assert!(inline_bytes(&rows(1 << 20)) > limits::INLINE_BYTES_MAX);
    assert!(decode_inline(&encode_inline(&[]).unwrap()).unwrap().is_empty());
}
