//! What lives between invocations: a process that was stopped looks at the ledger first, and a panic ends one request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use tidelog_core::Log;
use tidelog_core::env::{Env, SharedEnv, SystemEnv};
use tidelog_functions::{App, Deadline, Request, Response, Service, Settings};

/// A machine whose wall clock goes on while it is stopped, and whose monotonic clock does not.
#[derive(Debug)]
struct Stopping(SharedEnv, AtomicI64);

impl Env for Stopping {
    fn now_ms(&self) -> i64 {
        self.0.now_ms() + self.1.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn random_u64(&self) -> u64 {
        self.0.random_u64()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(time)
    }
}

/// Answers with the newest commit that the process knows.
struct Slot(Log);

impl Service for Slot {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        async move {
            assert!(request.path != "/panic", "asked for");
            Response::new(200, "text/plain", self.0.ledger().chain_slot().to_string())
        }
        .boxed()
    }
}

async fn ask(app: &App, path: &str) -> (u16, String) {
    let deadline = Deadline::after_ms(app.env().clone(), 10_000);
    let (method, path, query) = ("GET".to_owned(), path.to_owned(), String::new());
    let request =
        Request { method, path, query, headers: BTreeMap::new(), body: bytes::Bytes::new(), deadline };
    let answer = app.serve(request).await;
    (answer.status, String::from_utf8(answer.body.to_vec()).unwrap())
}

fn app(env: SharedEnv, settings: Settings) -> App {
    App::new(env, Ok(settings), "f", Box::new(|log, _| Ok(Arc::new(Slot(log)))))
}

#[tokio::test]
async fn after_a_stop_the_ledger_is_looked_at_first() {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().join("log").display().to_string();
    let other = Log::open(&url).await.unwrap();
    let env = Arc::new(Stopping(SystemEnv::shared(), AtomicI64::new(0)));
    let app = app(env.clone(), Settings::of(&url));
    assert_eq!(ask(&app, "/").await, (200, "1".into()));
    other.admin().create_topic("t", 1, &[]).await.unwrap();
    assert_eq!(ask(&app, "/").await, (200, "1".into()), "it needs no look while it is awake");
    env.1.store(3_600_000, Ordering::SeqCst);
    assert_eq!(ask(&app, "/").await, (200, "2".into()));
}

#[tokio::test]
async fn a_panic_ends_one_request() {
    let app = app(SystemEnv::shared(), Settings::of("memory:"));
    assert_eq!(ask(&app, "/panic").await.0, 500);
    assert_eq!(ask(&app, "/").await.0, 200);
}

#[tokio::test]
async fn a_log_that_is_not_there_is_looked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().join("log").display().to_string();
    let app = app(SystemEnv::shared(), Settings { init: false, ..Settings::of(&url) });
    let (status, body) = ask(&app, "/").await;
    assert!(status == 500 && body.contains("TIDELOG_STORE") && !body.contains(&url), "{body}");
    Log::open(&url).await.unwrap();
    assert_eq!(ask(&app, "/").await, (200, "1".into()));
}
