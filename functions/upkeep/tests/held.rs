//! Killed with -9 while a proxy holds its k-th request to a store, for every k of a run that merges, trims and sweeps: every
//! record stays, once and at its offset, and the next run goes on.
//!
//! Ignored unless asked for, since it needs Java, npm and PyPI: `./test aws`.
#![allow(clippy::disallowed_methods, reason = "this is about processes and real time")]

#[path = "../../ingest/tests/on_aws/mod.rs"]
mod on_aws;
#[path = "../../ingest/tests/runtime_api/mod.rs"]
mod runtime_api;

use std::time::Duration;

use on_aws::World;
use runtime_api::RuntimeApi;
use serde_json::json;
use tidelog_core::topic::MERGE_MAX_AGE_MS;
use tidelog_core::{Compression, Record, UpkeepSettings};
use tidelog_proxy::{Fault, Rule};

const BINARY: &str = env!("CARGO_BIN_EXE_tidelog-upkeep");
/// More requests than one cold invocation can take.
const REQUESTS_MAX: u64 = 60;

/// A record in its commit, and two in a segment; then all are old enough to be merged.
async fn append(world: &World, expected: &mut Vec<(String, (u32, u64))>) {
    let producer = world.log.producer().compression(Compression::None).build().unwrap();
    for (partition, bytes) in [(0, 10), (1, 6_000), (2, 6_000)] {
        let value = format!("{:0bytes$}", expected.len());
        let record = Record::value(value.clone());
        let sent = producer.enqueue("logs", Some(partition), record, None).await.unwrap();
        let ack = sent.wait().await.unwrap();
        expected.push((value, (partition, ack.offset.unwrap())));
    }
    producer.close().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_050)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs DynamoDB Local and SeaweedFS: ./test aws"]
async fn killed_while_its_kth_request_is_held_every_record_stays_once() {
    let config = [(MERGE_MAX_AGE_MS.to_owned(), "1000".to_owned())];
    let (api, world) = (RuntimeApi::start(), World::start(&config).await);
    let event = json!({"source": "aws.events", "detail-type": "Scheduled Event"});
    let (mut expected, mut kills) = (Vec::new(), [0u64; 2]);
    for (store, proxy) in world.proxies.iter().enumerate() {
        for fault in [Fault::Hold, Fault::HoldAnswer] {
            for k in 1..=REQUESTS_MAX {
                assert!(k < REQUESTS_MAX, "a cold run asks more than it should");
                append(&world, &mut expected).await;
                let function = world.function(BINARY, &api);
                proxy.add_rule(Rule::numbers("", "", k..=k, fault.clone()));
                api.offer(&event);
                let answered = on_aws::held_or_answered(proxy, &api).await;
                function.kill();
                proxy.clear_rules();
                // What was held lands now, when its sender is gone.
                proxy.release();
                let function = world.function(BINARY, &api);
                let done = api.invoke(&event);
                function.kill();
                assert_eq!(
                    (&done["more"], &done["damage"]),
                    (&json!(false), &json!(0)),
                    "{store} {fault} {k}: {done}"
                );
                let mut found = world.found().await;
                found.sort();
                expected.sort();
                assert_eq!(found, expected, "{store} {fault} {k}");
                match answered {
                    Some(answer) => {
                        assert_eq!(answer["damage"], 0, "{store} {fault} {k}: {answer}");
                        break;
                    }
                    None => kills[store] += 1,
                }
            }
        }
    }
    println!("{kills:?} kills at requests to table and bucket");
    assert!(kills[0] >= 16 && kills[1] >= 8, "{kills:?}: not every request was held");
    let left = world.log.upkeep(UpkeepSettings::default()).merge(true, |_, _| {}).await.unwrap();
    assert_eq!((left.records, left.damage), (0, Vec::new()), "the functions merged everything");
    let report = tidelog_core::verify::verify(world.log.store(), |_, _| {}).await.unwrap();
    assert_eq!((report.damage, report.records), (Vec::new(), expected.len() as u64));
}
