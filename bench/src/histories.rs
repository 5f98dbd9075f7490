//! Long histories, made fast: a chain in memory, then copied into a folder as it is.
//!
//! SQLite syncs each commit to disk, and 10⁵ of them would take minutes that measure nothing.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use rusqlite::params;
use tidelog_core::Log;
use tidelog_core::env::SystemEnv;
use tidelog_core::ledger::Settings;
use tidelog_core::ledger::action::{Data, LEDGER, ObjectRef};
use tidelog_core::ledger::commit::BatchResult;
use tidelog_core::ledger::decide::{AppendProposal, BatchProposal};
use tidelog_core::record::{RecordSum, TopicId};
use tidelog_core::segment::{Layout, Span};
use tidelog_core::store::{Place, Store, StoreUrl};
use tidelog_core::table::{
    Consistency, Item, MemoryTable, Page, Put, SqliteTable, Table, TableResult, sqlite,
};

use crate::Fallible;

/// A table in memory that goes by the name of a folder's, so that its chain may go on in one.
#[derive(Debug, Default)]
struct Local(MemoryTable);

#[async_trait]
impl Table for Local {
    fn name(&self) -> &str {
        "local"
    }
    async fn put_if_absent(&self, pk: &str, item: &Item) -> TableResult<Put> {
        self.0.put_if_absent(pk, item).await
    }
    async fn get(&self, pk: &str, sk: u64, consistency: Consistency) -> TableResult<Option<Item>> {
        self.0.get(pk, sk, consistency).await
    }
    async fn newest(&self, pk: &str, to: u64, consistency: Consistency) -> TableResult<Option<Item>> {
        self.0.newest(pk, to, consistency).await
    }
    async fn range(&self, pk: &str, from: u64, limit: usize, consistency: Consistency) -> TableResult<Page> {
        self.0.range(pk, from, limit, consistency).await
    }
    async fn replace_if(&self, pk: &str, item: &Item, expect: u128) -> TableResult<bool> {
        self.0.replace_if(pk, item, expect).await
    }
    async fn delete_if(&self, pk: &str, sk: u64, expect: u128) -> TableResult<bool> {
        self.0.delete_if(pk, sk, expect).await
    }
}

/// A log in memory that can be copied into a folder.
#[derive(Debug)]
pub struct History {
    /// The log.
    pub log: Log,
    store: Store,
}

impl History {
    /// An empty log; `checkpoints`: made and stripped as usual, or only when asked for.
    pub async fn new(checkpoints: bool) -> Fallible<Self> {
        let env = SystemEnv::shared();
        let table = Arc::new(Local::default());
        let store = Store { table, ..Store::memory(env.clone()) };
        let usual = Settings::default();
        let settings = if checkpoints { usual } else { Settings { checkpoint_commits: 0, ..usual } };
        let log = Log::with_store(store.clone(), env, true, settings).await?;
        Ok(Self { log, store })
    }

    /// Makes a store of `folder`: every item and every checkpoint as it is here.
    pub async fn copy_to(&self, folder: &Path) -> Fallible<()> {
        let url = StoreUrl { place: Place::Folder(folder.to_owned()), era: 0 };
        drop(Store::open(&url, SystemEnv::shared(), true).await?);
        let pk = format!("{:04x}/{LEDGER:04x}", 0);
        let mut db = rusqlite::Connection::open(folder.join(sqlite::FILE))?;
        let insert = db.transaction()?;
        let mut from = 1;
        loop {
            let page = self.store.table.range(&pk, from, usize::MAX, Consistency::Strong).await?.value;
            for item in &page.items {
                insert.execute(
                    "INSERT INTO items (pk, sk, id, time_ms, body, hint) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    params![
                        pk,
                        item.sk,
                        item.id.to_be_bytes(),
                        item.time_ms,
                        item.body.as_deref(),
                        item.hint
                    ],
                )?;
                from = item.sk + 1;
            }
            if !page.more {
                break;
            }
        }
        insert.commit()?;
        drop(db);
        // What SQLite does at its leisure is done before anything is timed.
        drop(SqliteTable::open(folder, false)?);
        let objects = self.store.objects.store();
        for found in objects.list(None).try_collect::<Vec<_>>().await? {
            let file = folder.join(found.location.to_string());
            std::fs::create_dir_all(file.parent().ok_or("a file lies in a folder")?)?;
            std::fs::write(file, objects.get(&found.location).await?.bytes().await?)?;
        }
        Ok(())
    }
}

/// Commits a segment with a slice for each of these partitions. Its object is named, but not there: nothing that looks at
/// the ledger alone reads it.
pub async fn append_slices(log: &Log, topic: TopicId, partitions: &[u32], n: u64) -> Fallible<()> {
    const SLICES_PER_GROUP: usize = 8;
    const ROWS: u64 = 97;
    let mut position = 4;
    let mut span = |length: u32| {
        position += length;
        Span { position: position - length, length, crc: mix(n, position) as u32 }
    };
    let groups = (0..partitions.len().div_ceil(SLICES_PER_GROUP)).map(|_| span(100_000)).collect();
    let layout = Layout { groups, footer: span(2_000) };
    let drawn = log.ledger().chain_slot();
    let object = ObjectRef { era: 0, ledger: LEDGER, drawn, ulid: mix(n, 0) };
    let time_us = 1_766_000_000_000_000 + n as i64 * 50_000;
    let batch = |(i, partition): (usize, &u32)| BatchProposal {
        topic,
        partition: *partition,
        group: (i / SLICES_PER_GROUP) as u32,
        first_row: i as u64 * ROWS,
        rows: ROWS as u32,
        time_us: (time_us, time_us + 49_999),
        sum: RecordSum { hashes: mix(n, *partition), places: mix(!n, *partition) },
        identity: None,
    };
    let batches = partitions.iter().enumerate().map(batch).collect();
    let proposal = AppendProposal { data: Data::Object { object, layout }, batches };
    let results = log.ledger().append(proposal).await?;
    match results.iter().all(|result| matches!(result, BatchResult::Placed { .. })) {
        true => Ok(()),
        false => Err(format!("{:?}", results.first()).into()),
    }
}

/// Bytes without a pattern, as sums and ids have them.
fn mix(n: u64, salt: u32) -> u128 {
    let step = |x: u64| {
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let low = step(n.wrapping_add(u64::from(salt).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    u128::from(low) << 64 | u128::from(step(low))
}
