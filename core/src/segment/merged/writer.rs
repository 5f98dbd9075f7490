//! Rows with their offsets → a merged segment.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int64Array, ListArray, StructArray, TimestampMicrosecondArray, new_empty_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::DataType;
use bytes::Bytes;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::file::metadata::KeyValue;
use parquet::file::writer::SerializedFileWriter;

use super::{METADATA_KEY, Metadata, same, schema};
use crate::batch::Rows;
use crate::error::{Error, Result};
use crate::ledger::action::TimestampType;
use crate::limits;
use crate::record::{Offset, TopicId};
use crate::segment::runs::Runs;
use crate::segment::schema::{MAGIC, header_struct};
use crate::segment::{Compression, Span, crc32c};

/// Consecutive records of one partition that were appended together.
#[derive(Debug, Clone)]
pub struct MergedPart {
    /// Partition.
    pub partition: u32,
    /// Offset of the first.
    pub base: Offset,
    /// Append time, ms.
    pub append_ms: i64,
    /// Whose time their timestamp is.
    pub time_type: TimestampType,
    /// At least one.
    pub rows: Rows,
}

impl MergedPart {
    /// One past the last offset.
    pub fn end(&self) -> Offset {
        self.base + self.rows.len() as u64
    }
}

/// Where the records of one partition were put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MergedRange {
    /// Partition.
    pub partition: u32,
    /// First offset.
    pub base: Offset,
    /// One past the last.
    pub end: Offset,
    /// First row group and how many.
    pub groups: (u32, u32),
}

/// A finished merged segment.
#[derive(Debug, Clone)]
pub struct MergedSegment {
    /// The whole file, in pieces: the magic and the first row group, each further one, and all that follows. Without those
    /// that were [taken](MergedWriter::take) before.
    pub parts: Vec<Bytes>,
    /// Where its footer is.
    pub footer: Span,
    /// One a partition, in order.
    pub ranges: Vec<MergedRange>,
}

impl MergedSegment {
    /// Its size in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.footer.end()
    }

    /// The whole file in one piece: a copy.
    pub fn file(&self) -> Bytes {
        self.parts.concat().into()
    }

    /// The bytes of its footer or of one of its row groups, without a copy. Not verified yet.
    ///
    /// # Errors
    /// `Damaged`: the span is none of these.
    pub fn cut(&self, span: Span) -> Result<Bytes> {
        let here: usize = self.parts.iter().map(Bytes::len).sum();
        let mut position = self.file_bytes().saturating_sub(here as u64);
        for part in &self.parts {
            let from = u64::from(span.position).wrapping_sub(position);
            position += part.len() as u64;
            if span.end() <= position && from < part.len() as u64 {
                return Ok(part.slice(from as usize..from as usize + span.length as usize));
            }
        }
        let detail = format!("no row group lies in the bytes {}..{}", span.position, span.end());
        Err(Error::damaged("merged segment", detail))
    }
}

/// Writes one merged segment.
pub struct MergedWriter {
    topic: String,
    compression: Compression,
    bloom: bool,
    file: SerializedFileWriter<Vec<u8>>,
    /// The row groups that are closed, and not taken: the writer holds only what comes behind them.
    parts: Vec<Bytes>,
    metadata: Metadata,
    open: OpenGroup,
    begun: Option<Begun>,
    ranges: Vec<MergedRange>,
}

/// The row group that is written.
#[derive(Default)]
struct OpenGroup {
    raw_bytes: usize,
    rows: u64,
    /// The leaves that are written row by row, and some that are not; none before the first row.
    leaves: Vec<ArrowColumnWriter>,
    /// What is the same for so many rows.
    runs: Vec<(Same, u64)>,
}

/// What all records of a part have in common.
#[derive(Clone, Copy, PartialEq)]
struct Same {
    partition: i32,
    append_us: i64,
    time_type: i32,
}

/// A partition of which not all parts have come yet.
struct Begun {
    partition: u32,
    base: Offset,
    next: Offset,
    raw_bytes: usize,
    /// The first of its own row groups, once it is large enough to have any.
    own_from: Option<u32>,
    /// What came before.
    held: Vec<MergedPart>,
}

impl MergedWriter {
    /// For a topic; `bloom`: with a bloom filter on the key.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn new(topic: &str, id: TopicId, compression: Compression, bloom: bool) -> Result<Self> {
        let metadata = Metadata { version: 1, topic: id.to_string(), groups: Vec::new(), ranges: Vec::new() };
        Ok(Self {
            topic: topic.to_owned(),
            compression,
            bloom,
            file: open(compression, bloom, false)?,
            parts: Vec::new(),
            metadata,
            open: OpenGroup::default(),
            begun: None,
            ranges: Vec::new(),
        })
    }

    /// Adds records. Partitions come in rising order, the parts of each in order and without a gap.
    ///
    /// # Errors
    /// `Invalid`: they do not.
    pub fn push(&mut self, part: MergedPart) -> Result<()> {
        let before = self.ranges.last().map(|range| range.partition);
        let (at, follows) = match &self.begun {
            Some(begun) if begun.partition == part.partition => (begun.partition, begun.next == part.base),
            Some(begun) => (part.partition, begun.partition < part.partition),
            None => (part.partition, before.is_none_or(|before| before < part.partition)),
        };
        if !follows {
            return Err(Error::invalid("partition", format!("{at} comes after a later one, or has a gap")));
        }
        if self.begun.as_ref().is_none_or(|begun| begun.partition != part.partition) {
            self.close_partition()?;
        }
        let (partition, base) = (part.partition, part.base);
        let begun = self.begun.get_or_insert(Begun {
            partition,
            base,
            next: base,
            raw_bytes: 0,
            own_from: None,
            held: Vec::new(),
        });
        begun.next = part.end();
        begun.raw_bytes += part.rows.raw_bytes();
        let is_large = begun.raw_bytes >= limits::ROW_GROUP_OWN_BYTES;
        if begun.own_from.is_some() {
            return self.rows(&part);
        }
        begun.held.push(part);
        if !is_large {
            return Ok(());
        }
        let held = std::mem::take(&mut begun.held);
        self.close_group()?;
        self.choose(&held)?;
        let first = self.metadata.groups.len() as u32;
        if let Some(begun) = &mut self.begun {
            begun.own_from = Some(first);
        }
        held.iter().try_for_each(|part| self.rows(part))
    }

    /// All parts of a partition are there.
    fn close_partition(&mut self) -> Result<()> {
        let Some(begun) = self.begun.take() else { return Ok(()) };
        let first = match begun.own_from {
            Some(first) => {
                self.close_group()?;
                first
            }
            None => {
                if self.open.raw_bytes + begun.raw_bytes > limits::ROW_GROUP_SHARED_BYTES_MAX {
                    self.close_group()?;
                }
                let first = self.metadata.groups.len() as u32;
                self.choose(&begun.held)?;
                begun.held.iter().try_for_each(|part| self.rows(part))?;
                first
            }
        };
        let end = self.metadata.groups.len() as u32 + u32::from(self.open.rows > 0);
        let Begun { partition, base, next, .. } = begun;
        self.ranges.push(MergedRange { partition, base, end: next, groups: (first, end - first) });
        Ok(())
    }

    /// How the file is encoded, by the first of what is written.
    fn choose(&mut self, first: &[MergedPart]) -> Result<()> {
        if self.open.rows == 0 && self.metadata.groups.is_empty() && times_repeat(first) {
            self.file = open(self.compression, self.bloom, true)?;
        }
        Ok(())
    }

    fn rows(&mut self, part: &MergedPart) -> Result<()> {
        let same = Same::of(part)?;
        let mut from = 0;
        while from < part.rows.len() {
            let room = limits::MERGED_GROUP_RAW_BYTES.saturating_sub(self.open.raw_bytes);
            let rows_max = limits::MERGED_GROUP_ROWS - self.open.rows as usize;
            // One row at least, however large it is.
            let (fit, bytes) = part.rows.fitting(from, rows_max, room);
            if fit == 0 && self.open.rows > 0 {
                self.close_group()?;
                continue;
            }
            let take = fit.max(1);
            for at in (from..from + take).step_by(limits::MERGED_BATCH_ROWS) {
                let columns = columns(part, at, limits::MERGED_BATCH_ROWS.min(from + take - at))?;
                self.write(&columns).map_err(cannot_write)?;
            }
            self.open.runs.push((same, take as u64));
            self.open.raw_bytes += bytes;
            self.open.rows += take as u64;
            from += take;
            if self.open.rows as usize >= limits::MERGED_GROUP_ROWS || fit == 0 {
                self.close_group()?;
            }
        }
        Ok(())
    }

    /// Writes rows of the columns that are written row by row.
    fn write(&mut self, columns: &[(usize, ArrayRef)]) -> parquet::errors::Result<()> {
        if self.open.leaves.is_empty() {
            let leaves = ArrowRowGroupWriterFactory::new(&self.file, schema::arrow());
            self.open.leaves = leaves.create_column_writers(self.metadata.groups.len())?;
        }
        for (column, rows) in columns {
            let values = compute_leaves(schema::arrow().field(*column), rows)?;
            // One leaf each, but for the headers, which come last and have two.
            let leaves = self.open.leaves[*column..].iter_mut();
            leaves.zip(&values).try_for_each(|(leaf, values)| leaf.write(values))?;
        }
        Ok(())
    }

    fn close_group(&mut self) -> Result<()> {
        if self.open.rows == 0 {
            return Ok(());
        }
        let open = std::mem::take(&mut self.open);
        let rows = open.rows;
        self.write_group(open).map_err(cannot_write)?;
        let part = std::mem::take(self.file.inner_mut());
        let magic = if self.metadata.groups.is_empty() { MAGIC.len() } else { 0 };
        let span = span_behind(&self.metadata, &part[magic..])?;
        self.parts.push(part.into());
        self.metadata.groups.push((span.position, span.length, span.crc, rows));
        Ok(())
    }

    /// The pieces of the file that are ready: for whoever sends them while it is made.
    pub fn take(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.parts)
    }

    fn write_group(&mut self, open: OpenGroup) -> parquet::errors::Result<()> {
        // About what it will take.
        let size = open.leaves.iter().map(ArrowColumnWriter::get_estimated_total_bytes).sum::<usize>();
        self.file.inner_mut().reserve(size + size / 16);
        let mut group = self.file.next_row_group()?;
        let codec = self.compression;
        let runs = || open.runs.iter().copied();
        for (leaf, writer) in open.leaves.into_iter().enumerate() {
            match leaf {
                schema::TOPIC => {
                    let topics = Runs::new(std::iter::once((self.topic.as_str(), open.rows)));
                    same::append(&mut group, leaf, &topics, codec)?;
                }
                schema::PARTITION => {
                    let partitions = Runs::new(runs().map(|(same, rows)| (same.partition, rows)));
                    same::append(&mut group, leaf, &partitions, codec)?;
                }
                schema::APPEND_TIME => {
                    let times = Runs::new(runs().map(|(same, rows)| (same.append_us, rows)));
                    same::append(&mut group, leaf, &times, codec)?;
                }
                schema::TIMESTAMP_TYPE => {
                    let types = Runs::new(runs().map(|(same, rows)| (same.time_type, rows)));
                    same::append(&mut group, leaf, &types, codec)?;
                }
                schema::KEY => writer.close()?.append_to_row_group(&mut group)?,
                _ => {
                    let mut chunk = writer.close()?;
                    // Which pages have the dictionary's encoding: engines ask where they look for a key. For each other column it is
                    // only read: DuckDB's count, which reads footers alone, took 1.2 times as long with it.
                    let metadata = chunk.close().metadata.clone().into_builder();
                    chunk.close_mut().metadata = metadata.clear_page_encoding_stats().build()?;
                    chunk.append_to_row_group(&mut group)?;
                }
            }
        }
        group.close()?;
        self.file.flush()?;
        Ok(())
    }

    /// The file.
    ///
    /// # Errors
    /// `Invalid`: it has no record.
    pub fn finish(mut self) -> Result<MergedSegment> {
        self.close_partition()?;
        self.close_group()?;
        if self.metadata.groups.is_empty() {
            return Err(Error::invalid("parts", "a merged segment has at least one record"));
        }
        let range =
            |range: &MergedRange| (range.partition, range.base, range.end, range.groups.0, range.groups.1);
        self.metadata.ranges = self.ranges.iter().map(range).collect();
        let json = serde_json::to_string(&self.metadata).map_err(cannot_write)?;
        self.file.append_key_value_metadata(KeyValue::new(METADATA_KEY.to_owned(), json));
        // All but what was taken from it.
        let rest = self.file.into_inner().map_err(cannot_write)?;
        let footer = span_behind(&self.metadata, &rest)?;
        self.parts.push(rest.into());
        Ok(MergedSegment { parts: self.parts, footer, ranges: self.ranges })
    }
}

impl std::fmt::Debug for MergedWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MergedWriter").field("topic", &self.topic).finish_non_exhaustive()
    }
}

fn open(compression: Compression, bloom: bool, times_repeat: bool) -> Result<SerializedFileWriter<Vec<u8>>> {
    let properties = schema::writer_properties(compression, bloom, times_repeat);
    let root = schema::parquet().root_schema_ptr();
    SerializedFileWriter::new(Vec::new(), root, properties.into()).map_err(cannot_write)
}

/// Whether so many neighbours have the same timestamp that a dictionary of them is worth its room.
fn times_repeat(parts: &[MergedPart]) -> bool {
    let rows = parts.iter().map(|part| part.rows.len()).sum::<usize>();
    let mut times = parts.iter().flat_map(|part| part.rows.timestamps_us());
    let mut before = times.next();
    let other = times.filter(|time| before.replace(time) != Some(time)).count();
    rows >= limits::MERGED_TIMES_REPEAT * (1 + other)
}

/// Of bytes that follow the row groups.
fn span_behind(metadata: &Metadata, bytes: &[u8]) -> Result<Span> {
    let behind = |(position, length, ..): &(u32, u32, u32, u64)| u64::from(*position) + u64::from(*length);
    let position = metadata.groups.last().map_or(MAGIC.len() as u64, behind);
    let end = position + bytes.len() as u64;
    if end > limits::MERGED_BYTES_MAX as u64 {
        let limit = limits::MERGED_BYTES_MAX as u64;
        return Err(Error::TooLarge { field: "merged segment", size: end, limit });
    }
    // Fits: the limit is below 4 GiB.
    Ok(Span { position: position as u32, length: bytes.len() as u32, crc: crc32c(bytes) })
}

impl Same {
    fn of(part: &MergedPart) -> Result<Self> {
        let partition = i32::try_from(part.partition)
            .map_err(|_| Error::invalid("partition", format!("{} is above {}", part.partition, i32::MAX)))?;
        let time_type = match part.time_type {
            TimestampType::CreateTime => 0,
            TimestampType::LogAppendTime => 1,
        };
        Ok(Self { partition, append_us: part.append_ms.saturating_mul(1_000), time_type })
    }
}

/// The columns that are written row by row, each with its place in the schema.
fn columns(part: &MergedPart, from: usize, len: usize) -> Result<[(usize, ArrayRef); 5]> {
    let rows = part.rows.slice(from, len);
    let base = part.base + from as u64;
    let number = |value: u64| {
        i64::try_from(value).map_err(|_| Error::invalid("offset", format!("{value} is above {}", i64::MAX)))
    };
    let (first, end) = (number(base)?, number(base + len as u64)?);
    let timestamps = TimestampMicrosecondArray::new(rows.timestamps(), None).with_timezone("UTC");
    Ok([
        (schema::OFFSET, Arc::new(Int64Array::from_iter_values(first..end))),
        (schema::TIMESTAMP, Arc::new(timestamps)),
        (schema::KEY, Arc::new(rows.key_array().clone())),
        (schema::VALUE, Arc::new(rows.value_array().clone())),
        (schema::HEADERS, Arc::new(headers(&rows))),
    ])
}

/// The headers with the field ids of this schema.
fn headers(rows: &Rows) -> ListArray {
    let list = rows.header_lists();
    let columns = list.and_then(header_struct).map_or_else(
        || vec![new_empty_array(&DataType::Utf8), new_empty_array(&DataType::BinaryView)],
        |structs| structs.columns().to_vec(),
    );
    let offsets = list.map_or_else(|| OffsetBuffer::new_zeroed(rows.len()), |list| list.offsets().clone());
    let structs = StructArray::new(schema::header_fields(), columns, None);
    ListArray::new(schema::header_element(), offsets, Arc::new(structs), None)
}

fn cannot_write(error: impl std::fmt::Display) -> Error {
    Error::invalid("parts", format!("cannot be written as Parquet: {error}"))
}
