//! What the functions read of their clients: a target for each form of body, one for packed bodies, one for what `fetch` is
//! asked.
//!
//! | target | input | must hold |
//! |---|---|---|
//! | `lines`, `binary` | a body | each line is a record, the body is one record: to the byte |
//! | `ndjson`, `json` | flags, a body | a named error, or records that are the documents as they stand |
//! | `otlp_protobuf`, `otlp_json` | a body | a named error, or records that are OTLP requests themselves, which give themselves |
//! | `packed` | encoding, a body | never more than is allowed; what was packed comes out |
//! | `fetch` | path, query, accept | an answer of the contract, and never a 500 |

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::io::Write;

use serde_json::value::RawValue;
use tidelog_core::env::SystemEnv;
use tidelog_core::{Log, Record, limits};
use tidelog_fetch::Fetch;
use tidelog_functions::{Deadline, Problem, Request, Service, Settings, encoding};
use tidelog_ingest::parse::{self, Options, Parsed};
use tokio::runtime::{Builder, Runtime};

/// Small, so that the fuzzer reaches it.
const UNPACKED_BYTES_MAX: usize = 64 << 10;

fn request(method: &str, path: &str, query: &str, headers: &[(&str, &str)], body: &[u8]) -> Request {
    let headers: BTreeMap<_, _> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let (method, path, query) = (method.to_owned(), path.to_owned(), query.to_owned());
    // Too little for any waiting.
    let deadline = Deadline::after_ms(SystemEnv::shared(), limits::HTTP_ANSWER_MS + 100);
    Request { method, path, query, headers, body: body.to_vec().into(), deadline }
}

fn refused(problem: &Problem) {
    assert!([400, 413, 415].contains(&problem.status) && !problem.retriable, "{problem:?}");
    assert!(problem.message.len() <= limits::HTTP_MESSAGE_BYTES_MAX + '…'.len_utf8());
    assert!(problem.field.is_some(), "it names no field: {problem:?}");
}

/// A body's records; `None`: refused as a whole.
fn parsed(content_type: &str, query: &str, body: &[u8]) -> Option<Vec<Parsed>> {
    let request = request("POST", "/", query, &[("content-type", content_type)], body);
    let options = Options::read(&request).expect("they are ours");
    checked(parse::records(&request, &options, UNPACKED_BYTES_MAX))
}

fn checked(parsed: Result<Vec<Parsed>, Problem>) -> Option<Vec<Parsed>> {
    let records = parsed.inspect_err(refused).ok()?;
    assert!(records.len() <= limits::HTTP_RECORDS_MAX);
    records.iter().filter_map(|record| record.as_ref().err()).for_each(refused);
    Some(records)
}

fn value(parsed: &Parsed) -> Option<&[u8]> {
    parsed.as_ref().ok()?.0.value.as_deref()
}

/// The lines of a body; the last one may lack its end.
fn lines_of(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split_inclusive(|byte| *byte == b'\n').map(|line| match line.strip_suffix(b"\n") {
        Some(ended) => ended.strip_suffix(b"\r").unwrap_or(ended),
        None => line,
    })
}

/// See the table above.
pub fn lines(body: &[u8]) {
    let records = parsed("text/plain", "", body).expect("every text is lines");
    assert!(records.iter().map(value).eq(lines_of(body).map(Some)));
}

/// See the table above.
pub fn binary(body: &[u8]) {
    let records =
        parsed("application/octet-stream", "partition=3&key=k", body).expect("any bytes are a record");
    let record = Record { key: Some("k".into()), ..Record::value(body.to_vec()) };
    assert_eq!(records, [Ok((record, Some(3)))]);
}

/// Records as objects, or documents with or without pointers into them.
fn query(flags: u8) -> (&'static str, bool) {
    match flags % 4 {
        0 => ("", false),
        1 => ("key_pointer=/a/b/0&timestamp_pointer=/time", false),
        2 => ("key_pointer=/a&partition=1", false),
        _ => ("as=records", true),
    }
}

/// See the table above.
pub fn ndjson(data: &[u8]) {
    let Some((flags, body)) = data.split_first() else { return };
    let (query, as_records) = query(*flags);
    let Some(records) = parsed("application/x-ndjson", query, body) else { return };
    assert_eq!(records.len(), lines_of(body).count());
    for (record, line) in records.iter().zip(lines_of(body)).filter(|(record, _)| record.is_ok()) {
        serde_json::from_slice::<&RawValue>(line).expect("it is JSON");
        assert!(as_records || value(record) == Some(line));
    }
}

/// See the table above.
pub fn json(data: &[u8]) {
    let Some((flags, body)) = data.split_first() else { return };
    let (query, as_records) = query(*flags);
    let Some(records) = parsed("application/json", query, body) else { return };
    let Ok(documents) = serde_json::from_slice::<Vec<&RawValue>>(body) else {
        let one: BTreeMap<String, Vec<&RawValue>> =
            serde_json::from_slice(body).expect("an object with records");
        return assert_eq!(records.len(), one["records"].len());
    };
    assert_eq!(records.len(), documents.len());
    for (record, document) in records.iter().zip(documents).filter(|(record, _)| record.is_ok()) {
        assert!(as_records || value(record) == Some(document.get().as_bytes()));
    }
}

fn otlp(content_type: &str, body: &[u8]) -> Option<Vec<Parsed>> {
    let request = request("POST", "/v1/logs", "", &[("content-type", content_type)], body);
    checked(parse::logs(&request, UNPACKED_BYTES_MAX))
}

/// Each record's value is a request with that record alone.
fn give_themselves(records: Option<Vec<Parsed>>) {
    for record in records.into_iter().flatten().flatten() {
        let value = record.0.value.clone().expect("a record has a value");
        // Escaped it may be larger than what it came from, and then be too large.
        if value.len() <= UNPACKED_BYTES_MAX {
            assert_eq!(otlp("application/json", &value), Some(vec![Ok(record)]), "{}", value.escape_ascii());
        }
    }
}

/// See the table above.
pub fn otlp_protobuf(body: &[u8]) {
    give_themselves(otlp("application/x-protobuf", body));
}

/// See the table above.
pub fn otlp_json(body: &[u8]) {
    give_themselves(otlp("application/json; charset=utf-8", body));
}

/// See the table above.
pub fn packed(data: &[u8]) {
    let Some((encoding, body)) = data.split_first() else { return };
    let encoding = ["gzip", "deflate", "deflate", "zstd", "identity"][usize::from(encoding % 5)];
    let unpack = |encoding, body: &[u8]| {
        let request = request("POST", "/", "", &[("content-encoding", encoding)], body);
        encoding::unpacked(&request, UNPACKED_BYTES_MAX)
    };
    match unpack(encoding, body) {
        Ok(plain) => assert!(plain.len() <= UNPACKED_BYTES_MAX && (encoding != "identity" || plain == body)),
        Err(problem) => refused(&problem),
    }
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(body).expect("into memory");
    let packed = packer.finish().expect("into memory");
    assert_eq!(unpack("gzip", &packed).expect("our own"), body);
}

/// A log in memory that is only read.
struct Served {
    runtime: Runtime,
    fetch: Fetch,
}

impl Served {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        let fetch = runtime.block_on(async {
            let log = Log::open("memory:").await.expect("it opens");
            log.admin().create_topic("t", 2, &[]).await.expect("a topic");
            log.admin().store_offsets("g/1", "t", &[(0, Some(2))]).await.expect("a group");
            let producer = log.producer().build().expect("a producer");
            for n in 0..10u64 {
                let record = Record::keyed(format!("k{n}"), vec![n as u8; 1_000]);
                producer.send("t", record).await.expect("an ack");
            }
            Fetch::new(log, &Settings::of("memory:"))
        });
        Self { runtime, fetch }
    }
}

/// See the table above. Only reads, or what the log holds would depend on what came before.
pub fn fetch(data: &[u8]) {
    thread_local! { static SERVED: LazyCell<Served> = LazyCell::new(Served::new); }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.splitn(3, '\n').chain(["", "", ""]);
    let mut part = || parts.next().unwrap_or_default();
    let (path, query, accept) = (part(), part(), part());
    let request = request("GET", path, query, &[("accept", accept)], b"");
    let response = SERVED.with(|served| served.runtime.block_on(served.fetch.handle(request)));
    let known = [200, 400, 404, 405, 406, 413, 416, 422];
    assert!(known.contains(&response.status), "{response:?}");
    assert!(response.body.len() <= limits::HTTP_ANSWER_BYTES_MAX);
    if response.status != 200 {
        let told: serde_json::Value = serde_json::from_slice(&response.body).expect("an error in JSON");
        assert!(told["error"]["code"].is_string(), "{told}");
    }
}
