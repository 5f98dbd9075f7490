//! The examples run to their end: what they show is true.

#[path = "../examples/consume.rs"]
mod consume;
#[path = "../examples/idempotent.rs"]
mod idempotent;
#[path = "../examples/metrics.rs"]
mod metrics;
#[path = "../examples/produce.rs"]
mod produce;

#[tokio::test]
async fn produce_sends_and_reads_back() {
    produce::run().await.unwrap();
}

#[tokio::test]
async fn consume_follows_and_goes_on() {
    consume::run().await.unwrap();
}

#[tokio::test]
async fn idempotent_ships_twice_and_has_it_once() {
    idempotent::run().await.unwrap();
}

#[tokio::test]
async fn metrics_prints_and_adds_up() {
    metrics::run().await.unwrap();
}
