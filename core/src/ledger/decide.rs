//! Decide: what the next commit may say. Pure: a view and the proposals give the actions and an outcome for each
//! proposal.
//!
//! A decision rests on nothing but the view that it is put into (L2) and on what it has placed already. An accepted
//! proposal becomes true only if the put at `view.slot + 1` succeeds; a refused one must be decided again from a view
//! that a strong read brought up to date after the request came in, before anybody is told (L4).

use std::collections::{BTreeMap, BTreeSet};

use super::action::*;
use super::view::*;
use crate::error::{Error, Result};
use crate::limits;
use crate::plant::{self, Bug};
use crate::record::{Offset, RecordSum, TopicId};

/// Something that wants to be in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proposal {
    /// Uploaded or inline rows that want offsets.
    Append(AppendProposal),
    /// A single action of another kind. It gets a commit of its own, except group offsets.
    Act(Action),
}

/// Rows that want offsets, in batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendProposal {
    /// Where they are.
    pub data: Data,
    /// Who gets which of them, in row order.
    pub batches: Vec<BatchProposal>,
}

/// Consecutive rows of one producer for one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchProposal {
    /// Topic.
    pub topic: TopicId,
    /// Partition.
    pub partition: u32,
    /// Row group.
    pub group: u32,
    /// First row, counted in the whole segment or inline body.
    pub first_row: u64,
    /// Rows; at least 1.
    pub rows: u32,
    /// Smallest and largest timestamp, µs.
    pub time_us: (i64, i64),
    /// Record sum, from place 0.
    pub sum: RecordSum,
    /// What it is deduplicated by.
    pub identity: Option<Identity>,
}

/// What a decision says of a batch.
#[derive(Debug, Clone)]
pub enum BatchOutcome {
    /// It gets these offsets if the put succeeds.
    Placed {
        /// Offset of its first row.
        base: Offset,
    },
    /// The log holds it already.
    Duplicate {
        /// Its original offset, if it is still known.
        base: Option<Offset>,
        /// Its original append time, ms.
        append_ms: i64,
    },
    /// Not from this view.
    Refused(Error),
    /// No room in this commit: propose it again in the next.
    Deferred,
}

/// What a decision says of a proposal.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Batch by batch.
    Append(Vec<BatchOutcome>),
    /// The object's name is outside floor and view: upload again under a new name (R3).
    Redraw,
    /// The action is in the commit.
    Accepted,
    /// Not from this view.
    Refused(Error),
    /// Propose it again in the next commit.
    Deferred,
}

/// The actions of the next commit; empty: there is nothing to put.
#[derive(Debug, Default)]
pub struct Decision {
    /// In order.
    pub actions: Vec<Action>,
    /// One for each proposal, in order.
    pub outcomes: Vec<Outcome>,
    /// Something was refused.
    pub refused: bool,
}

/// Decides the commit that follows `view`.
pub fn decide<'a>(view: &View, proposals: impl IntoIterator<Item = &'a Proposal>) -> Decision {
    let mut deciding = Deciding::new(view);
    for proposal in proposals {
        let outcome = deciding.propose(proposal);
        deciding.note_refusals(&outcome);
        deciding.decision.outcomes.push(outcome);
    }
    deciding.decision
}

struct Deciding<'a> {
    view: &'a View,
    decision: Decision,
    /// What this commit has placed so far.
    next: BTreeMap<(TopicId, u32), Offset>,
    producers: BTreeMap<(TopicId, u32, ProducerKey), Producer>,
    slices: usize,
    bytes: usize,
    inline_bytes: usize,
    /// Closed to further proposals: one does not overtake another.
    full: bool,
}

/// Estimated bytes of a batch in a commit body, and of its identity.
const BATCH_BYTES: usize = 4;
const IDENTITY_BYTES: usize = 28;

impl<'a> Deciding<'a> {
    fn new(view: &'a View) -> Self {
        Self {
            view,
            decision: Decision::default(),
            next: BTreeMap::new(),
            producers: BTreeMap::new(),
            slices: 0,
            bytes: 0,
            inline_bytes: 0,
            full: false,
        }
    }

    fn note_refusals(&mut self, outcome: &Outcome) {
        self.decision.refused |= match outcome {
            Outcome::Refused(_) => true,
            Outcome::Append(batches) => batches.iter().any(|b| matches!(b, BatchOutcome::Refused(_))),
            _ => false,
        };
    }

    fn propose(&mut self, proposal: &Proposal) -> Outcome {
        if self.full {
            return Outcome::Deferred;
        }
        match proposal {
            Proposal::Append(append) => self.append(append),
            Proposal::Act(action @ Action::Offsets(offsets)) => match check_offsets(self.view, offsets) {
                Ok(()) => self.accept(action.clone(), 32 + offsets.offsets.len() * 64),
                Err(error) => Outcome::Refused(error),
            },
            // Alone in its commit, so that nothing else in it depends on what it changes.
            Proposal::Act(_) if !self.decision.actions.is_empty() => {
                self.full = true;
                Outcome::Deferred
            }
            Proposal::Act(action) => match check_action(self.view, action) {
                Ok(()) => {
                    self.full = true;
                    self.accept(action.clone(), 0)
                }
                Err(error) => Outcome::Refused(error),
            },
        }
    }

    fn accept(&mut self, action: Action, bytes: usize) -> Outcome {
        self.bytes += bytes;
        self.full |= self.bytes > limits::COMMIT_BYTES_PLANNED;
        self.decision.actions.push(action);
        Outcome::Accepted
    }

    fn append(&mut self, proposal: &AppendProposal) -> Outcome {
        match &proposal.data {
            Data::Object { object, layout } => {
                let below = object.drawn < self.view.floor && !plant::on(Bug::FloorIgnored);
                if below || object.drawn > self.view.slot {
                    return Outcome::Redraw;
                }
                self.bytes += 40 + layout.groups.len() * 12;
            }
            Data::Inline(bytes) => {
                let bytes = bytes.len() + proposal.batches.len() * limits::SLICE_BYTES;
                if self.inline_bytes > 0 && self.inline_bytes + bytes > limits::INLINE_BYTES_MAX {
                    self.full = true;
                    return Outcome::Deferred;
                }
                self.inline_bytes += bytes;
            }
        }
        let mut slices: Vec<SliceBody> = Vec::new();
        let outcomes = proposal.batches.iter().map(|batch| self.batch(batch, &mut slices)).collect();
        if !slices.is_empty() {
            self.decision.actions.push(Action::Append(Append { data: proposal.data.clone(), slices }));
        }
        Outcome::Append(outcomes)
    }

    fn batch(&mut self, batch: &BatchProposal, slices: &mut Vec<SliceBody>) -> BatchOutcome {
        if self.slices >= limits::SLICES_PER_COMMIT || self.bytes >= limits::COMMIT_BYTES_PLANNED {
            self.full = true;
        }
        if self.full {
            return BatchOutcome::Deferred;
        }
        let Some(topic) = self.view.topics.get(&batch.topic) else {
            return BatchOutcome::Refused(deleted_topic(batch.topic));
        };
        let Some(partition) = topic.partitions.get(batch.partition as usize) else {
            return BatchOutcome::Refused(Error::UnknownPartition {
                topic: topic.name.clone(),
                partition: batch.partition,
                partitions: topic.partitions.len() as u32,
            });
        };
        let place = (batch.topic, batch.partition);
        let base = self.next.get(&place).copied().unwrap_or(partition.next);
        if let Some(identity) = &batch.identity {
            let key = (batch.topic, batch.partition, identity.key);
            let known = self.producers.get(&key).or_else(|| partition.producers.get(&identity.key));
            match check_sequence(known, identity, batch.partition) {
                Sequence::Next => {}
                Sequence::Duplicate(base, append_ms) => return BatchOutcome::Duplicate { base, append_ms },
                Sequence::Refused(error) => return BatchOutcome::Refused(error),
            }
            let window = Window {
                first: identity.first_sequence,
                last: identity.last_sequence,
                base,
                append_ms: self.view.time_ms,
            };
            let producer = Producer::push(known.cloned(), identity.epoch, window);
            self.producers.insert(key, producer);
        }
        self.next.insert(place, base + u64::from(batch.rows));
        self.place(batch, base, timestamp_type(topic), slices);
        BatchOutcome::Placed { base }
    }

    /// Lengthens the last slice if the batch continues it, else begins one: a batch that drops out leaves a gap in the
    /// rows, and a slice has none.
    fn place(
        &mut self,
        batch: &BatchProposal,
        base: Offset,
        time_type: TimestampType,
        slices: &mut Vec<SliceBody>,
    ) {
        self.bytes += BATCH_BYTES + batch.identity.map_or(0, |_| IDENTITY_BYTES);
        let body = BatchBody { rows: batch.rows, flags: 0, identity: batch.identity };
        let continued = slices.last_mut().filter(|last| {
            (last.topic, last.partition, last.group) == (batch.topic, batch.partition, batch.group)
                && last.first_row + last.rows() == batch.first_row
                && last.batches.len() < limits::BATCHES_PER_SLICE_MAX
        });
        let Some(slice) = continued else {
            self.bytes += limits::SLICE_BYTES;
            self.slices += 1;
            return slices.push(SliceBody {
                topic: batch.topic,
                partition: batch.partition,
                base,
                group: batch.group,
                first_row: batch.first_row,
                time_us: batch.time_us,
                time_type,
                sum: batch.sum,
                batches: vec![body],
            });
        };
        slice.sum = slice.sum + batch.sum.shifted(slice.rows());
        slice.time_us = (slice.time_us.0.min(batch.time_us.0), slice.time_us.1.max(batch.time_us.1));
        match slice.batches.last_mut() {
            Some(last) if last.identity.is_none() && body.identity.is_none() => {
                match last.rows.checked_add(body.rows) {
                    Some(rows) => last.rows = rows,
                    None => slice.batches.push(body),
                }
            }
            _ => slice.batches.push(body),
        }
    }
}

/// The topic's `message.timestamp.type`.
pub fn timestamp_type(topic: &Topic) -> TimestampType {
    match topic.config.get(crate::topic::MESSAGE_TIMESTAMP_TYPE).map(String::as_str) {
        Some("LogAppendTime") => TimestampType::LogAppendTime,
        _ => TimestampType::CreateTime,
    }
}

enum Sequence {
    Next,
    Duplicate(Option<Offset>, i64),
    Refused(Error),
}

/// Kafka's rules for `dense`; the others differ in what may follow.
fn check_sequence(known: Option<&Producer>, identity: &Identity, partition: u32) -> Sequence {
    let producer = identity.key.producer;
    let got = identity.first_sequence;
    let dense = identity.key.kind == IdentityKind::Dense;
    let Some(known) = known else {
        return match dense && got != 0 {
            true => Sequence::Refused(Error::UnknownProducer { producer, partition, got }),
            false => Sequence::Next,
        };
    };
    if identity.epoch < known.epoch {
        if plant::on(Bug::StaleEpochAccepted) {
            return Sequence::Next;
        }
        let (current, got) = (known.epoch, identity.epoch);
        return Sequence::Refused(Error::ProducerFenced { producer, partition, current, got });
    }
    let refused =
        |expected| Sequence::Refused(Error::OutOfOrderSequence { producer, partition, expected, got });
    if identity.epoch > known.epoch {
        return if dense && got != 0 { refused(0) } else { Sequence::Next };
    }
    let same = |w: &&Window| (w.first, w.last) == (got, identity.last_sequence);
    if let Some(window) = known.window.iter().find(same) {
        return Sequence::Duplicate(Some(window.base), window.append_ms);
    }
    let last = known.window.back().map_or(0, |w| w.last);
    match identity.key.kind {
        IdentityKind::Dense if got == last + 1 => Sequence::Next,
        IdentityKind::Monotone if got > last => Sequence::Next,
        IdentityKind::Monotone if identity.last_sequence <= last => {
            Sequence::Duplicate(None, known.last_ms())
        }
        IdentityKind::Once => Sequence::Duplicate(None, known.last_ms()),
        _ => refused(last + 1),
    }
}

fn check_offsets(view: &View, offsets: &GroupOffsets) -> Result<()> {
    Error::check_size("group", offsets.group.len(), limits::NAME_BYTES_MAX)?;
    Error::check_size("member", offsets.member.len(), limits::NAME_BYTES_MAX)?;
    Error::check_size("offsets", offsets.offsets.len(), limits::GROUP_OFFSETS_PER_COMMIT_MAX)?;
    if offsets.group.is_empty() {
        return Err(Error::invalid("group", "is empty"));
    }
    if !view.groups.contains_key(&offsets.group) {
        Error::check_size("groups", view.groups.len() + 1, limits::GROUPS_MAX)?;
    }
    for entry in &offsets.offsets {
        Error::check_size("metadata", entry.metadata.len(), limits::GROUP_METADATA_BYTES_MAX)?;
        let Some(topic) = view.topics.get(&entry.topic) else {
            return Err(deleted_topic(entry.topic));
        };
        let partitions = topic.partitions.len() as u32;
        if entry.partition >= partitions && entry.offset.is_some() {
            return Err(Error::UnknownPartition {
                topic: topic.name.clone(),
                partition: entry.partition,
                partitions,
            });
        }
    }
    Ok(())
}

fn superseded(what: impl Into<String>) -> Result<()> {
    Err(Error::Superseded { what: what.into() })
}

/// Whoever has an id has seen the topic.
fn deleted_topic(id: TopicId) -> Error {
    Error::TopicDeleted { topic: id.to_string() }
}

/// Whether `action` may be put after `view`: the conditions that `apply` will assert.
fn check_action(view: &View, action: &Action) -> Result<()> {
    match action {
        Action::Append(_) | Action::Offsets(_) => Err(Error::invalid("action", "is proposed in another way")),
        Action::Store(store) => match &view.store {
            Some(known) if known.store_id != store.store_id => superseded("another process made the store"),
            Some(known) if known == store => superseded("the store exists"),
            _ => Ok(()),
        },
        Action::Level(level) if *level <= view.level => superseded("the level is reached"),
        Action::Level(level) if *level > super::codec::LEVEL => {
            Err(Error::invalid("level", format!("{level} is not known to this version")))
        }
        Action::Level(_) => Ok(()),
        Action::Topic(change) => check_topic(view, change),
        Action::Lead(lead) => check_lead(view, lead),
        Action::Trim(trims) => trims.iter().try_for_each(|trim| check_trim(view, trim)),
        Action::Checkpoint(named) => match view.checkpoint {
            _ if named.name.at > view.slot => superseded("a checkpoint of commits that do not exist"),
            Some(newest) if named.name.at <= newest.name.at => superseded("a newer checkpoint is named"),
            _ if named.name.at < view.floor => superseded("the checkpoint is below the floor"),
            _ => Ok(()),
        },
        Action::Expire(expire) if expire.before_ms > view.time_ms => {
            Err(Error::invalid("expire", "reaches past the newest commit"))
        }
        Action::Expire(_) => Ok(()),
        Action::Floor(floor) if floor.floor < view.floor => superseded("a higher floor is named"),
        Action::Floor(floor) if floor.floor > view.slot + 1 => {
            Err(Error::invalid("floor", "is above its own commit"))
        }
        Action::Floor(_) => Ok(()),
        Action::Fold(fold) => check_fold(view, fold),
        Action::Rewrite(rewrite) => check_rewrite(view, rewrite),
        Action::Indexed(number) => match view.pending.first_key_value() {
            Some((oldest, _)) if oldest == number => Ok(()),
            _ => superseded(format!("{number} is not the oldest pending fold")),
        },
    }
}

fn check_topic(view: &View, change: &TopicChange) -> Result<()> {
    match change {
        TopicChange::Create { id, name, partitions, config } => {
            crate::topic::check_name(name)?;
            crate::topic::check_partitions(*partitions)?;
            crate::topic::check_config(config.iter().map(|(k, v)| (k.as_str(), Some(v.as_str()))))?;
            Error::check_size("topics", view.topics.len() + 1, limits::TOPICS_MAX)?;
            if view.names.contains_key(name) || view.topics.contains_key(id) {
                return Err(Error::TopicExists { topic: name.clone() });
            }
            Ok(())
        }
        TopicChange::Alter { id, partitions, config } => {
            let topic = view.topics.get(id).ok_or_else(|| deleted_topic(*id))?;
            crate::topic::check_config(config.iter().map(|(k, v)| (k.as_str(), v.as_deref())))?;
            let Some(partitions) = *partitions else { return Ok(()) };
            crate::topic::check_partitions(partitions)?;
            let now = topic.partitions.len();
            if (partitions as usize) < now {
                let reason = format!("{partitions} is fewer than the {now} there are: partitions only grow");
                return Err(Error::invalid("partitions", reason));
            }
            Ok(())
        }
        TopicChange::Delete { id } if view.topics.contains_key(id) => Ok(()),
        TopicChange::Delete { id } => Err(deleted_topic(*id)),
    }
}

fn check_lead(view: &View, lead: &Lead) -> Result<()> {
    Error::check_size("leader address", lead.address.len(), limits::NAME_BYTES_MAX)?;
    let partitions = lead.take.len() + lead.let_go.len();
    Error::check_size("partitions led at once", partitions, limits::PARTITIONS_PER_LEAD)?;
    let mut taken = BTreeSet::new();
    for (topic, number) in &lead.take {
        match view.partition(*topic, *number) {
            None => return Err(deleted_topic(*topic)),
            Some(partition) if partition.leader == Some(lead.who) => return superseded("already led"),
            Some(_) if !taken.insert((*topic, *number)) => {
                return Err(Error::invalid("lead", "takes a partition twice"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn check_trim(view: &View, trim: &TrimTo) -> Result<()> {
    let Some(partition) = view.partition(trim.topic, trim.partition) else {
        return Err(deleted_topic(trim.topic));
    };
    if trim.log_start <= partition.log_start {
        return superseded(format!("log start is {} already", partition.log_start));
    }
    if trim.log_start > partition.next {
        let reason = format!("{} is past the end, {}", trim.log_start, partition.next);
        return Err(Error::invalid("log start", reason));
    }
    if trim.oldest_ms > view.time_ms {
        let reason = format!("{} is after the newest commit, {}", trim.oldest_ms, view.time_ms);
        return Err(Error::invalid("time of the oldest records", reason));
    }
    if trim.oldest_bytes > partition.bytes_running {
        let reason = format!("{} is above {}, all there are", trim.oldest_bytes, partition.bytes_running);
        return Err(Error::invalid("bytes up to the oldest records", reason));
    }
    Ok(())
}

fn check_objects(view: &View, objects: &[L1Object]) -> Result<()> {
    match objects.iter().any(|o| o.object.drawn < view.floor || o.object.drawn > view.slot) {
        true => superseded("an object was drawn outside floor and view"),
        false => Ok(()),
    }
}

fn check_fold(view: &View, fold: &Fold) -> Result<()> {
    check_objects(view, &fold.objects)?;
    let mut from: BTreeMap<(TopicId, u32), (Offset, u64)> = BTreeMap::new();
    for range in &fold.ranges {
        let Some(object) = fold.objects.get(range.object as usize) else {
            return Err(Error::invalid("fold", "names no object"));
        };
        let Some(partition) = view.partition(object.topic, range.partition) else {
            return superseded("the topic is gone");
        };
        let before = (partition.first_unmerged(), partition.bytes_running);
        let (first, bytes) = from.entry((object.topic, range.partition)).or_insert(before);
        let ends_a_slice = partition.slices.iter().any(|s| s.end() == range.end);
        let folded = partition.slices.iter().filter(|s| s.base >= range.base && s.end() <= range.end);
        if folded.clone().any(|slice| slice.append_ms / limits::HOUR_MS != i64::from(object.hour)) {
            return Err(Error::invalid("fold", "holds records that were appended in another hour"));
        }
        if range.base < *first && plant::on(Bug::FoldedTwice) {
            continue;
        }
        if range.base != *first || range.end <= range.base || !ends_a_slice {
            return superseded(format!("{}..{} is not the oldest unmerged range", range.base, range.end));
        }
        if !(*bytes..=bytes.saturating_add(object.footer.end())).contains(&range.bytes_running) {
            let (counted, file) = (range.bytes_running, object.footer.end());
            let reason = format!("counts {counted} bytes, {bytes} were before it and its file has {file}");
            return Err(Error::invalid("fold", reason));
        }
        (*first, *bytes) = (range.end, range.bytes_running);
    }
    Ok(())
}

fn check_rewrite(view: &View, rewrite: &Rewrite) -> Result<()> {
    check_objects(view, &rewrite.objects)?;
    match view.topics.get(&rewrite.topic) {
        None => return superseded("the topic is gone"),
        Some(topic) if topic.generation != rewrite.generation => {
            return superseded("the topic was rewritten in between");
        }
        Some(_) => {}
    }
    let mut pending = view.pending.values().flat_map(|p| &p.objects);
    if pending.any(|o| o.topic == rewrite.topic) {
        return superseded("the topic has a pending fold");
    }
    for range in &rewrite.ranges {
        let indexed_to = view.partition(rewrite.topic, range.partition).map_or(0, |p| p.indexed_to);
        if range.object as usize >= rewrite.objects.len() || range.end > indexed_to {
            let reason = format!("{}..{} is not below {indexed_to}", range.base, range.end);
            return Err(Error::invalid("rewrite", reason));
        }
        let hour = i64::from(rewrite.objects[range.object as usize].hour);
        if [range.append_ms.0, range.append_ms.1].iter().any(|ms| ms / limits::HOUR_MS != hour) {
            return Err(Error::invalid("rewrite", "holds records that were appended in another hour"));
        }
    }
    Ok(())
}

/// The time of the next commit: never before the one before (I-TIME).
pub fn commit_time(view: &View, now_ms: i64) -> i64 {
    match plant::on(Bug::AppendTimeGoesBack) {
        true => now_ms.max(0),
        false => now_ms.max(view.time_ms).max(0),
    }
}
