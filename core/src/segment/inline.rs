//! The other home of rows: small batches inside a commit (R8), at most [`limits::INLINE_BYTES_MAX`] in all.
//!
//! ```text
//! (all)     sections until the end, one a partition in practice
//! section   count varint, at least 1, then that many rows
//! row       timestamp   zigzag varint   µs, minus the row before in this section (the first: minus 0); wrapping
//!           key         bytes
//!           value       bytes
//!           headers     count varint, then each: key bytes (never null, UTF-8) · value bytes
//! bytes     0                           null
//!           length + 1  varint          then `length` bytes
//! varint    LEB128: seven bits a byte, lowest first, high bit set on all but the last; shortest form only; u64
//! ```
//! There is no version and no checksum here: the commit around it has both (`encoding` = 1). The commit's
//! slices say where each partition begins; sections only let the size of each be known before all are put together.

use bytes::Bytes;

use crate::batch::{Rows, RowsBuilder};
use crate::error::{Error, Result};
use crate::limits;
use crate::record::Header;

/// The commit's number for this encoding of rows.
pub const ENCODING: u64 = 1;

/// The fewest bytes of a row: timestamp, two nulls, no headers.
const ROW_BYTES_MIN: usize = 4;
/// The fewest bytes of a header: an empty key and a null.
const HEADER_BYTES_MIN: usize = 2;
/// Raw bytes are at most this many times the encoded ones.
const RAW_PER_BYTE: usize = 10;
const _: () = assert!(
    limits::ROW_BYTES <= RAW_PER_BYTE * ROW_BYTES_MIN
        && limits::HEADER_BYTES <= RAW_PER_BYTE * HEADER_BYTES_MIN
);

/// What `rows` add in this encoding. Exact unless far above [`limits::INLINE_BYTES_MAX`]; then some number above it,
/// found without looking at the rows.
pub fn inline_bytes(rows: &Rows) -> usize {
    if rows.raw_bytes() / RAW_PER_BYTE > limits::INLINE_BYTES_MAX {
        return rows.raw_bytes();
    }
    if rows.is_empty() {
        return 0;
    }
    let mut size = varint_len(rows.len() as u64);
    for_each_row(rows, |timestamp, i| {
        let headers = rows.headers(i);
        size += varint_len(timestamp) + bytes_len(rows.key(i)) + bytes_len(rows.value(i));
        size += varint_len(headers.len() as u64);
        size += headers.map(|(key, value)| bytes_len(Some(key.as_bytes())) + bytes_len(value)).sum::<usize>();
    });
    size
}

/// Encodes the rows of one or several partitions, one after the other.
pub fn encode_inline(all: &[Rows]) -> Result<Bytes> {
    let size = all.iter().map(inline_bytes).sum();
    Error::check_size("inline batches", size, limits::INLINE_BYTES_MAX)?;
    let mut out = Vec::with_capacity(size);
    for rows in all.iter().filter(|rows| !rows.is_empty()) {
        put_varint(&mut out, rows.len() as u64);
        for_each_row(rows, |timestamp, i| {
            put_varint(&mut out, timestamp);
            put_bytes(&mut out, rows.key(i));
            put_bytes(&mut out, rows.value(i));
            let headers = rows.headers(i);
            put_varint(&mut out, headers.len() as u64);
            for (key, value) in headers {
                put_bytes(&mut out, Some(key.as_bytes()));
                put_bytes(&mut out, value);
            }
        });
    }
    Ok(Bytes::from(out))
}

/// Decodes all rows, of whatever partitions. Refuses anything but what [`encode_inline`] writes.
pub fn decode_inline(bytes: &Bytes) -> Result<Rows> {
    if bytes.len() > limits::INLINE_BYTES_MAX {
        let detail = format!("{} bytes long, limit {}", bytes.len(), limits::INLINE_BYTES_MAX);
        return Err(Error::damaged("inline batch", detail));
    }
    decode(bytes).ok_or_else(|| Error::damaged("inline batch", "not in the inline encoding of rows"))?
}

/// `None`: the bytes end early, or are not in a form that we write.
fn decode(mut bytes: &[u8]) -> Option<Result<Rows>> {
    let mut rows = RowsBuilder::new();
    let mut headers = Vec::new();
    while !bytes.is_empty() {
        if let Err(too_large) = decode_section(&mut bytes, &mut rows, &mut headers)? {
            return Some(Err(too_large));
        }
    }
    Some(Ok(rows.finish()))
}

fn decode_section(from: &mut &[u8], rows: &mut RowsBuilder, headers: &mut Vec<Header>) -> Option<Result<()>> {
    let count = get_varint(from)?;
    if count == 0 || count > (from.len() / ROW_BYTES_MIN) as u64 {
        return None;
    }
    let mut timestamp_us = 0i64;
    for _ in 0..count {
        timestamp_us = timestamp_us.wrapping_add(unzigzag(get_varint(from)?));
        let (key, value) = (get_bytes(from)?, get_bytes(from)?);
        get_headers(from, headers)?;
        if let Err(too_large) = rows.push(timestamp_us, key, value, headers) {
            return Some(Err(too_large));
        }
    }
    Some(Ok(()))
}

fn get_headers(from: &mut &[u8], headers: &mut Vec<Header>) -> Option<()> {
    headers.clear();
    let count = get_varint(from)?;
    if count > (from.len() / HEADER_BYTES_MIN) as u64 {
        return None;
    }
    for _ in 0..count {
        let key = std::str::from_utf8(get_bytes(from)??).ok()?.to_owned();
        headers.push(Header { key, value: get_bytes(from)?.map(Bytes::copy_from_slice) });
    }
    Some(())
}

/// Calls `f` with each row's timestamp as it is written, and its place.
fn for_each_row(rows: &Rows, mut f: impl FnMut(u64, usize)) {
    let mut before = 0;
    for (i, timestamp_us) in rows.timestamps_us().iter().enumerate() {
        f(zigzag(timestamp_us.wrapping_sub(before)), i);
        before = *timestamp_us;
    }
}

fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

fn unzigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

fn varint_len(n: u64) -> usize {
    (64 - (n | 1).leading_zeros() as usize).div_ceil(7)
}

fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn get_varint(from: &mut &[u8]) -> Option<u64> {
    let mut n = 0u64;
    for (i, byte) in from.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if i == 9 && bits > 1 {
            return None; // beyond 64 bits
        }
        n |= bits << (7 * i);
        if *byte < 0x80 {
            *from = &from[i + 1..];
            return (i == 0 || bits != 0).then_some(n); // a last byte of 0 would be a longer form
        }
    }
    None
}

fn bytes_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |b| varint_len(b.len() as u64 + 1) + b.len())
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varint(out, bytes.map_or(0, |b| b.len() as u64 + 1));
    out.extend_from_slice(bytes.unwrap_or_default());
}

/// The outer `None`: broken; the inner: null.
fn get_bytes<'a>(from: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let Some(length) = get_varint(from)?.checked_sub(1) else { return Some(None) };
    let (bytes, rest) = from.split_at_checked(usize::try_from(length).ok()?)?;
    *from = rest;
    Some(Some(bytes))
}
