//! Records out in each form, the offsets of groups, and each way to ask wrongly.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::ipc::reader::StreamReader;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use tidelog_core::env::SystemEnv;
use tidelog_core::ledger::action::{Action, TrimTo};
use tidelog_core::{Header, Log, Record, limits};
use tidelog_fetch::Fetch;
use tidelog_functions::{Deadline, Request, Response, Service, Settings};

struct World {
    log: Log,
    fetch: Fetch,
}

const RECORDS: &str = "/v1/topics/logs/partitions/0/records";

impl World {
    /// Topic `logs` with 2 partitions, and `count` records in the first.
    async fn new(count: u64) -> Self {
        let log = Log::open("memory:").await.unwrap();
        log.admin().create_topic("logs", 2, &[]).await.unwrap();
        let fetch = Fetch::new(log.clone(), &Settings::of("memory:"));
        let world = Self { log, fetch };
        world.append(0..count).await;
        world
    }

    async fn append(&self, numbers: std::ops::Range<u64>) {
        let producer = self.log.producer().build().unwrap();
        for number in numbers {
            let mut record = Record::keyed(format!("k{number}"), format!("value {number}"));
            record.timestamp_us = Some(1_700_000_000_000_000 + number as i64 * 1_000_000);
            record.headers.push(Header { key: "n".into(), value: Some(vec![0xff, number as u8].into()) });
            record.headers.push(Header { key: "null".into(), value: None });
            drop(producer.enqueue("logs", Some(0), record, None).await.unwrap());
        }
        producer.close().await.unwrap();
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        query: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let named = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let headers: BTreeMap<String, String> = headers.iter().map(named).collect();
        let deadline = Deadline::after_ms(SystemEnv::shared(), 30_000);
        let (method, path, query) = (method.to_owned(), path.to_owned(), query.to_owned());
        let body = body.as_bytes().to_vec().into();
        self.fetch.handle(Request { method, path, query, headers, body, deadline }).await
    }

    async fn get(&self, path: &str, query: &str) -> Response {
        self.ask("GET", path, query, &[], "").await
    }

    async fn get_as(&self, query: &str, accept: &str) -> Response {
        self.ask("GET", RECORDS, query, &[("accept", accept)], "").await
    }
}

fn body(response: &Response) -> Value {
    serde_json::from_slice(&response.body).unwrap_or_else(|error| panic!("{error}: {response:?}"))
}

fn marks(response: &Response) -> [u64; 3] {
    ["next-offset", "log-start", "high-watermark"]
        .map(|name| response.get(&format!("x-tidelog-{name}")).unwrap().parse().unwrap())
}

fn offsets(response: &Response) -> Vec<u64> {
    body(response)["records"].as_array().unwrap().iter().map(|one| one["offset"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn records_come_by_offset_and_time() {
    let world = World::new(10).await;
    for (from, first) in [
        ("", 0),
        ("from=start", 0),
        ("from=4", 4),
        ("from=10", 10),
        ("from=end", 10),
        ("from=1700000003000", 3),
        ("from=1700000003001", 4),
        ("from=2023-11-14T22:13:25Z", 5),
        ("from=2030-01-01T00:00:00Z", 10),
        ("from=1970-01-01T00:00:00Z", 0),
    ] {
        let answer = world.get(RECORDS, from).await;
        assert_eq!(answer.status, 200, "{from}");
        assert_eq!(offsets(&answer), (first..10).collect::<Vec<_>>(), "{from}");
        assert_eq!(marks(&answer), [10, 0, 10]);
        let all = body(&answer);
        assert_eq!(
            [&all["next_offset"], &all["log_start"], &all["high_watermark"]],
            [&json!(10), &json!(0), &json!(10)]
        );
    }
    let record = &body(&world.get(RECORDS, "from=3&max_records=1").await)["records"][0];
    let wanted = json!({"topic": "logs", "partition": 0, "offset": 3, "timestamp": 1_700_000_003_000i64, "key": "k3",
        "value": "value 3", "headers": [{"key": "n", "value_base64": "/wM="}, {"key": "null", "value": null}]});
    assert_eq!(*record, wanted);
}

#[tokio::test]
async fn pages_join_without_gap() {
    let world = World::new(1_000).await;
    for (accept, bounds) in
        [("application/x-ndjson", "max_bytes=5000"), ("application/x-ndjson", "max_records=7")]
    {
        let (mut next, mut found) = (0, Vec::new());
        while next < 1_000 {
            let answer = world.get_as(&format!("from={next}&{bounds}"), accept).await;
            assert_eq!(answer.status, 200);
            for line in answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let line: Value = serde_json::from_slice(line).unwrap();
                found.push(line["offset"].as_u64().unwrap());
            }
            next = marks(&answer)[0];
        }
        assert_eq!(found, (0..1_000).collect::<Vec<_>>(), "{bounds}");
    }
}

#[tokio::test]
async fn columns_hold_the_same() {
    let world = World::new(5).await;
    let arrow = world.get_as("from=1", "application/vnd.apache.arrow.stream").await;
    let parquet = world.get_as("from=1", "application/vnd.apache.parquet").await;
    assert_eq!(parquet.get("content-type"), Some("application/vnd.apache.parquet"));
    assert_eq!((marks(&arrow), marks(&parquet)), ([5, 0, 5], [5, 0, 5]));
    let arrow = StreamReader::try_new(&arrow.body[..], None).unwrap().next().unwrap().unwrap();
    let parquet = ParquetRecordBatchReaderBuilder::try_new(parquet.body).unwrap().build().unwrap();
    let parquet = parquet.into_iter().next().unwrap().unwrap();
    for batch in [arrow, parquet] {
        assert_eq!(
            batch.column_by_name("offset").unwrap().as_primitive::<Int64Type>().values().to_vec(),
            [1, 2, 3, 4]
        );
        let times = batch.column_by_name("timestamp").unwrap();
        assert_eq!(times.as_primitive::<TimestampMicrosecondType>().value(0), 1_700_000_001_000_000);
        assert_eq!(batch.column_by_name("value").unwrap().as_binary::<i32>().value(3), b"value 4");
        let headers = batch.column_by_name("headers").unwrap().as_list::<i32>().value(0);
        let values = headers.as_struct().column(1).as_binary::<i32>();
        assert_eq!((values.value(0), values.is_null(1)), (&[0xff, 1][..], true));
    }
}

#[tokio::test]
async fn large_answers_are_cut_and_fit() {
    let world = World::new(0).await;
    let config = [("max.message.bytes".to_owned(), Some((8 << 20).to_string()))];
    world.log.admin().alter_topic("logs", None, &config).await.unwrap();
    let producer = world.log.producer().build().unwrap();
    // Control characters are six bytes each in JSON, and bytes that are no text a third more.
    for value in [vec![1u8; 900_000], vec![0xff; 1_000_000], vec![b'a'; 2_000_000], vec![7; 5_000_000]] {
        producer.enqueue("logs", Some(0), Record::value(value), None).await.unwrap().wait().await.unwrap();
    }
    for accept in [
        "application/json",
        "application/x-ndjson",
        "application/vnd.apache.arrow.stream",
        "application/vnd.apache.parquet",
    ] {
        let mut next = 0;
        while next < 3 {
            let answer = world.get_as(&format!("from={next}&max_bytes=4500000"), accept).await;
            let large = accept.contains("json") && next == 0;
            if large {
                assert_eq!(answer.status, 422, "{accept}");
                assert_eq!(body(&answer)["error"]["offset"], 0);
            }
            assert!(answer.body.len() <= limits::HTTP_ANSWER_BYTES_MAX, "{}", answer.body.len());
            let after = answer.get("x-tidelog-next-offset").unwrap().parse().unwrap();
            assert!(after > next, "{accept} stands still at {next}");
            next = after;
        }
    }
    let answer = world.get_as("from=3", "application/json").await;
    assert_eq!((answer.status, answer.get("x-tidelog-next-offset")), (422, Some("4")));
    assert_eq!(world.get_as("from=3", "application/vnd.apache.parquet").await.status, 200);
}

#[tokio::test]
async fn outside_of_the_log_is_said_with_its_bounds() {
    let world = World::new(10).await;
    let (id, _) =
        world.log.fresh_view(|view| view.topic("logs").map(|(id, _)| (id, ()))).await.unwrap().unwrap();
    let trim =
        Action::Trim(vec![TrimTo { topic: id, partition: 0, log_start: 4, oldest_ms: 0, oldest_bytes: 0 }]);
    world.log.ledger().act(trim).await.unwrap();
    for query in ["from=0", "from=3", "from=11", "from=99999999999"] {
        let answer = world.get(RECORDS, query).await;
        let error = &body(&answer)["error"];
        assert_eq!((answer.status, &error["code"]), (416, &json!("offset_out_of_range")), "{query}");
        assert_eq!((&error["log_start"], &error["high_watermark"]), (&json!(4), &json!(10)));
        assert_eq!(answer.get("x-tidelog-log-start"), Some("4"));
        assert_eq!(answer.get("x-tidelog-high-watermark"), Some("10"));
    }
    assert_eq!(offsets(&world.get(RECORDS, "from=start").await), [4, 5, 6, 7, 8, 9]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_ends_with_the_first_record() {
    let world = World::new(1).await;
    let env = SystemEnv::shared();
    let began = env.monotonic();
    let empty = world.get(RECORDS, "from=end&wait_ms=300").await;
    assert_eq!((empty.status, offsets(&empty)), (200, vec![]));
    assert!((env.monotonic() - began).as_millis() >= 300);
    let (answer, ()) = tokio::join!(world.get(RECORDS, "from=end&wait_ms=20000"), async {
        env.sleep(std::time::Duration::from_millis(200)).await;
        world.append(1..2).await;
    });
    assert_eq!(offsets(&answer), [1]);
    // A poll never outlasts its invocation.
    let deadline = Deadline::after_ms(env.clone(), 1_000);
    let (method, path) = ("GET".to_owned(), RECORDS.to_owned());
    let query = "from=end&wait_ms=20000".to_owned();
    let (headers, empty) = (BTreeMap::new(), bytes::Bytes::new());
    let began = env.monotonic();
    let answer = world.fetch.handle(Request { method, path, query, headers, body: empty, deadline }).await;
    assert_eq!(answer.status, 200);
    assert!((env.monotonic() - began).as_millis() < 1_000);
}

#[tokio::test]
async fn accept_decides_the_form() {
    let world = World::new(1).await;
    for (accept, wanted) in [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/html, */*;q=0.1", "application/json"),
        ("application/x-ndjson;q=0.9, application/json;q=0.2", "application/x-ndjson"),
        ("application/json;q=0, */*", "application/x-ndjson"),
        ("APPLICATION/X-NDJSON", "application/x-ndjson"),
        ("application/vnd.apache.parquet", "application/vnd.apache.parquet"),
    ] {
        assert_eq!(world.get_as("", accept).await.get("content-type"), Some(wanted), "{accept}");
    }
    for accept in ["text/html", "application/json;q=0", "*/*;q=0", "application/json;q=nan", ";;,"] {
        let answer = world.get_as("", accept).await;
        assert_eq!(
            (answer.status, body(&answer)["error"]["field"].as_str()),
            (406, Some("accept")),
            "{accept}"
        );
    }
}

#[tokio::test]
async fn topics_are_listed_by_page() {
    let world = World::new(3).await;
    for name in ["a", "b", "c"] {
        world.log.admin().create_topic(name, 1, &[]).await.unwrap();
    }
    let (mut after, mut found) = (String::new(), Vec::new());
    loop {
        let page = body(&world.get("/v1/topics", &format!("limit=2&after={after}")).await);
        found.extend(page["topics"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        after = next.to_owned();
    }
    assert_eq!(found, ["a", "b", "c", "logs"]);
    let topic = body(&world.get("/v1/topics/logs", "").await);
    let wanted = json!([{"partition": 0, "log_start": 0, "high_watermark": 3}, {"partition": 1, "log_start": 0, "high_watermark": 0}]);
    assert_eq!((&topic["name"], &topic["partitions"]), (&json!("logs"), &wanted));
}

#[tokio::test]
async fn groups_store_and_forget() {
    let world = World::new(10).await;
    let at = "/v1/groups/my%20group/topics/logs/offsets";
    const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
    let put = |text: &'static str| world.ask("PUT", at, "", &JSON, text);
    assert_eq!(
        put(r#"{"offsets":[{"partition":0,"offset":4},{"partition":1,"offset":0}]}"#).await.status,
        204
    );
    let group = body(&world.get("/v1/groups/my%20group", "").await);
    assert_eq!(group["group"], "my group");
    let lag = json!({"topic": "logs", "partition": 0, "offset": 4, "high_watermark": 10, "lag": 6});
    assert_eq!((&group["offsets"][0], group["offsets"].as_array().unwrap().len()), (&lag, 2));
    assert_eq!(body(&world.get("/v1/groups", "").await), json!({"groups": ["my group"], "next": null}));
    assert_eq!(world.ask("DELETE", at, "partition=0", &[], "").await.status, 204);
    assert_eq!(body(&world.get("/v1/groups/my%20group", "topic=logs").await)["offsets"][0]["partition"], 1);
    assert_eq!(world.ask("DELETE", "/v1/groups/my%20group", "", &[], "").await.status, 204);
    assert_eq!(world.get("/v1/groups/my%20group", "").await.status, 404);
    assert_eq!(world.ask("DELETE", at, "", &[], "").await.status, 404);
    for (text, status) in [
        ("", 400),
        ("[]", 400),
        ("{}", 400),
        (r#"{"offsets":[{"partition":0}]}"#, 400),
        (r#"{"offsets":[{"partition":0,"offset":-1}]}"#, 400),
        (r#"{"offsets":[{"partition":0,"offset":1.5}]}"#, 400),
        (r#"{"offsets":[{"partition":0,"offset":9223372036854775808}]}"#, 400),
        (r#"{"offsets":[{"partition":2,"offset":0}]}"#, 400),
        (r#"{"offsets":[{"partition":0,"offset":0},{"partition":0,"offset":1}]}"#, 400),
        (r#"{"offsets":[],"x":1}"#, 400),
        (r#"{"offsets":[]}"#, 204),
    ] {
        let answer = put(text).await;
        assert_eq!(answer.status, status, "{text}: {answer:?}");
    }
    assert_eq!(world.ask("PUT", at, "", &[], "{}").await.status, 415);
    let long = format!("/v1/groups/{}/topics/logs/offsets", "g".repeat(256));
    for offsets in [r#"{"offsets":[{"partition":0,"offset":0}]}"#, r#"{"offsets":[]}"#] {
        let answer = world.ask("PUT", &long, "", &JSON, offsets).await;
        assert_eq!((answer.status, body(&answer)["error"]["limit"].as_u64()), (400, Some(255)));
    }
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let world = World::new(1).await;
    for (method, path, query, status, field) in [
        ("GET", "/v1/topics/nothing", "", 404, "topic"),
        ("GET", "/v1/topics/nothing/partitions/0/records", "", 404, "topic"),
        ("GET", "/v1/topics/logs/partitions/2/records", "", 400, "partition"),
        ("GET", "/v1/topics/logs/partitions/x/records", "", 400, "partition"),
        ("GET", "/v1/topics/logs/partitions/-1/records", "", 400, "partition"),
        ("GET", "/v1/topics/logs/partitions/4294967296/records", "", 400, "partition"),
        ("GET", RECORDS, "from=yesterday", 400, "from"),
        ("GET", RECORDS, "from=-1", 400, "from"),
        ("GET", RECORDS, "from=99999999999999999999", 400, "from"),
        ("GET", RECORDS, "max_bytes=0", 400, "max_bytes"),
        ("GET", RECORDS, "max_bytes=99999999", 400, "max_bytes"),
        ("GET", RECORDS, "max_records=0", 400, "max_records"),
        ("GET", RECORDS, "wait_ms=20001", 400, "wait_ms"),
        ("GET", RECORDS, "offset=1", 400, "query"),
        ("GET", "/v1/topics", "limit=0", 400, "limit"),
        ("GET", "/v1/topics/logs", "x", 400, "query"),
        ("GET", "/v1/groups/nobody", "", 404, "group"),
        ("DELETE", "/v1/groups/nobody", "", 404, "group"),
        ("POST", "/v1/topics", "", 405, ""),
        ("DELETE", RECORDS, "", 405, ""),
        ("POST", "/v1/groups/g", "", 405, ""),
        ("GET", "/v1/groups/g/topics/logs/offsets", "", 405, ""),
        ("GET", "/v2", "", 404, ""),
    ] {
        let answer = world.ask(method, path, query, &[], "").await;
        let error = &body(&answer)["error"];
        assert_eq!(
            (answer.status, error["field"].as_str().unwrap_or_default()),
            (status, field),
            "{method} {path}?{query}"
        );
        assert_eq!(answer.get("allow").is_some(), status == 405);
    }
}
