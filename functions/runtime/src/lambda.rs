//! The loop of a Lambda function: all that its `main` calls.

use std::sync::Arc;

use futures::future::FutureExt;
use lambda_runtime::{LambdaEvent, service_fn};
use serde::Serialize;
use serde_json::value::RawValue;
use tidelog_core::env::SystemEnv;

use crate::app::Make;
use crate::event;
use crate::{App, Deadline, Problem, Request, Response, Settings, telemetry};

/// Serves requests of Function URLs until the process is ended. Needs a Tokio runtime around it.
pub async fn run(make: Make) -> Result<(), lambda_runtime::Error> {
    run_as(make, event::request, |response| Ok(event::answer(response))).await
}

/// Serves invocations: `request` reads an event, `answer` says what its sender hears, or that the invocation failed.
pub async fn run_as<A: Serialize + Send + 'static>(
    make: Make,
    request: fn(&str, Deadline) -> Result<Request, Problem>,
    answer: fn(Response) -> Result<A, lambda_runtime::Error>,
) -> Result<(), lambda_runtime::Error> {
    let settings = Settings::read(|name| std::env::var(name).ok());
    let level = settings.as_ref().map_or(tracing_subscriber::filter::LevelFilter::INFO, |s| s.log_level);
    telemetry::start_logs(level);
    let function = std::env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default();
    let app = Arc::new(App::new(SystemEnv::shared(), settings, &function, make));
    // Boxed, here and below: the compiler gives up on futures that are nested this deeply.
    let invoke = move |event| invoke(app.clone(), event, request, answer).boxed();
    lambda_runtime::run(service_fn(invoke)).boxed().await
}

async fn invoke<A>(
    app: Arc<App>,
    event: LambdaEvent<Box<RawValue>>,
    request: fn(&str, Deadline) -> Result<Request, Problem>,
    answer: fn(Response) -> Result<A, lambda_runtime::Error>,
) -> Result<A, lambda_runtime::Error> {
    let deadline = Deadline::at_epoch_ms(app.env().clone(), event.context.deadline);
    let response = match request(event.payload.get(), deadline) {
        Ok(request) => app.serve(request).await,
        Err(problem) => problem.into(),
    };
    answer(response)
}
