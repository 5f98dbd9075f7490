//! How long a lone writer waits for its ack, beside what the stores alone take.

use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, PutMode, PutOptions};
use tidelog_budgets::Times;
use tidelog_budgets::world::{Process, S3, S3_TAIL, World};
use tidelog_core::Record;
use tidelog_core::table::{Item, Table};

use crate::{at_most, segment_record, small_record};

const SENT: usize = 2_000;

/// Sends one after the other, each when the one before it is acked and `pause` has passed.
async fn acks(
    world: &World,
    process: &Process,
    linger_ms: u64,
    pause: Duration,
    record: fn(usize) -> Record,
) -> Times {
    process.log.admin().create_topic("t", 1, &[]).await.unwrap();
    let producer = process.log.producer().linger_ms(linger_ms).build().unwrap();
    let mut times = Vec::new();
    for n in 0..SENT {
        let began = world.now();
        producer.send("t", record(n)).await.unwrap();
        times.push(world.now() - began);
        tokio::time::sleep(pause).await;
    }
    Times::new(times)
}

/// The stores alone, with the same draws: a PUT, then a put if absent.
async fn floor(world: &World, seed: u64) -> Times {
    let (_, table, objects) = world.stores(seed);
    let mut times = Vec::new();
    for n in 0..SENT {
        let began = world.now();
        let name = Path::from(format!("floor/{n}"));
        objects.put_opts(&name, "x".into(), PutOptions::from(PutMode::Create)).await.unwrap();
        let body = Some(Bytes::from_static(b"x"));
        let item = Item { sk: n as u64 + 1, id: 1, time_ms: 1, body, hint: String::new() };
        Table::put_if_absent(&*table, "floor", &item).await.unwrap();
        times.push(world.now() - began);
    }
    Times::new(times)
}

#[tokio::test(start_paused = true)]
async fn a_lone_writer_waits_for_the_stores_and_its_linger() {
    for (latencies, name) in [(S3, "constant PUT"), (S3_TAIL, "PUT with S3's tail")] {
        for (linger_ms, pause_ms) in [(0, 0), (5, 0), (5, 100), (5, 3_000)] {
            let world = World::new(latencies);
            let process = world.process(1, true).await;
            let ours =
                acks(&world, &process, linger_ms, Duration::from_millis(pause_ms), segment_record).await;
            let floor = floor(&World::new(latencies), 1).await;
            println!(
                "{name}, linger {linger_ms} ms, a pause of {pause_ms} ms: {ours}; the stores alone: {floor}"
            );
            at_most("  ack p50", ours.ms(0.5), linger_ms as f64 + 57.0);
            at_most("  ack p99 above the floor's", ours.ms(0.99) - floor.ms(0.99), 10.0);
        }
    }
}

/// As the peers were paced: 1,000 records of 1 KiB a second. What comes while an upload is under way waits for it, so that
/// there are some 20 PUTs a second, and not one for each linger.
#[tokio::test(start_paused = true)]
async fn a_paced_writer_waits_for_less_than_two_uploads() {
    let world = World::new(S3_TAIL);
    let process = world.process(1, true).await;
    process.log.admin().create_topic("t", 1, &[]).await.unwrap();
    let producer = process.log.producer().build().unwrap();
    let mut sent = Vec::new();
    for n in 0..10_000 {
        let began = tokio::time::Instant::now();
        let record = Record::value(format!("{n:01024}"));
        let delivery = producer.enqueue("t", None, record, None).await.unwrap();
        sent.push(tokio::spawn(async move { delivery.wait().await.map(|_| began.elapsed()).unwrap() }));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let ours = Times::new(futures::future::join_all(sent).await.into_iter().map(Result::unwrap).collect());
    let puts = process.objects.counts().puts as f64 / world.now().as_secs_f64();
    println!("1,000 records a second, linger 5 ms: {ours}; {puts:.1} PUTs a second");
    println!("  peers, quoted: 93 and 180 ms at 16 PUTs a second; 280 and 397 ms");
    let floor = floor(&World::new(S3_TAIL), 1).await;
    at_most("  ack p50", ours.ms(0.5), 5.0 + 2.0 * floor.ms(0.5));
    at_most("  ack p99", ours.ms(0.99), 5.0 + 2.0 * floor.ms(0.99));
}

#[tokio::test(start_paused = true)]
async fn a_small_record_waits_for_the_table_alone() {
    for pause_ms in [0, 3_000] {
        let world = World::new(S3_TAIL);
        let process = world.process(1, true).await;
        let puts = process.objects.counts().puts;
        let ours = acks(&world, &process, 0, Duration::from_millis(pause_ms), small_record).await;
        println!("inline, linger 0, a pause of {pause_ms} ms: {ours}");
        at_most("  ack p50", ours.ms(0.5), 8.0);
        // Checkpoints are the only objects.
        at_most("  PUTs", (process.objects.counts().puts - puts) as f64, (SENT / 500) as f64);
    }
}
