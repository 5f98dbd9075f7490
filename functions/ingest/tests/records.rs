//! `POST /v1/topics/{topic}/records`: each form of body, and each way to get it wrong.

mod common;

use std::sync::Arc;

use common::*;
use tidelog_core::{Log, limits};
use tidelog_functions::{Service, Settings};
use tidelog_ingest::Ingest;

#[tokio::test]
async fn lines_become_records() {
    let world = World::new(1).await;
    let answer = world.post("", &[TEXT], "one\r\n\ntwo").await;
    assert_eq!(answer.status, 200);
    let places =
        r#"{"records":[{"partition":0,"offset":0},{"partition":0,"offset":1},{"partition":0,"offset":2}]}"#;
    assert_eq!(answer.body, places);
    assert_eq!(world.values().await, ["one", "", "two"]);
    // One flight, however many lines: one commit beside those that made store and topic.
    assert_eq!(world.log.ledger().chain_slot(), 3);
    assert_eq!(world.post("", &[TEXT], "").await.body, r#"{"records":[]}"#);
}

#[tokio::test]
async fn documents_are_values_and_can_be_pointed_into() {
    let world = World::new(1).await;
    let body = "{\"a\": {\"id\":\"k1\"}, \"t\":1700000000000}\n5\n{\"a\":{\"id\":7},\"t\":\"2023-11-14T22:13:20Z\"}\n";
    let answer = world.post("key_pointer=/a/id&timestamp_pointer=/t", &[NDJSON], body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let found = world.all().await;
    let (keys, values): (Vec<_>, Vec<_>) = found.iter().map(|one| (one.2.as_deref(), &*one.3)).unzip();
    assert_eq!(keys, [Some("k1"), None, Some("7")]);
    assert_eq!(values, body.lines().collect::<Vec<_>>());
    let answer = world.post("key=k", &[JSON], "[ {\"x\" :1}, null,\"s\" ]").await;
    assert_eq!(answer.status, 200);
    assert_eq!(world.values().await[3..], ["{\"x\" :1}", "null", "\"s\""]);
}

#[tokio::test]
async fn record_objects_are_read_in_each_form() {
    let world = World::new(2).await;
    let object = r#"{"key":"k","value_base64":"/w==","timestamp":5,"partition":1,"headers":[{"key":"h","value":"v"}]}"#;
    for (query, header, body) in [
        ("", JSON, format!("{{\"records\":[{object}]}}")),
        ("as=records", JSON, format!("[{object}]")),
        ("as=records", NDJSON, object.to_owned()),
    ] {
        let answer = world.post(query, &[header], &body).await;
        assert_eq!(
            (answer.status, json(&answer)["records"][0]["partition"].as_u64()),
            (200, Some(1)),
            "{body}"
        );
    }
    let fetched = world.log.fetcher().fetch("logs", 1, 0, Default::default()).await.unwrap();
    for record in fetched.records() {
        assert_eq!((record.value.as_deref(), record.timestamp_us), (Some(&[0xff][..]), 5_000));
        assert_eq!(record.headers[0].key, "h");
    }
    assert_eq!(fetched.records().count(), 3);
}

#[tokio::test]
async fn one_binary_record_with_everything_by_header() {
    let world = World::new(3).await;
    let headers = [
        BINARY,
        ("x-tidelog-key", "k"),
        ("x-tidelog-partition", "2"),
        ("x-tidelog-timestamp", "1970-01-01T00:00:01Z"),
        ("x-tidelog-header-trace", "t1"),
    ];
    let answer = world.post("", &headers, [0xff, 0, b'\n', 7]).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &br#"{"records":[{"partition":2,"offset":0}]}"#[..]));
    let fetched = world.log.fetcher().fetch("logs", 2, 0, Default::default()).await.unwrap();
    let record = fetched.records().next().unwrap();
    assert_eq!((record.value.as_deref(), record.timestamp_us), (Some(&[0xff, 0, b'\n', 7][..]), 1_000_000));
    let header = (&*record.headers[0].key, record.headers[0].value.as_deref());
    assert_eq!((record.key.as_deref(), header), (Some(&b"k"[..]), ("trace", Some(&b"t1"[..]))));
}

#[tokio::test]
async fn neighbours_of_a_bad_record_are_kept() {
    let world = World::new(1).await;
    let large = "x".repeat(limits::RECORD_BYTES_DEFAULT + 1);
    let answer = world.post("", &[TEXT], format!("one\n{large}\ntwo")).await;
    let body = json(&answer);
    assert_eq!(answer.status, 207);
    let error = &body["records"][1]["error"];
    assert_eq!((&error["field"], &error["limit"]), (&"record".into(), &limits::RECORD_BYTES_DEFAULT.into()));
    assert_eq!((&error["code"], &error["retriable"]), (&"too_large".into(), &false.into()));
    assert_eq!(body["records"][2]["offset"], 1);
    let answer = world
        .post(
            "as=records",
            &[NDJSON],
            "{\"value\":\"a\"}\n{\"vlaue\":\"b\"}\n{\"value\":\"c\",\"partition\":9}\n",
        )
        .await;
    let body = json(&answer);
    assert_eq!(answer.status, 207);
    assert!(body["records"][1]["error"]["message"].as_str().unwrap().contains("unknown field \"vlaue\""));
    assert_eq!(
        (&body["records"][2]["error"]["field"], &body["records"][2]["error"]["limit"]),
        (&"partition".into(), &1.into())
    );
    let answer = world.post("", &[NDJSON], "{\"a\":1}\n{broken\n[1]\n\"\\ud800\"\n").await;
    assert_eq!(answer.status, 207, "{answer:?}");
    assert_eq!(world.values().await, ["one", "two", "a", "{\"a\":1}", "[1]", "\"\\ud800\""]);
    // Not one could be taken.
    let answer = world.post("", &[NDJSON], "{\n}\n").await;
    assert_eq!(answer.status, 400);
    assert!(json(&answer)["error"]["message"].as_str().unwrap().starts_with("2 of 2 records were not taken"));
    assert_eq!(world.post("", &[TEXT], large).await.status, 413);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_named() {
    let world = World::new(1).await;
    let post = |query, headers: &'static [(&'static str, &'static str)], body: &'static [u8]| {
        let (world, headers) = (&world, headers.to_vec());
        async move {
            let answer = world.post(query, &headers, body).await;
            let error = json(&answer)["error"].clone();
            assert_eq!(error["retriable"], false);
            let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
            (answer.status, text("field"), text("message"))
        }
    };
    type Headers = &'static [(&'static str, &'static str)];
    type Case = (&'static str, Headers, &'static [u8], u16, &'static str, &'static str);
    let cases: [Case; 31] = [
        ("", &[], b"x", 415, "content-type", "text/plain, application/x-ndjson"),
        (
            "",
            &[("content-type", "application/x-www-form-urlencoded")],
            b"x",
            415,
            "content-type",
            "not supported",
        ),
        ("", &[("content-type", "text/html")], b"x", 415, "content-type", ""),
        ("", &[TEXT, ("content-encoding", "br")], b"x", 415, "content-encoding", "gzip, zstd"),
        ("", &[TEXT, ("content-encoding", "gzip")], b"x", 400, "body", "not whole gzip"),
        ("", &[TEXT, ("content-encoding", "zstd")], b"x", 400, "body", "not whole zstd"),
        ("kye=1", &[TEXT], b"x", 400, "query", "unknown parameter \"kye\""),
        ("key=1&key=2", &[TEXT], b"x", 400, "key", "given twice"),
        ("key=%", &[TEXT], b"x", 400, "query", "hexadecimal"),
        ("key=1", &[TEXT, ("x-tidelog-key", "2")], b"x", 400, "key", "x-tidelog-key"),
        ("partition=-1", &[TEXT], b"x", 400, "partition", ""),
        ("partition=4294967296", &[TEXT], b"x", 400, "partition", ""),
        ("partition=1", &[TEXT], b"x", 400, "partition", ""),
        ("timestamp=soon", &[TEXT], b"x", 400, "timestamp", "2026-01-31T12:00:00Z"),
        ("timestamp=253402300800000", &[TEXT], b"x", 400, "timestamp", "9999"),
        ("key_pointer=/a", &[TEXT], b"x", 400, "key_pointer", "only JSON documents"),
        ("key_pointer=a", &[JSON], b"[]", 400, "key_pointer", "begin with a slash"),
        ("key_pointer=/a&key=1", &[JSON], b"[]", 400, "key_pointer", "also given"),
        ("key_pointer=/a", &[JSON], b"{\"records\":[]}", 400, "key_pointer", "themselves"),
        ("key_pointer=/a", &[JSON], b"[{\"a\":[]}]", 400, "key", "no key"),
        ("timestamp_pointer=/a", &[JSON], b"[{\"a\":true}]", 400, "timestamp", ""),
        ("as=rows", &[JSON], b"[]", 400, "as", "documents or records"),
        ("as=records", &[TEXT], b"x", 400, "as", "only JSON"),
        ("", &[JSON], b"{}", 400, "body", "must have `records`"),
        ("", &[JSON], b"{\"records\":[],\"x\":1}", 400, "body", "nothing else"),
        ("", &[JSON], b"[1,", 400, "body", "EOF"),
        ("", &[JSON], b"[1] x", 400, "body", "trailing"),
        ("", &[JSON], b"5", 400, "body", "expected an array"),
        ("", &[JSON], b"[\"\xff\"]", 400, "body", "not UTF-8 at byte 3"),
        ("", &[TEXT, ("idempotency-key", "")], b"x", 400, "idempotency-key", "visible ASCII"),
        ("", &[TEXT, ("idempotency-key", "a\tb")], b"x", 400, "idempotency-key", "visible ASCII"),
    ];
    for (query, headers, body, status, field, words) in cases {
        let (found, named, message) = post(query, headers, body).await;
        assert_eq!((found, &*named), (status, field), "{query} {headers:?}: {message}");
        assert!(message.contains(words), "{query} {headers:?}: {message}");
    }
    assert_eq!(world.values().await, Vec::<String>::new());
}

#[tokio::test]
async fn paths_and_methods_are_named() {
    let world = World::new(1).await;
    for (method, path, status) in [
        ("GET", "/v1/topics/logs/records", 405),
        ("POST", "/v1/topics/nothing/records", 404),
        ("POST", "/v1/topics/a%20b/records", 400),
        ("POST", "/v1/topics/%ff/records", 400),
        ("POST", "/v1/topics//records", 400),
        ("POST", "/", 404),
        ("POST", "/v1/topics/logs", 404),
    ] {
        let answer = world.ingest.handle(request(method, path, "", &[TEXT], "x")).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.get("allow").is_some(), status == 405);
        assert!(json(&answer)["error"]["message"].is_string());
    }
}

#[tokio::test]
async fn bounds_hold_before_memory_is_taken() {
    let world = World::new(1).await;
    let million = "x\n".repeat(1_000_000);
    let answer = world.post("", &[TEXT], &million).await;
    assert_eq!(
        (answer.status, json(&answer)["error"]["limit"].as_u64()),
        (413, Some(limits::HTTP_RECORDS_MAX as u64))
    );
    let array = format!("[{}1]", "1,".repeat(1_000_000));
    for body in [array.clone(), format!("{{\"records\":{array}}}")] {
        let answer = world.post("", &[JSON], body).await;
        assert_eq!((answer.status, json(&answer)["error"]["field"].as_str()), (413, Some("records")));
    }
    let deep = "[".repeat(1_000_000);
    assert_eq!(world.post("", &[JSON], &deep).await.status, 400);
    assert_eq!(world.post("key_pointer=/0/0", &[NDJSON], &deep).await.status, 400);
    assert_eq!(world.post("", &[TEXT], vec![b'x'; limits::HTTP_BODY_BYTES_MAX + 1]).await.status, 413);
    assert_eq!(world.values().await, Vec::<String>::new());
    // As many as are allowed, each with an error: the answer fits.
    let most = "{\n".repeat(limits::HTTP_RECORDS_MAX);
    let answer = world.post("", &[NDJSON], most).await;
    assert_eq!(
        (answer.status, json(&answer)["records"].as_array().unwrap().len()),
        (400, limits::HTTP_RECORDS_MAX)
    );
    let most = "x\n".repeat(limits::HTTP_RECORDS_MAX);
    let answer = world.post("", &[TEXT], most).await;
    assert_eq!(
        (answer.status, json(&answer)["records"].as_array().unwrap().len()),
        (200, limits::HTTP_RECORDS_MAX)
    );
}

#[tokio::test]
async fn bombs_are_told_the_limit() {
    let world = World::with(1, Settings { memory_mib: 128, ..Settings::of("memory:") }).await;
    let bomb = zstd::encode_all(&vec![0u8; 200 << 20][..], 1).unwrap();
    assert!(bomb.len() < 100_000);
    let answer = world.post("", &[TEXT, ("content-encoding", "zstd")], bomb).await;
    let error = &json(&answer)["error"];
    assert_eq!((answer.status, error["limit"].as_u64()), (413, Some(8 << 20)));
    assert_eq!(error["field"], "unpacked body");
}

#[tokio::test]
async fn unknown_topics_are_made_if_that_is_asked_for() {
    let world = World::with(1, Settings { auto_create_partitions: 3, ..Settings::of("memory:") }).await;
    for expected in [200, 200] {
        let answer = world.ingest.handle(request("POST", "/v1/topics/new/records", "", &[TEXT], "x")).await;
        assert_eq!(answer.status, expected);
    }
    assert_eq!(world.log.admin().describe_topic("new").await.unwrap().partitions.len(), 3);
    let answer = world.ingest.handle(request("POST", "/v1/topics/a%2Fb/records", "", &[TEXT], "x")).await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn nothing_is_begun_without_time_for_it() {
    let world = World::new(1).await;
    let mut late = request("POST", "/v1/topics/logs/records", "", &[TEXT], "x");
    let env = late.deadline.env().clone();
    late.deadline = tidelog_functions::Deadline::after_ms(env, limits::HTTP_COMMIT_MS);
    let answer = world.ingest.handle(late).await;
    assert_eq!((answer.status, answer.get("retry-after")), (503, Some("1")));
    let error = &json(&answer)["error"];
    assert_eq!((&error["code"], &error["retriable"]), (&"out_of_time".into(), &true.into()));
    assert_eq!(world.values().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_topic_made_anew_behind_its_back_takes_the_next_request() {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().to_str().unwrap();
    let (here, log) = (Log::open(url).await.unwrap(), Log::open(url).await.unwrap());
    let admin = here.admin();
    admin.create_topic("logs", 1, &[]).await.unwrap();
    let ingest = Arc::new(Ingest::new(log.clone(), &Settings::of(url)).unwrap());
    let world = World { log, ingest };
    assert_eq!(world.post("", &[TEXT], "x").await.status, 200);
    admin.delete_topic("logs").await.unwrap();
    admin.create_topic("logs", 1, &[]).await.unwrap();
    // It cannot know; a shipper that is told so sends again, and would not after a 404.
    let answer = world.post("", &[TEXT], "y").await;
    assert_eq!((answer.status, answer.get("retry-after").is_some()), (503, true), "{answer:?}");
    let error = &json(&answer)["error"];
    assert_eq!((&error["code"], &error["retriable"]), (&"topic_deleted".into(), &true.into()));
    assert_eq!(world.post("", &[TEXT], "y").await.status, 200);
    assert_eq!(world.values().await, ["y"]);
}

#[tokio::test]
async fn a_topic_deleted_in_between_is_unknown() {
    let world = World::new(1).await;
    assert_eq!(world.post("", &[TEXT], "x").await.status, 200);
    world.log.admin().delete_topic("logs").await.unwrap();
    assert_eq!(world.post("", &[TEXT], "x").await.status, 404);
    world.log.admin().create_topic("logs", 1, &[]).await.unwrap();
    assert_eq!(world.post("", &[TEXT], "y").await.status, 200);
    assert_eq!(world.values().await, ["y"]);
}
