//! What a request says of all its records: by header, by query, or by JSON pointer.
//!
//! | what | header | query | pointer into each document |
//! |---|---|---|---|
//! | key | `x-tidelog-key` | `key` | `key_pointer` |
//! | partition | `x-tidelog-partition` | `partition` | |
//! | timestamp | `x-tidelog-timestamp` | `timestamp` | `timestamp_pointer` |
//! | a header | `x-tidelog-header-NAME` | | |

use bytes::Bytes;
use tidelog_core::{Header, limits};
use tidelog_functions::{Problem, Query, Request, request::whole, time};

use crate::document::Pointer;

/// Parameters of the query.
const PARAMETERS: [&str; 6] = ["key", "partition", "timestamp", "key_pointer", "timestamp_pointer", "as"];

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A record a line.
    Lines,
    /// A JSON document a line.
    Ndjson,
    /// A JSON array, or an object with `records`.
    Json,
    /// One record.
    Binary,
}

/// The options of a request.
#[derive(Debug)]
pub struct Options {
    /// What the body is.
    pub form: Form,
    /// Whether the elements are record objects (key, value, …) instead of documents that are values themselves.
    pub as_records: bool,
    /// Key of every record, unless it has one of its own.
    pub key: Option<Bytes>,
    /// Where each document has its key.
    pub key_pointer: Option<Pointer>,
    /// Partition of every record, unless it names one itself.
    pub partition: Option<u32>,
    /// Timestamp of every record, µs, unless it has one of its own.
    pub timestamp_us: Option<i64>,
    /// Where each document has its timestamp.
    pub timestamp_pointer: Option<Pointer>,
    /// Headers of every record.
    pub headers: Vec<Header>,
    /// The request is taken once under this key.
    pub idempotency_key: Option<String>,
}

impl Options {
    /// Reads them; what is given twice, or does not fit together, is refused.
    pub fn read(request: &Request) -> Result<Self, Problem> {
        let form = form(request.header("content-type"))?;
        let query = request.query(&PARAMETERS)?;
        let either = |name: &'static str, header: &str| either(request, &query, name, header);
        let as_records = match query.get("as") {
            None | Some("documents") => false,
            Some("records") => true,
            Some(other) => {
                return Err(Problem::invalid("as", format!("{other:?} must be documents or records")));
            }
        };
        let options = Self {
            form,
            as_records,
            key: either("key", "x-tidelog-key")?.map(|key| Bytes::copy_from_slice(key.as_bytes())),
            key_pointer: pointer(&query, "key_pointer")?,
            partition: either("partition", "x-tidelog-partition")?.map(partition).transpose()?,
            timestamp_us: either("timestamp", "x-tidelog-timestamp")?.map(timestamp).transpose()?,
            timestamp_pointer: pointer(&query, "timestamp_pointer")?,
            headers: headers(request)?,
            idempotency_key: idempotency_key(request)?,
        };
        options.fit().map(|()| options)
    }

    fn fit(&self) -> Result<(), Problem> {
        let pointers = [
            ("key_pointer", self.key_pointer.is_some(), self.key.is_some()),
            ("timestamp_pointer", self.timestamp_pointer.is_some(), self.timestamp_us.is_some()),
        ];
        let documents = matches!(self.form, Form::Ndjson | Form::Json) && !self.as_records;
        for (name, given, fixed) in pointers.into_iter().filter(|(_, given, _)| *given) {
            debug_assert!(given);
            if !documents {
                return Err(Problem::invalid(name, "only JSON documents can be pointed into"));
            }
            if fixed {
                return Err(Problem::invalid(name, "what it points to is also given for all records"));
            }
        }
        if self.as_records && !matches!(self.form, Form::Ndjson | Form::Json) {
            return Err(Problem::invalid("as", "only JSON can be record objects"));
        }
        Ok(())
    }
}

fn form(content_type: Option<&str>) -> Result<Form, Problem> {
    const KNOWN: &str = "text/plain, application/x-ndjson, application/json, application/octet-stream";
    let named = content_type.unwrap_or_default();
    match named.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "text/plain" => Ok(Form::Lines),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Form::Ndjson),
        "application/json" => Ok(Form::Json),
        "application/octet-stream" => Ok(Form::Binary),
        _ => {
            let message = format!("content-type {named:?} is not supported; one of {KNOWN} is");
            let problem = Problem::new(415, "unsupported_media_type", message).header("accept-post", KNOWN);
            Err(Problem { field: Some("content-type".to_owned()), ..problem })
        }
    }
}

fn either<'a>(
    request: &'a Request,
    query: &'a Query,
    name: &'static str,
    header: &str,
) -> Result<Option<&'a str>, Problem> {
    match (request.header(header), query.get(name)) {
        (Some(_), Some(_)) => Err(Problem::invalid(name, format!("it is given by query and by {header}"))),
        (one, other) => Ok(one.or(other)),
    }
}

fn partition(text: &str) -> Result<u32, Problem> {
    let number = whole(text).and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| Problem::invalid("partition", format!("{text:?} is no partition number")))
}

fn timestamp(text: &str) -> Result<i64, Problem> {
    time::parse_us(text).map_err(|reason| Problem::invalid("timestamp", reason))
}

fn pointer(query: &Query, name: &'static str) -> Result<Option<Pointer>, Problem> {
    let parse = |text: &str| Pointer::parse(text).map_err(|reason| Problem::invalid(name, reason));
    query.get(name).map(parse).transpose()
}

fn headers(request: &Request) -> Result<Vec<Header>, Problem> {
    let named = request.headers.iter().filter_map(|(name, value)| {
        let key = name.strip_prefix("x-tidelog-header-")?.to_owned();
        Some(Header { key, value: Some(Bytes::copy_from_slice(value.as_bytes())) })
    });
    let headers: Vec<Header> = named.take(limits::HEADERS_PER_RECORD_MAX + 1).collect();
    if headers.len() > limits::HEADERS_PER_RECORD_MAX {
        return Err(Problem::too_large("headers", None, limits::HEADERS_PER_RECORD_MAX));
    }
    Ok(headers)
}

/// The request's `Idempotency-Key`.
pub fn idempotency_key(request: &Request) -> Result<Option<String>, Problem> {
    let Some(key) = request.header("idempotency-key") else { return Ok(None) };
    let (field, limit) = ("idempotency-key", limits::IDEMPOTENCY_KEY_BYTES_MAX);
    if key.len() > limit {
        return Err(Problem { status: 400, ..Problem::too_large(field, Some(key.len() as u64), limit) });
    }
    if key.is_empty() || !key.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Err(Problem::invalid(field, format!("it must be 1 to {limit} visible ASCII characters")));
    }
    Ok(Some(key.to_owned()))
}
