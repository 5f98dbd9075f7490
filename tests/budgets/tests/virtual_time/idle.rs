//! What a log costs that nobody uses.

use std::time::Duration;

use tidelog_budgets::world::{S3, World};
use tidelog_core::{Consumer, Position, prices};

use crate::{at_most, segment_record};

#[tokio::test(start_paused = true)]
async fn an_idle_hour_is_free() {
    let world = World::new(S3);
    let process = world.process(1, true).await;
    process.log.admin().create_topic("t", 16, &[]).await.unwrap();
    let producer = process.log.producer().build().unwrap();
    producer.send("t", segment_record(0)).await.unwrap();
    let hour = tokio::time::sleep(Duration::from_secs(3_600));
    let ((), objects, table) = process.cost(hour).await;
    println!("an idle hour, writer open: {objects:?} {table:?}");
    assert_eq!((objects.requests(), table.requests()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_idle_hour_of_following_is_a_read_a_second_for_any_number_of_partitions() {
    for partitions in [1, 1_000] {
        let world = World::new(S3);
        let process = world.process(1, true).await;
        process.log.admin().create_topic("t", partitions, &[]).await.unwrap();
        let mut consumer = process.log.consumer("t").from(Position::End).build().await.unwrap();
        let wait = async |seconds, consumer: &mut Consumer| {
            let waited = tokio::time::timeout(Duration::from_secs(seconds), consumer.next_message()).await;
            assert!(waited.is_err(), "{waited:?}");
        };
        // Polls slow down within four seconds of silence.
        wait(4, &mut consumer).await;
        let ((), objects, table) = process.cost(wait(3_600, &mut consumer)).await;
        let dollars = prices::dollars(&objects, &table) * 730.0;
        println!(
            "{partitions} partitions, an idle hour of following: {objects:?} {table:?}, ${dollars:.2} a month"
        );
        assert_eq!((objects.requests(), table.puts), (0, 0));
        at_most("  table reads a second", table.requests() as f64 / 3_600.0, 1.0);
        at_most("  read units a second", table.read_half_units as f64 / 2.0 / 3_600.0, 1.0);
    }
}
