//! A request, taken apart record by record: a log record of two bytes would be two hundred in memory, so not even a list of
//! all of them is made.
//!
//! ```text
//! request ▸ resource logs ▸ { resource, schema url, scope logs ▸ { scope, schema url, log records ▸ … } }
//! ```
//! The parts of one level may come in any order, so each level is gone through twice: for what surrounds the records, then
//! for the records.

use std::cell::Cell;

use prost::Message;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tidelog_core::limits;
use tidelog_functions::Problem;

use super::json;
use super::proto::{InstrumentationScope, LogRecord, Resource};

/// What surrounds a record.
#[derive(Debug, Default, Clone)]
pub struct Around {
    /// Counts them: each scope of a request has its own.
    pub number: u64,
    pub resource: Resource,
    pub resource_url: String,
    pub scope: InstrumentationScope,
    pub scope_url: String,
}

/// Called with each record, or what is wrong with it; an error ends the walk.
pub type Visit<'a> = dyn FnMut(&Around, Result<LogRecord, Problem>) -> Result<(), Problem> + 'a;

/// Surroundings and single records are built at their full size: one is at most this large.
const PART_BYTES_MAX: usize = limits::RECORD_BYTES_DEFAULT;

fn too_large(what: &str, size: usize) -> Problem {
    Problem::too_large(what, Some(size as u64), PART_BYTES_MAX)
}

/// The fields of a message whose wire type is length-delimited: number and bytes.
fn fields<'a>(
    mut from: &'a [u8],
    mut each: impl FnMut(u32, &'a [u8]) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let wrong =
        |error: prost::DecodeError| Problem::invalid("body", format!("not OTLP in protobuf: {error}"));
    while from.has_remaining() {
        let (number, wire) = decode_key(&mut from).map_err(wrong)?;
        if wire != WireType::LengthDelimited {
            skip_field(wire, number, &mut from, DecodeContext::default()).map_err(wrong)?;
            continue;
        }
        let length = decode_varint(&mut from).map_err(wrong)?;
        let length = usize::try_from(length).ok().filter(|length| *length <= from.len());
        let Some(length) = length else {
            return Err(Problem::invalid("body", "not OTLP in protobuf: it ends in the middle of a field"));
        };
        let (field, rest) = from.split_at(length);
        from = rest;
        each(number, field)?;
    }
    Ok(())
}

fn decoded<T: Message + Default>(what: &str, field: &[u8]) -> Result<T, Problem> {
    if field.len() > PART_BYTES_MAX {
        return Err(too_large(what, field.len()));
    }
    T::decode(field).map_err(|error| Problem::invalid(what, format!("not OTLP in protobuf: {error}")))
}

fn url(field: &[u8]) -> Result<String, Problem> {
    if field.len() > PART_BYTES_MAX {
        return Err(too_large("schemaUrl", field.len()));
    }
    String::from_utf8(field.to_vec()).map_err(|_| Problem::invalid("schemaUrl", "it is not UTF-8"))
}

/// Walks through a request in protobuf.
pub fn protobuf(body: &[u8], visit: &mut Visit<'_>) -> Result<(), Problem> {
    let mut count = 0;
    fields(body, |number, resource_logs| {
        if number != 1 {
            return Ok(());
        }
        let mut around = Around::default();
        fields(resource_logs, |number, field| {
            match number {
                1 => around.resource = decoded("resource", field)?,
                3 => around.resource_url = url(field)?,
                _ => {}
            }
            Ok(())
        })?;
        fields(resource_logs, |number, scope_logs| {
            if number != 2 {
                return Ok(());
            }
            count += 1;
            (around.number, around.scope, around.scope_url) = (count, Default::default(), String::new());
            fields(scope_logs, |number, field| {
                match number {
                    1 => around.scope = decoded("scope", field)?,
                    3 => around.scope_url = url(field)?,
                    _ => {}
                }
                Ok(())
            })?;
            fields(scope_logs, |number, field| match number {
                2 => visit(&around, decoded("logRecord", field)),
                _ => Ok(()),
            })
        })
    })
}

/// Walks through a request in JSON.
pub fn json(body: &[u8], visit: &mut Visit<'_>) -> Result<(), Problem> {
    let text = std::str::from_utf8(body).map_err(|_| Problem::invalid("body", "it is not UTF-8"))?;
    let [resource_logs] = members("body", text, ["resourceLogs"])?;
    let mut count = 0;
    elements("resourceLogs", resource_logs, &mut |element| {
        let [resource, scope_logs, url] =
            members("resourceLogs", element, ["resource", "scopeLogs", "schemaUrl"])?;
        let mut around = Around {
            resource: part("resource", resource, json::resource)?,
            resource_url: part("schemaUrl", url, json::text)?,
            ..Around::default()
        };
        elements("scopeLogs", scope_logs, &mut |element| {
            let [scope, records, url] = members("scopeLogs", element, ["scope", "logRecords", "schemaUrl"])?;
            count += 1;
            around.number = count;
            around.scope = part("scope", scope, json::scope)?;
            around.scope_url = part("schemaUrl", url, json::text)?;
            elements("logRecords", records, &mut |element| {
                visit(&around, part("logRecord", Some(element), json::log_record))
            })
        })
    })
}

fn part<T: Default>(
    what: &str,
    text: Option<&str>,
    read: impl Fn(&serde_json::Value) -> Result<T, Problem>,
) -> Result<T, Problem> {
    let Some(text) = text else { return Ok(T::default()) };
    if text.len() > PART_BYTES_MAX {
        return Err(too_large(what, text.len()));
    }
    let value =
        serde_json::from_str(text).map_err(|error| Problem::invalid(what, format!("not JSON: {error}")))?;
    read(&value)
}

/// Named members of an object; what is null, or has another name, is not there.
fn members<'a, const N: usize>(
    what: &str,
    text: &'a str,
    names: [&str; N],
) -> Result<[Option<&'a str>; N], Problem> {
    let mut from = serde_json::Deserializer::from_str(text);
    let read = from.deserialize_map(Members(names)).and_then(|found| from.end().map(|()| found));
    read.map_err(|error| Problem::invalid(what, format!("not OTLP in JSON: {error}")))
}

struct Members<'n, const N: usize>([&'n str; N]);

impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
    type Value = [Option<&'de str>; N];

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(name) = map.next_key::<String>()? {
            match self.0.iter().position(|known| *known == name) {
                Some(at) => {
                    found[at] = Some(map.next_value::<&RawValue>()?.get()).filter(|text| *text != "null");
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// The elements of an array, one by one.
fn elements(
    what: &str,
    text: Option<&str>,
    each: &mut dyn FnMut(&str) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let Some(text) = text else { return Ok(()) };
    let stopped = Cell::new(None);
    let mut from = serde_json::Deserializer::from_str(text);
    let read = Elements { each, stopped: &stopped }.deserialize(&mut from).and_then(|()| from.end());
    match (read, stopped.take()) {
        (_, Some(problem)) => Err(problem),
        (Err(error), None) => Err(Problem::invalid(what, format!("not OTLP in JSON: {error}"))),
        (Ok(()), None) => Ok(()),
    }
}

struct Elements<'a> {
    each: &'a mut dyn FnMut(&str) -> Result<(), Problem>,
    stopped: &'a Cell<Option<Problem>>,
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(element) = seq.next_element::<&RawValue>()? {
            if let Err(problem) = (self.each)(element.get()) {
                self.stopped.set(Some(problem));
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}
