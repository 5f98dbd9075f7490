//! `tidelog export`, by the binary: every form, what is there already, what is killed, what is damaged.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

mod common;

use std::fs::{self, File};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use common::{Place, code, err};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

const RECORDS: &str = r#"{"key":"a","value":"plain","timestamp":0,"partition":0}
{"key":null,"value":null,"timestamp":253402300799999,"partition":0}
{"key":"","value":"","timestamp":1,"partition":1,"headers":[{"key":"h","value":"1"},{"key":"h","value":null}]}
{"key":"q","value":"with, \"quotes\"\nand lines","timestamp":2,"partition":1}
{"key_base64":"/w==","value_base64":"AP8=","timestamp":3,"partition":1}
"#;

fn place() -> Place {
    let place = Place::new(2);
    let produced = place.run_with(&["produce", "t", "--format", "ndjson"], RECORDS.as_bytes());
    assert_eq!(code(&produced), 0, "{}", err(&produced));
    place
}

/// What `consume` says, in the order of an export.
fn consumed(place: &Place) -> Vec<Value> {
    let lines = place.ok(&["consume", "t", "--until", "end", "--format", "json"]);
    let mut all: Vec<Value> = lines
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    all.sort_by_key(|record| (record["partition"].as_u64(), record["offset"].as_u64()));
    all
}

#[test]
fn ndjson_is_what_consume_says() {
    let place = place();
    let told: Value =
        serde_json::from_slice(&place.ok(&["export", "t", "-o", "all.ndjson", "--output", "json"])).unwrap();
    let text = fs::read_to_string(place.path("all.ndjson")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, consumed(&place));
    assert_eq!(told, json!({"file": "all.ndjson", "topic": "t", "records": 5, "bytes": text.len()}));
    assert!(!place.path("all.ndjson.partial").exists());
    let piped = place.ok(&["export", "t", "-o", "-", "--format", "ndjson"]);
    assert_eq!(String::from_utf8(piped).unwrap(), text);
}

#[test]
fn csv_tells_null_from_empty_and_bytes_from_text() {
    let place = place();
    place.ok(&["export", "t", "-o", "all.csv"]);
    let wanted = concat!(
        "partition,offset,timestamp,key,key_base64,value,value_base64,headers\n",
        "0,0,1970-01-01T00:00:00.000000Z,\"a\",,\"plain\",,\"[]\"\n",
        "0,1,9999-12-31T23:59:59.999000Z,,,,,\"[]\"\n",
        "1,0,1970-01-01T00:00:00.001000Z,\"\",,\"\",,",
        "\"[{\"\"key\"\":\"\"h\"\",\"\"value\"\":\"\"1\"\"},{\"\"key\"\":\"\"h\"\",\"\"value\"\":null}]\"\n",
        "1,1,1970-01-01T00:00:00.002000Z,\"q\",,\"with, \"\"quotes\"\"\nand lines\",,\"[]\"\n",
        "1,2,1970-01-01T00:00:00.003000Z,,\"/w==\",,\"AP8=\",\"[]\"\n",
    );
    assert_eq!(fs::read_to_string(place.path("all.csv")).unwrap(), wanted);
}

#[test]
fn parquet_has_every_column() {
    let place = place();
    for codec in ["none", "lz4", "snappy", "zstd"] {
        let name = format!("{codec}.parquet");
        place.ok(&["export", "t", "-o", &name, "--compression", codec]);
        let file = File::open(place.path(&name)).unwrap();
        let mut found = Vec::new();
        for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let column = |name: &str| batch.column_by_name(name).unwrap();
            let topics = column("topic")
                .as_dictionary::<Int32Type>()
                .downcast_dict::<arrow::array::StringArray>()
                .unwrap();
            let partitions = column("partition").as_primitive::<Int32Type>();
            let offsets = column("offset").as_primitive::<Int64Type>();
            let times = column("timestamp").as_primitive::<TimestampMicrosecondType>();
            let (keys, values) = (column("key").as_binary::<i32>(), column("value").as_binary::<i32>());
            let headers = column("headers").as_list::<i32>();
            for (row, topic) in topics.into_iter().enumerate() {
                let bytes = |name: &str, array: &arrow::array::BinaryArray, at: usize| {
                    let value = array.is_valid(at).then(|| array.value(at));
                    match value.map(|v| (std::str::from_utf8(v), v)) {
                        None => (name.to_owned(), Value::Null),
                        Some((Ok(text), _)) => (name.to_owned(), json!(text)),
                        Some((Err(_), v)) => {
                            use base64::Engine;
                            let text = base64::engine::general_purpose::STANDARD.encode(v);
                            (format!("{name}_base64"), json!(text))
                        }
                    }
                };
                let list = headers.value(row);
                let list = list.as_struct();
                let header = |at: usize| {
                    let (key, value) = (list.column(0).as_string::<i32>(), list.column(1).as_binary::<i32>());
                    Value::Object(
                        [("key".to_owned(), json!(key.value(at))), bytes("value", value, at)]
                            .into_iter()
                            .collect(),
                    )
                };
                let fields = [
                    ("topic".to_owned(), json!(topic.unwrap())),
                    ("partition".to_owned(), json!(partitions.value(row))),
                    ("offset".to_owned(), json!(offsets.value(row))),
                    ("timestamp".to_owned(), json!(times.value(row) / 1_000)),
                    bytes("key", keys, row),
                    bytes("value", values, row),
                    ("headers".to_owned(), (0..list.len()).map(header).collect()),
                ];
                found.push(Value::Object(fields.into_iter().collect()));
            }
        }
        assert_eq!(found, consumed(&place), "{codec}");
    }
}

#[test]
fn a_part_by_partition_offset_and_time() {
    let place = place();
    let lines = |args: &[&str]| {
        let text = place.ok(&[&["export", "t", "-o", "-", "--format", "ndjson"], args].concat());
        text.iter().filter(|byte| **byte == b'\n').count()
    };
    assert_eq!(lines(&["--partition", "1"]), 3);
    assert_eq!(lines(&["--partition", "1", "--from", "1"]), 2);
    assert_eq!(lines(&["--partition", "1", "--from", "1", "--until", "2"]), 1);
    assert_eq!(lines(&["--from", "end"]), 0);
    assert_eq!(lines(&["--from", "253402300799999"]), 1, "of both partitions, by time");
    let refused = place.run(&["export", "t", "-o", "x.csv", "--partition", "2"]);
    assert_eq!(code(&refused), 1);
    assert!(err(&refused).contains("t has no partition 2: it has 2, from 0 on"), "{}", err(&refused));
    let refused = place.run(&["export", "t", "-o", "x.csv", "--from", "9"]);
    assert!(err(&refused).contains("offset 9"), "{}", err(&refused));
    assert!(!place.path("x.csv").exists() && !place.path("x.csv.partial").exists());
}

#[test]
fn nothing_is_overwritten_unless_asked() {
    let place = place();
    place.write("there.csv", "mine");
    let refused = place.run(&["export", "t", "-o", "there.csv"]);
    assert_eq!(
        (code(&refused), err(&refused).trim()),
        (1, "tidelog: there.csv is there already: --force replaces it")
    );
    assert_eq!(fs::read(place.path("there.csv")).unwrap(), b"mine");
    place.ok(&["export", "t", "-o", "there.csv", "--force"]);
    assert!(fs::read_to_string(place.path("there.csv")).unwrap().starts_with("partition,"));
    let refused = place.run(&["export", "t", "-o", "what"]);
    assert_eq!(code(&refused), 2);
    assert!(err(&refused).contains("say --format"), "{}", err(&refused));
    let refused = place.run(&["export", "t", "-o", "no/such/folder.csv"]);
    assert_eq!(code(&refused), 1);
    assert!(err(&refused).contains("cannot write no/such/folder.csv.partial"), "{}", err(&refused));
    fs::create_dir(place.path("folder.csv")).unwrap();
    let refused = place.run(&["export", "t", "-o", "folder.csv", "--force"]);
    assert_eq!(code(&refused), 1);
    assert!(err(&refused).contains("cannot write folder.csv"), "{}", err(&refused));
    assert!(!place.path("folder.csv.partial").exists());
    let refused = place.run(&["export", "unknown", "-o", "x.csv"]);
    assert_eq!(code(&refused), 1);
    assert!(!place.path("x.csv").exists() && !place.path("x.csv.partial").exists());
}

/// Killed at any moment, the file is whole or not there; ended in order, nothing is left.
#[cfg(unix)]
#[test]
fn what_is_killed_leaves_no_half_of_a_file() {
    let place = Place::new(1);
    place.write("in.log", "a line that is shipped again and again\n".repeat(300_000));
    place.ok(&["produce", "t", "in.log"]);
    let started = || place.command(&["export", "t", "-o", "all.csv"]).spawn().unwrap();
    let wait_for = |name: &str| {
        while fs::metadata(place.path(name)).map_or(0, |found| found.len()) < 1_000_000 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    };
    let mut killed = started();
    wait_for("all.csv.partial");
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(!place.path("all.csv").exists(), "killed in the middle");
    fs::remove_file(place.path("all.csv.partial")).unwrap();
    let mut ended = started();
    wait_for("all.csv.partial");
    let pid = ended.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(ended.wait().unwrap().code(), Some(130));
    assert!(!place.path("all.csv").exists() && !place.path("all.csv.partial").exists(), "ended in order");
    // What a killed one left is no obstacle.
    place.write("all.csv.partial", "half");
    place.ok(&["export", "t", "-o", "all.csv"]);
    assert_eq!(fs::read_to_string(place.path("all.csv")).unwrap().lines().count(), 300_001);
}

#[test]
fn damage_is_told_and_no_file_is_left() {
    let place = Place::new(1);
    place.ok(&["topic", "alter", "t", "--config", "inline.bytes.max=0"]);
    place.run_with(&["produce", "t"], b"one\ntwo\n");
    fn files(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => files(&entry, found),
                false => found.push(entry),
            }
        }
    }
    let mut found = Vec::new();
    files(&place.path("tidelog-data"), &mut found);
    let segment = found.into_iter().find(|file| file.extension().is_some_and(|e| e == "parquet")).unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    bytes[20] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let refused = place.run(&["export", "t", "-o", "all.parquet"]);
    assert_eq!(code(&refused), 4, "{}", err(&refused));
    assert!(err(&refused).contains("CRC"), "{}", err(&refused));
    assert!(!place.path("all.parquet").exists() && !place.path("all.parquet.partial").exists());
}
