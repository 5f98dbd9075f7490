//! The metrics hook, against what was done: each number is told once, and by nobody else.

use std::sync::Arc;

use tidelog_core::append::Tag;
use tidelog_core::env::SystemEnv;
use tidelog_core::ledger::Settings;
use tidelog_core::ledger::action::{IdentityKind, ProducerKey};
use tidelog_core::metrics::{Metric, Total, Totals};
use tidelog_core::store::Store;
use tidelog_core::table::{Consistency, SK_MAX};
use tidelog_core::{Error, Log, Position, Producer, Record, limits};

async fn open(store: &Store, metrics: &Totals) -> Log {
    // Checkpoints are made where a test asks for them.
    let settings = Settings { checkpoint_commits: 0, strip_bytes_min: 0, ..Settings::default() };
    let builder = Log::builder().settings(settings).metrics(Arc::new(metrics.clone()));
    builder.open_store(store.clone()).await.unwrap()
}

fn memory() -> Store {
    Store::memory(SystemEnv::shared())
}

/// One flight: `count` records to each of the first `partitions` partitions of `t`.
async fn flight(producer: &Producer, partitions: u32, count: u32) {
    for partition in 0..partitions {
        for _ in 0..count {
            producer.enqueue("t", Some(partition), Record::value(vec![b'x'; 100]), None).await.unwrap();
        }
    }
    producer.flush().await.unwrap();
}

#[track_caller]
fn sums(totals: &Totals, wanted: &[(Metric, u64)]) {
    for (metric, sum) in wanted {
        assert_eq!(totals.of(*metric).sum, *sum, "{}", metric.name());
    }
}

/// How often each time was told.
#[track_caller]
fn counts(totals: &Totals, wanted: &[(Metric, u64)]) {
    for (metric, count) in wanted {
        assert_eq!(totals.of(*metric).count, *count, "{}", metric.name());
    }
}

#[tokio::test]
async fn three_segments_one_inline_commit_and_their_acks() {
    let totals = Totals::default();
    let log = open(&memory(), &totals).await;
    log.admin().create_topic("t", 2, &[]).await.unwrap();
    let before = totals.of(Metric::CommitUs).count;
    assert_eq!(before, 2, "the store and the topic");
    let producer = log.producer().linger_ms(1_000).build().unwrap();
    for _ in 0..3 {
        flight(&producer, 2, 100).await;
    }
    flight(&producer, 1, 5).await;
    use Metric::*;
    counts(&totals, &[(UploadUs, 3), (CommitUs, before + 4), (AckUs, 4), (ColdStartUs, 0)]);
    sums(&totals, &[(InlineFlights, 1), (Batches, 7), (RecordsSent, 605), (RecordsAppended, 605)]);
    sums(&totals, &[(RecordsDuplicate, 0), (Conflicts, 0), (PutsUnanswered, 0), (Poisoned, 0)]);
    sums(&totals, &[(BytesSent, 605 * (100 + limits::ROW_BYTES as u64))]);
    assert!(totals.of(SegmentBytes).sum > 0);
    let Total { sum, max, .. } = totals.of(BufferedBytes);
    assert!(max >= 20_000, "while a flight was under way: {max}");
    assert_eq!(sum, 0, "nothing is under way");
}

#[tokio::test]
async fn what_is_refused_is_told_by_its_error() {
    let totals = Totals::default();
    let log = open(&memory(), &totals).await;
    log.admin().create_topic("t", 1, &[]).await.unwrap();
    let producer = log.producer().linger_ms(1_000).build().unwrap();
    let key = ProducerKey { kind: IdentityKind::Dense, producer: 7 };
    let send = async |sequence| {
        let tag = Some(Tag { key, epoch: 0, sequence });
        let sent = producer.enqueue("t", Some(0), Record::value("x"), tag).await.unwrap();
        producer.flush().await.unwrap();
        sent.wait().await
    };
    send(0).await.unwrap();
    assert!(send(0).await.unwrap().duplicate);
    let error = send(5).await.unwrap_err();
    assert!(matches!(error, Error::OutOfOrderSequence { .. }), "{error}");
    let refused = Metric::RecordsRefused("out_of_order_sequence");
    assert_eq!((refused.name(), refused.label()), ("records_refused", Some(("error", error.name()))));
    let wanted = [(Metric::RecordsSent, 3), (Metric::RecordsAppended, 1), (Metric::RecordsDuplicate, 1)];
    sums(&totals, &wanted);
    sums(&totals, &[(refused, 1)]);
}

#[tokio::test]
async fn a_lost_race_is_one_conflict() {
    let (store, totals, others) = (memory(), Totals::default(), Totals::default());
    let log = open(&store, &totals).await;
    log.admin().create_topic("t", 1, &[]).await.unwrap();
    let producer = log.producer().linger_ms(1_000).build().unwrap();
    flight(&producer, 1, 1).await;
    let other = open(&store, &others).await;
    other.admin().create_topic("other", 1, &[]).await.unwrap();
    sums(&totals, &[(Metric::Conflicts, 0)]);
    // A lone writer does not look before it puts, and so runs into the other's commit.
    flight(&producer, 1, 1).await;
    sums(&totals, &[(Metric::Conflicts, 1), (Metric::RecordsAppended, 2)]);
    counts(&totals, &[(Metric::CommitUs, 4)]);
    counts(&others, &[(Metric::CommitUs, 1), (Metric::ColdStartUs, 1)]);
    sums(&others, &[(Metric::Conflicts, 0)]);
}

#[tokio::test]
async fn reading_tells_records_runs_and_the_cache() {
    let (store, totals) = (memory(), Totals::default());
    let log = open(&store, &Totals::default()).await;
    log.admin().create_topic("t", 1, &[]).await.unwrap();
    let producer = log.producer().linger_ms(1_000).build().unwrap();
    flight(&producer, 1, 300).await;
    flight(&producer, 1, 200).await;
    let reader = open(&store, &totals).await;
    let fetcher = reader.fetcher();
    for _ in 0..2 {
        let fetched = fetcher.fetch("t", 0, 0, Default::default()).await.unwrap();
        assert_eq!(fetched.records().count(), 500);
    }
    use Metric::*;
    sums(&totals, &[(RecordsFetched, 1_000), (CacheMisses, 2), (CacheHits, 2), (TailReads, 0)]);
    counts(&totals, &[(RunUs, 2), (ColdStartUs, 1)]);
    assert!(totals.of(BytesFetched).sum >= 100_000);
    // Where a consumer begins and ends is asked of the ledger.
    reader.consumer("t").until(Position::End).build().await.unwrap();
    sums(&totals, &[(TailReads, 1)]);
}

#[tokio::test]
async fn upkeep_and_leading_are_told() {
    let totals = Totals::default();
    let log = open(&memory(), &totals).await;
    log.admin().create_topic("t", 3, &[]).await.unwrap();
    let producer = log.producer().linger_ms(1_000).lead(true).build().unwrap();
    for _ in 0..3 {
        flight(&producer, 1, 100).await;
        log.ledger().checkpoint().await.unwrap().unwrap();
    }
    let stripped = log.ledger().strip().await.unwrap();
    assert!(stripped > 0);
    sums(&totals, &[(Metric::SlotsStripped, stripped)]);
    counts(&totals, &[(Metric::CheckpointUs, 3)]);
    producer.close().await.unwrap();
    sums(&totals, &[(Metric::PartitionsTaken, 3)]);
}

#[tokio::test]
async fn a_table_that_goes_back_poisons() {
    let (store, totals) = (memory(), Totals::default());
    let log = open(&store, &totals).await;
    let newest = store.table.newest("0000/0000", SK_MAX, Consistency::Strong).await.unwrap();
    let newest = newest.value.unwrap();
    assert!(store.table.delete_if("0000/0000", newest.sk, newest.id).await.unwrap().value);
    for _ in 0..2 {
        let error = log.admin().topics().await.unwrap_err();
        assert!(matches!(error, Error::RolledBack { .. } | Error::Poisoned { .. }), "{error}");
        sums(&totals, &[(Metric::Poisoned, 1)]);
    }
}
