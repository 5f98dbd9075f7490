use std::collections::BTreeSet;

use parquet::file::reader::{FileReader, SerializedFileReader};

use super::*;
use crate::objects::tests::{Fault, Faulty};

/// R3 for merged segments: what a row names stays, what nothing names goes.
#[tokio::test(flavor = "multi_thread")]
async fn merged_segments_stay_while_a_row_names_them() {
    let world = World::new(&[]).await;
    let (id, _) = world.log.admin().describe_topic("t").await.map(|t| (t.id, t.name)).unwrap();
    for _ in 0..2 {
        world.flush(0).await;
        world.flush(1).await;
        world.merge().await;
        world.clock.pass(HOUR);
    }
    let named = world.merged().await;
    assert_eq!(named.len(), 2, "{named:?}");
    let slot = world.log.ledger().chain().slot();
    let orphan = l1("t", id, 3, 1);
    let others = [
        l1("t", id, slot + 9, 2),
        format!("topics/t/{id}/date=2026-11-26/hour=04/notes.txt"),
        format!(
            "topics/t/{id}/date=2026-02-30/hour=04/0000.0000.0000000000000003.00000000000000000000000001.parquet"
        ),
    ];
    for path in others.iter().chain([&orphan]) {
        world.put(path).await;
    }
    let (swept, deleted) = world.sweep().await;
    let l1s: Vec<_> = deleted.iter().filter(|d| matches!(d.name, ObjectName::L1 { .. })).collect();
    assert_eq!(l1s.iter().map(|d| d.name.to_string()).collect::<Vec<_>>(), [orphan], "{swept:?}");
    assert!(matches!(l1s[0].why, Reason::Orphan { .. }), "{deleted:?}");
    // Both partitions end in the first hour's segment; of the second hour one record of partition 1 is left.
    world.log.admin().delete_records("t", Some(&[0]), Position::End).await.unwrap();
    world.log.admin().delete_records("t", Some(&[1]), Position::Offset(19)).await.unwrap();
    let upkeep = world.upkeep();
    assert_eq!(upkeep.trim_rows().await.unwrap(), 0, "an hour for readers");
    world.clock.pass(HOUR - SECOND);
    let requests = world.log.ledger().chain().slot();
    assert_eq!(upkeep.trim_rows().await.unwrap(), 0, "not yet");
    assert_eq!(world.sweep().await.1.len(), 0, "rows that wait name what they named");
    world.clock.pass(2 * SECOND);
    assert_eq!(upkeep.trim_rows().await.unwrap(), 3);
    assert_eq!((world.index(id, 0).await, world.index(id, 1).await), (0, 1));
    assert_eq!(world.log.ledger().chain().slot(), requests, "no commit");
    let (_, deleted) = world.sweep().await;
    assert_eq!(deleted.iter().map(|d| d.name.to_string()).collect::<Vec<_>>(), named[..1]);
    assert_eq!(all(&world, 1).await.len(), 1);
    let report = world.verify().await;
    assert_eq!((report.damage, report.records, report.merged, report.rows), (vec![], 10, 1, 1));
    // All of it, when the topic goes.
    world.log.admin().delete_topic("t").await.unwrap();
    world.clock.pass(HOUR);
    let (_, deleted) = world.sweep().await;
    assert_eq!(deleted.iter().map(|d| d.name.to_string()).collect::<Vec<_>>(), named[1..]);
    assert!(deleted.iter().all(|d| d.why == Reason::TopicDeleted), "{deleted:?}");
    assert_eq!(world.index(id, 1).await, 0, "its rows, too");
    let mut left = world.merged().await;
    let mut others = others.to_vec();
    others.sort();
    left.sort();
    assert_eq!(left, others);
}

/// What a commit let go, and what the rows named that were deleted, goes without a listing; what else names it keeps it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_let_go_is_deleted_by_name() {
    let world = World::new(&[]).await;
    let id = world.log.admin().describe_topic("t").await.unwrap().id;
    world.clock.pass(HOUR - world.clock.now_ms() % HOUR);
    let mut hours = Vec::new();
    for _ in 0..3 {
        for partition in [0, 1] {
            world.flush(partition).await;
            world.merge().await;
        }
        assert_eq!(world.upkeep().rewrite(true, |_| {}).await.unwrap().objects, 1);
        hours.extend(world.merged().await.pop());
        world.clock.pass(HOUR);
    }
    let orphans = [l0(0, 0, 1), l1("t", id, 3, 1)];
    for path in &orphans {
        world.put(path).await;
    }
    let upkeep = world.upkeep();
    let sweep = async |upkeep: &Upkeep| {
        let (mut deleted, before) = (Vec::new(), world.counts.counts());
        let swept =
            upkeep.sweep(Sweep::LetGo, |deletion| deleted.push(deletion.name.to_string())).await.unwrap();
        assert_eq!((swept.whole, swept.objects), (false, deleted.len() as u64));
        deleted.sort();
        (deleted, world.counts.counts().since(&before).lists)
    };
    // Six small segments were merged and those rewritten two by two; the last hour's are kept for an hour yet.
    let (deleted, lists) = sweep(&upkeep).await;
    let count = |kind: &str| deleted.iter().filter(|name| name.starts_with(kind)).count();
    assert_eq!((deleted.len(), count("l0/"), count("topics/")), (12, 6, 6), "{deleted:?}");
    assert_eq!(lists, 1, "of checkpoints");
    assert_eq!(world.merged().await.len(), 3 + 1, "and the orphan");
    assert_eq!(all(&world, 1).await.len(), 30);
    // A large segment that another partition still needs.
    world.log.admin().delete_records("t", Some(&[0]), Position::End).await.unwrap();
    assert_eq!(upkeep.trim_rows().await.unwrap(), 0, "an hour for readers");
    world.clock.pass(HOUR);
    assert_eq!(upkeep.trim_rows().await.unwrap(), 3);
    assert_eq!(sweep(&upkeep).await, (vec![], 0));
    assert_eq!(all(&world, 1).await.len(), 30);
    world.log.admin().delete_records("t", Some(&[1]), Position::Offset(20)).await.unwrap();
    upkeep.trim_rows().await.unwrap();
    world.clock.pass(HOUR);
    assert_eq!(upkeep.trim_rows().await.unwrap(), 2);
    // Out of time after one request: the next run still knows what it was about to delete.
    let others =
        (0..limits::DELETES_PER_REQUEST as u128).map(|ulid| ObjectRef { era: 0, ledger: 0, drawn: 1, ulid });
    upkeep.memory().let_go.extend(others.map(|object| (object, None)));
    let hurried = upkeep.clone().within(Duration::ZERO);
    hurried.begin();
    let swept = hurried.sweep(Sweep::LetGo, |_| {}).await.unwrap();
    assert_eq!((swept.objects, swept.more), (1_000, true));
    upkeep.begin();
    assert_eq!(sweep(&upkeep).await, (hours[..2].to_vec(), 0));
    assert_eq!(sweep(&upkeep).await, (vec![], 0));
    assert_eq!(all(&world, 1).await.len(), 10);
    assert_eq!(world.verify().await.damage, []);
    // What nothing ever named is found by whoever looks at all there is.
    assert_eq!(world.sweep().await.1.iter().map(|d| d.name.to_string()).collect::<Vec<_>>(), orphans);
}

/// A topic that is deleted while a sweep goes on: a listing finds its merged segments, and deletes its rows with them.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_let_go_of_a_topic_that_is_deleted_meanwhile_waits_for_a_listing() {
    let world = World::new(&[]).await;
    let id = world.log.admin().describe_topic("t").await.unwrap().id;
    for partition in [0, 1] {
        world.flush(partition).await;
    }
    world.merge().await;
    world.clock.pass(HOUR);
    world.log.admin().delete_records("t", Some(&[0]), Position::End).await.unwrap();
    let upkeep = world.upkeep();
    upkeep.trim_rows().await.unwrap();
    world.clock.pass(HOUR);
    assert_eq!(upkeep.trim_rows().await.unwrap(), 1);
    let other = Log::with_store(world.log.store().clone(), world.clock.clone(), true, Settings::default());
    other.await.unwrap().admin().delete_topic("t").await.unwrap();
    // Its view is older than the deletion; the floor that it commits is behind it.
    let swept = upkeep.sweep_in_view(Sweep::LetGo, |_| {}).await.unwrap();
    assert_eq!((swept.objects, world.merged().await.len(), world.index(id, 1).await), (2, 1, 1));
    world.sweep().await;
    assert_eq!((world.merged().await, world.index(id, 1).await), (vec![], 0));
}

/// R3: the rows of an hour, without those of others.
#[tokio::test(flavor = "multi_thread")]
async fn the_rows_of_an_hour_are_found_among_all() {
    let world = World::new(&[]).await;
    let id = world.log.admin().describe_topic("t").await.unwrap().id;
    world.clock.pass(HOUR - world.clock.now_ms() % HOUR);
    let first = u32::try_from(world.clock.now_ms() / HOUR).unwrap();
    // Hours of none, of one and of more segments, which some are rewritten of, and partition 1 has not all of them.
    for (hour, segments) in [1, 3, 0, 2, 1, 0, 0, 4, 1, 2].into_iter().enumerate() {
        for _ in 0..segments {
            world.flush(0).await;
            if hour % 3 == 0 {
                world.flush(1).await;
            }
            world.merge().await;
        }
        if hour == 3 || hour == 7 {
            assert!(world.upkeep().rewrite(true, |_| {}).await.unwrap().objects > 0);
        }
        world.clock.pass(HOUR);
    }
    let upkeep = world.upkeep();
    for log_start in [0, 35, 1_000] {
        let end = world.log.fetcher().watermarks("t", 0).await.unwrap().1;
        let to = Position::Offset(end.min(log_start));
        world.log.admin().delete_records("t", Some(&[0]), to).await.unwrap();
        upkeep.trim_rows().await.unwrap();
        world.clock.pass(HOUR + SECOND);
        upkeep.trim_rows().await.unwrap();
        let mut found = BTreeSet::new();
        for hour in first - 1..first + 12 {
            let mut wanted = BTreeSet::new();
            for partition in [0, 1] {
                let mut pages = RowPages::new(id, partition, 0);
                while let Some(rows) = upkeep.ledger.chain.next_rows(&mut pages).await.unwrap() {
                    let of_hour = rows.into_iter().filter(|stored| stored.row.object.hour == hour);
                    wanted.extend(of_hour.map(|stored| stored.row.object.object));
                }
            }
            let named = upkeep.named_by_rows((id, Some(hour))).await.unwrap().unwrap();
            assert_eq!(named, wanted, "hour {hour}");
            found.extend(wanted);
        }
        assert_eq!(Some(found), upkeep.named_by_rows((id, None)).await.unwrap());
    }
    world.log.admin().delete_topic("t").await.unwrap();
    assert_eq!(upkeep.named_by_rows((id, Some(first))).await.unwrap(), None, "nobody knows");
}

/// No CRC is known of the end of a file whose topic is gone.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_deleted_topic_go_though_a_bit_flips_on_the_way() {
    let world = World::new(&[]).await;
    let id = world.log.admin().describe_topic("t").await.unwrap().id;
    world.flush(0).await;
    world.merge().await;
    assert_eq!(world.index(id, 0).await, 1);
    world.log.admin().delete_topic("t").await.unwrap();
    world.clock.pass(2 * HOUR);
    let mut store = world.log.store().clone();
    store.objects = store.objects.wrapped(|inner| Arc::new(Faulty::new(inner, &[Fault::Flipped])));
    let other = Log::with_store(store, world.clock.clone(), true, Settings::default()).await.unwrap();
    other.upkeep(UpkeepSettings::default()).sweep(Sweep::Whole, |_| {}).await.unwrap();
    assert_eq!((world.merged().await, world.index(id, 0).await), (Vec::new(), 0));
}

#[tokio::test]
async fn a_folder_keeps_no_folder_of_a_deleted_topic() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path().to_str().unwrap()).await.unwrap();
    for topic in ["t", "u"] {
        log.admin().create_topic(topic, 1, &[]).await.unwrap();
        log.producer().build().unwrap().send(topic, Record::value("x")).await.unwrap();
    }
    let upkeep = log.upkeep(UpkeepSettings { sweep_lag_ms: 0, read_lag_ms: 0, ..UpkeepSettings::default() });
    upkeep.merge(true, |_, _| {}).await.unwrap();
    log.admin().delete_topic("t").await.unwrap();
    assert_eq!(upkeep.sweep(Sweep::Whole, |_| {}).await.unwrap().objects, 1);
    let left = |topic: &str| std::fs::read_dir(folder.path().join("topics").join(topic)).unwrap().count();
    assert_eq!((left("t"), left("u")), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_and_its_brake_look_at_merged_records() {
    let world = World::new(&[("retention.ms", "10800000")]).await;
    for _ in 0..6 {
        world.flush(0).await;
        world.merge().await;
        world.clock.pass(HOUR);
    }
    world.flush(0).await;
    let upkeep = world.upkeep();
    let (run, _) = world.run().await;
    let trims = |run: &Run| run.trimmed.iter().map(|t| (t.from, t.to)).collect::<Vec<_>>();
    assert_eq!(trims(&run), [(0, 30)], "appended six to four hours ago, without a leap of time");
    // Who saw that nothing is old does not ask again until something is.
    assert_eq!(upkeep.overdue().await.unwrap(), Overdue::default());
    let rows = || world.log.ledger().chain().slot();
    let before = rows();
    assert_eq!(upkeep.overdue().await.unwrap(), Overdue::default());
    assert_eq!(rows(), before);
    world.clock.pass(HOUR);
    let overdue = upkeep.overdue().await.unwrap();
    assert_eq!(overdue.trims.iter().map(|t| (t.from, t.to)).collect::<Vec<_>>(), [(30, 40)]);
    // A leap makes the rest old: that waits.
    world.clock.pass(30 * DAY);
    let overdue = upkeep.overdue().await.unwrap();
    assert_eq!((overdue.trims.len(), overdue.held.len(), overdue.held[0].to), (0, 1, 70));
}

/// The view knows when the oldest records of each partition were appended, so nobody need look who was not there before; and
/// whatever was merged, rewritten, trimmed or emptied meanwhile, what is old goes as soon as it is.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_goes_in_time_whoever_looks() {
    for (merges, rewrites) in [(true, false), (true, true), (false, false)] {
        let world = World::new(&[("retention.ms", "10800000")]).await;
        world.clock.pass(HOUR - world.clock.now_ms() % HOUR);
        for hour in 0..12 {
            // Two minutes apart; none in some hours, so that the partition is empty in between.
            let is_busy = |hour: &i64| (0..5).contains(hour) || (10..12).contains(hour);
            let flushes = if is_busy(&hour) { 2 } else { 0 };
            for _ in 0..flushes {
                world.flush(0).await;
                if merges {
                    world.merge().await;
                }
                world.clock.pass(120 * SECOND);
            }
            if rewrites {
                world.upkeep().rewrite(true, |_| {}).await.unwrap();
            }
            if hour == 2 {
                // By somebody who looks at nothing, into the middle of a slice.
                world.log.admin().delete_records("t", Some(&[0]), Position::Offset(5)).await.unwrap();
            }
            world.clock.pass(HOUR - flushes * 120 * SECOND);
            world.run().await;
            let known = |view: &View| {
                let partition = &view.topic("t").unwrap().1.partitions[0];
                (partition.log_start, partition.next, partition.oldest_ms)
            };
            let (log_start, next, oldest_ms) = world.log.ledger().chain().view(known).unwrap();
            let kept = 2 * (hour - 2..=hour).filter(is_busy).count() as u64;
            assert_eq!((next - log_start).div_ceil(10), kept, "hour {hour}");
            if let Some(first) = all(&world, 0).await.first() {
                let after_ms = oldest_ms - first.timestamp_us / 1_000;
                let most = if merges && !rewrites { 0 } else { 120 * SECOND };
                assert!((0..=most).contains(&after_ms), "hour {hour}: {after_ms}");
            }
        }
    }
}

/// A fold whose rows nobody wrote yet is as good as rows.
#[tokio::test(flavor = "multi_thread")]
async fn retention_lets_go_of_what_is_pending() {
    let world = World::new(&[("retention.ms", "10800000")]).await;
    world.flush(0).await;
    world.merge().await;
    world.clock.pass(2 * HOUR);
    world.flush(0).await;
    world.clock.pass(2 * HOUR);
    let mut view = world.log.ledger().chain().view(Clone::clone).unwrap();
    let place = (*view.topics.keys().next().unwrap(), 0);
    let rows = world.upkeep().rows_from(place, 0, |_| false).await.unwrap();
    // As if `Indexed` were still to come.
    let pending = crate::ledger::view::Pending {
        rewrite: false,
        objects: rows.iter().map(|row| row.object.clone()).collect(),
        ranges: rows.iter().map(|row| row.range).collect(),
    };
    view.pending.insert(1, pending);
    view.topics.values_mut().for_each(|topic| topic.partitions[0].indexed_to = 0);
    let overdue = trim::overdue(&view, world.clock.now_ms(), &BTreeMap::new());
    assert_eq!(overdue.trims.iter().map(|t| (t.from, t.to)).collect::<Vec<_>>(), [(0, 10)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_names_damage_in_merged_segments_and_index() {
    let world = World::new(&[]).await;
    let id = world.log.admin().describe_topic("t").await.unwrap().id;
    for _ in 0..3 {
        world.flush(0).await;
        world.flush(1).await;
        world.merge().await;
        world.clock.pass(HOUR);
    }
    let report = world.verify().await;
    assert_eq!((report.damage.len(), report.merged, report.rows, report.records), (0, 3, 6, 60));
    let touched = |report: &crate::verify::Report| {
        let all = report.damage.iter().flat_map(|damage| &damage.touches);
        all.map(|t| (t.partition, t.from, t.to)).collect::<Vec<_>>()
    };
    // A byte of a row group.
    let path = Path::from(world.merged().await[1].as_str());
    let whole = world.counts.get(&path).await.unwrap().bytes().await.unwrap();
    let mut bytes = whole.to_vec();
    bytes[100] ^= 1;
    world.counts.put(&path, bytes.into()).await.unwrap();
    let report = world.verify().await;
    let shared = vec![(0, 10, 20), (1, 10, 20)];
    assert_eq!((report.damage.len(), touched(&report)), (1, shared), "{:?}", report.damage);
    assert!(report.damage[0].what == path.as_ref() && report.damage[0].detail.contains("row group 0"));
    // A byte of the footer.
    let mut bytes = whole.to_vec();
    let at = bytes.len() - 20;
    bytes[at] ^= 1;
    world.counts.put(&path, bytes.into()).await.unwrap();
    assert_eq!(touched(&world.verify().await), [(0, 10, 20), (1, 10, 20)]);
    // Shorter, and gone.
    world.counts.put(&path, whole.slice(..whole.len() - 9).into()).await.unwrap();
    assert_eq!(touched(&world.verify().await), [(0, 10, 20), (1, 10, 20)]);
    world.counts.delete(&path).await.unwrap();
    let report = world.verify().await;
    assert!(report.damage.iter().all(|damage| damage.detail.contains("missing")), "{:?}", report.damage);
    // Others stay readable, and a reader says what it cannot read.
    let fetcher = world.log.fetcher();
    let error = fetcher.fetch("t", 0, 12, crate::fetch::FetchLimits::default()).await.unwrap_err();
    assert!(error.to_string().contains("12"), "{error}");
    assert_eq!(fetcher.fetch("t", 0, 20, crate::fetch::FetchLimits::default()).await.unwrap().next, 30);
    world.counts.put(&path, whole.into()).await.unwrap();
    assert_eq!(world.verify().await.damage, []);
    // A row that counts more than those behind it.
    let chain = &world.log.ledger().chain;
    let rows = chain.next_rows(&mut RowPages::new(id, 0, 0)).await.unwrap().unwrap();
    let pk = IndexRow::pk(chain.era, id, 0);
    let mut wrong = rows[1].row.clone();
    wrong.range.bytes_running += 1 << 40;
    for (row, told) in [(&wrong, 1), (&rows[1].row, 0)] {
        let item = row.item(rows[1].sk, 0);
        assert!(chain.table.replace_if(&pk, &item, item.id).await.unwrap().value);
        let report = world.verify().await;
        assert_eq!((report.damage.len(), touched(&report).len()), (told, 0), "{:?}", report.damage);
    }
    // A row that is not there.
    assert!(chain.delete_row(&rows[1]).await.unwrap());
    let report = world.verify().await;
    assert_eq!((report.damage.len(), touched(&report)), (1, vec![(0, 10, 20)]), "{:?}", report.damage);
    assert_eq!(report.damage[0].what, "index of t/0");
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_by_size_keeps_at_least_so_much() {
    let world = World::new(&[("retention.bytes", "1000000")]).await;
    let id = world.log.admin().describe_topic("t").await.unwrap().id;
    for _ in 0..4 {
        world.flush(0).await;
        world.merge().await;
    }
    // As Parquet's own reader finds them.
    let mut sizes = Vec::new();
    for row in world.rows(id, 0).await {
        let file = world.counts.get(&Path::from(row.object.name("t").to_string())).await.unwrap();
        let file = SerializedFileReader::new(file.bytes().await.unwrap()).unwrap();
        sizes.push(
            file.metadata().row_groups().iter().map(|group| group.compressed_size() as u64).sum::<u64>(),
        );
    }
    assert!(sizes.len() == 4 && sizes.iter().all(|bytes| *bytes > 200), "{sizes:?}");
    // Whoever looks for the first time finds the same, and asks for the rows that go and one that stays.
    let overdue = async || {
        let upkeep = world.upkeep();
        let before = (world.counts.counts(), world.log.ledger().chain().slot());
        let overdue = upkeep.overdue().await.unwrap();
        assert_eq!(
            (world.counts.counts(), world.log.ledger().chain().slot()),
            before,
            "no object, no commit"
        );
        overdue
    };
    assert_eq!(overdue().await, Overdue::default());
    let limit = async |bytes: u64| {
        let config = [("retention.bytes".to_owned(), Some(bytes.to_string()))];
        world.log.admin().alter_topic("t", None, &config).await.unwrap();
    };
    let to = |overdue: Overdue| overdue.trims.iter().map(|trim| trim.to).collect::<Vec<_>>();
    limit(0).await;
    assert_eq!(to(overdue().await), [40]);
    limit(1).await;
    assert_eq!(to(overdue().await), [30]);
    // What is not merged does not count.
    world.flush(0).await;
    let rest: u64 = sizes[1..].iter().sum();
    limit(rest + 1).await;
    assert_eq!(overdue().await, Overdue::default());
    limit(rest).await;
    let trims = overdue().await.trims;
    assert_eq!(trims.iter().map(|t| (t.partition, t.from, t.to)).collect::<Vec<_>>(), [(0, 0, 10)]);
    assert_eq!(trims[0].why, Why::Size { bytes_max: rest });
    world.upkeep().trim(&trims).await.unwrap();
    let known = |view: &View| {
        let partition = view.partition(id, 0).unwrap();
        (partition.bytes_running, partition.oldest_bytes)
    };
    let (all_bytes, oldest_bytes) = world.log.ledger().chain().view(known).unwrap();
    assert_eq!((all_bytes, oldest_bytes), (sizes.iter().sum(), sizes[0] + sizes[1]));
    assert_eq!(overdue().await, Overdue::default());
    // Rewritten, they are one, and stay.
    world.upkeep().rewrite(true, |_| {}).await.unwrap();
    assert_eq!(overdue().await, Overdue::default());
    assert_eq!((world.start(0).await, all(&world, 0).await.len()), (10, 40));
    // Where nothing that is merged is left, nothing counts.
    world.log.admin().delete_records("t", Some(&[0]), Position::Offset(40)).await.unwrap();
    assert_eq!(world.log.ledger().chain().view(known).unwrap(), (all_bytes, all_bytes));
    limit(1).await;
    assert_eq!(overdue().await, Overdue::default());
    world.merge().await;
    assert_eq!(overdue().await, Overdue::default(), "what stays is larger");
    limit(0).await;
    assert_eq!(to(overdue().await), [50]);
}

/// Any partitions that share files and row groups, rewritten or not: each keeps what it would keep if its sizes were added up from its
/// rows, and whoever has looked before finds what somebody finds who looks for the first time.
#[tokio::test(flavor = "multi_thread")]
async fn what_goes_by_size_is_what_adding_up_all_rows_says() {
    const KEPT: u64 = 45_000;
    let world = World::new(&[("compression.type", "none"), ("retention.bytes", &KEPT.to_string())]).await;
    let id = world.log.admin().describe_topic("t").await.unwrap().id;
    let upkeep = world.upkeep();
    let mut trimmed = 0;
    for round in 0..16 {
        world.flush(0).await;
        world.flush(1).await;
        world.merge().await;
        if round % 4 == 3 {
            world.clock.pass(HOUR);
            world.upkeep().rewrite(true, |_| {}).await.unwrap();
        }
        let overdue = upkeep.overdue().await.unwrap();
        assert_eq!(overdue, world.upkeep().overdue().await.unwrap(), "round {round}");
        for partition in 0..2 {
            let start = world.start(partition).await;
            let mut rows = world.rows(id, partition).await;
            rows.retain(|row| row.range.end > start);
            let all = rows.last().map_or(0, |row| row.range.bytes_running);
            let goes = rows.iter().take_while(|row| all - row.range.bytes_running >= KEPT).last();
            let found = overdue.trims.iter().find(|trim| trim.partition == partition);
            assert_eq!(found.map(|trim| trim.to), goes.map(|row| row.range.end), "round {round}");
        }
        trimmed += overdue.trims.len();
        upkeep.trim(&overdue.trims).await.unwrap();
    }
    assert!(trimmed >= 4, "{trimmed}");
    assert!(world.start(0).await >= 80);
    assert_eq!(upkeep.overdue().await.unwrap(), Overdue::default());
}
