//! Slices → row groups → bytes.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, DictionaryArray, Int32Array, ListArray, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::Int32Type;
use bytes::Bytes;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::writer::SerializedFileWriter;

use super::schema::{self, Filled};
use super::{Compression, Layout, Span};
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
    let (metadata, placed) = write(slices, &cut_groups(&raw_bytes), compression, &mut bytes)?;
    let layout = layout(&metadata, &bytes)?;
    Ok(Encoded { bytes: Bytes::from(bytes), layout, placed })
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

fn write(
    slices: &[SegmentSlice<'_>],
    groups: &[Range<usize>],
    compression: Compression,
    out: &mut Vec<u8>,
) -> Result<(ParquetMetaData, Vec<Place>)> {
    let root = schema::parquet().root_schema_ptr();
    let properties = schema::writer_properties(compression, filled(slices));
    let mut file = SerializedFileWriter::new(out, root, properties).map_err(cannot_write)?;
    let factory = ArrowRowGroupWriterFactory::new(&file, schema::arrow());
    let mut columns = SharedColumns::new(slices);
    let mut placed = Vec::with_capacity(slices.len());
    let mut first_row = 0;
    for (group, members) in groups.iter().enumerate() {
        let mut leaves = factory.create_column_writers(group).map_err(cannot_write)?;
        for slice in &slices[members.clone()] {
            placed.push(Place { group: group as u32, first_row });
            first_row += slice.rows.len() as u64;
            write_slice(&mut leaves, &columns.of(slice)?).map_err(cannot_write)?;
        }
        close_group(&mut file, leaves).map_err(cannot_write)?;
    }
    Ok((file.finish().map_err(cannot_write)?, placed))
}

/// Which optional columns these slices have anything in.
fn filled(slices: &[SegmentSlice<'_>]) -> Filled {
    Filled {
        keys: slices.iter().any(|s| s.rows.key_array().null_count() < s.rows.len()),
        headers: slices.iter().any(|s| s.rows.header_lists().is_some()),
    }
}

fn write_slice(leaves: &mut [ArrowColumnWriter], columns: &[ArrayRef]) -> parquet::errors::Result<()> {
    let mut leaves = leaves.iter_mut();
    for (field, column) in schema::arrow().fields().iter().zip(columns) {
        for (values, leaf) in compute_leaves(field, column)?.iter().zip(&mut leaves) {
            leaf.write(values)?;
        }
    }
    Ok(())
}

fn close_group(
    file: &mut SerializedFileWriter<&mut Vec<u8>>,
    leaves: Vec<ArrowColumnWriter>,
) -> parquet::errors::Result<()> {
    let mut group = file.next_row_group()?;
    for leaf in leaves {
        leaf.close()?.append_to_row_group(&mut group)?;
    }
    group.close()?;
    Ok(())
}

/// The columns that many slices have in common, made once for the longest.
struct SharedColumns {
    /// Dictionary keys: every row of a slice has the one topic.
    zeros: ScalarBuffer<i32>,
    /// The same topic for neighbouring slices.
    topic: Option<(String, ArrayRef)>,
}

static NO_HEADERS: LazyLock<Arc<StructArray>> =
    LazyLock::new(|| Arc::new(StructArray::new_null(schema::header_fields(), 0)));

impl SharedColumns {
    fn new(slices: &[SegmentSlice<'_>]) -> Self {
        let longest = slices.iter().map(|s| s.rows.len()).max().unwrap_or(0);
        // One more, to serve as list offsets too.
        Self { zeros: ScalarBuffer::from(vec![0; longest + 1]), topic: None }
    }

    fn of(&mut self, slice: &SegmentSlice<'_>) -> Result<[ArrayRef; 6]> {
        let rows = &slice.rows;
        Ok([
            self.topic(slice.topic, rows.len())?,
            // Fits: checked before.
            Arc::new(Int32Array::from(vec![slice.partition as i32; rows.len()])),
            Arc::new(TimestampMicrosecondArray::new(rows.timestamp_buffer(), None).with_timezone("UTC")),
            Arc::new(rows.key_array().clone()),
            Arc::new(rows.value_array().clone()),
            Arc::new(rows.header_lists().cloned().unwrap_or_else(|| self.no_headers(rows.len()))),
        ])
    }

    fn topic(&mut self, topic: &str, rows: usize) -> Result<ArrayRef> {
        let name = match &self.topic {
            Some((name, array)) if name == topic => array.clone(),
            _ => {
                let array: ArrayRef = Arc::new(StringArray::from(vec![topic]));
                self.topic = Some((topic.to_owned(), array.clone()));
                array
            }
        };
        let keys = Int32Array::new(self.zeros.slice(0, rows), None);
        Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(keys, name).map_err(cannot_write)?))
    }

    fn no_headers(&self, rows: usize) -> ListArray {
        let offsets = OffsetBuffer::new(self.zeros.slice(0, rows + 1));
        ListArray::new(schema::header_element(), offsets, NO_HEADERS.clone(), None)
    }
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
