//! The real binary against a Runtime API of the test's own: the events of a stream and of a schedule, two at once, and
//! kill -9 in the middle.
#![allow(clippy::disallowed_methods, reason = "this is about processes and real time")]

#[path = "../../ingest/tests/runtime_api/mod.rs"]
mod runtime_api;

use std::time::Duration;

use runtime_api::{Function, RuntimeApi};
use serde_json::{Value, json};
use tidelog_core::{Log, Position, Record};

struct Folder(tempfile::TempDir);

impl Folder {
    fn url(&self) -> String {
        self.0.path().join("log").display().to_string()
    }

    fn start(&self, api: &RuntimeApi) -> Function {
        Function::start(env!("CARGO_BIN_EXE_tidelog-upkeep"), api, &[("TIDELOG_STORE", &*self.url())])
    }

    fn merged(&self) -> usize {
        let mut folders = vec![self.0.path().join("log/topics")];
        let mut files = 0;
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(folder) else { continue };
            for entry in entries.map(Result::unwrap) {
                if entry.path().is_dir() { folders.push(entry.path()) } else { files += 1 }
            }
        }
        files
    }
}

/// A log whose topic is merged when its records are a second old.
async fn folder() -> (Folder, Log) {
    let folder = Folder(tempfile::tempdir().unwrap());
    let log = Log::open(&folder.url()).await.unwrap();
    let config = [("merge.max.age.ms".to_owned(), "1000".to_owned())];
    log.admin().create_topic("logs", 2, &config).await.unwrap();
    (folder, log)
}

async fn append(log: &Log, count: usize) {
    let producer = log.producer().build().unwrap();
    for n in 0..count {
        // Every other one does not fit into its commit.
        let value = "x".repeat(if n % 2 == 0 { 10 } else { 5_000 });
        producer.send("logs", Record::keyed(format!("k{n}"), value)).await.unwrap();
    }
    producer.close().await.unwrap();
    std::thread::sleep(Duration::from_millis(1_100));
}

async fn records(folder: &Folder) -> usize {
    let log = Log::open_existing(&folder.url()).await.unwrap();
    let mut consumer = log.consumer("logs").from(Position::Start).until(Position::End).build().await.unwrap();
    let mut found = 0;
    while let Some(message) = consumer.next_message().await {
        message.unwrap();
        found += 1;
    }
    found
}

/// As AWS sends it: keys, the new image, the sequence number.
fn stream() -> Value {
    let image =
        json!({"pk": {"S": "0000/0000"}, "sk": {"N": "7"}, "hint": {"S": "append"}, "time_ms": {"N": "1"}});
    let change = json!({
        "ApproximateCreationDateTime": 1.79e9, "Keys": {"pk": {"S": "0000/0000"}, "sk": {"N": "7"}},
        "NewImage": image, "SequenceNumber": "1", "SizeBytes": 100, "StreamViewType": "NEW_IMAGE",
    });
    json!({"Records": [{
        "eventID": "1", "eventName": "INSERT", "eventVersion": "1.1", "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1", "dynamodb": change, "eventSourceARN": "arn:aws:dynamodb:::table/t/stream/s",
    }]})
}

fn schedule() -> Value {
    json!({
        "version": "0", "id": "1", "detail-type": "Scheduled Event", "source": "aws.events", "account": "0",
        "time": "2026-11-26T00:00:00Z", "region": "us-east-1", "resources": [], "detail": {},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_merges_and_the_schedule_does_everything() {
    let (folder, log) = folder().await;
    let api = RuntimeApi::start();
    let function = folder.start(&api);
    append(&log, 20).await;
    let done = api.invoke(&stream());
    assert_eq!(
        (&done["merged"]["records"], &done["more"], &done["swept"]),
        (&json!(20), &json!(false), &Value::Null)
    );
    assert_eq!((folder.merged(), records(&folder).await), (1, 20));
    // Its own commits wake nobody; woken all the same, it finds nothing.
    let again = api.invoke(&stream());
    assert_eq!(again["merged"]["records"], 0, "{again}");
    log.admin().delete_records("logs", None, Position::End).await.unwrap();
    let done = api.invoke(&schedule());
    assert!(done["swept"]["whole"] == false && done["damage"] == 0, "{done}");
    let done = api.invoke(&json!({"source": "aws.events", "sweep": "whole"}));
    assert!(done["swept"]["whole"] == true && done["damage"] == 0, "{done}");
    let (stdout, _) = function.stop();
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let merged: u64 = lines.iter().filter_map(|line| line["records_merged"].as_u64()).sum();
    assert_eq!(merged, 20, "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_events_and_wrong_settings_fail_the_invocation_in_words() {
    let (folder, _) = folder().await;
    let api = RuntimeApi::start();
    let function = folder.start(&api);
    for event in
        [json!({}), json!([]), json!({"Records": [{"eventSource": "aws:sqs"}]}), json!("x"), json!(null)]
    {
        let answer = api.invoke(&event);
        let words = answer["errorMessage"].as_str().unwrap_or_default();
        assert!(words.contains("not_an_upkeep_event"), "{event}: {answer}");
    }
    assert_eq!(api.invoke(&schedule())["more"], false, "it goes on");
    function.kill();
    let function = Function::start(
        env!("CARGO_BIN_EXE_tidelog-upkeep"),
        &api,
        &[("TIDELOG_STORE", "/proc/nothing/here")],
    );
    let answer = api.invoke(&schedule());
    assert!(answer["errorMessage"].as_str().unwrap().contains("misconfigured"), "{answer}");
    function.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_and_killed_in_the_middle_every_record_stays_once() {
    let (folder, log) = folder().await;
    let apis = [RuntimeApi::start(), RuntimeApi::start()];
    let mut expected = 0;
    for cycle in 0..8u32 {
        append(&log, 20).await;
        expected += 20;
        let functions = [folder.start(&apis[0]), folder.start(&apis[1])];
        apis[0].offer(&stream());
        apis[1].offer(&if cycle % 2 == 0 { stream() } else { schedule() });
        std::thread::sleep(Duration::from_millis(u64::from(cycle) * 12));
        let [one, other] = functions;
        one.kill();
        if cycle % 3 == 0 {
            other.kill();
        } else {
            assert!(apis[1].answer()["merged"].is_object());
            other.kill();
        }
        assert_eq!(records(&folder).await, expected, "cycle {cycle}");
    }
    let function = folder.start(&apis[0]);
    apis[0].invoke(&stream());
    function.kill();
    assert_eq!(records(&folder).await, expected);
    let report = tidelog_core::verify::verify(log.store(), |_, _| {}).await.unwrap();
    assert_eq!((report.damage, report.records), (Vec::new(), expected as u64));
    assert!(folder.merged() > 0);
}
