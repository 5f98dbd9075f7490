//! How soon records are in merged segments, and what upkeep costs where there is little in each of many topics.

use std::time::Duration;

use tidelog_budgets::Times;
use tidelog_budgets::virtual_time::Draws;
use tidelog_budgets::world::{Process, S3, S3_TAIL, World};
use tidelog_core::counting::{ObjectCounts, TableCounts};
use tidelog_core::limits::KEEP_EVERY_MS;
use tidelog_core::metrics::Metric;
use tidelog_core::upkeep::UpkeepSettings;
use tidelog_core::{Record, prices};
use tokio::time::{Instant, sleep, sleep_until};

use crate::at_most;

const HOUR_S: u64 = 3_600;

/// A topic that takes 1 MiB/s, and the upkeep of the process that writes.
#[tokio::test(start_paused = true)]
async fn a_record_is_in_a_merged_segment_within_90_s_of_its_ack() {
    const SECONDS: u64 = 300;
    let world = World::new(S3_TAIL);
    let process = world.process(1, true).await;
    process.log.admin().create_topic("t", 1, &[]).await.unwrap();
    let producer = process.log.producer().linger_ms(1_000).lead(true).build().unwrap();
    let (draws, mut acks) = (Draws::new(7), Vec::new());
    let writing = async {
        for n in 0..SECONDS * 64 {
            sleep_until(world.start + Duration::from_secs(1) + Duration::from_micros(n * 15_625)).await;
            // About half of it is left when it is compressed.
            let value: Vec<u8> = (0..16_384).map(|_| b'a' + (draws.bits() % 16) as u8).collect();
            let delivery = producer.enqueue("t", Some(0), Record::value(value), None).await.unwrap();
            acks.push(tokio::spawn(async move {
                (delivery.wait().await.unwrap().offset.unwrap(), Instant::now())
            }));
        }
        sleep(Duration::from_secs(120)).await;
    };
    // When it saw that all records below an offset are in merged segments.
    let mut indexed = vec![(0, world.start)];
    let watching = async {
        loop {
            sleep(Duration::from_millis(100)).await;
            let look =
                |view: &tidelog_core::ledger::view::View| view.topic("t").unwrap().1.partitions[0].indexed_to;
            let to = process.log.ledger().chain().view(look).unwrap();
            if to > indexed[indexed.len() - 1].0 {
                indexed.push((to, Instant::now()));
            }
        }
    };
    tokio::select! { () = writing => {}, () = watching => unreachable!("it goes on") }
    let mut waited = Vec::new();
    for ack in acks {
        let (offset, acked) = ack.await.unwrap();
        let (_, seen) = indexed.iter().find(|(to, _)| *to > offset).unwrap();
        waited.push(seen.saturating_duration_since(acked));
    }
    let waited = Times::new(waited);
    println!("1 MiB/s, from ack to a merged segment with its index row: {waited}");
    at_most("  p99, s", waited.ms(0.99) / 1e3, 90.0);
}

/// Upkeep every 20 s.
async fn keep(keeper: &Process, begin: Instant, end: Instant) {
    let (upkeep, mut runs) = (keeper.log.upkeep(UpkeepSettings::default()), 0);
    while Instant::now() < end {
        runs += 1;
        let run = upkeep.run(|_| {}).await.unwrap();
        assert_eq!((run.merged.damage, run.rewritten.damage), (Vec::new(), Vec::new()));
        sleep_until(begin + Duration::from_millis(KEEP_EVERY_MS * runs)).await;
    }
}

/// What upkeep writes for each byte of ingest, merging and rewriting: a topic that takes so many bytes a second.
async fn bytes_written(bytes_a_second: usize, seconds: u64) -> f64 {
    let world = World::new(S3);
    let (writer, keeper) = (world.process(1, true).await, world.process(2, true).await);
    writer.log.admin().create_topic("t", 1, &[]).await.unwrap();
    let (begin, draws) = (Instant::now(), Draws::new(7));
    let end = begin + Duration::from_secs(seconds);
    let ingest = async {
        let producer = writer.log.producer().inline_bytes_max(0).linger_ms(1_000).build().unwrap();
        let record_bytes = bytes_a_second / 10;
        for n in 1..=seconds * 10 {
            // About half of it is left when it is compressed.
            let value: Vec<u8> = (0..record_bytes).map(|_| b'a' + (draws.bits() % 16) as u8).collect();
            producer.enqueue("t", Some(0), Record::value(value), None).await.unwrap();
            sleep_until(begin + Duration::from_millis(n * 100)).await;
        }
        producer.close().await.unwrap();
    };
    tokio::join!(keep(&keeper, begin, end), ingest);
    let (ingest, upkeep) = (writer.counts().0.bytes_put, keeper.counts().0.bytes_put);
    println!("{bytes_a_second} bytes a second for {seconds} s: {ingest} bytes of ingest, {upkeep} by upkeep");
    upkeep as f64 / ingest as f64
}

#[tokio::test(start_paused = true)]
async fn upkeep_writes_what_came_twice() {
    for (bytes_a_second, seconds) in [(1 << 20, 600), (10 << 10, 3 * HOUR_S)] {
        let written = bytes_written(bytes_a_second, seconds).await;
        at_most("  bytes by upkeep / bytes of ingest", written, 2.2);
        assert!(written > 1.2, "all but the end is merged, and some of it rewritten");
    }
}

/// Every topic gets a record of some 150 bytes a minute, by one writer that flushes once a second; another process runs
/// upkeep every 20 s. Told is the second hour: by then merges overlap as they do for ever.
async fn trickle(topics: usize) {
    const HOURS: u64 = 2;
    let world = World::new(S3);
    let (writer, keeper) = (world.process(1, true).await, world.process(2, true).await);
    let names: Vec<String> = (0..topics).map(|n| format!("topic-{n:05}")).collect();
    for name in &names {
        writer.log.admin().create_topic(name, 1, &[]).await.unwrap();
    }
    let begin = Instant::now();
    let end = begin + Duration::from_secs(HOUR_S * HOURS);
    let ingest = async {
        let producer = writer.log.producer().inline_bytes_max(0).linger_ms(1_000).build().unwrap();
        let mut second = 0;
        while Instant::now() < end {
            for name in names.iter().skip(second % 60).step_by(60) {
                producer.enqueue(name, None, Record::value(vec![b'x'; 150]), None).await.unwrap();
            }
            second += 1;
            sleep_until(begin + Duration::from_secs(second as u64)).await;
        }
        producer.close().await.unwrap();
    };
    let last_hour = async {
        sleep_until(end - Duration::from_secs(HOUR_S)).await;
        let stripped = || keeper.totals.of(Metric::SlotsStripped).sum;
        let before = (writer.counts(), keeper.counts(), stripped());
        sleep_until(end).await;
        (since(&writer, before.0), since(&keeper, before.1), stripped() - before.2)
    };
    let ((), (), (of_ingest, of_upkeep, stripped)) =
        tokio::join!(keep(&keeper, begin, end), ingest, last_hour);
    println!("{topics} topics, an hour:");
    for (what, (objects, table)) in [("ingest", of_ingest), ("upkeep", of_upkeep)] {
        println!(
            "  {what}: {} PUTs, {} GETs, {} lists, {} write units, {} read units, ${:.4}",
            objects.puts,
            objects.gets + objects.heads,
            objects.lists,
            table.write_units,
            table.read_half_units.div_ceil(2),
            prices::dollars(&objects, &table),
        );
    }
    // One each ten minutes. At an hour's end a topic may have two; and there are rewrites.
    let merges = topics as f64 * 6.0;
    let puts = of_upkeep.0.puts as f64 / merges;
    at_most("  PUTs of upkeep, by topic and ten minutes", puts, 1.4);
    assert!(puts >= 1.0, "each topic is merged");
    // A row for each, written again by the rewrite, and commits. Ingest's are stripped by whoever is first, a thousand at once: an hour
    // has one time more or less of that.
    let units = of_upkeep.1.write_units - stripped;
    at_most("  write units, the same, without strips", units as f64 / merges, 3.0);
    let of_both = [&writer, &keeper].map(|process| process.totals.of(Metric::SlotsStripped).sum);
    let commits = keeper.log.ledger().chain().view(|view| view.slot).unwrap();
    at_most(
        "  strips by both processes, by commit",
        of_both.iter().sum::<u64>() as f64 / commits as f64,
        1.0,
    );
}

fn since(process: &Process, before: (ObjectCounts, TableCounts)) -> (ObjectCounts, TableCounts) {
    let (objects, table) = process.counts();
    (objects.since(&before.0), table.since(&before.1))
}

#[tokio::test(start_paused = true)]
async fn topics_that_trickle_cost_a_put_each_for_every_merge() {
    trickle(300).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "takes minutes: ./test --nightly trickle"]
async fn ten_thousand_topics_that_trickle() {
    trickle(10_000).await;
}
