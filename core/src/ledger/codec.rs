//! The bytes of a commit body. `docs/FORMAT.md` draws them; `tests/golden` holds them for ever.
//!
//! ```text
//! u8 version = 1 · 16 prev · uint time_ms · option(uint at · uint era · 16 ulid) · list of actions · 8 checksum
//! action = u8 kind · uint length · payload          checksum = xxh3-64(slot u64 · id u128 · all bytes before it)
//! ```
//! A reader that meets another version or kind stops with [`Error::Newer`]: everything is replay, nothing is skipped.

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::action::*;
use super::wire::{Reader, Writer};
use crate::error::{Error, Result};
use crate::limits;
use crate::record::{RecordSum, TopicId};
use crate::segment::{Layout, Span};

/// Version of commit bodies that this release writes.
pub const BODY_VERSION: u8 = 1;
/// Highest `Level` that this release understands.
pub const LEVEL: u32 = 1;
/// The inline encoding that this release writes.
const ENCODING_ROWS: u8 = 1;

pub(super) fn checksum(slot: u64, id: u128, bytes: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&slot.to_be_bytes());
    hasher.update(&id.to_be_bytes());
    hasher.update(bytes);
    hasher.digest()
}

/// The body of `commit` for `slot` under `id`. Refuses one that no table would take.
pub fn encode(commit: &Commit, slot: u64, id: u128) -> Result<Bytes> {
    let mut out = Writer::default();
    out.u8(BODY_VERSION);
    out.u128(commit.prev);
    out.uint(commit.time_ms as u64);
    out.option(commit.checkpoint.as_ref(), checkpoint_name);
    out.list(commit.actions.iter(), |out, action| {
        out.u8(kind(action));
        out.bytes(payload(action).as_slice());
    });
    out.u64(checksum(slot, id, out.as_slice()));
    Error::check_size("commit", out.as_slice().len(), limits::COMMIT_BYTES_MAX)?;
    Ok(out.into_bytes())
}

/// Reads the body found in `slot` under `id`.
pub fn decode(body: &Bytes, slot: u64, id: u128) -> Result<Commit> {
    let what = format!("commit {slot}");
    if body.len() > limits::COMMIT_BYTES_MAX || body.len() < 8 {
        return Err(Error::damaged(what, format!("{} bytes long", body.len())));
    }
    // The version is read first: a newer one may sum its bytes in another way.
    if body[0] != BODY_VERSION {
        return Err(Error::Newer {
            what: format!("{what} has version {}, known are up to {BODY_VERSION}", body[0]),
        });
    }
    let summed = body.slice(..body.len() - 8);
    let sum = Bytes::copy_from_slice(&body[body.len() - 8..]);
    if Reader::new(&what, &sum).u64()? != checksum(slot, id, &summed) {
        return Err(Error::damaged(what, "checksum does not match"));
    }
    let mut from = Reader::new(&what, &summed);
    from.u8()?;
    let commit = Commit {
        prev: from.u128()?,
        time_ms: from.small()?,
        checkpoint: from.option(read_checkpoint_name)?,
        actions: read_actions(&mut from, &what)?,
    };
    from.end()?;
    Ok(commit)
}

fn read_actions(from: &mut Reader<'_>, what: &str) -> Result<Vec<Action>> {
    let actions = from.list(2, |from| {
        let kind = from.u8()?;
        let payload = from.bytes()?;
        let mut from = Reader::new(what, &payload);
        let action = read_payload(kind, &mut from)?;
        from.end()?;
        Ok(action)
    })?;
    if actions.len() > limits::ACTIONS_PER_COMMIT_MAX {
        return Err(from.error(format!("{} actions", actions.len())));
    }
    // A few bytes become so many partitions in the view: bounded here, since `apply` looks at no limit.
    let partitions: u64 = actions.iter().map(|action| u64::from(new_partitions(action))).sum();
    if partitions > u64::from(limits::PARTITIONS_PER_TOPIC_MAX) {
        let known = limits::PARTITIONS_PER_TOPIC_MAX;
        return Err(Error::Newer {
            what: format!("{partitions} partitions in {what}, known are up to {known}"),
        });
    }
    Ok(actions)
}

/// How many partitions a topic has at least after this action; 0: it changes none.
fn new_partitions(action: &Action) -> u32 {
    match action {
        Action::Topic(TopicChange::Create { partitions, .. }) => *partitions,
        Action::Topic(TopicChange::Alter { partitions, .. }) => partitions.unwrap_or(0),
        _ => 0,
    }
}

/// Numbers are for ever. 14 to 25 are reserved: Open, Join, Outcome, Mark, Done, Assign, Adopt, Config, Drop, Move.
fn kind(action: &Action) -> u8 {
    match action {
        Action::Store(_) => 1,
        Action::Level(_) => 2,
        Action::Topic(_) => 3,
        Action::Append(_) => 4,
        Action::Lead(_) => 5,
        Action::Trim(_) => 6,
        Action::Checkpoint(_) => 7,
        Action::Expire(_) => 8,
        Action::Offsets(_) => 9,
        Action::Floor(_) => 10,
        Action::Fold(_) => 11,
        Action::Rewrite(_) => 12,
        Action::Indexed(_) => 13,
    }
}

fn payload(action: &Action) -> Writer {
    let mut out = Writer::default();
    match action {
        Action::Store(store) => write_store(&mut out, store),
        Action::Level(level) => out.uint(u64::from(*level)),
        Action::Topic(change) => write_topic(&mut out, change),
        Action::Append(append) => write_append(&mut out, append),
        Action::Lead(lead) => write_lead(&mut out, lead),
        Action::Trim(trims) => {
            out.list(trims.iter(), |out, trim| {
                write_place(out, (trim.topic, trim.partition));
                out.uint(trim.log_start);
            });
            let has_bytes = trims.iter().any(|trim| trim.oldest_bytes != 0);
            if has_bytes || trims.iter().any(|trim| trim.oldest_ms != 0) {
                out.list(trims.iter(), |out, trim| out.uint(trim.oldest_ms as u64));
            }
            if has_bytes {
                out.list(trims.iter(), |out, trim| out.uint(trim.oldest_bytes));
            }
        }
        Action::Checkpoint(named) => {
            checkpoint_name(&mut out, &named.name);
            out.u64(named.checksum);
        }
        Action::Expire(expire) => {
            out.u8(match expire.what {
                Expiring::Groups => 0,
                Expiring::Producers(kind) => identity_kind(kind),
            });
            out.uint(expire.before_ms as u64);
        }
        Action::Offsets(offsets) => write_offsets(&mut out, offsets),
        Action::Floor(floor) => {
            out.uint(floor.floor);
            out.uint(floor.forget);
        }
        Action::Fold(fold) => {
            write_l1(&mut out, &fold.objects, &fold.ranges);
            write_bytes_running(&mut out, &fold.ranges);
        }
        Action::Rewrite(rewrite) => {
            out.u128(rewrite.topic.0);
            out.uint(rewrite.generation);
            write_l1(&mut out, &rewrite.objects, &rewrite.ranges);
            if !rewrite.replaced.is_empty() || counts_bytes(&rewrite.ranges) {
                out.list(rewrite.replaced.iter(), |out, (object, hour)| {
                    object_ref(out, object);
                    out.uint(u64::from(*hour));
                });
            }
            write_bytes_running(&mut out, &rewrite.ranges);
        }
        Action::Indexed(number) => out.uint(*number),
    }
    out
}

fn read_payload(kind: u8, from: &mut Reader<'_>) -> Result<Action> {
    Ok(match kind {
        1 => Action::Store(read_store(from)?),
        2 => match from.small()? {
            level if level > LEVEL => {
                return Err(Error::Newer { what: format!("level {level}, known are up to {LEVEL}") });
            }
            level => Action::Level(level),
        },
        3 => Action::Topic(read_topic(from)?),
        4 => Action::Append(read_append(from)?),
        5 => Action::Lead(read_lead(from)?),
        6 => Action::Trim(read_trims(from)?),
        7 => Action::Checkpoint(Checkpoint { name: read_checkpoint_name(from)?, checksum: from.u64()? }),
        8 => {
            let what = match from.u8()? {
                0 => Expiring::Groups,
                kind => Expiring::Producers(read_identity_kind(kind, from)?),
            };
            Action::Expire(Expire { what, before_ms: from.small()? })
        }
        9 => Action::Offsets(read_offsets(from)?),
        10 => Action::Floor(Floor { floor: from.uint()?, forget: from.uint()? }),
        11 => {
            let (objects, mut ranges) = read_l1(from)?;
            read_bytes_running(from, &mut ranges)?;
            Action::Fold(Fold { objects, ranges })
        }
        12 => {
            let (topic, generation) = (TopicId(from.u128()?), from.uint()?);
            let (objects, mut ranges) = read_l1(from)?;
            let is_told = from.left() > 0;
            let replaced = match from.left() {
                0 => Vec::new(),
                _ => from.list(20, |from| Ok((read_object_ref(from)?, from.small()?)))?,
            };
            // One form: what is empty and last is absent.
            if is_told && replaced.is_empty() && from.left() == 0 {
                return Err(from.error("says that it replaces nothing"));
            }
            read_bytes_running(from, &mut ranges)?;
            Action::Rewrite(Rewrite { topic, generation, objects, ranges, replaced })
        }
        13 => Action::Indexed(from.uint()?),
        other => return Err(Error::Newer { what: format!("action {other}") }),
    })
}

fn read_trims(from: &mut Reader<'_>) -> Result<Vec<TrimTo>> {
    let mut trims = from.list(18, |from| {
        let (topic, partition) = read_place(from)?;
        Ok(TrimTo { topic, partition, log_start: from.uint()?, oldest_ms: 0, oldest_bytes: 0 })
    })?;
    if from.left() == 0 {
        return Ok(trims);
    }
    let times: Vec<i64> = from.list(1, |from| from.small())?;
    if times.len() != trims.len() || from.left() == 0 && times.iter().all(|ms| *ms == 0) {
        return Err(from.error(format!("{} times of {} log starts", times.len(), trims.len())));
    }
    trims.iter_mut().zip(times).for_each(|(trim, ms)| trim.oldest_ms = ms);
    let bytes = read_counts(from, trims.len())?;
    trims.iter_mut().zip(bytes).for_each(|(trim, bytes)| trim.oldest_bytes = bytes);
    Ok(trims)
}

/// One for each of what came before, not all of them 0; or nothing, where all are.
fn read_counts(from: &mut Reader<'_>, of: usize) -> Result<Vec<u64>> {
    if from.left() == 0 {
        return Ok(Vec::new());
    }
    let counts: Vec<u64> = from.list(1, Reader::uint)?;
    match counts.len() != of || counts.iter().all(|count| *count == 0) {
        true => Err(from.error(format!("{} byte counts for {of}", counts.len()))),
        false => Ok(counts),
    }
}

fn counts_bytes(ranges: &[L1Range]) -> bool {
    ranges.iter().any(|range| range.bytes_running != 0)
}

/// What ends whatever says of merged ranges: those that were merged before anybody counted have none (RFC 0003).
pub(super) fn write_bytes_running(out: &mut Writer, ranges: &[L1Range]) {
    if counts_bytes(ranges) {
        out.list(ranges.iter(), |out, range| out.uint(range.bytes_running));
    }
}

pub(super) fn read_bytes_running(from: &mut Reader<'_>, ranges: &mut [L1Range]) -> Result<()> {
    let counts = read_counts(from, ranges.len())?;
    ranges.iter_mut().zip(counts).for_each(|(range, bytes)| range.bytes_running = bytes);
    Ok(())
}

/// See [`Store`].
pub(super) fn write_store(out: &mut Writer, store: &Store) {
    out.uint(u64::from(store.format));
    out.u128(store.store_id);
    out.uint(u64::from(store.era));
    out.bytes(store.table.as_bytes());
    out.uint(store.created_ms as u64);
}

pub(super) fn read_store(from: &mut Reader<'_>) -> Result<Store> {
    Ok(Store {
        format: from.small()?,
        store_id: from.u128()?,
        era: from.small()?,
        table: from.string()?,
        created_ms: from.small()?,
    })
}

pub(super) fn checkpoint_name(out: &mut Writer, name: &CheckpointName) {
    out.uint(name.at);
    out.uint(u64::from(name.era));
    out.u128(name.ulid);
}

pub(super) fn read_checkpoint_name(from: &mut Reader<'_>) -> Result<CheckpointName> {
    Ok(CheckpointName { at: from.uint()?, era: from.small()?, ulid: from.u128()? })
}

fn write_topic(out: &mut Writer, change: &TopicChange) {
    match change {
        TopicChange::Create { id, name, partitions, config } => {
            out.u8(0);
            out.u128(id.0);
            out.bytes(name.as_bytes());
            out.uint(u64::from(*partitions));
            out.list(config.iter(), |out, (key, value)| {
                out.bytes(key.as_bytes());
                out.bytes(value.as_bytes());
            });
        }
        TopicChange::Alter { id, partitions, config } => {
            out.u8(1);
            out.u128(id.0);
            out.option(*partitions, |out, partitions| out.uint(u64::from(partitions)));
            out.list(config.iter(), |out, (key, value)| {
                out.bytes(key.as_bytes());
                out.option(value.as_ref(), |out, value| out.bytes(value.as_bytes()));
            });
        }
        TopicChange::Delete { id } => {
            out.u8(2);
            out.u128(id.0);
        }
    }
}

fn read_topic(from: &mut Reader<'_>) -> Result<TopicChange> {
    let change = from.u8()?;
    let id = TopicId(from.u128()?);
    Ok(match change {
        0 => TopicChange::Create {
            id,
            name: from.string()?,
            partitions: from.small()?,
            config: from.list(2, |from| Ok((from.string()?, from.string()?)))?,
        },
        1 => TopicChange::Alter {
            id,
            partitions: from.option(Reader::small)?,
            config: from.list(2, |from| Ok((from.string()?, from.option(Reader::string)?)))?,
        },
        2 => TopicChange::Delete { id },
        other => return Err(Error::Newer { what: format!("topic change {other}") }),
    })
}

fn write_append(out: &mut Writer, append: &Append) {
    out.u8(ENCODING_ROWS);
    match &append.data {
        Data::Object { object, layout } => {
            out.u8(1);
            object_ref(out, object);
            write_layout(out, layout);
        }
        Data::Inline(bytes) => {
            out.u8(0);
            out.bytes(bytes);
        }
    }
    out.list(append.slices.iter(), write_slice);
}

fn read_append(from: &mut Reader<'_>) -> Result<Append> {
    let encoding = from.u8()?;
    if encoding != ENCODING_ROWS {
        return Err(Error::Newer { what: format!("append encoding {encoding}") });
    }
    let data = match from.u8()? {
        0 => Data::Inline(from.bytes()?),
        1 => Data::Object { object: read_object_ref(from)?, layout: read_layout(from)? },
        other => return Err(from.error(format!("append data {other}"))),
    };
    Ok(Append { data, slices: from.list(56, read_slice)? })
}

pub(super) fn object_ref(out: &mut Writer, object: &ObjectRef) {
    out.uint(u64::from(object.era));
    out.uint(u64::from(object.ledger));
    out.uint(object.drawn);
    out.u128(object.ulid);
}

pub(super) fn read_object_ref(from: &mut Reader<'_>) -> Result<ObjectRef> {
    Ok(ObjectRef { era: from.small()?, ledger: from.small()?, drawn: from.uint()?, ulid: from.u128()? })
}

pub(super) fn span(out: &mut Writer, span: &Span) {
    out.uint(u64::from(span.position));
    out.uint(u64::from(span.length));
    out.u32(span.crc);
}

pub(super) fn read_span(from: &mut Reader<'_>) -> Result<Span> {
    Ok(Span { position: from.small()?, length: from.small()?, crc: from.u32()? })
}

pub(super) fn write_layout(out: &mut Writer, layout: &Layout) {
    out.list(layout.groups.iter(), span);
    span(out, &layout.footer);
}

pub(super) fn read_layout(from: &mut Reader<'_>) -> Result<Layout> {
    let groups = from.list(6, read_span)?;
    if groups.len() > limits::ROW_GROUPS_MAX {
        return Err(from.error(format!("{} row groups", groups.len())));
    }
    Ok(Layout { groups, footer: read_span(from)? })
}

pub(super) fn record_sum(out: &mut Writer, sum: &RecordSum) {
    out.u128(sum.hashes);
    out.u128(sum.places);
}

pub(super) fn read_record_sum(from: &mut Reader<'_>) -> Result<RecordSum> {
    Ok(RecordSum { hashes: from.u128()?, places: from.u128()? })
}

pub(super) fn write_place(out: &mut Writer, (topic, partition): (TopicId, u32)) {
    out.u128(topic.0);
    out.uint(u64::from(partition));
}

pub(super) fn read_place(from: &mut Reader<'_>) -> Result<(TopicId, u32)> {
    Ok((TopicId(from.u128()?), from.small()?))
}

fn write_slice(out: &mut Writer, slice: &SliceBody) {
    write_place(out, (slice.topic, slice.partition));
    out.uint(slice.base);
    out.uint(u64::from(slice.group));
    out.uint(slice.first_row);
    times(out, slice.time_us);
    out.u8(time_type(slice.time_type));
    record_sum(out, &slice.sum);
    out.list(slice.batches.iter(), |out, batch| {
        out.uint(u64::from(batch.rows));
        out.u8(batch.flags);
        match &batch.identity {
            None => out.u8(0),
            Some(identity) => {
                producer_key(out, &identity.key);
                out.uint(u64::from(identity.epoch));
                out.uint(identity.first_sequence);
                out.uint(identity.last_sequence - identity.first_sequence);
            }
        }
    });
}

fn read_slice(from: &mut Reader<'_>) -> Result<SliceBody> {
    let (topic, partition) = read_place(from)?;
    Ok(SliceBody {
        topic,
        partition,
        base: from.uint()?,
        group: from.small()?,
        first_row: from.uint()?,
        time_us: read_times(from)?,
        time_type: read_time_type(from)?,
        sum: read_record_sum(from)?,
        batches: from.list(3, read_batch)?,
    })
}

fn read_batch(from: &mut Reader<'_>) -> Result<BatchBody> {
    let (rows, flags) = (from.small()?, from.u8()?);
    let identity = match from.u8()? {
        0 => None,
        kind => Some(read_identity(kind, from)?),
    };
    if rows == 0 || flags != 0 {
        return Err(from.error("a batch without rows or with unknown flags"));
    }
    Ok(BatchBody { rows, flags, identity })
}

fn read_identity(kind: u8, from: &mut Reader<'_>) -> Result<Identity> {
    let key = read_producer_key(kind, from)?;
    let (epoch, first_sequence, length) = (from.small()?, from.uint()?, from.uint()?);
    let last_sequence =
        first_sequence.checked_add(length).ok_or_else(|| from.error("a sequence past 2^64"))?;
    Ok(Identity { key, epoch, first_sequence, last_sequence })
}

/// The smaller time, and the distance to the larger.
pub(super) fn times(out: &mut Writer, (min, max): (i64, i64)) {
    out.int(min);
    out.uint(max.wrapping_sub(min) as u64);
}

pub(super) fn read_times(from: &mut Reader<'_>) -> Result<(i64, i64)> {
    let (min, span) = (from.int()?, from.uint()?);
    let max = min.checked_add_unsigned(span).ok_or_else(|| from.error("a time past 2^63"))?;
    Ok((min, max))
}

pub(super) fn time_type(time_type: TimestampType) -> u8 {
    match time_type {
        TimestampType::CreateTime => 0,
        TimestampType::LogAppendTime => 1,
    }
}

pub(super) fn read_time_type(from: &mut Reader<'_>) -> Result<TimestampType> {
    match from.u8()? {
        0 => Ok(TimestampType::CreateTime),
        1 => Ok(TimestampType::LogAppendTime),
        other => Err(from.error(format!("timestamp type {other}"))),
    }
}

fn identity_kind(kind: IdentityKind) -> u8 {
    match kind {
        IdentityKind::Dense => 1,
        IdentityKind::Monotone => 2,
        IdentityKind::Once => 3,
    }
}

fn read_identity_kind(kind: u8, from: &Reader<'_>) -> Result<IdentityKind> {
    match kind {
        1 => Ok(IdentityKind::Dense),
        2 => Ok(IdentityKind::Monotone),
        3 => Ok(IdentityKind::Once),
        other => Err(from.error(format!("identity kind {other}"))),
    }
}

/// A dense producer id has 63 bits and is written short; keys are 16 bytes.
pub(super) fn producer_key(out: &mut Writer, key: &ProducerKey) {
    out.u8(identity_kind(key.kind));
    match key.kind {
        IdentityKind::Dense => out.uint(key.producer as u64),
        IdentityKind::Monotone | IdentityKind::Once => out.u128(key.producer),
    }
}

pub(super) fn read_producer_key(kind: u8, from: &mut Reader<'_>) -> Result<ProducerKey> {
    let kind = read_identity_kind(kind, from)?;
    let producer = match kind {
        IdentityKind::Dense => u128::from(from.uint()?),
        IdentityKind::Monotone | IdentityKind::Once => from.u128()?,
    };
    Ok(ProducerKey { kind, producer })
}

fn write_lead(out: &mut Writer, lead: &Lead) {
    out.u64(lead.who);
    out.bytes(lead.address.as_bytes());
    out.list(lead.take.iter().copied(), write_place);
    out.list(lead.let_go.iter().copied(), write_place);
}

fn read_lead(from: &mut Reader<'_>) -> Result<Lead> {
    Ok(Lead {
        who: from.u64()?,
        address: from.string()?,
        take: from.list(17, read_place)?,
        let_go: from.list(17, read_place)?,
    })
}

fn write_offsets(out: &mut Writer, offsets: &GroupOffsets) {
    out.bytes(offsets.group.as_bytes());
    out.bytes(offsets.member.as_bytes());
    out.int(i64::from(offsets.generation));
    out.list(offsets.offsets.iter(), |out, entry| {
        write_place(out, (entry.topic, entry.partition));
        out.option(entry.offset, Writer::uint);
        out.int(i64::from(entry.leader_epoch));
        out.bytes(entry.metadata.as_bytes());
    });
}

/// A signed integer that fits 32 bits.
pub(super) fn read_i32(from: &mut Reader<'_>) -> Result<i32> {
    let value = from.int()?;
    i32::try_from(value).map_err(|_| from.error(format!("{value} is too large")))
}

fn read_offsets(from: &mut Reader<'_>) -> Result<GroupOffsets> {
    Ok(GroupOffsets {
        group: from.string()?,
        member: from.string()?,
        generation: read_i32(from)?,
        offsets: from.list(20, |from| {
            let (topic, partition) = read_place(from)?;
            Ok(GroupOffset {
                topic,
                partition,
                offset: from.option(Reader::uint)?,
                leader_epoch: read_i32(from)?,
                metadata: from.string()?,
            })
        })?,
    })
}

pub(super) fn write_l1(out: &mut Writer, objects: &[L1Object], ranges: &[L1Range]) {
    out.list(objects.iter(), |out, object| {
        object_ref(out, &object.object);
        out.uint(u64::from(object.hour));
        out.u128(object.topic.0);
        span(out, &object.footer);
    });
    out.list(ranges.iter(), |out, range| {
        out.uint(u64::from(range.object));
        out.uint(u64::from(range.partition));
        out.uint(range.base);
        out.uint(range.end);
        out.uint(range.rows);
        out.uint(u64::from(range.groups.0));
        out.uint(u64::from(range.groups.1));
        times(out, range.append_ms);
        out.int(range.time_us_max);
        record_sum(out, &range.sum);
    });
}

pub(super) fn read_l1(from: &mut Reader<'_>) -> Result<(Vec<L1Object>, Vec<L1Range>)> {
    let objects: Vec<L1Object> = from.list(42, |from| {
        Ok(L1Object {
            object: read_object_ref(from)?,
            hour: from.small()?,
            topic: TopicId(from.u128()?),
            footer: read_span(from)?,
        })
    })?;
    let ranges = from.list(42, |from| {
        let range = L1Range {
            object: from.small()?,
            partition: from.small()?,
            base: from.uint()?,
            end: from.uint()?,
            rows: from.uint()?,
            groups: (from.small()?, from.small()?),
            append_ms: read_times(from)?,
            time_us_max: from.int()?,
            bytes_running: 0,
            sum: read_record_sum(from)?,
        };
        if range.object as usize >= objects.len() || range.base >= range.end {
            return Err(from.error("a range without object or records"));
        }
        Ok(range)
    })?;
    Ok((objects, ranges))
}
