//! Records as text: what `produce` reads and `consume` writes.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::ValueEnum;
use serde_json::{Map, Value};
use tidelog_core::{Header, Message, Record, limits};

/// How `produce` reads a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// The line is the value, any bytes; an empty line is an empty value
    Lines,
    /// A JSON object: key, value (or key_base64, value_base64), timestamp (epoch ms), headers, partition
    Ndjson,
    /// Key, separator, value
    Keyed,
}

/// How `consume` writes a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// The value's bytes as they are, and a newline
    Value,
    /// A JSON object a line: topic, partition, offset, timestamp (epoch ms), key, value, headers
    Json,
    /// Key, separator, value, and a newline
    Keyed,
}

impl InputFormat {
    /// The longest line that may become a record.
    pub fn line_bytes_max(self) -> usize {
        match self {
            Self::Lines => limits::RECORD_BYTES_MAX,
            Self::Ndjson => limits::NDJSON_LINE_BYTES_MAX,
            Self::Keyed => limits::RECORD_BYTES_MAX + limits::KEY_BYTES_MAX,
        }
    }

    /// A line as a record, and the partition that it asks for.
    pub fn parse(self, line: Vec<u8>, separator: &[u8]) -> Result<(Record, Option<u32>), String> {
        match self {
            Self::Lines => Ok((Record::value(line), None)),
            Self::Keyed => {
                let at = line.windows(separator.len()).position(|window| window == separator);
                let at = at.ok_or_else(|| {
                    format!("no key separator {:?} in the line", String::from_utf8_lossy(separator))
                })?;
                let line = bytes::Bytes::from(line);
                Ok((Record::keyed(line.slice(..at), line.slice(at + separator.len()..)), None))
            }
            Self::Ndjson => json_record(&line),
        }
    }
}

/// What an object may hold; `topic` and `offset` are what `consume` wrote, and are not read.
const FIELDS: [&str; 9] =
    ["topic", "partition", "offset", "timestamp", "key", "key_base64", "value", "value_base64", "headers"];

fn json_record(line: &[u8]) -> Result<(Record, Option<u32>), String> {
    let value: Value = serde_json::from_slice(line).map_err(|error| format!("not JSON: {error}"))?;
    let Value::Object(fields) = value else { return Err("not a JSON object".to_owned()) };
    known(&fields, &FIELDS)?;
    let timestamp_us =
        match fields.get("timestamp") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let us = value.as_i64().and_then(|ms| ms.checked_mul(1_000));
                Some(us.ok_or_else(|| {
                    format!("timestamp is invalid: {value} is no whole number of milliseconds")
                })?)
            }
        };
    let partition = match fields.get("partition") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
            Some(number.ok_or_else(|| format!("partition is invalid: {value} is no partition number"))?)
        }
    };
    let headers = match fields.get("headers") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(headers)) => headers.iter().map(json_header).collect::<Result<_, _>>()?,
        Some(_) => return Err("headers is invalid: it must be an array of objects".to_owned()),
    };
    let record = Record {
        timestamp_us,
        key: json_bytes(&fields, "key")?,
        value: json_bytes(&fields, "value")?,
        headers,
    };
    Ok((record, partition))
}

fn json_header(header: &Value) -> Result<Header, String> {
    let Value::Object(fields) = header else {
        return Err("headers is invalid: each must be an object".to_owned());
    };
    known(fields, &["key", "value", "value_base64"])?;
    let key = fields.get("key").and_then(Value::as_str);
    let key = key.ok_or("headers is invalid: each needs a string as its key")?;
    Ok(Header { key: key.to_owned(), value: json_bytes(fields, "value")? })
}

/// Refuses a field that would be lost, such as a misspelt one.
fn known(fields: &Map<String, Value>, names: &[&str]) -> Result<(), String> {
    match fields.keys().find(|name| !names.contains(&name.as_str())) {
        Some(name) => Err(format!("unknown field {name:?}: known are {}", names.join(", "))),
        None => Ok(()),
    }
}

fn json_bytes(fields: &Map<String, Value>, name: &str) -> Result<Option<bytes::Bytes>, String> {
    let encoded_name = format!("{name}_base64");
    let plain = fields.get(name).filter(|value| !value.is_null());
    let encoded = fields.get(&encoded_name).filter(|value| !value.is_null());
    match (plain, encoded) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(format!("both {name} and {encoded_name} are set")),
        (Some(Value::String(text)), None) => Ok(Some(text.clone().into())),
        (None, Some(Value::String(text))) => {
            let bytes = BASE64.decode(text).map_err(|error| format!("{encoded_name} is invalid: {error}"))?;
            Ok(Some(bytes.into()))
        }
        (Some(_), None) => Err(format!("{name} is invalid: it must be a string or null")),
        (None, Some(_)) => Err(format!("{encoded_name} is invalid: it must be a string or null")),
    }
}

impl OutputFormat {
    /// Writes one record.
    pub fn write(self, out: &mut impl Write, message: &Message, separator: &[u8]) -> io::Result<()> {
        let record = &message.record;
        match self {
            Self::Value => out.write_all(record.value.as_deref().unwrap_or_default())?,
            Self::Keyed => {
                out.write_all(record.key.as_deref().unwrap_or_default())?;
                out.write_all(separator)?;
                out.write_all(record.value.as_deref().unwrap_or_default())?;
            }
            Self::Json => write_json(out, message)?,
        }
        out.write_all(b"\n")
    }
}

fn write_json(out: &mut impl Write, message: &Message) -> io::Result<()> {
    let record = &message.record;
    // A topic's name needs no escaping.
    let (topic, partition, offset) = (&message.topic, message.partition, record.offset);
    let timestamp = record.timestamp_us.div_euclid(1_000);
    write!(out, r#"{{"topic":"{topic}","partition":{partition},"offset":{offset},"timestamp":{timestamp},"#)?;
    write_bytes(out, "key", record.key.as_deref())?;
    out.write_all(b",")?;
    write_bytes(out, "value", record.value.as_deref())?;
    out.write_all(br#","headers":["#)?;
    for (i, header) in record.headers.iter().enumerate() {
        out.write_all(if i == 0 { br#"{"key":"# } else { br#",{"key":"# })?;
        serde_json::to_writer(&mut *out, &header.key)?;
        out.write_all(b",")?;
        write_bytes(out, "value", header.value.as_deref())?;
        out.write_all(b"}")?;
    }
    out.write_all(b"]}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let record = tidelog_core::ConsumerRecord {
            offset: 3,
            timestamp_us: 7_000,
            key: Some(vec![0xff, 0].into()),
            value: Some("a\"\n\u{1f30a}".into()),
            headers: vec![
                Header { key: "h".into(), value: None },
                Header { key: "é".into(), value: Some(vec![0x80].into()) },
            ],
        };
        let message = Message { topic: "t".into(), partition: 2, record: record.clone() };
        let mut out = Vec::new();
        OutputFormat::Json.write(&mut out, &message, b"").unwrap();
        let (read, partition) = InputFormat::Ndjson.parse(out, b"").unwrap();
        assert_eq!((read.key, read.value, read.headers), (record.key, record.value, record.headers));
        assert_eq!((read.timestamp_us, partition), (Some(7_000), Some(2)));
    }

    #[test]
    fn errors_name_the_field() {
        for (line, wanted) in [
            ("nonsense", "not JSON"),
            ("[1]", "not a JSON object"),
            (r#"{"vlaue":"x"}"#, "unknown field \"vlaue\""),
            (r#"{"value":5}"#, "value is invalid"),
            (r#"{"value":"x","value_base64":"eA=="}"#, "both value and value_base64"),
            (r#"{"key_base64":"?"}"#, "key_base64 is invalid"),
            (r#"{"timestamp":1.5}"#, "timestamp is invalid"),
            (r#"{"timestamp":9223372036854775807}"#, "timestamp is invalid"),
            (r#"{"partition":-1}"#, "partition is invalid"),
            (r#"{"headers":{}}"#, "headers is invalid"),
            (r#"{"headers":[{"value":"x"}]}"#, "headers is invalid"),
        ] {
            let error = InputFormat::Ndjson.parse(line.into(), b"").unwrap_err();
            assert!(error.contains(wanted), "{line}: {error}");
        }
        assert!(
            InputFormat::Keyed.parse(b"no tab".to_vec(), b"\t").unwrap_err().contains("no key separator")
        );
    }
}
