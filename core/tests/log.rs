//! The main job, end to end, on memory and on a folder: produce, commit, fetch, consume.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use tidelog_core::env::{Env, SharedEnv, SystemEnv};
use tidelog_core::ledger::action::{Identity, IdentityKind, ProducerKey};
use tidelog_core::{Error, Log, Position, Record};

async fn consume_all(log: &Log, topic: &str) -> Vec<(u32, u64, Vec<u8>)> {
    let consumer = log.consumer(topic).until(Position::End).build().await.unwrap();
    let all: Vec<_> = consumer.collect().await;
    all.into_iter()
        .map(|message| {
            let message = message.unwrap();
            (message.partition, message.record.offset, message.record.value.unwrap().to_vec())
        })
        .collect()
}

async fn main_job(url: &str) {
    let log = Log::open(url).await.unwrap();
    log.admin().create_topic("logs", 3, &[]).await.unwrap();
    let producer = log.producer().build().unwrap();
    let mut deliveries = Vec::new();
    for i in 0..5_000u32 {
        let record = Record::keyed(format!("k{}", i % 10), format!("line {i} {}", "x".repeat(100)));
        deliveries.push(producer.enqueue("logs", None, record, None).await.unwrap());
    }
    producer.flush().await.unwrap();
    let mut acked = Vec::new();
    for (i, delivery) in deliveries.into_iter().enumerate() {
        let metadata = delivery.wait().await.unwrap();
        acked.push((
            metadata.partition,
            metadata.offset.unwrap(),
            format!("line {i} {}", "x".repeat(100)).into_bytes(),
        ));
    }
    acked.sort();
    let mut found = consume_all(&log, "logs").await;
    found.sort();
    assert_eq!(acked, found);
    // Small batches ride inside their commit and read back the same.
    let metadata = producer.send("logs", Record::keyed("k1", "small")).await.unwrap();
    let fetcher = log.fetcher();
    let fetched = fetcher.fetch("logs", metadata.partition, metadata.offset.unwrap(), Default::default());
    let fetched = fetched.await.unwrap();
    assert_eq!(fetched.records().next().unwrap().value.unwrap(), "small");
    producer.close().await.unwrap();
    if url != "memory:" {
        let again = Log::open_existing(url).await.unwrap();
        assert_eq!(consume_all(&again, "logs").await.len(), 5_001);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn main_job_in_memory() {
    main_job("memory:").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn main_job_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    main_job(folder.path().join("store").to_str().unwrap()).await;
}

fn dense(first: u64, last: u64, epoch: u16) -> Identity {
    let key = ProducerKey { kind: IdentityKind::Dense, producer: 7 };
    Identity { key, epoch, first_sequence: first, last_sequence: last }
}

#[tokio::test]
async fn idempotent_producers_get_kafkas_answers() {
    let log = Log::open("memory:").await.unwrap();
    log.admin().create_topic("t", 1, &[]).await.unwrap();
    let producer = log.producer().build().unwrap();
    let send = async |first: u64, last: u64, epoch: u16| {
        let records: Vec<Record> = (first..=last).map(|i| Record::value(format!("{i}"))).collect();
        let deliveries = producer.send_batch("t", 0, &records, dense(first, last, epoch)).await?;
        deliveries.into_iter().next().unwrap().wait().await
    };
    assert_eq!(send(0, 2, 0).await.unwrap().offset, Some(0));
    assert_eq!(send(3, 3, 0).await.unwrap().offset, Some(3));
    let again = send(0, 2, 0).await.unwrap();
    assert_eq!((again.offset, again.duplicate), (Some(0), true));
    assert!(matches!(send(9, 9, 0).await, Err(Error::OutOfOrderSequence { expected: 4, got: 9, .. })));
    assert_eq!(send(0, 0, 1).await.unwrap().offset, Some(4));
    assert!(matches!(send(4, 4, 0).await, Err(Error::ProducerFenced { current: 1, got: 0, .. })));
    let stranger = Identity { key: ProducerKey { kind: IdentityKind::Dense, producer: 8 }, ..dense(5, 5, 0) };
    let unknown = producer.send_batch("t", 0, &[Record::value("x")], stranger).await.unwrap();
    assert!(matches!(
        unknown.into_iter().next().unwrap().wait().await,
        Err(Error::UnknownProducer { got: 5, .. })
    ));
    assert_eq!(log.admin().describe_topic("t").await.unwrap().partitions[0].high_watermark, 5);
}

#[tokio::test]
async fn errors_say_what_is_true() {
    let log = Log::open("memory:").await.unwrap();
    let producer = log.producer().build().unwrap();
    assert!(matches!(producer.send("none", Record::value("x")).await, Err(Error::UnknownTopic { .. })));
    log.admin().create_topic("t", 2, &[("max.message.bytes".into(), "10".into())]).await.unwrap();
    let error = producer.send("t", Record::value("12345678901")).await.unwrap_err();
    assert_eq!(error.to_string(), "record is too large: 11, limit 10");
    producer.send("t", Record::value("fits")).await.unwrap();
    let error = log.fetcher().fetch("t", 0, 99, Default::default()).await.unwrap_err();
    assert!(matches!(error, Error::OffsetOutOfRange { offset: 99, .. }), "{error}");
    let error = log.admin().create_topic("t", 1, &[]).await.unwrap_err();
    assert!(matches!(error, Error::TopicExists { .. }));
}

#[tokio::test]
async fn groups_store_offsets_and_lag() {
    let log = Log::open("memory:").await.unwrap();
    log.admin().create_topic("t", 1, &[]).await.unwrap();
    let producer = log.producer().build().unwrap();
    for i in 0..10 {
        producer.send("t", Record::value(format!("{i}"))).await.unwrap();
    }
    let mut consumer = log.consumer("t").group("g").until(Position::Offset(4)).build().await.unwrap();
    while let Some(message) = consumer.next_message().await {
        message.unwrap();
    }
    consumer.store_offsets().await.unwrap();
    let lags = log.admin().describe_group("g").await.unwrap();
    assert_eq!((lags[0].offset, lags[0].lag), (4, 6));
    let mut consumer = log.consumer("t").group("g").until(Position::End).build().await.unwrap();
    assert_eq!(consumer.next_message().await.unwrap().unwrap().record.offset, 4);
    log.admin().delete_group("g").await.unwrap();
    assert!(matches!(log.admin().describe_group("g").await, Err(Error::UnknownGroup { .. })));
}

/// Offsets of one topic mean nothing to the next of its name: neither to a consumer that was on its way, nor to its group.
#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "real time")]
async fn a_consumer_does_not_go_on_in_another_topic_of_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().to_str().unwrap();
    let (here, there) = (Log::open(url).await.unwrap(), Log::open(url).await.unwrap());
    let make = async |records: u64| {
        here.admin().create_topic("t", 1, &[]).await.unwrap();
        let producer = here.producer().linger_ms(0).build().unwrap();
        for offset in 0..records {
            let sent = producer.send("t", Record::value("a value")).await.unwrap();
            assert_eq!(sent.offset, Some(offset));
        }
    };
    make(5).await;
    let mut consumers = Vec::new();
    for log in [&here, &there] {
        let mut consumer = log.consumer("t").group("g").build().await.unwrap();
        for offset in 0..3 {
            assert_eq!(consumer.next_message().await.unwrap().unwrap().record.offset, offset);
        }
        consumers.push(consumer);
    }
    here.admin().delete_topic("t").await.unwrap();
    // More than there were: the old offsets exist again.
    make(9).await;
    for mut consumer in consumers {
        let error = consumer.store_offsets().await.unwrap_err();
        assert!(matches!(&error, Error::TopicDeleted { topic } if topic == "t"), "{error}");
        // What it holds already may come, and then an end.
        let mut held = 0;
        let error = async {
            loop {
                match consumer.next_message().await.unwrap() {
                    Ok(_) => held += 1,
                    Err(error) => break error,
                }
            }
        };
        let error = tokio::time::timeout(Duration::from_secs(60), error).await.expect("it waits for more");
        assert!(held <= 2, "{held} records of the old topic");
        assert!(matches!(&error, Error::TopicDeleted { topic } if topic == "t"), "{error}");
    }
    assert!(here.admin().describe_group("g").await.is_err(), "nothing was stored");
    let mut consumer = there.consumer("t").group("g").build().await.unwrap();
    assert_eq!(consumer.next_message().await.unwrap().unwrap().record.offset, 0);
}

#[tokio::test]
async fn a_consumer_follows_is_cancelled_and_seeks() {
    let log = Log::open("memory:").await.unwrap();
    log.admin().create_topic("t", 1, &[]).await.unwrap();
    let mut consumer = log.consumer("t").group("g").build().await.unwrap();
    let env = tidelog_core::env::SystemEnv::shared();
    for _ in 0..3 {
        tokio::select! {
            message = consumer.next_message() => panic!("{message:?}"),
            () = env.sleep(std::time::Duration::from_millis(20)) => {}
        }
    }
    // A call that was given up holds nothing back.
    consumer.store_offsets().await.unwrap();
    let producer = log.producer().linger_ms(0).build().unwrap();
    for i in 0..3 {
        producer.send("t", Record::value(format!("{i}"))).await.unwrap();
    }
    for i in 0..3u64 {
        assert_eq!(consumer.next_message().await.unwrap().unwrap().record.offset, i);
    }
    assert_eq!(consumer.positions(), [(0, 3)]);
    consumer.seek(0, 1).unwrap();
    assert_eq!(consumer.next_message().await.unwrap().unwrap().record.offset, 1);
    consumer.seek(0, 99).unwrap();
    let error = consumer.next_message().await.unwrap().unwrap_err();
    assert!(matches!(error, Error::OffsetOutOfRange { offset: 99, .. }), "{error}");
    // Partitions that are added are followed, too.
    consumer.seek(0, 3).unwrap();
    log.admin().alter_topic("t", Some(2), &[]).await.unwrap();
    producer.enqueue("t", Some(1), Record::value("new"), None).await.unwrap().wait().await.unwrap();
    let message = consumer.next_message().await.unwrap().unwrap();
    assert_eq!((message.partition, message.record.offset), (1, 0));
}

#[tokio::test]
async fn nothing_of_a_growing_sequence_passes_a_failed_batch() {
    let log = Log::open("memory:").await.unwrap();
    log.admin().create_topic("t", 1, &[]).await.unwrap();
    let key = ProducerKey { kind: IdentityKind::Monotone, producer: 9 };
    let tag = |sequence| Some(tidelog_core::append::Tag { key, epoch: 0, sequence });
    let producer = log.producer().build().unwrap();
    producer.enqueue("t", None, Record::value("a"), tag(100)).await.unwrap().wait().await.unwrap();
    // A batch that begins before what is there, and ends behind it.
    let early = producer.enqueue("t", None, Record::value("b"), tag(50)).await.unwrap();
    let late = producer.enqueue("t", None, Record::value("c"), tag(150)).await.unwrap();
    producer.flush().await.unwrap();
    for delivery in [early, late] {
        assert!(matches!(delivery.wait().await, Err(Error::OutOfOrderSequence { .. })));
    }
    // Were this one placed, 150 would look as if it were in the log.
    let after = producer.enqueue("t", None, Record::value("d"), tag(200)).await.unwrap().wait().await;
    assert!(matches!(after, Err(Error::EarlierBatchFailed { .. })), "{after:?}");
    let again = log.producer().build().unwrap();
    let sent = again.enqueue("t", None, Record::value("c"), tag(150)).await.unwrap().wait().await.unwrap();
    assert_eq!(sent.offset, Some(1));
}

#[tokio::test]
async fn a_record_is_told_of_before_its_ack() {
    let told = std::sync::Arc::new(std::sync::Mutex::new((0u32, 0u32)));
    let log = Log::open("memory:").await.unwrap();
    log.admin().create_topic("t", 1, &[]).await.unwrap();
    let hook = told.clone();
    let producer = log.producer().linger_ms(0).on_ack(move |batches| {
        let mut told = hook.lock().unwrap();
        told.1 += batches.iter().map(|batch| batch.rows).sum::<u32>();
        assert!(told.1 <= told.0, "acked {} of {} accepted", told.1, told.0);
    });
    let producer = producer.build().unwrap();
    for i in 0..2_000u32 {
        let accepted = |_| told.lock().unwrap().0 += 1;
        producer.enqueue_with("t", None, Record::value(format!("{i}")), None, accepted).await.unwrap();
    }
    producer.close().await.unwrap();
    assert_eq!(*told.lock().unwrap(), (2_000, 2_000));
}

/// What a service wants to spawn or share.
#[test]
fn handles_and_futures_can_be_sent_to_other_threads() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>(_: fn(Log) -> T) {}
    shared::<Log>();
    shared::<tidelog_core::Producer>();
    shared::<tidelog_core::Consumer>();
    sent(|log| async move { log.consumer("t").build().await.map(drop) });
    sent(|log| async move { log.producer().build()?.send("t", Record::value("x")).await });
}

/// A flight holds one codec, so a topic whose codec is altered has records in two; the later must not land first.
#[tokio::test]
async fn an_altered_codec_does_not_let_later_records_overtake() {
    let log = Log::open("memory:").await.unwrap();
    log.admin().create_topic("t", 1, &[("compression.type".into(), "zstd".into())]).await.unwrap();
    let producer = log.producer().linger_ms(60_000).build().unwrap();
    let first = producer.enqueue("t", None, Record::value("first"), None).await.unwrap();
    log.admin().alter_topic("t", None, &[("compression.type".into(), Some("none".into()))]).await.unwrap();
    // Enough to fill a flight of its own, which leaves at once.
    for _ in 0..6 {
        producer.enqueue("t", None, Record::value(vec![b'x'; 1 << 20]), None).await.unwrap();
    }
    producer.flush().await.unwrap();
    assert_eq!(first.wait().await.unwrap().offset, Some(0));
}

/// A take that is still under way when the producer closes must not outlive it: nobody would let go of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_producer_leads_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path().join("store").to_str().unwrap()).await.unwrap();
    log.admin().create_topic("t", 2, &[]).await.unwrap();
    for epoch in 0..10 {
        let producer = log.producer().lead(true).build().unwrap();
        producer.send("t", Record::value("x")).await.unwrap();
        producer.close().await.unwrap();
        let found = log.admin().describe_topic("t").await.unwrap();
        assert!(found.partitions.iter().all(|p| p.leader.is_none()), "{:?}", found.partitions);
        assert!(
            found.partitions.iter().all(|p| p.leader_epoch == epoch),
            "each run led once: {:?}",
            found.partitions
        );
    }
}

#[tokio::test]
async fn a_batch_of_too_many_rows_is_refused_before_any_is_taken() {
    let log = Log::open("memory:").await.unwrap();
    log.admin().create_topic("t", 1, &[]).await.unwrap();
    let producer = log.producer().linger_ms(60_000).build().unwrap();
    let first = producer.enqueue("t", None, Record::value("a"), None).await.unwrap();
    let rows = vec![Record::value("x"); 250_000];
    let key = ProducerKey { kind: IdentityKind::Once, producer: 7 };
    let identity = Identity { key, epoch: 0, first_sequence: 5, last_sequence: 5 };
    // A quarter of a megabyte of bytes, and ten of rows.
    let refused = producer.send_batch("t", 0, &rows, identity).await.unwrap_err();
    assert!(matches!(refused, Error::TooLarge { field: "batch", .. }), "{refused}");
    let last = producer.enqueue("t", None, Record::value("b"), None).await.unwrap();
    producer.flush().await.unwrap();
    assert_eq!((first.wait().await.unwrap().offset, last.wait().await.unwrap().offset), (Some(0), Some(1)));
    let found = consume_all(&log, "t").await;
    assert_eq!(found, [(0, 0, b"a".to_vec()), (0, 1, b"b".to_vec())]);
}

/// Bytes of the buffer are drawn ahead of the records; a record that needs the whole buffer must get those, too.
#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "else a failure would hang")]
async fn a_record_as_large_as_the_buffer_gets_all_of_it() {
    let log = Log::open("memory:").await.unwrap();
    log.admin().create_topic("t", 1, &[]).await.unwrap();
    let producer = log.producer().buffer_bytes(1 << 20).linger_ms(50).build().unwrap();
    let large = || Record::value(vec![b'x'; 1 << 20]);
    let send = |record| tokio::time::timeout(Duration::from_secs(10), producer.send("t", record));
    // Known from here on.
    assert_eq!(send(large()).await.expect("there is room").unwrap().offset, Some(0));
    // Drawn for a record that was refused, so that nothing is sealed that could give it back.
    // The second time, the topic is known as of the newest commit, and no reservation of its own is made.
    for _ in 0..2 {
        let refused = producer.enqueue("t", Some(7), Record::value("x"), None).await.unwrap_err();
        assert!(matches!(refused, Error::UnknownPartition { .. }), "{refused}");
    }
    assert_eq!(send(large()).await.expect("there is room").unwrap().offset, Some(1));
    // Drawn for one that is under way.
    let small = producer.enqueue("t", None, Record::value("x"), None).await.unwrap();
    assert_eq!(send(large()).await.expect("there is room").unwrap().offset, Some(3));
    assert_eq!(small.wait().await.unwrap().offset, Some(2));
}

/// The machine's clock, set forward.
#[derive(Debug)]
struct Later(SharedEnv, AtomicI64);

impl Env for Later {
    fn now_ms(&self) -> i64 {
        self.0.now_ms() + self.1.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn random_u64(&self) -> u64 {
        self.0.random_u64()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(time)
    }
}

#[tokio::test]
async fn identities_of_kind_once_are_known_for_fifteen_minutes() {
    let env = Arc::new(Later(SystemEnv::shared(), AtomicI64::new(0)));
    let log = Log::builder().env(env.clone()).open("memory:").await.unwrap();
    log.admin().create_topic("t", 1, &[]).await.unwrap();
    let producer = log.producer().linger_ms(0).build().unwrap();
    let send = async |kind| {
        let identity = Identity {
            key: ProducerKey { kind, producer: 7 },
            epoch: 0,
            first_sequence: 0,
            last_sequence: 0,
        };
        let sent = producer.send_batch("t", 0, &[Record::value("x")], identity).await.unwrap();
        producer.flush().await.unwrap();
        sent.into_iter().next().unwrap().wait().await.unwrap().duplicate
    };
    assert_eq!((send(IdentityKind::Once).await, send(IdentityKind::Dense).await), (false, false));
    for (minutes, known) in [(14, true), (16, false)] {
        env.1.store(minutes * 60_000, Ordering::SeqCst);
        // Time goes on by commits alone.
        producer.send("t", Record::value("tick")).await.unwrap();
        log.ledger().expire().await.unwrap();
        assert_eq!(send(IdentityKind::Once).await, known, "after {minutes} minutes");
        assert!(send(IdentityKind::Dense).await);
    }
}
