//! Those who read: a tail reader, one that starts cold, and one that asks for what must be there.

use std::sync::Arc;

use tidelog_core::fetch::{FetchLimits, Fetched};
use tidelog_core::{Fetcher, Position};

use crate::cast::Cast;
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
    if rng.chance(500) {
        match gate.ask(fetcher.watermarks(&place.0, place.1)).await {
            None => return,
            Some(Ok((_, high))) => cast.oracle().watermark(&gate.name, place, floor, high),
            Some(Err(error)) => cast.refused(&gate.name, place, &error),
        }
    }
    match rng.below(4) {
        0 => from_start(cast, &gate, &fetcher, place).await,
        1 => long_poll(cast, rng, &gate, &fetcher, place, floor).await,
        _ => {
            let nth = rng.draw();
            let Some(offset) = cast.oracle().some_ack(place, nth) else { return };
            let records_max = rng.between(1, 30) as usize;
            let limits = FetchLimits { records_max, ..FetchLimits::default() };
            fetch_at(cast, &gate, &fetcher, place, offset, limits).await;
        }
    }
}

async fn from_start(cast: &Cast, gate: &crate::clock::Gate, fetcher: &Fetcher, place: &Place) {
    let mut at = 0;
    for _ in 0..50 {
        match gate.ask(fetcher.fetch(&place.0, place.1, at, FetchLimits::default())).await {
            None => return,
            Some(Err(error)) => return cast.refused(&gate.name, place, &error),
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
) {
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
        }
        Some((Err(error), _)) => cast.refused(&gate.name, place, &error),
        None => {}
    }
}
