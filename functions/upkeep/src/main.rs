//! Lambda function `upkeep`: wiring.

use std::sync::Arc;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let make = Box::new(|log: tidelog_core::Log, _: &tidelog_functions::Settings| {
        Ok(Arc::new(tidelog_upkeep::Keeper::new(&log)) as Arc<dyn tidelog_functions::Service>)
    });
    tidelog_functions::lambda::run_as(make, tidelog_upkeep::event::request, tidelog_upkeep::event::answer)
        .await
}
