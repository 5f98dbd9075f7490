//! `tidelog produce`: ships lines of files to a topic.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tidelog_core::append::{Acked, Tag};
use tidelog_core::counting::{CountingStore, CountingTable};
use tidelog_core::env::SystemEnv;
use tidelog_core::ledger::action::{IdentityKind, ProducerKey};
use tidelog_core::metrics::{Metric, SharedMetrics, Totals};
use tidelog_core::store::{Store, StoreUrl};
use tidelog_core::text::{Format, Line};
use tidelog_core::{Compression, Error, ErrorKind, Log, Producer};

use crate::acks::Accounts;
use crate::format::InputFormat;
use crate::interrupt::{INTERRUPTED, Interrupts};
use crate::lines::{Brought, Placed, read_ahead};
use crate::out::{Context, Failure, Outcome, code, print_json, show_bytes};
use crate::tell::{self, tell};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A line that is no record is reported as FILE:LINE: REASON, the others are kept, and the command exits with 1.
A record counts as sent when it is durable and readable: only then is it in --acks-out and in `acked` of the summary.
Ctrl-C or SIGTERM ends the reading: what was read is sent and acked, the summary printed, and the command exits with 130. A second
Ctrl-C ends it at once; what was not acked by then may be in the log or not.

  tidelog produce app app.log --producer-id host-7    # and again after a crash
  tidelog produce app --format ndjson < records.ndjson
  journalctl -f | tidelog produce app")]
pub struct Args {
    /// The topic
    topic: String,
    /// Files to read, one after the other; stdin without any, or for `-`
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How a line is read
    #[arg(long, default_value = "lines")]
    format: InputFormat,
    /// What stands between key and value in `--format keyed`; a tab unless set
    #[arg(long, value_name = "TEXT", default_value = "\t", hide_default_value = true)]
    key_separator: String,
    /// How long a record waits for company
    #[arg(long, value_name = "MS", default_value_t = tidelog_core::limits::LINGER_MS_DEFAULT)]
    linger_ms: u64,
    /// none, lz4, snappy or zstd; the topic's unless set
    #[arg(long, value_name = "CODEC", value_parser = compression)]
    compression: Option<Compression>,
    /// Flushes up to this size ride inside their commit; 0 writes every record to a segment
    #[arg(long, value_name = "BYTES", default_value_t = tidelog_core::limits::INLINE_BYTES_MAX)]
    inline_bytes_max: usize,
    /// Do not merge, trim and sweep beside writing: leave that to others
    #[arg(long)]
    no_upkeep: bool,
    /// Exact restart: remember in the log how far each file was shipped. The same command run again goes on where the
    /// last run's records end, in the same partition. A file may grow, but must not change before that place; each
    /// file needs a name of its own for each NAME
    #[arg(long, value_name = "NAME")]
    producer_id: Option<String>,
    /// Write {file, line, partition, offset} of each acked record as NDJSON, in the order of the acks, before the next
    /// commit
    #[arg(long, value_name = "FILE")]
    acks_out: Option<PathBuf>,
    /// Keep the requests made so far in this file
    #[arg(long, value_name = "FILE", hide = true)]
    counts_out: Option<PathBuf>,
}

fn compression(text: &str) -> Result<Compression, Error> {
    text.parse()
}

/// Opens the log so that its requests are counted.
pub async fn open_counting(
    url: &str,
    metrics: SharedMetrics,
) -> Result<(Log, CountingTable, CountingStore), Error> {
    let env = SystemEnv::shared();
    let url: StoreUrl = url.parse()?;
    let mut store = Store::open(&url, env.clone(), url.made_on_first_use()).await?;
    let table = CountingTable::new(store.table.clone());
    store.table = Arc::new(table.clone());
    let mut objects = None;
    store.objects = store.objects.clone().wrapped(|inner| {
        let counting = CountingStore::new(inner);
        objects = Some(counting.clone());
        Arc::new(counting)
    });
    let log = Log::builder().env(env).metrics(metrics).open_store(store).await?;
    let objects = objects.ok_or(Error::Closed { what: "the object store" })?;
    Ok((log, table, objects))
}

pub async fn run(context: &Context, args: Args) -> Outcome {
    check(&args)?;
    let totals = Totals::default();
    let (log, table, objects) = open_counting(&context.store, Arc::new(totals.clone())).await?;
    // Told before anything is read from a pipe.
    log.admin().describe_topic(&args.topic).await?;
    let acks = args.acks_out.as_ref().map(|path| {
        File::create(path)
            .map_err(|error| Failure::Failed(format!("cannot write {}: {error}", path.display())))
    });
    let accounts = Accounts::new(acks.transpose()?);
    let (hook, counts_out) = (accounts.clone(), args.counts_out.clone());
    let told = move |batches: &[Acked<'_>]| {
        hook.landed(batches);
        if let Some(path) = &counts_out {
            // For the demo's bill only; the next flight tries again.
            let _ = std::fs::write(path, counts_json(&table, &objects).to_string());
        }
    };
    let producer = log.producer().lead(true).upkeep(!args.no_upkeep).linger_ms(args.linger_ms);
    let mut producer = producer.inline_bytes_max(args.inline_bytes_max).on_ack(told);
    if let Some(compression) = args.compression {
        producer = producer.compression(compression);
    }
    let producer = producer.build()?;
    let bar = bar(&args.files);
    tell::beside(&bar);
    let mut interrupts = Interrupts::listen(Some(
        "interrupted: waiting for the acks of what was read; Ctrl-C again ends at once",
    ));
    let env = SystemEnv::shared();
    let began = env.monotonic();
    let mut shipping = Shipping {
        args: &args,
        log: &log,
        producer: &producer,
        accounts,
        bar,
        totals,
        bytes: 0,
        rejected: 0,
    };
    // A line that waits for room in the buffer is not sent; one that was accepted is.
    let outcome = tokio::select! {
        biased;
        () = interrupts.told() => None,
        outcome = shipping.files() => Some(outcome),
    };
    let closed = producer.close().await;
    shipping.bar.finish_and_clear();
    shipping.summary(context, env.monotonic().saturating_sub(began))?;
    let interrupted = outcome.is_none();
    outcome.transpose()?;
    closed?;
    shipping.verdict(interrupted)
}

/// Requests as the demo adds them up.
pub fn counts_json(table: &CountingTable, objects: &CountingStore) -> serde_json::Value {
    let (table, objects) = (table.counts(), objects.counts());
    json!({
        "object_puts": objects.puts, "object_gets": objects.gets + objects.heads, "object_lists": objects.lists,
        "table_requests": table.requests(), "write_units": table.write_units, "read_half_units": table.read_half_units,
    })
}

fn check(args: &Args) -> Outcome {
    let usage = |words: &str| Err(Failure::Usage(words.to_owned()));
    if args.key_separator.is_empty() {
        return usage("--key-separator must not be empty");
    }
    let stdin = args.files.iter().filter(|file| file.as_os_str() == "-").count();
    if args.producer_id.is_some() && (args.files.is_empty() || stdin > 0) {
        return usage(
            "--producer-id needs files: a sequence is a byte position in a file, and stdin cannot be read from there again",
        );
    }
    if args.producer_id.as_ref().is_some_and(String::is_empty) {
        return usage("--producer-id must not be empty");
    }
    let mut names = args.files.clone();
    names.sort();
    names.dedup();
    if names.len() < args.files.len() && (args.producer_id.is_some() || stdin > 1) {
        return usage("a file is named twice");
    }
    Ok(())
}

/// Progress on a terminal, nothing elsewhere.
fn bar(files: &[PathBuf]) -> ProgressBar {
    if !io::stderr().is_terminal() || io::stdin().is_terminal() && files.is_empty() {
        return ProgressBar::hidden();
    }
    let size = |file: &PathBuf| {
        std::fs::metadata(file).ok().filter(|found| found.is_file()).map(|found| found.len())
    };
    let total: Option<u64> = files.iter().map(size).sum();
    match total.filter(|total| *total > 0) {
        Some(total) => {
            let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
            ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        }
        None => ProgressBar::new_spinner(),
    }
}

struct Shipping<'a> {
    args: &'a Args,
    log: &'a Log,
    producer: &'a Producer,
    accounts: Accounts,
    bar: ProgressBar,
    totals: Totals,
    bytes: u64,
    rejected: u64,
}

/// A file's place in the log.
struct Place {
    key: ProducerKey,
    partition: u32,
    /// Byte position behind the last line that is in the log.
    done: u64,
}

impl Shipping<'_> {
    async fn files(&mut self) -> Outcome {
        if self.args.files.is_empty() {
            return self.ship("<stdin>", io::stdin(), None).await;
        }
        for path in &self.args.files {
            if self.accounts.is_broken() {
                break;
            }
            let name = path.to_string_lossy();
            if path.as_os_str() == "-" {
                self.ship("<stdin>", io::stdin(), None).await?;
                continue;
            }
            match File::open(path) {
                Ok(file) => {
                    let place = self.place(path).await?;
                    self.ship(&name, file, place).await?;
                }
                Err(error) => self.reject(&format!("{name}: {error}")),
            }
        }
        Ok(())
    }

    fn format(&self) -> Format<'_> {
        self.args.format.with_separator(self.args.key_separator.as_bytes())
    }

    /// Where the log has this file, if it is to know.
    async fn place(&self, path: &std::path::Path) -> Result<Option<Place>, Failure> {
        let Some(id) = &self.args.producer_id else { return Ok(None) };
        let name = [id.as_bytes(), &[0], path.as_os_str().as_encoded_bytes()].concat();
        let producer = xxhash_rust::xxh3::xxh3_128(&name);
        let key = ProducerKey { kind: IdentityKind::Monotone, producer };
        let place = self.log.fresh_view(|view| {
            let (_, topic) = view.topic_or_unknown(&self.args.topic)?;
            let last = |p: &tidelog_core::ledger::view::Partition| {
                p.producers.get(&key).and_then(|known| known.window.back()).map(|window| window.last)
            };
            let known = topic.partitions.iter().zip(0..).find_map(|(p, number)| Some((number, last(p)?)));
            let (partition, done) =
                known.unwrap_or_else(|| ((producer % topic.partitions.len().max(1) as u128) as u32, 0));
            Ok::<_, Error>(Place { key, partition, done })
        });
        Ok(Some(place.await??))
    }

    async fn ship(&mut self, name: &str, from: impl Read + Send + 'static, place: Option<Place>) -> Outcome {
        let name: Arc<str> = name.into();
        let skip = place.as_ref().map_or(0, |place| place.done);
        let mut reader = read_ahead(from, self.format().line_bytes_max(), skip);
        let mut at = 0;
        while let Some(brought) = reader.recv().await {
            match brought {
                Brought::Skipped { enough: true, position } => {
                    tell(&format!("{name}: resumed at byte {position}"));
                    self.bar.inc(position);
                    at = position;
                }
                Brought::Skipped { enough: false, position } => self.reject(&format!(
                    "{name}: {skip} bytes of it are in the log, but it has only {position}: it is another file now; give it another name or --producer-id"
                )),
                Brought::Failed { number, error } => self.reject(&format!("{name}:{number}: {error}")),
                Brought::Lines(lines) => {
                    for placed in lines {
                        if self.accounts.is_broken() {
                            return Ok(());
                        }
                        self.bytes += placed.position - at;
                        self.bar.inc(placed.position - at);
                        at = placed.position;
                        let number = placed.number;
                        if let Err(reason) = self.line(&name, placed, place.as_ref()).await? {
                            self.reject(&format!("{name}:{number}: {reason}"));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends a line, or says why it is no record.
    async fn line(
        &self,
        name: &Arc<str>,
        placed: Placed,
        place: Option<&Place>,
    ) -> Result<Result<(), String>, Failure> {
        let line = match placed.line {
            Line::Bytes(line) => line,
            Line::TooLong(size) => {
                let (field, limit) = ("line", self.format().line_bytes_max() as u64);
                return Ok(Err(Error::TooLarge { field, size, limit }.to_string()));
            }
        };
        let (record, partition) = match self.format().parse(line) {
            Ok(parsed) => parsed,
            Err(refused) => return Ok(Err(refused.to_string())),
        };
        let tag = place.map(|place| Tag { key: place.key, epoch: 0, sequence: placed.position });
        let partition = place.map(|place| place.partition).or(partition);
        let accepted = |partition| self.accounts.accepted(partition, name, placed.number);
        match self.producer.enqueue_with(&self.args.topic, partition, record, tag, accepted).await {
            // The hook hears of it.
            Ok(_) => Ok(Ok(())),
            Err(error @ Error::UnknownPartition { .. }) => Ok(Err(error.to_string())),
            Err(error) if error.kind() == ErrorKind::Invalid => Ok(Err(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    fn reject(&mut self, words: &str) {
        self.rejected += 1;
        tell(words);
    }

    fn summary(&self, context: &Context, took: Duration) -> Outcome {
        let account = self.accounts.lock();
        let (acked, duplicates, failed) = (account.acked, account.duplicates, account.failed);
        drop(account);
        let seconds = took.as_secs_f64().max(1e-6);
        let (records, rate) = (acked + failed, acked as f64 / seconds);
        let (commits, acks) = (self.totals.of(Metric::CommitUs), self.totals.of(Metric::AckUs));
        let (conflicts, segments) =
            (self.totals.of(Metric::Conflicts).sum, self.totals.of(Metric::UploadUs).count);
        // From the first record of a flight until its answer, the mean of all flights.
        let ack_ms = acks.sum as f64 / 1e3 / acks.count.max(1) as f64;
        if context.json() {
            return print_json(&json!({
                "records": records, "bytes": self.bytes, "seconds": seconds, "records_per_second": rate,
                "acked": acked, "duplicates": duplicates, "rejected": self.rejected, "failed": failed,
                "commits": commits.count, "conflicts": conflicts, "segments": segments, "ack_ms": ack_ms,
            }));
        }
        let (bytes, bytes_rate) = (show_bytes(self.bytes), show_bytes((self.bytes as f64 / seconds) as u64));
        let mut words = format!(
            "{records} records, {bytes} in {seconds:.2} s ({rate:.0} records/s, {bytes_rate}/s): acked {acked}, rejected {}",
            self.rejected
        );
        for (count, what) in [(failed, "failed"), (duplicates, "in the log before")] {
            if count > 0 {
                words.push_str(&format!(", {count} {what}"));
            }
        }
        words
            .push_str(&format!("; {segments} segments, {} commits, {ack_ms:.1} ms to an ack", commits.count));
        tell(&words);
        Ok(())
    }

    fn verdict(&self, interrupted: bool) -> Outcome {
        let account = self.accounts.lock();
        if let Some((at, error)) = &account.error {
            tell(&format!("{at}: {error}"));
            return Err(Failure::Told(code(error)));
        }
        if let Some(error) = &account.out_error {
            return Err(Failure::Failed(format!("cannot write the acks: {error}")));
        }
        match (interrupted, self.rejected) {
            (true, _) => Err(Failure::Told(INTERRUPTED)),
            (false, 0) => Ok(()),
            (false, _) => Err(Failure::Told(1)),
        }
    }
}
