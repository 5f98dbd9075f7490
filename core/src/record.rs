//! 1 · The record: what producers send and consumers get, and its hash.
//!
//! Pure: no clock, no I/O. The simulator's oracle shares this module with the log, and nothing else.

use std::ops::Add;

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::error::{Error, Result};
use crate::limits;

/// A record's position in its partition. The first is 0.
pub type Offset = u64;

/// A topic's id: 128 random bits, never used again after the topic is deleted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub u128);

impl std::fmt::Display for TopicId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::fmt::Debug for TopicId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// A record as a producer gives it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Microseconds since 1970, UTC; `None`: the time at which `send` was called.
    pub timestamp_us: Option<i64>,
    /// Decides the partition when there is one.
    pub key: Option<Bytes>,
    /// `None` is Kafka's null (a tombstone), which is not the same as empty.
    pub value: Option<Bytes>,
    /// In order; keys may repeat.
    pub headers: Vec<Header>,
}

/// A record header. The same key may occur more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// UTF-8, may be empty.
    pub key: String,
    /// `None` is null.
    pub value: Option<Bytes>,
}

impl Record {
    /// A record with a value and nothing else.
    pub fn value(value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// A record with a key and a value.
    pub fn keyed(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { key: Some(key.into()), value: Some(value.into()), ..Self::default() }
    }

    /// Bytes of key, value and headers: what the record limits count.
    pub fn payload_bytes(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|h| h.key.len() + h.value.as_ref().map_or(0, Bytes::len)).sum();
        self.key.as_ref().map_or(0, Bytes::len) + self.value.as_ref().map_or(0, Bytes::len) + headers
    }

    /// What a batch counts: [`Record::payload_bytes`], and a small sum for the row and each header.
    pub fn raw_bytes(&self) -> usize {
        self.payload_bytes() + limits::ROW_BYTES + self.headers.len() * limits::HEADER_BYTES
    }

    /// Checks every field against its limit; `record_bytes_max` is the topic's. The error names field and limit.
    pub fn validate(&self, record_bytes_max: usize) -> Result<()> {
        if let Some(key) = &self.key {
            Error::check_size("key", key.len(), limits::KEY_BYTES_MAX)?;
        }
        Error::check_size("headers", self.headers.len(), limits::HEADERS_PER_RECORD_MAX)?;
        for header in &self.headers {
            Error::check_size("header key", header.key.len(), limits::HEADER_KEY_BYTES_MAX)?;
            if let Some(value) = &header.value {
                Error::check_size("header value", value.len(), limits::HEADER_VALUE_BYTES_MAX)?;
            }
        }
        Error::check_size("record", self.payload_bytes(), record_bytes_max.min(limits::RECORD_BYTES_MAX))?;
        if let Some(timestamp_us) = self.timestamp_us {
            check_timestamp(timestamp_us)?;
        }
        Ok(())
    }
}

/// Refuses a timestamp outside the years 1970 to 9999.
pub fn check_timestamp(timestamp_us: i64) -> Result<()> {
    if (limits::TIMESTAMP_US_MIN..=limits::TIMESTAMP_US_MAX).contains(&timestamp_us) {
        return Ok(());
    }
    Err(Error::invalid(
        "timestamp",
        format!(
            "{timestamp_us} µs is outside {}..={} (the years 1970 to 9999)",
            limits::TIMESTAMP_US_MIN,
            limits::TIMESTAMP_US_MAX
        ),
    ))
}

/// A record as a consumer gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerRecord {
    /// Its position in the partition.
    pub offset: Offset,
    /// Microseconds since 1970, UTC. Under `LogAppendTime` the time of its commit.
    pub timestamp_us: i64,
    /// Key, if any.
    pub key: Option<Bytes>,
    /// Value, or null.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<Header>,
}

/// Hashes records, one by one: xxh3-128 of topic id, partition, stored timestamp, key, value and headers, big-endian:
/// id 16 bytes, partition u32, timestamp i64 µs, key and value as u32 length (`u32::MAX`: null) and bytes,
/// u32 header count, each header the same way.
#[derive(Clone)]
pub struct RecordHasher {
    /// Starts with topic id and partition, which all records share; the rest of a small record is laid out behind.
    scratch: [u8; HASH_FIXED + HASH_AT_ONCE_BYTES],
}

/// Topic id and partition.
const HASH_PREFIX: usize = 20;
/// All but key and value of a record without headers: the prefix, a timestamp, two lengths and a count.
const HASH_FIXED: usize = HASH_PREFIX + 8 + 4 + 4 + 4;
/// Below this a record is copied together and hashed at once, which is several times faster than in pieces; above it
/// the copy would cost more than the pieces do.
const HASH_AT_ONCE_BYTES: usize = 2 << 10;

impl RecordHasher {
    /// For the records of one partition.
    pub fn new(topic: TopicId, partition: u32) -> Self {
        let mut scratch = [0; HASH_FIXED + HASH_AT_ONCE_BYTES];
        scratch[..16].copy_from_slice(&topic.0.to_be_bytes());
        scratch[16..HASH_PREFIX].copy_from_slice(&partition.to_be_bytes());
        Self { scratch }
    }

    /// The hash of one record.
    #[inline]
    pub fn hash<'a>(
        &mut self,
        timestamp_us: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> u128 {
        let size = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        if size <= HASH_AT_ONCE_BYTES && headers.len() == 0 {
            return self.hash_plain(timestamp_us, key, value);
        }
        self.hash_in_pieces(timestamp_us, key, value, headers)
    }

    #[inline(never)]
    fn hash_in_pieces<'a>(
        &self,
        timestamp_us: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> u128 {
        let mut hasher = Xxh3::new();
        hasher.update(&self.scratch[..HASH_PREFIX]);
        hasher.update(&timestamp_us.to_be_bytes());
        for bytes in [key, value] {
            hasher.update(&length(bytes));
            hasher.update(bytes.unwrap_or_default());
        }
        hasher.update(&(headers.len() as u32).to_be_bytes());
        for (key, value) in headers {
            hasher.update(&length(Some(key)));
            hasher.update(key);
            hasher.update(&length(value));
            hasher.update(value.unwrap_or_default());
        }
        hasher.digest128()
    }

    /// Lays `bytes` down at `at`; where they end.
    #[inline]
    fn lay(&mut self, at: usize, bytes: &[u8]) -> usize {
        let end = at + bytes.len();
        self.scratch[at..end].copy_from_slice(bytes);
        end
    }

    /// The same for the common record: small, without headers.
    #[inline]
    fn hash_plain(&mut self, timestamp_us: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> u128 {
        // Timestamp and key length always stand at the same place; without a key so does the value's length.
        let mut fixed = [0; 16];
        fixed[..8].copy_from_slice(&timestamp_us.to_be_bytes());
        fixed[8..12].copy_from_slice(&length(key));
        fixed[12..].copy_from_slice(&length(value));
        self.scratch[HASH_PREFIX..HASH_PREFIX + 16].copy_from_slice(&fixed);
        let mut end = HASH_PREFIX + 16;
        if let Some(key) = key {
            end = self.lay(end - 4, key);
            end = self.lay(end, &length(value));
        }
        end = self.lay(end, value.unwrap_or_default());
        end = self.lay(end, &[0; 4]); // no headers
        xxh3_128(&self.scratch[..end])
    }
}

fn length(bytes: Option<&[u8]>) -> [u8; 4] {
    bytes.map_or(u32::MAX, |b| b.len() as u32).to_be_bytes()
}

/// The record sum of a run of records: (Σh, Σk·h) mod 2¹²⁸, with h the record's hash and k its place in the run,
/// from 0. Order and content both count; two runs can be joined without their records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct RecordSum {
    /// Σh.
    pub hashes: u128,
    /// Σk·h.
    pub places: u128,
}

impl RecordSum {
    /// Adds the record at place `k`.
    pub fn push(&mut self, k: u64, hash: u128) {
        self.hashes = self.hashes.wrapping_add(hash);
        self.places = self.places.wrapping_add(hash.wrapping_mul(u128::from(k)));
    }

    /// The same records, `by` places further on.
    pub fn shifted(self, by: u64) -> Self {
        Self {
            hashes: self.hashes,
            places: self.places.wrapping_add(self.hashes.wrapping_mul(u128::from(by))),
        }
    }
}

impl Add for RecordSum {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            hashes: self.hashes.wrapping_add(other.hashes),
            places: self.places.wrapping_add(other.places),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_join_without_the_records() {
        let hashes: Vec<u128> =
            (1..=7u128).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834)).collect();
        let sum = |hashes: &[u128]| {
            let mut sum = RecordSum::default();
            hashes.iter().enumerate().for_each(|(k, h)| sum.push(k as u64, *h));
            sum
        };
        assert_eq!(sum(&hashes), sum(&hashes[..3]) + sum(&hashes[3..]).shifted(3));
        let mut swapped = hashes.clone();
        swapped.swap(1, 2);
        assert_ne!(sum(&hashes), sum(&swapped), "order counts");
    }

    #[test]
    fn every_field_counts_in_the_hash() {
        let mut hasher = RecordHasher::new(TopicId(1), 2);
        let none: [(&[u8], Option<&[u8]>); 0] = [];
        let base = hasher.hash(3, None, Some(b"v"), none.into_iter());
        assert_ne!(base, hasher.hash(4, None, Some(b"v"), none.into_iter()));
        assert_ne!(base, hasher.hash(3, Some(b""), Some(b"v"), none.into_iter()), "null is not empty");
        assert_ne!(base, hasher.hash(3, Some(b"v"), None, none.into_iter()));
        assert_ne!(base, hasher.hash(3, None, Some(b"v"), [(&b"h"[..], None)].into_iter()));
        assert_ne!(base, RecordHasher::new(TopicId(1), 3).hash(3, None, Some(b"v"), none.into_iter()));
        assert_ne!(base, RecordHasher::new(TopicId(2), 2).hash(3, None, Some(b"v"), none.into_iter()));
    }

    #[test]
    fn both_ways_of_hashing_give_the_documented_bytes() {
        let mut hasher = RecordHasher::new(TopicId(7), 8);
        for size in [0, 1, 16, 100, 240, 241, 1_999, HASH_AT_ONCE_BYTES, HASH_AT_ONCE_BYTES + 1, 100_000] {
            let value = vec![b'v'; size];
            let headers = [(&b"h"[..], Some(&b"x"[..])), (&b""[..], None)];
            for (key, value, headers) in [
                (None, Some(&value[..]), &headers[..0]),
                (Some(&b"k"[..]), None, &headers[..0]),
                (Some(&value[..]), Some(&value[..size / 2]), &headers[..]),
            ] {
                let mut laid_out =
                    [&7u128.to_be_bytes()[..], &8u32.to_be_bytes(), &9i64.to_be_bytes()].concat();
                let mut put = |bytes: Option<&[u8]>| {
                    laid_out.extend_from_slice(&bytes.map_or(u32::MAX, |b| b.len() as u32).to_be_bytes());
                    laid_out.extend_from_slice(bytes.unwrap_or_default());
                };
                put(key);
                put(value);
                laid_out.extend_from_slice(&(headers.len() as u32).to_be_bytes());
                for (key, value) in headers {
                    let mut put = |bytes: Option<&[u8]>| {
                        laid_out.extend_from_slice(&bytes.map_or(u32::MAX, |b| b.len() as u32).to_be_bytes());
                        laid_out.extend_from_slice(bytes.unwrap_or_default());
                    };
                    put(Some(key));
                    put(*value);
                }
                assert_eq!(
                    hasher.hash(9, key, value, headers.iter().copied()),
                    xxh3_128(&laid_out),
                    "{size}"
                );
            }
        }
    }

    #[test]
    fn limits_name_the_field() {
        let long = Bytes::from(vec![0; limits::KEY_BYTES_MAX + 1]);
        let error = Record::keyed(long, "").validate(limits::RECORD_BYTES_MAX).unwrap_err();
        assert_eq!(error.to_string(), "key is too large: 65537, limit 65536");
        let mut late = Record::value("x");
        late.timestamp_us = Some(limits::TIMESTAMP_US_MAX + 1);
        assert!(late.validate(10).unwrap_err().to_string().contains("timestamp is invalid"));
        assert!(
            Record::value("xx")
                .validate(1)
                .unwrap_err()
                .to_string()
                .contains("record is too large: 2, limit 1")
        );
    }
}
