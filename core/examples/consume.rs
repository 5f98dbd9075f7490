//! Follows a topic as it grows, and goes on where its group left off. `cargo run --example consume`

use tidelog_core::{Consumer, Log, Record, Result};

/// Everything; `core/tests/examples.rs` runs it, too.
pub async fn run() -> Result<()> {
    let log = Log::open("memory:").await?;
    log.admin().create_topic("clicks", 2, &[]).await?;
    let producer = log.producer().build()?;

    // Without `until` a consumer follows: it waits for what is not there yet. A group remembers how far it came.
    let mut consumer = log.consumer("clicks").group("dashboard").build().await?;
    producer.send("clicks", Record::keyed("home", "1")).await?;
    producer.send("clicks", Record::keyed("about", "2")).await?;
    read(&mut consumer, 2).await?;
    // All that was handed out counts as done.
    consumer.store_offsets().await?;
    drop(consumer);

    // The next one of the group begins behind it. A consumer is a `Stream`, too.
    producer.send("clicks", Record::keyed("home", "3")).await?;
    let mut again = log.consumer("clicks").group("dashboard").build().await?;
    let seen = read(&mut again, 1).await?;
    assert_eq!(seen, ["3"]);

    for lag in log.admin().describe_group("dashboard").await? {
        println!("partition {}: stored {}, {} behind", lag.partition, lag.offset, lag.lag);
    }
    producer.close().await
}

async fn read(consumer: &mut Consumer, count: usize) -> Result<Vec<String>> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let Some(message) = consumer.next_message().await else { break };
        let message = message?;
        let value = String::from_utf8_lossy(message.record.value.as_deref().unwrap_or_default()).into_owned();
        println!("{}/{} offset {}: {value}", message.topic, message.partition, message.record.offset);
        seen.push(value);
    }
    Ok(seen)
}

#[tokio::main]
#[allow(dead_code, reason = "the test has its own")]
async fn main() -> Result<()> {
    run().await
}
