//! Column chunks that say the same for long runs of rows, written run by run instead of row by row.
//!
//! A slice has one topic and one partition, and most have no keys or no headers. The generic writer looks at every
//! row of these columns all the same, which costs as much as the values do.
//!
//! ```text
//! topic, partition     DICTIONARY page: the distinct values, plain
//!                      DATA page: bit width, one byte · a run a slice (neighbours with one value: together)
//! nothing in a column  DATA page: repetition levels, if it has them, and definition levels: u32 LE length · one run of 0
//! run                  rows << 1 as varint · value, in as many bytes as the bit width needs (RLE of Parquet)
//! ```

use std::collections::BTreeMap;

use parquet::basic::Encoding;
use parquet::data_type::ByteArray;
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

impl<T: PartialEq + Ord + Copy> Runs<T> {
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

    fn data_page(&self) -> Vec<u8> {
        let bits = u32::BITS - (self.values.len() as u32 - 1).leading_zeros();
        // One, where none would do: not every reader knows what a width of 0 means.
        let bits = bits.max(1);
        let mut page = vec![bits as u8];
        for (value, rows) in &self.runs {
            put_run(&mut page, *rows, *value, bits);
        }
        page
    }

    fn min_max(&self) -> (Option<T>, Option<T>) {
        (self.values.iter().min().copied(), self.values.iter().max().copied())
    }
}

/// Writes the `topic` column.
pub(super) fn write_topics(file: &mut FileBuilder, topics: &Runs<&str>) -> Result<()> {
    let mut dictionary = Vec::new();
    for topic in &topics.values {
        dictionary.extend_from_slice(&(topic.len() as u32).to_le_bytes());
        dictionary.extend_from_slice(topic.as_bytes());
    }
    let (min, max) = topics.min_max();
    let statistics =
        Statistics::byte_array(min.map(ByteArray::from), max.map(ByteArray::from), None, Some(0), false);
    write(file, &dictionary, topics, statistics)
}

/// Writes the `partition` column.
pub(super) fn write_partitions(file: &mut FileBuilder, partitions: &Runs<i32>) -> Result<()> {
    let dictionary: Vec<u8> = partitions.values.iter().flat_map(|p| p.to_le_bytes()).collect();
    let (min, max) = partitions.min_max();
    write(file, &dictionary, partitions, Statistics::int32(min, max, None, Some(0), false))
}

fn write<T: PartialEq + Ord + Copy>(
    file: &mut FileBuilder,
    dictionary: &[u8],
    runs: &Runs<T>,
    statistics: Statistics,
) -> Result<()> {
    let rows = runs.runs.iter().map(|(_, rows)| rows).sum::<u64>() as usize;
    let mut column = file.column();
    column.dictionary(dictionary, runs.values.len());
    column.page(&runs.data_page(), rows, Encoding::RLE_DICTIONARY);
    column.close(Some(statistics))
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
    column.page(&page, rows as usize, Encoding::PLAIN);
    column.close(None)
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
