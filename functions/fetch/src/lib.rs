//! Lambda function `fetch`: records out, and the offsets of consumer groups.
//!
//! ```text
//! GET    /v1/topics                                              names, by page
//! GET    /v1/topics/{topic}                                      partitions, their log starts and high watermarks
//! GET    /v1/topics/{topic}/partitions/{partition}/records       by offset or time; waits for more if asked to
//! GET    /v1/groups · /v1/groups/{group}                         names, by page · stored offsets and lag
//! PUT    /v1/groups/{group}/topics/{topic}/offsets               stores offsets
//! DELETE /v1/groups/{group} · …/topics/{topic}/offsets           forgets them
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `records` | where to begin, the fetch, its answer |
//! | `accept` | which form of answer a client takes |
//! | `columns` | records as Arrow and Parquet |
//! | `names` | topics and groups |
//!
//! `functions/openapi.yaml` is the contract.

mod accept;
mod columns;
mod names;
mod records;

use futures::future::{BoxFuture, FutureExt};
use tidelog_core::{Fetcher, Log};
use tidelog_functions::{Problem, Request, Response, Service, Settings};

/// The handlers.
#[derive(Debug)]
pub struct Fetch {
    log: Log,
    fetcher: Fetcher,
}

impl Fetch {
    /// Handlers on a log.
    pub fn new(log: Log, settings: &Settings) -> Self {
        let fetcher = Fetcher::new(log.ledger().clone(), settings.cache_bytes() as u64);
        Self { log, fetcher }
    }

    async fn route(&self, request: &Request) -> Result<Response, Problem> {
        let segments = request.segments()?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match (request.method.as_str(), &segments[..]) {
            ("GET", ["v1", "topics"]) => self.topics(request).await,
            ("GET", ["v1", "topics", topic]) => self.topic(topic, request).await,
            ("GET", ["v1", "topics", topic, "partitions", partition, "records"]) => {
                self.records(topic, partition, request).await
            }
            ("GET", ["v1", "groups"]) => self.groups(request).await,
            ("GET", ["v1", "groups", group]) => self.group(group, request).await,
            ("DELETE", ["v1", "groups", group]) => self.delete_group(group, request).await,
            ("PUT", ["v1", "groups", group, "topics", topic, "offsets"]) => {
                self.store_offsets(group, topic, request).await
            }
            ("DELETE", ["v1", "groups", group, "topics", topic, "offsets"]) => {
                self.delete_offsets(group, topic, request).await
            }
            (method, ["v1", "groups", _]) => Err(Problem::not_allowed(method, "GET, DELETE")),
            (method, ["v1", "groups", _, "topics", _, "offsets"]) => {
                Err(Problem::not_allowed(method, "PUT, DELETE"))
            }
            (
                method,
                ["v1", "topics" | "groups"]
                | ["v1", "topics", _]
                | ["v1", "topics", _, "partitions", _, "records"],
            ) => Err(Problem::not_allowed(method, "GET")),
            _ => Err(Problem::no_route(&request.path)),
        }
    }
}

impl Service for Fetch {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        async move { request.deadline.in_time(self.route(&request)).await.into() }.boxed()
    }
}
