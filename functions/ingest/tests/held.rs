//! Killed with -9 while a proxy holds its k-th request to a store, for every k from the body to the answer: nothing acked is
//! lost, and under an idempotency key nothing is doubled.
//!
//! Ignored unless asked for, since it needs Java, npm and PyPI: `./test aws`.
#![allow(clippy::disallowed_methods, reason = "this is about processes and real time")]

mod on_aws;
mod runtime_api;

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use on_aws::World;
use runtime_api::{RuntimeApi, event};
use serde_json::Value;
use tidelog_proxy::{Fault, Rule};

const BINARY: &str = env!("CARGO_BIN_EXE_tidelog-ingest");
/// More requests than one cold invocation can take.
const REQUESTS_MAX: u64 = 40;

/// The places that an answer of 200 names.
fn places(answer: &Value) -> Vec<(u32, u64)> {
    assert_eq!(answer["statusCode"], 200, "{answer}");
    let text = answer["body"].as_str().unwrap();
    let body: Value = match answer["isBase64Encoded"].as_bool().unwrap() {
        true => serde_json::from_slice(&BASE64.decode(text).unwrap()).unwrap(),
        false => serde_json::from_str(text).unwrap(),
    };
    let place =
        |record: &Value| (record["partition"].as_u64().unwrap() as u32, record["offset"].as_u64().unwrap());
    body["records"].as_array().unwrap().iter().map(place).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs DynamoDB Local and SeaweedFS: ./test aws"]
async fn killed_while_its_kth_request_is_held_nothing_is_lost_or_doubled() {
    let (api, world) = (RuntimeApi::start(), World::start(&[]).await);
    let (mut expected, mut cycles, mut landed) = (Vec::new(), [0u64; 2], 0);
    for (store, proxy) in world.proxies.iter().enumerate() {
        for fault in [Fault::Hold, Fault::HoldAnswer] {
            // One that rides inside its commit, and one that needs a segment.
            for lines in [2, 400] {
                for k in 1..=REQUESTS_MAX {
                    assert!(k < REQUESTS_MAX, "a cold invocation asks more than it should");
                    let name = format!("{store}-{fault}-{lines}-{k}").replace(' ', "-");
                    let body: Vec<String> = (0..lines).map(|line| format!("{name}:{line}")).collect();
                    let post = event(
                        "POST",
                        "/v1/topics/logs/records",
                        &[("idempotency-key", &name)],
                        &body.join("\n"),
                    );
                    let function = world.function(BINARY, &api);
                    proxy.add_rule(Rule::numbers("", "", k..=k, fault.clone()));
                    api.offer(&post);
                    let answered = on_aws::held_or_answered(proxy, &api).await;
                    function.kill();
                    proxy.clear_rules();
                    // What was held lands now, when its sender is gone; its successor may be faster or slower.
                    proxy.release();
                    let function = world.function(BINARY, &api);
                    let first = places(&api.invoke(&post));
                    assert_eq!(places(&api.invoke(&post)), first, "{name}");
                    function.kill();
                    expected.extend(body.into_iter().zip(first.iter().copied()));
                    match answered {
                        // Fewer than k requests: all of them were held once.
                        Some(answer) => {
                            assert_eq!(places(&answer), first, "{name}");
                            break;
                        }
                        None => cycles[store] += 1,
                    }
                    landed += u64::from(fault == Fault::HoldAnswer);
                }
            }
        }
    }
    println!("{cycles:?} kills at requests to table and bucket; {landed} had landed");
    assert!(cycles[0] >= 12 && cycles[1] >= 4, "{cycles:?}: not every request was held");
    let mut found = world.found().await;
    let distinct: BTreeSet<_> = found.iter().map(|(value, _)| value.clone()).collect();
    assert_eq!(distinct.len(), found.len(), "a record is there twice");
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}
