//! What every [`Table`](super::Table) adapter must do, as one suite.
//!
//! [`check`] takes two handles onto the same table (two connections, two processes' worth of caches, or twice the
//! same one): what one wrote, the other must see. It leaves its items behind, under keys that begin with `contract/`
//! and that no other run uses. Each broken promise is an `Err` that names the check and what it saw; that the suite
//! notices broken adapters is itself tested, in `contract/tests.rs`.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use tokio::sync::Barrier;

use super::{Consistency, Item, Page, Put, SK_MAX, SharedTable, TableError};
use crate::env::{SystemEnv, random_u128};
use crate::limits::{COMMIT_BYTES_MAX, ITEM_BYTES_MAX, PAGE_BYTES, TABLE_KEY_BYTES_MAX};

/// A broken promise, in words.
pub type Broken = String;

macro_rules! ensure {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err(format!($($words)+));
        }
    };
}

/// The name of a check, and the check.
type Check = (&'static str, fn(Bench) -> BoxFuture<'static, Result<(), Broken>>);

/// The checks, each on keys of its own.
const CHECKS: &[Check] = &[
    ("a key has one winner", |b| Box::pin(one_winner(b))),
    ("exists answers with the whole item", |b| Box::pin(exists_is_whole(b))),
    ("a strong read sees every answered write", |b| Box::pin(strong_reads(b))),
    ("order and paging", |b| Box::pin(order_and_paging(b))),
    ("pages end by bytes", |b| Box::pin(pages_end_by_bytes(b))),
    ("a stub keeps its id", |b| Box::pin(stubs(b))),
    ("replace on condition", |b| Box::pin(replace_if(b))),
    ("delete on condition", |b| Box::pin(delete_if(b))),
    ("replace has one winner", |b| Box::pin(one_replacement(b))),
    ("sizes", |b| Box::pin(sizes(b))),
    ("empty is not absent", |b| Box::pin(empty_is_not_absent(b))),
    ("keys are kept apart", |b| Box::pin(keys_are_apart(b))),
    ("extreme values", |b| Box::pin(extremes(b))),
    ("eventual reads are older states", |b| Box::pin(eventual_reads(b))),
];

/// Runs every check, and answers with the first broken promise.
///
/// # Errors
/// The check's name and what it saw.
pub async fn check(a: &SharedTable, b: &SharedTable) -> Result<(), Broken> {
    let run = random_u128(&*SystemEnv::shared());
    for (number, (name, check)) in CHECKS.iter().enumerate() {
        let pk = format!("contract/{run:032x}/{number:02}");
        let bench = Bench { a: a.clone(), b: b.clone(), pk };
        check(bench).await.map_err(|broken| format!("{name}: {broken}"))?;
    }
    Ok(())
}

/// Two handles, and the key that a check works under.
#[derive(Clone)]
struct Bench {
    a: SharedTable,
    b: SharedTable,
    pk: String,
}

/// Puts once more when the table is busy: a throttled put was definitely not applied (L3).
async fn put(table: &SharedTable, pk: &str, item: &Item) -> Result<Put, Broken> {
    for _ in 0..20 {
        match table.put_if_absent(pk, item).await {
            Err(TableError::Throttled(_)) => continue,
            other => return told(other),
        }
    }
    Err("a put was throttled 20 times".to_owned())
}

fn told<T>(answer: super::TableResult<T>) -> Result<T, Broken> {
    answer.map(|answer| answer.value).map_err(|error| format!("unexpected answer: {error}"))
}

fn item(sk: u64, id: u128, body: &[u8]) -> Item {
    let body = Some(Bytes::copy_from_slice(body));
    Item { sk, id, time_ms: 1_700_000_000_000 + (sk % 1_000) as i64, body, hint: format!("Append {sk}") }
}

impl Bench {
    async fn store(&self, item: &Item) -> Result<(), Broken> {
        let put = put(&self.a, &self.pk, item).await?;
        ensure!(put == Put::Stored, "a put of an absent key answered {put:?}");
        Ok(())
    }

    async fn get(&self, sk: u64) -> Result<Option<Item>, Broken> {
        told(self.b.get(&self.pk, sk, Consistency::Strong).await)
    }

    async fn range(&self, from: u64, limit: usize) -> Result<Page, Broken> {
        told(self.b.range(&self.pk, from, limit, Consistency::Strong).await)
    }

    /// All items, page by page, and the number of pages.
    async fn all(&self, limit: usize) -> Result<(Vec<Item>, usize), Broken> {
        let (mut items, mut from) = (Vec::new(), 0);
        for pages in 1..=10_000 {
            let page = self.range(from, limit).await?;
            ensure!(page.items.len() <= limit, "{} items on a page of {limit}", page.items.len());
            let last = page.items.last().map(|item| item.sk);
            items.extend(page.items);
            match (page.more, last) {
                (false, _) => return Ok((items, pages)),
                (true, Some(last)) => from = last + 1,
                (true, None) => return Err("an empty page promises more, so paging cannot go on".to_owned()),
            }
        }
        Err("paging does not end".to_owned())
    }
}

async fn one_winner(bench: Bench) -> Result<(), Broken> {
    for slot in 1..=4 {
        let start = Arc::new(Barrier::new(64));
        let writers = (0..64u128).map(|id| {
            let (bench, start) = (bench.clone(), start.clone());
            tokio::spawn(async move {
                start.wait().await;
                let table = if id % 2 == 0 { &bench.a } else { &bench.b };
                put(table, &bench.pk, &item(slot, id, &id.to_be_bytes())).await
            })
        });
        let mut answers = Vec::new();
        for answer in join_all(writers).await {
            answers.push(answer.map_err(|error| error.to_string())??);
        }
        let winners: Vec<usize> = (0..64).filter(|&id| answers[id] == Put::Stored).collect();
        ensure!(winners.len() == 1, "{} of 64 puts to one key were stored", winners.len());
        let won = item(slot, winners[0] as u128, &(winners[0] as u128).to_be_bytes());
        for answer in answers.iter().filter(|answer| **answer != Put::Stored) {
            ensure!(
                *answer == Put::Exists(won.clone()),
                "a loser was answered {answer:?}, the winner is {won:?}"
            );
        }
        let read = bench.get(slot).await?;
        ensure!(read == Some(won), "the winner is not what is read: {read:?}");
    }
    Ok(())
}

async fn exists_is_whole(bench: Bench) -> Result<(), Broken> {
    let first = item(3, 1, &[7; 5_000]);
    bench.store(&first).await?;
    // Another body, and the same item again (a retry of the same commit).
    for second in [item(3, 2, b"other"), first.clone()] {
        for table in [&bench.a, &bench.b] {
            let answer = put(table, &bench.pk, &second).await?;
            ensure!(answer == Put::Exists(first.clone()), "answered {answer:?} where {first:?} is");
        }
        let read = bench.get(3).await?;
        ensure!(read == Some(first.clone()), "a refused put changed the item to {read:?}");
    }
    Ok(())
}

async fn strong_reads(bench: Bench) -> Result<(), Broken> {
    ensure!(bench.get(1).await?.is_none(), "an item where none was put");
    let newest = told(bench.b.newest(&bench.pk, SK_MAX, Consistency::Strong).await)?;
    ensure!(newest.is_none(), "a newest item where none was put");
    for sk in 1..=50 {
        let item = item(sk, u128::from(sk), b"x");
        bench.store(&item).await?;
        let read = bench.get(sk).await?;
        ensure!(read.as_ref() == Some(&item), "get after put {sk} saw {read:?}");
        let newest = told(bench.b.newest(&bench.pk, SK_MAX, Consistency::Strong).await)?;
        ensure!(newest.as_ref() == Some(&item), "newest after put {sk} saw {newest:?}");
        let tail = bench.range(sk, 10).await?;
        ensure!(tail.items == [item], "range after put {sk} saw {tail:?}");
    }
    Ok(())
}

async fn order_and_paging(bench: Bench) -> Result<(), Broken> {
    // Put out of order; 256 and 10 tell numbers from bytes and from decimal text.
    let slots = [9, 2, 256, 10, 1, 255, 11, 300, 3, 65_536];
    for sk in slots {
        bench.store(&item(sk, u128::from(sk), b"x")).await?;
    }
    let mut sorted = slots;
    sorted.sort_unstable();
    let newest = told(bench.b.newest(&bench.pk, SK_MAX, Consistency::Strong).await)?;
    ensure!(newest.as_ref().is_some_and(|item| item.sk == 65_536), "newest is {newest:?}");
    for (to, wanted) in
        [(0, None), (1, Some(1)), (8, Some(3)), (9, Some(9)), (299, Some(256)), (65_535, Some(300))]
    {
        let newest = told(bench.b.newest(&bench.pk, to, Consistency::Strong).await)?;
        let found = newest.map(|item| item.sk);
        ensure!(found == wanted, "the newest up to {to} is {found:?}, not {wanted:?}");
    }
    for limit in [1, 3, 10, 1_000] {
        let (items, pages) = bench.all(limit).await?;
        let found: Vec<u64> = items.iter().map(|item| item.sk).collect();
        ensure!(found == sorted, "pages of {limit} gave {found:?}");
        ensure!(pages <= 10 / limit + 2, "{pages} pages of {limit} for 10 items");
    }
    let page = bench.range(10, 3).await?;
    let found: Vec<u64> = page.items.iter().map(|item| item.sk).collect();
    ensure!(found == [10, 11, 255] && page.more, "range from 10 gave {found:?}, more {}", page.more);
    let page = bench.range(65_537, 3).await?;
    ensure!(page.items.is_empty() && !page.more, "range past the end gave {page:?}");
    let none = bench.b.range(&bench.pk, 1, 0, Consistency::Strong).await;
    ensure!(matches!(none, Err(TableError::Refused(_))), "a range of at most 0 items answered {none:?}");
    Ok(())
}

async fn pages_end_by_bytes(bench: Bench) -> Result<(), Broken> {
    for sk in 1..=8 {
        bench.store(&item(sk, u128::from(sk), &vec![sk as u8; COMMIT_BYTES_MAX])).await?;
    }
    let page = bench.range(1, 100).await?;
    let bytes: usize = page.items.iter().map(|item| item.stored_bytes(&bench.pk)).sum();
    ensure!(bytes <= PAGE_BYTES + ITEM_BYTES_MAX, "a page of {bytes} bytes");
    ensure!(!page.items.is_empty() && page.more, "8 large items on a page of {}", page.items.len());
    let (items, _) = bench.all(100).await?;
    ensure!(items.len() == 8, "paging large items gave {} of 8", items.len());
    let whole =
        items.iter().all(|item| item.body.as_ref().is_some_and(|body| body.len() == COMMIT_BYTES_MAX));
    ensure!(whole, "a large body came back short");
    Ok(())
}

async fn stubs(bench: Bench) -> Result<(), Broken> {
    let whole = item(4, 99, b"body");
    bench.store(&whole).await?;
    let stub = Item { body: None, ..whole.clone() };
    let done = told(bench.a.replace_if(&bench.pk, &stub, whole.id).await)?;
    ensure!(done, "a strip on the right id was refused");
    let read = bench.get(4).await?;
    ensure!(read.as_ref() == Some(&stub), "the stub is read as {read:?}");
    let page = bench.range(1, 10).await?;
    ensure!(page.items.as_slice() == [stub.clone()], "a range sees the stub as {page:?}");
    let answer = put(&bench.b, &bench.pk, &whole).await?;
    ensure!(answer == Put::Exists(stub.clone()), "a put onto a stub answered {answer:?}");
    // Twice is the same.
    ensure!(told(bench.b.replace_if(&bench.pk, &stub, whole.id).await)?, "a second strip was refused");
    let read = bench.get(4).await?;
    ensure!(read.as_ref() == Some(&stub), "after a second strip the stub is read as {read:?}");
    Ok(())
}

async fn replace_if(bench: Bench) -> Result<(), Broken> {
    let first = item(5, 1, b"first");
    let second = item(5, 2, b"second, and longer");
    let absent = told(bench.a.replace_if(&bench.pk, &first, 1).await)?;
    ensure!(!absent && bench.get(5).await?.is_none(), "a replacement of nothing stored something");
    bench.store(&first).await?;
    let wrong = told(bench.a.replace_if(&bench.pk, &second, 2).await)?;
    ensure!(!wrong, "a replacement on a wrong id was done");
    let read = bench.get(5).await?;
    ensure!(read.as_ref() == Some(&first), "a refused replacement changed the item to {read:?}");
    let right = told(bench.a.replace_if(&bench.pk, &second, 1).await)?;
    let read = bench.get(5).await?;
    ensure!(right && read.as_ref() == Some(&second), "a replacement on the right id left {read:?}");
    Ok(())
}

async fn delete_if(bench: Bench) -> Result<(), Broken> {
    ensure!(!told(bench.a.delete_if(&bench.pk, 6, 1).await)?, "a deletion of nothing was done");
    bench.store(&item(6, 1, b"x")).await?;
    bench.store(&item(7, 1, b"neighbour")).await?;
    ensure!(!told(bench.a.delete_if(&bench.pk, 6, 2).await)?, "a deletion on a wrong id was done");
    ensure!(bench.get(6).await?.is_some(), "a refused deletion deleted");
    ensure!(told(bench.a.delete_if(&bench.pk, 6, 1).await)?, "a deletion on the right id was refused");
    ensure!(bench.get(6).await?.is_none(), "a deleted item is read");
    ensure!(bench.get(7).await?.is_some(), "a deletion took its neighbour along");
    bench.store(&item(6, 3, b"again")).await
}

async fn one_replacement(bench: Bench) -> Result<(), Broken> {
    bench.store(&item(8, 1_000, b"x")).await?;
    let swaps = (0..16u128).map(|id| {
        let bench = bench.clone();
        tokio::spawn(async move {
            let table = if id % 2 == 0 { &bench.a } else { &bench.b };
            told(table.replace_if(&bench.pk, &item(8, id, b"y"), 1_000).await)
        })
    });
    let mut done = Vec::new();
    for (id, answer) in join_all(swaps).await.into_iter().enumerate() {
        if answer.map_err(|error| error.to_string())?? {
            done.push(id as u128);
        }
    }
    ensure!(done.len() == 1, "{} of 16 replacements on one id were done", done.len());
    let read = bench.get(8).await?;
    ensure!(
        read.as_ref().is_some_and(|item| item.id == done[0]),
        "replacement {done:?} won, {read:?} is read"
    );
    Ok(())
}

async fn sizes(bench: Bench) -> Result<(), Broken> {
    let largest = item(1, 1, &vec![9; COMMIT_BYTES_MAX]);
    bench.store(&largest).await?;
    ensure!(bench.get(1).await? == Some(largest), "the largest commit came back changed");
    let too_large = item(2, 2, &vec![9; ITEM_BYTES_MAX + 1]);
    let refused = |answer: &Result<_, TableError>| matches!(answer, Err(TableError::Refused(_)));
    ensure!(
        refused(&bench.a.put_if_absent(&bench.pk, &too_large).await.map(drop)),
        "a too large item was accepted"
    );
    let swap = bench.a.replace_if(&bench.pk, &Item { sk: 1, ..too_large }, 1).await.map(drop);
    ensure!(refused(&swap), "a replacement by a too large item was accepted");
    ensure!(bench.get(2).await?.is_none(), "a refused item is there");
    for pk in [String::new(), "k".repeat(TABLE_KEY_BYTES_MAX + 1)] {
        let answer = bench.a.put_if_absent(&pk, &item(1, 1, b"x")).await.map(drop);
        ensure!(refused(&answer), "a key of {} bytes was accepted", pk.len());
    }
    let slot = bench.a.put_if_absent(&bench.pk, &item(i64::MAX as u64 + 1, 1, b"x")).await.map(drop);
    ensure!(refused(&slot), "a slot above 2^63-1 was accepted");
    Ok(())
}

async fn empty_is_not_absent(bench: Bench) -> Result<(), Broken> {
    let empty = Item { hint: String::new(), ..item(1, 1, b"") };
    let stub = Item { body: None, ..item(2, 2, b"") };
    bench.store(&empty).await?;
    bench.store(&stub).await?;
    ensure!(bench.get(1).await? == Some(empty), "an empty body or hint came back changed");
    ensure!(bench.get(2).await? == Some(stub), "a stub came back changed");
    Ok(())
}

async fn keys_are_apart(bench: Bench) -> Result<(), Broken> {
    // A neighbour on each side, a prefix, and one that differs in case.
    let others =
        ["", "0", "/0", "A", "a"].map(|end| Bench { pk: format!("{}{end}", bench.pk), ..bench.clone() });
    for (number, other) in others.iter().enumerate() {
        for sk in 1..=3 {
            other.store(&item(sk + number as u64, number as u128, b"x")).await?;
        }
    }
    for (number, other) in others.iter().enumerate() {
        let (items, _) = other.all(2).await?;
        let own = items.iter().all(|item| item.id == number as u128);
        ensure!(items.len() == 3 && own, "the range of {} saw {items:?}", other.pk);
        let newest = told(other.b.newest(&other.pk, SK_MAX, Consistency::Strong).await)?;
        ensure!(newest.is_some_and(|item| item.id == number as u128), "newest of {} is another's", other.pk);
    }
    Ok(())
}

async fn extremes(bench: Bench) -> Result<(), Broken> {
    let low = Item { time_ms: i64::MIN, hint: "ä\0\"🚀".to_owned(), ..item(0, 0, &[0, 255, 0]) };
    let high = Item { time_ms: i64::MAX, ..item(i64::MAX as u64, u128::MAX, &[0; 16]) };
    for item in [low, high] {
        bench.store(&item).await?;
        let read = bench.get(item.sk).await?;
        ensure!(read.as_ref() == Some(&item), "{item:?} came back as {read:?}");
    }
    let long = Bench { pk: format!("{:x<width$}", bench.pk, width = TABLE_KEY_BYTES_MAX), ..bench };
    long.store(&item(1, 1, b"x")).await?;
    ensure!(long.get(1).await?.is_some(), "the longest key does not find its item");
    Ok(())
}

async fn eventual_reads(bench: Bench) -> Result<(), Broken> {
    for sk in 1..=30u64 {
        bench.store(&item(sk, u128::from(sk), b"x")).await?;
        let read = told(bench.b.get(&bench.pk, sk, Consistency::Eventual).await)?;
        ensure!(
            read.is_none_or(|read| read == item(sk, u128::from(sk), b"x")),
            "an eventual read invented an item"
        );
        let page = told(bench.b.range(&bench.pk, 1, 100, Consistency::Eventual).await)?;
        let seen: Vec<u64> = page.items.iter().map(|item| item.sk).collect();
        // Puts one after the other: an adapter may be behind, but what it shows of one ledger has no holes.
        ensure!(seen.iter().copied().eq(1..=seen.len() as u64), "an eventual range saw {seen:?}");
        ensure!(seen.len() as u64 <= sk, "an eventual range saw the future");
    }
    Ok(())
}
