//! Slices → row groups → bytes.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ListArray, StructArray, TimestampMicrosecondArray};
use arrow::buffer::OffsetBuffer;
use bytes::Bytes;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::writer::SerializedFileWriter;

use super::runs::{self, RowGroup, Runs};
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
    let mut bytes = Vec::with_capacity(if compression == Compression::None { total } else { total / 2 });
    let groups = cut_groups(&raw_bytes);
    let metadata = write(slices, &groups, compression, &mut bytes).map_err(cannot_write)?;
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
    out: &mut Vec<u8>,
) -> parquet::errors::Result<ParquetMetaData> {
    let root = schema::parquet().root_schema_ptr();
    let mut file = SerializedFileWriter::new(out, root, schema::writer_properties(compression))?;
    let factory = ArrowRowGroupWriterFactory::new(&file, schema::arrow());
    for (i, members) in groups.iter().enumerate() {
        let leaves = factory.create_column_writers(i)?;
        write_group(file.next_row_group()?, leaves, &slices[members.clone()])?;
    }
    file.finish()
}

fn write_group(
    mut group: RowGroup<'_, '_>,
    mut leaves: Vec<ArrowColumnWriter>,
    slices: &[SegmentSlice<'_>],
) -> parquet::errors::Result<()> {
    let keys = slices.iter().any(|s| s.rows.key_array().null_count() < s.rows.len());
    let headers = slices.iter().any(|s| s.rows.header_lists().is_some());
    for slice in slices {
        write_slice(&mut leaves, &slice.rows, keys, headers)?;
    }
    let rows = |s: &SegmentSlice<'_>| s.rows.len() as u64;
    runs::write_topics(&mut group, &Runs::new(slices.iter().map(|s| (s.topic, rows(s)))))?;
    // Fits: checked before.
    runs::write_partitions(&mut group, &Runs::new(slices.iter().map(|s| (s.partition as i32, rows(s)))))?;
    for (leaf, writer) in leaves.into_iter().enumerate().skip(schema::TIMESTAMP) {
        let empty = match leaf {
            schema::KEY => !keys,
            schema::HEADER_KEY | schema::HEADER_VALUE => !headers,
            _ => false,
        };
        if empty {
            runs::write_nothing(&mut group, leaf, slices.iter().map(rows).sum())?;
        } else {
            writer.close()?.append_to_row_group(&mut group)?;
        }
    }
    group.close()?;
    Ok(())
}

fn write_slice(
    leaves: &mut [ArrowColumnWriter],
    rows: &Rows,
    keys: bool,
    headers: bool,
) -> parquet::errors::Result<()> {
    let arrow = schema::arrow();
    let mut write = |first_leaf: usize, column: ArrayRef| {
        let values = compute_leaves(arrow.field(first_leaf), &column)?;
        leaves[first_leaf..].iter_mut().zip(&values).try_for_each(|(leaf, values)| leaf.write(values))
    };
    let timestamps = TimestampMicrosecondArray::new(rows.timestamp_buffer(), None);
    write(schema::TIMESTAMP, Arc::new(timestamps.with_timezone("UTC")))?;
    if keys {
        write(schema::KEY, Arc::new(rows.key_array().clone()))?;
    }
    write(schema::VALUE, Arc::new(rows.value_array().clone()))?;
    if headers {
        let lists = rows.header_lists().cloned();
        write(schema::HEADER_KEY, Arc::new(lists.unwrap_or_else(|| no_headers(rows.len()))))?;
    }
    Ok(())
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
