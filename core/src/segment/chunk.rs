//! A column chunk of plain pages, from the buffers that the values lie in to the file: compressed where the topic has a
//! codec, copied once where it has none.
//!
//! ```text
//! page header   Thrift's compact protocol: 1 type DATA · 2 uncompressed and 3 compressed size, i32 ·
//!               5 { 1 rows i32 · 2 encoding PLAIN · 3 and 4 encodings of the levels RLE }
//! ```

use std::io::{Cursor, Read};
use std::ops::Range;

use parquet::basic::Encoding;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::statistics::Statistics;

use super::runs::{RowGroup, put_varint};
use super::{Compression, schema};

/// Compresses pages and puts headers on them. One a segment: its buffers are used for every column of it.
pub(super) struct Packer {
    compression: Compression,
    codec: Codec,
    /// Headers, and the bodies that a codec made.
    made: Vec<u8>,
    parts: Vec<Part>,
}

enum Codec {
    None,
    Lz4,
    Snappy(Box<snap::raw::Encoder>),
    Zstd(zstd::bulk::Compressor<'static>),
}

/// A piece of the chunk.
enum Part {
    /// Of `made`.
    Made(Range<usize>),
    /// The body of this page, as it is.
    Page(usize),
}

impl Packer {
    pub(super) fn new(compression: Compression) -> Result<Self> {
        let codec = match compression {
            Compression::None => Codec::None,
            Compression::Lz4 => Codec::Lz4,
            Compression::Snappy => Codec::Snappy(Box::new(snap::raw::Encoder::new())),
            Compression::Zstd => Codec::Zstd(zstd::bulk::Compressor::new(schema::ZSTD_LEVEL)?),
        };
        Ok(Self { compression, codec, made: Vec::new(), parts: Vec::new() })
    }

    /// Writes a column chunk of pages, each a body and how many rows it has.
    pub(super) fn write(
        &mut self,
        group: &mut RowGroup<'_, '_>,
        leaf: usize,
        pages: &[(&[u8], usize)],
        statistics: Option<Statistics>,
    ) -> Result<()> {
        self.made.clear();
        self.parts.clear();
        let (mut size, mut plain_size, mut rows) = (0, 0, 0);
        for (index, (body, count)) in pages.iter().enumerate() {
            let packed = self.pack(body)?;
            let packed_size = packed.as_ref().map_or(body.len(), Range::len);
            let header = self.made.len()
                ..self.made.len() + put_header(&mut self.made, body.len(), packed_size, *count);
            size += header.len() + packed_size;
            plain_size += header.len() + body.len();
            rows += count;
            self.parts.push(Part::Made(header));
            self.parts.push(packed.map_or(Part::Page(index), Part::Made));
        }
        let column = schema::parquet().column(leaf);
        let mut metadata = ColumnChunkMetaData::builder(column)
            .set_compression(schema::codec(self.compression))
            .set_encodings(vec![Encoding::PLAIN, Encoding::RLE])
            .set_num_values(rows as i64)
            .set_total_compressed_size(size as i64)
            .set_total_uncompressed_size(plain_size as i64)
            .set_data_page_offset(0);
        if let Some(statistics) = statistics {
            metadata = metadata.set_statistics(statistics);
        }
        let result = ColumnCloseResult {
            bytes_written: size as u64,
            rows_written: rows as u64,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        group.append_column(&Chunk { made: &self.made, parts: &self.parts, pages, size: size as u64 }, result)
    }

    /// Compresses to the end of `made`; `None` without a codec.
    fn pack(&mut self, body: &[u8]) -> Result<Option<Range<usize>>> {
        let from = self.made.len();
        match &mut self.codec {
            Codec::None => return Ok(None),
            Codec::Lz4 => {
                self.made.resize(from + lz4_flex::block::get_maximum_output_size(body.len()), 0);
                let length =
                    lz4_flex::block::compress_into(body, &mut self.made[from..]).map_err(external)?;
                self.made.truncate(from + length);
            }
            Codec::Snappy(encoder) => {
                self.made.resize(from + snap::raw::max_compress_len(body.len()), 0);
                let length = encoder.compress(body, &mut self.made[from..]).map_err(external)?;
                self.made.truncate(from + length);
            }
            Codec::Zstd(encoder) => {
                self.made.reserve(zstd::zstd_safe::compress_bound(body.len()));
                let mut to = Cursor::new(&mut self.made);
                to.set_position(from as u64);
                encoder.compress_to_buffer(body, &mut to)?;
            }
        }
        Ok(Some(from..self.made.len()))
    }
}

fn external(error: impl std::error::Error + Send + Sync + 'static) -> ParquetError {
    ParquetError::External(Box::new(error))
}

/// The chunk's bytes for Parquet's writer, which copies them behind the others.
#[derive(Clone, Copy)]
struct Chunk<'a> {
    made: &'a [u8],
    parts: &'a [Part],
    pages: &'a [(&'a [u8], usize)],
    size: u64,
}

impl Length for Chunk<'_> {
    fn len(&self) -> u64 {
        self.size
    }
}

impl<'a> ChunkReader for Chunk<'a> {
    type T = ChunkRead<'a>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        if start != 0 {
            return Err(ParquetError::General("a column is read from its start".into()));
        }
        Ok(ChunkRead { chunk: *self, next: 0, part: &[] })
    }

    fn get_bytes(&self, _: u64, _: usize) -> Result<bytes::Bytes> {
        Err(ParquetError::General("a column is read from its start".into()))
    }
}

struct ChunkRead<'a> {
    chunk: Chunk<'a>,
    next: usize,
    part: &'a [u8],
}

impl Read for ChunkRead<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        while self.part.is_empty() {
            match self.chunk.parts.get(self.next) {
                None => return Ok(0),
                Some(Part::Made(range)) => self.part = &self.chunk.made[range.clone()],
                Some(Part::Page(index)) => self.part = self.chunk.pages[*index].0,
            }
            self.next += 1;
        }
        self.part.read(to)
    }
}

/// How long the header is.
fn put_header(out: &mut Vec<u8>, plain: usize, packed: usize, rows: usize) -> usize {
    const DATA_PAGE: usize = 0;
    const PLAIN: usize = 0;
    const RLE: usize = 3;
    let from = out.len();
    let mut field = |step: u8, value: usize| {
        out.push(step << 4 | 5); // i32
        put_varint(out, (value as u64) << 1); // zigzag; none is negative
    };
    field(1, DATA_PAGE);
    field(1, plain);
    field(1, packed);
    out.push(2 << 4 | 12); // field 5, a struct
    let mut field = |value: usize| {
        out.push(1 << 4 | 5);
        put_varint(out, (value as u64) << 1);
    };
    field(rows);
    field(PLAIN);
    field(RLE);
    field(RLE);
    out.extend_from_slice(&[0, 0]);
    out.len() - from
}
