//! The batcher: how records are cut into flights, alone and with the driver behind it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::flight::Mark;
use super::*;
use crate::ledger::Settings;
use crate::ledger::action::TimestampType;
use crate::ledger::settle_tests::StoppedEnv;
use crate::store::Store;
use crate::{Log, Position};

/// A runtime of one thread and stopped time: nothing happens behind the test's back.
fn alone<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(work)
}

async fn memory() -> Log {
    let env = StoppedEnv::shared(7);
    let store = Store::open(&"memory:".parse().unwrap(), env.clone(), true).await.unwrap();
    Log::with_store(store, env, true, Settings::default()).await.unwrap()
}

fn record(number: usize, bytes: usize) -> Record {
    Record { timestamp_us: Some(number as i64), ..Record::value(vec![number as u8; bytes]) }
}

/// Mostly small, some of a quarter to a whole segment, rarely the largest.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => 0..200usize,
        3 => limits::SEGMENT_RAW_BYTES / 4..=limits::SEGMENT_RAW_BYTES,
        1 => Just(limits::RECORD_BYTES_MAX),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    /// One record to topic and partition, with a tag of this kind or the producer's own.
    Send(usize, u32, usize, Option<IdentityKind>),
    /// A client's own batch.
    Batch(usize, u32, Vec<usize>),
    /// Something, such as a linger that ended, seals all that is open.
    Seal,
    /// The topic's codec is altered.
    Alter(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let kind = proptest::option::of(prop_oneof![
        Just(IdentityKind::Dense),
        Just(IdentityKind::Monotone),
        Just(IdentityKind::Once)
    ]);
    prop_oneof![
        8 => (0..2usize, 0..2u32, size(), kind).prop_map(|(t, p, bytes, kind)| Step::Send(t, p, bytes, kind)),
        2 => (0..2usize, 0..2u32, vec(0..300usize, 1..5)).prop_map(|(t, p, sizes)| Step::Batch(t, p, sizes)),
        1 => Just(Step::Seal),
        1 => (0..2usize).prop_map(Step::Alter),
    ]
}

fn topic(number: usize, compression: Compression) -> Arc<TopicInfo> {
    Arc::new(TopicInfo {
        id: TopicId(number as u128),
        name: format!("t{number}").into(),
        partitions: 2,
        record_bytes_max: limits::RECORD_BYTES_MAX,
        inline_bytes_max: 0,
        compression,
        time_type: TimestampType::CreateTime,
        led: Vec::new(),
    })
}

/// Topic and partition → (number, bytes) of each record, in order.
type Sent = BTreeMap<(TopicId, u32), Vec<(i64, usize)>>;

/// Takes the steps and answers what was sent, each record's delivery, and what it was cut into. The driver never gets to run.
fn cut(shared: &Shared, steps: &[Step]) -> (Sent, Vec<Delivery>, Vec<Open>) {
    let mut topics = [topic(0, Compression::None), topic(1, Compression::Zstd)];
    let (mut sent, mut deliveries, mut number) = (Sent::new(), Vec::new(), 0);
    let mut sequences = BTreeMap::<_, u64>::new();
    for step in steps {
        match step {
            Step::Send(t, partition, bytes, kind) => {
                let record = record(number, *bytes);
                let tag = kind.map(|kind| {
                    let next = sequences.entry((*t, *partition, kind)).or_default();
                    // Sometimes a gap: usual for a growing sequence, the end of a batch for a dense one.
                    *next += 1 + (*bytes as u64 & 1);
                    Tag { key: ProducerKey { kind, producer: 5 }, epoch: 0, sequence: *next }
                });
                let permit = shared.try_reserve(*bytes).unwrap();
                let (topic, partition) = (&topics[*t], *partition);
                let push = shared.push_reserved(topic, Some(partition), &record, tag, permit, |_| {});
                deliveries.push(push.unwrap());
                sent.entry((topic.id, partition)).or_default().push((number as i64, *bytes));
                number += 1;
            }
            Step::Batch(t, partition, sizes) => {
                let records: Vec<_> = (number..).zip(sizes).map(|(n, bytes)| record(n, *bytes)).collect();
                let key = ProducerKey { kind: IdentityKind::Dense, producer: 6 };
                let last_sequence = records.len() as u64 - 1;
                let identity = Identity { key, epoch: 0, first_sequence: 0, last_sequence };
                let permit = shared.try_reserve(sizes.iter().sum()).unwrap();
                let pushed = shared.push_batch(&topics[*t], *partition, &records, identity, permit);
                deliveries.extend(pushed.unwrap());
                let entry = sent.entry((topics[*t].id, *partition)).or_default();
                entry.extend((number..).zip(sizes).map(|(n, bytes)| (n as i64, *bytes)));
                number += records.len();
            }
            Step::Seal => drop(shared.seal_all(|_| false)),
            Step::Alter(t) => {
                let other = match topics[*t].compression {
                    Compression::None => Compression::Zstd,
                    _ => Compression::None,
                };
                topics[*t] = topic(*t, other);
            }
        }
        assert!(!shared.state().sending.opens.iter().any(Open::is_full), "what is full is sealed");
    }
    shared.seal_all(|_| false);
    let flights = shared.state().sending.sealed.drain(..).collect();
    (sent, deliveries, flights)
}

fn check_marks(chunk: &Chunk) {
    assert_eq!(chunk.marks.iter().map(|mark| mark.rows as usize).sum::<usize>(), chunk.rows.len());
    for Mark { rows, identity, closed } in &chunk.marks {
        let Some(identity) = identity else { panic!("an idempotent producer names every record") };
        let span = identity.last_sequence - identity.first_sequence + 1;
        match identity.key.kind {
            IdentityKind::Dense => assert_eq!(span, u64::from(*rows)),
            IdentityKind::Monotone => assert!(span >= u64::from(*rows)),
            IdentityKind::Once => assert_eq!((span, *rows), (1, 1)),
        }
        assert_eq!(*closed, identity.key.producer == 6, "a client's batch stays as it is");
    }
}

/// Number, bytes and chunks of a flight; of each chunk topic, partition, and rows of each batch.
type Shape = (u64, usize, Vec<(TopicId, u32, Vec<u32>)>);

/// Where flights begin and end, and in which batches.
fn shape(flights: &[Open]) -> Vec<Shape> {
    let marks = |chunk: &Chunk| chunk.marks.iter().map(|mark| mark.rows).collect();
    let chunks = |open: &Open| open.chunks.iter().map(|c| (c.topic.id, c.partition, marks(c))).collect();
    flights.iter().map(|open| (open.number, open.raw_bytes, chunks(open))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_sends_are_cut_whole_in_order_and_within_limits(steps in vec(step(), 1..24)) {
        alone(async {
            let settings = ProducerSettings {
                idempotent: true, buffer_bytes: limits::BUFFER_BYTES_MAX, ..ProducerSettings::default()
            };
            let producer = || async {
                Producer::start(memory().await.ledger().clone(), settings.clone(), None).unwrap()
            };
            let (one, two) = (producer().await, producer().await);
            let shared = &one.handle.shared;
            let (sent, deliveries, flights) = cut(shared, &steps);
            let (_, _, again) = cut(&two.handle.shared, &steps);
            assert_eq!(shape(&flights), shape(&again), "same input, same cut");
            assert!(flights.windows(2).all(|pair| pair[0].number < pair[1].number));

            let held: usize = deliveries.iter().zip(sent_bytes(&sent)).map(|(_, bytes)| bytes).sum();
            let free = shared.budget.available_permits();
            assert!(settings.buffer_bytes - free >= held, "what is open or sealed holds its part of the buffer");

            let mut places = BTreeMap::new();
            let mut found = Sent::new();
            for open in flights {
                assert!(open.rows > 0 && open.raw_bytes <= limits::SEGMENT_RAW_BYTES_MAX);
                assert_eq!(open.rows, open.chunks.iter().map(|chunk| chunk.rows.len()).sum::<usize>());
                let mut raw_bytes = 0;
                for (index, chunk) in (0..).zip(open.chunks) {
                    assert_eq!(chunk.topic.compression, open.compression);
                    check_marks(&chunk);
                    raw_bytes += chunk.rows.raw_bytes();
                    let rows = chunk.rows.finish();
                    for i in 0..rows.len() {
                        let (number, value) = (rows.timestamp_us(i), rows.value(i).unwrap());
                        assert!(value.iter().all(|byte| *byte == number as u8));
                        let entry = found.entry((chunk.topic.id, chunk.partition)).or_default();
                        entry.push((number, value.len()));
                        places.insert(number, (Arc::as_ptr(&open.flight), index, i as u32));
                    }
                }
                assert_eq!(raw_bytes, open.raw_bytes);
            }
            assert_eq!(found, sent, "nothing lost, nothing added, in order");
            for (number, delivery) in (0..).zip(&deliveries) {
                let place = (Arc::as_ptr(&delivery.flight), delivery.chunk, delivery.row);
                assert_eq!(places[&number], place, "a delivery waits for its own row");
            }
        });
    }
}

fn sent_bytes(sent: &Sent) -> impl Iterator<Item = usize> {
    sent.values().flatten().map(|(_, bytes)| *bytes)
}

#[derive(Debug, Clone)]
enum Act {
    Send(u32, usize),
    Pause(u64),
    Flush,
}

fn act() -> impl Strategy<Value = Act> {
    let bytes = prop_oneof![6 => 0..300usize, 1 => 100_000..1_000_000usize];
    prop_oneof![
        6 => (0..3u32, bytes).prop_map(|(partition, bytes)| Act::Send(partition, bytes)),
        2 => (0..30u64).prop_map(Act::Pause),
        1 => Just(Act::Flush),
    ]
}

/// Sends through the driver into a memory store. Checks every ack against what a consumer reads, and answers the
/// slices: where the commits cut.
async fn through_the_log(acts: &[Act], settings: &ProducerSettings) -> Vec<(u64, u32, u64, u64)> {
    let log = memory().await;
    log.admin().create_topic("t", 3, &[]).await.unwrap();
    let producer = Producer::start(log.ledger().clone(), settings.clone(), None).unwrap();
    let env = log.ledger().env().clone();
    let linger = Duration::from_millis(settings.linger_ms);
    let (mut sent, mut deliveries) = (vec![Vec::new(); 3], Vec::new());
    for act in acts {
        match act {
            Act::Send(partition, bytes) => {
                let record = record(deliveries.len(), *bytes);
                sent[*partition as usize].push((record.timestamp_us, record.value.clone()));
                let place = (*partition, sent[*partition as usize].len() as u64 - 1);
                let delivery = producer.enqueue("t", Some(*partition), record, None).await.unwrap();
                deliveries.push((env.monotonic(), place, delivery));
            }
            Act::Flush => {
                producer.flush().await.unwrap();
                assert!(deliveries.iter().all(|(_, _, delivery)| delivery.poll_now().is_some()));
            }
            Act::Pause(ms) => {
                env.sleep(Duration::from_millis(*ms)).await;
                // The store answers in no time here, so nothing may wait longer than its linger and a tick of the clock.
                let due = |at: &Duration| *at + linger + Duration::from_millis(2) <= env.monotonic();
                let late = deliveries.iter().filter(|(at, _, d)| due(at) && d.poll_now().is_none()).count();
                assert_eq!(late, 0, "a linger is kept");
            }
        }
    }
    producer.close().await.unwrap();
    for (_, (partition, offset), delivery) in deliveries {
        let metadata = delivery.wait().await.unwrap();
        assert_eq!(
            (metadata.partition, metadata.offset),
            (partition, Some(offset)),
            "in the order of the sends"
        );
    }
    let mut found = vec![Vec::new(); 3];
    let mut consumer = log.consumer("t").from(Position::Start).until(Position::End).build().await.unwrap();
    while let Some(message) = consumer.next_message().await {
        let message = message.unwrap();
        found[message.partition as usize].push((Some(message.record.timestamp_us), message.record.value));
    }
    assert!(found == sent, "nothing lost, nothing added, in order");
    let slices = |view: &View| view.slices().map(|(_, p, s)| (s.slot, p, s.base, s.rows)).collect();
    log.ledger().chain().view(slices).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_sends_come_back_and_are_cut_the_same_again(
        acts in vec(act(), 1..30),
        linger_ms in 0..12u64,
        inline in any::<bool>(),
        idempotent in any::<bool>(),
    ) {
        let inline_bytes_max = if inline { limits::INLINE_BYTES_MAX } else { 0 };
        // The smallest buffer: some sends wait for room.
        let buffer_bytes = limits::RECORD_BYTES_DEFAULT;
        let settings =
            ProducerSettings { linger_ms, inline_bytes_max, buffer_bytes, idempotent, ..ProducerSettings::default() };
        let one = alone(through_the_log(&acts, &settings));
        prop_assert_eq!(one, alone(through_the_log(&acts, &settings)));
    }
}

/// By name, by a process whose view is from before: an error with the name, and the next one goes to the new topic.
#[test]
fn a_topic_that_was_made_anew_takes_what_is_sent_next() {
    alone(async {
        for idempotent in [false, true] {
            let env = StoppedEnv::shared(7);
            let store = Store::open(&"memory:".parse().unwrap(), env.clone(), true).await.unwrap();
            let here = Log::with_store(store.clone(), env.clone(), true, Settings::default()).await.unwrap();
            let there = Log::with_store(store, env, true, Settings::default()).await.unwrap();
            here.admin().create_topic("t", 1, &[]).await.unwrap();
            let producer = there.producer().idempotent(idempotent).linger_ms(0).build().unwrap();
            for offset in 0..2 {
                let sent = producer.send("t", record(1, 10)).await.unwrap();
                assert_eq!(sent.offset, Some(offset));
            }
            here.admin().delete_topic("t").await.unwrap();
            here.admin().create_topic("t", 1, &[]).await.unwrap();
            let error = producer.send("t", record(2, 10)).await.unwrap_err();
            assert!(matches!(&error, Error::TopicDeleted { topic } if topic == "t"), "{error}");
            let sent = producer.send("t", record(3, 10)).await.unwrap();
            assert_eq!((sent.offset, sent.duplicate), (Some(0), false), "idempotent: {idempotent}");
            producer.close().await.unwrap();
        }
    });
}
