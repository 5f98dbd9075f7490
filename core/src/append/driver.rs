//! The driver: one task a producer that seals, uploads and proposes. Uploads overlap; proposals go one by one in the
//! order in which they were sealed, so that nothing of a producer overtakes what it sent before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, StreamExt};
use tracing::Instrument;

use super::Shared;
use super::flight::{Chunk, Flight, Landed, Open, Room, TopicInfo};
use crate::batch::Rows;
use crate::env::offload;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::action::{Data, Identity, IdentityKind, ProducerKey};
use crate::ledger::commit::BatchResult;
use crate::ledger::decide::{AppendProposal, BatchProposal};
use crate::limits;
use crate::metrics::Metric;
use crate::plant::{self, Bug};
use crate::segment::{self, Compression, SegmentSlice, inline};

/// A sealed flight, ready to be proposed.
struct Cargo {
    number: u64,
    flight: Arc<Flight>,
    /// When its first record came.
    since: Duration,
    /// From seal to ack.
    span: tracing::Span,
    room: Option<Room>,
    parts: Vec<Part>,
    /// Of each batch, in the order of the proposal.
    identities: Vec<Option<Identity>>,
    /// The segment's bytes, kept for an upload under another name.
    bytes: Option<Bytes>,
    proposal: Result<AppendProposal>,
}

/// A chunk of a sealed flight: in the order in which it was opened, which deliveries count in.
struct Part {
    topic: Arc<TopicInfo>,
    partition: u32,
    rows: u32,
    /// First row of each batch.
    firsts: Vec<u32>,
    /// Where its batches begin in the proposal.
    batches_at: usize,
}

/// Batches of these producers fail if they were sealed before their earlier batch failed.
type FailedKeys = BTreeMap<(ProducerKey, u16), (u64, Arc<Error>)>;

pub(super) async fn run(shared: Arc<Shared>) {
    let mut uploads: FuturesOrdered<BoxFuture<'static, Cargo>> = FuturesOrdered::new();
    let mut placing: Option<BoxFuture<'static, (Cargo, Vec<BatchResult>)>> = None;
    let mut failed = FailedKeys::new();
    let mut held_back: Option<Cargo> = None;
    loop {
        if placing.is_none() && uploads.is_empty() && shared.is_finished() {
            return;
        }
        let room = uploads.len() < shared.settings.uploads_max && !shared.is_finished();
        // While something waits for its commit already, what is not full yet may as well go on growing.
        let eager = uploads.is_empty();
        tokio::select! {
            biased;
            (cargo, results) = async { placing.as_mut().expect("guarded").await }, if placing.is_some() => {
                placing = None;
                land(&shared, cargo, results, &mut failed);
                if let Some(cargo) = held_back.take() {
                    placing = Some(Box::pin(place(shared.clone(), cargo, failed.clone())));
                }
            }
            Some(cargo) = uploads.next(), if placing.is_none() && !uploads.is_empty() => {
                if plant::on(Bug::GroupCommitPassesEarlierBatch) && held_back.is_none() && !uploads.is_empty() {
                    held_back = Some(cargo);
                    continue;
                }
                let span = cargo.span.clone();
                placing = Some(Box::pin(place(shared.clone(), cargo, failed.clone()).instrument(span)));
            }
            open = shared.sealed(eager), if room => {
                let Some(open) = open else { continue };
                shared.note_sealed(&open);
                let (flight, records, bytes) = (open.number, open.rows, open.raw_bytes);
                let span = tracing::debug_span!("flush", flight, records, bytes);
                let upload = upload(shared.clone(), open, span.clone()).instrument(span);
                // Spawned, so that uploads go on while this task waits for a commit.
                uploads.push_back(Box::pin(async { tokio::spawn(upload).await.expect("an upload does not panic") }));
            }
        }
    }
}

/// Encodes and uploads: L1, the object is answered for before anything names it.
async fn upload(shared: Arc<Shared>, mut open: Open, span: tracing::Span) -> Cargo {
    let (since, room) = (open.since, open.release());
    let (number, flight, compression) = (open.number, open.flight.clone(), open.compression);
    let inline_max = shared.inline_bytes_max(&open.chunks);
    let (parts, identities, packed) = offload(move || pack(open.chunks, compression, inline_max)).await;
    let (bytes, proposal) = match packed {
        Err(error) => (None, Err(error)),
        Ok(Packed { data: PackedData::Inline(body), batches }) => {
            shared.ledger.chain.metrics.record(Metric::InlineFlights, 1);
            (None, Ok(AppendProposal { data: Data::Inline(body), batches }))
        }
        Ok(Packed { data: PackedData::Segment(bytes, layout), batches }) => {
            let uploaded = shared.upload(bytes.clone()).await;
            let proposal =
                uploaded.map(|object| AppendProposal { data: Data::Object { object, layout }, batches });
            (Some(bytes), proposal)
        }
    };
    Cargo { number, flight, since, span, room, parts, identities, bytes, proposal }
}

struct Packed {
    data: PackedData,
    batches: Vec<BatchProposal>,
}

enum PackedData {
    Inline(Bytes),
    Segment(Bytes, segment::Layout),
}

/// Chunks → an inline body or a segment, and the batches in its row order. Pure.
fn pack(
    chunks: Vec<Chunk>,
    compression: Compression,
    inline_max: usize,
) -> (Vec<Part>, Vec<Option<Identity>>, Result<Packed>) {
    let mut parts: Vec<Part> = chunks
        .iter()
        .map(|chunk| {
            let mut next = 0;
            let first = |rows: u32| {
                next += rows;
                next - rows
            };
            Part {
                topic: chunk.topic.clone(),
                partition: chunk.partition,
                rows: chunk.rows.len() as u32,
                firsts: chunk.marks.iter().map(|mark| mark.rows).map(first).collect(),
                batches_at: 0,
            }
        })
        .collect();
    // Rows lie in order of topic and partition; deliveries count chunks in the order in which they were opened.
    let mut order: Vec<usize> = (0..chunks.len()).collect();
    order.sort_by(|a, b| {
        let place = |chunk: &Chunk| (chunk.topic.name.clone(), chunk.partition);
        place(&chunks[*a]).cmp(&place(&chunks[*b]))
    });
    let mut at = 0;
    for index in &order {
        parts[*index].batches_at = at;
        at += chunks[*index].marks.len();
    }
    let mut sorted: Vec<Option<Chunk>> = chunks.into_iter().map(Some).collect();
    let sorted: Vec<Chunk> = order.iter().filter_map(|index| sorted[*index].take()).collect();
    let identities = sorted.iter().flat_map(|chunk| &chunk.marks).map(|mark| mark.identity).collect();
    (parts, identities, pack_sorted(sorted, compression, inline_max))
}

fn pack_sorted(chunks: Vec<Chunk>, compression: Compression, inline_max: usize) -> Result<Packed> {
    let batches: usize = chunks.iter().map(|chunk| chunk.marks.len()).sum();
    let (mut topics, mut rows, mut marks) = (Vec::new(), Vec::new(), Vec::new());
    for chunk in chunks {
        topics.push((chunk.topic, chunk.partition));
        rows.push(chunk.rows.finish());
        marks.push(chunk.marks);
    }
    let inline: usize = rows.iter().map(inline::inline_bytes).sum();
    let (data, places) = if inline + batches * limits::SLICE_BYTES <= inline_max {
        let mut first_row = 0;
        let first = |rows: &Rows| {
            let place = segment::Place { group: 0, first_row };
            first_row += rows.len() as u64;
            place
        };
        let places = rows.iter().map(first).collect();
        (PackedData::Inline(inline::encode_inline(&rows)?), places)
    } else {
        let slices: Vec<SegmentSlice<'_>> = topics
            .iter()
            .zip(&rows)
            .map(|((topic, partition), rows)| SegmentSlice {
                topic: &topic.name,
                partition: *partition,
                rows: rows.clone(),
            })
            .collect();
        let encoded = segment::encode(&slices, compression)?;
        (PackedData::Segment(encoded.bytes, encoded.layout), encoded.placed)
    };
    let mut proposals = Vec::with_capacity(batches);
    for (((topic, partition), rows), (marks, place)) in topics.iter().zip(&rows).zip(marks.iter().zip(places))
    {
        let mut from = 0usize;
        for mark in marks {
            let len = mark.rows as usize;
            proposals.push(BatchProposal {
                topic: topic.id,
                partition: *partition,
                group: place.group,
                first_row: place.first_row + from as u64,
                rows: mark.rows,
                time_us: rows.time_range_of(from..from + len).unwrap_or_default(),
                sum: rows.sum(topic.id, *partition, from, len),
                identity: mark.identity,
            });
            from += len;
        }
    }
    Ok(Packed { data, batches: proposals })
}

/// Proposes until every batch has a result that the sender should see.
async fn place(shared: Arc<Shared>, mut cargo: Cargo, failed: FailedKeys) -> (Cargo, Vec<BatchResult>) {
    let batches = match &cargo.proposal {
        Ok(proposal) => proposal.batches.clone(),
        Err(error) => {
            let results = vec![BatchResult::Failed(error.clone()); cargo.identities.len()];
            return (cargo, results);
        }
    };
    let mut results: Vec<BatchResult> =
        batches.iter().map(|batch| overtaking(batch, cargo.number, &failed)).collect();
    let deadline = shared.env().monotonic() + Duration::from_millis(shared.settings.delivery_timeout_ms);
    let mut attempt = 0;
    let mut unknown: Vec<Option<Error>> = vec![None; results.len()];
    loop {
        // `Redraw` stands for "not placed yet".
        let open: Vec<usize> =
            (0..results.len()).filter(|i| matches!(results[*i], BatchResult::Redraw)).collect();
        let Ok(proposal) = &mut cargo.proposal else { break };
        if open.is_empty() {
            break;
        }
        proposal.batches = open.iter().map(|index| batches[*index]).collect();
        match shared.ledger.append(proposal.clone()).await {
            Ok(placed) => open.iter().zip(placed).for_each(|(index, result)| results[*index] = result),
            Err(error) => open.iter().for_each(|index| results[*index] = BatchResult::Failed(error.clone())),
        }
        keep_unknown(&mut unknown, &mut results);
        if shared.env().monotonic() < deadline {
            retry_known_producers(&batches, &mut results);
        }
        if !results.iter().any(|result| matches!(result, BatchResult::Redraw)) {
            break;
        }
        attempt += 1;
        shared.ledger.chain.pause(attempt).await;
        if let Err(error) = redraw(&shared, &mut cargo).await {
            let open = results.iter_mut().filter(|result| matches!(result, BatchResult::Redraw));
            open.for_each(|result| *result = BatchResult::Failed(error.clone()));
            keep_unknown(&mut unknown, &mut results);
        }
    }
    name_topics(&cargo, &mut results);
    if plant::on(Bug::DeleteOnError) && results.iter().any(|r| matches!(r, BatchResult::Failed(_))) {
        plant_delete(&shared, &cargo).await;
    }
    (cargo, results)
}

/// Says the names of topics that are gone: the ledger has their ids alone.
fn name_topics(cargo: &Cargo, results: &mut [BatchResult]) {
    for part in &cargo.parts {
        for result in results.iter_mut().skip(part.batches_at).take(part.firsts.len()) {
            if let BatchResult::Failed(error @ Error::TopicDeleted { .. }) = result {
                *error = error.clone().of_topic(&part.topic.name);
            }
        }
    }
}

/// A planted bug: the object of a batch that failed, or of which nobody knows, is deleted.
async fn plant_delete(shared: &Shared, cargo: &Cargo) {
    if let Ok(AppendProposal { data: Data::Object { object, .. }, .. }) = &cargo.proposal {
        let path = crate::objects::ObjectName::from(object).path();
        let _ = object_store::ObjectStoreExt::delete(shared.ledger.chain.objects.store(), &path).await;
    }
}

/// A batch whose producer failed earlier must not overtake: it fails, too.
fn overtaking(batch: &BatchProposal, number: u64, failed: &FailedKeys) -> BatchResult {
    let entry = batch.identity.and_then(|identity| failed.get(&(identity.key, identity.epoch)));
    match entry {
        Some((until, cause)) if number <= *until => {
            BatchResult::Failed(Error::EarlierBatchFailed { cause: cause.clone() })
        }
        _ => BatchResult::Redraw,
    }
}

/// Once a batch's outcome was unknown, only "placed" and "duplicate" settle it. A later attempt that was not decided says
/// nothing, and neither does a refusal: the first attempt may have landed, and what the ledger knew of it be gone since, by
/// a newer epoch, an `Expire`, five later batches, or with its topic.
fn keep_unknown(unknown: &mut [Option<Error>], results: &mut [BatchResult]) {
    for (unknown, result) in unknown.iter_mut().zip(results) {
        match (&*result, &*unknown) {
            (BatchResult::Failed(error @ Error::Unknown { .. }), _) => *unknown = Some(error.clone()),
            (BatchResult::Failed(_), Some(before)) => *result = BatchResult::Failed(before.clone()),
            _ => {}
        }
    }
}

/// A batch with an identity may be proposed again after any retriable answer, `Unknown` too: it is recognised.
fn retry_known_producers(batches: &[BatchProposal], results: &mut [BatchResult]) {
    for (batch, result) in batches.iter().zip(results) {
        let retriable = matches!(result, BatchResult::Failed(error) if error.kind() == ErrorKind::Retry
            && !matches!(error, Error::EarlierBatchFailed { .. } | Error::Closed { .. } | Error::Newer { .. }));
        if retriable && batch.identity.is_some() {
            *result = BatchResult::Redraw;
        }
    }
}

/// Uploads the same bytes under a new name if the old one is out of date (R3).
async fn redraw(shared: &Shared, cargo: &mut Cargo) -> Result<()> {
    let (Ok(proposal), Some(bytes)) = (&mut cargo.proposal, &cargo.bytes) else { return Ok(()) };
    let Data::Object { object, .. } = &mut proposal.data else { return Ok(()) };
    let (floor, slot) = shared.ledger.chain.view(|view| (view.floor, view.slot))?;
    if (floor..=slot).contains(&object.drawn) {
        return Ok(());
    }
    *object = shared.upload(bytes.clone()).await?;
    Ok(())
}

/// Tells the senders, and remembers whose batches failed.
fn land(shared: &Arc<Shared>, mut cargo: Cargo, results: Vec<BatchResult>, failed: &mut FailedKeys) {
    if results.iter().any(|result| matches!(result, BatchResult::Failed(_))) {
        // What is sent after this moment goes into a later flight, and so does not overtake.
        let until = shared.seal_all(|own| {
            let failed = |(identity, result): (&Option<Identity>, &BatchResult)| {
                matches!(result, BatchResult::Failed(_)) && identity.is_some_and(|i| (i.key, i.epoch) == own)
            };
            cargo.identities.iter().zip(&results).any(failed)
        });
        for (identity, result) in cargo.identities.iter().zip(&results) {
            if let (Some(identity), BatchResult::Failed(error)) = (identity, result) {
                // A gap in a growing sequence is not one that the ledger would refuse, so what comes later must not pass
                // the failed batch either: it would look as if the records between were in the log.
                let until = if identity.key.kind == IdentityKind::Monotone { u64::MAX } else { until };
                failed
                    .entry((identity.key, identity.epoch))
                    .or_insert_with(|| (until, Arc::new(error.clone())));
            }
        }
    }
    failed.retain(|_, (until, _)| *until > cargo.number);
    let landed: Vec<Landed> = cargo
        .parts
        .drain(..)
        .map(|part| {
            let results = results.iter().skip(part.batches_at).cloned();
            let batches = part.firsts.into_iter().zip(results).collect();
            Landed { topic: part.topic, partition: part.partition, rows: part.rows, batches }
        })
        .collect();
    shared.note_landed(&landed, cargo.since);
    shared.acked(&landed);
    shared.lead(&landed);
    cargo.flight.land(landed);
    drop(cargo.room);
    shared.note_buffered();
    shared.landed(cargo.number);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seed 13222: a batch landed unanswered, a newer epoch came, and the second attempt was told "fenced", as if the records
    /// were not in the log.
    #[test]
    fn what_may_have_landed_is_never_refused_for_good() {
        let mut unknown = vec![None, None];
        let lost = Error::Unknown { waited_ms: 15_000, cause: "reset".into() };
        let fenced = Error::ProducerFenced { producer: 1, partition: 0, current: 3, got: 2 };
        let mut results = vec![BatchResult::Failed(lost), BatchResult::Failed(fenced.clone())];
        keep_unknown(&mut unknown, &mut results);
        assert!(matches!(results[1], BatchResult::Failed(Error::ProducerFenced { .. })), "decided at once");
        results[0] = BatchResult::Failed(fenced);
        keep_unknown(&mut unknown, &mut results);
        assert!(matches!(results[0], BatchResult::Failed(Error::Unknown { .. })), "{:?}", results[0]);
        results[0] = BatchResult::Duplicate { base: Some(7), append_ms: 0 };
        keep_unknown(&mut unknown, &mut results);
        assert!(matches!(results[0], BatchResult::Duplicate { .. }), "found after all");
    }
}
