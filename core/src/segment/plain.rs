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

    /// Adds the page's rows to `views`, which share its bytes.
    fn view(&self, views: &mut BinaryViewBuilder) {
        let block = views.append_block(self.bytes.clone());
        let mut at = self.values_at;
        for row in 0..self.rows {
            let is_null = self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
            match self.bytes[at..].first_chunk() {
                Some(length) if !is_null => {
                    let length = u32::from_le_bytes(*length);
                    at += size_of::<u32>();
                    // Cannot fail: `PlainBuilder::push` wrote as many bytes as it says here.
                    views.try_append_view(block, at as u32, length).expect("lies in the page");
                    at += length as usize;
                }
                _ => views.append_null(),
            }
        }
    }
}

/// Values on their way into pages.
#[derive(Debug)]
pub(crate) struct PlainBuilder {
    done: Vec<PlainPage>,
    /// Of `done`.
    rows_done: usize,
    open: Vec<u8>,
    rows: usize,
    nulls: NullBufferBuilder,
}

impl PlainBuilder {
    /// Room for `bytes` of lengths and values.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        let open = Vec::with_capacity(if bytes == 0 { 0 } else { ROOM + bytes.min(PAGE_BYTES) });
        Self { done: Vec::new(), rows_done: 0, open, rows: 0, nulls: NullBufferBuilder::new(0) }
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
        self.rows_done += rows;
    }

    /// The pages; none without a row.
    pub(crate) fn pages(mut self) -> Vec<PlainPage> {
        if self.rows > 0 {
            self.close_page();
        }
        self.done
    }

    /// The pages and their rows as a column, which shares the bytes.
    pub(crate) fn finish(self) -> (BinaryViewArray, Vec<PlainPage>) {
        let mut views = BinaryViewBuilder::with_capacity(self.rows_done + self.rows);
        let pages = self.pages();
        pages.iter().for_each(|page| page.view(&mut views));
        (views.finish(), pages)
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
