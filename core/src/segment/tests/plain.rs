//! Pages that are filled while rows arrive.

use super::*;

fn rows_of_values(values: impl IntoIterator<Item = Option<Vec<u8>>>) -> Rows {
    let mut rows = RowsBuilder::new();
    for (i, value) in values.into_iter().enumerate() {
        let key = (i % 3 == 0).then_some(&b"key"[..]);
        rows.push(i as i64, key, value.as_deref(), &[]).unwrap();
    }
    rows.finish()
}

/// A round trip, and the same bytes from rows whose pages are not at hand.
fn check(rows: &Rows) {
    for codec in Compression::ALL {
        let flush = partitions([rows.clone()]);
        check_round_trip(&flush, codec);
        let elsewhere = partitions([rows.slice(0, rows.len())]);
        let bytes = |flush: &Flush| encode(&slices(flush), codec).unwrap().bytes;
        assert!(rows.value_pages().is_some() && elsewhere[&("t".into(), 0)].value_pages().is_none());
        assert_eq!(bytes(&flush), bytes(&elsewhere), "{codec}");
    }
}

#[test]
fn nulls_come_back_wherever_they_lie() {
    let value = |i: usize| Some(vec![i as u8; i % 40]);
    check(&rows_of_values((0..1_000).map(|i| value(i).filter(|_| i % 7 > 2))));
    check(&rows_of_values((0..85).map(|i| value(i).filter(|_| i != 84))));
    check(&rows_of_values((0..1_000).map(|_| None)));
    check(&rows_of_values((0..96).map(value)));
}

#[test]
fn pages_end_where_the_values_say_and_not_where_buffers_did() {
    let page = crate::segment::plain::PAGE_BYTES;
    let fills = |bytes: usize| Some(vec![b'x'; bytes - size_of::<u32>()]);
    for (values, pages) in [
        (vec![fills(page)], 1),
        (vec![fills(page), fills(4)], 2),
        (vec![fills(page - 4), fills(4)], 1),
        (vec![fills(page + 1), fills(4), None], 2),
        (vec![None, fills(page - 1), None, fills(5), fills(page), fills(page)], 4),
    ] {
        let rows = rows_of_values(values);
        assert_eq!(rows.value_pages().unwrap().len(), pages);
        check(&rows);
    }
}

#[test]
fn levels_are_those_of_parquet() {
    let body = |values: &[Option<Vec<u8>>]| {
        rows_of_values(values.to_vec()).value_pages().unwrap()[0].body().to_vec()
    };
    let value = Some(b"v".to_vec());
    // Length 2; a run of three ones.
    assert_eq!(body(&[value.clone(), value.clone(), value.clone()])[..6], [2, 0, 0, 0, 3 << 1, 1]);
    assert_eq!(body(&[None, None]), [2, 0, 0, 0, 2 << 1, 0]);
    // One eight of rows, bit-packed: the first and the third.
    assert_eq!(body(&[value.clone(), None, value])[..6], [2, 0, 0, 0, 1 << 1 | 1, 0b101]);
}
