//! The log's objects on S3: the contract on our own server and on SeaweedFS, and every fault of the proxy; each rule is
//! shown to be watched by planting the mistake that breaks it.
#![allow(clippy::disallowed_methods, reason = "tests of servers: real time")]

mod faults;
mod log;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tidelog_core::env::SystemEnv;
use tidelog_core::objects::{ObjectName, Objects, Ulid, contract};
use tidelog_core::store::aws::Access;
use tidelog_core::store::{Place, StoreUrl, probe};
use tidelog_core::table::{MemoryTable, SharedTable};
use tidelog_core::{Error, ErrorKind};
use tidelog_s3server::{Fault, Latency, Rule, Server, Verb, When};

const BUCKET: &str = "conformance";

/// The objects behind an endpoint, as a store's URL opens them.
fn objects(endpoint: &str) -> Objects {
    objects_in(BUCKET, endpoint, "test")
}

fn objects_in(bucket: &str, endpoint: &str, secret: &str) -> Objects {
    let url = format!("s3://{bucket}/some/log?table=unused&region=us-east-1&endpoint={endpoint}");
    let Place::S3(place) = url.parse::<StoreUrl>().unwrap().place else { panic!("{url}") };
    Access::with_keys(&place, "test", secret, SystemEnv::shared()).unwrap().objects().unwrap()
}

fn address(endpoint: &str) -> SocketAddr {
    endpoint.trim_start_matches("http://").parse().unwrap()
}

fn fresh() -> ObjectName {
    ObjectName::L0 { era: 0, ledger: 0, drawn: 1, ulid: Ulid::draw(&*SystemEnv::shared()) }
}

fn body(seed: u8, length: usize) -> Bytes {
    (0..length).map(|at| (at / 3) as u8 ^ seed).collect::<Vec<u8>>().into()
}

#[tokio::test]
async fn our_own_server_keeps_the_contract() {
    let server = Server::start(BUCKET, 1).await.unwrap();
    contract::check(&objects(&server.endpoint()), &objects(&server.endpoint())).await.unwrap();
}

#[tokio::test]
async fn it_is_kept_by_a_server_that_fails_and_is_slow() {
    let server = Server::start(BUCKET, 2).await.unwrap();
    for verb in [Verb::Put, Verb::Get, Verb::Head] {
        server.set_latency(verb, Latency::LogNormal { median_ms: 2.0, sigma: 0.9 });
    }
    for (verb, rate, fault) in [
        (Some(Verb::Put), 0.1, Fault::Conflict),
        (None, 0.05, Fault::Internal),
        (None, 0.01, Fault::SlowDown),
    ] {
        server.add_rule(Rule { verb, key: String::new(), when: When::Rate(rate), fault });
    }
    contract::check(&objects(&server.endpoint()), &objects(&server.endpoint())).await.unwrap();
    assert!(server.log().iter().filter(|request| request.status == 409).count() > 3, "conflicts were met");
}

#[tokio::test]
#[ignore = "needs SeaweedFS: ./test s3"]
async fn seaweedfs_keeps_the_contract() {
    let server = tidelog_servers::seaweedfs().unwrap();
    make_bucket(&server.url()).await;
    contract::check(&objects(&server.url()), &objects(&server.url())).await.unwrap();
}

#[tokio::test]
#[ignore = "needs LocalStack: tests/emulators localstack"]
async fn localstack_keeps_the_contract() {
    let server = tidelog_servers::localstack().unwrap();
    make_bucket(&server.url()).await;
    contract::check(&objects(&server.url()), &objects(&server.url())).await.unwrap();
}

async fn make_bucket(endpoint: &str) {
    use object_store::signer::Signer;
    let store = object_store::aws::AmazonS3Builder::new()
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name(BUCKET)
        .with_access_key_id("test")
        .with_secret_access_key("test");
    _ = rustls::crypto::ring::default_provider().install_default();
    let (store, bucket) = (store.build().unwrap(), "".into());
    let url = store.signed_url(reqwest::Method::PUT, &bucket, Duration::from_secs(60)).await.unwrap();
    let answer = reqwest::Client::new().put(url).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());
}

#[tokio::test]
async fn a_put_is_one_request_with_a_condition_and_a_checksum() {
    let server = Server::start(BUCKET, 1).await.unwrap();
    let (objects, name) = (objects(&server.endpoint()), fresh());
    objects.put_new(&name, body(1, 10_000)).await.unwrap();
    objects.get_range(&name, 5..500).await.unwrap();
    let log = server.log();
    let told: Vec<(Verb, bool, u16)> =
        log.iter().map(|request| (request.verb, request.conditional, request.status)).collect();
    assert_eq!(told, [(Verb::Put, true, 200), (Verb::Get, false, 206)]);
    assert_eq!(log[0].target, format!("/{BUCKET}/some/log/{name}"));
}

#[tokio::test]
async fn the_probe_refuses_a_bucket_without_conditional_writes() {
    let server = Server::start(BUCKET, 1).await.unwrap();
    let (objects, env) = (objects(&server.endpoint()), SystemEnv::shared());
    let table: SharedTable = std::sync::Arc::new(MemoryTable::new());
    probe(&table, &objects, &*env).await.unwrap();
    // A conflict on the way is not a refusal.
    let when = When::Numbers(2..=3);
    server.add_rule(Rule { verb: Some(Verb::Put), key: "probe/".into(), when, fault: Fault::Conflict });
    probe(&table, &objects, &*env).await.unwrap();
    server.ignore_conditions(true);
    let error = probe(&table, &objects, &*env).await.unwrap_err();
    let told = matches!(&error, Error::StoreRefused { what } if what.contains("If-None-Match"));
    assert!(told && error.kind() == ErrorKind::Fatal, "{error}");
}

#[tokio::test]
async fn what_is_missing_is_said_at_once() {
    let server = Server::start(BUCKET, 1).await.unwrap();
    for (bucket, secret, words) in [("absent", "test", "no such bucket"), (BUCKET, "wrong", "no right")] {
        let objects = objects_in(bucket, &server.endpoint(), secret);
        for error in [
            objects.put_new(&fresh(), body(1, 10)).await.unwrap_err(),
            objects.get_range(&fresh(), 0..1).await.unwrap_err(),
        ] {
            assert!(matches!(&error, Error::CannotOpen { reason, .. } if reason.contains(words)), "{error}");
        }
        assert!(server.log().len() <= 2, "nothing was tried again");
        server.forget();
    }
}
