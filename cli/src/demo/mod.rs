//! `tidelog demo`: the main job on this machine's own logs, with a kill in the middle. Every number that it prints was
//! measured in that run.

mod check;
mod logs;
mod writers;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tidelog_core::env::{SharedEnv, SystemEnv};
use tidelog_core::ledger::view::Place;
use tidelog_core::log::TopicDescription;
use tidelog_core::objects::ObjectName;
use tidelog_core::prices;
use tidelog_core::verify::verify;
use tidelog_core::{Log, Position};

use crate::out::{Failure, Outcome, print, show_bytes};
use crate::produce::{counts_json, open_counting};
use crate::time::show_ms;
use crate::{inspect, topic};
use check::{Found, Verdict};
use writers::{TOPIC, Writer};

const WRITERS: usize = 3;
const PARTITIONS: u32 = 4;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many lines at least
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    lines: u64,
    /// Where to put the store and the lines; a fresh folder under the system's temporary one unless set
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// What must hold. Printed as it is found, and counted.
#[derive(Default)]
struct Promises(u32);

impl Promises {
    fn check(&mut self, holds: bool, words: &str) -> Outcome {
        self.0 += u32::from(!holds);
        print(&format!("  {} {words}\n", if holds { "ok    " } else { "BROKEN" }))
    }
}

fn failed(error: io::Error) -> Failure {
    Failure::Failed(format!("the demo cannot go on: {error}"))
}

pub async fn run(args: Args) -> Outcome {
    let env = SystemEnv::shared();
    let folder = match args.folder {
        Some(folder) => folder,
        None => std::env::temp_dir().join(format!("tidelog-demo-{:08x}", env.random_u64() as u32)),
    };
    let store = folder.join("store");
    if store.exists() {
        return Err(Failure::Usage(format!("{} exists already: name another folder", store.display())));
    }
    let gathered = logs::gather(&folder.join("logs"), WRITERS, args.lines).map_err(failed)?;
    print(&format!("Shipping {} lines of this machine: {}\n", gathered.lines, gathered.from.join(", ")))?;
    print(&format!("into {}, by {WRITERS} processes that know nothing of each other\n", store.display()))?;

    let (log, table, objects) = open_counting(&store.to_string_lossy(), Arc::new(())).await?;
    log.admin().create_topic(TOPIC, PARTITIONS, &[]).await?;
    let mut promises = Promises::default();
    let shipped = ship(&env, &log, &store, &folder, &gathered.files, &mut promises).await?;

    let files = gathered.files.iter().zip(&shipped.runs).map(|(file, runs)| {
        let acks = runs.iter().map(Writer::acks).collect::<io::Result<Vec<_>>>()?;
        Ok((check::lines(file)?, acks.concat()))
    });
    let files: Vec<_> = files.collect::<io::Result<_>>().map_err(failed)?;
    let began = env.monotonic();
    let found = check::read_all(&log, PARTITIONS as usize).await?;
    let read = env.monotonic().saturating_sub(began);
    let verdict = check::judge(&files, &found);
    let bytes: u64 = gathered.files.iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum();
    speeds(&verdict, bytes, shipped.took, read)?;
    accounts(&verdict, &found, &mut promises)?;
    read_back(&log, &found, &mut promises).await?;
    let report = verify(log.store(), |_, _| {}).await?;
    let words = format!(
        "verify: {} commits, {} segments, every checksum and record sum",
        report.commits, report.segments
    );
    promises.check(report.damage.is_empty(), &words)?;

    let topic = log.admin().describe_topic(TOPIC).await?;
    partitions(&shipped, &topic)?;
    segment(&log, &store).await?;
    let counts = shipped.runs.iter().flatten().map(Writer::counts).chain([counts_json(&table, &objects)]);
    bill(&counts.collect::<Vec<_>>(), bytes)?;
    next_steps(&store)?;
    match promises.0 {
        0 => Ok(()),
        broken => Err(Failure::Failed(format!(
            "{broken} promises did not hold; everything is kept in {}",
            folder.display()
        ))),
    }
}

/// What shipping left behind.
struct Shipped {
    /// All runs of each writer.
    runs: Vec<Vec<Writer>>,
    took: Duration,
    /// The victim's partition before the kill, and the topic then.
    before: TopicDescription,
    victims_partition: Option<u32>,
}

async fn ship(
    env: &SharedEnv,
    log: &Log,
    store: &Path,
    folder: &Path,
    files: &[PathBuf],
    promises: &mut Promises,
) -> Result<Shipped, Failure> {
    let began = env.monotonic();
    let start = |number: usize, run| Writer::start(store, &files[number], number + 1, run, folder);
    let runs: io::Result<Vec<Vec<Writer>>> =
        (0..files.len()).map(|number| Ok(vec![start(number, 1)?])).collect();
    let mut runs = runs.map_err(failed)?;
    let victim = &mut runs[0][0];
    victim.first_acks(env).await.map_err(failed)?;
    let status = victim.kill().map_err(failed)?;
    let before = log.admin().describe_topic(TOPIC).await?;
    let acks = victim.acks().map_err(failed)?;
    let victims_partition = acks.first().map(|ack| ack.partition);
    let of = check::lines(&files[0]).map_err(failed)?.len();
    let words =
        format!("writer-1 killed with SIGKILL after {} acks of {of} lines, and started again", acks.len());
    promises.check(was_killed(status) && acks.len() < of, &words)?;
    runs[0].push(start(0, 2).map_err(failed)?);
    for (number, runs) in runs.iter_mut().enumerate() {
        let Some(last) = runs.last_mut() else { continue };
        let (success, said) = last.finish(env).await.map_err(failed)?;
        let said = said.trim().replace(&*files[number].to_string_lossy(), "its file").replace('\n', "; ");
        promises.check(success, &format!("writer-{}: {said}", number + 1))?;
    }
    let took = env.monotonic().saturating_sub(began);
    Ok(Shipped { runs, took, before, victims_partition })
}

#[cfg(unix)]
fn was_killed(status: std::process::ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(9)
}

#[cfg(not(unix))]
fn was_killed(status: std::process::ExitStatus) -> bool {
    !status.success()
}

fn speeds(verdict: &Verdict, bytes: u64, took: Duration, read: Duration) -> Outcome {
    let rate = |time: Duration| verdict.found as f64 / time.as_secs_f64().max(1e-6);
    let (shown, wrote, read_s) = (show_bytes(bytes), took.as_secs_f64(), read.as_secs_f64());
    print(&format!(
        "\nWritten: {} lines, {shown} in {wrote:.2} s, the kill and the restart included: {:.0} lines/s\nRead:    {} lines in {read_s:.2} s: {:.0} lines/s\n\n",
        verdict.found,
        rate(took),
        verdict.found,
        rate(read)
    ))
}

fn accounts(verdict: &Verdict, found: &Found, promises: &mut Promises) -> Outcome {
    let Verdict { shipped, acked, found: there, lost, duplicated } = verdict;
    let untold = there.saturating_sub(*acked);
    let mut words = format!("acked {acked} = found {}, {lost} lost, {duplicated} duplicated", there - untold);
    if untold > 0 {
        words.push_str(&format!(
            " ({untold} more were in the log when the kill came, before writer-1 could be told: its restart went on behind them)"
        ));
    }
    promises.check(*lost == 0 && *duplicated == 0 && acked <= there && shipped == there, &words)?;
    promises.check(!found.gap, "offsets are dense in every partition")
}

/// From an offset and from a time in the middle of the largest partition.
async fn read_back(log: &Log, found: &Found, promises: &mut Promises) -> Outcome {
    let largest = found.partitions.iter().zip(0u32..).max_by_key(|(records, _)| records.len());
    let Some((records, partition)) = largest.filter(|(records, _)| !records.is_empty()) else {
        return promises.check(false, "there is something to read back");
    };
    let middle = records.len() / 2;
    let (first, count) = check::read_from(log, partition, Position::Offset(middle as u64)).await?;
    let holds = first == Some(middle as u64) && count == (records.len() - middle) as u64;
    promises.check(holds, &format!("read {TOPIC}/{partition} from offset {middle}: {count} records"))?;
    let time_us = records[middle].1;
    let wanted = records.iter().position(|(_, at)| *at >= time_us).unwrap_or(records.len());
    let (first, count) = check::read_from(log, partition, Position::Time(time_us)).await?;
    let holds = first == Some(wanted as u64) && count == (records.len() - wanted) as u64;
    let at = show_ms(time_us.div_euclid(1_000));
    promises.check(
        holds,
        &format!("read {TOPIC}/{partition} from {at}: {count} records, the first at offset {wanted}"),
    )
}

fn partitions(shipped: &Shipped, topic: &TopicDescription) -> Outcome {
    print(&format!("\n{}", topic::partitions(topic)))?;
    let Some(partition) = shipped.victims_partition else { return Ok(()) };
    let leader = |topic: &TopicDescription| {
        topic.partitions.get(partition as usize).map_or_else(String::new, |p| match p.leader {
            Some(who) => format!("{who:016x} in epoch {}", p.leader_epoch),
            None => format!("nobody (epoch {})", p.leader_epoch),
        })
    };
    let (before, after) = (leader(&shipped.before), leader(topic));
    print(&format!(
        "The killed writer's partition {partition} was led by {before} before, and is by {after} now.\n"
    ))
}

async fn segment(log: &Log, store: &Path) -> Outcome {
    let largest = |view: &tidelog_core::ledger::view::View| {
        let objects = view.slices().filter_map(|(_, _, slice)| match &slice.place {
            Place::Object(object, layout) => Some((layout.file_bytes(), ObjectName::from(object))),
            Place::Inline { .. } => None,
        });
        objects.max_by_key(|(bytes, _)| *bytes)
    };
    let Some((bytes, name)) = log.fresh_view(largest).await? else { return Ok(()) };
    let (store, size) = (store.display(), show_bytes(bytes));
    print(&format!("\nA segment is a Parquet file ({size}):\n  {store}/{name}\n{}", inspect::columns()))?;
    print(&format!(
        "Query all of them with DuckDB:\n  duckdb -c \"SELECT partition, count(*), max(timestamp) FROM '{store}/l0/*/*/*/*.parquet' WHERE topic = '{TOPIC}' GROUP BY ALL\"\n"
    ))
}

fn bill(counts: &[Value], bytes: u64) -> Outcome {
    let sum = |name: &str| counts.iter().filter_map(|counts| counts[name].as_u64()).sum::<u64>();
    let (puts, gets, requests) = (sum("object_puts"), sum("object_gets"), sum("table_requests"));
    let (writes, reads) = (sum("write_units"), sum("read_half_units") as f64 / 2.0);
    let (put, get, write, read) = (prices::S3_PUT, prices::S3_GET, prices::WRITE_UNIT, prices::READ_UNIT);
    let dollars = (puts as f64 * put + gets as f64 * get + writes as f64 * write + reads * read) / 1e6;
    print(&format!(
        "\nRequests of all processes, this check's reading included: {puts} object puts, {gets} object gets, {requests} table requests ({writes} write units, {reads:.1} read units).\nOn AWS they would have cost ${dollars:.6} (S3 PUT ${put}, GET ${get}, DynamoDB write ${write}, read ${read} a million), ${:.4} a GB.\n",
        dollars / (bytes as f64 / 1e9).max(1e-9)
    ))
}

fn next_steps(store: &Path) -> Outcome {
    let (store, exe) =
        (store.display(), std::env::current_exe().map_or("tidelog".into(), |exe| exe.display().to_string()));
    print(&format!(
        "\nTry next:\n  export TIDELOG_STORE={store}\n  {exe} consume {TOPIC} --until end | head\n  {exe} consume {TOPIC} --from -5m --until end --format json | head -3\n  {exe} inspect partition {TOPIC}\n  {exe} inspect ledger\n  {exe} verify\n  rm -r {}    # when you have seen enough\n",
        store_parent(&store.to_string())
    ))
}

fn store_parent(store: &str) -> String {
    Path::new(store).parent().map_or_else(|| store.to_owned(), |parent| parent.display().to_string())
}
