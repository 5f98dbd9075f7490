//! Those who send: plain and idempotent producers inside a process, and clients with an identity of their own that
//! speak to any process and retry as Kafka's do.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::future::join_all;
use tidelog_core::append::{Producer, ProducerSettings};
use tidelog_core::ledger::action::{Identity, IdentityKind, ProducerKey};
use tidelog_core::{Delivery, Error, Log, Record, RecordMetadata};

use crate::cast::Cast;
use crate::clock::{Gate, sleep_ms};
use crate::oracle::{Id, Place};
use crate::rng::Rng;

pub(crate) fn settings(cast: &Cast, rng: &mut Rng, idempotent: bool) -> ProducerSettings {
    let inline = rng.chance(cast.world.plan.inline);
    ProducerSettings {
        linger_ms: rng.pick(&[0, 1, 5, 20]),
        inline_bytes_max: if inline { 4 << 10 } else { 0 },
        delivery_timeout_ms: rng.pick(&[1_000, 20_000, 60_000]),
        uploads_max: rng.between(1, 4) as usize,
        idempotent,
        ..ProducerSettings::default()
    }
}

/// Sends through producers of its own, each in one process, until it has sent `count`.
pub async fn producer(cast: Arc<Cast>, mut rng: Rng, sender: u64, count: u64, idempotent: bool) {
    let mut sent = 0;
    let mut life = 0;
    while sent < count && !cast.world.is_stopped() {
        let (gate, log) = cast.some_process(&mut rng).log().await;
        let settings = settings(&cast, &mut rng, idempotent);
        let Ok(producer) = Producer::start(log.ledger().clone(), settings, None) else { continue };
        life += 1;
        for _ in 0..rng.between(1, 8) {
            let burst = rng.between(1, 8);
            sent += burst;
            if !burst_of(&cast, &mut rng, &gate, &producer, (sender << 32) + life, burst).await {
                break;
            }
            sleep_ms(rng.below(300)).await;
        }
    }
}

/// `false`: the process died, or the producer failed.
async fn burst_of(
    cast: &Arc<Cast>,
    rng: &mut Rng,
    gate: &Arc<Gate>,
    producer: &Producer,
    sender: u64,
    count: u64,
) -> bool {
    // Several partitions, and topics, share a segment.
    let places: Vec<Place> = (0..rng.between(1, 3)).map(|_| cast.some_place(rng)).collect();
    let mut waits = Vec::new();
    for _ in 0..count {
        let place = places[rng.below(places.len() as u64) as usize].clone();
        let (id, value) = cast.oracle().begin(sender, &place.0, rng.below(40) as usize);
        let record = Record { timestamp_us: Some(id as i64), ..Record::value(value) };
        let enqueued = gate.ask(producer.enqueue(&place.0, Some(place.1), record, None)).await;
        match enqueued {
            None => return false,
            Some(Err(error)) => {
                cast.refused(&gate.name, &place, &error);
                cast.oracle().failed(id, error.to_string());
                break;
            }
            Some(Ok(delivery)) => waits.push((id, place, delivery)),
        }
        if rng.chance(500) {
            sleep_ms(rng.below(15)).await;
        }
    }
    let results = join_all(waits.into_iter().map(|(id, place, delivery)| async move {
        let result = gate.ask(delivery.wait()).await;
        (id, place, result)
    }));
    let mut good = true;
    for (id, place, result) in results.await {
        good &= matches!(result, Some(Ok(_)));
        match result {
            None | Some(Err(Error::Unknown { .. } | Error::Closed { .. })) => {}
            Some(Ok(metadata)) => ack(cast, id, &metadata),
            Some(Err(error)) => {
                cast.refused(&gate.name, &place, &error);
                cast.oracle().failed(id, error.to_string());
            }
        }
    }
    good
}

pub(crate) fn ack(cast: &Cast, id: Id, metadata: &RecordMetadata) {
    let at_ms = cast.world.clock.ms();
    cast.world
        .note("", || format!("ack {id} at {}/{} {:?}", metadata.topic, metadata.partition, metadata.offset));
    cast.oracle().acked(id, metadata.partition, metadata.offset, at_ms);
}

/// A batch of a client with an identity.
#[derive(Debug, Clone)]
struct Batch {
    identity: Identity,
    records: Vec<(Id, Record)>,
}

/// What a client was told of a batch.
enum Told {
    Done,
    Again,
    /// It stopped at an earlier batch's failure, and so says nothing of its own.
    OutOfOrder(String),
}

/// A client with an identity of its own that sends to one partition.
pub struct Client {
    cast: Arc<Cast>,
    rng: Rng,
    sender: u64,
    key: ProducerKey,
    epoch: u16,
    next: u64,
    place: Place,
    pending: VecDeque<Batch>,
}

impl Client {
    /// A client of this kind.
    pub fn new(cast: Arc<Cast>, mut rng: Rng, sender: u64, kind: IdentityKind) -> Self {
        let place = cast.some_place(&mut rng);
        let key = ProducerKey { kind, producer: u128::from(rng.draw() >> 1) };
        let pending = VecDeque::new();
        Self { cast, rng, sender: sender << 32, key, epoch: 0, next: 0, place, pending }
    }

    /// Sends `count` records, in batches, several at once, each until it is answered for.
    pub async fn run(mut self, count: u64) {
        let mut sent = 0;
        while (sent < count || !self.pending.is_empty()) && !self.cast.world.is_stopped() {
            let ahead = if self.key.kind == IdentityKind::Dense { self.rng.between(1, 4) } else { 1 };
            while sent < count && (self.pending.len() as u64) < ahead {
                sent += self.make_batch();
            }
            let (gate, log) = self.cast.some_process(&mut self.rng).log().await;
            let settings = settings(&self.cast, &mut self.rng, false);
            let Ok(producer) = Producer::start(log.ledger().clone(), settings, None) else { continue };
            for _ in 0..self.rng.between(1, 3) {
                if self.pending.is_empty() || !self.round(&gate, &producer).await {
                    break;
                }
            }
            if self.pending.is_empty() {
                self.rest(&log, &gate).await;
            }
            sleep_ms(self.rng.below(200)).await;
        }
    }

    /// Between batches: a new epoch, or a restart that asks the log where it was.
    async fn rest(&mut self, log: &Log, gate: &Arc<Gate>) {
        match self.key.kind {
            IdentityKind::Dense if self.rng.chance(100) => (self.epoch, self.next) = (self.epoch + 1, 0),
            IdentityKind::Monotone if self.rng.chance(300) => {
                let (chain, place, key) = (log.ledger().chain(), self.place.clone(), self.key);
                let last = chain.fresh_view(chain.tick(), |view| {
                    let (_, _, partition) = view.partition_or_unknown(&place.0, place.1).ok()?;
                    Some(partition.producers.get(&key)?.window.back()?.last)
                });
                if let Some(Ok(last)) = gate.ask(last).await {
                    let expected = (self.next > 0).then(|| self.next - 1);
                    if last.is_none_or(|last| expected.is_some_and(|expected| last != expected))
                        && self.next > 0
                    {
                        let words = format!("a monotone producer is at {last:?}, acked up to {expected:?}");
                        self.cast.oracle().violation(words);
                    }
                }
            }
            _ => {}
        }
    }

    fn make_batch(&mut self) -> u64 {
        let rows = self.rng.between(1, 3);
        let mut records = Vec::new();
        for _ in 0..rows {
            let (id, value) =
                self.cast.oracle().begin(self.sender, &self.place.0, self.rng.below(30) as usize);
            records.push((id, Record { timestamp_us: Some(id as i64), ..Record::value(value) }));
        }
        let (first_sequence, span) = match self.key.kind {
            IdentityKind::Dense => (self.next, rows),
            _ => (self.next + self.rng.between(1, 50), rows * 10),
        };
        if self.key.kind == IdentityKind::Once {
            self.key.producer = u128::from(self.rng.draw());
        }
        let last_sequence = first_sequence + span - 1;
        let identity = Identity { key: self.key, epoch: self.epoch, first_sequence, last_sequence };
        self.next = last_sequence + 1;
        self.pending.push_back(Batch { identity, records });
        rows
    }

    /// Sends all that is pending, in order, and takes in the answers. `false`: go to another process.
    async fn round(&mut self, gate: &Arc<Gate>, producer: &Producer) -> bool {
        let mut waits: Vec<Option<Vec<Delivery>>> = Vec::new();
        for batch in &self.pending {
            let records: Vec<Record> = batch.records.iter().map(|(_, record)| record.clone()).collect();
            let (topic, partition) = (&self.place.0, self.place.1);
            match gate.ask(producer.send_batch(topic, partition, &records, batch.identity)).await {
                None => return false,
                Some(Ok(deliveries)) => waits.push(Some(deliveries)),
                Some(Err(error)) => {
                    self.cast.refused(&gate.name, &self.place, &error);
                    waits.push(None);
                    break;
                }
            }
        }
        let answers = join_all(waits.into_iter().map(|deliveries| async move {
            let deliveries = deliveries?;
            let all = join_all(deliveries.into_iter().map(Delivery::wait));
            gate.ask(all).await
        }));
        let answers = answers.await;
        let mut kept = VecDeque::new();
        let mut pending = std::mem::take(&mut self.pending).into_iter();
        let mut settled = true;
        for (answer, batch) in answers.into_iter().zip(pending.by_ref()) {
            let told = answer.map_or(Told::Again, |results| self.told(gate, &batch, results));
            // With all earlier ones acked before this round, nobody may say that this one is out of order.
            if let (Told::OutOfOrder(words), true) = (&told, kept.is_empty()) {
                self.cast.oracle().violation(format!("{} falsely refused: {words}", gate.name));
            }
            if !matches!(told, Told::Done) {
                settled = false;
                kept.push_back(batch);
            }
        }
        kept.extend(pending);
        self.pending = kept;
        settled
    }

    fn told(&self, gate: &Gate, batch: &Batch, results: Vec<Result<RecordMetadata, Error>>) -> Told {
        let mut told = Told::Done;
        for ((id, _), result) in batch.records.iter().zip(results) {
            match result {
                Ok(metadata) => ack(&self.cast, *id, &metadata),
                Err(error @ (Error::OutOfOrderSequence { .. } | Error::UnknownProducer { .. })) => {
                    told = Told::OutOfOrder(error.to_string());
                }
                Err(error) => {
                    self.cast.refused(&gate.name, &self.place, &error);
                    told = Told::Again;
                }
            }
        }
        told
    }
}
