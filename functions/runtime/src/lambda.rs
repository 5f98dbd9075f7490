//! The loop of a Lambda function: all that its `main` calls.

use std::sync::Arc;

use futures::future::FutureExt;
use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::value::RawValue;
use tidelog_core::env::SystemEnv;

use crate::app::Make;
use crate::event::{self, Answer};
use crate::{App, Deadline, Settings, telemetry};

/// Serves invocations until the process is ended. Needs a Tokio runtime around it.
pub async fn run(make: Make) -> Result<(), lambda_runtime::Error> {
    let settings = Settings::read(|name| std::env::var(name).ok());
    let level = settings.as_ref().map_or(tracing_subscriber::filter::LevelFilter::INFO, |s| s.log_level);
    telemetry::start_logs(level);
    let function = std::env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default();
    let app = Arc::new(App::new(SystemEnv::shared(), settings, &function, make));
    // Boxed, here and below: the compiler gives up on futures that are nested this deeply.
    let invoke = move |event| invoke(app.clone(), event).boxed();
    lambda_runtime::run(service_fn(invoke)).boxed().await
}

async fn invoke(app: Arc<App>, event: LambdaEvent<Box<RawValue>>) -> Result<Answer, lambda_runtime::Error> {
    let deadline = Deadline::at_epoch_ms(app.env().clone(), event.context.deadline);
    let response = match event::request(event.payload.get(), deadline) {
        Ok(request) => app.serve(request).await,
        Err(problem) => problem.into(),
    };
    Ok(event::answer(response))
}
