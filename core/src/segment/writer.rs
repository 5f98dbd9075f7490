//! Slices → row groups → bytes.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, DictionaryArray, Int32Array, ListArray, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::Int32Type;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::file::metadata::ParquetMetaData;

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
    check(slices)?;
    let mut bytes = Vec::new();
    let mut writer = open(slices, compression, &mut bytes).map_err(cannot_write)?;
    let mut columns = SharedColumns::new(slices);
    let mut placed = Vec::with_capacity(slices.len());
    let mut first_row = 0;
    for (group, members) in cut_groups(slices).into_iter().enumerate() {
        for slice in &slices[members] {
            placed.push(Place { group: group as u32, first_row });
            first_row += slice.rows.len() as u64;
            writer.write(&columns.batch(slice)?).map_err(cannot_write)?;
        }
        writer.flush().map_err(cannot_write)?;
    }
    let metadata = writer.finish().map_err(cannot_write)?;
    drop(writer);
    let layout = layout(&metadata, &bytes)?;
    Ok(Encoded { bytes: Bytes::from(bytes), layout, placed })
}

fn check(slices: &[SegmentSlice<'_>]) -> Result<()> {
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
    let raw_bytes = slices.iter().map(|s| s.rows.raw_bytes()).sum();
    Error::check_size("segment", raw_bytes, limits::SEGMENT_RAW_BYTES_MAX)
}

/// Which slices share a row group: one of at least [`limits::ROW_GROUP_OWN_BYTES`] has its own, smaller neighbours
/// share one of at most [`limits::ROW_GROUP_SHARED_BYTES_MAX`].
fn cut_groups(slices: &[SegmentSlice<'_>]) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    // Raw bytes of the last group while it may still grow.
    let mut open: Option<usize> = None;
    for (i, slice) in slices.iter().enumerate() {
        let bytes = slice.rows.raw_bytes();
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

fn open<'a>(
    slices: &[SegmentSlice<'_>],
    compression: Compression,
    out: &'a mut Vec<u8>,
) -> parquet::errors::Result<ArrowWriter<&'a mut Vec<u8>>> {
    let raw_bytes: usize = slices.iter().map(|s| s.rows.raw_bytes()).sum();
    out.reserve(if compression == Compression::None { raw_bytes + (4 << 10) } else { raw_bytes / 2 });
    let options = ArrowWriterOptions::new()
        .with_properties(schema::writer_properties(compression))
        .with_parquet_schema(schema::parquet().clone())
        // The Arrow schema is known; a copy in each footer would only cost.
        .with_skip_arrow_metadata(true);
    ArrowWriter::try_new_with_options(out, schema::arrow(), options)
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

    fn batch(&mut self, slice: &SegmentSlice<'_>) -> Result<RecordBatch> {
        let rows = &slice.rows;
        let columns: Vec<ArrayRef> = vec![
            self.topic(slice.topic, rows.len())?,
            // Fits: checked before.
            Arc::new(Int32Array::from(vec![slice.partition as i32; rows.len()])),
            Arc::new(TimestampMicrosecondArray::new(rows.timestamp_buffer(), None).with_timezone("UTC")),
            Arc::new(rows.key_array().clone()),
            Arc::new(rows.value_array().clone()),
            Arc::new(rows.header_lists().cloned().unwrap_or_else(|| self.no_headers(rows.len()))),
        ];
        RecordBatch::try_new(schema::arrow(), columns).map_err(cannot_write)
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
