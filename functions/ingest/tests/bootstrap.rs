//! The real binary against a Runtime API of the test's own: events as AWS sends them, and kill -9 in the middle.
#![allow(clippy::disallowed_methods, reason = "this is about processes and real time")]

mod runtime_api;

use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use runtime_api::{Function, RuntimeApi, event};
use serde_json::{Value, json};
use tidelog_core::{Log, Position};

const RECORDS: &str = "/v1/topics/logs/records";

struct Folder(tempfile::TempDir);

impl Folder {
    fn url(&self) -> String {
        self.0.path().join("log").display().to_string()
    }

    fn start(&self, api: &RuntimeApi, more: &[(&str, &str)]) -> Function {
        Function::start(
            env!("CARGO_BIN_EXE_tidelog-ingest"),
            api,
            &[&[("TIDELOG_STORE", &*self.url())], more].concat(),
        )
    }
}

async fn folder(partitions: u32) -> Folder {
    let folder = Folder(tempfile::tempdir().unwrap());
    let log = Log::open(&folder.url()).await.unwrap();
    log.admin().create_topic("logs", partitions, &[]).await.unwrap();
    folder
}

async fn values(folder: &Folder) -> Vec<String> {
    let log = Log::open_existing(&folder.url()).await.unwrap();
    let mut consumer = log.consumer("logs").from(Position::Start).until(Position::End).build().await.unwrap();
    let mut found = Vec::new();
    while let Some(message) = consumer.next_message().await {
        found.push(String::from_utf8(message.unwrap().record.value.unwrap().to_vec()).unwrap());
    }
    found.sort();
    found
}

fn body(answer: &Value) -> Value {
    let text = answer["body"].as_str().unwrap();
    match answer["isBase64Encoded"].as_bool().unwrap() {
        true => serde_json::from_slice(&BASE64.decode(text).unwrap()).unwrap(),
        false => serde_json::from_str(text).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_each_shape_are_answered() {
    let (api, folder) = (RuntimeApi::start(), folder(1).await);
    let function = folder.start(&api, &[]);
    // As AWS sends a packed body, as an emulator sends one that it unpacked, and plain text.
    let aws: Value = serde_json::from_str(include_str!("../../runtime/tests/url-event.json")).unwrap();
    let unpacked =
        event("POST", RECORDS, &[("content-encoding", "identity"), ("content-length", "35")], "three\n");
    for (event, lines) in [(aws, 2), (unpacked, 1), (event("POST", RECORDS, &[], "four"), 1)] {
        let answer = api.invoke(&event);
        assert_eq!(answer["statusCode"], 200, "{answer}");
        assert_eq!(answer["headers"]["content-type"], "application/json");
        assert_eq!(body(&answer)["records"].as_array().unwrap().len(), lines);
    }
    for (event, status) in [
        (json!({}), 400),
        (json!([1, 2]), 400),
        (json!({"Records": [{"eventSource": "aws:sqs"}]}), 400),
        (event("GET", RECORDS, &[], ""), 405),
        (event("POST", "/v1/topics/other/records", &[], "x"), 404),
        (event("POST", RECORDS, &[("content-encoding", "gzip")], "never packed"), 400),
    ] {
        let answer = api.invoke(&event);
        assert_eq!(answer["statusCode"], status, "{event}: {answer}");
        assert!(body(&answer)["error"]["message"].is_string());
    }
    let (stdout, _) = function.stop();
    assert_eq!(values(&folder).await, ["four", "one", "three", "two"]);
    // Each line that it wrote is JSON; metrics are among them.
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let emf: Vec<&Value> = lines.iter().filter(|line| line["_aws"].is_object()).collect();
    let appended: u64 = emf.iter().filter_map(|line| line["records_appended"].as_u64()).sum();
    assert_eq!((appended, emf[0]["function"].as_str()), (4, Some("function")), "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_are_answered_and_logged() {
    let (api, folder) = (RuntimeApi::start(), folder(1).await);
    let post = event("POST", RECORDS, &[], "x");
    for (variable, value) in [
        ("TIDELOG_STORE", ""),
        ("TIDELOG_STORE", "ftp://nowhere"),
        ("TIDELOG_STORE", "/proc/nothing/here"),
        ("TIDELOG_INIT", "perhaps"),
        ("TIDELOG_AUTO_CREATE_PARTITIONS", "999999999999999999999"),
    ] {
        let function = folder.start(&api, &[(variable, value)]);
        let answer = api.invoke(&post);
        assert_eq!(answer["statusCode"], 500, "{variable}={value}: {answer}");
        let error = &body(&answer)["error"];
        assert_eq!(
            (error["code"].as_str(), error["variable"].as_str()),
            (Some("misconfigured"), Some(variable))
        );
        let (stdout, _) = function.stop();
        assert!(stdout.contains("\"level\":\"ERROR\""), "{stdout}");
    }
}

/// Whatever moment the process dies in: the same request again, and the records are there once.
#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_and_sent_again_nothing_is_doubled() {
    let (api, folder) = (RuntimeApi::start(), folder(4).await);
    let (mut expected, mut answered, mut committed) = (Vec::new(), 0, 0);
    // How long a cold invocation takes on this machine today: the moments are spread over half as much again.
    let function = folder.start(&api, &[]);
    let post = event("POST", RECORDS, &[], "cold");
    api.offer(&post);
    let began = Instant::now();
    api.answer();
    let cold = began.elapsed();
    function.kill();
    expected.push("cold".to_owned());
    let mut cycles = 0..300u64;
    for cycle in cycles.by_ref() {
        // Every other request is too large to ride inside its commit.
        let lines: Vec<String> = (0..3 + 200 * (cycle % 2)).map(|line| format!("{cycle}-{line}")).collect();
        let key = format!("request-{cycle}");
        let post = event("POST", RECORDS, &[("idempotency-key", &key)], &lines.join("\n"));
        let function = folder.start(&api, &[]);
        api.offer(&post);
        std::thread::sleep(cold * (cycle % 60) as u32 / 40);
        function.kill();
        answered += u64::from(api.take_answer().is_some());

        let function = folder.start(&api, &[]);
        // The second of the two is a duplicate always; the first, where the killed process had committed.
        let duplicates = [(); 2].map(|()| {
            let answer = api.invoke(&post);
            assert_eq!(answer["statusCode"], 200, "{answer}");
            assert_eq!(body(&answer)["records"].as_array().unwrap().len(), lines.len());
            body(&answer)["records"][0]["duplicate"] == true
        });
        assert!(duplicates[1], "cycle {cycle}");
        committed += u64::from(duplicates[0]);
        function.kill();
        expected.extend(lines);
        // From the first moment to the last, and once more where none fell between commit and answer.
        if cycle % 60 == 59 && committed > answered {
            break;
        }
    }
    println!("of {}: {committed} had committed when they were killed, {answered} had answered", cycles.start);
    assert!(
        committed > answered && committed < cycles.start,
        "the moments do not cover the middle: {committed}, {answered} of {}",
        cycles.start
    );
    expected.sort();
    assert_eq!(values(&folder).await, expected);
}
