//! `GET …/records`: where to begin, the fetch, and its answer.
//!
//! What does not fit into an answer is left for the next one: `x-tidelog-next-offset` says where to go on.

use serde_json::json;
use tidelog_core::fetch::{FetchLimits, Fetched};
use tidelog_core::record::Offset;
use tidelog_core::{ConsumerRecord, limits, text};
use tidelog_functions::{Problem, Request, Response, request::whole, time};

use crate::Fetch;
use crate::accept::Form;
use crate::columns;

/// Whole numbers from here on are milliseconds since 1970 (3 March 1973), below they are offsets: as on the command line.
const EPOCH_MS_MIN: u64 = 100_000_000_000;
/// Records of one answer unless set.
const RECORDS_DEFAULT: u64 = 10_000;
/// Bytes of one answer unless set.
const BYTES_DEFAULT: u64 = 1 << 20;

/// Where a fetch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Start,
    End,
    Offset(Offset),
    TimeUs(i64),
}

fn from(text: &str) -> Result<From, Problem> {
    match (text, whole(text)) {
        ("start", _) => Ok(From::Start),
        ("end", _) => Ok(From::End),
        (_, Some(offset)) if offset < EPOCH_MS_MIN => Ok(From::Offset(offset)),
        _ => time::parse_us(text).map(From::TimeUs).map_err(|reason| {
            Problem::invalid("from", format!("neither start, end nor an offset, and {reason}"))
        }),
    }
}

/// A fetch as it is asked for.
struct Asked<'a> {
    topic: &'a str,
    partition: u32,
    form: Form,
    /// Bytes of the answer, at most.
    bytes_max: usize,
}

impl Fetch {
    pub(crate) async fn records(
        &self,
        topic: &str,
        partition: &str,
        request: &Request,
    ) -> Result<Response, Problem> {
        let form = Form::of(request)?;
        let query = request.query(&["from", "max_bytes", "max_records", "wait_ms"])?;
        let from = from(query.get("from").unwrap_or("start"))?;
        let bytes_max = query.number("max_bytes", BYTES_DEFAULT, 1, limits::HTTP_ANSWER_BYTES_MAX as u64)?;
        let records_max =
            query.number("max_records", RECORDS_DEFAULT, 1, limits::FETCH_RECORDS_DEFAULT as u64)?;
        let wait_ms = query.number("wait_ms", 0, 0, limits::HTTP_WAIT_MS_MAX)?;
        let number = whole(partition).and_then(|number| u32::try_from(number).ok());
        let wrong = || Problem::invalid("partition", format!("{partition:?} is no partition number"));
        let asked =
            Asked { topic, partition: number.ok_or_else(wrong)?, form, bytes_max: bytes_max as usize };
        let fetched = self.fetch(&asked, from, records_max, wait_ms, request).await?;
        answer(&asked, &fetched)
    }

    async fn fetch(
        &self,
        asked: &Asked<'_>,
        from: From,
        records_max: u64,
        wait_ms: u64,
        request: &Request,
    ) -> Result<Fetched, Problem> {
        let (topic, partition) = (asked.topic, asked.partition);
        let offset = match from {
            From::Offset(offset) => offset,
            From::Start => self.fetcher.watermarks(topic, partition).await?.0,
            From::End => self.fetcher.watermarks(topic, partition).await?.1,
            From::TimeUs(us) => match self.fetcher.offset_at(topic, partition, us).await? {
                Some(offset) => offset,
                None => self.fetcher.watermarks(topic, partition).await?.1,
            },
        };
        // The answer must still be on its way in time.
        let wait_ms = wait_ms.min(request.deadline.left_ms().saturating_sub(limits::HTTP_ANSWER_MS));
        let limits = FetchLimits { bytes_max: asked.bytes_max, records_max: records_max as usize, wait_ms };
        Ok(self.fetcher.fetch(topic, partition, offset, limits).await?)
    }
}

fn answer(asked: &Asked<'_>, fetched: &Fetched) -> Result<Response, Problem> {
    let records: Vec<ConsumerRecord> = fetched.records().collect();
    let (body, taken) = match asked.form {
        Form::Json | Form::Ndjson => lines(asked, fetched, &records),
        Form::Arrow | Form::Parquet => columns::write(asked.form, asked.partition, &records)?,
    };
    let next = match records.get(taken) {
        // The first alone is too large: nobody would get on.
        Some(record) if taken == 0 => return Err(too_large(record, fetched)),
        Some(record) => record.offset,
        None => fetched.next,
    };
    let response = Response::new(200, asked.form.media_type(), body);
    Ok(response
        .header("x-tidelog-next-offset", next)
        .header("x-tidelog-log-start", fetched.log_start)
        .header("x-tidelog-high-watermark", fetched.high_watermark))
}

/// As JSON, as many records as fit.
fn lines(asked: &Asked<'_>, fetched: &Fetched, records: &[ConsumerRecord]) -> (Vec<u8>, usize) {
    let json = asked.form == Form::Json;
    // Room for what stands around the records.
    let bytes_max = limits::HTTP_ANSWER_BYTES_MAX - 1_024;
    let (mut body, mut taken) = (Vec::new(), 0);
    if json {
        body.extend_from_slice(b"{\"records\":[");
    }
    for record in records {
        let before = body.len();
        if json && taken > 0 {
            body.push(b',');
        }
        // Writing into memory cannot fail.
        let _ = text::json::write(&mut body, asked.topic, asked.partition, record);
        if !json {
            body.push(b'\n');
        }
        if body.len() > bytes_max {
            body.truncate(before);
            break;
        }
        taken += 1;
    }
    if json {
        let next = records.get(taken).map_or(fetched.next, |record| record.offset);
        let rest = json!({
            "next_offset": next, "log_start": fetched.log_start, "high_watermark": fetched.high_watermark,
        });
        body.extend_from_slice(b"],");
        body.extend_from_slice(rest.to_string().trim_start_matches('{').as_bytes());
    }
    (body, taken)
}

fn too_large(record: &ConsumerRecord, fetched: &Fetched) -> Problem {
    let offset = record.offset;
    let message = format!(
        "the record at offset {offset} does not fit into an answer of {} bytes: read it with the library or the command line, or go on behind it",
        limits::HTTP_ANSWER_BYTES_MAX
    );
    let problem = Problem::new(422, "record_too_large", message)
        .with("offset", offset)
        .header("x-tidelog-next-offset", offset + 1)
        .header("x-tidelog-log-start", fetched.log_start)
        .header("x-tidelog-high-watermark", fetched.high_watermark);
    Problem { limit: Some(limits::HTTP_ANSWER_BYTES_MAX as u64), ..problem }
}
