//! Exact restart: a source with positions of its own (a file, a queue) is shipped twice, and is in the log once.
//! `cargo run --example idempotent`

use tidelog_core::append::Tag;
use tidelog_core::ledger::action::{IdentityKind, ProducerKey};
use tidelog_core::{Log, Position, Record, Result};

const SOURCE: [&str; 5] = ["one", "two", "three", "four", "five"];

/// Everything; `core/tests/examples.rs` runs it, too.
pub async fn run() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = folder.path().join("log").display().to_string();
    let log = Log::open(&url).await?;
    log.admin().create_topic("lines", 1, &[]).await?;

    // The first run dies after three lines. Perhaps it saw their acks, perhaps not: nobody wrote that down.
    let (sent, duplicates) = ship(&log, &SOURCE[..3]).await?;
    println!("first run: {sent} sent, {duplicates} in the log before");
    drop(log);

    // The second one simply begins again: the log knows the source by its key, and each line by its position.
    let log = Log::open(&url).await?;
    let (sent, duplicates) = ship(&log, &SOURCE).await?;
    println!("second run: {sent} sent, {duplicates} in the log before");
    assert_eq!(duplicates, 3);

    let mut consumer = log.consumer("lines").until(Position::End).build().await?;
    let mut found = Vec::new();
    while let Some(message) = consumer.next_message().await {
        found.extend(message?.record.value);
    }
    assert_eq!(found, SOURCE);
    Ok(())
}

async fn ship(log: &Log, lines: &[&'static str]) -> Result<(usize, usize)> {
    // A 128-bit name of the source, the same in each run: a hash of its path, for instance.
    let key = ProducerKey { kind: IdentityKind::Monotone, producer: 0x5eed };
    let producer = log.producer().build()?;
    let mut duplicates = 0;
    for (position, line) in (1u64..).zip(lines) {
        let tag = Tag { key, epoch: 0, sequence: position };
        // One source, one partition: that is where its positions are remembered.
        let delivery = producer.enqueue("lines", Some(0), Record::value(*line), Some(tag)).await?;
        duplicates += usize::from(delivery.wait().await?.duplicate);
    }
    producer.close().await?;
    Ok((lines.len(), duplicates))
}

#[tokio::main]
#[allow(dead_code, reason = "the test has its own")]
async fn main() -> Result<()> {
    run().await
}
