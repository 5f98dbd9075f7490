//! Four processes on one folder with no channel between them; kill -9; bounded memory; a full disk.
//!
//! `TIDELOG_KILLS` sets the number of kill cycles (50 unless set), `TIDELOG_FLOOD_BYTES` how much the flood sends (1 GiB).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tidelog_core::objects::ObjectName;
use tidelog_core::upkeep::Sweep;
use tidelog_core::{Log, Position, UpkeepSettings};

const WORKER: &str = env!("CARGO_BIN_EXE_tidelog-processes");

fn worker(args: &[&str]) -> Child {
    Command::new(WORKER).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Value up to the first blank → (partition, offset), as acked.
fn acked(path: &Path) -> BTreeMap<String, (u32, u64)> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    let parse = |line: &str| {
        let mut words = line.split(' ');
        let value = words.next().unwrap().to_owned();
        (value, (words.next().unwrap().parse().unwrap(), words.next().unwrap().parse().unwrap()))
    };
    complete.lines().map(parse).collect()
}

/// All records of a topic: (partition, offset, value up to the first blank).
async fn found(log: &Log, topic: &str) -> Vec<(u32, u64, String)> {
    let mut consumer = log.consumer(topic).until(Position::End).build().await.unwrap();
    let mut all = Vec::new();
    while let Some(message) = consumer.next_message().await {
        let message = message.unwrap();
        let value = String::from_utf8(message.record.value.unwrap().to_vec()).unwrap();
        all.push((message.partition, message.record.offset, value.split(' ').next().unwrap().to_owned()));
    }
    all
}

/// What lies below a folder of the store, by name.
fn objects_in(store: &str, folders: &[&str]) -> BTreeSet<String> {
    let mut left = BTreeSet::new();
    let mut folders: Vec<_> = folders.iter().map(|folder| Path::new(store).join(folder)).collect();
    while let Some(next) = folders.pop() {
        // One that nothing was put into is not there.
        for entry in std::fs::read_dir(next).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => _ = left.insert(path.strip_prefix(store).unwrap().display().to_string()),
            }
        }
    }
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn four_processes_share_a_folder_and_every_offset_is_the_chains() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store").display().to_string();
    let log = Log::open(&store).await.unwrap();
    log.admin().create_topic("t", 3, &[]).await.unwrap();
    let paths: Vec<_> = (0..4).map(|w| folder.path().join(format!("acks-{w}"))).collect();
    let start = |(w, path): (usize, &std::path::PathBuf)| {
        worker(&["append", &store, "t", &w.to_string(), "150", "60", path.to_str().unwrap()])
    };
    let workers: Vec<Child> = paths.iter().enumerate().map(start).collect();
    let mut conflicts = 0;
    for worker in workers {
        let output = worker.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        conflicts += String::from_utf8_lossy(&output.stdout).trim().parse::<u64>().unwrap();
    }
    println!("{conflicts} conflicts");
    assert!(conflicts >= 200, "only {conflicts} conflicts: nothing was proved");
    let found = found(&log, "t").await;
    assert_eq!(found.len(), 600);
    let by_value: BTreeMap<_, _> = found.iter().map(|(p, o, value)| (value.clone(), (*p, *o))).collect();
    assert_eq!(by_value.len(), 600, "no record twice");
    for path in &paths {
        let acked = acked(path);
        assert_eq!(acked.len(), 150);
        acked.iter().for_each(|(value, place)| assert_eq!(by_value[value], *place, "{value}"));
    }
    // A view that starts cold is the view that followed.
    let cold = Log::open_existing(&store).await.unwrap();
    let bytes = |view: &tidelog_core::ledger::view::View| tidelog_core::ledger::checkpoint::encode(view);
    let (a, b) = (log.ledger().chain(), cold.ledger().chain());
    assert_eq!(a.fresh_view(a.tick(), bytes).await.unwrap(), b.fresh_view(b.tick(), bytes).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::disallowed_methods, reason = "real processes, real time")]
async fn killed_at_any_moment_nothing_acked_is_lost_and_nothing_comes_twice() {
    let kills: u64 = std::env::var("TIDELOG_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(50);
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store").display().to_string();
    let log = Log::open(&store).await.unwrap();
    log.admin().create_topic("t", 1, &[]).await.unwrap();
    let path = folder.path().join("acks");
    let start =
        |records: u64| worker(&["resume", &store, "t", "7", &records.to_string(), path.to_str().unwrap()]);
    for kill in 0..kills {
        let mut victim = start(u64::MAX / 2);
        // From before the first commit to well into the stream.
        tokio::time::sleep(Duration::from_millis(15 + kill * 37 % 90)).await;
        victim.kill().unwrap();
        victim.wait().unwrap();
    }
    let reached = acked(&path).len() as u64 + 200;
    let output = start(reached.max(400)).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (acked, found) = (acked(&path), found(&log, "t").await);
    println!("{kills} kills, {} acked, {} in the log", acked.len(), found.len());
    assert!(acked.len() as u64 > kills, "the victims got somewhere");
    let by_value: BTreeMap<_, _> = found.iter().map(|(p, o, value)| (value.clone(), (*p, *o))).collect();
    assert_eq!(by_value.len(), found.len(), "nothing twice");
    for (value, place) in &acked {
        assert_eq!(by_value.get(value), Some(place), "acked {value}");
    }
    let sequence = |value: &str| value.split_once(':').unwrap().1.parse::<u64>().unwrap();
    let order: Vec<u64> = found.iter().map(|(_, _, value)| sequence(value)).collect();
    assert!(order.is_sorted(), "in the producer's order");
    assert_eq!(order, (1..=order.len() as u64).collect::<Vec<_>>(), "and none is missing");
}

/// Two that trim and sweep, killed over and over, beside a writer that is killed, too, and a reader.
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::disallowed_methods, reason = "real processes, real time")]
async fn upkeep_killed_at_any_moment_takes_nothing_that_should_stay() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store").display().to_string();
    let log = Log::open(&store).await.unwrap();
    let retention = ("retention.ms".to_owned(), "1500".to_owned());
    log.admin().create_topic("t", 1, &[retention]).await.unwrap();
    let path = folder.path().join("acks");
    let start =
        |records: u64| worker(&["resume", &store, "t", "7", &records.to_string(), path.to_str().unwrap()]);
    let mut read = BTreeMap::new();
    let mut at = 0;
    for round in 0..25u64 {
        let mut victims = [start(u64::MAX / 2), worker(&["upkeep", &store]), worker(&["upkeep", &store])];
        tokio::time::sleep(Duration::from_millis(150 + round * 37 % 90)).await;
        // Each in its turn, so that each is in the middle of something.
        for step in 0..3 {
            let victim = &mut victims[((round + step) % 3) as usize];
            victim.kill().unwrap();
            victim.wait().unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        loop {
            match log.fetcher().fetch("t", 0, at, Default::default()).await {
                Ok(fetched) if fetched.next == at => break,
                Ok(fetched) => {
                    for record in fetched.records() {
                        let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                        read.insert(value.split(' ').next().unwrap().to_owned(), (0, record.offset));
                    }
                    at = fetched.next;
                }
                // Trimmed before it was read.
                Err(tidelog_core::Error::OffsetOutOfRange { log_start, .. }) if log_start > at => {
                    at = log_start
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    let output = start(acked(&path).len() as u64 + 200).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // However slow the machine is, and so the victims were.
    let upkeep = log.upkeep(UpkeepSettings { sweep_lag_ms: 0, read_lag_ms: 0, ..UpkeepSettings::default() });
    upkeep.run(|_| {}).await.unwrap();
    let (log_start, end) = log.fetcher().watermarks("t", 0).await.unwrap();
    let (acked, found) = (acked(&path), found(&log, "t").await);
    println!("{} acked, {} read on the way, log from {log_start} to {end}", acked.len(), read.len());
    assert!(log_start > 0 && acked.len() > 100, "{log_start}, {}", acked.len());
    let offsets: Vec<u64> = found.iter().map(|(_, offset, _)| *offset).collect();
    assert_eq!(offsets, (log_start..end).collect::<Vec<_>>(), "what was not trimmed is all there");
    read.extend(found.iter().map(|(p, o, value)| (value.clone(), (*p, *o))));
    for (value, place) in &acked {
        assert!(place.1 < log_start || read.get(value) == Some(place), "acked {value}");
    }
    let report = tidelog_core::verify::verify(log.store(), |_, _| {}).await.unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    // Everything that nobody needs goes in the end.
    tokio::time::sleep(Duration::from_millis(50)).await;
    for _ in 0..3 {
        upkeep.sweep(Sweep::Whole, |_| {}).await.unwrap();
    }
    let named = |view: &tidelog_core::ledger::view::View| {
        let named = view.objects.keys().map(|object| ObjectName::from(object).to_string());
        named.collect::<BTreeSet<_>>()
    };
    let named = log.ledger().chain().view(named).unwrap();
    let left = objects_in(&store, &["l0"]);
    assert_eq!(left.difference(&named).collect::<Vec<_>>(), Vec::<&String>::new(), "no orphan is left");
    assert_eq!(left, named);
}

/// Two writers, a reader and two that merge and sweep on one folder, all killed over and over: whatever is read, then and in
/// the end, merged or not, is at the one offset that it was acked with.
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::disallowed_methods, reason = "real processes, real time")]
async fn merge_killed_at_any_moment_loses_nothing_and_doubles_nothing() {
    let kills: u64 = std::env::var("TIDELOG_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(50);
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store").display().to_string();
    let log = Log::open(&store).await.unwrap();
    let age = ("merge.max.age.ms".to_owned(), "1000".to_owned());
    log.admin().create_topic("t", 1, &[age]).await.unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let write = |writer: &str, records: u64| {
        worker(&["resume", &store, "t", writer, &records.to_string(), &path(&format!("acks-{writer}"))])
    };
    let merged_to = || {
        let first_unmerged = |view: &tidelog_core::ledger::view::View| {
            let (_, _, partition) = view.partition_or_unknown("t", 0).unwrap();
            (partition.indexed_to, partition.first_unmerged(), partition.next)
        };
        let chain = log.ledger().chain();
        chain.fresh_view(chain.tick(), first_unmerged)
    };
    for round in 0..kills / 2 {
        let mut victims = [
            write("7", u64::MAX / 2),
            worker(&["upkeep", &store]),
            worker(&["read", &store, "t", &path("read")]),
            worker(&["upkeep", &store]),
            write("8", u64::MAX / 2),
        ];
        tokio::time::sleep(Duration::from_millis(150 + round * 37 % 190)).await;
        // Now and then until something more is merged, however slow the machine is.
        let before = merged_to().await.unwrap().0;
        for _ in 0..if round % 5 == 4 { 100 } else { 0 } {
            if merged_to().await.unwrap().0 > before {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Each in its turn, so that each is in the middle of something.
        victims.rotate_left((round % 5) as usize);
        for mut victim in victims {
            victim.kill().unwrap();
            let output = victim.wait_with_output().unwrap();
            // By the signal, or before it by an error that says to try again.
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(matches!(output.status.code(), None | Some(3)), "round {round}: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let (indexed_to, first_unmerged, next) = merged_to().await.unwrap();
    assert!(indexed_to > 0, "the victims merged nothing of {next} records");
    let mut all_acked = BTreeMap::new();
    for writer in ["7", "8"] {
        let file = PathBuf::from(path(&format!("acks-{writer}")));
        let output = write(writer, acked(&file).len() as u64 + 200).wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        all_acked.extend(acked(&file));
    }
    let read = acked(Path::new(&path("read")));
    let found_before = found(&log, "t").await;
    println!(
        "{} acked, {} in the log, {} read on the way; {indexed_to} indexed, {first_unmerged} merged of {next}",
        all_acked.len(),
        found_before.len(),
        read.len()
    );
    let by_value: BTreeMap<_, _> =
        found_before.iter().map(|(p, o, value)| (value.clone(), (*p, *o))).collect();
    assert_eq!(by_value.len(), found_before.len(), "nothing twice");
    assert!(found_before.iter().map(|(_, offset, _)| *offset).eq(0..found_before.len() as u64), "no gap");
    for (value, place) in all_acked.iter().chain(&read) {
        assert_eq!(by_value.get(value), Some(place), "{value}");
    }
    let sequences = |writer: &str| {
        let of = |(_, _, value): &(u32, u64, String)| {
            let (by, sequence) = value.split_once(':').unwrap();
            (by == writer).then(|| sequence.parse::<u64>().unwrap())
        };
        found_before.iter().filter_map(of).collect::<Vec<_>>()
    };
    for writer in ["7", "8"] {
        let sequences = sequences(writer);
        assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>(), "in order, and all of them");
    }
    let upkeep = log.upkeep(UpkeepSettings { sweep_lag_ms: 0, read_lag_ms: 0, ..UpkeepSettings::default() });
    let merged = upkeep.merge(true, |_, _| {}).await.unwrap();
    assert!(merged.damage.is_empty(), "{:?}", merged.damage);
    let (indexed_to, _, next) = merged_to().await.unwrap();
    assert_eq!(
        (indexed_to, found(&log, "t").await),
        (next, found_before),
        "the same from merged segments alone"
    );
    let report = tidelog_core::verify::verify(log.store(), |_, _| {}).await.unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    log.admin().delete_topic("t").await.unwrap();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        upkeep.sweep(Sweep::Whole, |_| {}).await.unwrap();
    }
    assert_eq!(objects_in(&store, &["l0", "topics"]), BTreeSet::new(), "nothing is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_create_one_topic() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store").display().to_string();
    let (one, two) = (Log::open(&store).await.unwrap(), Log::open(&store).await.unwrap());
    let (one, two) = (one.admin(), two.admin());
    let (a, b) = tokio::join!(one.create_topic("t", 1, &[]), two.create_topic("t", 1, &[]));
    assert_eq!(u8::from(a.is_ok()) + u8::from(b.is_ok()), 1, "{a:?} {b:?}");
    let lost = a.err().or(b.err()).unwrap();
    assert_eq!(lost.to_string(), "topic \"t\" exists already");
}

#[test]
fn a_buffer_limit_bounds_memory() {
    let bytes: u64 =
        std::env::var("TIDELOG_FLOOD_BYTES").ok().and_then(|n| n.parse().ok()).unwrap_or(1 << 30);
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store").display().to_string();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let log = Log::open(&store).await.unwrap();
        log.admin().create_topic("t", 4, &[]).await.unwrap();
    });
    let output = worker(&["flood", &store, "t", &bytes.to_string()]).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{bytes} bytes: {output}");
    let kib: u64 = output.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 200 << 10, "{kib} KiB resident at the peak");
}

/// On a disk of a few MiB, which `tests/mounts` makes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a small disk: ./test mounts"]
async fn a_full_disk_is_an_error_and_loses_nothing_acked() {
    let disk = std::env::var_os("TIDELOG_SMALL_DISK").expect("a small disk to fill");
    let disk = Path::new(&disk);
    let store = disk.join("store").display().to_string();
    // What is deleted when somebody makes room: more than the records take, since the disk has twice of it.
    let other = disk.join("somebody's");
    std::fs::write(&other, vec![7; 4 << 20]).unwrap();
    let log = Log::open(&store).await.unwrap();
    log.admin().create_topic("t", 1, &[]).await.unwrap();
    let producer = log.producer().linger_ms(0).build().unwrap();
    let (mut acked, mut failed) = (BTreeSet::new(), None);
    for n in 0..2_000u64 {
        // Not compressible: the disk fills.
        let noise: Vec<u8> = (0..600).flat_map(|_| getrandom_u64().to_le_bytes()).collect();
        let mut value = format!("{n} ").into_bytes();
        value.extend(noise.iter().map(|b| b'!' + b % 90));
        match producer.send("t", tidelog_core::Record::value(value)).await {
            Ok(_) => acked.insert(n),
            Err(error) => {
                failed = Some(error);
                break;
            }
        };
    }
    let error = failed.expect("the disk is full at some point");
    println!("{} acked, then: {error}", acked.len());
    assert!(!acked.is_empty());
    let all = async || {
        let mut consumer = log.consumer("t").until(Position::End).build().await.unwrap();
        let mut found = Vec::new();
        while let Some(message) = consumer.next_message().await {
            let value = message.unwrap().record.value.unwrap();
            let number = value.split(|b| *b == b' ').next().unwrap();
            found.push(std::str::from_utf8(number).unwrap().parse::<u64>().unwrap());
        }
        found
    };
    let found = all().await;
    assert!(acked.iter().all(|n| found.contains(n)), "all that was acked is there");
    // A merge has no room, either: it says so, and nothing is changed.
    let upkeep = log.upkeep(UpkeepSettings::default());
    let error = upkeep.merge(true, |_, _| {}).await.unwrap_err();
    println!("a merge: {error}");
    assert_eq!(all().await, found);
    std::fs::remove_file(&other).unwrap();
    let merged = upkeep.merge(true, |_, _| {}).await.unwrap();
    assert_eq!((merged.records, merged.damage), (found.len() as u64, Vec::new()));
    assert_eq!(all().await, found, "each record once, in order");
}

#[allow(clippy::disallowed_methods, reason = "a test's own noise")]
fn getrandom_u64() -> u64 {
    getrandom::u64().unwrap()
}
