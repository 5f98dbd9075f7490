//! A store that does not answer: requests fail in time, retriably, and what was sent again under a key is there once.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use async_trait::async_trait;
use common::*;
use tidelog_core::env::SystemEnv;
use tidelog_core::store::Store;
use tidelog_core::table::{Consistency, Item, Page, Put, SharedTable, Table, TableError, TableResult};
use tidelog_core::{Log, limits};
use tidelog_functions::{Deadline, Service, Settings};
use tidelog_ingest::Ingest;

const WELL: u8 = 0;
/// Puts land, and nobody hears of it; nor does a look at their slot.
const MUTE: u8 = 1;
/// Puts are refused for now.
const BUSY: u8 = 2;
/// Nothing is ever answered.
const HANGING: u8 = 3;

#[derive(Debug)]
struct Sick(SharedTable, Arc<AtomicU8>);

impl Sick {
    async fn ails(&self, with: u8) -> bool {
        let now = self.1.load(Ordering::SeqCst);
        if now == HANGING {
            std::future::pending::<()>().await;
        }
        now == with
    }
}

fn mute<T>(_: TableResult<T>) -> TableResult<T> {
    Err(TableError::NoAnswer("the connection was reset".into()))
}

#[async_trait]
impl Table for Sick {
    fn name(&self) -> &str {
        self.0.name()
    }

    async fn put_if_absent(&self, pk: &str, item: &Item) -> TableResult<Put> {
        if self.ails(BUSY).await {
            return Err(TableError::Throttled("slow down".into()));
        }
        let put = self.0.put_if_absent(pk, item).await;
        if self.ails(MUTE).await { mute(put) } else { put }
    }

    async fn get(&self, pk: &str, sk: u64, consistency: Consistency) -> TableResult<Option<Item>> {
        let got = self.0.get(pk, sk, consistency).await;
        if self.ails(MUTE).await { mute(got) } else { got }
    }

    async fn newest(&self, pk: &str, to: u64, consistency: Consistency) -> TableResult<Option<Item>> {
        self.0.newest(pk, to, consistency).await
    }

    async fn range(&self, pk: &str, from: u64, limit: usize, consistency: Consistency) -> TableResult<Page> {
        self.ails(HANGING).await;
        self.0.range(pk, from, limit, consistency).await
    }

    async fn replace_if(&self, pk: &str, item: &Item, expect: u128) -> TableResult<bool> {
        self.0.replace_if(pk, item, expect).await
    }

    async fn delete_if(&self, pk: &str, sk: u64, expect: u128) -> TableResult<bool> {
        self.0.delete_if(pk, sk, expect).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_told_in_time_and_doubles_nothing() {
    let (env, state) = (SystemEnv::shared(), Arc::new(AtomicU8::new(WELL)));
    let mut store = Store::memory(env.clone());
    store.table = Arc::new(Sick(store.table.clone(), state.clone()));
    let log = Log::builder().env(env.clone()).open_store(store).await.unwrap();
    log.admin().create_topic("logs", 3, &[]).await.unwrap();
    let world = World { ingest: Arc::new(Ingest::new(log.clone(), &Settings::of("memory:")).unwrap()), log };
    let post = async |key: &str, left_ms: u64| {
        let headers = [TEXT, ("idempotency-key", key)];
        let mut asked = request("POST", "/v1/topics/logs/records", "", &headers, format!("{key} 1\n{key} 2"));
        asked.deadline = Deadline::after_ms(env.clone(), left_ms);
        world.ingest.handle(asked).await
    };
    let mut expected = Vec::new();
    for (ill, key) in [(MUTE, "mute"), (BUSY, "busy"), (HANGING, "hanging")] {
        state.store(ill, Ordering::SeqCst);
        for _ in 0..2 {
            let began = env.monotonic();
            let answer = post(key, limits::HTTP_COMMIT_MS + 800).await;
            assert!(
                (env.monotonic() - began).as_millis() < u128::from(limits::HTTP_COMMIT_MS) + 800,
                "{key}"
            );
            assert_eq!((answer.status, answer.get("retry-after")), (503, Some("1")), "{key}: {answer:?}");
            let code = json(&answer)["error"]["code"].as_str().unwrap().to_owned();
            assert!(matches!(&*code, "unknown" | "unavailable"), "{key}: {code}");
        }
        state.store(WELL, Ordering::SeqCst);
        let answer = post(key, 30_000).await;
        assert_eq!(answer.status, 200, "{key}: {answer:?}");
        expected.extend([format!("{key} 1"), format!("{key} 2")]);
    }
    let mut found = world.values().await;
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}
