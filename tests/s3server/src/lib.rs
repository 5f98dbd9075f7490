//! S3 in memory, for tests and benches.
//!
//! ```text
//! client ─▶ [latency, first half] ─▶ [fault?] ─▶ s3s: protocol, SigV4 ─▶ Memory: one lock ─▶ [second half] ─▶ answer
//! ```
//!
//! Conditions are atomic, checksums are verified and returned, parts below 5 MiB are refused as S3 refuses them. Latency
//! and faults are drawn from a seed; every request is logged and counted. What it does not have: versions, lifecycle,
//! policies, copies, tags. It is not its own judge: `tests/conformance.rs` runs one suite on it and on servers of others.
#![allow(
    clippy::disallowed_methods,
    reason = "a server for tests: its clock and timers are the machine's own"
)]

mod memory;
mod s3;
mod schedule;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpResponse};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use memory::Memory;
use schedule::Schedule;
pub use schedule::{Fault, Latency, Request, Rule, Verb, When};

/// The only access key that is known.
pub const ACCESS_KEY: &str = "test";
/// Its secret.
pub const SECRET_KEY: &str = "test";

/// A running server; dropping it ends it and all its connections.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    memory: Arc<Memory>,
    schedule: Schedule,
    service: S3Service,
}

impl Server {
    /// Serves on a free port of the loopback, with one bucket. One seed draws one schedule.
    ///
    /// # Errors
    /// No port can be had.
    pub async fn start(bucket: &str, seed: u64) -> io::Result<Self> {
        Self::listen(([127, 0, 0, 1], 0).into(), bucket, seed).await
    }

    /// The same on an address.
    ///
    /// # Errors
    /// It cannot be listened on.
    pub async fn listen(address: SocketAddr, bucket: &str, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let memory = Arc::new(Memory::default());
        memory.create_bucket(bucket);
        let mut builder = S3ServiceBuilder::new(s3::Service(memory.clone()));
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let shared = Arc::new(Shared { memory, schedule: Schedule::new(seed), service: builder.build() });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { address, shared, accepting })
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How long requests of a kind take from now on.
    pub fn set_latency(&self, verb: Verb, latency: Latency) {
        self.shared.schedule.set_latency(verb, latency);
    }

    /// Adds a rule to the fault schedule. Of several that hit, the first answers.
    pub fn add_rule(&self, rule: Rule) {
        self.shared.schedule.add(rule);
    }

    /// Removes all rules.
    pub fn clear_rules(&self) {
        self.shared.schedule.clear();
    }

    /// Breaks it: conditions of writes are not looked at any more.
    pub fn ignore_conditions(&self, ignore: bool) {
        self.shared.memory.ignore_conditions.store(ignore, Ordering::Relaxed);
    }

    /// The requests so far, the latest 200,000.
    pub fn log(&self) -> Vec<Request> {
        self.shared.schedule.log()
    }

    /// How many there were of each kind.
    pub fn counts(&self) -> BTreeMap<Verb, u64> {
        self.shared.schedule.counts()
    }

    /// Begins log and counts anew.
    pub fn forget(&self) {
        self.shared.schedule.forget();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Connections live in this task's set, so that they end with it.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(serve(stream, shared.clone()));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    // Without it an answer waits 40 ms for the client's delayed acknowledgement.
    _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
    });
    // A client that goes away is its own business.
    _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(shared: &Shared, request: hyper::Request<Incoming>) -> HttpResponse {
    let (method, uri) = (request.method().as_str().to_owned(), request.uri().clone());
    let path = uri.path().trim_start_matches('/');
    let key = path.split_once('/').map_or("", |(_, key)| key);
    let verb = Verb::of(&method, key, uri.query().unwrap_or(""));
    let conditional = ["if-none-match", "if-match"].iter().any(|name| request.headers().contains_key(*name));
    let (latency, fault) = shared.schedule.meet(verb, key);
    pause(latency / 2).await;
    let response = match fault {
        Some(fault) => {
            // The body is read to its end, or the client would see a reset instead of the answer.
            _ = request.into_body().collect().await;
            fail(fault)
        }
        None => {
            let called = shared.service.call(request.map(Body::from)).await;
            called.unwrap_or_else(|_| fail(Fault::Internal))
        }
    };
    let status = response.status().as_u16();
    shared.schedule.record(Request { verb, method, target: uri.to_string(), conditional, status });
    pause(latency / 2).await;
    response
}

async fn pause(time: std::time::Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

fn fail(fault: Fault) -> HttpResponse {
    let (status, code) = fault.answer();
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>as the schedule says\
         </Message></Error>"
    );
    let mut response = hyper::Response::new(Body::from(body));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    response
}
