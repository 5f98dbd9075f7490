//! The suite must notice adapters that break the law: each way of being wrong fails the check that is about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::super::*;
use super::check;
use crate::env::SystemEnv;

/// One way of being wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    OverwritesOnPut,
    SecondPutAnswersStored,
    ExistsAnswersWithOwnItem,
    ExistsAnswersWithStub,
    StrongReadIsStale,
    NewestIsFirst,
    NewestIgnoresTheBound,
    PageLosesItsLast,
    MoreIsNeverSaid,
    MoreIsSaidForEver,
    PagesWithoutByteLimit,
    StripLosesTheId,
    ReplaceIgnoresTheId,
    ReplaceCreates,
    DeleteIgnoresTheId,
    DeleteDoesNothing,
    AcceptsAnySize,
    EmptyBodyIsNone,
    KeysIgnoreCase,
    SlotsAre32Bit,
    CheckThenWrite,
}

const ALL: &[(Wrong, &str)] = &[
    (Wrong::OverwritesOnPut, "a key has one winner"),
    (Wrong::SecondPutAnswersStored, "a key has one winner"),
    (Wrong::ExistsAnswersWithOwnItem, "a key has one winner"),
    (Wrong::ExistsAnswersWithStub, "a key has one winner"),
    (Wrong::StrongReadIsStale, "a strong read sees every answered write"),
    (Wrong::NewestIsFirst, "a strong read sees every answered write"),
    (Wrong::NewestIgnoresTheBound, "order and paging"),
    (Wrong::PageLosesItsLast, "order and paging"),
    (Wrong::MoreIsNeverSaid, "order and paging"),
    (Wrong::MoreIsSaidForEver, "order and paging"),
    (Wrong::PagesWithoutByteLimit, "pages end by bytes"),
    (Wrong::StripLosesTheId, "a stub keeps its id"),
    (Wrong::ReplaceIgnoresTheId, "replace on condition"),
    (Wrong::ReplaceCreates, "replace on condition"),
    (Wrong::DeleteIgnoresTheId, "delete on condition"),
    (Wrong::DeleteDoesNothing, "delete on condition"),
    (Wrong::AcceptsAnySize, "sizes"),
    (Wrong::EmptyBodyIsNone, "empty is not absent"),
    (Wrong::KeysIgnoreCase, "keys are kept apart"),
    (Wrong::SlotsAre32Bit, "extreme values"),
    (Wrong::CheckThenWrite, "a key has one winner"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_being_wrong_is_noticed() {
    for (wrong, by) in ALL {
        let table: SharedTable =
            Arc::new(WrongTable { inner: MemoryTable::new(), wrong: *wrong, count: 0.into() });
        let noticed = check(&table, &table).await;
        let noticed = noticed.expect_err(&format!("{wrong:?} was not noticed"));
        assert!(noticed.starts_with(by), "{wrong:?} should fail {by:?}, failed: {noticed}");
    }
}

#[derive(Debug)]
struct WrongTable {
    inner: MemoryTable,
    wrong: Wrong,
    count: AtomicU64,
}

impl WrongTable {
    fn is(&self, wrong: Wrong) -> bool {
        self.wrong == wrong
    }

    fn pk(&self, pk: &str) -> String {
        if self.is(Wrong::KeysIgnoreCase) { pk.to_lowercase() } else { pk.to_owned() }
    }

    /// Whatever is there, `item` is put over it.
    async fn overwrite(&self, pk: &str, item: &Item) -> TableResult<bool> {
        if let Put::Exists(there) = self.inner.put_if_absent(pk, item).await?.value {
            return self.inner.replace_if(pk, item, there.id).await;
        }
        Ok(Answer { value: true, store_time_ms: None })
    }

    fn changed(&self, item: &Item) -> Item {
        let mut item = item.clone();
        if self.is(Wrong::SlotsAre32Bit) && item.sk <= i64::MAX as u64 {
            item.sk = u64::from(item.sk as u32);
        }
        if self.is(Wrong::EmptyBodyIsNone) {
            item.body = item.body.filter(|body| !body.is_empty());
        }
        if self.is(Wrong::StripLosesTheId) && item.body.is_none() {
            item.id = 0;
        }
        if self.is(Wrong::AcceptsAnySize) {
            item.body = item.body.map(|body| body.slice(..body.len().min(350_000)));
        }
        item
    }
}

#[async_trait]
impl Table for WrongTable {
    fn name(&self) -> &str {
        "wrong"
    }

    async fn put_if_absent(&self, pk: &str, item: &Item) -> TableResult<Put> {
        let (pk, item) = (&self.pk(pk), &self.changed(item));
        if self.is(Wrong::OverwritesOnPut) {
            let done = self.overwrite(pk, item).await?;
            return Ok(Answer { value: Put::Stored, store_time_ms: done.store_time_ms });
        }
        if self.is(Wrong::CheckThenWrite)
            && self.inner.get(pk, item.sk, Consistency::Strong).await?.value.is_none()
        {
            // Long enough for the others to have looked, too.
            SystemEnv::shared().sleep(Duration::from_millis(2)).await;
            self.overwrite(pk, item).await?;
            return Ok(Answer { value: Put::Stored, store_time_ms: None });
        }
        let mut answer = self.inner.put_if_absent(pk, item).await?;
        if let Put::Exists(there) = &mut answer.value {
            match self.wrong {
                Wrong::SecondPutAnswersStored => answer.value = Put::Stored,
                Wrong::ExistsAnswersWithOwnItem => *there = item.clone(),
                Wrong::ExistsAnswersWithStub => there.body = None,
                _ => {}
            }
        }
        Ok(answer)
    }

    async fn get(&self, pk: &str, sk: u64, consistency: Consistency) -> TableResult<Option<Item>> {
        if self.is(Wrong::StrongReadIsStale) && self.count.fetch_add(1, Ordering::Relaxed) % 10 == 9 {
            return Ok(Answer { value: None, store_time_ms: None });
        }
        self.inner.get(&self.pk(pk), sk, consistency).await
    }

    async fn newest(&self, pk: &str, to: u64, consistency: Consistency) -> TableResult<Option<Item>> {
        if self.is(Wrong::NewestIsFirst) {
            let page = self.inner.range(pk, 0, 1, consistency).await?;
            return Ok(Answer { value: page.value.items.into_iter().next(), store_time_ms: None });
        }
        let to = if self.is(Wrong::NewestIgnoresTheBound) { SK_MAX } else { to };
        self.inner.newest(&self.pk(pk), to, consistency).await
    }

    async fn range(&self, pk: &str, from: u64, limit: usize, consistency: Consistency) -> TableResult<Page> {
        let pk = &self.pk(pk);
        let mut answer = self.inner.range(pk, from, limit, consistency).await?;
        let page = &mut answer.value;
        match self.wrong {
            Wrong::PageLosesItsLast if page.more => drop(page.items.pop()),
            Wrong::MoreIsNeverSaid => page.more = false,
            Wrong::MoreIsSaidForEver => page.more = true,
            Wrong::PagesWithoutByteLimit => {
                while page.more && page.items.len() < limit {
                    let next = page.items.last().map_or(from, |item| item.sk + 1);
                    let rest = self.inner.range(pk, next, limit - page.items.len(), consistency).await?.value;
                    page.items.extend(rest.items);
                    page.more = rest.more;
                }
            }
            _ => {}
        }
        Ok(answer)
    }

    async fn replace_if(&self, pk: &str, item: &Item, expect: u128) -> TableResult<bool> {
        let (pk, item) = (&self.pk(pk), &self.changed(item));
        let there = self.inner.get(pk, item.sk, Consistency::Strong).await?.value;
        match self.wrong {
            Wrong::ReplaceIgnoresTheId if there.is_some() => self.overwrite(pk, item).await,
            Wrong::ReplaceCreates if there.is_none() => self.overwrite(pk, item).await,
            _ => self.inner.replace_if(pk, item, expect).await,
        }
    }

    async fn delete_if(&self, pk: &str, sk: u64, expect: u128) -> TableResult<bool> {
        let there = self.inner.get(pk, sk, Consistency::Strong).await?.value;
        match (self.wrong, there) {
            (Wrong::DeleteIgnoresTheId, Some(there)) => self.inner.delete_if(pk, sk, there.id).await,
            (Wrong::DeleteDoesNothing, Some(there)) => {
                Ok(Answer { value: there.id == expect, store_time_ms: None })
            }
            _ => self.inner.delete_if(pk, sk, expect).await,
        }
    }
}

#[test]
fn an_item_weighs_what_dynamodb_counts() {
    let item = |sk, time_ms, body: Option<&'static [u8]>| {
        Item { sk, id: 0, time_ms, body: body.map(Bytes::from_static), hint: "h".to_owned() }
            .stored_bytes("era")
    };
    // Names pk, sk, id, time_ms, hint; pk; sk; id; time; hint.
    let stub = (2 + 2 + 2 + 7 + 4) + 3 + (1 + 1) + 16 + (1 + 7) + 1;
    assert_eq!(item(9, 1_700_000_000_000, None), stub);
    assert_eq!(item(99, 1_700_000_000_000, None), stub);
    assert_eq!(item(100, 1_700_000_000_000, None), stub + 1);
    assert_eq!(item(0, -1_700_000_000_000, None), stub + 1);
    assert_eq!(item(9, 1_700_000_000_000, Some(b"12345")), stub + 4 + 5);
}
