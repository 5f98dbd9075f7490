use super::*;
use crate::batch::RowsBuilder;
use crate::ledger::action::{Data, LEDGER, ObjectRef};
use crate::ledger::decide::{AppendProposal, BatchProposal};
use crate::segment::{Compression, SegmentSlice, encode};

#[tokio::test(flavor = "multi_thread")]
async fn merge_changes_no_record_and_no_offset() {
    for config in [&[][..], &[("message.timestamp.type", "LogAppendTime")]] {
        let world = World::new(config).await;
        for hour in 0..3 {
            for partition in [0, 1] {
                world.flush_at(partition, world.clock.now_ms() - hour * 7).await;
                inline(&world, partition).await;
            }
            world.clock.pass(HOUR);
        }
        let before = [all(&world, 0).await, all(&world, 1).await];
        assert_eq!(before[0].len(), 33);
        let times: Vec<i64> = before[0].iter().map(|record| record.timestamp_us).collect();
        let found = async |time_us: i64| world.log.fetcher().offset_at("t", 0, time_us).await.unwrap();
        let mut wanted = Vec::new();
        for time in &times {
            wanted.push((found(*time).await, found(time + 1).await));
        }
        let merged = world.upkeep().merge(true, |_, _| {}).await.unwrap();
        assert_eq!((merged.folds, merged.objects, merged.rows, merged.records), (1, 3, 6, 66), "{merged:?}");
        assert_eq!(merged.damage, Vec::<String>::new());
        assert_eq!([all(&world, 0).await, all(&world, 1).await], before);
        for (time, wanted) in times.iter().zip(wanted) {
            assert_eq!((found(*time).await, found(time + 1).await), wanted, "time {time}");
        }
        let again = world.upkeep().merge(true, |_, _| {}).await.unwrap();
        assert_eq!(again, Merged::default(), "there is nothing left");
        // What comes later goes on where the merged ends.
        world.flush(0).await;
        assert_eq!(all(&world, 0).await.len(), 43);
        let hours: Vec<_> =
            world.paths().await.into_iter().filter(|path| path.starts_with("topics/t/")).collect();
        assert_eq!(hours.len(), 3, "{hours:?}");
        let cold =
            Log::with_store(world.log.store().clone(), world.clock.clone(), false, Settings::default());
        let fetched =
            cold.await.unwrap().fetcher().fetch("t", 1, 32, crate::fetch::FetchLimits::default()).await;
        assert_eq!(
            fetched.unwrap().records().next().as_ref(),
            before[1].last(),
            "a process that begins cold"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_due_is_merged() {
    let world = World::new(&[]).await;
    world.flush(0).await;
    assert_eq!(world.upkeep().merge(false, |_, _| {}).await.unwrap().folds, 0, "it is young");
    world.clock.pass(limits::MERGE_AGE_MS_MAX - SECOND);
    assert_eq!(world.upkeep().merge(false, |_, _| {}).await.unwrap().folds, 0, "and little");
    world.clock.pass(2 * SECOND);
    assert_eq!(world.upkeep().merge(false, |_, _| {}).await.unwrap().folds, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_holds_up_its_own_partition_alone() {
    let world = World::new(&[]).await;
    for partition in [0, 1, 0] {
        world.flush(partition).await;
    }
    let mut segments: Vec<_> =
        world.paths().await.into_iter().filter(|path| path.starts_with("l0/")).collect();
    segments.sort();
    let path = Path::from(segments[2].as_str());
    let mut bytes = world.counts.get(&path).await.unwrap().bytes().await.unwrap().to_vec();
    bytes[200] ^= 1;
    world.counts.put(&path, bytes.into()).await.unwrap();
    let merged = world.upkeep().merge(true, |_, _| {}).await.unwrap();
    assert_eq!((merged.folds, merged.records), (1, 20), "{merged:?}");
    assert!(merged.damage.len() == 1 && merged.damage[0].contains(&segments[2]), "{merged:?}");
    assert_eq!(all(&world, 1).await.len(), 10);
    // Gone is damaged, too.
    world.counts.delete(&path).await.unwrap();
    let merged = world.upkeep().merge(true, |_, _| {}).await.unwrap();
    assert!(merged.folds == 0 && merged.damage.len() == 1, "{merged:?}");
    assert!(merged.damage[0].contains("is not there"), "{merged:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_merges_at_once_are_one() {
    let world = World::new(&[]).await;
    for _ in 0..5 {
        world.flush(0).await;
        world.flush(1).await;
    }
    let (one, other) = (world.upkeep(), world.upkeep());
    let (one, other) = tokio::join!(one.merge(true, |_, _| {}), other.merge(true, |_, _| {}));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.records + other.records, 100, "{one:?} {other:?}");
    assert_eq!((all(&world, 0).await.len(), all(&world, 1).await.len()), (50, 50));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_during_a_run_is_for_the_next() {
    let world = World::new(&[]).await;
    world.flush(0).await;
    let mut came = false;
    let come = |_, _| {
        if !std::mem::replace(&mut came, true) {
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(world.flush(0)));
        }
    };
    assert_eq!(world.upkeep().merge(true, come).await.unwrap().records, 10);
    assert_eq!((world.merge().await.records, all(&world, 0).await.len()), (10, 20));
}

/// More topics than one fold has ranges for: each gets one file of all its slices, by as few folds as they fit into.
#[tokio::test(flavor = "multi_thread")]
async fn many_topics_are_merged_by_few_folds_and_a_file_each() {
    let world = World::new(&[]).await;
    let names: Vec<String> = (0..700).map(|n| format!("topic-{n}")).collect();
    for name in &names {
        world.log.admin().create_topic(name, 1, &[]).await.unwrap();
    }
    for _ in 0..3 {
        let producer = world.log.producer().inline_bytes_max(0).build().unwrap();
        for name in &names {
            producer.enqueue(name, None, Record::keyed("k", "v"), None).await.unwrap();
        }
        producer.close().await.unwrap();
    }
    let merged = world.merge().await;
    assert_eq!(
        (merged.folds, merged.objects, merged.records, merged.rows),
        (3, 700, 2_100, 700),
        "{merged:?}"
    );
    assert_eq!(world.merged().await.len(), 700);
    // And those of one topic: some more in its second file.
    world.log.admin().create_topic("wide", 400, &[]).await.unwrap();
    let producer = world.log.producer().inline_bytes_max(0).build().unwrap();
    for partition in 0..400 {
        producer.enqueue("wide", Some(partition), Record::value("v"), None).await.unwrap();
    }
    producer.close().await.unwrap();
    let merged = world.merge().await;
    assert_eq!((merged.folds, merged.objects, merged.records), (2, 2, 400), "{merged:?}");
    let report = world.verify().await;
    assert!(report.damage.is_empty(), "{report:?}");
}

impl World {
    /// Three records in a segment of their own, of which the commit says another sum.
    async fn flush_with_another_sum(&self, partition: u32) {
        let (ledger, id) = (self.log.ledger(), self.log.admin().describe_topic("t").await.unwrap().id);
        let mut rows = RowsBuilder::new();
        (0..3).for_each(|n| rows.push(n, None, Some(b"value"), &[]).unwrap());
        let rows = rows.finish();
        let sum = rows.sum(id, partition, 0, 3).shifted(1);
        let encoded = encode(&[SegmentSlice { topic: "t", partition, rows }], Compression::None).unwrap();
        let object =
            ObjectRef { era: 0, ledger: LEDGER, drawn: ledger.chain.slot(), ulid: u128::from(partition) + 7 };
        ledger.chain.objects.put_new(&ObjectName::from(&object), encoded.bytes).await.unwrap();
        let data = Data::Object { object, layout: encoded.layout };
        let (topic, identity) = (id, None);
        let batch = BatchProposal {
            topic,
            partition,
            group: 0,
            first_row: 0,
            rows: 3,
            time_us: (0, 2),
            sum,
            identity,
        };
        ledger.append(AppendProposal { data, batches: vec![batch] }).await.unwrap();
    }
}

/// L8: every CRC is right, and yet it is not what was committed.
#[tokio::test(flavor = "multi_thread")]
async fn records_of_another_sum_are_named_and_the_others_merged() {
    let world = World::new(&[]).await;
    world.flush(0).await;
    world.flush_with_another_sum(0).await;
    world.flush(1).await;
    let merged = world.merge().await;
    assert_eq!((merged.folds, merged.records), (1, 20), "{merged:?}");
    assert_eq!(merged.damage.len(), 1, "{merged:?}");
    assert!(merged.damage[0].contains("the records are not those of the commit"), "{merged:?}");
}

/// A topic that is made anew under its name has nothing of the one before, though that one's index rows are still there.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_has_nothing_of_the_one_before() {
    a_name_twice(&World::new(&[]).await).await;
}

pub(super) async fn a_name_twice(world: &World) {
    // Two rows: at offsets 0 and 10.
    for _ in 0..2 {
        world.flush(0).await;
        world.merge().await;
    }
    world.log.admin().delete_topic("t").await.unwrap();
    world.log.admin().create_topic("t", 2, &[]).await.unwrap();
    let producer = world.log.producer().inline_bytes_max(0).build().unwrap();
    for n in 0..20u8 {
        producer.enqueue("t", Some(0), Record::value(vec![n]), None).await.unwrap();
    }
    producer.close().await.unwrap();
    world.merge().await;
    // Each by itself: the row of the one before would be the nearest to some.
    for at in 0..20u8 {
        let limits = crate::fetch::FetchLimits::default();
        let fetched = world.log.fetcher().fetch("t", 0, u64::from(at), limits).await.unwrap();
        assert_eq!(fetched.records().next().unwrap().value.unwrap(), vec![at]);
    }
}
