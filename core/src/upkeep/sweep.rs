//! Sweep: deletes what no commit names, or will ever name (R2, R3).
//!
//! ```text
//!   list what may be dead ─▶ commit Floor ─▶ a view at or after it ─▶ delete what it does not name
//! ```
//! An object drawn below the floor that the view behind the floor does not name can never be named: every later commit
//! refuses it. So neither the listing nor the delete must be young, and a sweeper may be stopped anywhere for any time.
//! Clocks only choose the floor and how long the dead are kept; a wrong one makes writers upload again.

use std::collections::{BTreeMap, BTreeSet};

use super::{Upkeep, is_superseded};
use crate::error::Result;
use crate::ledger::action::{Action, Floor, LEDGER};
use crate::ledger::view::View;
use crate::limits;
use crate::metrics::Metric;
use crate::objects::{Half, ObjectName};
use crate::plant::{self, Bug};

/// An object that was deleted, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    /// Its name.
    pub name: ObjectName,
    /// In a folder: the number of the file that a killed put left half-written instead (`name#1`).
    pub half: Option<u32>,
    /// Its size.
    pub bytes: u64,
    /// Why nobody needs it.
    pub why: Reason,
}

/// Why nobody needs an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A commit let it go: its records were trimmed, merged, or deleted with their topic.
    Dead {
        /// That commit.
        slot: u64,
    },
    /// No commit names it, and none can any more: its name was drawn before the floor.
    Orphan {
        /// The floor.
        floor: u64,
    },
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
    /// Objects deleted.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// There is more: the run was long enough.
    pub more: bool,
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

/// What is still needed, as of a view.
struct Needed {
    era: u16,
    floor: u64,
    named: BTreeSet<ObjectName>,
    checkpoint: u64,
    dead: BTreeMap<ObjectName, u64>,
}

impl Upkeep {
    /// What a sweep would delete now, each with its reason. Changes nothing.
    pub async fn sweepable(&self, mut tell: impl FnMut(&Deletion)) -> Result<Swept> {
        let chain = &self.ledger.chain;
        chain.refresh(chain.tick()).await?;
        let (horizon, needed) = self.look()?;
        let (found, mut swept) = self.list(&needed.at(horizon)).await?;
        for deletion in &found {
            swept.objects += 1;
            swept.bytes += deletion.bytes;
            tell(deletion);
        }
        Ok(swept)
    }

    /// Commits a floor and deletes what is not needed behind it. `tell` hears of each deletion after it is done. Asks
    /// nothing of the object store if nothing was committed, and no horizon passed, since there was nothing to sweep.
    ///
    /// # Errors
    /// Those of the ledger and of the object store. What was deleted is deleted; the next run goes on.
    pub async fn sweep(&self, mut tell: impl FnMut(&Deletion)) -> Result<Swept> {
        let chain = &self.ledger.chain;
        chain.refresh(chain.tick()).await?;
        let (horizon, needed) = self.look()?;
        if *self.clean() == Some(horizon) {
            return Ok(Swept { floor: needed.floor, ..Swept::default() });
        }
        let (found, mut swept) = self.list(&needed.at(horizon)).await?;
        if found.is_empty() {
            *self.clean() = Some(horizon);
            return Ok(swept);
        }
        // What is read before the floor may be named in between (plant: it is trusted all the same).
        let mut needed = needed.at(horizon);
        let dead = std::mem::take(&mut needed.dead);
        if !plant::on(Bug::SweepWithoutFloor) {
            self.raise(horizon).await?;
        }
        if !plant::on(Bug::NamedReadBeforeFloor) && !plant::on(Bug::SweepWithoutFloor) {
            chain.refresh(chain.tick()).await?;
            needed = self.look()?.1;
        }
        swept.floor = needed.floor;
        let judge = |found: Deletion| needed.judge(found.name, found.half, found.bytes, &dead);
        let found: Vec<Deletion> = found.into_iter().filter_map(judge).collect();
        for batch in found.chunks(limits::DELETES_PER_REQUEST) {
            let (mut names, mut halves) = (Vec::new(), Vec::new());
            for Deletion { name, half, .. } in batch {
                match half {
                    Some(number) => halves.push(Half { name: name.clone(), number: *number }),
                    None => names.push(name.clone()),
                }
            }
            chain.objects.delete(&names, &halves).await?;
            let bytes: u64 = batch.iter().map(|deletion| deletion.bytes).sum();
            (swept.objects, swept.bytes) = (swept.objects + batch.len() as u64, swept.bytes + bytes);
            chain.metrics.record(Metric::ObjectsSwept, batch.len() as u64);
            chain.metrics.record(Metric::BytesSwept, bytes);
            batch.iter().for_each(&mut tell);
        }
        Ok(swept)
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

    /// Objects that are not needed, and how many were looked at.
    async fn list(&self, needed: &Needed) -> Result<(Vec<Deletion>, Swept)> {
        let objects = &self.ledger.chain.objects;
        let (mut found, mut swept) = (Vec::new(), Swept { floor: needed.floor, ..Swept::default() });
        for kind in ["l0", "ckpt"] {
            let mut listed = objects.list(kind);
            while let Some((path, bytes)) = objects.next(&mut listed).await? {
                swept.listed += 1;
                // What is not a name of ours is not ours to delete.
                let Ok(name) = path.parse::<ObjectName>() else { continue };
                found.extend(needed.judge(name, None, bytes, &needed.dead));
                if found.len() >= limits::SWEEP_OBJECTS_MAX {
                    swept.more = true;
                    return Ok((found, swept));
                }
            }
            for (half, bytes) in objects.halves(kind).await? {
                swept.listed += 1;
                found.extend(needed.judge(half.name, Some(half.number), bytes, &needed.dead));
            }
        }
        Ok((found, swept))
    }
}

/// The newest commit that is known to be old enough, and what was dead by then.
fn horizon(view: &View, sweep_ms: i64, read_ms: i64) -> Horizon {
    let slices = view.slices().map(|(_, _, slice)| (slice.slot, slice.append_ms));
    let dead = view.dead.iter().map(|dead| (dead.slot, dead.time_ms));
    let old = slices.chain(dead).chain([(view.slot, view.time_ms)]).filter(|(_, ms)| *ms <= sweep_ms);
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

impl Needed {
    fn of(view: &View, era: u16) -> Self {
        let dead = view.dead.iter().filter(|dead| dead.l1.is_none());
        let dead: BTreeMap<_, _> = dead.map(|dead| (ObjectName::from(&dead.object), dead.slot)).collect();
        let mut named: BTreeSet<ObjectName> = view.objects.keys().map(ObjectName::from).collect();
        named.extend(dead.keys().cloned());
        Self { era, floor: view.floor, named, checkpoint: kept_checkpoint(view), dead }
    }

    /// As it will be once the horizon's floor is committed.
    fn at(&self, horizon: Horizon) -> Self {
        let is_kept = |name: &&ObjectName| self.dead.get(*name).is_none_or(|slot| *slot >= horizon.forget);
        let named = self.named.iter().filter(is_kept).cloned().collect();
        let Horizon { floor, checkpoint, .. } = horizon;
        Self { era: self.era, floor, named, checkpoint, dead: self.dead.clone() }
    }

    /// Why an object is not needed; `None`: it is, or nobody knows.
    fn judge(
        &self,
        name: ObjectName,
        half: Option<u32>,
        bytes: u64,
        dead: &BTreeMap<ObjectName, u64>,
    ) -> Option<Deletion> {
        let ours =
            |era: u16, ledger: u16| ledger == LEDGER && (era <= self.era || plant::on(Bug::NewerEraSwept));
        let why = match name {
            ObjectName::L0 { era, ledger, drawn, .. } => {
                if !ours(era, ledger) || drawn >= self.floor {
                    return None;
                }
                match (half, dead.get(&name)) {
                    // The whole one beside it may be named.
                    (Some(_), _) => Reason::HalfWritten,
                    _ if self.named.contains(&name) => return None,
                    (None, Some(slot)) => Reason::Dead { slot: *slot },
                    (None, None) => Reason::Orphan { floor: self.floor },
                }
            }
            ObjectName::Checkpoint { era, ledger, at, .. } => {
                if !ours(era, ledger) || at >= self.checkpoint {
                    return None;
                }
                Reason::OldCheckpoint { kept: self.checkpoint }
            }
            // Merged segments are not listed.
            ObjectName::L1 { .. } | ObjectName::Probe { .. } => return None,
        };
        Some(Deletion { name, half, bytes, why })
    }
}
