//! The events of Function URLs: payload format 2.0, in and out.
//!
//! ```text
//! in    rawPath · rawQueryString · headers {lower case: "a,b"} · requestContext.http.method · body? · isBase64Encoded
//! out   statusCode · headers · body · isBase64Encoded
//! ```

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use tidelog_core::limits;

use crate::{Deadline, Problem, Request, Response};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    raw_path: String,
    #[serde(default)]
    raw_query_string: Option<String>,
    #[serde(default)]
    headers: Option<BTreeMap<String, String>>,
    request_context: Context,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
}

#[derive(Deserialize)]
struct Context {
    http: Http,
}

#[derive(Deserialize)]
struct Http {
    method: String,
}

/// An event's request.
pub fn request(event: &str, deadline: Deadline) -> Result<Request, Problem> {
    let event: Event = serde_json::from_str(event).map_err(|error| {
        let message = format!("not an event of a Function URL (payload format 2.0): {error}");
        Problem::new(400, "not_a_url_event", message)
    })?;
    let body = event.body.unwrap_or_default();
    let body = match event.is_base64_encoded {
        true => {
            BASE64.decode(body).map_err(|error| Problem::invalid("body", format!("not base 64: {error}")))?
        }
        false => body.into_bytes(),
    };
    let headers = event.headers.unwrap_or_default().into_iter();
    Ok(Request {
        method: event.request_context.http.method.to_ascii_uppercase(),
        path: event.raw_path,
        query: event.raw_query_string.unwrap_or_default(),
        headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value)).collect(),
        body: body.into(),
        deadline,
    })
}

/// What Lambda sends on.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    status_code: u16,
    headers: BTreeMap<&'static str, String>,
    body: String,
    is_base64_encoded: bool,
}

/// An answer's event: as text where it is text, and base 64 is not the shorter.
pub fn answer(response: Response) -> Answer {
    if response.body.len() > limits::HTTP_ANSWER_BYTES_MAX {
        let message = format!("the answer has {} bytes; ask for less", response.body.len());
        return answer(Problem::new(500, "answer_too_large", message).into());
    }
    let (status_code, headers) = (response.status, response.headers.into_iter().collect());
    let text = std::str::from_utf8(&response.body).ok();
    match text.filter(|text| escaped_bytes(text) <= text.len().div_ceil(3) * 4) {
        Some(text) => Answer { status_code, headers, body: text.to_owned(), is_base64_encoded: false },
        None => Answer { status_code, headers, body: BASE64.encode(&response.body), is_base64_encoded: true },
    }
}

/// How many bytes a text has as a JSON string, about.
fn escaped_bytes(text: &str) -> usize {
    let more = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 1,
        0..0x20 => 5,
        _ => 0,
    };
    text.len() + text.bytes().map(more).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidelog_core::env::SystemEnv;

    use super::*;

    fn read(event: &serde_json::Value) -> Result<Request, Problem> {
        request(&event.to_string(), Deadline::after_ms(SystemEnv::shared(), 1_000))
    }

    #[test]
    fn events_of_aws_are_read() {
        let event: serde_json::Value = serde_json::from_str(include_str!("../tests/url-event.json")).unwrap();
        let request = read(&event).unwrap();
        assert_eq!((&*request.method, &*request.path), ("POST", "/v1/topics/logs/records"));
        assert_eq!(request.query, "key=a%20b");
        assert_eq!(request.header("content-encoding"), Some("gzip"));
        assert_eq!(request.body[..2], [0x1f, 0x8b]);
        assert_eq!(crate::encoding::unpacked(&request, 1 << 20).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn other_events_are_refused_in_words() {
        for event in [json!({}), json!([]), json!({"rawPath": "/"}), json!({"Records": []}), json!(null)] {
            let problem = read(&event).unwrap_err();
            assert_eq!((problem.status, problem.code), (400, "not_a_url_event"), "{event}");
        }
        let wrong = json!({"rawPath": "/", "requestContext": {"http": {"method": "GET"}}, "body": "?", "isBase64Encoded": true});
        assert!(read(&wrong).unwrap_err().message.contains("base 64"));
    }

    #[test]
    fn answers_take_the_shorter_form_and_fit() {
        let payload = |body: Vec<u8>| serde_json::to_vec(&answer(Response::new(200, "x/y", body))).unwrap();
        let text = answer(Response::json(200, &json!({"a": 1})));
        assert_eq!((text.is_base64_encoded, &*text.body), (false, r#"{"a":1}"#));
        assert!(answer(Response::new(200, "x/y", vec![0xff])).is_base64_encoded);
        for byte in [0u8, b'"', b'a', 0xff] {
            let payload = payload(vec![byte; limits::HTTP_ANSWER_BYTES_MAX]);
            assert!(payload.len() <= limits::HTTP_PAYLOAD_BYTES_MAX + 200, "{byte}: {}", payload.len());
        }
        let large = answer(Response::new(200, "x/y", vec![0; limits::HTTP_ANSWER_BYTES_MAX + 1]));
        assert_eq!(large.status_code, 500);
    }
}
