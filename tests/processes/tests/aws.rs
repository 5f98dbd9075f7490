//! The same on a bucket and a table: SeaweedFS and DynamoDB Local, and four processes with no channel between them but
//! those. And what a person is told who has none of it, or the wrong one.
//!
//! Ignored unless asked for, since they need Java, npm and PyPI: `./test aws`.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use tidelog_core::env::SystemEnv;
use tidelog_core::ledger::Settings;
use tidelog_core::store::aws::Access;
use tidelog_core::store::{Place, Store, StoreUrl};
use tidelog_core::{Log, Position};
use tidelog_servers::{KEY_ID, REGION, SECRET, Server, dynamodb, seaweedfs};

const WORKER: &str = env!("CARGO_BIN_EXE_tidelog-processes");

fn url(dynamodb: &Server, s3: &Server) -> String {
    let endpoints = format!("endpoint_dynamodb={}&endpoint_s3={}", dynamodb.url(), s3.url());
    format!("s3://tidelog-test/some/prefix?table=log&region={REGION}&{endpoints}")
}

/// A worker that has credentials, and nothing else of this machine's AWS configuration.
fn worker(args: &[&str]) -> Command {
    let mut worker = Command::new(WORKER);
    worker.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"] {
        worker.env_remove(name);
    }
    for name in ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"] {
        worker.env(name, "/nonexistent");
    }
    worker.env("AWS_EC2_METADATA_DISABLED", "true");
    worker.env("AWS_ACCESS_KEY_ID", KEY_ID).env("AWS_SECRET_ACCESS_KEY", SECRET);
    worker
}

/// The store, opened in this process with keys of its own.
fn store(text: &str) -> (Access, Store) {
    let url: StoreUrl = text.parse().unwrap();
    let Place::S3(place) = &url.place else { panic!("{text} is not on AWS") };
    let access = Access::with_keys(place, KEY_ID, SECRET, SystemEnv::shared()).unwrap();
    let objects = access.objects().unwrap();
    let table = std::sync::Arc::new(access.table());
    (access, Store { table, objects, url })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs DynamoDB Local and SeaweedFS: ./test aws"]
async fn four_processes_share_a_bucket_and_a_table() {
    let (dynamodb, s3) = (dynamodb(None).unwrap(), seaweedfs().unwrap());
    let text = url(&dynamodb, &s3);
    let folder = tempfile::tempdir().unwrap();
    let (access, opened) = store(&text);
    access.create().await.unwrap();
    let log = Log::with_store(opened, SystemEnv::shared(), true, Settings::default()).await.unwrap();
    log.admin().create_topic("t", 3, &[]).await.unwrap();
    let paths: Vec<_> = (0..4).map(|w| folder.path().join(format!("acks-{w}"))).collect();
    let workers: Vec<_> = (0..4)
        .map(|w| {
            let path = paths[w].to_str().unwrap();
            worker(&["append", &text, "t", &w.to_string(), "50", "60", path]).spawn().unwrap()
        })
        .collect();
    let mut conflicts = 0;
    for worker in workers {
        let output = worker.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        conflicts += String::from_utf8_lossy(&output.stdout).trim().parse::<u64>().unwrap();
    }
    println!("{conflicts} conflicts");
    assert!(conflicts >= 40, "only {conflicts} conflicts: nothing was proved");

    let cold =
        Log::with_store(store(&text).1, SystemEnv::shared(), false, Settings::default()).await.unwrap();
    let mut consumer = cold.consumer("t").until(Position::End).build().await.unwrap();
    let mut found = BTreeMap::new();
    while let Some(message) = consumer.next_message().await {
        let message = message.unwrap();
        let value = String::from_utf8(message.record.value.unwrap().to_vec()).unwrap();
        assert_eq!(found.insert(value, (message.partition, message.record.offset)), None, "no record twice");
    }
    let mut acked = BTreeMap::new();
    for path in &paths {
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let words: Vec<_> = line.split(' ').collect();
            acked.insert(words[0].to_owned(), (words[1].parse().unwrap(), words[2].parse().unwrap()));
        }
    }
    assert_eq!((acked.len(), found), (200, acked));
    let report = tidelog_core::verify::verify(&store(&text).1, |_, _| {}).await.unwrap();
    assert_eq!(report.records, 200, "{report:?}");
}

/// What a worker says on opening, and after how long at most.
#[allow(clippy::disallowed_methods, reason = "how long a person waits")]
fn told(worker: &mut Command) -> String {
    let began = std::time::Instant::now();
    let output = worker.output().unwrap();
    let waited = began.elapsed();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it succeeded: {words}");
    assert!(waited < Duration::from_secs(20), "{waited:?}: {words}");
    println!("{waited:?}: {words}");
    words
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs DynamoDB Local and SeaweedFS: ./test aws"]
async fn each_missing_thing_has_a_name() {
    let (dynamodb, s3) = (dynamodb(None).unwrap(), seaweedfs().unwrap());
    let text = url(&dynamodb, &s3);
    let open = |url: &str| worker(&["open", url]);

    let none = told(open(&text).env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY"));
    assert!(none.contains("no AWS credentials") && none.contains("AWS_PROFILE"), "{none}");
    // A profile that the URL names goes before keys in the environment.
    let none = told(&mut open(&format!("{text}&profile=absent")));
    assert!(none.contains("\"absent\""), "{none}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    std::fs::write(&file, format!("[mine]\naws_access_key_id={KEY_ID}\naws_secret_access_key={SECRET}\n"))
        .unwrap();
    let mine = format!("{text}&profile=mine");
    let mut mine = open(&mine);
    mine.env("AWS_SHARED_CREDENTIALS_FILE", &file).env("AWS_SECRET_ACCESS_KEY", "wrong");
    let none = told(&mut mine);
    assert!(none.contains("no such bucket"), "{none}");
    let none = told(&mut open(&text.replace(&format!("&region={REGION}"), "")));
    assert!(none.contains("region="), "{none}");
    let none = told(open(&text.replace(&format!("&region={REGION}"), "")).env("AWS_REGION", "Mars"));
    assert!(none.contains("\"Mars\""), "{none}");

    let none = told(&mut open(&text));
    assert!(none.contains("no such bucket") && none.contains("tidelog init"), "{none}");
    store(&text).0.create().await.unwrap();
    let none = told(&mut open(&text.replace("table=log", "table=lag")));
    assert!(none.contains("table lag") && none.contains("tidelog init"), "{none}");
    let none = told(&mut open(&text));
    assert!(none.contains("there is no log in it"), "{none}");
    Log::with_store(store(&text).1, SystemEnv::shared(), true, Settings::default()).await.unwrap();
    let none = told(&mut open(&format!("{text}&era=7")));
    assert!(none.contains("there is no log in it") && none.contains("era=7"), "{none}");
    let denied = told(open(&text).env("AWS_SECRET_ACCESS_KEY", "wrong"));
    assert!(denied.contains("403") && denied.contains("credentials"), "{denied}");

    let (s3_url, dynamodb_url) = (s3.url(), dynamodb.url());
    drop(s3);
    let gone = told(&mut open(&text));
    assert!(gone.contains(&s3_url) && gone.contains("bucket tidelog-test"), "{gone}");
    drop(dynamodb);
    let s3 = seaweedfs().unwrap();
    let text = text.replace(&s3_url, &s3.url());
    store(&text).0.create().await.unwrap_err();
    let gone = told(&mut open(&text));
    assert!(gone.contains(&dynamodb_url) && gone.contains("refused"), "{gone}");
}
