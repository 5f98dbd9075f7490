//! A fault proxy for any HTTP/1.1 endpoint: what a network, a middlebox or a store under load does to a request, by rules
//! and from a seed.
//!
//! ```text
//! client ─▶ read whole ─▶ rule? ─▶ [delay · hold · flip · refuse] ─▶ upstream ─▶ [drop · cut · flip · hold] ─▶ client
//!                                                     └──────────── log: verb, target, operation, fault, status
//! ```
//!
//! Requests and answers are held whole, so a request has landed or it has not. It lands even if the client has gone
//! meanwhile, as on a real network. Headers pass as they are, `Host` too, so signatures stay valid. The log keeps
//! requests in the order in which they came, so that a test can say what was asked between two of them.
#![allow(clippy::disallowed_methods, reason = "for tests: its clock and timers are the machine's own")]

mod rule;
mod wire;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use rule::{Fault, Rule, When};
use wire::{Upstream, Whole};

/// Requests that the log remembers.
const LOG_MAX: usize = 50_000;
/// Request bodies up to this size are kept in the log.
const BODY_KEPT: usize = 64 << 10;

/// One request, as it was asked and answered.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// HTTP method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// What `x-amz-target` names, without its version: `PutItem`.
    pub operation: Option<String>,
    /// Whether it carries a condition: `If-None-Match` or `If-Match`, or DynamoDB's `ConditionExpression`.
    pub conditional: bool,
    /// The request's body, if it is small.
    pub body: Option<Bytes>,
    /// What was done to it.
    pub fault: Option<String>,
    /// The status of the upstream's answer; `None`: none came, or the request did not land.
    pub status: Option<u16>,
}

impl Entry {
    /// Whether it reads: a GET or HEAD, or one of DynamoDB's reads.
    pub fn is_look(&self) -> bool {
        match self.operation.as_deref() {
            Some(operation) => matches!(operation, "GetItem" | "Query" | "BatchGetItem"),
            None => self.method == "GET" || self.method == "HEAD",
        }
    }
}

/// Conditional writes that were asked again without a look at the same thing in between, as pairs of places in the log.
/// `about` names what a request is about (a path, a key in its body); `None` leaves it out.
pub fn repeated_without_look(log: &[Entry], about: impl Fn(&Entry) -> Option<String>) -> Vec<(usize, usize)> {
    let subjects: Vec<Option<String>> = log.iter().map(about).collect();
    let mut found = Vec::new();
    for (second, entry) in log.iter().enumerate().filter(|(_, entry)| entry.conditional) {
        let Some(subject) = &subjects[second] else { continue };
        let earlier = (0..second).rev().find(|at| subjects[*at].as_ref() == Some(subject));
        if let Some(first) = earlier
            && log[first].conditional
            && !entry.is_look()
        {
            found.push((first, second));
        }
    }
    found
}

/// A running proxy; dropping it ends it and all its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
    /// How often [`Proxy::release`] was called.
    releases: watch::Sender<u64>,
    /// How many requests wait for it.
    held: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    random: u64,
    rules: Vec<(Rule, u64)>,
    log: VecDeque<Entry>,
    /// Number of the log's first entry.
    first: u64,
}

impl Proxy {
    /// A proxy before `upstream` on a free port of the loopback. One seed draws one story.
    ///
    /// # Errors
    /// No port can be had.
    pub async fn start(upstream: SocketAddr, seed: u64) -> io::Result<Self> {
        Self::listen(([127, 0, 0, 1], 0).into(), upstream, seed).await
    }

    /// The same on an address.
    ///
    /// # Errors
    /// It cannot be listened on.
    pub async fn listen(address: SocketAddr, upstream: SocketAddr, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let state = Mutex::new(State { random: seed, ..State::default() });
        let (releases, held) = (watch::Sender::new(0), watch::Sender::new(0));
        let shared = Arc::new(Shared { upstream, state, releases, held });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { address, shared, accepting })
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a rule.
    pub fn add_rule(&self, rule: Rule) {
        self.shared.state().rules.push((rule, 0));
    }

    /// Removes all rules. What is held stays held.
    pub fn clear_rules(&self) {
        self.shared.state().rules.clear();
    }

    /// Lets everything go on that is held.
    pub fn release(&self) {
        self.shared.releases.send_modify(|count| *count += 1);
    }

    /// Waits until a request is held.
    pub async fn held(&self) {
        // The sender lives in `self`.
        _ = self.shared.held.subscribe().wait_for(|count| *count > 0).await;
    }

    /// The requests so far, the latest 50,000, in the order in which they came.
    pub fn log(&self) -> Vec<Entry> {
        self.shared.state().log.iter().cloned().collect()
    }

    /// Begins the log anew.
    pub fn forget(&self) {
        let state = &mut *self.shared.state();
        state.first += state.log.len() as u64;
        state.log.clear();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs a request, and draws what happens to it: its number, its fault, and a random number for it.
    fn meet(&self, parts: &Parts, body: &Bytes) -> (u64, Option<Fault>, u64) {
        let state = &mut *self.state();
        let mut entry = Entry {
            method: parts.method.as_str().to_owned(),
            target: parts.uri.to_string(),
            operation: operation(parts),
            conditional: ["if-none-match", "if-match"].iter().any(|name| parts.headers.contains_key(*name)),
            body: (body.len() <= BODY_KEPT).then(|| body.clone()),
            ..Entry::default()
        };
        if entry.operation.is_some() {
            const CONDITION: &[u8] = b"\"ConditionExpression\"";
            entry.conditional = body.windows(CONDITION.len()).any(|part| part == CONDITION);
        }
        let mut fault = None;
        for (rule, seen) in &mut state.rules {
            if !rule.is_about(&entry.method, &entry.target, entry.operation.as_deref()) {
                continue;
            }
            *seen += 1;
            let hit = match &rule.when {
                When::Rate(rate) => (draw(&mut state.random) >> 11) as f64 / (1u64 << 53) as f64 <= *rate,
                When::Numbers(numbers) => numbers.contains(seen),
            };
            if hit && fault.is_none() {
                fault = Some(rule.fault.clone());
            }
        }
        entry.fault = fault.as_ref().map(ToString::to_string);
        if state.log.len() == LOG_MAX {
            state.log.pop_front();
            state.first += 1;
        }
        let number = state.first + state.log.len() as u64;
        state.log.push_back(entry);
        (number, fault, draw(&mut state.random))
    }

    fn answered(&self, number: u64, status: u16) {
        let state = &mut *self.state();
        let place = number.checked_sub(state.first).and_then(|place| usize::try_from(place).ok());
        if let Some(entry) = place.and_then(|place| state.log.get_mut(place)) {
            entry.status = Some(status);
        }
    }

    async fn hold(&self) {
        let mut releases = self.releases.subscribe();
        self.held.send_modify(|count| *count += 1);
        _ = releases.changed().await;
        self.held.send_modify(|count| *count -= 1);
    }
}

fn operation(parts: &Parts) -> Option<String> {
    let target = parts.headers.get("x-amz-target")?.to_str().ok()?;
    Some(target.rsplit('.').next().unwrap_or(target).to_owned())
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
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
    _ = stream.set_nodelay(true);
    let upstream = Upstream::new(shared.upstream);
    let service = service_fn(move |request: Request<Incoming>| {
        let (shared, upstream) = (shared.clone(), upstream.clone());
        async move {
            let whole = wire::read(request).await.map_err(io::Error::other)?;
            // In a task of its own: it lands even if the client goes away.
            let passed = tokio::spawn(pass(shared, upstream, whole)).await;
            passed.map_err(io::Error::other)?.ok_or_else(|| io::Error::other("as the proxy was told"))
        }
    });
    // An error closes the connection, which is what the faults want.
    _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

type Answer = Response<BoxBody<Bytes, io::Error>>;

/// Takes one request through its fault; `None` closes the connection.
async fn pass(shared: Arc<Shared>, upstream: Upstream, (parts, mut body): Whole<Parts>) -> Option<Answer> {
    let (number, fault, random) = shared.meet(&parts, &body);
    let is_dynamodb = operation(&parts).is_some();
    match &fault {
        Some(Fault::Delay(time)) => tokio::time::sleep(*time).await,
        Some(Fault::Hold) => shared.hold().await,
        Some(Fault::Reset) => return None,
        Some(Fault::Answer(status, code)) => return whole(wire::error(*status, code, is_dynamodb)),
        Some(Fault::FlipRequest) => body = wire::flip(&body, random),
        Some(Fault::Duplicate) => _ = upstream.ask(&parts, &body).await.ok()?,
        _ => {}
    }
    let (mut head, mut answer) = upstream.ask(&parts, &body).await.ok()?;
    shared.answered(number, head.status.as_u16());
    match &fault {
        Some(Fault::DropAnswer) => return None,
        Some(Fault::HoldAnswer) => shared.hold().await,
        Some(Fault::AnswerAfter(status, code)) => return whole(wire::error(*status, code, is_dynamodb)),
        Some(Fault::IgnoreRange) => wire::forget_range(&mut head),
        Some(Fault::Short) => answer = wire::shorten(&mut head, &answer),
        Some(Fault::FlipAnswer) => answer = wire::flip(&answer, random),
        Some(Fault::Cut) => {
            let half = answer.slice(..answer.len() / 2);
            let pause = Box::pin(tokio::time::sleep(FLUSHED));
            let body = Broken { half: Some(half), length: answer.len() as u64, pause };
            return Some(Response::from_parts(head, BodyExt::boxed(body)));
        }
        _ => {}
    }
    whole((head, answer))
}

fn whole((head, body): Whole<hyper::http::response::Parts>) -> Option<Answer> {
    let body = Full::new(body).map_err(|never| match never {}).boxed();
    Some(Response::from_parts(head, body))
}

/// What hyper was given is on its way by then; an error at once would take it back.
const FLUSHED: Duration = Duration::from_millis(20);

/// A body that breaks off: half of it, then an error, which closes the connection.
struct Broken {
    half: Option<Bytes>,
    length: u64,
    pause: Pin<Box<tokio::time::Sleep>>,
}

impl Body for Broken {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(half) = self.half.take() {
            self.pause.as_mut().reset(tokio::time::Instant::now() + FLUSHED);
            return Poll::Ready(Some(Ok(Frame::data(half))));
        }
        match self.pause.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Some(Err(io::Error::other("as the proxy was told")))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}
