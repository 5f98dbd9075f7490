//! The shipped log on SeaweedFS and DynamoDB Local, through fault proxies: answers that are lost after the write landed, all
//! other weather at once, kills, endpoints that hang, die and come back, objects altered behind its back.
//!
//! Ignored unless asked for, since it needs Java, npm and PyPI: `./test aws`.
#![allow(clippy::disallowed_methods, reason = "real servers, real time")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;
use object_store::ObjectStoreExt;
use tidelog_core::env::SystemEnv;
use tidelog_core::ledger::Settings;
use tidelog_core::store::aws::Access;
use tidelog_core::store::{Place, Store, StoreUrl};
use tidelog_core::{Error, Log, Position, Record};
use tidelog_proxy::{Entry, Proxy, repeated_without_look};
use tidelog_servers::{KEY_ID, REGION, SECRET, Server, dynamodb, seaweedfs};

type Places = BTreeMap<String, (u32, u64)>;

struct World {
    servers: [Server; 2],
    /// Before the table and the bucket.
    proxies: [Proxy; 2],
}

fn address(server: &Server) -> SocketAddr {
    server.url().strip_prefix("http://").unwrap().parse().unwrap()
}

impl World {
    /// Servers, with the log made and a topic `t` of three partitions.
    async fn start() -> Self {
        let servers = [dynamodb(None).unwrap(), seaweedfs().unwrap()];
        let proxies = [
            Proxy::start(address(&servers[0]), 1).await.unwrap(),
            Proxy::start(address(&servers[1]), 2).await.unwrap(),
        ];
        let world = Self { servers, proxies };
        world.access(&world.direct()).create().await.unwrap();
        world.log(&world.direct(), true).await.admin().create_topic("t", 3, &[]).await.unwrap();
        world
    }

    fn url(table: &str, bucket: &str) -> String {
        let endpoints = format!("endpoint_dynamodb={table}&endpoint_s3={bucket}");
        format!("s3://tidelog-weather/log?table=log&region={REGION}&{endpoints}")
    }

    fn direct(&self) -> String {
        Self::url(&self.servers[0].url(), &self.servers[1].url())
    }

    fn through(&self) -> String {
        Self::url(&self.proxies[0].endpoint(), &self.proxies[1].endpoint())
    }

    fn access(&self, text: &str) -> Access {
        let url: StoreUrl = text.parse().unwrap();
        let Place::S3(place) = &url.place else { panic!("{text} is not on AWS") };
        Access::with_keys(place, KEY_ID, SECRET, SystemEnv::shared()).unwrap()
    }

    fn store(&self, text: &str) -> Store {
        let access = self.access(text);
        let objects = access.objects().unwrap();
        Store { table: Arc::new(access.table()), objects, url: text.parse().unwrap() }
    }

    /// Without strip, whose conditional writes are others than a commit's.
    async fn log(&self, text: &str, create: bool) -> Log {
        let settings = Settings { strip: false, ..Settings::default() };
        Log::with_store(self.store(text), SystemEnv::shared(), create, settings).await.unwrap()
    }

    fn weather(&self, rules: [&[&str]; 2]) {
        for (proxy, rules) in self.proxies.iter().zip(rules) {
            rules.iter().for_each(|rule| proxy.add_rule(rule.parse().unwrap()));
        }
    }

    /// All that a cold reader finds, past the proxies; no value is there twice.
    async fn found(&self) -> Places {
        let log = self.log(&self.direct(), false).await;
        let mut consumer = log.consumer("t").until(Position::End).build().await.unwrap();
        let mut found = Places::new();
        while let Some(message) = consumer.next_message().await {
            let message = message.unwrap();
            let value = String::from_utf8(message.record.value.unwrap().to_vec()).unwrap();
            let name = value.split(' ').next().unwrap().to_owned();
            let before = found.insert(name, (message.partition, message.record.offset));
            assert_eq!(before, None, "a record is there twice");
        }
        let report = tidelog_core::verify::verify(&self.store(&self.direct()), |_, _| {}).await.unwrap();
        assert_eq!(report.damage, []);
        found
    }

    /// Sends `count` records by each of `senders`, one after the other; every third is too large to ride inline.
    async fn send(&self, log: &Log, senders: u64, count: u64, idempotent: bool) -> Places {
        let send = |sender: u64| async move {
            let producer = log.producer().linger_ms(0).idempotent(idempotent).build().unwrap();
            let mut acked = Places::new();
            for n in 0..count {
                let padding = if n % 3 == 0 { 6_000 } else { 10 };
                let record = Record::value(format!("{sender}:{n} {}", "x".repeat(padding)));
                let ack = producer.send("t", record).await.unwrap();
                acked.insert(format!("{sender}:{n}"), (ack.partition, ack.offset.unwrap()));
            }
            producer.close().await.unwrap();
            acked
        };
        join_all((0..senders).map(send)).await.into_iter().flatten().collect()
    }
}

/// What a conditional write, or a look, is about: an object's name, or a slot.
fn about(entry: &Entry) -> Option<String> {
    if entry.operation.is_none() {
        return Some(entry.target.split('?').next()?.to_owned());
    }
    // A tail read looks at every slot from one on; only a look at the slot itself counts here.
    let body = std::str::from_utf8(entry.body.as_ref()?).ok()?;
    let slot = body.split_once("\"sk\":{\"N\":\"")?.1.split('"').next()?;
    Some(slot.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs DynamoDB Local and SeaweedFS: ./test aws"]
async fn a_thousand_appends_whose_answers_are_lost_are_a_thousand_records() {
    let world = World::start().await;
    let log = world.log(&world.through(), false).await;
    world.weather([&["drop-answer operation=PutItem rate=0.15"], &["drop-answer method=PUT rate=0.15"]]);
    // Plain records, without an identity: nothing but the settling of puts keeps them single.
    let acked = world.send(&log, 5, 200, false).await;
    let lost: Vec<usize> = world
        .proxies
        .iter()
        .map(|proxy| proxy.log().iter().filter(|entry| entry.fault.is_some()).count())
        .collect();
    println!("{} acked, {lost:?} answers lost", acked.len());
    assert!(lost.iter().all(|lost| *lost >= 20), "{lost:?}: nothing was proved");
    for proxy in &world.proxies {
        let log = proxy.log();
        let blind = repeated_without_look(&log, about);
        assert!(blind.is_empty(), "repeated without a look: {blind:?}, of {:?}", log[blind[0].1]);
    }
    let found = world.found().await;
    assert_eq!((found.len(), found), (1_000, acked));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs DynamoDB Local and SeaweedFS: ./test aws"]
async fn in_all_weather_what_is_acked_is_there_once() {
    let world = World::start().await;
    let log = world.log(&world.through(), false).await;
    let throttle = "answer:400:ProvisionedThroughputExceededException rate=0.04";
    world.weather([
        &[
            "drop-answer rate=0.05",
            "reset rate=0.05",
            throttle,
            "answer:500:InternalServerError rate=0.03",
            "answer-after:500:InternalServerError operation=PutItem rate=0.03",
            "duplicate operation=PutItem rate=0.05",
            "flip-answer operation=Query rate=0.03",
            "cut rate=0.03",
            "delay:80 rate=0.05",
        ],
        &[
            "drop-answer rate=0.05",
            "reset rate=0.05",
            "answer:503:SlowDown rate=0.04",
            "answer:409:ConditionalRequestConflict method=PUT rate=0.05",
            "answer:500:InternalError rate=0.03",
            "answer-after:503:SlowDown method=PUT rate=0.03",
            "duplicate method=PUT rate=0.05",
            "cut method=GET rate=0.05",
            "short method=GET rate=0.05",
            "flip-answer method=GET rate=0.05",
            "flip-request method=PUT rate=0.03",
        ],
    ]);
    let acked = world.send(&log, 6, 60, true).await;
    // The same log reads through the weather, too.
    let mut consumer = log.consumer("t").until(Position::End).build().await.unwrap();
    let mut read = 0;
    while let Some(message) = consumer.next_message().await {
        match message {
            Ok(_) => read += 1,
            Err(error) => assert_eq!(error.kind(), tidelog_core::ErrorKind::Retry, "{error}"),
        }
    }
    let found = world.found().await;
    println!("{} acked, {read} read", acked.len());
    assert_eq!((read, found), (acked.len(), acked));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs DynamoDB Local and SeaweedFS: ./test aws"]
async fn killed_at_any_moment_on_a_bucket_and_a_table() {
    let kills: u64 = std::env::var("TIDELOG_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let acks = folder.path().join("acks");
    let start = |records: u64| {
        let mut worker = Command::new(env!("CARGO_BIN_EXE_tidelog-processes"));
        worker.args(["resume", &world.direct(), "t", "7", &records.to_string(), acks.to_str().unwrap()]);
        worker.env_remove("AWS_PROFILE").env_remove("AWS_SESSION_TOKEN").env_remove("AWS_ENDPOINT_URL");
        worker.env("AWS_ACCESS_KEY_ID", KEY_ID).env("AWS_SECRET_ACCESS_KEY", SECRET);
        worker.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let acked = || {
        let text = std::fs::read_to_string(&acks).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole).to_owned();
        let parse = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            (words[0].to_owned(), (words[1].parse().unwrap(), words[2].parse().unwrap()))
        };
        whole.lines().map(parse).collect::<Places>()
    };
    for kill in 0..kills {
        let mut victim = start(u64::MAX / 2);
        // From before the log is open to well into the stream.
        tokio::time::sleep(Duration::from_millis(60 + kill * 67 % 400)).await;
        victim.kill().unwrap();
        victim.wait().unwrap();
    }
    let output = start(acked().len() as u64 + 100).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (acked, found) = (acked(), world.found().await);
    println!("{kills} kills, {} acked, {} in the log", acked.len(), found.len());
    assert!(acked.len() as u64 > kills, "the victims got somewhere");
    for (value, place) in &acked {
        assert_eq!(found.get(value), Some(place), "acked {value}");
    }
    let mut sequences: Vec<u64> =
        found.keys().map(|value| value.split_once(':').unwrap().1.parse().unwrap()).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=found.len() as u64).collect::<Vec<_>>(), "none is missing");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs DynamoDB Local and SeaweedFS: ./test aws"]
async fn endpoints_that_hang_die_and_come_back_lose_nothing() {
    let mut world = World::start().await;
    let log = world.log(&world.through(), false).await;
    let mut acked = world.send(&log, 1, 6, true).await;
    for number in 0..2 {
        // It hangs: each request waits. Then everything lands at once.
        world.proxies[number].add_rule("hold".parse().unwrap());
        let producer = log.producer().linger_ms(0).idempotent(true).build().unwrap();
        let value = format!("hang-{number}:0 {}", "x".repeat(6_000));
        let sending = producer.send("t", Record::value(value));
        let released = async {
            world.proxies[number].held().await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            world.proxies[number].clear_rules();
            world.proxies[number].release();
        };
        let (ack, ()) = tokio::join!(sending, released);
        let ack = ack.unwrap();
        acked.insert(format!("hang-{number}:0"), (ack.partition, ack.offset.unwrap()));
        // It dies, connections and all, and comes back on the same port while a record waits.
        let (there, upstream): (SocketAddr, _) = (
            world.proxies[number].endpoint().strip_prefix("http://").unwrap().parse().unwrap(),
            address(&world.servers[number]),
        );
        let spare = Proxy::start(upstream, 9).await.unwrap();
        drop(std::mem::replace(&mut world.proxies[number], spare));
        let value = format!("dead-{number}:0 {}", "x".repeat(6_000));
        let sending = producer.send("t", Record::value(value));
        let revived = async {
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            for _ in 0..100 {
                match Proxy::listen(there, upstream, 3).await {
                    Ok(proxy) => return proxy,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
            panic!("the port is taken");
        };
        let (ack, proxy) = tokio::join!(sending, revived);
        world.proxies[number] = proxy;
        let ack = ack.unwrap();
        acked.insert(format!("dead-{number}:0"), (ack.partition, ack.offset.unwrap()));
        producer.close().await.unwrap();
    }
    assert_eq!(world.found().await, acked);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs DynamoDB Local and SeaweedFS: ./test aws"]
async fn objects_deleted_or_altered_behind_its_back_are_damage_and_nothing_else_is() {
    let world = World::start().await;
    let log = world.log(&world.direct(), false).await;
    let producer = log.producer().linger_ms(0).inline_bytes_max(0).build().unwrap();
    for n in 0..3u8 {
        let delivery = producer.enqueue("t", Some(0), Record::value(vec![n; 2_000]), None).await.unwrap();
        delivery.wait().await.unwrap();
    }
    producer.close().await.unwrap();
    let objects = world.store(&world.direct()).objects.store().clone();
    let listed = objects.list(Some(&"l0".into())).map_ok(|found| found.location);
    let mut segments: Vec<_> = listed.try_collect().await.unwrap();
    segments.sort();
    let cold = world.log(&world.direct(), false).await;
    objects.delete(&segments[0]).await.unwrap();
    let whole = objects.get(&segments[1]).await.unwrap().bytes().await.unwrap();
    let mut other = whole.to_vec();
    other[20] ^= 1;
    objects.put(&segments[1], Bytes::from(other).into()).await.unwrap();
    for (offset, what) in [(0, &segments[0]), (1, &segments[1])] {
        let error = cold.fetcher().fetch("t", 0, offset, Default::default()).await.unwrap_err();
        assert!(
            matches!(error, Error::Damaged { .. }) && error.to_string().contains(what.as_ref()),
            "{error}"
        );
    }
    let rest = cold.fetcher().fetch("t", 0, 2, Default::default()).await.unwrap();
    assert_eq!(rest.records().count(), 1, "what lies behind is unharmed");
    let report = tidelog_core::verify::verify(&world.store(&world.direct()), |_, _| {}).await.unwrap();
    let named = |path: &object_store::path::Path| {
        report.damage.iter().any(|damage| damage.what.contains(path.as_ref()) && damage.touches.len() == 1)
    };
    assert!(report.damage.len() == 2 && named(&segments[0]) && named(&segments[1]), "{report:?}");
    // And it goes on taking records.
    let producer = cold.producer().linger_ms(0).build().unwrap();
    producer.send("t", Record::value("still")).await.unwrap();
}
