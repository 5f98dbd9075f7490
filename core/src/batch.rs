//! 2 · The batch: rows of one partition, column by column, in arrival order.
//!
//! ```text
//! RowsBuilder ──finish──▶ Rows ──encode──▶ segment ──decode──▶ Rows ──record(i, offset)──▶ ConsumerRecord
//! ```
//! The columns are Arrow's, so that next to nothing is copied on the way into Parquet or out of it, and no row costs an
//! allocation of its own. Pure: no clock, no I/O.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, BinaryViewArray, ByteView, ListArray, StringArray};
use arrow::buffer::{Buffer, ScalarBuffer};
use bytes::Bytes;

use crate::error::{Error, Result};
use crate::limits;
use crate::record::{ConsumerRecord, Header, Offset, RecordHasher, RecordSum, TopicId};
use crate::segment::plain::{self, PlainPage};
use crate::segment::schema;

mod builder;
#[cfg(test)]
mod tests;

pub use builder::RowsBuilder;

/// Rows of one partition (or of one row group). Immutable and cheap to clone: the buffers are shared.
#[derive(Debug, Clone)]
pub struct Rows {
    timestamps: ScalarBuffer<i64>,
    keys: Column,
    values: Values,
    /// `None`: no row has a header.
    headers: Option<Headers>,
}

/// The values: as the pages that they arrived in, as a column, or both. What is only written needs no column.
#[derive(Debug, Clone)]
struct Values {
    pages: Option<Arc<[PlainPage]>>,
    column: OnceLock<Column>,
}

impl Values {
    fn column(&self) -> &Column {
        self.column.get_or_init(|| Column::new(plain::column(self.pages.as_deref().unwrap_or_default())))
    }

    /// Of all rows.
    fn data_bytes(&self) -> usize {
        match &self.pages {
            Some(pages) => pages.iter().map(PlainPage::data_bytes).sum(),
            None => self.column().data_bytes(0, self.column().array.len()),
        }
    }
}

/// A nullable byte column, and its buffers once more as `Bytes`, from which records are cut.
///
/// ```text
/// view, 16 bytes, little-endian      up to 12 bytes    length u32 · the bytes themselves
///                                    more              length u32 · first 4 bytes · buffer u32 · position u32
/// ```
/// Views, because the Parquet decoder can then leave plain values where they are: in the page.
#[derive(Debug, Clone)]
struct Column {
    array: BinaryViewArray,
    /// Made when the first record is cut: what is only written never needs it.
    shared: OnceLock<(Bytes, Box<[Bytes]>)>,
}

const VIEW_BYTES: usize = size_of::<u128>();
const VIEW_INLINE_MAX: usize = 12;

impl Column {
    fn new(array: BinaryViewArray) -> Self {
        Self { array, shared: OnceLock::new() }
    }

    /// Views and buffers.
    fn shared(&self) -> &(Bytes, Box<[Bytes]>) {
        self.shared.get_or_init(|| {
            let views = Bytes::from_owner(self.array.views().inner().clone());
            let buffers = self.array.data_buffers().iter().map(|b| Bytes::from_owner(b.clone())).collect();
            (views, buffers)
        })
    }

    fn get(&self, i: usize) -> Option<&[u8]> {
        self.array.is_valid(i).then(|| self.array.value(i))
    }

    fn get_bytes(&self, i: usize) -> Option<Bytes> {
        if self.array.is_null(i) {
            return None;
        }
        let view = ByteView::from(self.array.views()[i]);
        let length = view.length as usize;
        Some(if length <= VIEW_INLINE_MAX {
            let at = i * VIEW_BYTES + size_of::<u32>();
            self.shared().0.slice(at..at + length)
        } else {
            let at = view.offset as usize;
            self.shared().1[view.buffer_index as usize].slice(at..at + length)
        })
    }

    fn slice(&self, from: usize, len: usize) -> Self {
        Self::new(self.array.slice(from, len))
    }

    /// Bytes of row `i`; a null has none.
    fn length(&self, i: usize) -> usize {
        if self.array.is_valid(i) { self.array.views()[i] as u32 as usize } else { 0 }
    }

    /// Of rows `from..to`. The length stands in the lowest bits of a view; that of a null may be anything.
    fn data_bytes(&self, from: usize, to: usize) -> usize {
        let length = |view: &u128| *view as u32 as usize;
        let views = &self.array.views()[from..to];
        match self.array.nulls() {
            Some(nulls) if nulls.null_count() > 0 => {
                nulls.slice(from, to - from).valid_indices().map(|i| length(&views[i])).sum()
            }
            _ => views.iter().map(length).sum(),
        }
    }
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
        let values = Column::new(structs.column(1).as_any().downcast_ref::<BinaryViewArray>()?.clone());
        let headers = Self { list, keys, values };
        (!headers.all().is_empty()).then_some(headers)
    }

    /// Places of row `i`'s headers.
    fn range(&self, i: usize) -> Range<usize> {
        let offsets = self.list.value_offsets();
        offsets[i] as usize..offsets[i + 1] as usize
    }

    /// Places of all rows' headers.
    fn all(&self) -> Range<usize> {
        let offsets = self.list.offsets();
        offsets.first() as usize..offsets.last() as usize
    }

    fn raw_bytes(&self) -> usize {
        let Range { start, end } = self.all();
        let offsets = self.keys.value_offsets();
        (offsets[end] - offsets[start]) as usize
            + self.values.data_bytes(start, end)
            + (end - start) * limits::HEADER_BYTES
    }
}

impl Rows {
    /// From decoded columns of equal length. The caller has checked the types.
    pub(crate) fn from_columns(
        timestamps: ScalarBuffer<i64>,
        keys: BinaryViewArray,
        values: BinaryViewArray,
        headers: Option<ListArray>,
    ) -> Self {
        debug_assert!(values.len() == timestamps.len());
        let values = Values { pages: None, column: OnceLock::from(Column::new(values)) };
        Self::new(timestamps, keys, values, headers)
    }

    /// The same, with values that lie in pages.
    fn from_pages(
        timestamps: ScalarBuffer<i64>,
        keys: BinaryViewArray,
        values: Vec<PlainPage>,
        headers: Option<ListArray>,
    ) -> Self {
        let values = Values { pages: Some(values.into()), column: OnceLock::new() };
        Self::new(timestamps, keys, values, headers)
    }

    fn new(
        timestamps: ScalarBuffer<i64>,
        keys: BinaryViewArray,
        values: Values,
        headers: Option<ListArray>,
    ) -> Self {
        debug_assert!(keys.len() == timestamps.len());
        Self { timestamps, keys: Column::new(keys), values, headers: headers.and_then(Headers::new) }
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
    /// [`limits::HEADER_BYTES`] a header: about what they take in memory. Adds up the lengths at each call.
    pub fn raw_bytes(&self) -> usize {
        self.len() * limits::ROW_BYTES
            + self.keys.data_bytes(0, self.len())
            + self.values.data_bytes()
            + self.headers.as_ref().map_or(0, Headers::raw_bytes)
    }

    /// How many rows from row `from` on fit: at most `rows_max`, with at most `bytes_max` raw bytes together. And how many
    /// bytes those have.
    pub fn fitting(&self, from: usize, rows_max: usize, bytes_max: usize) -> (usize, usize) {
        let left = (self.len() - from).min(rows_max);
        let whole = self.slice(from, left).raw_bytes();
        if whole <= bytes_max {
            return (left, whole);
        }
        let mut bytes = 0;
        for take in 0..left {
            let row = self.row_raw_bytes(from + take);
            if bytes + row > bytes_max {
                return (take, bytes);
            }
            bytes += row;
        }
        (left, bytes)
    }

    /// What row `i` adds to [`Rows::raw_bytes`].
    fn row_raw_bytes(&self, i: usize) -> usize {
        let headers = self.headers.as_ref().map_or(0, |_| {
            let header = |(key, value): (&str, Option<&[u8]>)| {
                limits::HEADER_BYTES + key.len() + value.map_or(0, <[u8]>::len)
            };
            self.headers(i).map(header).sum()
        });
        limits::ROW_BYTES + self.keys.length(i) + self.values.column().length(i) + headers
    }

    /// Timestamp of row `i`: microseconds since 1970, UTC. Like every accessor, panics if there is no row `i`.
    pub fn timestamp_us(&self, i: usize) -> i64 {
        self.timestamps[i]
    }

    /// All timestamps.
    pub fn timestamps_us(&self) -> &[i64] {
        &self.timestamps
    }

    pub(crate) fn timestamps(&self) -> ScalarBuffer<i64> {
        self.timestamps.clone()
    }

    /// Key of row `i`.
    pub fn key(&self, i: usize) -> Option<&[u8]> {
        self.keys.get(i)
    }

    /// Value of row `i`.
    pub fn value(&self, i: usize) -> Option<&[u8]> {
        self.values.column().get(i)
    }

    /// All values in order: faster than one [`Rows::value`] after the other.
    pub fn values(&self) -> impl ExactSizeIterator<Item = Option<&[u8]>> {
        self.values.column().array.iter()
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
        self.time_range_of(0..self.len())
    }

    /// The same, of some rows. Panics if they are not there.
    pub fn time_range_of(&self, rows: Range<usize>) -> Option<(i64, i64)> {
        let times = &self.timestamps[rows];
        let first = *times.first()?;
        Some(times.iter().fold((first, first), |(min, max), t| (min.min(*t), max.max(*t))))
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
            value: self.values.column().get_bytes(i),
            headers,
        }
    }

    /// Rows `from..from + len`, sharing the buffers. Panics if they are not there.
    pub fn slice(&self, from: usize, len: usize) -> Self {
        Self {
            timestamps: self.timestamps.slice(from, len),
            keys: self.keys.slice(from, len),
            values: Values { pages: None, column: OnceLock::from(self.values.column().slice(from, len)) },
            headers: self.headers.as_ref().map(|h| Headers { list: h.list.slice(from, len), ..h.clone() }),
        }
    }

    /// The same rows in buffers of their own, where they are little of what they share: whoever keeps them must not keep
    /// their neighbours.
    pub(crate) fn compacted(self) -> Result<Self> {
        // Large slices share nothing.
        if self.len() * limits::ROW_BYTES >= limits::ROW_GROUP_OWN_BYTES {
            return Ok(self);
        }
        if self.shared_bytes() <= 2 * self.raw_bytes() {
            return Ok(self);
        }
        let mut own = RowsBuilder::with_capacity(self.len(), self.values.data_bytes());
        for i in 0..self.len() {
            let header = |(key, value): (&str, Option<&[u8]>)| Header {
                key: key.to_owned(),
                value: value.map(Bytes::copy_from_slice),
            };
            let headers: Vec<Header> = self.headers(i).map(header).collect();
            own.push(self.timestamps[i], self.key(i), self.value(i), &headers)?;
        }
        Ok(own.finish())
    }

    /// What the buffers hold that these rows keep alive, theirs and others'.
    fn shared_bytes(&self) -> usize {
        let of = |array: &BinaryViewArray| {
            let data = array.data_buffers().iter().map(Buffer::len).sum::<usize>();
            array.views().inner().capacity() + data
        };
        self.timestamps.inner().capacity()
            + of(&self.keys.array)
            // In pages they are nobody else's.
            + self.values.column.get().map_or(0, |column| of(&column.array))
            + self.headers.as_ref().map_or(0, |headers| of(&headers.values.array) + headers.keys.value_data().len())
    }

    /// Record sum of rows `from..from + len`, in which row `from` has place 0.
    pub fn sum(&self, topic: TopicId, partition: u32, from: usize, len: usize) -> RecordSum {
        match &self.values.pages {
            Some(pages) if (from, len) == (0, self.len()) => {
                self.sum_with(topic, partition, pages.iter().flat_map(PlainPage::values))
            }
            _ => {
                let part = self.slice(from, len);
                part.sum_with(topic, partition, part.values())
            }
        }
    }

    fn sum_with<'a>(
        &self,
        topic: TopicId,
        partition: u32,
        values: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> RecordSum {
        let mut hasher = RecordHasher::new(topic, partition);
        let mut sum = RecordSum::default();
        let rows = self.timestamps.iter().zip(self.keys.array.iter()).zip(values);
        for (i, ((timestamp_us, key), value)) in rows.enumerate() {
            let headers = self.headers(i).map(|(key, value)| (key.as_bytes(), value));
            sum.push(i as u64, hasher.hash(*timestamp_us, key, value, headers));
        }
        sum
    }

    /// The values as the pages that they arrived in.
    pub(crate) fn value_pages(&self) -> Option<&[PlainPage]> {
        self.values.pages.as_deref()
    }

    pub(crate) fn key_array(&self) -> &BinaryViewArray {
        &self.keys.array
    }

    pub(crate) fn value_array(&self) -> &BinaryViewArray {
        &self.values.column().array
    }

    /// What a column's values take in pages: no less.
    pub(crate) fn plain_bytes(array: &BinaryViewArray) -> usize {
        array.views().iter().map(|view| size_of::<u32>() + *view as u32 as usize).sum()
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
            && self.value_array() == other.value_array()
            && (0..self.len()).all(|i| self.headers(i).eq(other.headers(i)))
    }
}

impl Eq for Rows {}

/// Refuses rows that would take a segment above its limit.
fn check_raw_bytes(raw_bytes: usize) -> Result<()> {
    Error::check_size("segment", raw_bytes, limits::SEGMENT_RAW_BYTES_MAX)
}
