//! Column chunks that say the same for long runs of rows, written run by run instead of row by row.
//!
//! A slice has one topic and one partition, and most have no keys or no headers. The generic writer looks at every
//! row of these columns all the same, which costs as much as the values do.
//!
//! ```text
//! topic, partition     DICTIONARY page: the distinct values, plain
//!                      DATA page: bit width, one byte · a run a slice (neighbours with one value: together)
//! nothing in a column  DATA page: repetition levels, if it has them, and definition levels: u32 LE length · one run of 0
//! run                  rows << 1 as varint · value, in as many bytes as the bit width needs
//! short runs           eights of rows << 1 | 1 as varint · their values bit by bit, the lowest first (RLE and bit-packing
//!                      hybrid of Parquet)
//! ```
//! Merged segments write more columns so (`merged::same`).

use std::collections::BTreeMap;

use parquet::basic::{Encoding, Type};
use parquet::errors::Result;
use parquet::file::statistics::Statistics;

use super::file::FileBuilder;
use super::schema;

/// The runs of a dictionary column: `values` in the order of their first row.
pub(super) struct Runs<T> {
    values: Vec<T>,
    /// Which value, how many rows.
    runs: Vec<(u32, u64)>,
}

impl<T: Value> Runs<T> {
    /// From the value and the rows of each slice. `at` finds a value that came before.
    pub(super) fn new(slices: impl Iterator<Item = (T, u64)>) -> Self {
        let mut index = BTreeMap::new();
        let (mut values, mut runs) = (Vec::new(), Vec::<(u32, u64)>::new());
        for (value, rows) in slices {
            let at = *index.entry(value).or_insert_with(|| {
                values.push(value);
                values.len() as u32 - 1
            });
            match runs.last_mut() {
                Some((last, before)) if *last == at => *before += rows,
                _ => runs.push((at, rows)),
            }
        }
        Self { values, runs }
    }

    /// How many values are distinct.
    pub(super) fn distinct(&self) -> usize {
        self.values.len()
    }

    /// The dictionary page: they, in the order of their first row.
    pub(super) fn dictionary(&self) -> Vec<u8> {
        let mut page = Vec::new();
        self.values.iter().for_each(|value| value.put(&mut page));
        page
    }

    /// The data pages, each of at most `rows_max` rows.
    pub(super) fn pages(&self, rows_max: u64) -> Vec<RunPage<T>> {
        let bits = u32::BITS - (self.values.len() as u32).saturating_sub(1).leading_zeros();
        // One, where none would do: not every reader knows what a width of 0 means.
        let bits = bits.max(1);
        let mut pages = Vec::new();
        let (mut page, mut room) = (Vec::new(), rows_max);
        for (value, rows) in &self.runs {
            let mut left = *rows;
            while left > 0 {
                let take = left.min(room);
                page.push((*value, take));
                (left, room) = (left - take, room - take);
                if room == 0 {
                    pages.extend(self.page(&page, bits));
                    page.clear();
                    room = rows_max;
                }
            }
        }
        pages.extend(self.page(&page, bits));
        pages
    }

    fn page(&self, runs: &[(u32, u64)], bits: u32) -> Option<RunPage<T>> {
        let values = || runs.iter().map(|(value, _)| self.values[*value as usize]);
        let (min, max) = (values().min()?, values().max()?);
        let mut body = vec![bits as u8];
        put_runs(&mut body, runs, bits);
        Some(RunPage { body, rows: runs.iter().map(|(_, rows)| rows).sum(), min, max })
    }
}

/// A data page, and what the page index says of it.
pub(super) struct RunPage<T> {
    pub(super) body: Vec<u8>,
    pub(super) rows: u64,
    pub(super) min: T,
    pub(super) max: T,
}

/// A value of these columns.
pub(super) trait Value: Copy + Ord {
    /// In Parquet.
    const TYPE: Type;

    /// As statistics have it.
    fn bytes(self) -> Vec<u8>;

    /// Adds it to a plain page.
    fn put(self, page: &mut Vec<u8>) {
        page.extend(self.bytes());
    }

    /// No null, and no value beyond these.
    fn statistics(min: Self, max: Self) -> Statistics;
}

impl Value for i32 {
    const TYPE: Type = Type::INT32;

    fn bytes(self) -> Vec<u8> {
        self.to_le_bytes().into()
    }

    fn statistics(min: Self, max: Self) -> Statistics {
        Statistics::int32(Some(min), Some(max), None, Some(0), false)
    }
}

impl Value for i64 {
    const TYPE: Type = Type::INT64;

    fn bytes(self) -> Vec<u8> {
        self.to_le_bytes().into()
    }

    fn statistics(min: Self, max: Self) -> Statistics {
        Statistics::int64(Some(min), Some(max), None, Some(0), false)
    }
}

impl Value for &str {
    const TYPE: Type = Type::BYTE_ARRAY;

    fn bytes(self) -> Vec<u8> {
        self.into()
    }

    fn put(self, page: &mut Vec<u8>) {
        page.extend((self.len() as u32).to_le_bytes());
        page.extend(self.as_bytes());
    }

    fn statistics(min: Self, max: Self) -> Statistics {
        Statistics::byte_array(Some(min.into()), Some(max.into()), None, Some(0), false)
    }
}

/// Writes the `topic` or the `partition` column.
pub(super) fn write<T: Value>(file: &mut FileBuilder, runs: &Runs<T>) -> Result<()> {
    let mut column = file.column();
    column.dictionary(&runs.dictionary(), runs.distinct())?;
    // One, however many rows there are.
    let mut all = None;
    for RunPage { body, rows, min, max } in runs.pages(u64::MAX) {
        column.page(&body, rows as usize, Encoding::RLE_DICTIONARY)?;
        all = Some(T::statistics(min, max));
    }
    column.close(all)
}

/// Writes a column in which no row has anything.
pub(super) fn write_nothing(file: &mut FileBuilder, leaf: usize, rows: u64) -> Result<()> {
    let column = schema::parquet().column(leaf);
    let mut page = Vec::with_capacity(32);
    for max_level in [column.max_rep_level(), column.max_def_level()] {
        if max_level > 0 {
            let length_at = page.len();
            page.extend_from_slice(&[0; size_of::<u32>()]);
            put_run(&mut page, rows, 0, 1); // levels are below 256: one byte
            let length = (page.len() - length_at - size_of::<u32>()) as u32;
            page[length_at..length_at + size_of::<u32>()].copy_from_slice(&length.to_le_bytes());
        }
    }
    let mut column = file.column();
    column.page(&page, rows as usize, Encoding::PLAIN)?;
    column.close(None)
}

/// Values and how often each comes.
fn put_runs(page: &mut Vec<u8>, runs: &[(u32, u64)], bits: u32) {
    // Values of short runs; what is bit-packed comes in eights, but for the last.
    let mut short: Vec<u32> = Vec::new();
    for (value, rows) in runs {
        let fill = (short.len().next_multiple_of(8) - short.len()) as u64;
        // A run that is long even without what completes the eight before it.
        let taken = if *rows >= fill + 8 { fill } else { *rows };
        short.extend((0..taken).map(|_| *value));
        if taken < *rows {
            put_packed(page, &mut short, bits);
            put_run(page, rows - taken, *value, bits);
        }
    }
    put_packed(page, &mut short, bits);
}

/// One bit-packed run, padded to an eight with zeros. Takes the values.
fn put_packed(page: &mut Vec<u8>, values: &mut Vec<u32>, bits: u32) {
    if values.is_empty() {
        return;
    }
    let eights = values.len().div_ceil(8);
    values.resize(eights * 8, 0);
    put_varint(page, (eights as u64) << 1 | 1);
    let (mut open, mut filled) = (0u64, 0);
    for value in values.drain(..) {
        // Below 8 bits are open, and a value has 32 at most.
        open |= u64::from(value) << filled;
        filled += bits;
        while filled >= 8 {
            page.push(open as u8);
            (open, filled) = (open >> 8, filled - 8);
        }
    }
}

/// One run of Parquet's RLE.
pub(super) fn put_run(page: &mut Vec<u8>, rows: u64, value: u32, bits: u32) {
    put_varint(page, rows << 1);
    page.extend_from_slice(&value.to_le_bytes()[..bits.div_ceil(8) as usize]);
}

/// Seven bits a byte, the lowest first.
pub(super) fn put_varint(page: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        page.push(number as u8 | 0x80);
        number >>= 7;
    }
    page.push(number as u8);
}
