use std::sync::Arc;

use super::*;
use crate::env::SystemEnv;
use crate::ledger::Settings;
use crate::objects::ObjectName;
use crate::objects::tests::{Fault, Faulty};
use crate::table::Consistency;
use crate::{Log, Record};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;

/// A store with segments, inline bodies, a checkpoint and stubs.
async fn store() -> (Store, Log) {
    let env = SystemEnv::shared();
    let store = Store::memory(env.clone());
    let settings = Settings { checkpoint_commits: 0, strip_bytes_min: 1, ..Settings::default() };
    let log = Log::with_store(store.clone(), env, true, settings).await.unwrap();
    log.admin().create_topic("t", 2, &[]).await.unwrap();
    for round in 0..4 {
        let inline = if round % 2 == 0 { 0 } else { 4096 };
        let producer = log.producer().inline_bytes_max(inline).build().unwrap();
        for i in 0..20u32 {
            producer.enqueue("t", Some(i % 2), Record::value(format!("{round} {i}")), None).await.unwrap();
        }
        producer.close().await.unwrap();
    }
    (store, log)
}

async fn look(store: &Store) -> Report {
    verify(store, |_, _| {}).await.unwrap()
}

fn covers(report: &Report, partition: u32, from: u64, to: u64) -> bool {
    let touched = report.damage.iter().flat_map(|damage| &damage.touches);
    touched.into_iter().any(|t| t.topic == "t" && t.partition == partition && t.from <= from && t.to >= to)
}

#[tokio::test]
async fn a_whole_store_is_whole() {
    let (store, log) = store().await;
    for stripped in [false, true] {
        let report = look(&store).await;
        assert_eq!(report.damage, [], "stripped: {stripped}");
        assert_eq!((report.records, report.segments, report.stripped > 0), (80, 2, stripped));
        log.ledger().checkpoint().await.unwrap();
        log.ledger().checkpoint().await.unwrap();
        log.ledger().strip().await.unwrap();
    }
}

/// Segments, merged ones and checkpoints are looked at once more before damage is told: it may have come on the way.
#[tokio::test]
async fn a_bit_that_flips_on_its_way_is_no_damage() {
    let (store, log) = store().await;
    log.upkeep(Default::default()).merge(true, |_, _| {}).await.unwrap();
    let producer = log.producer().inline_bytes_max(0).build().unwrap();
    producer.send("t", Record::value("not merged")).await.unwrap();
    log.ledger().checkpoint().await.unwrap();
    log.ledger().checkpoint().await.unwrap();
    let whole = look(&store).await;
    assert!(whole.merged > 0 && whole.segments > 0 && whole.checkpoints > 0, "{whole:?}");
    let flipped = async |before: usize, flips: usize| {
        let faults: Vec<Fault> = [vec![Fault::None; before], vec![Fault::Flipped; flips]].concat();
        let mut other = store.clone();
        other.objects = other.objects.wrapped(|inner| Arc::new(Faulty::new(inner, &faults)));
        look(&other).await
    };
    let mut told = 0;
    for before in 0..12 {
        let report = flipped(before, 1).await;
        assert_eq!(report.damage, [], "read {before}");
        assert_eq!(
            (report.records, report.segments, report.merged),
            (whole.records, whole.segments, whole.merged)
        );
        told += usize::from(!flipped(before, 2).await.damage.is_empty());
    }
    assert!(told > 0, "damage that stays is told");
    // Replay must begin at a checkpoint: one of two is damaged on its way, twice.
    log.ledger().strip().await.unwrap();
    assert_eq!(flipped(0, 2).await.damage, []);
    let mut other = store.clone();
    other.objects = other.objects.wrapped(|inner| Arc::new(Faulty::new(inner, &[Fault::Fails; 50])));
    let error = verify(&other, |_, _| {}).await.unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Retry, "{error}");
}

#[tokio::test]
async fn each_flipped_byte_of_a_segment_is_found_with_its_offsets() {
    let (store, _log) = store().await;
    let objects: Vec<_> = store.objects.store().list(None).try_collect().await.unwrap();
    let path = objects.iter().map(|meta| &meta.location).min().unwrap();
    let whole = store.objects.store().get(path).await.unwrap().bytes().await.unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 1;
        store.objects.store().put(path, bytes.into()).await.unwrap();
        let report = look(&store).await;
        assert!(covers(&report, 0, 0, 10) && covers(&report, 1, 0, 10), "byte {at}: {:?}", report.damage);
    }
    store.objects.store().delete(path).await.unwrap();
    let report = look(&store).await;
    assert_eq!((report.damage.len(), report.damage[0].detail.as_str()), (1, "missing"));
    assert_eq!(report.records, 60);
}

#[tokio::test]
async fn each_flipped_byte_of_a_commit_is_found_with_its_offsets() {
    let (store, _log) = store().await;
    let pk = chain::pk(&store);
    let commits = store.table.range(&pk, 1, 100, Consistency::Strong).await.unwrap().value.items;
    // The second round: inline records, and commits behind it that show the gap.
    let item = commits.iter().filter(|item| item.hint.contains("append")).nth(1).unwrap();
    let body = item.body.clone().unwrap();
    for at in (0..body.len()).step_by(7) {
        let mut bytes = body.to_vec();
        bytes[at] ^= 0x40;
        let damaged = crate::table::Item { body: Some(bytes.into()), ..item.clone() };
        store.table.replace_if(&pk, &damaged, item.id).await.unwrap();
        match verify(&store, |_, _| {}).await {
            // A version that is not known says so.
            Err(error) => {
                assert!(at == 0 && matches!(error, crate::Error::Newer { .. }), "byte {at}: {error}")
            }
            Ok(report) => {
                assert!(
                    covers(&report, 0, 10, 20) && covers(&report, 1, 10, 20),
                    "byte {at}: {:?}",
                    report.damage
                );
                assert_eq!(report.damage.len(), 1);
            }
        }
    }
    store.table.delete_if(&pk, item.sk, item.id).await.unwrap();
    let report = look(&store).await;
    assert!(report.damage[0].what.contains(&item.sk.to_string()) && covers(&report, 1, 10, 20));
}

#[tokio::test]
async fn a_damaged_checkpoint_is_found() {
    let (store, log) = store().await;
    let name = log.ledger().checkpoint().await.unwrap().unwrap();
    let path = ObjectName::from(&name).path();
    let mut bytes = store.objects.store().get(&path).await.unwrap().bytes().await.unwrap().to_vec();
    bytes[9] ^= 1;
    store.objects.store().put(&path, bytes.into()).await.unwrap();
    let report = look(&store).await;
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    assert!(report.damage[0].what.starts_with("ckpt/") && report.damage[0].detail.contains("checksum"));
    store.objects.store().delete(&path).await.unwrap();
    assert!(look(&store).await.damage[0].detail.starts_with("missing"));
}
