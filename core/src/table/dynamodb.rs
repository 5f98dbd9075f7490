//! The table in DynamoDB: one item a slot, as FORMAT.md draws it.
//!
//! ```text
//! put_if_absent   PutItem, attribute_not_exists(pk), ALL_OLD: a loser is answered with what is there, whole
//! get             GetItem                    ConsistentRead as asked
//! newest          Query up to sk, descending, limit 1   ConsistentRead as asked
//! range           Query, ascending from sk; more = the table says where it stopped (1 MB, or the limit)
//! replace_if      PutItem, id = expect       delete_if   DeleteItem, id = expect
//! ```
//!
//! **One attempt a write.** The SDK's retries are off: after a lost answer a second put may meet its own first one, or a
//! throttle that says nothing of the first; only the ledger may look and repeat (L3). Reads are repeated here, with
//! jitter, within the bound of one table request. What each failure means is in `dynamodb/errors.rs`, as a table.
//!
//! Only this module knows the SDK. Time, waiting and chance come from `Env`, also for the SDK's signatures and timeouts.

mod create;
mod errors;
mod item;
#[cfg(test)]
mod tests;
mod watch;

use std::error::Error as StdError;
use std::time::Duration;

use async_trait::async_trait;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb as sdk;
use aws_types::SdkConfig;
use sdk::config::retry::RetryConfig;
use sdk::config::timeout::TimeoutConfig;
use sdk::error::{ProvideErrorMetadata, SdkError};
use sdk::operation::delete_item::DeleteItemError;
use sdk::operation::put_item::PutItemError;
use sdk::operation::query::builders::QueryFluentBuilder;
use sdk::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};

use super::{
    Answer, Consistency, Item, Page, Put, Table, TableError, TableResult, check_item, check_key, check_limit,
};
use crate::env::SharedEnv;
use crate::limits;
use crate::plant::{self, Bug};
use errors::Failed;
use item::{Attributes, attributes_of, id_of, item_of, key_of, number};
use watch::Watch;

/// The SDK's own failures, of an operation whose errors are `E`.
type Failure<E> = SdkError<E, sdk::config::http::HttpResponse>;

/// A table in DynamoDB.
#[derive(Debug, Clone)]
pub struct DynamoTable {
    client: sdk::Client,
    name: String,
    /// Where it is, in words.
    place: String,
    env: SharedEnv,
}

impl DynamoTable {
    /// The table `name`, which need not be there yet. `config` says region, credentials and HTTP client; `endpoint`
    /// replaces the one that follows from them. Sends nothing.
    pub fn new(config: &SdkConfig, name: &str, endpoint: Option<&str>, env: SharedEnv) -> Self {
        let attempt = Duration::from_millis(limits::TABLE_ATTEMPT_MS);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_millis(limits::TABLE_CONNECT_MS))
            .operation_attempt_timeout(attempt)
            .operation_timeout(attempt)
            .build();
        let mut builder =
            sdk::config::Builder::from(config).retry_config(RetryConfig::disabled()).timeout_config(timeouts);
        if let Some(endpoint) = endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        let region = config.region().map_or("an unknown region", |region| region.as_ref());
        let at = endpoint.or(config.endpoint_url()).map_or(String::new(), |url| format!(" at {url}"));
        let place = format!("table {name} in {region}{at}");
        Self { client: sdk::Client::from_conf(builder.build()), name: name.to_owned(), place, env }
    }

    /// What a failure means, with words that say where it was and what can be done.
    fn judge<E>(&self, error: &Failure<E>, write: bool) -> TableError
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let place = &self.place;
        let SdkError::ServiceError(told) = error else {
            return errors::judge(unanswered(error), write, format!("{place}: {}", causes(error)));
        };
        let (code, message) =
            (told.err().code().unwrap_or("no code"), told.err().message().unwrap_or("no message"));
        let mut words = format!("{place}: {code}: {message:.500}");
        if let Some(advice) = errors::advice(code, message) {
            words = format!("{words} ({advice})");
        }
        errors::judge(Failed::Told { status: told.raw().status().as_u16(), code }, write, words)
    }

    fn answer<T>(&self, value: T, watch: &Watch) -> TableResult<T> {
        Ok(Answer { value, store_time_ms: watch.store_time_ms(self.env.now_ms()) })
    }

    /// Asks again after silence or a throttle, while another attempt fits into the bound of a table request.
    async fn read<T, F: Future<Output = TableResult<T>>>(&self, ask: impl Fn() -> F) -> TableResult<T> {
        let last_start = Duration::from_millis(limits::TABLE_TIMEOUT_MS - limits::TABLE_ATTEMPT_MS);
        let began = self.env.monotonic();
        let mut attempt = 1;
        loop {
            let answer = ask().await;
            let pause = Duration::from_millis(self.env.random_u64() % (limits::TABLE_BACKOFF_MS << attempt));
            let again = matches!(answer, Err(TableError::NoAnswer(_) | TableError::Throttled(_)))
                && attempt < limits::TABLE_READ_ATTEMPTS_MAX
                && self.env.monotonic().saturating_sub(began) + pause <= last_start;
            if !again {
                return answer;
            }
            tracing::debug!(attempt, error = ?answer.err(), "a read of the table is repeated");
            self.env.sleep(pause).await;
            attempt += 1;
        }
    }

    /// One page of the items that `query` asks for. An empty page that is not the last is followed.
    async fn query(&self, pk: &str, query: QueryFluentBuilder) -> TableResult<Page> {
        let watch = Watch::new();
        let mut start = None;
        for _ in 0..limits::TABLE_EMPTY_PAGES_MAX {
            let ask = query.clone().set_exclusive_start_key(start).customize().interceptor(watch.clone());
            let found = ask.send().await.map_err(|error| self.judge(&error, false))?;
            let items = found.items.unwrap_or_default();
            start = found.last_evaluated_key.filter(|key| !key.is_empty());
            if items.is_empty() && start.is_some() {
                continue;
            }
            let more = start.is_some() && !plant::on(Bug::FirstPageTakenForAll);
            let items: Result<Vec<_>, _> = items.into_iter().map(|item| item_of(pk, item)).collect();
            return self.answer(Page { items: items.map_err(|error| self.at(error))?, more }, &watch);
        }
        Err(self.damaged(format!("{} empty pages in a row", limits::TABLE_EMPTY_PAGES_MAX)))
    }

    fn items_of(&self, pk: &str, consistency: Consistency) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(&self.name)
            .consistent_read(strong(consistency))
            .expression_attribute_values(":pk", AttributeValue::S(pk.to_owned()))
    }

    fn damaged(&self, what: String) -> TableError {
        TableError::Damaged(format!("{}: {what}", self.place))
    }

    fn at(&self, error: TableError) -> TableError {
        match error {
            TableError::Damaged(what) => self.damaged(what),
            other => other,
        }
    }

    async fn try_put(&self, pk: &str, item: &Item) -> TableResult<Put> {
        let watch = Watch::new();
        let put = self
            .client
            .put_item()
            .table_name(&self.name)
            .set_item(Some(attributes_of(pk, item)))
            .condition_expression("attribute_not_exists(pk)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .customize()
            .interceptor(watch.clone());
        let error = match put.send().await {
            Ok(_) => return self.answer(Put::Stored, &watch),
            Err(error) => error,
        };
        let Some(PutItemError::ConditionalCheckFailedException(exists)) = refusal(&error) else {
            return Err(self.judge(&error, true));
        };
        // Who cannot say what is there has not answered: the ledger will look.
        let Some(there) = exists.item().cloned() else {
            let what = "the key is taken, but what is there was not sent: this endpoint does not know \
                        ReturnValuesOnConditionCheckFailure";
            return Err(TableError::NoAnswer(format!("{}: {what}", self.place)));
        };
        let there = self.whole(pk, Some(item.sk), there)?;
        self.answer(Put::Exists(there), &watch)
    }

    /// An item that must be the one at `sk`, where there was one asked for.
    fn whole(&self, pk: &str, sk: Option<u64>, attributes: Attributes) -> Result<Item, TableError> {
        let item = item_of(pk, attributes).map_err(|error| self.at(error))?;
        match sk {
            Some(sk) if item.sk != sk => {
                Err(self.damaged(format!("attribute sk is {}, asked for was {sk}", item.sk)))
            }
            _ => Ok(item),
        }
    }
}

/// `ConsistentRead`.
fn strong(consistency: Consistency) -> bool {
    consistency == Consistency::Strong && !plant::on(Bug::EventualReadTakenForHead)
}

/// The operation's own error, if it came as the refusal that it is.
fn refusal<E>(error: &Failure<E>) -> Option<&E> {
    match error {
        SdkError::ServiceError(told) if told.raw().status().as_u16() == 400 => Some(told.err()),
        _ => None,
    }
}

/// The error and what caused it, each one once.
fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut words: Vec<String> = Vec::new();
    for cause in chain(error) {
        let cause = cause.to_string();
        if !words.iter().any(|said| said.contains(&cause)) {
            words.push(cause);
        }
    }
    words.join(": ")
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// Why the service was not heard. That nothing was sent is claimed only where it is certain: without credentials there
/// is no request, and a refused connection carries no byte.
fn unanswered<E: StdError + 'static>(error: &Failure<E>) -> Failed<'static> {
    for cause in chain(error) {
        match cause.downcast_ref::<CredentialsError>() {
            Some(CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_)) => {
                return Failed::Unsendable;
            }
            Some(_) => return Failed::NotSent,
            None => {}
        }
        let refused = cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused);
        if refused && matches!(error, SdkError::DispatchFailure(_)) {
            return Failed::NotSent;
        }
    }
    match error {
        SdkError::ConstructionFailure(_) => Failed::Unsendable,
        _ => Failed::Silence,
    }
}

#[async_trait]
impl Table for DynamoTable {
    fn name(&self) -> &str {
        &self.name
    }

    async fn put_if_absent(&self, pk: &str, item: &Item) -> TableResult<Put> {
        check_item(pk, item)?;
        let first = self.try_put(pk, item).await;
        if plant::on(Bug::ThrottleTakenForNotApplied) && matches!(first, Err(TableError::NoAnswer(_))) {
            return self.try_put(pk, item).await;
        }
        first
    }

    async fn get(&self, pk: &str, sk: u64, consistency: Consistency) -> TableResult<Option<Item>> {
        check_key(pk, sk)?;
        self.read(async || {
            let watch = Watch::new();
            let get = self
                .client
                .get_item()
                .table_name(&self.name)
                .set_key(Some(key_of(pk, sk)))
                .consistent_read(strong(consistency))
                .customize()
                .interceptor(watch.clone());
            let found = get.send().await.map_err(|error| self.judge(&error, false))?;
            let item = found.item.map(|item| self.whole(pk, Some(sk), item)).transpose()?;
            self.answer(item, &watch)
        })
        .await
    }

    async fn newest(&self, pk: &str, to: u64, consistency: Consistency) -> TableResult<Option<Item>> {
        check_key(pk, to)?;
        let query = self
            .items_of(pk, consistency)
            .key_condition_expression("pk = :pk AND sk <= :to")
            .expression_attribute_values(":to", number(to))
            .scan_index_forward(false)
            .limit(1);
        let Answer { value: mut page, store_time_ms } = self.read(|| self.query(pk, query.clone())).await?;
        let found = page.items.pop();
        if found.as_ref().is_some_and(|item| item.sk > to) {
            return Err(self.damaged(format!("the newest item up to {to} was answered with a later one")));
        }
        Ok(Answer { value: found, store_time_ms })
    }

    async fn range(&self, pk: &str, from: u64, limit: usize, consistency: Consistency) -> TableResult<Page> {
        check_key(pk, from)?;
        let limit = check_limit(limit)?;
        let query = self
            .items_of(pk, consistency)
            .key_condition_expression("pk = :pk AND sk >= :from")
            .expression_attribute_values(":from", number(from))
            .scan_index_forward(true)
            .limit(i32::try_from(limit).unwrap_or(i32::MAX));
        let answer = self.read(|| self.query(pk, query.clone())).await?;
        let items = &answer.value.items;
        if items.len() > limit || items.first().is_some_and(|item| item.sk < from) {
            return Err(
                self.damaged(format!("a range of {limit} items from {from} was answered with others"))
            );
        }
        if !items.is_sorted_by(|one, next| one.sk < next.sk) {
            return Err(self.damaged("the items of a range are not in ascending order".to_owned()));
        }
        Ok(answer)
    }

    async fn replace_if(&self, pk: &str, item: &Item, expect: u128) -> TableResult<bool> {
        check_item(pk, item)?;
        let watch = Watch::new();
        let put = self
            .client
            .put_item()
            .table_name(&self.name)
            .set_item(Some(attributes_of(pk, item)))
            .condition_expression("#id = :expect")
            .expression_attribute_names("#id", "id")
            .expression_attribute_values(":expect", id_of(expect))
            .customize()
            .interceptor(watch.clone());
        match put.send().await {
            Ok(_) => self.answer(true, &watch),
            Err(error) => match refusal(&error) {
                Some(PutItemError::ConditionalCheckFailedException(_)) => self.answer(false, &watch),
                _ => Err(self.judge(&error, true)),
            },
        }
    }

    async fn delete_if(&self, pk: &str, sk: u64, expect: u128) -> TableResult<bool> {
        check_key(pk, sk)?;
        let watch = Watch::new();
        let delete = self
            .client
            .delete_item()
            .table_name(&self.name)
            .set_key(Some(key_of(pk, sk)))
            .condition_expression("#id = :expect")
            .expression_attribute_names("#id", "id")
            .expression_attribute_values(":expect", id_of(expect))
            .customize()
            .interceptor(watch.clone());
        match delete.send().await {
            Ok(_) => self.answer(true, &watch),
            Err(error) => match refusal(&error) {
                Some(DeleteItemError::ConditionalCheckFailedException(_)) => self.answer(false, &watch),
                _ => Err(self.judge(&error, true)),
            },
        }
    }
}
