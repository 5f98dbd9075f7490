//! `tidelog consume`: reads a topic's records to stdout.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::time::Duration;

use futures::FutureExt;
use tidelog_core::env::{SharedEnv, SystemEnv};
use tidelog_core::{Consumer, Log, Message, Position};

use crate::format::OutputFormat;
use crate::interrupt::Interrupts;
use crate::out::{Context, Failure, Outcome};
use crate::time::parse_position;

/// How often a group's offsets are stored on the way.
const STORE_EVERY: Duration = Duration::from_secs(1);
/// Records between two looks at the clock.
const LOOK_EVERY: u64 = 1_024;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A number below 100000000000 is an offset, from there on it is epoch milliseconds.
An offset must lie in each partition that is read: name one with --partition.
Without --until the command follows the topic until Ctrl-C, and with it ends where the position was when it started.
Ctrl-C or SIGTERM ends it in order: what was written counts, the group's offsets are stored, and it exits with
0. A second one ends it at once, with 130.
Two members of one group both get everything for now: sharing partitions among members is not there yet.

  tidelog consume app --until end --format json | jq .value
  tidelog consume app --from -1h --until end
  tidelog consume app --partition 0 --from 100 --max-records 10
  tidelog consume app --group billing")]
pub struct Args {
    /// The topic
    topic: String,
    /// Only this partition; may be given more than once
    #[arg(long, value_name = "P")]
    partition: Vec<u32>,
    /// Where to begin: start, end, an offset, or a TIME. A group's stored offset comes first
    #[arg(long, value_name = "POSITION", default_value = "start", value_parser = parse_position, allow_hyphen_values = true)]
    from: Position,
    /// Where to end: end, an offset (not read itself), or a TIME
    #[arg(long, value_name = "POSITION", value_parser = until, allow_hyphen_values = true)]
    until: Option<Position>,
    /// Begin at this group's stored offsets, and store them as records are written and at the end.
    /// Without a group nothing is written to the store
    #[arg(long, value_name = "G")]
    group: Option<String>,
    /// How records are written
    #[arg(long, default_value = "value")]
    format: OutputFormat,
    /// What stands between key and value of `--format keyed`
    #[arg(long, value_name = "TEXT", default_value = "\t", hide_default_value = true)]
    key_separator: String,
    /// End after so many records
    #[arg(long, value_name = "N")]
    max_records: Option<u64>,
}

/// A position that can be an end.
pub fn until(text: &str) -> Result<Position, String> {
    match parse_position(text)? {
        Position::Start => Err("the start is no end: use end, an offset or a TIME".to_owned()),
        position => Ok(position),
    }
}

pub async fn run(context: &Context, args: Args) -> Outcome {
    let log = context.open_existing().await?;
    let mut consumer = log.consumer(&args.topic).from(args.from);
    if !args.partition.is_empty() {
        let mut partitions = args.partition.clone();
        partitions.sort_unstable();
        partitions.dedup();
        consumer = consumer.partitions(partitions);
    }
    if let Some(until) = args.until {
        consumer = consumer.until(until);
    }
    if let Some(group) = &args.group {
        consumer = consumer.group(group);
    }
    let mut consumer = consumer.build().await?;
    let env = SystemEnv::shared();
    let positions: BTreeMap<u32, u64> = consumer.positions().into_iter().collect();
    let mut writer = Writer {
        out: BufWriter::with_capacity(64 << 10, io::stdout().lock()),
        // Where a group begins is stored, too, so that it is seen from the first moment.
        stored: BTreeMap::new(),
        flushed: positions.clone(),
        positions,
        stored_at: env.monotonic(),
        log,
        env,
        args,
    };
    let outcome = follow(&mut consumer, &mut writer).await;
    // What was flushed was handed over, whatever ended the command.
    let flushed = writer.flush();
    let stored = writer.store().await;
    outcome.and(flushed).and(stored)
}

struct Writer {
    out: BufWriter<StdoutLock<'static>>,
    log: Log,
    env: SharedEnv,
    args: Args,
    /// Next offsets behind what was written, …
    positions: BTreeMap<u32, u64>,
    /// … flushed …
    flushed: BTreeMap<u32, u64>,
    /// … and stored for the group.
    stored: BTreeMap<u32, u64>,
    stored_at: Duration,
}

async fn follow(consumer: &mut Consumer, writer: &mut Writer) -> Outcome {
    let mut interrupts = Interrupts::listen(None);
    let mut count = 0u64;
    while writer.args.max_records.is_none_or(|most| count < most) && !interrupts.is_told() {
        let message = match consumer.next_message().now_or_never() {
            Some(message) => message,
            None => {
                writer.flush()?;
                let nap = writer.env.sleep(STORE_EVERY);
                tokio::select! {
                    biased;
                    message = consumer.next_message() => message,
                    () = interrupts.told() => return Ok(()),
                    () = nap => {
                        writer.store().await?;
                        continue;
                    }
                }
            }
        };
        let Some(message) = message else { return Ok(()) };
        writer.write(&message?)?;
        count += 1;
        if count.is_multiple_of(LOOK_EVERY) && writer.is_due() {
            writer.flush()?;
            writer.store().await?;
        }
    }
    Ok(())
}

impl Writer {
    fn write(&mut self, message: &Message) -> Outcome {
        self.args.format.write(&mut self.out, message, self.args.key_separator.as_bytes())?;
        self.positions.insert(message.partition, message.record.offset + 1);
        Ok(())
    }

    fn flush(&mut self) -> Outcome {
        self.out.flush()?;
        self.flushed.clone_from(&self.positions);
        Ok(())
    }

    fn is_due(&self) -> bool {
        self.args.group.is_some() && self.env.monotonic().saturating_sub(self.stored_at) >= STORE_EVERY
    }

    /// Stores what was handed over since the last time.
    async fn store(&mut self) -> Result<(), Failure> {
        let Some(group) = &self.args.group else { return Ok(()) };
        self.stored_at = self.env.monotonic();
        let news =
            |(p, offset): (&u32, &u64)| (self.stored.get(p) != Some(offset)).then_some((*p, Some(*offset)));
        let offsets: Vec<_> = self.flushed.iter().filter_map(news).collect();
        if !offsets.is_empty() {
            self.log.admin().store_offsets(group, &self.args.topic, &offsets).await?;
            self.stored.clone_from(&self.flushed);
        }
        Ok(())
    }
}
