//! A body → records. A bad one leaves its neighbours alone, where it can be told where it ends.

use bytes::Bytes;
use serde_json::value::RawValue;
use tidelog_core::text::{self, Line, Lines, json};
use tidelog_core::{Record, limits};
use tidelog_functions::{Problem, time};

use crate::document::{self, Pointer};
use crate::options::{Form, Options};

/// A record and the partition that it asks for, or what is wrong with it.
pub type Parsed = Result<text::Parsed, Problem>;

/// The records of an unpacked body, in order.
pub fn records(options: &Options, body: &Bytes) -> Result<Vec<Parsed>, Problem> {
    let mut parsed = match options.form {
        Form::Binary => vec![Ok((Record::value(body.clone()), None))],
        Form::Lines => lines(body, limits::RECORD_BYTES_MAX, |line| Ok((Record::value(line), None)))?,
        Form::Ndjson => ndjson(options, body)?,
        Form::Json => array(options, body)?,
    };
    for (record, partition) in parsed.iter_mut().flatten() {
        record.key = record.key.take().or_else(|| options.key.clone());
        record.timestamp_us = record.timestamp_us.or(options.timestamp_us);
        record.headers.extend(options.headers.iter().cloned());
        *partition = partition.or(options.partition);
    }
    Ok(parsed)
}

fn lines(
    body: &Bytes,
    line_bytes_max: usize,
    parse: impl Fn(Vec<u8>) -> Parsed,
) -> Result<Vec<Parsed>, Problem> {
    let mut lines = Lines::new(&body[..], line_bytes_max);
    let mut parsed = Vec::new();
    // Reading from memory cannot fail.
    while let Ok(Some(line)) = lines.next_line() {
        if parsed.len() == limits::HTTP_RECORDS_MAX {
            return Err(Problem::too_large("records", None, limits::HTTP_RECORDS_MAX));
        }
        parsed.push(match line {
            Line::Bytes(line) => parse(line),
            Line::TooLong(size) => Err(Problem::too_large("line", Some(size), line_bytes_max)),
        });
    }
    Ok(parsed)
}

fn ndjson(options: &Options, body: &Bytes) -> Result<Vec<Parsed>, Problem> {
    if options.as_records {
        let parse = |line: Vec<u8>| Ok(json::parse(&line)?);
        return lines(body, limits::NDJSON_LINE_BYTES_MAX, parse);
    }
    lines(body, limits::RECORD_BYTES_MAX, |line| {
        let record = point(options, document::check(&line)?)?;
        Ok((Record { value: Some(line.into()), ..record }, None))
    })
}

fn array(options: &Options, body: &Bytes) -> Result<Vec<Parsed>, Problem> {
    let text = std::str::from_utf8(body).map_err(|error| {
        Problem::invalid("body", format!("not UTF-8 at byte {}", error.valid_up_to() + 1))
    })?;
    let wrapped = text.trim_ascii_start().starts_with('{');
    let elements = if wrapped { document::members(text)? } else { document::elements(text)? };
    let parse = |element: &&RawValue| {
        if wrapped || options.as_records {
            return Ok(json::parse(element.get().as_bytes())?);
        }
        let record = point(options, element)?;
        // The document as it stands in the body, which stays in memory for it.
        Ok((Record { value: Some(body.slice_ref(element.get().as_bytes())), ..record }, None))
    };
    if wrapped && (options.key_pointer.is_some() || options.timestamp_pointer.is_some()) {
        return Err(Problem::invalid("key_pointer", "record objects say key and timestamp themselves"));
    }
    Ok(elements.iter().map(parse).collect())
}

/// Key and timestamp of a document.
fn point(options: &Options, document: &RawValue) -> Result<Record, Problem> {
    let find = |pointer: &Option<Pointer>| pointer.as_ref().and_then(|pointer| pointer.find(document));
    Ok(Record {
        key: find(&options.key_pointer).map(|found| key(found).map(Bytes::from)).transpose()?,
        timestamp_us: find(&options.timestamp_pointer).map(timestamp_us).transpose()?,
        ..Record::default()
    })
}

/// A string's text, or a number or truth value as it is written.
fn key(found: &RawValue) -> Result<String, Problem> {
    let text = found.get();
    match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str(text)
            .map_err(|error| Problem::invalid("key", format!("not a string: {error}"))),
        Some(b'{' | b'[') => Err(Problem::invalid("key", "an object or array is no key")),
        _ => Ok(text.to_owned()),
    }
}

fn timestamp_us(found: &RawValue) -> Result<i64, Problem> {
    let text = match found.get().starts_with('"') {
        true => serde_json::from_str::<String>(found.get()).unwrap_or_default(),
        false => found.get().to_owned(),
    };
    time::parse_us(&text).map_err(|reason| Problem::invalid("timestamp", reason))
}
