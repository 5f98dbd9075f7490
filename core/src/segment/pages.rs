//! Bounds what a row group may decode to, before it is decoded.
//!
//! The Parquet decoder reserves what a page header claims (up to 2 GiB) and repeats dictionary entries as often as
//! the data says. So the page headers are walked first, and only what our writer writes is let through:
//!
//! ```text
//! topic, partition    one DICTIONARY page, then DATA pages (v1) of encoding RLE_DICTIONARY
//! all others          DATA pages (v1) of encoding PLAIN
//! sizes               Σ uncompressed ≤ the chunk's in the footer;  Σ values = the chunk's in the footer
//! ```
//! A page header is a Thrift struct in the compact protocol: `1` type, `2` uncompressed and `3` compressed size,
//! `5` (data) or `7` (dictionary) a struct with `1` values and `2` encoding. Ours have no strings and no lists.

use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};

use super::schema;

const DATA_PAGE: i64 = 0;
const DICTIONARY_PAGE: i64 = 2;
const PLAIN: i64 = 0;
const RLE_DICTIONARY: i64 = 8;

/// Checks every page of a row group whose bytes start at `position` of the file. The error says what is wrong.
pub(super) fn check(group: &RowGroupMetaData, position: u64, bytes: &[u8]) -> Result<(), String> {
    for (leaf, chunk) in group.columns().iter().enumerate() {
        let (start, length) = chunk.byte_range();
        let from = usize::try_from(start.checked_sub(position).ok_or("a column before its row group")?);
        let from = from.map_err(|e| e.to_string())?;
        let to = from.checked_add(length as usize).ok_or("a column too long")?;
        let chunk_bytes = bytes.get(from..to).ok_or("a column outside its row group")?;
        check_chunk(leaf, chunk, chunk_bytes).map_err(|e| format!("column {leaf}: {e}"))?;
    }
    Ok(())
}

fn check_chunk(leaf: usize, chunk: &ColumnChunkMetaData, mut bytes: &[u8]) -> Result<(), &'static str> {
    let dictionary = matches!(leaf, schema::TOPIC | schema::PARTITION);
    let (mut uncompressed, mut values) = (0i64, 0i64);
    let mut first = true;
    while !bytes.is_empty() {
        let page = PageHeader::read(&mut bytes).ok_or("a broken page header")?;
        let expected = match (dictionary, first) {
            (true, true) => (DICTIONARY_PAGE, PLAIN),
            (true, false) => (DATA_PAGE, RLE_DICTIONARY),
            (false, _) => (DATA_PAGE, PLAIN),
        };
        if (page.kind, page.encoding) != expected {
            return Err("a page of another kind or encoding than ours");
        }
        // All are i32 on the wire, and there are at most as many pages as bytes: no overflow.
        if page.uncompressed < 0 || page.values < 0 {
            return Err("a negative size");
        }
        uncompressed += page.uncompressed;
        values += if page.kind == DATA_PAGE { page.values } else { 0 };
        let compressed = usize::try_from(page.compressed).map_err(|_| "a negative size")?;
        bytes = bytes.get(compressed..).ok_or("a page longer than its column")?;
        first = false;
    }
    if uncompressed > chunk.uncompressed_size() || values != chunk.num_values() {
        return Err("pages that do not add up to what the footer says");
    }
    Ok(())
}

#[derive(Default)]
struct PageHeader {
    kind: i64,
    uncompressed: i64,
    compressed: i64,
    values: i64,
    encoding: i64,
}

/// Field types of the compact protocol.
const STOP: u8 = 0;
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const I32: u8 = 5;
const STRUCT: u8 = 12;

impl PageHeader {
    /// Reads one header from the front of `bytes`.
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        // -1: a header that lacks a field is refused.
        let mut page = Self { kind: -1, uncompressed: -1, compressed: -1, values: -1, encoding: -1 };
        let mut id = 0;
        loop {
            match next_field(bytes, &mut id)? {
                STOP => return Some(page),
                I32 => match (id, integer(bytes)?) {
                    (1, n) => page.kind = n,
                    (2, n) => page.uncompressed = n,
                    (3, n) => page.compressed = n,
                    _ => {} // 4: a CRC of the page
                },
                STRUCT if id == 5 || id == 7 => page.read_inner(bytes)?,
                _ => return None,
            }
        }
    }

    fn read_inner(&mut self, bytes: &mut &[u8]) -> Option<()> {
        let mut id = 0;
        loop {
            match next_field(bytes, &mut id)? {
                STOP => return Some(()),
                TRUE | FALSE => {} // whether the dictionary is sorted
                I32 => match (id, integer(bytes)?) {
                    (1, n) => self.values = n,
                    (2, n) => self.encoding = n,
                    _ => {} // 3, 4: encodings of the levels
                },
                _ => return None,
            }
        }
    }
}

/// The next field's type; `id` becomes its number.
fn next_field(bytes: &mut &[u8], id: &mut i64) -> Option<u8> {
    let byte = take(bytes)?;
    let step = i64::from(byte >> 4);
    if byte == STOP {
        return Some(STOP);
    }
    // A step of 0 announces a number written out; our headers count up.
    *id += if step == 0 { return None } else { step };
    Some(byte & 0x0f)
}

/// A zigzag varint that fits 32 bits.
fn integer(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..35).step_by(7) {
        let byte = take(bytes)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            let value = u32::try_from(value).ok()?;
            return Some(i64::from((value >> 1) as i32 ^ -((value & 1) as i32)));
        }
    }
    None
}

fn take(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}
