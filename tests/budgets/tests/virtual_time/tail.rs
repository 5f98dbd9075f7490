//! How far a reader in another process is behind, and how often it asks.

use std::collections::BTreeMap;
use std::time::Duration;

use tidelog_budgets::Times;
use tidelog_budgets::virtual_time::Draws;
use tidelog_budgets::world::{S3_TAIL, World};
use tidelog_core::{Position, Record, prices};

use crate::{at_most, segment_record, small_record};

const SECONDS: u64 = 60;

/// 20 records a second over so many partitions, read in another process.
async fn follow(partitions: u32, record: fn(usize) -> Record) {
    let world = World::new(S3_TAIL);
    let (writer, reader) = (world.process(1, true).await, world.process(2, true).await);
    writer.log.admin().create_topic("t", partitions, &[]).await.unwrap();
    let mut consumer = reader.log.consumer("t").from(Position::End).build().await.unwrap();
    let before = reader.counts();
    let writing = async {
        let producer = writer.log.producer().linger_ms(0).build().unwrap();
        let (draws, mut acks) = (Draws::new(7), Vec::new());
        let mut n = 0;
        while world.now() < Duration::from_secs(SECONDS) {
            tokio::time::sleep(draws.gap(20.0)).await;
            let (began, partition) = (world.now(), draws.bits() as u32 % partitions);
            let delivery = producer.enqueue("t", Some(partition), record(n), None).await.unwrap();
            let start = world.start;
            acks.push(tokio::spawn(async move {
                let ack = delivery.wait().await.unwrap();
                ((ack.partition, ack.offset.unwrap()), began, start.elapsed())
            }));
            n += 1;
        }
        let acks = futures::future::join_all(acks).await;
        acks.into_iter().map(Result::unwrap).collect::<Vec<_>>()
    };
    // Polled beside the writer, so that it notes when it sees each record.
    let mut seen = BTreeMap::new();
    let reading = async {
        while let Some(message) = consumer.next_message().await {
            let message = message.unwrap();
            seen.insert((message.partition, message.record.offset), world.now());
        }
    };
    let acks = tokio::select! {
        acks = async { let acks = writing.await; tokio::time::sleep(Duration::from_secs(1)).await; acks } => acks,
        () = reading => unreachable!("it follows"),
    };
    let after = reader.counts();
    let (objects, table) = (after.0.since(&before.0), after.1.since(&before.1));
    let to_ack = Times::new(acks.iter().map(|(_, began, acked)| *acked - *began).collect());
    let to_seen = Times::new(acks.iter().map(|(place, began, _)| seen[place] - *began).collect());
    println!("{partitions} partitions: acks {to_ack}; seen {to_seen}");
    println!("  the reader: {objects:?} {table:?}, ${:.6}", prices::dollars(&objects, &table));
    at_most("  p99 of the tail behind the ack's", to_seen.ms(0.99) - to_ack.ms(0.99), 100.0);
    at_most("  table reads a second", (table.queries + table.gets) as f64 / SECONDS as f64, 20.0);
    assert_eq!(
        (table.puts, objects.puts, objects.lists),
        (0, 0, 0),
        "readers write nothing and list nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn another_process_is_a_tenth_of_a_second_behind() {
    for partitions in [1, 256, 2_000] {
        follow(partitions, segment_record).await;
    }
    for partitions in [1, 256] {
        follow(partitions, small_record).await;
    }
}
