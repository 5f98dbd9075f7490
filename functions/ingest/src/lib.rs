//! Lambda function `ingest`: records in.
//!
//! ```text
//! POST /v1/topics/{topic}/records      lines, NDJSON, a JSON array, record objects, or one binary record
//! POST /v1/logs                        OTLP/HTTP logs, protobuf and JSON
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `options` | key, partition, timestamp and headers by header, query or JSON pointer |
//! | `body` | a body → records, each or its error |
//! | `document` | arrays of JSON documents, and JSON pointers, without building what is not wanted |
//! | `send` | records → the log, plain or exactly once under an `Idempotency-Key` |
//! | `answer` | the answer, record by record |
//! | `otlp` | OTLP/HTTP logs |
//! | [`parse`] | a request → records, without a log: what the fuzz targets call |
//!
//! `functions/openapi.yaml` is the contract.

mod answer;
mod body;
mod document;
mod options;
mod otlp;
pub mod parse;
mod send;

use futures::future::{BoxFuture, FutureExt};
use tidelog_core::{Error, Log, Producer, limits, topic};
use tidelog_functions::{Problem, Request, Response, Service, Settings};

use options::Options;

/// The handlers.
#[derive(Debug)]
pub struct Ingest {
    log: Log,
    producer: Producer,
    settings: Settings,
}

/// What a request needs to know of its topic.
#[derive(Debug, Clone, Copy)]
struct TopicFacts {
    partitions: u32,
    record_bytes_max: usize,
}

/// A request's records are together before this has passed, and then they are sealed by hand.
const LINGER_MS: u64 = 50;
/// A request under an identity is tried again for as long as a client waits at most.
const DELIVERY_TIMEOUT_MS: u64 = 10_000;

impl Ingest {
    /// Handlers on a log. Needs a Tokio runtime around it.
    pub fn new(log: Log, settings: &Settings) -> tidelog_core::Result<Self> {
        // Functions never lead: they are stopped when nobody asks.
        let producer = log.producer().lead(false).linger_ms(LINGER_MS).buffer_bytes(settings.buffer_bytes());
        let producer = producer.delivery_timeout_ms(DELIVERY_TIMEOUT_MS).build()?;
        Ok(Self { log, producer, settings: settings.clone() })
    }

    async fn route(&self, request: &Request) -> Result<Response, Problem> {
        let segments = request.segments()?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match (request.method.as_str(), &segments[..]) {
            ("POST", ["v1", "topics", topic, "records"]) => self.records(topic, request).await,
            (method, ["v1", "topics", _, "records"]) => Err(Problem::not_allowed(method, "POST")),
            ("POST", ["v1", "logs"]) => Ok(self.otlp(request).await),
            (method, ["v1", "logs"]) => Err(Problem::not_allowed(method, "POST")),
            _ => Err(Problem::no_route(&request.path)),
        }
    }

    async fn records(&self, topic: &str, request: &Request) -> Result<Response, Problem> {
        let options = Options::read(request)?;
        request.deadline.check_commit()?;
        let records = parse::records(request, &options, self.settings.unpacked_bytes_max())?;
        let facts = request.deadline.in_time(self.topic(topic)).await?;
        // Unpacking may have taken its time.
        request.deadline.check_commit()?;
        let taken = match &options.idempotency_key {
            None => self.send(topic, records, &request.deadline).await,
            Some(key) => self.send_once(topic, facts, key, records, &request.deadline).await?,
        };
        Ok(answer::answer(taken, options.idempotency_key.is_some()))
    }

    /// The topic as this process knows it, else by a look at the ledger (L4); made if that is asked for.
    async fn topic(&self, name: &str) -> Result<TopicFacts, Problem> {
        topic::check_name(name)?;
        let chain = self.log.ledger().chain();
        if let Some(facts) = chain.view(|view| facts(view, name))? {
            return Ok(facts);
        }
        if let Some(facts) = chain.fresh_view(chain.tick(), |view| facts(view, name)).await? {
            return Ok(facts);
        }
        if self.settings.auto_create_partitions == 0 {
            return Err(Error::UnknownTopic { topic: name.to_owned() }.into());
        }
        match self.log.admin().create_topic(name, self.settings.auto_create_partitions, &[]).await {
            Ok(_) | Err(Error::TopicExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let made = chain.view(|view| facts(view, name))?;
        made.ok_or_else(|| Error::UnknownTopic { topic: name.to_owned() }.into())
    }
}

fn facts(view: &tidelog_core::ledger::view::View, name: &str) -> Option<TopicFacts> {
    let (_, found) = view.topic(name)?;
    let bytes_max = found.config.get(topic::MAX_MESSAGE_BYTES).and_then(|value| value.parse().ok());
    Some(TopicFacts {
        partitions: found.partitions.len() as u32,
        record_bytes_max: bytes_max.unwrap_or(limits::RECORD_BYTES_DEFAULT),
    })
}

impl Service for Ingest {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        async move { self.route(&request).await.into() }.boxed()
    }
}
