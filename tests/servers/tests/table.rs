//! DynamoDB Local: the contract of a table, making one, and a log on it.
//!
//! Ignored unless asked for, since they need Java and npm: `./test dynamodb`.

use std::sync::Arc;

use tidelog_core::env::SystemEnv;
use tidelog_core::ledger::Settings;
use tidelog_core::objects::Objects;
use tidelog_core::store::aws::Access;
use tidelog_core::store::{Place, S3Url, Store, StoreUrl};
use tidelog_core::table::{DynamoTable, Item, Put, SharedTable, Table, contract};
use tidelog_core::{Error, Log, Position, Record};
use tidelog_servers::{KEY_ID, REGION, SECRET, Server, dynamodb};

fn url(server: &Server, table: &str) -> S3Url {
    S3Url {
        bucket: "bucket".to_owned(),
        table: table.to_owned(),
        region: Some(REGION.to_owned()),
        endpoint_dynamodb: Some(server.url()),
        ..S3Url::default()
    }
}

fn table(server: &Server, name: &str) -> DynamoTable {
    Access::with_keys(&url(server, name), KEY_ID, SECRET, SystemEnv::shared()).unwrap().table()
}

/// A log on this table, with objects in memory.
fn store(server: &Server, name: &str, objects: &Objects) -> Store {
    let url = StoreUrl { place: Place::S3(url(server, name)), era: 0 };
    Store { table: Arc::new(table(server, name)), objects: objects.clone(), url }
}

async fn open(store: Store, begin: bool) -> tidelog_core::Result<Log> {
    Log::with_store(store, SystemEnv::shared(), begin, Settings::default()).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs DynamoDB Local: ./test dynamodb"]
async fn keeps_the_contract() {
    let server = dynamodb(None).unwrap();
    let (a, b) = (table(&server, "log"), table(&server, "log"));
    a.create().await.unwrap();
    let (a, b): (SharedTable, SharedTable) = (Arc::new(a), Arc::new(b));
    contract::check(&a, &b).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs DynamoDB Local: ./test dynamodb"]
async fn a_table_is_made_once_and_says_what_it_lacks() {
    let server = dynamodb(None).unwrap();
    let table = table(&server, "log");
    let lacks = table.create().await.unwrap();
    // Whatever the emulator cannot do has a name; what it can is there.
    assert!(!lacks.contains(&"stream (NEW_IMAGE)"), "{lacks:?}");
    assert_eq!(table.create().await.unwrap(), lacks);
    println!("DynamoDB Local lacks: {lacks:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs DynamoDB Local: ./test dynamodb"]
async fn what_was_answered_survives_a_kill() {
    let folder = std::env::temp_dir().join(format!("tidelog-dynamodb-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let server = dynamodb(Some(&folder)).unwrap();
    let first = table(&server, "log");
    first.create().await.unwrap();
    let item = |sk| Item { sk, id: 7, time_ms: 1, body: None, hint: "Append".to_owned() };
    for sk in 1..=20 {
        assert_eq!(first.put_if_absent("p", &item(sk)).await.unwrap().value, Put::Stored);
    }
    drop(server);
    let server = dynamodb(Some(&folder)).unwrap();
    let second = table(&server, "log");
    for sk in 1..=20 {
        assert_eq!(second.put_if_absent("p", &item(sk)).await.unwrap().value, Put::Exists(item(sk)));
    }
    drop(server);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs DynamoDB Local: ./test dynamodb"]
async fn a_log_end_to_end() {
    let server = dynamodb(None).unwrap();
    let objects = Objects::memory(SystemEnv::shared());
    table(&server, "log").create().await.unwrap();
    let log = open(store(&server, "log", &objects), true).await.unwrap();
    log.admin().create_topic("t", 3, &[]).await.unwrap();
    let producer = log.producer().linger_ms(2).build().unwrap();
    let mut under_way = Vec::new();
    for n in 0..1_000u32 {
        let record = Record::keyed(format!("k{}", n % 7), format!("{n} {}", "x".repeat(n as usize % 300)));
        under_way.push((n, producer.enqueue("t", None, record, None).await.unwrap()));
    }
    let mut acks = std::collections::BTreeMap::new();
    for (n, delivery) in under_way {
        let ack = delivery.wait().await.unwrap();
        assert_eq!(acks.insert((ack.partition, ack.offset.unwrap()), n), None, "one record an offset");
    }
    producer.close().await.unwrap();

    // Another process's worth of caches: a cold start.
    let again = open(store(&server, "log", &objects), false).await.unwrap();
    let mut consumer = again.consumer("t").from(Position::Start).until(Position::End).build().await.unwrap();
    let mut read = std::collections::BTreeMap::new();
    while let Some(message) = consumer.next_message().await {
        let message = message.unwrap();
        let text = String::from_utf8(message.record.value.unwrap().to_vec()).unwrap();
        let n: u32 = text.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(read.insert((message.partition, message.record.offset), n), None);
    }
    assert_eq!(read, acks);
    let report = tidelog_core::verify::verify(&store(&server, "log", &objects), |_, _| {}).await;
    assert!(report.is_ok(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs DynamoDB Local: ./test dynamodb"]
#[allow(clippy::disallowed_methods, reason = "how long a person waits")]
async fn what_is_missing_or_foreign_is_said_at_once() {
    let server = dynamodb(None).unwrap();
    let objects = Objects::memory(SystemEnv::shared());
    let began = std::time::Instant::now();

    let error = open(store(&server, "absent", &objects), true).await.unwrap_err();
    assert!(matches!(&error, Error::CannotOpen { .. }), "{error:?}");
    assert!(error.to_string().contains("absent") && error.to_string().contains("tidelog init"), "{error}");

    // A restored copy has another name than the one in slot 1 (R10).
    let (one, copy) = (table(&server, "log"), table(&server, "copy"));
    one.create().await.unwrap();
    copy.create().await.unwrap();
    let error = open(store(&server, "log", &objects), false).await.unwrap_err();
    assert!(error.to_string().contains("tidelog init"), "{error}");
    open(store(&server, "log", &objects), true).await.unwrap();
    let pk = "0000/0000";
    let page = one.range(pk, 1, 10, tidelog_core::table::Consistency::Strong).await.unwrap().value;
    for item in &page.items {
        copy.put_if_absent(pk, item).await.unwrap();
    }
    let error = open(store(&server, "copy", &objects), true).await.unwrap_err();
    assert!(matches!(&error, Error::StoreRefused { what } if what.contains("\"log\"")), "{error}");

    // An era that nobody began.
    let mut other = store(&server, "log", &objects);
    other.url.era = 9;
    let error = open(other, false).await.unwrap_err();
    assert!(error.to_string().contains("era=9"), "{error}");

    let waited = began.elapsed();
    assert!(waited < std::time::Duration::from_secs(30), "{waited:?}");
}
