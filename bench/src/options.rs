//! What the benches are asked: the same few options for all.

use std::path::PathBuf;

use tidelog_core::Compression;

use crate::Fallible;

/// Options of a bench.
#[derive(Debug, Clone)]
pub struct Options {
    /// A file of lines; none: made up.
    pub lines: Option<PathBuf>,
    /// Rounds of each pair.
    pub rounds: usize,
    /// Partitions that the lines are dealt out to.
    pub partitions: u32,
    /// The one codec to measure; none: those of the bench.
    pub codec: Option<Compression>,
    /// Records of one round.
    pub records: usize,
    /// Where the functions lie: `ingest/bootstrap` and `fetch/bootstrap`.
    pub functions: Option<PathBuf>,
    /// Where `merge` leaves a merged log for other readers.
    pub store: Option<PathBuf>,
}

impl Options {
    /// From the command line; `rounds` and `records` unless set there.
    pub fn from_args(rounds: usize, records: usize) -> Fallible<Self> {
        Self::parse(std::env::args().skip(1), rounds, records)
    }

    /// The same behind the name of a bench.
    pub fn with_bench(rounds: usize, records: usize) -> Fallible<(String, Self)> {
        let mut arguments = std::env::args().skip(1);
        let bench = arguments.next().unwrap_or_default();
        Ok((bench, Self::parse(arguments, rounds, records)?))
    }

    fn parse(mut arguments: impl Iterator<Item = String>, rounds: usize, records: usize) -> Fallible<Self> {
        let (lines, functions, store, codec) = (None, None, None, None);
        let mut options = Self { lines, rounds, partitions: 1, codec, records, functions, store };
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--lines" => options.lines = Some(value.into()),
                "--codec" => options.codec = Some(value.parse()?),
                "--store" => options.store = Some(value.into()),
                "--functions" => options.functions = Some(value.into()),
                "--rounds" => options.rounds = value.parse::<usize>()?.max(1),
                "--partitions" => options.partitions = value.parse::<u32>()?.max(1),
                "--records" => options.records = value.parse::<usize>()?.max(1),
                _ => return Err(format!("unknown option {name}").into()),
            }
        }
        Ok(options)
    }
}
