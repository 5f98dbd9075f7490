use super::*;
use crate::env::SystemEnv;
use crate::objects::ObjectName;
use crate::{Log, Position, Record};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;

/// A log with segments, inline bodies, two checkpoints and stubs; and how many records it has.
async fn copy() -> (Store, Log, usize) {
    let env = SystemEnv::shared();
    let store = Store::memory(env.clone());
    let settings = Settings { checkpoint_commits: 0, strip_bytes_min: 1, ..Settings::default() };
    let log = Log::with_store(store.clone(), env, true, settings).await.unwrap();
    log.admin().create_topic("t", 2, &[]).await.unwrap();
    for round in 0..4 {
        append(&log, if round % 2 == 0 { 0 } else { 4096 }).await;
        if round > 1 {
            log.ledger().checkpoint().await.unwrap();
        }
    }
    log.ledger().strip().await.unwrap();
    (store, log, 40)
}

async fn append(log: &Log, inline: usize) {
    let producer = log.producer().inline_bytes_max(inline).build().unwrap();
    for i in 0..10u32 {
        producer.enqueue("t", Some(i % 2), Record::value(format!("{i}")), None).await.unwrap();
    }
    producer.close().await.unwrap();
}

async fn run(store: &Store, era: u16, options: Options) -> Result<Restored> {
    restore(store, SystemEnv::shared(), era, options, |_| {}).await
}

fn of_era(store: &Store, era: u16) -> Store {
    let mut store = store.clone();
    store.url.era = era;
    store
}

async fn open(store: &Store, era: u16) -> Result<Log> {
    Log::with_store(of_era(store, era), SystemEnv::shared(), false, Settings::default()).await
}

async fn read(log: &Log) -> usize {
    let mut consumer = log.consumer("t").from(Position::Start).until(Position::End).build().await.unwrap();
    let mut count = 0;
    while let Some(message) = consumer.next_message().await {
        message.unwrap();
        count += 1;
    }
    count
}

async fn chain(store: &Store, era: u16) -> Vec<Item> {
    let pk = format!("{era:04x}/0000");
    store.table.range(&pk, 1, 1_000, Consistency::Strong).await.unwrap().value.items
}

async fn delete(store: &Store, prefix: &str) {
    let listed: Vec<_> = store.objects.store().list(Some(&prefix.into())).try_collect().await.unwrap();
    store.objects.store().delete(&listed[0].location).await.unwrap();
}

#[tokio::test]
async fn a_log_goes_on_in_a_new_era() {
    let (store, old, records) = copy().await;
    let restored = run(&store, 1, Options::default()).await.unwrap();
    assert_eq!(restored.begins, restored.commits);
    assert_eq!(chain(&store, 0).await, chain(&store, 1).await);

    let new = open(&store, 1).await.unwrap();
    assert_eq!(read(&new).await, records);
    append(&new, 0).await;
    assert_eq!(read(&new).await, records + 10);
    new.ledger().checkpoint().await.unwrap();
    let report = verify(&of_era(&store, 1), |_, _| {}).await.unwrap();
    assert_eq!(report.damage, []);

    // Nobody goes on in the old era: who was there is stopped by its next look, who comes is refused.
    let refused = old.admin().create_topic("u", 1, &[]).await.unwrap_err();
    assert!(refused.to_string().contains("add era=1"), "{refused}");
    let refused = open(&store, 0).await.unwrap_err();
    assert!(refused.to_string().contains("add era=1"), "{refused}");

    let again = run(&store, 1, Options::default()).await.unwrap();
    assert_eq!((again.begins, again.commits, again.report), (restored.begins, 0, None));

    // And once more, from there.
    let third = run(&of_era(&store, 1), 2, Options::default()).await.unwrap();
    assert!(third.begins > restored.begins);
    assert_eq!(read(&open(&store, 2).await.unwrap()).await, records + 10);
}

#[tokio::test]
async fn a_restore_that_ended_anywhere_is_refused_and_goes_on() {
    let (store, _, records) = copy().await;
    let scratch = run(&store, 1, Options::default()).await.unwrap();
    let whole = chain(&store, 1).await;
    for copied in 0..whole.len() {
        let (store, _, _) = copy().await;
        // What a killed run leaves: the old chain ended, and some of the slots, in any order.
        let env = SystemEnv::shared();
        let make = |era| {
            let (table, objects) = (store.table.clone(), store.objects.clone());
            Chain::new(table, objects, env.clone(), era, Settings::default(), Arc::new(()))
        };
        let killed = Restore { store: &store, from: make(0), to: make(1) };
        let end = killed.end().await.unwrap();
        let some = chain(&store, 0).await.into_iter().filter(|item| item.sk < end.slot).take(copied);
        killed.put_commits(some.collect()).await.unwrap();
        if copied > 0 {
            let refused = open(&store, 1).await.unwrap_err().to_string();
            assert!(refused.contains("un it again"), "{refused}");
        }
        let (one, two) = tokio::join!(run(&store, 1, Options::default()), run(&store, 1, Options::default()));
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!((one.begins, two.begins), (scratch.begins, scratch.begins));
        assert_eq!(chain(&store, 0).await, chain(&store, 1).await);
        assert_eq!(read(&open(&store, 1).await.unwrap()).await, records);
    }
}

#[tokio::test]
async fn what_is_missing_is_told_and_nothing_written() {
    let (store, _, records) = copy().await;
    delete(&store, "l0").await;
    let before = chain(&store, 0).await;
    for options in [Options::default(), Options { dry_run: true, accept_loss: true }] {
        let told = run(&store, 1, options).await.unwrap();
        let damage = told.report.unwrap().damage;
        assert_eq!((told.begins, damage.len()), (0, 1));
        assert!(damage[0].detail.contains("missing") && !damage[0].touches.is_empty());
        assert_eq!((chain(&store, 0).await, chain(&store, 1).await), (before.clone(), vec![]));
    }
    let accept = Options { accept_loss: true, dry_run: false };
    assert!(run(&store, 1, accept).await.unwrap().begins > 0);
    let log = open(&store, 1).await.unwrap();
    append(&log, 0).await;
    assert_eq!(log.fetcher().watermarks("t", 0).await.unwrap().1 as usize, (records + 10) / 2);
}

#[tokio::test]
async fn without_its_checkpoint_a_log_cannot_go_on() {
    let (store, log, _) = copy().await;
    let newest = log.ledger().chain().view(|view| view.checkpoint).unwrap().unwrap();
    store.objects.store().delete(&ObjectName::from(&newest.name).path()).await.unwrap();
    let told = run(&store, 1, Options::default()).await.unwrap();
    assert!(told.report.unwrap().damage[0].what.starts_with("ckpt/"));
    let refused = run(&store, 1, Options { accept_loss: true, dry_run: false }).await.unwrap_err();
    assert!(matches!(refused, Error::Damaged { .. }), "{refused}");
    assert_eq!(chain(&store, 1).await, []);
}

#[tokio::test]
async fn eras_that_cannot_be_are_refused() {
    let (store, log, _) = copy().await;
    let refused = run(&store, 0, Options::default()).await.unwrap_err();
    assert!(refused.to_string().contains("not after"), "{refused}");
    let refused = run(&of_era(&store, 3), 4, Options::default()).await.unwrap_err();
    assert!(refused.to_string().contains("no log of era 3"), "{refused}");

    // Another log's chain.
    Log::with_store(of_era(&store, 7), SystemEnv::shared(), true, Settings::default()).await.unwrap();
    let refused = run(&store, 7, Options::default()).await.unwrap_err();
    assert!(refused.to_string().contains("era is invalid: 7 is taken"), "{refused}");

    // Objects of another restore, whose table is elsewhere.
    let checkpoint = ObjectName::Checkpoint { era: 8, ledger: 0, at: 1, ulid: crate::objects::Ulid(1) };
    store.objects.put_new(&checkpoint, "x").await.unwrap();
    let refused = run(&store, 8, Options::default()).await.unwrap_err();
    assert!(refused.to_string().contains("8 is taken: ckpt/0008/"), "{refused}");

    append(&log, 0).await;
    run(&store, 9, Options::default()).await.unwrap();
    let refused = run(&store, 10, Options::default()).await.unwrap_err();
    assert!(refused.to_string().contains("goes on in era 9"), "{refused}");
}
