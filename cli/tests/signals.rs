//! Ctrl-C and SIGTERM, sent to real processes: what was taken is finished, and the second one ends at once.

#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command};
use std::time::Duration;

use common::{Place, code, err, ndjson};
use serde_json::json;

fn send(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

fn interrupt(child: &Child) {
    send(child, "-INT");
}

#[allow(clippy::disallowed_methods, reason = "another process is waited for")]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..600 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("not within 30 s: {what}");
}

#[test]
fn produce_finishes_what_it_has_read() {
    let place = Place::new(2);
    let mut child = place
        .command(&["produce", "t", "--acks-out", "acks", "--output", "json"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The pipe stays open: the reader waits in it when the signal comes.
    let mut to = child.stdin.take().unwrap();
    to.write_all(b"one\ntwo\nthree\nno newline yet").unwrap();
    let acks = || std::fs::read(place.path("acks")).map(|text| ndjson(&text).len()).unwrap_or(0);
    wait_until("three acks", || acks() == 3);
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 130, "{}", err(&output));
    assert!(err(&output).contains("interrupted"), "{}", err(&output));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["acked"], &summary["failed"]), (&json!(3), &json!(0)), "{summary}");
    assert_eq!((&summary["conflicts"], &summary["segments"]), (&json!(0), &json!(0)), "{summary}");
    assert_eq!(place.records().len(), 3);
    let topic = place.json(&["topic", "describe", "t"]);
    let leaders: Vec<_> = topic["partitions"].as_array().unwrap().iter().map(|p| &p["leader"]).collect();
    assert!(leaders.iter().all(|leader| leader.is_null()), "it let go of what it led: {leaders:?}");
}

#[test]
fn produce_flushes_what_still_lingers() {
    let place = Place::new(1);
    let mut child = place
        .command(&["produce", "t", "--format", "keyed", "--linger-ms", "60000"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut to = child.stdin.take().unwrap();
    to.write_all(b"k\tlingering\nno separator\n").unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut words = String::new();
    // The second line is refused at once, and so the first one was taken.
    stderr.read_line(&mut words).unwrap();
    assert!(words.starts_with("<stdin>:2: "), "{words}");
    send(&child, "-TERM");
    stderr.read_to_string(&mut words).unwrap();
    assert!(words.contains("acked 1, rejected 1"), "{words}");
    // A line was refused, too, but that it was cut short is what a script must know.
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(place.records()[0]["value"], "lingering");
}

#[test]
fn the_second_ends_a_producer_at_once() {
    let place = Place::new(1);
    let mut child = place.command(&["produce", "t"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut to = child.stdin.take().unwrap();
    to.write_all(b"first\n").unwrap();
    wait_until("the first record", || !place.records().is_empty());
    // Nobody can commit while this is held, so closing cannot end.
    let table = rusqlite::Connection::open(place.path("tidelog-data/table.sqlite")).unwrap();
    table.execute_batch("BEGIN IMMEDIATE").unwrap();
    to.write_all(b"second\n").unwrap();
    interrupt(&child);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut words = String::new();
    stderr.read_line(&mut words).unwrap();
    assert!(words.contains("Ctrl-C again ends at once"), "{words}");
    assert!(child.try_wait().unwrap().is_none(), "it waits for its acks");
    send(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    stderr.read_to_string(&mut words).unwrap();
    assert!(!words.contains("records/s"), "no summary: {words}");
    table.execute_batch("ROLLBACK").unwrap();
}

#[test]
fn consume_stores_its_groups_offsets() {
    let place = Place::new(1);
    place.run_with(&["produce", "t"], b"a\nb\nc\n");
    let mut child = place.command(&["consume", "t", "--group", "g"]).spawn().unwrap();
    let mut from = BufReader::new(child.stdout.take().unwrap());
    for wanted in ["a\n", "b\n", "c\n"] {
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        assert_eq!(line, wanted);
    }
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 0, "{}", err(&output));
    let group = place.json(&["group", "describe", "g"]);
    assert_eq!(
        (&group["partitions"][0]["offset"], &group["partitions"][0]["lag"]),
        (&json!(3), &json!(0)),
        "{group}"
    );
}

#[test]
fn events_are_told_as_asked() {
    let place = Place::new(1);
    let quiet = place.run_with(&["produce", "t"], b"secret words\n");
    assert_eq!(err(&quiet).lines().count(), 1, "the summary alone: {}", err(&quiet));
    let told =
        place.run_with(&["produce", "t", "--log", "debug", "--inline-bytes-max", "0"], b"secret words\n");
    let words = err(&told);
    for wanted in
        ["flush{flight=1 records=1", "upload{", "commit{", "outcome=\"committed\"", "leaders changed"]
    {
        assert!(words.contains(wanted), "no {wanted} in {words}");
    }
    assert!(!words.contains("secret"), "no record is told: {words}");
    let by_env =
        place.command(&["consume", "t", "--until", "end"]).env("TIDELOG_LOG", "debug").output().unwrap();
    assert!(err(&by_env).contains("cold_start{slot="), "{}", err(&by_env));
    assert_eq!(by_env.stdout, b"secret words\nsecret words\n");
    assert_eq!(code(&place.run(&["topic", "list", "--log", "loud"])), 2);
}

#[test]
fn an_interrupted_materialize_leaves_nothing_behind() {
    let place = Place::new(1);
    let lines: Vec<u8> = (0..600_000).flat_map(|n| format!("{n:0>199}\n").into_bytes()).collect();
    let done = place.run_with(&["produce", "t", "--no-upkeep", "--inline-bytes-max", "0"], &lines);
    assert_eq!(code(&done), 0, "{}", err(&done));
    let child = place.command(&["files", "t", "--materialize", "rest"]).spawn().unwrap();
    // The first of several.
    wait_until("a file", || place.path("rest/rest-00001.parquet").exists());
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 130, "{}", err(&output));
    assert!(!place.path("rest").exists());
}
