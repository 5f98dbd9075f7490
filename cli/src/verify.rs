//! `tidelog verify`: reads everything and checks every sum.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tidelog_core::env::SystemEnv;
use tidelog_core::store::Store;
use tidelog_core::verify::{Damage, Report, verify};

use crate::out::{Context, Failure, Outcome, print, print_json, show_bytes};
use crate::tell;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Checked are: the checksum and order of every commit, replay of all of them, every checkpoint that the log names, every
segment that it names (present, CRC of every part), and the record sum of every slice.
Exit code 4 if anything is damaged; each finding names the records that it touches. Nothing is written.")]
pub struct Args {}

pub async fn run(context: &Context, _args: Args) -> Outcome {
    let store = Store::open(&context.store.parse()?, SystemEnv::shared(), false).await?;
    let bar = match io::stderr().is_terminal() {
        true => ProgressBar::new(0).with_style(
            ProgressStyle::with_template("{bar:40} {pos}/{len} segments")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        ),
        false => ProgressBar::hidden(),
    };
    tell::beside(&bar);
    let report = verify(&store, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })
    .await;
    bar.finish_and_clear();
    let report = report?;
    if report.commits == 0 && report.damage.is_empty() {
        return Err(Failure::Failed(format!("{}: there is no log in it", context.store)));
    }
    if context.json() {
        print_json(&to_json(&report))?
    } else {
        print(&to_text(&report))?
    }
    if report.damage.is_empty() { Ok(()) } else { Err(Failure::Told(4)) }
}

pub fn to_json(report: &Report) -> serde_json::Value {
    let damage = |damage: &Damage| {
        let touches = damage
            .touches
            .iter()
            .map(|t| json!({"topic": t.topic, "partition": t.partition, "from": t.from, "to": t.to}));
        json!({"what": damage.what, "detail": damage.detail, "touches": touches.collect::<Vec<_>>()})
    };
    json!({
        "commits": report.commits, "stripped": report.stripped, "checkpoints": report.checkpoints,
        "segments": report.segments, "index_rows": report.rows, "merged": report.merged, "slices": report.slices, "records": report.records, "bytes": report.bytes,
        "damage": report.damage.iter().map(damage).collect::<Vec<_>>(),
    })
}

pub fn to_text(report: &Report) -> String {
    let mut text = String::new();
    for damage in &report.damage {
        text.push_str(&format!("DAMAGED {}: {}\n", damage.what, damage.detail));
        for t in &damage.touches {
            text.push_str(&format!(
                "  touches {}/{} offsets {} to {}\n",
                t.topic,
                t.partition,
                t.from,
                t.to - 1
            ));
        }
    }
    let Report { commits, stripped, checkpoints, segments, rows, merged, slices, records, bytes, .. } =
        report;
    let bytes = show_bytes(*bytes);
    text.push_str(&format!(
        "{commits} commits ({stripped} stripped), {checkpoints} checkpoints, {segments} segments, {merged} merged ({rows} index rows), {slices} slices, {records} records, {bytes} read\n"
    ));
    text.push_str(&match report.damage.len() {
        0 => "no damage found\n".to_owned(),
        count => format!("{count} damaged\n"),
    });
    text
}
