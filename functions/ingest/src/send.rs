//! Records → the log.
//!
//! Under an `Idempotency-Key` the records of a request that go to one partition are one batch, whose identity is the key
//! and whose sequence is a sum of what is in it. So the log itself knows the key, in the same commit as the offsets, and a
//! request that comes again gets the same answer, from whatever process, whenever the first one died. Records without a
//! key of their own go to the partition that the idempotency key is hashed to, or they would go elsewhere the next time.

use std::collections::BTreeMap;

use tidelog_core::append::partitioner;
use tidelog_core::ledger::action::{Identity, IdentityKind, ProducerKey};
use tidelog_core::record::Offset;
use tidelog_core::{Delivery, Error, Record, RecordMetadata, Result as LogResult, limits};
use tidelog_functions::{Deadline, Problem};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::body::Parsed;
use crate::{Ingest, TopicFacts};

/// Where a record is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: Offset,
    /// The log held it before.
    pub duplicate: bool,
}

/// Record by record: where it is, or why it is not in the log.
pub type Taken = Vec<Result<Place, Problem>>;

/// Batches of one request, by partition: the identity, and which of the request's records they are.
type Batches = BTreeMap<u32, (Identity, Vec<usize>)>;

impl Ingest {
    /// Sends what is a record.
    pub(crate) async fn send(&self, topic: &str, records: Vec<Parsed>, deadline: &Deadline) -> Taken {
        let mut sent = Vec::with_capacity(records.len());
        for parsed in records {
            sent.push(match parsed {
                Err(problem) => Err(problem),
                Ok((record, partition)) => {
                    let accepted = self.producer.enqueue(topic, partition, record, None);
                    deadline.race(accepted).await.unwrap_or_else(|| Err(self.full())).map_err(Problem::from)
                }
            });
        }
        self.landed(deadline).await;
        sent.into_iter().map(|sent| place(sent?)).collect()
    }

    /// Sends them once, however often they come under this key.
    pub(crate) async fn send_once(
        &self,
        topic: &str,
        facts: TopicFacts,
        key: &str,
        records: Vec<Parsed>,
        deadline: &Deadline,
    ) -> Result<Taken, Problem> {
        let partitioned = records.into_iter().map(|parsed| choose(parsed, facts, key));
        let (mut kept, mut taken) = (BTreeMap::<u32, (Vec<usize>, Vec<Record>)>::new(), Vec::new());
        for (index, chosen) in partitioned.enumerate() {
            taken.push(Err(unknown()));
            match chosen {
                Err(problem) => taken[index] = Err(problem),
                Ok((record, partition)) => {
                    let (indexes, records) = kept.entry(partition).or_default();
                    indexes.push(index);
                    records.push(record);
                }
            }
        }
        let producer = ProducerKey { kind: IdentityKind::Once, producer: xxh3_128(key.as_bytes()) };
        let mut batches = Batches::new();
        for (partition, (indexes, records)) in &kept {
            let bytes: usize = records.iter().map(Record::raw_bytes).sum();
            if bytes > limits::RECORD_RAW_BYTES_MAX {
                let field = format!("records of partition {partition} under one idempotency-key");
                return Err(Problem::too_large(field, Some(bytes as u64), limits::RECORD_RAW_BYTES_MAX));
            }
            batches.insert(*partition, (identity(producer, records), indexes.clone()));
        }
        deadline.in_time(self.check_key(topic, producer, &batches)).await?;
        let mut deliveries = Vec::new();
        for (partition, (_, records)) in &kept {
            let (identity, indexes) = &batches[partition];
            let sending = self.producer.send_batch(topic, *partition, records, *identity);
            match deadline.race(sending).await.unwrap_or_else(|| Err(self.full())) {
                Ok(sent) => deliveries.extend(indexes.iter().copied().zip(sent)),
                Err(error) => indexes.iter().for_each(|index| taken[*index] = Err(Problem::from(&error))),
            }
        }
        self.landed(deadline).await;
        for (index, delivery) in deliveries {
            taken[index] = place(delivery);
        }
        Ok(taken)
    }

    /// The key may be known in the partitions that this request goes to, for what this request sends there; else it was
    /// used for something else. From a look at the ledger as it is now: a process may have been asleep since.
    async fn check_key(&self, topic: &str, key: ProducerKey, batches: &Batches) -> Result<(), Problem> {
        let chain = self.log.ledger().chain();
        let known = chain.fresh_view(chain.tick(), |view| {
            let (_, topic) = view.topic_or_unknown(topic)?;
            let known = topic.partitions.iter().zip(0u32..).filter_map(|(partition, number)| {
                let window = partition.producers.get(&key)?.window.back()?;
                Some((number, (window.first, window.last)))
            });
            Ok::<_, Error>(known.collect::<Vec<_>>())
        });
        let same = |(partition, sequences): &(u32, (u64, u64))| {
            let batch = batches.get(partition).map(|(identity, _)| identity);
            batch.is_some_and(|batch| (batch.first_sequence, batch.last_sequence) == *sequences)
        };
        if known.await??.iter().all(same) { Ok(()) } else { Err(reused()) }
    }

    /// Waits until all that was accepted has its answer, or there is no time left.
    async fn landed(&self, deadline: &Deadline) {
        if let Some(Err(error)) = deadline.race(self.producer.flush()).await {
            tracing::warn!(%error, "the producer is gone");
        }
    }

    fn full(&self) -> Error {
        Error::BufferFull { limit_bytes: self.settings.buffer_bytes() }
    }
}

fn choose(parsed: Parsed, facts: TopicFacts, key: &str) -> Result<(Record, u32), Problem> {
    let (record, asked) = parsed?;
    record.validate(facts.record_bytes_max)?;
    let hashed = || partitioner::keyed(record.key.as_deref().unwrap_or(key.as_bytes()), facts.partitions);
    let partition = asked.unwrap_or_else(hashed);
    if partition >= facts.partitions {
        let reason = format!("there is no partition {partition}: the topic has {}", facts.partitions);
        let limit = Some(u64::from(facts.partitions));
        return Err(Problem { limit, ..Problem::invalid("partition", reason) });
    }
    Ok((record, partition))
}

/// The sequence of a batch is a sum of what it holds, so that a key that comes with something else is found out. Times that
/// the log gives are not in it.
fn identity(key: ProducerKey, records: &[Record]) -> Identity {
    let mut hash = Xxh3::new();
    let mut bytes = |bytes: Option<&[u8]>| {
        hash.update(&bytes.map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
        hash.update(bytes.unwrap_or_default());
    };
    for record in records {
        bytes(record.timestamp_us.map(i64::to_le_bytes).as_ref().map(<[u8; 8]>::as_slice));
        bytes(record.key.as_deref());
        bytes(record.value.as_deref());
        bytes(Some(&(record.headers.len() as u64).to_le_bytes()));
        for header in &record.headers {
            bytes(Some(header.key.as_bytes()));
            bytes(header.value.as_deref());
        }
    }
    // Half of the range, so that the last sequence fits behind it.
    let first_sequence = hash.digest() >> 1;
    Identity { key, epoch: 0, first_sequence, last_sequence: first_sequence + records.len() as u64 - 1 }
}

fn place(delivery: Delivery) -> Result<Place, Problem> {
    match delivery.poll_now() {
        None => Err(unknown()),
        Some(answer) => placed(answer),
    }
}

fn placed(answer: LogResult<RecordMetadata>) -> Result<Place, Problem> {
    let RecordMetadata { partition, offset, duplicate, .. } = answer?;
    // Only a batch that is known with other sequences has no offset.
    let offset = offset.ok_or_else(reused)?;
    Ok(Place { partition, offset, duplicate })
}

fn unknown() -> Problem {
    let message = "it is not known whether the record is in the log: the store did not answer in time; send it again, \
        with an idempotency-key if it must not be there twice";
    Problem::retry(503, "unknown", message)
}

fn reused() -> Problem {
    let message = "this idempotency-key was used for other records of this topic, or the topic has got more partitions \
        since; nothing was written: take another key";
    let problem = Problem::new(422, "idempotency_key_reused", message);
    Problem { field: Some("idempotency-key".to_owned()), ..problem }
}
