//! `tidelog files`, by the binary: what the list says, what is written beside it, what is refused. That engines read it is
//! the business of `tests/readback`.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

mod common;

use std::fs::{self, File};
use std::time::Duration;

use common::{Place, code, err};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

/// 20 merged records in partition 0, and 5 in each of both that are not.
fn place() -> Place {
    let place = Place::new(2);
    place.ok(&["topic", "alter", "t", "--config", "merge.max.age.ms=1000"]);
    produce(&place, 0, 20);
    std::thread::sleep(Duration::from_millis(1_100));
    place.ok(&["upkeep", "--once"]);
    place.ok(&["topic", "alter", "t", "--config", "merge.max.age.ms=86400000"]);
    produce(&place, 0, 5);
    produce(&place, 1, 5);
    place
}

fn produce(place: &Place, partition: u32, records: u32) {
    let line = |n: u32| format!("{{\"value\":\"{n}\",\"partition\":{partition}}}\n");
    let lines: String = (0..records).map(line).collect();
    let done = place.run_with(&["produce", "t", "--format", "ndjson"], lines.as_bytes());
    assert_eq!(code(&done), 0, "{}", err(&done));
}

fn rows(path: &str) -> i64 {
    let file = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    file.metadata().file_metadata().num_rows()
}

fn range(partition: u32, base: u64, end: u64) -> Value {
    json!({"partition": partition, "base": base, "end": end})
}

#[test]
fn the_list_says_what_is_merged_and_what_is_not() {
    let place = place();
    let list = place.json(&["files", "t"]);
    let files = list["files"].as_array().unwrap();
    assert_eq!(files.len(), 1);
    assert_eq!(files[0]["ranges"], json!([range(0, 0, 20)]));
    assert_eq!(files[0]["straddles"], json!(false));
    let path = files[0]["path"].as_str().unwrap();
    assert!(path.starts_with('/'), "{path}");
    assert_eq!(files[0]["bytes"], json!(fs::metadata(path).unwrap().len()));
    assert_eq!(rows(path), 20);
    assert_eq!(list["rest"], json!([range(0, 20, 25), range(1, 0, 5)]));
    assert_eq!(list["bounds"], json!([range(0, 0, 25), range(1, 0, 5)]));
    // Before an offset, and before a time.
    let list = place.json(&["files", "t", "--as-of", "0:7"]);
    assert_eq!(list["files"][0]["ranges"], json!([range(0, 0, 7)]));
    assert_eq!((&list["files"][0]["straddles"], &list["rest"]), (&json!(true), &json!([])));
    let list = place.json(&["files", "t", "--as-of", "1970-01-01T00:00:00Z"]);
    assert_eq!((&list["files"], &list["rest"]), (&json!([]), &json!([])));
    // For people, and as a query.
    let text = String::from_utf8(place.ok(&["files", "t"])).unwrap();
    assert!(text.lines().any(|line| line.ends_with("(not merged yet)")), "{text}");
    let query = place.run(&["files", "t", "--output", "duckdb"]);
    assert!(err(&query).contains("10 records of t are not merged yet"), "{}", err(&query));
    assert!(String::from_utf8(query.stdout).unwrap().contains(path));
}

#[test]
fn the_rest_becomes_files() {
    let place = place();
    let list = place.json(&["files", "t", "--materialize", "rest"]);
    assert_eq!(list["rest"], json!([]));
    let written = list["files"].as_array().unwrap().last().unwrap();
    assert_eq!(written["ranges"], json!([range(0, 20, 25), range(1, 0, 5)]));
    assert_eq!(rows(written["path"].as_str().unwrap()), 10);
    let query = place.run(&["files", "t", "--materialize", "more", "--output", "polars"]);
    assert_eq!((code(&query), err(&query)), (0, String::new()), "nothing is missing from the query");
    // There already.
    let again = place.run(&["files", "t", "--materialize", "rest"]);
    assert_eq!((code(&again), err(&again)), (1, "tidelog: rest is not empty\n".to_owned()));
    place.write("file", b"x");
    let file = place.run(&["files", "t", "--materialize", "file"]);
    assert!(code(&file) == 1 && err(&file).contains("cannot write file"), "{}", err(&file));
    let deep = place.run(&["files", "t", "--materialize", "no/folder"]);
    assert!(code(&deep) == 1 && err(&deep).contains("cannot write no/folder"), "{}", err(&deep));
}

#[test]
fn a_rest_that_is_damaged_leaves_nothing_behind() {
    let place = Place::new(1);
    let done = place.run_with(&["produce", "t", "--inline-bytes-max", "0"], b"one\ntwo\n");
    assert_eq!(code(&done), 0, "{}", err(&done));
    let segment = &place.segments()[0];
    let mut bytes = fs::read(segment).unwrap();
    bytes[10] ^= 1;
    fs::write(segment, bytes).unwrap();
    let damaged = place.run(&["files", "t", "--materialize", "rest"]);
    assert!(code(&damaged) == 4 && err(&damaged).contains("damaged"), "{}", err(&damaged));
    assert!(!place.path("rest").exists());
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let place = Place::new(2);
    for (args, wanted, words) in [
        (&["files", "nope"][..], 1, "unknown topic"),
        (&["files", "t", "--as-of", "2:0"], 1, "no partition 2"),
        (&["files", "t", "--as-of", "0:1"], 1, "out of range"),
        (&["files", "t", "--as-of", "1200"], 2, "0:1200,1:900"),
        (&["files", "t", "--as-of", "0:1,0:2"], 2, "named twice"),
        (&["files", "t", "--output", "athena"], 1, "Athena reads S3"),
        (&["files", "t", "--output", "athena", "--as-of", "0:0"], 2, "--as-of"),
        (&["topic", "list", "--output", "duckdb"], 2, "only `files` writes queries"),
    ] {
        let refused = place.run(args);
        assert_eq!(code(&refused), wanted, "{args:?}: {}", err(&refused));
        assert!(err(&refused).contains(words), "{args:?}: {}", err(&refused));
        assert!(refused.stdout.is_empty());
    }
}
