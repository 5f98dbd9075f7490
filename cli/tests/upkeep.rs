//! `tidelog upkeep` and what shows of it in the other commands.

#![allow(clippy::disallowed_methods, reason = "what is merged must be a second old")]

mod common;

use std::time::Duration;

use common::{Place, code, err};
use serde_json::json;

fn lines(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

/// Topic `t` with what is merged after a second: four flushes of it, merged one by one.
fn merged(place: &Place) {
    place.ok(&["topic", "alter", "t", "--config", "merge.max.age.ms=1000"]);
    for n in 0..4 {
        place.write("in.txt", format!("a{n}\nb{n}\n"));
        place.ok(&["produce", "t", "in.txt", "--inline-bytes-max", if n % 2 == 0 { "0" } else { "4096" }]);
        std::thread::sleep(Duration::from_millis(1_100));
        let run = place.json(&["upkeep", "--once"]);
        assert_eq!((&run["merged"]["records"], &run["merged"]["damage"]), (&json!(2), &json!([])), "{run}");
    }
}

#[test]
fn merged_records_are_the_same_records() {
    let place = Place::new(2);
    merged(&place);
    let records = place.records();
    assert_eq!(records.len(), 8);
    let shown = place.json(&["inspect", "partition", "t"]);
    let partitions = shown["partitions"].as_array().unwrap();
    let files: Vec<_> = partitions.iter().flat_map(|p| p["merged"].as_array().unwrap()).collect();
    let rows: u64 = files.iter().map(|file| file["rows"].as_u64().unwrap()).sum();
    assert_eq!(rows, 8, "{shown}");
    assert!(partitions.iter().all(|p| p["slices"] == json!([])), "{shown}");
    for file in &files {
        let name = file["object"].as_str().unwrap();
        assert!(place.path("tidelog-data").join(name).exists(), "{name}");
    }
    let name = files[0]["object"].as_str().unwrap();
    let refused = place.run(&["inspect", "segment", name]);
    assert!(code(&refused) == 1 && err(&refused).contains("any Parquet reader"), "{}", err(&refused));
    let report = place.json(&["verify"]);
    assert_eq!((&report["damage"], &report["records"]), (&json!([]), &json!(8)), "{report}");
    // A time is found in what was merged.
    let end = place.ok(&["consume", "t", "--from", "-1m", "--until", "end"]);
    assert_eq!(lines(&end), 8);
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let place = Place::new(1);
    place.write("in.txt", "a\nb\n");
    place.ok(&["produce", "t", "in.txt"]);
    let plan = place.json(&["upkeep", "--explain"]);
    let unmerged = &plan["unmerged"][0];
    assert_eq!(
        (&unmerged["topic"], &unmerged["records"], &unmerged["due"]),
        (&json!("t"), &json!(2), &json!(null))
    );
    place.ok(&["topic", "alter", "t", "--config", "merge.max.age.ms=1000"]);
    std::thread::sleep(Duration::from_millis(1_100));
    let text = String::from_utf8(place.ok(&["upkeep", "--dry-run"])).unwrap();
    assert!(text.contains("would merge 2 records of t in 1 slices"), "{text}");
    let plan = place.json(&["upkeep", "--dry-run"]);
    assert!(plan["unmerged"][0]["due"].as_str().unwrap().contains("s old"), "{plan}");
    assert!(place.json(&["inspect", "partition", "t"])["partitions"][0]["merged"] == json!([]));
    let refused = place.run(&["topic", "alter", "t", "--config", "merge.max.age.ms=5"]);
    assert!(
        code(&refused) != 0 && err(&refused).contains("must be 1000 to 86400000 ms"),
        "{}",
        err(&refused)
    );
}

/// What cannot be read stays where it is, and is named; all else is merged.
#[test]
fn damage_is_told_and_nothing_else_waits_for_it() {
    let place = Place::new(2);
    place.ok(&["topic", "create", "u", "--partitions", "1"]);
    for topic in ["t", "u"] {
        place.ok(&["topic", "alter", topic, "--config", "merge.max.age.ms=1000"]);
        place.write("in.txt", "a\nb\n");
        place.ok(&["produce", topic, "in.txt", "--inline-bytes-max", "0"]);
    }
    let shown = place.json(&["inspect", "partition", "t"]);
    let slices = shown["partitions"].as_array().unwrap().iter().flat_map(|p| p["slices"].as_array().unwrap());
    let name = slices.map(|slice| slice["object"].as_str().unwrap().to_owned()).next().unwrap();
    let path = place.path("tidelog-data").join(&name);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[30] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    std::thread::sleep(Duration::from_millis(1_100));
    let run = place.run(&["upkeep", "--once", "--output", "json"]);
    assert_eq!(code(&run), 0, "{}", err(&run));
    assert!(err(&run).contains(&name) && err(&run).contains("stays as it is"), "{}", err(&run));
    assert_eq!(lines(&place.ok(&["consume", "u", "--until", "end"])), 2);
    let of_u = place.json(&["inspect", "partition", "u"]);
    assert!(of_u["partitions"].as_array().unwrap().iter().any(|p| p["merged"] != json!([])), "{of_u}");
}
