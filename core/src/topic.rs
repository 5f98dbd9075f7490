//! Topics: names and configuration. Kafka's grammar, Kafka's words.

use crate::error::{Error, Result};
use crate::limits;
use crate::segment::Compression;

/// How long records are kept, ms; −1: for ever. Acted on by trim.
pub const RETENTION_MS: &str = "retention.ms";
/// How many bytes of a partition are kept at least, counted as its records were merged first: what a rewrite saves later is not taken
/// off, and what is not merged yet is not counted. −1: all. Acted on by trim.
pub const RETENTION_BYTES: &str = "retention.bytes";
/// Codec of the topic's segments: `none`, `lz4`, `snappy` or `zstd`.
pub const COMPRESSION_TYPE: &str = "compression.type";
/// `CreateTime` or `LogAppendTime`.
pub const MESSAGE_TIMESTAMP_TYPE: &str = "message.timestamp.type";
/// Largest record: key, value and headers together, bytes.
pub const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
/// Largest flush that rides inside its commit, bytes; 0: none.
pub const INLINE_BYTES_MAX: &str = "inline.bytes.max";

/// How old the oldest records become before they are merged, ms. Unless set: a minute where the topic takes 64 KiB/s, ten
/// minutes where it takes less.
pub const MERGE_MAX_AGE_MS: &str = "merge.max.age.ms";
/// `true`: merged segments have a bloom filter on the key.
pub const BLOOM_FILTER_KEY: &str = "parquet.bloom.filter.key";

/// Every key that a topic may set.
pub const CONFIG_KEYS: [&str; 8] = [
    RETENTION_MS,
    RETENTION_BYTES,
    COMPRESSION_TYPE,
    MESSAGE_TIMESTAMP_TYPE,
    MAX_MESSAGE_BYTES,
    INLINE_BYTES_MAX,
    MERGE_MAX_AGE_MS,
    BLOOM_FILTER_KEY,
];

/// Kafka's rules: 1 to 249 of `[a-zA-Z0-9._-]`, and neither `.` nor `..`.
pub fn check_name(name: &str) -> Result<()> {
    Error::check_size("topic name", name.len(), limits::TOPIC_NAME_BYTES_MAX)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name == "." || name == ".." || !name.chars().all(allowed) {
        let reason = format!("{name:?} must be 1 to 249 of a-z A-Z 0-9 . _ - and neither \".\" nor \"..\"");
        return Err(Error::invalid("topic name", reason));
    }
    Ok(())
}

/// 1 to [`limits::PARTITIONS_PER_TOPIC_MAX`].
pub fn check_partitions(partitions: u32) -> Result<()> {
    if partitions == 0 {
        return Err(Error::invalid("partitions", "must be at least 1"));
    }
    Error::check_size("partitions", partitions as usize, limits::PARTITIONS_PER_TOPIC_MAX as usize)
}

/// Known keys with values in range. `None` removes a key.
pub fn check_config<'a>(entries: impl ExactSizeIterator<Item = (&'a str, Option<&'a str>)>) -> Result<()> {
    Error::check_size("config entries", entries.len(), limits::CONFIG_ENTRIES_MAX)?;
    for (key, value) in entries {
        if !CONFIG_KEYS.contains(&key) {
            let reason = format!("{key:?} is not known; known are {}", CONFIG_KEYS.join(", "));
            return Err(Error::invalid("config", reason));
        }
        if let Some(value) = value {
            Error::check_size("config value", value.len(), limits::CONFIG_VALUE_BYTES_MAX)?;
            check_value(key, value)?;
        }
    }
    Ok(())
}

fn check_value(key: &str, value: &str) -> Result<()> {
    let invalid = |allowed: &str| Err(Error::invalid("config", format!("{key}={value}: must be {allowed}")));
    match key {
        RETENTION_MS | RETENTION_BYTES if !value.parse::<i64>().is_ok_and(|v| v >= -1) => {
            invalid("a whole number, −1 for no limit")
        }
        COMPRESSION_TYPE if value.parse::<Compression>().is_err() => invalid("none, lz4, snappy or zstd"),
        MESSAGE_TIMESTAMP_TYPE if !matches!(value, "CreateTime" | "LogAppendTime") => {
            invalid("CreateTime or LogAppendTime")
        }
        MAX_MESSAGE_BYTES if !within(value, 1, limits::RECORD_BYTES_MAX) => {
            invalid(&format!("1 to {} bytes", limits::RECORD_BYTES_MAX))
        }
        INLINE_BYTES_MAX if !within(value, 0, limits::INLINE_BYTES_MAX) => {
            invalid(&format!("0 to {} bytes", limits::INLINE_BYTES_MAX))
        }
        MERGE_MAX_AGE_MS if !within(value, limits::MERGE_AGE_SET_MS_MIN, limits::MERGE_AGE_SET_MS_MAX) => {
            let (least, most) = (limits::MERGE_AGE_SET_MS_MIN, limits::MERGE_AGE_SET_MS_MAX);
            invalid(&format!("{least} to {most} ms"))
        }
        BLOOM_FILTER_KEY if !matches!(value, "true" | "false") => invalid("true or false"),
        _ => Ok(()),
    }
}

fn within(value: &str, min: usize, max: usize) -> bool {
    value.parse::<usize>().is_ok_and(|v| (min..=max).contains(&v))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafka() {
        for good in ["a", "app.logs-1_x", "...", &"x".repeat(249)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "ü", "a b", &"x".repeat(250)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn config_names_key_and_range() {
        let check = |key, value| check_config([(key, Some(value))].into_iter());
        assert!(check(RETENTION_MS, "-1").is_ok());
        assert!(check(COMPRESSION_TYPE, "zstd").is_ok());
        let error = check(MAX_MESSAGE_BYTES, "0").unwrap_err().to_string();
        assert!(error.contains("max.message.bytes=0: must be 1 to"), "{error}");
        assert!(check("cleanup.policy", "compact").unwrap_err().to_string().contains("is not known"));
        assert!(check(MESSAGE_TIMESTAMP_TYPE, "Never").is_err());
        assert!(check(INLINE_BYTES_MAX, "4097").is_err());
        let error = check(MERGE_MAX_AGE_MS, "-1").unwrap_err().to_string();
        assert!(error.contains("merge.max.age.ms=-1: must be 1000 to 86400000 ms"), "{error}");
        assert!(check(BLOOM_FILTER_KEY, "yes").is_err());
    }
}
