//! The adapter against a server that plays a script: what is asked, how often, and what each answer is taken for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::env::SystemEnv;
use crate::store::{S3Url, aws::Access};
use crate::table::SK_MAX;

/// One answer.
#[derive(Debug, Clone)]
enum Reply {
    Json(u16, Value),
    /// These bytes, and the end of the connection.
    Raw(String),
    Reset,
    Hang,
}

fn error(code: &str) -> Value {
    json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": "in words" })
}

fn told(status: u16, code: &str) -> Reply {
    Reply::Json(status, error(code))
}

/// A server, and what it was asked: operation and body.
struct Script {
    table: DynamoTable,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Script {
    async fn play(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let table = table_at(&format!("http://{}", listener.local_addr().unwrap()));
        let replies = Arc::new(Mutex::new(replies.into_iter().collect::<VecDeque<_>>()));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let notes = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, replies.clone(), notes.clone()));
            }
        });
        Self { table, asked }
    }

    fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().unwrap().clone()
    }
}

fn table_at(endpoint: &str) -> DynamoTable {
    let url = S3Url {
        bucket: "bucket".to_owned(),
        table: "log".to_owned(),
        region: Some("us-east-1".to_owned()),
        endpoint: Some(endpoint.to_owned()),
        ..S3Url::default()
    };
    Access::with_keys(&url, "test", "test", SystemEnv::shared()).unwrap().table()
}

async fn converse(
    mut stream: TcpStream,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    notes: Arc<Mutex<Vec<(String, Value)>>>,
) {
    while let Some((operation, body)) = request(&mut stream).await {
        notes.lock().unwrap().push((operation, body));
        let reply = replies.lock().unwrap().pop_front().expect("a request more than the script has");
        match reply {
            Reply::Json(status, body) => {
                let body = body.to_string();
                let head = format!(
                    "HTTP/1.1 {status} X\r\nContent-Type: application/x-amz-json-1.0\r\n\
                     Date: Fri, 02 Jan 1970 00:00:00 GMT\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all((head + &body).as_bytes()).await.unwrap();
            }
            Reply::Raw(bytes) => {
                stream.write_all(bytes.as_bytes()).await.unwrap();
                return;
            }
            Reply::Reset => return,
            Reply::Hang => std::future::pending().await,
        }
    }
}

async fn request(stream: &mut TcpStream) -> Option<(String, Value)> {
    let mut bytes = Vec::new();
    loop {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let header = |name: &str| {
                head.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap_or_default()
            };
            let length: usize = header("content-length").parse().unwrap();
            if bytes.len() >= end + 4 + length {
                let operation = header("x-amz-target").rsplit('.').next().unwrap().to_owned();
                return Some((operation, serde_json::from_slice(&bytes[end + 4..]).unwrap()));
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

fn item(sk: u64) -> Item {
    let body = Some(Bytes::from_static(b"body"));
    Item { sk, id: u128::from(sk), time_ms: 5, body, hint: "Append".to_owned() }
}

/// The item in DynamoDB's JSON.
fn wire(sk: u64) -> Value {
    json!({
        "pk": { "S": "p" }, "sk": { "N": sk.to_string() }, "time_ms": { "N": "5" }, "hint": { "S": "Append" },
        "id": { "B": format!("AAAAAAAAAAAAAAAAAAAA{}==", ["AA", "AQ", "Ag", "Aw"][sk as usize]) },
        "body": { "B": "Ym9keQ==" },
    })
}

fn kind<T: std::fmt::Debug>(answer: &TableResult<T>) -> &'static str {
    match answer {
        Ok(_) => "answered",
        Err(TableError::Refused(_)) => "refused",
        Err(TableError::Throttled(_)) => "throttled",
        Err(TableError::NoAnswer(_)) => "no answer",
        Err(TableError::Damaged(_)) => "damaged",
    }
}

#[tokio::test]
async fn a_put_asks_for_what_the_law_needs() {
    let script = Script::play([Reply::Json(200, json!({}))]).await;
    let answer = script.table.put_if_absent("p", &item(3)).await.unwrap();
    assert_eq!(answer.value, Put::Stored);
    // `Date` says a second; one's own clock is far from it.
    assert_eq!(answer.store_time_ms, Some(24 * 3_600_000 + 999));
    let asked = script.asked();
    let [(operation, body)] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(operation, "putitem");
    assert_eq!(body["ConditionExpression"], "attribute_not_exists(pk)");
    assert_eq!(body["ReturnValuesOnConditionCheckFailure"], "ALL_OLD");
    assert_eq!(body["Item"], wire(3));
}

#[tokio::test]
async fn a_taken_key_is_answered_with_what_is_there() {
    let taken = |item: Value| {
        let mut body = error("ConditionalCheckFailedException");
        body["Item"] = item;
        Reply::Json(400, body)
    };
    let mut other = wire(3);
    other["id"] = json!({ "S": "x" });
    let script = Script::play([
        taken(wire(3)),
        taken(wire(2)),
        taken(other),
        told(400, "ConditionalCheckFailedException"),
        told(500, "ConditionalCheckFailedException"),
    ])
    .await;
    let put = async || script.table.put_if_absent("p", &item(3)).await;
    assert_eq!(put().await.unwrap().value, Put::Exists(item(3)));
    // Another slot, a damaged item, nothing: no verdict.
    for expected in ["attribute sk is 2", "attribute id is a string", "ReturnValuesOn", "Conditional"] {
        let error = put().await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// Each way in which a write may fail, what it is taken for, and that it was sent once.
#[tokio::test]
async fn a_write_is_one_attempt_and_its_failure_is_never_more_than_it_proves() {
    let raw = |text: &str| Reply::Raw(text.to_owned());
    let crc = "HTTP/1.1 200 OK\r\nx-amz-crc32: 1\r\nContent-Length: 2\r\n\r\n{}";
    for (reply, expected) in [
        (told(500, "InternalServerError"), "no answer"),
        (told(503, "ThrottlingException"), "no answer"),
        (told(400, "ThrottlingException"), "throttled"),
        (told(400, "ProvisionedThroughputExceededException"), "throttled"),
        (told(400, "RequestLimitExceeded"), "throttled"),
        (told(400, "ValidationException"), "refused"),
        (told(400, "AccessDeniedException"), "refused"),
        (told(400, "ResourceNotFoundException"), "refused"),
        (told(400, "SomethingNew"), "no answer"),
        (Reply::Json(403, json!("not an object")), "no answer"),
        (raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nnot j"), "no answer"),
        (raw("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}"), "no answer"),
        (raw("HTTP/1.1 200 OK\r\nContent-Length: 4194305\r\n\r\n{}"), "no answer"),
        (raw("SSH-2.0-OpenSSH\r\n"), "no answer"),
        (raw(crc), "no answer"),
        (Reply::Reset, "no answer"),
        (Reply::Hang, "no answer"),
    ] {
        let script = Script::play([reply.clone()]).await;
        let answer = script.table.put_if_absent("p", &item(3)).await;
        assert_eq!(kind(&answer), expected, "{reply:?}: {answer:?}");
        assert_eq!(script.asked().len(), 1, "{reply:?}");
    }
    // Nobody listens on a port that was just let go: no byte was sent.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let answer = table_at(&format!("http://{port}")).put_if_absent("p", &item(3)).await;
    assert_eq!(kind(&answer), "throttled", "{answer:?}");
}

#[tokio::test]
async fn conditions_that_fail_are_answers() {
    let failed = || told(400, "ConditionalCheckFailedException");
    let fine = || Reply::Json(200, json!({}));
    let script = Script::play([fine(), failed(), fine(), failed(), told(500, "X"), told(500, "X")]).await;
    let table = &script.table;
    assert!(table.replace_if("p", &item(3), 7).await.unwrap().value);
    assert!(!table.replace_if("p", &item(3), 7).await.unwrap().value);
    assert!(table.delete_if("p", 3, 7).await.unwrap().value);
    assert!(!table.delete_if("p", 3, 7).await.unwrap().value);
    assert_eq!(kind(&table.replace_if("p", &item(3), 7).await), "no answer");
    assert_eq!(kind(&table.delete_if("p", 3, 7).await), "no answer");
    for (_, body) in script.asked() {
        assert_eq!(body["ConditionExpression"], "#id = :expect");
        assert_eq!(body["ExpressionAttributeValues"][":expect"]["B"], "AAAAAAAAAAAAAAAAAAAABw==");
    }
}

#[tokio::test]
async fn reads_are_repeated_within_their_bound() {
    let fine = Reply::Json(200, json!({ "Item": wire(1) }));
    let script = Script::play([told(500, "X"), told(400, "ThrottlingException"), fine]).await;
    let read = script.table.get("p", 1, Consistency::Strong).await.unwrap();
    assert_eq!((read.value, script.asked().len()), (Some(item(1)), 3));
    let script = Script::play([told(500, "X"), Reply::Reset, told(503, "X")]).await;
    assert_eq!(kind(&script.table.newest("p", SK_MAX, Consistency::Strong).await), "no answer");
    assert_eq!(script.asked().len(), 3);
    // What will never do is asked once, and says what can be done.
    let script = Script::play([told(400, "ResourceNotFoundException")]).await;
    let error = script.table.range("p", 1, 5, Consistency::Strong).await.unwrap_err().to_string();
    assert!(error.contains("table log in us-east-1") && error.contains("tidelog init"), "{error}");
    assert_eq!(script.asked().len(), 1);
}

#[tokio::test]
async fn hostile_pages_are_damage() {
    let last = json!({ "pk": { "S": "p" }, "sk": { "N": "1" } });
    let page = |items: Value| Reply::Json(200, json!({ "Items": items, "LastEvaluatedKey": last }));
    for (items, what) in [
        (json!([wire(2), wire(1)]), "ascending"),
        (json!([wire(2), wire(2)]), "ascending"),
        (json!([wire(0), wire(2)]), "from 1"),
        (json!([wire(1), wire(2), wire(3)]), "range of 2"),
        (json!([{}]), "attribute pk is absent"),
    ] {
        let script = Script::play([page(items)]).await;
        let answer = script.table.range("p", 1, 2, Consistency::Strong).await;
        assert!(matches!(&answer, Err(TableError::Damaged(words)) if words.contains(what)), "{answer:?}");
    }
    let script = Script::play(vec![page(json!([])); limits::TABLE_EMPTY_PAGES_MAX]).await;
    assert_eq!(kind(&script.table.range("p", 1, 2, Consistency::Strong).await), "damaged");
}

/// What the planted bugs of this adapter break, each with its check.
mod planted {
    use super::*;

    async fn pages_are_followed() -> Result<(), String> {
        let last = json!({ "pk": { "S": "p" }, "sk": { "N": "1" } });
        let empty = Reply::Json(200, json!({ "Items": [], "LastEvaluatedKey": last }));
        let first = Reply::Json(200, json!({ "Items": [wire(1)], "LastEvaluatedKey": last }));
        let second = Reply::Json(200, json!({ "Items": [wire(2)] }));
        let script = Script::play([empty, first, second]).await;
        let (mut items, mut from) = (Vec::new(), 1);
        loop {
            let page = script.table.range("p", from, 5, Consistency::Strong).await.unwrap().value;
            from = page.items.last().map_or(from, |item| item.sk + 1);
            items.extend(page.items);
            if !page.more {
                break;
            }
        }
        if items == [item(1), item(2)] { Ok(()) } else { Err(format!("{} items of 2", items.len())) }
    }

    /// The first try was stored and not answered; a second would be throttled.
    async fn a_throttle_proves_nothing_of_an_earlier_try() -> Result<(), String> {
        let script = Script::play([told(500, "InternalServerError"), told(400, "ThrottlingException")]).await;
        match script.table.put_if_absent("p", &item(3)).await {
            Err(TableError::NoAnswer(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    async fn reads_are_as_fresh_as_asked() -> Result<(), String> {
        let script = Script::play(vec![Reply::Json(200, json!({})); 6]).await;
        for consistency in [Consistency::Strong, Consistency::Eventual] {
            script.table.get("p", 1, consistency).await.unwrap();
            script.table.newest("p", SK_MAX, consistency).await.unwrap();
            script.table.range("p", 1, 2, consistency).await.unwrap();
        }
        let fresh: Vec<_> = script.asked().iter().map(|(_, body)| body["ConsistentRead"] == true).collect();
        if fresh == [true, true, true, false, false, false] { Ok(()) } else { Err(format!("{fresh:?}")) }
    }

    async fn check(bug: Bug) -> Result<(), String> {
        match bug {
            Bug::FirstPageTakenForAll => pages_are_followed().await,
            Bug::ThrottleTakenForNotApplied => a_throttle_proves_nothing_of_an_earlier_try().await,
            Bug::EventualReadTakenForHead => reads_are_as_fresh_as_asked().await,
            other => panic!("{other:?} is not this adapter's"),
        }
    }

    #[tokio::test]
    async fn the_adapter_holds() {
        for bug in Bug::ADAPTER {
            check(bug).await.unwrap();
        }
    }

    #[cfg(feature = "planted-bugs")]
    #[tokio::test]
    async fn each_planted_bug_is_noticed() {
        for bug in Bug::ADAPTER {
            plant::set(Some(bug));
            let noticed = check(bug).await;
            plant::set(None);
            noticed.expect_err(&format!("{bug:?} was not noticed"));
        }
    }
}
