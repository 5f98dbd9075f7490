//! The growing side of a batch. A push copies the record's bytes to the ends of a few buffers; `finish` moves them.

use std::sync::Arc;

use arrow::array::builder::{BinaryViewBuilder, StringBuilder};
use arrow::array::{ArrayRef, BinaryViewArray, ListArray, StructArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};

use super::{Rows, check_raw_bytes};
use crate::error::Result;
use crate::limits;
use crate::record::Header;
use crate::segment::{plain::PlainBuilder, schema};

/// Rows of one partition while they arrive.
#[derive(Debug)]
pub struct RowsBuilder {
    timestamps: Vec<i64>,
    /// `None` until the first key.
    keys: Option<BinaryViewBuilder>,
    values: PlainBuilder,
    /// `None` until the first header.
    headers: Option<HeadersBuilder>,
    raw_bytes: usize,
}

#[derive(Debug)]
struct HeadersBuilder {
    /// One more than there are rows. `i32`, which [`limits::SEGMENT_RAW_BYTES_MAX`] keeps true.
    list_offsets: Vec<i32>,
    keys: StringBuilder,
    values: BinaryViewBuilder,
}

impl HeadersBuilder {
    /// `rows` rows came before, none with a header.
    fn new(rows: usize) -> Self {
        Self {
            list_offsets: vec![0; rows + 1],
            keys: StringBuilder::with_capacity(0, 0),
            values: BinaryViewBuilder::with_capacity(0),
        }
    }

    fn push(&mut self, headers: &[Header]) {
        for header in headers {
            self.keys.append_value(&header.key);
            self.values.append_option(header.value.as_deref());
        }
        let before = self.list_offsets.last().copied().unwrap_or(0);
        self.list_offsets.push(before + headers.len() as i32);
    }

    fn finish(mut self) -> ListArray {
        let columns: Vec<ArrayRef> = vec![Arc::new(self.keys.finish()), Arc::new(self.values.finish())];
        // Neither can fail: both columns grew together, and the offsets rise up to their length.
        let structs = StructArray::new(schema::header_fields(), columns, None);
        let offsets = OffsetBuffer::new(self.list_offsets.into());
        ListArray::new(schema::header_element(), offsets, Arc::new(structs), None)
    }
}

impl Default for RowsBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl RowsBuilder {
    /// No rows. Allocates next to nothing.
    pub fn new() -> Self {
        Self {
            timestamps: Vec::new(),
            keys: None,
            values: PlainBuilder::with_capacity(0),
            headers: None,
            raw_bytes: 0,
        }
    }

    /// No rows, but room for `rows`, whose values have `bytes`, without growing.
    pub fn with_capacity(rows: usize, bytes: usize) -> Self {
        Self {
            timestamps: Vec::with_capacity(rows),
            keys: None,
            values: PlainBuilder::with_capacity(bytes + rows * size_of::<u32>()),
            headers: None,
            raw_bytes: 0,
        }
    }

    /// Adds a row behind the others. Refuses one that takes the batch above [`limits::SEGMENT_RAW_BYTES_MAX`]; the
    /// record's own limits are [`Record::validate`](crate::record::Record::validate)'s.
    #[inline]
    pub fn push(
        &mut self,
        timestamp_us: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) -> Result<()> {
        let raw_bytes = self.raw_bytes + row_raw_bytes(key, value, headers);
        check_raw_bytes(raw_bytes)?;
        self.raw_bytes = raw_bytes;
        if self.headers.is_none() && !headers.is_empty() {
            self.headers = Some(HeadersBuilder::new(self.len()));
        }
        if self.keys.is_none() && key.is_some() {
            self.keys = Some(self.no_keys());
        }
        self.timestamps.push(timestamp_us);
        if let Some(keys) = &mut self.keys {
            keys.append_option(key);
        }
        self.values.push(value);
        if let Some(all) = &mut self.headers {
            all.push(headers);
        }
        Ok(())
    }

    /// As many nulls as there are rows, and as much room as the timestamps have.
    fn no_keys(&self) -> BinaryViewBuilder {
        let mut keys = BinaryViewBuilder::with_capacity(self.timestamps.capacity());
        (0..self.len()).for_each(|_| keys.append_null());
        keys
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// What [`Rows::raw_bytes`] will be.
    pub fn raw_bytes(&self) -> usize {
        self.raw_bytes
    }

    /// The rows. The buffers are moved.
    pub fn finish(self) -> Rows {
        let (rows, headers) = (self.timestamps.len(), self.headers.map(HeadersBuilder::finish));
        let keys = self.keys.map_or_else(|| BinaryViewArray::new_null(rows), |mut keys| keys.finish());
        Rows::from_pages(ScalarBuffer::from(self.timestamps), keys, self.values.pages(), headers)
    }
}

/// What one row adds to [`Rows::raw_bytes`].
#[inline]
fn row_raw_bytes(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header]) -> usize {
    let headers: usize = headers
        .iter()
        .map(|h| limits::HEADER_BYTES + h.key.len() + h.value.as_ref().map_or(0, |v| v.len()))
        .sum();
    limits::ROW_BYTES + key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + headers
}
