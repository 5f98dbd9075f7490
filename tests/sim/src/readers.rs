//! Those who read: a tail reader, one that starts cold, and one that asks for what must be there.

use std::sync::Arc;

use tidelog_core::fetch::{FetchLimits, Fetched};
use tidelog_core::ledger::view::Place as At;
use tidelog_core::objects::ObjectName;
use tidelog_core::{Error, Fetcher, Log, Position};

use crate::cast::{Cast, TIMED};
use crate::clock::{sleep_ms, within};
use crate::oracle::Place;
use crate::process::Process;
use crate::rng::Rng;

/// Time within which an empty answer may be out of date (L4), and a millisecond for rounding.
const EMPTY_AGE_MS: u64 = 1_000 + 1;

/// A small cache that keeps nothing, or one that keeps all: nothing between depends on hashes.
fn cache(rng: &mut Rng) -> u64 {
    if rng.chance(500) { 1 } else { 64 << 20 }
}

/// Puts what was read into the account.
fn account(cast: &Cast, who: &str, place: &Place, fetched: &Fetched) {
    let mut oracle = cast.oracle();
    oracle.tell(place, fetched.high_watermark);
    oracle.start_told(who, place, 0, fetched.log_start);
    for record in fetched.records() {
        let value = record.value.unwrap_or_default();
        oracle.read(who, place, record.offset, &value, record.timestamp_us);
    }
}

/// Follows a topic from its start, across crashes, until the end of the seed.
pub async fn tail(cast: Arc<Cast>, mut rng: Rng, topic: &'static str) {
    while !cast.world.is_stopped() {
        let (gate, log) = cast.some_process(&mut rng).log().await;
        let builder = log.consumer(topic).from(Position::Start).cache_bytes(cache(&mut rng));
        let consumer = match gate.ask(builder.build()).await {
            None => continue,
            Some(Err(error)) => {
                cast.refused(&gate.name, &(topic.into(), 0), &error);
                sleep_ms(500).await;
                continue;
            }
            Some(Ok(consumer)) => consumer,
        };
        let mut consumer = consumer;
        let mut next = [0; 16];
        consumer.positions().iter().for_each(|(partition, at)| next[*partition as usize] = *at);
        for _ in 0..rng.between(10, 200) {
            // The bound inside: a frozen process must not lose a message that it has taken.
            let Some(Some(found)) = gate.ask(within(2_000, consumer.next_message())).await else {
                if cast.world.is_stopped() {
                    return;
                }
                continue;
            };
            match found {
                None => break,
                Some(Err(error)) => {
                    cast.refused(&gate.name, &(topic.into(), 0), &error);
                    sleep_ms(100).await;
                    if matches!(error, Error::OffsetOutOfRange { .. }) {
                        break;
                    }
                }
                Some(Ok(message)) => {
                    let place = (topic.to_owned(), message.partition);
                    let record = message.record;
                    let expected = &mut next[message.partition as usize];
                    let mut oracle = cast.oracle();
                    if record.offset != *expected {
                        let words = format!(
                            "tail reader in {} skips from {expected} to {}",
                            gate.name, record.offset
                        );
                        oracle.violation(words);
                    }
                    *expected = record.offset + 1;
                    let value = record.value.unwrap_or_default();
                    oracle.read("tail reader", &place, record.offset, &value, record.timestamp_us);
                }
            }
        }
    }
}

/// Asks, of running and of fresh processes, for what must be there by now.
pub async fn asker(cast: Arc<Cast>, mut rng: Rng) {
    let mut fresh = 0;
    while !cast.world.is_stopped() {
        let place = cast.some_place(&mut rng);
        if rng.chance(300) {
            fresh += 1;
            let process = Process::new(cast.world.clone(), format!("c{fresh}"));
            let freezes = rng.chance(500).then(|| (rng.below(60), rng.below(20_000)));
            let freezer = async {
                if let Some((after, ms)) = freezes {
                    sleep_ms(after).await;
                    process.gate().freeze(ms);
                }
            };
            let skew = rng.below(cast.world.plan.skew_ms_max + 1) as i64;
            tokio::join!(process.start(skew, false, &cast.oracle), freezer);
            ask(&cast, &mut rng, &process, &place).await;
            process.crash();
        } else {
            let process = cast.some_process(&mut rng).clone();
            ask(&cast, &mut rng, &process, &place).await;
        }
        sleep_ms(rng.between(20, 700)).await;
    }
}

async fn ask(cast: &Arc<Cast>, rng: &mut Rng, process: &Process, place: &Place) {
    let Some((gate, log)) = process.running() else { return };
    let fetcher = Fetcher::new(log.ledger().clone(), cache(rng));
    // Read your writes, on any reader: what was known before the question is in the answer.
    let floor = cast.oracle().told(place);
    let start = cast.oracle().start_known(place);
    if rng.chance(200) {
        time_lookup(cast, rng, &gate, &fetcher, place, (start, floor)).await;
    }
    if rng.chance(500) {
        match gate.ask(fetcher.watermarks(&place.0, place.1)).await {
            None => return,
            Some(Ok((low, high))) => {
                cast.oracle().watermark(&gate.name, place, floor, high);
                cast.oracle().start_told(&gate.name, place, start, low);
            }
            Some(Err(error)) => cast.refused(&gate.name, place, &error),
        }
    }
    match rng.below(4) {
        0 => from_start(cast, &gate, &fetcher, place).await,
        1 => {
            long_poll(cast, rng, &gate, &fetcher, place, floor).await;
        }
        _ => {
            let nth = rng.draw();
            let Some(offset) = cast.oracle().some_ack(place, nth) else { return };
            let records_max = rng.between(1, 30) as usize;
            let limits = FetchLimits { records_max, ..FetchLimits::default() };
            if fetch_at(cast, &gate, &fetcher, place, offset, limits).await {
                not_rotten(cast, &gate.name, &log, place, offset);
            }
        }
    }
}

async fn from_start(cast: &Cast, gate: &crate::clock::Gate, fetcher: &Fetcher, place: &Place) {
    let mut at = 0;
    for _ in 0..50 {
        match gate.ask(fetcher.fetch(&place.0, place.1, at, FetchLimits::default())).await {
            None => return,
            Some(Err(error)) => {
                cast.refused(&gate.name, place, &error);
                match error {
                    Error::OffsetOutOfRange { log_start, .. } if at < log_start => at = log_start,
                    _ => return,
                }
            }
            Some(Ok(fetched)) if fetched.runs.is_empty() => return,
            Some(Ok(fetched)) => {
                account(cast, &gate.name, place, &fetched);
                at = fetched.next;
            }
        }
    }
}

/// Waits for records at the end of partitions, in one process for a while.
pub async fn poller(cast: Arc<Cast>, mut rng: Rng) {
    while !cast.world.is_stopped() {
        let (gate, log) = cast.some_process(&mut rng).log().await;
        let fetcher = Fetcher::new(log.ledger().clone(), 1);
        for _ in 0..rng.between(1, 10) {
            let place = cast.some_place(&mut rng);
            let floor = cast.oracle().told(&place);
            long_poll(&cast, &mut rng, &gate, &fetcher, &place, floor).await;
            sleep_ms(rng.between(10, 500)).await;
        }
    }
}

/// Waits at the end as it is known.
async fn long_poll(
    cast: &Cast,
    rng: &mut Rng,
    gate: &crate::clock::Gate,
    fetcher: &Fetcher,
    place: &Place,
    floor: u64,
) {
    let limits = FetchLimits { wait_ms: rng.pick(&[0, 500, 5_000, 25_000]), ..FetchLimits::default() };
    fetch_at(cast, gate, fetcher, place, floor, limits).await;
}

/// Fetches at an offset that exists or is the next; an empty answer must not hide what was acked a while ago.
async fn fetch_at(
    cast: &Cast,
    gate: &crate::clock::Gate,
    fetcher: &Fetcher,
    place: &Place,
    offset: u64,
    limits: FetchLimits,
) -> bool {
    let asked = async {
        let answer = fetcher.fetch(&place.0, place.1, offset, limits).await;
        (answer, cast.world.clock.ms())
    };
    match gate.ask(asked).await {
        Some((Ok(fetched), at_ms)) => {
            let before_ms = at_ms.saturating_sub(EMPTY_AGE_MS);
            let missed = cast.oracle().acked_before(place, offset, before_ms);
            if let Some(missed) = missed.filter(|_| fetched.runs.is_empty()) {
                let words =
                    format!("{} finds nothing at {offset}, but {missed} was acked long ago", gate.name);
                cast.oracle().violation(words);
            }
            account(cast, &gate.name, place, &fetched);
            !fetched.runs.is_empty()
        }
        Some((Err(error), _)) => {
            cast.refused(&gate.name, place, &error);
            false
        }
        None => false,
    }
}

/// What is damaged for good must have been answered as damage.
fn not_rotten(cast: &Cast, who: &str, log: &Log, place: &Place, offset: u64) {
    let object = log.ledger().chain().view(|view| {
        let (_, _, p) = view.partition_or_unknown(&place.0, place.1).ok()?;
        // One that was merged may have been read before it was damaged.
        let slice = p.slices_from(offset).next().filter(|slice| slice.base <= offset)?;
        match &slice.place {
            At::Object(object, _) if offset >= p.log_start => Some(ObjectName::from(object).to_string()),
            _ => None,
        }
    });
    if let Ok(Some(object)) = object
        && cast.world.is_rotten(&object)
    {
        cast.oracle().violation(format!("{who} reads {offset} of {place:?} from {object}, which is damaged"));
    }
}

/// Asks for the first offset at or after a time; what was `known` before must be in the answer.
async fn time_lookup(
    cast: &Cast,
    rng: &mut Rng,
    gate: &crate::clock::Gate,
    fetcher: &Fetcher,
    place: &Place,
    known: (u64, u64),
) {
    let sent = cast.oracle().counts().0 as u64;
    let time_us = match place.0 == TIMED {
        true => (cast.world.clock.wall_ms() - rng.below(120_000) as i64) * 1_000,
        false => rng.below(sent + sent / 10 + 1) as i64,
    };
    match gate.ask(fetcher.offset_at(&place.0, place.1, time_us)).await {
        None => {}
        Some(Ok(found)) => {
            cast.world.saw("offset_at", "none", if found.is_some() { "found" } else { "none yet" });
            cast.oracle().looked_up(&gate.name, place, time_us, found, known);
        }
        Some(Err(error)) => cast.refused(&gate.name, place, &error),
    }
}
