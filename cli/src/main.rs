//! `tidelog`: the log on the command line.
//!
//! | file | what it is |
//! |---|---|
//! | `time` | TIME and positions, as every command takes them |
//! | `lines`, `format` | text → lines → records, and back |
//! | `produce`, `acks` | ships files; which line became which record |
//! | `consume` | reads records |
//! | `export` | a topic as one Parquet, CSV or NDJSON file |
//! | `files` | the exact list of a topic's merged segments, for engines |
//! | `topic`, `group` | what there is |
//! | `inspect`, `verify` | looks inside, and checks every sum |
//! | `upkeep` | trims by retention, deletes what nobody needs |
//! | `restore` | goes on from a copy of the table, in a new era |
//! | `demo` | all of it on this machine's own logs, with a kill in the middle |
//! | `out`, `tell` | tables, JSON, exit codes; what goes to stderr |
//! | `interrupt` | Ctrl-C |
//!
//! Exit codes: 0 ok, 1 failed, 2 usage, 3 try again later, 4 damage found, 130 interrupted.

mod acks;
mod consume;
mod demo;
mod export;
mod files;
mod format;
mod group;
mod inspect;
mod interrupt;
mod lines;
mod out;
mod produce;
mod restore;
mod shell;
mod tell;
mod time;
mod topic;
mod upkeep;
mod verify;

use clap::{Parser, Subcommand};

use out::{Context, Failure, Outcome, Output};

/// A log with no brokers: topics, partitions and offsets over Parquet files in a folder or in S3.
#[derive(Debug, Parser)]
#[command(name = "tidelog", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    /// Where the log is: a folder, `memory:`, or `s3://BUCKET[/PREFIX]?table=NAME[&region=…][&profile=…][&endpoint=URL]`
    #[arg(
        long,
        global = true,
        help_heading = "For every command",
        env = "TIDELOG_STORE",
        value_name = "URL",
        default_value = "./tidelog-data"
    )]
    store: String,
    /// How answers are printed
    #[arg(
        long,
        global = true,
        help_heading = "For every command",
        value_name = "FORM",
        default_value = "table"
    )]
    output: Output,
    /// Which of the log's events are told on stderr
    #[arg(
        long,
        global = true,
        help_heading = "For every command",
        env = "TIDELOG_LOG",
        value_name = "LEVEL",
        default_value = "warn"
    )]
    log: tell::Level,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
A first log:
  tidelog topic create app --partitions 3
  tidelog produce app /var/log/syslog
  tidelog consume app --until end

TIME is RFC 3339 (2026-01-31T12:00:00Z), epoch milliseconds, or a time before now (-90s, -30m, -1h, -2d).
Exit codes: 0 ok, 1 failed, 2 usage, 3 try again later, 4 damage found, 130 interrupted.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an empty log, bucket and table included, or check that there is one
    Init,
    /// Create, list, describe, alter and delete topics
    #[command(subcommand)]
    Topic(topic::Command),
    /// Ship lines of files, or of stdin, to a topic
    Produce(produce::Args),
    /// Read a topic's records
    Consume(consume::Args),
    /// Write a topic's records into one Parquet, CSV or NDJSON file
    Export(export::Args),
    /// List a topic's Parquet files for DuckDB, Polars, Spark and others: each record once
    Files(files::Args),
    /// See and move the stored offsets of consumer groups
    #[command(subcommand)]
    Group(group::Command),
    /// Look inside: commits, segments, checkpoints, partitions
    #[command(subcommand)]
    Inspect(inspect::Command),
    /// Read everything and check every sum; say what is damaged and which offsets that touches
    Verify(verify::Args),
    /// Trim what topics need not keep, and delete what nothing names any more
    Upkeep(upkeep::Args),
    /// Go on from a copy of the log's table, in a new era
    Restore(restore::Args),
    /// Ship this machine's own logs, kill a writer in the middle, and check every promise
    Demo(demo::Args),
    /// Print a shell's completions
    Completions(shell::CompletionArgs),
    /// Print the man page, or write one a command into a folder
    Man(shell::ManArgs),
}

/// How long the end of a command waits for calls that are under way.
const SHUTDOWN: std::time::Duration = std::time::Duration::from_secs(5);

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    tell::start(cli.log);
    let context = Context { store: cli.store, output: cli.output };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return out::exit(Err(Failure::Failed(format!("cannot start: {error}")))),
    };
    let outcome = runtime.block_on(run(&context, cli.command));
    // The store closes in order, or a folder is left with SQLite's log and without its index, which nobody can open who may
    // only read it. Tasks end at once; a call of the system's that hangs must not keep the process.
    runtime.shutdown_timeout(SHUTDOWN);
    out::exit(outcome)
}

async fn run(context: &Context, command: Command) -> Outcome {
    if !matches!(context.output, Output::Table | Output::Json) && !matches!(command, Command::Files(_)) {
        return Err(Failure::Usage("only `files` writes queries: --output is table or json here".to_owned()));
    }
    match command {
        Command::Init => init(context).await,
        Command::Topic(command) => topic::run(context, command).await,
        Command::Produce(args) => produce::run(context, args).await,
        Command::Consume(args) => consume::run(context, args).await,
        Command::Export(args) => export::run(context, args).await,
        Command::Files(args) => files::run(context, args).await,
        Command::Group(command) => group::run(context, command).await,
        Command::Inspect(command) => inspect::run(context, command).await,
        Command::Verify(args) => verify::run(context, args).await,
        Command::Upkeep(args) => upkeep::run(context, args).await,
        Command::Restore(args) => restore::run(context, args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(&args),
    }
}

async fn init(context: &Context) -> Outcome {
    let log = tidelog_core::Log::init(&context.store).await?;
    let (id, era, created) = log
        .fresh_view(|view| view.store.as_ref().map(|store| (store.store_id, store.era, store.created_ms)))
        .await?
        .unwrap_or_default();
    let fields = [
        ("store", context.store.clone()),
        ("store_id", format!("{id:032x}")),
        ("era", era.to_string()),
        ("created", time::show_ms(created)),
    ];
    context.fields(&fields)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
