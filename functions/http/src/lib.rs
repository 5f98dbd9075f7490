//! The functions behind a plain HTTP/1.1 server: for development, and for tests with real clients. It has no rights and
//! no TLS; put it on the internet only behind something that has.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tidelog_core::{Log, limits};
use tidelog_fetch::Fetch;
use tidelog_functions::{App, Deadline, Problem, Request, Response, Service, Settings};
use tidelog_ingest::Ingest;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections that are served at once; others wait.
const CONNECTIONS_MAX: usize = 256;

/// Both functions: what the paths of ingest are goes there, all else to fetch.
struct Both {
    ingest: Ingest,
    fetch: Fetch,
}

impl Service for Both {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        let path: Vec<&str> = request.path.trim_matches('/').split('/').collect();
        let ingest = matches!(path[..], ["v1", "topics", _, "records"] | ["v1", "logs"]);
        if ingest { self.ingest.handle(request) } else { self.fetch.handle(request) }
    }
}

/// A function that is both.
pub fn app(settings: Settings) -> App {
    let make = |log: Log, settings: &Settings| {
        let (ingest, fetch) = (Ingest::new(log.clone(), settings)?, Fetch::new(log, settings));
        Ok(Arc::new(Both { ingest, fetch }) as Arc<dyn Service>)
    };
    App::new(tidelog_core::env::SystemEnv::shared(), Ok(settings), "tidelog-http", Box::new(make)).runs_on()
}

/// Serves until it is dropped. A request has `timeout_ms`.
pub async fn serve(listener: TcpListener, app: Arc<App>, timeout_ms: u64) -> std::io::Result<()> {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = room.clone().acquire_owned().await.map_err(std::io::Error::other)?;
        let (stream, peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let app = app.clone();
        tokio::spawn(async move {
            let handle = |request| answer(app.clone(), request, timeout_ms).boxed();
            let server = hyper::server::conn::http1::Builder::new();
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service_fn(handle)).await {
                note(peer, &error);
            }
            drop(permit);
        });
    }
}

fn note(peer: SocketAddr, error: &hyper::Error) {
    tracing::debug!(%peer, %error, "a connection ended");
}

async fn answer(
    app: Arc<App>,
    request: hyper::Request<Incoming>,
    timeout_ms: u64,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let deadline = Deadline::after_ms(app.env().clone(), timeout_ms);
    let response = match read(request, deadline).await {
        Ok(request) => app.serve(request).await,
        Err(problem) => problem.into(),
    };
    Ok(written(response))
}

async fn read(request: hyper::Request<Incoming>, deadline: Deadline) -> Result<Request, Problem> {
    let (head, body) = request.into_parts();
    let mut headers = BTreeMap::<String, String>::new();
    for (name, value) in &head.headers {
        // What is not UTF-8 is Latin-1, by the older standard; the handlers judge it.
        let latin = || value.as_bytes().iter().map(|byte| char::from(*byte)).collect::<String>().into();
        let value = std::str::from_utf8(value.as_bytes()).map_or_else(|_| latin(), Cow::Borrowed);
        match headers.get_mut(name.as_str()) {
            Some(before) => *before = format!("{before},{value}"),
            None => drop(headers.insert(name.as_str().to_owned(), value.into_owned())),
        }
    }
    let limit = limits::HTTP_BODY_BYTES_MAX;
    let collected = deadline.race(Limited::new(body, limit).collect()).await;
    let collected =
        collected.ok_or_else(|| Problem::new(408, "slow_body", "the body did not come in time"))?;
    let body = collected.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
        Some(_) => Problem::too_large("body", None, limit),
        None => Problem::invalid("body", format!("it did not come whole: {error}")),
    })?;
    Ok(Request {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers,
        body: body.to_bytes(),
        deadline,
    })
}

fn written(response: Response) -> hyper::Response<Full<Bytes>> {
    let mut built = hyper::Response::builder().status(response.status);
    for (name, value) in &response.headers {
        built = built.header(*name, value);
    }
    built.body(Full::new(response.body)).unwrap_or_else(|_| {
        // A header's value that HTTP does not allow: none of ours has one.
        let mut plain = hyper::Response::new(Full::default());
        *plain.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR;
        plain
    })
}
