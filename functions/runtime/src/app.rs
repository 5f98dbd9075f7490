//! What lives from one invocation to the next: the open log, and when the process was last awake.
//!
//! Nothing that must be right lives here (L7). Lambda stops the process after each answer, for an hour perhaps, so an
//! answer waits until nothing is under way behind it, and the first thing after a stop is a look at the ledger.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use tidelog_core::env::SharedEnv;
use tidelog_core::{Error, Log, limits};
use tokio::sync::OnceCell;

use crate::settings::Wrong;
use crate::telemetry::Emf;
use crate::{Problem, Request, Response, Settings};

/// The handlers of a function.
pub trait Service: Send + Sync + 'static {
    /// Answers a request. Never fails: what went wrong is an answer, too.
    fn handle(&self, request: Request) -> BoxFuture<'_, Response>;
}

/// Makes the handlers once there is a log.
pub type Make = Box<dyn Fn(Log, &Settings) -> tidelog_core::Result<Arc<dyn Service>> + Send + Sync>;

/// A function.
pub struct App {
    env: SharedEnv,
    settings: Result<Settings, Wrong>,
    make: Make,
    open: OnceCell<(Log, Arc<dyn Service>)>,
    emf: Emf,
    function: String,
    /// Whether the process is stopped after an answer.
    stops: bool,
    /// Wall clock (ms) and monotonic time at the end of the newest invocation.
    awake: Mutex<Option<(i64, Duration)>>,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A difference of the two clocks that means that the process was stopped.
const STOPPED_MS: i64 = 500;

impl App {
    /// A function with its settings, or with what is wrong with them: then each request is told.
    pub fn new(env: SharedEnv, settings: Result<Settings, Wrong>, function: &str, make: Make) -> Self {
        if let Err(wrong) = &settings {
            tracing::error!(variable = wrong.variable, reason = wrong.reason, "a setting is wrong");
        }
        let (open, emf, awake) = (OnceCell::new(), Emf::default(), Mutex::new(None));
        Self { env, settings, make, open, emf, function: function.to_owned(), stops: true, awake }
    }

    /// The process runs on between requests, and serves many at once: no answer waits for what is behind it.
    pub fn runs_on(self) -> Self {
        Self { stops: false, ..self }
    }

    /// The clock.
    pub fn env(&self) -> &SharedEnv {
        &self.env
    }

    /// Answers a request.
    pub async fn serve(&self, request: Request) -> Response {
        let began = self.env.monotonic();
        let (method, path, deadline) =
            (request.method.clone(), request.path.clone(), request.deadline.clone());
        let answered = AssertUnwindSafe(self.answer(request)).catch_unwind().await;
        let response = answered.unwrap_or_else(|_| {
            // The hook of the panic has said where. Requests that come later are served as far as they can be.
            Problem::new(500, "panic", "a bug of the function; its log says where").into()
        });
        if self.stops {
            self.settle(&deadline).await;
        }
        let us = u64::try_from(self.env.monotonic().saturating_sub(began).as_micros()).unwrap_or(u64::MAX);
        self.note(&method, &path, &response, us);
        *self.awake.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((self.env.now_ms(), self.env.monotonic()));
        response
    }

    async fn answer(&self, request: Request) -> Response {
        match request.deadline.in_time(self.opened()).await {
            Ok(service) => service.handle(request).await,
            Err(problem) => problem.into(),
        }
    }

    /// The handlers: the log is opened by the first invocation that can, and looked at again after a stop.
    async fn opened(&self) -> Result<&dyn Service, Problem> {
        let settings = self.settings.as_ref().map_err(|wrong| {
            let message = format!("the function's setting {} is wrong; its log says why", wrong.variable);
            Problem::new(500, "misconfigured", message).with("variable", wrong.variable)
        })?;
        let (log, service) = self.open.get_or_try_init(|| self.open(settings)).await?;
        if self.was_stopped() {
            let chain = log.ledger().chain();
            chain.refresh(chain.tick()).await?;
        }
        Ok(service.as_ref())
    }

    async fn open(&self, settings: &Settings) -> Result<(Log, Arc<dyn Service>), Problem> {
        let builder = Log::builder().env(self.env.clone()).create(settings.init);
        let log = builder.metrics(Arc::new(self.emf.clone())).open(&settings.store).await;
        let made = log.and_then(|log| Ok((log.clone(), (self.make)(log, settings)?)));
        made.map_err(|error| {
            tracing::error!(%error, "the log cannot be opened");
            match error {
                // What the URL names is the operator's business.
                Error::CannotOpen { .. } => {
                    let message = "the log cannot be opened; the function's log says why";
                    Problem::new(500, "misconfigured", message).with("variable", "TIDELOG_STORE")
                }
                other => Problem::from(other),
            }
        })
    }

    /// Whether the wall clock went on and the monotonic one did not. Then no age that is measured by it means anything.
    fn was_stopped(&self) -> bool {
        let Some((wall_ms, monotonic)) = *self.awake.lock().unwrap_or_else(PoisonError::into_inner) else {
            return false;
        };
        let passed = self.env.monotonic().saturating_sub(monotonic).as_millis();
        let passed = i64::try_from(passed).unwrap_or(i64::MAX);
        self.env.now_ms().saturating_sub(wall_ms).saturating_sub(passed) > STOPPED_MS
    }

    /// Waits until nothing is under way that the next stop would interrupt, as long as there is time.
    async fn settle(&self, deadline: &crate::Deadline) {
        let Some((log, _)) = self.open.get() else { return };
        let until = self.env.monotonic() + Duration::from_millis(limits::HTTP_SETTLE_MS_MAX);
        let in_time = || deadline.left_ms() > limits::HTTP_ANSWER_MS && self.env.monotonic() < until;
        while !log.ledger().is_settled() && in_time() {
            self.env.sleep(Duration::from_millis(2)).await;
        }
    }

    fn note(&self, method: &str, path: &str, response: &Response, us: u64) {
        let status = response.status;
        tracing::info!(method, path, status, us, bytes = response.body.len(), "request");
        self.emf.count("requests", 1);
        self.emf.time("request_us", us);
        match status {
            500.. => self.emf.count("requests_5xx", 1),
            400.. => self.emf.count("requests_4xx", 1),
            _ => {}
        }
        if let Ok(settings) = &self.settings {
            self.emf.write(&settings.metrics_namespace, &self.function, self.env.now_ms());
        }
    }
}
