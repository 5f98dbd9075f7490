//! A Parquet file while it grows: page behind page in one buffer, each byte copied there once. What the file then is
//! about (row groups, column chunks, where they lie) is told to Parquet's own metadata writer.
//!
//! ```text
//! page header   Thrift's compact protocol: 1 type · 2 uncompressed and 3 compressed size, i32 · of a DATA page
//!               5 { 1 rows i32 · 2 encoding · 3 and 4 encodings of the levels RLE } · of a DICTIONARY page
//!               7 { 1 values i32 · 2 encoding PLAIN · 3 sorted false }
//! ```

use parquet::basic::{Encoding, EncodingMask};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, ParquetMetaData, ParquetMetaDataWriter, RowGroupMetaData,
};
use parquet::file::statistics::Statistics;

use super::runs::put_varint;
use super::{Compression, schema};

pub(super) struct FileBuilder {
    pages: Pages,
    /// Of the open row group.
    columns: Vec<ColumnChunkMetaData>,
    group_at: usize,
    groups: Vec<RowGroupMetaData>,
    rows: i64,
}

impl FileBuilder {
    pub(super) fn new(compression: Compression, capacity: usize) -> Result<Self> {
        let mut pages = Pages::new(compression, capacity)?;
        pages.bytes.extend_from_slice(schema::MAGIC);
        Ok(Self { pages, columns: Vec::new(), group_at: schema::MAGIC.len(), groups: Vec::new(), rows: 0 })
    }

    /// Begins the next column of the row group.
    pub(super) fn column(&mut self) -> ColumnBuilder<'_> {
        let from = self.pages.bytes.len();
        ColumnBuilder {
            file: self,
            from,
            data_at: from,
            plain_bytes: 0,
            rows: 0,
            compression: Compression::None,
            encodings: EncodingMask::new_from_encodings([Encoding::PLAIN, Encoding::RLE].iter()),
        }
    }

    /// Takes over the next column of the row group from a file that another writer wrote.
    pub(super) fn adopt(&mut self, chunk: &ColumnChunkMetaData, file: &[u8]) -> Result<()> {
        let (from, length) = chunk.byte_range();
        let bytes = file.get(from as usize..(from + length) as usize);
        let bytes = bytes.ok_or_else(|| ParquetError::General("a column chunk outside its file".into()))?;
        let moved = |at: i64| at - from as i64 + self.pages.bytes.len() as i64;
        // The same column of the other file's schema.
        let leaf = schema::parquet().column(self.columns.len());
        let adopted = ColumnChunkMetaData::builder(leaf)
            .set_compression(chunk.compression())
            .set_encodings_mask(*chunk.encodings_mask())
            .set_num_values(chunk.num_values())
            .set_total_compressed_size(chunk.compressed_size())
            .set_total_uncompressed_size(chunk.uncompressed_size())
            .set_data_page_offset(moved(chunk.data_page_offset()))
            .build()?;
        self.columns.push(adopted);
        self.pages.bytes.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn close_group(&mut self, rows: u64) -> Result<()> {
        let columns = std::mem::take(&mut self.columns);
        let plain_bytes = columns.iter().map(ColumnChunkMetaData::uncompressed_size).sum();
        let group = RowGroupMetaData::builder(schema::parquet().clone())
            .set_column_metadata(columns)
            .set_total_byte_size(plain_bytes)
            .set_num_rows(rows as i64)
            .set_ordinal(self.groups.len() as i32)
            .set_file_offset(self.group_at as i64)
            .build()?;
        self.groups.push(group);
        self.group_at = self.pages.bytes.len();
        self.rows += rows as i64;
        Ok(())
    }

    /// Writes the footer: the file, and what the footer says.
    pub(super) fn finish(mut self) -> Result<(Vec<u8>, ParquetMetaData)> {
        const VERSION: i32 = 1;
        let created_by = Some(format!("{}{}", schema::CREATED_BY, schema::FORMAT_VERSION));
        let file = FileMetaData::new(VERSION, self.rows, created_by, None, schema::parquet().clone(), None);
        let metadata = ParquetMetaData::new(file, self.groups);
        ParquetMetaDataWriter::new(&mut self.pages.bytes, &metadata).finish()?;
        Ok((self.pages.bytes, metadata))
    }
}

/// A column chunk on its way. Its metadata is built when it is closed.
pub(super) struct ColumnBuilder<'a> {
    file: &'a mut FileBuilder,
    from: usize,
    /// Where the data pages begin.
    data_at: usize,
    plain_bytes: usize,
    rows: usize,
    compression: Compression,
    encodings: EncodingMask,
}

impl ColumnBuilder<'_> {
    /// A dictionary of so many values, plain and without a codec. Before any other page.
    pub(super) fn dictionary(&mut self, body: &[u8], values: usize) -> Result<()> {
        self.plain_bytes = self.file.pages.put(Page::Dictionary { values }, body, false)?;
        self.data_at = self.file.pages.bytes.len();
        self.encodings = EncodingMask::new_from_encodings(DICTIONARY_ENCODINGS.iter());
        Ok(())
    }

    /// A page of so many rows, without a codec.
    pub(super) fn page(&mut self, body: &[u8], rows: usize, encoding: Encoding) -> Result<()> {
        self.plain_bytes += self.file.pages.put(Page::Data { rows, encoding }, body, false)?;
        self.rows += rows;
        Ok(())
    }

    /// A page of so many rows with the file's codec. All of a column's are, or none.
    pub(super) fn packed_page(&mut self, body: &[u8], rows: usize) -> Result<()> {
        let page = Page::Data { rows, encoding: Encoding::PLAIN };
        self.plain_bytes += self.file.pages.put(page, body, true)?;
        self.compression = self.file.pages.compression;
        self.rows += rows;
        Ok(())
    }

    pub(super) fn close(self, statistics: Option<Statistics>) -> Result<()> {
        let file = self.file;
        let mut metadata = ColumnChunkMetaData::builder(schema::parquet().column(file.columns.len()))
            .set_compression(schema::codec(self.compression))
            .set_encodings_mask(self.encodings)
            .set_num_values(self.rows as i64)
            .set_total_compressed_size((file.pages.bytes.len() - self.from) as i64)
            .set_total_uncompressed_size(self.plain_bytes as i64)
            .set_data_page_offset(self.data_at as i64)
            .set_dictionary_page_offset((self.data_at > self.from).then_some(self.from as i64));
        if let Some(statistics) = statistics {
            metadata = metadata.set_statistics(statistics);
        }
        if file.columns.is_empty() {
            file.columns.reserve_exact(schema::LEAVES);
        }
        file.columns.push(metadata.build()?);
        Ok(())
    }
}

/// What the column chunk of a dictionary is encoded with.
pub(super) const DICTIONARY_ENCODINGS: [Encoding; 3] =
    [Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY];

/// What a page's header says of it, beside its sizes.
#[derive(Clone, Copy)]
pub(super) enum Page {
    /// So many values, plain.
    Dictionary { values: usize },
    /// So many rows.
    Data { rows: usize, encoding: Encoding },
}

/// Page behind page.
pub(super) struct Pages {
    pub(super) bytes: Vec<u8>,
    pub(super) compression: Compression,
    codec: Option<Codec>,
    /// A page that a codec made. One buffer for every page.
    packed: Vec<u8>,
}

impl Pages {
    pub(super) fn new(compression: Compression, capacity: usize) -> Result<Self> {
        let (bytes, codec) = (Vec::with_capacity(capacity), Codec::new(compression)?);
        Ok(Self { bytes, compression, codec, packed: Vec::new() })
    }

    /// Adds a page, with the codec if it `packs`. How long it is without one, its header included.
    pub(super) fn put(&mut self, page: Page, body: &[u8], packs: bool) -> Result<usize> {
        let packed = match self.codec.as_mut().filter(|_| packs) {
            Some(codec) => {
                let length = codec.pack(body, &mut self.packed)?;
                &self.packed[..length]
            }
            None => body,
        };
        let from = self.bytes.len();
        put_header(&mut self.bytes, page, body.len(), packed.len());
        let header = self.bytes.len() - from;
        self.bytes.extend_from_slice(packed);
        Ok(header + body.len())
    }
}

enum Codec {
    Lz4,
    Snappy(Box<snap::raw::Encoder>),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Codec {
    fn new(compression: Compression) -> Result<Option<Self>> {
        Ok(match compression {
            Compression::None => None,
            Compression::Lz4 => Some(Self::Lz4),
            Compression::Snappy => Some(Self::Snappy(Box::new(snap::raw::Encoder::new()))),
            Compression::Zstd => Some(Self::Zstd(zstd::bulk::Compressor::new(schema::ZSTD_LEVEL)?)),
        })
    }

    /// Compresses to the start of `to`, which grows if need be: how long it became.
    fn pack(&mut self, body: &[u8], to: &mut Vec<u8>) -> Result<usize> {
        let room = match self {
            Self::Lz4 => lz4_flex::block::get_maximum_output_size(body.len()),
            Self::Snappy(_) => snap::raw::max_compress_len(body.len()),
            Self::Zstd(_) => zstd::zstd_safe::compress_bound(body.len()),
        };
        if to.len() < room {
            to.resize(room, 0);
        }
        match self {
            Self::Lz4 => lz4_flex::block::compress_into(body, to).map_err(external),
            Self::Snappy(encoder) => encoder.compress(body, to).map_err(external),
            Self::Zstd(encoder) => Ok(encoder.compress_to_buffer(body, &mut to[..])?),
        }
    }
}

fn external(error: impl std::error::Error + Send + Sync + 'static) -> ParquetError {
    ParquetError::External(Box::new(error))
}

// Thrift's types.
const FALSE: u8 = 2;
const I32: u8 = 5;
const STRUCT: u8 = 12;
const STOP: u8 = 0;

/// The field after the one before. None is negative.
fn put_i32(out: &mut Vec<u8>, value: usize) {
    out.push(1 << 4 | I32);
    put_varint(out, (value as u64) << 1); // zigzag
}

fn put_header(out: &mut Vec<u8>, page: Page, plain: usize, packed: usize) {
    const DATA_PAGE: usize = 0;
    const DICTIONARY_PAGE: usize = 2;
    let kind = if matches!(page, Page::Data { .. }) { DATA_PAGE } else { DICTIONARY_PAGE };
    put_i32(out, kind);
    put_i32(out, plain);
    put_i32(out, packed);
    match page {
        Page::Data { rows, encoding } => {
            out.push(2 << 4 | STRUCT); // field 5
            put_i32(out, rows);
            put_i32(out, encoding as usize);
            put_i32(out, Encoding::RLE as usize);
            put_i32(out, Encoding::RLE as usize);
        }
        Page::Dictionary { values } => {
            out.push(4 << 4 | STRUCT); // field 7
            put_i32(out, values);
            put_i32(out, Encoding::PLAIN as usize);
            out.push(1 << 4 | FALSE);
        }
    }
    out.extend_from_slice(&[STOP, STOP]);
}
