//! A view as bytes: canonical, so that two processes that replayed the same commits write the same checkpoint.
//!
//! Record bodies are not in it: an inline slice is referred to by slot, action and length (R8). Names of segments that
//! many slices share stand once. Drawn in `docs/FORMAT.md`.
//!
//! ```text
//! u8 version = 1 · slot · 16 id · time_ms · store · level · 2 × option(checkpoint) · floor
//! list of segments · list of topics (· list of partitions (· slices · producers)) · leaders · groups · pending · dead
//! (· times of oldest records (· bytes of merged records)), as far as anything is known of them
//! 8 checksum = xxh3-64 of all before it
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::action::*;
use super::codec::*;
use super::view::*;
use super::wire::{Reader, Writer};
use crate::error::{Error, Result};
use crate::limits;
use crate::plant::{self, Bug};
use crate::record::TopicId;
use crate::segment::Layout;

/// Version of checkpoints that this release writes.
pub const CHECKPOINT_VERSION: u8 = 1;

/// Checksum of a checkpoint's bytes, as its commit names it.
pub fn checksum(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// The view's bytes.
pub fn encode(view: &View) -> Bytes {
    let mut out = Writer::default();
    out.u8(CHECKPOINT_VERSION);
    out.uint(view.slot);
    out.u128(view.id);
    out.uint(view.time_ms as u64);
    out.option(view.store.as_ref(), write_store);
    out.uint(u64::from(view.level));
    for named in [&view.checkpoint, &view.checkpoint_before] {
        out.option(named.as_ref(), |out, named| {
            checkpoint_name(out, &named.name);
            out.u64(named.checksum);
        });
    }
    out.uint(view.floor);
    // Slices refer to segments by their place in this list.
    let segments: BTreeMap<ObjectRef, u64> = view.objects.keys().copied().zip(0..).collect();
    out.list(view.objects.iter(), |out, (object, segment)| {
        object_ref(out, object);
        write_layout(out, &segment.layout);
    });
    out.list(view.topics.iter(), |out, (id, topic)| write_topic(out, *id, topic, &segments));
    out.list(view.leaders.iter(), |out, (who, leader)| {
        out.u64(*who);
        out.bytes(leader.address.as_bytes());
        out.uint(leader.slot);
    });
    out.list(view.groups.iter(), |out, (name, group)| write_group(out, name, group));
    out.list(view.pending.iter(), |out, (number, pending)| {
        out.uint(*number);
        out.u8(u8::from(pending.rewrite));
        write_l1(out, &pending.objects, &pending.ranges);
    });
    out.list(view.dead.iter(), |out, dead| {
        object_ref(out, &dead.object);
        out.option(dead.l1, |out, (topic, hour)| {
            out.u128(topic.0);
            out.uint(u64::from(hour));
        });
        out.uint(dead.slot);
        out.uint(dead.time_ms as u64);
    });
    write_known(&mut out, view);
    out.u64(checksum(out.as_slice()));
    out.into_bytes()
}

/// What is known of when the oldest records of partitions were appended, and of the bytes of merged ones: nothing was of those
/// that were written before RFC 0002 and RFC 0003.
fn write_known(out: &mut Writer, view: &View) {
    let of = |known: fn(&Partition) -> bool| {
        let all = view
            .topics
            .iter()
            .flat_map(|(id, topic)| topic.partitions.iter().zip(0u32..).map(move |p| (*id, p)));
        all.filter(move |(_, (partition, _))| known(partition)).collect::<Vec<_>>()
    };
    let (dated, counted) = (of(|p| p.oldest_ms != 0), of(|p| p.bytes_running != 0));
    let pending: Vec<u64> = pending_ranges(view).map(|range| range.bytes_running).collect();
    let counts = !counted.is_empty() || pending.iter().any(|bytes| *bytes != 0);
    if counts || !dated.is_empty() {
        out.list(dated.iter(), |out, (topic, (partition, number))| {
            write_place(out, (*topic, *number));
            out.uint(partition.oldest_ms as u64);
        });
    }
    if counts {
        out.list(counted.iter(), |out, (topic, (partition, number))| {
            write_place(out, (*topic, *number));
            out.uint(partition.bytes_running);
            out.uint(partition.oldest_bytes);
        });
        out.list(pending.iter(), |out, bytes| out.uint(*bytes));
    }
}

fn pending_ranges(view: &View) -> impl Iterator<Item = &L1Range> {
    view.pending.values().flat_map(|pending| &pending.ranges)
}

/// The view that `bytes` hold; `what` names them in errors.
pub fn decode(what: &str, bytes: &Bytes) -> Result<View> {
    if bytes.len() < 9 || bytes.len() > limits::CHECKPOINT_BYTES_MAX {
        return Err(Error::damaged(what, format!("{} bytes long", bytes.len())));
    }
    if bytes[0] != CHECKPOINT_VERSION {
        let what = format!("{what} has version {}, known are up to {CHECKPOINT_VERSION}", bytes[0]);
        return Err(Error::Newer { what });
    }
    let summed = bytes.slice(..bytes.len() - 8);
    let sums = bytes[bytes.len() - 8..] == checksum(&summed).to_be_bytes();
    if !sums && !plant::on(Bug::ChecksumsIgnored) {
        return Err(Error::damaged(what, "checksum does not match"));
    }
    let mut from = Reader::new(what, &summed);
    let view = read_view(&mut from)?;
    from.end()?;
    Ok(view)
}

fn read_view(from: &mut Reader<'_>) -> Result<View> {
    from.u8()?;
    let mut view = View {
        slot: from.uint()?,
        id: from.u128()?,
        time_ms: from.small()?,
        store: from.option(read_store)?,
        level: from.small()?,
        checkpoint: from.option(read_named)?,
        checkpoint_before: from.option(read_named)?,
        floor: from.uint()?,
        ..View::default()
    };
    if view.level > LEVEL {
        return Err(Error::Newer { what: format!("level {}, known are up to {LEVEL}", view.level) });
    }
    // Every `slot + 1` in the code rests on this.
    if view.slot > i64::MAX as u64 || view.floor > view.slot {
        return Err(from.error(format!("slot {}, floor {}", view.slot, view.floor)));
    }
    let segments = from.map(27, |from| Ok((read_object_ref(from)?, Arc::new(read_layout(from)?))))?;
    let mut segments: Vec<_> = segments.into_iter().map(|(object, layout)| (object, layout, 0)).collect();
    view.topics = from.map(22, |from| read_topic(from, &mut segments))?;
    view.names = view.topics.iter().map(|(id, topic)| (topic.name.clone(), *id)).collect();
    view.objects =
        segments.into_iter().map(|(object, layout, slices)| (object, Segment { layout, slices })).collect();
    view.leaders = from.map(10, |from| {
        Ok((from.u64()?, Leader { address: from.string()?, slot: from.uint()?, partitions: 0 }))
    })?;
    view.groups = from.map(6, read_group)?;
    view.pending = from.map(4, |from| {
        let (number, rewrite) = (from.uint()?, read_flag(from)?);
        let (objects, ranges) = read_l1(from)?;
        Ok((number, Pending { rewrite, objects, ranges }))
    })?;
    count_leaders(&mut view, from)?;
    check(&view, from)?;
    view.dead = from.list(22, |from| {
        Ok(Dead {
            object: read_object_ref(from)?,
            l1: from.option(|from| Ok((TopicId(from.u128()?), from.small()?)))?,
            slot: from.uint()?,
            time_ms: from.small()?,
        })
    })?;
    if from.left() > 0 {
        read_known(&mut view, from)?;
    }
    Ok(view)
}

fn read_known(view: &mut View, from: &mut Reader<'_>) -> Result<()> {
    let dated: BTreeMap<(TopicId, u32), i64> = from.map(18, |from| Ok((read_place(from)?, from.small()?)))?;
    if dated.is_empty() && from.left() == 0 {
        return Err(from.error("no time of oldest records"));
    }
    let now_ms = view.time_ms;
    for ((topic, number), ms) in dated {
        match view.partition_mut(topic, number) {
            Some(partition) if 0 < ms && ms <= now_ms => partition.oldest_ms = ms,
            _ => return Err(from.error(format!("{topic}/{number} with oldest records of {ms}"))),
        }
    }
    if from.left() == 0 {
        return Ok(());
    }
    let counted: BTreeMap<(TopicId, u32), (u64, u64)> =
        from.map(19, |from| Ok((read_place(from)?, (from.uint()?, from.uint()?))))?;
    let pending: Vec<u64> = from.list(1, Reader::uint)?;
    if pending.len() != pending_ranges(view).count() {
        return Err(from.error(format!("bytes of {} pending ranges", pending.len())));
    }
    if counted.is_empty() && pending.iter().all(|bytes| *bytes == 0) {
        return Err(from.error("no bytes of merged records"));
    }
    for ((topic, number), (running, oldest)) in counted {
        match view.partition_mut(topic, number) {
            Some(partition) if 0 < running && oldest <= running => {
                (partition.bytes_running, partition.oldest_bytes) = (running, oldest);
            }
            _ => return Err(from.error(format!("{topic}/{number} with {oldest} of {running} bytes"))),
        }
    }
    let ranges = view.pending.values_mut().flat_map(|pending| &mut pending.ranges);
    ranges.zip(pending).for_each(|(range, bytes)| range.bytes_running = bytes);
    Ok(())
}

fn read_flag(from: &mut Reader<'_>) -> Result<bool> {
    match from.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(from.error(format!("{other} is neither 0 nor 1"))),
    }
}

fn count_leaders(view: &mut View, from: &Reader<'_>) -> Result<()> {
    for who in view.topics.values().flat_map(|t| &t.partitions).filter_map(|p| p.leader) {
        let leader = view.leaders.get_mut(&who);
        leader.ok_or_else(|| from.error(format!("a partition led by unknown {who:016x}")))?.partitions += 1;
    }
    Ok(())
}

/// What `apply` keeps true of every view, and rests on: a checkpoint that says otherwise was not written by a replay.
fn check(view: &View, from: &Reader<'_>) -> Result<()> {
    let wrong = |why: &str| Err(from.error(why));
    if view.names.len() != view.topics.len() {
        return wrong("two topics of one name");
    }
    if view.objects.values().any(|segment| segment.slices == 0) {
        return wrong("a segment without a slice");
    }
    if view.leaders.values().any(|leader| leader.partitions == 0) {
        return wrong("a leader of nothing");
    }
    for partition in view.topics.values().flat_map(|t| &t.partitions) {
        if partition.indexed_to > partition.first_unmerged() || partition.log_start > partition.next {
            return wrong("a partition that is indexed or trimmed past its end");
        }
        if partition.epochs.len() > limits::LEADER_EPOCHS_KEPT {
            return wrong("too many leader epochs");
        }
        // Both rise from slice to slice.
        let last = partition.slices.back();
        let time_holds =
            |slice: &Slice| slice.append_ms <= view.time_ms || plant::on(Bug::AppendTimeGoesBack);
        if last.is_some_and(|slice| slice.slot > view.slot || !time_holds(slice)) {
            return wrong("a slice of a later commit");
        }
    }
    Ok(())
}

fn read_named(from: &mut Reader<'_>) -> Result<Checkpoint> {
    Ok(Checkpoint { name: read_checkpoint_name(from)?, checksum: from.u64()? })
}

fn write_topic(out: &mut Writer, id: TopicId, topic: &Topic, segments: &BTreeMap<ObjectRef, u64>) {
    out.u128(id.0);
    out.bytes(topic.name.as_bytes());
    out.uint(topic.created_ms as u64);
    out.uint(topic.generation);
    out.list(topic.config.iter(), |out, (key, value)| {
        out.bytes(key.as_bytes());
        out.bytes(value.as_bytes());
    });
    out.list(topic.partitions.iter(), |out, partition| write_partition(out, partition, segments));
}

type Segments = [(ObjectRef, Arc<Layout>, u32)];

fn read_topic(from: &mut Reader<'_>, segments: &mut Segments) -> Result<(TopicId, Topic)> {
    let id = TopicId(from.u128()?);
    let topic = Topic {
        name: from.string()?,
        created_ms: from.small()?,
        generation: from.uint()?,
        config: from.map(2, |from| Ok((from.string()?, from.string()?)))?,
        partitions: from.list(8, |from| read_partition(from, segments))?,
    };
    Ok((id, topic))
}

fn write_partition(out: &mut Writer, partition: &Partition, segments: &BTreeMap<ObjectRef, u64>) {
    out.uint(partition.log_start);
    out.uint(partition.next);
    out.uint(partition.indexed_to);
    out.option(partition.leader, Writer::u64);
    out.list(partition.epochs.iter(), |out, (epoch, start)| {
        out.uint(u64::from(*epoch));
        out.uint(*start);
    });
    out.int(partition.time_us_before);
    let mut before = (0, 0);
    out.list(partition.slices.iter(), |out, slice| {
        write_slice(out, slice, before, segments);
        before = (slice.slot, slice.append_ms);
    });
    let none = BTreeMap::new();
    let producers = match plant::on(Bug::CheckpointWithoutProducers) {
        true => &none,
        false => &partition.producers,
    };
    out.list(producers.iter(), |out, (key, producer)| write_producer(out, key, producer));
}

fn read_partition(from: &mut Reader<'_>, segments: &mut Segments) -> Result<Partition> {
    let mut partition = Partition {
        log_start: from.uint()?,
        next: from.uint()?,
        indexed_to: from.uint()?,
        leader: from.option(Reader::u64)?,
        epochs: from.list(2, |from| Ok((from.small()?, from.uint()?)))?.into(),
        time_us_before: from.int()?,
        ..Partition::default()
    };
    let (mut before, mut running, mut rows) = ((0, 0), partition.time_us_before, 0u64);
    let mut slices: VecDeque<Slice> = from
        .list(40, |from| {
            let mut slice = read_slice(from, before, segments)?;
            before = (slice.slot, slice.append_ms);
            let time_us_max = match slice.time_type {
                TimestampType::CreateTime => slice.time_us.1,
                TimestampType::LogAppendTime => slice.append_ms.saturating_mul(1_000),
            };
            running = running.max(time_us_max);
            slice.time_us_running = running;
            // Offsets are dense up to `next`, so the bases need no bytes.
            slice.base = rows;
            rows = rows.checked_add(slice.rows).ok_or_else(|| from.error("rows past 2^64"))?;
            Ok(slice)
        })?
        .into();
    let Some(first) = partition.next.checked_sub(rows) else {
        return Err(from.error(format!("{rows} unmerged rows, but the end is {}", partition.next)));
    };
    slices.iter_mut().for_each(|slice| slice.base += first);
    partition.slices = slices;
    partition.producers = from.map(5, read_producer)?;
    Ok(partition)
}

fn write_slice(
    out: &mut Writer,
    slice: &Slice,
    (slot, append_ms): (u64, i64),
    segments: &BTreeMap<ObjectRef, u64>,
) {
    match &slice.place {
        // 0: inline, else one more than the place in the list.
        Place::Object(object, _) => out.uint(1 + segments.get(object).copied().unwrap_or(u64::MAX - 1)),
        Place::Inline { action, length } => {
            out.uint(0);
            out.uint(u64::from(*action));
            out.uint(u64::from(*length));
        }
    }
    out.uint(slice.rows);
    out.uint(slice.slot - slot);
    out.int(slice.append_ms - append_ms);
    out.uint(u64::from(slice.group));
    out.uint(slice.first_row);
    times(out, slice.time_us);
    out.u8(time_type(slice.time_type));
    record_sum(out, &slice.sum);
}

fn read_slice(
    from: &mut Reader<'_>,
    (slot, append_ms): (u64, i64),
    segments: &mut Segments,
) -> Result<Slice> {
    let place = match from.uint()? {
        0 => Place::Inline { action: from.small()?, length: from.small()? },
        place => {
            let known = usize::try_from(place - 1).ok().and_then(|place| segments.get_mut(place));
            let (object, layout, slices) = known.ok_or_else(|| from.error("a slice of no segment"))?;
            *slices += 1;
            Place::Object(*object, layout.clone())
        }
    };
    let past = |from: &Reader<'_>| from.error("a number past 2^63");
    let slice = Slice {
        base: 0,
        rows: from.uint()?,
        slot: slot.checked_add(from.uint()?).ok_or_else(|| past(from))?,
        append_ms: append_ms.checked_add(from.int()?).ok_or_else(|| past(from))?,
        place,
        group: from.small()?,
        first_row: from.uint()?,
        time_us: read_times(from)?,
        time_us_running: 0,
        time_type: read_time_type(from)?,
        sum: read_record_sum(from)?,
    };
    let groups = match &slice.place {
        Place::Object(_, layout) => layout.groups.len(),
        Place::Inline { .. } => 1,
    };
    let time_holds = slice.append_ms >= append_ms || plant::on(Bug::AppendTimeGoesBack);
    if slice.rows == 0 || !time_holds || slice.group as usize >= groups {
        let (rows, group) = (slice.rows, slice.group);
        return Err(
            from.error(format!("a slice of {rows} rows in group {group} of {groups}, or of an earlier time"))
        );
    }
    Ok(slice)
}

fn write_producer(out: &mut Writer, key: &ProducerKey, producer: &Producer) {
    producer_key(out, key);
    out.uint(u64::from(producer.epoch));
    out.list(producer.window.iter(), |out, window| {
        out.uint(window.first);
        out.uint(window.last - window.first);
        out.uint(window.base);
        out.uint(window.append_ms as u64);
    });
}

fn read_producer(from: &mut Reader<'_>) -> Result<(ProducerKey, Producer)> {
    let kind = from.u8()?;
    let key = read_producer_key(kind, from)?;
    let epoch = from.small()?;
    let window: Vec<Window> = from.list(4, |from| {
        let (first, length) = (from.uint()?, from.uint()?);
        let last = first.checked_add(length).ok_or_else(|| from.error("a sequence past 2^64"))?;
        Ok(Window { first, last, base: from.uint()?, append_ms: from.small()? })
    })?;
    if window.is_empty() || window.len() > limits::PRODUCER_WINDOW {
        return Err(from.error(format!("a producer with {} batches", window.len())));
    }
    Ok((key, Producer { epoch, window: window.into() }))
}

fn write_group(out: &mut Writer, name: &str, group: &Group) {
    out.bytes(name.as_bytes());
    out.uint(group.last_ms as u64);
    out.int(i64::from(group.generation));
    out.list(group.offsets.iter(), |out, ((topic, partition), stored)| {
        out.u128(topic.0);
        out.uint(u64::from(*partition));
        out.uint(stored.offset);
        out.int(i64::from(stored.leader_epoch));
        out.bytes(stored.metadata.as_bytes());
        out.uint(stored.time_ms as u64);
    });
}

fn read_group(from: &mut Reader<'_>) -> Result<(String, Group)> {
    let name = from.string()?;
    let (last_ms, generation) = (from.small()?, read_i32(from)?);
    let offsets = from.map(21, |from| {
        let key = (TopicId(from.u128()?), from.small()?);
        let stored = Stored {
            offset: from.uint()?,
            leader_epoch: read_i32(from)?,
            metadata: from.string()?,
            time_ms: from.small()?,
        };
        Ok((key, stored))
    })?;
    Ok((name, Group { last_ms, generation, offsets }))
}
