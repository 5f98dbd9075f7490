//! `tidelog upkeep`: merges small segments, trims by retention and deletes what nobody needs.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tidelog_core::env::SystemEnv;
use tidelog_core::upkeep::{
    Deletion, Due, Kept, Merged, Reason, Rewritten, Run, Step, Swept, Trim, Unmerged, Why,
};
use tidelog_core::{Upkeep, UpkeepSettings};

use crate::interrupt::Interrupts;
use crate::out::{Context, Failure, Outcome, print, print_json, show_bytes};
use crate::tell;
use crate::time::{parse_duration, show_ms};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A run forgets silent producers, moves log starts as retention.ms and retention.bytes of each topic say, merges small segments into one
Parquet file a topic and hour (under topics/, for any engine), then those of an hour that is over into few large ones, makes a checkpoint and strips old commits if a thousand
commits or half a mebibyte came since the last, and deletes the objects that nothing names: what was merged, trimmed or
deleted an hour ago, what killed writers left a quarter of an hour ago, and old checkpoints. A topic is merged when its
oldest records are merge.max.age.ms old: unless that is set, a minute where it takes 64 KiB/s, ten minutes where it takes
less. A topic without retention keeps everything. Several runs at once, and killed ones, do no harm. What is damaged stays
where it is, and is told; all else goes on.
Where time leaps by more than a day, a trim of more than a quarter of a partition is held for an hour: should a clock
be wrong, set it, and raise the topic's retention meanwhile.
The first run of a command looks at all objects there are for what killed writers left and what deleted topics leave, and with
--every one a day; the others delete what was let go, which they know by name.
With --every, Ctrl-C or SIGTERM ends it after the run, a second one at once; a store that is away is tried again.

  tidelog topic alter app --config retention.ms=604800000
  tidelog upkeep --dry-run
  tidelog upkeep --every 20s")]
#[group(required = true, multiple = true)]
pub struct Args {
    /// Run once
    #[arg(long, conflicts_with = "every")]
    once: bool,
    /// Run again and again, with this pause: 30s, 10m, 1h
    #[arg(long, value_name = "PAUSE", value_parser = parse_duration)]
    every: Option<Duration>,
    /// Change nothing: say what would be merged, trimmed and deleted, and why
    #[arg(long, visible_alias = "explain", conflicts_with = "every")]
    dry_run: bool,
}

pub async fn run(context: &Context, args: Args) -> Outcome {
    let upkeep = context.open_existing().await?.upkeep(UpkeepSettings::default());
    if args.dry_run {
        return dry_run(context, &upkeep).await;
    }
    let Some(pause) = args.every else { return once(context, &upkeep, true).await };
    let env = SystemEnv::shared();
    let mut interrupts = Interrupts::listen(None);
    let mut first = true;
    while !interrupts.is_told() {
        match once(context, &upkeep, std::mem::take(&mut first)).await {
            Err(Failure::Log(error)) if error.kind() == tidelog_core::ErrorKind::Retry => {
                tell::tell(&format!("{error}: the next run tries again"));
            }
            other => other?,
        }
        tokio::select! {
            () = env.sleep(pause) => {}
            () = interrupts.told() => {}
        }
    }
    Ok(())
}

/// A run; `whole`: which looks at all objects there are.
async fn once(context: &Context, upkeep: &Upkeep, whole: bool) -> Outcome {
    let bar = match io::stderr().is_terminal() {
        true => ProgressBar::no_length().with_style(
            ProgressStyle::with_template("{spinner} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        ),
        false => ProgressBar::hidden(),
    };
    tell::beside(&bar);
    let mut deleted = 0;
    let tell = |step: Step<'_>| match step {
        Step::Merging(done, of) => bar.set_message(format!("{done} of {of} records merged")),
        Step::Rewriting(records) => bar.set_message(format!("{records} records rewritten")),
        Step::Listing(objects) => bar.set_message(format!("{objects} objects looked at")),
        Step::Deleted(_) => {
            deleted += 1;
            bar.set_message(format!("{deleted} objects deleted"));
        }
    };
    let done = if whole { upkeep.run_whole(tell).await } else { upkeep.run(tell).await };
    bar.finish_and_clear();
    let Run { merged, rewritten, trimmed, held, rows, kept, swept, .. } = done?;
    for damage in merged.damage.iter().chain(&rewritten.damage) {
        tell::tell(&format!("cannot be merged, and stays as it is: {damage}; `tidelog verify` says more"));
    }
    if context.json() {
        return print_json(&json!({
            "trimmed": trimmed.iter().map(trim_json).collect::<Vec<_>>(),
            "held": held.iter().map(trim_json).collect::<Vec<_>>(),
            "rows_deleted": rows,
            "merged": merged_json(&merged),
            "rewritten": rewritten_json(&rewritten),
            "checkpoint": kept.checkpoint,
            "stripped": kept.stripped,
            "swept": swept.as_ref().map(swept_json),
        }));
    }
    let trims = trims("trimmed", &trimmed) + &trims("held for an hour", &held);
    let swept = swept.map(|swept| swept_text("deleted", &swept)).unwrap_or_default();
    print(&(trims + &merged_text(&merged) + &rewritten_text(&rewritten) + &kept_text(&kept) + &swept))
}

fn merged_text(merged: &Merged) -> String {
    let Merged { slices, records, objects, bytes, .. } = merged;
    match objects {
        0 => String::new(),
        _ => format!(
            "merged {records} records of {slices} slices into {objects} files ({})\n",
            show_bytes(*bytes)
        ),
    }
}

fn rewritten_text(rewritten: &Rewritten) -> String {
    let Rewritten { replaced, objects, bytes, .. } = rewritten;
    match objects {
        0 => String::new(),
        _ => format!("rewrote {replaced} merged files as {objects} ({})\n", show_bytes(*bytes)),
    }
}

fn rewritten_json(rewritten: &Rewritten) -> Value {
    let Rewritten { replaced, objects, bytes, records, damage } = rewritten;
    json!({"replaced": replaced, "files": objects, "bytes": bytes, "records": records, "damage": damage})
}

fn merged_json(merged: &Merged) -> Value {
    let Merged { folds, slices, records, objects, bytes, rows, damage } = merged;
    json!({
        "folds": folds, "slices": slices, "records": records, "files": objects, "bytes": bytes,
        "index_rows": rows, "damage": damage,
    })
}

fn kept_text(kept: &Kept) -> String {
    let Kept { checkpoint, stripped } = kept;
    let text = |at| format!("checkpoint at commit {at}, {stripped} older commits stripped\n");
    checkpoint.map(text).unwrap_or_default()
}

async fn dry_run(context: &Context, upkeep: &Upkeep) -> Outcome {
    let overdue = upkeep.overdue().await?;
    let unmerged = upkeep.unmerged().await?;
    let mut deletions = Vec::new();
    let swept = upkeep.sweepable(|deletion| deletions.push(deletion.clone())).await?;
    if context.json() {
        return print_json(&json!({
            "trims": overdue.trims.iter().map(trim_json).collect::<Vec<_>>(),
            "held": overdue.held.iter().map(trim_json).collect::<Vec<_>>(),
            "unmerged": unmerged.iter().map(unmerged_json).collect::<Vec<_>>(),
            "deletions": deletions.iter().map(deletion_json).collect::<Vec<_>>(),
            "swept": swept_json(&swept),
        }));
    }
    let each: String = deletions.iter().map(deletion_text).collect();
    let trims = trims("would trim", &overdue.trims) + &trims("would hold for an hour", &overdue.held);
    let merges: String = unmerged.iter().map(unmerged_text).collect();
    print(&(trims + &merges + &each + &swept_text("would delete", &swept)))
}

fn because(due: Due) -> String {
    match due {
        Due::Age(ms) => format!("its oldest are {} s old", ms / 1_000),
        Due::Backlog => "all topics together have too much".to_owned(),
    }
}

fn unmerged_text(unmerged: &Unmerged) -> String {
    let Unmerged { topic, slices, records, bytes, due, .. } = unmerged;
    let what = format!("{records} records of {topic} in {slices} slices ({})", show_bytes(*bytes));
    match due {
        Some(due) => format!("would merge {what}: {}\n", because(*due)),
        None => format!("would not merge {what} yet\n"),
    }
}

fn unmerged_json(unmerged: &Unmerged) -> Value {
    let Unmerged { topic, slices, records, bytes, oldest_ms, due, .. } = unmerged;
    json!({
        "topic": topic, "slices": slices, "records": records, "bytes": bytes, "oldest_ms": oldest_ms,
        "due": due.map(because),
    })
}

fn trims(verb: &str, trims: &[Trim]) -> String {
    let text = |trim: &Trim| {
        let Trim { topic, partition, from, to, end, why, .. } = trim;
        let why = match why {
            Why::Age { cutoff_ms } => format!("appended before {}", show_ms(*cutoff_ms)),
            Why::Size { bytes_max } => format!("what follows is {} and more", show_bytes(*bytes_max)),
        };
        format!("{verb} {topic}/{partition}: offsets {from} to {} of {end}, {why}\n", to - 1)
    };
    trims.iter().map(text).collect()
}

fn trim_json(trim: &Trim) -> Value {
    let Trim { topic, partition, from, to, end, why, .. } = trim;
    let (cutoff_ms, bytes_max) = match why {
        Why::Age { cutoff_ms } => (Some(cutoff_ms), None),
        Why::Size { bytes_max } => (None, Some(bytes_max)),
    };
    json!({
        "topic": topic, "partition": partition, "log_start": to, "before": from, "high_watermark": end,
        "cutoff_ms": cutoff_ms, "bytes_max": bytes_max,
    })
}

fn why(reason: &Reason) -> String {
    match reason {
        Reason::Dead { slot } => format!("commit {slot} let it go"),
        Reason::Orphan { floor } => {
            format!("no commit or index row names it, and its name is older than commit {floor}")
        }
        Reason::TopicDeleted => "its topic was deleted".to_owned(),
        Reason::HalfWritten => "a killed writer left it half-written".to_owned(),
        Reason::OldCheckpoint { kept } => format!("the checkpoint at commit {kept} is kept"),
    }
}

/// The name as it is in the store.
fn name(deletion: &Deletion) -> String {
    let half = deletion.half.map(|number| format!("#{number}")).unwrap_or_default();
    format!("{}{half}", deletion.name)
}

fn deletion_text(deletion: &Deletion) -> String {
    let bytes = show_bytes(deletion.bytes.unwrap_or(0));
    format!("would delete {} ({bytes}): {}\n", name(deletion), why(&deletion.why))
}

fn deletion_json(deletion: &Deletion) -> Value {
    json!({"object": name(deletion), "bytes": deletion.bytes, "why": why(&deletion.why)})
}

fn swept_text(verb: &str, swept: &Swept) -> String {
    let Swept { floor, listed, whole, objects, bytes, more } = swept;
    let more = if *more { "; there are more, for the next run" } else { "" };
    let of = match whole {
        true => format!(" ({}) of {listed} looked at", show_bytes(*bytes)),
        false => " that were let go".to_owned(),
    };
    format!("{verb} {objects} objects{of}, floor {floor}{more}\n")
}

fn swept_json(swept: &Swept) -> Value {
    let Swept { floor, listed, whole, objects, bytes, more } = swept;
    json!({"floor": floor, "listed": listed, "whole": whole, "objects": objects, "bytes": bytes, "more": more})
}
