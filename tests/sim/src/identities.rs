//! Identities at their edges: a client that is fenced by another with a higher epoch, and a producer that the log
//! forgets by an `Expire`.

use std::sync::Arc;

use futures::future::join_all;
use tidelog_core::append::Producer;
use tidelog_core::ledger::action::{Action, Expire, Expiring, Identity, IdentityKind, ProducerKey};
use tidelog_core::record::Offset;
use tidelog_core::{Delivery, Error, Log, Record, RecordMetadata};

use crate::cast::{Cast, TOPIC};
use crate::clock::{Gate, sleep_ms};
use crate::oracle::{Id, Place};
use crate::rng::Rng;
use crate::senders::{ack, settings};

/// What a client was told of a batch; `None`: its process died.
type Answer = Option<Result<Vec<RecordMetadata>, Error>>;

/// One of two clients that believe to be the same producer.
#[derive(Debug, Clone)]
struct Rival {
    epoch: u16,
    next: u64,
    batch: Vec<(Id, Record)>,
    /// An attempt at the batch was not answered definitely.
    unsure: bool,
}

impl Rival {
    fn new(epoch: u16) -> Self {
        Self { epoch, next: 0, batch: Vec::new(), unsure: false }
    }

    fn fill(&mut self, cast: &Cast, rng: &mut Rng, sender: u64, place: &Place) {
        for _ in 0..if self.batch.is_empty() { rng.between(1, 3) } else { 0 } {
            self.batch.push(record(cast, (sender << 32) + u64::from(self.epoch), place));
        }
    }

    fn identity(&self, key: ProducerKey) -> Identity {
        let last_sequence = self.next + self.batch.len() as u64 - 1;
        Identity { key, epoch: self.epoch, first_sequence: self.next, last_sequence }
    }

    fn acked(&mut self, cast: &Cast, found: &[RecordMetadata]) {
        let batch = std::mem::take(&mut self.batch);
        self.next += batch.len() as u64;
        self.unsure = false;
        batch.iter().zip(found).for_each(|((id, _), metadata)| ack(cast, *id, metadata));
    }
}

fn record(cast: &Cast, sender: u64, place: &Place) -> (Id, Record) {
    let (id, value) = cast.oracle().begin(sender, &place.0, 0);
    (id, Record { timestamp_us: Some(id as i64), ..Record::value(value) })
}

async fn send(
    cast: &Cast,
    mut rng: Rng,
    (gate, log): (Arc<Gate>, Log),
    place: &Place,
    batch: &[(Id, Record)],
    identity: Identity,
) -> (Arc<Gate>, Answer) {
    let settings = settings(cast, &mut rng, false);
    let work = async {
        let producer = Producer::start(log.ledger().clone(), settings, None)?;
        let records: Vec<Record> = batch.iter().map(|(_, record)| record.clone()).collect();
        let deliveries = producer.send_batch(&place.0, place.1, &records, identity).await?;
        join_all(deliveries.into_iter().map(Delivery::wait)).await.into_iter().collect()
    };
    let answer = gate.ask(work).await;
    (gate, answer)
}

/// Two clients of one identity: the one with the lower epoch is refused once the other's first batch was acked.
pub async fn rivals(cast: Arc<Cast>, mut rng: Rng, sender: u64) {
    let key = ProducerKey { kind: IdentityKind::Dense, producer: u128::from(rng.draw() >> 1) };
    let place = cast.some_place(&mut rng);
    let (mut newest, mut stale) = (Rival::new(0), None::<Rival>);
    let mut fenced = None;
    while !cast.world.is_stopped() {
        sleep_ms(rng.between(20, 1_500)).await;
        if stale.is_none() && newest.next > 0 && newest.batch.is_empty() && rng.chance(400) {
            let epoch = newest.epoch + 1;
            (stale, fenced) = (Some(std::mem::replace(&mut newest, Rival::new(epoch))), None);
        }
        newest.fill(&cast, &mut rng, sender, &place);
        let homes = (cast.some_process(&mut rng).log().await, cast.some_process(&mut rng).log().await);
        let forks = (cast.world.fork(), cast.world.fork());
        if let Some(stale) = &mut stale {
            stale.fill(&cast, &mut rng, sender, &place);
        }
        let (new, old) = (newest.clone(), stale.clone());
        let ((gate, answer), told) =
            tokio::join!(send(&cast, forks.0, homes.0, &place, &new.batch, new.identity(key)), async {
                match &old {
                    Some(old) => {
                        Some(send(&cast, forks.1, homes.1, &place, &old.batch, old.identity(key)).await)
                    }
                    None => None,
                }
            });
        if let (Some(old), Some((gate, told))) = (&mut stale, told)
            && judge_stale(&cast, &gate, &place, old, told, fenced)
        {
            stale = None;
        }
        match answer {
            None => {}
            Some(Ok(found)) => {
                newest.acked(&cast, &found);
                // A batch whose offsets are forgotten says nothing of where: then no old one is below it.
                fenced = fenced.or(Some(found.iter().find_map(|one| one.offset).unwrap_or(0)));
            }
            Some(Err(error)) => cast.refused(&gate.name, &place, &error),
        }
    }
}

/// `true`: it was fenced. `fenced`: the first offset of a batch of the newer epoch that had been acked before this one was
/// sent. Then only an earlier attempt whose answer was lost can be in the log, below that offset.
fn judge_stale(
    cast: &Cast,
    gate: &Gate,
    place: &Place,
    old: &mut Rival,
    told: Answer,
    fenced: Option<Offset>,
) -> bool {
    match told {
        None => old.unsure = true,
        Some(Ok(found)) => {
            let is_known = |first: Offset| {
                let before = |one: &RecordMetadata| one.duplicate && one.offset.is_some_and(|at| at < first);
                old.unsure && found.iter().all(before)
            };
            if fenced.is_some_and(|first| !is_known(first)) {
                let words = format!("{} took a batch of epoch {} of {place:?}, fenced", gate.name, old.epoch);
                cast.oracle().violation(words);
            }
            old.acked(cast, &found);
        }
        Some(Err(error @ Error::ProducerFenced { .. })) => {
            cast.world.saw("append", "stale epoch", "fenced");
            if !old.unsure {
                old.batch.iter().for_each(|(id, _)| cast.oracle().failed(*id, error.to_string()));
            }
            return true;
        }
        Some(Err(error)) => {
            old.unsure |= matches!(error, Error::Unknown { .. } | Error::Closed { .. });
            cast.refused(&gate.name, place, &error);
        }
    }
    false
}

/// A producer whose state is the oldest there is, so that an `Expire` can forget it and nobody else.
#[derive(Debug)]
pub struct Forgotten {
    key: ProducerKey,
    place: Place,
    sender: u64,
    first: Option<u64>,
    is_tried: bool,
    is_gone: bool,
}

impl Forgotten {
    /// Its first batch, in calm weather.
    pub async fn begin(cast: &Cast, mut rng: Rng, sender: u64) -> Self {
        let key = ProducerKey { kind: IdentityKind::Dense, producer: u128::from(rng.draw() >> 1) };
        let place = (TOPIC.to_owned(), 0);
        let mut this =
            Self { key, place, sender: sender << 32, first: None, is_tried: false, is_gone: false };
        let (batch, identity) = this.batch(cast, 0);
        let home = cast.processes[0].log().await;
        if let (_, Some(Ok(found))) = send(cast, rng, home, &this.place, &batch, identity).await {
            this.first = found.first().and_then(|first| first.offset);
            batch.iter().zip(&found).for_each(|((id, _), metadata)| ack(cast, *id, metadata));
        }
        this
    }

    /// Whether this is the answer of its first batch, for a second one of the same sequences.
    fn is_repeat(&self, answer: &RecordMetadata) -> bool {
        answer.duplicate && answer.offset == self.first
    }

    fn batch(&self, cast: &Cast, first_sequence: u64) -> (Vec<(Id, Record)>, Identity) {
        let last_sequence = first_sequence + 1;
        let identity = Identity { key: self.key, epoch: 0, first_sequence, last_sequence };
        ((0..2).map(|_| record(cast, self.sender, &self.place)).collect(), identity)
    }

    /// Repeats itself, is forgotten, and begins anew.
    pub async fn run(mut self, cast: Arc<Cast>, mut rng: Rng) {
        while !cast.world.is_stopped() {
            sleep_ms(rng.between(100, 3_000)).await;
            if !self.is_gone && rng.chance(500) {
                self.expire(&cast, &mut rng).await;
            }
            let gap = self.is_tried && rng.chance(500);
            let (batch, identity) = self.batch(&cast, if gap { 2 } else { 0 });
            let home = cast.some_process(&mut rng).log().await;
            let fork = cast.world.fork();
            let (gate, answer) = send(&cast, fork, home, &self.place, &batch, identity).await;
            match answer {
                // From a view before the expiry that is right, too: one identity is one batch.
                Some(Ok(found)) if found.first().is_some_and(|first| self.is_repeat(first)) => {
                    cast.world.saw("append", "known producer", "duplicate");
                    batch.iter().for_each(|(id, _)| cast.oracle().failed(*id, "duplicate"));
                }
                // New, or a duplicate of its own put that was not answered: the oracle looks whether it is there.
                Some(Ok(found)) => {
                    batch.iter().zip(&found).for_each(|((id, _), metadata)| ack(&cast, *id, metadata));
                    if !self.is_tried || (self.is_gone && gap) {
                        let words = format!("{} takes {identity:?} for new: {found:?}", gate.name);
                        cast.oracle().violation(words);
                    }
                    return cast.world.saw("append", "expired producer", "new start");
                }
                Some(Err(error @ Error::UnknownProducer { .. })) if gap => {
                    cast.world.saw("append", "expired producer", "unknown producer");
                    self.is_gone = true;
                    batch.iter().for_each(|(id, _)| cast.oracle().failed(*id, error.to_string()));
                }
                // It may be in the log, once it is forgotten: nothing more can be said.
                None | Some(Err(Error::Unknown { .. } | Error::Closed { .. })) if self.is_tried => return,
                None => {}
                Some(Err(error)) => cast.refused(&gate.name, &self.place, &error),
            }
        }
    }

    /// Forgets this producer, if no other would be forgotten with it.
    async fn expire(&mut self, cast: &Cast, rng: &mut Rng) {
        let Some((gate, log)) = cast.some_process(rng).running() else { return };
        let (ledger, key) = (log.ledger(), self.key);
        let before_ms = ledger.chain().view(|view| {
            let all = view.topics.values().flat_map(|topic| &topic.partitions).flat_map(|p| &p.producers);
            let dense = || all.clone().filter(|(known, _)| known.kind == key.kind);
            let own = dense().find(|(known, _)| **known == key)?.1.last_ms();
            let others = dense().filter(|(known, _)| **known != key).map(|(_, known)| known.last_ms());
            let before_ms = others.min().unwrap_or(view.time_ms);
            (own < before_ms).then_some(before_ms)
        });
        let Ok(Some(before_ms)) = before_ms else { return };
        self.is_tried = true;
        let what = Expiring::Producers(key.kind);
        match gate.ask(ledger.act(Action::Expire(Expire { what, before_ms }))).await {
            Some(Ok(_)) => {
                cast.world.saw("expire", "none", "committed");
                self.is_gone = true;
            }
            Some(Err(error)) => cast.refused(&gate.name, &self.place, &error),
            None => {}
        }
    }
}
