//! The bytes that items and checkpoints are made of: LEB128 integers, fixed big-endian ids, counted lists.
//!
//! The reader treats its input as hostile: a count is checked against the bytes that are left before anything is
//! allocated, and every failure says where.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::{Error, Result};

/// Grows a byte string.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// The bytes so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes.
    pub fn into_bytes(self) -> Bytes {
        self.bytes.into()
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// LEB128: seven bits a byte, least significant first, high bit: more follow.
    pub fn uint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// Zigzag, then LEB128: small negatives stay small.
    pub fn int(&mut self, value: i64) {
        self.uint(((value << 1) ^ (value >> 63)) as u64);
    }

    /// 4 bytes, big-endian.
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// 8 bytes, big-endian.
    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// 16 bytes, big-endian.
    pub fn u128(&mut self, value: u128) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// A length and the bytes.
    pub fn bytes(&mut self, value: &[u8]) {
        self.uint(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    /// 0 for `None`, 1 and the value for `Some`.
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// A count and the elements.
    pub fn list<T>(&mut self, values: impl ExactSizeIterator<Item = T>, mut write: impl FnMut(&mut Self, T)) {
        self.uint(values.len() as u64);
        values.for_each(|value| write(self, value));
    }
}

/// Takes a byte string apart.
#[derive(Debug)]
pub struct Reader<'a> {
    what: &'a str,
    whole: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`; `what` names them in errors.
    pub fn new(what: &'a str, bytes: &'a Bytes) -> Self {
        Self { what, whole: bytes, at: 0 }
    }

    /// Bytes not yet read.
    pub fn left(&self) -> usize {
        self.whole.len() - self.at
    }

    /// An error at this place.
    pub fn error(&self, detail: impl std::fmt::Display) -> Error {
        Error::damaged(self.what, format!("{detail} at byte {}", self.at))
    }

    /// Everything was read.
    pub fn end(self) -> Result<()> {
        match self.left() {
            0 => Ok(()),
            left => Err(self.error(format!("{left} bytes too many"))),
        }
    }

    /// The next `length` bytes, shared.
    pub fn take(&mut self, length: usize) -> Result<Bytes> {
        if length > self.left() {
            return Err(self.error(format!("{length} bytes wanted, {} left", self.left())));
        }
        let taken = self.whole.slice(self.at..self.at + length);
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let end = self.at.saturating_add(N);
        let slice = self.whole.get(self.at..end).ok_or_else(|| self.error("truncated"))?;
        self.at = end;
        slice.try_into().map_err(|_| self.error("truncated"))
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// See [`Writer::uint`]. Overlong encodings are refused: one value, one form.
    pub fn uint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 || shift > 0 && byte == 0 {
                return Err(self.error("malformed integer"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error("malformed integer"))
    }

    /// An unsigned integer that fits a smaller type.
    pub fn small<T: TryFrom<u64>>(&mut self) -> Result<T> {
        let value = self.uint()?;
        T::try_from(value).map_err(|_| self.error(format!("{value} is too large")))
    }

    /// See [`Writer::int`].
    pub fn int(&mut self) -> Result<i64> {
        let value = self.uint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// 4 bytes, big-endian.
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// 8 bytes, big-endian.
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// 16 bytes, big-endian.
    pub fn u128(&mut self) -> Result<u128> {
        Ok(u128::from_be_bytes(self.array()?))
    }

    /// A length and the bytes.
    pub fn bytes(&mut self) -> Result<Bytes> {
        let length = self.small()?;
        self.take(length)
    }

    /// UTF-8 with a length.
    pub fn string(&mut self) -> Result<String> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes.into()).map_err(|_| self.error("not UTF-8"))
    }

    /// See [`Writer::option`].
    pub fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        match self.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            other => Err(self.error(format!("{other} is neither 0 nor 1"))),
        }
    }

    /// A counted list whose elements take at least `element_bytes_min` each: the count is checked against what is left.
    pub fn list<T>(
        &mut self,
        element_bytes_min: usize,
        mut read: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let count: usize = self.small()?;
        if count > self.left() / element_bytes_min.max(1) {
            return Err(self.error(format!("a list of {count} cannot fit")));
        }
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(read(self)?);
        }
        Ok(values)
    }

    /// A list of keys and values whose keys rise, as a map writes them: one value, one form.
    pub fn map<K: Ord, V>(
        &mut self,
        element_bytes_min: usize,
        mut read: impl FnMut(&mut Self) -> Result<(K, V)>,
    ) -> Result<BTreeMap<K, V>> {
        let entries = self.list(element_bytes_min, &mut read)?;
        if !entries.is_sorted_by(|(before, _), (after, _)| before < after) {
            return Err(self.error("keys that do not rise"));
        }
        Ok(entries.into_iter().collect())
    }
}
