use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};

use super::*;
use crate::batch::RowsBuilder;
use crate::ledger::action::TimestampType;
use crate::limits;
use crate::record::{Header, Record, TopicId};
use crate::segment::{Compression, Span};

mod golden;

const TOPIC: TopicId = TopicId(7);

fn rows(from: usize, count: usize, value_bytes: usize) -> crate::batch::Rows {
    let mut rows = RowsBuilder::new();
    for n in from..from + count {
        let headers = if n % 3 == 0 {
            vec![
                Header { key: "a".into(), value: None },
                Header { key: "a".into(), value: Some(vec![n as u8; 3].into()) },
            ]
        } else {
            Vec::new()
        };
        let record = Record {
            timestamp_us: Some(n as i64),
            key: (n % 2 == 0).then(|| format!("k{n}").into()),
            value: (n % 5 != 0).then(|| vec![n as u8; value_bytes].into()),
            headers,
        };
        rows.push(n as i64, record.key.as_deref(), record.value.as_deref(), &record.headers).unwrap();
    }
    rows.finish()
}

fn part(partition: u32, base: u64, append_ms: i64, rows: crate::batch::Rows) -> MergedPart {
    let time_type = if append_ms % 2 == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime };
    MergedPart { partition, base, append_ms, time_type, rows }
}

/// Small partitions beside one of several row groups.
fn parts() -> Vec<Vec<MergedPart>> {
    vec![
        vec![part(0, 10, 2, rows(0, 5, 10)), part(0, 15, 3, rows(5, 7, 10))],
        vec![part(1, 0, 4, rows(0, 1, 10))],
        vec![part(3, 100, 4, rows(0, 9_000, 1_000)), part(3, 9_100, 6, rows(1, 9_000, 1_000))],
        vec![part(4, 5, 4, rows(9, 1, 10))],
    ]
}

fn written(compression: Compression) -> MergedSegment {
    let mut writer = MergedWriter::new("t", TOPIC, compression, true).unwrap();
    parts().into_iter().flatten().for_each(|part| writer.push(part).unwrap());
    writer.finish().unwrap()
}

fn footer(segment: &MergedSegment) -> MergedFooter {
    MergedFooter::parse(&segment.cut(segment.footer).unwrap(), segment.footer).unwrap()
}

/// All runs of a partition from an offset on.
fn read(segment: &MergedSegment, partition: u32, from: u64, end: u64) -> Vec<MergedRun> {
    let footer = footer(segment);
    let (mut runs, mut next) = (Vec::new(), from);
    for group in footer.groups_of(partition, from..end) {
        let bytes = segment.cut(footer.span(group).unwrap()).unwrap();
        let found = footer.decode(group, "t", &bytes).unwrap().runs_from(partition, next, end).unwrap();
        next = found.last().map_or(next, |run| run.base + run.rows.len() as u64);
        runs.extend(found);
    }
    assert_eq!(next, end, "all of them");
    runs
}

#[test]
fn what_goes_in_comes_out_at_every_offset() {
    for compression in Compression::ALL {
        let segment = written(compression);
        assert_eq!(segment.file(), written(compression).file(), "the same input gives the same bytes");
        assert_eq!(footer(&segment).ranges(), segment.ranges);
        for (parts, range) in parts().iter().zip(&segment.ranges) {
            let (first, last) = (&parts[0], &parts[parts.len() - 1]);
            assert_eq!((range.partition, range.base, range.end), (first.partition, first.base, last.end()));
            let middle = first.end().min(range.end - 1);
            for from in [range.base, range.base.midpoint(range.end), middle, range.end - 1] {
                let runs = read(&segment, range.partition, from, range.end);
                let mut records = runs.iter().flat_map(|run| {
                    (0..run.rows.len()).map(|i| (run.rows.record(i, run.base + i as u64), run.time_type))
                });
                for offset in from..range.end {
                    let part = parts.iter().find(|part| offset < part.end()).unwrap();
                    let wanted = part.rows.record((offset - part.base) as usize, offset);
                    assert_eq!(records.next(), Some((wanted, part.time_type)));
                }
                assert!(records.next().is_none());
            }
        }
        let shared = segment.ranges[0].groups == segment.ranges[1].groups;
        assert!(shared && segment.ranges[2].groups.1 >= 2, "{:?}", segment.ranges);
    }
}

#[test]
fn only_one_group_is_read_for_one_offset() {
    let segment = written(Compression::None);
    let footer = footer(&segment);
    let groups: Vec<u32> = (100..18_100).flat_map(|at| footer.groups_of(3, at..at + 1)).collect();
    assert_eq!(groups.len(), 18_000, "one each");
    assert!(groups.is_sorted() && groups[0] < groups[17_999]);
    assert!(footer.groups_of(2, 0..1).is_empty() && footer.groups_of(3, 18_100..18_101).is_empty());
}

#[test]
fn a_run_ends_where_the_rule_of_its_times_does() {
    let runs = read(&written(Compression::Zstd), 0, 10, 22);
    let seen: Vec<_> = runs.iter().map(|run| (run.base, run.rows.len(), run.time_type)).collect();
    assert_eq!(seen, [(10, 5, TimestampType::CreateTime), (15, 7, TimestampType::LogAppendTime)]);
    assert_eq!(runs[1].append_us, 3_000);
    assert_eq!((runs[0].first_at(3), runs[0].first_at(9)), (Some(3), None));
    assert_eq!((runs[1].first_at(3_000), runs[1].first_at(3_001)), (Some(0), None));
}

#[test]
fn partitions_out_of_order_and_gaps_are_refused() {
    let mut writer = MergedWriter::new("t", TOPIC, Compression::None, false).unwrap();
    writer.push(part(2, 0, 0, rows(0, 1, 1))).unwrap();
    assert!(writer.push(part(1, 1, 0, rows(0, 1, 1))).is_err());
    assert!(writer.push(part(2, 2, 0, rows(0, 1, 1))).is_err());
    writer.push(part(2, 1, 0, rows(0, 1, 1))).unwrap();
    writer.push(part(3, 0, 0, rows(0, 2, 1))).unwrap();
    assert!(writer.push(part(2, 2, 0, rows(0, 1, 1))).is_err());
    assert!(MergedWriter::new("t", TOPIC, Compression::None, false).unwrap().finish().is_err());
}

#[test]
fn every_flipped_bit_of_a_footer_is_damage() {
    let segment = written(Compression::Zstd);
    let good = segment.cut(segment.footer).unwrap();
    for at in (0..good.len()).step_by(7) {
        let mut bytes = good.to_vec();
        bytes[at] ^= 1 << (at % 8);
        let error = MergedFooter::parse(&bytes.clone().into(), segment.footer).unwrap_err();
        assert!(error.to_string().contains("CRC-32C"), "{error}");
        // What lies behind the CRC must not panic either.
        drop(MergedFooter::parse_verified(&bytes.into(), segment.footer));
    }
    let cut = good.slice(..good.len() - 1);
    assert!(MergedFooter::parse(&cut, segment.footer).is_err());
}

#[test]
fn damage_in_a_group_and_other_peoples_files_are_told() {
    let segment = written(Compression::Zstd);
    let footer = footer(&segment);
    let mut bytes = segment.cut(footer.span(1).unwrap()).unwrap().to_vec();
    bytes[100] ^= 1;
    let error = footer.decode(1, "t", &bytes.into()).unwrap_err();
    assert!(error.to_string().contains("CRC-32C"), "{error}");
    let bytes = segment.cut(footer.span(0).unwrap()).unwrap();
    let error = footer.decode(0, "other", &bytes).unwrap_err();
    assert!(error.to_string().contains("rows not of other"), "{error}");
    let group = footer.decode(0, "t", &bytes).unwrap();
    assert!(group.runs_from(0, 9, 22).unwrap_err().to_string().contains("offset 10 where 9 must be"));
    let huge = Span { position: u32::MAX - 10, length: 10, crc: 0 };
    assert!(MergedFooter::parse(&vec![0; 10].into(), huge).unwrap_err().to_string().contains("in a file of"));
    let foreign = Span::of(&bytes, 0, bytes.len()).unwrap();
    assert!(MergedFooter::parse(&bytes, foreign).is_err());
    assert!(limits::MERGED_FOOTER_BYTES_MAX > segment.footer.length as usize);
}

#[test]
fn the_schema_is_what_athena_and_iceberg_take() {
    use parquet::basic::{LogicalType, Repetition, Type};
    let fields = schema::parquet().root_schema().get_fields();
    let names: Vec<_> =
        fields.iter().map(|field| (field.get_basic_info().id(), field.name().to_owned())).collect();
    let wanted = [
        "topic",
        "partition",
        "offset",
        "timestamp",
        "append_time",
        "timestamp_type",
        "key",
        "value",
        "headers",
    ];
    assert_eq!(names, (1..).zip(wanted.map(str::to_owned)).collect::<Vec<_>>());
    for leaf in schema::parquet().columns() {
        let unsigned = matches!(leaf.logical_type_ref(), Some(LogicalType::Integer(int)) if !int.is_signed);
        assert!(leaf.physical_type() != Type::INT96 && !unsigned, "{leaf:?}");
    }
    let optional =
        |name: &str| fields.iter().find(|f| f.name() == name).unwrap().get_basic_info().repetition();
    assert_eq!((optional("key"), optional("offset")), (Repetition::OPTIONAL, Repetition::REQUIRED));
}

#[test]
fn timestamps_that_repeat_have_a_dictionary() {
    let part = |base: u64, count: u64, repeat: u64| {
        let mut rows = RowsBuilder::new();
        for n in base..base + count {
            rows.push((n / repeat) as i64, None, Some(b"v"), &[]).unwrap();
        }
        part(0, base, 2, rows.finish())
    };
    // Whether it has one, and in how many pages the first row group's are.
    let times = |parts: &[MergedPart]| {
        let mut writer = MergedWriter::new("t", TOPIC, Compression::None, false).unwrap();
        parts.iter().for_each(|part| writer.push(part.clone()).unwrap());
        let segment = writer.finish().unwrap();
        let end = parts.last().unwrap().end();
        let times: Vec<i64> =
            read(&segment, 0, 0, end).iter().flat_map(|run| run.rows.timestamps_us().to_vec()).collect();
        let wanted = parts.iter().flat_map(|part| part.rows.timestamps_us());
        assert!(times.iter().eq(wanted), "whatever the encoding");
        let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
        let parquet = reader.parse_and_finish(&segment.file()).unwrap();
        let pages = parquet.page_index_for_row_group(0).offset_index(3).unwrap().page_locations().len();
        (parquet.row_group(0).column(3).dictionary_page_offset().is_some(), pages)
    };
    let least = limits::MERGED_TIMES_REPEAT as u64;
    assert_eq!(times(&[part(0, 50_000, least)]), (true, 1));
    assert_eq!(times(&[part(0, 50_000, 1)]), (false, 3), "engines look for times by page");
    assert_eq!(times(&[part(0, 8 * least, least)]), (true, 1));
    assert_eq!(times(&[part(0, 8 * least, least - 1)]), (false, 1));
    assert_eq!(times(&[part(0, 1, least)]), (false, 1));
    // The first of it decides; what follows only has to come back.
    let beyond = limits::MERGED_TIMES_BYTES as u64 / 8 * 2;
    assert!(times(&[part(0, 8_000, least), part(8_000, beyond, 1)]).0);
    assert!(!times(&[part(0, 8_000, 1), part(8_000, 8_000, 100)]).0);
}

#[test]
fn what_the_records_of_a_part_share_is_in_runs_of_any_length() {
    use arrow::array::AsArray;
    use arrow::datatypes::{Int32Type, TimestampMicrosecondType};
    use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
    use parquet::file::page_index::column_index::ColumnIndexMetaData;

    // Around eights, around pages, and so many that are short that a value has more than a byte.
    let short = (0..600).map(|n| [1, 2, 7, 8, 9, 3, 15, 16, 17, 1][n % 10]);
    let lengths = short.clone().chain([19_990, 20_001, 3, 40_005]).chain(short);
    let (mut parts, mut next) = (Vec::new(), [0u64; 3]);
    for (n, length) in lengths.enumerate() {
        let partition = n * 3 / 1_204;
        // Neither each another, nor in order.
        let append_ms = (n * 7_919 % 1_009) as i64 + 1_766_000_000_000;
        parts.push(part(partition as u32, next[partition], append_ms, rows(n, length, 1)));
        next[partition] += length as u64;
    }
    for compression in Compression::ALL {
        let mut writer = MergedWriter::new("t", TOPIC, compression, false).unwrap();
        parts.iter().for_each(|part| writer.push(part.clone()).unwrap());
        let file = writer.finish().unwrap().file();

        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
        let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).unwrap();
        let parquet = reader.metadata().clone();
        let (mut partitions, mut times, mut types) = (Vec::new(), Vec::new(), Vec::new());
        for batch in reader.build().unwrap() {
            let batch = batch.unwrap();
            let topics = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8).unwrap();
            assert!(topics.as_string::<i32>().iter().all(|topic| topic == Some("t")));
            partitions.extend_from_slice(batch.column(1).as_primitive::<Int32Type>().values());
            times.extend_from_slice(batch.column(4).as_primitive::<TimestampMicrosecondType>().values());
            types.extend_from_slice(batch.column(5).as_primitive::<Int32Type>().values());
        }
        let all = |value: fn(&MergedPart) -> i64| -> Vec<i64> {
            parts.iter().flat_map(|part| std::iter::repeat_n(value(part), part.rows.len())).collect()
        };
        let wide = |values: Vec<i32>| -> Vec<i64> { values.into_iter().map(i64::from).collect() };
        let is_log = |part: &MergedPart| i64::from(part.time_type == TimestampType::LogAppendTime);
        let columns = [(1, wide(partitions)), (4, times), (5, wide(types))];
        assert_eq!(columns[0].1, all(|part| i64::from(part.partition)));
        assert_eq!(columns[1].1, all(|part| part.append_ms * 1_000));
        assert_eq!(columns[2].1, all(is_log));

        // Each page's range, and the chunk's, is that of its rows.
        let mut first = 0;
        for group in 0..parquet.num_row_groups() {
            let rows = parquet.row_group(group).num_rows() as usize;
            let index = parquet.page_index_for_row_group(group);
            for (leaf, values) in &columns {
                let values = &values[first..first + rows];
                let begins = index.offset_index(*leaf).unwrap().page_locations().iter();
                let begins: Vec<usize> = begins.map(|page| page.first_row_index as usize).collect();
                assert_eq!(begins, (0..rows).step_by(20_000).collect::<Vec<_>>());
                let of_page = |page: usize| match index.column_index(*leaf).unwrap() {
                    ColumnIndexMetaData::INT32(index) => (
                        i64::from(*index.min_value(page).unwrap()),
                        i64::from(*index.max_value(page).unwrap()),
                    ),
                    ColumnIndexMetaData::INT64(index) => {
                        (*index.min_value(page).unwrap(), *index.max_value(page).unwrap())
                    }
                    other => panic!("{other:?}"),
                };
                let range = |values: &[i64]| (*values.iter().min().unwrap(), *values.iter().max().unwrap());
                for (page, begin) in begins.iter().enumerate() {
                    assert_eq!(of_page(page), range(&values[*begin..rows.min(begin + 20_000)]));
                }
                let statistics = parquet.row_group(group).column(*leaf).statistics().unwrap();
                let wide = |bytes: &[u8]| match bytes.len() {
                    4 => i64::from(i32::from_le_bytes(bytes.try_into().unwrap())),
                    _ => i64::from_le_bytes(bytes.try_into().unwrap()),
                };
                let (min, max) = (statistics.min_bytes_opt().unwrap(), statistics.max_bytes_opt().unwrap());
                assert_eq!((wide(min), wide(max)), range(values));
                assert_eq!(statistics.null_count_opt(), Some(0));
            }
            first += rows;
        }
        assert!(parquet.num_row_groups() > 1);
    }
}
