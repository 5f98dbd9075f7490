//! The rights that docs/RUNNING_ON_AWS.md lists, against the requests of a recorded run: for reading, writing and `init`
//! exactly these. No emulator evaluates IAM policies, so the actions are read off the requests.
//!
//! Ignored unless asked for, since it needs Java, npm and PyPI: `./test aws`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidelog_core::env::SystemEnv;
use tidelog_core::ledger::Settings;
use tidelog_core::store::aws::Access;
use tidelog_core::store::{Place, Store, StoreUrl};
use tidelog_core::upkeep::Step;
use tidelog_core::{Log, Position, Record, UpkeepSettings};
use tidelog_proxy::{Entry, Proxy};
use tidelog_servers::{KEY_ID, REGION, SECRET, Server, dynamodb, seaweedfs};

/// Action → resources below the bucket's prefix, or `""` for the bucket and the table themselves.
type Rights = BTreeMap<String, BTreeSet<String>>;

/// The policies of the page, in its order: read, write, init, upkeep.
fn listed() -> [Rights; 4] {
    let page = include_str!("../../docs/RUNNING_ON_AWS.md");
    let blocks = page.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let policies: Vec<Rights> = blocks.map(rights_of).collect();
    policies.try_into().expect("four policies")
}

fn rights_of(policy: &str) -> Rights {
    let policy: serde_json::Value = serde_json::from_str(policy).unwrap();
    let mut rights = Rights::new();
    for statement in policy["Statement"].as_array().unwrap() {
        assert_eq!(statement["Effect"], "Allow");
        let resources: Vec<_> = match &statement["Resource"] {
            serde_json::Value::Array(several) => several.iter().collect(),
            one => vec![one],
        };
        for action in statement["Action"].as_array().unwrap() {
            for resource in &resources {
                let resource = match resource.as_str().unwrap() {
                    "arn:aws:dynamodb:REGION:ACCOUNT:table/TABLE" | "arn:aws:s3:::BUCKET" => "",
                    objects => objects
                        .strip_prefix("arn:aws:s3:::BUCKET/PREFIX/")
                        .and_then(|objects| objects.strip_suffix('*'))
                        .unwrap_or_else(|| panic!("{objects} is wider than it needs to be")),
                };
                rights.entry(action.as_str().unwrap().to_owned()).or_default().insert(resource.to_owned());
            }
        }
    }
    rights
}

/// What of `rights` a request needs: an action and the resource that allows it; a request that they do not allow gives
/// itself.
fn needs(entry: &Entry, rights: &Rights) -> Result<(String, String), String> {
    let path = entry.target.split('?').next().unwrap_or_default();
    let (action, key) = match (entry.operation.as_deref(), entry.method.as_str()) {
        (Some(operation), _) => (format!("dynamodb:{operation}"), None),
        (None, method) => match (method, path.strip_prefix("/tidelog-test").map(|key| key.trim_matches('/')))
        {
            // GET: a listing, which upkeep alone makes.
            ("HEAD" | "GET", Some("")) => ("s3:ListBucket".to_owned(), None),
            // The keys are in the body; the policy bounds them.
            ("POST", Some("")) if entry.target.contains("delete") => {
                ("s3:DeleteObject".to_owned(), Some("l0/"))
            }
            ("PUT", Some("")) => ("s3:CreateBucket".to_owned(), None),
            // A multipart upload is begun, and completed.
            ("POST", Some(key)) => ("s3:PutObject".to_owned(), Some(key)),
            ("GET" | "HEAD", Some(key)) => ("s3:GetObject".to_owned(), Some(key)),
            ("PUT", Some(key)) => ("s3:PutObject".to_owned(), Some(key)),
            ("DELETE", Some(key)) if entry.target.contains("uploadId=") => {
                ("s3:AbortMultipartUpload".to_owned(), Some(key))
            }
            _ => return Err(format!("{method} {}", entry.target)),
        },
    };
    let key = key.map(|key| key.strip_prefix("some/prefix/").unwrap_or(key));
    let allows = |resource: &&String| match key {
        None => resource.is_empty(),
        Some(key) => key.starts_with(resource.as_str()),
    };
    match rights.get(&action).and_then(|resources| resources.iter().find(allows)) {
        Some(resource) => Ok((action, resource.clone())),
        None => Err(format!("{action} {}", key.unwrap_or_default())),
    }
}

/// A bucket and a table, with a recorder before each.
struct Recorded {
    _servers: [Server; 2],
    proxies: [Proxy; 2],
    url: String,
}

impl Recorded {
    async fn start() -> Self {
        let (dynamodb, s3) = (dynamodb(None).unwrap(), seaweedfs().unwrap());
        let address = |url: String| url.strip_prefix("http://").unwrap().parse().unwrap();
        let table = Proxy::start(address(dynamodb.url()), 1).await.unwrap();
        let bucket = Proxy::start(address(s3.url()), 1).await.unwrap();
        let endpoints = format!("endpoint_dynamodb={}&endpoint_s3={}", table.endpoint(), bucket.endpoint());
        let url = format!("s3://tidelog-test/some/prefix?table=log&region={REGION}&{endpoints}");
        Self { _servers: [dynamodb, s3], proxies: [table, bucket], url }
    }

    /// Runs the binary, which must succeed, with keys and nothing else of this machine's AWS configuration.
    async fn run(&self, args: &[&str]) -> String {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidelog"));
        for name in ["AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"] {
            command.env_remove(name);
        }
        for name in ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"] {
            command.env(name, "/nonexistent");
        }
        command.env("AWS_ACCESS_KEY_ID", KEY_ID).env("AWS_SECRET_ACCESS_KEY", SECRET);
        let output = command.env("TIDELOG_STORE", &self.url).args(args).output().await.unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {words}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The log in this process, which writes a checkpoint and strips after few commits.
    async fn log(&self) -> Log {
        let url: StoreUrl = self.url.parse().unwrap();
        let Place::S3(place) = &url.place else { panic!("not on AWS") };
        let access = Access::with_keys(place, KEY_ID, SECRET, SystemEnv::shared()).unwrap();
        let store = Store { table: Arc::new(access.table()), objects: access.objects().unwrap(), url };
        let settings = Settings { checkpoint_commits: 8, ..Settings::default() };
        Log::with_store(store, SystemEnv::shared(), false, settings).await.unwrap()
    }

    /// What was needed since the last call, all of which `allowed` must allow.
    fn needed(&self, allowed: &Rights) -> Rights {
        let mut needed = Rights::new();
        for entry in self.proxies.iter().flat_map(Proxy::log) {
            let (action, resource) =
                needs(&entry, allowed).unwrap_or_else(|what| panic!("not allowed: {what}"));
            needed.entry(action).or_default().insert(resource);
        }
        self.proxies.iter().for_each(Proxy::forget);
        needed
    }
}

fn joined(several: &[&Rights]) -> Rights {
    let mut all = Rights::new();
    for (action, resources) in several.iter().flat_map(|rights| rights.iter()) {
        all.entry(action.clone()).or_default().extend(resources.iter().cloned());
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs DynamoDB Local and SeaweedFS: ./test aws"]
async fn the_policies_allow_what_is_asked_and_no_more() {
    let recorded = Recorded::start().await;
    let [read, write, init, upkeep] = listed();
    let (may_write, may_init) = (joined(&[&read, &write]), joined(&[&read, &write, &init]));
    let may_delete = joined(&[&read, &write, &upkeep]);

    recorded.run(&["init"]).await;
    let initialized = recorded.needed(&may_init);

    recorded.run(&["topic", "create", "t", "--partitions", "3"]).await;
    let log = recorded.log().await;
    let producer = log.producer().linger_ms(0).build().unwrap();
    for n in 0..40 {
        let value = "x".repeat(if n % 2 == 0 { 10 } else { 10_000 });
        producer.send("t", Record::keyed(format!("k{n}"), value)).await.unwrap();
    }
    producer.close().await.unwrap();
    recorded.run(&["consume", "t", "--group", "g", "--until", "end"]).await;
    let wrote = recorded.needed(&may_write);

    assert_eq!(recorded.run(&["consume", "t", "--until", "end"]).await.lines().count(), 40);
    recorded.run(&["group", "describe", "g"]).await;
    recorded.run(&["inspect", "ledger"]).await;
    recorded.run(&["verify"]).await;
    let looked = recorded.needed(&read);

    // What a rewrite makes of these is sent in parts.
    let producer = log.producer().build().unwrap();
    for seed in 0..6u64 {
        let mut value = vec![0; 1_000_000];
        let mut random = seed;
        for byte in &mut value {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (random >> 56) as u8;
        }
        producer.enqueue("t", Some(0), Record::value(value), None).await.unwrap();
    }
    producer.close().await.unwrap();
    let upkeep_in = |part_bytes: usize| {
        let defaults = UpkeepSettings::default();
        log.upkeep(UpkeepSettings { sweep_lag_ms: 0, read_lag_ms: 0, part_bytes, ..defaults })
    };
    let sweep = upkeep_in(5 << 20);
    sweep.merge(true, |_, _| {}).await.unwrap();
    let producer = log.producer().build().unwrap();
    producer.enqueue("t", Some(0), Record::value("more"), None).await.unwrap();
    producer.close().await.unwrap();
    sweep.merge(true, |_, _| {}).await.unwrap();
    // Too small for S3: it is given up.
    let refused = upkeep_in(1_000_000).rewrite(true, |_| {}).await.unwrap_err();
    assert!(refused.to_string().contains("EntityTooSmall"), "{refused}");
    assert_eq!(sweep.rewrite(true, |_| {}).await.unwrap().objects, 1);
    log.admin().delete_records("t", None, Position::End).await.unwrap();
    let mut deleted = BTreeSet::new();
    let tell = |step: Step<'_>| {
        if let Step::Deleted(deletion) = step {
            deleted.insert(deletion.name.to_string().split('/').next().unwrap().to_owned());
        }
    };
    sweep.run(tell).await.unwrap();
    assert_eq!(deleted, ["ckpt", "l0", "topics"].map(str::to_owned).into());
    let swept = recorded.needed(&may_delete);

    // Each right was needed by somebody.
    assert_eq!(looked, read);
    assert_eq!(joined(&[&wrote, &read]), may_write);
    assert_eq!(joined(&[&initialized, &may_write]), may_init);
    let right = |action: &str, resources: &[&str]| {
        (action.to_owned(), resources.iter().map(|resource| (*resource).to_owned()).collect())
    };
    let more = Rights::from([
        right("dynamodb:DeleteItem", &[""]),
        right("s3:DeleteObject", &["ckpt/", "l0/", "topics/"]),
        right("s3:PutObject", &["topics/"]),
        right("s3:AbortMultipartUpload", &["topics/"]),
    ]);
    assert_eq!(upkeep, more, "nobody else may delete, and nothing else");
    assert!(swept["s3:PutObject"].contains("topics/") && swept.contains_key("dynamodb:DeleteItem"));
    assert!(swept["s3:AbortMultipartUpload"].contains("topics/"));
    assert!(swept.contains_key("s3:DeleteObject") && !may_init.contains_key("s3:DeleteObject"));
}
