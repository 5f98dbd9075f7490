//! A record as a JSON object.
//!
//! ```text
//! {"topic":"logs","partition":2,"offset":7,"timestamp":1764000000000,"key":"host-1","value":"…","headers":[
//!   {"key":"trace","value":"…"}]}
//! ```
//! Bytes that are not UTF-8 are base 64 (standard alphabet, padded) under another name: `key_base64`, `value_base64`.
//! A field that is missing is null. `timestamp` is in milliseconds since 1970; finer parts are not written.
//!
//! The object's own fields are found first, as pieces of the line: nothing is copied, nested values are passed over
//! without recursion, and a field that is unknown or comes twice is refused. Each piece is then read as what it must be.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::de::{Deserializer as _, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Parsed;
use crate::error::{Error, Result};
use crate::limits;
use crate::record::{ConsumerRecord, Header, Record, check_timestamp};

/// What an object may hold; `topic` and `offset` are what [`write`] wrote, and are not read.
const FIELDS: [&str; 9] =
    ["key", "key_base64", "value", "value_base64", "timestamp", "partition", "headers", "topic", "offset"];
const HEADER_FIELDS: [&str; 3] = ["key", "value", "value_base64"];
/// Of a value that is refused, this much is shown.
const SHOWN_BYTES: usize = 40;

/// Reads one object. Every field may be missing or null; both of `value` and `value_base64` is an error, as is a field
/// that is unknown, and so would be lost.
pub fn parse(text: &[u8]) -> Result<Parsed> {
    let text = utf8(text)?;
    let [key, key64, value, value64, timestamp, partition, headers, ..] = object("record", text, FIELDS)?;
    let record = Record {
        timestamp_us: timestamp.map(timestamp_us).transpose()?,
        key: bytes("key", key, "key_base64", key64)?,
        value: bytes("value", value, "value_base64", value64)?,
        headers: headers.map_or(Ok(Vec::new()), |headers| parse_headers(headers.get()))?,
    };
    let partition = partition.map(|raw| {
        let number = raw.get().parse::<u32>();
        number
            .map_err(|_| Error::invalid("partition", format!("{} is no partition number", shown(raw.get()))))
    });
    Ok((record, partition.transpose()?))
}

fn utf8(text: &[u8]) -> Result<&str> {
    if text.starts_with(b"\xef\xbb\xbf") {
        return Err(Error::invalid("record", "it begins with a byte order mark; remove it"));
    }
    std::str::from_utf8(text).map_err(|error| {
        let at = error.valid_up_to() + 1;
        let what = "not UTF-8 at byte";
        Error::invalid(
            "record",
            format!("{what} {at}; send bytes that are no text as base 64 in value_base64"),
        )
    })
}

fn parse_headers(text: &str) -> Result<Vec<Header>> {
    if !text.starts_with('[') {
        return Err(Error::invalid("headers", "it must be an array of objects"));
    }
    let read = serde_json::Deserializer::from_str(text).deserialize_seq(Elements);
    let (elements, count) = read.map_err(|error| Error::invalid("headers", words(&error)))?;
    Error::check_size("headers", count, limits::HEADERS_PER_RECORD_MAX)?;
    elements.into_iter().map(|element| parse_header(element.get())).collect()
}

fn parse_header(text: &str) -> Result<Header> {
    let [key, value, value64] = object("headers", text, HEADER_FIELDS)?;
    let key = key.ok_or_else(|| Error::invalid("headers", "each needs a string as its key"))?;
    Ok(Header {
        key: string("header key", key)?,
        value: bytes("header value", value, "header value_base64", value64)?,
    })
}

/// Milliseconds → microseconds.
fn timestamp_us(raw: &RawValue) -> Result<i64> {
    let us = raw.get().parse::<i64>().ok().and_then(|ms| ms.checked_mul(1_000));
    let us = us.ok_or_else(|| {
        let what = "is no whole number of milliseconds since 1970, up to the year 9999";
        Error::invalid("timestamp", format!("{} {what}", shown(raw.get())))
    })?;
    check_timestamp(us)?;
    Ok(us)
}

fn bytes(
    name: &'static str,
    plain: Option<&RawValue>,
    name64: &'static str,
    encoded: Option<&RawValue>,
) -> Result<Option<Bytes>> {
    match (plain, encoded) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Error::invalid(name, format!("both {name} and {name64} are set"))),
        (Some(plain), None) => Ok(Some(string(name, plain)?.into())),
        (None, Some(encoded)) => {
            let decoded = BASE64.decode(string(name64, encoded)?);
            let refused = |error| Error::invalid(name64, format!("not base 64 (standard, padded): {error}"));
            Ok(Some(decoded.map_err(refused)?.into()))
        }
    }
}

fn string(name: &'static str, raw: &RawValue) -> Result<String> {
    if !raw.get().starts_with('"') {
        return Err(Error::invalid(name, format!("it must be a string or null, not {}", shown(raw.get()))));
    }
    serde_json::from_str(raw.get()).map_err(|error| Error::invalid(name, words(&error)))
}

/// The fields of an object in the order of `names`; null is `None`.
fn object<'a, const N: usize>(
    what: &'static str,
    text: &'a str,
    names: [&'static str; N],
) -> Result<[Option<&'a RawValue>; N]> {
    let mut from = serde_json::Deserializer::from_str(text);
    let read = from.deserialize_map(Object(names)).and_then(|fields| from.end().map(|()| fields));
    read.map_err(|error| {
        // Arrays, numbers and so on are JSON too.
        let reason = match text.trim_ascii_start().starts_with('{') {
            false => "not a JSON object".to_owned(),
            true if error.is_data() => words(&error),
            true => format!("not JSON: {}, at byte {}", words(&error), error.column()),
        };
        Error::invalid(what, reason)
    })
}

struct Object<const N: usize>([&'static str; N]);

impl<'de, const N: usize> Visitor<'de> for Object<N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut found, mut seen) = ([None; N], [false; N]);
        while let Some(name) = map.next_key::<String>()? {
            let Some(at) = self.0.iter().position(|known| *known == name) else {
                let known = self.0.join(", ");
                return Err(A::Error::custom(format!("unknown field {:?}: known are {known}", shown(&name))));
            };
            if std::mem::replace(&mut seen[at], true) {
                return Err(A::Error::custom(format!("{name} is set twice")));
            }
            found[at] = Some(map.next_value::<&RawValue>()?).filter(|raw| raw.get() != "null");
        }
        Ok(found)
    }
}

/// The elements of an array, as many as may be kept, and how many there are.
struct Elements;

impl<'de> Visitor<'de> for Elements {
    type Value = (Vec<&'de RawValue>, usize);

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let (mut kept, mut count) = (Vec::new(), 0);
        while let Some(element) = seq.next_element()? {
            count += 1;
            if kept.len() < limits::HEADERS_PER_RECORD_MAX {
                kept.push(element);
            }
        }
        Ok((kept, count))
    }
}

/// The parser's words, without a line number: there is one line.
fn words(error: &serde_json::Error) -> String {
    let place = format!(" at line {} column {}", error.line(), error.column());
    let text = error.to_string();
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

/// The beginning of a text.
fn shown(text: &str) -> String {
    match text.len() <= SHOWN_BYTES {
        true => text.to_owned(),
        false => format!("{}…", &text[..text.floor_char_boundary(SHOWN_BYTES)]),
    }
}

/// Writes one record as an object, on one line, without a line end. [`parse`] reads it, whatever is in it.
pub fn write(out: &mut impl Write, topic: &str, partition: u32, record: &ConsumerRecord) -> io::Result<()> {
    let (offset, timestamp) = (record.offset, record.timestamp_us.div_euclid(1_000));
    out.write_all(br#"{"topic":"#)?;
    serde_json::to_writer(&mut *out, topic)?;
    write!(out, r#","partition":{partition},"offset":{offset},"timestamp":{timestamp},"#)?;
    write_bytes(out, "key", record.key.as_deref())?;
    out.write_all(b",")?;
    write_bytes(out, "value", record.value.as_deref())?;
    out.write_all(br#","headers":"#)?;
    write_headers(out, &record.headers)?;
    out.write_all(b"}")
}

/// Writes headers as an array of objects.
pub fn write_headers(out: &mut impl Write, headers: &[Header]) -> io::Result<()> {
    out.write_all(b"[")?;
    for (i, header) in headers.iter().enumerate() {
        out.write_all(if i == 0 { br#"{"key":"# } else { br#",{"key":"# })?;
        serde_json::to_writer(&mut *out, &header.key)?;
        out.write_all(b",")?;
        write_bytes(out, "value", header.value.as_deref())?;
        out.write_all(b"}")?;
    }
    out.write_all(b"]")
}

/// A string when it is UTF-8, else base 64 under another name; null stays null.
fn write_bytes(out: &mut impl Write, name: &str, bytes: Option<&[u8]>) -> io::Result<()> {
    match bytes.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
        None => write!(out, r#""{name}":null"#),
        Some((Ok(text), _)) => {
            write!(out, r#""{name}":"#)?;
            serde_json::to_writer(out, text).map_err(io::Error::from)
        }
        Some((Err(_), bytes)) => write!(out, r#""{name}_base64":"{}""#, BASE64.encode(bytes)),
    }
}
