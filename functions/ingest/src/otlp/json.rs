//! OTLP's JSON, exactly as its specification says it (OTLP 1.x, "JSON Protobuf Encoding"): names in lower camel case, 64-bit
//! numbers as strings, trace and span ids in hexadecimal, other bytes in base 64, enums as numbers. Receivers ignore names
//! that they do not know, and read 64-bit numbers in either form.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value as Json, json};
use tidelog_functions::Problem;

use super::proto::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, LogRecord, Resource, Value,
};
use super::walk::Around;

type Read<T> = Result<T, Problem>;

fn wrong<T>(field: &str, must: &str, found: &Json) -> Read<T> {
    let mut shown = found.to_string();
    if shown.len() > 40 {
        shown.truncate(shown.floor_char_boundary(40));
        shown.push('…');
    }
    Err(Problem::invalid(field, format!("{shown} must be {must}")))
}

/// A member that is there and not null.
fn member<'a>(object: &'a Map<String, Json>, name: &str) -> Option<&'a Json> {
    object.get(name).filter(|value| !value.is_null())
}

fn object<'a>(field: &str, value: &'a Json) -> Read<&'a Map<String, Json>> {
    value.as_object().map_or_else(|| wrong(field, "an object", value), Ok)
}

fn string(object: &Map<String, Json>, name: &str) -> Read<String> {
    let Some(value) = member(object, name) else { return Ok(String::new()) };
    value.as_str().map_or_else(|| wrong(name, "a string", value), |text| Ok(text.to_owned()))
}

/// A whole number, as a number or a string.
fn number<T: std::str::FromStr + Default>(object: &Map<String, Json>, name: &str) -> Read<T> {
    let Some(value) = member(object, name) else { return Ok(T::default()) };
    whole(value).map_or_else(|| wrong(name, "a whole number in its range", value), Ok)
}

fn whole<T: std::str::FromStr>(value: &Json) -> Option<T> {
    match value {
        Json::String(text) => text.parse().ok(),
        Json::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// An id of so many bytes, or none.
fn id(object: &Map<String, Json>, name: &str, bytes: usize) -> Read<Vec<u8>> {
    let text = string(object, name)?;
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| digits.is_empty() || digits.len() == 2 * bytes);
    let must = || wrong(name, &format!("{} hexadecimal digits", 2 * bytes), &text.clone().into());
    digits.map_or_else(must, |digits| Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()))
}

fn attributes(object: &Map<String, Json>) -> Read<Vec<KeyValue>> {
    key_values("attributes", member(object, "attributes"))
}

fn key_values(field: &str, value: Option<&Json>) -> Read<Vec<KeyValue>> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let Some(all) = value.as_array() else { return wrong(field, "an array", value) };
    let read = |one: &Json| {
        let one = object(field, one)?;
        Ok(KeyValue { key: string(one, "key")?, value: member(one, "value").map(any_value).transpose()? })
    };
    all.iter().map(read).collect()
}

fn any_value(value: &Json) -> Read<AnyValue> {
    let fields = object("value", value)?;
    let known =
        ["stringValue", "boolValue", "intValue", "doubleValue", "arrayValue", "kvlistValue", "bytesValue"];
    let Some((name, found)) = known.iter().find_map(|name| Some((*name, member(fields, name)?))) else {
        return Ok(AnyValue { value: None });
    };
    let read = match name {
        "stringValue" => found.as_str().map(|text| Value::String(text.to_owned())),
        "boolValue" => found.as_bool().map(Value::Bool),
        "intValue" => whole(found).map(Value::Int),
        "doubleValue" => double(found).map(Value::Double),
        "bytesValue" => found.as_str().and_then(|text| BASE64.decode(text).ok()).map(Value::Bytes),
        "arrayValue" => Some(Value::Array(ArrayValue { values: array(object(name, found)?)? })),
        _ => {
            let values = key_values("kvlistValue", member(object(name, found)?, "values"))?;
            Some(Value::Kvlist(KeyValueList { values }))
        }
    };
    match read {
        Some(value) => Ok(AnyValue { value: Some(value) }),
        None => wrong(name, "a value of that type", found),
    }
}

fn double(value: &Json) -> Option<f64> {
    match value.as_str() {
        Some("NaN") => Some(f64::NAN),
        Some("Infinity") => Some(f64::INFINITY),
        Some("-Infinity") => Some(f64::NEG_INFINITY),
        Some(text) => text.parse().ok(),
        None => value.as_f64(),
    }
}

fn array(object: &Map<String, Json>) -> Read<Vec<AnyValue>> {
    let Some(value) = member(object, "values") else { return Ok(Vec::new()) };
    let Some(all) = value.as_array() else { return wrong("arrayValue", "an array", value) };
    all.iter().map(any_value).collect()
}

/// A string.
pub fn text(value: &Json) -> Read<String> {
    value.as_str().map_or_else(|| wrong("schemaUrl", "a string", value), |text| Ok(text.to_owned()))
}

/// A resource.
pub fn resource(value: &Json) -> Read<Resource> {
    let fields = object("resource", value)?;
    let dropped_attributes_count = number(fields, "droppedAttributesCount")?;
    Ok(Resource { attributes: attributes(fields)?, dropped_attributes_count })
}

/// A scope.
pub fn scope(value: &Json) -> Read<InstrumentationScope> {
    let fields = object("scope", value)?;
    Ok(InstrumentationScope {
        name: string(fields, "name")?,
        version: string(fields, "version")?,
        attributes: attributes(fields)?,
        dropped_attributes_count: number(fields, "droppedAttributesCount")?,
    })
}

/// A log record.
pub fn log_record(value: &Json) -> Read<LogRecord> {
    let fields = object("logRecord", value)?;
    Ok(LogRecord {
        time_unix_nano: number(fields, "timeUnixNano")?,
        observed_time_unix_nano: number(fields, "observedTimeUnixNano")?,
        severity_number: number(fields, "severityNumber")?,
        severity_text: string(fields, "severityText")?,
        body: member(fields, "body").map(any_value).transpose()?,
        attributes: attributes(fields)?,
        dropped_attributes_count: number(fields, "droppedAttributesCount")?,
        flags: number(fields, "flags")?,
        trace_id: id(fields, "traceId", 16)?,
        span_id: id(fields, "spanId", 8)?,
        event_name: string(fields, "eventName")?,
    })
}

/// Puts what is not the default.
fn put(object: &mut Map<String, Json>, name: &str, value: Json) {
    let default = match &value {
        Json::String(text) => text.is_empty(),
        Json::Number(number) => number.as_u64() == Some(0),
        Json::Array(all) => all.is_empty(),
        Json::Null => true,
        _ => false,
    };
    if !default {
        object.insert(name.to_owned(), value);
    }
}

/// 64 bits as a string; 0 is the default.
fn wide(number: u64) -> Json {
    if number == 0 { Json::Null } else { number.to_string().into() }
}

fn hex(bytes: &[u8]) -> Json {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

fn write_any(value: &AnyValue) -> Json {
    match &value.value {
        None => json!({}),
        Some(Value::String(text)) => json!({"stringValue": text}),
        Some(Value::Bool(value)) => json!({"boolValue": value}),
        Some(Value::Int(value)) => json!({"intValue": value.to_string()}),
        Some(Value::Double(value)) if value.is_nan() => json!({"doubleValue": "NaN"}),
        Some(Value::Double(value)) if value.is_infinite() => {
            json!({"doubleValue": if *value > 0.0 { "Infinity" } else { "-Infinity" }})
        }
        Some(Value::Double(value)) => json!({"doubleValue": value}),
        Some(Value::Array(array)) => {
            json!({"arrayValue": {"values": array.values.iter().map(write_any).collect::<Vec<_>>()}})
        }
        Some(Value::Kvlist(list)) => json!({"kvlistValue": {"values": write_key_values(&list.values)}}),
        Some(Value::Bytes(bytes)) => json!({"bytesValue": BASE64.encode(bytes)}),
    }
}

fn write_key_values(all: &[KeyValue]) -> Json {
    let one = |one: &KeyValue| {
        // None is not the same as an empty one.
        one.value.as_ref().map_or_else(
            || json!({"key": one.key}),
            |value| json!({"key": one.key, "value": write_any(value)}),
        )
    };
    Json::Array(all.iter().map(one).collect())
}

/// What surrounds records, written once for all of them.
#[derive(Debug, Clone)]
pub struct Frame {
    before: String,
    after: String,
}

impl Frame {
    /// The frame of a request with one record.
    pub fn new(around: &Around) -> Self {
        let mut resource = Map::new();
        put(&mut resource, "attributes", write_key_values(&around.resource.attributes));
        put(&mut resource, "droppedAttributesCount", around.resource.dropped_attributes_count.into());
        let mut scope = Map::new();
        put(&mut scope, "name", around.scope.name.as_str().into());
        put(&mut scope, "version", around.scope.version.as_str().into());
        put(&mut scope, "attributes", write_key_values(&around.scope.attributes));
        put(&mut scope, "droppedAttributesCount", around.scope.dropped_attributes_count.into());
        let url = |url: &str| match url.is_empty() {
            true => String::new(),
            false => format!(",\"schemaUrl\":{}", Json::from(url)),
        };
        let (resource, scope) = (Json::Object(resource), Json::Object(scope));
        Self {
            before: format!(
                "{{\"resourceLogs\":[{{\"resource\":{resource},\"scopeLogs\":[{{\"scope\":{scope},\"logRecords\":["
            ),
            after: format!("]{}}}]{}}}]}}", url(&around.scope_url), url(&around.resource_url)),
        }
    }

    /// A request with this record alone.
    pub fn around(&self, record: &str) -> String {
        [&self.before, record, &self.after].concat()
    }

    /// Its bytes without a record.
    pub fn bytes(&self) -> usize {
        self.before.len() + self.after.len()
    }
}

/// A log record.
pub fn write_log_record(record: &LogRecord) -> String {
    let mut fields = Map::new();
    put(&mut fields, "timeUnixNano", wide(record.time_unix_nano));
    put(&mut fields, "observedTimeUnixNano", wide(record.observed_time_unix_nano));
    put(&mut fields, "severityNumber", record.severity_number.into());
    put(&mut fields, "severityText", record.severity_text.as_str().into());
    put(&mut fields, "body", record.body.as_ref().map_or(Json::Null, write_any));
    put(&mut fields, "attributes", write_key_values(&record.attributes));
    put(&mut fields, "droppedAttributesCount", record.dropped_attributes_count.into());
    put(&mut fields, "flags", record.flags.into());
    put(&mut fields, "traceId", hex(&record.trace_id));
    put(&mut fields, "spanId", hex(&record.span_id));
    put(&mut fields, "eventName", record.event_name.as_str().into());
    Json::Object(fields).to_string()
}
