//! One suite about what S3 does, on our own server and on servers of others: ours is not its own judge.
//!
//! The others are installed by `tests/emulators`; their tests are ignored unless asked for, because a server that is not
//! there must not look like one that passed: `cargo test -p tidelog-s3server --test conformance -- --include-ignored`.
#![allow(clippy::disallowed_methods, reason = "tests of servers: real time")]

mod client;
mod suite;

use client::Client;
use suite::Known;

#[tokio::test]
async fn our_own() {
    let server = tidelog_s3server::Server::start("conformance", 1).await.unwrap();
    suite::run(&Client::new(&server.endpoint()), Known::default()).await;
}

#[tokio::test]
#[ignore = "needs tests/emulators seaweedfs"]
async fn seaweedfs() {
    let server = tidelog_servers::seaweedfs().unwrap();
    // A round takes it 3 to 4 s. Of 16 that replace one version, two win now and then: the log replaces none (L5).
    let known = Known { race_rounds: 3, replaces_atomically: false, ..Known::default() };
    suite::run(&Client::new(&server.url()), known).await;
}

#[tokio::test]
#[ignore = "needs tests/emulators ministack"]
async fn ministack() {
    let server = tidelog_servers::ministack().unwrap();
    let known =
        Known { signatures: false, part_bytes_min: false, replaces_atomically: false, ..Known::default() };
    suite::run(&Client::new(&server.url()), known).await;
}

#[tokio::test]
#[ignore = "needs tests/emulators localstack"]
async fn localstack() {
    let server = tidelog_servers::localstack().unwrap();
    // Of 16 that replace one version, two won once in a few runs, as with the others.
    let known = Known { signatures: false, replaces_atomically: false, ..Known::default() };
    suite::run(&Client::new(&server.url()), known).await;
}
