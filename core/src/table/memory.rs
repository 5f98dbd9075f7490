//! A table in memory, stricter than the real thing: sizes, keys and pages are bounded as DynamoDB bounds them, and
//! eventual reads are as stale as a test asks for.
//!
//! Staleness is counted in writes, not in time, so a seed decides it: an eventual read sees the table as it was some
//! writes ago, a whole older state and never a mixture.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{
    Answer, Consistency, Item, Page, Put, SK_MAX, Table, TableResult, check_item, check_key, check_limit,
};
use crate::env::SharedEnv;
use crate::limits::PAGE_BYTES;

/// How many writes behind an eventual read is.
type Lag = Arc<dyn Fn() -> u64 + Send + Sync>;

/// A table in memory.
#[derive(Default)]
pub struct MemoryTable {
    state: Mutex<State>,
    env: Option<SharedEnv>,
    lag_max: u64,
    lag: Option<Lag>,
}

/// What was under a key, by the number of the write that put it there; ascending. `None`: deleted.
type Versions = Vec<(u64, Option<Item>)>;

#[derive(Default)]
struct State {
    /// Writes so far.
    writes: u64,
    ledgers: HashMap<String, BTreeMap<u64, Versions>>,
}

impl MemoryTable {
    /// An empty table without a clock, on which eventual reads are as fresh as strong ones.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers carry this clock's time.
    pub fn with_env(mut self, env: SharedEnv) -> Self {
        self.env = Some(env);
        self
    }

    /// Each eventual read sees the table as it was `lag()` writes ago, at most `lag_max`: so much history is kept.
    pub fn with_lag(mut self, lag_max: u64, lag: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        self.lag_max = lag_max;
        self.lag = Some(Arc::new(lag));
        self
    }

    /// Where items are, for tests.
    pub fn keys(&self) -> Vec<(String, u64)> {
        let state = self.lock();
        let all = state.ledgers.iter().flat_map(|(pk, items)| items.keys().map(move |sk| (pk, *sk)));
        all.filter(|(pk, sk)| state.current(pk, *sk).is_some()).map(|(pk, sk)| (pk.clone(), sk)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can stop half way, so a poisoned state is a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer<T>(&self, value: T) -> TableResult<T> {
        Ok(Answer { value, store_time_ms: self.env.as_ref().map(|env| env.now_ms()) })
    }

    /// The newest write that a read sees.
    fn as_of(&self, state: &State, consistency: Consistency) -> u64 {
        match (consistency, &self.lag) {
            (Consistency::Eventual, Some(lag)) => state.writes.saturating_sub(lag().min(self.lag_max)),
            _ => state.writes,
        }
    }

    /// Replaces what is at `sk` by `value`, if it has the id `expect`.
    fn swap_if(&self, pk: &str, sk: u64, value: Option<Item>, expect: u128) -> TableResult<bool> {
        let mut state = self.lock();
        let holds = state.current(pk, sk).is_some_and(|item| item.id == expect);
        if holds {
            state.write(pk, sk, value, self.lag_max);
        }
        self.answer(holds)
    }
}

impl State {
    fn current(&self, pk: &str, sk: u64) -> Option<&Item> {
        self.ledgers.get(pk)?.get(&sk)?.last()?.1.as_ref()
    }

    fn write(&mut self, pk: &str, sk: u64, value: Option<Item>, keep: u64) {
        self.writes += 1;
        let oldest_read = self.writes.saturating_sub(keep);
        let items = self.ledgers.entry(pk.to_owned()).or_default();
        // Most keys are written once, and a log of a million commits is to fit.
        let versions = items.entry(sk).or_insert_with(|| Versions::with_capacity(1));
        versions.push((self.writes, value));
        // The last one at or below the oldest read that may still come stands for all before it.
        let settled = versions.iter().rposition(|(at, _)| *at <= oldest_read).unwrap_or(0);
        versions.drain(..settled);
        if let [(at, None)] = versions[..]
            && at <= oldest_read
        {
            items.remove(&sk);
        }
    }

    fn within<'a>(
        &'a self,
        pk: &str,
        keys: RangeInclusive<u64>,
        as_of: u64,
    ) -> impl DoubleEndedIterator<Item = &'a Item> + 'a {
        let items = self.ledgers.get(pk).map(|items| items.range(keys));
        items.into_iter().flatten().filter_map(move |(_, versions)| visible(versions, as_of))
    }
}

fn visible(versions: &Versions, as_of: u64) -> Option<&Item> {
    versions.iter().rev().find(|(at, _)| *at <= as_of)?.1.as_ref()
}

#[async_trait]
impl Table for MemoryTable {
    fn name(&self) -> &str {
        "memory"
    }

    async fn put_if_absent(&self, pk: &str, item: &Item) -> TableResult<Put> {
        check_item(pk, item)?;
        let mut state = self.lock();
        if let Some(there) = state.current(pk, item.sk) {
            return self.answer(Put::Exists(there.clone()));
        }
        state.write(pk, item.sk, Some(item.clone()), self.lag_max);
        self.answer(Put::Stored)
    }

    async fn get(&self, pk: &str, sk: u64, consistency: Consistency) -> TableResult<Option<Item>> {
        check_key(pk, sk)?;
        let state = self.lock();
        let as_of = self.as_of(&state, consistency);
        let versions = state.ledgers.get(pk).and_then(|items| items.get(&sk));
        self.answer(versions.and_then(|versions| visible(versions, as_of)).cloned())
    }

    async fn newest(&self, pk: &str, to: u64, consistency: Consistency) -> TableResult<Option<Item>> {
        check_key(pk, to)?;
        let state = self.lock();
        let as_of = self.as_of(&state, consistency);
        self.answer(state.within(pk, 0..=to, as_of).next_back().cloned())
    }

    async fn range(&self, pk: &str, from: u64, limit: usize, consistency: Consistency) -> TableResult<Page> {
        check_key(pk, from)?;
        let limit = check_limit(limit)?;
        let state = self.lock();
        let as_of = self.as_of(&state, consistency);
        let mut page = Page { items: Vec::new(), more: false };
        let mut bytes = 0;
        for item in state.within(pk, from..=SK_MAX, as_of) {
            bytes += item.stored_bytes(pk);
            if page.items.len() == limit || bytes > PAGE_BYTES {
                page.more = true;
                break;
            }
            page.items.push(item.clone());
        }
        self.answer(page)
    }

    async fn replace_if(&self, pk: &str, item: &Item, expect: u128) -> TableResult<bool> {
        check_item(pk, item)?;
        self.swap_if(pk, item.sk, Some(item.clone()), expect)
    }

    async fn delete_if(&self, pk: &str, sk: u64, expect: u128) -> TableResult<bool> {
        check_key(pk, sk)?;
        self.swap_if(pk, sk, None, expect)
    }
}

impl fmt::Debug for MemoryTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTable").field("lag_max", &self.lag_max).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use bytes::Bytes;

    use super::*;
    use crate::limits::PAGE_ITEMS;
    use crate::table::contract;

    fn item(sk: u64, body: usize) -> Item {
        Item {
            sk,
            id: u128::from(sk) + 7,
            time_ms: 5,
            body: Some(Bytes::from(vec![1; body])),
            hint: "Append".to_owned(),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn keeps_the_contract() {
        let table: super::super::SharedTable = Arc::new(MemoryTable::new());
        contract::check(&table, &table).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn keeps_the_contract_when_eventual_reads_are_stale() {
        let count = AtomicU64::new(0);
        let lag = move || count.fetch_add(1, Ordering::Relaxed) % 5;
        let table: super::super::SharedTable = Arc::new(MemoryTable::new().with_lag(4, lag));
        contract::check(&table, &table).await.unwrap();
    }

    #[tokio::test]
    async fn a_stale_read_is_a_whole_older_state() {
        let table = MemoryTable::new().with_lag(2, || 2);
        for sk in 1..=5 {
            table.put_if_absent("p", &item(sk, 1)).await.unwrap();
        }
        let strong = table.newest("p", SK_MAX, Consistency::Strong).await.unwrap().value;
        let eventual = table.newest("p", SK_MAX, Consistency::Eventual).await.unwrap().value;
        assert_eq!((strong, eventual), (Some(item(5, 1)), Some(item(3, 1))));
        let page = table.range("p", 1, 10, Consistency::Eventual).await.unwrap().value;
        assert_eq!(page.items.iter().map(|i| i.sk).collect::<Vec<_>>(), [1, 2, 3]);
        // A strip two writes ago is seen, a younger one is not, and a deletion neither.
        let stub = Item { body: None, ..item(1, 1) };
        table.replace_if("p", &stub, stub.id).await.unwrap();
        table.delete_if("p", 2, 9).await.unwrap();
        assert_eq!(table.get("p", 1, Consistency::Eventual).await.unwrap().value, Some(item(1, 1)));
        assert_eq!(table.get("p", 2, Consistency::Eventual).await.unwrap().value, Some(item(2, 1)));
        assert_eq!(table.get("p", 2, Consistency::Strong).await.unwrap().value, None);
        table.put_if_absent("p", &item(9, 1)).await.unwrap();
        assert_eq!(table.get("p", 1, Consistency::Eventual).await.unwrap().value, Some(stub));
    }

    #[tokio::test]
    async fn history_is_kept_no_longer_than_it_can_be_read() {
        let table = MemoryTable::new().with_lag(2, || 2);
        table.put_if_absent("p", &item(1, 1)).await.unwrap();
        for _ in 0..100 {
            table.replace_if("p", &item(1, 1), 8).await.unwrap();
        }
        assert!(table.lock().ledgers["p"][&1].len() <= 3);
        let fresh = MemoryTable::new();
        fresh.put_if_absent("p", &item(1, 1)).await.unwrap();
        fresh.delete_if("p", 1, 8).await.unwrap();
        assert!(fresh.lock().ledgers["p"].is_empty());
    }

    #[tokio::test]
    async fn a_page_ends_by_bytes_and_by_items_and_more_is_exact() {
        let table = MemoryTable::new();
        for sk in 0..6 {
            table.put_if_absent("p", &item(sk, 300_000)).await.unwrap();
        }
        let page = table.range("p", 0, 10, Consistency::Strong).await.unwrap().value;
        assert_eq!((page.items.len(), page.more), (3, true));
        let page = table.range("p", 3, 10, Consistency::Strong).await.unwrap().value;
        assert_eq!((page.items.len(), page.more), (3, false), "three fit exactly, and no fourth is promised");
        let page = table.range("p", 4, 2, Consistency::Strong).await.unwrap().value;
        assert_eq!((page.items.len(), page.more), (2, false));
        for sk in 0..=PAGE_ITEMS as u64 {
            table.put_if_absent("small", &item(sk, 0)).await.unwrap();
        }
        let page = table.range("small", 0, usize::MAX, Consistency::Strong).await.unwrap().value;
        assert_eq!((page.items.len(), page.more), (PAGE_ITEMS, true));
    }

    #[tokio::test]
    async fn answers_carry_the_clock_it_was_given() {
        let env = crate::env::SystemEnv::shared();
        let table = MemoryTable::new().with_env(env);
        assert!(table.newest("p", SK_MAX, Consistency::Strong).await.unwrap().store_time_ms > Some(0));
        assert_eq!(
            MemoryTable::new().newest("p", SK_MAX, Consistency::Strong).await.unwrap().store_time_ms,
            None
        );
    }
}
