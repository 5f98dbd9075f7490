//! The columns that have one value for all records of a part: topic, partition, append time and timestamp type. Written
//! part by part; the generic writer would look every row up in the dictionary.
//!
//! ```text
//! DICTIONARY page   the distinct values in the order of their first row, plain
//! DATA pages        at most 20,000 rows each, as those of the other columns: bit width, one byte · runs (see `segment::runs`)
//! ```
//! All with the file's codec, each data page with its minimum and maximum in the page index.

use bytes::Bytes;
use parquet::basic::{BoundaryOrder, Encoding, EncodingMask};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::Result;
use parquet::file::metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder};
use parquet::file::properties::DEFAULT_DATA_PAGE_ROW_COUNT_LIMIT;
use parquet::file::writer::SerializedRowGroupWriter;

use super::schema;
use crate::segment::file::{DICTIONARY_ENCODINGS, Page, Pages};
use crate::segment::runs::{Runs, Value};
use crate::segment::{Compression, schema as l0};

/// Appends one of these columns, the next of the row group.
pub(super) fn append<T: Value>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    leaf: usize,
    runs: &Runs<T>,
    compression: Compression,
) -> Result<()> {
    let mut pages = Pages::new(compression, 0)?;
    let mut plain_bytes =
        pages.put(Page::Dictionary { values: runs.distinct() }, &runs.dictionary(), true)?;
    let data_at = pages.bytes.len();
    let (mut column_index, mut offset_index) = (ColumnIndexBuilder::new(T::TYPE), OffsetIndexBuilder::new());
    let (mut all_rows, mut ranges) = (0, Vec::new());
    for page in runs.pages(DEFAULT_DATA_PAGE_ROW_COUNT_LIMIT as u64) {
        let (from, rows) = (pages.bytes.len(), page.rows);
        let data = Page::Data { rows: rows as usize, encoding: Encoding::RLE_DICTIONARY };
        plain_bytes += pages.put(data, &page.body, true)?;
        // Below 4 GiB, and far below 2 GiB: 8 bytes a row at most.
        offset_index.append_offset_and_size(from as i64, (pages.bytes.len() - from) as i32);
        offset_index.append_row_count(rows as i64);
        column_index.append(false, page.min.bytes(), page.max.bytes(), 0, None);
        ranges.push((page.min, page.max));
        all_rows += rows;
    }
    if ranges.is_sorted_by_key(|(min, _)| *min) && ranges.is_sorted_by_key(|(_, max)| *max) {
        column_index.set_boundary_order(BoundaryOrder::ASCENDING);
    }
    let range = ranges.into_iter().reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
    let mut metadata = ColumnChunkMetaData::builder(schema::parquet().column(leaf))
        .set_compression(l0::codec(compression))
        .set_encodings_mask(EncodingMask::new_from_encodings(DICTIONARY_ENCODINGS.iter()))
        .set_num_values(all_rows as i64)
        .set_total_compressed_size(pages.bytes.len() as i64)
        .set_total_uncompressed_size(plain_bytes as i64)
        .set_dictionary_page_offset(Some(0))
        .set_data_page_offset(data_at as i64);
    if let Some((min, max)) = range {
        metadata = metadata.set_statistics(T::statistics(min, max));
    }
    let close = ColumnCloseResult {
        bytes_written: pages.bytes.len() as u64,
        rows_written: all_rows,
        metadata: metadata.build()?,
        bloom_filter: None,
        column_index: Some(column_index.build()?),
        offset_index: Some(offset_index.build()),
    };
    group.append_column(&Bytes::from(pages.bytes), close)
}
