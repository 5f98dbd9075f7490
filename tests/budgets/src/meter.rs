//! DynamoDB's own bill: between the log and the endpoint, each request is told to say what it consumed, and what the
//! answer says is added up. A refused condition says nothing in DynamoDB; it is billed as the write that it was.
//!
//! Works only where signatures are not looked at (DynamoDB Local): the body is not the one that was signed.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::CONTENT_LENGTH;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What was asked, and what it consumed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bill {
    /// Requests, by operation.
    pub requests: BTreeMap<String, u64>,
    /// Conditional writes that were refused.
    pub refused: u64,
    /// Write units of the others.
    pub write_units: f64,
    /// Read units.
    pub read_units: f64,
    /// Queries that found nothing: DynamoDB Local says that they are free, DynamoDB takes a unit for each.
    pub empty: u64,
}

impl Bill {
    /// Requests of one operation: `PutItem`, `GetItem`, `Query`.
    pub fn of(&self, operation: &str) -> u64 {
        self.requests.get(operation).copied().unwrap_or_default()
    }

    /// Requests of any kind.
    pub fn all(&self) -> u64 {
        self.requests.values().sum()
    }
}

/// A running meter; dropping it ends it and all its connections.
#[derive(Debug)]
pub struct Meter {
    address: SocketAddr,
    bill: Arc<Mutex<Bill>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Meter {
    /// Before the DynamoDB at `upstream`, on a free port of the loopback.
    ///
    /// # Errors
    /// No port can be had.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (address, bill) = (listener.local_addr()?, Arc::<Mutex<Bill>>::default());
        let accepting = tokio::spawn(accept(listener, upstream, bill.clone()));
        Ok(Self { address, bill, accepting })
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The bill since the last time, or since the start.
    pub fn take(&self) -> Bill {
        std::mem::take(&mut *lock(&self.bill))
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn lock(bill: &Mutex<Bill>) -> MutexGuard<'_, Bill> {
    bill.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, upstream: SocketAddr, bill: Arc<Mutex<Bill>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(serve(stream, upstream, bill.clone()));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// A connection, and the one behind it.
async fn serve(stream: TcpStream, upstream: SocketAddr, bill: Arc<Mutex<Bill>>) -> Option<()> {
    let behind = TcpStream::connect(upstream).await.ok()?;
    stream.set_nodelay(true).ok()?;
    behind.set_nodelay(true).ok()?;
    let (sender, connection) = http1::handshake(TokioIo::new(behind)).await.ok()?;
    tokio::spawn(connection);
    let sender = Arc::new(tokio::sync::Mutex::new(sender));
    let service = service_fn(move |request| pass(request, sender.clone(), bill.clone()));
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok()
}

async fn pass(
    request: Request<Incoming>,
    sender: Arc<tokio::sync::Mutex<SendRequest<Full<Bytes>>>>,
    bill: Arc<Mutex<Bill>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (mut parts, body) = request.into_parts();
    let target = parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    let operation = target.and_then(|target| target.rsplit('.').next()).unwrap_or("none").to_owned();
    let mut body = body.collect().await?.to_bytes();
    let is_billed = ["PutItem", "DeleteItem", "GetItem", "Query"].contains(&operation.as_str());
    if is_billed && let Ok(Value::Object(mut asked)) = serde_json::from_slice(&body) {
        asked.insert("ReturnConsumedCapacity".to_owned(), json!("TOTAL"));
        body = Value::Object(asked).to_string().into();
        parts.headers.insert(CONTENT_LENGTH, body.len().into());
    }
    let answer = sender.lock().await.send_request(Request::from_parts(parts, Full::new(body))).await?;
    let (parts, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    note(&mut lock(&bill), operation, &body);
    Ok(Response::from_parts(parts, Full::new(body)))
}

fn note(bill: &mut Bill, operation: String, answer: &[u8]) {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let units = answer["ConsumedCapacity"]["CapacityUnits"].as_f64().unwrap_or_default();
    let kind = answer["__type"].as_str().unwrap_or_default();
    bill.refused += u64::from(kind.ends_with("ConditionalCheckFailedException"));
    bill.empty += u64::from(answer["Count"] == 0);
    match operation.as_str() {
        "PutItem" | "DeleteItem" => bill.write_units += units,
        _ => bill.read_units += units,
    }
    *bill.requests.entry(operation).or_default() += 1;
}
