//! The metadata table: the port through which commits are put and read. One file per adapter, one contract for all.
//!
//! A table holds [`Item`]s under (`pk`, `sk`). The log asks only for what DynamoDB gives in one request: put if absent
//! (answering with what is there), a point read, the newest item up to a key, a range, a replacement and a deletion on condition.

#[cfg(any(test, feature = "contract"))]
pub mod contract;
#[cfg(feature = "aws")]
pub mod dynamodb;
pub mod memory;
pub mod sqlite;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::Error;
use crate::limits::{ITEM_BYTES_MAX, PAGE_ITEMS, TABLE_KEY_BYTES_MAX};

#[cfg(feature = "aws")]
pub use dynamodb::DynamoTable;
pub use memory::MemoryTable;
pub use sqlite::SqliteTable;

/// One item. A ledger's items are its commits (`pk` = `era/ledger`, `sk` = slot).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Sort key: the slot of a commit.
    pub sk: u64,
    /// The commit id: one slot and one body, for ever.
    pub id: u128,
    /// Milliseconds since 1970.
    pub time_ms: i64,
    /// `None`: a stub, stripped of its body.
    pub body: Option<Bytes>,
    /// The kinds of its actions in plain words, for stream filters and people; never for replay.
    pub hint: String,
}

impl Item {
    /// What the item weighs in a page and on the bill, in bytes, as DynamoDB counts: names and values, a number at a
    /// byte for two digits, one more, and one for a sign.
    pub fn stored_bytes(&self, pk: &str) -> usize {
        const NAMES_AND_ID: usize =
            "pk".len() + "sk".len() + "id".len() + "time_ms".len() + "hint".len() + 16;
        let number = |magnitude: u64| 1 + magnitude.checked_ilog10().map_or(1, |log| log as usize / 2 + 1);
        let time = number(self.time_ms.unsigned_abs()) + usize::from(self.time_ms < 0);
        let body = self.body.as_ref().map_or(0, |body| "body".len() + body.len());
        NAMES_AND_ID + pk.len() + number(self.sk) + time + body + self.hint.len()
    }
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Sees every write answered before the read began.
    Strong,
    /// May be behind.
    Eventual,
}

/// An answer, with the time the store gave it, where it has a clock of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// What was asked for.
    pub value: T,
    /// The store's clock, milliseconds since 1970.
    pub store_time_ms: Option<i64>,
}

/// What put if absent found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// Nothing was there; the item is stored and durable.
    Stored,
    /// This was there, whole (or a stub); nothing was changed.
    Exists(Item),
}

/// A run of items in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The items.
    pub items: Vec<Item>,
    /// The page ended at its limit, not at the end: ask again from the last item's `sk + 1`.
    pub more: bool,
}

/// Why a request has no answer (L3). The difference is what decides between losing and duplicating records.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TableError {
    /// Definitely not applied, and it will never be: the request itself is refused (validation, access denied).
    #[error("refused: {0}")]
    Refused(String),
    /// Definitely not applied; later it may be (throttled, locked).
    #[error("throttled: {0}")]
    Throttled(String),
    /// No answer: a write may have been applied, may be applied later, or never.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// The table's own storage is damaged.
    #[error("damaged: {0}")]
    Damaged(String),
}

impl TableError {
    /// For callers that only pass it on: `what` was asked of the table named `table`.
    ///
    /// A write whose outcome matters is not passed on but settled (L3).
    pub fn into_error(self, what: &'static str, table: &str) -> Error {
        match self {
            Self::Refused(reason) => Error::CannotOpen { url: format!("table {table}"), reason },
            Self::Throttled(cause) | Self::NoAnswer(cause) => Error::Unavailable { what, cause },
            Self::Damaged(detail) => Error::damaged(format!("table {table}"), detail),
        }
    }
}

/// The greatest sort key that every adapter can hold.
pub const SK_MAX: u64 = i64::MAX as u64;

/// Refuses a key that DynamoDB would refuse, or a slot that not every adapter can hold.
pub(crate) fn check_key(pk: &str, sk: u64) -> Result<(), TableError> {
    if pk.is_empty() || pk.len() > TABLE_KEY_BYTES_MAX {
        let size = pk.len();
        return Err(TableError::Refused(format!(
            "pk has {size} bytes, allowed are 1 to {TABLE_KEY_BYTES_MAX}"
        )));
    }
    if sk > SK_MAX {
        return Err(TableError::Refused(format!("sk is {sk}, limit {SK_MAX}")));
    }
    Ok(())
}

/// Refuses an item whose key or size is out of bounds.
pub(crate) fn check_item(pk: &str, item: &Item) -> Result<(), TableError> {
    check_key(pk, item.sk)?;
    let size = item.stored_bytes(pk);
    if size > ITEM_BYTES_MAX {
        return Err(TableError::Refused(format!("item has {size} bytes, limit {ITEM_BYTES_MAX}")));
    }
    Ok(())
}

/// Refuses a range of nothing; more than a page's items is a page's items.
pub(crate) fn check_limit(limit: usize) -> Result<usize, TableError> {
    if limit == 0 {
        return Err(TableError::Refused("limit is 0, allowed is 1 and more".to_owned()));
    }
    Ok(limit.min(PAGE_ITEMS))
}

/// A result of a table request.
pub type TableResult<T> = Result<Answer<T>, TableError>;

/// The metadata table.
///
/// **The law:** if `put_if_absent` answers `Stored`, the item is durable, no other item was or ever will be stored
/// under that key, and every strong read that begins later sees it.
#[async_trait]
pub trait Table: Debug + Send + Sync + 'static {
    /// The table's own name, compared with the one in slot 1 (R10). A folder's is `local`.
    fn name(&self) -> &str;

    /// Stores `item` if nothing is there, else answers with what is.
    async fn put_if_absent(&self, pk: &str, item: &Item) -> TableResult<Put>;

    /// The item at `sk`.
    async fn get(&self, pk: &str, sk: u64, consistency: Consistency) -> TableResult<Option<Item>>;

    /// The item with the greatest `sk` up to `to`.
    async fn newest(&self, pk: &str, to: u64, consistency: Consistency) -> TableResult<Option<Item>>;

    /// Items with `sk >= from`, ascending, at most `limit` (1 or more) and at most a page's items and bytes.
    async fn range(&self, pk: &str, from: u64, limit: usize, consistency: Consistency) -> TableResult<Page>;

    /// Replaces the item at `item.sk` if the one there has the id `expect`. `false`: it has not, or nothing is there.
    async fn replace_if(&self, pk: &str, item: &Item, expect: u128) -> TableResult<bool>;

    /// Deletes the item at `sk` if it has the id `expect`. `false`: it has not, or nothing is there.
    async fn delete_if(&self, pk: &str, sk: u64, expect: u128) -> TableResult<bool>;
}

/// A shared [`Table`].
pub type SharedTable = Arc<dyn Table>;
