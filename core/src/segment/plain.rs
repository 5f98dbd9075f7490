//! Byte values as Parquet's plain pages, filled while the rows arrive: what a record's bytes are copied into is what is
//! compressed and written.
//!
//! ```text
//! byte 0         ROOM-n                        ROOM
//!      │ unused │ definition levels, n bytes │ length u32 LE · bytes │ length u32 LE · bytes │ … (a null: nothing)
//!               └───────────────────────────── the page's body ────────────────────────────────┘
//! definition levels   u32 LE length · all rows or none: a run · else: their validity, a bit a row
//! ```
//! The levels are known last, so room is left for them; a page of mixed rows, which needs more, is copied once.

use std::ops::Range;

use arrow::array::BinaryViewArray;
use arrow::array::builder::{BinaryViewBuilder, NullBufferBuilder};
use arrow::buffer::{Buffer, NullBuffer};

use super::runs::put_run;

/// Room for the levels of a page that has all its values, or none: length, a varint, a value.
const ROOM: usize = 16;
/// A page has at most as many bytes of lengths and values, unless its first value alone is larger.
pub(super) const PAGE_BYTES: usize = 2 << 20;

/// Rows that lie in one page.
#[derive(Debug, Clone)]
pub(crate) struct PlainPage {
    bytes: Buffer,
    levels_at: usize,
    values_at: usize,
    rows: usize,
    nulls: Option<NullBuffer>,
}

impl PlainPage {
    /// Levels and values, as the page holds them.
    pub(super) fn body(&self) -> &[u8] {
        &self.bytes[self.levels_at..]
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    fn new(mut bytes: Vec<u8>, rows: usize, nulls: Option<NullBuffer>) -> Self {
        let levels = levels(rows, nulls.as_ref());
        let mut values_at = ROOM;
        if levels.len() > ROOM {
            bytes = [&levels[..], &bytes[ROOM..]].concat();
            values_at = levels.len();
        }
        let levels_at = values_at - levels.len();
        bytes[levels_at..values_at].copy_from_slice(&levels);
        Self { bytes: Buffer::from_vec(bytes), levels_at, values_at, rows, nulls }
    }

    /// Bytes of its values.
    pub(crate) fn data_bytes(&self) -> usize {
        let nulls = self.nulls.as_ref().map_or(0, NullBuffer::null_count);
        self.bytes.len() - self.values_at - (self.rows - nulls) * size_of::<u32>()
    }

    /// Each row's value: where in the page it lies.
    fn places(&self) -> impl Iterator<Item = Option<Range<usize>>> {
        let mut at = self.values_at;
        (0..self.rows).map(move |row| {
            if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                return None;
            }
            // `PlainBuilder::push` wrote the length, and as many bytes as it says.
            let length = self.bytes[at..].first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
            let from = at + size_of::<u32>();
            at = from + length as usize;
            Some(from..at)
        })
    }

    /// Its values.
    pub(crate) fn values(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.places().map(|place| place.map(|place| &self.bytes[place]))
    }
}

/// The rows of some pages as a column, which shares their bytes.
pub(crate) fn column(pages: &[PlainPage]) -> BinaryViewArray {
    let mut views = BinaryViewBuilder::with_capacity(pages.iter().map(PlainPage::rows).sum());
    for page in pages {
        let block = views.append_block(page.bytes.clone());
        for place in page.places() {
            match place {
                // Cannot fail: it lies in the page, which is far below 4 GiB.
                Some(place) => views
                    .try_append_view(block, place.start as u32, place.len() as u32)
                    .expect("lies in the page"),
                None => views.append_null(),
            }
        }
    }
    views.finish()
}

/// Values on their way into pages.
#[derive(Debug)]
pub(crate) struct PlainBuilder {
    done: Vec<PlainPage>,
    open: Vec<u8>,
    rows: usize,
    nulls: NullBufferBuilder,
}

impl PlainBuilder {
    /// Room for `bytes` of lengths and values.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        let open = Vec::with_capacity(if bytes == 0 { 0 } else { ROOM + bytes.min(PAGE_BYTES) });
        Self { done: Vec::new(), open, rows: 0, nulls: NullBufferBuilder::new(0) }
    }

    /// Adds a value. The caller bounds the sum of all: [`limits::SEGMENT_RAW_BYTES_MAX`](crate::limits).
    #[inline]
    pub(crate) fn push(&mut self, value: Option<&[u8]>) {
        let Some(value) = value else {
            self.nulls.append_null();
            self.rows += 1;
            return;
        };
        let size = size_of::<u32>() + value.len();
        if self.open.len() + size > ROOM + PAGE_BYTES && self.open.len() > ROOM {
            self.close_page();
            // There will be more of them: another page's worth, most likely.
            self.open.reserve_exact(ROOM + PAGE_BYTES.max(size));
        }
        if self.open.is_empty() {
            self.open.extend_from_slice(&[0; ROOM]);
        }
        self.open.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.open.extend_from_slice(value);
        self.nulls.append_non_null();
        self.rows += 1;
    }

    fn close_page(&mut self) {
        let mut bytes = std::mem::take(&mut self.open);
        bytes.resize(bytes.len().max(ROOM), 0);
        let rows = std::mem::take(&mut self.rows);
        self.done.push(PlainPage::new(bytes, rows, self.nulls.finish()));
    }

    /// The pages; none without a row.
    pub(crate) fn pages(mut self) -> Vec<PlainPage> {
        if self.rows > 0 {
            self.close_page();
        }
        self.done
    }
}

/// Definition levels of an optional column, with their length.
fn levels(rows: usize, nulls: Option<&NullBuffer>) -> Vec<u8> {
    let mut levels = vec![0; size_of::<u32>()];
    match nulls.filter(|nulls| nulls.null_count() > 0) {
        None => put_run(&mut levels, rows as u64, 1, 1),
        Some(nulls) if nulls.null_count() == rows => put_run(&mut levels, rows as u64, 0, 1),
        Some(nulls) => put_bits(&mut levels, nulls),
    }
    let length = (levels.len() - size_of::<u32>()) as u32;
    levels[..size_of::<u32>()].copy_from_slice(&length.to_le_bytes());
    levels
}

/// One bit-packed run: eights of rows << 1 | 1 as varint, then a bit a row from the lowest on, as Arrow has them.
fn put_bits(levels: &mut Vec<u8>, nulls: &NullBuffer) {
    let rows = nulls.len();
    super::runs::put_varint(levels, (rows.div_ceil(8) as u64) << 1 | 1);
    let bits = nulls.inner().sliced();
    levels.extend_from_slice(&bits[..rows.div_ceil(8)]);
    // What lies behind the last row may be anything; the same rows give the same bytes.
    if let Some(last) = levels.last_mut().filter(|_| !rows.is_multiple_of(8)) {
        *last &= (1 << (rows % 8)) - 1;
    }
}
