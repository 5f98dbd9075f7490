//! Formats of `produce` and `consume` on the command line; the core's `text` reads and writes them.

use std::io::{self, Write};

use clap::ValueEnum;
use tidelog_core::Message;
use tidelog_core::text::{Format, json};

/// How `produce` reads a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// The line is the value, any bytes; an empty line is an empty value
    Lines,
    /// A JSON object: key, value (or key_base64, value_base64), timestamp (epoch ms), headers, partition
    Ndjson,
    /// Key, separator, value
    Keyed,
}

/// How `consume` writes a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// The value's bytes as they are, and a newline
    Value,
    /// A JSON object a line: topic, partition, offset, timestamp (epoch ms), key, value, headers
    Json,
    /// Key, separator, value, and a newline
    Keyed,
}

impl InputFormat {
    /// As the core knows it.
    pub fn with_separator(self, separator: &[u8]) -> Format<'_> {
        match self {
            Self::Lines => Format::Plain,
            Self::Ndjson => Format::Json,
            Self::Keyed => Format::Keyed(separator),
        }
    }
}

impl OutputFormat {
    /// Writes one record.
    pub fn write(self, out: &mut impl Write, message: &Message, separator: &[u8]) -> io::Result<()> {
        let record = &message.record;
        match self {
            Self::Value => out.write_all(record.value.as_deref().unwrap_or_default())?,
            Self::Keyed => {
                out.write_all(record.key.as_deref().unwrap_or_default())?;
                out.write_all(separator)?;
                out.write_all(record.value.as_deref().unwrap_or_default())?;
            }
            Self::Json => json::write(out, &message.topic, message.partition, record)?,
        }
        out.write_all(b"\n")
    }
}
