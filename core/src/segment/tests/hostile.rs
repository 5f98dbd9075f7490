//! Damage: every byte of a small segment in turn, with and without the CRC in front of the decoder.

use super::*;
use crate::error::Error;
use crate::segment::{reader, writer};

fn small(compression: Compression) -> Encoded {
    let mut rows = RowsBuilder::new();
    let header = Header { key: "h".into(), value: Some("x".into()) };
    rows.push(5, Some(b"key"), Some(b"a value, a value, a value"), &[header]).unwrap();
    rows.push(6, None, None, &[]).unwrap();
    encode(&slices(&partitions([rows.finish(), sized(3, 60), sized(1, 70_000)])), compression).unwrap()
}

fn is_damaged<T>(result: Result<T>) -> bool {
    matches!(result.map(|_| ()), Err(Error::Damaged { .. }))
}

fn flipped(bytes: &Bytes, i: usize, mask: u8) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[i] ^= mask;
    Bytes::from(bytes)
}

#[test]
fn a_flipped_byte_is_found_by_its_crc() {
    let encoded = small(Compression::Zstd);
    let footer = open(&encoded);
    let footer_bytes = encoded.layout.footer.cut(&encoded.bytes).unwrap();
    for i in 0..footer_bytes.len() {
        assert!(is_damaged(Footer::parse(&flipped(&footer_bytes, i, 1), &encoded.layout)), "footer byte {i}");
    }
    for (group, span) in encoded.layout.groups.iter().enumerate() {
        let bytes = span.cut(&encoded.bytes).unwrap();
        for i in 0..bytes.len() {
            let result = decode_group(&footer, group as u32, &flipped(&bytes, i, 0x80));
            assert!(is_damaged(result), "group {group} byte {i}");
        }
    }
    let spans: u64 =
        encoded.layout.groups.iter().chain([&encoded.layout.footer]).map(|s| u64::from(s.length)).sum();
    assert_eq!(spans + 4, encoded.bytes.len() as u64, "no byte but the leading magic is outside");
}

#[test]
fn cut_bytes_are_found_before_they_are_read() {
    let encoded = small(Compression::None);
    let footer = open(&encoded);
    let bytes = encoded.layout.groups[0].cut(&encoded.bytes).unwrap();
    let footer_bytes = encoded.layout.footer.cut(&encoded.bytes).unwrap();
    for end in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        let error = decode_group(&footer, 0, &bytes.slice(..end)).unwrap_err();
        assert!(error.to_string().contains("bytes long, must be"), "{error}");
        assert!(is_damaged(Footer::parse(
            &footer_bytes.slice(..end.min(footer_bytes.len() - 1)),
            &encoded.layout
        )));
    }
    assert!(is_damaged(encoded.layout.footer.cut(&encoded.bytes.slice(..encoded.bytes.len() - 1))));
}

/// Without the CRC the decoder meets each damage itself. It may give other rows; it may not panic or hang. That it
/// does not reserve what a damaged size claims is shown by `pages_that_claim_too_much_are_refused`.
#[test]
fn a_flipped_byte_does_not_get_past_the_decoder() {
    for codec in [Compression::None, Compression::Zstd] {
        let encoded = small(codec);
        let footer = open(&encoded);
        let footer_bytes = encoded.layout.footer.cut(&encoded.bytes).unwrap();
        let group_bytes = encoded.layout.groups[0].cut(&encoded.bytes).unwrap();
        let (mut refused, mut tried) = (0, 0);
        for mask in [0x01, 0x40, 0xff] {
            for i in 0..footer_bytes.len() {
                tried += 1;
                match Footer::parse_verified(&flipped(&footer_bytes, i, mask), &encoded.layout) {
                    // Statistics, say. What it leads to must hold as well.
                    Ok(footer) => drop(reader::decode_verified(&footer, 0, &group_bytes)),
                    Err(_) => refused += 1,
                }
            }
            for i in 0..group_bytes.len() {
                tried += 1;
                match reader::decode_verified(&footer, 0, &flipped(&group_bytes, i, mask)) {
                    Ok(group) => assert_eq!(group.rows().len(), 5),
                    Err(error) => {
                        refused += 1;
                        assert!(matches!(error, Error::Damaged { .. }), "{error}");
                    }
                }
            }
        }
        assert!(refused * 2 > tried, "{refused} of {tried}: the damage reaches the decoder");
    }
}

#[test]
fn pages_that_claim_too_much_are_refused() {
    // A zstd page of zeros that says it is 1 GiB long, where the footer says 100 bytes.
    let encoded = small(Compression::Zstd);
    let footer = open(&encoded);
    let bytes = encoded.layout.groups[1].cut(&encoded.bytes).unwrap();
    // The value column's page: find its uncompressed size, 70,000 + 4 (length) + 6 (levels), as zigzag varint.
    let size = |n: u32| {
        let (mut n, mut out) = (u64::from(n) << 1, Vec::new());
        while n >= 0x80 {
            out.push(n as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
        out
    };
    let claimed = size(70_000 + 4 + 6);
    let at = bytes.windows(claimed.len()).position(|w| w == claimed).expect("the page header");
    let mut larger = bytes.to_vec();
    larger.splice(at..at + claimed.len(), size((1 << 20) - 1));
    let error = reader::decode_verified(&footer, 1, &Bytes::from(larger)).unwrap_err();
    assert!(error.to_string().contains("do not add up"), "{error}");
}

#[test]
fn a_panic_of_the_decoder_is_damage() {
    let error = guarded::<()>("segment", || panic!("index {} out of bounds", 7)).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }));
    assert!(error.to_string().contains("panicked: index 7 out of bounds"), "{error}");
}

#[test]
fn a_layout_must_be_end_to_end_and_bounded() {
    let good = small(Compression::None).layout;
    good.check().unwrap();
    let bad = |change: &dyn Fn(&mut Layout)| {
        let mut layout = good.clone();
        change(&mut layout);
        assert!(is_damaged(layout.check()), "{layout:?}");
    };
    bad(&|l| l.groups.clear());
    bad(&|l| l.groups[0].position = 0);
    bad(&|l| l.groups[1].position += 1);
    bad(&|l| l.footer.position -= 1);
    bad(&|l| l.groups[0].length = 0);
    bad(&|l| l.groups = vec![l.groups[0]; limits::ROW_GROUPS_MAX + 1]);
    bad(&|l| l.footer.length = 1 << 20);
    bad(&|l| {
        l.groups.truncate(1);
        l.groups[0].length = u32::MAX - 3;
        l.footer.position = u32::MAX;
    });
}

/// Writes `slices` as another program, or another version of this one, would.
fn foreign(
    created_by: &str,
    change: impl Fn(&arrow::array::RecordBatch) -> arrow::array::RecordBatch,
) -> Encoded {
    let encoded = small(Compression::None);
    let reader =
        parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(encoded.bytes, 1_000).unwrap();
    let batches: Vec<_> = reader.map(|b| change(&b.unwrap())).collect();
    let properties = schema::writer_properties(Compression::None).as_ref().clone().into_builder();
    let properties = properties.set_created_by(created_by.into()).build();
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new_with_options(&mut bytes, batches[0].schema(), options).unwrap();
    batches.iter().for_each(|b| writer.write(b).unwrap());
    let metadata = writer.finish().unwrap();
    drop(writer);
    let bytes = Bytes::from(bytes);
    Encoded { layout: writer::layout(&metadata, &bytes).unwrap(), bytes, placed: vec![] }
}

#[test]
fn files_that_are_not_ours_are_told_apart() {
    let parse = |e: &Encoded| Footer::parse(&e.layout.footer.cut(&e.bytes).unwrap(), &e.layout);
    parse(&foreign("tidelog version 1", Clone::clone)).unwrap();
    let newer = parse(&foreign("tidelog version 2", Clone::clone)).unwrap_err();
    assert!(matches!(newer, Error::Newer { .. }), "{newer}");
    for created_by in ["parquet-rs version 60.1.0", "tidelog version 0", "tidelog version x", ""] {
        assert!(is_damaged(parse(&foreign(created_by, Clone::clone))), "{created_by}");
    }
    let without_key = |b: &arrow::array::RecordBatch| b.project(&[0, 1, 2, 4, 5]).unwrap();
    let error = parse(&foreign("tidelog version 1", without_key)).unwrap_err();
    assert!(error.to_string().contains("the columns are not ours"), "{error}");
}

#[test]
fn a_footer_belongs_to_its_layout() {
    let encoded = small(Compression::None);
    let bytes = encoded.layout.footer.cut(&encoded.bytes).unwrap();
    let refuse = |change: &dyn Fn(&mut Layout)| {
        let mut layout = encoded.layout.clone();
        change(&mut layout);
        assert!(is_damaged(Footer::parse(&bytes, &layout)), "{layout:?}");
    };
    refuse(&|l| {
        let last = l.groups.pop().unwrap();
        l.groups[0].length += last.length;
    });
    refuse(&|l| {
        l.groups[0].length -= 1;
        l.groups[1].position -= 1;
        l.groups[1].length += 1;
    });
}
