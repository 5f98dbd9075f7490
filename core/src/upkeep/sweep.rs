//! Sweep: deletes what no commit names, or will ever name (R2, R3).
//!
//! ```text
//!   what may be dead ─▶ commit Floor ─▶ a view at or after it ─▶ index rows ─▶ a view ─▶ delete what none of them names
//! ```
//! What may be dead is known by name: commits let it go (the view's dead list), or the last row of it that a run deleted named
//! it. Only what no commit ever named, what a killed run left, and merged segments of deleted topics must be looked for, by a
//! listing of all there is ([`Sweep::Whole`]). Both are judged alike.
//!
//! An object drawn below the floor that the view behind the floor does not name can never be named: every later commit
//! refuses it. Merged segments are named by pending folds, then by index rows: those are read after the view, or a fold
//! that is indexed in between would be in neither; and before another view, whose dead list has what was let go
//! meanwhile. So neither the list nor the delete must be young, and a sweeper may be stopped anywhere for any time.
//! Clocks only choose the floor and how long the dead are kept; a wrong one makes writers upload again.
//!
//! A look at all there is may take several runs: a [`Round`] begins at any merged segment, goes on where it stopped, and ends
//! where it began. What is put behind its back is found by the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use object_store::path::Path;

use super::rewrite::Hour;
use super::rows::Named;
use super::{Memory, Step, Upkeep, is_superseded};
use crate::error::Result;
use crate::ledger::action::{Action, Floor, LEDGER, ObjectRef};
use crate::ledger::view::View;
use crate::limits;
use crate::metrics::Metric;
use crate::objects::{Half, ObjectName, Ulid};
use crate::plant::{self, Bug};
use crate::record::TopicId;
use crate::table::Consistency;

/// What Tidelog puts into a store and a sweep looks at: what there is little of, …
const FEW: [&str; 2] = [CHECKPOINTS, "l0"];
const CHECKPOINTS: &str = "ckpt";
/// … and merged segments, which there may be any number of.
const MERGED: &str = "topics";

/// An object that was deleted, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    /// Its name.
    pub name: ObjectName,
    /// In a folder: the number of the file that a killed put left half-written instead (`name#1`).
    pub half: Option<u32>,
    /// Its size, if it was listed.
    pub bytes: Option<u64>,
    /// Why nobody needs it.
    pub why: Reason,
}

/// Where a sweep looks for what it may delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// What commits let go, and what the rows named that this process deleted; and old checkpoints. Costs nothing where there is
    /// nothing, however much else there is.
    LetGo,
    /// All objects there are. A request for a thousand, and for a thousand rows of each topic that has merged segments.
    ///
    /// Short of time it stops among merged segments: [`Swept::more`] says so, and the same process goes on there; another one
    /// begins anywhere, so that each has its turn.
    Whole,
}

/// Why nobody needs an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A commit let it go: its records were trimmed, merged, or deleted with their topic.
    Dead {
        /// That commit.
        slot: u64,
    },
    /// No commit or index row names it, and none can any more: its name was drawn before the floor.
    Orphan {
        /// The floor.
        floor: u64,
    },
    /// A merged segment of a topic that was deleted.
    TopicDeleted,
    /// A put that was killed left it half-written, before the floor.
    HalfWritten,
    /// A checkpoint older than the newest but one.
    OldCheckpoint {
        /// The commit that the newest but one is the state as of.
        kept: u64,
    },
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// The floor afterwards.
    pub floor: u64,
    /// Objects looked at.
    pub listed: u64,
    /// It looked at all there is, or at a part of that if there is [`more`](Self::more).
    pub whole: bool,
    /// Objects deleted.
    pub objects: u64,
    /// Their bytes, as far as they were listed.
    pub bytes: u64,
    /// There is more: the run was long enough.
    pub more: bool,
}

/// One look at all merged segments, in the order of their names.
#[derive(Debug, Clone)]
pub(super) struct Round {
    /// As of when it began.
    since: Horizon,
    /// Where it began; `None`: with the first.
    began: Option<Path>,
    /// It came to the last, and went on with the first.
    wrapped: bool,
    /// Up to here it looked.
    at: Option<Path>,
    /// Found nothing so far.
    is_clean: bool,
    /// Bytes of orphans so far.
    orphan_bytes: u64,
}

/// What a look found.
struct Looked {
    found: Vec<Deletion>,
    swept: Swept,
    /// Of a look at all there is: how far its round is.
    round: Option<Round>,
}

/// A look on its way.
struct Look<'a, T> {
    upkeep: &'a Upkeep,
    needed: &'a Needed,
    named: Named<'a>,
    /// Hears of how many were looked at, now and then.
    tell: T,
    /// When it stops among merged segments, by the monotonic clock.
    until: Option<Duration>,
    found: Vec<Deletion>,
    swept: Swept,
}

/// How far a sweep may go, as of a view and a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Horizon {
    /// The view's commit.
    slot: u64,
    /// Names drawn before this commit are to be refused.
    floor: u64,
    /// What died before this commit is kept no longer.
    forget: u64,
    /// Checkpoints older than this are not needed.
    checkpoint: u64,
}

/// What is still needed, as of a view; merged segments only as far as the view knows of them.
struct Needed {
    era: u16,
    floor: u64,
    named: BTreeSet<ObjectRef>,
    checkpoint: u64,
    dead: BTreeMap<ObjectRef, u64>,
    /// Living topics.
    topics: BTreeSet<TopicId>,
}

impl Upkeep {
    /// What a sweep would delete now, each with its reason. Changes nothing.
    pub async fn sweepable(&self, mut tell: impl FnMut(&Deletion)) -> Result<Swept> {
        self.refresh().await?;
        let (horizon, needed) = self.look()?;
        let needed = needed.at(horizon);
        let mut look = Look::new(self, &needed, None, |_| {});
        for kind in FEW.into_iter().chain([MERGED]) {
            if look.list(kind, None, None).await?.is_some() {
                break;
            }
        }
        let Look { found, mut swept, .. } = look;
        (swept.floor, swept.whole) = (self.ledger.chain.view(|view| view.floor)?, true);
        for deletion in &found {
            swept.objects += 1;
            swept.bytes += deletion.bytes.unwrap_or(0);
            tell(deletion);
        }
        Ok(swept)
    }

    /// Commits a floor and deletes what is not needed behind it. `tell` hears of each deletion after it is done. Asks
    /// nothing of the object store if nothing was committed, and no horizon passed, since there was nothing to sweep.
    ///
    /// # Errors
    /// Those of the ledger and of the stores. What was deleted is deleted; the next run goes on.
    pub async fn sweep(&self, among: Sweep, mut tell: impl FnMut(&Deletion)) -> Result<Swept> {
        self.refresh().await?;
        let tell = |step: Step<'_>| {
            if let Step::Deleted(deletion) = step {
                tell(deletion);
            }
        };
        self.sweep_in_view(among, tell).await
    }

    pub(super) async fn sweep_in_view(&self, among: Sweep, mut tell: impl FnMut(Step<'_>)) -> Result<Swept> {
        let chain = &self.ledger.chain;
        let (horizon, needed) = self.look()?;
        let list_until = self.share();
        let Looked { found, mut swept, round } = match among {
            Sweep::LetGo => self.let_go(horizon, &needed.at(horizon)).await?,
            Sweep::Whole if self.memory().clean == Some(horizon) => {
                return Ok(Swept { floor: needed.floor, whole: true, ..Swept::default() });
            }
            Sweep::Whole => {
                let tell = |listed| tell(Step::Listing(listed));
                self.look_at_all(horizon, &needed.at(horizon), list_until, tell).await?
            }
        };
        (swept.floor, swept.whole) = (needed.floor, among == Sweep::Whole);
        if found.is_empty() {
            self.memory().note_swept(&swept, horizon, round);
            return Ok(swept);
        }
        // What is read before the floor may be named in between (plant: it is trusted all the same).
        let mut needed = needed.at(horizon);
        let dead = std::mem::take(&mut needed.dead);
        let mut early = Named::new(self, among);
        if plant::on(Bug::RowsReadBeforeView) {
            self.unnamed(found.clone(), &needed, &mut early).await?;
        }
        if !plant::on(Bug::SweepWithoutFloor) && !plant::on(Bug::FloorFromClock) {
            self.raise(horizon).await?;
        }
        if !plant::on(Bug::NamedReadBeforeFloor) && !plant::on(Bug::SweepWithoutFloor) {
            self.refresh().await?;
            needed = self.look()?.1;
        }
        if plant::on(Bug::FloorFromClock) {
            needed = needed.at(horizon);
        }
        swept.floor = needed.floor;
        let looked_at: Vec<ObjectRef> = found.iter().filter_map(|found| reference(&found.name)).collect();
        let judge = |found: Deletion| needed.judge(found.name, found.half, found.bytes, &dead);
        // Of a topic that was deleted only now: its rows go with what was listed, since the file says which they are.
        let is_known = |found: &Deletion| found.why != Reason::TopicDeleted || found.bytes.is_some();
        let found: Vec<Deletion> = found.into_iter().filter_map(judge).filter(is_known).collect();
        let found = self.unnamed(found, &needed, &mut early).await?;
        // What is needed all the same is let go by a later commit, or by the last row that names it.
        let dying: BTreeSet<ObjectRef> = found.iter().filter_map(|found| reference(&found.name)).collect();
        self.memory().forget(looked_at.into_iter().filter(|object| !dying.contains(object)));
        // At least so many, so that it goes on.
        for (number, batch) in found.chunks(limits::DELETES_PER_REQUEST).enumerate() {
            if number > 0 && self.is_late() {
                swept.more = true;
                return Ok(swept);
            }
            self.delete(batch).await?;
            self.memory().forget(batch.iter().filter_map(|deletion| reference(&deletion.name)));
            let bytes: u64 = batch.iter().filter_map(|deletion| deletion.bytes).sum();
            (swept.objects, swept.bytes) = (swept.objects + batch.len() as u64, swept.bytes + bytes);
            chain.metrics.record(Metric::ObjectsSwept, batch.len() as u64);
            chain.metrics.record(Metric::BytesSwept, bytes);
            batch.iter().for_each(|deletion| tell(Step::Deleted(deletion)));
        }
        self.memory().note_swept(&swept, horizon, round);
        Ok(swept)
    }

    /// A sweep has its share of a run, whatever was before it: half of that for a look at all there is, which ends then.
    fn share(&self) -> Option<Duration> {
        let (now, share) = (self.ledger.chain.env.monotonic(), self.run_max? / 4);
        let mut memory = self.memory();
        let until = memory.until.map_or(now + share, |until| until.max(now + share));
        memory.until = Some(until);
        Some(now + (until - now) / 2)
    }

    /// Of all there is, what is not needed, or of a part of it and of what was let go: else that could be behind its back, and
    /// the floor would make the view forget it.
    async fn look_at_all(
        &self,
        horizon: Horizon,
        needed: &Needed,
        until: Option<Duration>,
        tell: impl FnMut(u64),
    ) -> Result<Looked> {
        // A folder is not listed in order; and it is quick.
        let until = until.filter(|_| self.ledger.chain.objects.lists_in_order());
        let mut look = Look::new(self, needed, until, tell);
        let stopped = self.memory().round.clone();
        let mut round = match (until, stopped) {
            (Some(_), Some(round)) => round,
            (Some(_), None) => Round::new(horizon, self.anywhere().await?),
            (None, _) => Round::new(horizon, None),
        };
        let is_done = 'looked: {
            for kind in FEW {
                if look.list(kind, None, None).await?.is_some() {
                    break 'looked false;
                }
            }
            loop {
                let to = round.began.as_ref().filter(|_| round.wrapped);
                match look.list(MERGED, round.at.as_ref(), to).await? {
                    Some(stopped) => {
                        round.at = Some(stopped);
                        break 'looked false;
                    }
                    None if round.wrapped || round.began.is_none() => break 'looked true,
                    None => (round.wrapped, round.at) = (true, None),
                }
            }
        };
        let is_orphan = |found: &&Deletion| matches!(found.why, Reason::Orphan { .. } | Reason::HalfWritten);
        let orphans = look.found.iter().filter(is_orphan).filter_map(|found| found.bytes);
        round.orphan_bytes += orphans.sum::<u64>();
        round.is_clean &= look.found.is_empty();
        if is_done {
            self.ledger.chain.metrics.record(Metric::OrphanBytes, round.orphan_bytes);
        }
        let Look { mut found, swept, .. } = look;
        let whole = found.iter().filter(|deletion| deletion.half.is_none());
        let listed: BTreeSet<ObjectName> = whole.map(|deletion| deletion.name.clone()).collect();
        let let_go = self.let_go_by_name(horizon, needed)?;
        found.extend(let_go.into_iter().filter(|deletion| !listed.contains(&deletion.name)));
        // Topic by topic: their rows are read.
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Looked { found, swept, round: Some(round) })
    }

    /// The merged segment of a record that is picked at random; `None`: with the first.
    async fn anywhere(&self) -> Result<Option<Path>> {
        let chain = &self.ledger.chain;
        let random = |below: u64| chain.env.random_u64() % below;
        let picked = chain.view(|view| {
            let partitions = view.topics.iter().flat_map(|(id, topic)| {
                let merged = topic.partitions.iter().zip(0u32..).filter(|(p, _)| p.indexed_to > p.log_start);
                merged.map(move |(p, number)| (*id, topic, number, p.log_start..p.indexed_to))
            });
            let mut partitions: Vec<_> = partitions.collect();
            if partitions.is_empty() {
                return None;
            }
            let (id, topic, partition, merged) =
                partitions.swap_remove(random(partitions.len() as u64) as usize);
            let offset = merged.start + random(merged.end - merged.start);
            Some((id, topic.name.clone(), partition, offset))
        })?;
        let Some((id, name, partition, offset)) = picked else { return Ok(None) };
        let row = chain.row_at(id, partition, offset, Consistency::Eventual).await?;
        Ok(row.map(|row| row.object.name(&name).path()))
    }

    /// What was let go, and old checkpoints, where there is a new one.
    async fn let_go(&self, horizon: Horizon, needed: &Needed) -> Result<Looked> {
        let mut look = Look::new(self, needed, None, |_| {});
        if self.memory().checkpoint != Some(horizon.checkpoint) {
            look.list(CHECKPOINTS, None, None).await?;
        }
        let Look { mut found, swept, .. } = look;
        found.extend(self.let_go_by_name(horizon, needed)?);
        Ok(Looked { found, swept, round: None })
    }

    /// What was let go. Of a topic that was deleted meanwhile nobody knows the names; and what is drawn at the floor or later waits
    /// for the next run.
    fn let_go_by_name(&self, horizon: Horizon, needed: &Needed) -> Result<Vec<Deletion>> {
        let names: Vec<ObjectName> = self.ledger.chain.view(|view| {
            let mut memory = self.memory();
            let dead = view.dead.iter().filter(|dead| dead.slot < horizon.forget);
            memory.let_go.extend(dead.map(|dead| (dead.object, dead.l1)));
            memory.let_go.retain(|_, hour| hour.is_none_or(|(topic, _)| view.topics.contains_key(&topic)));
            let name = |(object, hour): (&ObjectRef, &Option<Hour>)| match hour {
                None => Some(ObjectName::from(object)),
                Some((topic, hour)) => Some(object.l1_name(&view.topics.get(topic)?.name, *topic, *hour)),
            };
            memory.let_go.iter().filter_map(name).collect()
        })?;
        Ok(names.into_iter().filter_map(|name| needed.judge(name, None, None, &needed.dead)).collect())
    }

    /// Those that no index row names and, where there are merged segments, no view after the rows were read.
    async fn unnamed(
        &self,
        found: Vec<Deletion>,
        needed: &Needed,
        named: &mut Named<'_>,
    ) -> Result<Vec<Deletion>> {
        let mut left = Vec::with_capacity(found.len());
        let mut merged = false;
        for deletion in found {
            if let Some((hour, object)) = needed.asks_rows(&deletion) {
                merged = true;
                if named.holds(hour, object).await? {
                    continue;
                }
            }
            left.push(deletion);
        }
        if merged {
            self.refresh().await?;
            let after = self.look()?.1;
            let is_l1 = |deletion: &Deletion| matches!(deletion.name, ObjectName::L1 { .. });
            let is_named = |deletion: &Deletion| {
                reference(&deletion.name).is_some_and(|object| after.named.contains(&object))
            };
            left.retain(|deletion| !is_l1(deletion) || deletion.half.is_some() || !is_named(deletion));
        }
        Ok(left)
    }

    /// Deletes at most [`limits::DELETES_PER_REQUEST`] objects.
    async fn delete(&self, batch: &[Deletion]) -> Result<()> {
        let (mut names, mut halves, mut closed) = (Vec::new(), Vec::new(), Vec::new());
        for Deletion { name, half, bytes, why } in batch {
            if let (Reason::TopicDeleted, None, Some(bytes)) = (why, half, bytes) {
                self.drop_rows(name, *bytes).await?;
            }
            match half {
                Some(number) => halves.push(Half { name: name.clone(), number: *number }),
                None => names.push(name.clone()),
            }
            if *why == Reason::TopicDeleted || !matches!(name, ObjectName::L1 { .. }) {
                closed.push(name.clone());
            }
        }
        self.ledger.chain.objects.delete(&names, &halves, &closed).await
    }

    /// Commits the floor, unless somebody was faster.
    async fn raise(&self, horizon: Horizon) -> Result<()> {
        let chain = &self.ledger.chain;
        let Horizon { floor, forget, .. } = horizon;
        let is_done =
            chain.view(|view| view.floor >= floor && view.dead.iter().all(|dead| dead.slot >= forget))?;
        if is_done {
            return Ok(());
        }
        match self.ledger.act(Action::Floor(Floor { floor, forget })).await {
            Ok(_) => Ok(()),
            Err(error) if is_superseded(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn look(&self) -> Result<(Horizon, Needed)> {
        let (now_ms, chain) = (self.now_ms(), &self.ledger.chain);
        let before = |ms: u64| now_ms.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX));
        let (sweep_ms, read_ms) = (before(self.settings.sweep_lag_ms), before(self.settings.read_lag_ms));
        chain.view(|view| (horizon(view, sweep_ms, read_ms), Needed::of(view, chain.era)))
    }
}

impl<'a, T: FnMut(u64)> Look<'a, T> {
    fn new(upkeep: &'a Upkeep, needed: &'a Needed, until: Option<Duration>, tell: T) -> Self {
        let named = Named::new(upkeep, Sweep::Whole);
        Self { upkeep, needed, named, tell, until, found: Vec::new(), swept: Swept::default() }
    }

    /// Looks at objects of a kind behind one name, up to another. `Some`: it stopped behind this one, and there may be more.
    async fn list(&mut self, kind: &str, after: Option<&Path>, to: Option<&Path>) -> Result<Option<Path>> {
        let objects = &self.upkeep.ledger.chain.objects;
        let mut listed = objects.list(kind, after);
        let mut since = 0;
        while let Some((path, bytes)) = objects.next(&mut listed).await? {
            if to.is_some_and(|to| path > *to) {
                break;
            }
            since += 1;
            self.swept.listed += 1;
            if self.swept.listed.is_multiple_of(limits::LIST_TOLD_EVERY) {
                (self.tell)(self.swept.listed);
            }
            self.look_at(path.as_ref(), bytes).await?;
            let is_late = kind == MERGED && since % self.upkeep.settings.list_page == 0 && self.is_late();
            if is_late || self.found.len() >= limits::SWEEP_OBJECTS_MAX {
                self.swept.more = true;
                return Ok(Some(path));
            }
        }
        for (half, bytes) in objects.halves(kind).await? {
            self.swept.listed += 1;
            let judged = self.needed.judge(half.name, Some(half.number), Some(bytes), &self.needed.dead);
            self.found.extend(judged);
        }
        Ok(None)
    }

    async fn look_at(&mut self, path: &str, bytes: u64) -> Result<()> {
        // What is not a name of ours is not ours to delete.
        let Ok(name) = path.parse::<ObjectName>() else { return Ok(()) };
        let Some(deletion) = self.needed.judge(name, None, Some(bytes), &self.needed.dead) else {
            return Ok(());
        };
        if let Some((hour, object)) = self.needed.asks_rows(&deletion)
            && self.named.holds(hour, object).await?
        {
            return Ok(());
        }
        self.found.push(deletion);
        Ok(())
    }

    fn is_late(&self) -> bool {
        self.until.is_some_and(|until| self.upkeep.ledger.chain.env.monotonic() >= until)
    }
}

impl Round {
    fn new(since: Horizon, began: Option<Path>) -> Self {
        Self { since, at: began.clone(), began, wrapped: false, is_clean: true, orphan_bytes: 0 }
    }
}

impl Memory {
    /// These are gone, or needed.
    pub(super) fn forget(&mut self, objects: impl Iterator<Item = ObjectRef>) {
        for object in objects {
            self.let_go.remove(&object);
        }
    }

    /// A sweep did what it was to do, or stopped among what it looked at.
    fn note_swept(&mut self, swept: &Swept, horizon: Horizon, round: Option<Round>) {
        if swept.more {
            self.round = round.or(self.round.take());
            return;
        }
        self.checkpoint = Some(horizon.checkpoint);
        if let Some(Round { since, is_clean, .. }) = round {
            self.round = None;
            self.clean = (is_clean && since == horizon).then_some(horizon);
        }
    }
}

/// The newest commit that is known to be old enough, and what was dead by then.
fn horizon(view: &View, sweep_ms: i64, read_ms: i64) -> Horizon {
    let slices = view.slices().map(|(_, _, slice)| (slice.slot, slice.append_ms));
    let dead = view.dead.iter().map(|dead| (dead.slot, dead.time_ms));
    // What a name says of the time is somebody's clock, which is good enough here.
    let named = [view.checkpoint, view.checkpoint_before].into_iter().flatten();
    let named = named.map(|named| (named.name.at, Ulid(named.name.ulid).time_ms()));
    let old =
        slices.chain(dead).chain(named).chain([(view.slot, view.time_ms)]).filter(|(_, ms)| *ms <= sweep_ms);
    let young = view.dead.iter().find(|dead| dead.time_ms > read_ms && !plant::on(Bug::DeadSweptAtOnce));
    Horizon {
        slot: view.slot,
        floor: old.map(|(slot, _)| slot).max().unwrap_or(0).max(view.floor),
        forget: young.map_or(view.slot + 1, |dead| dead.slot),
        checkpoint: kept_checkpoint(view),
    }
}

/// Not the newest but the one before it: the commit that names the newest still carries that one, and may be where a
/// cold start begins; strip reads both.
fn kept_checkpoint(view: &View) -> u64 {
    let kept = match plant::on(Bug::NamedCheckpointSwept) {
        true => view.checkpoint,
        false => view.checkpoint_before,
    };
    kept.map_or(0, |kept| kept.name.at)
}

/// How the ledger refers to a segment of this name.
fn reference(name: &ObjectName) -> Option<ObjectRef> {
    match name {
        ObjectName::L0 { era, ledger, drawn, ulid } | ObjectName::L1 { era, ledger, drawn, ulid, .. } => {
            Some(ObjectRef { era: *era, ledger: *ledger, drawn: *drawn, ulid: ulid.0 })
        }
        ObjectName::Checkpoint { .. } | ObjectName::Probe { .. } => None,
    }
}

impl Needed {
    fn of(view: &View, era: u16) -> Self {
        let dead: BTreeMap<_, _> = view.dead.iter().map(|dead| (dead.object, dead.slot)).collect();
        let mut named: BTreeSet<ObjectRef> = view.objects.keys().copied().collect();
        named.extend(view.pending.values().flat_map(|pending| &pending.objects).map(|l1| l1.object));
        named.extend(dead.keys().copied());
        let topics = view.topics.keys().copied().collect();
        Self { era, floor: view.floor, named, checkpoint: kept_checkpoint(view), dead, topics }
    }

    /// As it will be once the horizon's floor is committed.
    fn at(&self, horizon: Horizon) -> Self {
        let is_kept = |object: &&ObjectRef| self.dead.get(*object).is_none_or(|slot| *slot >= horizon.forget);
        let named = self.named.iter().filter(is_kept).copied().collect();
        let Horizon { floor, checkpoint, .. } = horizon;
        let (dead, topics) = (self.dead.clone(), self.topics.clone());
        Self { era: self.era, floor, named, checkpoint, dead, topics }
    }

    /// Whether the index rows of a living topic decide, and of which hour.
    fn asks_rows(&self, deletion: &Deletion) -> Option<(Hour, ObjectRef)> {
        let ObjectName::L1 { id, hour, .. } = &deletion.name else { return None };
        // A half is named by nothing.
        if deletion.half.is_some() || !self.topics.contains(id) || plant::on(Bug::RowsIgnoredBySweep) {
            return None;
        }
        Some(((*id, *hour), reference(&deletion.name)?))
    }

    /// Why an object is not needed, as far as the view knows; `None`: it is, or nobody knows.
    fn judge(
        &self,
        name: ObjectName,
        half: Option<u32>,
        bytes: Option<u64>,
        dead: &BTreeMap<ObjectRef, u64>,
    ) -> Option<Deletion> {
        let ours =
            |era: u16, ledger: u16| ledger == LEDGER && (era <= self.era || plant::on(Bug::NewerEraSwept));
        let why = match &name {
            ObjectName::L0 { .. } | ObjectName::L1 { .. } => {
                let object = reference(&name)?;
                let is_young = object.drawn >= self.floor && !plant::on(Bug::SweptAboveFloor);
                if !ours(object.era, object.ledger) || is_young {
                    return None;
                }
                let deleted = match &name {
                    ObjectName::L1 { id, .. } => !self.topics.contains(id),
                    _ => false,
                };
                match (half, dead.get(&object)) {
                    // The whole one beside it may be named.
                    (Some(_), _) => Reason::HalfWritten,
                    _ if self.named.contains(&object) => return None,
                    // Whoever drew it knew the topic, and that was before the floor.
                    _ if deleted => Reason::TopicDeleted,
                    (None, Some(slot)) => Reason::Dead { slot: *slot },
                    (None, None) => Reason::Orphan { floor: self.floor },
                }
            }
            ObjectName::Checkpoint { era, ledger, at, .. } => {
                if !ours(*era, *ledger) || *at >= self.checkpoint {
                    return None;
                }
                Reason::OldCheckpoint { kept: self.checkpoint }
            }
            ObjectName::Probe { .. } => return None,
        };
        Some(Deletion { name, half, bytes, why })
    }
}
