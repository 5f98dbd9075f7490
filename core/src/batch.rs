//! 2 · The batch: rows of one partition, column by column, in arrival order.
//!
//! ```text
//! RowsBuilder ──finish──▶ Rows ──encode──▶ segment ──decode──▶ Rows ──record(i, offset)──▶ ConsumerRecord
//! ```
//! The columns are Arrow's, so that nothing is copied on the way into Parquet or out of it, and no row costs an
//! allocation of its own. Pure: no clock, no I/O.

use arrow::array::{Array, BinaryArray, ListArray, StringArray};
use arrow::buffer::ScalarBuffer;
use bytes::Bytes;

use crate::error::{Error, Result};
use crate::record::{ConsumerRecord, Header, Offset, RecordHasher, RecordSum, TopicId};
use crate::{limits, segment::schema};

mod builder;
#[cfg(test)]
mod tests;

pub use builder::RowsBuilder;

/// Rows of one partition (or of one row group). Immutable and cheap to clone: the buffers are shared.
#[derive(Debug, Clone)]
pub struct Rows {
    timestamps: ScalarBuffer<i64>,
    keys: Column,
    values: Column,
    /// `None`: no row has a header.
    headers: Option<Headers>,
}

/// A nullable byte column, and its data once more as `Bytes`, from which records are cut.
#[derive(Debug, Clone)]
struct Column {
    array: BinaryArray,
    data: Bytes,
}

impl Column {
    fn new(array: BinaryArray) -> Self {
        let data = Bytes::from_owner(array.values().clone());
        Self { array, data }
    }

    fn get(&self, i: usize) -> Option<&[u8]> {
        self.array.is_valid(i).then(|| self.array.value(i))
    }

    fn get_bytes(&self, i: usize) -> Option<Bytes> {
        let offsets = self.array.value_offsets();
        self.array.is_valid(i).then(|| self.data.slice(offsets[i] as usize..offsets[i + 1] as usize))
    }

    fn slice(&self, from: usize, len: usize) -> Self {
        Self { array: self.array.slice(from, len), data: self.data.clone() }
    }

    fn data_bytes(&self) -> usize {
        data_bytes(self.array.value_offsets())
    }
}

/// Bytes between the first and the last offset.
fn data_bytes(offsets: &[i32]) -> usize {
    (offsets[offsets.len() - 1] - offsets[0]) as usize
}

/// `list<struct<key: utf8, value: binary>>`, taken apart once.
#[derive(Debug, Clone)]
struct Headers {
    list: ListArray,
    keys: StringArray,
    values: Column,
}

impl Headers {
    /// `None` if no list has an element, or if the array is not of the type that `schema` names.
    fn new(list: ListArray) -> Option<Self> {
        let structs = schema::header_struct(&list)?;
        let keys = structs.column(0).as_any().downcast_ref::<StringArray>()?.clone();
        let values = Column::new(structs.column(1).as_any().downcast_ref::<BinaryArray>()?.clone());
        (data_bytes(list.value_offsets()) > 0).then_some(Self { list, keys, values })
    }

    fn range(&self, i: usize) -> std::ops::Range<usize> {
        let offsets = self.list.value_offsets();
        offsets[i] as usize..offsets[i + 1] as usize
    }

    fn raw_bytes(&self) -> usize {
        let offsets = self.list.value_offsets();
        let (first, last) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
        data_bytes(&self.keys.value_offsets()[first..=last])
            + data_bytes(&self.values.array.value_offsets()[first..=last])
            + (last - first) * limits::HEADER_BYTES
    }
}

impl Rows {
    /// From decoded columns of equal length. The caller has checked the types.
    pub(crate) fn from_columns(
        timestamps: ScalarBuffer<i64>,
        keys: BinaryArray,
        values: BinaryArray,
        headers: Option<ListArray>,
    ) -> Self {
        let headers = headers.and_then(Headers::new);
        debug_assert!(keys.len() == timestamps.len() && values.len() == timestamps.len());
        Self { timestamps, keys: Column::new(keys), values: Column::new(values), headers }
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Bytes that the limits count: keys, values and headers, [`limits::ROW_BYTES`] a row and
    /// [`limits::HEADER_BYTES`] a header. Costs the same for any number of rows.
    pub fn raw_bytes(&self) -> usize {
        self.len() * limits::ROW_BYTES
            + self.keys.data_bytes()
            + self.values.data_bytes()
            + self.headers.as_ref().map_or(0, Headers::raw_bytes)
    }

    /// Timestamp of row `i`: microseconds since 1970, UTC. Like every accessor, panics if there is no row `i`.
    pub fn timestamp_us(&self, i: usize) -> i64 {
        self.timestamps[i]
    }

    /// All timestamps.
    pub fn timestamps_us(&self) -> &[i64] {
        &self.timestamps
    }

    /// Key of row `i`.
    pub fn key(&self, i: usize) -> Option<&[u8]> {
        self.keys.get(i)
    }

    /// Value of row `i`.
    pub fn value(&self, i: usize) -> Option<&[u8]> {
        self.values.get(i)
    }

    /// Headers of row `i`, in order.
    pub fn headers(&self, i: usize) -> impl ExactSizeIterator<Item = (&str, Option<&[u8]>)> {
        let headers = self.headers.as_ref();
        headers.map_or(0..0, |h| h.range(i)).map(move |at| match headers {
            Some(h) => (h.keys.value(at), h.values.get(at)),
            None => ("", None), // not reached: the range is empty
        })
    }

    /// Earliest and latest timestamp.
    pub fn time_range(&self) -> Option<(i64, i64)> {
        let first = *self.timestamps.first()?;
        Some(self.timestamps.iter().fold((first, first), |(min, max), t| (min.min(*t), max.max(*t))))
    }

    /// Row `i` for a consumer. Key and values share the batch's buffers and keep them alive.
    pub fn record(&self, i: usize, offset: Offset) -> ConsumerRecord {
        let headers = self.headers.as_ref().map_or_else(Vec::new, |h| {
            let header = |at| Header { key: h.keys.value(at).to_owned(), value: h.values.get_bytes(at) };
            h.range(i).map(header).collect()
        });
        ConsumerRecord {
            offset,
            timestamp_us: self.timestamps[i],
            key: self.keys.get_bytes(i),
            value: self.values.get_bytes(i),
            headers,
        }
    }

    /// Rows `from..from + len`, sharing the buffers. Panics if they are not there.
    pub fn slice(&self, from: usize, len: usize) -> Self {
        Self {
            timestamps: self.timestamps.slice(from, len),
            keys: self.keys.slice(from, len),
            values: self.values.slice(from, len),
            headers: self.headers.as_ref().map(|h| Headers { list: h.list.slice(from, len), ..h.clone() }),
        }
    }

    /// Record sum of rows `from..from + len`, in which row `from` has place 0.
    pub fn sum(&self, topic: TopicId, partition: u32, from: usize, len: usize) -> RecordSum {
        let mut hasher = RecordHasher::new(topic, partition);
        let mut sum = RecordSum::default();
        for (place, i) in (from..from + len).enumerate() {
            let headers = self.headers(i).map(|(key, value)| (key.as_bytes(), value));
            sum.push(place as u64, hasher.hash(self.timestamps[i], self.key(i), self.value(i), headers));
        }
        sum
    }

    pub(crate) fn timestamp_buffer(&self) -> ScalarBuffer<i64> {
        self.timestamps.clone()
    }

    pub(crate) fn key_array(&self) -> &BinaryArray {
        &self.keys.array
    }

    pub(crate) fn value_array(&self) -> &BinaryArray {
        &self.values.array
    }

    pub(crate) fn header_lists(&self) -> Option<&ListArray> {
        self.headers.as_ref().map(|h| &h.list)
    }
}

/// Equal row by row, wherever the buffers lie.
impl PartialEq for Rows {
    fn eq(&self, other: &Self) -> bool {
        self.timestamps == other.timestamps
            && self.keys.array == other.keys.array
            && self.values.array == other.values.array
            && (0..self.len()).all(|i| self.headers(i).eq(other.headers(i)))
    }
}

impl Eq for Rows {}

/// Refuses rows that would take a segment above its limit.
fn check_raw_bytes(raw_bytes: usize) -> Result<()> {
    Error::check_size("segment", raw_bytes, limits::SEGMENT_RAW_BYTES_MAX)
}
