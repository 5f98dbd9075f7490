//! The commands, as a script sees them: what goes in, what comes out, and with which exit code.

mod common;

use std::io::Read;
use std::process::Stdio;

use common::{Place, code, err, ndjson};
use serde_json::json;

#[test]
fn lines_come_back_byte_for_byte() {
    let place = Place::new(1);
    place.write("in.txt", b"plain\r\n\nwin\r\n\xff\x00 raw\r \n\r\nlast");
    place.ok(&["produce", "t", "in.txt"]);
    assert_eq!(place.ok(&["consume", "t", "--until", "end"]), b"plain\n\nwin\n\xff\x00 raw\r \n\nlast\n");
    let output = place.run_with(&["produce", "t"], b"from stdin\n");
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(place.ok(&["consume", "t", "--from", "6", "--until", "end"]), b"from stdin\n");
}

#[test]
fn ndjson_out_is_ndjson_in() {
    let place = Place::new(3);
    let records = [
        json!({"key": null, "value": null, "headers": []}),
        json!({"key": "", "value": "", "timestamp": 0, "headers": [{"key": "", "value": null}]}),
        json!({"key_base64": "/wA=", "value": "caf\u{e9} \u{2028}\n", "timestamp": 253402300799999i64,
               "headers": [{"key": "h", "value": "1"}, {"key": "h", "value_base64": "gA=="}]}),
        json!({"partition": 2, "value": "chosen"}),
    ];
    let text: String = records.iter().map(|record| format!("{record}\n")).collect();
    let output = place.run_with(&["produce", "t", "--format", "ndjson"], text.as_bytes());
    assert_eq!(code(&output), 0, "{}", err(&output));
    let first = place.ok(&["consume", "t", "--until", "end", "--format", "json"]);
    let found = ndjson(&first);
    for wanted in &records {
        let same = |found: &&serde_json::Value| {
            wanted.as_object().unwrap().iter().all(|(name, value)| found[name] == *value)
        };
        assert!(found.iter().any(|found| same(&found)), "{wanted} not in {found:?}");
    }
    // What was written can be read again, and gives the same records.
    place.ok(&["topic", "create", "again", "--partitions", "3"]);
    let output = place.run_with(&["produce", "again", "--format", "ndjson"], &first);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let again = place.ok(&["consume", "again", "--until", "end", "--format", "json"]);
    let sorted = |bytes: &[u8]| {
        let mut lines: Vec<_> = ndjson(bytes)
            .into_iter()
            .map(|mut line| {
                line["topic"] = json!("t");
                line.to_string()
            })
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&again), sorted(&first));
}

#[test]
fn keyed_lines_keep_their_keys() {
    let place = Place::new(4);
    let output = place.run_with(
        &["produce", "t", "--format", "keyed", "--key-separator", "::"],
        b"a::1\nb::\n::x\na::2::3\nnone\n",
    );
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("<stdin>:5: line is invalid: no key separator \"::\""), "{}", err(&output));
    let found = place.ok(&["consume", "t", "--until", "end", "--format", "keyed", "--key-separator", "::"]);
    let mut lines: Vec<&[u8]> = found.split_inclusive(|byte| *byte == b'\n').collect();
    lines.sort();
    assert_eq!(lines, [&b"::x\n"[..], b"a::1\n", b"a::2::3\n", b"b::\n"]);
    let records = place.records();
    let of = |key: &str| {
        records.iter().filter(|r| r["key"] == key).map(|r| r["partition"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("a")[0], of("a")[1], "one key, one partition");
}

#[test]
fn bad_lines_are_reported_and_the_others_kept() {
    let place = Place::new(1);
    place.ok(&["topic", "alter", "t", "--config", "max.message.bytes=10"]);
    let long = "y".repeat(20 << 20);
    place.write("a.txt", format!("good\n12345678901\n{long}\n1234567890\n"));
    place.write("b.ndjson", "{\"value\":\"x\"}\n{\"vlaue\":\"x\"}\nnonsense\n{\"value\":\"y\",\"partition\":7}\n{\"value\":\"z\"}\n");
    let output = place.run(&["produce", "t", "a.txt", "absent.txt"]);
    assert_eq!(code(&output), 1);
    let said = err(&output);
    assert!(said.contains("a.txt:2: record is too large: 11, limit 10"), "{said}");
    assert!(said.contains(&format!("a.txt:3: line is too large: {}, limit", 20 << 20)), "{said}");
    assert!(said.contains("absent.txt: ") && said.contains("acked 2, rejected 3"), "{said}");
    let output = place.run(&["produce", "t", "--format", "ndjson", "b.ndjson"]);
    let said = err(&output);
    assert!(
        said.contains("b.ndjson:2: record is invalid: unknown field \"vlaue\"")
            && said.contains("b.ndjson:3: record is invalid: not a JSON object"),
        "{said}"
    );
    assert!(said.contains("b.ndjson:4: topic \"t\" has no partition 7"), "{said}");
    assert_eq!(
        (code(&output), place.ok(&["consume", "t", "--until", "end"])),
        (1, b"good\n1234567890\nx\nz\n".to_vec())
    );
}

#[test]
fn exit_codes_say_what_to_do() {
    let place = Place::new(1);
    place.write("in.txt", "x\n");
    for (wanted, args) in [
        (0, &["init"][..]),
        (0, &["--help"]),
        (0, &["produce", "--help"]),
        (0, &["man"]),
        (0, &["completions", "bash"]),
        (1, &["produce", "absent", "in.txt"]),
        (1, &["consume", "absent"]),
        (1, &["topic", "create", "t", "--partitions", "1"]),
        (1, &["topic", "create", "a/b", "--partitions", "1"]),
        (1, &["consume", "t", "--from", "99", "--until", "end"]),
        (1, &["group", "describe", "nobody"]),
        (1, &["--store", "elsewhere", "topic", "list"]),
        (1, &["--store", ".", "init"]),
        (2, &[]),
        (2, &["nonsense"]),
        (2, &["topic", "create", "x"]),
        (2, &["topic", "alter", "t"]),
        (2, &["consume", "t", "--from", "yesterday"]),
        (2, &["consume", "t", "--until", "start"]),
        (2, &["produce", "t", "--compression", "brotli", "in.txt"]),
        (2, &["produce", "t", "--producer-id", "p"]),
        (2, &["produce", "t", "--producer-id", "p", "-"]),
        (2, &["produce", "t", "--producer-id", "p", "in.txt", "in.txt"]),
    ] {
        let output = place.run(args);
        assert_eq!(code(&output), wanted, "{args:?}: {}", err(&output));
        assert!(wanted == 0 || !output.stderr.is_empty(), "{args:?} says nothing");
    }
}

#[test]
fn a_locked_store_says_try_again() {
    let place = Place::new(1);
    let holder = rusqlite::Connection::open(place.path("tidelog-data/table.sqlite")).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let output = place.run(&["topic", "create", "u", "--partitions", "1"]);
    assert_eq!(code(&output), 3, "{}", err(&output));
    holder.execute_batch("ROLLBACK").unwrap();
    place.ok(&["topic", "create", "u", "--partitions", "1"]);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let place = Place::new(1);
    place.write("in.txt", "a line\n".repeat(200_000));
    place.ok(&["produce", "t", "in.txt"]);
    let mut child = place.command(&["consume", "t", "--until", "end"]).spawn().unwrap();
    let mut start = [0; 100];
    child.stdout.take().unwrap().read_exact(&mut start).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), err(&output)), (0, String::new()));
}

#[test]
fn positions_bound_what_is_read() {
    let place = Place::new(2);
    let record = |i: i64| {
        format!("{{\"value\":\"{i}\",\"timestamp\":{},\"partition\":0}}\n", 1_700_000_000_000i64 + i * 1_000)
    };
    let text: String = (0..10).map(record).collect();
    place.run_with(&["produce", "t", "--format", "ndjson"], text.as_bytes());
    let read = |args: &[&str]| {
        String::from_utf8(place.ok(&[&["consume", "t", "--partition", "0"], args].concat()))
            .unwrap()
            .replace('\n', "")
    };
    assert_eq!(read(&["--until", "end"]), "0123456789");
    assert_eq!(read(&["--from", "3", "--until", "6"]), "345");
    assert_eq!(read(&["--from", "1700000004000", "--until", "end"]), "456789");
    assert_eq!(read(&["--from", "2023-11-14T22:13:24.001Z", "--until", "end"]), "56789");
    assert_eq!(read(&["--from", "8", "--until", "1700000009000"]), "8");
    assert_eq!(read(&["--max-records", "4"]), "0123");
    assert_eq!(read(&["--from", "-1h", "--until", "end"]), "");
    assert_eq!(read(&["--from", "end", "--until", "end"]), "");
}

#[cfg(unix)]
#[test]
fn a_group_goes_on_where_it_was_interrupted() {
    let place = Place::new(2);
    place.run_with(&["produce", "t", "--format", "keyed"], b"a\t1\nb\t2\nc\t3\n");
    let group = ["--group", "g", "--format", "value"];
    assert_eq!(place.ok(&[&["consume", "t", "--max-records", "1"][..], &group].concat()).len(), 2);
    // Follows, and is interrupted.
    let mut child =
        place.command(&[&["consume", "t"][..], &group].concat()).stdout(Stdio::piped()).spawn().unwrap();
    let mut rest = [0; 4];
    child.stdout.as_mut().unwrap().read_exact(&mut rest).unwrap();
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(code(&child.wait_with_output().unwrap()), 0);
    let described = place.json(&["group", "describe", "g"]);
    assert!(described["partitions"].as_array().unwrap().iter().all(|p| p["lag"] == 0), "{described}");
    assert_eq!(place.ok(&[&["consume", "t", "--until", "end"][..], &group].concat()), b"");
    place.ok(&["group", "reset", "g", "--topic", "t", "--to", "start"]);
    assert_eq!(place.ok(&[&["consume", "t", "--until", "end"][..], &group].concat()).len(), 6);
    assert_eq!(place.json(&["group", "list"]), json!(["g"]));
    place.ok(&["group", "delete", "g"]);
    assert_eq!(place.json(&["group", "list"]), json!([]));
}

#[test]
fn topics_are_described_and_altered() {
    let place = Place::new(1);
    place.ok(&["topic", "alter", "t", "--partitions", "3", "--config", "retention.ms=1000"]);
    let topic = place.json(&["topic", "describe", "t"]);
    assert_eq!(
        (topic["partitions"].as_array().unwrap().len(), &topic["config"]),
        (3, &json!({"retention.ms": "1000"}))
    );
    place.ok(&["topic", "alter", "t", "--unset", "retention.ms"]);
    assert_eq!(place.json(&["topic", "describe", "t"])["config"], json!({}));
    let text = String::from_utf8(place.ok(&["topic", "list"])).unwrap();
    assert!(text.contains("PARTITIONS") && text.contains("t "), "{text}");
    place.ok(&["topic", "delete", "t"]);
    assert_eq!(place.json(&["topic", "list"]), json!([]));
}

/// Who may only read a folder needs SQLite's log and its index, or neither.
#[test]
fn a_command_that_ends_closes_the_database() {
    let place = Place::new(1);
    for _ in 0..20 {
        place.run_with(&["produce", "t"], b"one\ntwo\n");
        assert!(
            !place.path("tidelog-data/table.sqlite-wal").exists(),
            "the log is written into the database"
        );
    }
}
