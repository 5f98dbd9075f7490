//! A hook that prints each metric as it comes, and one that adds up. `cargo run --example metrics`

use std::sync::Arc;

use tidelog_core::metrics::{Kind, Metric, Metrics, Totals};
use tidelog_core::{Log, Record, Result};

#[derive(Debug)]
struct Printer(Totals);

impl Metrics for Printer {
    // Called by the tasks of the log: quick, and without waiting.
    fn record(&self, metric: Metric, value: u64) {
        let unit = match metric.kind() {
            Kind::Counter => "more",
            Kind::Gauge => "now",
            Kind::Time => "µs",
            _ => "",
        };
        // `records_refused` has a label: what was wrong.
        let label = metric.label().map(|(name, value)| format!("{{{name}={value}}}")).unwrap_or_default();
        println!("{}{label}: {value} {unit}", metric.name());
        self.0.record(metric, value);
    }
}

/// Everything; `core/tests/examples.rs` runs it, too.
pub async fn run() -> Result<()> {
    let totals = Totals::default();
    let log = Log::builder().metrics(Arc::new(Printer(totals.clone()))).open("memory:").await?;
    log.admin().create_topic("t", 1, &[]).await?;
    let producer = log.producer().build()?;
    for i in 0..3 {
        producer.send("t", Record::value(format!("record {i}"))).await?;
    }
    producer.close().await?;

    println!("\nin all:");
    for (metric, total) in totals.all() {
        println!(
            "{:20} told {:3} times, sum {}, largest {}",
            metric.name(),
            total.count,
            total.sum,
            total.max
        );
    }
    assert_eq!(totals.of(Metric::RecordsAppended).sum, 3);
    Ok(())
}

#[tokio::main]
#[allow(dead_code, reason = "the test has its own")]
async fn main() -> Result<()> {
    run().await
}
