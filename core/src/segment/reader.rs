//! Bytes → verified → [`Footer`] → [`Group`] → rows of one slice.
//!
//! Nothing is parsed before its CRC has matched, nothing is allocated before its size is bounded, and no row is
//! handed out before its topic and partition are compared with the slice's.

use std::sync::Arc;

use arrow::array::{
    Array, AsArray, BinaryViewArray, DictionaryArray, Int32Array, ListArray, RecordBatch, StringArray,
};
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use bytes::{Buf, Bytes};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Compression as Codec;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length};

use super::{Layout, Span, guarded, pages, schema};
use crate::batch::Rows;
use crate::error::{Error, Result};
use crate::limits;

/// A segment's footer: verified, parsed, and found to be ours. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Footer {
    groups: Arc<[FooterGroup]>,
    metadata: ArrowReaderMetadata,
}

#[derive(Debug, Clone, Copy)]
struct FooterGroup {
    span: Span,
    first_row: u64,
    rows: usize,
}

/// A decoded row group.
#[derive(Debug, Clone)]
pub struct Group {
    first_row: u64,
    topics: DictionaryArray<Int32Type>,
    partitions: Int32Array,
    rows: Rows,
}

impl Footer {
    /// Parses the bytes of `layout.footer`. Length and CRC first; then schema, positions, row counts and sizes must
    /// be what our writer makes. [`Error::Newer`] if a newer version of the format wrote it.
    pub fn parse(bytes: &Bytes, layout: &Layout) -> Result<Self> {
        layout.check()?;
        layout.footer.verify("segment footer", bytes)?;
        Self::parse_verified(bytes, layout)
    }

    /// [`Self::parse`] without the CRC, so that tests can reach what lies behind it.
    pub(super) fn parse_verified(bytes: &Bytes, layout: &Layout) -> Result<Self> {
        guarded("segment footer", || {
            let damaged = |detail: String| Error::damaged("segment footer", detail);
            let tail = metadata_bytes(bytes).filter(|(before, _)| before.is_empty());
            let (_, metadata_bytes) = tail.ok_or_else(|| damaged("no Parquet tail".into()))?;
            let metadata = ParquetMetaDataReader::decode_metadata(metadata_bytes);
            let metadata = metadata.map_err(|e| damaged(e.to_string()))?;
            check_format(&metadata)?;
            let groups = check_groups(&metadata, layout).map_err(damaged)?;
            let options =
                ArrowReaderOptions::new().with_skip_arrow_metadata(true).with_schema(schema::arrow());
            let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), options);
            Ok(Self { groups: groups.into(), metadata: metadata.map_err(|e| damaged(e.to_string()))? })
        })
    }

    /// How many row groups.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// How many rows.
    pub fn rows(&self) -> u64 {
        self.groups.last().map_or(0, |g| g.first_row + g.rows as u64)
    }

    /// What it costs to keep in memory, about.
    pub fn memory_bytes(&self) -> usize {
        self.metadata.metadata().memory_size() + std::mem::size_of_val(&*self.groups)
    }
}

/// What comes before the footer metadata, and that without its own length and the magic.
pub(super) fn metadata_bytes(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (bytes, magic) = bytes.split_last_chunk::<4>()?;
    let (bytes, length) = bytes.split_last_chunk::<4>()?;
    let at = bytes.len().checked_sub(u32::from_le_bytes(*length) as usize)?;
    (magic == schema::MAGIC).then(|| bytes.split_at(at))
}

fn check_format(metadata: &ParquetMetaData) -> Result<()> {
    let file = metadata.file_metadata();
    let version = file.created_by().and_then(|by| by.strip_prefix(schema::CREATED_BY)?.parse::<u32>().ok());
    match version {
        Some(version) if version > schema::FORMAT_VERSION => {
            return Err(Error::Newer { what: format!("segment format {version}") });
        }
        Some(1..=schema::FORMAT_VERSION) => {}
        _ => return Err(Error::damaged("segment footer", "not written by tidelog")),
    }
    if file.schema_descr().root_schema() != schema::parquet().root_schema() {
        return Err(Error::damaged("segment footer", "the columns are not ours"));
    }
    Ok(())
}

fn check_groups(metadata: &ParquetMetaData, layout: &Layout) -> Result<Vec<FooterGroup>, String> {
    if metadata.num_row_groups() != layout.groups.len() {
        return Err(format!("{} row groups, must be {}", metadata.num_row_groups(), layout.groups.len()));
    }
    let mut first_row = 0;
    let mut groups = Vec::with_capacity(layout.groups.len());
    for (group, span) in metadata.row_groups().iter().zip(&layout.groups) {
        let rows = check_group(group, span)?;
        groups.push(FooterGroup { span: *span, first_row, rows });
        first_row += rows as u64;
        if first_row > limits::SEGMENT_ROWS_MAX as u64 {
            return Err(format!("more than {} rows", limits::SEGMENT_ROWS_MAX));
        }
    }
    Ok(groups)
}

/// The columns lie end to end in the span, and their sizes bound what they decode to.
fn check_group(group: &RowGroupMetaData, span: &Span) -> Result<usize, String> {
    let rows = usize::try_from(group.num_rows()).map_err(|_| "a negative row count")?;
    if rows == 0 || rows > limits::SEGMENT_ROWS_MAX || group.num_columns() != schema::LEAVES {
        return Err(format!("a row group of {rows} rows and {} columns", group.num_columns()));
    }
    let mut next = u64::from(span.position);
    let mut uncompressed = 0u64;
    for (leaf, chunk) in group.columns().iter().enumerate() {
        let (start, length) = chunk.byte_range();
        if start != next {
            return Err(format!("column {leaf} at {start}, expected at {next}"));
        }
        next = next.checked_add(length).ok_or("a column too long")?;
        let size = u64::try_from(chunk.uncompressed_size()).map_err(|_| "a negative size")?;
        uncompressed = uncompressed.saturating_add(size);
        let values = u64::try_from(chunk.num_values()).map_err(|_| "a negative count")?;
        let allowed = match leaf {
            // A header takes at least the four bytes of its key's length; a row without one is a value, too.
            schema::HEADER_KEY => rows as u64 <= values && values - rows as u64 <= size / 4,
            schema::HEADER_VALUE => values == group.column(schema::HEADER_KEY).num_values() as u64,
            // Plain and required: eight bytes each, which bounds the rows.
            schema::TIMESTAMP => values == rows as u64 && values <= size / 8,
            _ => values == rows as u64,
        };
        if !allowed {
            return Err(format!("column {leaf} has {values} values in {size} bytes for {rows} rows"));
        }
        if !matches!(
            chunk.compression(),
            Codec::UNCOMPRESSED | Codec::LZ4_RAW | Codec::SNAPPY | Codec::ZSTD(_)
        ) {
            return Err(format!("column {leaf} has the codec {}", chunk.compression()));
        }
    }
    if next != span.end() || uncompressed > limits::SEGMENT_BYTES_MAX as u64 {
        return Err(format!(
            "a row group up to byte {next}, {uncompressed} uncompressed; expected {}",
            span.end()
        ));
    }
    Ok(rows)
}

/// Decodes row group `group` from the bytes of its span. Length and CRC first.
pub fn decode_group(footer: &Footer, group: u32, bytes: &Bytes) -> Result<Group> {
    footer.group(group)?.span.verify("segment row group", bytes)?;
    decode_verified(footer, group, bytes)
}

/// [`decode_group`] without the CRC, so that tests can reach what lies behind it.
pub(super) fn decode_verified(footer: &Footer, group: u32, bytes: &Bytes) -> Result<Group> {
    let at = footer.group(group)?;
    let damaged = |detail: String| Error::damaged("segment row group", detail);
    guarded("segment row group", || {
        let metadata = footer.metadata.metadata().row_group(group as usize);
        pages::check(metadata, u64::from(at.span.position), bytes).map_err(damaged)?;
        let batch = read(footer, group, at, bytes).map_err(|e| damaged(e.to_string()))?;
        if batch.num_rows() != at.rows {
            return Err(damaged(format!("{} rows, the footer says {}", batch.num_rows(), at.rows)));
        }
        Group::from_batch(at.first_row, &batch)
            .ok_or_else(|| damaged("columns of other types than ours".into()))
    })
}

fn read(footer: &Footer, group: u32, at: FooterGroup, bytes: &Bytes) -> Result<RecordBatch, ParquetError> {
    let window = Window { position: u64::from(at.span.position), bytes: bytes.clone() };
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(window, footer.metadata.clone())
        .with_row_groups(vec![group as usize])
        // One batch: nothing has to be put together afterwards.
        .with_batch_size(at.rows)
        .build()?
        .next();
    reader.ok_or_else(|| ParquetError::General("no rows".into()))?.map_err(ParquetError::from)
}

impl Footer {
    fn group(&self, group: u32) -> Result<FooterGroup> {
        self.groups.get(group as usize).copied().ok_or_else(|| {
            Error::damaged("segment", format!("row group {group} asked for, there are {}", self.groups.len()))
        })
    }
}

impl Group {
    /// `None` if a column has another type than ours.
    fn from_batch(first_row: u64, batch: &RecordBatch) -> Option<Self> {
        fn column<T: Array + Clone + 'static>(batch: &RecordBatch, name: &str) -> Option<T> {
            batch.column_by_name(name)?.as_any().downcast_ref::<T>().cloned()
        }
        let timestamps = batch.column_by_name("timestamp")?.as_primitive_opt::<TimestampMicrosecondType>()?;
        Some(Self {
            first_row,
            topics: column(batch, "topic")?,
            partitions: column(batch, "partition")?,
            rows: Rows::from_columns(
                timestamps.values().clone(),
                column::<BinaryViewArray>(batch, "key")?,
                column::<BinaryViewArray>(batch, "value")?,
                Some(column::<ListArray>(batch, "headers")?),
            ),
        })
    }

    /// The rows of a slice, from `first_row` of the whole file. Refuses them unless every one is of `topic` and
    /// `partition`.
    pub fn slice(&self, topic: &str, partition: u32, first_row: u64, rows: u64) -> Result<Rows> {
        let len = self.rows.len() as u64;
        let from = first_row.checked_sub(self.first_row).filter(|from| *from <= len && rows <= len - from);
        let Some(from) = from else {
            let have = format!("rows {}..{}", self.first_row, self.first_row + len);
            return Err(Error::damaged(
                "segment slice",
                format!("{rows} rows from {first_row}, the group has {have}"),
            ));
        };
        // Both fit: they are at most the length of an array.
        let (from, rows) = (from as usize, rows as usize);
        if !self.is_all(topic, partition, from, rows) {
            let detail = format!("rows {first_row}.. are not all of {topic}/{partition}");
            return Err(Error::damaged("segment slice", detail));
        }
        Ok(self.rows.slice(from, rows))
    }

    fn is_all(&self, topic: &str, partition: u32, from: usize, rows: usize) -> bool {
        let keys = &self.topics.keys().values()[from..from + rows];
        let Some(&key) = keys.first() else { return true };
        let names = self.topics.values().as_any().downcast_ref::<StringArray>();
        let name = names.and_then(|n| usize::try_from(key).ok().filter(|k| *k < n.len()).map(|k| n.value(k)));
        let partitions = &self.partitions.values()[from..from + rows];
        name == Some(topic)
            && keys.iter().all(|k| *k == key)
            && i32::try_from(partition).is_ok_and(|p| partitions.iter().all(|q| *q == p))
    }

    /// All rows of the group, whatever their topic and partition. For those who look at a file, not at a log.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }
}

/// The bytes of one row group, at their place in the file.
pub(super) struct Window {
    pub(super) position: u64,
    pub(super) bytes: Bytes,
}

impl Window {
    fn index(&self, position: u64, length: usize) -> Result<usize, ParquetError> {
        let from = position.checked_sub(self.position).and_then(|from| usize::try_from(from).ok());
        from.filter(|from| from.checked_add(length).is_some_and(|end| end <= self.bytes.len())).ok_or_else(
            || ParquetError::EOF(format!("{length} bytes at {position} are outside the row group")),
        )
    }
}

impl Length for Window {
    fn len(&self) -> u64 {
        self.position + self.bytes.len() as u64
    }
}

impl ChunkReader for Window {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.bytes.slice(self.index(start, 0)?..).reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let from = self.index(start, length)?;
        Ok(self.bytes.slice(from..from + length))
    }
}
