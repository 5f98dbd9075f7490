//! Opening a log from a folder, as a process that starts does it: newest commit, its checkpoint, the commits after it.
//!
//! `taskset -c 0 cargo run --release -p tidelog-bench --bin tidelog-bench -- cold [--rounds N]`
//!
//! | history | what is in it |
//! |---|---|
//! | partitions | 10 topics × 1,000 partitions, all written to, led five times, trimmed to their ends; no producers |
//! | nothing unmerged | 10³, 10⁴ and 10⁵ commits that store group offsets, and 500 more that no checkpoint holds; checkpoints and strip as usual |
//! | slices, one an object | 10³, 10⁴ and 10⁵ unmerged slices, each in a segment of its own; a checkpoint at the end |
//! | slices, 100 an object | the same, 100 partitions a segment |
//!
//! The files are in the operating system's memory; each opening starts SQLite and the committer anew. Medians.

use std::path::Path;

use tidelog_bench::histories::{History, append_slices};
use tidelog_bench::options::Options;
use tidelog_bench::targets::{self, Target};
use tidelog_bench::{Fallible, clock, median};
use tidelog_core::Log;
use tidelog_core::ledger::action::{Action, Lead, TrimTo};
use tidelog_core::ledger::checkpoint;
use tidelog_core::ledger::view::View;
use tidelog_core::record::TopicId;
use tokio::runtime::Runtime;

const TOPICS: usize = 10;
const PARTITIONS: u32 = 1_000;
const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

pub fn run(options: &Options) -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bench = Bench { runtime, rounds: options.rounds };
    println!("history                        size   checkpoint bytes   each   opens in ms");
    bench.partitions()?;
    let sizes = SIZES;
    let flat = sizes.iter().map(|size| bench.commits(*size)).collect::<Fallible<Vec<_>>>()?;
    if let [first, .., last] = flat[..] {
        let what = format!("cold start, nothing unmerged: {} commits / {}", sizes[flat.len() - 1], sizes[0]);
        targets::check(&what, last / first, Target::AtMost(1.5));
    }
    for per_object in [1, 100] {
        let times = sizes.iter().map(|size| bench.slices(*size, per_object)).collect::<Fallible<Vec<_>>>()?;
        if let [first, .., last] = times[..] {
            let (more, most) = (sizes[times.len() - 1] as f64 / sizes[0] as f64, sizes[times.len() - 1]);
            let what = format!("opening {most} unmerged slices, {per_object} an object: ms");
            targets::check(&what, last, Target::AtMost(1_000.0));
            let what = format!("{more} times the slices, {per_object} an object: times as long");
            targets::check(&what, last / first, Target::AtMost(more * 1.5));
        }
    }
    Ok(())
}

struct Bench {
    runtime: Runtime,
    rounds: usize,
}

/// What opening a history came to.
struct Opened {
    bytes: usize,
    ms: f64,
}

impl Bench {
    fn partitions(&self) -> Fallible<()> {
        let opened = self.open(self.runtime.block_on(partitions())?)?;
        let count = TOPICS * PARTITIONS as usize;
        let each = opened.print("partitions", count);
        targets::check("opening a view of 10,000 partitions: ms", opened.ms, Target::AtMost(100.0));
        targets::check("bytes of checkpoint a partition", each, Target::AtMost(100.0));
        Ok(())
    }

    fn commits(&self, commits: usize) -> Fallible<f64> {
        let opened = self.open(self.runtime.block_on(async {
            let history = History::new(true).await?;
            let admin = history.log.admin();
            admin.create_topic("t", 100, &[]).await?;
            for n in 0..commits as u64 + 500 {
                // A group that is behind a little, and so on: nothing but the newest offset stays.
                let group = format!("group-{}", n % 7);
                admin.store_offsets(&group, "t", &[((n % 100) as u32, Some(n))]).await?;
            }
            Ok::<_, Box<dyn std::error::Error>>(history)
        })?)?;
        opened.print("nothing unmerged", commits);
        Ok(opened.ms)
    }

    fn slices(&self, slices: usize, per_object: usize) -> Fallible<f64> {
        let opened = self.open(self.runtime.block_on(async {
            let history = History::new(false).await?;
            let topic = history.log.admin().create_topic("t", 100, &[]).await?;
            let all: Vec<u32> = (0..100).collect();
            for n in 0..slices / per_object {
                let from = if per_object == 1 { n % 100 } else { 0 };
                append_slices(&history.log, topic, &all[from..from + per_object], n as u64).await?;
            }
            history.log.ledger().checkpoint().await?;
            Ok::<_, Box<dyn std::error::Error>>(history)
        })?)?;
        let each = opened.print(&format!("slices, {per_object} an object"), slices);
        if slices == SIZES[2] {
            let what = format!("bytes of checkpoint a slice, {per_object} an object");
            targets::check(&what, each, Target::AtMost(128.0));
        }
        Ok(opened.ms)
    }

    /// Copies the history into a folder, and opens that again and again.
    fn open(&self, history: History) -> Fallible<Opened> {
        let folder = tempfile::tempdir()?;
        let store = folder.path().join("store");
        self.runtime.block_on(history.copy_to(&store))?;
        let bytes = history.log.ledger().chain().view(|view: &View| checkpoint::encode(view).len())?;
        let slot = history.log.ledger().chain_slot();
        drop(history);
        let times =
            (0..=self.rounds).map(|_| self.open_once(&store, slot)).collect::<Fallible<Vec<f64>>>()?;
        // The first one warms up.
        Ok(Opened { bytes, ms: median(times[1..].to_vec()) })
    }

    fn open_once(&self, store: &Path, slot: u64) -> Fallible<f64> {
        let mut log = None;
        let time = clock(|| {
            log = Some(self.runtime.block_on(Log::open_existing(&store.display().to_string())));
        });
        let log = log.ok_or("is opened")??;
        assert_eq!(log.ledger().chain_slot(), slot, "all of the history");
        Ok(time.as_secs_f64() * 1e3)
    }
}

impl Opened {
    fn print(&self, history: &str, size: usize) -> f64 {
        let each = self.bytes as f64 / size as f64;
        println!("{history:<24} {size:>10} {:>18} {each:>6.1} {:>13.2}", self.bytes, self.ms);
        each
    }
}

/// Partitions with a past, and nothing unmerged.
async fn partitions() -> Fallible<History> {
    let history = History::new(false).await?;
    let log = &history.log;
    let mut topics = Vec::new();
    for n in 0..TOPICS {
        topics.push(log.admin().create_topic(&format!("a-topic-of-some-length-{n}"), PARTITIONS, &[]).await?);
    }
    let all: Vec<u32> = (0..PARTITIONS).collect();
    for (n, topic) in (0..).zip(&topics) {
        for (chunk, partitions) in (0..).zip(all.chunks(250)) {
            append_slices(log, *topic, partitions, n * 10 + chunk).await?;
        }
        let pairs = || all.iter().map(|partition| (*topic, *partition)).collect::<Vec<_>>();
        for who in 1..=5 {
            // Five processes that lead everything, one after the other.
            let lead = Lead {
                who: who * 0x0123_4567_89ab_cdef,
                address: String::new(),
                take: pairs(),
                let_go: Vec::new(),
            };
            log.ledger().act(Action::Lead(lead)).await?;
        }
        trim(log, *topic, &all).await?;
    }
    log.ledger().checkpoint().await?;
    Ok(history)
}

async fn trim(log: &Log, topic: TopicId, partitions: &[u32]) -> Fallible<()> {
    let chain = log.ledger().chain();
    let end = |view: &View, p: u32| view.partition(topic, p).map_or(0, |p| p.next);
    let trims = chain.view(|view| {
        let trim = |p: &u32| TrimTo {
            topic,
            partition: *p,
            log_start: end(view, *p),
            oldest_ms: 0,
            oldest_bytes: 0,
        };
        partitions.iter().map(trim).collect::<Vec<_>>()
    })?;
    log.ledger().act(Action::Trim(trims)).await?;
    Ok(())
}
