//! What comes out: tables or JSON, errors, exit codes.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::{Value, json};
use tidelog_core::{Error, ErrorKind, Log};

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For programs: one JSON document
    Json,
    /// A query; `files` alone writes one
    #[value(hide = true)]
    Duckdb,
    /// The same for Polars
    #[value(hide = true)]
    Polars,
    /// The same for Spark
    #[value(hide = true)]
    Spark,
    /// A table's definition, for Athena
    #[value(hide = true)]
    Athena,
}

/// What every command is given.
#[derive(Debug)]
pub struct Context {
    /// The store's URL.
    pub store: String,
    /// How to print.
    pub output: Output,
}

/// Why a command did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// The command line cannot be meant so.
    Usage(String),
    /// What was asked for did not work.
    Failed(String),
    /// The log's own words.
    Log(Error),
    /// The reader of our output went away: not our failure.
    Pipe,
    /// Told already; exit with this code.
    Told(u8),
}

/// A command's end.
pub type Outcome = Result<(), Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Log(error)
    }
}

/// An error of writing to stdout.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Pipe,
            _ => Self::Failed(format!("cannot write the output: {error}")),
        }
    }
}

/// The exit code that an error stands for.
pub fn code(error: &Error) -> u8 {
    match error.kind() {
        ErrorKind::Retry => 3,
        ErrorKind::Fatal => 4,
        _ => 1,
    }
}

/// Tells the failure, and answers with its code.
pub fn exit(outcome: Outcome) -> ExitCode {
    let (code, words) = match outcome {
        Ok(()) | Err(Failure::Pipe) => return ExitCode::SUCCESS,
        Err(Failure::Told(code)) => return ExitCode::from(code),
        Err(Failure::Usage(words)) => (2, words),
        Err(Failure::Failed(words)) => (1, words),
        Err(Failure::Log(error)) => (code(&error), error.to_string()),
    };
    // Nobody may be there to read it.
    let _ = writeln!(io::stderr(), "tidelog: {words}");
    ExitCode::from(code)
}

impl Context {
    /// Opens the log, making it on first use.
    pub async fn open(&self) -> Result<Log, Failure> {
        Ok(Log::open(&self.store).await?)
    }

    /// Opens a log that must be there.
    pub async fn open_existing(&self) -> Result<Log, Failure> {
        Ok(Log::open_existing(&self.store).await?)
    }

    /// Whether JSON is wanted.
    pub fn json(&self) -> bool {
        self.output == Output::Json
    }

    /// Prints named values: one a line, or one object.
    pub fn fields(&self, fields: &[(&str, String)]) -> Outcome {
        if self.json() {
            let object: serde_json::Map<String, Value> =
                fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
            return print_json(&Value::Object(object));
        }
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let lines: String = fields.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect();
        print(&lines)
    }

    /// Says what was done: a sentence, or an object.
    pub fn done(&self, words: &str, json: &Value) -> Outcome {
        if self.json() { print_json(json) } else { print(&format!("{words}\n")) }
    }
}

/// Writes to stdout.
pub fn print(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Writes one document to stdout.
pub fn print_json(value: &Value) -> Outcome {
    print(&format!("{value:#}\n"))
}

/// Rows under headings, each column as wide as it must be; numbers to the right.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([headings[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let numeric: Vec<bool> = (0..headings.len())
        .map(|column| {
            let plain = |cell: &String| cell == "-" || cell.bytes().all(|byte| byte.is_ascii_digit());
            !rows.is_empty() && rows.iter().filter_map(|row| row.get(column)).all(plain)
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for ((cell, width), right) in cells.zip(&widths).zip(&numeric) {
            let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if *right { (pad.as_str(), "") } else { ("", pad.as_str()) };
            text.push_str(&format!("{before}{cell}{after}  "));
        }
        text.trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut headings.iter().copied());
    rows.iter().for_each(|row| text.push_str(&line(&mut row.iter().map(String::as_str))));
    text
}

/// `1.5 MB` and the like.
pub fn show_bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}
