//! What wakes the function, and what it answers.
//!
//! ```text
//! in    {"Records": [{"eventSource": "aws:dynamodb", …}, …]}      the table's stream: something was appended
//!       {"source": "aws.events", …}                               a schedule: everything, by name
//!       {"source": "aws.events", "sweep": "whole"}                another: that, and a look at all objects there are
//! out   what was done, as JSON; an error ends the invocation as failed, so that the stream's events come again
//! ```

use serde::Deserialize;
use serde_json::Value;
use tidelog_functions::{Deadline, Problem, Request, Response};

/// The path of a request that an event of the stream becomes.
pub const STREAM: &str = "/stream";
/// The path of one that a schedule's becomes.
pub const SCHEDULE: &str = "/schedule";
/// … and of one whose sweep looks at all there is.
pub const WHOLE: &str = "/schedule/whole";

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "Records", default)]
    records: Vec<Record>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    sweep: Option<String>,
}

/// What is in a record does not matter: the ledger says what there is.
#[derive(Deserialize)]
struct Record {
    #[serde(rename = "eventSource")]
    source: String,
}

/// An event's request.
///
/// # Errors
/// 400 `not_an_upkeep_event`.
pub fn request(event: &str, deadline: Deadline) -> Result<Request, Problem> {
    let refused = |reason: String| {
        let message = format!("not an event of a DynamoDB stream or of a schedule: {reason}");
        Problem::new(400, "not_an_upkeep_event", message)
    };
    let event: Event = serde_json::from_str(event).map_err(|error| refused(error.to_string()))?;
    let path = match (&event.records[..], event.source.as_deref()) {
        ([], Some("aws.events")) => match event.sweep.as_deref() {
            None => SCHEDULE,
            Some("whole") => WHOLE,
            Some(other) => return Err(refused(format!("`sweep` is {other:?}, and can only be \"whole\""))),
        },
        ([], other) => return Err(refused(format!("without records, from {:?}", other.unwrap_or_default()))),
        (records, _) => match records.iter().find(|record| record.source != "aws:dynamodb") {
            Some(record) => return Err(refused(format!("a record from {:?}", record.source))),
            None => STREAM,
        },
    };
    Ok(Request {
        method: "POST".to_owned(),
        path: path.to_owned(),
        query: String::new(),
        headers: Default::default(),
        body: Default::default(),
        deadline,
    })
}

/// What Lambda hears.
///
/// # Errors
/// The words of a problem: the invocation failed.
pub fn answer(response: Response) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
    let body: Value = serde_json::from_slice(&response.body)?;
    match response.status {
        200 => Ok(body),
        _ => Err(format!("{}: {}", body["error"]["code"], body["error"]["message"]).into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidelog_core::env::SystemEnv;

    use super::*;

    #[test]
    fn events_are_told_apart_and_others_refused_in_words() {
        let read = |event: Value| request(&event.to_string(), Deadline::after_ms(SystemEnv::shared(), 1_000));
        let record = json!({"eventSource": "aws:dynamodb", "eventName": "INSERT", "dynamodb": {"Keys": {}}});
        assert_eq!(read(json!({"Records": [record, record]})).unwrap().path, STREAM);
        let scheduled = json!({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}});
        assert_eq!(read(scheduled).unwrap().path, SCHEDULE);
        assert_eq!(read(json!({"source": "aws.events", "sweep": "whole"})).unwrap().path, WHOLE);
        let queue = json!({"eventSource": "aws:sqs"});
        for other in [
            json!({}),
            json!([1]),
            json!(null),
            json!({"Records": []}),
            json!({"Records": [record, queue]}),
            json!({"Records": [{}]}),
            json!({"Records": "many"}),
            json!({"source": "somebody"}),
            json!({"source": "somebody", "sweep": "whole"}),
            json!({"source": "aws.events", "sweep": "half"}),
            json!({"source": "aws.events", "sweep": true}),
        ] {
            let problem = read(other.clone()).unwrap_err();
            assert_eq!((problem.status, problem.code), (400, "not_an_upkeep_event"), "{other}");
        }
    }
}
