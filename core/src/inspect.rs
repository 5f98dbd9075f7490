//! Looking inside: the view, commits and checkpoints, for tools. Nothing here writes.

use crate::error::{Error, Result};
use crate::ledger::action::{CheckpointName, Commit};
use crate::ledger::codec;
use crate::ledger::index::{IndexRow, RowPages};
use crate::ledger::view::View;
use crate::limits;
use crate::log::Log;
use crate::table::Consistency;

/// A commit as the table holds it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its place in the chain.
    pub slot: u64,
    /// Its id; the upper half is the process that made it.
    pub id: u128,
    /// Append time, ms.
    pub time_ms: i64,
    /// Kinds of its actions in plain words.
    pub hint: String,
    /// Bytes of its body; `None`: stripped.
    pub body_bytes: Option<usize>,
    /// What it says; `None`: stripped.
    pub commit: Option<Commit>,
}

impl Log {
    /// Runs `look` on the view of a read that begins now.
    pub async fn fresh_view<T>(&self, look: impl FnOnce(&View) -> T) -> Result<T> {
        let chain = &self.ledger().chain;
        chain.fresh_view(chain.tick(), look).await
    }

    /// Commits from slot `from` on, ascending: at most `limit`, and at most a page.
    pub async fn commits(&self, from: u64, limit: usize) -> Result<Vec<Entry>> {
        let chain = &self.ledger().chain;
        let limit = limit.clamp(1, limits::PAGE_ITEMS);
        let page = chain.timed(chain.table.range(&chain.pk, from, limit, Consistency::Strong)).await;
        let entry = |item: crate::table::Item| {
            let commit = item.body.as_ref().map(|body| codec::decode(body, item.sk, item.id)).transpose()?;
            let body_bytes = item.body.as_ref().map(bytes::Bytes::len);
            let crate::table::Item { sk: slot, id, time_ms, hint, .. } = item;
            Ok(Entry { slot, id, time_ms, hint, body_bytes, commit })
        };
        chain.note(page, "reading the ledger")?.items.into_iter().map(entry).collect()
    }

    /// Where the merged records of a partition are, in order of their offsets: its index rows from the log start on, then
    /// what is pending.
    pub async fn merged(&self, topic: &str, partition: u32) -> Result<Vec<IndexRow>> {
        let chain = &self.ledger().chain;
        let found = chain.fresh_view(chain.tick(), |view| {
            let (id, _, found) = view.partition_or_unknown(topic, partition)?;
            Ok::<_, Error>((id, found.log_start, found.indexed_to, view.pending_rows(id, partition)))
        });
        let (id, log_start, indexed_to, pending) = found.await??;
        let mut merged: Vec<IndexRow> = Vec::new();
        let mut pages = (log_start < indexed_to).then(|| RowPages::new(id, partition, 0));
        while let Some(pages) = &mut pages
            && let Some(rows) = chain.next_rows(pages).await?
        {
            for row in rows.into_iter().map(|stored| stored.row) {
                // After a rewrite several keys say the same of one range.
                let is_new = merged.last().is_none_or(|last| last.range.end < row.range.end);
                if is_new && row.range.end > log_start && row.range.end <= indexed_to {
                    merged.push(row);
                }
            }
        }
        merged.extend(pending);
        Ok(merged)
    }

    /// The view that a checkpoint holds, and its size in bytes; `None`: it is not there.
    pub async fn checkpoint(&self, name: CheckpointName) -> Result<Option<(View, usize)>> {
        let loaded = self.ledger().chain.load_checkpoint(name).await?;
        Ok(loaded.map(|(view, bytes)| (view, bytes.len())))
    }
}
