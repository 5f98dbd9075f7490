//! Apply: a view and the next commit give the next view. Pure: no clock, no limit, no configuration, or replays
//! would differ.
//!
//! Every assertion here holds for each commit that `decide` let through. One that fails means damage, or two versions
//! that disagree: the caller poisons the ledger and touches it no more.

use super::action::*;
use super::view::*;
use crate::error::{Error, Result};
use crate::limits;
use crate::plant::{self, Bug};
use crate::record::TopicId;
use std::sync::Arc;

impl View {
    /// Applies the commit found in slot `self.slot + 1` under `id`. After an error the view must not be used.
    pub fn apply(&mut self, slot: u64, id: u128, commit: &Commit) -> Result<()> {
        // I-DENSE, I-PREV, I-TIME
        self.check(slot == self.slot + 1 || plant::on(Bug::TailGapSkipped), slot, "not the next slot")?;
        self.check(
            commit.prev == self.id || plant::on(Bug::TailGapSkipped),
            slot,
            "does not follow the commit before it",
        )?;
        self.check(
            commit.time_ms >= self.time_ms || plant::on(Bug::AppendTimeGoesBack),
            slot,
            "time goes backwards",
        )?;
        self.check(
            self.slot > 0 || matches!(commit.actions.first(), Some(Action::Store(_))),
            slot,
            "is no Store",
        )?;
        let drawn_max = self.slot;
        (self.slot, self.id, self.time_ms) = (slot, id, commit.time_ms);
        if let Some(leader) = self.leaders.get_mut(&author(id)) {
            leader.slot = slot;
        }
        for (index, action) in commit.actions.iter().enumerate() {
            self.apply_action(index as u32, action, drawn_max)?;
        }
        Ok(())
    }

    fn check(&self, holds: bool, slot: u64, why: &str) -> Result<()> {
        if holds {
            return Ok(());
        }
        Err(Error::damaged(format!("commit {slot}"), format!("{why} (view at {})", self.slot)))
    }

    fn wrong<T>(&self, why: impl std::fmt::Display) -> Result<T> {
        Err(Error::damaged(format!("commit {}", self.slot), why.to_string()))
    }

    fn apply_action(&mut self, index: u32, action: &Action, drawn_max: u64) -> Result<()> {
        match action {
            Action::Store(store) => self.store = Some(store.clone()),
            Action::Level(level) => self.level = *level,
            Action::Topic(change) => self.apply_topic(change)?,
            Action::Append(append) => self.apply_append(index, append, drawn_max)?,
            Action::Lead(lead) => self.apply_lead(lead)?,
            Action::Trim(trims) => trims.iter().try_for_each(|trim| self.apply_trim(trim))?,
            Action::Checkpoint(named) => self.apply_checkpoint(*named)?,
            Action::Expire(expire) => self.apply_expire(expire),
            Action::Offsets(offsets) => self.apply_offsets(offsets)?,
            Action::Floor(floor) => self.apply_floor(floor)?,
            Action::Fold(fold) => self.apply_fold(fold, drawn_max)?,
            Action::Rewrite(rewrite) => self.apply_rewrite(rewrite, drawn_max)?,
            Action::Indexed(number) => self.apply_indexed(*number)?,
        }
        Ok(())
    }

    fn apply_topic(&mut self, change: &TopicChange) -> Result<()> {
        match change {
            TopicChange::Create { id, name, partitions, config } => {
                if self.names.contains_key(name) || self.topics.contains_key(id) {
                    return self.wrong(format!("creates topic {name} again"));
                }
                self.names.insert(name.clone(), *id);
                let topic = Topic {
                    name: name.clone(),
                    created_ms: self.time_ms,
                    generation: 0,
                    config: config.iter().cloned().collect(),
                    partitions: vec![Partition::default(); *partitions as usize],
                };
                self.topics.insert(*id, topic);
            }
            TopicChange::Alter { id, partitions, config } => {
                let Some(topic) = self.topics.get_mut(id) else {
                    return self.wrong(format!("alters unknown topic {id}"));
                };
                if let Some(partitions) = partitions {
                    let grown = (*partitions as usize).max(topic.partitions.len());
                    topic.partitions.resize(grown, Partition::default());
                }
                for (key, value) in config {
                    match value {
                        Some(value) => topic.config.insert(key.clone(), value.clone()),
                        None => topic.config.remove(key),
                    };
                }
            }
            TopicChange::Delete { id } => self.delete_topic(*id)?,
        }
        Ok(())
    }

    fn delete_topic(&mut self, id: TopicId) -> Result<()> {
        let Some(topic) = self.topics.remove(&id) else {
            return self.wrong(format!("deletes unknown topic {id}"));
        };
        self.names.remove(&topic.name);
        for partition in topic.partitions {
            partition.slices.iter().for_each(|slice| self.release(slice));
            if let Some(leader) = partition.leader {
                self.unlead(leader);
            }
        }
        for group in self.groups.values_mut() {
            group.offsets.retain(|(topic, _), _| *topic != id);
        }
        let (slot, time_ms) = (self.slot, self.time_ms);
        for pending in self.pending.values() {
            for object in pending.objects.iter().filter(|o| o.topic == id) {
                self.dead.push(Dead { object: object.object, l1: Some((id, object.hour)), slot, time_ms });
            }
        }
        Ok(())
    }

    /// A slice is needed no more; with its last one an L0 object dies.
    fn release(&mut self, slice: &Slice) {
        let Place::Object(object, _) = &slice.place else { return };
        let Some(segment) = self.objects.get_mut(object) else { return };
        segment.slices -= 1;
        if segment.slices == 0 || plant::on(Bug::SharedObjectKilled) {
            self.objects.remove(object);
            self.dead.push(Dead { object: *object, l1: None, slot: self.slot, time_ms: self.time_ms });
        }
    }

    fn apply_append(&mut self, index: u32, append: &Append, drawn_max: u64) -> Result<()> {
        let place = match &append.data {
            Data::Object { object, layout } => {
                let below = object.drawn < self.floor && !plant::on(Bug::FloorIgnored);
                if below || object.drawn > drawn_max {
                    return self
                        .wrong(format!("names an object drawn at {}, floor {}", object.drawn, self.floor));
                }
                let layout = match self.objects.get(object) {
                    Some(known) if *known.layout != *layout => {
                        return self.wrong("names an object again with another layout");
                    }
                    Some(known) => known.layout.clone(),
                    None => Arc::new(layout.clone()),
                };
                Place::Object(*object, layout)
            }
            Data::Inline(bytes) => Place::Inline { action: index, length: bytes.len() as u32 },
        };
        append.slices.iter().try_for_each(|slice| self.apply_slice(&place, slice))
    }

    fn apply_slice(&mut self, place: &Place, body: &SliceBody) -> Result<()> {
        let (slot, append_ms, rows) = (self.slot, self.time_ms, body.rows());
        let groups = match place {
            Place::Object(_, layout) => layout.groups.len(),
            Place::Inline { .. } => 1,
        };
        let Some(partition) = self.partition_mut(body.topic, body.partition) else {
            return self.wrong(format!("appends to unknown {}/{}", body.topic, body.partition));
        };
        // I-BASE
        let follows = body.base == partition.next || plant::on(Bug::OffsetsFromMemory);
        let end = body.base.checked_add(rows);
        let (true, true, true, Some(end)) = (follows, rows > 0, (body.group as usize) < groups, end) else {
            let next = partition.next;
            return self
                .wrong(format!("slice base {}, next {next}, {rows} rows, group {}", body.base, body.group));
        };
        if partition.log_start == partition.next {
            partition.oldest_ms = append_ms;
        }
        let mut base = body.base;
        for batch in &body.batches {
            if let Some(identity) = &batch.identity {
                let window =
                    Window { first: identity.first_sequence, last: identity.last_sequence, base, append_ms };
                let known = partition.producers.remove(&identity.key);
                partition.producers.insert(identity.key, Producer::push(known, identity.epoch, window));
            }
            base += u64::from(batch.rows);
        }
        let time_us_max = match body.time_type {
            TimestampType::CreateTime => body.time_us.1,
            TimestampType::LogAppendTime => append_ms.saturating_mul(1_000),
        };
        let time_us_running = partition.time_us_running().max(time_us_max);
        partition.next = end;
        partition.slices.push_back(Slice {
            base: body.base,
            rows,
            slot,
            append_ms,
            place: place.clone(),
            group: body.group,
            first_row: body.first_row,
            time_us: body.time_us,
            time_us_running,
            time_type: body.time_type,
            sum: body.sum,
        });
        if let Place::Object(object, layout) = place {
            let segment = self.objects.entry(*object);
            segment.or_insert_with(|| Segment { layout: layout.clone(), slices: 0 }).slices += 1;
        }
        Ok(())
    }

    fn apply_lead(&mut self, lead: &Lead) -> Result<()> {
        for (topic, number) in &lead.take {
            let Some(partition) = self.partition_mut(*topic, *number) else {
                return self.wrong(format!("leads unknown {topic}/{number}"));
            };
            let epoch = partition.epochs.back().map_or(0, |(epoch, _)| epoch.saturating_add(1));
            partition.epochs.push_back((epoch, partition.next));
            while partition.epochs.len() > limits::LEADER_EPOCHS_KEPT {
                partition.epochs.pop_front();
            }
            let before = partition.leader.replace(lead.who);
            let entry = self.leaders.entry(lead.who);
            let leader =
                entry.or_insert_with(|| Leader { address: String::new(), slot: self.slot, partitions: 0 });
            leader.partitions += 1;
            leader.address.clone_from(&lead.address);
            if let Some(before) = before {
                self.unlead(before);
            }
        }
        for (topic, number) in &lead.let_go {
            if let Some(partition) =
                self.partition_mut(*topic, *number).filter(|p| p.leader == Some(lead.who))
            {
                partition.leader = None;
                self.unlead(lead.who);
            }
        }
        Ok(())
    }

    fn unlead(&mut self, who: u64) {
        let Some(leader) = self.leaders.get_mut(&who) else { return };
        leader.partitions -= 1;
        if leader.partitions == 0 {
            self.leaders.remove(&who);
        }
    }

    fn apply_trim(&mut self, trim: &TrimTo) -> Result<()> {
        let time_ms = self.time_ms;
        let Some(partition) = self.partition_mut(trim.topic, trim.partition) else {
            return self.wrong(format!("trims unknown {}/{}", trim.topic, trim.partition));
        };
        let (bytes, known) = (trim.oldest_bytes, partition.bytes_running);
        if trim.oldest_ms > time_ms || bytes > known {
            let why = format!("leaves records of {}, up to {bytes} of {known} bytes", trim.oldest_ms);
            return self.wrong(why);
        }
        // I-TRIM: monotone, and never past the end.
        if trim.log_start <= partition.log_start || trim.log_start > partition.next {
            let why = format!("trims {} to {}, end {}", partition.log_start, trim.log_start, partition.next);
            return self.wrong(why);
        }
        partition.log_start = trim.log_start;
        partition.oldest_ms = partition.oldest_ms.max(trim.oldest_ms);
        partition.oldest_bytes = match trim.log_start < partition.first_unmerged() {
            true => partition.oldest_bytes.max(trim.oldest_bytes),
            // Nothing that is merged is left.
            false => partition.bytes_running,
        };
        let mut gone = Vec::new();
        // One that reaches over the log start stays.
        let is_gone = |s: &Slice| match plant::on(Bug::StraddlingSliceDropped) {
            true => s.base < trim.log_start,
            false => s.end() <= trim.log_start,
        };
        while partition.slices.front().is_some_and(is_gone) {
            gone.extend(partition.slices.pop_front());
        }
        if let Some(last) = gone.last() {
            partition.time_us_before = last.time_us_running;
        }
        gone.iter().for_each(|slice| self.release(slice));
        Ok(())
    }

    fn apply_checkpoint(&mut self, named: Checkpoint) -> Result<()> {
        if named.name.at >= self.slot || self.checkpoint.is_some_and(|newest| named.name.at <= newest.name.at)
        {
            return self.wrong(format!("names a checkpoint at {}", named.name.at));
        }
        self.checkpoint_before = self.checkpoint.replace(named);
        Ok(())
    }

    fn apply_expire(&mut self, expire: &Expire) {
        match expire.what {
            Expiring::Groups => self.groups.retain(|_, group| group.last_ms >= expire.before_ms),
            Expiring::Producers(kind) => {
                for partition in self.topics.values_mut().flat_map(|t| &mut t.partitions) {
                    partition.producers.retain(|key, p| key.kind != kind || p.last_ms() >= expire.before_ms);
                }
            }
        }
    }

    fn apply_offsets(&mut self, offsets: &GroupOffsets) -> Result<()> {
        let time_ms = self.time_ms;
        let topics = &self.topics;
        let group = self.groups.entry(offsets.group.clone()).or_default();
        group.last_ms = time_ms;
        group.generation = offsets.generation;
        for entry in offsets.offsets.iter().filter(|e| topics.contains_key(&e.topic)) {
            let key = (entry.topic, entry.partition);
            match entry.offset {
                None => group.offsets.remove(&key),
                Some(offset) => group.offsets.insert(
                    key,
                    Stored {
                        offset,
                        leader_epoch: entry.leader_epoch,
                        metadata: entry.metadata.clone(),
                        time_ms,
                    },
                ),
            };
        }
        if group.offsets.is_empty() {
            self.groups.remove(&offsets.group);
        }
        Ok(())
    }

    fn apply_floor(&mut self, floor: &Floor) -> Result<()> {
        if floor.floor < self.floor || floor.floor > self.slot {
            return self.wrong(format!("moves the floor from {} to {}", self.floor, floor.floor));
        }
        self.floor = floor.floor;
        self.dead.retain(|dead| dead.slot >= floor.forget);
        Ok(())
    }

    fn check_drawn(&self, objects: &[L1Object], drawn_max: u64) -> Result<()> {
        match objects.iter().find(|o| o.object.drawn < self.floor || o.object.drawn > drawn_max) {
            Some(object) => self.wrong(format!("names an object drawn at {}", object.object.drawn)),
            None => Ok(()),
        }
    }

    fn apply_fold(&mut self, fold: &Fold, drawn_max: u64) -> Result<()> {
        self.check_drawn(&fold.objects, drawn_max)?;
        for range in &fold.ranges {
            let Some(object) = fold.objects.get(range.object as usize) else {
                return self.wrong("folds into no object");
            };
            let Some(topic) = self.topics.get_mut(&object.topic) else { continue };
            let Some(partition) = topic.partitions.get_mut(range.partition as usize) else {
                return self.wrong(format!("folds unknown partition {}", range.partition));
            };
            // I-FOLD: from the first unmerged offset to the end of a slice.
            let mut gone = Vec::new();
            let from = partition.first_unmerged();
            while partition.slices.front().is_some_and(|s| s.end() <= range.end) {
                gone.extend(partition.slices.pop_front());
            }
            if range.base < from && plant::on(Bug::FoldedTwice) {
                gone.iter().for_each(|slice| self.release(slice));
                continue;
            }
            if range.base != from || gone.last().map(Slice::end) != Some(range.end) {
                return self.wrong(format!("folds {}..{}, first unmerged {from}", range.base, range.end));
            }
            partition.time_us_before = gone.last().map_or(0, |s| s.time_us_running);
            partition.bytes_running = partition.bytes_running.max(range.bytes_running);
            gone.iter().for_each(|slice| self.release(slice));
        }
        let pending = Pending { rewrite: false, objects: fold.objects.clone(), ranges: fold.ranges.clone() };
        self.pending.insert(self.slot, pending);
        Ok(())
    }

    fn apply_rewrite(&mut self, rewrite: &Rewrite, drawn_max: u64) -> Result<()> {
        self.check_drawn(&rewrite.objects, drawn_max)?;
        let slot = self.slot;
        match self.topics.get_mut(&rewrite.topic) {
            Some(topic) if topic.generation == rewrite.generation => topic.generation = slot,
            _ => return self.wrong(format!("rewrites {} at another generation", rewrite.topic)),
        }
        let indexed_to =
            |range: &L1Range| self.partition(rewrite.topic, range.partition).map_or(0, |p| p.indexed_to);
        if let Some(range) = rewrite.ranges.iter().find(|range| range.end > indexed_to(range)) {
            return self.wrong(format!("rewrites up to {}, which is not indexed", range.end));
        }
        // Readers of an older view, and the rows until they are overwritten, still want them.
        let time_ms = self.time_ms;
        let dead = rewrite.replaced.iter().map(|(object, hour)| Dead {
            object: *object,
            l1: Some((rewrite.topic, *hour)),
            slot,
            time_ms,
        });
        self.dead.extend(dead);
        if plant::on(Bug::RewriteNotCarried) {
            return Ok(());
        }
        let pending =
            Pending { rewrite: true, objects: rewrite.objects.clone(), ranges: rewrite.ranges.clone() };
        self.pending.insert(slot, pending);
        Ok(())
    }

    fn apply_indexed(&mut self, number: u64) -> Result<()> {
        if self.pending.first_key_value().map(|(n, _)| *n) != Some(number) {
            return self.wrong(format!("indexes {number}, which is not the oldest pending"));
        }
        let Some(pending) = self.pending.remove(&number) else { return Ok(()) };
        for range in pending.ranges.iter().filter(|_| !pending.rewrite) {
            let topic = pending.objects.get(range.object as usize).map(|o| o.topic);
            if let Some(partition) = topic.and_then(|topic| self.partition_mut(topic, range.partition)) {
                partition.indexed_to = partition.indexed_to.max(range.end);
            }
        }
        Ok(())
    }
}
