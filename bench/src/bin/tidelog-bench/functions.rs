//! The functions' binaries, as Lambda would run them: a Runtime API of the tests, the tests' S3 server (PUT 50 ms, GET 20 ms)
//! and DynamoDB Local behind them.
//!
//! `bench/functions` builds and packs them, and runs this.
//!
//! | number | from | to |
//! |---|---|---|
//! | init | the process is started | it asks for its first event |
//! | first answer | that event is taken | its answer is there: the log is opened meanwhile |
//! | first warm | the second event | its answer |
//! | floor | the same requests to the stores, by this process, alone: a put in the table, and a PUT before it | |
//! | resident | after 20 events and a second of rest | |

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tidelog_bench::options::Options;
use tidelog_bench::targets::{self, Target};
use tidelog_bench::{Fallible, clock, median};
use tidelog_core::env::SystemEnv;
use tidelog_core::objects::{ObjectName, Objects, Ulid};
use tidelog_core::store::aws::Access;
use tidelog_core::store::{Place, S3Url, Store, StoreUrl};
use tidelog_core::table::{Item, Table};
use tidelog_core::{Log, Record};
use tidelog_s3server::{Latency, Server as S3Server, Verb};
use tidelog_servers::{KEY_ID, REGION, SECRET, dynamodb};
use tokio::runtime::Runtime;

#[path = "../../../../functions/ingest/tests/runtime_api/mod.rs"]
#[allow(clippy::disallowed_methods, reason = "it is about processes and real time")]
mod runtime_api;
use runtime_api::{Function, RuntimeApi, event};

const EVENTS: usize = 20;

/// What one life of a process took, ms and KiB.
#[derive(Debug, Default)]
struct Lives {
    init: Vec<f64>,
    first: Vec<f64>,
    first_warm: Vec<f64>,
    warm: Vec<f64>,
    at_rest_kib: Vec<f64>,
}

struct Stores {
    url: StoreUrl,
    table: std::sync::Arc<dyn Table>,
    objects: Objects,
}

pub fn run(options: &Options) -> Fallible<()> {
    let folder = options.functions.as_deref().ok_or("--functions DIR is wanted: see bench/functions")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let s3 = runtime.block_on(S3Server::start("bucket", 1))?;
    s3.set_latency(Verb::Put, Latency::Constant(50.0));
    s3.set_latency(Verb::Get, Latency::Constant(20.0));
    s3.set_latency(Verb::Head, Latency::Constant(20.0));
    let dynamodb = dynamodb(None)?;
    let place = S3Url {
        bucket: "bucket".to_owned(),
        table: "log".to_owned(),
        region: Some(REGION.to_owned()),
        endpoint_dynamodb: Some(dynamodb.url()),
        endpoint_s3: Some(s3.endpoint()),
        ..S3Url::default()
    };
    let access = Access::with_keys(&place, KEY_ID, SECRET, SystemEnv::shared())?;
    runtime.block_on(access.table().create())?;
    let url = StoreUrl { place: Place::S3(place), era: 0 };
    let (table, objects) = (std::sync::Arc::new(access.table()), access.objects()?);
    let stores = Stores { url, table, objects };
    runtime.block_on(fill(&stores))?;

    let small = event("POST", "/v1/topics/logs/records", &[], "one small line");
    let large = event("POST", "/v1/topics/logs/records", &[], &"a line of some length\n".repeat(500));
    let read = event("GET", "/v1/topics/read/partitions/0/records", &[], "");
    let ingest = folder.join("ingest/bootstrap");
    for (what, bytes, event) in [("ingest, inline", 0, &small), ("ingest, a segment", 4_000, &large)] {
        let floor = floor(&runtime, &stores, bytes, options.rounds)?;
        live(what, &ingest, &stores.url, event, options.rounds)?.print(what, Some(floor));
    }
    live("fetch", &folder.join("fetch/bootstrap"), &stores.url, &read, options.rounds)?.print("fetch", None);
    Ok(())
}

async fn fill(stores: &Stores) -> Fallible<()> {
    let Stores { url, table, objects } = stores;
    let store = Store { table: table.clone(), objects: objects.clone(), url: url.clone() };
    let log = Log::builder().open_store(store).await?;
    log.admin().create_topic("logs", 4, &[]).await?;
    log.admin().create_topic("read", 1, &[]).await?;
    let producer = log.producer().build()?;
    producer.send("read", Record::value(vec![b'x'; 10_000])).await?;
    producer.close().await?;
    Ok(())
}

/// The requests of a flush, alone, ms: the PUT of so many bytes, if any, then a put in the table.
fn floor(runtime: &Runtime, stores: &Stores, bytes: usize, rounds: usize) -> Fallible<f64> {
    let (mut times, env) = (Vec::new(), SystemEnv::shared());
    for n in 0..rounds.max(5) * 4 {
        let name = ObjectName::L0 { era: 0xffff, ledger: 0, drawn: 1, ulid: Ulid::draw(&*env) };
        let item = Item {
            sk: n as u64 + 1 + (bytes as u64) * 1_000_000,
            id: 1,
            time_ms: env.now_ms(),
            body: Some(Bytes::from(vec![7; 400])),
            hint: "Append".to_owned(),
        };
        let mut done = Ok(());
        let time = clock(|| {
            done = runtime.block_on(async {
                if bytes > 0 {
                    stores.objects.put_new(&name, Bytes::from(vec![7; bytes])).await?;
                }
                let put = stores.table.put_if_absent("floor", &item).await;
                put.map(drop).map_err(|error| error.into_error("putting", "log"))
            });
        });
        done?;
        times.push(ms(time));
    }
    // The first ones connect.
    Ok(median(times.split_off(4)))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Several lives of one function, each from its start.
fn live(what: &str, binary: &Path, store: &StoreUrl, event: &Value, rounds: usize) -> Fallible<Lives> {
    let binary = binary.to_str().ok_or("a path in UTF-8")?;
    let (api, url) = (RuntimeApi::start(), store.to_string());
    let variables = [
        ("TIDELOG_STORE", url.as_str()),
        ("AWS_ACCESS_KEY_ID", KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_REGION", REGION),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    let mut lives = Lives::default();
    for _ in 0..rounds {
        let mut function = None;
        lives.init.push(ms(clock(|| {
            function = Some(Function::start(binary, &api, &variables));
            api.offer(event);
        })));
        let function = function.ok_or("it was started")?;
        let mut answer = Value::Null;
        lives.first.push(ms(clock(|| answer = api.answer())));
        for n in 0..EVENTS {
            if answer["statusCode"] != 200 {
                return Err(format!("{what}: {answer}").into());
            }
            let took = ms(clock(|| answer = api.invoke(event)));
            if n == 0 { &mut lives.first_warm } else { &mut lives.warm }.push(took);
        }
        rest();
        lives.at_rest_kib.push(resident_kib(function.id())?);
        function.kill();
    }
    Ok(lives)
}

#[allow(clippy::disallowed_methods, reason = "a real process rests")]
fn rest() {
    std::thread::sleep(Duration::from_secs(1));
}

fn resident_kib(process: u32) -> Fallible<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

impl Lives {
    fn print(self, what: &str, floor: Option<f64>) {
        let lives = self.init.len();
        let [init, first, first_warm, warm, rest] =
            [self.init, self.first, self.first_warm, self.warm, self.at_rest_kib].map(median);
        println!(
            "{what}: medians of {lives} lives: init {init:.1} ms, first answer {first:.1} ms, first warm {first_warm:.1} ms, \
             later {warm:.1} ms, {:.1} MiB resident at rest",
            rest / 1_024.0
        );
        targets::check(&format!("{what}: init, ms"), init, Target::AtMost(50.0));
        targets::check(&format!("{what}: MiB resident at rest"), rest / 1_024.0, Target::AtMost(64.0));
        if let Some(floor) = floor {
            println!("{what}: the stores alone take {floor:.1} ms");
            targets::check(
                &format!("{what}: first warm above the floor, ms"),
                first_warm - floor,
                Target::AtMost(5.0),
            );
            targets::check(
                &format!("{what}: later ones above the floor, ms"),
                warm - floor,
                Target::AtMost(5.0),
            );
        }
    }
}
