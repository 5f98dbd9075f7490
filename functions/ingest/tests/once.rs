//! `Idempotency-Key`: the same request again changes nothing.

mod common;

use common::*;
use tidelog_core::limits;
use tidelog_functions::{Service, Settings};
use tidelog_ingest::Ingest;

fn key(key: &str) -> [(&str, &str); 2] {
    [TEXT, ("idempotency-key", key)]
}

#[tokio::test]
async fn the_same_request_again_gets_the_same_places() {
    let world = World::new(8).await;
    let first = world.post("", &key("a"), "one\ntwo").await;
    assert_eq!(first.status, 200, "{first:?}");
    assert_eq!(first.get("idempotency-window"), Some("seconds=900, keys=100000"));
    let again = world.post("", &key("a"), "one\ntwo").await;
    let (mut first, again) = (json(&first), json(&again));
    for record in first["records"].as_array_mut().unwrap() {
        record["duplicate"] = true.into();
    }
    assert_eq!(first, again);
    assert_eq!(world.values().await, ["one", "two"]);
    // Another process, with a view of its own.
    let log = tidelog_core::Log::builder().open_store(world.log.store().clone()).await.unwrap();
    let other = Ingest::new(log, &Settings::of("memory:")).unwrap();
    let request = request("POST", "/v1/topics/logs/records", "", &key("a"), "one\ntwo");
    assert_eq!(json(&other.handle(request).await), again);
    // Another key is another request.
    assert_eq!(world.post("", &key("b"), "one\ntwo").await.status, 200);
    assert_eq!(world.values().await.len(), 4);
}

#[tokio::test]
async fn unkeyed_records_follow_the_key_and_keyed_ones_their_own() {
    let world = World::new(50).await;
    let answer = json(&world.post("", &key("a"), "one\ntwo\nthree").await);
    let partition = answer["records"][0]["partition"].as_u64().unwrap();
    assert!(answer["records"].as_array().unwrap().iter().all(|one| one["partition"] == partition));
    let body = r#"{"records":[{"key":"x","value":"1"},{"key":"y","value":"2"},{"value":"3"},{"value":"4","partition":7}]}"#;
    let send = || world.post("", &[JSON, ("idempotency-key", "b")], body);
    let (first, again) = (send().await, send().await);
    assert_eq!((first.status, again.status), (200, 200));
    let places = |answer: &tidelog_functions::Response| {
        let records = json(answer)["records"].clone();
        let place = |one: &serde_json::Value| (one["partition"].as_u64(), one["offset"].as_u64());
        records.as_array().unwrap().iter().map(place).collect::<Vec<_>>()
    };
    assert_eq!(places(&first), places(&again));
    assert_eq!(places(&first)[3].0, Some(7));
    assert_eq!(world.values().await.len(), 3 + 4);
}

#[tokio::test]
async fn a_key_for_other_records_is_refused_and_nothing_is_written() {
    let world = World::new(4).await;
    world.post("", &key("a"), "one\ntwo").await;
    for (query, body) in [
        ("", "one\nthree"),
        ("", "one"),
        ("", "one\ntwo\n\n"),
        ("key=k", "one\ntwo"),
        ("partition=0", "x"),
        ("partition=1", "x"),
        ("partition=2", "x"),
        ("partition=3", "x"),
    ] {
        let answer = world.post(query, &key("a"), body).await;
        assert_eq!(answer.status, 422, "{query} {body:?}");
        assert_eq!(json(&answer)["error"]["code"], "idempotency_key_reused");
    }
    assert_eq!(world.values().await, ["one", "two"]);
}

#[tokio::test]
async fn a_topic_that_grew_in_between_doubles_nothing() {
    let world = World::new(1).await;
    world.post("", &key("a"), "one").await;
    world.log.admin().alter_topic("logs", Some(1_000), &[]).await.unwrap();
    assert_eq!(world.post("", &key("a"), "one").await.status, 422);
    assert_eq!(world.values().await, ["one"]);
}

#[tokio::test]
async fn bad_records_do_not_keep_the_good_ones_out() {
    let world = World::new(2).await;
    let body = "{\"value\":\"a\"}\n{\"oops\":1}\n{\"value\":\"c\",\"partition\":5}\n";
    for _ in 0..3 {
        let answer = world.post("as=records", &[NDJSON, ("idempotency-key", "k")], body).await;
        assert_eq!(answer.status, 207);
        assert_eq!(json(&answer)["records"][1]["error"]["code"], "invalid_field");
        assert_eq!(json(&answer)["records"][2]["error"]["field"], "partition");
    }
    assert_eq!(world.values().await, ["a"]);
}

#[tokio::test]
async fn many_at_once_under_one_key_are_one() {
    let world = World::new(4).await;
    let posts = (0..20).map(|_| async { world.post("", &key("same"), "one\ntwo\nthree").await.status });
    let statuses = futures::future::join_all(posts).await;
    assert_eq!(statuses, [200; 20]);
    assert_eq!(world.values().await, ["one", "two", "three"]);
}

#[tokio::test]
async fn batches_are_bounded_as_a_whole() {
    let world = World::with(1, Settings::of("memory:")).await;
    let config = [("max.message.bytes".to_owned(), Some((8 << 20).to_string()))];
    world.log.admin().alter_topic("logs", None, &config).await.unwrap();
    let body = zstd::encode_all(&vec![b'x'; (8 << 20) + 1][..], 1).unwrap();
    let headers = [BINARY, ("content-encoding", "zstd"), ("idempotency-key", "k")];
    let answer = world.post("", &headers, body).await;
    assert_eq!((answer.status, json(&answer)["error"]["limit"].as_u64()), (413, Some(8 << 20)));
    // Many lines of one batch: rows count more than their bytes, and all or none is in.
    let lines = ["x".repeat(100) + "\n"].concat().repeat(limits::HTTP_RECORDS_MAX);
    let lines = zstd::encode_all(lines.as_bytes(), 1).unwrap();
    let headers = [TEXT, ("content-encoding", "zstd"), ("idempotency-key", "l")];
    assert_eq!(world.post("", &headers, &lines).await.status, 200);
    assert_eq!(world.post("", &headers, &lines).await.status, 200);
    let large = ["x".repeat(300) + "\n"].concat().repeat(limits::HTTP_RECORDS_MAX);
    let large = zstd::encode_all(large.as_bytes(), 1).unwrap();
    let headers = [TEXT, ("content-encoding", "zstd"), ("idempotency-key", "m")];
    let answer = world.post("", &headers, large).await;
    assert_eq!(
        (answer.status, json(&answer)["error"]["limit"].as_u64()),
        (413, Some(limits::RECORD_RAW_BYTES_MAX as u64))
    );
    assert_eq!(world.values().await.len(), limits::HTTP_RECORDS_MAX);
}

#[tokio::test]
async fn a_key_has_a_length() {
    let world = World::new(1).await;
    assert_eq!(world.post("", &key(&"k".repeat(255)), "x").await.status, 200);
    assert_eq!(world.post("", &key(&"k".repeat(256)), "x").await.status, 400);
}
