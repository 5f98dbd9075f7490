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

use bytes::Bytes;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::Result;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, SerializedRowGroupWriter, TrackedWrite};

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
pub(super) fn write_topics(group: &mut RowGroup<'_, '_>, topics: &Runs<&str>) -> Result<()> {
    let mut dictionary = Vec::new();
    for topic in &topics.values {
        dictionary.extend_from_slice(&(topic.len() as u32).to_le_bytes());
        dictionary.extend_from_slice(topic.as_bytes());
    }
    let (min, max) = topics.min_max();
    let statistics =
        Statistics::byte_array(min.map(ByteArray::from), max.map(ByteArray::from), None, Some(0), false);
    Chunk::new(schema::TOPIC).dictionary(dictionary, topics)?.close(group, Some(statistics))
}

/// Writes the `partition` column.
pub(super) fn write_partitions(group: &mut RowGroup<'_, '_>, partitions: &Runs<i32>) -> Result<()> {
    let dictionary = partitions.values.iter().flat_map(|p| p.to_le_bytes()).collect();
    let (min, max) = partitions.min_max();
    let statistics = Statistics::int32(min, max, None, Some(0), false);
    Chunk::new(schema::PARTITION).dictionary(dictionary, partitions)?.close(group, Some(statistics))
}

/// Writes a column in which no row has anything.
pub(super) fn write_nothing(group: &mut RowGroup<'_, '_>, leaf: usize, rows: u64) -> Result<()> {
    let column = schema::parquet().column(leaf);
    let mut page = Vec::new();
    for max_level in [column.max_rep_level(), column.max_def_level()] {
        if max_level > 0 {
            let mut run = Vec::new();
            put_run(&mut run, rows, 0, 1); // levels are below 256: one byte
            page.extend_from_slice(&(run.len() as u32).to_le_bytes());
            page.extend_from_slice(&run);
        }
    }
    let mut chunk = Chunk::new(leaf);
    chunk.data(page, rows, Encoding::PLAIN)?;
    chunk.close(group, None)
}

/// The row group being written.
pub(super) type RowGroup<'a, 'b> = SerializedRowGroupWriter<'a, &'b mut Vec<u8>>;

/// A column chunk on its way: pages without a codec, which Parquet's own page writer puts headers on.
struct Chunk {
    leaf: usize,
    sink: TrackedWrite<Vec<u8>>,
    data_page_offset: usize,
    rows: u64,
    encodings: Vec<Encoding>,
}

impl Chunk {
    fn new(leaf: usize) -> Self {
        let sink = TrackedWrite::new(Vec::new());
        Self { leaf, sink, data_page_offset: 0, rows: 0, encodings: vec![Encoding::PLAIN, Encoding::RLE] }
    }

    fn dictionary<T: PartialEq + Ord + Copy>(mut self, dictionary: Vec<u8>, runs: &Runs<T>) -> Result<Self> {
        let page = Page::DictionaryPage {
            buf: dictionary.into(),
            num_values: runs.values.len() as u32,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        self.write(page)?;
        self.data_page_offset = self.sink.bytes_written();
        self.encodings.push(Encoding::RLE_DICTIONARY);
        self.data(runs.data_page(), runs.runs.iter().map(|(_, rows)| rows).sum(), Encoding::RLE_DICTIONARY)?;
        Ok(self)
    }

    fn data(&mut self, page: Vec<u8>, rows: u64, encoding: Encoding) -> Result<()> {
        self.rows = rows;
        self.write(Page::DataPage {
            buf: page.into(),
            num_values: rows as u32,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        })
    }

    fn write(&mut self, page: Page) -> Result<()> {
        let size = page.buffer().len();
        SerializedPageWriter::new(&mut self.sink).write_page(CompressedPage::new(page, size)).map(|_| ())
    }

    fn close(self, group: &mut RowGroup<'_, '_>, statistics: Option<Statistics>) -> Result<()> {
        let bytes = Bytes::from(self.sink.into_inner()?);
        let size = bytes.len() as i64;
        let mut metadata = ColumnChunkMetaData::builder(schema::parquet().column(self.leaf))
            .set_compression(Compression::UNCOMPRESSED)
            .set_encodings(self.encodings)
            .set_num_values(self.rows as i64)
            .set_total_compressed_size(size)
            .set_total_uncompressed_size(size)
            .set_data_page_offset(self.data_page_offset as i64)
            .set_dictionary_page_offset((self.data_page_offset > 0).then_some(0));
        if let Some(statistics) = statistics {
            metadata = metadata.set_statistics(statistics);
        }
        let result = ColumnCloseResult {
            bytes_written: size as u64,
            rows_written: self.rows,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        group.append_column(&bytes, result)
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
