//! Verified bytes → [`MergedFooter`] → [`MergedGroup`] → rows of a partition.
//!
//! Nothing is parsed before its CRC has matched, and no row is handed out before its topic, partition and offset are
//! what they must be.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryViewArray, DictionaryArray, ListArray, RecordBatch, StringArray};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::{METADATA_KEY, MergedPart, MergedRange, Metadata, schema};
use crate::batch::Rows;
use crate::error::{Error, Result};
use crate::ledger::action::TimestampType;
use crate::limits;
use crate::record::{Offset, TopicId};
use crate::segment::reader::{Window, metadata_bytes};
use crate::segment::schema::header_struct;
use crate::segment::{Span, guarded};

const WHAT: &str = "merged segment footer";
const GROUP: &str = "merged row group";

/// The footer of a merged segment: verified, parsed, and found to be ours. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MergedFooter {
    groups: Arc<[(Span, usize)]>,
    ranges: Arc<[MergedRange]>,
    metadata: ArrowReaderMetadata,
    topic: TopicId,
}

impl MergedFooter {
    /// Parses the bytes of `span`. Length and CRC first; then schema, positions and sizes must be what our writer makes.
    ///
    /// # Errors
    /// `Newer`: a newer version of the format wrote it. Else `Damaged`.
    pub fn parse(bytes: &Bytes, span: Span) -> Result<Self> {
        check_span(span)?;
        span.verify(WHAT, bytes)?;
        Self::parse_verified(bytes, span)
    }

    /// [`Self::parse`] without the CRC, so that tests can reach what lies behind it.
    pub(super) fn parse_verified(bytes: &Bytes, span: Span) -> Result<Self> {
        guarded(WHAT, || {
            let damaged = |detail: String| Error::damaged(WHAT, detail);
            // The page index is for others.
            let (_, parquet) = metadata_bytes(bytes).ok_or_else(|| damaged("no Parquet tail".into()))?;
            let parquet = ParquetMetaDataReader::decode_metadata(parquet);
            let parquet = parquet.map_err(|error| damaged(error.to_string()))?;
            let own = check_format(&parquet)?;
            let groups = check_groups(&parquet, &own, span).map_err(damaged)?;
            let ranges = check_ranges(&own).map_err(damaged)?;
            let topic = u128::from_str_radix(&own.topic, 16).map_err(|error| damaged(error.to_string()))?;
            let options =
                ArrowReaderOptions::new().with_skip_arrow_metadata(true).with_schema(schema::arrow());
            let metadata = ArrowReaderMetadata::try_new(Arc::new(parquet), options);
            let metadata = metadata.map_err(|error| damaged(error.to_string()))?;
            Ok(Self { groups: groups.into(), ranges: ranges.into(), metadata, topic: TopicId(topic) })
        })
    }

    /// Whose records they are.
    pub fn topic(&self) -> TopicId {
        self.topic
    }

    /// Where each partition's records are, in order.
    pub fn ranges(&self) -> &[MergedRange] {
        &self.ranges
    }

    /// Where row group `group` is.
    pub fn span(&self, group: u32) -> Result<Span> {
        Ok(self.group(group)?.0)
    }

    /// Row groups in the file.
    pub fn groups(&self) -> u32 {
        self.groups.len() as u32
    }

    /// The row groups of `partition` that hold offsets of `wanted`.
    pub fn groups_of(&self, partition: u32, wanted: Range<Offset>) -> Range<u32> {
        let holds = |(_, (base, end)): &(u32, (Offset, Offset))| *base < wanted.end && *end > wanted.start;
        let mut found = self.placed(partition).filter(holds).map(|(group, _)| group);
        let Some(first) = found.next() else { return 0..0 };
        first..found.last().unwrap_or(first) + 1
    }

    /// What a row group's rows take in memory, about: as the limits of a fetch count.
    pub fn raw_bytes(&self, group: u32) -> u64 {
        let metadata = self.metadata.metadata().row_groups().get(group as usize);
        let bytes = metadata.map_or(0, |group| u64::try_from(group.total_byte_size()).unwrap_or(0));
        let rows = self.groups.get(group as usize).map_or(0, |(_, rows)| *rows);
        bytes.saturating_add((rows * limits::ROW_BYTES) as u64)
    }

    /// Bytes of a partition's row groups; of one that it shares, a share by rows.
    pub fn bytes_of(&self, partition: u32) -> u64 {
        let bytes = |(group, (base, end)): (u32, (Offset, Offset))| {
            let Some((span, rows)) = self.groups.get(group as usize) else { return 0 };
            // No more rows than the group has, so no more bytes.
            u64::from(span.length) * (end - base).min(*rows as u64) / (*rows as u64).max(1)
        };
        self.placed(partition).map(bytes).sum()
    }

    /// The offsets of `partition` in a row group.
    pub fn offsets_in(&self, group: u32, partition: u32) -> Option<(Offset, Offset)> {
        self.placed(partition).find(|(placed, _)| *placed == group).map(|(_, offsets)| offsets)
    }

    /// The row groups of a partition, each with its offsets.
    fn placed(&self, partition: u32) -> impl Iterator<Item = (u32, (Offset, Offset))> {
        let range = self.ranges.iter().find(|range| range.partition == partition);
        range.into_iter().flat_map(move |range| {
            let (first, count) = range.groups;
            let mut base = range.base;
            // A shared group is one; several belong to nobody else, and have every offset.
            (first..first.saturating_add(count)).map(move |group| {
                let rows = self.groups.get(group as usize).map_or(0, |(_, rows)| *rows as u64);
                let end = if count == 1 { range.end } else { base.saturating_add(rows) };
                (group, (std::mem::replace(&mut base, end), end))
            })
        })
    }

    /// What it costs to keep in memory, about.
    pub fn memory_bytes(&self) -> usize {
        self.metadata.metadata().memory_size() + size_of_val(&*self.groups) + size_of_val(&*self.ranges)
    }

    fn group(&self, group: u32) -> Result<(Span, usize)> {
        self.groups.get(group as usize).copied().ok_or_else(|| {
            let detail = format!("row group {group} asked for, there are {}", self.groups.len());
            Error::damaged("merged segment", detail)
        })
    }

    /// Decodes row group `group` from the bytes of its span. Length and CRC first; then every row must be of `topic`.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn decode(&self, group: u32, topic: &str, bytes: &Bytes) -> Result<MergedGroup> {
        self.span(group)?.verify(GROUP, bytes)?;
        self.decode_verified(group, topic, bytes)
    }

    /// [`Self::decode`] without length and CRC, so that the fuzzer can reach what lies behind them.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn decode_verified(&self, group: u32, topic: &str, bytes: &Bytes) -> Result<MergedGroup> {
        let rows = self.group(group)?.1;
        let mut whole = None;
        // One batch: nothing has to be put together afterwards.
        self.batches(group, topic, bytes, rows, |batch| {
            whole = Some(batch);
            Ok(())
        })?;
        whole.ok_or_else(|| Error::damaged(GROUP, "no rows"))
    }

    /// [`Self::decode`], a few rows at a time, which `look` gets in order: for whoever keeps none.
    ///
    /// # Errors
    /// `Damaged`. Those of `look`.
    pub fn look(
        &self,
        group: u32,
        topic: &str,
        bytes: &Bytes,
        look: impl FnMut(MergedGroup) -> Result<()>,
    ) -> Result<()> {
        self.span(group)?.verify(GROUP, bytes)?;
        self.batches(group, topic, bytes, limits::MERGED_BATCH_ROWS, look)
    }

    fn batches(
        &self,
        group: u32,
        topic: &str,
        bytes: &Bytes,
        batch_rows: usize,
        mut look: impl FnMut(MergedGroup) -> Result<()>,
    ) -> Result<()> {
        let (span, rows) = self.group(group)?;
        let damaged = |detail: String| Error::damaged(GROUP, detail);
        let broken = |error: ParquetError| damaged(error.to_string());
        guarded(GROUP, || {
            let window = Window { position: u64::from(span.position), bytes: bytes.clone() };
            let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(window, self.metadata.clone())
                .with_row_groups(vec![group as usize])
                .with_batch_size(batch_rows)
                .build()
                .map_err(broken)?;
            let mut read = 0;
            for batch in reader {
                let batch = batch.map_err(|error| broken(error.into()))?;
                read += batch.num_rows();
                let batch = MergedGroup::from_batch(&batch, topic);
                look(batch.ok_or_else(|| {
                    damaged(format!("columns of other types than ours, or rows not of {topic}"))
                })?)?;
            }
            match read == rows {
                true => Ok(()),
                false => Err(damaged(format!("{read} rows, the footer says {rows}"))),
            }
        })
    }
}

/// Whose records a file says it holds, by its last bytes, which nothing has verified: for sweep, which knows that the topic
/// is gone. `Err`: the footer's metadata needs so many of the last bytes.
pub fn ranges_of(tail: &Bytes) -> Result<Result<(TopicId, Vec<MergedRange>), u64>> {
    let length = tail.last_chunk::<8>().filter(|end| end.ends_with(crate::segment::schema::MAGIC));
    let length = length.and_then(|end| end.first_chunk::<4>()).map(|length| u32::from_le_bytes(*length));
    let length = length.ok_or_else(|| Error::damaged(WHAT, "no Parquet tail"))? as usize + 8;
    if length > limits::MERGED_FOOTER_BYTES_MAX {
        return Err(Error::damaged(WHAT, format!("says that it has {length} bytes")));
    }
    if length > tail.len() {
        return Ok(Err(length as u64));
    }
    guarded(WHAT, || {
        let parquet = ParquetMetaDataReader::decode_metadata(&tail[tail.len() - length..tail.len() - 8]);
        let own = check_format(&parquet.map_err(|error| Error::damaged(WHAT, error.to_string()))?)?;
        let ranges = check_ranges(&own).map_err(|detail| Error::damaged(WHAT, detail))?;
        let topic = u128::from_str_radix(&own.topic, 16);
        let topic = topic.map_err(|error| Error::damaged(WHAT, error.to_string()))?;
        Ok(Ok((TopicId(topic), ranges)))
    })
}

/// Refuses a footer that would lie beyond a limit, before it is read.
pub(crate) fn check_span(span: Span) -> Result<()> {
    let (end, length) = (span.end(), span.length as usize);
    if end > limits::MERGED_BYTES_MAX as u64 || length > limits::MERGED_FOOTER_BYTES_MAX {
        let detail = format!("a footer of {length} bytes in a file of {end}");
        return Err(Error::damaged("merged segment", detail));
    }
    Ok(())
}

fn check_format(parquet: &ParquetMetaData) -> Result<Metadata> {
    let file = parquet.file_metadata();
    let version = file.created_by().and_then(|by| by.strip_prefix(schema::CREATED_BY)?.parse::<u32>().ok());
    match version {
        Some(version) if version > schema::FORMAT_VERSION => {
            return Err(Error::Newer { what: format!("merged segment format {version}") });
        }
        Some(1..=schema::FORMAT_VERSION) => {}
        _ => return Err(Error::damaged(WHAT, "not written by tidelog's merge")),
    }
    if file.schema_descr().root_schema() != schema::parquet().root_schema() {
        return Err(Error::damaged(WHAT, "the columns are not ours"));
    }
    let own = file.key_value_metadata().into_iter().flatten().find(|entry| entry.key == METADATA_KEY);
    let own = own.and_then(|entry| entry.value.as_deref());
    let own = own.ok_or_else(|| Error::damaged(WHAT, format!("no metadata under {METADATA_KEY:?}")))?;
    serde_json::from_str(own).map_err(|error| Error::damaged(WHAT, error.to_string()))
}

/// The groups lie end to end from byte 4 to the footer, each column within its group, and their sizes bound what they
/// decode to.
fn check_groups(
    parquet: &ParquetMetaData,
    own: &Metadata,
    footer: Span,
) -> Result<Vec<(Span, usize)>, String> {
    if parquet.num_row_groups() != own.groups.len() {
        return Err(format!("{} row groups, must be {}", parquet.num_row_groups(), own.groups.len()));
    }
    let mut groups = Vec::with_capacity(own.groups.len());
    let mut next = 4u64;
    for (group, (position, length, crc, rows)) in parquet.row_groups().iter().zip(&own.groups) {
        let span = Span { position: *position, length: *length, crc: *crc };
        let rows_there = u64::try_from(group.num_rows()).unwrap_or(u64::MAX);
        if u64::from(span.position) != next || rows_there != *rows || *rows == 0 {
            return Err(format!("a row group of {rows} rows at {position}, expected at {next}"));
        }
        next = span.end();
        let mut uncompressed = 0u64;
        for (leaf, chunk) in group.columns().iter().enumerate() {
            let (start, length) = chunk.byte_range();
            if start < u64::from(span.position) || start.checked_add(length).is_none_or(|end| end > next) {
                return Err(format!("column {leaf} at {start} is outside its row group"));
            }
            uncompressed =
                uncompressed.saturating_add(u64::try_from(chunk.uncompressed_size()).unwrap_or(u64::MAX));
        }
        if *rows > limits::MERGED_GROUP_ROWS as u64 || uncompressed > limits::SEGMENT_BYTES_MAX as u64 {
            return Err(format!("a row group of {rows} rows, {uncompressed} bytes uncompressed"));
        }
        groups.push((span, *rows as usize));
    }
    match next == u64::from(footer.position) {
        true => Ok(groups),
        false => Err(format!("the row groups end at {next}, the footer begins at {}", footer.position)),
    }
}

fn check_ranges(own: &Metadata) -> Result<Vec<MergedRange>, String> {
    let ranges: Vec<MergedRange> = own
        .ranges
        .iter()
        .map(|(partition, base, end, first, count)| MergedRange {
            partition: *partition,
            base: *base,
            end: *end,
            groups: (*first, *count),
        })
        .collect();
    let fits = |range: &MergedRange| {
        let end = range.groups.0.checked_add(range.groups.1);
        range.base < range.end
            && range.groups.1 > 0
            && end.is_some_and(|end| end as usize <= own.groups.len())
    };
    match ranges.iter().all(fits) && ranges.is_sorted_by(|one, next| one.partition < next.partition) {
        true => Ok(ranges),
        false => Err("ranges that are out of order or outside the file".into()),
    }
}

/// A decoded row group.
#[derive(Debug, Clone)]
pub struct MergedGroup {
    partitions: ScalarBuffer<i32>,
    offsets: ScalarBuffer<i64>,
    append_us: ScalarBuffer<i64>,
    time_types: ScalarBuffer<i32>,
    rows: Rows,
}

/// Consecutive records that were appended under one rule: at one time, where it is the time of the append that counts.
#[derive(Debug, Clone)]
pub struct MergedRun {
    /// Offset of the first.
    pub base: Offset,
    /// Append time of the first, µs.
    pub append_us: i64,
    /// Whose time their timestamp is.
    pub time_type: TimestampType,
    /// The records.
    pub rows: Rows,
}

impl MergedRun {
    /// The place of the first record whose time is `time_us` or later.
    pub fn first_at(&self, time_us: i64) -> Option<usize> {
        match self.time_type {
            TimestampType::LogAppendTime => (self.append_us >= time_us).then_some(0),
            TimestampType::CreateTime => self.rows.timestamps_us().iter().position(|time| *time >= time_us),
        }
    }
}

impl MergedGroup {
    /// `None` if a column has another type than ours, or a row is of another topic.
    fn from_batch(batch: &RecordBatch, topic: &str) -> Option<Self> {
        fn column<T: Array + Clone + 'static>(batch: &RecordBatch, name: &str) -> Option<T> {
            batch.column_by_name(name)?.as_any().downcast_ref::<T>().cloned()
        }
        let int32 =
            |name| Some(batch.column_by_name(name)?.as_primitive_opt::<Int32Type>()?.values().clone());
        let time = |name| {
            let column = batch.column_by_name(name)?.as_primitive_opt::<TimestampMicrosecondType>()?;
            Some(column.values().clone())
        };
        let topics: DictionaryArray<Int32Type> = column(batch, "topic")?;
        let names = topics.values().as_any().downcast_ref::<StringArray>()?;
        let keys = topics.keys().values();
        let is_ours =
            |key: i32| usize::try_from(key).is_ok_and(|key| key < names.len() && names.value(key) == topic);
        // One name has one key, as a rule.
        let first = keys.first().copied().filter(|key| is_ours(*key))?;
        let all = keys.iter().all(|key| *key == first) || keys.iter().all(|key| is_ours(*key));
        let headers: ListArray = column(batch, "headers")?;
        Some(Self {
            partitions: int32("partition")?,
            offsets: batch.column_by_name("offset")?.as_primitive_opt::<Int64Type>()?.values().clone(),
            append_us: time("append_time")?,
            time_types: int32("timestamp_type")?,
            rows: Rows::from_columns(
                time("timestamp")?,
                column::<BinaryViewArray>(batch, "key")?,
                column::<BinaryViewArray>(batch, "value")?,
                Some(plain_headers(&headers)?),
            ),
        })
        .filter(|_| all)
    }

    /// How many rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Partition of row `i`, as the file says.
    pub(crate) fn partition(&self, i: usize) -> u32 {
        self.partitions[i] as u32
    }

    /// These rows, if they are of `partition` and their offsets go on from `base` without a gap.
    pub(crate) fn exactly(&self, places: Range<usize>, partition: u32, base: Offset) -> Option<Rows> {
        let partition = i32::try_from(partition).ok()?;
        let mut offsets = self.offsets[places.clone()].iter().zip(base..);
        let are = self.partitions[places.clone()].iter().all(|one| *one == partition)
            && offsets.all(|(offset, next)| u64::try_from(*offset) == Ok(next));
        are.then(|| self.rows.slice(places.start, places.len()))
    }

    /// Bytes in memory, about.
    pub fn raw_bytes(&self) -> usize {
        self.rows.raw_bytes() + self.rows.len() * 24
    }

    /// The records of `partition` from offset `from` up to `end`, as far as they are here, in runs.
    ///
    /// # Errors
    /// `Damaged`: they do not begin with `from`, or have a gap.
    pub fn runs_from(&self, partition: u32, from: Offset, end: Offset) -> Result<Vec<MergedRun>> {
        self.cut(partition, from..end, |one, other| self.same(one, other))
    }

    /// As [`Self::runs_from`], in what was appended at one time: what a merged segment is made of.
    ///
    /// # Errors
    /// `Damaged`: they do not begin with `from`, or have a gap.
    pub fn parts_from(&self, partition: u32, from: Offset, end: Offset) -> Result<Vec<MergedPart>> {
        let same = |one: usize, other: usize| {
            self.time_types[one] == self.time_types[other] && self.append_us[one] == self.append_us[other]
        };
        let part = |run: MergedRun| MergedPart {
            partition,
            base: run.base,
            append_ms: run.append_us.div_euclid(1_000),
            time_type: run.time_type,
            rows: run.rows,
        };
        Ok(self.cut(partition, from..end, same)?.into_iter().map(part).collect())
    }

    fn cut(
        &self,
        partition: u32,
        wanted: Range<Offset>,
        same: impl Fn(usize, usize) -> bool,
    ) -> Result<Vec<MergedRun>> {
        let places = self.places(partition, &wanted);
        let mut runs: Vec<MergedRun> = Vec::new();
        let mut begin = places.start;
        for (next, place) in (wanted.start..).zip(places.clone()) {
            if u64::try_from(self.offsets[place]).ok() != Some(next) {
                let detail = format!("offset {} where {next} must be", self.offsets[place]);
                return Err(Error::damaged(GROUP, detail));
            }
            let ends = place + 1 == places.end || !same(place, place + 1);
            if ends {
                runs.push(self.run(begin, place + 1));
                begin = place + 1;
            }
        }
        Ok(runs)
    }

    fn places(&self, partition: u32, wanted: &Range<Offset>) -> Range<usize> {
        let key = |place: usize| (i64::from(self.partitions[place]), self.offsets[place]);
        let at = |offset: Offset| {
            let wanted = (i64::from(partition), i64::try_from(offset).unwrap_or(i64::MAX));
            let (mut low, mut high) = (0, self.offsets.len());
            while low < high {
                let middle = low.midpoint(high);
                if key(middle) < wanted { low = middle + 1 } else { high = middle }
            }
            low
        };
        at(wanted.start)..at(wanted.end).max(at(wanted.start))
    }

    /// Whether two rows are read under one rule.
    fn same(&self, one: usize, other: usize) -> bool {
        self.time_types[one] == self.time_types[other]
            && (self.time_types[one] == 0 || self.append_us[one] == self.append_us[other])
    }

    fn run(&self, from: usize, to: usize) -> MergedRun {
        let time_type = match self.time_types[from] {
            0 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        };
        // The caller has found the offset to be one.
        let base = self.offsets[from] as u64;
        MergedRun { base, append_us: self.append_us[from], time_type, rows: self.rows.slice(from, to - from) }
    }
}

/// The headers with the fields that [`Rows`] has.
fn plain_headers(list: &ListArray) -> Option<ListArray> {
    use arrow::array::StructArray;
    let structs = list.values().as_any().downcast_ref::<StructArray>()?;
    let fields = crate::segment::schema::header_fields();
    let plain = StructArray::try_new(fields, structs.columns().to_vec(), None).ok()?;
    let element = crate::segment::schema::header_element();
    let list = ListArray::try_new(element, list.offsets().clone(), Arc::new(plain), None).ok()?;
    header_struct(&list).is_some().then_some(list)
}
