//! Lambda function `ingest`: wiring.

use std::sync::Arc;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    tidelog_functions::lambda::run(Box::new(|log, settings| {
        Ok(Arc::new(tidelog_ingest::Ingest::new(log, settings)?))
    }))
    .await
}
