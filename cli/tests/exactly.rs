//! Acks, restarts and damage: what the log promises, through the commands.

mod common;

use std::collections::BTreeMap;
use std::io::Write;

use common::{Place, code, err, ndjson};
use serde_json::json;

fn lines(count: usize) -> String {
    (1..=count).map(|i| format!("line {i} of a file\n")).collect()
}

#[test]
fn a_restart_adds_nothing_twice() {
    let place = Place::new(5);
    let produce = ["produce", "t", "a.log", "b.log", "--producer-id", "p"];
    place.write("a.log", lines(1_000));
    place.write("b.log", "other\r\n");
    place.ok(&produce);
    let again = place.run(&produce);
    assert_eq!(code(&again), 0, "{}", err(&again));
    assert!(
        err(&again).contains(&format!("a.log: resumed at byte {}", lines(1_000).len())),
        "{}",
        err(&again)
    );
    // A file that grew, and more partitions than before: still the same one.
    place.ok(&["topic", "alter", "t", "--partitions", "9"]);
    std::fs::OpenOptions::new().append(true).open(place.path("a.log")).unwrap().write_all(b"new\n").unwrap();
    place.ok(&produce);
    let records = place.records();
    assert_eq!(records.len(), 1_002);
    let of_a: Vec<_> = records.iter().filter(|record| record["value"] != "other").collect();
    assert!(of_a.iter().all(|record| record["partition"] == of_a[0]["partition"]), "one file, one partition");
    assert_eq!(of_a.last().unwrap()["value"], "new");
    // Another name is another producer; a shorter file is another file.
    place.ok(&["produce", "t", "b.log", "--producer-id", "q"]);
    assert_eq!(place.records().len(), 1_003);
    place.write("a.log", "short\n");
    let shrunk = place.run(&produce);
    assert_eq!(code(&shrunk), 1);
    assert!(err(&shrunk).contains("it is another file now"), "{}", err(&shrunk));
    assert_eq!(place.records().len(), 1_003);
}

#[test]
fn killed_and_started_again_each_line_is_there_once() {
    let place = Place::new(2);
    let count = 150_000;
    place.write("a.log", lines(count));
    let mut acks = Vec::new();
    for run in 0..4 {
        let out = format!("acks-{run}");
        let mut child = place
            .command(&["produce", "t", "a.log", "--producer-id", "p", "--acks-out", &out])
            .spawn()
            .unwrap();
        let path = place.path(&out);
        while run < 3 && child.try_wait().unwrap().is_none() {
            if std::fs::metadata(&path).is_ok_and(|found| found.len() > 0) {
                child.kill().unwrap();
                break;
            }
            std::thread::yield_now();
        }
        child.wait().unwrap();
        let mut text = std::fs::read(&path).unwrap_or_default();
        // The kill may have cut the last line off.
        text.truncate(text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
        acks.extend(ndjson(&text));
    }
    let found = place.records();
    let values: Vec<String> =
        found.iter().map(|record| record["value"].as_str().unwrap().to_owned()).collect();
    let wanted: Vec<String> = lines(count).lines().map(str::to_owned).collect();
    assert!(values == wanted, "{} records of {count} lines", values.len());
    let mut last = 0;
    for ack in acks {
        let (line, offset) = (ack["line"].as_u64().unwrap(), ack["offset"].as_u64().unwrap());
        assert_eq!((offset, &ack["file"]), (line - 1, &json!("a.log")), "{ack}");
        assert!(line > last, "acked once, in order");
        last = line;
    }
}

#[test]
fn acks_name_line_and_offset() {
    let place = Place::new(3);
    place.write("a.txt", "k1\tone\nk2\ttwo\nbad\nk3\tthree\nk1\tfour\n");
    place.write("b.txt", "k2\tfive\n");
    let output = place.run(&["produce", "t", "--format", "keyed", "--acks-out", "acks", "a.txt", "b.txt"]);
    assert_eq!(code(&output), 1);
    let records: BTreeMap<(u64, u64), String> = place
        .records()
        .iter()
        .map(|r| {
            let place = (r["partition"].as_u64().unwrap(), r["offset"].as_u64().unwrap());
            (place, r["value"].as_str().unwrap().to_owned())
        })
        .collect();
    let mut acked: Vec<(String, u64, String)> = ndjson(&std::fs::read(place.path("acks")).unwrap())
        .iter()
        .map(|ack| {
            let at = (ack["partition"].as_u64().unwrap(), ack["offset"].as_u64().unwrap());
            (ack["file"].as_str().unwrap().to_owned(), ack["line"].as_u64().unwrap(), records[&at].clone())
        })
        .collect();
    acked.sort();
    let wanted = [
        ("a.txt", 1, "one"),
        ("a.txt", 2, "two"),
        ("a.txt", 4, "three"),
        ("a.txt", 5, "four"),
        ("b.txt", 1, "five"),
    ];
    assert_eq!(acked, wanted.map(|(file, line, value)| (file.to_owned(), line, value.to_owned())));
}

#[test]
fn verify_finds_a_flipped_byte() {
    let place = Place::new(1);
    place.write("in.txt", lines(100));
    place.ok(&["produce", "t", "in.txt", "--inline-bytes-max", "0"]);
    place.ok(&["produce", "t", "in.txt", "--inline-bytes-max", "0"]);
    assert_eq!(place.json(&["verify"])["damage"], json!([]));
    let segments = place.segments();
    let whole = std::fs::read(&segments[1]).unwrap();
    let mut bytes = whole.clone();
    bytes[whole.len() / 3] ^= 1;
    std::fs::write(&segments[1], &bytes).unwrap();
    let output = place.run(&["verify", "--output", "json"]);
    assert_eq!(code(&output), 4, "{}", err(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let touches = json!([{"topic": "t", "partition": 0, "from": 100, "to": 200}]);
    assert_eq!(
        (report["damage"].as_array().unwrap().len(), &report["damage"][0]["touches"]),
        (1, &touches),
        "{report}"
    );
    let text = place.run(&["verify"]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("touches t/0 offsets 100 to 199"));
    // The neighbour is unharmed, and reading the damage says so.
    assert_eq!(place.ok(&["consume", "t", "--until", "100"]), lines(100).as_bytes());
    let all = place.run(&["consume", "t", "--until", "end"]);
    assert_eq!((code(&all), all.stdout), (4, lines(100).into_bytes()));
    assert_eq!(code(&place.run(&["consume", "t", "--from", "100", "--until", "end"])), 4);
    std::fs::remove_file(&segments[1]).unwrap();
    let output = place.run(&["verify"]);
    assert!(code(&output) == 4 && String::from_utf8_lossy(&output.stdout).contains("missing"));
    std::fs::write(&segments[1], &whole).unwrap();
    place.ok(&["verify"]);
}

#[test]
fn verify_finds_a_damaged_commit() {
    let place = Place::new(1);
    for _ in 0..3 {
        place.write("in.txt", lines(10));
        place.ok(&["produce", "t", "in.txt"]);
    }
    let table = rusqlite::Connection::open(place.path("tidelog-data/table.sqlite")).unwrap();
    let slot: i64 = table
        .query_row(
            "SELECT sk FROM items WHERE hint LIKE '%append%' ORDER BY sk LIMIT 1 OFFSET 1",
            [],
            |row| row.get(0),
        )
        .unwrap();
    let body: Vec<u8> =
        table.query_row("SELECT body FROM items WHERE sk = ?1", [slot], |row| row.get(0)).unwrap();
    let mut flipped = body.clone();
    flipped[body.len() / 2] ^= 1;
    table.execute("UPDATE items SET body = ?1 WHERE sk = ?2", rusqlite::params![flipped, slot]).unwrap();
    let output = place.run(&["verify"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(code(&output), 4, "{said}");
    assert!(
        said.contains(&format!("DAMAGED commit {slot}: ")) && said.contains("t/0 offsets 10 to 19"),
        "{said}"
    );
    assert_eq!(code(&place.run(&["consume", "t", "--until", "end"])), 4);
}

#[test]
fn inspect_shows_the_picture() {
    let place = Place::new(2);
    place.run_with(&["produce", "t", "--inline-bytes-max", "0"], b"a\nb\n");
    place.run_with(&["produce", "t"], b"c\n");
    let found = place.json(&["inspect", "partition", "t"]);
    let slices: Vec<_> = found["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|p| p["slices"].as_array().unwrap())
        .collect();
    assert_eq!(slices.len(), 2);
    let segment = slices.iter().find(|slice| slice["inline"] == false).unwrap();
    assert_eq!((&segment["rows"], &segment["first_row"]), (&json!(2), &json!(0)));
    let name = segment["object"].as_str().unwrap();
    let shown = place.json(&["inspect", "segment", name]);
    assert_eq!((&shown["slices"][0]["rows"], &shown["slices"][0]["topic"]), (&json!(2), &json!("t")));
    let inline = slices.iter().find(|slice| slice["inline"] == true).unwrap();
    assert_eq!((&inline["rows"], &inline["object"]), (&json!(1), &json!(null)));
    let ledger = place.json(&["inspect", "ledger"]);
    let hints: Vec<_> = ledger["commits"].as_array().unwrap().iter().map(|commit| &commit["hint"]).collect();
    // Each run takes the partitions of its topic, and lets them go when it ends.
    assert_eq!(hints, ["store", "topic", "append", "lead", "lead", "append", "lead", "lead"]);
    assert_eq!(code(&place.run(&["inspect", "checkpoint"])), 1, "there is none yet");
}
