//! A whole log on S3, its table in memory, through the proxy.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use tidelog_core::env::SystemEnv;
use tidelog_core::ledger::Settings;
use tidelog_core::store::Store;
use tidelog_core::table::MemoryTable;
use tidelog_core::{Error, Log, Position, Record};
use tidelog_proxy::{Fault, Proxy, Rule};

use super::*;

const RECORDS: usize = 200;

async fn log(endpoint: &str) -> Log {
    let url = format!("s3://{BUCKET}/some/log?table=unused&region=us-east-1&endpoint={endpoint}");
    let store =
        Store { table: Arc::new(MemoryTable::new()), objects: objects(endpoint), url: url.parse().unwrap() };
    Log::with_store(store, SystemEnv::shared(), true, Settings::default()).await.unwrap()
}

async fn write(log: &Log, partitions: u32) {
    log.admin().create_topic("logs", partitions, &[]).await.unwrap();
    let producer = log.producer().inline_bytes_max(0).build().unwrap();
    for round in 0..4 {
        let sends = (0..RECORDS / 4).map(|at| {
            let value = format!("record {round} {at} {}", "x".repeat(300));
            producer.send("logs", Record::keyed(format!("key-{at}"), value))
        });
        for ack in futures::future::join_all(sends).await {
            ack.unwrap();
        }
    }
}

async fn read(log: &Log) -> Result<usize, Error> {
    let mut consumer = log.consumer("logs").from(Position::Start).until(Position::End).build().await?;
    let mut count = 0;
    while let Some(message) = consumer.next_message().await {
        message?;
        count += 1;
    }
    Ok(count)
}

#[tokio::test]
async fn a_flipped_bit_is_read_again_and_never_served() {
    let server = Server::start(BUCKET, 1).await.unwrap();
    let proxy = Proxy::start(address(&server.endpoint()), 3).await.unwrap();
    let log = log(&proxy.endpoint()).await;
    // All of a segment is asked for at once, so that a bit that is turned over is one of those.
    write(&log, 1).await;
    proxy.add_rule(Rule::once("GET", "l0/", Fault::FlipAnswer));
    assert_eq!(read(&log).await.unwrap(), RECORDS);
    proxy.clear_rules();
    // Where it lies: that is an alarm, and no record. (On the way, a footer is kept from one answer, and rows from the next.)
    let store = log.store().objects.store();
    let segments: Vec<_> = store.list(Some(&"l0".into())).try_collect().await.unwrap();
    assert!(!segments.is_empty());
    for segment in segments {
        let mut bytes = store.get(&segment.location).await.unwrap().bytes().await.unwrap().to_vec();
        bytes[100] ^= 1;
        store.put(&segment.location, bytes.into()).await.unwrap();
    }
    let read = read(&log).await;
    assert!(matches!(read, Err(Error::Damaged { .. })), "{read:?}");
}

#[tokio::test]
async fn a_log_survives_a_store_that_is_busy_and_loses_answers() {
    let server = Server::start(BUCKET, 1).await.unwrap();
    let proxy = Proxy::start(address(&server.endpoint()), 4).await.unwrap();
    let log = log(&proxy.endpoint()).await;
    for (method, rate, fault) in [
        ("PUT", 0.3, Fault::DropAnswer),
        ("PUT", 0.3, Fault::Answer(409, "ConditionalRequestConflict".to_owned())),
        ("", 0.1, Fault::Answer(503, "SlowDown".to_owned())),
        ("GET", 0.2, Fault::Cut),
    ] {
        proxy.add_rule(Rule::once(method, "l0/", fault).rate(rate));
    }
    write(&log, 2).await;
    assert_eq!(read(&log).await.unwrap(), RECORDS);
}

/// What a rewrite makes is sent in parts: one that is refused is sent again, and the whole is completed on condition.
#[tokio::test]
async fn a_rewrite_is_uploaded_in_parts_and_completed_on_condition() {
    use tidelog_core::upkeep::UpkeepSettings;
    use tidelog_s3server::{Fault, Rule, Verb, When};
    let server = Server::start(BUCKET, 5).await.unwrap();
    let log = log(&server.endpoint()).await;
    let plain = [("compression.type".to_owned(), "none".to_owned())];
    log.admin().create_topic("logs", 1, &plain).await.unwrap();
    let upkeep = log.upkeep(UpkeepSettings { part_bytes: 5 << 20, ..UpkeepSettings::default() });
    for megabytes in [6, 12] {
        let producer = log.producer().build().unwrap();
        for _ in 0..megabytes {
            producer.enqueue("logs", None, Record::value(vec![b'x'; 1_000_000]), None).await.unwrap();
        }
        producer.close().await.unwrap();
        upkeep.merge(true, |_, _| {}).await.unwrap();
    }
    let before = server.log().len();
    // The first is the upload's beginning.
    server.add_rule(Rule {
        verb: Some(Verb::Put),
        key: "topics/".to_owned(),
        when: When::Numbers(2..=2),
        fault: Fault::Conflict,
    });
    assert_eq!(upkeep.rewrite(true, |_| {}).await.unwrap().objects, 1);
    let requests: Vec<_> = server.log().into_iter().skip(before).collect();
    let of = |method: &str, part: &str| {
        let found = requests.iter().filter(|one| one.method == method && one.target.contains(part));
        found.map(|one| (one.status, one.conditional)).collect::<Vec<_>>()
    };
    let (refused, sent) = ((409, false), (200, false));
    assert_eq!(
        (
            of("POST", "uploads"),
            of("PUT", "partNumber=1&"),
            of("PUT", "partNumber=4&"),
            of("POST", "uploadId=")
        ),
        (vec![sent], vec![refused, sent], vec![sent], vec![(200, true)]),
        "begun once, a part sent again, completed on condition"
    );
    let first = requests.iter().position(|one| one.method == "PUT").unwrap();
    let end = requests.iter().position(|one| one.method == "POST" && one.conditional).unwrap();
    let reads = requests[first..end].iter().filter(|one| one.method == "GET").count();
    assert_eq!(reads, 1, "a part goes before the last row group is read");
    assert_eq!(read(&log).await.unwrap(), 18);
}
