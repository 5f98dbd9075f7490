//! The chain: every commit decoded and replayed, every checkpoint compared with what replay gives.
//!
//! Behind a damaged commit replay cannot go on, unless a checkpoint covers it. Then commits are read one by one, and what
//! is missing between the slices of a partition is what the damaged ones placed.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::{Damage, Known, Report, twice};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::action::*;
use crate::ledger::view::{Place, Slice, View};
use crate::ledger::{checkpoint, codec};
use crate::limits;
use crate::objects::ObjectName;
use crate::record::{Offset, TopicId};
use crate::store::Store;
use crate::table::{Consistency, Item, Page, TableError};

/// Partition key of the store's ledger.
pub(super) fn pk(store: &Store) -> String {
    format!("{:04x}/{LEDGER:04x}", store.era())
}

pub(super) async fn walk(store: &Store, report: &mut Report) -> Result<Known> {
    let mut walk = Walk {
        store,
        report,
        named: BTreeMap::new(),
        view: Some(View::default()),
        kept: View::default(),
        ends: BTreeMap::new(),
        ends_known: true,
        open: Vec::new(),
        loose: Vec::new(),
        known: Known::default(),
        last: None,
    };
    // First which checkpoints there are, so that the second pass can compare and go on from them.
    let (mut from, pk) = (1, pk(store));
    while let Some(page) = walk.page(&pk, from).await? {
        page.items.iter().for_each(|item| walk.names(item));
        let Some(last) = page.items.last().filter(|_| page.more) else { break };
        from = last.sk + 1;
    }
    let mut from = 1;
    while let Some(page) = walk.page(&pk, from).await? {
        for item in &page.items {
            walk.item(item).await?;
        }
        let Some(last) = page.items.last().filter(|_| page.more) else { break };
        from = last.sk + 1;
    }
    walk.finish().await
}

struct Walk<'a> {
    store: &'a Store,
    report: &'a mut Report,
    /// Checkpoints that commits name, by the commit that they are as of.
    named: BTreeMap<u64, CheckpointName>,
    /// The state, as long as replay holds.
    view: Option<View>,
    /// The state when it was lost.
    kept: View,
    /// Next offsets, by slices alone.
    ends: BTreeMap<(TopicId, u32), Offset>,
    /// No stub lies between `ends` and here.
    ends_known: bool,
    /// Damaged commits whose slices nothing has shown yet: indices into the report.
    open: Vec<usize>,
    /// Slices of commits that no view holds.
    loose: Vec<(TopicId, u32, Slice)>,
    known: Known,
    last: Option<(u64, u128)>,
}

impl Walk<'_> {
    async fn page(&mut self, pk: &str, from: u64) -> Result<Option<Page>> {
        let found = self.store.table.range(pk, from, limits::PAGE_ITEMS, Consistency::Strong).await;
        match found {
            Ok(answer) => Ok(Some(answer.value)),
            Err(TableError::Damaged(detail)) => {
                let what = format!("table {}", self.store.table.name());
                if !self.report.damage.iter().any(|damage| damage.what == what) {
                    self.report.damaged(
                        what,
                        format!("{detail}; commits from {from} on cannot be read"),
                        Vec::new(),
                    );
                }
                Ok(None)
            }
            Err(error) => Err(error.into_error("reading the ledger", self.store.table.name())),
        }
    }

    fn names(&mut self, item: &Item) {
        let Some(Ok(commit)) = item.body.as_ref().map(|body| codec::decode(body, item.sk, item.id)) else {
            return;
        };
        self.named.extend(commit.checkpoint.map(|name| (name.at, name)));
        for action in &commit.actions {
            match action {
                Action::Checkpoint(named) => _ = self.named.insert(named.name.at, named.name),
                Action::Topic(TopicChange::Create { id, name, .. }) => {
                    self.known.names.insert(*id, name.clone());
                }
                _ => {}
            }
        }
    }

    async fn item(&mut self, item: &Item) -> Result<()> {
        self.report.commits += 1;
        let next = self.last.map_or(1, |(slot, _)| slot + 1);
        if item.sk != next {
            let what = match item.sk - 1 == next {
                true => format!("commit {next}"),
                false => format!("commits {next} to {}", item.sk - 1),
            };
            self.lost(what, "missing".to_owned(), None);
        }
        match &item.body {
            None => {
                self.report.stripped += 1;
                self.forget();
                self.ends_known = false;
            }
            Some(body) => self.body(item, body)?,
        }
        self.last = Some((item.sk, item.id));
        if let Some(name) = self.named.get(&item.sk).copied() {
            self.checkpoint(name).await?;
        }
        Ok(())
    }

    fn body(&mut self, item: &Item, body: &Bytes) -> Result<()> {
        let what = format!("commit {}", item.sk);
        let commit = match codec::decode(body, item.sk, item.id) {
            Ok(commit) => commit,
            Err(error @ Error::Newer { .. }) => return Err(error),
            Err(error) => {
                self.lost(what, detail(&error), Some(item.sk));
                return Ok(());
            }
        };
        if let Some((slot, id)) = self.last.filter(|(slot, id)| slot + 1 == item.sk && *id != commit.prev) {
            let words = format!("follows commit {:032x}, but commit {slot} is {id:032x}", commit.prev);
            self.report.damaged(&what, words, Vec::new());
        }
        if commit.time_ms != item.time_ms {
            let words = format!("says {} ms, the item beside it {} ms", commit.time_ms, item.time_ms);
            self.report.damaged(&what, words, Vec::new());
        }
        self.appends(item, &commit);
        if let Some(view) = &mut self.view
            && let Err(error) = view.apply(item.sk, item.id, &commit)
        {
            // `last` differs from the view's own id only when that was told already.
            self.lost(what, detail(&error), Some(item.sk));
        }
        Ok(())
    }

    /// Replay ends here, and somebody will ask what was in it.
    fn lost(&mut self, what: String, detail: String, slot: Option<u64>) {
        self.forget();
        self.open.push(self.report.damage.len());
        self.report.damage.push(Damage { what, detail, touches: Vec::new(), slot });
    }

    fn forget(&mut self) {
        if let Some(view) = self.view.take() {
            self.kept = view;
        }
    }

    /// Accounts for slices by themselves.
    fn appends(&mut self, item: &Item, commit: &Commit) {
        for (index, action) in commit.actions.iter().enumerate() {
            let Action::Append(append) = action else { continue };
            let place = match &append.data {
                Data::Object { object, layout } => Place::Object(*object, Arc::new(layout.clone())),
                Data::Inline(body) => Place::Inline { action: index as u32, length: body.len() as u32 },
            };
            for body in &append.slices {
                let end = self.ends.entry((body.topic, body.partition)).or_default();
                let before = std::mem::replace(end, body.base.saturating_add(body.rows()));
                if self.ends_known && body.base > before {
                    let touched = self.known.touched(body.topic, body.partition, before, body.base);
                    for index in &self.open {
                        self.report.damage[*index].touches.extend(touched.clone());
                    }
                }
                if self.view.is_none() {
                    self.loose.push((body.topic, body.partition, loose(item, commit, body, place.clone())));
                }
            }
        }
    }

    /// Compares a checkpoint with the state, or goes on from it.
    async fn checkpoint(&mut self, name: CheckpointName) -> Result<()> {
        let Some((bytes, view)) = self.whole_checkpoint(name).await? else { return Ok(()) };
        match &self.view {
            Some(replayed) if checkpoint::encode(replayed) != bytes => {
                self.report.damaged(
                    ObjectName::from(&name).to_string(),
                    format!("replay up to commit {} gives other bytes", name.at),
                    Vec::new(),
                );
            }
            None if view.slot == name.at => {
                self.known.names.extend(view.topics.iter().map(|(id, topic)| (*id, topic.name.clone())));
                let partitions = view.topics.iter().flat_map(|(id, topic)| {
                    topic.partitions.iter().zip(0..).map(move |(p, number)| ((*id, number), p.next))
                });
                self.ends = partitions.collect();
                self.ends_known = true;
                self.open.clear();
                self.loose.clear();
                self.view = Some(view);
            }
            _ => {}
        }
        Ok(())
    }

    /// A checkpoint, unless it is gone or damaged: only those that the end of the chain names must be there and whole, and there
    /// `finish` looks. Read once more before it counts as damaged: a bit may have flipped on its way.
    async fn whole_checkpoint(&self, name: CheckpointName) -> Result<Option<(Bytes, View)>> {
        let object = ObjectName::from(&name);
        for _ in 0..2 {
            let bytes = match self.store.objects.get(&object).await {
                Ok(Some(bytes)) => bytes,
                Err(error) if error.kind() == ErrorKind::Retry => return Err(error),
                Ok(None) | Err(_) => return Ok(None),
            };
            if let Ok(view) = checkpoint::decode(&object.to_string(), &bytes) {
                return Ok(Some((bytes, view)));
            }
        }
        Ok(None)
    }

    async fn finish(mut self) -> Result<Known> {
        let whole = self.view.is_some();
        let view = self.view.take().unwrap_or_else(|| std::mem::take(&mut self.kept));
        for named in [view.checkpoint, view.checkpoint_before].into_iter().flatten() {
            self.report.add(twice(|| named_checkpoint(self.store, named)).await?);
        }
        if !whole && self.report.damage.is_empty() {
            let words = "no checkpoint covers the commits that were stripped";
            self.report.damaged("ledger", words, Vec::new());
        }
        for index in std::mem::take(&mut self.open) {
            let damage = &mut self.report.damage[index];
            if damage.touches.is_empty() {
                damage.detail.push_str("; if it placed records, they stood at the end of their partitions, and no later commit shows how many");
            }
        }
        let mut known = self.known;
        known.names.extend(view.topics.iter().map(|(id, topic)| (*id, topic.name.clone())));
        for (id, topic) in &view.topics {
            known
                .log_starts
                .extend(topic.partitions.iter().zip(0..).map(|(p, number)| ((*id, number), p.log_start)));
        }
        for (id, topic) in &view.topics {
            let partitions = topic.partitions.iter().zip(0u32..);
            known.indexed.extend(partitions.map(|(p, number)| (*id, number, p.indexed_to)));
        }
        let rows = view.pending.iter().flat_map(|(number, pending)| {
            pending.ranges.iter().filter_map(move |range| pending.row(*number, range))
        });
        known.pending = rows.filter(|row| view.topics.contains_key(&row.object.topic)).collect();
        known.slices = view.slices().map(|(id, p, slice)| (id, p, slice.clone())).collect();
        known.slices.extend(self.loose);
        Ok(known)
    }
}

async fn named_checkpoint(store: &Store, named: Checkpoint) -> Result<Report> {
    let mut report = Report::default();
    let name = ObjectName::from(&named.name);
    let what = name.to_string();
    let harm = "a process that starts now may not be able to open the log";
    let bytes = match store.objects.get(&name).await {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            report.damaged(what, format!("missing: {harm}"), Vec::new());
            return Ok(report);
        }
        Err(error) if error.kind() == ErrorKind::Retry => return Err(error),
        Err(error) => {
            report.damaged(what, format!("{}: {harm}", detail(&error)), Vec::new());
            return Ok(report);
        }
    };
    report.checkpoints += 1;
    report.bytes += bytes.len() as u64;
    let wrong = match checkpoint::decode(&what, &bytes) {
        Err(error @ Error::Newer { .. }) if bytes.len() < 9 => Some(detail(&error)),
        Err(error) => Some(detail(&error)),
        Ok(_) if checkpoint::checksum(&bytes[..bytes.len() - 8]) != named.checksum => {
            Some("not the bytes that its commit names".to_owned())
        }
        Ok(view) if view.slot != named.name.at => Some(format!("is as of commit {}", view.slot)),
        Ok(_) => None,
    };
    if let Some(wrong) = wrong {
        report.damaged(what, format!("{wrong}: {harm}"), Vec::new());
    }
    Ok(report)
}

/// A slice as the view would hold it.
fn loose(item: &Item, commit: &Commit, body: &SliceBody, place: Place) -> Slice {
    Slice {
        base: body.base,
        rows: body.rows(),
        slot: item.sk,
        append_ms: commit.time_ms,
        place,
        group: body.group,
        first_row: body.first_row,
        time_us: body.time_us,
        time_us_running: body.time_us.1,
        time_type: body.time_type,
        sum: body.sum,
    }
}

/// The words of an error, without the advice to run what is running.
pub(super) fn detail(error: &Error) -> String {
    match error {
        Error::Damaged { what, detail } => format!("{what}: {detail}"),
        other => other.to_string(),
    }
}
