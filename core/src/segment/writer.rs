//! Slices → row groups → bytes.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryViewArray, ListArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::Schema;
use bytes::Bytes;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowRowGroupWriterFactory, compute_leaves};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::statistics::Statistics;
use parquet::file::writer::SerializedFileWriter;

use super::file::FileBuilder;
use super::plain::{self, PlainBuilder, PlainPage};
use super::runs::{self, Runs};
use super::{Compression, Layout, Span, schema};
use crate::batch::Rows;
use crate::error::{Error, Result};
use crate::limits;

/// The rows of one partition, to be written into a segment.
#[derive(Debug, Clone)]
pub struct SegmentSlice<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// Partition.
    pub partition: u32,
    /// At least one row.
    pub rows: Rows,
}

/// Where a slice was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Row group.
    pub group: u32,
    /// Place of the slice's first row in the whole file (DuckDB's `file_row_number`).
    pub first_row: u64,
}

/// A finished segment.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// The whole file.
    pub bytes: Bytes,
    /// Its parts.
    pub layout: Layout,
    /// One a slice, in the order of the input.
    pub placed: Vec<Place>,
}

/// Writes a segment. The same input gives the same bytes.
///
/// Refuses slices that are empty or not in strictly rising order of (topic, partition), and more raw bytes than
/// [`limits::SEGMENT_RAW_BYTES_MAX`].
pub fn encode(slices: &[SegmentSlice<'_>], compression: Compression) -> Result<Encoded> {
    let raw_bytes: Vec<usize> = slices.iter().map(|s| s.rows.raw_bytes()).collect();
    check(slices, &raw_bytes)?;
    let total: usize = raw_bytes.iter().sum();
    let capacity = if compression == Compression::None { total } else { total / 2 };
    let groups = cut_groups(&raw_bytes);
    let (bytes, metadata) = write(slices, &groups, compression, capacity).map_err(cannot_write)?;
    let layout = layout(&metadata, &bytes)?;
    Ok(Encoded { bytes: Bytes::from(bytes), layout, placed: places(slices, &groups) })
}

fn check(slices: &[SegmentSlice<'_>], raw_bytes: &[usize]) -> Result<()> {
    if slices.is_empty() || slices.iter().any(|s| s.rows.is_empty()) {
        return Err(Error::invalid(
            "slices",
            "a segment has at least one slice, and a slice at least one row",
        ));
    }
    if !slices.is_sorted_by(|a, b| (a.topic, a.partition) < (b.topic, b.partition)) {
        return Err(Error::invalid("slices", "not in strictly rising order of topic and partition"));
    }
    for slice in slices {
        Error::check_size("topic", slice.topic.len(), limits::TOPIC_NAME_BYTES_MAX)?;
        if i32::try_from(slice.partition).is_err() {
            return Err(Error::invalid("partition", format!("{} is above {}", slice.partition, i32::MAX)));
        }
    }
    Error::check_size("segment", raw_bytes.iter().sum(), limits::SEGMENT_RAW_BYTES_MAX)
}

/// Which slices share a row group: one of at least [`limits::ROW_GROUP_OWN_BYTES`] has its own, smaller neighbours
/// share one of at most [`limits::ROW_GROUP_SHARED_BYTES_MAX`].
fn cut_groups(raw_bytes: &[usize]) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    // Raw bytes of the last group while it may still grow.
    let mut open: Option<usize> = None;
    for (i, &bytes) in raw_bytes.iter().enumerate() {
        let small = bytes < limits::ROW_GROUP_OWN_BYTES;
        match (open, groups.last_mut()) {
            (Some(before), Some(last)) if small && before + bytes <= limits::ROW_GROUP_SHARED_BYTES_MAX => {
                last.end = i + 1;
                open = Some(before + bytes);
            }
            _ => {
                groups.push(i..i + 1);
                open = small.then_some(bytes);
            }
        }
    }
    groups
}

fn places(slices: &[SegmentSlice<'_>], groups: &[Range<usize>]) -> Vec<Place> {
    let mut placed = Vec::with_capacity(slices.len());
    let mut first_row = 0;
    for (group, members) in (0..).zip(groups) {
        for slice in &slices[members.clone()] {
            placed.push(Place { group, first_row });
            first_row += slice.rows.len() as u64;
        }
    }
    placed
}

fn write(
    slices: &[SegmentSlice<'_>],
    groups: &[Range<usize>],
    compression: Compression,
    capacity: usize,
) -> parquet::errors::Result<(Vec<u8>, ParquetMetaData)> {
    let with_headers = groups.iter().map(|members| &slices[members.clone()]);
    let with_headers: Vec<_> = with_headers.filter(|slices| has_headers(slices)).collect();
    let headers = match with_headers.is_empty() {
        true => None,
        false => Some(headers(&with_headers, compression)?),
    };
    let mut headers = headers.iter().flat_map(|(file, metadata)| {
        metadata.row_groups().iter().map(move |group| (file.as_slice(), group.columns()))
    });
    let mut file = FileBuilder::new(compression, capacity)?;
    for members in groups {
        let slices = &slices[members.clone()];
        let headers = if has_headers(slices) { headers.next() } else { None };
        write_group(&mut file, slices, headers)?;
    }
    file.finish()
}

fn has_headers(slices: &[SegmentSlice<'_>]) -> bool {
    slices.iter().any(|s| s.rows.header_lists().is_some())
}

fn write_group(
    file: &mut FileBuilder,
    slices: &[SegmentSlice<'_>],
    headers: Option<(&[u8], &[ColumnChunkMetaData])>,
) -> parquet::errors::Result<()> {
    let rows = |s: &SegmentSlice<'_>| s.rows.len() as u64;
    let all_rows = slices.iter().map(rows).sum();
    runs::write(file, &Runs::new(slices.iter().map(|s| (s.topic, rows(s)))))?;
    // Fits: checked before.
    runs::write(file, &Runs::new(slices.iter().map(|s| (s.partition as i32, rows(s)))))?;
    write_timestamps(file, slices)?;
    if slices.iter().any(|s| s.rows.key_array().null_count() < s.rows.len()) {
        write_plain(file, &plain_pages(slices, Rows::key_array))?;
    } else {
        runs::write_nothing(file, schema::KEY, all_rows)?;
    }
    match slices {
        [SegmentSlice { rows, .. }] if let Some(pages) = rows.value_pages() => write_plain(file, pages)?,
        _ => write_plain(file, &plain_pages(slices, Rows::value_array))?,
    }
    match headers {
        Some((from, columns)) => columns.iter().try_for_each(|chunk| file.adopt(chunk, from))?,
        None => {
            runs::write_nothing(file, schema::HEADER_KEY, all_rows)?;
            runs::write_nothing(file, schema::HEADER_VALUE, all_rows)?;
        }
    }
    file.close_group(all_rows)
}

fn write_timestamps(file: &mut FileBuilder, slices: &[SegmentSlice<'_>]) -> parquet::errors::Result<()> {
    let rows = slices.iter().map(|s| s.rows.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(rows * size_of::<i64>());
    for slice in slices {
        slice.rows.timestamps_us().iter().for_each(|time| bytes.extend_from_slice(&time.to_le_bytes()));
    }
    let mut column = file.column();
    for page in bytes.chunks(plain::PAGE_BYTES) {
        column.packed_page(page, page.len() / size_of::<i64>())?;
    }
    let ranges = slices.iter().filter_map(|s| s.rows.time_range());
    let range = ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
    column.close(Some(Statistics::int64(range.map(|r| r.0), range.map(|r| r.1), None, Some(0), false)))
}

fn write_plain(file: &mut FileBuilder, pages: &[PlainPage]) -> parquet::errors::Result<()> {
    let mut column = file.column();
    pages.iter().try_for_each(|page| column.packed_page(page.body(), page.rows()))?;
    column.close(None)
}

/// Pages of a column that is not there as such: it came from elsewhere, or is put together from several slices.
fn plain_pages(slices: &[SegmentSlice<'_>], column: fn(&Rows) -> &BinaryViewArray) -> Vec<PlainPage> {
    let bytes = slices.iter().map(|s| Rows::plain_bytes(column(&s.rows))).sum();
    let mut pages = PlainBuilder::with_capacity(bytes);
    slices.iter().flat_map(|s| column(&s.rows).iter()).for_each(|value| pages.push(value));
    pages.pages()
}

/// A file of the headers alone, by the generic writer: a row group for each that has some, from which their column
/// chunks are taken over.
fn headers(
    groups: &[&[SegmentSlice<'_>]],
    compression: Compression,
) -> parquet::errors::Result<(Vec<u8>, ParquetMetaData)> {
    let field = schema::arrow().field(schema::HEADER_KEY).clone();
    let only = Arc::new(Schema::new(vec![field.clone()]));
    let root = ArrowSchemaConverter::new().convert(&only)?.root_schema_ptr();
    let mut bytes = Vec::new();
    let mut file = SerializedFileWriter::new(&mut bytes, root, schema::writer_properties(compression))?;
    for (i, slices) in groups.iter().enumerate() {
        let mut leaves = ArrowRowGroupWriterFactory::new(&file, only.clone()).create_column_writers(i)?;
        for slice in *slices {
            let lists = slice.rows.header_lists().cloned();
            let column: ArrayRef = Arc::new(lists.unwrap_or_else(|| no_headers(slice.rows.len())));
            let values = compute_leaves(&field, &column)?;
            leaves.iter_mut().zip(&values).try_for_each(|(leaf, values)| leaf.write(values))?;
        }
        let mut group = file.next_row_group()?;
        leaves.into_iter().try_for_each(|leaf| leaf.close()?.append_to_row_group(&mut group))?;
        group.close()?;
    }
    let metadata = file.close()?;
    Ok((bytes, metadata))
}

fn no_headers(rows: usize) -> ListArray {
    let none = StructArray::new_null(schema::header_fields(), 0);
    ListArray::new(schema::header_element(), OffsetBuffer::new_zeroed(rows), Arc::new(none), None)
}

/// Positions from the Parquet metadata, checked to be end to end.
pub(super) fn layout(metadata: &ParquetMetaData, file: &[u8]) -> Result<Layout> {
    let mut groups = Vec::with_capacity(metadata.num_row_groups());
    let mut position = schema::MAGIC.len();
    for group in metadata.row_groups() {
        let length = usize::try_from(group.compressed_size()).map_err(cannot_write)?;
        groups.push(Span::of(file, position, position + length)?);
        position += length;
    }
    let layout = Layout { groups, footer: Span::of(file, position, file.len())? };
    layout.check()?;
    Ok(layout)
}

/// Parquet refuses what is checked already. Should it refuse more, the rows at hand are what it does not like.
fn cannot_write(error: impl std::fmt::Display) -> Error {
    Error::invalid("slices", format!("cannot be written as Parquet: {error}"))
}
