//! A function on DynamoDB Local and SeaweedFS, through proxies that hold its requests.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tidelog_core::env::SystemEnv;
use tidelog_core::ledger::Settings;
use tidelog_core::store::aws::Access;
use tidelog_core::store::{Place, Store, StoreUrl};
use tidelog_core::{Log, Position};
use tidelog_proxy::Proxy;
use tidelog_servers::{KEY_ID, REGION, SECRET, Server, dynamodb, seaweedfs};

use crate::runtime_api::{Function, RuntimeApi};

pub struct World {
    _servers: [Server; 2],
    /// The table's and the bucket's.
    pub proxies: [Proxy; 2],
    url: String,
    pub log: Log,
}

impl World {
    /// Topic `logs` has three partitions, and this configuration.
    pub async fn start(config: &[(String, String)]) -> Self {
        let (dynamodb, s3) = (dynamodb(None).unwrap(), seaweedfs().unwrap());
        let address = |url: String| url.strip_prefix("http://").unwrap().parse().unwrap();
        let direct = url(&format!("endpoint_dynamodb={}&endpoint_s3={}", dynamodb.url(), s3.url()))
            .parse::<StoreUrl>();
        let place = direct.unwrap();
        let Place::S3(s3_place) = &place.place else { panic!("not on AWS") };
        let access = Access::with_keys(s3_place, KEY_ID, SECRET, SystemEnv::shared()).unwrap();
        access.create().await.unwrap();
        let store =
            Store { table: Arc::new(access.table()), objects: access.objects().unwrap(), url: place.clone() };
        let log = Log::with_store(store, SystemEnv::shared(), true, Settings::default()).await.unwrap();
        log.admin().create_topic("logs", 3, config).await.unwrap();
        let table = Proxy::start(address(dynamodb.url()), 1).await.unwrap();
        let bucket = Proxy::start(address(s3.url()), 1).await.unwrap();
        let through =
            url(&format!("endpoint_dynamodb={}&endpoint_s3={}", table.endpoint(), bucket.endpoint()));
        Self { _servers: [dynamodb, s3], proxies: [table, bucket], url: through, log }
    }

    /// A function, whose requests go through the proxies.
    pub fn function(&self, binary: &str, api: &RuntimeApi) -> Function {
        let keys = [("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET)];
        let store = [("TIDELOG_STORE", self.url.as_str())];
        Function::start(binary, api, &[&keys[..], &store[..]].concat())
    }

    /// Value → how often, and where.
    pub async fn found(&self) -> Vec<(String, (u32, u64))> {
        let consumer = self.log.consumer("logs").from(Position::Start).until(Position::End).build();
        let mut consumer = consumer.await.unwrap();
        let mut found = Vec::new();
        while let Some(message) = consumer.next_message().await {
            let message = message.unwrap();
            let value = String::from_utf8(message.record.value.unwrap().to_vec()).unwrap();
            found.push((value, (message.partition, message.record.offset)));
        }
        found
    }
}

fn url(endpoints: &str) -> String {
    format!("s3://tidelog-held/log?table=held&region={REGION}&{endpoints}")
}

/// Waits until a proxy holds a request, or the function has answered.
pub async fn held_or_answered(proxy: &Proxy, api: &RuntimeApi) -> Option<Value> {
    loop {
        tokio::select! {
            () = proxy.held() => return None,
            () = tokio::time::sleep(Duration::from_millis(5)) => {
                if let Some(answer) = api.take_answer() {
                    return Some(answer);
                }
            }
        }
    }
}
