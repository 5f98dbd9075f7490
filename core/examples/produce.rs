//! Sends records, waits for their acks, and reads one back. `cargo run --example produce`

use tidelog_core::{Log, Position, Record, Result};

/// Everything; `core/tests/examples.rs` runs it, too.
pub async fn run() -> Result<()> {
    // A log in this process's memory, with everything that a log in a folder or in the cloud does.
    let log = Log::open("memory:").await?;
    log.admin().create_topic("orders", 3, &[]).await?;
    let producer = log.producer().linger_ms(5).build()?;

    // One record and its ack: from here on it is durable, and readable at this offset.
    let ack = producer.send("orders", Record::keyed("alice", "2 apples")).await?;
    println!("partition {} offset {:?}", ack.partition, ack.offset);

    // Many: accepted at once, acked when their flight is committed. A full buffer makes `enqueue` wait.
    let mut deliveries = Vec::new();
    for i in 0..10_000 {
        let record = Record::keyed(format!("customer-{}", i % 100), format!("order {i}"));
        deliveries.push(producer.enqueue("orders", None, record, None).await?);
    }
    let mut acked = 0;
    for delivery in deliveries {
        delivery.wait().await?;
        acked += 1;
    }
    // What was accepted is sent, and what the producer leads is let go.
    producer.close().await?;

    let mut found = 0;
    let mut consumer = log.consumer("orders").from(Position::Start).until(Position::End).build().await?;
    while let Some(message) = consumer.next_message().await {
        message?;
        found += 1;
    }
    println!("{acked} acked, {found} found");
    assert_eq!(found, acked + 1);
    Ok(())
}

#[tokio::main]
#[allow(dead_code, reason = "the test has its own")]
async fn main() -> Result<()> {
    run().await
}
