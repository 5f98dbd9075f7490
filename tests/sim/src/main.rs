//! The simulator's command line.
//!
//! ```text
//! tidelog-sim --seeds A..B        these seeds, on two threads; a table of what they met
//! tidelog-sim --seed S            one seed, with a trace to read
//! tidelog-sim --planted BUG|all   seeds until the planted bug is caught, on three ranges
//!             --from SEED         with --planted: where the ranges begin (0)
//!             --bug BUG           with --seed or --seeds: plants it
//!             --patience SECONDS  a seed that takes longer never ends: it is named, and the exit is 1 (120)
//! ```

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use tidelog_core::plant::Bug;
use tidelog_sim::run::{self, Verdict};
use tidelog_sim::world::Coverage;

/// Ranges on which planted bugs are tried, one after the other; clean seeds cover them.
const RANGES: u64 = 3;
/// Seeds within which a planted bug must be caught.
const WITHIN: u64 = 1_000;
/// Seeds after which every cell of the table should have been met.
const COVERED_AFTER: u64 = 1_000;
const THREADS: usize = 2;
/// Real time within which a seed must end, s. It takes a fraction of one.
const PATIENCE_S: u64 = 120;
static PATIENCE: AtomicU64 = AtomicU64::new(PATIENCE_S);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).cloned()
    };
    let bug = value("--bug").map(|name| find_bug(&name));
    if let Some(Err(words)) = bug {
        eprintln!("{words}");
        return ExitCode::from(2);
    }
    let bug = bug.and_then(Result::ok);
    if let Some(seconds) = value("--patience").and_then(|seconds| seconds.parse().ok()) {
        PATIENCE.store(seconds, SeqCst);
    }
    let done = if let Some(seed) = value("--seed").and_then(|seed| seed.parse().ok()) {
        one(seed, bug)
    } else if let Some((from, to)) = value("--seeds").and_then(|range| range_of(&range)) {
        many(from, to, bug)
    } else if let Some(name) = value("--planted") {
        let from = value("--from").and_then(|seed| seed.parse().ok()).unwrap_or(0);
        match name.as_str() {
            "all" => planted(&Bug::ALL, from),
            name => find_bug(name).is_ok_and(|bug| planted(&[bug], from)),
        }
    } else {
        eprintln!(
            "usage: tidelog-sim --seeds A..B | --seed S | --planted BUG|all [--from SEED] [--bug BUG] [--patience S]"
        );
        return ExitCode::from(2);
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn find_bug(name: &str) -> Result<Bug, String> {
    let known = Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name);
    known.ok_or_else(|| format!("no such bug: {name}; there are {:?}", Bug::ALL))
}

fn range_of(words: &str) -> Option<(u64, u64)> {
    let (from, to) = words.split_once("..")?;
    Some((from.parse().ok()?, to.parse().ok()?))
}

/// Runs a seed. One that does not end is named, and ends the program: its thread cannot be stopped.
fn run(seed: u64, bug: Option<Bug>, trace: bool) -> Verdict {
    let (running, ended) = channel::<()>();
    std::thread::spawn(move || {
        let seconds = PATIENCE.load(SeqCst);
        if ended.recv_timeout(Duration::from_secs(seconds)) == Err(RecvTimeoutError::Timeout) {
            println!("seed {seed}: has not ended after {seconds} s, with bug {bug:?}");
            std::process::exit(1);
        }
    });
    let verdict = run::run(seed, bug, trace);
    drop(running);
    verdict
}

fn one(seed: u64, bug: Option<Bug>) -> bool {
    let verdict = run(seed, bug, true);
    print!("{}", verdict.trace);
    println!("seed {seed}: {} sent, {} acked", verdict.sent, verdict.acked);
    for words in &verdict.violations {
        println!("VIOLATION {words}");
    }
    verdict.violations.is_empty()
}

/// Runs seeds on all threads, handing each verdict to `judge`, which says whether to go on.
fn each(from: u64, to: u64, bug: Option<Bug>, judge: impl Fn(u64, Verdict) -> bool + Sync) {
    let next = AtomicU64::new(from);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, SeqCst);
                    if seed >= to {
                        return;
                    }
                    if !judge(seed, run(seed, bug, false)) {
                        next.store(to, SeqCst);
                    }
                }
            });
        }
    });
}

fn many(from: u64, to: u64, bug: Option<Bug>) -> bool {
    let coverage = Mutex::new(Coverage::new());
    let (sent, acked) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = Mutex::new(Vec::new());
    each(from, to, bug, |seed, verdict| {
        let mut all = coverage.lock().expect("no thread panics with it");
        verdict.coverage.iter().for_each(|(cell, count)| *all.entry(*cell).or_default() += count);
        sent.fetch_add(verdict.sent as u64, SeqCst);
        acked.fetch_add(verdict.acked as u64, SeqCst);
        if !verdict.violations.is_empty() {
            let words: Vec<&str> = verdict.violations.iter().take(4).map(String::as_str).collect();
            println!("seed {seed}: {}", words.join("\n        "));
            failed.lock().expect("no thread panics with it").push(seed);
        }
        true
    });
    let coverage = coverage.into_inner().expect("no thread panicked with it");
    let mut failed = failed.into_inner().expect("no thread panicked with it");
    failed.sort_unstable();
    let missing = table(&coverage);
    println!("{} seeds, {} records sent, {} acked", to - from, sent.into_inner(), acked.into_inner());
    println!("{} failed: {failed:?}", failed.len());
    failed.is_empty() && (missing == 0 || to - from < COVERED_AFTER)
}

/// Cells that a thousand seeds must meet.
const CELLS: [(&str, &str, &[&str]); 82] = [
    ("table put", "none", &["stored", "one is there"]),
    ("table put", "refused", &["refused"]),
    ("table put", "throttled", &["throttled"]),
    ("table put", "request lost", &["no answer"]),
    ("table put", "applied, answer lost", &["no answer"]),
    ("table put", "applied late", &["no answer"]),
    ("table put", "delivered twice", &["stored", "one is there"]),
    ("table put", "hangs", &["nothing"]),
    ("table put", "applied, hangs", &["nothing"]),
    ("table put", "none", &["a stub is there"]),
    ("table get", "none", &["whole", "absent", "stub"]),
    ("table get", "throttled", &["throttled"]),
    ("table get", "request lost", &["no answer"]),
    ("table get", "hangs", &["nothing"]),
    ("table newest", "none", &["whole"]),
    ("table newest", "throttled", &["throttled"]),
    ("table newest", "request lost", &["no answer"]),
    ("table newest", "hangs", &["nothing"]),
    ("table range", "none", &["whole", "empty", "with stubs"]),
    ("table range", "throttled", &["throttled"]),
    ("table range", "request lost", &["no answer"]),
    ("table range", "hangs", &["nothing"]),
    ("table replace", "none", &["done"]),
    ("table replace", "refused", &["refused"]),
    ("table replace", "throttled", &["throttled"]),
    ("table replace", "request lost", &["no answer"]),
    ("table replace", "applied, answer lost", &["no answer"]),
    ("table replace", "applied late", &["no answer"]),
    ("table replace", "delivered twice", &["done"]),
    ("table replace", "hangs", &["nothing"]),
    ("table replace", "applied, hangs", &["nothing"]),
    ("object upload", "none", &["done"]),
    ("object upload", "request lost", &["error"]),
    ("object part", "none", &["done"]),
    ("object part", "request lost", &["error"]),
    ("object part", "hangs", &["nothing"]),
    ("object abort", "none", &["done"]),
    ("object put", "none", &["done", "one is there"]),
    ("object put", "refused", &["error"]),
    ("object put", "throttled", &["error"]),
    ("object put", "request lost", &["error"]),
    ("object put", "applied, answer lost", &["error"]),
    ("object put", "applied late", &["error"]),
    ("object put", "delivered twice", &["done"]),
    ("object put", "hangs", &["nothing"]),
    ("object put", "applied, hangs", &["nothing"]),
    ("object get", "none", &["done", "absent"]),
    ("object get", "throttled", &["error"]),
    ("object get", "request lost", &["error"]),
    ("object get", "hangs", &["nothing"]),
    ("object get", "truncated", &["other bytes"]),
    ("object get", "bit flipped", &["other bytes"]),
    ("object get", "damaged for good", &["other bytes"]),
    ("table put", "bit flipped", &["one is there"]),
    ("table get", "bit flipped", &["whole"]),
    ("table newest", "bit flipped", &["whole"]),
    ("table range", "bit flipped", &["whole"]),
    ("process", "bit flipped", &["refused, restarted"]),
    ("topic", "none", &["deleted, made anew", "sent to the one before"]),
    ("restore", "none", &["done", "was done", "killed"]),
    ("sweep", "none", &["by the old era"]),
    ("trim", "none", &["committed", "rows deleted"]),
    ("merge", "none", &["folded", "indexed for others", "damage told"]),
    ("rewrite", "none", &["rewritten"]),
    ("fetch", "trimmed", &["below log start"]),
    ("retention", "none", &["committed", "committed, by size"]),
    ("retention", "clock ahead", &["held"]),
    ("sweep", "none", &["deleted, orphan", "deleted, checkpoint", "deleted, dead"]),
    (
        "sweep",
        "none",
        &["deleted by name, not merged", "deleted by name, trimmed", "deleted by name, lost its race"],
    ),
    ("sweep", "none", &["stopped in the middle", "came to the end in parts"]),
    ("object delete", "none", &["done"]),
    ("object delete", "refused", &["error"]),
    ("object delete", "throttled", &["error"]),
    ("object delete", "request lost", &["error"]),
    ("object delete", "applied, answer lost", &["error"]),
    ("object delete", "applied late", &["error"]),
    ("object delete", "hangs", &["nothing"]),
    ("append", "stale epoch", &["fenced"]),
    ("append", "known producer", &["duplicate"]),
    ("append", "expired producer", &["unknown producer", "new start"]),
    ("offset_at", "none", &["found", "none yet"]),
    ("group", "none", &["stored", "went on", "reset"]),
];

/// Prints what was met; answers how many cells are empty that must not be.
fn table(coverage: &Coverage) -> usize {
    println!("{:<14} {:<22} {:<16} {:>9}", "step", "fault", "answer", "times");
    for ((step, fault, answer), count) in coverage {
        println!("{step:<14} {fault:<22} {answer:<16} {count:>9}");
    }
    let mut missing = 0;
    for (step, fault, answers) in CELLS {
        for answer in answers {
            if !coverage.contains_key(&(step, fault, *answer)) {
                println!("{step:<14} {fault:<22} {answer:<16}     EMPTY");
                missing += 1;
            }
        }
    }
    missing
}

/// Seeds needed for each bug on each range; `false`: one was not caught.
fn planted(bugs: &[Bug], from: u64) -> bool {
    let starts: Vec<u64> = (0..RANGES).map(|range| from + range * WITHIN).collect();
    let heads: String = starts.iter().map(|start| format!(" {:>10}", format!("{start}.."))).collect();
    println!("{:<32}{heads}", "planted bug");
    let mut all = true;
    for bug in bugs {
        let found: Vec<Option<(u64, String)>> = starts.iter().map(|start| catch(*bug, *start)).collect();
        let cell = |found: &Option<(u64, String)>| match found {
            Some((seeds, _)) => format!(" {seeds:>10}"),
            None => format!(" {:>10}", "MISSED"),
        };
        let cells: String = found.iter().map(cell).collect();
        let words = found.iter().flatten().next().map(|(_, words)| words.clone()).unwrap_or_default();
        let words: String = words.chars().take(90).collect();
        println!("{:<32}{cells}  {words}", format!("{bug:?}"));
        all &= found.iter().all(Option::is_some);
    }
    all
}

fn catch(bug: Bug, from: u64) -> Option<(u64, String)> {
    let caught: Mutex<Option<(u64, String)>> = Mutex::new(None);
    each(from, from + WITHIN, Some(bug), |seed, mut verdict| {
        if verdict.violations.is_empty() {
            return true;
        }
        let mut caught = caught.lock().expect("no thread panics with it");
        if caught.as_ref().is_none_or(|(first, _)| seed - from + 1 < *first) {
            *caught = Some((seed - from + 1, verdict.violations.swap_remove(0)));
        }
        false
    });
    caught.into_inner().expect("no thread panicked with it")
}
