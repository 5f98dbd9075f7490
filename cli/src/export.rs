//! `tidelog export`: a topic's records as one file, partition by partition.
//!
//! The file is written under another name beside the wanted one, synced, and renamed at the end: what has its name is
//! whole.

mod columns;
mod csv;

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use futures::FutureExt;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tidelog_core::log::PartitionDescription;
use tidelog_core::segment::Compression;
use tidelog_core::text::json as lines;
use tidelog_core::{Log, Message, Position};

use crate::consume::until;
use crate::interrupt::{INTERRUPTED, Interrupts};
use crate::out::{Context, Failure, Outcome, show_bytes};
use crate::tell;
use crate::time::parse_position;

/// Records between two moves of the progress bar.
const SHOW_EVERY: u64 = 1_024;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The form is the file's ending (.parquet, .csv, .ndjson), unless --format says it.
Rows are sorted by partition and offset. Without --until the file ends where the topic ended when the command started.
A number below 100000000000 is an offset, from there on it is epoch milliseconds.
An offset must lie in each partition that is read: name one with --partition.
The file appears under its name when it is whole. A killed export leaves FILE.partial, which the next one writes anew.

  parquet   topic, partition, offset, timestamp (µs, UTC), key and value (bytes), headers (a list of key and value)
  csv       partition, offset, timestamp, key, key_base64, value, value_base64, headers (JSON). Null is nothing, empty is
            \"\"; what is no UTF-8 stands in the base64 column
  ndjson    as consume --format json

  tidelog export app -o app.parquet
  tidelog export app --from -1h -o - --format csv | head")]
pub struct Args {
    /// The topic
    topic: String,
    /// The file to write; `-` is stdout
    #[arg(short = 'o', long = "to", value_name = "FILE")]
    file: PathBuf,
    /// What to write
    #[arg(long, value_name = "FORM")]
    format: Option<Form>,
    /// Only this partition; may be given more than once
    #[arg(long, value_name = "P")]
    partition: Vec<u32>,
    /// Where to begin: start, end, an offset, or a TIME
    #[arg(long, value_name = "POSITION", default_value = "start", value_parser = parse_position, allow_hyphen_values = true)]
    from: Position,
    /// Where to end: end, an offset (not read itself), or a TIME
    #[arg(long, value_name = "POSITION", default_value = "end", value_parser = until, allow_hyphen_values = true)]
    until: Position,
    /// Codec of a Parquet file
    #[arg(long, value_name = "CODEC", default_value = "zstd")]
    compression: Compression,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
}

/// Forms of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// One Parquet file
    Parquet,
    /// Comma-separated values with a line of headings
    Csv,
    /// A JSON object a line
    Ndjson,
}

pub async fn run(context: &Context, args: Args) -> Outcome {
    let form = form(&args)?;
    let to_stdout = args.file == Path::new("-");
    if !to_stdout && !args.force && fs::symlink_metadata(&args.file).is_ok() {
        let file = args.file.display();
        return Err(Failure::Failed(format!("{file} is there already: --force replaces it")));
    }
    let log = context.open_existing().await?;
    let partitions = partitions(&log, &args).await?;
    let target = Target::create(&args.file, to_stdout)?;
    let rows = target.write(form, &args, &log, &partitions).await?;
    let bytes = target.finish()?;
    if to_stdout {
        return Ok(());
    }
    let (topic, file) = (&args.topic, args.file.display().to_string());
    let words = format!("{file}: {rows} records of {topic}, {}", show_bytes(bytes));
    context.done(&words, &json!({"file": file, "topic": topic, "records": rows, "bytes": bytes}))
}

fn form(args: &Args) -> Result<Form, Failure> {
    let ending = args.file.extension().and_then(|ending| ending.to_str());
    let form = args.format.or(match ending {
        Some("parquet") => Some(Form::Parquet),
        Some("csv") => Some(Form::Csv),
        Some("ndjson" | "jsonl") => Some(Form::Ndjson),
        _ => None,
    });
    form.ok_or_else(|| {
        let file = args.file.display();
        Failure::Usage(format!("{file} ends in neither .parquet, .csv nor .ndjson: say --format"))
    })
}

/// The partitions that are wanted, as of now.
async fn partitions(log: &Log, args: &Args) -> Result<Vec<PartitionDescription>, Failure> {
    let found = log.admin().describe_topic(&args.topic).await?.partitions;
    let count = found.len();
    if let Some(unknown) = args.partition.iter().find(|number| **number as usize >= count) {
        let topic = &args.topic;
        return Err(Failure::Failed(format!(
            "{topic} has no partition {unknown}: it has {count}, from 0 on"
        )));
    }
    let is_wanted =
        |p: &PartitionDescription| args.partition.is_empty() || args.partition.contains(&p.partition);
    Ok(found.into_iter().filter(is_wanted).collect())
}

/// Where the rows go.
struct Target {
    out: File,
    /// What is written, and what it is to be called.
    names: Option<(PathBuf, PathBuf)>,
}

impl Target {
    fn create(file: &Path, to_stdout: bool) -> Result<Self, Failure> {
        if to_stdout {
            use std::os::fd::AsFd;
            let out = io::stdout().as_fd().try_clone_to_owned()?;
            return Ok(Self { out: out.into(), names: None });
        }
        let mut partial = file.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let out = File::create(&partial).map_err(|error| failed(&partial, &error))?;
        Ok(Self { out, names: Some((partial, file.to_owned())) })
    }

    async fn write(
        &self,
        form: Form,
        args: &Args,
        log: &Log,
        partitions: &[PartitionDescription],
    ) -> Result<u64, Failure> {
        let out = BufWriter::with_capacity(64 << 10, &self.out);
        let written = match form {
            Form::Parquet => {
                export(columns::Columns::new(out, &args.topic, args.compression)?, args, log, partitions)
                    .await
            }
            Form::Csv => export(csv::Csv::new(out)?, args, log, partitions).await,
            Form::Ndjson => export(Ndjson(out), args, log, partitions).await,
        };
        if let (Err(_), Some((partial, _))) = (&written, &self.names) {
            // The first error is the one to tell.
            let _ = fs::remove_file(partial);
        }
        written
    }

    /// The file has its name when this is done, whatever happens then.
    fn finish(self) -> Result<u64, Failure> {
        let Some((partial, file)) = self.names else { return Ok(0) };
        let done = || {
            self.out.sync_all()?;
            fs::rename(&partial, &file)?;
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
            Ok(self.out.metadata()?.len())
        };
        done().map_err(|error: io::Error| {
            // Gone already, if it was renamed.
            let _ = fs::remove_file(&partial);
            failed(&file, &error)
        })
    }
}

fn failed(file: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!("cannot write {}: {error}", file.display()))
}

/// A form's own part.
trait Rows {
    fn write(&mut self, message: &Message) -> io::Result<()>;
    /// The end of the file.
    fn finish(self) -> io::Result<()>;
}

struct Ndjson<W: Write>(W);

impl<W: Write> Rows for Ndjson<W> {
    fn write(&mut self, message: &Message) -> io::Result<()> {
        lines::write(&mut self.0, &message.topic, message.partition, &message.record)?;
        self.0.write_all(b"\n")
    }

    fn finish(mut self) -> io::Result<()> {
        self.0.flush()
    }
}

async fn export(
    mut rows: impl Rows,
    args: &Args,
    log: &Log,
    partitions: &[PartitionDescription],
) -> Result<u64, Failure> {
    let bar = bar(partitions);
    tell::beside(&bar);
    let mut interrupts = Interrupts::listen(None);
    let mut count = 0u64;
    let mut before = 0;
    for partition in partitions {
        let PartitionDescription { partition: number, log_start, high_watermark, .. } = *partition;
        // As of the start, so that a topic that grows comes to an end.
        let until = match args.until {
            Position::End => Position::Offset(high_watermark),
            other => other,
        };
        let consumer = log.consumer(&args.topic).partitions([number]).from(args.from).until(until);
        let mut consumer = consumer.build().await?;
        loop {
            let message = match consumer.next_message().now_or_never() {
                Some(message) if !interrupts.is_told() => message,
                Some(_) => return Err(Failure::Told(INTERRUPTED)),
                None => tokio::select! {
                    biased;
                    () = interrupts.told() => return Err(Failure::Told(INTERRUPTED)),
                    message = consumer.next_message() => message,
                },
            };
            let Some(message) = message else { break };
            let message = message?;
            rows.write(&message)?;
            count += 1;
            if count.is_multiple_of(SHOW_EVERY) {
                bar.set_position(before + message.record.offset.saturating_sub(log_start));
            }
        }
        before += high_watermark - log_start;
        bar.set_position(before);
    }
    rows.finish()?;
    bar.finish_and_clear();
    Ok(count)
}

fn bar(partitions: &[PartitionDescription]) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let total = partitions.iter().map(|p| p.high_watermark - p.log_start).sum();
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} records {per_sec} {eta}");
    ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
