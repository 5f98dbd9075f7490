//! A log in memory, the handlers on it, and requests.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tidelog_core::env::SystemEnv;
use tidelog_core::{Log, Position, limits};
use tidelog_functions::{Deadline, Request, Response, Service, Settings};
use tidelog_ingest::Ingest;

pub struct World {
    pub log: Log,
    pub ingest: Arc<Ingest>,
}

impl World {
    /// A log with topic `logs` of so many partitions.
    pub async fn new(partitions: u32) -> Self {
        Self::with(partitions, Settings::of("memory:")).await
    }

    pub async fn with(partitions: u32, settings: Settings) -> Self {
        let log = Log::open("memory:").await.unwrap();
        log.admin().create_topic("logs", partitions, &[]).await.unwrap();
        let ingest = Arc::new(Ingest::new(log.clone(), &settings).unwrap());
        Self { log, ingest }
    }

    /// Posts to `/v1/topics/logs/records`.
    pub async fn post(&self, query: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Response {
        self.ingest.handle(request("POST", "/v1/topics/logs/records", query, headers, body)).await
    }

    /// Everything in the topic, as (partition, offset, key, value).
    pub async fn all(&self) -> Vec<(u32, u64, Option<String>, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut consumer =
            self.log.consumer("logs").from(Position::Start).until(Position::End).build().await.unwrap();
        let mut found = Vec::new();
        while let Some(message) = consumer.next_message().await {
            let message = message.unwrap();
            let record = message.record;
            let value = text(record.value.as_deref().unwrap_or_default());
            found.push((message.partition, record.offset, record.key.as_deref().map(text), value));
        }
        found.sort();
        found
    }

    pub async fn values(&self) -> Vec<String> {
        self.all().await.into_iter().map(|(_, _, _, value)| value).collect()
    }
}

pub fn request(
    method: &str,
    path: &str,
    query: &str,
    headers: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> Request {
    let headers: BTreeMap<String, String> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: body.as_ref().to_vec().into(),
        deadline: Deadline::after_ms(SystemEnv::shared(), 30_000),
    }
}

pub fn json(response: &Response) -> Value {
    assert!(response.body.len() <= limits::HTTP_ANSWER_BYTES_MAX, "{} bytes", response.body.len());
    serde_json::from_slice(&response.body).unwrap_or_else(|error| panic!("{error}: {response:?}"))
}

pub const TEXT: (&str, &str) = ("content-type", "text/plain; charset=utf-8");
pub const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");
pub const JSON: (&str, &str) = ("content-type", "application/json");
pub const BINARY: (&str, &str) = ("content-type", "application/octet-stream");
