use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn rewrite_changes_no_record_and_no_offset() {
    for config in [&[][..], &[("message.timestamp.type", "LogAppendTime")]] {
        let world = World::new(config).await;
        let id = world.log.admin().describe_topic("t").await.unwrap().id;
        // On the hour, so that all of it is one.
        world.clock.pass(HOUR - world.clock.now_ms() % HOUR);
        for n in 0..5 {
            world.flush_at(0, world.clock.now_ms() - n * 7).await;
            if n % 2 == 0 {
                world.flush(1).await;
                inline(&world, 1).await;
            }
            world.merge().await;
            world.clock.pass(SECOND);
        }
        let before = [all(&world, 0).await, all(&world, 1).await];
        assert_eq!((before[0].len(), before[1].len()), (50, 33));
        let found = async |time_us: i64| world.log.fetcher().offset_at("t", 0, time_us).await.unwrap();
        let mut wanted = Vec::new();
        for record in &before[0] {
            wanted.push((record.timestamp_us, found(record.timestamp_us).await));
        }
        let small = world.merged().await;
        assert_eq!(small.len(), 5);
        let upkeep = world.upkeep();
        assert_eq!(
            upkeep.rewrite(false, |_| {}).await.unwrap(),
            Rewritten::default(),
            "the hour is not known"
        );
        let rewritten = upkeep.rewrite(true, |_| {}).await.unwrap();
        assert_eq!((rewritten.replaced, rewritten.objects, rewritten.records), (5, 1, 83), "{rewritten:?}");
        assert_eq!([all(&world, 0).await, all(&world, 1).await], before);
        for (time_us, wanted) in wanted {
            assert_eq!(found(time_us).await, wanted, "time {time_us}");
        }
        assert_eq!(upkeep.rewrite(true, |_| {}).await.unwrap(), Rewritten::default(), "one is left");
        let report = world.verify().await;
        assert_eq!((report.damage, report.records, report.merged, report.rows), (vec![], 83, 1, 8));
        // What was replaced stays for an hour, and then goes; nothing else does.
        world.clock.pass(HOUR - SECOND);
        let merged = |deleted: Vec<Deletion>| {
            let l1 = deleted.into_iter().filter(|d| matches!(d.name, ObjectName::L1 { .. }));
            let mut names: Vec<_> = l1.map(|d| d.name.to_string()).collect();
            names.sort();
            names
        };
        assert_eq!(merged(world.sweep().await.1), Vec::<String>::new());
        world.clock.pass(2 * SECOND);
        // A floor above them needs a commit that is old enough.
        world.flush(0).await;
        world.clock.pass(16 * 60 * SECOND);
        assert_eq!(merged(world.sweep().await.1), small);
        assert_eq!(all(&world, 1).await, before[1]);
        // Rows of one range go together, once all of it is below the log start.
        let admin = world.log.admin();
        admin.delete_records("t", Some(&[1]), Position::Offset(32)).await.unwrap();
        let keeps_nothing =
            world.log.upkeep(UpkeepSettings { sweep_lag_ms: 0, read_lag_ms: 0, ..UpkeepSettings::default() });
        assert_eq!(keeps_nothing.trim_rows().await.unwrap(), 0, "one record is left");
        admin.delete_records("t", Some(&[1]), Position::End).await.unwrap();
        assert_eq!(keeps_nothing.trim_rows().await.unwrap(), 3);
        assert_eq!((world.index(id, 0).await, world.index(id, 1).await), (5, 0));
    }
}

/// Who merges knows the hours, and rewrites them once they are over.
#[tokio::test(flavor = "multi_thread")]
async fn an_hour_is_rewritten_when_it_is_over() {
    let world = World::new(&[("merge.max.age.ms", "1000")]).await;
    world.clock.pass(HOUR - world.clock.now_ms() % HOUR);
    let upkeep = world.upkeep();
    for _ in 0..4 {
        world.flush(0).await;
        world.clock.pass(2 * SECOND);
        let run = upkeep.run(|_| {}).await.unwrap();
        assert_eq!((run.merged.folds, run.rewritten.objects), (1, 0));
    }
    world.clock.pass(HOUR);
    world.flush(0).await;
    let run = upkeep.run(|_| {}).await.unwrap();
    assert_eq!((run.rewritten.replaced, run.rewritten.objects), (4, 1), "{run:?}");
    let slot = world.log.ledger().chain().slot();
    let run = upkeep.run(|_| {}).await.unwrap();
    assert_eq!((run.rewritten, world.log.ledger().chain().slot()), (Rewritten::default(), slot));
    // Another process finds such hours when it looks at all there is.
    for _ in 0..4 {
        world.flush(0).await;
        world.merge().await;
        world.clock.pass(2 * SECOND);
    }
    world.clock.pass(HOUR);
    let other = world.upkeep();
    other.run_whole(|_| {}).await.unwrap();
    let run = other.run(|_| {}).await.unwrap();
    assert_eq!((run.rewritten.replaced, run.rewritten.objects), (4, 1), "{run:?}");
    assert_eq!(world.verify().await.damage, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_not_rewritten_and_nothing_is_lost() {
    let world = World::new(&[]).await;
    world.clock.pass(HOUR - world.clock.now_ms() % HOUR);
    for _ in 0..3 {
        world.flush(0).await;
        world.merge().await;
        world.clock.pass(SECOND);
    }
    let path = Path::from(world.merged().await[1].as_str());
    let whole = world.counts.get(&path).await.unwrap().bytes().await.unwrap();
    let mut bytes = whole.to_vec();
    bytes[100] ^= 1;
    world.counts.put(&path, bytes.into()).await.unwrap();
    let slot = world.log.ledger().chain().slot();
    let rewritten = world.upkeep().rewrite(true, |_| {}).await.unwrap();
    assert_eq!((rewritten.objects, rewritten.damage.len()), (0, 1), "{rewritten:?}");
    assert!(rewritten.damage[0].contains(path.as_ref()), "{rewritten:?}");
    assert_eq!(world.log.ledger().chain().slot(), slot, "nothing was committed");
    world.counts.put(&path, whole.into()).await.unwrap();
    assert_eq!(world.upkeep().rewrite(true, |_| {}).await.unwrap().replaced, 3);
    assert_eq!(all(&world, 0).await.len(), 30);
}

/// Five merged segments of one hour, and what is in them.
async fn five(world: &World) -> Vec<crate::ConsumerRecord> {
    world.clock.pass(HOUR - world.clock.now_ms() % HOUR);
    for _ in 0..5 {
        world.flush(0).await;
        world.merge().await;
        world.clock.pass(SECOND);
    }
    all(world, 0).await
}

const IN_PARTS: UpkeepSettings = UpkeepSettings {
    sweep_lag_ms: limits::SWEEP_LAG_MS,
    read_lag_ms: limits::READ_LAG_MS,
    part_bytes: 1_000,
    list_page: limits::LIST_PAGE,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rewrite_makes_is_sent_in_parts() {
    let world = World::new(&[("compression.type", "none")]).await;
    let before = five(&world).await;
    let counted = world.counts.counts();
    let rewritten = world.log.upkeep(IN_PARTS).rewrite(true, |_| {}).await.unwrap();
    assert_eq!((rewritten.replaced, rewritten.objects, rewritten.records), (5, 1, 50), "{rewritten:?}");
    let counted = world.counts.counts().since(&counted);
    assert_eq!(counted.bytes_put, rewritten.bytes);
    assert_eq!(counted.puts, rewritten.bytes.div_ceil(1_000) + 2, "begun, in parts, and completed");
    assert_eq!(all(&world, 0).await, before);
    let report = world.verify().await;
    assert_eq!((report.damage, report.records, report.merged), (vec![], 50, 1));
}

/// Whichever request of an upload fails: what was there stays, and is rewritten by the next run.
#[tokio::test(flavor = "multi_thread")]
async fn a_rewrite_whose_upload_fails_changes_nothing() {
    use crate::objects::tests::{Fault, Faulty};
    let world = World::new(&[("compression.type", "none")]).await;
    let before = five(&world).await;
    let small = world.merged().await;
    let slot = world.log.ledger().chain().slot();
    let through = async |faults: &[Fault]| {
        let mut store = world.log.store().clone();
        store.objects = store.objects.wrapped(|inner| Arc::new(Faulty::new(inner, faults)));
        let other = Log::with_store(store, world.clock.clone(), true, Settings::default()).await.unwrap();
        other.upkeep(IN_PARTS).rewrite(true, |_| {}).await
    };
    // Five footers and five row groups are read first. Then it is begun, sent in parts, looked for, completed, and read back.
    let parts = 54;
    for at in (10..11 + parts).step_by(9).chain(11 + parts..11 + parts + 4) {
        let mut faults = vec![Fault::None; at];
        // As often as any request is tried.
        faults.extend(vec![Fault::Fails; limits::OBJECT_ATTEMPTS_MAX as usize]);
        let error = through(&faults).await.unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Retry, "{at}: {error}");
        assert_eq!(world.log.ledger().chain().slot(), slot, "{at}");
    }
    assert_eq!(all(&world, 0).await, before);
    // Other bytes than were sent are found, and it is made again.
    let mut faults = vec![Fault::None; 20];
    faults.push(Fault::Flipped);
    let objects = world.merged().await.len();
    let rewritten = through(&faults).await.unwrap();
    assert_eq!(
        (rewritten.replaced, rewritten.objects, rewritten.bytes.div_ceil(1_000)),
        (5, 1, parts as u64)
    );
    assert_eq!(world.merged().await.len(), objects + 2);
    assert_eq!(all(&world, 0).await, before);
    assert_eq!(world.verify().await.damage, []);
    // What came of the others is named by nobody, and goes.
    world.clock.pass(2 * HOUR);
    world.flush(0).await;
    world.clock.pass(2 * HOUR);
    world.sweep().await;
    let left = world.merged().await;
    assert_eq!((left.len(), left.iter().any(|path| small.contains(path))), (1, false), "{left:?}");
}
