//! `tidelog files`: the exact list of a topic's merged segments, as a list or as a query of an engine.

mod athena;
mod query;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{self, Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tidelog_core::files::{AsOf, FileList, OffsetRange};
use tidelog_core::limits::PARTITIONS_PER_TOPIC_MAX;
use tidelog_core::segment::merged::MergedSegment;
use tidelog_core::store::{Place, StoreUrl};
use tidelog_core::{Error, Log};

use crate::interrupt::{INTERRUPTED, Interrupts};
use crate::out::{Context, Failure, Outcome, Output, print, print_json, table};
use crate::tell;
use crate::time::{EPOCH_MS_MIN, parse_time};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
What `tidelog upkeep` merged lies under topics/ as Parquet files, for any engine. A glob over that folder may count twice:
it also finds files that were not committed, and those that larger ones replaced an hour ago or less. This list has each
record once, from log start on. Where a file also holds records that are not in the list, the query says which are. What is
listed can be read for an hour at least, whatever upkeep does.

Without --as-of the list ends at the end. With offsets (0:1200,1:900) it ends before them, and has nothing of a partition
that is not named; with a TIME before the first record of each partition that was appended later.

--output  table, json, or a query:
  duckdb  a SELECT, to be used as it is, in parentheses, or in CREATE VIEW
  polars  Python that makes the LazyFrame `frame`
  spark   Python that makes the DataFrame `frame` of the session `spark`
  athena  CREATE EXTERNAL TABLE over all that is there: not exact, see its first lines

  tidelog files app
  duckdb -c \"SELECT count(*) FROM ($(tidelog files app --output duckdb))\"
  tidelog files app --as-of 2026-01-31T12:00:00Z --materialize rest --output duckdb")]
pub struct Args {
    /// The topic
    topic: String,
    /// Where the list ends: end, PARTITION:OFFSET,… (not in the list themselves), or a TIME of appending
    #[arg(long, value_name = "OFFSETS|TIME|end", default_value = "end", value_parser = parse_as_of, allow_hyphen_values = true)]
    as_of: AsOf,
    /// Write what is not merged yet as Parquet files into this folder, which must be new or empty, and list them, too
    #[arg(long, value_name = "DIR")]
    materialize: Option<PathBuf>,
}

/// A file as an engine finds it.
struct Source {
    path: String,
    bytes: u64,
    /// Only these of its records are meant.
    straddles: bool,
    ranges: Vec<OffsetRange>,
}

fn parse_as_of(text: &str) -> Result<AsOf, String> {
    if text == "end" {
        return Ok(AsOf::End);
    }
    let is_offsets = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':' || byte == b',');
    if !is_offsets || !text.contains(':') {
        // An offset alone: of which partition?
        let is_number = text.parse::<u64>().is_ok_and(|number| number < EPOCH_MS_MIN);
        let time = match is_number {
            true => Err(format!("{text} is no time")),
            false => parse_time(text, &tidelog_core::env::SystemEnv::shared()),
        };
        let words = |error| format!("neither end nor offsets (0:1200,1:900), and {error}");
        return time.map(AsOf::Time).map_err(words);
    }
    let mut offsets = BTreeMap::new();
    for one in text.split(',') {
        let (partition, offset) =
            one.split_once(':').ok_or_else(|| format!("{one:?} is not PARTITION:OFFSET"))?;
        let partition: u32 = partition.parse().map_err(|_| format!("{partition:?} is no partition"))?;
        let offset: u64 = offset.parse().map_err(|_| format!("{offset:?} is no offset"))?;
        if offsets.insert(partition, offset).is_some() {
            return Err(format!("partition {partition} is named twice"));
        }
        if offsets.len() > PARTITIONS_PER_TOPIC_MAX as usize {
            return Err(format!("more than {PARTITIONS_PER_TOPIC_MAX} partitions"));
        }
    }
    Ok(AsOf::Offsets(offsets))
}

pub async fn run(context: &Context, args: Args) -> Outcome {
    if context.output == Output::Athena && (args.as_of != AsOf::End || args.materialize.is_some()) {
        let words =
            "a table of Athena is over all files: --as-of and --materialize are for the other outputs";
        return Err(Failure::Usage(words.into()));
    }
    let log = context.open_existing().await?;
    let place = place(&log.store().url)?;
    let list = log.files(&args.topic, &args.as_of).await?;
    let mut sources = sources(&list, &place);
    let mut rest = list.rest.clone();
    if let Some(folder) = &args.materialize {
        sources.extend(materialize(&log, &list, folder).await?);
        rest.clear();
    }
    let left: u64 = rest.iter().map(|range| range.end - range.base).sum();
    let query = match context.output {
        Output::Table => return print(&to_text(&sources, &rest)),
        Output::Json => return print_json(&to_json(&list, &sources, &rest)),
        Output::Duckdb => query::duckdb(&sources),
        Output::Polars => query::polars(&sources),
        Output::Spark => query::spark(&sources),
        Output::Athena => athena::table(&list, &place)?,
    };
    print(&query)?;
    if left > 0 && context.output != Output::Athena {
        let words = "are not merged yet, and not in this query: --materialize writes them, too";
        tell::tell(&format!("{left} records of {} {words}", args.topic));
    }
    Ok(())
}

/// What the names of objects are appended to, for engines.
fn place(url: &StoreUrl) -> Result<String, Failure> {
    match &url.place {
        Place::Folder(folder) => Ok(format!("{}/", absolute(folder)?)),
        Place::S3(s3) if s3.prefix.is_empty() => Ok(format!("s3://{}/", s3.bucket)),
        Place::S3(s3) => Ok(format!("s3://{}/{}/", s3.bucket, s3.prefix)),
        _ => Err(Failure::Failed(format!("no engine can open the files of {url}"))),
    }
}

fn absolute(folder: &Path) -> Result<String, Failure> {
    let absolute = path::absolute(folder).map_err(|error| failed(folder, &error))?;
    let text = absolute.to_str().map(|text| text.trim_end_matches('/').to_owned());
    let words = || format!("{} is not UTF-8: a query cannot name it", folder.display());
    text.ok_or_else(|| Failure::Failed(words()))
}

fn failed(file: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!("cannot write {}: {error}", file.display()))
}

fn sources(list: &FileList, place: &str) -> Vec<Source> {
    let source = |file: &tidelog_core::files::ListedFile| Source {
        path: format!("{place}{}", file.name),
        bytes: file.bytes,
        straddles: file.straddles,
        ranges: file.ranges.clone(),
    };
    list.files.iter().map(source).collect()
}

/// Writes the rest into `folder`. What was written goes again if not all of it could be.
async fn materialize(log: &Log, list: &FileList, folder: &Path) -> Result<Vec<Source>, Failure> {
    let prefix = absolute(folder)?;
    let is_new = match fs::read_dir(folder) {
        Ok(mut entries) => match entries.next() {
            None => false,
            Some(_) => return Err(Failure::Failed(format!("{} is not empty", folder.display()))),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir(folder).map_err(|error| failed(folder, &error))?;
            true
        }
        Err(error) => return Err(failed(folder, &error)),
    };
    let total = list.rest.iter().map(|range| range.end - range.base).sum();
    let bar = match io::stderr().is_terminal() {
        true => {
            let style = ProgressStyle::with_template("{bar:40} {pos}/{len} records {per_sec} {eta}");
            ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        }
        false => ProgressBar::hidden(),
    };
    tell::beside(&bar);
    let mut written: Vec<PathBuf> = Vec::new();
    let mut sources = Vec::new();
    let mut broken = None;
    let mut interrupts = Interrupts::listen(None);
    let done = {
        let write = |segment: MergedSegment| {
            let name = format!("rest-{:05}.parquet", written.len() + 1);
            let path = folder.join(&name);
            written.push(path.clone());
            put(&path, &segment).map_err(|error| {
                broken = Some(failed(&path, &error));
                Error::Closed { what: "the folder" }
            })?;
            sources.push(Source {
                path: format!("{prefix}/{name}"),
                bytes: segment.file_bytes(),
                straddles: false,
                ranges: segment.ranges.iter().map(range_of).collect(),
            });
            Ok(())
        };
        tokio::select! {
            biased;
            () = interrupts.told() => Err(Failure::Told(INTERRUPTED)),
            done = log.write_rest(list, |records| bar.set_position(records), write) => done.map_err(Failure::from),
        }
    };
    bar.finish_and_clear();
    let synced = || File::open(folder)?.sync_all();
    let done = done.and_then(|_| synced().map_err(|error| failed(folder, &error)));
    if let Err(failure) = done {
        // The first error is the one to tell.
        written.iter().for_each(|path| drop(fs::remove_file(path)));
        if is_new {
            let _ = fs::remove_dir(folder);
        }
        return Err(broken.unwrap_or(failure));
    }
    Ok(sources)
}

fn put(path: &Path, segment: &MergedSegment) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    segment.parts.iter().try_for_each(|part| file.write_all(part))?;
    file.sync_all()
}

fn range_of(range: &tidelog_core::segment::merged::MergedRange) -> OffsetRange {
    OffsetRange { partition: range.partition, base: range.base, end: range.end }
}

fn to_text(sources: &[Source], rest: &[OffsetRange]) -> String {
    let row = |range: &OffsetRange, bytes: String, file: &str| {
        let OffsetRange { partition, base, end } = range;
        vec![partition.to_string(), base.to_string(), end.to_string(), bytes, file.to_owned()]
    };
    let mut rows = Vec::new();
    for source in sources {
        rows.extend(source.ranges.iter().map(|range| row(range, source.bytes.to_string(), &source.path)));
    }
    rows.extend(rest.iter().map(|range| row(range, "-".to_owned(), "(not merged yet)")));
    table(&["PARTITION", "BASE", "END", "BYTES", "FILE"], &rows)
}

fn to_json(list: &FileList, sources: &[Source], rest: &[OffsetRange]) -> Value {
    let range = |range: &OffsetRange| {
        let OffsetRange { partition, base, end } = range;
        json!({"partition": partition, "base": base, "end": end})
    };
    let ranges = |of: &[OffsetRange]| of.iter().map(range).collect::<Vec<_>>();
    let source = |source: &Source| {
        json!({
            "path": source.path, "bytes": source.bytes, "straddles": source.straddles, "ranges": ranges(&source.ranges),
        })
    };
    json!({
        "topic": list.topic, "topic_id": list.id.to_string(), "bounds": ranges(&list.bounds),
        "files": sources.iter().map(source).collect::<Vec<_>>(), "rest": ranges(rest),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_told_from_times() {
        let offsets = |pairs: &[(u32, u64)]| Ok(AsOf::Offsets(pairs.iter().copied().collect()));
        assert_eq!(parse_as_of("end"), Ok(AsOf::End));
        assert_eq!(parse_as_of("0:1200,1:900"), offsets(&[(0, 1_200), (1, 900)]));
        assert_eq!(parse_as_of("1970-01-01T00:00:01Z"), Ok(AsOf::Time(1_000_000)));
        assert_eq!(parse_as_of("1700000000000"), Ok(AsOf::Time(1_700_000_000_000_000)));
        for wrong in [
            "",
            "0:1,0:2",
            "0:",
            ":1",
            "0:1,",
            "0:1,5",
            "5",
            "4294967296:0",
            "0:18446744073709551616",
            "start",
            "0;1",
        ] {
            assert!(parse_as_of(wrong).is_err(), "{wrong}");
        }
    }
}
