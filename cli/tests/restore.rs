//! `tidelog restore`: from a copied folder, and from a copied DynamoDB table beside the log's bucket.

#![allow(clippy::disallowed_methods, reason = "real processes, real time")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use common::{Place, code, err};
use serde_json::json;
use tidelog_core::env::SystemEnv;
use tidelog_core::store::{Place as Where, StoreUrl, aws::Access};
use tidelog_core::table::{Consistency, Item, SharedTable};
use tidelog_servers::{KEY_ID, REGION, SECRET, dynamodb, seaweedfs};

const ERA_0: &str = "copy";
const ERA_1: &str = "copy?era=1";

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.as_ref().unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

fn lines(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

/// Topic `t` with merged and unmerged records, segments and inline ones; a copy of its folder; and records after that.
fn copied() -> Place {
    let place = Place::new(1);
    place.ok(&["topic", "alter", "t", "--config", "merge.max.age.ms=1000"]);
    let produce = |text: &str, inline| {
        place.write("in.txt", text);
        place.ok(&["produce", "t", "in.txt", "--inline-bytes-max", inline]);
    };
    produce("a\nb\n", "0");
    produce("c\nd\n", "4096");
    std::thread::sleep(Duration::from_millis(1_100));
    let run = place.json(&["upkeep", "--once"]);
    assert_eq!(run["merged"]["records"], json!(4), "{run}");
    produce("e\nf\n", "0");
    copy(&place.path("tidelog-data"), &place.path("copy"));
    produce("lost\n", "0");
    place
}

fn read(place: &Place, store: &str) -> Output {
    place.run(&["consume", "t", "--until", "end", "--store", store])
}

#[test]
fn a_copied_folder_goes_on() {
    let place = copied();
    let looked = place.json(&["restore", "--store", ERA_0, "--era", "1", "--dry-run"]);
    assert_eq!((&looked["begins"], &looked["verified"]["damage"]), (&json!(null), &json!([])), "{looked}");
    let done = place.json(&["restore", "--store", ERA_0, "--era", "1"]);
    assert_eq!((&done["store"], &done["index_rows"]), (&json!(ERA_1), &json!(1)), "{done}");
    assert_eq!(done["begins"], done["commits"], "{done}");

    assert_eq!(lines(&read(&place, ERA_1).stdout), 6);
    place.ok(&["produce", "t", "in.txt", "--inline-bytes-max", "0", "--store", ERA_1]);
    assert_eq!(lines(&read(&place, ERA_1).stdout), 7);
    std::thread::sleep(Duration::from_millis(1_100));
    let run = place.json(&["upkeep", "--once", "--store", ERA_1]);
    assert_eq!(run["merged"]["records"], json!(3), "{run}");
    assert_eq!(lines(&read(&place, ERA_1).stdout), 7);
    assert_eq!(place.json(&["verify", "--store", ERA_1])["damage"], json!([]));

    // Nobody goes on in the old era of the copy; the log that it was copied from is another.
    for args in [["consume", "t"], ["produce", "t"]] {
        let refused = place.run(&[&args[..], &["--store", ERA_0]].concat());
        assert!(code(&refused) == 4 && err(&refused).contains("add era=1"), "{}", err(&refused));
    }
    assert_eq!(place.records().len(), 7);

    let again = place.ok(&["restore", "--store", ERA_0, "--era", "1"]);
    assert!(String::from_utf8_lossy(&again).contains("there already"));
    for (args, words) in [
        (["restore", "--store", ERA_1, "--era", "1"], "not after"),
        (["restore", "--store", ERA_0, "--era", "2"], "add era=1"),
        (["restore", "--store", "nowhere", "--era", "2"], "no such folder"),
    ] {
        let refused = place.run(&args);
        assert!(code(&refused) == 1 && err(&refused).contains(words), "{args:?}: {}", err(&refused));
    }
    for args in [["restore", "--era", "0"], ["restore", "--era", "65536"]] {
        assert_eq!(code(&place.run(&args)), 2);
    }
}

#[test]
fn what_is_missing_or_damaged_is_told_with_its_offsets() {
    let place = copied();
    // The newest: those before it are merged, and nobody needs them.
    let segment = walk(&place.path("copy/l0")).pop().unwrap();
    let whole = fs::read(&segment).unwrap();
    fs::write(&segment, &whole[..whole.len() / 2]).unwrap();
    let refused = place.run(&["restore", "--store", ERA_0, "--era", "1"]);
    let words = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert_eq!(code(&refused), 4);
    for part in ["DAMAGED l0/0000", "touches t/", "nothing was written", "delete markers", "--accept-loss"] {
        assert!(words.contains(part), "{words}");
    }
    assert!(code(&read(&place, ERA_1)) == 1 && code(&read(&place, ERA_0)) == 4);
    // Brought back.
    fs::write(&segment, &whole).unwrap();
    place.ok(&["restore", "--store", ERA_0, "--era", "1"]);
    assert_eq!(lines(&read(&place, ERA_1).stdout), 6);
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn killed_at_any_moment_it_is_run_again() {
    let place = copied();
    let mut killed = 0;
    for round in 0..12 {
        let copied = place.path("copy");
        copy(&copied, &place.path(&format!("copy{round}")));
        let store = format!("copy{round}");
        let mut child = place.command(&["restore", "--store", &store, "--era", "1"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(10 * round));
        child.kill().unwrap();
        killed += usize::from(!child.wait().unwrap().success());
        place.ok(&["restore", "--store", &store, "--era", "1"]);
        assert_eq!(lines(&read(&place, &format!("{store}?era=1")).stdout), 6);
    }
    assert!(killed > 0);
}

/// The items of these keys, as a restore of DynamoDB's gives them under another name.
async fn copy_table(from: &SharedTable, to: &SharedTable, pks: &[String]) -> Vec<Item> {
    let mut all = Vec::new();
    for pk in pks {
        let page = from.range(pk, 0, 1_000, Consistency::Strong).await.unwrap().value;
        assert!(!page.more);
        for item in page.items {
            to.put_if_absent(pk, &item).await.unwrap();
            all.push(item);
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs DynamoDB Local and SeaweedFS: ./test aws"]
async fn a_copied_table_goes_on() {
    let (dynamodb, s3) = (dynamodb(None).unwrap(), seaweedfs().unwrap());
    let endpoints = format!("endpoint_dynamodb={}&endpoint_s3={}", dynamodb.url(), s3.url());
    let url =
        |table: &str| format!("s3://tidelog-test/some/prefix?table={table}&region={REGION}&{endpoints}");
    let place = Place::new(1);
    let command = |store: &str, args: &[&str]| {
        let mut command: Command = place.command(args);
        for name in ["AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"] {
            command.env_remove(name);
        }
        for name in ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"] {
            command.env(name, "/nonexistent");
        }
        command.env("AWS_ACCESS_KEY_ID", KEY_ID).env("AWS_SECRET_ACCESS_KEY", SECRET);
        command.env("TIDELOG_STORE", store);
        command
    };
    let run = |store: &str, args: &[&str]| command(store, args).output().unwrap();
    let ok = |store: &str, args: &[&str]| {
        let output = run(store, args);
        assert_eq!(code(&output), 0, "{args:?}: {}", err(&output));
        output.stdout
    };
    let (old, new, new_era) = (url("log"), url("log-2"), format!("{}&era=1", url("log-2")));
    ok(&old, &["init"]);
    ok(&old, &["topic", "create", "t", "--partitions", "1", "--config", "merge.max.age.ms=1000"]);
    place.write("in.txt", "a\nb\n");
    for inline in ["0", "4096", "0"] {
        ok(&old, &["produce", "t", "in.txt", "--inline-bytes-max", inline]);
    }
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    ok(&old, &["upkeep", "--once"]);
    ok(&old, &["produce", "t", "in.txt", "--inline-bytes-max", "0"]);

    let access = |store: &str| {
        let url: StoreUrl = store.parse().unwrap();
        let Where::S3(place) = &url.place else { panic!("not on AWS") };
        Access::with_keys(place, KEY_ID, SECRET, SystemEnv::shared()).unwrap()
    };
    let tables: [SharedTable; 2] =
        [&old, &new].map(|store| std::sync::Arc::new(access(store).table()) as SharedTable);
    access(&new).create().await.unwrap();
    let topic: serde_json::Value =
        serde_json::from_slice(&ok(&old, &["topic", "describe", "t", "--output", "json"])).unwrap();
    let id = topic["topic_id"].as_str().unwrap();
    let pks = ["0000/0000".to_owned(), format!("0000/{id}/0")];
    let copied = copy_table(&tables[0], &tables[1], &pks).await;
    assert!(copied.iter().any(|item| item.hint == "row"));
    ok(&old, &["produce", "t", "in.txt"]);

    let refused = run(&new, &["consume", "t"]);
    assert!(code(&refused) == 4 && err(&refused).contains("tidelog restore"), "{}", err(&refused));
    let refused = run(&old, &["restore", "--era", "1"]);
    assert!(code(&refused) == 1 && err(&refused).contains("is no copy"), "{}", err(&refused));

    for pause_ms in [50, 150, 300, 450] {
        let mut child = command(&new, &["restore", "--era", "1"]).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    ok(&new, &["restore", "--era", "1"]);
    assert_eq!(lines(&ok(&new_era, &["consume", "t", "--until", "end"])), 8);
    ok(&new_era, &["produce", "t", "in.txt", "--inline-bytes-max", "0"]);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    ok(&new_era, &["upkeep", "--once"]);
    assert_eq!(lines(&ok(&new_era, &["consume", "t", "--until", "end"])), 10);
    ok(&new_era, &["verify"]);
    let refused = run(&new, &["consume", "t"]);
    assert!(code(&refused) == 4 && err(&refused).contains("add era=1"), "{}", err(&refused));
    // The era is taken, from whatever copy.
    let third = url("log-3");
    access(&third).create().await.unwrap();
    let to: SharedTable = std::sync::Arc::new(access(&third).table());
    copy_table(&tables[0], &to, &pks).await;
    let refused = run(&third, &["restore", "--era", "1"]);
    assert!(code(&refused) == 1 && err(&refused).contains("1 is taken"), "{}", err(&refused));
}
