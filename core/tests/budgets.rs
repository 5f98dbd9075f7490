//! What each operation costs in requests (DESIGN §9), counted with 10,000 partitions in the store, and printed.

use std::sync::Arc;
use std::time::Duration;

use tidelog_core::counting::{CountingStore, CountingTable, ObjectCounts, TableCounts};
use tidelog_core::env::{SharedEnv, SystemEnv};
use tidelog_core::ledger::Settings;
use tidelog_core::objects::Objects;
use tidelog_core::store::Store;
use tidelog_core::{Log, Position, Record};

const TOPICS: u32 = 10;
const PARTITIONS: u32 = 1_000;

struct Counted {
    store: Store,
    table: Arc<CountingTable>,
    objects: Arc<CountingStore>,
    env: SharedEnv,
}

impl Counted {
    fn new() -> Self {
        let env = SystemEnv::shared();
        let store = Store::memory(env.clone());
        let table = Arc::new(CountingTable::new(store.table.clone()));
        let objects = Arc::new(CountingStore::new(store.objects.store().clone()));
        let store = Store {
            table: table.clone(),
            objects: Objects::new(objects.clone(), env.clone()),
            url: store.url,
        };
        Self { store, table, objects, env }
    }

    async fn open(&self) -> Log {
        // Checkpoints are made where a test asks for them.
        let settings = Settings { checkpoint_commits: 0, ..Settings::default() };
        Log::with_store(self.store.clone(), self.env.clone(), true, settings).await.unwrap()
    }

    async fn cost<T>(&self, what: &str, work: impl Future<Output = T>) -> (T, ObjectCounts, TableCounts) {
        let (objects, table) = (self.objects.counts(), self.table.counts());
        let value = work.await;
        let (objects, table) = (self.objects.counts().since(&objects), self.table.counts().since(&table));
        println!("{what}: {objects:?} {table:?}");
        (value, objects, table)
    }

    async fn filled(&self) -> Log {
        let log = self.open().await;
        for topic in 0..TOPICS {
            log.admin().create_topic(&format!("topic-{topic}"), PARTITIONS, &[]).await.unwrap();
        }
        log.ledger().checkpoint().await.unwrap();
        log
    }
}

async fn send(log: &Log, partitions: u32, bytes: usize) {
    let producer = log.producer().linger_ms(1_000).build().unwrap();
    for partition in 0..partitions {
        let record = Record::value(vec![b'x'; bytes]);
        producer.enqueue("topic-0", Some(partition), record, None).await.unwrap();
    }
    producer.close().await.unwrap();
}

#[tokio::test]
async fn a_flush_is_one_put_and_one_conditional_write() {
    let counted = Counted::new();
    let log = counted.filled().await;
    send(&log, 1, 5_000).await;
    let (_, objects, table) = counted.cost("flush of 1 slice", send(&log, 1, 5_000)).await;
    assert_eq!((objects.requests(), objects.puts), (1, 1));
    assert_eq!((table.puts, table.queries + table.gets), (1, 0), "a lone writer needs no look");
    assert_eq!(table.write_units, 1);
    let (_, objects, table) = counted.cost("flush of 256 slices", send(&log, 256, 100)).await;
    assert_eq!((objects.requests(), table.puts), (1, 1));
    assert!(table.write_units <= 32, "{} write units", table.write_units);
}

#[tokio::test]
async fn a_small_batch_is_one_conditional_write_and_no_object() {
    let counted = Counted::new();
    let log = counted.filled().await;
    send(&log, 1, 100).await;
    let (_, objects, table) = counted.cost("inline batch", send(&log, 1, 3_000)).await;
    assert_eq!(objects.requests(), 0);
    assert_eq!((table.puts, table.queries + table.gets), (1, 0));
    assert!(table.write_units <= 5);
}

#[tokio::test]
async fn a_cold_start_is_two_reads_and_one_get() {
    let counted = Counted::new();
    let log = counted.filled().await;
    send(&log, 3, 5_000).await;
    let (cold, objects, table) = counted.cost("cold start", counted.open()).await;
    assert!(objects.requests() <= 1 && objects.gets <= 1);
    assert_eq!((table.queries, table.puts, table.gets), (2, 0, 0));
    assert_eq!(cold.ledger().chain_slot(), log.ledger().chain_slot());
}

#[tokio::test]
async fn a_fetch_is_one_get_and_consuming_writes_nothing() {
    let counted = Counted::new();
    let log = counted.filled().await;
    send(&log, 1, 5_000).await;
    let reader = counted.open().await;
    let (_, objects, table) = counted
        .cost("consume one segment", async {
            let consumer = reader.consumer("topic-0").partitions([0]).until(Position::End);
            let mut consumer = consumer.build().await.unwrap();
            while let Some(message) = consumer.next_message().await {
                message.unwrap();
            }
        })
        .await;
    assert_eq!((objects.gets, objects.requests()), (1, 1), "L6: the read path never lists");
    assert_eq!(
        (table.puts, table.replaces, table.deletes),
        (0, 0, 0),
        "consuming without a group writes nothing"
    );
}

/// 256 partitions whose rows lie side by side in the same segments cost what one does.
#[tokio::test]
async fn a_consumer_of_many_partitions_makes_one_get_a_segment() {
    let counted = Counted::new();
    let log = counted.open().await;
    log.admin().create_topic("many", 256, &[]).await.unwrap();
    for segment in 0..6u32 {
        let producer = log.producer().inline_bytes_max(0).build().unwrap();
        let mut last = None;
        for n in 0..256 * 6u32 {
            // Hard to compress: several MiB a segment, some 20 row groups, each of many partitions.
            let mut value = Vec::with_capacity(2_000);
            let mut x = u64::from(segment * 10_000 + n) + 1;
            while value.len() < 2_000 {
                x = x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                value.extend(x.to_le_bytes());
            }
            last = Some(producer.enqueue("many", Some(n % 256), Record::value(value), None).await.unwrap());
        }
        last.unwrap().wait().await.unwrap();
        producer.close().await.unwrap();
    }
    let reader = counted.open().await;
    let (records, objects, _) = counted
        .cost("consume 256 partitions of 6 flushes", async {
            let mut consumer = reader.consumer("many").until(Position::End).build().await.unwrap();
            let mut records = 0;
            while let Some(message) = consumer.next_message().await {
                message.unwrap();
                records += 1;
            }
            records
        })
        .await;
    let segments = counted.objects.counts().puts;
    assert_eq!(records, 6 * 256 * 6);
    assert!(objects.gets <= segments + 2, "{} GETs of {segments} objects", objects.gets);
}

#[tokio::test]
async fn idle_costs_nothing_and_one_tailing_consumer_one_read_a_second() {
    let counted = Counted::new();
    let log = counted.filled().await;
    let pause = |seconds| log.ledger().env().sleep(Duration::from_millis(seconds));
    let (_, objects, table) = counted.cost("idle", pause(300)).await;
    assert_eq!((objects.requests(), table.requests()), (0, 0));
    let mut consumer = log.consumer("topic-0").from(Position::End).build().await.unwrap();
    // Polls slow down within four seconds of silence.
    let wait = async |ms| {
        let sleep = log.ledger().env().sleep(Duration::from_millis(ms));
        tokio::select! {
            message = consumer.next_message() => panic!("{message:?}"),
            () = sleep => {}
        }
    };
    let mut wait = wait;
    wait(5_000).await;
    let (_, objects, table) = counted.cost("idle with a tailing consumer, 5 s", wait(5_000)).await;
    assert_eq!(objects.requests(), 0);
    // 5 reads of half a unit or one, and the look whether the chain still ends where it did.
    assert!(table.requests() <= 6, "{table:?}");
}
