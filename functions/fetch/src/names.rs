//! Topics and groups: names by page, what is known of one, and the offsets that a group stores.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tidelog_core::ledger::view::View;
use tidelog_core::record::Offset;
use tidelog_core::{Error, limits};
use tidelog_functions::{Problem, Request, Response, encoding, request::whole};

use crate::Fetch;

/// Offsets that one answer tells; a topic has at most as many.
const OFFSETS_MAX: usize = limits::PARTITIONS_PER_TOPIC_MAX as usize;
/// Largest body of stored offsets.
const OFFSETS_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Serialize)]
struct Partition {
    partition: u32,
    log_start: Offset,
    high_watermark: Offset,
}

#[derive(Debug, Serialize)]
struct Lag {
    topic: String,
    partition: u32,
    offset: Offset,
    high_watermark: Offset,
    lag: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Offsets {
    offsets: Vec<PartitionOffset>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartitionOffset {
    partition: u32,
    offset: Offset,
}

impl Fetch {
    pub(crate) async fn topics(&self, request: &Request) -> Result<Response, Problem> {
        self.page(request, "topics", |view| &view.names).await
    }

    pub(crate) async fn groups(&self, request: &Request) -> Result<Response, Problem> {
        self.page(request, "groups", |view| &view.groups).await
    }

    /// A page of names, and the name to go on behind; without one it is the last.
    async fn page<T>(
        &self,
        request: &Request,
        what: &str,
        names: impl Fn(&View) -> &BTreeMap<String, T>,
    ) -> Result<Response, Problem> {
        let query = request.query(&["after", "limit"])?;
        let limit = query.number("limit", 100, 1, limits::HTTP_PAGE_NAMES_MAX as u64)? as usize;
        let after = query.get("after").map_or(Bound::Unbounded, Bound::Excluded);
        let chain = self.log.ledger().chain();
        let look = |view: &View| {
            let from = names(view).range::<str, _>((after, Bound::Unbounded));
            from.take(limit + 1).map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        let mut found = chain.fresh_view(chain.tick(), look).await?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).cloned();
        Ok(Response::json(200, &json!({what: found, "next": next})))
    }

    pub(crate) async fn topic(&self, name: &str, request: &Request) -> Result<Response, Problem> {
        request.query(&[])?;
        let known = self.log.admin().describe_topic(name).await?;
        let partition = |p: &tidelog_core::log::PartitionDescription| Partition {
            partition: p.partition,
            log_start: p.log_start,
            high_watermark: p.high_watermark,
        };
        let config: BTreeMap<_, _> = known.config.into_iter().collect();
        let partitions: Vec<Partition> = known.partitions.iter().map(partition).collect();
        let (name, id, created_ms) = (known.name, known.id.to_string(), known.created_ms);
        let body = json!({
            "name": name, "id": id, "created_ms": created_ms, "config": config, "partitions": partitions,
        });
        Ok(Response::json(200, &body))
    }

    pub(crate) async fn group(&self, group: &str, request: &Request) -> Result<Response, Problem> {
        check_group(group)?;
        let query = request.query(&["topic"])?;
        let topic = query.get("topic");
        let lags = self.log.admin().describe_group(group).await?;
        let lags = lags.into_iter().filter(|lag| topic.is_none_or(|topic| lag.topic == topic));
        let lag = |lag: tidelog_core::log::GroupLag| Lag {
            topic: lag.topic,
            partition: lag.partition,
            offset: lag.offset,
            high_watermark: lag.high_watermark,
            lag: lag.lag,
        };
        let lags: Vec<Lag> = lags.map(lag).take(OFFSETS_MAX + 1).collect();
        if lags.len() > OFFSETS_MAX {
            let reason = format!("the group stores more than {OFFSETS_MAX} offsets: ask for one topic");
            return Err(Problem::invalid("topic", reason));
        }
        Ok(Response::json(200, &json!({"group": group, "offsets": lags})))
    }

    pub(crate) async fn delete_group(&self, group: &str, request: &Request) -> Result<Response, Problem> {
        check_group(group)?;
        request.query(&[])?;
        request.deadline.check_commit()?;
        self.log.admin().delete_group(group).await?;
        Ok(Response::empty(204))
    }

    pub(crate) async fn store_offsets(
        &self,
        group: &str,
        topic: &str,
        request: &Request,
    ) -> Result<Response, Problem> {
        check_group(group)?;
        request.query(&[])?;
        check_json(request)?;
        let body = encoding::unpacked(request, OFFSETS_BYTES_MAX)?;
        let body: Offsets = serde_json::from_slice(&body)
            .map_err(|error| Problem::invalid("body", format!("not offsets as they must be: {error}")))?;
        if body.offsets.len() > OFFSETS_MAX {
            return Err(Problem::too_large("offsets", Some(body.offsets.len() as u64), OFFSETS_MAX));
        }
        let mut seen = BTreeSet::new();
        for one in &body.offsets {
            if !seen.insert(one.partition) {
                return Err(Problem::invalid(
                    "offsets",
                    format!("partition {} is given twice", one.partition),
                ));
            }
            if i64::try_from(one.offset).is_err() {
                return Err(Problem::invalid("offset", format!("{} is above 2^63", one.offset)));
            }
        }
        request.deadline.check_commit()?;
        let offsets: Vec<_> = body.offsets.iter().map(|one| (one.partition, Some(one.offset))).collect();
        self.log.admin().store_offsets(group, topic, &offsets).await?;
        Ok(Response::empty(204))
    }

    pub(crate) async fn delete_offsets(
        &self,
        group: &str,
        topic: &str,
        request: &Request,
    ) -> Result<Response, Problem> {
        check_group(group)?;
        let query = request.query(&["partition"])?;
        let partition = query.get("partition").map(|text| {
            let number = whole(text).and_then(|number| u32::try_from(number).ok());
            number.ok_or_else(|| Problem::invalid("partition", format!("{text:?} is no partition number")))
        });
        let partition = partition.transpose()?;
        request.deadline.check_commit()?;
        let chain = self.log.ledger().chain();
        let stored = chain.fresh_view(chain.tick(), |view| {
            let (id, _) = view.topic_or_unknown(topic)?;
            let known =
                view.groups.get(group).ok_or_else(|| Error::UnknownGroup { group: group.to_owned() })?;
            let of = known.offsets.keys().filter(|(topic, number)| {
                *topic == id && partition.is_none_or(|partition| partition == *number)
            });
            Ok::<_, Error>(of.map(|(_, number)| (*number, None)).collect::<Vec<_>>())
        });
        self.log.admin().store_offsets(group, topic, &stored.await??).await?;
        Ok(Response::empty(204))
    }
}

/// A group's name: any text, as long as it is short.
fn check_group(group: &str) -> Result<(), Problem> {
    let (field, limit) = ("group", limits::NAME_BYTES_MAX);
    match group.len() {
        0 => Err(Problem::invalid(field, format!("it must be 1 to {limit} bytes"))),
        size if size > limit => {
            Err(Problem { status: 400, ..Problem::too_large(field, Some(size as u64), limit) })
        }
        _ => Ok(()),
    }
}

fn check_json(request: &Request) -> Result<(), Problem> {
    let named = request.header("content-type").unwrap_or_default();
    if named.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = format!("content-type {named:?} is not supported; application/json is");
    let problem = Problem::new(415, "unsupported_media_type", message);
    Err(Problem { field: Some("content-type".to_owned()), ..problem })
}
