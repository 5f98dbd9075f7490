//! `POST /v1/logs`: OTLP/HTTP logs (OTLP 1.x), in protobuf and in JSON.
//!
//! One record a log record. Its value is a request in OTLP's JSON with this log record alone, resource and scope around it:
//! a line of the OTLP file format, which any OTLP receiver reads. Its key is the resource's `service.name`, its timestamp
//! the log record's, or else the observed one.
//!
//! | answer | when |
//! |---|---|
//! | 200 | all, or all but those that a partial success counts, are in the log |
//! | 400, 404, 413, 415 | nothing is, and never will be: `google.rpc.Status` in the encoding of the request |
//! | 429, 503 with `Retry-After` | the same again |
//!
//! | file | what it is |
//! |---|---|
//! | `proto` | the messages |
//! | `walk` | a request, record by record |
//! | `json` | OTLP's JSON, in and out |

mod json;
mod proto;
mod walk;

use bytes::Bytes;
use prost::Message;
use serde_json::json;
use tidelog_core::{Record, limits};
use tidelog_functions::{Problem, Request, Response, encoding};

use crate::Ingest;
use crate::body::Parsed;
use crate::options;
use crate::send::Taken;
use json::Frame;
use proto::{ExportResponse, LogRecord, PartialSuccess, Status, Value};
use walk::Around;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    fn of(request: &Request) -> Result<Self, Problem> {
        let named = request.header("content-type").unwrap_or_default();
        match named.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            PROTOBUF => Ok(Self::Protobuf),
            JSON => Ok(Self::Json),
            _ => {
                let message = format!("content-type {named:?} is not supported; {PROTOBUF} and {JSON} are");
                let problem = Problem::new(415, "unsupported_media_type", message);
                let problem = problem.header("accept-post", format!("{PROTOBUF}, {JSON}"));
                Err(Problem { field: Some("content-type".to_owned()), ..problem })
            }
        }
    }

    fn response(self, status: u16, message: &impl Message, json: &serde_json::Value) -> Response {
        match self {
            Self::Protobuf => Response::new(status, PROTOBUF, message.encode_to_vec()),
            Self::Json => Response::json(status, json),
        }
    }

    fn problem(self, problem: &Problem) -> Response {
        let code = match problem.status {
            404 => 5,
            413 | 429 => 8,
            405 | 415 => 12,
            500 => 13,
            503 => 14,
            _ => 3,
        };
        let message = problem.message.clone();
        let words = json!({"code": code, "message": message});
        let mut response = self.response(problem.status, &Status { code, message }, &words);
        response.headers.extend(problem.headers.iter().cloned());
        response
    }
}

impl Ingest {
    pub(crate) async fn otlp(&self, request: &Request) -> Response {
        let encoding = match Encoding::of(request) {
            Ok(encoding) => encoding,
            Err(problem) => return Encoding::Json.problem(&problem),
        };
        match self.logs(encoding, request).await {
            Ok(taken) => exported(encoding, &taken),
            Err(problem) => encoding.problem(&problem),
        }
    }

    async fn logs(&self, encoding: Encoding, request: &Request) -> Result<Taken, Problem> {
        request.query(&[])?;
        let topic = request.header("x-tidelog-topic").or(self.settings.otlp_topic.as_deref());
        let topic = topic.ok_or_else(|| {
            Problem::invalid(
                "x-tidelog-topic",
                "name a topic in it: this function has none of its own for OTLP",
            )
        })?;
        let key = options::idempotency_key(request)?;
        request.deadline.check_commit()?;
        let records = unpack(encoding, request, self.settings.unpacked_bytes_max())?;
        let facts = request.deadline.in_time(self.topic(topic)).await?;
        request.deadline.check_commit()?;
        match &key {
            None => Ok(self.send(topic, records, &request.deadline).await),
            Some(key) => self.send_once(topic, facts, key, records, &request.deadline).await,
        }
    }
}

/// The records of a request to `/v1/logs`, each or what is wrong with it. `bytes_max`: of the body after it is unpacked.
///
/// # Errors
/// The body is not what the request says, or too large: then none of it is taken.
pub fn parse(request: &Request, bytes_max: usize) -> Result<Vec<Parsed>, Problem> {
    unpack(Encoding::of(request)?, request, bytes_max)
}

fn unpack(encoding: Encoding, request: &Request, bytes_max: usize) -> Result<Vec<Parsed>, Problem> {
    let body = encoding::unpacked(request, bytes_max)?;
    // Each record carries its surroundings, so a body may grow.
    records(encoding, &body, 2 * bytes_max)
}

/// A request's records, at most `bytes_max` in all.
fn records(encoding: Encoding, body: &Bytes, bytes_max: usize) -> Result<Vec<Parsed>, Problem> {
    let mut records: Vec<Parsed> = Vec::new();
    let (mut bytes, mut frame) = (0, None);
    let mut visit = |around: &Around, read: Result<LogRecord, Problem>| {
        if records.len() == limits::HTTP_RECORDS_MAX {
            return Err(Problem::too_large("logRecords", None, limits::HTTP_RECORDS_MAX));
        }
        let read = read.and_then(checked);
        let record = match read {
            Ok(record) => record,
            Err(problem) => {
                records.push(Err(problem));
                return Ok(());
            }
        };
        let known = frame.take().filter(|(number, _, _)| *number == around.number);
        let (number, framing, key) =
            known.unwrap_or_else(|| (around.number, Frame::new(around), service(around)));
        let value = json::write_log_record(&record);
        bytes += value.len() + framing.bytes();
        if bytes > bytes_max {
            return Err(Problem::too_large("logRecords with their resource and scope", None, bytes_max));
        }
        let value = framing.around(&value);
        let timestamp_us = timestamp_us(&record);
        records.push(Ok((
            Record { timestamp_us, key: key.clone(), value: Some(value.into()), headers: Vec::new() },
            None,
        )));
        frame = Some((number, framing, key));
        Ok(())
    };
    match encoding {
        Encoding::Protobuf => walk::protobuf(body, &mut visit)?,
        Encoding::Json => walk::json(body, &mut visit)?,
    }
    Ok(records)
}

/// In protobuf an id may have any length; in OTLP it has one, or none.
fn checked(record: LogRecord) -> Result<LogRecord, Problem> {
    for (field, id, bytes) in [("traceId", &record.trace_id, 16), ("spanId", &record.span_id, 8)] {
        if !id.is_empty() && id.len() != bytes {
            return Err(Problem::invalid(field, format!("it has {} bytes, not {bytes}", id.len())));
        }
    }
    Ok(record)
}

fn service(around: &Around) -> Option<Bytes> {
    let named = around.resource.attributes.iter().find(|attribute| attribute.key == "service.name")?;
    match &named.value.as_ref()?.value {
        Some(Value::String(name)) => Some(Bytes::copy_from_slice(name.as_bytes())),
        _ => None,
    }
}

/// Neither: the log's own time.
fn timestamp_us(record: &LogRecord) -> Option<i64> {
    let nanos =
        [record.time_unix_nano, record.observed_time_unix_nano].into_iter().find(|nanos| *nanos > 0)?;
    i64::try_from(nanos / 1_000).ok()
}

/// What is not taken and may be later makes all of it wait; what never will be is counted.
fn exported(encoding: Encoding, taken: &Taken) -> Response {
    let refused = || taken.iter().filter_map(|one| one.as_ref().err());
    if let Some(problem) = refused().find(|problem| problem.retriable || problem.status == 500) {
        return encoding.problem(problem);
    }
    // The topic went away meanwhile.
    if let Some(problem) = refused().find(|problem| problem.status == 404) {
        return encoding.problem(problem);
    }
    let rejected = refused().count();
    let Some(first) = refused().next() else {
        return encoding.response(200, &ExportResponse { partial_success: None }, &json!({}));
    };
    let message =
        format!("{rejected} of {} log records were not taken; the first: {}", taken.len(), first.message);
    let words =
        json!({"partialSuccess": {"rejectedLogRecords": rejected.to_string(), "errorMessage": message}});
    let partial = PartialSuccess { rejected_log_records: rejected as i64, error_message: message };
    encoding.response(200, &ExportResponse { partial_success: Some(partial) }, &words)
}

#[cfg(test)]
mod tests;
