//! Writers that get into each other's way: what it costs them, and what their readers see.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use tidelog_budgets::Times;
use tidelog_budgets::virtual_time::Draws;
use tidelog_budgets::world::{Process, S3, S3_HEAVY_TAIL, World};
use tidelog_core::metrics::Metric;
use tidelog_core::{Position, Record, prices};

use crate::{at_most, segment_record, small_record};

/// Sends at `rate` a second for `seconds`, at moments that know nothing of each other.
async fn sender(process: &Process, seed: u64, rate: f64, seconds: u64, record: fn(usize) -> Record) {
    let producer = process.log.producer().linger_ms(0).build().unwrap();
    let draws = Draws::new(seed);
    let until = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let mut sent = Vec::new();
    loop {
        tokio::time::sleep(draws.gap(rate)).await;
        if tokio::time::Instant::now() >= until {
            break;
        }
        sent.push(producer.enqueue("t", None, record(sent.len()), None).await.unwrap());
    }
    for delivery in sent {
        delivery.wait().await.unwrap();
    }
}

/// Flushes that were acked. The metric is told once a flush.
fn acked(process: &Process) -> u64 {
    process.totals.of(Metric::AckUs).count
}

/// Conditional puts, and queries, for each acked flush (records of one writer that meet travel together).
async fn per_flush(writers: u64, commits_per_second: f64, record: fn(usize) -> Record) -> (f64, f64) {
    let world = World::new(S3);
    let mut processes = Vec::new();
    for seed in 1..=writers {
        processes.push(world.process(seed, false).await);
    }
    processes[0].log.admin().create_topic("t", 16, &[]).await.unwrap();
    let (mut puts, mut queries, mut flushes) = (0, 0, 0);
    for process in &processes {
        // Everybody knows the topic, and is some way from its own beginning.
        process.log.admin().describe_topic("t").await.unwrap();
        process.log.producer().build().unwrap().send("t", record(0)).await.unwrap();
        let counts = process.table.counts();
        (puts, queries, flushes) = (puts + counts.puts, queries + counts.queries, flushes + acked(process));
    }
    let rate = commits_per_second / writers as f64;
    let sending = processes.iter().zip(1..).map(|(process, seed)| sender(process, seed, rate, 60, record));
    join_all(sending).await;
    let sum = |of: fn(&Process) -> u64| processes.iter().map(of).sum::<u64>() as f64;
    let puts = sum(|process| process.table.counts().puts) - puts as f64;
    let queries = sum(|process| process.table.counts().queries) - queries as f64;
    let flushes = sum(acked) - flushes as f64;
    println!("{writers} writers, {flushes} flushes in a minute: {puts} puts, {queries} queries");
    (puts / flushes, queries / flushes)
}

#[tokio::test(start_paused = true)]
async fn conditional_puts_are_few() {
    for (what, record) in [("segments", segment_record as fn(usize) -> Record), ("inline", small_record)] {
        let (puts, queries) = per_flush(1, 5.0, record).await;
        at_most(&format!("lone writer, {what}, puts a flush"), puts, 1.0);
        // One look in ten seconds whether the table was put back (R10).
        at_most(&format!("lone writer, {what}, queries a flush"), queries, 0.03);
        let (puts, queries) = per_flush(8, 50.0, record).await;
        at_most(&format!("8 writers at 50 commits/s, {what}, puts a flush"), puts, 1.3);
        at_most(&format!("8 writers at 50 commits/s, {what}, queries a flush"), queries, 1.1);
    }
}

/// 1 KiB records at 2,000 a second over so many partitions.
async fn spread(partitions: u32) -> (Times, Process, Process) {
    let world = World::new(S3);
    let process = world.process(1, false).await;
    process.log.admin().create_topic("t", partitions, &[]).await.unwrap();
    let producer = process.log.producer().linger_ms(100).build().unwrap();
    let mut sent = Vec::new();
    for n in 0..10_000usize {
        let record = Record::value(format!("{n:01024}"));
        let delivery = producer.enqueue("t", Some(n as u32 % partitions), record, None).await.unwrap();
        let began = tokio::time::Instant::now();
        // In a task, which is woken when it is acked, and not when it is asked for.
        sent.push(tokio::spawn(async move { delivery.wait().await.map(|_| began.elapsed()).unwrap() }));
        if n % 2 == 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let times = Times::new(join_all(sent).await.into_iter().map(Result::unwrap).collect());
    let reader = world.process(2, false).await;
    let mut consumer = reader.log.consumer("t").until(Position::End).build().await.unwrap();
    while let Some(message) = consumer.next_message().await {
        message.unwrap();
    }
    (times, process, reader)
}

#[tokio::test(start_paused = true)]
async fn many_partitions_take_the_requests_and_the_time_of_one() {
    let (one, lone, _) = spread(1).await;
    let (many, all, reader) = spread(256).await;
    let (of_one, of_many) = (lone.counts(), all.counts());
    for (partitions, times, (objects, table)) in [(1, &one, &of_one), (256, &many, &of_many)] {
        let (objects_usd, table_usd) = (prices::objects(objects), prices::table(table));
        println!(
            "{partitions} partitions: {times}; {} PUTs, {} puts, {} W; ${objects_usd:.6} + ${table_usd:.6} ({})",
            objects.puts,
            table.puts,
            table.write_units,
            prices::READ
        );
    }
    at_most("PUTs, 256 partitions to one", of_many.0.puts as f64 / of_one.0.puts as f64, 1.05);
    at_most("conditional puts, 256 to one", of_many.1.puts as f64 / of_one.1.puts as f64, 1.05);
    at_most("ack p50, 256 to one", many.ms(0.5) / one.ms(0.5), 1.05);
    at_most("ack p99, 256 to one", many.ms(0.99) / one.ms(0.99), 1.05);
    // Not a budget yet: up to eight fetches of one consumer may get one object at the same time.
    let gets = reader.objects.counts().gets as f64;
    println!("GETs of a reader of all 256, a segment: {:.2}", gets / of_many.0.puts as f64);
    // A slice is named in the commit: some 80 bytes each.
    let flushes = of_many.1.puts as f64;
    at_most("write units a flush of 256 slices", of_many.1.write_units as f64 / flushes, 32.0);
}

/// The case in which a peer never shows 59 to 681 of 14,400 acked records to a live reader.
#[tokio::test(start_paused = true)]
async fn a_live_reader_sees_every_acked_record_once_whatever_the_tail_of_the_puts() {
    const WRITERS: u64 = 4;
    const EACH: usize = 3_600;
    let world = World::new(S3_HEAVY_TAIL);
    let reader = world.process(99, true).await;
    reader.log.admin().create_topic("t", 1, &[]).await.unwrap();
    let mut consumer = reader.log.consumer("t").from(Position::Start).build().await.unwrap();
    let writers = (1..=WRITERS).map(async |writer| {
        let process = world.process(writer, true).await;
        let producer = process.log.producer().build().unwrap();
        let mut sent = Vec::new();
        for n in 0..EACH {
            let record = Record::value(format!("{writer}-{n}-{}", "x".repeat(1_000)));
            sent.push(producer.enqueue("t", None, record, None).await.unwrap());
            // 300 a second.
            let pause = 3 + u64::from(n % 3 == 0);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        let mut acked = Vec::new();
        for (n, delivery) in sent.into_iter().enumerate() {
            acked.push((delivery.wait().await.unwrap().offset.unwrap(), format!("{writer}-{n}-")));
        }
        (acked, process.totals.of(Metric::Conflicts).sum)
    });
    let all = WRITERS as usize * EACH;
    let reading = async {
        let mut seen = Vec::new();
        while seen.len() < all {
            let next = tokio::time::timeout(Duration::from_secs(60), consumer.next_message()).await;
            let record = next.expect("every acked record is seen").unwrap().unwrap().record;
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            seen.push((record.offset, value.trim_end_matches('x').to_owned()));
        }
        // And none twice.
        let more = tokio::time::timeout(Duration::from_secs(5), consumer.next_message()).await;
        assert!(more.is_err(), "{more:?}");
        seen
    };
    let (written, seen) = futures::join!(join_all(writers), reading);
    let conflicts: u64 = written.iter().map(|(_, conflicts)| conflicts).sum();
    println!("{all} records, {conflicts} conflicts, {:.1} virtual seconds", world.now().as_secs_f64());
    assert!(conflicts > 100, "they were in each other's way: {conflicts}");
    let acked: BTreeMap<u64, String> = written.into_iter().flat_map(|(acked, _)| acked).collect();
    assert_eq!(acked.len(), all, "one record an offset");
    assert!(seen.is_sorted_by(|one, next| one.0 < next.0));
    assert!(seen.into_iter().eq(acked), "each acked record at its offset");
}
