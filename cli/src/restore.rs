//! `tidelog restore`: a log goes on, in a new era, from a copy of its table.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tidelog_core::env::SystemEnv;
use tidelog_core::restore::{Options, Restored, Step, restore};
use tidelog_core::store::{Place, Store, StoreUrl};

use crate::out::{Context, Failure, Outcome, print, print_json};
use crate::tell;
use crate::verify;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
BEFORE, or records that were acked are lost: stop all writers and upkeep of the log, deny its old
table all writes, and deny its old roles deletes in the bucket. Then copy the table: a DynamoDB table
is restored to a point in time under another name, a folder is copied whole. --store names the copy,
and --era the first number that the log never used.

Everything that the copy names is read and checked first. What is missing or damaged is told, with
the records that it touches, and nothing is written (exit code 4): bring it back, on a versioned
bucket by deleting the delete markers, and run it again. Then the copied chain ends, and is copied
under the new era. Killed runs are run again, and two at once do no harm. Afterwards the log is where
it was, with era= in the store's URL; no process opens the copy without that.

  tidelog restore --store 's3://logs/app?table=app-2&region=eu-central-1' --era 1 --dry-run
  tidelog restore --store 's3://logs/app?table=app-2&region=eu-central-1' --era 1
  tidelog consume app --store 's3://logs/app?table=app-2&region=eu-central-1&era=1'")]
pub struct Args {
    /// The new era: greater than every one that the log ever had
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    era: u16,
    /// Go on although records are lost; readers get an error at their offsets
    #[arg(long)]
    accept_loss: bool,
    /// Only check what the copy names
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(context: &Context, args: Args) -> Outcome {
    let url: StoreUrl = context.store.parse()?;
    if url.place == Place::Memory {
        return Err(Failure::Usage(
            "restore: `memory:` holds nothing to restore; name the copy by --store".to_owned(),
        ));
    }
    let env = SystemEnv::shared();
    let store = Store::open(&url, env.clone(), false).await?;
    let bar = match io::stderr().is_terminal() {
        true => ProgressBar::no_length().with_style(
            ProgressStyle::with_template("{spinner} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        ),
        false => ProgressBar::hidden(),
    };
    tell::beside(&bar);
    let options = Options { accept_loss: args.accept_loss, dry_run: args.dry_run };
    let restored = restore(&store, env, args.era, options, |step| {
        bar.set_message(match step {
            Step::Verifying(done, of) => format!("{done} of {of} segments checked"),
            Step::Rows(rows) => format!("{rows} index rows copied"),
            Step::Commits(done, of) => format!("{done} of {of} commits copied"),
        });
        bar.tick();
    })
    .await;
    bar.finish_and_clear();
    let restored = restored?;
    let target = StoreUrl { era: args.era, ..url }.to_string();
    if context.json() {
        let Restored { report, begins, commits, rows } = &restored;
        print_json(&json!({
            "store": (*begins > 0).then_some(&target), "era": args.era, "begins": (*begins > 0).then_some(begins),
            "commits": commits, "index_rows": rows, "verified": report.as_ref().map(verify::to_json),
        }))?;
    } else {
        print(&to_text(&restored, &target, args.dry_run))?;
    }
    let damaged = restored.report.is_some_and(|report| !report.damage.is_empty());
    if damaged && restored.begins == 0 { Err(Failure::Told(4)) } else { Ok(()) }
}

fn to_text(restored: &Restored, target: &str, dry_run: bool) -> String {
    let Restored { report, begins, commits, rows } = restored;
    let found = report.as_ref().map(verify::to_text).unwrap_or_default();
    let is_damaged = report.as_ref().is_some_and(|report| !report.damage.is_empty());
    let did = match (report, begins) {
        (_, 0) if is_damaged => "nothing was written: bring back what is missing (on a versioned bucket, delete its delete markers), and run \
                                 this again; or give up those records with --accept-loss\n"
            .to_owned(),
        (_, 0) if dry_run => "nothing was written: without --dry-run the log goes on from here\n".to_owned(),
        (None, _) => format!("the new era is there already: the log goes on at {target}\n"),
        _ => format!(
            "{commits} commits and {rows} index rows copied: the log goes on at {target}, from commit {begins}\n"
        ),
    };
    found + &did
}
