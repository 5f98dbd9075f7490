//! Restore: a log goes on, in a new era, from a copy of its table (R10).
//!
//! ```text
//!   verify all that the copy names ─▶ end the old chain: commit Store{new era, this table} ─▶ copy index rows
//!     ─▶ copy the chain slot for slot under the new era's key, that Store last ─▶ open it
//! ```
//! The last commit of the old chain is the first of the new one. From that slot on nobody decides in the old era in this
//! table any more, and until it is there under the new key nobody opens the new chain. All else is copied as it is, ids and
//! bodies and stubs, with puts of what is absent: killed anywhere and run again, or run by two at once, the outcome is the
//! same. Nothing is deleted or overwritten.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use crate::env::{SharedEnv, random_u128};
use crate::error::{Error, Result};
use crate::ledger::Settings;
use crate::ledger::action::{Action, Commit, Store as StoreAction};
use crate::ledger::chain::{Chain, STORE_FORMAT};
use crate::ledger::index::IndexRow;
use crate::ledger::view::View;
use crate::ledger::{codec, decide};
use crate::limits;
use crate::plant::{self, Bug};
use crate::record::{Offset, TopicId};
use crate::store::{Place, Store};
use crate::table::{Consistency, Item, Put};
use crate::verify::{Report, verify};

/// What to do, beyond the store and the era.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Go on although some of what the chain names is missing or damaged, as long as the log can be opened.
    pub accept_loss: bool,
    /// Only look.
    pub dry_run: bool,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many segments are read, of so many.
    Verifying(u64, u64),
    /// So many index rows are in the new era.
    Rows(u64),
    /// So many commits are in the new era, of so many.
    Commits(u64, u64),
}

/// What a restore found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What verifying the copy gave; `None`: the new chain was whole before, and nothing was looked at.
    pub report: Option<Report>,
    /// The commit that the new era begins with; 0: nothing was written, because of damage or [`Options::dry_run`].
    pub begins: u64,
    /// Commits that this run copied.
    pub commits: u64,
    /// Index rows that this run copied.
    pub rows: u64,
}

/// Lets the log in `store`, whose table is a copy, go on in `era`. The store's own era is the one that it goes on from.
///
/// # Errors
/// `InvalidField`: the era is not after the copy's, or is taken. `CannotOpen`: there is no log, or the table is no copy but
/// the log's own. `Damaged`: the log could not be opened afterwards, whatever is accepted. `Unavailable`: run it again.
pub async fn restore(
    store: &Store,
    env: SharedEnv,
    era: u16,
    options: Options,
    mut progress: impl FnMut(Step),
) -> Result<Restored> {
    let chain = |era| {
        let (table, objects) = (store.table.clone(), store.objects.clone());
        Chain::new(table, objects, env.clone(), era, Settings::default(), Arc::new(()))
    };
    let restore = Restore { store, from: chain(store.era()), to: chain(era) };
    if era <= store.era() {
        return Err(Error::invalid("era", format!("{era} is not after the copy's own, {}", store.era())));
    }
    let found = restore.from.newest_view().await;
    match &found {
        Ok(view) => restore.check(view)?,
        // Verifying says what, and which records that touches.
        Err(Error::Damaged { .. }) => {}
        Err(error) => return Err(error.clone()),
    }
    if let Some(begins) = restore.begun(found.as_ref().ok()).await? {
        return Ok(Restored { report: None, begins, commits: 0, rows: 0 });
    }
    restore.check_era_is_free().await?;
    let report = verify(store, |done, total| progress(Step::Verifying(done, total))).await?;
    if options.dry_run || !report.damage.is_empty() && !options.accept_loss {
        return Ok(Restored { report: Some(report), begins: 0, commits: 0, rows: 0 });
    }
    found?;
    let view = restore.end().await?;
    if plant::on(Bug::RestoredBeforeRows) {
        restore.commits(view.slot, &mut progress).await?;
    }
    let rows = restore.rows(&view, &mut progress).await?;
    let commits = restore.commits(view.slot, &mut progress).await?;
    // Whoever opens it now does the same.
    restore.to.cold_start().await?;
    Ok(Restored { report: Some(report), begins: view.slot, commits, rows })
}

struct Restore<'a> {
    store: &'a Store,
    from: Chain,
    to: Chain,
}

impl Restore<'_> {
    /// Whether the chain in the copy may go on in the new era here.
    fn check(&self, view: &View) -> Result<()> {
        let (from, to, table) = (self.from.era, self.to.era, self.store.table.name());
        let cannot = |reason| Err(Error::CannotOpen { url: self.store.url.to_string(), reason });
        let Some(newest) = &view.store else {
            return cannot(format!("there is no log of era {from} in it"));
        };
        if newest.format > STORE_FORMAT {
            return Err(Error::Newer { what: format!("store format {}", newest.format) });
        }
        let is_remote = matches!(self.store.url.place, Place::S3(_));
        match (newest.era, newest.table == table) {
            (era, true) if era == from && is_remote => cannot(format!(
                "table {table:?} is no copy: the log was written in it. Restore it under another name, and give that one"
            )),
            (era, _) if era == from => Ok(()),
            (era, true) if era == to => Ok(()),
            (era, _) => cannot(format!(
                "the log ended in era {from} and goes on in era {era}, in table {:?}: to restore from there, add era={era}; \
                 to begin again, copy the table again",
                newest.table
            )),
        }
    }

    /// The commit that the new era begins with, if it is there: it is copied last.
    async fn begun(&self, view: Option<&View>) -> Result<Option<u64>> {
        let first = self.get(&self.from, 1).await?;
        let there = self.get(&self.to, 1).await?;
        if let Some(there) = &there
            && first.as_ref().is_none_or(|first| first.id != there.id)
        {
            return Err(self.taken("it has another log's chain"));
        }
        let Some(view) = view.filter(|view| self.has_ended(view)) else { return Ok(None) };
        Ok(self.get(&self.to, view.slot).await?.map(|item| item.sk))
    }

    fn taken(&self, why: &str) -> Error {
        Error::invalid("era", format!("{} is taken: {why}; choose a greater one", self.to.era))
    }

    /// Two chains of one era over the same objects would sweep each other's.
    async fn check_era_is_free(&self) -> Result<()> {
        for kind in ["l0", "ckpt"] {
            let objects = &self.store.objects;
            let mut listed = objects.list(&format!("{kind}/{:04x}", self.to.era), None);
            if let Some((name, _)) = objects.next(&mut listed).await? {
                return Err(self.taken(&format!("{name} was written in it")));
            }
        }
        Ok(())
    }

    fn has_ended(&self, view: &View) -> bool {
        view.store.as_ref().is_some_and(|store| store.era == self.to.era)
    }

    async fn get(&self, chain: &Chain, slot: u64) -> Result<Option<Item>> {
        let found = chain.timed(self.store.table.get(&chain.pk, slot, Consistency::Strong)).await;
        chain.note(found, "reading the ledger")
    }

    /// Ends the old chain with the new `Store`, unless somebody did; answers the view as of that.
    async fn end(&self) -> Result<View> {
        for attempt in 0..limits::RESTORE_ATTEMPTS_MAX {
            let view = self.from.newest_view().await?;
            self.check(&view)?;
            if self.has_ended(&view) {
                return Ok(view);
            }
            let put = self.put(&self.from.pk, &self.last(&view)?).await;
            // Whoever was first, and whether it was answered: the next look tells.
            if put.is_err() {
                self.from.pause(attempt).await;
            }
        }
        Err(Error::Unavailable { what: "ending the old chain", cause: "others write to it".to_owned() })
    }

    /// The commit that follows `view`.
    fn last(&self, view: &View) -> Result<Item> {
        let Some(known) = &view.store else {
            return Err(Error::damaged("ledger", "no commit says what it is"));
        };
        let table = self.store.table.name().to_owned();
        let action = Action::Store(StoreAction { era: self.to.era, table, ..known.clone() });
        let (slot, id, hint) = (view.slot + 1, random_u128(&*self.from.env), action.kind().to_owned());
        let time_ms = decide::commit_time(view, self.from.now_ms());
        let checkpoint = view.checkpoint.map(|named| named.name);
        let commit = Commit { prev: view.id, time_ms, checkpoint, actions: vec![action] };
        let body = Some(codec::encode(&commit, slot, id)?);
        Ok(Item { sk: slot, id, time_ms, body, hint })
    }

    /// One attempt to put; answers with the id of what is there now, and whether this call put it.
    async fn put(&self, pk: &str, item: &Item) -> Result<(u128, bool)> {
        let put = self.to.timed(self.store.table.put_if_absent(pk, item)).await;
        Ok(match self.to.note(put, "writing the new era")? {
            Put::Stored => (item.id, true),
            Put::Exists(there) => (there.id, false),
        })
    }

    /// Puts until there is an answer: the same item, so that a put that landed late is no other.
    async fn settled(&self, pk: &str, item: &Item) -> Result<(u128, bool)> {
        let mut attempt = 0;
        loop {
            match self.put(pk, item).await {
                Err(Error::Unavailable { .. }) if attempt < limits::RESTORE_ATTEMPTS_MAX => {
                    attempt += 1;
                    self.to.pause(attempt).await;
                }
                settled => return settled,
            }
        }
    }

    /// Puts several at once. Of each: whether what is there now is the same, and whether this call put it.
    async fn put_all(&self, pk: &str, items: Vec<Item>) -> Result<Vec<(bool, bool)>> {
        let puts = stream::iter(items).map(|item| async move {
            let (there, stored) = self.settled(pk, &item).await?;
            Ok((there == item.id, stored))
        });
        puts.buffer_unordered(limits::RESTORE_PUTS).try_collect().await
    }

    /// Copies what says where merged records are.
    async fn rows(&self, view: &View, progress: &mut impl FnMut(Step)) -> Result<u64> {
        let mut copied = 0;
        for (topic, found) in &view.topics {
            for (partition, number) in found.partitions.iter().zip(0..) {
                copied += self.rows_of((*topic, number), partition.indexed_to, view.slot).await?;
                progress(Step::Rows(copied));
            }
        }
        Ok(copied)
    }

    async fn rows_of(&self, place: (TopicId, u32), indexed_to: Offset, last: u64) -> Result<u64> {
        let pk = |chain: &Chain| IndexRow::pk(chain.era, place.0, place.1);
        let (mut copied, mut from) = (0, Some(0));
        while let Some(at) = from {
            let (items, next) = self.page(&self.from, &pk(&self.from), at).await?;
            from = next;
            // One of a commit that the chain does not have: the table was not copied at one moment.
            let (rows, strange): (Vec<_>, Vec<_>) =
                items.into_iter().partition(|item| item.id <= u128::from(last));
            if let Some(row) = strange.iter().find(|row| row.sk < indexed_to) {
                let what = format!("index row {}/{} at {}", place.0, place.1, row.sk);
                let words = format!(
                    "is of commit {}, and the chain ends before {last}: copy the table as of another second",
                    row.id
                );
                return Err(Error::damaged(what, words));
            }
            let puts = self.put_all(&pk(&self.to), rows).await?;
            copied += puts.iter().filter(|(_, stored)| *stored).count() as u64;
        }
        Ok(copied)
    }

    /// Copies the chain up to and with `last`, which is put when all the others are there.
    async fn commits(&self, last: u64, progress: &mut impl FnMut(Step)) -> Result<u64> {
        let (mut copied, mut from) = (0, Some(1));
        while let Some(at) = from {
            let (items, next) = self.page(&self.from, &self.from.pk, at).await?;
            from = next;
            let done = items.last().map_or(last, |item| item.sk);
            let (there, _) = self.page(&self.to, &self.to.pk, at).await?;
            let is_there = |item: &Item| {
                let found = there.binary_search_by_key(&item.sk, |there| there.sk);
                found.is_ok_and(|index| there[index].id == item.id)
            };
            let rest = items.into_iter().filter(|item| item.sk < last && !is_there(item)).collect();
            copied += self.put_commits(rest).await?;
            progress(Step::Commits(done, last));
        }
        let end = self.get(&self.from, last).await?;
        let end = end.ok_or_else(|| Error::damaged(format!("commit {last}"), "is gone"))?;
        Ok(copied + self.put_commits(vec![end]).await?)
    }

    async fn put_commits(&self, items: Vec<Item>) -> Result<u64> {
        let puts = self.put_all(&self.to.pk, items).await?;
        match puts.iter().all(|(same, _)| *same) {
            true => Ok(puts.iter().filter(|(_, stored)| *stored).count() as u64),
            false => Err(self.taken("it has another log's chain")),
        }
    }

    async fn page(&self, chain: &Chain, pk: &str, from: u64) -> Result<(Vec<Item>, Option<u64>)> {
        let page =
            chain.timed(self.store.table.range(pk, from, limits::PAGE_ITEMS, Consistency::Strong)).await;
        let page = chain.note(page, "reading the copy")?;
        let next = page.items.last().filter(|_| page.more).map(|last| last.sk + 1);
        Ok((page.items, next))
    }
}
