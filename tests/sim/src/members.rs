//! A member of a consumer group: reads through any process, stores where it is, and goes on there in another.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidelog_core::{Consumer, Position};

use crate::cast::{Cast, TOPIC};
use crate::clock::{Gate, sleep_ms, within};
use crate::rng::Rng;

/// What the group's offset of a partition can be: it was stored, and perhaps any of those tried since.
#[derive(Debug, Clone, Default)]
struct Stored {
    /// 0: nothing.
    known: u64,
    tried: Vec<u64>,
}

impl Stored {
    fn store(&mut self, offset: u64, is_known: bool) {
        if is_known {
            (self.known, self.tried) = (offset, Vec::new());
        } else {
            self.tried.push(offset);
        }
    }
}

/// The one member of its group.
pub async fn member(cast: Arc<Cast>, mut rng: Rng) {
    let mut stored: BTreeMap<u32, Stored> = BTreeMap::new();
    let group = format!("member-{}", cast.world.era());
    while !cast.world.is_stopped() {
        sleep_ms(rng.between(20, 1_000)).await;
        let (gate, log) = cast.some_process(&mut rng).log().await;
        if rng.chance(100) {
            let partition = rng.below(u64::from(cast.world.plan.partitions)) as u32;
            let offset = rng.below(cast.oracle().told(&(TOPIC.into(), partition)) + 1);
            let reset = log.admin();
            let done = gate.ask(reset.store_offsets(&group, TOPIC, &[(partition, Some(offset))])).await;
            let is_known = matches!(done, Some(Ok(())));
            stored.entry(partition).or_default().store(offset, is_known);
            if let Some(Err(error)) = done {
                cast.refused(&gate.name, &(TOPIC.into(), partition), &error);
            } else if is_known {
                cast.world.saw("group", "none", "reset");
            }
            continue;
        }
        let builder = log.consumer(TOPIC).from(Position::Start).group(&group);
        match gate.ask(builder.build()).await {
            None => {}
            Some(Err(error)) => cast.refused(&gate.name, &(TOPIC.into(), 0), &error),
            Some(Ok(consumer)) => {
                judge(&cast, &gate, &consumer, &mut stored);
                read_on(&cast, &mut rng, &gate, consumer, &mut stored).await;
            }
        }
    }
}

/// Read your writes: it goes on where it was, or at what is left of the log.
fn judge(cast: &Cast, gate: &Gate, consumer: &Consumer, stored: &mut BTreeMap<u32, Stored>) {
    for (partition, at) in consumer.positions() {
        let mut oracle = cast.oracle();
        let start = oracle.start_max(&(TOPIC.to_owned(), partition));
        let stored = stored.entry(partition).or_default();
        let is_stored = stored.known == at || stored.tried.contains(&at);
        let is_start = at <= start && at >= stored.tried.iter().copied().fold(stored.known, u64::min);
        if !is_stored && !is_start {
            oracle.violation(format!("{}: the group goes on at {at} of {partition}: {stored:?}", gate.name));
        }
        drop(oracle);
        cast.world.saw("group", "none", "went on");
    }
}

async fn read_on(
    cast: &Cast,
    rng: &mut Rng,
    gate: &Gate,
    mut consumer: Consumer,
    stored: &mut BTreeMap<u32, Stored>,
) {
    let mut next: BTreeMap<u32, u64> = consumer.positions().into_iter().collect();
    for _ in 0..rng.between(1, 40) {
        match gate.ask(within(1_000, consumer.next_message())).await {
            Some(Some(Some(Ok(message)))) => {
                let (place, record) = ((TOPIC.to_owned(), message.partition), message.record);
                let expected = next.insert(message.partition, record.offset + 1);
                let mut oracle = cast.oracle();
                if expected != Some(record.offset) {
                    let words = format!("{}: {} of {place:?} after {expected:?}", gate.name, record.offset);
                    oracle.violation(words);
                }
                let value = record.value.unwrap_or_default();
                oracle.read("group member", &place, record.offset, &value, record.timestamp_us);
            }
            Some(Some(Some(Err(error)))) => {
                cast.refused(&gate.name, &(TOPIC.into(), 0), &error);
                break;
            }
            Some(Some(None)) | None => break,
            Some(None) => {}
        }
    }
    let positions = consumer.positions();
    let done = gate.ask(consumer.store_offsets()).await;
    let is_known = matches!(done, Some(Ok(())));
    for (partition, at) in positions {
        stored.entry(partition).or_default().store(at, is_known);
    }
    if let Some(Err(error)) = done {
        cast.refused(&gate.name, &(TOPIC.into(), 0), &error);
    } else if is_known {
        cast.world.saw("group", "none", "stored");
    }
}
